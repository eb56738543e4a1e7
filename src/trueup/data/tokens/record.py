"""What is kept of a row beside its tokens: one fixed-size record, and the record's flags."""

from __future__ import annotations

import re
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype(
    [
        ("at", "<i8"),  # the row's first token in tokens.u32
        ("trunk", "<i4"),  # tokens of the prompt
        ("first", "<i4"),  # tokens of the first branch (the answer, or chosen)
        ("second", "<i4"),  # tokens of the second (rejected); -1: there is none
        ("trained", "<i4"),  # trained tokens of all branches
        ("file", "<i4"),
        ("line", "<i8"),
        ("scalar", "<f8"),  # a ranking's margin or a verdict's label; NaN: there is none
        ("text_at", "<i8"),  # the row's text in texts.json
        ("text_size", "<i4"),
        ("content", "<u8"),  # a hash of the row's text; a ranking's does not say which side is chosen
        ("flags", "<u4"),
        ("script", "u1"),
        ("language", "u1"),
    ]
)
Records = NDArray[np.void]
TRAINED = np.uint32(1 << 31)
"""The bit of a token in tokens.u32 that says it is trained; the rest is its id."""


class Flag(IntFlag):
    """What was seen of a row when it was turned into tokens."""

    ENDS = 1
    """The end token is trained, in every branch."""
    UNTRAINED = 2
    """A branch without a trained token."""
    SPECIAL = 4
    """The text of a control token in a message."""
    APPLIED = 8
    """A role header of the template in a message: the template was applied before."""
    DOUBLED = 16
    """The first token twice."""
    EMPTY = 32
    """An empty response."""
    REWRITTEN = 64
    """Earlier answers that the template rewrites: they are not trained."""
    JUDGED = 128
    """Language and refusals were looked at (of large data a sample)."""
    REFUSES = 256
    """The answer (or chosen) is a refusal."""
    OTHER_REFUSES = 512
    """Rejected is a refusal."""
    SORTED = 1024
    """Chosen sorts before rejected: two records of one pair that differ in it contradict each other."""


SCRIPTS = ("none", "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han")
_RANGES = (
    "A-Za-z\u00c0-\u024f", "\u0400-\u052f", "\u0370-\u03ff", "\u0600-\u06ff\u0750-\u077f", "\u0590-\u05ff",
    "\u0900-\u097f", "\u0e00-\u0e7f", "\uac00-\ud7af\u1100-\u11ff", "\u3040-\u30ff", "\u4e00-\u9fff\u3400-\u4dbf",
)  # fmt: skip
_LETTERS = [re.compile(f"[{span}]") for span in _RANGES]


def script_of(text: str) -> int:
    """The index in SCRIPTS of the script most letters are of; any kana make Japanese of Han."""
    if text.isascii():
        return int(any(char.isalpha() for char in text))
    counts = [len(pattern.findall(text)) for pattern in _LETTERS]
    if counts[8] and counts[8] * 5 > counts[9]:
        return SCRIPTS.index("Kana")
    return counts.index(max(counts)) + 1 if any(counts) else 0


LANGUAGES = ("unknown", "English", "German", "French", "Spanish", "Italian", "Portuguese", "Dutch")
_COMMON = (
    "the and is of to you it that are was for with",
    "der die das und ist nicht ein eine zu den mit ich",
    "le la les et est des une dans que pour pas vous",
    "el los las y es una por que para con del como",
    "il di che è una per non gli della sono con le",
    "o os e não uma para com do da em você são",
    "de het een en is van niet dat ik je op te",
)
_WORDS = [frozenset(words.split()) for words in _COMMON]


def language_of(text: str) -> int:
    """The index in LANGUAGES of the language whose commonest words are seen most; 0 where that is not clear.

    A guess by twelve words a language, meant for shares of many rows, not for one of them.
    """
    words = text.lower().split()[:200]
    found = [[word for word in words if word in common] for common in _WORDS]
    counts = sorted((len(one) for one in found), reverse=True)
    best = max(range(len(found)), key=lambda at: len(found[at]))
    often = counts[0] >= 3 and counts[0] * 10 >= len(words) and len(set(found[best])) > 1
    return best + 1 if often and counts[0] >= 2 * counts[1] else 0
