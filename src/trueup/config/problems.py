"""Carry several problems through one pydantic error, each with its own place.

Pydantic gives one error per validator. `collected` packs many `(place, message)` pairs into one, `unpack` takes any
`ValidationError` apart into such pairs again, so that the file reader can put a line number before each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]
"""The path of keys to a value: `("stages", "sft", "optim", "lr")`."""

Problem = tuple[Place, str]
"""A place, and what is wrong there and how to mend it."""

_LINE = 600  # characters
SHOWN_PROBLEMS = 5
"""At most so many problems are printed, then the number of the others."""

COLLECTED = "collected_problems"


def collected(problems: Iterable[Problem]) -> PydanticCustomError:
    """Return one pydantic error that carries many problems; places are relative to the model that raises it."""
    listed = list(problems)
    text = "; ".join(f"{dotted(place)}: {message}" if place else message for place, message in listed)
    return PydanticCustomError(COLLECTED, "{text}", {"text": text, "problems": listed})


def unpack(error: ErrorDetails) -> list[Problem] | None:
    """Return the problems inside a `collected` error, places made absolute; None for pydantic's own errors."""
    if error["type"] != COLLECTED:
        return None
    context: Mapping[str, list[Problem]] = error.get("ctx", {})
    return [((*error["loc"], *place), message) for place, message in context["problems"]]


def dotted(place: Place) -> str:
    """Write a place as text: `("optim", "lr")` -> `optim.lr`; list positions keep their number, `log[0]`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{printable(part)}"
    return text


def printable(text: str, width: int = 60) -> str:
    r"""Return a key or an override for a message: one line, cut to `width`, control characters written out (`\x1b`)."""
    if text.isprintable() and len(text) <= width:
        return text
    cut = text if len(text) <= width else f"{text[: width - 1]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)


def as_written(value: object, width: int = 40) -> str:
    """Return a value as the user wrote it, cut to `width` characters."""
    if isinstance(value, (dict, list)):
        return ("a mapping" if isinstance(value, dict) else "a list") if value else "an empty value"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the most similar of `words`, ignoring case, dashes and underscores; None when none is near."""

    def bare(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    by_bare = {bare(candidate): candidate for candidate in words}
    close = difflib.get_close_matches(bare(word), by_bare, n=1, cutoff=cutoff)
    return by_bare[close[0]] if close else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean X?`, or an empty text."""
    close = nearest(word, words)
    return f"; did you mean {close}?" if close else ""


def nearest_path(path: Path) -> str:
    """Return `; did you mean X?` with the most similar name in the same folder, or an empty text."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder} either"

    def likeness(other: Path) -> tuple[float, float]:
        """Compare the names without suffix first: any two .jsonl files would seem alike by their suffix."""
        pairs = ((path.stem, other.stem), (path.name, other.name))
        stems, names = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return stems, names

    best = max(sorted(folder.iterdir()), key=likeness, default=None)
    return f"; did you mean {best}?" if best and likeness(best)[0] >= 0.6 else ""


def limited(lines: list[str]) -> str:
    """Join the lines to a message of at most six lines, each cut to a readable length."""
    lines = [line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in lines]
    kept = lines if len(lines) <= SHOWN_PROBLEMS + 1 else lines[:SHOWN_PROBLEMS]
    more = len(lines) - len(kept)
    return "\n".join([*kept, f"and {more} more"] if more else kept)
