"""Numbers of a section's rows, worked out by hand or by numpy."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tokens import making
from thorough import trials
from trueup.data.tokens.record import LANGUAGES, SCRIPTS, Flag, language_of, script_of
from trueup.data.tokens.select import Examples, all_rows
from trueup.data.tokens.store import Tokenized
from trueup.data.tokens.survey import Sums, Survey, contradictions, duplicate_rows, survey

RENDERER = making.renderer()


def tokens(path: Path, rows: list[Any], want: Any = "conversation", **more: Any) -> Tokenized:
    return making.tokens(path, rows, want, by=RENDERER, **more)


def whole(stored: Tokenized, **more: Any) -> Examples:
    return Examples([stored], [all_rows(stored)], **more)


def ranking(chosen: int, rejected: int) -> dict[str, str]:
    """A ranking whose answers have so many tokens, the end token included."""
    return {"prompt": "q", "chosen": "a" * (chosen - 1), "rejected": "b" * (rejected - 1)}


def with_lengths(lengths: list[int]) -> Survey:
    return Survey(rows=len(lengths), by_length=np.bincount(lengths))


class TestLengthBias:
    def test_by_hand(self, tmp_path: Path) -> None:
        """Chosen 2, 4, 6 and rejected 3, 3, 3: means 4 and 3, variances 4 and 0, d = 1 / sqrt(2) = 0.7071."""
        found = survey(whole(tokens(tmp_path / "a.jsonl", [ranking(2, 3), ranking(4, 3), ranking(6, 3)], "preference")))
        assert (found.chosen.n, found.chosen.mean, found.chosen.variance) == (3, 4, 4)
        assert (found.rejected.mean, found.rejected.variance) == (3, 0)
        assert found.cohens_d == pytest.approx(1 / math.sqrt(2))
        assert (found.longer, found.shorter) == (2, 1)

    def test_ties_are_neither(self, tmp_path: Path) -> None:
        found = survey(whole(tokens(tmp_path / "a.jsonl", [ranking(3, 3), ranking(5, 5)], "preference")))
        assert (found.longer, found.shorter, found.cohens_d) == (0, 0, 0)

    def test_always_longer_by_the_same_is_no_effect_of_0(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", [ranking(9, 4)] * 3, "preference")
        assert survey(whole(stored)).cohens_d == math.inf
        stored = tokens(tmp_path / "b.jsonl", [ranking(4, 9)] * 3, "preference")
        assert survey(whole(stored)).cohens_d == -math.inf
        assert survey(Examples([stored], [np.array([1])])).cohens_d == 0  # of one pair nothing can be said

    @trials()
    @given(st.lists(st.lists(st.integers(1, 10**6), max_size=8), max_size=4))
    def test_sums_are_exact(self, batches: list[list[int]]) -> None:
        sums, numbers = Sums(), [one for batch in batches for one in batch]
        for batch in batches:
            sums.add(np.array(batch, dtype=np.int32))
        assert sums.n == len(numbers)
        if numbers:
            assert sums.mean == pytest.approx(np.mean(numbers))
        if len(numbers) > 1:
            assert sums.variance == pytest.approx(np.var(numbers, ddof=1), rel=1e-9, abs=1e-12)
            assert sums.variance >= 0

    def test_many_long_answers_that_hardly_differ(self) -> None:
        """In floating point the sum of squares, 1e18, would lose the variance, 1e-6, and could make it negative."""
        sums = Sums()
        for _ in range(100):
            sums.add(np.full(10_000, 999_999, dtype=np.int32))
        sums.add(np.array([1_000_000], dtype=np.int32))
        n = 1_000_001
        assert sums.variance == pytest.approx((1 / n) * (1 - 1 / n) * n / (n - 1), rel=1e-12)


class TestLengths:
    @trials()
    @given(st.lists(st.integers(0, 60), min_size=1, max_size=50), st.floats(0.01, 1))
    def test_quantiles_are_numpys(self, lengths: list[int], share: float) -> None:
        """The smallest length that so many of the rows have at most: numpy's inverted_cdf."""
        assert with_lengths(lengths).quantile(share) == np.quantile(lengths, share, method="inverted_cdf")

    def test_common_ones(self) -> None:
        found = with_lengths(list(range(1, 101)))
        assert [found.quantile(share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]
        assert found.above(95) == 5
        assert found.above(100) == found.above(10**9) == 0
        assert Survey().quantile(0.5) == 0

    @trials()
    @given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
    def test_the_histogram_holds_every_row_once(self, lengths: list[int]) -> None:
        bars = with_lengths(lengths).histogram()
        for low, high, count in bars:
            assert count == sum(low <= one <= high for one in lengths)
        assert sum(count for *_, count in bars) == len(lengths)
        assert bars[0][2] > 0
        assert bars[-1][2] > 0
        assert all(one[1] + 1 == other[0] for one, other in pairwise(bars))

    def test_of_nothing(self) -> None:
        assert Survey().histogram() == []

    def test_a_row_counts_with_its_longer_side(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", [ranking(5, 9), ranking(8, 2)], "preference")
        found = survey(whole(stored))
        assert found.quantile(1.0) == stored.example(0).longest
        assert found.tokens == sum(stored.example(at).total for at in range(2))
        assert found.trained == 5 + 9 + 8 + 2


class TestCut:
    def test_cut_rows_count_as_they_train(self, tmp_path: Path) -> None:
        """Tokens, trained ones and lengths, also of the sides, of rows that are cut equal those of the examples."""
        rows = [ranking(40, 4), ranking(5, 60), ranking(3, 4), ranking(50, 50)]
        stored = tokens(tmp_path / "a.jsonl", rows, "preference")
        limit = len(stored.example(0).trunk) + 12
        view = whole(stored, cut=limit)
        found, examples = survey(view, RENDERER.stop_ids), list(view)
        assert found.trained == sum(branch.trained for one in examples for branch in one.branches)
        assert found.tokens == sum(one.total for one in examples)
        assert found.quantile(1.0) == limit == max(one.longest for one in examples)
        assert found.by_length.sum() == 4
        assert found.chosen.mean == np.mean([len(one.branches[0].ids) for one in examples])
        assert found.rejected.mean == np.mean([len(one.branches[1].ids) for one in examples])
        assert (found.longer, found.shorter) == (1, 2)
        assert found.flags[Flag.ENDS] == 4
        assert found.flags[Flag.UNTRAINED] == 0

    def test_an_end_that_was_never_trained_is_not_lost_twice(self, tmp_path: Path) -> None:
        stored = tokens(tmp_path / "a.jsonl", making.pairs(6))
        view = whole(stored, cut=max(len(stored.example(at).trunk) for at in range(6)) + 5)
        assert survey(view, stops=[1]).flags[Flag.ENDS] == 0
        assert survey(view, stops=RENDERER.stop_ids).flags[Flag.ENDS] == 6

    def test_scans_and_parts_of_any_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = tokens(tmp_path / "a.jsonl", making.pairs(7)), tokens(tmp_path / "b.jsonl", making.pairs(5, start=90))
        view = Examples([a, b], [np.array([1, 2, 6]), np.array([0, 4])], cut=150)
        before = survey(view, RENDERER.stop_ids)
        monkeypatch.setattr("trueup.data.tokens.store._SCAN", 2)
        after = survey(view, RENDERER.stop_ids)
        assert after.tokens == before.tokens == sum(one.total for one in view)
        assert after.by_length.tolist() == before.by_length.tolist()
        assert after.places == before.places
        assert len(after.places[Flag.ENDS]) == 5


def test_labels(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": f"a{at}", "label": at % 4 == 0} for at in range(10)]
    stored = tokens(tmp_path / "a.jsonl", rows, "labelled")
    assert survey(whole(stored)).labels == (3, 7)
    assert survey(Examples([stored], [np.array([0, 1, 4])])).labels == (2, 1)
    assert survey(whole(tokens(tmp_path / "b.jsonl", making.pairs(3)))).labels == (0, 0)


def test_places_are_the_first_ten(tmp_path: Path) -> None:
    rows = [{"prompt": "<|im_end|>", "completion": f"a{at}"} for at in range(25)]
    found = survey(whole(tokens(tmp_path / "a.jsonl", rows)))
    assert found.flags[Flag.SPECIAL] == 25
    assert found.places[Flag.SPECIAL] == [f"{tmp_path}/a.jsonl:{line}" for line in range(1, 11)]


class TestRepeated:
    def test_both_kinds_are_counted(self, tmp_path: Path) -> None:
        rows = making.pairs(5)
        near = [{**row, "prompt": row["prompt"].upper() + "!"} for row in rows[:2]]
        stored = tokens(tmp_path / "a.jsonl", rows + rows[:3] + rows[:1] + near)
        assert duplicate_rows(stored) == (6, 4)

    def test_of_rankings_either_order_repeats(self, tmp_path: Path) -> None:
        rows = making.rankings(3)
        turned = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
        assert duplicate_rows(tokens(tmp_path / "a.jsonl", [*rows, turned], "preference")) == (1, 1)

    def test_contradictions_name_both_places(self, tmp_path: Path) -> None:
        """Row 1 is A > B, rows 3 and 5 are B > A; row 4 repeats row 2 and contradicts nothing."""
        rows = making.rankings(2)
        turned = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
        stored = tokens(tmp_path / "a.jsonl", [rows[0], rows[1], turned, rows[1], turned], "preference")
        assert contradictions(stored) == (1, [(f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:3")])

    def test_so_do_labels(self, tmp_path: Path) -> None:
        rows = [{"prompt": "q", "completion": "a", "label": label} for label in (True, True, False)]
        stored = tokens(tmp_path / "a.jsonl", [*rows, {**rows[0], "completion": "b"}], "labelled")
        assert contradictions(stored) == (1, [(f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:3")])

    def test_the_same_answers_to_another_question_are_no_contradiction(self, tmp_path: Path) -> None:
        one = {"prompt": "Which is bigger?", "chosen": "a", "rejected": "b"}
        other = {"prompt": "Which is smaller?", "chosen": "b", "rejected": "a"}
        stored = tokens(tmp_path / "a.jsonl", [one, other], "preference")
        assert contradictions(stored) == (0, [])

    def test_ten_are_shown(self, tmp_path: Path) -> None:
        rows = making.rankings(15)
        turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
        count, shown = contradictions(tokens(tmp_path / "a.jsonl", rows + turned, "preference"))
        assert (count, len(shown)) == (15, 10)
        lines = [tuple(int(place.rpartition(":")[2]) for place in both) for both in shown]
        assert all(other == one + 15 for one, other in lines)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello", "Latin"), ("Ünïcödé", "Latin"), ("123 !?", "none"), ("", "none"), ("Привет, world", "Cyrillic"),
        ("Καλημέρα", "Greek"), ("مرحبا", "Arabic"), ("שלום", "Hebrew"), ("नमस्ते", "Devanagari"), ("สวัสดี", "Thai"),
        ("안녕하세요", "Hangul"), ("こんにちは", "Kana"), ("日本語のテキストです", "Kana"), ("你好 世界", "Han"),
        ("🎉🎉", "none"), ("\ud800", "none"), ("Use `pip` 用于安装软件包和依赖", "Han"),
    ],
)  # fmt: skip
def test_scripts(text: str, name: str) -> None:
    assert SCRIPTS[script_of(text)] == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The cat is on the mat and it is happy to see you.", "English"),
        ("Die Katze ist nicht auf der Matte, und das ist ein Problem.", "German"),
        ("Le chat est sur la table et les souris ne sont pas là pour vous.", "French"),
        ("El gato y los perros que viven en la casa son una familia para él.", "Spanish"),
        ("Il gatto è della signora che non lo vuole per una settimana.", "Italian"),
        ("O gato não é da vizinha, e os cães são uma família para você.", "Portuguese"),
        ("De kat is niet van mij, en dat is een probleem voor het huis.", "Dutch"),
        ("42", "unknown"), ("", "unknown"), ("def f(x): return x + 1", "unknown"), ("no no no no", "unknown"),
    ],
)  # fmt: skip
def test_languages(text: str, name: str) -> None:
    assert LANGUAGES[language_of(text)] == name


def test_scripts_and_languages_are_those_of_the_answers(tmp_path: Path) -> None:
    german = "Was ist das und wer ist der Mann, den ich nicht sehe?"
    rows = [
        {"prompt": german, "completion": "That is the man of the year."},
        {"prompt": "What is it?", "completion": "Это кот."},
    ]
    found = survey(whole(tokens(tmp_path / "a.jsonl", rows)))
    assert {name: count for name, count in found.scripts.items() if count} == {"Latin": 1, "Cyrillic": 1}
    assert {name: count for name, count in found.languages.items() if count} == {"English": 1, "unknown": 1}


def test_of_much_data_a_sample_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rows after the first 10 every fourth by its number in the file: 12, 16, … 36."""
    monkeypatch.setattr("trueup.data.tokens.pack.JUDGED_ALL", 10)
    monkeypatch.setattr("trueup.data.tokens.pack.JUDGED_EVERY", 4)
    found = survey(whole(tokens(tmp_path / "a.jsonl", making.pairs(40))))
    assert found.flags[Flag.JUDGED] == found.scripts["Latin"] == 10 + 7
