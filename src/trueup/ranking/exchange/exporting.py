"""Export a store's votes as JSONL rows of rankings or verdicts, each with the pair, models and votes behind it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trueup.chat.saved import as_line
from trueup.data.votes.header import is_store
from trueup.data.votes.rows import (
    RankingRow,
    VoteOutcome,
    VoteSelection,
    message_dicts,
    other_side,
    outcome_row,
    pair_details,
    resolve_event,
    vote_outcomes,
    vote_row,
)
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Pair, Side, Vote
from trueup.errors import DataError
from trueup.ranking.exchange.reading import counted
from trueup.system.files import atomic_write_bytes, split_event
from trueup.system.text import home_path, printable

Form = Literal["rankings", "verdicts"]
_SIDES: dict[Side, str] = {"first": "first", "second": "second"}


@dataclass(frozen=True, slots=True)
class Exported:
    """Counts of an export, for a person to read. `pairs` sums to the pairs with votes, `votes` to all votes.

    Attributes:
        path: the file of rows; not written if there are none.
        event: the store's last event that counts.
        rows: lines of the file.
        pairs: number of pairs (with votes="every": of votes) by outcome: "ranked", or the reason why not.
        votes: number of votes by the same outcomes.
        edits: edited answers, written to a separate file if there are any; None if not asked for.
    """

    path: str
    event: int
    rows: int
    pairs: Mapping[str, int]
    votes: Mapping[str, int]
    edits: int | None = None

    def __str__(self) -> str:
        """Return the counts as lines of text for a person: rows written, pairs by outcome, edited answers."""
        units, votes = sum(self.pairs.values()), sum(self.votes.values())
        unranked = [f"{count} {why}" for why, count in self.pairs.items() if why != "ranked"]
        summary = f"{printable(self.path)}: {counted(self.rows, 'row')} of {counted(votes, 'vote')}"
        summary += f" on {counted(units, 'pair')}" if units != votes else ""
        summary += "" if self.rows else ", so it was not written"
        lines = [summary, "  " + f"{units} = " + " + ".join([f"{self.pairs.get('ranked', 0)} ranked", *unranked])]
        if self.edits is not None:
            lines.append(f"  {counted(self.edits, 'edited answer')}" + " in a file of their own" * bool(self.edits))
        return "\n".join([*lines, f"  as of event {self.event}"])


def export(
    store_path: str | Path, out: str | Path, *, votes: VoteSelection = "majority", form: Form = "rankings",
    edits: str | Path | None = None, margin: bool = False, gold: bool = False, force: bool = False,
) -> Exported:  # fmt: skip
    """Write a store's votes as JSON lines that `trueup check` and every stage read.

    Args:
        store_path: the store, or votes.db@1200: as it stood at that event.
        out: the file. An existing file is replaced if all of it came from this store, else only with `force`.
        votes: a row for each pair by the majority of its raters, or a row for each vote.
        form: rankings {prompt, chosen, rejected}; or verdicts {prompt, completion, label} for KTO, two for each pair:
            true for the better answer and false for the other, false for both if both are bad.
        edits: file for the better answers that raters wrote, as conversations for SFT; on gold pairs only with `gold`.
        margin: give each ranking its `margin`, the mean strength of the votes for chosen.
        gold: include gold pairs, which check raters.
        force: replace files that came from elsewhere.

    Raises:
        DataError: there is nothing to write, a ranking has no strength for its margin, or a file may not be replaced;
            nothing is written then.
        MissingExtraError: SQLAlchemy is not installed.
    """
    name, event = split_event(str(store_path))
    with Store.open(home_path(name), read_only=True) as store:
        last_event = resolve_event(store, event)
        outcomes = list(vote_outcomes(store, last_event, votes, gold=gold))
        pairs = {pair.id: pair for pair in store.pairs()}
        edited = [
            vote for vote in store.votes(last_event) if vote.ballot.edit and (gold or not pairs[vote.ballot.pair].gold)
        ]
    ranked = [row for outcome in outcomes for row in _rows(outcome, form, margin=margin)]
    if not ranked and (edits is None or not edited):
        raise _nothing(name, outcomes, edits=edits is not None)
    if margin:
        _refuse_without_strength(name, outcomes)
    files = {_checked(Path(out), pairs, force=force): ranked}
    if edits is not None:
        files[_checked(Path(edits), pairs, force=force)] = [_edit(pairs[vote.ballot.pair], vote) for vote in edited]
        if len(files) == 1:
            raise DataError(f"{printable(str(edits))}: rankings and edits in one file\n  fix: name another")
    for path, rows in files.items():
        if rows:  # an empty file would be no data to any stage
            _write(path, rows)
    by_pair, by_vote = Counter[str](), Counter[str]()
    for outcome in outcomes:
        by_pair[outcome.reason or "ranked"] += 1
        by_vote[outcome.reason or "ranked"] += len(outcome.votes)
    return Exported(str(out), last_event, len(ranked), by_pair, by_vote, None if edits is None else len(edited))


def _nothing(name: str, outcomes: Sequence[VoteOutcome], *, edits: bool) -> DataError:
    units, also = len({outcome.pair.id for outcome in outcomes}), " and no edited answer" * edits
    return DataError(
        f"{printable(name)}: none of {counted(units, 'pair')} with votes is decided: no row{also} to write\n"
        f"  fix: collect more votes: trueup rank {printable(name)}"
    )


def _rows(outcome: VoteOutcome, form: Form, *, margin: bool) -> Iterator[RankingRow]:
    if form == "verdicts":
        yield from _verdicts(outcome)
    elif outcome.winner is not None:
        yield outcome_row(outcome, margin=margin)


def _verdicts(outcome: VoteOutcome) -> Iterator[RankingRow]:
    """Yield a row {prompt, completion, label} for each answer of a pair that is decided or whose answers are both bad.

    In the row's `votes` and details of the pair, its own answer is called "this" and the pair's other answer "other".
    """
    if outcome.winner is None and outcome.reason != "both bad":
        return
    sides: tuple[Side, Side] = ("first", "second")
    for side in sides:
        names: dict[Side, str] = {side: "this", other_side(side): "other"}
        yield {
            "prompt": message_dicts(outcome.pair.prompt.messages),
            "completion": [{"role": "assistant", "content": outcome.pair.answer(side).text}],
            "label": side == outcome.winner,
            **pair_details(outcome.pair, names),
            "votes": [vote_row(vote, names) for vote in outcome.votes],
        }


def _edit(pair: Pair, vote: Vote) -> RankingRow:
    """Return the row of a better answer that a rater wrote: a conversation for SFT, with the pair and the vote."""
    edited: Side | None = vote.ballot.edit_of
    return {
        "messages": [*message_dicts(pair.prompt.messages), {"role": "assistant", "content": vote.ballot.edit}],
        "edit_of": None if edited is None else pair.answer(edited).text,
        **pair_details(pair, _SIDES),
        "votes": [vote_row(vote, _SIDES)],
    }


def _refuse_without_strength(name: str, outcomes: Sequence[VoteOutcome]) -> None:
    ranked = [outcome for outcome in outcomes if outcome.winner is not None]
    bare = [outcome.pair.id for outcome in ranked if outcome.strength is None]
    if bare:
        raise DataError(
            f"{printable(name)}: {len(bare)} of {len(ranked)} rankings have no strength, first that of pair {bare[0]}\n"
            "  fix: export without margins"
        )


def _checked(path: Path, pairs: Mapping[int, Pair], *, force: bool) -> Path:
    """Return the path of a file to be written, with `~` and links resolved.

    Raises:
        DataError: the file may not be written: it does not end in .jsonl, is a store, or has rows that this store
            did not export.
    """
    name, path = printable(path), home_path(path)
    path = path.resolve()  # a link stays a link
    if path.suffix != ".jsonl":
        raise DataError(f"{name}: rows are written as JSON lines\n  fix: end the name in .jsonl")
    if not path.exists():
        return path
    if is_store(path):
        raise DataError(f"{name}: is a store of rankings and is never replaced\n  fix: name another file")
    if not path.is_file():
        raise DataError(f"{name}: is not a file\n  fix: name another")
    if not force and not _all_ours(path, pairs):
        raise DataError(
            f"{name}: exists, and not all of it came from this store, so it would be lost\n"
            "  fix: name another file, or replace it with --force"
        )
    return path


def _all_ours(path: Path, pairs: Mapping[int, Pair]) -> bool:
    """Return True if every line of a file is an unchanged export of one of `pairs`, so it may be replaced."""
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        return all(_ours(row, pairs) for row in rows)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return False


_KEYS = {"prompt", "chosen", "rejected", "completion", "label", "margin", "messages", "edit_of"}


def _ours(row: dict[str, Any], pairs: Mapping[int, Pair]) -> bool:
    pair = pairs.get(row["pair"])
    if pair is None or not isinstance(row["votes"], list) or set(row) - _KEYS - {*pair_details(pair, _SIDES), "votes"}:
        return False
    prompt, texts = message_dicts(pair.prompt.messages), {pair.first.text, pair.second.text}
    if "messages" in row:  # the edit itself is in the store for good, as every vote is
        return row["messages"][:-1] == prompt
    answers = [row[key][-1]["content"] for key in ("chosen", "rejected", "completion") if key in row]
    return row["prompt"] == prompt and set(answers) <= texts


def _write(path: Path, rows: Sequence[RankingRow]) -> None:
    mode = path.stat().st_mode if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, b"".join(as_line(row) + b"\n" for row in rows))
        if mode is not None:
            path.chmod(mode)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{printable(path)}: cannot be written: {reason}\n  fix: name another file") from error
