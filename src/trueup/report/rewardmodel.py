"""Accuracy and calibration of a reward model on held-out rankings, also by which answer is the longer one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trueup.evaluation.items import Item
from trueup.evaluation.published.scoring import ties_score
from trueup.evaluation.published.table import PUBLISHED
from trueup.report.report_schema import Bin, ReportNumber, RewardModelCard, RewardSet
from trueup.stats.intervals import rate

BINS = 10


def reward_card(name: str, items: Sequence[Item]) -> RewardModelCard:
    """Return accuracy and calibration of a reward model from its margins on held-out rankings; a tie is half right.

    A margin is the reward of the chosen answer minus that of the rejected one.
    """
    margins = [item.values["margin"] for item in items]
    longer = [item.values["margin"] for item in items if item.values["chosen_longer"] > 0]
    shorter = [item.values["margin"] for item in items if item.values["chosen_longer"] < 0]
    bins = calibration(margins)
    n = sum(bar.observed.n for bar in bins)
    error = sum(bar.observed.n * abs(bar.observed.value - bar.predicted) for bar in bins) / n if bins else None
    return RewardModelCard(
        name=name,
        accuracy=_accuracy(margins),
        chosen_longer=_accuracy(longer) if longer else None,
        chosen_shorter=_accuracy(shorter) if shorter else None,
        calibration=bins,
        calibration_error=error,
    )


def reward_sets(items: Sequence[Item]) -> list[RewardSet]:
    """Return the reward model's scores on the published sets that it was measured on.

    A set's score is the mean over its categories, as its paper has it: of RewardBench 2 over subsets, with the weighted
    score of Ties; of RM-Bench over domains, those named alike before a dash together. Intervals of categories are
    Wilson's, and that of the mean joins them (MOVER, Zou & Donner 2008).
    """
    results: list[RewardSet] = []
    for name, entry in PUBLISHED.items():
        rows = [item for item in items if item.task == name]
        if entry.how != "ranked" or not rows:
            continue
        categories = dict.fromkeys(item.topic or "all" for item in rows)
        parts = {part: _category([item for item in rows if (item.topic or "all") == part]) for part in categories}
        further = {
            key: _share([item.values[key] for item in rows], len(rows)) for key in entry.values if key != "score"
        }
        results.append(
            RewardSet(
                title=entry.title, unit=entry.values["score"].unit, score=_over_categories(parts),
                parts=parts | further, note=f"mean over its categories; {entry.citation}",
            )
        )  # fmt: skip
    return results


def _category(rows: Sequence[Item]) -> ReportNumber:
    """Return the score of a category; in Ties a row "tied:N" and its partner "ref:N" count as one."""
    weighted = ties_score({item.id: item.values for item in rows}) if "gap" in rows[0].values else None
    if weighted is None:
        return _share([item.values["score"] for item in rows], len(rows))
    n = len({item.id.partition(":")[2] for item in rows})
    inner = rate(min(max(weighted, 0.0), 1.0) * n, n)
    return ReportNumber(value=weighted, low=min(weighted, inner.low), high=max(weighted, inner.high), n=n)


def _share(scores: Sequence[float], n: int) -> ReportNumber:
    return ReportNumber.of(rate(math.fsum(scores), n))


def _over_categories(parts: Mapping[str, ReportNumber]) -> ReportNumber:
    groups: dict[str, list[ReportNumber]] = {}
    for name, number in parts.items():
        groups.setdefault(name.partition("-")[0], []).append(number)
    weighted = [(1 / (len(groups) * len(numbers)), number) for numbers in groups.values() for number in numbers]
    value = math.fsum(weight * number.value for weight, number in weighted)
    below = math.hypot(*(weight * (number.value - number.low) for weight, number in weighted))
    above = math.hypot(*(weight * (number.high - number.value) for weight, number in weighted))
    return ReportNumber(value=value, low=value - below, high=value + above, n=sum(number.n for _, number in weighted))


def calibration(margins: Sequence[float], bins: int = BINS) -> list[Bin]:
    """Return the predicted probability that the preferred answer wins, and how often it did, in bins of equal count.

    The answer that the reward model prefers wins with sigmoid(|margin|), from one half to one (Bradley-Terry). The
    other half of the range would only mirror this one.

    Args:
        margins: reward of chosen minus rejected for each held-out ranking.
        bins: number of bins at most; there are fewer if a bin would have less than ten rankings.
    """
    predictions = sorted((1 / (1 + math.exp(-abs(margin))), _half(margin)) for margin in margins)
    count = min(bins, max(1, len(predictions) // 10))
    result: list[Bin] = []
    for index in range(count):
        part = predictions[index * len(predictions) // count : (index + 1) * len(predictions) // count]
        if part:
            observed = rate(sum(outcome for _, outcome in part), len(part))
            result.append(Bin(predicted=sum(p for p, _ in part) / len(part), observed=ReportNumber.of(observed)))
    return result


def _half(margin: float) -> float:
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def _accuracy(margins: Sequence[float]) -> ReportNumber:
    return ReportNumber.of(rate(sum(_half(margin) for margin in margins), len(margins)))
