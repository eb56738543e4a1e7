"""Models beside each other: win rates, how many more votes they need, by tag, and why they won."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.lengths import controlled
from trueup.ranking.results.results_schema import (
    Absent,
    ModelPairing,
    More,
    Policy,
    PolicySample,
    Reasons,
    ResultsNumber,
    Tag,
    TagRate,
)
from trueup.ranking.results.table import BOTH_BAD, FIRST, SKIP
from trueup.stats.clustered import ClusteredRate, clustered_rate, votes_needed
from trueup.stats.confidence_sequence import ConfidenceSequence, confidence_sequence, more_prompts, outcomes
from trueup.stats.paired import holm

if TYPE_CHECKING:
    from trueup.data.votes.vote_types import Pair, Vote
    from trueup.ranking.results.table import Table
    from trueup.stats.arrays import Floats, Ints

LIMIT = 10_000
"""More votes than this are not asked for: the rate is too close to one half."""
MOST_TAGS = 50
MOST_REASONS = 12


def sample(table: Table, policy: Policy, order: Sequence[int], *, k: int = 1, seed: int = 0) -> PolicySample:
    """The win rates of one way to choose pairs.

    Args:
        table: its votes.
        policy: its name.
        order: models, the strongest first: a pairing is seen from the one that comes first here.
        k: votes that a pair is to have.
        seed: of bootstraps.
    """
    deciding = int((table.deciding & table.paired).sum())
    made = [
        pairing
        for one, other in combinations(order, 2)
        if (pairing := _pairing(table, one, other, deciding, k=k if policy == "random" else 0, seed=seed))
    ]
    adjusted = holm({str(at): one.p for at, one in enumerate(made) if one.p is not None})
    pairings = [one.model_copy(update={"p_adjusted": adjusted.get(str(at))}) for at, one in enumerate(made)]
    return PolicySample(policy=policy, votes=deciding, pairings=pairings)


def _pairing(table: Table, model: int, other: int, total: int, *, k: int, seed: int) -> ModelPairing | None:
    """Two models, or None where nobody saw them together. `k` is 0 where the order of prompts is no random one."""
    kept, scores = table.between(model, other)
    if not len(kept):
        return None
    deciding = kept.deciding
    sequence = _confidence_sequence(kept, scores, k)
    votes, scores = kept.where(deciding), scores[deciding]
    names = table.models
    common = {
        "model": names[model],
        "other": names[other],
        "wins": int((scores == 1).sum()),
        "ties": int((scores == 0.5).sum()),
        "losses": int((scores == 0).sum()),
        "both_bad": int((kept.choice == BOTH_BAD).sum()),
        "prompts": len(np.unique(votes.prompt)),
        "p_adjusted": None,
    }
    if not len(votes):
        nothing = Absent(why="no vote says which is better: all are skips or “both bad”")
        more = More(state="not measured", limit=LIMIT)
        return ModelPairing(**common, rate=nothing, design=1, p=None, safe=nothing, more=more, controlled=nothing)
    rate = clustered_rate(scores, votes.prompt)
    return ModelPairing(
        **common,
        rate=ResultsNumber.of(rate.estimate),
        design=rate.design,
        p=rate.p,
        safe=sequence if isinstance(sequence, Absent) else ResultsNumber.of(sequence.estimate),
        more=_more(rate, None if isinstance(sequence, Absent) else more_prompts(sequence, LIMIT)),
        controlled=controlled(votes, model, scores, share=len(votes) / total, seed=seed),
    )


def _confidence_sequence(kept: Table, scores: Floats, k: int) -> ConfidenceSequence | Absent:
    """Return the interval that stays valid however often somebody looks."""
    if not k:
        return Absent(why="pairs were chosen by how uncertain a model was, so their order is no random one")
    voted = kept.choice != SKIP
    complete = outcomes(scores[voted], kept.prompt[voted], k)
    if not len(complete):
        return Absent(why=f"no prompt has the {k} votes that it is to have" if k > 1 else "no vote decides")
    return confidence_sequence(complete)


def _more(rate: ClusteredRate, prompts: int | None) -> More:
    if rate.decided or prompts == 0:
        return More(state="decided", prompts=prompts, limit=LIMIT)
    more = votes_needed(rate) - rate.n
    if more > LIMIT:
        return More(state="too close", prompts=prompts, limit=LIMIT)
    return More(state="more", votes=max(1, math.ceil(more)), prompts=prompts, limit=LIMIT)


def by_tag(table: Table, tags: Sequence[tuple[str, ...]], order: Sequence[int]) -> tuple[list[Tag], int]:
    """The win rates of each tag, those with most votes first, and the votes on prompts that have none.

    Args:
        table: votes.
        tags: (N,) of each vote's prompt.
        order: models, the strongest first.
    """
    kept = np.flatnonzero(table.deciding & table.paired)
    places: dict[str, list[int]] = {}
    for at in kept.tolist():
        for tag in dict.fromkeys(tags[at]):
            places.setdefault(tag, []).append(at)
    untagged = sum(not tags[at] for at in kept.tolist())
    most = sorted(places.items(), key=lambda one: (-len(one[1]), one[0]))[:MOST_TAGS]
    made: list[Tag] = []
    for tag, found in most:
        mask = np.zeros(len(table), dtype=np.bool_)
        mask[found] = True
        part = table.where(mask)
        rates = [
            TagRate(
                model=table.models[one],
                other=table.models[other],
                rate=_rate(scores, votes.prompt),
            )
            for one, other in combinations(order, 2)
            for votes, scores in [part.between(one, other)]
            if len(votes)
        ]
        made.append(Tag(tag=tag, votes=len(found), pairings=rates))
    return made, untagged


def reasons(table: Table, votes: Sequence[Vote], pairs: dict[int, Pair]) -> list[Reasons]:
    """Why each model's answers were preferred, those with most wins first."""
    won: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for at in np.flatnonzero(table.preferred & table.paired).tolist():
        ballot = votes[int(table.vote[at])].ballot
        pair = pairs[ballot.pair]
        winner = pair.first if table.choice[at] == FIRST else pair.second
        won.setdefault(winner.model, []).append((ballot.reasons, int(table.prompt[at])))
    return [_reasons(model, found) for model, found in sorted(won.items(), key=lambda one: -len(one[1]))]


def _reasons(model: str, found: list[tuple[tuple[str, ...], int]]) -> Reasons:
    given = [(set(ticked), prompt) for ticked, prompt in found if ticked]
    if not given:
        return Reasons(model=model, wins=len(found), shares={}, why="no reason was given with any of its wins")
    prompts = np.array([prompt for _, prompt in given], dtype=np.int64)

    def ticked(reason: str) -> Floats:
        return np.array([reason in one for one, _ in given], dtype=np.float64)

    counts: dict[str, int] = {}
    for one, _ in given:
        for reason in one:
            counts[reason] = counts.get(reason, 0) + 1
    most = sorted(counts, key=lambda reason: (-counts[reason], reason))[:MOST_REASONS]
    return Reasons(
        model=model,
        wins=len(found),
        shares={reason: _rate(ticked(reason), prompts) for reason in most},
    )


def _rate(scores: Floats, prompts: Ints) -> ResultsNumber:
    return ResultsNumber.of(clustered_rate(scores, prompts).estimate)
