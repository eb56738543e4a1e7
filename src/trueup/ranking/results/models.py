"""Comparison of models: win rates, further votes needed, rates by tag, and reasons for wins."""

from __future__ import annotations

import math
from collections import Counter
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
"""Further votes above which a rate is too close to one half to call."""
MOST_TAGS = 50
MOST_REASONS = 12


def sample(table: Table, policy: Policy, order: Sequence[int], *, k: int = 1, seed: int = 0) -> PolicySample:
    """Return the win rates of every two models over the pairs chosen by one policy.

    Args:
        table: the votes on these pairs.
        policy: the policy that chose them.
        order: models, the strongest first: rates are of the earlier model against the later one.
        k: number of votes that a pair is to have.
        seed: seed of the bootstraps.
    """
    deciding = int((table.deciding & table.paired).sum())
    pairings = [
        pairing
        for model, other in combinations(order, 2)
        if (pairing := _pairing(table, model, other, deciding, k=k if policy == "random" else 0, seed=seed))
    ]
    adjusted = holm({str(index): pairing.p for index, pairing in enumerate(pairings) if pairing.p is not None})
    pairings = [
        pairing.model_copy(update={"p_adjusted": adjusted.get(str(index))}) for index, pairing in enumerate(pairings)
    ]
    return PolicySample(policy=policy, votes=deciding, pairings=pairings)


def _pairing(table: Table, model: int, other: int, total: int, *, k: int, seed: int) -> ModelPairing | None:
    """Return the comparison of two models, or None if no vote is on answers of both.

    Args:
        table: the votes.
        model: number of the model whose win rate is returned.
        other: number of the model it is compared with.
        total: deciding votes of all comparisons, which share the bootstrap's budget by their votes.
        k: number of votes that a pair is to have; 0 if the order of the prompts is not random.
        seed: seed of the bootstrap.
    """
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
        absent = Absent(why="no vote says which is better: all are skips or “both bad”")
        more = More(state="not measured", limit=LIMIT)
        return ModelPairing(**common, rate=absent, design=1, p=None, safe=absent, more=more, controlled=absent)
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
    """Return the confidence sequence of a win rate: an interval that stays valid however often it is looked at.

    Args:
        kept: the votes on two models.
        scores: (N,) score of the first of them in each vote.
        k: number of votes that a pair is to have; 0, which gives no interval, if the order of prompts is not random.
    """
    if not k:
        return Absent(why="pairs were chosen by the uncertainty of a model, so their order is not random")
    voted = kept.choice != SKIP
    complete = outcomes(scores[voted], kept.prompt[voted], k)
    if not len(complete):
        return Absent(
            why=f"no prompt has the {k} votes that it is to have" if k > 1 else "no vote is a preference or a tie"
        )
    return confidence_sequence(complete)


def _more(rate: ClusteredRate, prompts: int | None) -> More:
    if rate.decided or prompts == 0:
        return More(state="decided", prompts=prompts, limit=LIMIT)
    more = votes_needed(rate) - rate.n
    if more > LIMIT:
        return More(state="too close", prompts=prompts, limit=LIMIT)
    return More(state="more", votes=max(1, math.ceil(more)), prompts=prompts, limit=LIMIT)


def by_tag(table: Table, tags: Sequence[tuple[str, ...]], order: Sequence[int]) -> tuple[list[Tag], int]:
    """Return the win rates on the prompts of each tag, and the number of votes on untagged prompts.

    Tags with most votes come first.

    Args:
        table: votes.
        tags: (N,) tags of each vote's prompt.
        order: models, the strongest first.
    """
    kept = np.flatnonzero(table.deciding & table.paired).tolist()
    votes_of_tag: dict[str, list[int]] = {}
    for index in kept:
        for tag in dict.fromkeys(tags[index]):
            votes_of_tag.setdefault(tag, []).append(index)
    untagged = sum(not tags[index] for index in kept)
    most = sorted(votes_of_tag.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_TAGS]
    results: list[Tag] = []
    for tag, indices in most:
        mask = np.zeros(len(table), dtype=np.bool_)
        mask[indices] = True
        tagged = table.where(mask)
        rates = [
            TagRate(model=table.models[model], other=table.models[other], rate=_rate(scores, votes.prompt))
            for model, other in combinations(order, 2)
            for votes, scores in [tagged.between(model, other)]
            if len(votes)
        ]
        results.append(Tag(tag=tag, votes=len(indices), pairings=rates))
    return results, untagged


def reasons(table: Table, votes: Sequence[Vote], pairs: dict[int, Pair]) -> list[Reasons]:
    """Return the reasons that raters gave for preferring each model's answers, the model with most wins first."""
    wins: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for index in np.flatnonzero(table.preferred & table.paired).tolist():
        ballot = votes[int(table.vote[index])].ballot
        pair = pairs[ballot.pair]
        winner = pair.first if table.choice[index] == FIRST else pair.second
        wins.setdefault(winner.model, []).append((ballot.reasons, int(table.prompt[index])))
    return [_reasons(model, won) for model, won in sorted(wins.items(), key=lambda item: -len(item[1]))]


def _reasons(model: str, wins: list[tuple[tuple[str, ...], int]]) -> Reasons:
    """Return the reasons given for one model's wins; each element of `wins` is (reasons, number of the prompt)."""
    reasoned = [(set(reasons), prompt) for reasons, prompt in wins if reasons]
    if not reasoned:
        return Reasons(model=model, wins=len(wins), shares={}, why="no reason was given with any of its wins")
    prompts = np.array([prompt for _, prompt in reasoned], dtype=np.int64)

    def named(reason: str) -> Floats:
        return np.array([reason in reasons for reasons, _ in reasoned], dtype=np.float64)

    counts = Counter(reason for reasons, _ in reasoned for reason in reasons)
    most = sorted(counts, key=lambda reason: (-counts[reason], reason))[:MOST_REASONS]
    return Reasons(model=model, wins=len(wins), shares={reason: _rate(named(reason), prompts) for reason in most})


def _rate(scores: Floats, prompts: Ints) -> ResultsNumber:
    return ResultsNumber.of(clustered_rate(scores, prompts).estimate)
