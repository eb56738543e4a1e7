"""The files that `trueup rank` begins with: prompts to answer, ready pairs, and pairs whose better answer is known."""

from __future__ import annotations

from dataclasses import replace

from trueup.data.rendering.messages import Origin, Prompt
from trueup.data.sources.account import lines
from trueup.data.sources.parser import Parser
from trueup.data.sources.records import Record
from trueup.data.votes.vote_types import NewPair, NewPrompt, Side
from trueup.errors import DataError
from trueup.ranking.exchange.judged import WINNER, said
from trueup.ranking.exchange.reading import SAME, LeftOut, answers_in, counted, mixed, pair_of, records, tags_of
from trueup.system.text import listed, printable


def read_prompts(path: str) -> list[NewPrompt]:
    """Prompts of a file in any format: rows of prompts, conversations or rankings, whose last answers are left out.

    Raises:
        DataError: a row holds no prompt; nothing is passed over.
    """
    parser = Parser("prompt", allow_empty=True)

    def prompt(record: Record) -> NewPrompt:
        _refuse_system_only(record)
        if not parser.started:
            _start(parser, record)
        row = parser.parse(record.origin, dict(record.row), record.notes)
        assert isinstance(row, Prompt)
        return NewPrompt(row.messages, tags_of(record.row), str(record.origin))

    return list(records(path, prompt))


def _start(parser: Parser, record: Record) -> None:
    """Recognise the format; raise DataError where there is none, without the setting `columns`, which is training's."""
    try:
        parser.start(record.origin, dict(record.row))
    except DataError as error:
        problem, _, fix = str(error).rpartition("\n  fix: ")
        raise DataError(f"{problem}\n  fix: {'name the field prompt' if 'set columns' in fix else fix}") from None


def _refuse_system_only(record: Record) -> None:
    """Raise DataError: such a row would be taken for a conversation, whose last message is an assistant's."""
    turns = record.row.get("messages")
    if isinstance(turns, list) and [turn.get("role") for turn in turns if isinstance(turn, dict)] == ["system"]:
        raise record.fail("there is only a system message", "end with a message of the user")


def read_pairs(path: str, gold: bool = False) -> list[NewPair]:
    """Ready pairs: `chosen` and `rejected`, or two answers as `response_a` and `response_b` (`answer_`, `a`, ...).

    Which answer is called first says nothing: a hash of the texts decides.

    Args:
        path: in any form that sources read.
        gold: the better answer is known (chosen, or what `winner` names) and raters are checked by it.

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
    if same:
        fix = f"remove the row{'s' * (len(same) > 1)}"
        raise DataError(f"{printable(path)}: in {counted(len(same), 'pair')} {SAME}: {lines(same)}\n  fix: {fix}")
    if longer:
        raise DataError(
            f"{printable(path)}: answers of more than one message: {lines(longer)}\n"
            "  fix: put the shared messages into the prompt"
        )
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
