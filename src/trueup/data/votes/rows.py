"""Votes as rows of data: the one place where what people said of a pair becomes a ranking, or none.

A row speaks of `chosen` and `rejected`, votes and all, so that it means the same away from its store.
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
"""A row a pair, by the majority of its raters; or a row a vote."""
NoRowReason = Literal["tie", "both bad", "split", "skipped", "gold"]
"""Why votes make no row."""

NO_ROW_REASONS: dict[NoRowReason, str] = {
    "tie": "a tie",
    "both bad": "both answers are bad",
    "split": "no answer has more than half of the votes",
    "skipped": "skipped",
    "gold": "a gold pair: a check of the raters",
}
"""Each in words."""
_OUTCOMES: dict[Choice, NoRowReason] = {"tie": "tie", "both_bad": "both bad", "skip": "skipped"}
RankingRow = dict[str, Any]


class VoteReader(Protocol):
    """The part of a `Store` that rows are made of, named here so that reading rows needs no SQLAlchemy."""

    @property
    def path(self) -> Path:
        """The store's file."""
        ...

    def last_event(self) -> int:
        """The last event's number; 0 where there is none."""
        ...

    def pairs(self) -> list[Pair]:
        """Every pair."""
        ...

    def votes(self, until: int | None = None) -> list[Vote]:
        """The votes that stand at event `until`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class VoteOutcome:
    """What became of a pair's votes, or of one vote: `winner` is the better answer; None, and `reason` says why.

    Attributes:
        pair: whose.
        votes: in the order they came; skips among them.
        winner: which answer is better.
        reason: why there is none.
    """

    pair: Pair
    votes: tuple[Vote, ...]
    winner: Side | None
    reason: NoRowReason | None = None

    @property
    def strength(self) -> float | None:
        """How much better it is: the mean strength of the votes for it, 1 to 3; None where none says."""
        said = [vote.ballot.strength for vote in self.votes if vote.ballot.choice == self.winner]
        given = [strength for strength in said if strength is not None]
        return sum(given) / len(given) if given else None


def resolve_event(store: VoteReader, event: int | None) -> int:
    """The event that was asked for; the store's last where none was.

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
    """What became of the votes that stood at event `until`, by pair. A pair without votes has none.

    An answer wins when more than half of the raters who did not skip prefer it. With `gold`, gold pairs are as others.
    """
    last = store.last_event() if until is None else until
    by_pair: dict[int, list[Vote]] = defaultdict(list)
    for vote in store.votes(last):
        by_pair[vote.ballot.pair].append(vote)
    for pair in sorted(store.pairs(), key=lambda pair: pair.id):
        cast = by_pair.get(pair.id, [])
        for together in [[vote] for vote in cast] if votes == "every" else [cast] * bool(cast):
            yield _outcome(pair, tuple(together), gold=gold)


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
    """What more than half of those say who did not skip; "skip" where all did, None where no choice has so many."""
    said = [choice for choice in choices if choice != "skip"]
    if not said:
        return "skip"
    return next((choice for choice in CHOICES if 2 * said.count(choice) > len(said)), None)


def rows(
    store: VoteReader,
    until: int | None = None,
    votes: VoteSelection = "majority",
    *,
    gold: bool = False,
    margin: bool = False,
) -> Iterator[RankingRow]:
    """The votes as rankings, {prompt, chosen, rejected, ...}, with all that is known of how they came about.

    Args:
        store: whose.
        until: as the votes stood at this event; None: now.
        votes: a row a pair by the majority of its raters, or a row a vote.
        gold: of gold pairs too, which are checks of the raters.
        margin: with `margin`, the mean strength of the votes for chosen, where any says one.
    """
    for outcome in vote_outcomes(store, until, votes, gold=gold):
        if outcome.winner is not None:
            yield outcome_row(outcome, margin=margin)


def outcome_row(outcome: VoteOutcome, *, margin: bool = False) -> RankingRow:
    """An outcome with a winner as a row."""
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
    """Where a pair is from, its sides under the names of a row; `gold` is the better answer of a gold pair."""
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
    """A vote in a row: `choice` and `left` (which was shown as A) under the row's names of the sides."""
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
    """The other answer."""
    return "second" if side == "first" else "first"


def message_dicts(turns: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as they stand in a file."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]
