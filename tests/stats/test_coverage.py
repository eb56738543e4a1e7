"""Coverage of the report's intervals, simulated by scripts/coverage.py: skewed, sparse and heavy-tailed items."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from trueup.stats.paired import exceeds

PATH = Path(__file__).parents[2] / "scripts" / "coverage.py"
SPEC = importlib.util.spec_from_file_location("coverage_script", PATH)
assert SPEC is not None
assert SPEC.loader is not None
coverage = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = coverage
SPEC.loader.exec_module(coverage)
HEAVY = "KL, 5% of answers times e^20"


@pytest.mark.parametrize("name", ["lognormal, s = 1.5", "paired repetition, 8%", "repetition, 18% of answers"])
def test_skewed_means_are_covered(name: str) -> None:
    """The percentile bootstrap covered 0.78, 0.83 and 0.85 of them; 100 draws have an error of 0.02."""
    count = coverage.simulate(coverage.SHAPES[name], 50, 100)
    assert count.share > 0.88
    assert count.withheld <= 3


def test_heavy_tails_are_withheld() -> None:
    count = coverage.simulate(coverage.SHAPES[HEAVY], 100, 60)
    assert count.withheld >= 58


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 300])
@pytest.mark.parametrize("name", [name for name in coverage.SHAPES if name != HEAVY])
def test_every_interval_covers(name: str, n: int) -> None:
    """0.93 at least, up to the simulation's error of 0.005; from 100 items on no padding; nothing is withheld."""
    count = coverage.simulate(coverage.SHAPES[name], n, 2000)
    print(name, n, count.share, count.withheld)
    assert count.share >= 0.925
    assert count.share <= 0.99 or n < 100
    assert count.withheld <= 20


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 300])
def test_heavy_tails_are_covered_or_withheld(n: int) -> None:
    """A sample without any of the rare answers, 0.077 of those of 50 items, looks like a harmless one."""
    count = coverage.simulate(coverage.SHAPES[HEAVY], n, 2000)
    print(n, count.share, count.withheld)
    assert 1 - (count.low + count.high) / 2000 >= 0.92
    assert math.isnan(count.share) or n == 50 or count.withheld > 1800 or count.share > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "KL of PPO (gamma, less noise)", "paired repetition, 8%, both ways"])
def test_gates_err_seldom_exactly_at_their_limit(name: str) -> None:
    """At a true difference of the limit a gate passes, or fails, in 2.5% of cases; 2,000 draws err by 0.35%."""
    shape, generator, n = coverage.SHAPES[name], np.random.default_rng(3), 100
    kept = broken = 0
    for _ in range(2000):
        column = shape.draw(generator, n).tolist()
        broken += exceeds(column, [0.0] * n, shape.truth, resamples=999) <= 0.025
        kept += exceeds([0.0] * n, column, -shape.truth, resamples=999) <= 0.025
    print(name, kept / 2000, broken / 2000)
    assert max(kept, broken) / 2000 <= 0.035
