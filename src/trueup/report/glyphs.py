"""Small inline SVGs: the line and marker of a model, and a gate's interval with its limit."""

from __future__ import annotations

from html import escape

from markupsafe import Markup

from trueup.pages.numbers import estimate, plain
from trueup.pages.text import one_line
from trueup.report.drawing import Look, finite
from trueup.report.report_schema import GateResult

_SHAPES = [
    '<circle cx="13" cy="7" r="4.2"/>',
    '<path d="M9.2 3.2h7.6v7.6h-7.6z"/>',
    '<path d="M13 2l5 9H8z"/>',
    '<path d="M13 1.6L18.4 7 13 12.4 7.6 7z"/>',
    '<path d="M13 12l5-9H8z"/>',
    '<path d="M11.4 2h3.2v3.4H18v3.2h-3.4V12h-3.2V8.6H8V5.4h3.4z"/>',
    '<path d="M9.8 1.8L13 5l3.2-3.2 2 2L15 7l3.2 3.2-2 2L13 9l-3.2 3.2-2-2L11 7 7.8 3.8z"/>',
    '<path d="M13 1.8l5 3.7-1.9 6H9.9l-1.9-6z"/>',
]


def glyph(look: Look) -> Markup:
    """Return a small SVG of a model's line and marker as they are in the pictures, for legends and tables."""
    dashes = " ".join(f"{part:g}" for part in look.dashes[1])
    index = look.index
    style = f"--this:var(--m{index % 8})"
    return Markup(
        f'<svg class="glyph" width="26" height="14" viewBox="0 0 26 14" style="{style}" aria-hidden="true" '
        f'focusable="false"><path d="M1 7h24" class="stroke" stroke-dasharray="{dashes or "none"}"/>'
        f"{_SHAPES[index % len(_SHAPES)]}</svg>"
    )


_LEFT, _RIGHT, _Y = 8.0, 252.0, 15.0


def strip(gate: GateResult) -> Markup:
    """Return a small SVG of a gate's interval on a line with its limit and zero; "" if the interval is not finite."""
    measured = gate.estimate
    if measured is None or not finite(measured.value, measured.low, measured.high, gate.bound):
        return Markup("")
    ends = (min(0.0, measured.low, gate.bound), max(0.0, measured.high, gate.bound))
    room = (ends[1] - ends[0]) * 0.06 or 1.0
    low, high = ends[0] - room, ends[1] + room

    def at(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT), 1)

    words = escape(f"{one_line(gate.title)}: {estimate(measured)}, limit {plain(gate.bound)}: {gate.outcome}")
    zero = "" if abs(at(0) - at(gate.bound)) < 1 else f'<path d="M{at(0)} 8v14" class="zero"/>'
    hollow = "" if gate.outcome in ("pass", "fail") else " hollow"
    return Markup(
        f'<svg class="strip {gate.outcome.replace(" ", "-")}{hollow}" width="260" height="44" viewBox="0 0 260 44" '
        f'role="img" aria-label="{words}"><title>{words}</title><path d="M{_LEFT} {_Y}H{_RIGHT}" class="axis"/>{zero}'
        f'<path d="M{at(gate.bound)} 2v26" class="limit"/>'
        f'<path d="M{at(measured.low)} {_Y}H{at(measured.high)}" class="range"/>'
        f'<circle cx="{at(measured.value)}" cy="{_Y}" r="5"/>{_labels(at(gate.bound), at(0), gate.bound)}</svg>'
    )


def _labels(limit: float, zero: float, value: float) -> str:
    """Return the SVG texts under the line of a gate: its limit, kept inside the picture, and 0 where there is room.

    `limit` and `zero` are places on the line in units of the picture; `value` is the limit itself.
    """
    text = f"limit {plain(value)}"
    half = len(text) * 3.6
    middle = min(max(limit, half), 260 - half)
    named = f'<text x="{middle:.1f}" y="40" text-anchor="middle">{text}</text>'
    if abs(middle - zero) < half + 12:
        return named
    return named + f'<text x="{zero}" y="40" text-anchor="middle">0</text>'
