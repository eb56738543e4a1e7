"""The ranking of a table of votes: strengths, ranks, groups, and covering the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ranking.results.votes import pair, store, vote
from trueup.ranking.results.strengths import rank, wins_of
from trueup.ranking.results.table import tabulate
from trueup.stats.bradley_terry import POINTS


def test_a_resample_is_of_whole_prompts() -> None:
    """Prompt 1 has a win, prompt 2 a tie: any resample of two is one of three tables."""
    made = tabulate([pair(1), pair(2)], [vote(1, 1, "first"), vote(2, 1, "first", rater=2), vote(3, 2, "tie")])
    wins = wins_of(made)
    assert wins.matrix().tolist() == [[0, 0.5], [2.5, 0]]
    drawn = wins.resampled(200, np.random.default_rng(0))
    kinds = {(float(one[0, 1]), float(one[1, 0])) for one in drawn}
    assert kinds == {(0, 4), (0.5, 2.5), (1, 1)}


def test_two_models_have_the_strength_of_their_rate() -> None:
    """60 of 100 and one tie more for each against 0: within a point of 400 log10(60/40) = 70.4."""
    votes = [vote(at + 1, at + 1, "first" if at % 10 < 6 else "second") for at in range(100)]
    top, last = rank(tabulate([pair(at + 1) for at in range(100)], votes))
    assert (top.model, last.model) == ("sft", "dpo")
    assert top.points.value - last.points.value == pytest.approx(70.4, abs=1.0)
    assert (top.rank, top.wins, top.points.n) == (1, 60, 100)


def test_ties_are_halves_and_the_rest_is_left_out() -> None:
    pairs = [pair(at) for at in range(1, 6)]
    kinds = ("first", "tie", "both_bad", "skip", "second")
    rows = rank(tabulate(pairs, [vote(at, at, kind) for at, kind in enumerate(kinds, 1)]))
    assert [(one.wins, one.points.n, one.points.value) for one in rows] == [(1.5, 3, 0), (1.5, 3, 0)]


def test_the_undefeated_have_no_upper_end() -> None:
    votes = [vote(at, at, "first") for at in range(1, 9)]
    top, last = rank(tabulate([pair(at) for at in range(1, 9)], votes))
    assert top.points.high is None
    assert top.points.low is not None
    assert last.points.low is None
    assert math.isfinite(top.points.value)


def test_models_that_never_met_are_groups() -> None:
    """a and b met on three prompts, c and d on two, e nobody: e is left out, and each group is centred."""
    names = [("a", "b")] * 3 + [("c", "d")] * 2 + [("e", "a")]
    pairs = [pair(at, one, other) for at, (one, other) in enumerate(names, 1)]
    rows = rank(tabulate(pairs, [vote(at, at, "first") for at in range(1, 6)]))
    assert [(one.model, one.group, one.rank) for one in rows] == [("a", 0, 1), ("b", 0, 2), ("c", 1, 1), ("d", 1, 2)]
    for group in (0, 1):
        assert sum(one.points.value for one in rows if one.group == group) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(12))
def test_ranks_are_as_unsure_as_strengths(seed: int) -> None:
    """Of two models, the rank is sure exactly where the strength's interval leaves out 0."""
    top, last = rank(tabulate(*store({"a": 0, "b": 1.0}, prompts=14, seed=seed)))
    sure = top.points.low is not None and top.points.low > 0
    assert (top.rank_high == 1) == (last.rank_low == 2) == sure


def test_nothing_is_no_ranking() -> None:
    assert rank(tabulate([pair(1)], [])) == []
    assert rank(tabulate([pair(1)], [vote(1, 1, "both_bad")])) == []


def covered(times: int, seed: int, **shape) -> tuple[float, float]:
    """Shares of strengths, and of ranks, within their intervals."""
    truth = {"a": 0.0, "b": 0.2, "c": 0.5, "d": 1.0}
    middle = sum(truth.values()) / 4
    inside, ranked = [], []
    for at in range(times):
        rows = rank(tabulate(*store(truth, seed=seed + at, **shape)), resamples=300)
        for one in rows:
            assert one.points.low is not None
            assert one.points.high is not None
            inside.append(one.points.low <= POINTS * (truth[one.model] - middle) <= one.points.high)
            place = sorted(truth, key=truth.__getitem__, reverse=True).index(one.model) + 1
            ranked.append(one.rank_low <= place <= one.rank_high)
    return float(np.mean(inside)), float(np.mean(ranked))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [{"prompts": 120}, {"prompts": 100, "k": 3, "raters": 3}])
def test_coverage(shape: dict) -> None:
    strengths, ranks = covered(150, seed=100, ties=0.0, **shape)
    assert 0.92 <= strengths <= 0.98
    assert ranks >= 0.93
