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
    """Return one pydantic error that carries many problems (place, message) for `unpack` to read.

    Places are paths of keys relative to the model whose validator raises the error.
    """
    listed = list(problems)
    text = "; ".join(f"{dotted(place)}: {message}" if place else message for place, message in listed)
    return PydanticCustomError(COLLECTED, "{text}", {"text": text, "problems": listed})


def unpack(error: ErrorDetails) -> list[Problem] | None:
    """Return the problems in an error that `collected` made, with full paths of keys; None for any other error."""
    if error["type"] != COLLECTED:
        return None
    context: Mapping[str, list[Problem]] = error.get("ctx", {})
    return [((*error["loc"], *place), message) for place, message in context["problems"]]


def dotted(place: Place) -> str:
    """Write a path of keys as text: `("optim", "lr")` -> `optim.lr`, `("data", 0, "path")` -> `data[0].path`."""
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
    """Return a value as it is written in YAML (true, null, 'text') for a message, cut to `width` characters."""
    if isinstance(value, (dict, list)):
        return ("a mapping" if isinstance(value, dict) else "a list") if value else "an empty value"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the most similar of `words` to `word`, ignoring case, dashes and underscores; None when none is near."""

    def bare(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    by_bare = {bare(candidate): candidate for candidate in words}
    close = difflib.get_close_matches(bare(word), by_bare, n=1, cutoff=cutoff)
    return by_bare[close[0]] if close else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """Return the text `; did you mean X?` with the word of `words` that is most similar, or "" if none is."""
    close = nearest(word, words)
    return f"; did you mean {close}?" if close else ""


def nearest_path(path: Path) -> str:
    """Return a hint for a missing path: `; did you mean X?` with the most similar name in its folder, or "".

    If the folder is missing too, the hint says so.
    """
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder} either"

    def likeness(other: Path) -> tuple[float, float]:
        """Return the similarity of the names, in [0, 1]: without suffix, then with it.

        The first counts most, as any two .jsonl files look alike by their suffix.
        """
        pairs = ((path.stem, other.stem), (path.name, other.name))
        stems, names = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return stems, names

    best = max(sorted(folder.iterdir()), key=likeness, default=None)
    return f"; did you mean {best}?" if best and likeness(best)[0] >= 0.6 else ""


def limited(lines: list[str]) -> str:
    """Join error lines to a message of at most six lines: more are counted ("and 3 more"), long ones are cut."""
    lines = [line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in lines]
    kept = lines if len(lines) <= SHOWN_PROBLEMS + 1 else lines[:SHOWN_PROBLEMS]
    more = len(lines) - len(kept)
    return "\n".join([*kept, f"and {more} more"] if more else kept)
