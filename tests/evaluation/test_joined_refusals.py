"""Rules and a chat model judge refusals together: who decides which reply, and the rates that result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from trueup.config import EvaluateConfig
from trueup.data.rendering.messages import Conversation, Message
from trueup.evaluation import tasks
from trueup.evaluation.endpoint import Chat
from trueup.evaluation.items import Item
from trueup.evaluation.judges import JoinedRefusals, judge_of_refusals
from trueup.evaluation.sets import Asked
from trueup.report.scorecard import SPECS, measure, prepared

REFUSES, ANSWERS, UNSURE = "I'm sorry, but I can't help with that.", "Turn the screw to the left.", "I don't know."


class StandIn(JoinedRefusals):
    """A judge that calls every reply with "sorry" or "know" a refusal, and counts what it is asked."""

    asked = 0

    def ask_all(self, chats: Sequence[Chat], parse: Callable[[str], Any], **_: Any) -> list[Any]:
        replies = [str(chat[1]["content"]).rpartition("<reply ")[2] for chat in chats]
        StandIn.asked += len(replies)
        return [float("sorry" in reply or "know" in reply) for reply in replies]


def talk(prompt: str, reply: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", reply)))


def test_the_judge_reads_what_the_rules_are_unsure_of() -> None:
    StandIn.asked = 0
    judge = StandIn("http://localhost:1/v1", "m")
    assert judge([talk("a", REFUSES), talk("b", ANSWERS), talk("c", UNSURE)]) == [1.0, 0.0, 1.0]
    assert StandIn.asked == 1


def test_the_same_prompts_are_checked_for_every_model() -> None:
    judge = StandIn("http://localhost:1/v1", "m")
    judge.sample = 4
    first = judge.check([talk(f"prompt {number}", ANSWERS) for number in range(20)])
    second = judge.check([talk(f"prompt {number}", REFUSES) for number in range(20)])
    assert [math.isnan(vote) for vote in first] == [math.isnan(vote) for vote in second]
    assert sorted(vote for vote in second if not math.isnan(vote)) == [1.0] * 4


def test_the_configuration_joins_them() -> None:
    config = EvaluateConfig(judge="http://localhost:1/v1", judge_model="m", refusals="both", refusals_sample=7)
    judge = judge_of_refusals(config)
    assert isinstance(judge, JoinedRefusals)
    assert judge.sample == 7


class Subject:
    """A model that gives every question the same reply."""

    def greedy(self, questions: Sequence[Any]) -> list[Conversation]:
        return [talk("q", "r") for _ in questions]


def test_items_hold_both_verdicts() -> None:
    questions = [Asked(key, (Message("user", "q"),)) for key in "ab"]
    subject: Any = Subject()
    items = tasks.refusals(subject, "over-refusal", questions, lambda _: [1.0, 0.0], lambda _: [0.0, math.nan])
    assert [item.values for item in items] == [{"refused": 1.0, "checked": 0.0}, {"refused": 0.0}]


def test_the_report_joins_rules_and_judge() -> None:
    """Of 40 replies the rules call 20 refusals; the judge read 20 and finds half of those that are flagged to be none.

    Of the 10 checked refusals 5 are none: labels' mean 0.25, rules' 0.5 on the checked and on the others: 0.25.
    """
    items = [
        Item(
            "over-refusal",
            str(n),
            {"refused": float(n % 2)} | ({"checked": float(n % 4 == 1)} if n < 20 else {}),
            None,
            "q",
            "r",
        )
        for n in range(40)
    ]
    [spec] = [spec for spec in SPECS if spec.key == "over-refusal"]
    settings = {"refusals": "both", "judge_model": "gpt"}
    note = measure(spec, {"base": prepared(items), "sft": prepared(items)}, "base", settings).note
    assert note is not None
    assert "refusals of base with these (prediction-powered): 0.25 [" in note
    assert "sft minus base: 0.00 [-0.10, 0.10]" in note
    assert "the error of gpt itself was not measured" in note
