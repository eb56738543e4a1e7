"""A vote store as a data source: it gives one row for each pair that its raters decided, as of one event.

The place of a row is the store's file and the number of the pair: votes.db:17.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trueup.data.rendering.messages import Origin
from trueup.data.sources.account import Drop
from trueup.data.sources.decoding import Entry
from trueup.data.votes.header import is_store
from trueup.data.votes.rows import NO_ROW_REASONS, VoteOutcome, outcome_row, resolve_event, vote_outcomes
from trueup.errors import DataError, MissingExtraError
from trueup.system.commandline import install_command
from trueup.system.text import printable

if TYPE_CHECKING:
    from trueup.data.votes.store import Store

SUFFIXES = (".db", ".sqlite", ".sqlite3")
FIELDS = ("prompt", "chosen", "rejected", "margin")
"""Fields of a row that training reads; who voted when stays in the store."""


def looks_like_store(path: Path) -> bool:
    """Return True if a file is a vote store by its suffix (.db, .sqlite, .sqlite3) or its first bytes."""
    return path.suffix.lower() in SUFFIXES or is_store(path)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A vote store as of one event: later votes are ignored, so that every reading gives the same rows.

    Attributes:
        spec: the source as the configuration names it.
        path: the store's file.
        event: the number of the last event (vote, undo or change of settings) that counts.
        rows: the number of decided pairs.
        margins: True if every decided pair has votes with a strength, so that rows have a margin.
        version: a hash of the rows and of the pairs left out.
        left_out: pairs that were voted on but not decided, each with the reason.
    """

    spec: str
    path: Path
    event: int
    rows: int
    margins: bool
    version: str
    left_out: tuple[Drop, ...]

    def entries(self) -> Iterator[Entry]:
        """Yield the entry (place and fields) of each decided pair, in the order of the pairs."""
        with _opened(self.spec, self.path) as store:
            for outcome in vote_outcomes(store, self.event):
                if outcome.winner is not None:
                    yield _entry(self.path, outcome, margin=self.margins)


def snapshot(spec: str, path: Path, event: int | None) -> Snapshot:
    """Read a vote store as of event number `event`, or as it is now (None).

    Raises:
        DataError: the file is not a vote store, has no such event, or no pair was decided by then.
        MissingExtraError: the package that reads a store is not installed.
    """
    with _opened(spec, path) as store:
        last = resolve_event(store, event)
        results = list(vote_outcomes(store, last))
        waiting = len(store.pairs()) if not results else 0
    ranked = [outcome for outcome in results if outcome.winner is not None]
    left_out = tuple(
        Drop(Origin(printable(path), outcome.pair.id), NO_ROW_REASONS[outcome.reason])
        for outcome in results
        if outcome.reason is not None
    )
    if not ranked:
        raise _undecided(spec, path, [drop.reason for drop in left_out], waiting)
    margins = all(outcome.strength is not None for outcome in ranked)
    digest = hashlib.sha256()
    for outcome in ranked:
        origin, row = _entry(path, outcome, margin=margins)
        digest.update(json.dumps([origin.line, row]).encode() + b"\n")
    digest.update(json.dumps([[drop.origin.line, drop.reason] for drop in left_out]).encode())
    return Snapshot(spec, path, last, len(ranked), margins, digest.hexdigest(), left_out)


def _entry(path: Path, outcome: VoteOutcome, *, margin: bool) -> tuple[Origin, dict[str, object]]:
    row = outcome_row(outcome, margin=margin)
    return Origin(printable(path), outcome.pair.id), {key: row[key] for key in FIELDS if key in row}


def last_event(spec: str, path: Path) -> int:
    """Return the number of the last event (vote, undo or change of settings) in a vote store.

    Raises:
        DataError: the file is not a vote store.
        MissingExtraError: the package that reads a store is not installed.
    """
    with _opened(spec, path) as store:
        return store.last_event()


@contextmanager
def _opened(spec: str, path: Path) -> Iterator[Store]:
    try:
        from trueup.data.votes.store import Store  # here, because it takes a tenth of a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        needs = f"a store of rankings needs the extra rank: {install_command('rank')}"
        raise MissingExtraError(f"{printable(spec)}: {needs}") from error
    with Store.open(path, read_only=True) as store:
        yield store


def _undecided(spec: str, path: Path, reasons: list[str], waiting: int) -> DataError:
    """Return the error for a vote store in which no pair is decided.

    `reasons` holds the reason for each pair with votes; `waiting` is the number of pairs if none has votes.
    """
    name = printable(path)
    more = f"rank some: trueup rank {name}; or import some: trueup rank import {name} rankings.jsonl"
    if not reasons:
        return DataError(f"{printable(spec)}: nobody has voted on its {waiting} pairs yet\n  fix: {more}")
    counted = ", ".join(f"{count} {why}" for why, count in Counter(reasons).most_common())
    pairs = f"{len(reasons)} pairs were" if len(reasons) > 1 else "1 pair was"
    return DataError(f"{printable(spec)}: {pairs} voted on and none decided: {counted}\n  fix: {more}")
