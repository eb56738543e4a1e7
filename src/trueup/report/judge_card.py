"""The judge's own quality: position and length bias, agreement with people, self-preference, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueup.evaluation.items import Item, of_task
from trueup.report.report_schema import Difference, JudgeCard, ReportNumber
from trueup.stats.intervals import rate, tied_rate
from trueup.stats.orders import follows_answers
from trueup.stats.paired import difference

SURE = 0.025
"""A judge is taken to read the answers if chance alone would keep as many pairs with this probability or less."""


@dataclass(frozen=True, slots=True)
class Wins:
    """A model's verdicts, with the missing ones counted: those not given, and those of a judge that decides nothing.

    Attributes:
        n: pairs of answers that were to be judged.
        value: mean outcome of all verdicts given, ties as halves; None where there are none.
        outcomes: the verdicts that count, from 0 to 1.
        undecided: the reason why a judge's verdicts do not count; "" where they do.
    """

    n: int
    value: float | None
    outcomes: tuple[float, ...]
    undecided: str

    @classmethod
    def of(cls, items: Sequence[Item]) -> Wins:
        """Return the count of a model's items of the task "win-rate"."""
        wins = [item for item in items if item.task == "win-rate"]
        why = undecided(wins)
        given = [item for item in wins if "outcome" in item.values]
        counted = tuple(item.values["outcome"] for item in given if not (why and _sent(item)))
        value = sum(item.values["outcome"] for item in given) / len(given) if given else None
        return cls(len(wins), value, counted, why)

    @property
    def missing(self) -> int:
        """The number of pairs without a verdict that counts."""
        return self.n - len(self.outcomes)

    def filled(self, outcome: float) -> list[float]:
        """Return the outcomes of all pairs, (n,), with `outcome` for each missing verdict."""
        return [*self.outcomes, *[outcome] * self.missing]

    @property
    def estimate(self) -> ReportNumber | None:
        """The share won of the verdicts given, with an interval that spans all that the missing verdicts could be.

        None where none was given.
        """
        if self.value is None:
            return None
        low, high = tied_rate(self.filled(0.0)).low, tied_rate(self.filled(1.0)).high
        return ReportNumber(value=self.value, low=min(self.value, low), high=max(self.value, high), n=self.n)


def undecided(items: Sequence[Item]) -> str:
    """Return the reason why the verdicts on these pairs decide nothing, or "" where they do.

    A reward decides nothing if it scores the two answers to every prompt the same although they differ. An endpoint's
    verdicts have to depend on the answers more than a choice by place alone would make them (`follows_answers`).
    """
    sent = [item for item in items if _sent(item)]
    judged = [item for item in sent if "outcome" in item.values]
    if not judged:
        return ""
    if not any("shown_first" in item.values for item in judged):
        tied = all(item.values["outcome"] == 0.5 for item in judged)
        return f"all {len(judged)} pairs of different answers are ties, so the judge decides nothing" if tied else ""
    kept, first, second = _orders(judged)
    if follows_answers(kept, first, second) <= SURE:
        return ""
    decided = kept + first + second
    if not decided:
        return f"the judge named no winner in both orders of any of {len(judged)} pairs, so it decides nothing"
    return (
        f"the judge kept its verdict in {kept} of {decided} pairs when their order was reversed, which chance alone "
        "would do, so it decides nothing"
    )


def _sent(item: Item) -> bool:
    """Return True if the two answers of a pair differ: identical ones are ties without a judge."""
    return item.answer != item.expected


def _orders(items: Sequence[Item]) -> tuple[int, int, int]:
    """Return the pairs whose replies name one answer twice, the first place twice, and the second place twice."""
    replies = [(item.values.get("shown_first"), item.values.get("shown_second")) for item in items]
    kept = replies.count((1.0, 1.0)) + replies.count((0.0, 0.0))
    return kept, replies.count((1.0, 0.0)), replies.count((0.0, 1.0))


def judge_card(
    name: str, wins: Mapping[str, Sequence[Item]], rankings: Sequence[Item], headers: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> JudgeCard:  # fmt: skip
    """Return the quality and the cost of an endpoint's judge.

    Args:
        name: the judge's model.
        wins: model -> its items of the task "win-rate".
        rankings: items of the task "judge": its verdicts on held-out rankings.
        headers: the headers of all files with its verdicts, which hold its usage and seconds.
        settings: the section `evaluate`, for the prices.
    """
    pairs = [item for items in wins.values() for item in items if item.task == "win-rate"]
    asked = [item for item in [*pairs, *rankings] if _sent(item)]
    card = JudgeCard(name=name, pairs=len(pairs), identical=sum(not _sent(item) for item in pairs))
    card.unjudged = sum("outcome" not in item.values for item in pairs)
    card.undecided = undecided(asked) or None
    _biases(card, asked)
    _agreement(card, rankings)
    _usage(card, headers, settings.get("judging") or {})
    return card


def _biases(card: JudgeCard, asked: Sequence[Item]) -> None:
    kept, first, second = _orders(asked)
    if kept + first + second:
        card.first = ReportNumber.of(rate(first + kept / 2, kept + first + second))
    both = [item for item in asked if {"shown_first", "shown_second"} <= set(item.values)]
    if both:
        agreed = sum(item.values["shown_first"] == item.values["shown_second"] for item in both)
        card.consistent = ReportNumber.of(rate(agreed, len(both)))
    won = [longer for item in asked if item.values.get("outcome") in (0.0, 1.0) and (longer := _longer(item))]
    if won:
        card.longer = ReportNumber.of(rate(sum(sign > 0 for sign in won), len(won)))


def _longer(item: Item) -> float:
    """Return above 0 if the answer that won is the longer one, below 0 if the shorter, 0 for equal lengths."""
    values = item.values
    excess = values["chosen_longer"] if "chosen_longer" in values else values["ours"] - values["theirs"]
    return excess if values["outcome"] == 1 else -excess


def _agreement(card: JudgeCard, rankings: Sequence[Item]) -> None:
    """Add the agreement with people, and how much more often than people the judge prefers the longer answer."""
    judged = [item for item in rankings if "outcome" in item.values]
    if not judged:
        return
    card.agreement = ReportNumber.of(rate(sum(item.values["outcome"] for item in judged), len(judged)))
    unequal = [item.values for item in judged if item.values["chosen_longer"]]
    if len(unequal) > 1:
        people = [float(values["chosen_longer"] > 0) for values in unequal]
        judge = [values["outcome"] if values["chosen_longer"] > 0 else 1 - values["outcome"] for values in unequal]
        card.length_bias = _between_shares(judge, people)


def _between_shares(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return the paired difference of two shares, ours minus theirs, with an interval inside [-1, 1]."""
    result = difference(ours, theirs)
    return Difference(
        value=result.value, low=max(-1.0, result.low), high=min(1.0, result.high), n=result.n, shown=result.shown,
        p=result.p, test=result.test,
    )  # fmt: skip


def add_self_preference(
    card: JudgeCard, sources: Mapping[str, str], against: str, wins: Mapping[str, Sequence[Item]],
    rows: Mapping[str, Sequence[Item]],
) -> None:  # fmt: skip
    """Add the judge's preference for its own model's answers, over the gold reward's, if it is one of the models.

    Args:
        card: the judge's card, which is changed.
        sources: model -> its folder, hub id or address; a model is the judge if its name, source or the source's last
            part is the judge's name.
        against: the model that `wins` compare with.
        wins: model -> the judge's verdicts on its answers.
        rows: model -> its items, for the gold reward of the answers.
    """
    names = [
        name for name, source in sources.items() if card.name in (name, source, source.rstrip("/").rpartition("/")[2])
    ]
    if not names:
        return
    name = names[0]
    compared = {name: wins.get(name, ())} if name != against else wins
    judge: list[float] = []
    gold: list[float] = []
    for model, items in compared.items():
        ours, theirs = (of_task(rows.get(part, ()), "answers", "gold") for part in (model, against))
        for key, outcome in of_task(items, "win-rate", "outcome").items():
            if key in ours and key in theirs:
                better = 0.5 if ours[key] == theirs[key] else float(ours[key] > theirs[key])
                judge.append(outcome if name != against else 1 - outcome)
                gold.append(better if name != against else 1 - better)
    card.self_note = f"the judge is {name}, one of the models that it judges"
    if len(judge) > 1 and len(set(gold)) > 1:
        card.self_preference = _between_shares(judge, gold)


def _usage(card: JudgeCard, headers: Sequence[Mapping[str, Any]], prices: Mapping[str, Any]) -> None:
    usages = [header["usage"] for header in headers if header.get("usage")]
    card.seconds = sum(header.get("seconds", 0.0) for header in headers if header.get("usage"))
    if not usages:
        return
    total = {
        key: sum(usage.get(key, 0) for usage in usages)
        for key in ("questions", "requests", "unread", "failed", "prompt_tokens", "completion_tokens", "uncounted")
    }
    card.questions, card.requests = total["questions"], total["requests"]
    card.unread, card.failed = total["unread"], total["failed"]
    card.unread_example = next((usage["unread_example"] for usage in usages if usage.get("unread_example")), None)
    if total["prompt_tokens"] and not total["uncounted"]:
        card.prompt_tokens, card.completion_tokens = total["prompt_tokens"], total["completion_tokens"]
        price_in, price_out = prices.get("input_price"), prices.get("output_price")
        if price_in is not None and price_out is not None:
            card.cost = (total["prompt_tokens"] * price_in + total["completion_tokens"] * price_out) / 1e6


def lines(card: JudgeCard) -> list[str]:
    """Return what is known of the judge in sentences, the gravest first."""
    sentences = [f"{card.undecided}; no gate passes by it"] if card.undecided else []
    if card.unjudged:
        sentences.append(f"{card.unjudged} of {card.pairs} pairs have no verdict; they count as the worst case")
    if card.unread:
        sentences.append(f"{card.unread} of {card.questions} replies held no verdict, such as {card.unread_example}")
    if card.failed:
        sentences.append(f"{card.failed} of {card.questions} questions found no reply")
    sentences.append(_line("position", card.first, "of the places that it named were the first (0.5: no bias)"))
    sentences.append(_line("consistency", card.consistent, "of pairs have one verdict in both orders"))
    sentences.append(_line("length", card.longer, "of decided pairs were won by the longer answer"))
    sentences.append(
        _line("agreement with people", card.agreement, "of held-out rankings", "no rankings; set evaluate.data")
    )
    if card.length_bias is not None:
        sentences.append(
            _signed("length bias", card.length_bias, "it prefers the longer answer more often than people do, by")
        )
    if card.self_preference is not None:
        sentences.append(
            _signed("self-preference", card.self_preference, f"{card.self_note}; its win rate less the gold reward's")
        )
    elif card.self_note:
        sentences.append(f"self-preference: not measured: {card.self_note}, and no gold reward tells its answers apart")
    else:
        sentences.append("self-preference: the judge is none of the models, by name")
    return [*sentences, _cost(card)]


def _line(what: str, number: ReportNumber | None, words: str, absent: str = "no pair was decided") -> str:
    if number is None:
        return f"{what}: not measured: {absent}"
    return f"{what}: {number.value:.2f} [{number.low:.2f}, {number.high:.2f}] {words}, n = {number.n}"


def _signed(what: str, number: Difference, words: str) -> str:
    shown = "shown" if number.shown else "not shown"
    return f"{what}: {words} {number.value:+.2f} [{number.low:+.2f}, {number.high:+.2f}] ({shown}), n = {number.n}"


def _cost(card: JudgeCard) -> str:
    if card.questions is None:
        return "cost: not recorded"
    text = f"cost: {card.questions} questions in {card.requests} requests, {card.seconds:.0f} s"
    if card.prompt_tokens is None:
        return f"{text}; the endpoint did not count its tokens"
    text += f", {card.prompt_tokens} tokens in and {card.completion_tokens} out"
    return text if card.cost is None else f"{text}: {card.cost:.4g} at evaluate.judging's prices"
