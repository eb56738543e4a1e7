"""The text that a chat template writes around a response, and the error of one that cannot be masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trueup.errors import ModelError
from trueup.system.text import excerpt

TEMPLATE_FIX = "fix: give the tokenizer a chat_template that only appends, or delete it to get the ChatML default"


class Frame(NamedTuple):
    """The text that a template writes around an assistant's response, e.g. the end token.

    Attributes:
        lead: the header of a response, where the template writes none for a generation prompt.
        before: white space that the model writes before a response.
        after: white space that it writes between a response and its end token.
        rest: all that the template writes after the last response.
        ends: (text, ids) of the end tokens after the last response, the longest first; empty where it writes none.
        between: the text of the end token that it writes only between turns; "" where there is none.
        end_id: id of the last end token.
        headers: ids of added tokens that begin other roles' headers, so that they end no response.
        plain: True if a response follows the generation prompt directly, apart from white space.
    """

    lead: str
    before: str
    after: str
    rest: str
    ends: tuple[tuple[str, tuple[int, ...]], ...]
    between: str
    end_id: int
    headers: frozenset[int]
    plain: bool

    def end_texts(self, added: Mapping[int, str]) -> set[str]:
        """Return the text of each end token that the template writes, `added` being {id: text} of the added tokens."""
        return {added[i] for _, ids in self.ends for i in ids} | ({self.between} - {""})

    def split(self, rest: str) -> tuple[str, str, tuple[int, ...]]:
        """Return the response in `rest`, the text after a generation header, and the text and ids of its end tokens.

        The text is "" if the template writes none.
        """
        for end_text, ids in self.ends:
            if (index := rest.find(end_text)) >= 0:
                return rest[:index], end_text, ids
        if not self.ends and rest.endswith(self.rest):
            return rest[: len(rest) - len(self.rest)], "", (self.end_id,)
        return rest.rstrip(), "", (self.end_id,)


def not_appending(header: str) -> ModelError:
    """Return the ModelError for a template that writes a prompt otherwise once it is answered."""
    return ModelError(
        "the chat template renders differently turn by turn: an answered prompt does not begin with the prompt,\n"
        f"  which ends {excerpt(header[-40:])}\n  {TEMPLATE_FIX}"
    )
