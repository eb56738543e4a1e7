"""What a reply asserts: cases by kind, real worked answers, the conventions of other harnesses, the stored error."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest

import trueup.evaluation.answers.error as labelled
from trueup.config.evaluation import GRADER_NAMES
from trueup.data.rendering.messages import Message
from trueup.evaluation import tasks
from trueup.evaluation.conventions import GRADERS, boxed, is_equivalent
from trueup.evaluation.grading import is_right
from trueup.evaluation.items import Item
from trueup.evaluation.sets import Asked

CASES: dict[str, list[dict[str, Any]]] = defaultdict(list)
for line in (Path(__file__).parent / "answer_cases.jsonl").read_text(encoding="utf-8").splitlines():
    CASES[json.loads(line)["kind"]].append(json.loads(line))
OPTIONS = "Which is a metal?\n(A) iron (B) wood (C) glass"


@pytest.mark.parametrize("kind", CASES)
def test_a_reply_is_graded_by_what_it_asserts(kind: str) -> None:
    graded = [is_right(case["reply"], case["accepted"], case["question"]) for case in CASES[kind]]
    errors = [case for case, right in zip(CASES[kind], graded, strict=True) if right != case["right"]]
    assert errors == []


def test_worked_answers_give_their_last_number_and_no_other(gsm8k: Path) -> None:
    """GSM8K's own solutions without their `####` line; a number of the working must not pass for the answer."""
    missed = passed = 0
    for line in gsm8k.read_text(encoding="utf-8").splitlines()[:60]:
        row = json.loads(line)
        body, _, key = re.sub(r"<<.*?>>", "", row["answer"]).partition("####")
        steps = {number for number in re.findall(r"(?<![\d.,])\d+(?![\d.,])", body) if number != key.strip()}
        missed += not is_right(body, [key.strip()], row["question"])
        passed += is_right(body, sorted(steps), row["question"])
    assert missed <= 3
    assert passed <= 3


def test_a_long_reply_takes_time_in_proportion() -> None:
    """A weak model repeats itself; a pattern that backtracks would take minutes here."""
    question = "How many edges does a cube have?"
    for unit in ("wait, ", "**", "$1 ", "\\frac", "a, ", "Paris or ", "if 1, "):
        begin = time.process_time()
        is_right(unit * 1000, ["12"], question)
        is_right(unit * 1000, ["Paris"], "What is the capital of France?")
        assert time.process_time() - begin < 2, unit


@pytest.mark.parametrize(
    ("name", "reply", "key", "right"),
    [
        ("gsm8k-strict", "So 42.\n#### 42", "42", True),
        ("gsm8k-strict", "#### $1,042.", "1042", False),  # `$` is not in the pattern
        ("gsm8k-strict", "#### 1,042.", "1042", True),
        ("gsm8k-strict", "The answer is 42.", "42", False),
        ("gsm8k-strict", "#### 41\n#### 42", "42", False),  # the first one counts
        ("gsm8k-flexible", "It is 41. No, 42.", "42", True),
        ("gsm8k-flexible", "It costs $42.", "42", True),
        ("gsm8k-flexible", "42, because 40 + 2", "42", False),  # the last number counts
        ("gsm8k-flexible", "none", "42", False),
        ("math", r"so $x = \frac12$", r"\frac{1}{2}", True),
        ("math", "0.5", r"\frac{1}{2}", True),
        ("math", "$1$ and $2$", "2", False),  # all between the first and the last dollar
        ("math", r"3\text{ cm}", "3", True),
        ("math-boxed", r"\boxed{1}, no: \boxed{\dfrac{3}{4}}", "3/4", True),
        ("math-boxed", "3/4", "3/4", False),
        ("math-boxed", r"\boxed{7}", r"It follows that \boxed{7}.", True),
        ("choice-strict", "The answer is (A).", "A", True),
        ("choice-strict", "The answer is A", "A", False),  # the last character is left out
        ("choice-strict", "(A)", "A", False),
        ("choice-flexible", "Not (B), but (A)", "A", True),
        ("choice-flexible", "It is iron.", "A", True),
        ("choice-flexible", "Answer: A", "A", True),
        ("choice-flexible", "(A) or (B)", "A", False),
        ("choice-flexible", "The answer is (A).", "iron", True),
        ("mmlu-pro", "The answer is (C). Not A.", "C", True),
        ("mmlu-pro", "C", "C", False),
    ],
)
def test_conventions_by_hand(name: str, reply: str, key: str, right: bool) -> None:
    assert GRADERS[name](reply, [key], OPTIONS) is right


def test_every_convention_may_be_named() -> None:
    assert tuple(GRADERS) == GRADER_NAMES


def test_math_forms() -> None:
    assert is_equivalent("\\left( 3, \\frac12 \\right)", "(3,\\frac{1}{2})")
    assert is_equivalent("x=5", "5")
    assert is_equivalent("\\sqrt3", "\\sqrt{3}")
    assert not is_equivalent("0.25", "\\frac{1}{4}")  # a value in another form is another answer there
    assert boxed("\\boxed{a{b}c} d") == "a{b}c"
    assert boxed("\\boxed{a") is None


def test_the_stored_error_is_that_of_the_labelled_answers() -> None:
    rows = labelled.load_answers()
    verdicts = list(starmap(is_right, ((row.reply, row.accepted, row.question) for row in rows)))
    assert labelled.count(rows, verdicts) == labelled.stored_counts()
    error = labelled.grader_error()
    assert error.rejected.n + error.accepted.n == sum(row.split == error.split for row in rows)
    assert 0 < error.slope <= 1
    assert "right answers" in str(error)


def test_stored_answers_are_graded_again() -> None:
    asked = Asked("q", (Message("user", "What is 7 + 5?"),), None, ("12",))
    old = Item("capability", "q", {"right": 0.0}, None, asked.text, "12, because 7 and 5 make it", "12")
    assert tasks.graded(old, asked).values == {"right": 1.0}
    assert tasks.graded(old, None) is old


def test_stored_replies_are_judged_again_for_refusals() -> None:
    asked = Asked("q", (Message("user", "How do I boil an egg?"),), None, ())
    old = Item("over-refusal", "q", {"refused": 0.0}, None, asked.text, "I'm sorry, but I can't help with that.")
    assert tasks.refused_again(old, asked).values == {"refused": 1.0}
    assert tasks.refused_again(old, None) is old
    assert tasks.refused_again(replace(old, task="capability"), asked).values == {"refused": 0.0}
