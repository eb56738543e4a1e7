"""Make invisible characters visible: direction controls, zero-width characters and control codes become marks.

A mark stands in place of the character, which is gone from the page: it can neither reorder what is around it nor
hide. Joiners stay where scripts and emoji need them.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape
from itertools import groupby

_NAMES = {
    0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x1B: "ESC", 0x7F: "DEL", 0xAD: "SHY", 0x34F: "CGJ", 0x61C: "ALM",
    0x180E: "MVS", 0x200B: "ZWSP", 0x200C: "ZWNJ", 0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS",
    0x2029: "PS", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2060: "WJ",
    0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
# Cc, Cf, Cs, Zl, Zp, fillers that are letters by category, and selectors of variants; tab and newline stay.
_SUSPECT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_SHOWN = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")  # Cf, yet drawn
_JOINERS, _SELECTORS = "\u200c\u200d", "\ufe0e\ufe0f"
_JOINING = ("ARABIC", "SYRIAC", "MONGOLIAN", "NKO", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
            "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR", "TIBETAN")  # fmt: skip


def marked(html: str) -> str:
    """Return HTML with every invisible character replaced by a visible mark: a <span> with the character's short name.

    No attribute in `html` may hold such a character, as the mark would break its tag.
    """
    return _SUSPECT.sub(_mark, html)


def as_html(text: str) -> str:
    """Return plain text as HTML: escaped, newlines unified, invisible characters as marks."""
    return marked(escape(text.replace("\r\n", "\n").replace("\r", "\n"), quote=False))


def _mark(match: re.Match[str]) -> str:
    """Return what replaces a run of invisible characters: marks, one for each kind in a row with its count.

    Characters that emoji, flags and some scripts need are returned unchanged.
    """
    run, text = match[0], match.string
    if len(run) == 1 and _belongs(run, text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]):
        return run
    if run[0] in _SELECTORS and len(run) == 2 and run[1] == "\u200d":  # a heart, its selector, a joiner, a flame
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if _belongs(run[0], before, "") and _pictorial(after):
            return run
    if text[match.start() - 1 : match.start()] == "\U0001f3f4" and _FLAG.fullmatch(run):  # England, Scotland, Wales
        return run
    groups = [(char, sum(1 for _ in same)) for char, same in groupby(run)]
    if len(groups) > _MOST:
        return _span(f"{len(run):,} invisible", "many kinds of invisible characters in a row")
    return "".join(char * count if char in _SHOWN else _mark_of(char, count) for char, count in groups)


_FLAG = re.compile("[\U000e0061-\U000e007a]{4,6}\U000e007f")
_MOST = 8  # kinds in one run that are named one by one


def _belongs(char: str, before: str, after: str) -> bool:
    if char in _SHOWN:
        return True
    if char in _SELECTORS:
        return _pictorial(before) or (before != "" and before in "0123456789#*")
    if char in _JOINERS:
        return (char == "\u200d" and _pictorial(before) and _pictorial(after)) or _joining(before)
    return False


def _pictorial(char: str) -> bool:
    return char != "" and (unicodedata.category(char) == "So" or "\U0001f3fb" <= char <= "\U0001f3ff" or char in "↔↕©®")


def _joining(char: str) -> bool:
    return char != "" and unicodedata.name(char, "").startswith(_JOINING)


def _mark_of(char: str, count: int) -> str:
    code = ord(char)
    name = unicodedata.name(char, "control character").lower()
    times = f"\u00d7{count:,}" if count > 1 else ""
    return _span(f"{_NAMES.get(code, f'U+{code:04X}')}{times}", f"{name}, U+{code:04X}")


def _span(label: str, title: str) -> str:
    return f'<span class="mark" title="{escape(title)}">{label}</span>'
