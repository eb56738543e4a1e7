"""Comparing texts as the graders do: by normalised words, so that case, accents and punctuation cannot decide."""

from __future__ import annotations

import re
import unicodedata


def words(text: str) -> list[str]:
    """Lower-case words without accents; apostrophes vanish ("N'Djamena" is one word), other punctuation separates."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = text.replace(chr(0x2019), "'")  # the typographic apostrophe
    return re.findall(r"[a-z0-9]+", text.replace("'", "").casefold())


def normalise(text: str) -> str:
    """The words of `text`, one space apart."""
    return " ".join(words(text))


def contains(text: str, phrase: str) -> bool:
    """Whether the words of `phrase`, less a leading article, stand in `text` one after another."""
    return f" {without_article(phrase)} " in f" {normalise(text)} "


def without_article(phrase: str) -> str:
    """`normalise(phrase)` less a leading "the", "a" or "an"."""
    return re.sub(r"^(the|an|a) (?=.)", "", normalise(phrase))
