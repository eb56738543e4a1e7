"""Encode text to token ids so that only the chat template can produce control tokens, e.g. <|im_end|>.

A `<|im_end|>` that a user typed must not end the turn, but a tokenizer cannot see who wrote it. So the contents of
messages are marked before the template renders them: inside every control token's text a cut is put, and the rendered
text is encoded piece by piece between the cuts. No piece holds the whole text of a control token, so it becomes the
ordinary tokens of its letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from trueup.data.rendering.messages import row_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A Unicode noncharacter, "never to be interchanged". Where a content holds one all the same, it is written _ESCAPED.
_SIGN = "\ufdd0"
_CUT, _ESCAPED = _SIGN + "1", _SIGN + "0"
MARK = _SIGN
"""Begins the marks by which contents are found in a rendered text (`spans.py`); "0" and "1" do not follow it there."""
_RARE = ("\ufdd0", "\U000bffff", "\ua66e", "\U00012000")  # noncharacters and rare letters that share no byte in UTF-8
_NEUTRAL = ("x", "\n", "0", ".")  # what text is encoded behind where only "not at the start" matters


def added_texts(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return {id: text} of the tokenizer's added tokens (e.g. <|im_end|>), which it matches before all others.

    Tokens of white space only are left out.
    """
    return {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}


class Encoder:
    """Encoder of text that a chat template rendered, in which the contents of messages cannot become control tokens.

    Args:
        tokenizer: the tokenizer.
        written: all text that its chat template writes around the contents of messages.

    Attributes:
        added: {id: text} of the added tokens, which the tokenizer matches before all others.
        controls: the added tokens that a content must not become: special ones, and those the template writes.
        unknown: ids that stand for characters that the vocabulary lacks, e.g. of <unk>; none where bytes are tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
        self.tokenizer = tokenizer
        self.added = added_texts(tokenizer)
        tokens = tokenizer.added_tokens_decoder
        self.controls = {
            i: text
            for i, text in self.added.items()
            if len(text) > 1 and (tokens[i].special or (text in written and re.search(r"[^\w\s]", text)))
        }
        self._fast = _has_plain_backend(tokenizer)
        # A token that is matched in normalised text can be spelled in ways that no pattern knows: then ids are counted.
        normalizer = cast("Any", tokenizer).backend_tokenizer.normalizer if self._fast else None
        self._counts = normalizer is not None and any(tokens[i].normalized for i in self.controls)
        self._texts = tuple(self.added.values())
        self._added = _any_of(text for text in self.added.values() if len(text) > 1)
        self._ids = {text: i for i, text in self.added.items()}
        self._heads: dict[str, list[int]] = {}
        # SentencePiece as Llama 2's puts a space before any text: "yes" alone is "▁yes", but after "\n" it is "yes".
        self._adds_space = self.ids("\na") != self.ids("\n") + self.ids("a")
        self._counted = self.controls.keys() - set(self.ids(_SIGN))  # without what stands for unknown characters
        often = Counter(i for text in _RARE for i in set(self.ids(text)))
        self.unknown = frozenset(i for i, count in often.items() if count > 1 and self._decode([i]).strip())
        self._kept: set[int] = set()  # hashes of the texts that `keeps` has found to be kept
        texts = self.controls.values()
        self._any = _any_of(texts)
        self._foreign = _any_of(text for text in texts if "think" not in text.lower())
        self._first = re.compile(f"(?=(?:{self._any.pattern}))(?s:.)")

    def held(self, content: str, *, assistant: bool = False) -> list[str]:
        """Return the texts of control tokens that a message's content spells, each time they occur.

        In an assistant's content, thinking tags such as <think> do not count.
        """
        return (self._foreign if assistant else self._any).findall(content)

    def mark(self, content: str, *, assistant: bool = False) -> str:
        """Return a message's content with a cut after the first character of each control token's text.

        `encode` splits the text there, so that no control token arises. In an assistant's content, thinking tags such
        as <think> are not cut.
        """
        pattern = self._foreign if assistant else self._any
        if pattern.search(content) is None and _SIGN not in content:
            return content
        content = content.replace(_SIGN, _ESCAPED)
        return self._first.sub(
            lambda match: match[0] + _CUT if pattern.match(content, match.start()) else match[0], content
        )

    def token_at(self, text: str, index: int) -> tuple[int, str] | None:
        """Return the (id, text) of the added token that begins at a position of a text; None if none does."""
        match = self._added.match(text, index)
        return (self._ids[match[0]], match[0]) if match else None

    def last_token(self, text: str) -> tuple[int, int, str] | None:
        """Return the (position, id, text) of the last added token in a text; None if it has none."""
        match = None
        for match in self._added.finditer(text):  # noqa: B007 (the last is wanted)
            pass
        return (match.start(), self._ids[match[0]], match[0]) if match else None

    @staticmethod
    def plain(text: str) -> str:
        """Return a text without the cuts that `mark` put into it."""
        return text.replace(_CUT, "").replace(_ESCAPED, _SIGN) if _SIGN in text else text

    def encode(self, text: str, *, after: str = "") -> list[int]:
        """Return the ids of a segment of marked text that follows the text `after`, but is not merged with its tokens.

        Raises:
            DataError: the tokenizer turns ordinary text into a control token.
        """
        if self._counts or _SIGN in text:
            return self._piecewise(text, after)
        return self._behind(text, self._anchors(after)) if after and self._adds_space else self.ids(text)

    def ids(self, text: str) -> list[int]:
        """Return `tokenizer(text, add_special_tokens=False)`, from the fast backend if there is one (half the time)."""
        if self._fast:
            backend = cast("Any", self.tokenizer).backend_tokenizer
            # What a call of somebody else's left switched on, the tokenizer itself switches off, as on every call.
            if backend.truncation is None and backend.padding is None and not backend.encode_special_tokens:
                # A batch of one: only batches can do without the offsets, which take a third of the time.
                return backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def read_back(self, content: str, *, assistant: bool = False) -> str:
        """Return the text that the tokens of a message's content are decoded to."""
        return self._decode(self.encode(self.mark(content, assistant=assistant)))

    def keeps(self, content: str, *, assistant: bool = False) -> bool:
        """Return True if the tokens of a message's content hold all of its characters but spaces.

        Canonically equivalent characters (Unicode's NFC) are the same. Line breaks count: one must be left if there are
        any. A text is compared only once.
        """
        key = hash(content)
        if key in self._kept:
            return True
        decoded = self.read_back(content, assistant=assistant)
        kept = decoded == content or (
            _visible(decoded) == _visible(content) and ("\n" in decoded or "\n" not in content.strip())
        )
        if kept:
            self._kept.add(key)
        return kept

    def is_unknown(self, content: str) -> bool:
        """Return True if no letter or digit of a message's content is in its tokens: they are unknown or dropped.

        Of a content without letters and digits, no character at all.
        """
        known = self._decode([i for i in self.encode(self.mark(content)) if i not in self.unknown])
        if any(map(str.isalnum, content)):
            return not any(map(str.isalnum, known))
        return not known.replace("\ufffd", "").strip()

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _piecewise(self, text: str, after: str) -> list[int]:
        ids: list[int] = []
        for number, marked in enumerate(text.split(_CUT)):
            piece = self.plain(marked)
            if self._adds_space and (after or number):
                piece_ids = self._behind(piece, _NEUTRAL if number else self._anchors(after))
            else:
                piece_ids = self.ids(piece)
            if sum(i in self._counted for i in piece_ids) > len(self._any.findall(piece)):
                fix = "take it out of the data: the tokenizer cannot write it as ordinary tokens"
                raise row_error(None, "a text becomes a control token", fix, piece)
            ids += piece_ids
        return ids

    def _anchors(self, after: str) -> Sequence[str]:
        if after.endswith(self._texts):
            return (next(token for token in self._texts if after.endswith(token)), *_NEUTRAL)
        return (self.plain(after[-2:])[-1:], *_NEUTRAL)

    def _behind(self, text: str, anchors: Sequence[str]) -> list[int]:
        for anchor in anchors:
            if anchor not in self._heads:
                self._heads[anchor] = self.ids(anchor)
            head, ids = self._heads[anchor], self.ids(anchor + text)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return self.ids(text)


def _visible(text: str) -> str:
    """Return a text in Unicode's NFC without its spaces and line breaks."""
    return "".join(unicodedata.normalize("NFC", text).split())


def first_change(text: str, decoded: str) -> tuple[str, str]:
    """Return the beginning of what differs in two texts (spaces apart), 40 characters of each, for a message.

    Where nothing but line breaks differs, it is what stands around the first one.
    """
    text, decoded = unicodedata.normalize("NFC", text.strip()), unicodedata.normalize("NFC", decoded.strip())
    places = [[index for index, char in enumerate(side) if not char.isspace()] for side in (text, decoded)]
    equal = 0
    for a, b in zip(*places, strict=False):
        if text[a] != decoded[b]:
            break
        equal += 1
    if equal == len(places[0]) == len(places[1]):
        equal = sum(index < text.find("\n") for index in places[0])
    equal = max(0, equal - 8)
    starts = [side[equal] if equal < len(side) else max(0, len(side) - 1) for side in places]
    return text[starts[0] :][:40], decoded[starts[1] :][:40]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of the texts, the longest first, as tokenizers do; without texts, nothing."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")


def _has_plain_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if the tokenizer's class only calls its fast backend, so that the backend can be called directly."""
    from transformers import PreTrainedTokenizerFast

    called = ("__call__", "_encode_plus", "_batch_encode_plus")
    kind = type(tokenizer)
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(kind, name, None) is getattr(PreTrainedTokenizerFast, name, None) for name in called
    )
