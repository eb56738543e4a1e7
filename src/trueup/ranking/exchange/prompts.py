"""The files that `trueup rank` begins with: prompts to answer, ready pairs, and pairs whose better answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from trueup.chat import Origin, Prompt
from trueup.errors import DataError
from trueup.ranking.exchange.judged import WINNER, said
from trueup.ranking.exchange.reading import SAME, LeftOut, answers_in, mixed, pair_of, records, tags_of
from trueup.ranking.store.schema import NewPair, NewPrompt, Side
from trueup.sources import Parser, lines
from trueup.sources.records import Record
from trueup.sources.wording import listed, shown


def read_prompts(path: str) -> list[NewPrompt]:
    """Prompts of a file in any format: rows of prompts, conversations or rankings, whose last answers are left out.

    Raises:
        DataError: a row holds no prompt; nothing is passed over.
    """
    parser = Parser("prompt", allow_empty=True)

    def prompt(record: Record) -> NewPrompt:
        if not parser.started:
            parser.start(record.origin, dict(record.row))
        row = parser.parse(record.origin, dict(record.row), record.notes)
        assert isinstance(row, Prompt)
        return NewPrompt(row.messages, tags_of(record.row), str(record.origin))

    return list(records(path, prompt))


def read_pairs(
    path: str,
    gold: bool = False,
    *,
    identical: Literal["error", "drop"] = "error",
    told: Callable[[str], None] = lambda _: None,
) -> list[NewPair]:
    """Ready pairs: `chosen` and `rejected`, or two answers as `response_a` and `response_b` (`answer_`, `a`, ...).

    Which answer is called first says nothing: a hash of the texts decides.

    Args:
        path: in any form that sources read.
        gold: the better answer is known (chosen, or what `winner` names) and raters are checked by it.
        identical: what to do about pairs whose answers are the same.
        told: called with what is left out.

    Raises:
        DataError: a row holds no pair, or no better answer where one must be known.
    """
    same: list[Origin] = []
    longer: list[Origin] = []

    def pair(record: Record) -> NewPair | None:
        try:
            return mixed(_pair(record, gold=gold))
        except LeftOut as reason:
            (same if str(reason) == SAME else longer).append(record.origin)
            return None

    made = [one for one in records(path, pair) if one is not None]
    if same and identical == "error":
        raise DataError(
            f"{shown(path)}: in {len(same)} pairs {SAME}: {lines(same)}\n  fix: remove them, or have them dropped"
        )
    if longer:
        raise DataError(
            f"{shown(path)}: answers of more than one message: {lines(longer)}\n"
            "  fix: put the shared messages into the prompt"
        )
    if not made:
        raise DataError(f"{shown(path)}: no pair is left: in all {len(same)} {SAME}\n  fix: check how it was made")
    if same:
        told(f"{len(same)} pairs left out: {SAME} ({lines(same)})")
    return made


def _pair(record: Record, *, gold: bool) -> NewPair:
    row = record.row
    if "chosen" in row and "rejected" in row:
        pair = pair_of(record, "chosen", "rejected")
        return replace(pair, gold="first") if gold else pair
    names = answers_in(row)
    if names is None:
        raise record.fail(
            f"no pair of answers in the row, it has: {listed(row)}",
            "name them chosen and rejected, or response_a and response_b",
        )
    pair = pair_of(record, *names)
    return replace(pair, gold=_better(record, names)) if gold else pair


def _better(record: Record, names: tuple[str, str]) -> Side:
    key = next((key for key in WINNER if key in record.row), "winner")
    choice = said(record, key, names)[0]
    if choice in ("first", "second"):
        return choice
    raise record.fail(f"{key} names no better answer", "leave the row out of the gold pairs", str(record.row[key]))
