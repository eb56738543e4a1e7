"""What a store holds. A vote is of a pair's `first` or `second` answer; A and B are sides of one rater's screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.data.rendering.messages import Message

Side = Literal["first", "second"]
Choice = Literal["first", "second", "tie", "both_bad", "skip"]
PairPolicy = Literal["random", "uncertain"]
"""Which pair comes next: in the store's random order, or the one first whose scores by a reward model differ least."""

CHOICES: tuple[Choice, ...] = ("first", "second", "tie", "both_bad", "skip")
STRENGTHS = (1, 2, 3)
"""How much better the preferred answer is: slightly, clearly, much."""
REASONS = ("correct", "helpful", "clear", "concise", "complete", "safe", "polite", "follows the instruction")
"""What the preferred answer was better by; a rater may tick any."""

MOST_NOTE, MOST_EDIT, MOST_NAME = 2_000, 100_000, 60
"""Characters of a note, an edited answer and a rater's name at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `model` is "" where nobody said which, `sampling` how it was drawn (temperature, seed, ...)."""

    text: str
    model: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """Messages to answer, that end with a user's. `tags` are its topics, `origin` is file:line."""

    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to one prompt. `gold` says which is better where that is known: raters are checked by it."""

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
        """The answer of a side."""
        return self.first if side == "first" else self.second


@dataclass(frozen=True, slots=True)
class Rater:
    """Somebody who ranks."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a rater says of a pair.

    Attributes:
        request: made by the page, one for each press of a key: the same one sent twice is one vote.
        pair: whose.
        choice: which answer is better, in the store's sides.
        strength: of STRENGTHS, only with a preference.
        reasons: of REASONS, or the rater's own words.
        note: free text.
        edit: a better answer than both; "" for none.
        edit_of: the answer it was made from.
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
    """A ballot in the store: event `id` of it.

    Attributes:
        id: the event's number; they only grow.
        at: UTC, ISO 8601.
        rater: who.
        left: which answer was shown as A.
        policy: how the pair was chosen for the rater; "" of imported votes.
        score: how uncertain the reward model was of it then, 0 (sure) to 1 (no idea); None: not scored, or random.
        ballot: what was said.
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
    """A pair as it is given to a rater, leased to that rater for a while."""

    pair: Pair
    left: Side
    policy: PairPolicy
    score: float | None


@dataclass(frozen=True, slots=True)
class RaterProgress:
    """How far a rater and the store are.

    Attributes:
        mine: pairs the rater has voted on (skips left out).
        skipped: pairs the rater skipped.
        left: pairs there now that the rater may still be given.
        pairs: pairs in the store, gold ones left out.
        complete: of these, those with as many votes as are wanted.
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
    """How a store is ranked. The last ones given count; every change is an event.

    Attributes:
        raters_per_pair: votes that a pair needs (k).
        gold_every: about every so many pairs a rater is given one whose answer is known; 0: never.
        policy: which pair comes next.
        lease_seconds: how long a pair is kept for the rater who looks at it.
        seed: of orders and sides, with the store's own secret.
    """

    raters_per_pair: int = 1
    gold_every: int = 10
    policy: PairPolicy = "random"
    lease_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AddedCounts:
    """What became of what was given to the store: new, or there before."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """How much a store holds: `pairs` without the gold ones, `votes` that stand, skips too; `events` is the last id."""

    prompts: int
    pairs: int
    gold: int
    raters: int
    votes: int
    events: int
