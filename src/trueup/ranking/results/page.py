"""The results as one self-contained page: no script, nothing from a network, and all that people wrote is escaped.

A server that sends a content security policy of its own must allow `style-src 'unsafe-inline'` for this page.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment
from markupsafe import Markup

from trueup.pages import html, numbers
from trueup.ranking.results import phrases, strips
from trueup.ranking.results.results_schema import Absent, ModelPairing, Results

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRID = 12
"""Models of which the table of all against all is shown."""


def page(results: Results, *, back: str = "") -> str:
    """Return the complete page as text, to be sent or written as UTF-8.

    Args:
        results: from `view`.
        back: address of the page on which people rank; a link to it stands at the top.
    """
    results = phrases.cleaned(results)
    style = html.resource("trueup.pages", "base.css") + html.resource("trueup.pages", "verdict.css")
    style += html.resource("trueup.ranking.results", "page.css")
    return html.render(
        _environment(),
        "page.html.j2",
        style=style,
        r=results,
        back=back,
        t=results.totals,
        head=phrases.headline(results),
        grid=_against(results.samples[0].pairings) if results.samples else {},
        grid_models=results.models[:_GRID],
        reasons=list(dict.fromkeys(reason for row in results.reasons for reason in row.shares)),
        reasoned=[row for row in results.reasons if row.shares],
        groups=sorted({row.group for row in results.ranking}),
        never=Markup('<span class="fine">never</span>'),
        untimed=Absent(why="no vote has a time"),
    )


@cache
def _environment() -> Environment:
    environment = html.environment("trueup.ranking.results")
    environment.globals |= {"numbers": numbers, "phrases": phrases, "strips": strips}
    environment.tests["absent"] = lambda measured: isinstance(measured, Absent)
    environment.filters |= {
        "seconds": phrases.seconds,
        "moment": lambda time: time[:16].replace("T", " ") + " UTC" if time else "",
    }
    return environment


def _against(pairings: Sequence[ModelPairing]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """(row, column) -> share of the row's wins, its interval, and "up", "down" or "" where nothing is shown."""
    made: dict[tuple[str, str], tuple[str, str, str]] = {}
    for one in pairings:
        if isinstance(one.rate, Absent):
            continue
        low, high = one.rate.low or 0.0, one.rate.high if one.rate.high is not None else 1.0
        back = one.rate.model_copy(update={"value": 1 - one.rate.value, "low": 1 - high, "high": 1 - low})
        for key, rate in (((one.model, one.other), one.rate), ((one.other, one.model), back)):
            tone = "" if not rate.shown else "up" if rate.value > 0.5 else "down"
            made[key] = numbers.percent(rate.value), numbers.percent_interval(rate), tone
    return made
