"""Findings and their numbers: the values at which a note becomes a warning."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.tokens import making
from trueup.config import STAGES
from trueup.data.tokens import findings
from trueup.data.tokens.findings import (
    Finding,
    contradicting,
    duplicates,
    fault,
    overlapping,
    raise_errors,
    row_findings,
    template_findings,
)
from trueup.data.tokens.prepare import prepare
from trueup.data.tokens.record import Flag
from trueup.data.tokens.survey import Sums, Survey
from trueup.errors import DataError

RENDERER = making.renderer()


def sums(*values: int) -> Sums:
    made = Sums()
    made.add(np.array(values))
    return made


def of(code: str, found: Survey, *, trains: bool = True) -> Finding | None:
    found.flags.setdefault(Flag.ENDS, found.rows)
    found.places = {flag: [] for flag in Flag} | found.places
    made = [one for one in row_findings("data", found, [], trains=trains) if one.code == code]
    assert len(made) <= 1
    return made[0] if made else None


def ranked(chosen: Sums, rejected: Sums, longer: int = 0, shorter: int = 0) -> Survey:
    return Survey(rows=chosen.n, by_length=np.array([0, chosen.n]), chosen=chosen, rejected=rejected,
                  longer=longer, shorter=shorter)  # fmt: skip


class TestLengthBias:
    def test_a_warning_with_its_numbers(self) -> None:
        """Chosen 2, 4, 6 and rejected 3, 3, 3: d = 1 / sqrt(2)."""
        found = of("length-bias", ranked(sums(2, 4, 6), sums(3, 3, 3), longer=2, shorter=1))
        assert found is not None
        assert found.level == "warning"
        assert found.text == (
            "chosen is longer than rejected in 67% of 3 pairs, shorter in 33%; "
            "mean 4.0 against 3.0 tokens, Cohen's d +0.71"
        )
        assert "longer is better" in found.fix
        assert found.numbers["cohens_d"] == pytest.approx(2**-0.5)
        assert found.numbers["longer"] == pytest.approx(2 / 3)

    def test_short_ones_may_be_preferred_too(self) -> None:
        found = of("length-bias", ranked(sums(3, 3, 3), sums(2, 4, 6)))
        assert found is not None
        assert "shorter is better" in found.fix

    @pytest.mark.parametrize(
        ("apart", "level"), [(0.19, "note"), (0.21, "warning"), (-0.19, "note"), (-0.21, "warning")]
    )
    def test_the_bound_is_a_small_effect(self, apart: float, level: str) -> None:
        """Lengths 0 and 200, of deviation 100 (n large): moved by 19 or 21, d is 0.19 or 0.21."""
        values = np.array([0, 200] * 50_000)
        found = of("length-bias", ranked(sums(*(values + round(100 * apart) + 50)), sums(*(values + 50))))
        assert found is not None
        assert found.level == level

    def test_always_by_the_same(self) -> None:
        found = of("length-bias", ranked(sums(9, 9), sums(4, 4), longer=2))
        assert found is not None
        assert found.level == "warning"
        assert "cohens_d" not in found.numbers  # JSON has no infinity
        json.dumps(found.as_dict(), allow_nan=False)

    def test_of_conversations_nothing_is_said(self) -> None:
        assert of("length-bias", Survey(rows=3)) is None


@pytest.mark.parametrize(
    ("true", "false", "level"),
    [(19, 81, "warning"), (20, 80, "note"), (50, 50, "note"), (80, 20, "note"), (81, 19, "warning"), (7, 0, "warning")],
)
def test_labels(true: int, false: int, level: str) -> None:
    found = of("labels", Survey(rows=true + false, labels=(true, false)))
    assert found is not None
    assert found.level == level
    assert found.text == f"{true / (true + false):.0%} of {true + false} verdicts are true"
    assert found.numbers == {"true": true / (true + false)}


class TestRefusals:
    def wilson(self, hits: int, n: int) -> tuple[float, float]:
        """Wilson 1927: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)."""
        z, p = 1.959964, hits / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    @pytest.mark.parametrize(("hits", "level"), [(50, "note"), (51, "warning")])
    def test_with_their_interval(self, hits: int, level: str) -> None:
        survey = Survey(rows=2000, flags=Counter({Flag.JUDGED: 1000, Flag.REFUSES: hits}))
        survey.places[Flag.REFUSES] = ["rows.jsonl:3"]
        found = of("refusals", survey)
        assert found is not None
        assert found.level == level
        low, high = self.wilson(hits, 1000)
        assert found.text == (
            f"{hits} of 1,000 answers looked at are refusals ({hits / 1000:.1%} [{low:.1%}, {high:.1%}])"
        )
        assert found.places == (("rows.jsonl:3",) if level == "warning" else ())

    def test_languages_without_rules_are_said_to_be_not_measured(self) -> None:
        survey = Survey(rows=9, flags=Counter({Flag.JUDGED: 9}), languages=Counter(English=4, Italian=3, German=1))
        survey.scripts = Counter(Latin=8, Hangul=1)
        found = of("refusals", survey)
        assert found is not None
        assert found.text == "refusals are not measured in 4 answers in other languages (Italian, Hangul)"
        survey.flags[Flag.REFUSES] = 1
        found = of("refusals", survey)
        assert found is not None
        assert found.text.startswith("1 of 9 answers looked at are refusals")
        assert found.text.endswith("; refusals are not measured in 4 answers in other languages (Italian, Hangul)")

    def test_only_what_was_judged_counts(self) -> None:
        assert of("refusals", Survey(rows=20, flags=Counter({Flag.JUDGED: 20}))) is None

    def test_of_real_rows(self, tmp_path: Path) -> None:
        rows = making.rankings(9)
        rows.append({"prompt": "How do I?", "chosen": "I'm sorry, but I can't help with that.", "rejected": "So."})
        rows.append({"prompt": "And how?", "chosen": "So.", "rejected": "I'm sorry, but I can't help with that."})
        path = making.write(tmp_path / "rows.jsonl", rows)
        made = prepare(STAGES["dpo"].model_validate({"model": "m", "output": "o", "data": str(path)}), RENDERER)
        [found] = [one for one in made.findings if one.code == "refusals"]
        assert found.text.startswith("1 of 11 chosen answers looked at are refusals (9.1% [")
        assert found.places == (f"{path}:10",)


class TestKinds:
    def test_a_few_of_another_script_are_rather_an_accident(self) -> None:
        survey = Survey(rows=102, scripts=Counter({"none": 30, "Latin": 95, "Cyrillic": 5, "Han": 0}))
        found = of("scripts", survey)
        assert found is not None
        assert (found.level, found.text) == ("warning", "scripts of the answers: Latin 95.0%, Cyrillic 5.0%")

    def test_two_that_are_both_many_are_a_plan(self) -> None:
        survey = Survey(rows=100, languages=Counter({"English": 60, "German": 40, "unknown": 7}))
        found = of("languages", survey)
        assert found is not None
        assert (found.level, found.text) == ("note", "languages of the answers: English 60.0%, German 40.0%")

    def test_one_alone_is_nothing_to_tell(self) -> None:
        survey = Survey(rows=100, languages=Counter({"English": 60, "unknown": 40}), scripts=Counter({"none": 3}))
        assert of("languages", survey) is None
        assert of("scripts", survey) is None


class TestLengths:
    def test_quantiles(self) -> None:
        found = of("lengths", Survey(rows=100, by_length=np.bincount(range(1, 101))))
        assert found is not None
        assert found.text == "tokens a row: median 50, 95% have at most 95, the longest 100"
        bars = found.numbers["histogram"]
        assert isinstance(bars, list)
        assert sum(bar[2] for bar in bars) == 100

    def test_outliers(self) -> None:
        """Over ten times the median of 10: 101 is, 100 is not."""
        survey = Survey(rows=22, by_length=np.bincount([10] * 20 + [100, 101]))
        found = of("length-outliers", survey)
        assert found is not None
        assert (found.level, found.numbers["outliers"]) == ("warning", 1)
        assert found.text.endswith("the longest 101; 1 are over 10 times the median")
        assert of("lengths", survey) is None


class TestTrained:
    @pytest.mark.parametrize(("trained", "level"), [(49, "warning"), (50, "note")])
    def test_little_of_the_tokens(self, trained: int, level: str) -> None:
        found = of("trained-share", Survey(rows=10, tokens=1000, trained=trained))
        assert found is not None
        assert found.level == level
        assert found.text == f"{trained} of 1,000 tokens are trained (5%); end token trained in 10 rows"

    def test_an_end_that_is_not_trained(self) -> None:
        survey = Survey(rows=10, flags=Counter({Flag.ENDS: 7}))
        found = of("untrained-end", survey)
        assert found is not None
        assert found.text.startswith("the end token is not trained in 3 of 10 rows")
        assert of("untrained-end", survey, trains=False) is None


@pytest.mark.parametrize("flag", findings.FAULTS)
def test_row_faults_count_their_rows(flag: Flag) -> None:
    survey = Survey(rows=1234, flags=Counter({flag: 1200}))
    survey.places[flag] = ["rows.jsonl:1", "rows.jsonl:2"]
    code = findings.FAULTS[flag][0]
    found = of(code, survey)
    assert found is not None
    assert found.level == "error"
    assert "1,200 of 1,234 rows" in found.text
    assert found.fix.endswith(f", or allow it: allow=[{code}]")
    assert found.places == ("rows.jsonl:1", "rows.jsonl:2")


@pytest.mark.parametrize(("near", "level"), [(5, "note"), (6, "warning")])
def test_duplicates(near: int, level: str) -> None:
    found = duplicates("data[1]", near, 2, 100)
    assert found.level == level
    assert found.text == f"{near} of 100 rows ({near}.0%) nearly repeat an earlier one, 2 of them exactly"


def test_contradictions() -> None:
    assert contradicting("data", 0, [], labelled=False) == []
    [found] = contradicting("data", 1200, [("a:1", "a:3"), ("a:2", "b:9")], labelled=False)
    assert found.level == "warning"
    assert found.in_words() == (
        "data: 1,200 pairs of answers are ranked both ways (a:1 and a:3, a:2 and b:9)\n"
        "  fix: keep one verdict, or count votes"
    )
    [found] = contradicting("data", 2, [("a:1", "a:3")], labelled=True)
    assert found.text == "2 answers are labelled both true and false"


def test_overlaps() -> None:
    assert overlapping("eval", 0, 0, 9, [], []) == []
    [found] = overlapping("eval", 2, 1, 9, ["e:1 = t:4"], [])
    assert (found.level, found.text) == (
        "error", "3 of 9 held-out rows are trained on: 2 word for word, 1 nearly")  # fmt: skip
    [found] = overlapping("eval", 2, 1, 9, ["e:1 = t:4"], ["eval-overlap"])
    assert (found.level, found.fix) == ("allowed", "")


class TestWords:
    def test_places_are_shortened(self) -> None:
        found = fault("special-text", "data", "Text", "fix it", [], [f"a:{at}" for at in range(5)])
        assert found.in_words() == ("data: Text (a:0, a:1, a:2, …)\n  fix: fix it, or allow it: allow=[special-text]")
        assert found.as_dict()["places"] == [f"a:{at}" for at in range(5)]

    def test_what_is_allowed_needs_no_fix(self) -> None:
        found = fault("special-text", "data", "Text", "fix it", ["other", "special-text"], ["a:0"])
        assert found.in_words() == "data: Text; allowed (a:0)"

    def test_all_is_fit_for_json(self) -> None:
        found = duplicates("data", 1, 1, 3)
        told: dict[str, Any] = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert told["code"] == "duplicates"
        assert told["numbers"] == {"near": 1, "exact": 1, "share": pytest.approx(1 / 3)}

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
    def test_errors_are_raised_in_six_lines(self, count: int) -> None:
        made = [fault("special-text", f"data[{at}]", "Text", "fix it", []) for at in range(count)]
        made.insert(1, duplicates("data", 1, 1, 3))
        with pytest.raises(DataError) as caught:
            raise_errors(made)
        said = str(caught.value).splitlines()
        shown = sum("Text" in line for line in said)
        more = int(said[-1].split()[1]) if said[-1].startswith("(and") else 0
        assert shown + more == count
        assert len(said) <= 6

    def test_neither_warnings_nor_what_is_allowed_is_raised(self) -> None:
        raise_errors([duplicates("data", 90, 1, 100), fault("special-text", "data", "Text", "", ["special-text"])])


LAST_ALONE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{{ '<|im_end|>\n' if m.role != 'assistant' or loop.last else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_answers_that_a_template_ends_only_at_last_are_told(tmp_path: Path) -> None:
    """Of two answers the first is followed by a line break alone; the same rows under ChatML have no such finding."""
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    rows = [{"messages": turns}, {"messages": turns[:2]}]
    for name, template, expected in (("last", LAST_ALONE, [1]), ("all", None, [])):
        examples = making.tokens(tmp_path / f"{name}.jsonl", rows, by=making.renderer(template))
        flags = [int(examples.record(index)["flags"]) & Flag.OPEN for index in range(2)]
        assert [index + 1 for index, flag in enumerate(flags) if flag] == expected
    counted = Survey(rows=2)
    counted.flags[Flag.OPEN], counted.places[Flag.OPEN] = 1, ["x.jsonl:1"]
    (finding,) = template_findings("data", counted, train_thinking=True)
    assert (finding.code, finding.level) == ("open-answers", "warning")
    assert finding.text.startswith("1 of 2 rows (50%) have an earlier answer that the chat template ends without")
