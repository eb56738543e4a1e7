"""Prepare what the page and the terminal show: cells of the table of models, samples in order, counts of data rows."""

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
"""Characters of an answer that are shown at once; the rest is folded."""
FIRST_SAMPLES = 12
LINES = 200


@dataclass(frozen=True)
class Cell:
    """One cell of the table of models: a model's number in one measure, as texts."""

    model: str
    value: str = ""
    interval: str = ""
    n: int = 0
    change: str = ""
    """The paired difference with its interval."""
    word: str = ""
    """Such as "worse"; "baseline" for the model that is compared against; "not measured"."""
    detail: list[str] = field(default_factory=list)
    """The p-value, and the smallest difference that this n could have shown."""


@dataclass(frozen=True)
class MeasureRow:
    """One row of the table of models: a measure, with rows for its topics, or one such topic."""

    measure: Measure
    title: str
    cells: list[Cell]
    topics: list[MeasureRow]


def rows(report: Report) -> list[MeasureRow]:
    """Return the rows of the table of models, one for each measure with its topics."""
    return [
        MeasureRow(
            measure,
            measure.title,
            _cells(report, measure, measure.values, measure.differences),
            [
                MeasureRow(measure, topic.topic, _cells(report, measure, topic.values, topic.differences), [])
                for topic in measure.topics
            ],
        )
        for measure in report.measures
    ]


def _cells(
    report: Report, measure: Measure, values: Mapping[str, ReportNumber], differences: Mapping[str, Difference]
) -> list[Cell]:
    # One number of decimals in a row, so that its cells compare at a glance.
    decimals = common_places(values)
    finer = common_places(differences)
    cells: list[Cell] = []
    for model in columns(report):
        cell = _value(model, measure, values.get(model), report, decimals)
        difference = differences.get(model)
        cells.append(cell if difference is None else _compared(cell, measure, difference, finer))
    return cells


def judged_first(report: Report) -> list[tuple[str, ModelVerdict]]:
    """Return (name, verdict) of each judged model; the model that the report's verdict is about comes first."""
    return sorted(report.verdict.models.items(), key=lambda pair: pair[0] != report.verdict.model)


def columns(report: Report) -> list[str]:
    """Return the models in the table's columns: those of the report, then any that only a measure names."""
    parts = [part for measure in report.measures for part in (measure, *measure.topics)]
    named = (name for part in parts for name in [*part.values, *part.differences])
    return list(dict.fromkeys([*report.models, *named]))


def common_places(numbers: Mapping[str, ReportNumber]) -> int:
    """Return the number of decimals that suits most numbers of a row."""
    return median_high(places(number) for number in numbers.values()) if numbers else 0


_BY_DEFINITION = {"kl": "0", "win-rate": "0.5", "preferences": "0.5"}
"""The result, by measure, of the model that others are compared with, against itself."""


def by_definition(measure: Measure) -> str | None:
    """Return the number of a model compared with itself, such as "0" for KL; None if it must be measured."""
    return next((value for key, value in _BY_DEFINITION.items() if measure.key.lower().startswith(key)), None)


def _value(model: str, measure: Measure, value: ReportNumber | None, report: Report, decimals: int) -> Cell:
    baseline = model == report.against
    if value is not None:
        text = fixed(value.value, decimals)
        detail = [value.withheld] if value.withheld else []
        return Cell(model, text, interval(value, decimals), value.n, word="baseline" if baseline else "", detail=detail)
    known = by_definition(measure)
    if baseline and known is not None:
        return Cell(model, value=known, word="baseline", detail=["by definition"])
    return Cell(model, word="not measured", detail=_reason(report.not_measured, model, measure))


def _compared(cell: Cell, measure: Measure, difference: Difference, decimals: int) -> Cell:
    change = f"{fixed(difference.value, decimals, sign=True)} {interval(difference, decimals, sign=True)}"
    detail = list(cell.detail)
    if difference.withheld:
        detail = list(dict.fromkeys([*detail, difference.withheld]))
    elif difference.p is not None:
        detail.append(p_value(difference.p))
    if difference.shown and not difference.sure:
        detail.append("shown alone, but not among all differences of the table")
    if not difference.shown and difference.detectable is not None:
        detail.append(f"could show {fixed(difference.detectable, decimals)}")
    word = measure.judgement(difference)
    return replace(cell, n=cell.n or difference.n, change=change, word=word, detail=detail)


def _reason(missing: Sequence[ReportMissing], model: str, measure: Measure) -> list[str]:
    """Return [why] for the entry of `missing` that names both this model and this measure; [] if there is none."""
    names = (measure.key.lower(), measure.title.lower())
    for entry in missing:
        what = entry.what.lower()
        if model.lower() in what.split() and any(name in what for name in names):
            return [entry.why]
    return []


def words_corrected(report: Report) -> str:
    """Return the sentence under the table on the correction of its words; "" if it has fewer than two differences."""
    number = sum(len(measure.differences) for measure in report.measures)
    if number < 2:
        return ""
    return (
        f"Better, worse, higher and lower are corrected for the {number} differences in the table (Holm): the chance "
        "that any of these words is wrong is at most 5%. Tables by topic are corrected each for its own."
    )


def tests(report: Report) -> str:
    """Return one sentence with each statistical test and the measures that it decided; "" if there are none."""
    by_test: dict[str, list[str]] = {}
    for measure in report.measures:
        for difference in measure.differences.values():
            if difference.test and measure.title not in by_test.setdefault(difference.test, []):
                by_test[difference.test].append(measure.title)
    return "; ".join(f"{test}: {', '.join(one_line(title) for title in titles)}" for test, titles in by_test.items())


# -- samples ---------------------------------------------------------------------------------------------------------


def ordered(samples: Sequence[ReportSample]) -> list[ReportSample]:
    """Return the samples with the largest gains and losses first, and those without a change of score last."""
    return sorted(samples, key=_size, reverse=True)


def _size(sample: ReportSample) -> float:
    return -1.0 if sample.change is None or math.isnan(sample.change) else abs(sample.change)


def changed(sample: ReportSample, report: Report) -> bool:
    """Return True if a sample changed between the baseline and the last model: its score, or without one its answer."""
    if sample.change is not None:
        return sample.change != 0
    texts = [sample.answers[name].text for name in report.models if name in sample.answers]
    first = sample.answers[report.against].text if report.against in sample.answers else next(iter(texts), "")
    return bool(texts) and texts[-1] != first


def halves(text: str) -> tuple[str, str]:
    """Return the beginning of a text, which is shown, and the rest, which is folded ("" if the text is short)."""
    return (text, "") if len(text) <= LONG + 100 else (text[:LONG], text[LONG:])


# -- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """Rows of data with the same fate, such as left out: how many, and a line for each with its place and reason."""

    title: str
    count: int
    lines: list[str]


@dataclass(frozen=True)
class Counts:
    """Numbers of rows of one data section that were read, used, left out and not selected, and whether they add up."""

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
    """Return the counts of one section of a stage's data.json; keys may be missing."""
    lists = [_listed(title, data[key]) for key, title in _LISTS.items() if data.get(key)]
    left_out = sum(listed.count for listed in lists if listed.title.startswith("left out"))
    read, used = _whole(data.get("read", data.get("rows"))), _whole(data.get("used"))
    unselected = _whole(data.get("unselected")) or 0
    adds_up = read is None or used is None or read == used + left_out + unselected
    rest = [
        (key.replace("_", " "), _text(value))
        for key, value in data.items()
        if key not in _KNOWN and value not in (None, [], {}, "")
    ]
    return Counts(name, str(data.get("path", "")), read, used, left_out, unselected, adds_up, lists, rest)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _listed(title: str, value: object) -> Listed:
    """Return the rows under one key of data.json as a list with a title.

    `value` is `[{"at", "reason"}, ...]`, `{"max_length", "count", "rows": [...]}` or a bare count.
    """
    if isinstance(value, int):
        return Listed(title, value, [])
    if isinstance(value, Mapping):
        rows = value.get("rows", [])
        lines = [str(row) for row in rows] if isinstance(rows, list) else []
        count = _whole(value.get("count"))  # of many rows the first are listed
        title = f"{title} ({value['max_length']} tokens)" if "max_length" in value else title
        return Listed(title, len(lines) if count is None else count, lines)
    entries = value if isinstance(value, list) else [value]
    return Listed(title, len(entries), [_line(row) for row in entries])


def _line(entry: object) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    parts = [str(entry[key]) for key in ("at", "line", "reason", "note") if key in entry]
    return ": ".join(parts) if parts else str(dict(entry))


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
