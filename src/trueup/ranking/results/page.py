"""The results as one self-contained page: no script, nothing from a network, and all that people wrote is escaped.

A server that sends a content security policy of its own must allow `style-src 'unsafe-inline'` for this page.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trueup.ranking.results import strips, words
from trueup.ranking.results.schema import Absent, Pairing, Results

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_GRID = 12
"""Models of which the table of all against all is shown."""
_ICONS = {
    "check": '<circle cx="12" cy="12" r="11" class="fill"/><path d="M6.8 12.6l3.5 3.6 7-7.6" class="cut"/>',
    "question": '<circle cx="12" cy="12" r="10.4" class="ring dashed"/>'
    '<path d="M9 9.6a3 3 0 1 1 4.4 2.6c-1 .5-1.4 1.1-1.4 2.1M12 17.4v.1" class="line"/>',
    "dash": '<circle cx="12" cy="12" r="10.4" class="ring"/><path d="M7.5 12h9" class="line"/>',
}


def page(results: Results, *, back: str = "") -> str:
    """The page, complete, in UTF-8; with a link `back` to where people rank, where it is served beside that."""
    results = words.cleaned(results)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            r=results,
            back=back,
            t=results.totals,
            head=words.headline(results),
            grid=_against(results.samples[0].pairings) if results.samples else {},
            grid_models=results.models[:_GRID],
            reasons=list(dict.fromkeys(reason for one in results.reasons for reason in one.shares)),
            reasoned=[one for one in results.reasons if one.shares],
            groups=sorted({one.group for one in results.ranking}),
            never=Markup('<span class="fine">never</span>'),
            untimed=Absent(why="no vote has a time"),
            policy=POLICY,
            style=Markup(_text("trueup.report", "page.css") + _text("trueup.ranking.results", "page.css")),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("trueup.ranking.results", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"words": words, "strips": strips, "icon": _icon}
    made.tests["absent"] = lambda one: isinstance(one, Absent)
    made.filters |= {
        "count": lambda value: f"{value:,}",
        "seconds": words.seconds,
        "slug": lambda word: word.lower().replace(" ", "-"),
        "moment": lambda at: at[:16].replace("T", " ") + " UTC" if at else "",
    }
    return made


def _icon(word: str) -> Markup:
    """An icon beside a word that says the same; hidden from screen readers."""
    frame = '<svg class="icon" width="24" height="24" viewBox="0 0 24 24" aria-hidden="true" focusable="false">'
    return Markup(f"{frame}{_ICONS[words.SYMBOLS[word]]}</svg>")


def _against(pairings: Sequence[Pairing]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """(row, column) -> share of the row's wins, its interval, and "up", "down" or "" where nothing is shown."""
    made: dict[tuple[str, str], tuple[str, str, str]] = {}
    for one in pairings:
        if isinstance(one.rate, Absent):
            continue
        low, high = one.rate.low or 0.0, one.rate.high if one.rate.high is not None else 1.0
        back = one.rate.model_copy(update={"value": 1 - one.rate.value, "low": 1 - high, "high": 1 - low})
        for key, rate in (((one.model, one.other), one.rate), ((one.other, one.model), back)):
            tone = "" if not rate.shown else "up" if rate.value > 0.5 else "down"
            made[key] = words.percent(rate.value), words.interval(rate), tone
    return made


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
