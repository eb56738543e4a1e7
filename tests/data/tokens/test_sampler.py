"""The order of rows: by seed and epoch alone, as often as the weights say, and resumable at every position."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorough import trials
from trueup.data.tokens.sampler import Sampler, epoch_rows
from trueup.errors import CheckpointError, DataError

weight = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.25, 3.0])
parts = st.lists(st.tuples(st.integers(1, 25), weight), min_size=1, max_size=4)


def epoch(sampler: Sampler) -> list[list[int]]:
    """The batches of the epoch that begins now."""
    now = sampler.epoch
    batches = []
    while sampler.epoch == now:
        batches.append(sampler.next())
    return batches


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("n", [1, 2, 7, 16, 100])
def test_weight_1_is_a_plain_shuffle_by_seed_and_epoch(n: int) -> None:
    sampler = Sampler(n, 3, seed=5)
    for number in range(3):
        expected = list(range(n))
        random.Random(f"5-{number}").shuffle(expected)
        assert flat(epoch(sampler)) == expected


def test_two_sections_of_weight_1_are_one_list() -> None:
    both, one = Sampler([4, 9], 4, seed=2), Sampler(13, 4, seed=2)
    assert [both.next() for _ in range(12)] == [one.next() for _ in range(12)]


def test_without_a_shuffle_the_rows_come_in_order() -> None:
    assert epoch(Sampler(5, 2, seed=0, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_the_last_batch_of_an_epoch_is_short_and_none_is_lost() -> None:
    sampler = Sampler(10, 4, seed=0)
    assert [len(batch) for batch in epoch(sampler)] == [4, 4, 2]
    assert sorted(flat(epoch(sampler))) == list(range(10))


def test_another_seed_is_another_order() -> None:
    assert flat(epoch(Sampler(50, 8, seed=0))) != flat(epoch(Sampler(50, 8, seed=1)))


class TestWeights:
    def test_2_gives_every_row_twice(self) -> None:
        sampler = Sampler([3], 2, seed=0, weights=[2.0])
        assert Counter(flat(epoch(sampler))) == {0: 2, 1: 2, 2: 2}
        assert sampler.n == 6

    def test_a_quarter_gives_all_rows_in_four_epochs(self) -> None:
        sampler = Sampler([12], 2, seed=0, weights=[0.25])
        epochs = [flat(epoch(sampler)) for _ in range(8)]
        assert [len(one) for one in epochs] == [3] * 8
        assert sorted(flat(epochs[:4])) == list(range(12))
        assert sorted(flat(epochs[4:])) == list(range(12))
        assert epochs[:4] != epochs[4:]

    def test_one_and_a_half_gives_all_rows_once_and_half_of_them_again(self) -> None:
        sampler = Sampler([6], 4, seed=0, weights=[1.5])
        one, other = Counter(flat(epoch(sampler))), Counter(flat(epoch(sampler)))
        assert sorted(one.values()) == sorted(other.values()) == [1, 1, 1, 2, 2, 2]
        assert one + other == dict.fromkeys(range(6), 3)

    def test_a_mixture(self) -> None:
        """8 rows once, 5 rows twice, 4 rows a half of a time: 8 + 10 + 2."""
        sampler = Sampler([8, 5, 4], 3, seed=3, weights=[1.0, 2.0, 0.5])
        assert sampler.n == 20
        counts = Counter(flat(epoch(sampler)))
        assert all(counts[row] == 1 for row in range(8))
        assert all(counts[row] == 2 for row in range(8, 13))
        assert sum(counts[row] for row in range(13, 17)) == 2

    def test_a_part_that_does_not_divide_straddles_two_turns(self) -> None:
        """Of 5 rows 0.3 is round(1.5) = 2 rows an epoch: the third epoch ends one turn and begins the next."""
        sampler = Sampler([5], 2, seed=0, weights=[0.3])
        drawn = flat(flat(epoch(sampler)) for _ in range(5))
        assert len(drawn) == 10
        assert Counter(drawn) == dict.fromkeys(range(5), 2)

    @trials(80)
    @given(parts, st.integers(1, 9), st.integers(0, 3))
    def test_all_had_their_turn_before_one_comes_again(
        self, made: list[tuple[int, float]], batch_size: int, seed: int
    ) -> None:
        sizes, weights = [size for size, _ in made], [weight for _, weight in made]
        rows = [epoch_rows(size, weight) for size, weight in made]
        if not sum(rows):
            with pytest.raises(DataError, match="at least 1"):
                Sampler(sizes, batch_size, seed, weights=weights)
            return
        sampler = Sampler(sizes, batch_size, seed, weights=weights)
        seen: Counter[int] = Counter()
        for number in range(1, 6):
            batches = epoch(sampler)
            assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
            assert len(flat(batches)) == sampler.n == sum(rows)
            seen.update(flat(batches))
            start = 0
            for size, count in zip(sizes, rows, strict=True):
                times = [seen[row] for row in range(start, start + size)]
                assert sum(times) == number * count
                assert max(times) - min(times) <= 1
                start += size
        assert max(seen) < sum(sizes)

    def test_rounding_is_of_the_product(self) -> None:
        """0.29 * 100 is 28.999999999999996 in floating point, 2.3 % 1 is 0.2999999999999998."""
        assert epoch_rows(100, 0.29) == 29
        assert epoch_rows(10, 2.3) == 23
        assert epoch_rows(0, 1.5) == 0


class TestPosition:
    @trials(60)
    @given(parts, st.integers(1, 7), st.integers(0, 40))
    def test_a_resumed_sampler_goes_on_as_if_nothing_had_happened(
        self, made: list[tuple[int, float]], batch_size: int, steps: int
    ) -> None:
        sizes, weights = [size for size, _ in made], [weight for _, weight in made]
        if not sum(epoch_rows(*one) for one in made):
            return
        going = Sampler(sizes, batch_size, 1, weights=weights)
        for _ in range(steps):
            going.next()
        resumed = Sampler(sizes, batch_size, 1, weights=weights)
        resumed.load_state_dict(going.state_dict())
        assert resumed.state_dict() == going.state_dict()
        assert [going.next() for _ in range(20)] == [resumed.next() for _ in range(20)]

    def test_at_an_epochs_end_it_has_one_form(self) -> None:
        sampler = Sampler(4, 2, seed=0)
        epoch(sampler)
        assert sampler.state_dict() == {"epoch": 1, "index": 0}

    @pytest.mark.parametrize("state", [{"epoch": 0, "index": 9}, {"epoch": 2, "index": 100}, {"epoch": -1, "index": 0},
                                       {"epoch": 0, "index": -1}, {}, {"epoch": 1}])  # fmt: skip
    def test_a_position_of_other_rows_is_refused(self, state: dict[str, int]) -> None:
        sampler = Sampler(9, 3, seed=0)
        with pytest.raises(CheckpointError, match="does not fit 9 rows"):
            sampler.load_state_dict(state)
        assert sampler.state_dict() == {"epoch": 0, "index": 0}


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), ([0, 0], 4), (5, 0)])
def test_nothing_to_draw_from_is_refused(n: int | list[int], batch_size: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        Sampler(n, batch_size, seed=0)


def test_an_empty_part_is_passed_over() -> None:
    assert sorted(flat(epoch(Sampler([0, 3, 0], 2, seed=0, weights=[0.5, 1.0, 1.5])))) == [0, 1, 2]
