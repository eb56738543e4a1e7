"""Wording of the results of votes, shared by the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trueup.pages import text
from trueup.pages.numbers import NOT_MEASURED, count, estimate, percent, percent_interval
from trueup.ranking.results.results_schema import Absent, Measured, ModelPairing, More, Results, ResultsNumber
from trueup.system.text import duration

Verdict = Literal["CLEAR", "NOT SHOWN", "NOT MEASURED"]


@dataclass(frozen=True, slots=True)
class Headline:
    """The main result in words: a verdict, its subject, a sentence, and a sentence on stopping or on the next model."""

    verdict: Verdict
    subject: str
    sentence: str
    next_step: str


def cleaned(results: Results) -> Results:
    """Return the results with every text in one line and its control characters written out."""
    return text.cleaned(results, text.clean_line)


def share(measured: Measured) -> str:
    """Return a share with its interval as text, such as `61% [52%, 70%]`."""
    if isinstance(measured, Absent):
        return NOT_MEASURED
    return f"{percent(measured.value)} {percent_interval(measured)}"


def coefficient(measured: Measured) -> str:
    """Return a coefficient of agreement with its interval as text, such as `0.62 [0.48, 0.74]`."""
    return NOT_MEASURED if isinstance(measured, Absent) else estimate(measured, decimals=2)


def amount(measured: Measured, decimals: int = 0) -> str:
    """Return a signed number with its interval as text, such as `+34 [+5, +73]`; an open end is an ellipsis."""
    return NOT_MEASURED if isinstance(measured, Absent) else estimate(measured, decimals=decimals, sign=True)


def seconds(value: float) -> str:
    """Return a time in seconds as text, such as `2.4 s`, `12s` or `3m10s`."""
    return f"{value:.1f} s" if value < 9.95 else duration(value)


def verdict(pairing: ModelPairing) -> Verdict:
    """Return CLEAR if one of the two models is shown to win, else NOT SHOWN; NOT MEASURED without a win rate."""
    if isinstance(pairing.rate, Absent):
        return NOT_MEASURED
    return "CLEAR" if pairing.winner else "NOT SHOWN"


def outcome(pairing: ModelPairing) -> str:
    """Return the outcome of a comparison of two models in words, such as `dpo wins` or `not shown either way`."""
    if isinstance(pairing.rate, Absent):
        return "not measured"
    if pairing.winner:
        return f"{pairing.winner} wins"
    return f"{pairing.ahead} ahead, but not after Holm" if pairing.ahead else "not shown either way"


def votes_needed(more: More) -> str:
    """Return in words how many further votes would decide by the ordinary interval, valid for a single look."""
    if more.state == "decided":
        return "none: it is decided" if more.prompts == 0 else "none, if this is the only look"
    if more.state == "more":
        return f"about {count(more.votes, 'more vote')} for a 50% chance of a decision, if the rate stays"
    return f"too close to call: more than {more.limit:,} more votes" if more.state == "too close" else NOT_MEASURED


def prompts_needed(pairing: ModelPairing) -> str:
    """Return `safe to stop now`, or in words how many further prompts would decide by the confidence sequence.

    A confidence sequence is an interval that is valid however often one looks.
    """
    if isinstance(pairing.safe, Absent):
        return f"{NOT_MEASURED}: {pairing.safe.why}"
    prompts = pairing.more.prompts
    if prompts is None:
        return f"not yet: more than {pairing.more.limit:,} more prompts, if the rate stays"
    return f"not yet: about {count(prompts, 'more prompt')}, if the rate stays" if prompts else "safe to stop now"


def headline(results: Results) -> Headline:
    """Return the main result in words: which model wins or leads, by how much, and what a decision still needs."""
    pairings = results.samples[0].pairings if results.samples else []
    if not pairings:
        why = next((gap.why for gap in results.not_measured if "rates" in gap.what), "there are no votes yet")
        return Headline(NOT_MEASURED, "win rates", f"{why[:1].upper()}{why[1:]}.", "")
    if len(results.ranking) > 2:
        return _headline_of_many(results, pairings)
    pairing = pairings[0]
    if isinstance(pairing.rate, Absent):
        why = f"{pairing.model} against {pairing.other}: {pairing.rate.why}."
        return Headline(NOT_MEASURED, "win rate", why, "")
    sentence = f"{pairing.model} wins {_share_of_votes(pairing.rate)} against {pairing.other}."
    subject = outcome(pairing) if pairing.ahead or pairing.winner else f"{pairing.model} or {pairing.other}"
    return Headline(verdict(pairing), subject, sentence, _stop_sentence(pairing))


def _headline_of_many(results: Results, pairings: list[ModelPairing]) -> Headline:
    first = results.ranking[0]
    group = [row for row in results.ranking if row.group == first.group]
    alone = first.rank_high == 1
    place = "first" if alone else f"from {first.rank_low} to {first.rank_high}"
    sentence = f"{first.model} is the strongest of {len(group)} models; 95% of resamples rank it {place}."
    top_two = {first.model, group[1].model}
    pairing = next((pairing for pairing in pairings if {pairing.model, pairing.other} == top_two), None)
    if pairing is None or isinstance(pairing.rate, Absent):
        next_step = f"It was never compared directly with {group[1].model}, which is next."
    else:
        share = _share_of_votes(pairing.rate)
        next_step = f"Against {pairing.other}, which is next, it wins {share}. {_stop_sentence(pairing)}"
    return Headline("CLEAR" if alone else "NOT SHOWN", f"{first.model} leads", sentence, next_step)


def _share_of_votes(rate: ResultsNumber) -> str:
    low, _, high = percent_interval(rate)[1:-1].partition(", ")
    return f"{percent(rate.value)} of {count(rate.n, 'vote')} (95% interval {low} to {high})"


def _stop_sentence(pairing: ModelPairing) -> str:
    more = pairing.more
    if more.prompts == 0:
        return "Safe to stop: this holds however often you looked."
    prompts = count(more.prompts or 0, "more prompt")
    safe = "" if more.prompts is None else f" To be safe however often you look takes about {prompts}."
    if more.state == "decided":
        return f"Decided, if this is the only look.{safe}"
    if more.state == "too close":
        return f"Too close to call: a decision would take more than {more.limit:,} more votes."
    return f"About {count(more.votes, 'more vote')} would decide it with a 50% chance, if the rate stays.{safe}"
