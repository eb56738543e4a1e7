"""The fixed-size record that is stored for each row besides its tokens, and the flags in it."""

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
        ("second", "<i4"),  # tokens of the second branch (rejected); -1: no second branch
        ("trained", "<i4"),  # trained tokens of all branches
        ("file", "<i4"),
        ("line", "<i8"),
        ("scalar", "<f8"),  # the margin of a ranking or the label of a verdict; NaN: none
        ("text_at", "<i8"),  # the row's text in texts.json
        ("text_size", "<i4"),
        ("content", "<u8"),  # a hash of the row's text; for a ranking, the same whichever side is chosen
        ("flags", "<u4"),
        ("script", "u1"),
        ("language", "u1"),
    ]
)
Records = NDArray[np.void]
TRAINED = np.uint32(1 << 31)
"""The bit of a token in tokens.u32 that marks it as trained; the other bits are its id."""


class Flag(IntFlag):
    """Properties of a row that were found when it was tokenized, e.g. an empty response."""

    ENDS = 1
    """The end token is trained, in every branch."""
    UNTRAINED = 2
    """A branch without a trained token."""
    SPECIAL = 4
    """A message holds the text of a control token."""
    APPLIED = 8
    """A message holds a role header of the template: the template was applied before."""
    DOUBLED = 16
    """The row begins with the first token (BOS) twice."""
    EMPTY = 32
    """A response is empty."""
    REWRITTEN = 64
    """The template changes earlier answers, so they are not trained."""
    JUDGED = 128
    """Language and refusals were judged (for large data, in a sample of rows)."""
    REFUSES = 256
    """The answer (or chosen) is a refusal."""
    OTHER_REFUSES = 512
    """Rejected is a refusal."""
    SORTED = 1024
    """Chosen sorts before rejected: two rows of the same answers contradict each other if they differ in this flag."""
    THOUGHT = 2048
    """An answer has a thought."""
    EMPTY_THOUGHT = 4096
    """An answer without a thought is written with an empty one, as the template or its family does."""
    LOST_THOUGHT = 8192
    """The template leaves out the thought of an earlier answer."""
    UNPROMPTED = 16384
    """The last answer begins otherwise than the generation prompt ends, so that it would not be sampled behind it."""
    SYSTEM_DROPPED = 32768
    """The row has a system message, and the template writes none."""
    CALLS = 65536
    """An answer calls a tool."""
    MOVED = 262144
    """The template writes the text before an earlier answer otherwise than in that answer's own prompt."""
    WRONG_CALL = 131072
    """A call does not fit the tools that the row declares."""
    CHANGED = 524288
    """The tokens of a text, decoded, are another text, e.g. in lower case. Only of rows with COMPARED."""
    COMPARED = 2097152
    """The texts were compared with their tokens decoded (for large data, in a sample of rows)."""
    UNKNOWN = 1048576
    """The tokens of an answer hold no letter of it: all are unknown, or dropped."""
    OPEN = 4194304
    """An answer before the last is trained without an end token behind it."""


SCRIPTS = ("none", "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han")
_RANGES = (
    "A-Za-z\u00c0-\u024f", "\u0400-\u052f", "\u0370-\u03ff", "\u0600-\u06ff\u0750-\u077f", "\u0590-\u05ff",
    "\u0900-\u097f", "\u0e00-\u0e7f", "\uac00-\ud7af\u1100-\u11ff", "\u3040-\u30ff", "\u4e00-\u9fff\u3400-\u4dbf",
)  # fmt: skip
_LETTERS = [re.compile(f"[{span}]") for span in _RANGES]


def script_of(text: str) -> int:
    """Return the index in SCRIPTS of the script that most letters of the text belong to; 0 if it has no letters.

    Han with some kana counts as Kana (Japanese).
    """
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
    """Return the index in LANGUAGES of the language with the most common words in the text; 0 if it is not clear.

    A guess by twelve words a language: good for shares of many rows, not for a single one.
    """
    words = text.lower().split()[:200]
    matches = [[word for word in words if word in common] for common in _WORDS]
    counts = sorted(map(len, matches), reverse=True)
    best = max(range(len(matches)), key=lambda index: len(matches[index]))
    often = counts[0] >= 3 and counts[0] * 10 >= len(words) and len(set(matches[best])) > 1
    return best + 1 if often and counts[0] >= 2 * counts[1] else 0
