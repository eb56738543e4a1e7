"""Texts of the mask view that terminal and page share: headings, totals, and text with invisible characters marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from trueup.pages.numbers import count, part_of
from trueup.preflight.show.mask_view import FAULTS, SCORE_FAULT, Fault, Segment, TokenRow, View
from trueup.system.text import clean

Kind = Literal["text", "newline", "tab", "space"]
_PARTS = re.compile(r"(?P<newline>\n)|(?P<tab>\t)|(?P<space> +(?=\n|$))|(?P<text>[^\n\t ]+| +)")
_PLACES = 3  # rows named of those that share a fault

_LEADS = {
    "text": "Trained is all of a document and its end token, each token predicted from those before it.",
    "sft": "Trained is what the assistant writes, each token predicted from those before it; the rest is only read.",
    "reward": "A reward model gives each answer one score, read at its last token: that score is what trains. "
    "No other token carries a loss.",
    "dpo": "Trained are the answers, by the probability the model gives their tokens; the prompt is only read.",
    "ppo": "The model writes the answers itself; what it writes is trained, the prompt is only read.",
}


def parts(text: str) -> Iterator[tuple[Kind, str]]:
    """Yield the parts of a text as (kind, part), so that new lines, tabs and trailing spaces can be shown as signs.

    The rest is of the kind "text", with its control characters escaped.
    """
    for match in _PARTS.finditer(text):
        kind = match.lastgroup
        assert kind in ("text", "newline", "tab", "space")
        yield kind, clean(match[0], one_line=True) if kind == "text" else match[0]


def lead(view: View) -> str:
    """Return the introduction of the view: one or two sentences on which tokens train with this method."""
    return _LEADS["text" if list(view.totals.ends) == ["document"] else view.method]


def title(view: View) -> str:
    """Return the title of the view, such as `dpo: the first 3 of 120 rows as they train`."""
    shown, rows = len({row.number for row in view.rows}), view.totals.rows
    if rows == 1:
        return f"{view.method}: the one row as it trains"
    which = f"all {shown:,}" if shown == rows else f"the first {shown:,} of {rows:,}"
    return f"{view.method}: {which} rows as they train"


def row_title(row: TokenRow) -> str:
    """Return the heading of a row, such as `row 1, the chosen answer: pairs.jsonl:12`."""
    side = f", the {row.side} answer" if row.side else ""
    return f"row {row.number}{side}" + (f": {clean(row.origin, one_line=True)}" if row.origin else "")


def row_size(row: TokenRow, view: View) -> str:
    """Return the size of a row, such as `81 tokens, padded to 96; 39 trained (48.1%)`."""
    tokens = len(row.tokens)
    padded = "" if tokens == row.width else f", padded to {row.width:,}"
    if view.method == "reward":
        return f"{count(tokens, 'token')}{padded}; {count(row.trained, 'score')}"
    return f"{count(tokens, 'token')}{padded}; {row.trained:,} trained ({part_of(row.trained, tokens)})"


def segment_size(segment: Segment, view: View) -> str:
    """Return the size of a segment, such as `positions 42-58 (restart), 17 tokens, all trained`."""
    first, last = segment.positions
    place = f"position {first}" if first == last else f"positions {first}-{last}"
    tokens, trained = len(segment.tokens), segment.trained
    if view.method == "reward":
        use = "scored at its last token" if trained else "only read"
    else:
        use = f"{'none' if not trained else 'all' if trained == tokens else f'{trained:,}'} trained"
    return f"{place}{' (restart)' if segment.restarts else ''}, {count(tokens, 'token')}, {use}"


def sums(view: View) -> list[tuple[str, str]]:
    """Return the totals over all rows as lines of (label, text)."""
    totals = view.totals
    trained = f"{totals.trained:,} trained ({part_of(totals.trained, totals.tokens)})"
    if view.method == "reward":
        trained = f"{count(totals.trained, 'score')}, one an answer"
    lines = [
        ("data", f"{count(totals.rows, 'row')}, {count(totals.tokens, 'token')}, {trained}"),
        ("score" if view.method == "reward" else "end token", _ends(view)),
        ("longest", f"{count(totals.longest, 'token')}: {clean(totals.longest_at, one_line=True)}"),
    ]
    if "rejected" in totals.ends:
        rows = f"{totals.sharing:,} of {count(totals.rows, 'row')}"
        once = (
            f"runs once for both answers in {rows}" if totals.sharing else "no: each answer has a row with its own copy"
        )
        lines.append(("shared prompt", once))
    shapes = ", ".join(f"{rows:,} x {width:,} tokens" for rows, width in view.shapes)
    name = "one micro-batch" if len(view.shapes) == 1 else f"{len(view.shapes)} micro-batches"
    return [*lines, ("padding", f"{view.padding:.1%} of the rows shown ({name}: {shapes})")]


def _ends(view: View) -> str:
    totals = view.totals
    verb = {"reward": "read at the end token", "ppo": "written and trained"}.get(view.method, "trained")
    if not totals.answered:
        return "no answer is there yet: the model writes them, with or without an end token"
    whole = f"{verb} in {totals.end_rows:,} of {count(totals.answered, 'row')}"
    by_side = ", ".join(f"{side} {trained:,} of {answers:,}" for side, (trained, answers) in totals.ends.items())
    return f"{whole}: {by_side}" if len(totals.ends) > 1 else whole


def fault_lines(view: View) -> list[str]:
    """Return a line for each fault of the data, with the places of the first rows that have it."""
    lines: list[str] = []
    for fault, places in view.totals.faults.items():
        more = f" and {len(places) - _PLACES:,} more" if len(places) > _PLACES else ""
        first = ", ".join(clean(place, one_line=True) for place in places[:_PLACES])
        lines.append(f"{len(places):,} of {count(view.totals.rows, 'row')}: {_fault(fault, view)} ({first}{more})")
    return lines


def _fault(fault: Fault, view: View) -> str:
    return SCORE_FAULT if view.method == "reward" and fault != "bos twice" else FAULTS[fault]
