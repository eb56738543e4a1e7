"""Rows as token ids: an `Example` is a trunk (the prompt) and the branches (answers) that continue it.

SFT, PPO and KTO have one branch, a preference pair has two (chosen, rejected). Nothing here imports torch, because the
processes that tokenize rows do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from trueup.data.rendering.messages import Rendered


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of a prompt (trunk), e.g. an answer.

    Attributes:
        ids: token ids.
        mask: True for each token that is trained (a target of the loss).
        columns: {name: one number for each *trained* token}, e.g. log-probabilities.
        scalars: {name: one number for the whole branch}, e.g. "desirable" for KTO.
    """

    ids: list[int]
    mask: list[bool]
    columns: dict[str, list[float]] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> int:
        """The number of trained tokens."""
        return sum(self.mask)


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids: a prompt (trunk), and the branches (answers) that continue it.

    `scalars` is {name: a number for the whole example}; `row` is the example's index in the data, -1 if unknown.
    """

    trunk: list[int]
    branches: tuple[Branch, ...]
    scalars: dict[str, float] = field(default_factory=dict)
    row: int = -1

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sequence: the trunk with its longest branch; `max_length` limits it."""
        return len(self.trunk) + max(len(branch.ids) for branch in self.branches)

    @property
    def total(self) -> int:
        """The number of tokens of the trunk and all branches, when the branches share the trunk in one sequence."""
        return len(self.trunk) + sum(len(branch.ids) for branch in self.branches)


def single(rendered: Rendered, row: int = -1) -> Example:
    """Return a rendered conversation or text as an Example of one branch, which starts at the first trained token.

    `row` is its index in the data. The first token of a sequence has no token before it to be predicted from, so it is
    never trained. Tokens after the last trained one (answers that are not to be trained) are left out: nothing is
    predicted from them.
    """
    if not any(rendered.mask):
        return Example(rendered.ids, (Branch([], []),), row=row)
    start = max(1, rendered.mask.index(True))
    end = len(rendered.mask) - rendered.mask[::-1].index(True)
    return Example(rendered.ids[:start], (Branch(rendered.ids[start:end], rendered.mask[start:end]),), row=row)


class Lazy(Sequence[Example]):
    """A sequence of examples, each made when it is indexed, so that a million of them need no memory."""

    def __init__(self, n: int, make: Callable[[int], Example]) -> None:
        """Describe `n` examples: `make(index)`, 0 <= index < n, returns one, whose `row` is then set to the index."""
        self._n, self._make = n, make

    def __len__(self) -> int:
        """Return the number of examples."""
        return self._n

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return the example at an index, or the list of examples for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        i = index + self._n if index < 0 else index
        if not 0 <= i < self._n:
            raise IndexError(f"example {index} of {self._n}")
        return replace(self._make(i), row=i)
