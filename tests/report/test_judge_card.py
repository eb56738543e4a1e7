"""The judge's card: stand-in judges with known faults are asked, and each fault is measured and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stand_in_judges import Answer, answers_in, longer, said, serving
from trueup.config import EvaluateConfig
from trueup.data.rendering.messages import Message, Preference
from trueup.evaluation.items import Item
from trueup.evaluation.judges import Verdicts, agreement, verdicts
from trueup.report.judge_card import add_self_preference, judge_card, lines
from trueup.report.report_schema import JudgeCard

PROMPT = (Message("user", "Name a prime."),)
N = 40
LENGTHS = [(3 + index % 5, 3 + index * 7 % 11) for index in range(N)]
JudgeReply = Callable[[dict[str, Any]], Answer]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def answers(letter: str, lengths: list[int], gold: list[float] | None = None) -> list[Item]:
    return [
        Item("answers", f"p{index}", {"length": float(length)} | ({} if gold is None else {"gold": gold[index]}),
             answer=letter * length)
        for index, length in enumerate(lengths)
    ]  # fmt: skip


OURS, THEIRS = answers("o", [a for a, _ in LENGTHS]), answers("t", [b for _, b in LENGTHS])


def card_of(reply: JudgeReply, people: Sequence[Preference] = (), **judging: Any) -> JudgeCard:
    """Ask a stand-in judge as an evaluation does, and return its card."""
    with serving(reply) as server:
        config = EvaluateConfig.model_validate(
            {"judge": server.url, "judge_model": "stand-in", "judging": {"retries": 0, **judging}}
        )
        wins = verdicts(config, {item.id: PROMPT for item in OURS}, OURS, THEIRS, lambda _: None)
        ranked = agreement(config, people, lambda _: None)
    assert wins is not None
    parts = [part for part in (wins, ranked) if isinstance(part, Verdicts)]
    headers = [{"usage": part.usage, "seconds": 1.5} for part in parts]
    card = judge_card(
        "stand-in", {"ppo": wins.items}, ranked.items if ranked else [], headers, config.model_dump(mode="json")
    )
    add_self_preference(
        card, {"base": "b", "ppo": "runs/ppo/model"}, "base", {"ppo": wins.items}, {"base": THEIRS, "ppo": OURS}
    )
    card.lines = lines(card)
    return card


def test_a_judge_of_length_is_measured_as_one() -> None:
    card = card_of(longer)
    unequal = sum(a != b for a, b in LENGTHS)
    assert card.longer is not None
    assert (card.longer.value, card.longer.n) == (1.0, unequal)
    assert card.first is not None
    assert card.first.value == 0.5
    assert card.consistent is not None
    assert card.consistent.value == 1.0
    assert card.undecided is None
    assert f"length: 1.00 [0.91, 1.00] of decided pairs were won by the longer answer, n = {unequal}" in card.lines


@pytest.mark.parametrize(("place", "share"), [("A", 1.0), ("B", 0.0)])
def test_a_judge_of_places_is_measured_as_one(place: str, share: float) -> None:
    card = card_of(lambda _: said(json.dumps({"verdict": place})))
    assert card.first is not None
    assert (card.first.value, card.first.n) == (share, N)
    assert card.consistent is not None
    assert card.consistent.value == 0.0
    assert card.undecided is not None
    assert "kept its verdict in 0 of 40 pairs" in card.lines[0]
    assert "no gate passes by it" in card.lines[0]


def test_junk_and_missing_verdicts_are_said_with_an_example() -> None:
    def junk(body: dict[str, Any]) -> Answer:
        return said("As a language model…") if len(answers_in(body)[0]) == 5 else longer(body)

    card = card_of(junk)
    missing = sum(5 in both for both in LENGTHS)
    assert card.unjudged == missing
    assert f"{missing} of {N} pairs have no verdict; they count as the worst case" in card.lines
    assert any('replies held no verdict, such as "As a language model…"' in line for line in card.lines)
    assert (card.unread, card.failed, card.questions) == (
        sum(a == 5 for a, _ in LENGTHS) + sum(b == 5 for _, b in LENGTHS),
        0,
        2 * N,
    )


def test_agreement_with_people_and_length_bias_on_their_rankings() -> None:
    """People chose the longer answer in 10 of 40 rankings, the judge in all: it is right in 10, biased by 30/40."""
    rankings = [
        Preference(PROMPT, (Message("assistant", "c" * length),), (Message("assistant", "r" * 10),))
        for length in [20, 5, 5, 5] * 10
    ]
    card = card_of(longer, people=rankings)
    assert card.agreement is not None
    assert (card.agreement.value, card.agreement.n) == (0.25, 40)
    assert card.length_bias is not None
    assert card.length_bias.value == 0.75
    assert card.length_bias.shown
    few = card_of(longer, people=rankings, rankings=8)
    assert few.agreement is not None
    assert few.agreement.n == 8
    assert any(line.startswith("agreement with people: 0.25 [") for line in card.lines)
    assert "agreement with people: not measured: no rankings; set evaluate.data" in card_of(longer).lines


def test_self_preference_is_the_judge_less_the_gold_reward() -> None:
    """Ours is the judge's own model: it prefers all its answers, while gold calls half of them better."""

    def vain(body: dict[str, Any]) -> Answer:
        return said(json.dumps({"verdict": "A" if answers_in(body)[0].startswith("o") else "B"}))

    gold = [float(index % 2) for index in range(N)]
    ours, theirs = answers("o", [4] * N, gold), answers("t", [4] * N, [0.5] * N)
    with serving(vain) as server:
        config = EvaluateConfig.model_validate({"judge": server.url, "judge_model": "ppo", "judging": {"retries": 0}})
        wins = verdicts(config, {item.id: PROMPT for item in ours}, ours, theirs, lambda _: None)
    assert wins is not None
    for against, expected in (("base", 0.5), ("ppo", 0.5)):
        # As the model compared with, the judge's answers are "theirs": then the other side won none.
        items = wins.items if against == "base" else [
            Item("win-rate", item.id, {**item.values, "outcome": 0.0}, answer=item.expected, expected=item.answer)
            for item in wins.items
        ]  # fmt: skip
        rows = {"base": theirs, "ppo": ours}
        card = judge_card("ppo", {}, [], [], {})
        compared = {"ppo" if against == "base" else "base": items}
        add_self_preference(card, {"base": "b", "ppo": "runs/ppo"}, against, compared, rows)
        assert card.self_preference is not None
        assert card.self_preference.value == expected
        assert card.self_preference.shown
    assert "self-preference: the judge is none of the models, by name" in card_of(longer).lines


def test_cost_is_given_where_tokens_are_counted() -> None:
    def counted(body: dict[str, Any]) -> Answer:
        status, reply, headers = longer(body)
        assert isinstance(reply, dict)
        return status, {**reply, "usage": {"prompt_tokens": 1000, "completion_tokens": 10}}, headers

    card = card_of(counted, input_price=2.5, output_price=10.0)
    assert card.cost == pytest.approx((80 * 1000 * 2.5 + 80 * 10 * 10) / 1e6)
    assert card.lines[-1] == (
        "cost: 80 questions in 80 requests, 2 s, 80000 tokens in and 800 out: 0.208 at evaluate.judging's prices"
    )
    assert card_of(counted).lines[-1].endswith("80000 tokens in and 800 out")
    assert card_of(longer).lines[-1].endswith("the endpoint did not count its tokens")
