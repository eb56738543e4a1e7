"""Dataclasses of a vote store.

A vote is for the `first` or `second` answer of a pair; A and B are places on the screen.
"""

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
    """An answer to a prompt.

    `model` is the name of the model that wrote it ("" if unknown); `sampling` has temperature, seed and so on.
    """

    text: str
    model: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt to be stored: messages that end with a user's.

    `tags` are topics, `origin` is the file:line it came from.
    """

    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class NewPair:
    """Two answers to one prompt, to be stored.

    `gold` is the side of the better answer if it is known beforehand; such a pair checks the raters.
    """

    prompt: NewPrompt
    first: Answer
    second: Answer
    gold: Side | None = None


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A prompt in the store. `tags` are its topics, `origin` is the file:line that it was read from."""

    id: int
    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, in the store.

    `gold` is the side of the answer known to be better, in a pair that checks the raters, else None; `added` is the
    time of insertion (UTC, ISO 8601).
    """

    id: int
    prompt: StoredPrompt
    first: Answer
    second: Answer
    gold: Side | None = None
    added: str = ""  # UTC, ISO 8601

    def answer(self, side: Side) -> Answer:
        """Return the answer of a side, `first` or `second`."""
        return self.first if side == "first" else self.second


@dataclass(frozen=True, slots=True)
class Rater:
    """A person who votes: the id in the store, and the name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """A rater's judgement of a pair.

    Attributes:
        request: id that the web page makes for each key press: an id sent twice counts as one vote.
        pair: id of the pair.
        choice: the better answer ("first" or "second" of the stored pair), "tie", "both_bad" or "skip".
        strength: 1 (slightly better), 2 (clearly) or 3 (much), only with a better answer; None: not given.
        reasons: some of REASONS, or free text.
        note: free text.
        edit: a text, written by the rater, that is better than both answers; "" for none.
        edit_of: the side of the answer that `edit` was made from.
        seconds: time from seeing the pair to the vote.
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
    """A ballot as it is stored, with the circumstances in which it was cast.

    Attributes:
        id: number of its entry in the store's log of events; later entries have larger numbers.
        at: time of the vote, UTC, ISO 8601.
        rater: the person who voted.
        left: which of the pair's two stored answers was shown on the left, as A.
        policy: the order in which the pair was chosen, "random" or "uncertain"; "" for imported votes.
        score: the reward model's uncertainty at that time, 0 (sure) to 1; None: not scored, or random order.
        ballot: the judgement.
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
    """A pair as it is shown to a rater, for whom it is reserved for a while.

    `left` is the side shown as A, `policy` the order in which the pair was chosen, `score` the reward model's
    uncertainty about it, 0 (sure) to 1 (None: not scored, or random order).
    """

    pair: Pair
    left: Side
    policy: PairPolicy
    score: float | None


@dataclass(frozen=True, slots=True)
class RaterProgress:
    """Progress of a rater and of the store, as numbers of pairs.

    Attributes:
        mine: pairs the rater has voted on, without skips.
        skipped: pairs the rater skipped.
        left: pairs that the rater may still be given.
        pairs: pairs in the store, without gold ones (checks of the raters).
        complete: those of `pairs` that have `raters_per_pair` votes.
        prompts: prompts in the store.
        checks: gold pairs among `mine` and `skipped`.
        last: id of the rater's newest vote not undone, which an undo would take back; None: there is none.
    """

    mine: int
    skipped: int
    left: int
    pairs: int
    complete: int
    prompts: int
    checks: int = 0
    last: int | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Settings of a vote store. The latest apply; every change is stored as an event.

    Attributes:
        raters_per_pair: votes that a pair needs.
        gold_every: a rater gets a gold pair (a check, whose better answer is known) about once in this many pairs; 0:
            never.
        policy: order in which pairs are shown: "random", or "uncertain" (those the reward model is least sure of
            first).
        lease_seconds: seconds for which a pair is reserved for the rater who looks at it.
        seed: with the store's secret, determines the random order of pairs and the side shown as A.
    """

    raters_per_pair: int = 1
    gold_every: int = 10
    policy: PairPolicy = "random"
    lease_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AddedCounts:
    """The number of added items that were `new`, and the number that were `known` (stored before)."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """Totals of a store.

    `pairs` excludes gold pairs (checks of the raters), which `gold` counts; `votes` includes skips, but no undone
    votes; `events` is the id of the last event.
    """

    prompts: int
    pairs: int
    gold: int
    raters: int
    votes: int
    events: int
