"""What a section's rows are like, in numbers: one pass over the records, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trueup.data.tokens.duplicates import Buckets
from trueup.data.tokens.near import near_groups
from trueup.data.tokens.pack import trained_flags
from trueup.data.tokens.record import LANGUAGES, SCRIPTS, Flag
from trueup.data.tokens.select import Examples, lengths
from trueup.data.tokens.store import Tokenized

SHOWN = 10
_LONGEST = 1 << 20  # a length above counts as this one


@dataclass(slots=True)
class Sums:
    """Enough of some whole numbers for their mean and variance; kept as whole numbers, so that nothing cancels."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def add(self, values: NDArray[np.integer]) -> None:
        """Take in more of them."""
        wide = values.astype(np.int64)
        self.n += len(wide)
        self.total += int(wide.sum())
        self.squares += int((wide**2).sum())

    @property
    def mean(self) -> float:
        """Their mean; NaN of none."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Their variance, with n - 1; NaN of fewer than two."""
        return (self.n * self.squares - self.total**2) / (self.n * (self.n - 1)) if self.n > 1 else math.nan


@dataclass(slots=True)
class Survey:
    """Numbers of one section.

    Attributes:
        rows: how many.
        tokens, trained: of all rows; a shared prompt counts once.
        by_length: how many rows have each length (tokens of the longest sequence, prompt included).
        flags: how many rows carry each flag, and the places of the first ten.
        scripts, languages: of the judged rows' answers.
        chosen, rejected: lengths of the two answers in tokens.
        longer, shorter: rankings whose chosen is longer than rejected, and shorter.
        labels: verdicts that are true, and false.
    """

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    by_length: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    flags: Counter[Flag] = field(default_factory=Counter)
    places: dict[Flag, list[str]] = field(default_factory=dict)
    scripts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    chosen: Sums = field(default_factory=Sums)
    rejected: Sums = field(default_factory=Sums)
    longer: int = 0
    shorter: int = 0
    labels: tuple[int, int] = (0, 0)

    @property
    def cohens_d(self) -> float:
        """(mean chosen - mean rejected) / sqrt((var chosen + var rejected) / 2), of the lengths (Cohen 1988).

        Infinite where all chosen have one length and all rejected another; 0 of a single pair.
        """
        if self.chosen.n < 2:
            return 0.0
        spread = math.sqrt((self.chosen.variance + self.rejected.variance) / 2)
        apart = self.chosen.mean - self.rejected.mean
        if spread:
            return apart / spread
        return math.copysign(math.inf, apart) if apart else 0.0

    def quantile(self, share: float) -> int:
        """The length that so many of the rows have at most."""
        reached = np.searchsorted(np.cumsum(self.by_length), share * self.rows - 1e-9)
        return int(min(reached, len(self.by_length) - 1))

    def histogram(self) -> list[tuple[int, int, int]]:
        """(from, to, rows) of lengths in powers of two, from the first that holds a row to the last."""
        edges = [0, 16, *(2**power for power in range(5, 21)), _LONGEST + 1]
        bars = [(low, high - 1, int(self.by_length[low:high].sum())) for low, high in pairwise(edges)]
        filled = [at for at, bar in enumerate(bars) if bar[2]]
        return bars[filled[0] : filled[-1] + 1] if filled else []

    def above(self, length: int) -> int:
        """How many rows are longer."""
        return int(self.by_length[length + 1 :].sum())


def survey(examples: Examples, stops: Collection[int] = ()) -> Survey:
    """Look at every record once, and at each row that is cut. `stops` are the end tokens."""
    found, seen = Survey(), 0
    for part, rows in zip(examples.parts, examples.rows, strict=True):
        labelled = part.meta["want"] == "labelled"
        for start, records in part.records():
            first, last = np.searchsorted(rows, [start, start + len(records)])
            if last > first:
                some = records[rows[first:last] - start]
                if examples.cut is not None:
                    _cut(some, examples, seen, stops)
                _see(found, part, some, labelled=labelled)
                seen += len(some)
    return found


def _cut(records: NDArray[np.void], examples: Examples, start: int, stops: Collection[int]) -> None:
    """Make the records, which begin with that of example `start`, tell of the rows as they are cut."""
    for at in np.flatnonzero(lengths(records) > (examples.cut or 0)).tolist():
        example = examples[start + at]
        for side, branch in zip(("first", "second"), example.branches, strict=False):
            records[side][at] = len(branch.ids)
        records["trained"][at] = sum(branch.trained for branch in example.branches)
        kept = int(records["flags"][at]) & ~int(Flag.ENDS | Flag.UNTRAINED)
        records["flags"][at] = kept | trained_flags(example, stops)


def _see(found: Survey, part: Tokenized, records: NDArray[np.void], *, labelled: bool) -> None:
    found.rows += len(records)
    branches = records["first"].astype(np.int64) + np.maximum(records["second"], 0)
    found.tokens += int(records["trunk"].sum() + branches.sum())
    found.trained += int(records["trained"].sum())
    counts = np.bincount(np.minimum(lengths(records), _LONGEST))
    width = max(len(counts), len(found.by_length))
    found.by_length = np.pad(found.by_length, (0, width - len(found.by_length)))
    found.by_length[: len(counts)] += counts
    for flag in Flag:
        hits = np.flatnonzero(records["flags"] & np.uint32(flag))
        found.flags[flag] += len(hits)
        shown = found.places.setdefault(flag, [])
        shown += [str(part.origin_of(records[at])) for at in hits[: SHOWN - len(shown)]]
    judged = records[(records["flags"] & np.uint32(Flag.JUDGED)) != 0]
    for names, counter, column in ((SCRIPTS, found.scripts, "script"), (LANGUAGES, found.languages, "language")):
        for at, count in enumerate(np.bincount(judged[column], minlength=len(names)).tolist()):
            counter[names[at]] += count
    pairs = records[records["second"] >= 0]
    found.chosen.add(pairs["first"])
    found.rejected.add(pairs["second"])
    found.longer += int((pairs["first"] > pairs["second"]).sum())
    found.shorter += int((pairs["first"] < pairs["second"]).sum())
    if labelled:
        true = int((records["scalar"] == 1).sum())
        found.labels = (found.labels[0] + true, found.labels[1] + len(records) - true)


def duplicate_rows(part: Tokenized) -> tuple[int, int]:
    """(near-duplicates, exact ones among them): rows that have an equal or nearly equal one before them."""
    equal = sum(len(group) - 1 for group in _same(part))
    first = near_groups(part).firsts()
    return int((first != np.arange(len(first))).sum()), equal


def contradictions(part: Tokenized) -> tuple[int, list[tuple[str, str]]]:
    """Pairs of answers ranked both ways, or answers with both labels: how many, and the places of the first ten."""
    count, shown = 0, []
    labelled = part.meta["want"] == "labelled"
    for group in _same(part):
        ways: dict[bool, int] = {}
        for row in group.tolist():
            record = part.record(row)
            way = record["scalar"] == 1 if labelled else record["flags"] & np.uint32(Flag.SORTED)
            ways.setdefault(bool(way), row)
        if len(ways) == 2:
            count += 1
            if len(shown) < SHOWN:
                one, other = sorted(ways.values())
                shown.append((str(part.origin(one)), str(part.origin(other))))
    return count, shown


def _same(part: Tokenized) -> list[NDArray[np.int64]]:
    with Buckets() as buckets:
        for start, records in part.records():
            buckets.add(records["content"].astype(np.uint64), np.arange(start, start + len(records)))
        return list(buckets.groups())
