"""report.html: one self-contained page. Nothing in it comes from a network, and nothing that data holds can act."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trueup.report import view
from trueup.report.charts import looks_of, pictures
from trueup.report.drawing import Look
from trueup.report.glyphs import glyph, icon, strip
from trueup.report.schema import GateResult, Report
from trueup.report.words import SYMBOLS, aim, cleaned, estimate, fixed, memory, one_line, plain
from trueup.system.text import duration, short_count

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src '{script}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def render(report: Report) -> str:
    """The page, complete: write it to report.html as UTF-8."""
    report = cleaned(report)
    looks = looks_of(report)
    script, style = _text("page.js"), _text("page.css")
    drawn, left_out = pictures(report)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            policy=_POLICY.format(script=_fingerprint(script)),
            script=Markup(script),
            style=Markup(style),
            rows=view.rows(report),
            columns=view.columns(report),
            tests=view.tests(report),
            pictures=drawn,
            left_out=left_out,
            samples=view.ordered(report.samples),
            tasks=sorted({one.task for one in report.samples}),
            longest=max(report.seconds.values(), default=0.0),
            made=_moment(report.made),
            glyph=lambda model: _glyph(looks, model),
            judged_first=view.judged_first(report),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("trueup.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"icon": _icon, "strip": _strip, "view": view}
    made.filters |= {
        "aim": aim,
        "count": lambda value: f"{value:,}",
        "duration": duration,
        "estimate": estimate,
        "fixed": fixed,
        "inline": _inline,
        "memory": memory,
        "one_line": one_line,
        "plain": plain,
        "signed": lambda value: f"+{plain(value)}" if value > 0 else plain(value),
        "short": short_count,
        "slug": lambda word: word.lower().replace(" ", "-"),
    }
    return made


def _text(name: str) -> str:
    return files("trueup.report").joinpath(name).read_text(encoding="utf-8")


def _fingerprint(script: str) -> str:
    """How the policy names the one script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _moment(made: str) -> str:
    """`24 November 2026, 14:03 UTC`, or what is there where it is no ISO time."""
    try:
        when = datetime.fromisoformat(made)
    except ValueError:
        return made
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


def _icon(word: str) -> Markup:
    return Markup(icon(SYMBOLS[word]))


def _glyph(looks: dict[str, Look], model: str) -> Markup:
    return Markup(glyph(looks[model]) if model in looks else "")


def _strip(gate: GateResult) -> Markup:
    return Markup(strip(gate))


def _inline(svg: str) -> Markup:
    return Markup(svg)
