"""Kappa and alpha of whole tables of votes: against the definition, and covering the truth."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.results.votes import pair, vote
from trueup.ranking.results.agreement import agreement
from trueup.ranking.results.results_schema import Absent, ResultsNumber
from trueup.ranking.results.table import tabulate


def by_pairs(units: list[list[int]], distance) -> float:
    """Alpha from its definition: mean distance within units over mean distance of all values, pair by pair."""
    units = [one for one in units if len(one) > 1]
    values = [value for unit in units for value in unit]
    n = len(values)
    within = sum(
        sum(distance(a, b) for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    )
    across = sum(distance(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j)
    return 1 - (within / n) / (across / (n * (n - 1)))


SAID = {0: "first", 1: "tie", 2: "second"}


def table_of(units: list[list[int]]):
    pairs = [pair(at) for at in range(1, len(units) + 1)]
    said = [(at, rater, value) for at, unit in enumerate(units, 1) for rater, value in enumerate(unit, 1)]
    return tabulate(pairs, [vote(at, on, SAID[value], rater=rater) for at, (on, rater, value) in enumerate(said, 1)])


def test_votes_have_the_alpha_of_its_definition() -> None:
    draw = np.random.default_rng(4)
    units = [draw.integers(0, 3, draw.integers(1, 5)).tolist() for _ in range(40)]
    found = agreement(table_of(units))
    kept = [value for unit in units if len(unit) > 1 for value in unit]
    counts = [kept.count(value) for value in range(3)]

    def ordinal(a: int, b: int) -> float:
        low, high = sorted((a, b))
        return (sum(counts[low : high + 1]) - (counts[low] + counts[high]) / 2) ** 2

    assert isinstance(found.nominal, ResultsNumber)
    assert isinstance(found.ordinal, ResultsNumber)
    assert found.nominal.value == pytest.approx(by_pairs(units, lambda a, b: float(a != b)))
    assert found.ordinal.value == pytest.approx(by_pairs(units, ordinal))
    assert found.pairs == found.nominal.n == sum(len(unit) > 1 for unit in units)


def test_both_bad_is_neither_as_a_tie_is_and_a_skip_is_nothing() -> None:
    kinds = [("tie", "both_bad")] * 6 + [("first", "first")] * 6 + [("second", "skip")] * 3
    votes = [
        vote(2 * at + rater, at, kind, rater=rater)
        for at, both in enumerate(kinds, 1)
        for rater, kind in enumerate(both, 1)
    ]
    found = agreement(tabulate([pair(at) for at in range(1, 16)], votes))
    assert isinstance(found.nominal, ResultsNumber)
    assert (found.nominal.value, found.nominal.n, found.raters[0].n) == (1, 12, 12)


def test_the_shown_side_plays_no_part() -> None:
    """Two raters who saw the sides exchanged and chose the same answer agree."""
    votes = [
        vote(2 * at + rater, at, "first" if at % 2 else "second", rater=rater, left=("first", "second")[rater - 1])
        for at in range(1, 21)
        for rater in (1, 2)
    ]
    found = agreement(tabulate([pair(at) for at in range(1, 21)], votes)).raters[0].kappa
    assert isinstance(found, ResultsNumber)
    assert found.value == 1


def test_agreement_without_exception_is_no_certainty() -> None:
    """Of 12 pairs all agreed on, up to 24% may differ (Wilson): the interval must not be one point."""
    found = agreement(table_of([[0, 0], [2, 2]] * 6))
    for one in (found.nominal, found.raters[0].kappa, found.raters[0].weighted):
        assert isinstance(one, ResultsNumber)
        assert one.value == one.high == 1
        assert one.low is not None
        assert 0.2 < one.low < 0.7


def test_few_or_equal_votes_have_no_coefficient() -> None:
    few = agreement(table_of([[0, 2], [1, 1]]))
    assert few.nominal == Absent(why="only 2 pairs have the votes of two raters; 5 are needed")
    same = agreement(table_of([[0, 0]] * 8))
    assert isinstance(same.nominal, Absent)
    assert "all votes on all 8 pairs are in one category" in same.nominal.why
    assert isinstance(same.raters[0].kappa, Absent)
    assert isinstance(same.raters[0].agreed, ResultsNumber)
    alone = agreement(table_of([[0]] * 8))
    assert alone.raters == []
    assert alone.nominal == Absent(why="no pair has the votes of two raters; 5 are needed")


@pytest.mark.slow
@pytest.mark.parametrize("same", [0.2, 0.6, 0.9])
def test_coverage(same: float) -> None:
    """Two raters give the same with a known chance beyond it: kappa and alpha are that chance (thirds each)."""
    draw = np.random.default_rng(7)
    inside = {"kappa": 0, "weighted": 0, "nominal": 0}
    for at in range(400):
        one, other = draw.integers(0, 3, (2, 80))
        other = np.where(draw.random(80) < same, one, other)
        found = agreement(table_of(np.stack([one, other], 1).tolist()), seed=at)
        for name, number in (
            ("kappa", found.raters[0].kappa),
            ("weighted", found.raters[0].weighted),
            ("nominal", found.nominal),
        ):
            assert isinstance(number, ResultsNumber)
            inside[name] += number.low <= same <= number.high
    assert all(0.91 <= count / 400 <= 0.99 for count in inside.values()), inside
