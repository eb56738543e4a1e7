"""Accuracy and calibration of a reward model on held-out rankings, also by which answer is the longer one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trueup.evaluation.items import Item
from trueup.report.report_schema import Bin, ReportNumber, RewardModelCard
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
