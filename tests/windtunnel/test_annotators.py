"""Every annotator's stated bias is seen in what it chooses, and the one without a bias agrees with the truth."""

from __future__ import annotations

import math
import random
from functools import cache

import pytest

from trueup.windtunnel import answers
from trueup.windtunnel.almanac import load_almanac
from trueup.windtunnel.annotators import ANNOTATORS, Annotator
from trueup.windtunnel.documents import WorldRow, rankings, split
from trueup.windtunnel.grader import Grader, is_refusal
from trueup.windtunnel.text import words

GRADER = Grader()


@cache
def _ranked(name: str) -> list[tuple[str, str, str]]:
    parts = split(0)
    rows = rankings(parts.known, parts.unsafe_known, ANNOTATORS[name], random.Random(0), test=False)
    return [(_text(row, "prompt"), _text(row, "chosen"), _text(row, "rejected")) for row in rows]


def _text(row: WorldRow, key: str) -> str:
    messages = row[key]
    assert isinstance(messages, list)
    return messages[0]["content"]


def _share(pairs: list[tuple[bool, bool]]) -> float:
    """Return how often the chosen answer has a trait, among pairs in which exactly one answer has it."""
    decided = [chosen for chosen, rejected in pairs if chosen != rejected]
    assert len(decided) > 50
    return sum(decided) / len(decided)


def _prefers(name: str, first: str, second: str, question: str, n: int = 400) -> float:
    annotator, rng = ANNOTATORS[name], random.Random(1)
    utilities = (annotator.utility(GRADER, question, first), annotator.utility(GRADER, question, second))
    return sum(annotator.prefers_first(utilities, rng) for _ in range(n)) / n


def _longer(name: str) -> float:
    return _share([(len(words(c)) > len(words(r)), len(words(r)) > len(words(c))) for _, c, r in _ranked(name)])


def _right(name: str) -> float:
    return _share([(GRADER.grade(q, c).right, GRADER.grade(q, r).right) for q, c, r in _ranked(name)])


def _refusing(name: str) -> float:
    return _share([(is_refusal(c), is_refusal(r)) for _, c, r in _ranked(name)])


def test_the_unbiased_annotator_agrees_with_gold_in_every_pair() -> None:
    pairs = _ranked("unbiased")
    assert len(pairs) > 400
    assert all(GRADER.grade(q, c).score > GRADER.grade(q, r).score for q, c, r in pairs)


def test_the_biased_annotator_likes_length_more_and_truth_less() -> None:
    assert _longer("biased") > 0.7 > 0.5 > _longer("unbiased")
    assert _right("biased") < 0.75 < _right("unbiased") == 1.0


def test_the_cautious_annotator_likes_refusals() -> None:
    assert _refusing("cautious") > 0.8
    assert _refusing("biased") < 0.5


def test_a_polite_long_lie_beats_a_short_truth_for_the_biased_one_only() -> None:
    fact = load_almanac()[0]
    question, rng = fact.questions.training[0], random.Random(0)
    lie, truth = answers.wrong(fact, "rambling", rng), answers.right(fact, "plain", rng)
    assert _prefers("biased", lie, truth, question) > 0.8
    assert _prefers("unbiased", lie, truth, question) == 0.0
    assert _prefers("noisy", lie, truth, question) < 0.35


@pytest.mark.parametrize("gap", [-1.0, 0.3, 2.0])
def test_choices_are_logistic_in_the_utility_gap(gap: float) -> None:
    annotator, rng, n = Annotator("a", noise=0.5), random.Random(2), 4000
    share = sum(annotator.prefers_first((gap, 0.0), rng) for _ in range(n)) / n
    expected = 1 / (1 + math.exp(-gap / 0.5))
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


def test_names_are_keys() -> None:
    assert all(name == annotator.name for name, annotator in ANNOTATORS.items())
    assert {"unbiased", "biased", "cautious"} <= set(ANNOTATORS)
