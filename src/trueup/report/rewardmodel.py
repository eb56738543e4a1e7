"""Accuracy and calibration of a reward model on held-out rankings, also by which answer is the longer one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from trueup.evaluation.items import Item
from trueup.evaluation.published.scoring import ties_score
from trueup.evaluation.published.table import PUBLISHED
from trueup.report.report_schema import Bin, ReportNumber, RewardModelCard, RewardSet
from trueup.stats.intervals import mean, rate

BINS = 10
RESAMPLES = 1000


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
    score of Ties; of RM-Bench over domains, those named alike before a dash together. Its interval is the bootstrap's,
    over rows within each category.
    """
    results: list[RewardSet] = []
    for name, entry in PUBLISHED.items():
        rows = [item for item in items if item.task == name]
        if entry.how != "ranked" or len(rows) < 2:
            continue
        parts: dict[str, ReportNumber] = {}
        for category, values in _by_category(rows).items():
            parts[category] = _drawn({category: values})
        for key in entry.values:
            if key != "score":
                parts[key] = ReportNumber.of(mean([item.values[key] for item in rows]))
        score, note = _drawn(_by_category(rows)), f"mean over its categories; {entry.citation}"
        results.append(
            RewardSet(title=entry.title, unit=entry.values["score"].unit, score=score, parts=parts, note=note)
        )
    return results


Category = Mapping[str, Mapping[str, float]]
"""Id of a row -> its values."""


def _by_category(rows: Sequence[Item]) -> dict[str, Category]:
    names = dict.fromkeys(item.topic or "all" for item in rows)
    return {name: {item.id: item.values for item in rows if (item.topic or "all") == name} for name in names}


def _drawn(categories: Mapping[str, Category]) -> ReportNumber:
    """Return the mean over categories with its bootstrap interval; rows of Ties are drawn with their partners."""
    generator = random.Random(0)
    units = {name: _units(rows) for name, rows in categories.items()}
    draws = sorted(
        _over_categories({name: generator.choices(drawn, k=len(drawn)) for name, drawn in units.items()})
        for _ in range(RESAMPLES)
    )
    cut = round(0.025 * RESAMPLES)
    value, n = _over_categories(units), sum(map(len, categories.values()))
    return ReportNumber(value=value, low=min(value, draws[cut]), high=max(value, draws[-cut - 1]), n=n)


def _units(rows: Category) -> list[Category]:
    """Return what is drawn at once: a row, or in Ties the row "tied:N" with its partner "ref:N"."""
    units: dict[str, dict[str, Mapping[str, float]]] = {}
    for row_id, values in rows.items():
        units.setdefault(row_id.partition(":")[2] if "gap" in values else row_id, {})[row_id] = values
    return list(units.values())


def _over_categories(units: Mapping[str, Sequence[Category]]) -> float:
    groups: dict[str, list[float]] = {}
    for name, drawn in units.items():
        groups.setdefault(name.partition("-")[0], []).append(_category_score(drawn))
    return math.fsum(math.fsum(scores) / len(scores) for scores in groups.values()) / len(groups)


def _category_score(drawn: Sequence[Category]) -> float:
    rows = {f"{row_id}/{number}": dict(values) for number, unit in enumerate(drawn) for row_id, values in unit.items()}
    weighted = ties_score(rows) if all("gap" in values for values in rows.values()) else None
    return math.fsum(values["score"] for values in rows.values()) / len(rows) if weighted is None else weighted


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
