"""Limits and held-out shares by content, near-duplicates on one side, and views that leave the rows on disk."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tokens import making
from thorough import trials
from trueup.data.example import Branch
from trueup.data.tokens.select import Examples, all_rows, contents, cut_branch, lengths, limit_rows, split
from trueup.data.tokens.store import Tokenized

RENDERER = making.renderer()
REAL = [
    "How do I boil an egg so that the yolk stays soft, and how long should it rest in cold water before I peel it?",
    "My neighbour plays the drums every evening until eleven; what can I say to him without starting a quarrel?",
    "Explain to a child of eight why the moon seems to follow the car when we drive home at night.",
    "Write a short letter to my landlord about the heating, which has not worked since the first of December.",
    "What is the difference between a lake and a pond, and who decides which of the two words is used on maps?",
]


def tokens(path: Path, rows: list[Any], want: Any = "conversation") -> Tokenized:
    return making.tokens(path, rows, want, by=RENDERER)


def variants(text: str, count: int, seed: int) -> list[str]:
    """The text with other case, punctuation, and at most one other short word."""
    draw, made = random.Random(seed), []
    for _ in range(count):
        words = text.split()
        if draw.random() < 0.5:
            words.insert(draw.randrange(len(words)), draw.choice(["so", "oh"]))
        changed = " ".join(words)
        made.append(changed.upper() if draw.random() < 0.3 else changed.replace(",", ";"))
    return made


def prompts(stored: Tokenized, rows: Any) -> set[str]:
    return {stored.prompt(int(row))[0].content for row in rows}


class TestLimited:
    def test_no_limit_or_a_high_one_takes_all(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(6))
        assert limit_rows(stored, all_rows(stored), None, 0).tolist() == list(range(6))
        assert limit_rows(stored, all_rows(stored), 6, 0).tolist() == list(range(6))
        assert limit_rows(stored, all_rows(stored), 99, 0).tolist() == list(range(6))

    def test_it_draws_by_the_seed_and_keeps_the_order(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(60))
        drawn = [limit_rows(stored, all_rows(stored), 20, seed).tolist() for seed in range(4)]
        assert all(rows == sorted(set(rows)) and len(rows) == 20 for rows in drawn)
        assert len({tuple(rows) for rows in drawn}) == 4
        assert limit_rows(stored, all_rows(stored), 20, 3).tolist() == drawn[3]

    def test_it_draws_evenly(self, tmp_path: Path) -> None:
        """Each row is among 20 of 60: over 300 seeds a count has mean 100, deviation 8.2; none is beyond 4.5 of it."""
        stored = tokens(tmp_path / "a.jsonl", making.pairs(60))
        counts = np.zeros(60)
        for seed in range(300):
            counts[limit_rows(stored, all_rows(stored), 20, seed)] += 1
        assert (abs(counts - 100) < 4.5 * math.sqrt(300 / 3 * 2 / 3)).all()

    def test_rows_added_change_few_and_the_order_of_the_file_none(self, tmp_path: Path) -> None:
        """Of 100 rows 50 are drawn; after 10 more, a row stays in unless one of the 10 comes before it: at least 40."""
        rows = making.pairs(100)
        before = tokens(tmp_path / "a.jsonl", rows)
        drawn = prompts(before, limit_rows(before, all_rows(before), 50, 1))
        turned = tokens(tmp_path / "b.jsonl", rows[::-1])
        assert prompts(turned, limit_rows(turned, all_rows(turned), 50, 1)) == drawn
        more = tokens(tmp_path / "c.jsonl", making.pairs(10, start=1000) + rows)
        after = prompts(more, limit_rows(more, all_rows(more), 50, 1))
        new = after - prompts(before, range(100))
        assert len(drawn & after) == 50 - len(new)
        assert 0 < len(new) <= 10


class TestSplit:
    def test_share_0_holds_out_nothing(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(5))
        sides = split(stored, all_rows(stored), 0, 0)
        assert (sides.train.tolist(), sides.held_out.tolist()) == ([0, 1, 2, 3, 4], [])

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
    def test_the_share_is_about_right(self, tmp_path: Path, share: float) -> None:
        """Of 1,000 different rows, within 4 deviations of the binomial."""
        stored = tokens(tmp_path / "a.jsonl", making.pairs(1000))
        for seed in range(3):
            sides = split(stored, all_rows(stored), share, seed)
            assert sorted([*sides.train, *sides.held_out]) == list(range(1000))
            assert abs(len(sides.held_out) - 1000 * share) < 4 * math.sqrt(1000 * share * (1 - share))

    def test_another_seed_is_another_split(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(100))
        assert len({tuple(split(stored, all_rows(stored), 0.3, seed).held_out) for seed in range(5)}) == 5

    def test_seeds_are_independent(self, tmp_path: Path) -> None:
        """Held out by both of two seeds: 1000 x 0.3² = 90, within 4 deviations of 9."""
        stored = tokens(tmp_path / "a.jsonl", making.pairs(1000))
        one, other = (set(split(stored, all_rows(stored), 0.3, seed).held_out.tolist()) for seed in (0, 1))
        assert abs(len(one & other) - 90) < 4 * math.sqrt(1000 * 0.09 * 0.91)

    def test_a_row_keeps_its_side_wherever_it_stands(self, tmp_path: Path) -> None:
        rows = making.pairs(150) + [{"prompt": one, "completion": "Yes."} for one in variants(REAL[0], 30, 0)]
        stored = tokens(tmp_path / "a.jsonl", rows)
        held = prompts(stored, split(stored, all_rows(stored), 0.4, 7).held_out)
        for seed in range(4):
            shuffled = random.Random(seed).sample(rows, len(rows))
            made = tokens(tmp_path / f"{seed}.jsonl", shuffled + making.pairs(20, start=5000 + 20 * seed))
            old = prompts(made, range(len(rows)))
            assert prompts(made, split(made, all_rows(made), 0.4, 7).held_out) & old == held

    def test_many_rows_that_look_alike_have_sides_that_do_not_depend_on_their_order(self, tmp_path: Path) -> None:
        """Rows of one template fill a bucket in which not every pair is compared."""
        rows = [
            {"prompt": f"Please tell me in one word whether a {word} of the kind {at} can swim.", "completion": "No."}
            for at, word in enumerate(making.WORDS * 3)
        ]
        held = []
        for seed in range(4):
            made = tokens(tmp_path / f"{seed}.jsonl", random.Random(seed).sample(rows, len(rows)))
            held.append(prompts(made, split(made, all_rows(made), 0.4, 3).held_out))
        assert held[1:] == held[:1] * 3

    @pytest.mark.parametrize("seed", range(3))
    def test_near_duplicates_stand_on_one_side(self, tmp_path: Path, seed: int) -> None:
        rows, families = making.pairs(60), []
        for at, text in enumerate(REAL):
            family = variants(text, 9, seed)
            families.append(set(family))
            rows += [{"prompt": one, "completion": f"An answer, the same for family {at}."} for one in family]
        random.Random(seed).shuffle(rows)
        stored = tokens(tmp_path / "a.jsonl", rows)
        sides = split(stored, all_rows(stored), 0.5, seed)
        held, trained = prompts(stored, sides.held_out), prompts(stored, sides.train)
        for family in families:
            assert not (family & held and family & trained)

    def test_of_rankings_either_order_of_the_sides_is_one_row(self, tmp_path: Path) -> None:
        rows = making.rankings(40)
        turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
        stored = tokens(tmp_path / "a.jsonl", rows + turned, "preference")
        held = set(split(stored, all_rows(stored), 0.5, 0).held_out.tolist())
        assert 0 < len(held) < 80
        assert all((at in held) == (at + 40 in held) for at in range(40))

    def test_only_selected_rows_are_given(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(100))
        some = limit_rows(stored, all_rows(stored), 30, 0)
        sides = split(stored, some, 0.5, 0)
        assert sorted([*sides.train, *sides.held_out]) == some.tolist()


class TestExamples:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> tuple[Tokenized, Tokenized]:
        return tokens(tmp_path / "a.jsonl", making.pairs(5)), tokens(tmp_path / "b.jsonl", making.pairs(4, start=50))

    def view(self, parts: tuple[Tokenized, Tokenized], *rows: list[int]) -> Examples:
        sides = [parts[at % 2] for at in range(len(rows))]
        return Examples(sides, [np.array(one, dtype=np.int64) for one in rows])

    def test_rows_of_several_parts_one_after_another(self, parts: tuple[Tokenized, Tokenized]) -> None:
        view = self.view(parts, [1, 4], [], [], [0, 2, 3])
        assert len(view) == 5
        expected = [(parts[0], 1), (parts[0], 4), (parts[1], 0), (parts[1], 2), (parts[1], 3)]
        for at, (part, row) in enumerate(expected):
            assert view.place(at) == (part, row)
            assert view[at].trunk == part.example(row).trunk
            assert view[at].branches == part.example(row).branches
            assert view[at].row == at
            assert view.origin(at) == part.origin(row)
            assert view.prompt(at) == part.prompt(row)
        assert [one.row for one in view] == list(range(5))

    def test_indices_are_those_of_a_list(self, parts: tuple[Tokenized, Tokenized]) -> None:
        view = self.view(parts, [0, 2], [1])
        plain = list(view)
        assert [view[at] for at in (-3, -2, -1)] == plain
        for at in (3, -4, 100):
            with pytest.raises(IndexError):
                view[at]
        for span in (slice(None), slice(1, None), slice(None, None, -1), slice(-2, 99), slice(5, 9), slice(0, 3, 2)):
            assert view[span] == plain[span]

    def test_nothing_in_it(self, parts: tuple[Tokenized, Tokenized]) -> None:
        for view in (Examples([], []), self.view(parts, [], [])):
            assert (len(view), list(view), view[:]) == (0, [], [])
            with pytest.raises(IndexError):
                view[0]
            view.map_records(lambda _: pytest.fail("there are none"))

    def test_records_are_shown_once_each_in_order(
        self, parts: tuple[Tokenized, Tokenized], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where a scan holds none of the few rows that are in."""
        monkeypatch.setattr("trueup.data.tokens.store._SCAN", 2)
        view = self.view(parts, [0, 3], [3], [4])
        seen: list[tuple[int, int]] = []
        view.map_records(lambda records: seen.extend((int(one["line"]), int(one["trained"])) for one in records))
        assert [line for line, _ in seen] == [1, 4, 4, 5]
        assert [trained for _, trained in seen] == [sum(branch.trained for branch in one.branches) for one in view]

    def test_lengths(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "c.jsonl", making.rankings(5), "preference")
        [(_, records)] = stored.records()
        assert lengths(records).tolist() == [stored.example(at).longest for at in range(5)]

    def test_long_answers_are_cut_and_short_rows_left_alone(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "chosen": "a" * 50, "rejected": "b"}, {"prompt": "q", "chosen": "c", "rejected": "d"}]
        stored = tokens(tmp_path / "c.jsonl", rows, "preference")
        whole = stored.example(0)
        limit = len(whole.trunk) + 10
        view = Examples([stored], [all_rows(stored)], cut=limit)
        long, short = view[0].branches
        assert (len(long.ids), all(long.mask)) == (10, True)
        assert long.ids == [*whole.branches[0].ids[:9], whole.branches[0].ids[-1]]
        assert short == whole.branches[1]
        assert view[1].branches == stored.example(1).branches
        assert view[0].longest == limit
        assert view.origin(0).line == 1


class TestCutBranch:
    def test_by_hand(self) -> None:
        """Trained tokens are above 10, 99 is the end token: it ends an answer that is cut, and closes a whole one."""
        branch = Branch([11, 12, 99, 1, 2, 13, 14, 99], [True, True, True, False, False, True, True, True])
        expected = {
            8: [11, 12, 99, 1, 2, 13, 14, 99],
            7: [11, 12, 99, 1, 2, 13, 99],
            6: [11, 12, 99, 1, 2, 99],
            5: [11, 12, 99],
            4: [11, 12, 99],
            3: [11, 12, 99],
            2: [11, 99],
            1: [99],
            0: [],
        }
        for room, ids in expected.items():
            cut = cut_branch(branch, room)
            assert cut.ids == ids, room
            assert cut.mask == branch.mask[: len(ids)]

    @trials()
    @given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 14))
    def test_the_last_token_is_always_trained(self, mask: list[bool], room: int) -> None:
        branch = Branch(list(range(len(mask))), mask)
        cut = cut_branch(branch, room)
        if len(mask) <= room:
            assert cut == branch
        else:
            assert len(cut.ids) == len(cut.mask) <= room
            assert not cut.mask or cut.mask[-1]
            assert not any(mask[len(cut.mask) : room])


def test_contents_are_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tokens(tmp_path / "a.jsonl", making.pairs(7) + making.pairs(2))
    monkeypatch.setattr("trueup.data.tokens.store._SCAN", 2)
    found = contents(stored)
    assert found.tolist() == [int(stored.record(at)["content"]) for at in range(9)]
    assert found[:2].tolist() == found[7:].tolist()
    assert len(set(found.tolist())) == 7
