"""How paths, keys and values of a user's files stand in a message: short, and nothing in them that a terminal obeys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from trueup.chat import excerpt


def shown(name: str | Path) -> str:
    r"""A path or id with its control characters and broken characters escaped: `a\nb` stays on one line."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Keys for a message, each escaped and shortened, the first `limit` of them."""
    every = list(names)
    first = ", ".join(excerpt(name)[1:-1] for name in every[:limit])
    return f"{first} and {len(every) - limit} more" if len(every) > limit else first or "nothing"


def as_json(value: object) -> str:
    """JSON text of `value`, as the user's file would show it."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # nested too deep, or with keys that JSON has not
        return f"({type_name(value)})"


NAMES: dict[type, str] = {
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
    """JSON's name of the type of `value`, with its article."""
    return NAMES.get(type(value), f"a {type(value).__name__}")
