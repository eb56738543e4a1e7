"""Import rankings of other tools, our own exports or other stores into a store of votes: all of a file, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trueup.data.rendering.messages import Origin
from trueup.data.sources.account import lines
from trueup.data.sources.records import Record
from trueup.data.votes.header import is_store
from trueup.data.votes.importing import ImportedVote
from trueup.data.votes.raters import normalize_name
from trueup.data.votes.rows import other_side
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import MOST_NAME, Answer, Ballot, Choice, NewPair, NewPrompt, Pair, Side
from trueup.errors import DataError
from trueup.ranking.exchange.reading import (
    SkipRecordError,
    count_empty_messages,
    counted,
    empty_message_note,
    in_neutral_order,
    read_records,
)
from trueup.ranking.exchange.vote_formats import PairVote, votes_in
from trueup.system.text import printable

PairKey = tuple[object, frozenset[tuple[str, str]]]
"""Identity of a pair, whichever answer is first."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Counts of an import, for a person to read. rows == judged + left out, and votes == new + known + replaced.

    Attributes:
        path: the file.
        rows: rows read.
        judged: rows that hold a vote.
        left_out: the origins of the other rows, by reason.
        votes: votes in the judged rows.
        new: votes entered into the store.
        known: votes that the store had, or that the file repeats.
        replaced: votes that a later row of the same rater replaces.
        pairs: number of pairs with a vote.
        raters: number of raters.
        empty: number of empty messages in these pairs.
    """

    path: str
    rows: int
    judged: int
    left_out: dict[str, list[Origin]]
    votes: int
    new: int
    known: int
    replaced: int
    pairs: int
    raters: int
    empty: int = 0

    def __str__(self) -> str:
        """Return lines for a person: the counts, the rows left out by reason, and empty messages."""
        details = [f"{self.known} there before"] * bool(self.known)
        details += [f"{self.replaced} replaced by a later row of the same rater"] * bool(self.replaced)
        votes = counted(self.new, "new vote") + (f" ({', '.join(details)})" if details else "")
        on = f"on {counted(self.pairs, 'pair')} by {counted(self.raters, 'rater')}"
        first = f"{printable(self.path)}: {counted(self.rows, 'row')}, {votes} {on}"
        more = [
            f"  {counted(len(places), 'row')} left out: {why} ({lines(places)})"
            for why, places in self.left_out.items()
        ]
        return "\n".join([first, *more, *([f"  {empty_message_note(self.empty)}"] if self.empty else [])])


@dataclass(slots=True)
class _ReadRows:
    """The votes found in a file of rankings, and counts of its rows.

    Attributes:
        rows: rows read.
        votes: the votes in them.
        judged: rows that hold a vote.
        left_out: reason -> origins of the rows without a usable vote.
    """

    rows: int = 0
    votes: list[PairVote] = field(default_factory=list[PairVote])
    judged: int = 0
    left_out: dict[str, list[Origin]] = field(default_factory=dict[str, list[Origin]])


def import_file(store_path: str | Path, file: str, *, rater: str | None = None) -> Imported:
    """Import a file's rankings as pairs and votes into a store (an SQLite file), which is made if it does not exist.

    Args:
        store_path: the store.
        file: rows of a format of `vote_formats`, in any form that sources read; or another store.
        rater: the name of raters whom the file does not name, by default after the file. Several such votes on a pair
            count as votes of several raters.

    Raises:
        DataError: a row cannot be used, or contradicts a vote in the store; nothing is imported then.
        MissingExtraError: SQLAlchemy is not installed.
    """
    read = _from_store(Path(store_path), Path(file)) if is_store(file) else _from_file(file)
    if not read.votes:
        why = "; ".join(f"{len(places)} {reason}" for reason, places in read.left_out.items())
        raise DataError(
            f"{printable(file)}: none of {counted(read.rows, 'row')} ranks a pair: {why}\n  fix: name another file"
        )
    named = _named(read.votes, normalize_name(rater) if rater else _default_rater(file))
    last = _last_votes(named)
    is_new = not Path(store_path).exists()
    with Store.open(store_path, create=True) as store, store.discarded_on_error(is_new=is_new):
        _refuse_contradictions(store, last.values())
        added = store.import_votes([_imported(vote) for vote in last.values()])
    twice = len(named) - len(last) - (replaced := _replaced(named, last))
    return Imported(
        file, read.rows, read.judged, read.left_out, len(named), added.new, added.known + twice, replaced,
        len({key for key, _ in last}), len({name for _, name in last}),
        count_empty_messages({key: vote.pair for (key, _), vote in last.items()}.values()),
    )  # fmt: skip


def _from_file(file: str) -> _ReadRows:
    read = _ReadRows()

    def collect(record: Record) -> None:
        read.rows += 1
        try:
            votes = votes_in(record)
        except SkipRecordError as reason:
            read.left_out.setdefault(str(reason), []).append(record.origin)
        else:
            read.judged += 1
            read.votes += votes

    for _ in read_records(file, collect):
        pass
    return read


def _from_store(into: Path, file: Path) -> _ReadRows:
    """Read all votes of another store, except those that their raters have undone.

    Raises:
        DataError: `file` is the store `into` itself.
    """
    if into.exists() and into.resolve() == file.resolve():
        raise DataError(f"{printable(file)}: a store cannot be imported into itself\n  fix: name another store")
    with Store.open(file, read_only=True) as store:
        votes, pairs = store.votes(), {pair.id: pair for pair in store.pairs()}
    read = _ReadRows(rows=len(votes), judged=len(votes))
    for vote in votes:
        pair = pairs[vote.ballot.pair]
        origin = Origin(printable(file), pair.id)
        read.votes.append(PairVote(_new_pair(pair), vote.rater.name, vote.ballot, vote.at, vote.left, origin))
    return read


def _new_pair(pair: Pair) -> NewPair:
    prompt = NewPrompt(pair.prompt.messages, pair.prompt.tags, pair.prompt.origin)
    return NewPair(prompt, pair.first, pair.second, pair.gold)


def _default_rater(file: str) -> str:
    name = printable(Path(file).name or file)
    most = MOST_NAME - len("imported from  (9999)")
    return f"imported from {name if len(name) <= most else name[: most - 1] + '…'}"


def _named(votes: list[PairVote], rater: str) -> list[PairVote]:
    """Return the votes with each pair's answers ordered by hash, and with a rater's name for each vote.

    A vote without a name gets the name `rater`; further ones on the same pair count as other raters': `rater (2)`, ...
    """
    seen: Counter[PairKey] = Counter()
    named: list[PairVote] = []
    for vote in votes:
        neutral = _neutral(vote)
        if not vote.rater:
            key = _key(neutral.pair)
            seen[key] += 1
            neutral = replace(neutral, rater=rater if seen[key] == 1 else f"{rater} ({seen[key]})")
        named.append(neutral)
    return named


def _neutral(vote: PairVote) -> PairVote:
    """Return the vote with its pair's answers ordered by hash, and choice, edit and shown side to match."""
    pair = in_neutral_order(vote.pair)
    if pair is vote.pair:
        return vote
    ballot = vote.ballot
    edit_of = other_side(ballot.edit_of) if ballot.edit_of else None
    ballot = replace(ballot, choice=_swapped_choice(ballot.choice), edit_of=edit_of)
    return replace(vote, pair=pair, ballot=ballot, left=other_side(vote.left) if vote.left else None)


def _swapped_choice(choice: Choice) -> Choice:
    return other_side(choice) if choice in ("first", "second") else choice


def _key(pair: NewPair | Pair) -> PairKey:
    return pair.prompt.messages, frozenset((answer.text, answer.model) for answer in (pair.first, pair.second))


def _last_votes(named: list[PairVote]) -> dict[tuple[PairKey, str], PairVote]:
    """Return (key of the pair, rater) -> the rater's last vote on that pair, in the order of the first votes."""
    last: dict[tuple[PairKey, str], PairVote] = {}
    for vote in named:
        last[_key(vote.pair), vote.rater] = vote
    return last


def _replaced(named: list[PairVote], last: dict[tuple[PairKey, str], PairVote]) -> int:
    """Return how many votes do not count, as the rater's last vote on the pair has another choice or strength."""
    return sum(_verdict(vote.ballot) != _verdict(last[_key(vote.pair), vote.rater].ballot) for vote in named)


def _verdict(ballot: Ballot) -> tuple[str, int | None]:
    return ballot.choice, ballot.strength


def _refuse_contradictions(store: Store, votes: Iterable[PairVote]) -> None:
    """Raise DataError if a rater voted differently on the same pair in the store: a person must decide."""
    pairs = {pair.id: pair for pair in store.pairs()}
    standing: dict[tuple[PairKey, str], tuple[Pair, Ballot]] = {}
    for stored in store.votes():
        pair = pairs[stored.ballot.pair]
        standing[_key(pair), stored.rater.name] = pair, stored.ballot
    problems: dict[Origin, str] = {}
    for vote in votes:
        pair, before = standing.get((_key(vote.pair), vote.rater), (None, None))
        if pair is None or before is None:
            continue
        same_order = _sides(pair) == _sides(vote.pair)
        now = vote.ballot if same_order else replace(vote.ballot, choice=_swapped_choice(vote.ballot.choice))
        if _verdict(now) != _verdict(before):
            problems[vote.origin] = f"{vote.rater} voted {before.choice} on pair {pair.id} of {printable(store.path)}"
    if problems:
        origin, problem = next(iter(problems.items()))
        more = f" (so in {counted(len(problems) - 1, 'more row')})" if len(problems) > 1 else ""
        raise DataError(
            f"{origin}: {problem}, and differently in this row{more}\n"
            "  fix: give another --rater, or undo that vote first"
        )


def _sides(pair: NewPair | Pair) -> tuple[Answer, Answer]:
    return _bare(pair.first), _bare(pair.second)


def _bare(answer: Answer) -> Answer:
    return Answer(answer.text, answer.model)


def _imported(vote: PairVote) -> ImportedVote:
    left: Side = vote.left or "first"  # unknown: the neutral order, in which the better answer has no fixed side
    return vote.pair, vote.rater, vote.ballot, vote.at, left
