"""What `load` returns: typed rows, and an account of every row of the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from trueup.chat import Origin, Row

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
