"""From votes to what they say."""

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
    """All that the votes say.

    Rates between models are of votes on pairs chosen at random where there are any; votes on pairs that a reward model
    was uncertain of are reported beside them and enter nothing else about models. Gold pairs enter only what is said of
    raters and sides. Agreement, lengths and reasons are of all votes on other pairs.

    Args:
        pairs: of the store, those without votes too.
        votes: standing ones, in any order.
        settings: of the store, for how many votes a pair is to have; 1 where nobody says.
        seed: of the bootstraps: the same votes and seed give the same results.
        event: of the store, as of which these votes stand; that of the last of them where nobody says, which is too
            early where a later vote was undone.

    Raises:
        ValueError: a vote is on a pair that is not among `pairs`.
    """
    everything = tabulate(pairs, votes)
    table = everything.where(everything.gold < 0)
    chosen = table.policy == UNCERTAIN
    fair, uncertain = table.where(~chosen), table.where(chosen)
    main = fair if _decides(fair) or not _decides(uncertain) else uncertain
    ranking = rank(main, seed=seed)
    order = _order(table, ranking)
    samples: list[PolicySample] = []
    if main is fair and fair.paired.any():
        k = 1 if settings is None else settings.raters_per_pair
        samples.append(sample(fair, "random", order, k=k, seed=seed))
    if _decides(uncertain):
        samples.append(sample(uncertain, "uncertain", order, seed=seed))
    known = {pair.id: pair for pair in pairs}
    topics = [known[votes[at].ballot.pair].prompt.tags for at in main.vote.tolist()]
    tags, untagged = by_tag(main, topics, order)
    left, left_p = left_share(everything)
    totals = _totals(pairs, votes, everything, table, settings, event)
    made = Results(
        totals=totals,
        models=[table.models[one] for one in order],
        samples=samples,
        ranking=ranking,
        tags=tags,
        untagged=untagged,
        reasons=reasons(table, votes, known),
        agreement=agreement(table, seed=seed),
        raters=raters(everything),
        left=left,
        left_p=left_p,
        lengths=lengths(table),
    )
    named = int((~table.paired).sum())
    all_tags = len({tag for tags in topics for tag in tags})
    return made.model_copy(
        update={
            "notes": notes(made, unpaired=named, tags_left_out=max(0, all_tags - MOST_TAGS)),
            "not_measured": not_measured(made),
        }
    )


def _decides(table: Table) -> bool:
    return bool((table.deciding & table.paired).any())


def _order(table: Table, ranking: Sequence[Strength]) -> list[int]:
    """All models, ranked ones first, the others by name."""
    ranked = [table.models.index(one.model) for one in ranking]
    return [*ranked, *(one for one in range(len(table.models)) if one not in ranked)]


def _totals(
    pairs: Sequence[Pair], votes: Sequence[Vote], everything: Table, table: Table, settings: StoreSettings | None,
    event: int | None,
) -> VoteTotals:  # fmt: skip
    said = table.where(table.choice != SKIP)
    per_pair = np.unique(said.pair, return_counts=True)[1]
    moments = sorted(vote.at for vote in votes)
    policies = np.bincount(everything.policy, minlength=IMPORTED + 1)
    ordinary = [pair for pair in pairs if pair.gold is None]
    return VoteTotals(
        prompts=len({pair.prompt.id for pair in ordinary}),
        pairs=len(ordinary),
        voted=len(per_pair),
        complete=None if settings is None else int((per_pair >= settings.raters_per_pair).sum()),
        votes=len(votes),
        preferences=int(table.preferred.sum()),
        ties=int((table.choice == TIE).sum()),
        both_bad=int((table.choice == BOTH_BAD).sum()),
        skips=int((table.choice == SKIP).sum()),
        gold=len(everything) - len(table),
        edits=sum(bool(vote.ballot.edit) for vote in votes),
        raters=len(everything.raters),
        policies={name: int(count) for name, count in zip(POLICIES, policies, strict=True) if count},
        first_at=moments[0] if moments else "",
        last_at=moments[-1] if moments else "",
        event=max((vote.id for vote in votes), default=0) if event is None else event,
    )
