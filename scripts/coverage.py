"""Simulate how often the 95% intervals hold the truth: a table of shapes and numbers of items.

    python scripts/coverage.py --draws 2000
    python scripts/coverage.py --shapes "lognormal, s = 1.5" --sizes 50 100 --methods

For each shape and number of items n it prints the share of draws whose interval holds the truth among those that have
an interval, the median width of these, and the share of draws whose interval is withheld ("too skewed to say", "too few
clusters to say"). `--methods` compares the interval of means with others: Student's t, the percentile bootstrap, BCa,
the studentised bootstrap, Hall's transformed t and empirical likelihood.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

from trueup.stats.arrays import Floats
from trueup.stats.intervals import Estimate, tied_rate
from trueup.stats.intervals import mean as mean_interval
from trueup.stats.paired import PairedDifference, difference
from trueup.stats.pivots import bisect, critical

SIZES = (20, 50, 100, 300)
RESAMPLES = 999
"""A quarter of the report's, which is as good for a share of draws."""
Interval = Estimate | PairedDifference


def mean(column: Floats) -> Estimate:
    """Return the report's interval of a mean."""
    return mean_interval(column.tolist(), resamples=RESAMPLES)


@dataclass(frozen=True, slots=True)
class Shape:
    """A distribution of items, its true mean, and the interval that the report gives of them.

    Attributes:
        truth: the true value.
        draw: n items from a generator.
        interval: the interval of a column of items.
        mean: True if it is a plain mean, which other methods can be compared on.
    """

    truth: float
    draw: Callable[[np.random.Generator, int], Floats]
    interval: Callable[[Floats], Interval] = mean
    mean: bool = True


def _sparse(generator: np.random.Generator, n: int) -> Floats:
    """Return differences of repetition: 8% of the items differ, by a uniform share."""
    return np.where(generator.random(n) < 0.08, generator.random(n), 0.0)


def _sparse_both_ways(generator: np.random.Generator, n: int) -> Floats:
    """Return differences of repetition: each model repeats itself in 4% of its answers, more or less."""
    return _sparse(generator, n) * np.where(generator.random(n) < 0.5, 1.0, -1.0)


def _paired(column: Floats) -> PairedDifference:
    return difference(column.tolist(), [0.0] * len(column), resamples=RESAMPLES)


def _tied(column: Floats) -> Estimate:
    return tied_rate(column.tolist())


def _heavy(generator: np.random.Generator, n: int) -> Floats:
    return generator.exponential(size=n) * np.where(generator.random(n) < 0.05, math.exp(20), 1.0)


SHAPES = {
    "normal": Shape(1.0, lambda generator, n: generator.normal(1, 1, n)),
    "exponential": Shape(1.0, lambda generator, n: generator.exponential(1, n)),
    "lognormal, s = 1": Shape(math.exp(0.5), lambda generator, n: generator.lognormal(0, 1, n)),
    "lognormal, s = 1.5": Shape(math.exp(1.125), lambda generator, n: generator.lognormal(0, 1.5, n)),
    "Pareto, index 3": Shape(0.5, lambda generator, n: generator.pareto(3, n)),
    "gamma, 0.3": Shape(0.3, lambda generator, n: generator.gamma(0.3, 1, n)),
    "Student's t, 3 degrees": Shape(0.0, lambda generator, n: generator.standard_t(3, n)),
    "KL of PPO (gamma, less noise)": Shape(
        2.0, lambda generator, n: generator.gamma(2, 1.5, n) - 1 + generator.normal(0, 1, n)
    ),
    "KL, 5% of answers times e^20": Shape(0.95 + 0.05 * math.exp(20), _heavy),
    "repetition, 18% of answers": Shape(
        0.18 * 0.2, lambda generator, n: np.where(generator.random(n) < 0.18, generator.beta(2, 8, n), 0.0)
    ),
    "paired repetition, 8%": Shape(0.04, _sparse, _paired),
    "paired repetition, 8%, both ways": Shape(0.0, _sparse_both_ways, _paired),
    "win rate, 70% ties": Shape(
        0.47, lambda generator, n: generator.choice([1.0, 0.5, 0.0], n, p=[0.12, 0.7, 0.18]), _tied, mean=False
    ),
}  # fmt: skip


@dataclass(slots=True)
class Count:
    """Coverage of an interval over simulated draws."""

    covered: int = 0
    low: int = 0
    high: int = 0
    withheld: int = 0
    widths: list[float] | None = None

    def add(self, interval: Interval, truth: float) -> None:
        """Count one interval: it holds the truth, lies below or above it, or is withheld."""
        if interval.withheld:
            self.withheld += 1
            return
        self.covered += interval.low <= truth <= interval.high
        self.low += interval.high < truth
        self.high += interval.low > truth
        self.widths = [*(self.widths or []), interval.high - interval.low]

    @property
    def share(self) -> float:
        """The share of the intervals given that hold the truth; NaN if none was given."""
        given = self.covered + self.low + self.high
        return self.covered / given if given else math.nan


def simulate(shape: Shape, n: int, draws: int, seed: int = 0) -> Count:
    """Return the coverage of a shape's interval at n items."""
    generator, count = np.random.default_rng([seed, n]), Count()
    for _ in range(draws):
        count.add(shape.interval(shape.draw(generator, n)), shape.truth)
    return count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--methods", action="store_true", help="compare other intervals of a mean")
    given = parser.parse_args()
    if given.methods:
        print_methods([name for name in given.shapes if SHAPES[name].mean], given.sizes, given.draws)
    else:
        print_table(given.shapes, given.sizes, given.draws)


def print_table(names: Sequence[str], sizes: Sequence[int], draws: int) -> None:
    """Print the coverage of the report's intervals, a row for each shape and number of items."""
    print(f"| shape | n | covers | below, above | median width | withheld |\n|---|{'---|' * 5}")
    for name in names:
        for n in sizes:
            count = simulate(SHAPES[name], n, draws)
            misses = f"{count.low / draws:.3f}, {count.high / draws:.3f}"
            width = f"{median(count.widths):.3g}" if count.widths else "-"
            withheld = f"{count.withheld / draws:.2f}" if count.withheld else "0"
            print(f"| {name} | {n} | {count.share:.3f} | {misses} | {width} | {withheld} |", flush=True)


# -- other intervals of a mean ---------------------------------------------------------------------------------------


def print_methods(names: Sequence[str], sizes: Sequence[int], draws: int) -> None:
    """Print the coverage and the median width of each method, a row for each shape and number of items."""
    print(f"| shape | n | {' | '.join(METHODS)} |\n|---|---|{'---|' * len(METHODS)}")
    for name in names:
        for n in sizes:
            generator = np.random.default_rng([1, n])
            counts = {method: Count() for method in METHODS}
            for _ in range(draws):
                column = SHAPES[name].draw(generator, n)
                for method, interval in METHODS.items():
                    counts[method].add(interval(column), SHAPES[name].truth)
            cells = [
                f"{count.share:.3f} ({median(count.widths or [math.nan]):.3g})"
                + (f", {count.withheld / draws:.2f} withheld" if count.withheld else "")
                for count in counts.values()
            ]
            print(f"| {name} | {n} | {' | '.join(cells)} |", flush=True)


def student(column: Floats) -> Estimate:
    """Return Student's interval of a mean."""
    return _around(column, -critical(len(column) - 1), critical(len(column) - 1))


def percentile(column: Floats) -> Estimate:
    """Return the percentile bootstrap's interval (Efron 1979)."""
    low, high = np.quantile(_resampled(column).mean(1), [0.025, 0.975])
    return Estimate(float(column.mean()), float(low), float(high), len(column))


def bca(column: Floats) -> Estimate:
    """Return the bias-corrected and accelerated bootstrap's interval (Efron 1987)."""
    means, centre = _resampled(column).mean(1), column.mean()
    rest = column - centre
    spread = float((rest**2).sum())
    speed = float((rest**3).sum()) / (6 * spread**1.5) if spread else 0.0
    bias = stats.norm.ppf(np.clip((means < centre).mean(), 1e-3, 1 - 1e-3))
    ends = [bias + z for z in stats.norm.ppf([0.025, 0.975])]
    low, high = np.quantile(means, [stats.norm.cdf(bias + end / (1 - speed * end)) for end in ends])
    return Estimate(float(centre), float(low), float(high), len(column))


def studentised(column: Floats) -> Estimate:
    """Return the plain studentised bootstrap's interval (Hall 1988)."""
    drawn, n = _resampled(column), len(column)
    errors = drawn.std(1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.nan_to_num((drawn.mean(1) - column.mean()) / errors, nan=0.0, posinf=1e9, neginf=-1e9)
    return _around(column, *np.quantile(pivots, [0.025, 0.975]))


def hall(column: Floats) -> Estimate:
    """Return the interval of Hall's (1992) transformed t, with the normal's points."""
    n, rest = len(column), column - column.mean()
    spread = math.sqrt(float((rest**2).mean()))
    skew = float((rest**3).mean()) / spread**3 if spread else 0.0
    if abs(skew) < 1e-9:
        return student(column)

    def point(z: float) -> float:
        return math.sqrt(n) * 3 / skew * (float(np.cbrt(1 + skew * (z / math.sqrt(n) - skew / (6 * n)))) - 1)

    return _around(column, point(-1.96), point(1.96))


def likelihood(column: Floats) -> Estimate:
    """Return the interval of empirical likelihood (Owen 1988), with the F distribution's point."""
    n, centre = len(column), float(column.mean())
    if np.ptp(column) == 0:
        return Estimate(centre, centre, centre, n)
    limit = stats.f.ppf(0.95, 1, n - 1)

    def excess(truth: float) -> float:
        rest = column - truth
        low, high = (1 / n - 1) / rest.max(), (1 / n - 1) / rest.min()
        tilt = bisect(lambda at: float((rest / (1 + at * rest)).sum()) < 0, low, high)
        return float(2 * np.log1p(tilt * rest).sum() - limit)

    step = 1e-7 * float(np.ptp(column))
    low = bisect(lambda truth: excess(truth) < 0, float(column.min()) + step, centre)
    high = bisect(lambda truth: excess(truth) > 0, centre, float(column.max()) - step)
    return Estimate(centre, low, high, n)


def _around(column: Floats, left: float, right: float) -> Estimate:
    centre, error = float(column.mean()), float(column.std(ddof=1)) / math.sqrt(len(column))
    return Estimate(centre, centre - right * error, centre - left * error, len(column))


def _resampled(column: Floats, resamples: int = 999) -> Floats:
    return column[np.random.default_rng(0).integers(len(column), size=(resamples, len(column)))]


METHODS: dict[str, Callable[[Floats], Estimate]] = {
    "trueup's": mean,
    "Student's t": student,
    "percentile": percentile,
    "BCa": bca,
    "studentised": studentised,
    "Hall's t": hall,
    "empirical likelihood": likelihood,
}

if __name__ == "__main__":
    main()
