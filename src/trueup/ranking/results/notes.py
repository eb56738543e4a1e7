"""Write in words the caveats about the results of the votes, and which results are missing and why."""

from __future__ import annotations

from trueup.ranking.results.results_schema import Absent, Results, ResultsMissing, ResultsNumber


def notes(results: Results, *, unpaired: int, tags_left_out: int) -> list[str]:
    """Return the caveats as sentences, the most important first.

    Args:
        results: the results.
        unpaired: number of votes on answers of one model, or of unnamed models.
        tags_left_out: number of tags that are not shown.
    """
    policies = {sample.policy for sample in results.samples}
    sentences: list[str] = []
    if policies == {"random", "uncertain"}:
        sentences.append(
            "Pairs that a reward model was uncertain of are no fair sample of the prompts: their win rates stand "
            "apart, and the ranking and the tags use the other votes only."
        )
    elif policies == {"uncertain"}:
        sentences.append(
            "Every vote is on a pair that a reward model was uncertain of. These are no fair sample of the prompts: "
            "the rates are of such pairs, and close models look closer than they are. Rank some at random."
        )
    if results.totals.policies.get("imported"):
        sentences.append(
            f"{_votes(results.totals.policies['imported'])} imported; it is not recorded how their pairs were "
            "chosen, and they are counted with those chosen at random."
        )
    compared = len(results.samples[0].pairings) if results.samples else 0
    if compared > 1:
        sentences.append(
            f"{compared} pairings are compared: of equal models about one in twenty has an interval without one half "
            "by chance. A win is a result that is clear after Holm's correction or however often you look."
        )
    if unpaired:
        sentences.append(
            f"{_votes(unpaired)} on two answers of the same model, or of an unnamed one: they can train a reward "
            "model, but are not part of any rate between models."
        )
    if results.totals.gold:
        sentences.append(f"{_votes(results.totals.gold)} on gold pairs: they are used for raters and sides only.")
    if isinstance(results.left, ResultsNumber) and results.left_p is not None and results.left_p < 0.05:
        sentences.append(
            f"Side {'A' if results.left.value > 0.5 else 'B'} is preferred more often than by chance. Sides are "
            "drawn at random, so this favours no model, but it moves every rate towards one half."
        )
    if len({row.group for row in results.ranking}) > 1:
        sentences.append(
            "Some models were never compared, not even through others: the ranking is a separate list for each group."
        )
    if tags_left_out:
        sentences.append(f"{tags_left_out} more tags have fewer votes than those shown.")
    return sentences


def not_measured(results: Results) -> list[ResultsMissing]:
    """Return the results that are missing altogether, each with the reason."""
    gaps: list[ResultsMissing] = []
    pairings = [pairing for sample in results.samples for pairing in sample.pairings]
    if not any(isinstance(pairing.rate, ResultsNumber) for pairing in pairings):
        gaps.append(ResultsMissing(what="win rates and ranking", why=_why_no_rates(results)))
    elif len(results.models) > len(results.ranking):
        unranked = ", ".join(model for model in results.models if model not in {row.model for row in results.ranking})
        gaps.append(ResultsMissing(what=f"ranking of {unranked}", why="no deciding vote on any of their answers"))
    compared = {(pairing.model, pairing.other) for pairing in pairings}
    missing = len(results.models) * (len(results.models) - 1) // 2 - len(compared)
    if compared and missing:
        why = f"{missing} {'pairing of models has' if missing == 1 else 'pairings of models have'} no vote"
        gaps.append(ResultsMissing(what=f"{missing} win rate{'s' if missing > 1 else ''}", why=why))
    if not results.tags:
        why = "no deciding votes between two models" if not compared else "no prompt that was voted on has a tag"
        gaps.append(ResultsMissing(what="win rates by tag", why=why))
    if not any(reasons.shares for reasons in results.reasons):
        gaps.append(ResultsMissing(what="reasons", why="no reason was given with a preference between two models"))
    single = {
        "agreement of raters": results.agreement.nominal,
        "sides": results.left,
        "length of winners": results.lengths.characters,
        "share won by the longer answer": results.lengths.longer,
    }
    gaps += [ResultsMissing(what=what, why=value.why) for what, value in single.items() if isinstance(value, Absent)]
    if results.raters and all(isinstance(rater.gold, Absent) for rater in results.raters):
        gaps.append(ResultsMissing(what="raters against gold", why="no gold pair was answered"))
    return gaps


def _why_no_rates(results: Results) -> str:
    if not results.totals.votes:
        return "there are no votes yet"
    if not results.models:
        return "the models that wrote the answers are unknown"
    if len(results.models) == 1:
        return f"all answers are of one model, {results.models[0]}"
    return "no vote says which of two models is better"


def _votes(count: int) -> str:
    return "1 vote is" if count == 1 else f"{count:,} votes are"
