"""Names that other tools import and that outlive a rewording: where they live, and what they accept."""

from __future__ import annotations

import inspect

import pytest

from trueup.data.example import Branch, Example
from trueup.data.refusal import is_refusal
from trueup.data.rendering.renderer import Renderer
from trueup.evaluation.grading import is_right
from trueup.evaluation.judges import EndpointJudge, verdict
from trueup.evaluation.winrate import length_controlled
from trueup.models.forward import forward_all
from trueup.models.loading import load_causal_lm, load_tokenizer
from trueup.models.network import Network


@pytest.mark.parametrize("name", [Branch, Example, Renderer, Network, forward_all, load_causal_lm, load_tokenizer])
def test_the_pinned_classes_and_loaders_are_there(name: object) -> None:
    assert callable(name)


def test_is_refusal_takes_a_reply() -> None:
    assert is_refusal("I'm sorry, but I can't help with that.")
    assert not is_refusal("Paris.")


def test_is_refusal_takes_a_prompt() -> None:
    assert inspect.signature(is_refusal).parameters["prompt"].default is None


@pytest.mark.parametrize(
    ("reply", "accepted", "question", "right"),
    [
        ("Paris", ["Paris"], None, True),
        ("Paris", ["Paris"], "What is the capital of France?", True),
        ("Is it tea or milk?", ["milk"], "Is it tea or milk?", False),
        ("is it TEA, or milk", ["milk"], "Is it tea or milk?", False),
        ("Is it tea or milk? It is milk.", ["milk"], "Is it tea or milk?", True),
        ("What is 10 - 5?", ["5"], "What is 10 - 5?", False),
        ("What is 10 - 5? 5", ["5"], "What is 10 - 5?", True),
        ("taxi", ["taxi"], "Taxi?", True),
        ("milk", ["milk"], "", True),
    ],
)
def test_is_right_takes_a_question(reply: str, accepted: list[str], question: str | None, right: bool) -> None:
    """A repeated question is no answer by itself."""
    assert is_right(reply=reply, accepted=accepted, question=question) is right


def test_length_controlled_takes_outcomes_and_lengths() -> None:
    outcomes, ours, theirs = [1.0, 0.0] * 10, list(range(20)), [9] * 20
    result = length_controlled(outcomes=outcomes, ours=ours, theirs=theirs, resamples=50, seed=1)
    assert result.rate is not None
    assert result.rate.low <= result.rate.value <= result.rate.high


def test_length_controlled_withholds_its_rate() -> None:
    few = length_controlled([1.0] * 9, ours=[2] * 9, theirs=[1] * 9)
    alike = length_controlled([1.0] * 12, ours=[15] * 12, theirs=[10] * 12)
    assert few.rate is None
    assert alike.rate is None
    assert few.withheld is not None
    assert alike.withheld is not None


def test_a_verdict_is_read_from_a_reply() -> None:
    assert verdict('{"verdict": "A"}') == 1.0
    assert verdict('{"verdict": "B"}') == 0.0
    assert verdict('{"verdict": "tie"}') == 0.5
    assert verdict("no idea") is None


def test_an_endpoint_judge_is_made_from_an_address_and_a_model() -> None:
    judge = EndpointJudge("http://localhost:8000/v1", "judge")
    assert (judge.judged, judge.not_judged, judge.position_flips) == (0, 0, 0)
