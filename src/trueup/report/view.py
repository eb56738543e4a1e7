"""What the page's template shows, worked out beforehand: cells of the table, samples in order, counts of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_high

from trueup.pages.numbers import fixed, interval, p_value, places
from trueup.pages.text import one_line
from trueup.report.report_schema import (
    Difference,
    Measure,
    ModelVerdict,
    Report,
    ReportMissing,
    ReportNumber,
    ReportSample,
)

LONG = 700
"""Characters of an answer that are shown at once; the rest is a click away."""
FIRST_SAMPLES = 12
LINES = 200


@dataclass(frozen=True)
class Cell:
    """One model's number in one measure."""

    model: str
    value: str = ""
    interval: str = ""
    n: int = 0
    change: str = ""
    """The paired difference with its interval."""
    word: str = ""
    """Such as "worse"; "baseline" for the model that is compared against; "not measured"."""
    detail: list[str] = field(default_factory=list)
    """p-value, and what this n could have shown."""


@dataclass(frozen=True)
class MeasureRow:
    """One measure, or one topic of it."""

    measure: Measure
    title: str
    cells: list[Cell]
    topics: list[MeasureRow]


def rows(report: Report) -> list[MeasureRow]:
    """The table of models."""
    return [
        MeasureRow(
            one,
            one.title,
            _cells(report, one, one.values, one.differences),
            [
                MeasureRow(one, part.topic, _cells(report, one, part.values, part.differences), [])
                for part in one.topics
            ],
        )
        for one in report.measures
    ]


def _cells(
    report: Report, measure: Measure, values: Mapping[str, ReportNumber], differences: Mapping[str, Difference]
) -> list[Cell]:
    # One row, one number of decimals: what stands side by side must compare at a glance.
    decimals = common_places(values)
    finer = common_places(differences)
    made: list[Cell] = []
    for model in columns(report):
        cell = _value(model, measure, values.get(model), report, decimals)
        difference = differences.get(model)
        made.append(cell if difference is None else _compared(cell, measure, difference, finer))
    return made


def judged_first(report: Report) -> list[tuple[str, ModelVerdict]]:
    """Models with gates, the one that the verdict is about first."""
    return sorted(report.verdict.models.items(), key=lambda pair: pair[0] != report.verdict.model)


def columns(report: Report) -> list[str]:
    """Models of the table: those of the report, then any that only a measure names."""
    parts = [part for one in report.measures for part in (one, *one.topics)]
    named = (name for part in parts for name in [*part.values, *part.differences])
    return list(dict.fromkeys([*report.models, *named]))


def common_places(numbers: Mapping[str, ReportNumber]) -> int:
    """The decimals that suit most of a row."""
    return median_high(places(one) for one in numbers.values()) if numbers else 0


_BY_DEFINITION = {"kl": "0", "win-rate": "0.5", "preferences": "0.5"}
"""What the model that others are held against has against itself."""


def by_definition(measure: Measure) -> str | None:
    """The number that a model has when it is held against itself, where that is known without measuring."""
    return next((value for key, value in _BY_DEFINITION.items() if measure.key.lower().startswith(key)), None)


def _value(model: str, measure: Measure, value: ReportNumber | None, report: Report, decimals: int) -> Cell:
    baseline = model == report.against
    if value is not None:
        text = fixed(value.value, decimals)
        return Cell(model, text, interval(value, decimals), value.n, word="baseline" if baseline else "")
    known = by_definition(measure)
    if baseline and known is not None:
        return Cell(model, value=known, word="baseline", detail=["by definition"])
    return Cell(model, word="not measured", detail=_reason(report.not_measured, model, measure))


def _compared(cell: Cell, measure: Measure, difference: Difference, decimals: int) -> Cell:
    change = f"{fixed(difference.value, decimals, sign=True)} {interval(difference, decimals, sign=True)}"
    said = [] if difference.p is None else [p_value(difference.p)]
    if not difference.shown and difference.detectable is not None:
        said.append(f"could show {fixed(difference.detectable, decimals)}")
    word = measure.judgement(difference)
    return replace(cell, n=cell.n or difference.n, change=change, word=word, detail=said)


def _reason(missing: Sequence[ReportMissing], model: str, measure: Measure) -> list[str]:
    """Why, where an entry of `not_measured` names both this model and this measure."""
    names = (measure.key.lower(), measure.title.lower())
    for one in missing:
        what = one.what.lower()
        if model.lower() in what.split() and any(name in what for name in names):
            return [one.why]
    return []


def tests(report: Report) -> str:
    """Which test decided which measures, in a sentence."""
    by_test: dict[str, list[str]] = {}
    for measure in report.measures:
        for one in measure.differences.values():
            if one.test and measure.title not in by_test.setdefault(one.test, []):
                by_test[one.test].append(measure.title)
    return "; ".join(f"{test}: {', '.join(one_line(title) for title in titles)}" for test, titles in by_test.items())


# -- samples ---------------------------------------------------------------------------------------------------------


def ordered(samples: Sequence[ReportSample]) -> list[ReportSample]:
    """The largest gains and losses first; those without a score last."""
    return sorted(samples, key=_size, reverse=True)


def _size(sample: ReportSample) -> float:
    return -1.0 if sample.change is None or math.isnan(sample.change) else abs(sample.change)


def changed(sample: ReportSample, report: Report) -> bool:
    """Whether the score changed, or, without a score, whether the last model answers other words than the baseline."""
    if sample.change is not None:
        return sample.change != 0
    texts = [sample.answers[name].text for name in report.models if name in sample.answers]
    first = sample.answers[report.against].text if report.against in sample.answers else next(iter(texts), "")
    return bool(texts) and texts[-1] != first


def halves(text: str) -> tuple[str, str]:
    """A long text's beginning, and the rest."""
    return (text, "") if len(text) <= LONG + 100 else (text[:LONG], text[LONG:])


# -- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """Rows with their line and a reason."""

    title: str
    count: int
    lines: list[str]


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one data section."""

    name: str
    path: str
    read: int | None
    used: int | None
    left_out: int
    unselected: int
    adds_up: bool
    lists: list[Listed]
    rest: list[tuple[str, str]]


_LISTS = {
    "dropped": "left out",
    "over_length": "left out as too long",
    "cut": "cut to the limit",
    "notes": "used, but odd",
}
_KNOWN = {"path", "read", "rows", "used", "unselected", *_LISTS}


def counts(name: str, data: Mapping[str, object]) -> Counts:
    """Counts as in data.json, whatever of it is there."""
    lists = [_listed(title, data[key]) for key, title in _LISTS.items() if data.get(key)]
    left_out = sum(one.count for one in lists if one.title.startswith("left out"))
    read, used = _whole(data.get("read", data.get("rows"))), _whole(data.get("used"))
    unselected = _whole(data.get("unselected")) or 0
    adds_up = read is None or used is None or read == used + left_out + unselected
    rest = [
        (key.replace("_", " "), _said(value))
        for key, value in data.items()
        if key not in _KNOWN and value not in (None, [], {}, "")
    ]
    return Counts(name, str(data.get("path", "")), read, used, left_out, unselected, adds_up, lists, rest)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _listed(title: str, value: object) -> Listed:
    """`[{"at", "reason"}, …]`, `{"max_length", "rows": […]}` or a bare count."""
    if isinstance(value, int):
        return Listed(title, value, [])
    if isinstance(value, Mapping):
        found = value.get("rows", [])
        lines = [str(one) for one in found] if isinstance(found, list) else []
        count = _whole(value.get("count"))  # of many rows the first are listed
        title = f"{title} ({value['max_length']} tokens)" if "max_length" in value else title
        return Listed(title, len(lines) if count is None else count, lines)
    entries = value if isinstance(value, list) else [value]
    return Listed(title, len(entries), [_line(one) for one in entries])


def _line(entry: object) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    parts = [str(entry[key]) for key in ("at", "line", "reason", "note") if key in entry]
    return ": ".join(parts) if parts else str(dict(entry))


def _said(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
