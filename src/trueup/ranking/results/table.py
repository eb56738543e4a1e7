"""Table of votes: NumPy arrays with one element for each vote, from which the results are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from trueup.data.votes.vote_types import Pair, Vote

if TYPE_CHECKING:
    from trueup.stats.arrays import Flags, Floats, Ints

FIRST, TIE, SECOND, BOTH_BAD, SKIP = range(5)
RANDOM, UNCERTAIN, IMPORTED = range(3)
POLICIES = ("random", "uncertain", "imported")
_CHOICES = {"first": FIRST, "tie": TIE, "second": SECOND, "both_bad": BOTH_BAD, "skip": SKIP}
_POLICIES = {"random": RANDOM, "uncertain": UNCERTAIN, "": IMPORTED}
_GOLD = {None: -1, "first": FIRST, "second": SECOND}


@dataclass(frozen=True)
class Table:
    """N votes in the order of their events (entries in the store's log).

    Models, raters, pairs and prompts are numbered from 0; -1 is none.

    Attributes:
        models: names by number, sorted.
        raters: names by number, in the order of their first votes.
        vote: (N,) index in the list passed to `tabulate`.
        pair, prompt, rater: (N,) numbers.
        first, second: (N,) models of the answers, -1 if unknown.
        choice: (N,) FIRST, TIE, SECOND, BOTH_BAD or SKIP.
        left: (N,) True if the first answer was shown as A.
        policy: (N,) RANDOM, UNCERTAIN or IMPORTED.
        gold: (N,) FIRST, SECOND, or -1 if the pair is not a gold pair.
        characters, words: (N, 2) lengths of the first and the second answer.
        seconds: (N,) from seeing the pair to the vote; NaN if not measured.
    """

    models: tuple[str, ...]
    raters: tuple[str, ...]
    vote: Ints
    pair: Ints
    prompt: Ints
    rater: Ints
    first: Ints
    second: Ints
    choice: Ints
    left: Flags
    policy: Ints
    gold: Ints
    characters: Floats
    words: Floats
    seconds: Floats

    def __len__(self) -> int:
        return len(self.choice)

    def where(self, kept: Flags) -> Table:
        """Return a table of only those votes for which `kept`, (N,), is True; models and so on keep their numbers."""
        names = (field.name for field in fields(self) if field.name not in ("models", "raters"))
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    @property
    def deciding(self) -> Flags:
        """(N,) True for preferences and ties, the votes of a win rate."""
        return self.choice <= SECOND

    @property
    def preferred(self) -> Flags:
        """(N,) True for votes that prefer one of the answers, so not for ties, both bad and skips."""
        return (self.choice == FIRST) | (self.choice == SECOND)

    @property
    def paired(self) -> Flags:
        """(N,) True if the answers are of two different, named models."""
        return (self.first >= 0) & (self.second >= 0) & (self.first != self.second)

    @property
    def score(self) -> Floats:
        """(N,) score of the first answer: 1, 0.5 or 0; NaN for both bad and skips."""
        return np.array([1.0, 0.5, 0.0, np.nan, np.nan])[self.choice]

    @property
    def category(self) -> Ints:
        """(N,) category for agreement: 0 first, 1 neither (tie or both bad), 2 second; -1 skipped."""
        return np.array([0, 1, 2, 1, -1])[self.choice]

    def between(self, model: int, other: int) -> tuple[Table, Floats]:
        """Return the table of the M votes on answers of two models, and (M,) the score of `model` in each.

        Models are given by number. The score is 1 for a win, 0.5 for a tie, 0 for a loss, and NaN for both bad and
        skips.
        """
        kept = self.where(
            ((self.first == model) & (self.second == other)) | ((self.first == other) & (self.second == model))
        )
        return kept, np.where(kept.first == model, kept.score, 1 - kept.score)


def tabulate(pairs: Sequence[Pair], votes: Sequence[Vote]) -> Table:
    """Return the votes on these pairs as a table, ordered by their events.

    Raises:
        ValueError: a vote is on a pair that is not among `pairs`.
    """
    order = sorted(range(len(votes)), key=lambda index: votes[index].id)
    ordered = [votes[index] for index in order]
    pair_of_id = {pair.id: pair for pair in pairs}
    for vote in ordered:
        if vote.ballot.pair not in pair_of_id:
            raise ValueError(f"vote {vote.id} is on pair {vote.ballot.pair}, which is not among the pairs")
    voted = [pair_of_id[vote.ballot.pair] for vote in ordered]
    models = sorted({answer.model for pair in pairs for answer in (pair.first, pair.second) if answer.model})
    number = {"": -1} | {name: index for index, name in enumerate(models)}
    names = {vote.rater.id: vote.rater.name for vote in ordered}
    lengths = {pair.id: _lengths(pair) for pair in {pair.id: pair for pair in voted}.values()}
    length_array = np.array([lengths[pair.id] for pair in voted], dtype=np.float64).reshape(-1, 2, 2)
    return Table(
        models=tuple(models),
        raters=tuple(names.values()),
        vote=_ints(order),
        pair=_numbered([pair.id for pair in voted]),
        prompt=_numbered([pair.prompt.id for pair in voted]),
        rater=_numbered([vote.rater.id for vote in ordered]),
        first=_ints([number[pair.first.model] for pair in voted]),
        second=_ints([number[pair.second.model] for pair in voted]),
        choice=_ints([_CHOICES[vote.ballot.choice] for vote in ordered]),
        left=np.array([vote.left == "first" for vote in ordered], dtype=np.bool_),
        policy=_ints([_POLICIES[vote.policy] for vote in ordered]),
        gold=_ints([_GOLD[pair.gold] for pair in voted]),
        characters=length_array[:, 0],
        words=length_array[:, 1],
        seconds=np.array([vote.ballot.seconds for vote in ordered], dtype=np.float64),  # None becomes NaN
    )


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _numbered(ids: Sequence[int]) -> Ints:
    """Return (N,) the ids replaced by numbers from 0, in the order of first occurrence."""
    numbers = {id_: number for number, id_ in enumerate(dict.fromkeys(ids))}
    return _ints([numbers[id_] for id_ in ids])


def _lengths(pair: Pair) -> tuple[list[int], list[int]]:
    texts = (pair.first.text, pair.second.text)
    return [len(text) for text in texts], [len(text.split()) for text in texts]
