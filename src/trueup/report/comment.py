"""Write the report as Markdown, report.md, for the comment on a pull request: the verdict first, the numbers folded."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trueup.pages.numbers import NOT_MEASURED, estimate
from trueup.pages.text import cleaned, one_line
from trueup.report import card
from trueup.report.report_schema import Measure, ModelVerdict, Report
from trueup.report.view import columns, judged_first

MARKER = "<!-- trueup report -->"
"""The first line, by which a workflow finds its earlier comment."""
LONGEST = 60_000
"""Characters of the whole text; GitHub takes 65,536 in a comment."""
_SIGNS = {"SHIP": "✅", "HOLD": "❌", "NOT SHOWN": "❔", "NOT JUDGED": "⬜"}
_SIGNS |= {"pass": "✅", "fail": "❌", "not shown": "❔", "not run": "⬜"}
_LONGEST_REASON = 300


def comment(report: Report) -> str:
    """Return the report as GitHub's Markdown. All text from models and files is escaped."""
    report = cleaned(report)
    verdict = report.verdict
    about = f" {escaped(verdict.model)}" if verdict.model else ""
    against = f", compared with {escaped(report.against)}" if report.against else ""
    parts = [
        MARKER,
        f"## {_SIGNS[verdict.verdict]} {verdict.verdict}{about}{against}",
        escaped(verdict.sentence),
        *(f"> {escaped(note)}" for note in [*verdict.notes, *([verdict.search] if verdict.search else [])]),
        *(_gates(name, model) for name, model in judged_first(report)),
        _folded("Numbers", _numbers(report)),
        _folded(f"{NOT_MEASURED.capitalize()}: {len(report.not_measured)}", _not_measured(report)),
        _folded("Where the models came from", _origins(report)),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    if len(text) <= LONGEST:
        return text
    return "\n\n".join([*parts[:-3], "The numbers are in report.html: they are too many for a comment."]) + "\n"


def escaped(text: str) -> str:
    """Return a text in one line, escaped for Markdown; it mentions no user and no issue of the place it stands in."""
    return re.sub(r"([@#])(?=\w)", "\\1\u200b", card.escaped(text))


def _gates(name: str, model: ModelVerdict) -> str:
    if not model.gates:
        return ""
    lines = [f"| {escaped(name)} | gate | measured |", "|---|---|---|"]
    lines += [
        f"| {_SIGNS[gate.outcome]} {gate.outcome} | {escaped(gate.title)} | {escaped(gate.words)} |"
        for gate in model.gates
    ]
    return "\n".join(lines)


def _numbers(report: Report) -> list[str]:
    names = columns(report)
    if not report.measures or not names:
        return []
    head = ["measure", *(escaped(name) for name in names)]
    rows = [[escaped(f"{row.title}, {row.unit}"), *(_cell(row, name) for name in names)] for row in report.measures]
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _cell(measure: Measure, name: str) -> str:
    value, difference = measure.values.get(name), measure.differences.get(name)
    text = estimate(value) if value is not None else ""
    if difference is not None:
        text += f"<br>{estimate(difference, sign=True)} **{measure.judgement(difference)}**"
    return text


def _not_measured(report: Report) -> list[str]:
    return [
        f"- {escaped(missing.what)}: {escaped(one_line(missing.why, _LONGEST_REASON))}"
        for missing in report.not_measured
    ]


def _origins(report: Report) -> list[str]:
    lines = [
        f"- {escaped(name)}: {escaped(origin.source)}, weights {origin.weights[:16] if origin.weights else 'not known'}"
        for name, origin in report.origins.items()
    ]
    return [*lines, *([f"- made {escaped(report.made)}"] if lines else [])]


def _folded(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"<details><summary>{title}</summary>\n\n" + "\n".join(lines) + "\n\n</details>"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
