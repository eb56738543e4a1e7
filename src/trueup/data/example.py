"""Rows as token ids: an `Example` is a trunk (the prompt) and the branches that continue it.

One branch for SFT, PPO and KTO, two (chosen, rejected) for a preference pair. Nothing here imports torch: the processes
that turn rows into tokens need none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from trueup.data.rendering.messages import Rendered


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of a trunk. `mask[i]`: token i is a target. `columns`: one value for each *trained* token."""

    ids: list[int]
    mask: list[bool]
    columns: dict[str, list[float]] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> int:
        """How many tokens of this branch are targets."""
        return sum(self.mask)


@dataclass(frozen=True, slots=True)
class Example:
    """A trunk and the branches that continue it. `scalars` belong to the example `row` to its source."""

    trunk: list[int]
    branches: tuple[Branch, ...]
    scalars: dict[str, float] = field(default_factory=dict)
    row: int = -1

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, trunk included: what `max_length` limits."""
        return len(self.trunk) + max(len(branch.ids) for branch in self.branches)

    @property
    def total(self) -> int:
        """Tokens of the row in which the trunk is shared."""
        return len(self.trunk) + sum(len(branch.ids) for branch in self.branches)


def single(rendered: Rendered, row: int = -1) -> Example:
    """A rendered conversation or text as an Example of one branch, which starts at the first trained token.

    The very first token of a sequence has no token before it to be predicted from, so it is never a target.
    """
    start = max(1, rendered.mask.index(True)) if any(rendered.mask) else len(rendered.ids)
    return Example(rendered.ids[:start], (Branch(rendered.ids[start:], rendered.mask[start:]),), row=row)


class Lazy(Sequence[Example]):
    """Examples made when they are asked for, so that a million of them need no memory."""

    def __init__(self, n: int, make: Callable[[int], Example]) -> None:
        """`n` examples; `make(at)` gives the one at 0 <= at < n, its `row` becomes `at`."""
        self._n, self._make = n, make

    def __len__(self) -> int:
        """How many there are."""
        return self._n

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """One example, or a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._n))]
        at = index + self._n if index < 0 else index
        if not 0 <= at < self._n:
            raise IndexError(f"example {index} of {self._n}")
        return replace(self._make(at), row=at)
