"""Votes as rows of data: here alone a pair's votes become a ranking, or are found to make none.

A row names the answers `chosen` and `rejected`, also in its votes, so that it can be read without the store.
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
    """The methods of `Store` that rows are made from: a protocol, so that this module needs no SQLAlchemy."""

    @property
    def path(self) -> Path:
        """The store's file."""
        ...

    def last_event(self) -> int:
        """Return the number of the last event; 0 if there is none."""
        ...

    def pairs(self) -> list[Pair]:
        """Return every pair."""
        ...

    def votes(self, until: int | None = None) -> list[Vote]:
        """Return the votes that stand at event `until`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class VoteOutcome:
    """The result of a pair's votes, or of one vote.

    Attributes:
        pair: the pair.
        votes: in order, skips included.
        winner: the better answer; None if there is none.
        reason: why there is no winner.
    """

    pair: Pair
    votes: tuple[Vote, ...]
    winner: Side | None
    reason: NoRowReason | None = None

    @property
    def strength(self) -> float | None:
        """The mean strength of the votes for the winner, 1 to 3; None if no vote has one."""
        votes = [vote.ballot for vote in self.votes if vote.ballot.choice == self.winner]
        strengths = [ballot.strength for ballot in votes if ballot.strength is not None]
        return sum(strengths) / len(strengths) if strengths else None


def resolve_event(store: VoteReader, event: int | None) -> int:
    """Return `event`, or the store's last event if it is None.

    Raises:
        DataError: the store has no such event yet.
    """
    last = store.last_event()
    if event is not None and event > last:
        name = clean(str(store.path), one_line=True)
        raise DataError(f"{name}@{event}: the store's last event is {last}\n  fix: give a number up to {last}")
    return last if event is None else event


def vote_outcomes(
    store: VoteReader, until: int | None = None, votes: VoteSelection = "majority", *, gold: bool = False
) -> Iterator[VoteOutcome]:
    """Yield the outcome of each pair that has votes, as of event `until`.

    An answer wins if more than half of the raters who did not skip prefer it. With `gold`, gold pairs count as others.
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
    """Return the choice of more than half of those who did not skip; "skip" if all did, None if there is no such."""
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
    """Yield the votes as rankings, {prompt, chosen, rejected, ...}, with all that is known about their origin.

    Args:
        store: the store.
        until: the votes as of this event; None: now.
        votes: one row a pair by the majority of its raters, or one row a vote.
        gold: include gold pairs, which are checks of the raters.
        margin: add `margin`, the mean strength of the votes for chosen, where a vote has one.
    """
    for outcome in vote_outcomes(store, until, votes, gold=gold):
        if outcome.winner is not None:
            yield outcome_row(outcome, margin=margin)


def outcome_row(outcome: VoteOutcome, *, margin: bool = False) -> RankingRow:
    """Return an outcome with a winner as a row."""
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
    """Return a pair's origin, its sides renamed to those of the row; `gold` is the better answer of a gold pair."""
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
    """Return a vote as part of a row: `choice` and `left` (shown as A) use the row's names of the sides."""
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
    """Return the other side."""
    return "second" if side == "first" else "first"


def message_dicts(turns: Iterable[Message]) -> list[dict[str, str]]:
    """Return messages as dicts with role and content."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]
