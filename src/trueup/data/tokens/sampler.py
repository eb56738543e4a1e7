"""Choice of the rows of each optimizer step, by the weights of a mixture, with a position for checkpoints."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence

from trueup.errors import CheckpointError, DataError


def epoch_rows(size: int, weight: float) -> int:
    """Return the number of rows that an epoch takes from a section of `size` rows: size * weight, rounded."""
    return int(weight) * size + round((weight % 1) * size)


class Sampler:
    """Gives the row indices of each optimizer step, without end.

    An epoch's order follows from (seed, epoch) alone, so the position is two numbers and a resumed run needs no replay.
    The last batch of an epoch is short: with weight 1 no row is repeated within an epoch, and none is left out. With
    weight w each row is seen floor(w) times; for the remaining fraction f, the epoch takes round(f * n) rows, and the
    next epoch continues in the same order of that part, so that every row is taken before one is taken again.

    Args:
        n: the number of rows, or of the rows of each part of a mixture (indices continue from part to part).
        batch_size: rows of an optimizer step.
        seed: determines the order.
        shuffle: False keeps the rows in their order.
        weights: how often a row of each part is seen in an epoch; by default all 1.

    Raises:
        DataError: an epoch has no row.

    Attributes:
        n: rows of an epoch.
        epoch: epochs completed.
        index: rows of the present epoch already given, 0 <= index < n.
    """

    def __init__(
        self, n: int | Sequence[int], batch_size: int, seed: int, shuffle: bool = True, *,
        weights: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self.sizes = [n] if isinstance(n, int) else list(n)
        self.weights = [1.0] * len(self.sizes) if weights is None else list(weights)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.n = sum(epoch_rows(size, weight) for size, weight in self._parts())
        if self.n < 1 or batch_size < 1:
            raise DataError(
                f"{self.n} rows in batches of {batch_size}: both must be at least 1\n  fix: give usable rows"
            )
        self.epoch = self.index = 0
        self._order = self._permutation()

    def next(self) -> list[int]:
        """Return the row indices of the next optimizer step, 1 to `batch_size` of them."""
        batch = self._order[self.index : self.index + self.batch_size].tolist()
        self.index += len(batch)
        if self.index == self.n:  # roll over at once, so that a checkpoint at an epoch's end has one form
            self.epoch, self.index = self.epoch + 1, 0
            self._order = self._permutation()
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the position, for JSON: {epoch: epochs completed, index: rows of the present epoch already given}."""
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a position that `state_dict` returned.

        Raises:
            CheckpointError: the position does not fit the number of rows (the data has changed).
        """
        epoch, index = state.get("epoch", -1), state.get("index", -1)
        if epoch < 0 or not 0 <= index < self.n:
            raise CheckpointError(
                f"data position {dict(state)} does not fit {self.n} rows\n"
                "  fix: resume with the data the run began with"
            )
        self.epoch, self.index = epoch, index
        self._order = self._permutation()

    def _parts(self) -> list[tuple[int, float]]:
        return list(zip(self.sizes, self.weights, strict=True))

    def _permutation(self) -> array[int]:
        """Return the row indices of the present epoch in the order of training; four bytes a row."""
        order = array("I")
        start = 0
        for part, (size, weight) in enumerate(self._parts()):
            for _ in range(int(weight)):
                order.extend(range(start, start + size))
            order.extend(start + row for row in self._fraction(part))
            start += size
        if self.shuffle:
            random.Random(f"{self.seed}-{self.epoch}").shuffle(order)
        return order

    def _fraction(self, part: int) -> list[int]:
        """Return the rows of a part that this epoch takes for the fraction of its weight (0.5 of weight 2.5)."""
        size = self.sizes[part]
        count = epoch_rows(size, self.weights[part] % 1)
        taken: list[int] = []
        position = self.epoch * count
        while len(taken) < count:
            cycle, offset = divmod(position, size)
            rows = list(range(size))
            random.Random(f"{self.seed}-part {part}-{cycle}").shuffle(rows)
            piece = rows[offset : offset + count - len(taken)]
            taken += piece
            position += len(piece)
        return taken
