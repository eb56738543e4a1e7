"""Format text and numbers for people: safe on a terminal, without secrets, short; read `~` in paths."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def expanded(path: str) -> str:
    """Return a path with the home folder for a `~` at its beginning; all else, such as a hub name, unchanged."""
    return os.path.expanduser(path)  # noqa: PTH111 (a Path would change names that are no paths, and fail for ~nobody)


def home_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder for a `~` at its beginning.

    `~name` stays where no user has that name, as in a shell: it may be a file, and one that is missing is said to be.
    """
    return Path(expanded(os.fspath(path)))


def clean(text: str, *, one_line: bool = False) -> str:
    r"""Return text safe for a terminal: control characters are escaped (`\x1b`), new lines and tabs are kept.

    Escape sequences, carriage returns, backspaces, direction overrides and lone surrogates all become visible.

    Args:
        text: any text, from data or a model.
        one_line: escape new lines and tabs too.
    """
    kept = "" if one_line else "\n\t"
    return "".join(
        _visible(char) if char not in kept and unicodedata.category(char) in _UNSAFE else char for char in text
    )


def is_blank(text: str) -> bool:
    """Return True if nothing of a text is visible: it has only spaces, controls, and characters without a glyph."""
    if not text or text.isspace():
        return True
    return all(char.isspace() or char in _WITHOUT_GLYPH or unicodedata.category(char) in _NOT_WRITTEN for char in text)


_NOT_WRITTEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


# Letters and marks that are drawn as nothing: fillers, joiners, variation selectors, the blank pattern of Braille.
_WITHOUT_GLYPH = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


def masked(text: str) -> str:
    """Return text with secrets replaced by `***`, so that it may be shown or logged.

    Secrets are users and passwords in addresses, and the values of environment variables named like secrets.
    """
    text = _CREDENTIALS.sub(r"\1***@", text)
    for name, value in os.environ.items():
        if len(value) >= _SECRET_LENGTH and _SECRET_NAME.search(name) and not _NO_SECRET.match(value):
            for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1]):
                text = text.replace(form, "***")
    return text


_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://?)[^/?#\s@]*(?:@[^/?#\s@]*)*@")


_SECRET_NAME = re.compile(r"(^|_)(TOKENS?|(API)?KEY|SECRET|PASS(WORD|WD)?|PWD|PAT|CREDENTIALS?)(_ID)?$", re.IGNORECASE)


_NO_SECRET = re.compile(r"[/~.]|[a-z]+$")  # a path, or an ordinary word


_SECRET_LENGTH = 8  # a shorter value may be a word


def terminal_safe_json(text: str) -> str:
    """Return a JSON text with control characters as JSON escapes: its value is the same, and printing it is safe."""
    return _NOT_PLAIN.sub(lambda match: _escaped(match[0]), text)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if unicodedata.category(char) in _UNSAFE and char not in _JOINERS else char


_NOT_PLAIN = re.compile(r"[^\n\t -~]")


# Cc control, Cf format (direction overrides, zero width), Cs surrogates, Zl and Zp line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


_JOINERS = "\u200c\u200d"  # part of ordinary emoji and of several scripts


def _visible(char: str) -> str:
    return char if char in _JOINERS else char.encode("unicode_escape").decode("ascii")


def format_number(value: float) -> str:
    """Return a number as text of at most about nine characters: 0.6931, 12.35, 1.2e-05, 48211."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1e6):
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    magnitude = abs(value)
    if magnitude and (magnitude < 1e-3 or magnitude >= 1e6):
        return f"{value:.2g}"
    if magnitude >= 1000:
        return f"{value:.0f}"
    return f"{value:.4f}" if magnitude < 1 else f"{value:#.4g}".rstrip(".")


def short_count(value: float) -> str:
    """Return a count as text with a unit: 950, 1.2k, 3.4M."""
    if not math.isfinite(value):
        return str(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Return a number of seconds as text: 42s, 3m10s, 2h05m, 3d04h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def excerpt(value: object, limit: int = 60) -> str:
    """Return `value` as text for an error message, with at most `limit` characters and control characters escaped.

    A string is put in quotes.
    """
    text = value if isinstance(value, str) else reprlib.repr(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f'"{escaped}"' if isinstance(value, str) else escaped


def printable(name: str | Path) -> str:
    r"""Return a path or id with control characters and broken characters escaped: `a\nb` stays on one line."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Return the first `limit` names as text for a message, each escaped and shortened, and how many more there are."""
    keys = list(names)
    first = ", ".join(excerpt(name)[1:-1] for name in keys[:limit])
    return f"{first} and {len(keys) - limit} more" if len(keys) > limit else first or "nothing"


def as_json(value: object) -> str:
    """Return `value` as JSON text for a message; if JSON cannot hold it, the name of its type in parentheses."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # nested too deep, or with keys that JSON has not
        return f"({type_name(value)})"


_TYPE_NAMES: dict[type, str] = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
    bytes: "binary",
}


def type_name(value: object) -> str:
    """Return JSON's name of the type of `value`, with its article, for a message: "a list", "an object", "null"."""
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")
