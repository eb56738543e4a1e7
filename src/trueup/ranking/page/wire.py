"""What the page sends and what it gets. The page knows A and B; which answer that was is worked out here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trueup.data.rendering.messages import Message
from trueup.data.votes.vote_types import (
    MOST_EDIT,
    MOST_NAME,
    MOST_NOTE,
    REASONS,
    STRENGTHS,
    Ballot,
    Choice,
    Pair,
    Side,
    Vote,
)
from trueup.ranking.page.markdown import plain, rendered

MOST_TOKEN = 200
"""Characters of a link's token at most."""
MOST_SECONDS = 1.0
"""Of this thread's work on the Markdown of one screen; after it texts are shown plain."""
MOST_TURNS, FIRST_TURNS, LAST_TURNS = 200, 20, 100
"""Of a prompt with more turns than the first number so many of the first and of the last are sent."""

Letter = Literal["a", "b"]
Said = Literal["a", "b", "tie", "both_bad", "skip"]

Request = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Joining(_Strict):
    """A visitor's name."""

    name: str = Field(min_length=1, max_length=MOST_NAME)


class Following(_Strict):
    """The token of a link, which a visitor who was somebody else means to follow."""

    token: str = Field(min_length=1, max_length=MOST_TOKEN)


class Voting(_Strict):
    """A rater's word on the pair on the screen; `a` is the print of the answer shown as A."""

    request: Request
    pair: int = Field(ge=1, le=2**53, strict=True)
    a: str = Field(max_length=64)
    choice: Said
    strength: int | None = Field(default=None, ge=min(STRENGTHS), le=max(STRENGTHS), strict=True)
    reasons: list[Literal[REASONS]] = Field(default_factory=list, max_length=len(REASONS))  # pyright: ignore[reportInvalidTypeForm] -- the store's own list
    note: str = Field(default="", max_length=MOST_NOTE)
    edit: str = Field(default="", max_length=MOST_EDIT)
    edit_of: Letter | None = None
    seconds: float | None = Field(default=None, ge=0, le=1e7, allow_inf_nan=False)


class Undoing(_Strict):
    """A rater takes the last vote back: `of`, by what the page knows; 0: it knows of none."""

    request: Request
    of: int | None = Field(default=None, ge=0, le=2**53, strict=True)


def print_of(text: str) -> str:
    """By what a vote names the answer that was A: so it counts for the words that were read, whatever changed since."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def left_of(pair: Pair, a: str, otherwise: Side) -> Side | None:
    """Which answer was A on the screen, by its print; `otherwise` where both say the same; None where neither does."""
    sides: list[Side] = [side for side in ("first", "second") if print_of(pair.answer(side).text) == a]
    return otherwise if len(sides) == 2 else next(iter(sides), None)


def ballot(said: Voting, left: Side) -> Ballot:
    """A vote in the store's sides."""
    preferred = said.choice in ("a", "b")
    edited = said.edit if said.edit.strip() else ""
    return Ballot(
        request=said.request,
        pair=said.pair,
        choice=_side(said.choice, left),
        strength=said.strength if preferred else None,
        reasons=tuple(dict.fromkeys(said.reasons)),
        note=said.note.strip(),
        edit=edited,
        edit_of=_side(said.edit_of, left) if edited and said.edit_of else None,
        seconds=said.seconds,
    )


def said_of(vote: Vote) -> dict[str, Any]:
    """A vote as the page knows it, to be shown again after an undo."""
    one = vote.ballot
    return {
        "choice": _letter(one.choice, vote.left),
        "strength": one.strength,
        "reasons": [reason for reason in one.reasons if reason in REASONS],
        "note": one.note,
        "edit": one.edit,
        "edit_of": _letter(one.edit_of, vote.left) if one.edit_of else None,
    }


def pair_view(pair: Pair, left: Side) -> dict[str, Any]:
    """A pair for the screen: no model, no gold, no origin."""
    a, b = pair.answer(left).text, pair.answer(_other(left)).text
    until = time.thread_time() + MOST_SECONDS
    answers = {"a": _text(a, until), "b": _text(b, until)}  # before the prompt: they are what is ranked
    return {"id": pair.id, "print": print_of(a), "turns": _turns(pair.prompt.messages, until), **answers}


def _turns(messages: tuple[Message, ...], until: float) -> list[dict[str, Any]]:
    """A prompt's messages for the screen, rendered from the last, which is answered, backwards."""
    if len(messages) <= MOST_TURNS:
        return _said(messages, until)
    last = _said(messages[-LAST_TURNS:], until)
    left_out = len(messages) - FIRST_TURNS - LAST_TURNS
    return [*_said(messages[:FIRST_TURNS], until), {"left_out": left_out}, *last]


def _said(messages: Iterable[Message], until: float) -> list[dict[str, Any]]:
    backwards = [{"role": one.role, **_text(one.content, until)} for one in reversed([*messages])]
    return backwards[::-1]


def writing_view(prompt: tuple[Message, ...], a: str, b: str) -> dict[str, Any]:
    """Two answers that are still being written."""
    return {"turns": _turns(prompt, time.thread_time() + MOST_SECONDS), "a": plain(a), "b": plain(b)}


def _text(text: str, until: float) -> dict[str, Any]:
    """`text` is what an edit starts from: none where it is longer than an edit may be. `until`: thread_time."""
    html = rendered(text) if time.thread_time() < until else None
    return {"text": text if len(text) <= MOST_EDIT else None, "html": html, "plain": plain(text)}


def _other(side: Side) -> Side:
    return "second" if side == "first" else "first"


def _side(letter: Any, left: Side) -> Any:
    return {"a": left, "b": _other(left)}.get(letter, letter)


def _letter(choice: Choice, left: Side) -> str:
    return {left: "a", _other(left): "b"}.get(choice, choice)
