"""Write report.html, one self-contained page: it loads nothing from a network, and nothing that data holds can act."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from trueup.pages import html
from trueup.pages.numbers import memory, plain
from trueup.pages.text import cleaned, one_line
from trueup.report import view
from trueup.report.charts import looks_of, pictures
from trueup.report.glyphs import glyph, strip
from trueup.report.report_schema import Report
from trueup.system.text import short_count


def render(report: Report) -> str:
    """Return the complete HTML page of the report, to be written to report.html as UTF-8."""
    report = cleaned(report)
    looks = looks_of(report)
    drawn, left_out = pictures(report)
    style = html.resource("trueup.pages", "base.css") + html.resource("trueup.pages", "verdict.css")
    style += html.resource("trueup.report", "page.css")
    return html.render(
        _environment(),
        "page.html.j2",
        style=style,
        script=html.resource("trueup.report", "page.js"),
        report=report,
        rows=view.rows(report),
        columns=view.columns(report),
        tests=view.tests(report),
        words_corrected=view.words_corrected(report),
        pictures=drawn,
        left_out=left_out,
        samples=view.ordered(report.samples),
        tasks=sorted({sample.task for sample in report.samples}),
        longest=max(report.seconds.values(), default=0.0),
        made=_moment(report.made),
        glyph=lambda model: glyph(looks[model]) if model in looks else "",
        judged_first=view.judged_first(report),
    )


@cache
def _environment() -> Environment:
    environment = html.environment("trueup.report")
    environment.globals |= {"strip": strip, "view": view}
    environment.filters |= {
        "inline": Markup,
        "memory": memory,
        "one_line": one_line,
        "plain": plain,
        "signed": lambda value: f"+{plain(value)}" if value > 0 else plain(value),
        "short": short_count,
    }
    return environment


def _moment(made: str) -> str:
    """Return an ISO time as text such as `24 November 2026, 14:03 UTC`, or the text itself if it is no ISO time."""
    try:
        time = datetime.fromisoformat(made)
    except ValueError:
        return made
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".strip()
