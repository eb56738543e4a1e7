"""Tests over repeated looks: exact by enumeration, false alarms of flat runs by simulation, a planted fall, a rise."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trueup.stats import looks

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_holds_for_random_signs(seed: int) -> None:
    """All 2^10 sign patterns of ten lognormal differences: the bound is at least the share with a sum as low."""
    sizes = np.random.default_rng(seed).lognormal(0, 1.5, 10)
    patterns = np.array(list(itertools.product((-1, 1), repeat=10))) * sizes
    sums = patterns.sum(1)
    exact = (sums[None] <= sums[:, None] + 1e-12).mean(1)
    assert (looks.below(patterns) >= exact - 1e-12).all()


def test_equal_signs_are_counted_exactly() -> None:
    """Five falls, two prompts unchanged: 2^-5. With a rise among them it is 3.178 x the normal tail at z = 5/sqrt 7."""
    fell = np.array([[-1.0, -2.0, -0.1, -1.0, -3.0, 0.0, 0.0], [-1, -1, -1, -1, -1, -1, 1], [0] * 7])
    tail = 0.5 * math.erfc(5 / math.sqrt(7) / math.sqrt(2))
    assert looks.below(fell).tolist() == pytest.approx([2**-5, 3.178 * tail, 1.0])


def test_all_looks_together_spend_five_percent() -> None:
    """0.04 / 10 a look; made longer to 20: half of the rest, 0.005, over ten more; then 0.0025 over the next ten."""
    plans = [10] * 10 + [20] * 10 + [30] * 10
    spent = [looks.level(plans[:count]) for count in range(1, 31)]
    assert spent == pytest.approx([0.004] * 10 + [0.0005] * 10 + [0.00025] * 10)
    assert sum(spent) <= looks.ALPHA
    assert looks.level([3, 3, 3, 3]) == 0.0  # more looks than planned


def test_the_fewest_prompts() -> None:
    """At one look 2^-5 is below 0.04; at four, with 6 comparisons at the last one, 2^-n must be below 0.01 / 6."""
    assert [looks.fewest_items(count) for count in (1, 4)] == [5, 10]
    values = np.ones((5, 10))
    values[4] = 0
    assert looks.fall(values, [4] * 4).p <= looks.ALPHA
    assert looks.fall(values[:, :9], [4] * 4).p > looks.ALPHA


def test_a_fall_names_the_looks_compared() -> None:
    """Forty prompts rise from 0 to 1 and fall to 1/2 again: of one look each, number 1 or 2 against number 3."""
    values = np.array([[0.0] * 40, [1.0] * 40, [1.0] * 40, [0.5] * 40])
    found = looks.fall(values, [3] * 3)
    assert (found.before, found.now, found.value) == ((1, 1), (3, 3), -0.5)
    assert found.p == pytest.approx(2**-40 * 4 * 3 / 0.8)  # compared with 3 single looks, and 1 pair with a pair
    assert looks.fall(values[:3], [3] * 2).p == 1.0


# -- simulated runs --------------------------------------------------------------------------------------------------


def flat(kind: str, looks_planned: int, n: int, rng: np.random.Generator) -> Floats:
    """Values of n prompts at all looks of a run without a trend; "sticky" ones mostly stay from look to look."""
    shape = (looks_planned + 1, n)
    chance = rng.beta(0.5, 0.5, n)
    if kind == "binary":
        return (rng.random(shape) < chance).astype(float)
    if kind == "gaussian":
        return rng.normal(chance, 0.5, shape)
    if kind == "lognormal":
        return rng.lognormal(0, 1.5, shape)
    drawn, redrawn = (rng.random(shape) < chance).astype(float), rng.random(shape) < 0.1
    for look in range(1, len(drawn)):
        drawn[look] = np.where(redrawn[look], drawn[look], drawn[look - 1])
    return drawn


def alarm(values: Floats) -> int | None:
    """Return the first look at which a fall is reported."""
    planned = [len(values) - 1] * (len(values) - 1)
    for look in range(1, len(values)):
        if looks.fall(values[: look + 1], planned[:look]).p <= looks.ALPHA:
            return look
    return None


KINDS = ("binary", "gaussian", "lognormal", "sticky")


def false_alarms(kind: str, planned: int, n: int, runs: int) -> int:
    rng = np.random.default_rng([planned, n, KINDS.index(kind)])
    return sum(alarm(flat(kind, planned, n, rng)) is not None for _ in range(runs))


@pytest.mark.parametrize("kind", KINDS)
def test_flat_runs_raise_nothing(kind: str) -> None:
    """30 runs of 25 looks: at 5% each, six or more alarms have a chance of 0.3%."""
    assert false_alarms(kind, 25, 64, 30) <= 5


@pytest.mark.slow
@pytest.mark.parametrize(("planned", "n", "runs"), [(25, 32, 300), (25, 200, 300), (200, 32, 100), (200, 200, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_flat_runs_raise_nothing_in_many(kind: str, planned: int, n: int, runs: int) -> None:
    """At most 5% of the runs, with three standard errors of the simulation."""
    found = false_alarms(kind, planned, n, runs)
    print(f"{kind}, {n} prompts, {planned} looks: {found} false alarms in {runs} runs")
    assert found / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def course(means: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return binary values of n prompts whose chances are around the means, one per look."""
    spread = rng.normal(0, 0.15, n)
    return (rng.random((len(means), n)) < np.clip(means[:, None] + spread, 0.02, 0.98)).astype(float)


@pytest.mark.parametrize("planned", [20, 60])
def test_a_planted_fall_is_found_before_half_is_lost(planned: int) -> None:
    """Gold rises from 0.2 to 0.8 and falls back at the same pace, 200 prompts: found above 0.5 in 8 of 10."""
    rng, half = np.random.default_rng(planned), planned // 2
    means = np.concatenate([np.linspace(0.2, 0.8, half + 1), np.linspace(0.8, 0.2, planned - half + 1)[1:]])
    lost = next(look for look in range(half, planned + 1) if means[look] <= 0.5)
    found = [alarm(course(means, 200, rng)) for _ in range(10)]
    assert sum(look is not None and half < look < lost for look in found) >= 8


def test_a_rising_run_is_never_reported() -> None:
    rng = np.random.default_rng(7)
    assert all(alarm(course(np.linspace(0.3, 0.7, 21), 64, rng)) is None for _ in range(30))


def test_a_rise_is_the_fall_turned_round() -> None:
    rng = np.random.default_rng(3)
    now, then = rng.normal(1, 1, 30), rng.normal(0, 1, 30)
    expected = float(looks.below((then - now)[None])[0]) * 10 / 0.8
    assert looks.rise(now, then, [10]) == pytest.approx(expected)
    assert looks.rise(then, then, [10]) == 1.0
