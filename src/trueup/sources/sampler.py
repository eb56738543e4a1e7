"""Which rows go into which optimizer step: every row once an epoch, and a position that can be saved."""

from __future__ import annotations

import random
from collections.abc import Mapping

from trueup.errors import CheckpointError, DataError


class Sampler:
    """Indices of the rows of each optimizer step, without end.

    An epoch's order follows from (seed, epoch) alone, so the position is two numbers and a resumed run needs no replay.
    The last batch of an epoch is short: within an epoch no row is repeated, and none is left out.

    Attributes:
        epoch: epochs completed.
        index: rows of the present epoch already given, 0 <= index < n.
    """

    def __init__(self, n: int, batch_size: int, seed: int, shuffle: bool = True) -> None:
        if n < 1 or batch_size < 1:
            raise DataError(f"{n} rows in batches of {batch_size}: both must be at least 1\n  fix: give usable rows")
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.epoch = self.index = 0
        self._order = self._permutation()

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the short last one included."""
        return -(-self.n // self.batch_size)

    def next(self) -> list[int]:
        """Indices of the next optimizer step, 1 to `batch_size` of them."""
        batch = self._order[self.index : self.index + self.batch_size]
        self.index += len(batch)
        if self.index == self.n:  # roll over at once, so that a checkpoint at an epoch's end has one form
            self.epoch, self.index = self.epoch + 1, 0
            self._order = self._permutation()
        return batch

    def state_dict(self) -> dict[str, int]:
        """Position, fit for JSON."""
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a saved position.

        Raises:
            CheckpointError: it is no position in this many rows (the data changed since).
        """
        epoch, index = state.get("epoch", -1), state.get("index", -1)
        if epoch < 0 or not 0 <= index < self.n:
            raise CheckpointError(
                f"data position {dict(state)} does not fit {self.n} rows\n"
                "  fix: resume with the data the run began with"
            )
        self.epoch, self.index = epoch, index
        self._order = self._permutation()

    def _permutation(self) -> list[int]:
        order = list(range(self.n))
        if self.shuffle:
            random.Random(f"{self.seed}-{self.epoch}").shuffle(order)
        return order
