"""Draw the verdict as a badge, badge.svg, for a README or a pull request."""

from __future__ import annotations

from markupsafe import escape

from trueup.pages.text import one_line
from trueup.report.report_schema import Report, VerdictWord

LABEL_COLOUR, TEXT_COLOUR = "#3d444d", "#ffffff"
COLOURS: dict[VerdictWord, str] = {
    "SHIP": "#1a7f37", "HOLD": "#b42318", "NOT SHOWN": "#8a5a00", "NOT JUDGED": "#57606a"
}  # fmt: skip
"""Verdict -> background. White text on each has a contrast above 4.5 to 1 (WCAG 2, AA)."""
_LABEL = "trueup"
_LETTER, _PADDING, _HEIGHT = 7, 8, 20


def badge(report: Report) -> str:
    """Return the badge as an SVG image: the word of the verdict, and the model it is about as its title."""
    word = report.verdict.verdict
    left, right = (len(text) * _LETTER + 2 * _PADDING for text in (_LABEL, word))
    about = " ".join(text for text in (word, report.verdict.model) if text)
    title = escape(one_line(f"{_LABEL}: {about}"))
    texts = "".join(
        f'<text x="{start + width / 2:g}" y="14" textLength="{len(text) * _LETTER}">{escape(text)}</text>'
        for text, start, width in ((_LABEL, 0, left), (word, left, right))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="{_HEIGHT}" rx="3"/></clipPath><g clip-path="url(#r)">'
        f'<rect width="{left}" height="{_HEIGHT}" fill="{LABEL_COLOUR}"/>'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{COLOURS[word]}"/></g>'
        f'<g fill="{TEXT_COLOUR}" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" font-weight="bold" '
        f'text-anchor="middle">{texts}</g></svg>\n'
    )
