"""Read the files to rank: prompts to answer, pairs of answers, and gold pairs with a known better answer."""

from __future__ import annotations

from dataclasses import replace

from trueup.data.rendering.messages import Origin, Prompt
from trueup.data.sources.account import lines
from trueup.data.sources.parser import Parser
from trueup.data.sources.records import Record
from trueup.data.sources.schemas import WINNER, answers_in
from trueup.data.votes.vote_types import NewPair, NewPrompt, Side
from trueup.errors import DataError
from trueup.ranking.exchange.reading import (
    SAME,
    SkipRecordError,
    counted,
    in_neutral_order,
    pair_of,
    read_records,
    tags_of,
)
from trueup.ranking.exchange.vote_formats import read_choice
from trueup.system.text import listed, printable


def read_prompts(path: str) -> list[NewPrompt]:
    """Read the prompts for which answers are to be written and ranked.

    The file may hold prompts, conversations or rankings; of conversations and rankings the last answers are dropped.

    Raises:
        DataError: a row holds no prompt; no row is skipped.
    """
    parser = Parser("prompt", allow_empty=True)

    def prompt(record: Record) -> NewPrompt:
        _refuse_system_only(record)
        if not parser.started:
            _start(parser, record)
        row = parser.parse(record.origin, dict(record.row), record.notes).rows[0]
        assert isinstance(row, Prompt)
        return NewPrompt(row.messages, tags_of(record.row), str(record.origin))

    return list(read_records(path, prompt))


def _start(parser: Parser, record: Record) -> None:
    """Recognise the row format of a file from its first record.

    Raises:
        DataError: the format is not known. The advice leaves out `columns`, a setting that only training has.
    """
    try:
        parser.start(record.origin, dict(record.row))
    except DataError as error:
        problem, _, fix = str(error).rpartition("\n  fix: ")
        raise DataError(f"{problem}\n  fix: {'name the field prompt' if 'set columns' in fix else fix}") from None


def _refuse_system_only(record: Record) -> None:
    """Raise DataError for a row with only a system message, which would be taken for a conversation with an answer."""
    turns = record.row.get("messages")
    if isinstance(turns, list) and [turn.get("role") for turn in turns if isinstance(turn, dict)] == ["system"]:
        raise record.fail("the prompt is only a system message", "end with a message of the user")


def read_pairs(path: str, gold: bool = False) -> list[NewPair]:
    """Return the pairs of answers in a file, one a row.

    The answers are `chosen` and `rejected`, or `response_a` and `response_b` (`answer_a` and `answer_b`, `a` and `b`,
    ...).

    Which answer is first does not depend on which is better: a hash of the texts decides.

    Args:
        path: a file in any form that sources read.
        gold: the better answer (chosen, or what `winner` names) is known, and raters are checked by it.

    Raises:
        DataError: a row holds no pair, or a gold row no better answer.
    """
    same: list[Origin] = []
    longer: list[Origin] = []

    def make_pair(record: Record) -> NewPair | None:
        try:
            return in_neutral_order(_pair(record, gold=gold))
        except SkipRecordError as reason:
            (same if str(reason) == SAME else longer).append(record.origin)
            return None

    pairs = [pair for pair in read_records(path, make_pair) if pair is not None]
    if same:
        fix = f"remove the row{'s' * (len(same) > 1)}"
        raise DataError(f"{printable(path)}: in {counted(len(same), 'pair')} {SAME}: {lines(same)}\n  fix: {fix}")
    if longer:
        raise DataError(
            f"{printable(path)}: answers of more than one message: {lines(longer)}\n"
            "  fix: put the shared messages into the prompt"
        )
    return pairs


def _pair(record: Record, *, gold: bool) -> NewPair:
    row = record.row
    if "chosen" in row and "rejected" in row:
        pair = pair_of(record, "chosen", "rejected")
        return replace(pair, gold="first") if gold else pair
    names = answers_in(row)
    if names is None:
        raise record.fail(
            f"the row holds no pair of answers; its fields: {listed(row)}",
            "name them chosen and rejected, or response_a and response_b",
        )
    pair = pair_of(record, *names)
    return replace(pair, gold=_better(record, names)) if gold else pair


def _better(record: Record, names: tuple[str, str]) -> Side:
    key = next((key for key in WINNER if key in record.row), "winner")
    choice = read_choice(record, key, names)[0]
    if choice in ("first", "second"):
        return choice
    raise record.fail(f"{key} names no better answer", "leave the row out of the gold pairs", str(record.row[key]))
