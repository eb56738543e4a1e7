"""Near-duplicates and overlaps against brute force over the similarity of all pairs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.tokens import making
from trueup.data.tokens import near
from trueup.data.tokens.duplicates import NEAR, alike, normalised, similarity
from trueup.data.tokens.near import near_groups, overlap
from trueup.data.tokens.pack import compared
from trueup.data.tokens.select import all_rows
from trueup.data.tokens.store import Tokenized

RENDERER = making.renderer()


def tokens(path: Path, rows: list[Any], want: Any = "conversation") -> Tokenized:
    return making.tokens(path, rows, want, by=RENDERER)


def text(stored: Tokenized, row: int) -> str:
    return compared(stored.parts(row))


def mixed(count: int, seed: int) -> list[dict[str, str]]:
    """Rows that are a few long ones with some words changed, so that similarities from 0 to 1 occur."""
    draw, made = random.Random(seed), []
    base = [making.sentence(at, 60) for at in range(count // 4)]
    for at in range(count):
        words = base[at % len(base)].split()
        for _ in range(draw.randrange(6)):
            words[draw.randrange(len(words))] = draw.choice(making.WORDS)
        made.append({"prompt": "Say it.", "completion": " ".join(words)})
    return made


class TestOverlap:
    def brute(self, a: Tokenized, mine: Any, b: Tokenized, theirs: Any) -> tuple[set[int], dict[int, float]]:
        exact, best = set(), {}
        for row in mine:
            others = [text(b, int(other)) for other in theirs]
            if text(a, int(row)) in others:
                exact.add(int(row))
            best[int(row)] = max(similarity(normalised(text(a, int(row))), normalised(one)) for one in others)
        return exact, best

    @pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2))])
    def test_against_all_pairs(self, tmp_path: Path, seed: int) -> None:
        """None is found that is not near; of those at 0.9 or more all, at 0.8 or more 95% (see duplicates.py)."""
        train = mixed(120, seed)
        asked = [*mixed(90, seed), train[3], train[50]]
        a, b = tokens(tmp_path / "eval.jsonl", asked), tokens(tmp_path / "train.jsonl", train)
        mine, theirs = np.arange(0, 92, 1), np.arange(0, 120, 2)
        found = overlap(a, mine, b, theirs, shown=1000)
        exact, best = self.brute(a, mine, b, theirs)
        near = {row for row, value in best.items() if value >= NEAR and row not in exact}
        shown = dict(found.shown)
        assert exact
        assert len(near) > 10
        assert found.exact == len(exact)
        assert set(shown) <= exact | near
        assert found.near == len(set(shown) - exact)
        assert {row for row, value in best.items() if value >= 0.9} <= set(shown)
        assert len(set(shown) & near) >= 0.95 * len(near)
        for row, match in shown.items():
            assert match in theirs
            assert text(a, row) == text(b, match) or similarity(
                normalised(text(a, row)), normalised(text(b, match))) >= NEAR  # fmt: skip

    def test_only_the_rows_that_are_asked_for_count(self, tmp_path: Path) -> None:
        rows = making.pairs(6)
        a, b = tokens(tmp_path / "a.jsonl", rows), tokens(tmp_path / "b.jsonl", rows)
        found = overlap(a, np.array([0, 2, 5]), b, np.array([2, 3]))
        assert (found.exact, found.near, found.shown) == (1, 0, [(2, 2)])
        empty = np.array([], dtype=np.int64)
        for mine, theirs in ((empty, all_rows(b)), (all_rows(a), empty), (empty, empty)):
            assert overlap(a, mine, b, theirs).shown == []

    def test_word_for_word_is_not_nearly(self, tmp_path: Path) -> None:
        a = tokens(tmp_path / "a.jsonl", [{"prompt": "Is it late?", "completion": "Yes, it is rather late now."}])
        b = tokens(tmp_path / "b.jsonl", [{"prompt": "Is it late?", "completion": "yes it is rather LATE now!"}])
        found = overlap(a, all_rows(a), a, all_rows(a))
        assert (found.exact, found.near) == (1, 0)
        found = overlap(a, all_rows(a), b, all_rows(b))
        assert (found.exact, found.near) == (0, 1)

    def test_other_signs_are_another_question(self, tmp_path: Path) -> None:
        a = tokens(tmp_path / "a.jsonl", [{"prompt": "What is 3+4?"}], "prompt")
        b = tokens(tmp_path / "b.jsonl", [{"prompt": f"What is 3{sign}4?"} for sign in "-*/"], "prompt")
        assert overlap(a, all_rows(a), b, all_rows(b)).shown == []

    def test_a_copy_is_found_among_many_that_look_like_it(self, tmp_path: Path) -> None:
        """All of a bucket cannot be compared: the copy stands last of 100 rows of one template."""
        template = "Tell me in one word, and without any explanation at all, whether a {} can swim in the cold sea."
        rows = [{"prompt": template.format(making.sentence(at, 2))} for at in range(100)]
        a, b = tokens(tmp_path / "a.jsonl", rows[-1:], "prompt"), tokens(tmp_path / "b.jsonl", rows, "prompt")
        assert overlap(a, all_rows(a), b, all_rows(b)).shown == [(0, 99)]
        close = [{"prompt": rows[-1]["prompt"].upper()}]
        c = tokens(tmp_path / "c.jsonl", close, "prompt")
        found = overlap(c, all_rows(c), b, all_rows(b))
        assert (found.exact, found.near) == (0, 1)

    def test_of_rankings_the_order_of_the_sides_does_not_matter(self, tmp_path: Path) -> None:
        row = making.rankings(1)[0]
        a = tokens(tmp_path / "a.jsonl", [row], "preference")
        b = tokens(tmp_path / "b.jsonl", [{**row, "chosen": row["rejected"], "rejected": row["chosen"]}], "preference")
        assert overlap(a, all_rows(a), b, all_rows(b)).exact == 1

    def test_the_first_few_are_shown_and_all_are_counted(self, tmp_path: Path) -> None:
        rows = making.pairs(30)
        a = tokens(tmp_path / "a.jsonl", rows)
        found = overlap(a, all_rows(a), a, all_rows(a), shown=4)
        assert (found.exact, found.shown) == (30, [(at, at) for at in range(4)])


class TestGroups:
    def test_equal_rows_are_together_however_many(self, tmp_path: Path) -> None:
        rows = making.pairs(4)
        stored = tokens(tmp_path / "a.jsonl", [rows[at % 3] for at in range(90)] + [rows[3]])
        assert near_groups(stored).firsts().tolist() == [at % 3 for at in range(90)] + [90]

    @pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2))])
    def test_against_all_pairs(self, tmp_path: Path, seed: int) -> None:
        """Rows at 0.9 or more are together; and only what is connected by pairs at 0.8 or more."""
        stored = tokens(tmp_path / "a.jsonl", mixed(120, seed))
        first = near_groups(stored).firsts()
        texts = [normalised(text(stored, row)) for row in range(120)]
        pairs = [(a, b) for a in range(120) for b in range(a) if alike(texts[a], texts[b])]
        close = [(a, b) for a, b in pairs if similarity(texts[a], texts[b]) >= 0.92]
        assert all(first[a] == first[b] for a, b in close)
        assert len(close) > 10
        groups: dict[int, set[int]] = {}
        for row, one in enumerate(first.tolist()):
            groups.setdefault(one, set()).add(row)
        for group in groups.values():
            for row in group if len(group) > 1 else ():
                assert max(similarity(texts[row], texts[other]) for other in group - {row}) >= 0.8

    def test_they_do_not_depend_on_the_order_of_the_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor where buckets are too large to compare each with each."""
        monkeypatch.setattr(near, "_HEADS", 3)
        rows, made = mixed(120, 5), []
        for seed in range(4):
            shuffled = random.Random(seed).sample(rows, len(rows))
            first = near_groups(tokens(tmp_path / f"{seed}.jsonl", shuffled)).firsts()
            groups: dict[int, set[str]] = {}
            for row, one in zip(shuffled, first.tolist(), strict=True):
                groups.setdefault(one, set()).add(row["completion"])
            made.append({frozenset(group) for group in groups.values()})
        assert len(made[0]) < 110
        assert made[1:] == made[:1] * 3

    def test_scans_of_any_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stored = tokens(tmp_path / "a.jsonl", mixed(60, 1))
        whole = near_groups(stored).firsts().tolist()
        found = overlap(stored, all_rows(stored), stored, np.arange(10, 20))
        monkeypatch.setattr(near, "_SCAN", 7)
        monkeypatch.setattr("trueup.data.tokens.store._SCAN", 5)
        assert near_groups(stored).firsts().tolist() == whole
        assert overlap(stored, all_rows(stored), stored, np.arange(10, 20)) == found


def test_rows_that_differ_in_a_number_are_no_near_duplicates(tmp_path: Path) -> None:
    """ "What is 13 plus 14?" is another question than with 15, although 0.8 and more of the letters are the same."""
    rows = [
        {
            "prompt": f"What do you get if you add {n} apples to a big, heavy basket in which there are 14 already?",
            "completion": "Many.",
        }
        for n in range(13, 23)
    ]
    texts = [normalised(row["prompt"]) for row in rows]
    assert similarity(texts[0], texts[1]) > 0.8
    stored = tokens(tmp_path / "a.jsonl", [*rows, rows[0] | {"completion": "Many!"}])
    assert near_groups(stored).firsts().tolist() == [*range(10), 0]
