"""Raters and lengths, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.results.votes import pair, store, vote
from trueup.evaluation.winrate import length_controlled
from trueup.ranking.results import Absent, ResultsNumber, view
from trueup.ranking.results.raters import keys, others_majority
from trueup.ranking.results.table import tabulate


def row_of(made, name: str):
    return next(one for one in made.raters if one.rater == name)


def test_the_majority_is_of_the_others() -> None:
    """Pair 1: first, first, second, skip. Pair 2: first, second. Pair 3: one vote. Pair 4: tie, both bad, first."""
    said = {
        1: ("first", "first", "second", "skip"),
        2: ("first", "second"),
        3: ("first",),
        4: ("tie", "both_bad", "first"),
    }
    votes = [
        vote(10 * on + rater, on, kind, rater=rater) for on, all_ in said.items() for rater, kind in enumerate(all_, 1)
    ]
    table = tabulate([pair(at) for at in range(1, 5)], votes)
    # Seen from the first rater the others are split on pair 1; from the third they both said first.
    assert others_majority(table).tolist() == [-1, -1, 0, -1, 2, 0, -1, -1, -1, 1]
    third = row_of(view([pair(at) for at in range(1, 5)], votes), "rater 3")
    assert isinstance(third.majority, ResultsNumber)
    assert (third.majority.value, third.majority.n) == (0, 2)


def test_gold_counts_ties_as_wrong_and_skips_not_at_all() -> None:
    pairs = [pair(at, gold="second") for at in range(1, 6)]
    kinds = ("second", "second", "tie", "first", "skip")
    (row,) = view(pairs, [vote(at, at, kind) for at, kind in enumerate(kinds, 1)]).raters
    assert isinstance(row.gold, ResultsNumber)
    assert (row.gold.value, row.gold.n, row.votes, row.skips) == (0.5, 4, 4, 1)


def test_habits_by_hand() -> None:
    kinds = ("first", "second", "tie", "both_bad", "tie")
    votes = [
        vote(at, at, kind, left="second", seconds=float(at) if at < 5 else None) for at, kind in enumerate(kinds, 1)
    ]
    (row,) = view([pair(at) for at in range(1, 6)], votes).raters
    assert (row.ties.value, row.both_bad.value, row.left.value, row.seconds) == (0.4, 0.2, 0.5, 2.5)
    assert (row.left.n, row.ties.n, row.longer.value, row.longer.n) == (2, 5, 0.5, 2)
    assert keys(tabulate([pair(at) for at in range(1, 6)], votes)).tolist() == [1, 0, 2, 3, 2]


@pytest.mark.parametrize(
    ("kind", "key"), [("A", "A"), ("B", "B"), ("tie", "tie"), ("both_bad", "both bad"), ("skip", "skip")]
)
def test_a_rater_who_always_presses_the_same_key_is_flagged(kind: str, key: str) -> None:
    """One who presses A chooses now the first, now the second answer, as the sides fall."""
    votes = []
    for at in range(1, 13):
        left = "first" if at % 3 else "second"
        other = "second" if left == "first" else "first"
        choice = {"A": left, "B": other}.get(kind, kind)
        votes.append(vote(at, at, choice, left=left))
    (row,) = view([pair(at) for at in range(1, 13)], votes).raters
    assert row.flags == [f"always presses the same key: {key} 12 of 12 times"]
    few = view([pair(at) for at in range(1, 13)], votes[:9])
    assert not any("same key" in flag for flag in few.raters[0].flags)


def test_always_the_first_answer_is_no_key() -> None:
    votes = [vote(at, at, "first", left="first" if at % 2 else "second") for at in range(1, 31)]
    (row,) = view([pair(at) for at in range(1, 31)], votes).raters
    assert row.flags == []
    assert isinstance(row.left, ResultsNumber)
    assert row.left.value == 0.5


def test_a_leaning_to_one_side_is_flagged_and_said() -> None:
    votes = [
        vote(at, at, left if at % 5 else other, left=left)
        for at in range(1, 101)
        for left, other in [("first", "second") if at % 2 else ("second", "first")]
    ]
    made = view([pair(at) for at in range(1, 101)], votes)
    assert isinstance(made.left, ResultsNumber)
    assert (made.left.value, made.left.n) == (0.8, 100)
    assert made.raters[0].flags == ["prefers side A, whatever it shows"]
    assert any(note.startswith("Side A is preferred") for note in made.notes)


@pytest.mark.slow
def test_fair_raters_are_flagged_one_time_in_twenty_at_most() -> None:
    """Eight fair raters at once; the threshold allows for their number."""
    flagged = 0
    for seed in range(30):
        made = view(*store({"a": 0, "b": 1}, prompts=100, k=4, raters=8, seed=seed))
        flagged += any(row.flags for row in made.raters)
    assert flagged <= 5


def test_the_sides_of_imported_votes_say_nothing() -> None:
    votes = [vote(at, at, "first", left="first", policy="") for at in range(1, 31)]
    made = view([pair(at) for at in range(1, 31)], votes)
    assert isinstance(made.left, Absent)
    assert made.raters[0].flags == []
    assert isinstance(made.raters[0].left, Absent)


def test_names_of_raters_may_be_alike() -> None:
    votes = [vote(1, 1, "first", rater=1, name="Kim"), vote(2, 1, "second", rater=2, name="Kim")]
    assert [(row.rater, row.votes) for row in view([pair(1)], votes).raters] == [("Kim", 1), ("Kim", 1)]


def test_lengths_by_hand() -> None:
    """Winners against losers in characters: 5 to 15, 15 to 5, 15 to 5, equal: mean (-10 + 10 + 10 + 0) / 4."""
    pairs = [pair(at) for at in range(1, 4)] + [pair(4, texts=("same!", "equal"))]
    votes = [
        vote(1, 1, "first"),
        vote(2, 2, "second"),
        vote(3, 3, "second"),
        vote(4, 4, "first"),
        vote(5, 4, "tie", rater=2),
    ]
    found = view(pairs, votes).lengths
    assert isinstance(found.characters, ResultsNumber)
    assert isinstance(found.longer, ResultsNumber)
    assert (found.characters.value, found.characters.n) == (2.5, 4)
    assert found.words.value == pytest.approx((-2 + 2 + 2 + 0) / 4)
    assert (found.longer.value, found.longer.n) == (pytest.approx(2 / 3), 3)


def test_raters_who_like_length_are_seen_and_taken_out() -> None:
    """b is as good as a and 200 characters longer; 1.5 in log odds a 100 characters."""
    draw = np.random.default_rng(0)
    pairs, votes = [], []
    for at in range(1, 301):
        sizes = draw.integers(100, 300), draw.integers(180, 380)
        pairs.append(pair(at, "a", "b", texts=("x" * sizes[0], "y" * sizes[1])))
        chance = 1 / (1 + np.exp(-1.5 * np.tanh((sizes[1] - sizes[0]) / 110)))
        votes.append(vote(at, at, "second" if draw.random() < chance else "first"))
    made = view(pairs, votes)
    (one,) = made.samples[0].pairings
    assert made.lengths.longer.low > 0.5
    assert made.lengths.characters.low > 0
    assert (one.model, one.winner) == ("b", "b")
    assert isinstance(one.controlled, ResultsNumber)
    assert one.controlled.low < 0.5 < one.controlled.high


def test_the_rate_at_equal_lengths_is_that_of_evaluation() -> None:
    pairs, votes = store({"a": 0.0, "b": 0.8}, prompts=60, ties=0.2, both_bad=0, skips=0, longer=0.5)
    (one,) = view(pairs, votes, seed=4).samples[0].pairings
    known = {own.id: own for own in pairs}
    rows = []
    for own in votes:
        here = known[own.ballot.pair]
        ours, theirs = (here.first, here.second) if here.first.model == one.model else (here.second, here.first)
        won = {"first": 1.0, "second": 0.0, "tie": 0.5}[own.ballot.choice]
        rows.append((won if ours is here.first else 1 - won, len(ours.text), len(theirs.text)))
    expected = length_controlled(*(list(column) for column in zip(*rows, strict=True)), seed=4).rate
    assert one.controlled == ResultsNumber(value=expected.value, low=expected.low, high=expected.high, n=expected.n)


def test_too_few_prompts_for_length_say_so() -> None:
    (one,) = view([pair(1), pair(2)], [vote(1, 1, "first"), vote(2, 2, "second")]).samples[0].pairings
    assert one.controlled == Absent(why="2 prompts are too few to tell length from preference: 10 are needed")
