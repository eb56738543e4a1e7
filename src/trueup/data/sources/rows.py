"""What `load` returns: typed rows, and an account of every row of the source."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, overload

from trueup.data.rendering.messages import Origin, Row
from trueup.system.text import excerpt


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


R_co = TypeVar("R_co", bound=Row, covariant=True)


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that was left out, and why."""

    origin: Origin
    reason: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows: `read == used + len(dropped) + unselected`, always.

    Attributes:
        read: rows in the source.
        used: rows given to the caller.
        dropped: rows left out by an explicit choice.
        unselected: rows outside of the `rows` slice.
        blank: blank lines passed over (they are no rows).
        notes: rows that are used, but odd.
        unused: fields of the source that nothing reads.
    """

    read: int
    used: int
    dropped: tuple[Drop, ...] = ()
    unselected: int = 0
    blank: int = 0
    notes: tuple[tuple[Origin, str], ...] = ()
    unused: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The same, fit for JSON."""
        return {
            "read": self.read,
            "used": self.used,
            "dropped": [{"at": str(drop.origin), "reason": drop.reason} for drop in self.dropped],
            "unselected": self.unselected,
            "blank": self.blank,
            "notes": [{"at": str(origin), "note": note} for origin, note in self.notes],
            "unused": list(self.unused),
        }


@dataclass(frozen=True, slots=True)
class Rows(Sequence[R_co], Generic[R_co]):
    """Typed rows in the order of the source, the format they were read as, the files, and the counts."""

    items: tuple[R_co, ...]
    counts: Counts
    format: str
    files: tuple[str, ...]

    @overload
    def __getitem__(self, index: int) -> R_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[R_co, ...]: ...
    def __getitem__(self, index: int | slice) -> R_co | tuple[R_co, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[R_co]:
        return iter(self.items)
