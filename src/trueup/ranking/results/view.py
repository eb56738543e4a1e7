"""Compute all results from the pairs and votes of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trueup.ranking.results.agreement import agreement
from trueup.ranking.results.lengths import lengths
from trueup.ranking.results.models import MOST_TAGS, by_tag, reasons, sample
from trueup.ranking.results.notes import not_measured, notes
from trueup.ranking.results.raters import left_share, raters
from trueup.ranking.results.results_schema import PolicySample, Results, Strength, VoteTotals
from trueup.ranking.results.strengths import rank
from trueup.ranking.results.table import BOTH_BAD, IMPORTED, POLICIES, SKIP, TIE, UNCERTAIN, Table, tabulate

if TYPE_CHECKING:
    from trueup.data.votes.vote_types import Pair, StoreSettings, Vote


def view(
    pairs: Sequence[Pair], votes: Sequence[Vote], *, settings: StoreSettings | None = None, seed: int = 0,
    event: int | None = None,
) -> Results:  # fmt: skip
    """Return the results of the votes; the same votes and seed give the same results.

    Comparisons of models use the votes on pairs chosen at random, if there are any; win rates on pairs that a reward
    model was uncertain of are reported separately. Agreement, lengths and reasons use the votes on both. Gold pairs are
    used for raters and sides only.

    Args:
        pairs: all pairs of the store.
        votes: the votes that were not undone, in any order.
        settings: settings of the store, for the number of votes that a pair is to have; by default 1.
        seed: seed of the bootstraps.
        event: event of the store as of which the votes are given; by default that of the last vote.

    Raises:
        ValueError: a vote is on a pair that is not among `pairs`.
    """
    with_gold = tabulate(pairs, votes)
    table = with_gold.where(with_gold.gold < 0)
    is_uncertain = table.policy == UNCERTAIN
    fair, uncertain = table.where(~is_uncertain), table.where(is_uncertain)
    main = fair if _decides(fair) or not _decides(uncertain) else uncertain
    ranking = rank(main, seed=seed)
    order = _order(table, ranking)
    samples: list[PolicySample] = []
    if main is fair and fair.paired.any():
        k = 1 if settings is None else settings.raters_per_pair
        samples.append(sample(fair, "random", order, k=k, seed=seed))
    if _decides(uncertain):
        samples.append(sample(uncertain, "uncertain", order, seed=seed))
    pair_of_id = {pair.id: pair for pair in pairs}
    tags_of_votes = [pair_of_id[votes[index].ballot.pair].prompt.tags for index in main.vote.tolist()]
    tags, untagged = by_tag(main, tags_of_votes, order)
    left, left_p = left_share(with_gold)
    results = Results(
        totals=_totals(pairs, votes, with_gold, table, settings, event),
        models=[table.models[model] for model in order],
        samples=samples,
        ranking=ranking,
        tags=tags,
        untagged=untagged,
        reasons=reasons(table, votes, pair_of_id),
        agreement=agreement(table, seed=seed),
        raters=raters(with_gold),
        left=left,
        left_p=left_p,
        lengths=lengths(table),
    )
    unpaired = int((~table.paired).sum())
    tags_left_out = max(0, len({tag for tags in tags_of_votes for tag in tags}) - MOST_TAGS)
    sentences = notes(results, unpaired=unpaired, tags_left_out=tags_left_out)
    return results.model_copy(update={"notes": sentences, "not_measured": not_measured(results)})


def _decides(table: Table) -> bool:
    return bool((table.deciding & table.paired).any())


def _order(table: Table, ranking: Sequence[Strength]) -> list[int]:
    """Return the numbers of all models: those in `ranking` in its order, then the others by name."""
    ranked = [table.models.index(strength.model) for strength in ranking]
    return [*ranked, *(model for model in range(len(table.models)) if model not in ranked)]


def _totals(
    pairs: Sequence[Pair], votes: Sequence[Vote], with_gold: Table, table: Table, settings: StoreSettings | None,
    event: int | None,
) -> VoteTotals:  # fmt: skip
    per_pair = np.unique(table.pair[table.choice != SKIP], return_counts=True)[1]
    times = sorted(vote.at for vote in votes)
    policies = np.bincount(with_gold.policy, minlength=IMPORTED + 1)
    without_gold = [pair for pair in pairs if pair.gold is None]
    return VoteTotals(
        prompts=len({pair.prompt.id for pair in without_gold}),
        pairs=len(without_gold),
        voted=len(per_pair),
        complete=None if settings is None else int((per_pair >= settings.raters_per_pair).sum()),
        votes=len(votes),
        preferences=int(table.preferred.sum()),
        ties=int((table.choice == TIE).sum()),
        both_bad=int((table.choice == BOTH_BAD).sum()),
        skips=int((table.choice == SKIP).sum()),
        gold=len(with_gold) - len(table),
        edits=sum(bool(vote.ballot.edit) for vote in votes),
        raters=len(with_gold.raters),
        policies={name: int(count) for name, count in zip(POLICIES, policies, strict=True) if count},
        first_at=times[0] if times else "",
        last_at=times[-1] if times else "",
        event=max((vote.id for vote in votes), default=0) if event is None else event,
    )
