"""Print the report in a terminal: the verdict first, within 80 columns, readable without colour."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from trueup.pages.numbers import MINUS, NOT_MEASURED, fixed, interval
from trueup.pages.text import cleaned, one_line
from trueup.report.report_schema import Measure, ModelVerdict, Report
from trueup.report.view import by_definition, columns, common_places, judged_first, words_corrected
from trueup.system.console import make_console, table

_WIDTH = 80
_AT_ONCE = 3  # intervals that fit into one row
_PLACES = 3
_COLOURS = {"SHIP": "green", "HOLD": "red", "NOT SHOWN": "yellow", "NOT JUDGED": ""}
_SIGNS = {"pass": "[ok]", "fail": "[X]", "not shown": "[?]", "not run": "[-]"}
_SIGNS |= {"SHIP": "[ok]", "HOLD": "[X]", "NOT SHOWN": "[?]", "NOT JUDGED": "[-]"}


def show(report: Report) -> None:
    """Print the report to stdout: verdict, gates, alarms, the table of models, and what was not measured."""
    report = cleaned(report)
    out = make_console(stderr=False)
    _verdict(out, report)
    for model, model_verdict in judged_first(report):
        _gates(out, model, model_verdict)
    for alarm in report.alarms:
        _say(out, f"ALARM {one_line(alarm.name)}, {one_line(alarm.stage)} step {alarm.step}: {one_line(alarm.message)}")
        _say(out, f"fix: {one_line(alarm.fix)}", indent=2)
    if report.alarms:
        out.print()
    _models(out, report)
    if report.judge is not None:
        _say(out, f"the judge, {one_line(report.judge.name)}:")
        for line in report.judge.lines:
            _say(out, one_line(line), indent=2)
        out.print()
    for missing in report.not_measured:
        _say(out, f"{NOT_MEASURED}: {one_line(missing.what)}: {one_line(missing.why)}")


def _say(out: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    words = Text(text.replace(MINUS, "-"), style=style, overflow="fold")
    out.print(Padding(words, (0, 0, 0, indent), expand=False), width=min(out.width, _WIDTH))


def _verdict(out: Console, report: Report) -> None:
    verdict = report.verdict
    about = f"  {one_line(verdict.model)}" if verdict.model else ""
    _say(out, f"{_SIGNS[verdict.verdict]} {verdict.verdict}{about}", style=f"bold {_COLOURS[verdict.verdict]}".strip())
    _say(out, verdict.sentence)
    for note in verdict.notes:
        _say(out, one_line(note))
    if verdict.search:
        _say(out, verdict.search)
    out.print()


def _gates(out: Console, model: str, model_verdict: ModelVerdict) -> None:
    title = f"gates of {one_line(model)}: {_SIGNS[model_verdict.verdict]} {model_verdict.verdict}"
    if model_verdict.gates:
        rows = [
            [f"{_SIGNS[gate.outcome]} {gate.outcome}", one_line(gate.title), one_line(gate.words).replace(MINUS, "-")]
            for gate in model_verdict.gates
        ]
        table(title, ["outcome", "gate", "measured"], rows)
    else:
        _say(out, f"{title}; no gate is set")
    out.print()


def _models(out: Console, report: Report) -> None:
    names = columns(report)
    if not names or not report.measures:
        _say(out, f"{NOT_MEASURED}: no model was measured")
        return
    against = f", and the paired difference from {one_line(report.against)}" if report.against else ""
    for start in range(0, len(report.measures), _AT_ONCE):
        part = report.measures[start : start + _AT_ONCE]
        rows = [[one_line(name), *(_cell(measure, name, report) for measure in part)] for name in names]
        table(f"value [95% interval]{against}", ["model", *(_heading(measure) for measure in part)], rows)
    if words_corrected(report):
        _say(out, words_corrected(report))


def _heading(measure: Measure) -> str:
    counts = sorted({number.n for number in measure.values.values()})
    n_text = "" if not counts else f", n {counts[0]}" if len(counts) == 1 else f", n {counts[0]} to {counts[-1]}"
    return f"{one_line(measure.title)}{n_text}"


def _cell(measure: Measure, model: str, report: Report) -> str:
    value, difference = measure.values.get(model), measure.differences.get(model)
    if value is None and difference is None:
        known = by_definition(measure) if model == report.against else None
        return "not measured" if known is None else f"{known} by definition"
    lines = []
    if value is not None:
        decimals = min(_PLACES, common_places(measure.values))
        lines.append(f"{fixed(value.value, decimals)} {interval(value, decimals)}")
        if value.withheld:
            lines.append(value.withheld)
    if model == report.against:
        lines.append("baseline")
    if difference is not None:
        decimals = min(_PLACES, common_places(measure.differences))
        lines.append(f"{fixed(difference.value, decimals, sign=True)} {measure.judgement(difference)}")
        if not difference.shown and difference.detectable is not None:
            lines.append(f"could show {fixed(difference.detectable, decimals)}")
    return "\n".join(lines).replace(MINUS, "-")
