"""Compare texts by normalised words, so that case, accents and punctuation do not count."""

from __future__ import annotations

import re
import unicodedata


def words(text: str) -> list[str]:
    """Return a text's lower-case words without accents.

    Apostrophes vanish ("N'Djamena" is one word), other punctuation separates words.
    """
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = text.replace(chr(0x2019), "'")  # the typographic apostrophe
    return re.findall(r"[a-z0-9]+", text.replace("'", "").casefold())


def normalise(text: str) -> str:
    """Return a text as its normalised words (lower case, no accents or punctuation), joined by single spaces."""
    return " ".join(words(text))


def contains(text: str, phrase: str) -> bool:
    """Return True if the words of `phrase`, less a leading article, occur in `text` one after another."""
    return f" {without_article(phrase)} " in f" {normalise(text)} "


def without_article(phrase: str) -> str:
    """Return `normalise(phrase)` without a leading "the", "a" or "an"."""
    return re.sub(r"^(the|an|a) (?=.)", "", normalise(phrase))
