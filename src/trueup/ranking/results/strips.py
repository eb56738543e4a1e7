"""Intervals drawn on a line: small inline pictures without a library, whose words say the same."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from markupsafe import Markup

from trueup.ranking.results.results_schema import Absent, Measured, ResultsNumber

_LEFT, _RIGHT = 10.0, 250.0
_ROOM = 6.0


def share_strip(one: Measured, words: str, *, safe: Measured | None = None, scale: bool = True) -> Markup:
    """A share from 0 to 1 with a line at one half; nothing where it is not measured.

    Args:
        one: the share.
        words: the same in words.
        safe: another interval, drawn thinner below it.
        scale: write 0, 50% and 100% under the line.
    """
    if isinstance(one, Absent):
        return Markup("")
    bottom = 32 if isinstance(safe, ResultsNumber) else 22
    drawn = f'<path d="M{_LEFT} {bottom}H{_RIGHT}" class="axis"/><path d="M130 4V{bottom}" class="limit"/>'
    drawn += _line(one, 0, 1, 13)
    if isinstance(safe, ResultsNumber):
        drawn += _line(safe, 0, 1, 24, thin=True)
    if scale:
        ends = (("0", 4, "start"), ("50%", 130, "middle"), ("100%", 256, "end"))
        drawn += "".join(f'<text x="{x}" y="{bottom + 14}" text-anchor="{at}">{said}</text>' for said, x, at in ends)
    return _svg(drawn, words, bottom + (18 if scale else 3), shown=one.shown)


def points_strip(one: ResultsNumber, every: Iterable[ResultsNumber], words: str) -> Markup:
    """A strength on the common scale of all, with a line at 0."""
    ends = [end for other in every for end in (other.value, other.low, other.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = (high - low) * 0.04 or 1.0
    zero = _at(0.0, low - room, high + room)
    axis = f'<path d="M{_LEFT} 14H{_RIGHT}" class="axis"/><path d="M{zero} 5v18" class="zero"/>'
    return _svg(axis + _line(one, low - room, high + room, 14), words, 28, shown=True)


def _line(one: ResultsNumber, low: float, high: float, y: int, *, thin: bool = False) -> str:
    """An interval with its value; an open end runs to the edge and ends in an arrow."""
    start = _LEFT if one.low is None else _at(one.low, low, high)
    end = _RIGHT if one.high is None else _at(one.high, low, high)
    arrows = f'<path d="M{_LEFT + _ROOM} {y - 4}l-6 4 6 4" class="arrow"/>' if one.low is None else ""
    arrows += f'<path d="M{_RIGHT - _ROOM} {y - 4}l6 4-6 4" class="arrow"/>' if one.high is None else ""
    if thin:
        return f'<path d="M{start} {y}H{end}M{start} {y - 3}v6M{end} {y - 3}v6" class="thin"/>'
    return (
        f'<path d="M{start} {y}H{end}" class="range"/>{arrows}<circle cx="{_at(one.value, low, high)}" cy="{y}" r="5"/>'
    )


def _at(value: float, low: float, high: float) -> float:
    return round(_LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT), 1)


def _svg(inside: str, words: str, height: int, *, shown: bool) -> Markup:
    said = escape(words)
    return Markup(
        f'<svg class="strip {"pass" if shown else "hollow"}" width="260" height="{height}" viewBox="0 0 260 {height}" '
        f'role="img" aria-label="{said}"><title>{said}</title>{inside}</svg>'
    )
