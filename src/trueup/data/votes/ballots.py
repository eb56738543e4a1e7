"""Validation of a ballot (a rater's judgement of one pair) before it is stored as a vote."""

from __future__ import annotations

import math
from dataclasses import replace

from trueup.data.votes.vote_types import CHOICES, MOST_EDIT, MOST_NOTE, STRENGTHS, Ballot
from trueup.errors import DataError
from trueup.system.text import excerpt

_MOST_REQUEST, _MOST_REASON, _MOST_REASONS = 200, 200, 20


def check_ballot(ballot: Ballot) -> Ballot:
    """Validate a ballot and return it as it is stored, with lone surrogates replaced by U+FFFD.

    Raises:
        DataError: the ballot contradicts itself (e.g. a strength given with a tie), or a text in it is too long.
    """
    problem = _problem(ballot) or _too_long(ballot)
    if problem:
        raise DataError(f"the vote on pair {ballot.pair}: {problem}")
    reasons = tuple(map(mend_surrogates, ballot.reasons))
    return replace(ballot, note=mend_surrogates(ballot.note), edit=mend_surrogates(ballot.edit), reasons=reasons)


def check_request(request: str) -> None:
    """Raise DataError unless the id of a request (a vote or an undo) is usable.

    Raises:
        DataError: the id is empty, longer than 200 characters, or holds a lone surrogate.
    """
    if not 0 < len(request) <= _MOST_REQUEST or mend_surrogates(request) != request:
        raise DataError(f"request {excerpt(request)}: 1 to {_MOST_REQUEST} characters\n  fix: a random one each time")


def _problem(ballot: Ballot) -> str:
    preferred = ballot.choice in ("first", "second")
    if ballot.choice not in CHOICES:
        return f"choice is {excerpt(str(ballot.choice))}\n  fix: one of {', '.join(CHOICES)}"
    if ballot.strength is not None and not preferred:
        return f"a strength without a preference ({ballot.choice})\n  fix: leave out the strength"
    if ballot.strength not in (None, *STRENGTHS):
        return f"strength is {ballot.strength}\n  fix: one of 1 (slightly), 2 (clearly), 3 (much)"
    if ballot.edit_of not in (None, "first", "second"):
        return f"edit_of is {excerpt(str(ballot.edit_of))}\n  fix: first or second"
    if ballot.seconds is not None and not (math.isfinite(ballot.seconds) and ballot.seconds >= 0):
        return f"seconds is {ballot.seconds}\n  fix: a number from 0"
    return ""


def _too_long(ballot: Ballot) -> str:
    for name, text, most in (("note", ballot.note, MOST_NOTE), ("edit", ballot.edit, MOST_EDIT)):
        if len(text) > most:
            return f"the {name} has {len(text):,} characters\n  fix: at most {most:,}"
    if len(ballot.reasons) > _MOST_REASONS or any(len(reason) > _MOST_REASON for reason in ballot.reasons):
        return f"too many or too long reasons\n  fix: at most {_MOST_REASONS}, of {_MOST_REASON} characters each"
    return ""


def mend_surrogates(text: str) -> str:
    """Return the text with each lone surrogate, which UTF-8 cannot encode, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
