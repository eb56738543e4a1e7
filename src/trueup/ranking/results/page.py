"""The results as one self-contained HTML page without scripts or network access; all text from people is escaped.

A server that sends its own content security policy must allow `style-src 'unsafe-inline'` for this page.
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
"""Models shown in the table of all against all, at most."""


def page(results: Results, *, back: str = "") -> str:
    """Return the complete page, to be sent or written as UTF-8.

    Args:
        results: from `view`.
        back: address of the ranking page, linked at the top.
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
        grid=_grid(results.samples[0].pairings) if results.samples else {},
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


def _grid(pairings: Sequence[ModelPairing]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Return (row model, column model) -> (win rate of the row model, its interval, tone).

    The tone is "up" or "down" if the win rate is shown to be above or below one half, else "".
    """
    cells: dict[tuple[str, str], tuple[str, str, str]] = {}
    for pairing in pairings:
        rate = pairing.rate
        if isinstance(rate, Absent):
            continue
        low, high = rate.low or 0.0, rate.high if rate.high is not None else 1.0
        reverse = rate.model_copy(update={"value": 1 - rate.value, "low": 1 - high, "high": 1 - low})
        for key, share in (((pairing.model, pairing.other), rate), ((pairing.other, pairing.model), reverse)):
            tone = "" if not share.shown else "up" if share.value > 0.5 else "down"
            cells[key] = numbers.percent(share.value), numbers.percent_interval(share), tone
    return cells
