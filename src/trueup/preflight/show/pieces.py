"""Decode token ids to text for people: whole characters, never the symbols that vocabularies use for bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"  # what decoders write for bytes that are no character
_LONGEST = 12  # tokens that may belong to one stretch of characters: four bytes each, some shared between neighbours
_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")  # a byte in SentencePiece vocabularies


def _byte_symbols() -> dict[str, int]:
    """Return symbol -> byte for byte-level BPE (GPT-2): printable bytes are themselves, others follow U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_SYMBOLS = _byte_symbols()


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as text: its part of the running text, and its text if it stands alone. See `mask_view.Token`."""

    text: str
    alone: str
    special: bool = False


class Decoder:
    """Decoder of token ids into text that people can read.

    Args:
        tokenizer: any; byte-level and SentencePiece vocabularies also show the bytes of a broken character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}

    def name(self, token: int) -> str:
        """Return the text of one token alone."""
        return self.pieces([token])[0].alone

    def pieces(self, ids: Sequence[int], after: Sequence[int] = ()) -> list[Piece]:
        """Return one piece for each token; joined, their texts are the text of `ids` after the tokens `after`."""
        pieces: list[Piece] = []
        before = list(after[-1:])  # whole characters, so that what is decoded behind them begins with their text
        while len(pieces) < len(ids):
            next_pieces = self._next(before, ids[len(pieces) : len(pieces) + _LONGEST])
            if _BROKEN not in next_pieces[0].text and len(next_pieces) == 1:
                before = [ids[len(pieces)]]
            pieces += next_pieces
        return pieces

    def _next(self, before: list[int], ids: Sequence[int]) -> list[Piece]:
        """Return the piece of the first token, or the pieces of the fewest tokens that form whole characters."""
        first = ids[0]
        if first in self._added:
            return [Piece(self._added[first], self._added[first], special=True)]
        if not self._symbols(first):  # models may have more rows than their tokenizer has tokens
            return [Piece(f"⟨id {first}⟩", f"⟨id {first}⟩")]
        text = self._text(before, [first])
        if text and _BROKEN not in text:
            return [Piece(text, text)]
        for size in range(1, len(ids) + 1):
            raw = self._bytes(ids[:size])
            if raw is None:
                break
            with suppress(UnicodeDecodeError):
                text = raw.decode("utf-8")
                return [Piece("" if index else text, self._broken(token)) for index, token in enumerate(ids[:size])]
        alone = self._broken(first)
        return [Piece(alone, alone)]

    def _text(self, before: list[int], ids: Sequence[int]) -> str:
        """Return the text of `ids` after `before`: decoders may drop a leading space at the start of a text."""
        head, whole = self._decode(before), self._decode([*before, *ids])
        return whole[len(head) :] if whole.startswith(head) else self._decode(ids)

    def _decode(self, ids: Sequence[int]) -> str:
        tokenizer = self._tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _symbols(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token) or "")

    def _bytes(self, ids: Sequence[int]) -> bytes | None:
        """Return the bytes of tokens that stand for bytes; None if one is an ordinary piece of text."""
        names = [self._symbols(token) for token in ids]
        if all(_FALLBACK.fullmatch(name) for name in names):
            return bytes.fromhex("".join(name[3:5] for name in names))
        if any(token in self._added for token in ids) or not set("".join(names)) <= _SYMBOLS.keys():
            return None
        return bytes(_SYMBOLS[symbol] for symbol in "".join(names))

    def _broken(self, token: int) -> str:
        """Return the token's characters, with ⟨e2⟩ for each byte that is not a character."""
        raw = self._bytes([token])
        if raw is None:
            return self._symbols(token).replace("▁", " ")
        text = raw.decode("utf-8", errors="surrogateescape")  # byte 0xe2 becomes U+DCE2
        return "".join(f"⟨{ord(c) - 0xDC00:02x}⟩" if "\udc80" <= c <= "\udcff" else c for c in text)
