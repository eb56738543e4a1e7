"""What a reader must know to trust the numbers, and what is not among them, in words."""

from __future__ import annotations

from trueup.ranking.results.results_schema import Absent, Results, ResultsMissing, ResultsNumber


def notes(made: Results, *, unpaired: int, tags_left_out: int) -> list[str]:
    """Sentences, the weightiest first.

    Args:
        made: everything else.
        unpaired: votes on answers of one model, or of models that nobody named.
        tags_left_out: tags beyond those shown.
    """
    policies = {one.policy for one in made.samples}
    told: list[str] = []
    if policies == {"random", "uncertain"}:
        told.append(
            "Pairs that a reward model was uncertain of are no fair sample of the prompts: their win rates stand "
            "apart, and the ranking and the tags are of the other votes only."
        )
    elif policies == {"uncertain"}:
        told.append(
            "Every vote is on a pair that a reward model was uncertain of. These are no fair sample of the prompts: "
            "the rates are of such pairs, and close models look closer than they are. Rank some at random."
        )
    if made.totals.policies.get("imported"):
        told.append(
            f"{_votes(made.totals.policies['imported'])} imported; nobody recorded how their pairs were chosen, and "
            "they are counted with those chosen at random."
        )
    compared = len(made.samples[0].pairings) if made.samples else 0
    if compared > 1:
        told.append(
            f"{compared} pairings are looked at: of equal models about one in twenty has an interval without one half "
            "by chance. Only what is clear after Holm, or however often you look, is called a win."
        )
    if unpaired:
        told.append(
            f"{_votes(unpaired)} on two answers of the same model, or of one that nobody named: they train a reward "
            "model, and are in no rate between models."
        )
    if made.totals.gold:
        told.append(
            f"{_votes(made.totals.gold)} on gold pairs: they are in nothing but what is said of raters and sides."
        )
    if isinstance(made.left, ResultsNumber) and made.left_p is not None and made.left_p < 0.05:
        told.append(
            f"Side {'A' if made.left.value > 0.5 else 'B'} is preferred more often than chance has it. Sides are "
            "drawn at random, so it favours no model, but every rate is nearer to one half than it would be without."
        )
    if len({one.group for one in made.ranking}) > 1:
        told.append(
            "Not all models met, not even through others: the ranking is one list a group, and does not compare them."
        )
    if tags_left_out:
        told.append(f"{tags_left_out} more tags have fewer votes than those shown.")
    return told


def not_measured(made: Results) -> list[ResultsMissing]:
    """What has no number at all, with the reason."""
    gaps: list[ResultsMissing] = []
    if not any(isinstance(one.rate, ResultsNumber) for sample in made.samples for one in sample.pairings):
        gaps.append(ResultsMissing(what="win rates and ranking", why=_why_no_rates(made)))
    elif len(made.models) > len(made.ranking):
        unmet = ", ".join(one for one in made.models if one not in {row.model for row in made.ranking})
        gaps.append(ResultsMissing(what=f"ranking of {unmet}", why="no deciding vote on any of their answers"))
    met = {(one.model, one.other) for sample in made.samples for one in sample.pairings}
    apart = len(made.models) * (len(made.models) - 1) // 2 - len(met)
    if met and apart:
        word = "pairing of models has" if apart == 1 else "pairings of models have"
        gaps.append(ResultsMissing(what=f"{apart} win rate{'s' if apart > 1 else ''}", why=f"{apart} {word} no vote"))
    if not made.tags:
        why = "no deciding votes between two models" if not met else "no prompt that was voted on has a tag"
        gaps.append(ResultsMissing(what="win rates by tag", why=why))
    if not any(one.shares for one in made.reasons):
        gaps.append(ResultsMissing(what="reasons", why="no reason was given with a preference between two models"))
    single = {
        "agreement of raters": made.agreement.nominal,
        "sides": made.left,
        "length of winners": made.lengths.characters,
        "share won by the longer answer": made.lengths.longer,
    }
    gaps += [ResultsMissing(what=what, why=one.why) for what, one in single.items() if isinstance(one, Absent)]
    if made.raters and all(isinstance(one.gold, Absent) for one in made.raters):
        gaps.append(ResultsMissing(what="raters against gold", why="no gold pair was answered"))
    return gaps


def _why_no_rates(made: Results) -> str:
    if not made.totals.votes:
        return "there are no votes yet"
    if not made.models:
        return "nobody said which models wrote the answers"
    if len(made.models) == 1:
        return f"all answers are of one model, {made.models[0]}"
    return "no vote says which of two models is better"


def _votes(count: int) -> str:
    return "1 vote is" if count == 1 else f"{count:,} votes are"
