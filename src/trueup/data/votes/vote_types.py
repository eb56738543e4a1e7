"""Types of a store of votes. A vote is for a pair's `first` or `second` answer; A and B are places on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.data.rendering.messages import Message

Side = Literal["first", "second"]
Choice = Literal["first", "second", "tie", "both_bad", "skip"]
PairPolicy = Literal["random", "uncertain"]
"""Order of the pairs: the store's random order, or the smallest reward margin first."""

CHOICES: tuple[Choice, ...] = ("first", "second", "tie", "both_bad", "skip")
STRENGTHS = (1, 2, 3)
"""Strengths of a preference: slightly, clearly, much."""
REASONS = ("correct", "helpful", "clear", "concise", "complete", "safe", "polite", "follows the instruction")
"""Reasons for a preference; a rater may tick any."""

MOST_NOTE, MOST_EDIT, MOST_NAME = 2_000, 100_000, 60
"""Most characters of a note, an edited answer and a rater's name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: `model` is "" if unknown, `sampling` has temperature, seed, ...."""

    text: str
    model: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """Messages that end with a user's, to be stored. `tags` are topics, `origin` is file:line."""

    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to one prompt, to be stored. `gold` is the better one if known: it serves to check raters."""

    prompt: NewPrompt
    first: Answer
    second: Answer
    gold: Side | None = None


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A prompt in the store."""

    id: int
    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair in the store."""

    id: int
    prompt: StoredPrompt
    first: Answer
    second: Answer
    gold: Side | None = None
    added: str = ""  # UTC, ISO 8601

    def answer(self, side: Side) -> Answer:
        """Return the answer of a side."""
        return self.first if side == "first" else self.second


@dataclass(frozen=True, slots=True)
class Rater:
    """A person who votes."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """A rater's judgement of a pair.

    Attributes:
        request: id made by the page for each key press: the same id sent twice is one vote.
        pair: id of the pair.
        choice: the better answer (in the store's sides), tie, both_bad or skip.
        strength: one of STRENGTHS, only with a preference.
        reasons: some of REASONS, or free text.
        note: free text.
        edit: an answer better than both; "" for none.
        edit_of: the answer that was edited.
        seconds: from seeing the pair to the vote.
    """

    request: str
    pair: int
    choice: Choice
    strength: int | None = None
    reasons: tuple[str, ...] = ()
    note: str = ""
    edit: str = ""
    edit_of: Side | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """A stored ballot.

    Attributes:
        id: number of its event; numbers only grow.
        at: time, UTC, ISO 8601.
        rater: the rater.
        left: the answer shown as A.
        policy: the order by which the pair was chosen; "" for imported votes.
        score: the reward model's uncertainty at that time, 0 (sure) to 1; None: not scored, or random order.
        ballot: the ballot.
    """

    id: int
    at: str
    rater: Rater
    left: Side
    policy: PairPolicy | Literal[""]
    score: float | None
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair as shown to a rater, and leased to that rater."""

    pair: Pair
    left: Side
    policy: PairPolicy
    score: float | None


@dataclass(frozen=True, slots=True)
class RaterProgress:
    """Progress of a rater and of the store.

    Attributes:
        mine: pairs the rater has voted on, without skips.
        skipped: pairs the rater skipped.
        left: pairs that the rater may still be given.
        pairs: pairs in the store, without gold ones.
        complete: those of them with `raters_per_pair` votes.
        prompts: prompts in the store.
        last: the rater's newest standing vote, which an undo takes back.
    """

    mine: int
    skipped: int
    left: int
    pairs: int
    complete: int
    prompts: int
    last: int | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Settings of a store. The latest apply; every change is an event.

    Attributes:
        raters_per_pair: votes that a pair needs (k).
        gold_every: a rater gets a gold pair about once in this many pairs; 0: never.
        policy: order of the pairs.
        lease_seconds: how long a pair is reserved for the rater who looks at it.
        seed: of orders and sides, together with the store's secret.
    """

    raters_per_pair: int = 1
    gold_every: int = 10
    policy: PairPolicy = "random"
    lease_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AddedCounts:
    """Numbers of added items that were new, and that were stored before."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """Totals of a store: `pairs` without gold ones, standing `votes` with skips; `events` is the last event's id."""

    prompts: int
    pairs: int
    gold: int
    raters: int
    votes: int
    events: int
