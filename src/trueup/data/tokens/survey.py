"""Counts over the rows of a section, made in one pass over the records, in memory that does not grow with the rows."""

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
    """Number, sum and sum of squares of integers, for their mean and variance; integers lose no precision."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def add(self, values: NDArray[np.integer]) -> None:
        """Add the given integers to the sums."""
        wide = values.astype(np.int64)
        self.n += len(wide)
        self.total += int(wide.sum())
        self.squares += int((wide**2).sum())

    @property
    def mean(self) -> float:
        """The mean of the integers added so far; NaN if there are none."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """The sample variance (divided by n - 1) of the integers added so far; NaN with fewer than two."""
        return (self.n * self.squares - self.total**2) / (self.n * (self.n - 1)) if self.n > 1 else math.nan


@dataclass(slots=True)
class Survey:
    """Counts over the rows of one section.

    Attributes:
        rows: number of rows.
        tokens, trained: tokens, and trained tokens, of all rows; a prompt shared by two answers counts once.
        by_length: number of rows of each length (tokens of the longest sequence, prompt included).
        flags, places: number of rows with each flag (property, e.g. an empty response), and the first ten places.
        scripts, languages: number of rows by script and language of the answer, of the rows examined for these.
        chosen, rejected: sums of the lengths of the two answers, in tokens.
        longer, shorter: number of pairs whose chosen answer is longer, or shorter, than the rejected one.
        labels: number of true and of false labels.
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
        """Cohen's d of the answers' lengths: (mean chosen - mean rejected) / sqrt((var chosen + var rejected) / 2).

        See Cohen 1988. Infinite if all chosen answers have one length and all rejected ones another; 0 for a single
        pair.
        """
        if self.chosen.n < 2:
            return 0.0
        spread = math.sqrt((self.chosen.variance + self.rejected.variance) / 2)
        difference = self.chosen.mean - self.rejected.mean
        if spread:
            return difference / spread
        return math.copysign(math.inf, difference) if difference else 0.0

    def quantile(self, share: float) -> int:
        """Return the length in tokens that the share `share` (0 to 1) of the rows does not exceed."""
        reached = np.searchsorted(np.cumsum(self.by_length), share * self.rows - 1e-9)
        return int(min(reached, len(self.by_length) - 1))

    def histogram(self) -> list[tuple[int, int, int]]:
        """Return the histogram of the lengths in tokens, as bars (from, to, rows) whose widths are powers of two.

        Empty bars at both ends are left out.
        """
        edges = [0, 16, *(2**power for power in range(5, 21)), _LONGEST + 1]
        bars = [(low, high - 1, int(self.by_length[low:high].sum())) for low, high in pairwise(edges)]
        filled = [index for index, bar in enumerate(bars) if bar[2]]
        return bars[filled[0] : filled[-1] + 1] if filled else []

    def above(self, length: int) -> int:
        """Return the number of rows longer than `length` tokens."""
        return int(self.by_length[length + 1 :].sum())


def survey(examples: Examples, stops: Collection[int] = ()) -> Survey:
    """Return the counts over the examples; `stops` are the ids of the end tokens.

    Every record is read once, and the tokens only of rows that are cut.
    """
    result, seen = Survey(), 0
    for part, rows in zip(examples.parts, examples.rows, strict=True):
        labelled = part.meta["want"] == "labelled"
        for start, records in part.records():
            first, last = np.searchsorted(rows, [start, start + len(records)])
            if last > first:
                selected = records[rows[first:last] - start]
                if examples.cut is not None:
                    _cut_records(selected, examples, seen, stops)
                _add(result, part, selected, labelled=labelled)
                seen += len(selected)
    return result


def _cut_records(records: NDArray[np.void], examples: Examples, start: int, stops: Collection[int]) -> None:
    """Change the records of rows that are too long to the lengths and flags of these rows after cutting.

    The records are those of the examples from number `start` on.
    """
    for index in np.flatnonzero(lengths(records) > (examples.cut or 0)).tolist():
        example = examples[start + index]
        for side, branch in zip(("first", "second"), example.branches, strict=False):
            records[side][index] = len(branch.ids)
        records["trained"][index] = sum(branch.trained for branch in example.branches)
        kept = int(records["flags"][index]) & ~int(Flag.ENDS | Flag.UNTRAINED)
        records["flags"][index] = kept | trained_flags(example, stops)


def _add(result: Survey, part: Tokenized, records: NDArray[np.void], *, labelled: bool) -> None:
    """Add the counts of some records of the section `part` to a survey."""
    result.rows += len(records)
    branches = records["first"].astype(np.int64) + np.maximum(records["second"], 0)
    result.tokens += int(records["trunk"].sum() + branches.sum())
    result.trained += int(records["trained"].sum())
    counts = np.bincount(np.minimum(lengths(records), _LONGEST))
    width = max(len(counts), len(result.by_length))
    result.by_length = np.pad(result.by_length, (0, width - len(result.by_length)))
    result.by_length[: len(counts)] += counts
    for flag in Flag:
        hits = np.flatnonzero(records["flags"] & np.uint32(flag))
        result.flags[flag] += len(hits)
        shown = result.places.setdefault(flag, [])
        shown += [str(part.origin_of(records[index])) for index in hits[: SHOWN - len(shown)]]
    judged = records[(records["flags"] & np.uint32(Flag.JUDGED)) != 0]
    for names, counter, column in ((SCRIPTS, result.scripts, "script"), (LANGUAGES, result.languages, "language")):
        for index, count in enumerate(np.bincount(judged[column], minlength=len(names)).tolist()):
            counter[names[index]] += count
    pairs = records[records["second"] >= 0]
    result.chosen.add(pairs["first"])
    result.rejected.add(pairs["second"])
    result.longer += int((pairs["first"] > pairs["second"]).sum())
    result.shorter += int((pairs["first"] < pairs["second"]).sum())
    if labelled:
        true = int((records["scalar"] == 1).sum())
        result.labels = (result.labels[0] + true, result.labels[1] + len(records) - true)


def duplicate_rows(part: Tokenized) -> tuple[int, int]:
    """Return the number of rows that repeat an earlier row (nearly or exactly), and the number of exact repetitions."""
    equal = sum(len(group) - 1 for group in _equal_rows(part))
    first = near_groups(part).firsts()
    return int((first != np.arange(len(first))).sum()), equal


def contradictions(part: Tokenized) -> tuple[int, list[tuple[str, str]]]:
    """Return the number of groups of equal rows with contrary verdicts, and the places of the first ten.

    In such a group, two answers are ranked both ways, or an answer is labelled both true and false. Each place is (file
    and line of a row, file and line of the contrary one).
    """
    count, shown = 0, []
    labelled = part.meta["want"] == "labelled"
    for group in _equal_rows(part):
        verdicts: dict[bool, int] = {}
        for row in group.tolist():
            record = part.record(row)
            verdict = record["scalar"] == 1 if labelled else record["flags"] & np.uint32(Flag.SORTED)
            verdicts.setdefault(bool(verdict), row)
        if len(verdicts) == 2:
            count += 1
            if len(shown) < SHOWN:
                first, second = sorted(verdicts.values())
                shown.append((str(part.origin(first)), str(part.origin(second))))
    return count, shown


def _equal_rows(part: Tokenized) -> list[NDArray[np.int64]]:
    """Return the groups of rows with equal text, each as an array of row numbers."""
    with Buckets() as buckets:
        for start, records in part.records():
            buckets.add(records["content"].astype(np.uint64), np.arange(start, start + len(records)))
        return list(buckets.groups())
