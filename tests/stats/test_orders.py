"""A judge asked in both orders: by enumeration, by hand, and by simulation of judges that do not read."""

from __future__ import annotations

import random
from itertools import product

import pytest

from trueup.stats.orders import follows_answers


def test_all_pairs_kept_by_hand() -> None:
    """Each place was named n times in n pairs of 2: of the (2n)! / (n! n!) ways to deal them, 2^n keep every pair."""
    assert follows_answers(1, 0, 0) == 1
    assert follows_answers(3, 0, 0) == pytest.approx(8 / 20)
    assert follows_answers(8, 0, 0) == pytest.approx(256 / 12870)
    assert follows_answers(7, 0, 0) > 0.025 > follows_answers(8, 0, 0)


@pytest.mark.parametrize(("kept", "first", "second"), [(2, 2, 1), (0, 3, 0), (4, 1, 0), (1, 1, 2), (0, 0, 0)])
def test_it_equals_the_enumeration_of_all_replies(kept: int, first: int, second: int) -> None:
    """All replies that name the first place as often as was seen are equally likely, whatever the judge's bias."""
    n = kept + first + second
    named = kept + 2 * first
    dealt = [replies for replies in product((0, 1), repeat=2 * n) if sum(replies) == named]
    counts = [sum(replies[2 * at] != replies[2 * at + 1] for at in range(n)) for replies in dealt]
    expected = sum(count >= kept for count in counts) / len(counts)
    assert follows_answers(kept, first, second) == pytest.approx(expected)


def test_a_judge_of_places_is_hardly_ever_taken_for_a_reader() -> None:
    rng = random.Random(0)
    for bias in (0.5, 0.8, 1.0):
        taken = 0
        for _ in range(400):
            counts = [0, 0, 0]
            for _ in range(64):
                a, b = rng.random() < bias, rng.random() < bias
                counts[0 if a != b else 1 if a else 2] += 1
            taken += follows_answers(*counts) <= 0.025
        assert taken <= 20


def test_a_biased_judge_that_reads_is_seen_to() -> None:
    """Four in ten pairs turn towards the first place, and the rest are kept."""
    assert follows_answers(40, 24, 0) < 0.001
    assert follows_answers(0, 64, 0) == 1
