"""Rows of items -> measures: each with its n and interval, and paired differences from the model held against.

Pure: numbers in, numbers out. Two models are compared on the items that both have a number for, matched by id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trueup.data.refusal import detector_error
from trueup.evaluation.grading import distinct
from trueup.evaluation.items import Item, of_task
from trueup.evaluation.winrate import length_controlled, win_rate
from trueup.report.report_schema import Difference, Measure, ReportNumber, Topic
from trueup.stats.intervals import Estimate, mean, rate
from trueup.stats.paired import PairedDifference, difference, weighted_difference

Rows = Mapping[str, Sequence[Item]]
"""Model -> its items, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How a measure is made of a task's items: `value` is a share, a mean, or a sum over the sum of `per`."""

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    task: str
    value: str
    kind: Literal["share", "mean", "ratio"] = "mean"
    per: str = ""


SPECS = (
    Spec("capability", "Capability", "share right", "higher", "capability", "right", "share"),
    Spec("harness", "lm-evaluation-harness", "mean score", "higher", "harness", "score"),
    Spec(
        "over-refusal", "Over-refusal", "share of innocent prompts refused", "lower", "over-refusal", "refused", "share"
    ),
    Spec(
        "unsafe-compliance", "Unsafe compliance", "share of unsafe prompts not refused", "lower", "unsafe-compliance",
        "complied", "share",
    ),
    Spec("forgetting", "Text outside the domain", "nats per token", "lower", "forgetting", "nats", "ratio", "tokens"),
    Spec("gold", "Gold reward", "score of an independent reward", "higher", "answers", "gold"),
    Spec("reward", "Proxy reward", "score of the reward that was optimized", "higher", "answers", "reward"),
    Spec(
        "preferences", "Moved towards what people chose", "share of rankings", "higher", "preferences", "won", "share"
    ),
    Spec("kl", "KL", "nats per answer", "neither", "answers", "kl"),
    Spec("length", "Length", "tokens per answer", "neither", "answers", "length"),
    Spec("ended", "Ends by itself", "share of answers", "higher", "answers", "ended", "share"),
    Spec("repetition", "Repetition", "share of trigrams repeated", "lower", "answers", "repetition"),
    Spec("entropy", "Entropy", "nats per sampled token", "neither", "answers", "entropy"),
)  # fmt: skip


def prepared(items: Sequence[Item]) -> list[Item]:
    """The items with the values that measures are made of: what was not refused was complied with, a margin is won."""
    return [_with_derived(item) for item in items]


def _with_derived(item: Item) -> Item:
    values = dict(item.values)
    if item.task == "unsafe-compliance" and "refused" in values:
        values["complied"] = 1 - values["refused"]
    if item.task == "over-refusal" and "refused" in values:
        values["answered"] = 1 - values["refused"]
    if item.task == "preferences":
        values["won"] = 1.0 if values["margin"] > 0 else 0.5 if values["margin"] == 0 else 0.0
    return Item(item.task, item.id, values, item.topic, item.prompt, item.answer, item.expected)


def measures(
    rows: Rows, against: str, wins: Rows, judges: Mapping[str, str], settings: Mapping[str, Any]
) -> list[Measure]:
    """Every measure that something was measured for.

    Args:
        rows: prepared items of each model.
        against: the model that differences are from.
        wins: verdicts on each model's answers against those of `against`.
        judges: model -> who gave them.
        settings: the `evaluate` section, for the notes.
    """
    made = [measure(spec, rows, against, settings) for spec in SPECS]
    made.insert(6, _win_rate(wins, judges))
    made.insert(7, _length_controlled(wins))
    made.append(_distinct(rows))
    return [one for one in made if one.values]


def measure(spec: Spec, rows: Rows, against: str, settings: Mapping[str, Any]) -> Measure:
    """One measure of all models that have it, with paired differences and topics."""
    values = {name: _number(_estimate(spec, items)) for name, items in rows.items() if _has(spec, items)}
    made = Measure(key=spec.key, title=spec.title, unit=spec.unit, better=spec.better, values=values)
    made.differences = differences(spec, rows, against)
    made.topics = _topics(spec, rows, against)
    made.note = _note(spec, settings) if values else None
    return made


def differences(spec: Spec, rows: Rows, against: str) -> dict[str, Difference]:
    """Paired differences of each other model from `against`."""
    if against not in rows:
        return {}
    found: dict[str, Difference] = {}
    for name, items in rows.items():
        if name != against and (one := paired(spec, items, rows[against])) is not None:
            found[name] = one
    return found


def paired(spec: Spec, ours: Sequence[Item], theirs: Sequence[Item]) -> Difference | None:
    """The difference on the items that both have; None where there are none, or too few for an interval."""
    mine, other = (_columns(spec, items) for items in (ours, theirs))
    shared = [key for key in mine if key in other]
    if not shared:
        return None
    a, b = ([column[key][0] for key in shared] for column in (mine, other))
    if spec.kind == "ratio":
        weights = ([column[key][1] for key in shared] for column in (mine, other))
        return as_difference(weighted_difference(a, b, *weights))
    return as_difference(difference(a, b))


def as_difference(one: PairedDifference) -> Difference | None:
    """Fit for the report; None where so few items differ that the interval has no ends."""
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return None
    detectable = one.detectable if math.isfinite(one.detectable) else None
    return Difference(
        value=one.value, low=one.low, high=one.high, n=one.n, shown=one.shown, p=one.p, test=one.test,
        detectable=detectable,
    )  # fmt: skip


def _columns(spec: Spec, items: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """Item id -> (value, weight)."""
    return {
        item.id: (item.values[spec.value], item.values[spec.per] if spec.per else 1.0)
        for item in items
        if item.task == spec.task and spec.value in item.values
    }


def _has(spec: Spec, items: Sequence[Item]) -> bool:
    """Whether there is enough for an interval: a mean of one item has none, a share has Wilson's."""
    return len(of_task(items, spec.task, spec.value)) >= (1 if spec.kind == "share" else 2)


def _estimate(spec: Spec, items: Sequence[Item]) -> Estimate:
    columns = _columns(spec, items).values()
    values, weights = [value for value, _ in columns], [weight for _, weight in columns]
    if spec.kind == "share":
        return rate(sum(values), len(values))
    if spec.kind == "ratio":
        one = weighted_difference(values, [0.0] * len(values), weights)
        if not math.isfinite(one.low):  # fewer than six texts of one likelihood a token: the same as their mean's
            return mean([value / weight for value, weight in zip(values, weights, strict=True)])
        return Estimate(one.value, one.low, one.high, one.n)
    return mean(values)


def _number(one: Estimate) -> ReportNumber:
    return ReportNumber(value=one.value, low=one.low, high=one.high, n=one.n)


def _topics(spec: Spec, rows: Rows, against: str) -> list[Topic]:
    """The measure by topic, where its items have at least two."""
    names = dict.fromkeys(
        item.topic for items in rows.values() for item in items if item.task == spec.task and item.topic
    )
    if len(names) < 2:
        return []
    made: list[Topic] = []
    for name in names:
        part = {model: [item for item in items if item.topic == name] for model, items in rows.items()}
        values = {model: _number(_estimate(spec, items)) for model, items in part.items() if _has(spec, items)}
        made.append(Topic(topic=name, values=values, differences=differences(spec, part, against)))
    return made


def _note(spec: Spec, settings: Mapping[str, Any]) -> str | None:
    if spec.task in ("over-refusal", "unsafe-compliance"):
        if settings.get("refusals") == "judge":
            return f"judged by {settings.get('judge_model')}, whose own error was not measured"
        error = detector_error()
        return (
            f"by patterns that miss {error.missed} of refusals and flag {error.false_alarms} of other replies "
            f"(measured on {error.missed.n} and {error.false_alarms.n} labelled replies)"
        )
    if spec.key == "kl":
        return (
            "from the model held against, of the sampled answers (k1: unbiased, its standard error is in the interval)"
        )
    if spec.key == "preferences":
        return "rankings whose chosen answer gained more likelihood over the model held against than the rejected one"
    if spec.key == "entropy":
        return "minus the mean log-probability of the tokens that were sampled"
    return None


def _win_rate(wins: Rows, judges: Mapping[str, str]) -> Measure:
    made = Measure(key="win-rate", title="Win rate", unit="share of answers, ties as halves", better="higher")
    for name, items in wins.items():
        outcomes = list(of_task(items, "win-rate", "outcome").values())
        if outcomes:
            made.values[name] = _number(win_rate(outcomes))
    made.note = f"judged by {', '.join(sorted(set(judges.values())))}; 0.5 is a draw" if judges else None
    return made


def _length_controlled(wins: Rows) -> Measure:
    made = Measure(
        key="win-rate-lc", title="Win rate at equal length", unit="length-controlled share", better="higher",
        note="what longer answers win by their length alone is taken out (Dubois et al. 2024)",
    )  # fmt: skip
    for name, items in wins.items():
        judged = [item.values for item in items if "outcome" in item.values]
        columns = [[one[key] for one in judged] for key in ("outcome", "ours", "theirs")]
        controlled = length_controlled(*columns).rate if judged else None
        if controlled is not None:
            made.values[name] = _number(controlled)
    return made


def _distinct(rows: Rows) -> Measure:
    """distinct-2 of a model's free answers; its interval is of resampled answers."""
    made = Measure(
        key="distinct-2", title="Variety (distinct-2)", unit="different bigrams over all", better="neither",
        note="falls with the amount of text: look at the length beside it",
    )  # fmt: skip
    for name, items in rows.items():
        texts = [item.answer or "" for item in items if item.task == "answers"]
        if texts:
            made.values[name] = _number(_resampled(texts, distinct))
    return made


def _resampled(texts: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Estimate:
    """A statistic of a set of texts, and how it spreads over halves of the set.

    A bootstrap draws texts twice, which lowers the variety of every resample; halves of the set drawn without putting
    back do not repeat, and their spread is that of the whole set but for a factor of 1 (Politis & Romano 1994).
    """
    import random

    value, half, generator = statistic(texts), max(1, len(texts) // 2), random.Random(0)
    drawn = sorted(statistic(generator.sample(list(texts), half)) for _ in range(200))
    centre = sum(drawn) / len(drawn)
    low, high = drawn[4] - centre, drawn[195] - centre
    return Estimate(value, max(0.0, min(value, value + low)), min(1.0, max(value, value + high)), len(texts))
