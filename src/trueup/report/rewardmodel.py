"""How far a reward model can be trusted: accuracy, also where chosen is the longer answer, and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trueup.evaluation.items import Item
from trueup.report.report_schema import Bin, ReportNumber, RewardModelCard
from trueup.stats.intervals import Estimate, rate

BINS = 10


def reward_card(name: str, items: Sequence[Item]) -> RewardModelCard:
    """Of the margins (chosen less rejected) on held-out rankings; a tie is half right."""
    margins = [item.values["margin"] for item in items]
    longer = [item.values["margin"] for item in items if item.values["chosen_longer"] > 0]
    shorter = [item.values["margin"] for item in items if item.values["chosen_longer"] < 0]
    bins = calibration(margins)
    counted = sum(one.observed.n for one in bins)
    error = sum(one.observed.n * abs(one.observed.value - one.predicted) for one in bins) / counted if bins else None
    return RewardModelCard(
        name=name, accuracy=_number(_right(margins)), chosen_longer=_number(_right(longer)) if longer else None,
        chosen_shorter=_number(_right(shorter)) if shorter else None, calibration=bins, calibration_error=error,
    )  # fmt: skip


def calibration(margins: Sequence[float], bins: int = BINS) -> list[Bin]:
    """Predicted probability that the preferred side wins, against how often it did.

    Of every pair the side that the model prefers is looked at: it says that this side wins with sigmoid(|margin|), from
    one half to one (Bradley-Terry). To show the curve over the whole range would only mirror it. Bins of equal count.
    """
    told = sorted((1 / (1 + math.exp(-abs(margin))), _half(margin)) for margin in margins)
    count = min(bins, max(1, len(told) // 10))
    made: list[Bin] = []
    for at in range(count):
        part = told[at * len(told) // count : (at + 1) * len(told) // count]
        if part:
            observed = rate(sum(right for _, right in part), len(part))
            made.append(Bin(predicted=sum(p for p, _ in part) / len(part), observed=_number(observed)))
    return made


def _half(margin: float) -> float:
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0


def _right(margins: Sequence[float]) -> Estimate:
    return rate(sum(_half(one) for one in margins), len(margins))


def _number(one: Estimate) -> ReportNumber:
    return ReportNumber(value=one.value, low=one.low, high=one.high, n=one.n)
