"""Conversion of votes to rows of training data; the only place that decides which answer of a pair won its votes.

A row names the two answers `chosen` and `rejected`, also within its votes, so that it can be read without the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from trueup.data.rendering.messages import Message
from trueup.data.votes.vote_types import CHOICES, Choice, Pair, Side, Vote
from trueup.errors import DataError
from trueup.system.text import clean

VoteSelection = Literal["majority", "every"]
"""Rows to make: one a pair, by the majority of its raters; or one a vote."""
NoRowReason = Literal["tie", "both bad", "split", "skipped", "gold"]
"""Reasons for which votes make no row."""

NO_ROW_REASONS: dict[NoRowReason, str] = {
    "tie": "a tie",
    "both bad": "both answers are bad",
    "split": "no answer has more than half of the votes",
    "skipped": "skipped",
    "gold": "a gold pair: a check of the raters",
}
"""The reasons in words."""
_OUTCOMES: dict[Choice, NoRowReason] = {"tie": "tie", "both_bad": "both bad", "skip": "skipped"}
RankingRow = dict[str, Any]


class VoteReader(Protocol):
    """Interface of the `Store` methods that rows are made from; a protocol, so that this module needs no SQLAlchemy."""

    @property
    def path(self) -> Path:
        """The SQLite file of the store."""
        ...

    def last_event(self) -> int:
        """Return the number of the latest event (vote, undo or change of settings); 0 if there is none."""
        ...

    def pairs(self) -> list[Pair]:
        """Return every pair in the store."""
        ...

    def votes(self, until: int | None = None) -> list[Vote]:
        """Return the votes not undone as of event number `until` (None: now), oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class VoteOutcome:
    """The result of all votes on a pair, or of a single vote.

    Attributes:
        pair: the pair that was voted on.
        votes: the votes counted, oldest first, skips included.
        winner: the side of the better answer; None if the votes decide for neither.
        reason: the reason why there is no winner, e.g. "tie"; None if there is a winner.
    """

    pair: Pair
    votes: tuple[Vote, ...]
    winner: Side | None
    reason: NoRowReason | None = None

    @property
    def strength(self) -> float | None:
        """The mean strength of the votes for the winner, from 1 (slightly better) to 3 (much better).

        None if no vote has one.
        """
        votes = [vote.ballot for vote in self.votes if vote.ballot.choice == self.winner]
        strengths = [ballot.strength for ballot in votes if ballot.strength is not None]
        return sum(strengths) / len(strengths) if strengths else None


def resolve_event(store: VoteReader, event: int | None) -> int:
    """Return the event number `event`, or the number of the store's last event if it is None.

    Raises:
        DataError: `event` is greater than the store's last event.
    """
    last = store.last_event()
    if event is not None and event > last:
        name = clean(str(store.path), one_line=True)
        raise DataError(f"{name}@{event}: the store's last event is {last}\n  fix: give a number up to {last}")
    return last if event is None else event


def vote_outcomes(
    store: VoteReader, until: int | None = None, votes: VoteSelection = "majority", *, gold: bool = False
) -> Iterator[VoteOutcome]:
    """Yield the outcome of each pair with votes as of event `until` (None: now), or of each vote if `votes` is "every".

    An answer wins if more than half of the raters who did not skip prefer it. Gold pairs (checks of the raters) have no
    winner, unless `gold` is True.
    """
    last = store.last_event() if until is None else until
    by_pair: dict[int, list[Vote]] = defaultdict(list)
    for vote in store.votes(last):
        by_pair[vote.ballot.pair].append(vote)
    for pair in sorted(store.pairs(), key=lambda pair: pair.id):
        pair_votes = by_pair.get(pair.id, [])
        groups = [[vote] for vote in pair_votes] if votes == "every" else [pair_votes] * bool(pair_votes)
        for group in groups:
            yield _outcome(pair, tuple(group), gold=gold)


def _outcome(pair: Pair, votes: tuple[Vote, ...], *, gold: bool) -> VoteOutcome:
    if pair.gold is not None and not gold:
        return VoteOutcome(pair, votes, None, "gold")
    choice = majority(vote.ballot.choice for vote in votes)
    if choice is None:
        return VoteOutcome(pair, votes, None, "split")
    if choice in ("first", "second"):
        return VoteOutcome(pair, votes, choice)
    return VoteOutcome(pair, votes, None, _OUTCOMES[choice])


def majority(choices: Iterable[Choice]) -> Choice | None:
    """Return the choice of more than half of those who did not skip; None if no choice has so many.

    If all skipped, the result is "skip".
    """
    counted = [choice for choice in choices if choice != "skip"]
    if not counted:
        return "skip"
    return next((choice for choice in CHOICES if 2 * counted.count(choice) > len(counted)), None)


def rows(
    store: VoteReader,
    until: int | None = None,
    votes: VoteSelection = "majority",
    *,
    gold: bool = False,
    margin: bool = False,
) -> Iterator[RankingRow]:
    """Yield the decided votes as rows {prompt, chosen, rejected, ...}, with the models, sampling and tags of the pair.

    Args:
        store: the vote store.
        until: the number of the last event that counts; None: all events.
        votes: "majority" for one row a pair, by the majority of its raters; "every" for one row a vote.
        gold: include gold pairs, whose better answer was known beforehand and which check the raters.
        margin: add the key `margin`: the mean strength (1 to 3) of the votes for the chosen answer, if they have one.
    """
    for outcome in vote_outcomes(store, until, votes, gold=gold):
        if outcome.winner is not None:
            yield outcome_row(outcome, margin=margin)


def outcome_row(outcome: VoteOutcome, *, margin: bool = False) -> RankingRow:
    """Return an outcome with a winner as a row {prompt, chosen, rejected, votes, ...} of training data.

    `chosen` and `rejected` are lists with one assistant message; the other keys are those of `pair_details`. `margin`
    adds the key margin: the mean strength (1 to 3) of the votes for the winner, if they have one.
    """
    pair, winner = outcome.pair, outcome.winner
    assert winner is not None
    better, worse = pair.answer(winner), pair.answer(other_side(winner))
    names: dict[Side, str] = {winner: "chosen", other_side(winner): "rejected"}
    strength = outcome.strength
    return {
        "prompt": message_dicts(pair.prompt.messages),
        "chosen": [{"role": "assistant", "content": better.text}],
        "rejected": [{"role": "assistant", "content": worse.text}],
        **({"margin": strength} if margin and strength is not None else {}),
        **pair_details(pair, names),
        "votes": [vote_row(vote, names) for vote in outcome.votes],
    }


def pair_details(pair: Pair, names: dict[Side, str]) -> RankingRow:
    """Return the keys of a row that describe its pair: pair (its id), gold, models, sampling, tags and origin.

    `names` is {side: "chosen" or "rejected"}; models and sampling have these names as keys, and gold (only for gold
    pairs) is the name of the answer known to be better.
    """
    sides: list[tuple[str, Side]] = [(name, side) for side, name in names.items()]
    return {
        "pair": pair.id,
        **({} if pair.gold is None else {"gold": names[pair.gold]}),
        "models": {name: pair.answer(side).model for name, side in sides},
        "sampling": {name: dict(pair.answer(side).sampling) for name, side in sides},
        "tags": list(pair.prompt.tags),
        "origin": pair.prompt.origin,
    }


def vote_row(vote: Vote, names: dict[Side, str]) -> RankingRow:
    """Return a vote as a dict for the list `votes` of a row: rater, choice, strength, reasons, left, time and so on.

    `names` is {side: "chosen" or "rejected"}, by which `choice` and `left` (the answer shown as A) name the answers.
    """
    ballot = vote.ballot
    return {
        "rater": vote.rater.name,
        "choice": names[ballot.choice] if ballot.choice in ("first", "second") else ballot.choice,
        "strength": ballot.strength,
        "reasons": list(ballot.reasons),
        "note": ballot.note,
        "seconds": ballot.seconds,
        "at": vote.at,
        "left": names[vote.left],
        "policy": vote.policy,
        "score": vote.score,
        "event": vote.id,
    }


def other_side(side: Side) -> Side:
    """Return "second" for "first", and "first" for "second"."""
    return "second" if side == "first" else "first"


def message_dicts(turns: Iterable[Message]) -> list[dict[str, str]]:
    """Return messages as a list of dicts with the keys role and content."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]
