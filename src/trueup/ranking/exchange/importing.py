"""Other tools' rankings, our own exports and other stores as pairs and votes of a store: all of a file, or nothing."""

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
from trueup.ranking.exchange.judged import Judged, judged
from trueup.ranking.exchange.reading import LeftOut, count_empty_messages, counted, empty_message_note, mixed, records
from trueup.system.text import printable

Key = tuple[object, frozenset[tuple[str, str]]]
"""What a pair is known by, whichever answer is first."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file: rows == judged + left out, votes == new + known + replaced.

    Attributes:
        path: the file.
        rows: read.
        judged: of these, those that say something of a pair.
        left_out: reason -> places of the others.
        votes: in the judged rows.
        new: entered.
        known: there before, or said twice.
        replaced: taken back by a later row of the same rater, which counts.
        pairs: that were voted on.
        raters: who voted.
        empty: messages of these pairs that say nothing.
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
        """For a person: a line, one for each reason why rows were left out, and one of empty messages."""
        also = [f"{self.known} there before"] * bool(self.known)
        also += [f"{self.replaced} replaced by a later row of the same rater"] * bool(self.replaced)
        told = counted(self.new, "new vote") + (f" ({', '.join(also)})" if also else "")
        on = f"on {counted(self.pairs, 'pair')} by {counted(self.raters, 'rater')}"
        first = f"{printable(self.path)}: {counted(self.rows, 'row')}, {told} {on}"
        more = [
            f"  {counted(len(places), 'row')} left out: {why} ({lines(places)})"
            for why, places in self.left_out.items()
        ]
        return "\n".join([first, *more, *([f"  {empty_message_note(self.empty)}"] if self.empty else [])])


@dataclass(slots=True)
class _Read:
    rows: int = 0
    found: list[Judged] = field(default_factory=list[Judged])
    spoke: int = 0
    left_out: dict[str, list[Origin]] = field(default_factory=dict[str, list[Origin]])


def import_file(store_path: str | Path, file: str, *, rater: str | None = None) -> Imported:
    """Enter a file's rankings into a store, which is made if there is none.

    Args:
        store_path: the store.
        file: rows of one of the formats of `judged`, in any form that sources read; or another store.
        rater: the name of raters whom the file does not name, by default after the file. Where it speaks of a pair more
            than once, that is taken for more than one of them.

    Raises:
        DataError: a row cannot be used, or contradicts a vote that stands; nothing is entered then.
        MissingExtraError: SQLAlchemy is not installed.
    """
    read = _from_store(Path(store_path), Path(file)) if is_store(file) else _from_file(file)
    if not read.found:
        why = "; ".join(f"{len(places)} {reason}" for reason, places in read.left_out.items())
        raise DataError(
            f"{printable(file)}: of {counted(read.rows, 'row')} none ranks a pair: {why}\n  fix: name another file"
        )
    named = _named(read.found, normalize_name(rater) if rater else _name(file))
    last = _last_words(named)
    with Store.open(store_path, create=True) as store:
        _refuse_contradictions(store, last.values())
        added = store.import_votes([_given(one) for one in last.values()])
    twice = len(named) - len(last) - (replaced := _replaced(named, last))
    return Imported(
        file, read.rows, read.spoke, read.left_out, len(named), added.new, added.known + twice, replaced,
        len({key for key, _ in last}), len({name for _, name in last}),
        count_empty_messages({key: one.pair for (key, _), one in last.items()}.values()),
    )  # fmt: skip


def _from_file(file: str) -> _Read:
    read = _Read()

    def see(record: Record) -> None:
        read.rows += 1
        try:
            found = judged(record)
        except LeftOut as reason:
            read.left_out.setdefault(str(reason), []).append(record.origin)
        else:
            read.spoke += 1
            read.found += found

    for _ in records(file, see):
        pass
    return read


def _from_store(into: Path, file: Path) -> _Read:
    """Every vote of another store, undone ones left out."""
    if into.exists() and into.resolve() == file.resolve():
        raise DataError(f"{printable(file)}: it cannot be imported into itself\n  fix: name another store")
    with Store.open(file, read_only=True) as store:
        votes, pairs = store.votes(), {pair.id: pair for pair in store.pairs()}
    read = _Read(rows=len(votes), spoke=len(votes))
    for vote in votes:
        pair = pairs[vote.ballot.pair]
        place = Origin(printable(file), pair.id)
        read.found.append(Judged(_new(pair), vote.rater.name, vote.ballot, vote.at, vote.left, place))
    return read


def _new(pair: Pair) -> NewPair:
    prompt = NewPrompt(pair.prompt.messages, pair.prompt.tags, pair.prompt.origin)
    return NewPair(prompt, pair.first, pair.second, pair.gold)


def _name(file: str) -> str:
    name = printable(Path(file).name or file)
    most = MOST_NAME - len("imported from  (9999)")
    return f"imported from {name if len(name) <= most else name[: most - 1] + '…'}"


def _named(found: list[Judged], rater: str) -> list[Judged]:
    """Every vote with a rater, in the pair's neutral order; whom the file does not name is somebody new to a pair."""
    said: Counter[Key] = Counter()
    made: list[Judged] = []
    for one in found:
        neutral = _neutral(one)
        if not one.rater:
            key = _key(neutral.pair)
            said[key] += 1
            neutral = replace(neutral, rater=rater if said[key] == 1 else f"{rater} ({said[key]})")
        made.append(neutral)
    return made


def _neutral(one: Judged) -> Judged:
    """With the pair's answers in an order that says nothing of which is better."""
    pair = mixed(one.pair)
    if pair is one.pair:
        return one
    ballot = one.ballot
    edit_of = other_side(ballot.edit_of) if ballot.edit_of else None
    ballot = replace(ballot, choice=_turned(ballot.choice), edit_of=edit_of)
    return replace(one, pair=pair, ballot=ballot, left=other_side(one.left) if one.left else None)


def _turned(choice: Choice) -> Choice:
    return other_side(choice) if choice in ("first", "second") else choice


def _key(pair: NewPair | Pair) -> Key:
    return pair.prompt.messages, frozenset((answer.text, answer.model) for answer in (pair.first, pair.second))


def _last_words(named: list[Judged]) -> dict[tuple[Key, str], Judged]:
    """Of each rater the last vote on a pair, in the order of the first ones."""
    last: dict[tuple[Key, str], Judged] = {}
    for one in named:
        last[_key(one.pair), one.rater] = one
    return last


def _replaced(named: list[Judged], last: dict[tuple[Key, str], Judged]) -> int:
    """Votes that say something else than the rater's last one on the pair."""
    return sum(_said(one.ballot) != _said(last[_key(one.pair), one.rater].ballot) for one in named)


def _said(ballot: Ballot) -> tuple[str, int | None]:
    return ballot.choice, ballot.strength


def _refuse_contradictions(store: Store, votes: Iterable[Judged]) -> None:
    """Raise DataError where a rater said something else of a pair before, in the store: a person must decide."""
    pairs = {pair.id: pair for pair in store.pairs()}
    standing: dict[tuple[Key, str], tuple[Pair, Ballot]] = {}
    for vote in store.votes():
        pair = pairs[vote.ballot.pair]
        standing[_key(pair), vote.rater.name] = pair, vote.ballot
    wrong: dict[Origin, str] = {}
    for one in votes:
        pair, before = standing.get((_key(one.pair), one.rater), (None, None))
        if pair is None or before is None:
            continue
        same_way = _sides(pair) == _sides(one.pair)
        now = one.ballot if same_way else replace(one.ballot, choice=_turned(one.ballot.choice))
        if _said(now) != _said(before):
            wrong[one.place] = f"{one.rater} said {before.choice} of pair {pair.id} of {printable(store.path)}"
    if wrong:
        place, problem = next(iter(wrong.items()))
        more = f" (and so in {counted(len(wrong) - 1, 'more row')})" if len(wrong) > 1 else ""
        raise DataError(
            f"{place}: {problem}, and something else here{more}\n  fix: give another --rater, or undo that vote first"
        )


def _sides(pair: NewPair | Pair) -> tuple[Answer, Answer]:
    return _bare(pair.first), _bare(pair.second)


def _bare(answer: Answer) -> Answer:
    return Answer(answer.text, answer.model)


def _given(one: Judged) -> ImportedVote:
    left: Side = one.left or "first"  # where the file does not say, the neutral order: which is better has no side
    return one.pair, one.rater, one.ballot, one.at, left
