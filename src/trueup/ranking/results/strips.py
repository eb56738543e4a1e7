"""Intervals drawn on a line, as small inline SVG images with a text alternative."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from markupsafe import Markup

from trueup.ranking.results.results_schema import Absent, Measured, ResultsNumber

_LEFT, _RIGHT = 10.0, 250.0
_ARROW = 6.0


def share_strip(share: Measured, words: str, *, safe: Measured | None = None, scale: bool = True) -> Markup:
    """Return the image of a share from 0 to 1 with a line at one half; empty if the share was not measured.

    Args:
        share: the share with its interval, or the reason why it was not measured.
        words: the text alternative of the image.
        safe: another interval, drawn thinner below it.
        scale: label the line with 0, 50% and 100%.
    """
    if isinstance(share, Absent):
        return Markup("")
    bottom = 32 if isinstance(safe, ResultsNumber) else 22
    image = f'<path d="M{_LEFT} {bottom}H{_RIGHT}" class="axis"/><path d="M130 4V{bottom}" class="limit"/>'
    image += _line(share, 0, 1, 13)
    if isinstance(safe, ResultsNumber):
        image += _line(safe, 0, 1, 24, thin=True)
    if scale:
        ends = (("0", 4, "start"), ("50%", 130, "middle"), ("100%", 256, "end"))
        image += "".join(f'<text x="{x}" y="{bottom + 14}" text-anchor="{a}">{label}</text>' for label, x, a in ends)
    return _svg(image, words, bottom + (18 if scale else 3), shown=share.shown)


def points_strip(points: ResultsNumber, group: Iterable[ResultsNumber], words: str) -> Markup:
    """Return the image of a model's strength in Elo points, on the common scale of its group, with a line at 0."""
    ends = [end for number in group for end in (number.value, number.low, number.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = (high - low) * 0.04 or 1.0
    low, high = low - margin, high + margin
    zero = _x(0.0, low, high)
    axis = f'<path d="M{_LEFT} 14H{_RIGHT}" class="axis"/><path d="M{zero} 5v18" class="zero"/>'
    return _svg(axis + _line(points, low, high, 14), words, 28, shown=True)


def _line(number: ResultsNumber, low: float, high: float, y: int, *, thin: bool = False) -> str:
    """Return the SVG of an interval at height `y`, with a dot at its value.

    `low` and `high` are the ends of the scale; an open end of the interval runs to the edge and ends in an arrow.
    """
    start = _LEFT if number.low is None else _x(number.low, low, high)
    end = _RIGHT if number.high is None else _x(number.high, low, high)
    arrows = f'<path d="M{_LEFT + _ARROW} {y - 4}l-6 4 6 4" class="arrow"/>' if number.low is None else ""
    arrows += f'<path d="M{_RIGHT - _ARROW} {y - 4}l6 4-6 4" class="arrow"/>' if number.high is None else ""
    if thin:
        return f'<path d="M{start} {y}H{end}M{start} {y - 3}v6M{end} {y - 3}v6" class="thin"/>'
    x = _x(number.value, low, high)
    return f'<path d="M{start} {y}H{end}" class="range"/>{arrows}<circle cx="{x}" cy="{y}" r="5"/>'


def _x(value: float, low: float, high: float) -> float:
    return round(_LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT), 1)


def _svg(inside: str, words: str, height: int, *, shown: bool) -> Markup:
    label = escape(words)
    return Markup(
        f'<svg class="strip {"pass" if shown else "hollow"}" width="260" height="{height}" viewBox="0 0 260 {height}" '
        f'role="img" aria-label="{label}"><title>{label}</title>{inside}</svg>'
    )
