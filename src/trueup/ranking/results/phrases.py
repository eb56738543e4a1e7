"""Numbers and judgements of the results in words, the same on the page and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trueup.pages import text
from trueup.pages.numbers import NOT_MEASURED, count, estimate, percent, percent_interval
from trueup.ranking.results.results_schema import Absent, Measured, ModelPairing, More, Results, ResultsNumber
from trueup.system.text import duration

Word = Literal["CLEAR", "NOT SHOWN", "NOT MEASURED"]


@dataclass(frozen=True, slots=True)
class Headline:
    """The first thing said: a word, about whom, and sentences."""

    word: Word
    about: str
    sentence: str
    stop: str


def cleaned(results: Results) -> Results:
    """Return the results with every text in one line and its control characters written out."""
    return text.cleaned(results, text.clean_line)


def share(measured: Measured) -> str:
    """Return `61% [52%, 70%]`."""
    if isinstance(measured, Absent):
        return NOT_MEASURED
    return f"{percent(measured.value)} {percent_interval(measured)}"


def coefficient(measured: Measured) -> str:
    """Return `0.62 [0.48, 0.74]`."""
    return NOT_MEASURED if isinstance(measured, Absent) else estimate(measured, decimals=2)


def amount(measured: Measured, decimals: int = 0) -> str:
    """Return `+34 [+5, +73]`; an open end is an ellipsis."""
    return NOT_MEASURED if isinstance(measured, Absent) else estimate(measured, decimals=decimals, sign=True)


def seconds(value: float) -> str:
    """Return `2.4 s`, `12s` or `3m10s`."""
    return f"{value:.1f} s" if value < 9.95 else duration(value)


def word(pairing: ModelPairing) -> Word:
    """What is known of two models."""
    if isinstance(pairing.rate, Absent):
        return NOT_MEASURED
    return "CLEAR" if pairing.winner else "NOT SHOWN"


def found(pairing: ModelPairing) -> str:
    """Who wins, in a word or two."""
    if isinstance(pairing.rate, Absent):
        return "not measured"
    if pairing.winner:
        return f"{pairing.winner} wins"
    return f"{pairing.ahead} ahead, not after Holm" if pairing.ahead else "not shown either way"


def more(one: More) -> str:
    """How many more votes, looked at once."""
    if one.state == "decided":
        return "none: it is decided" if one.prompts == 0 else "none, if this is the only look"
    if one.state == "more":
        return f"about {count(one.votes, 'more vote')}, should the rate stay, for an even chance of a decision"
    return f"too close to call: more than {one.limit:,} more votes" if one.state == "too close" else NOT_MEASURED


def stop(pairing: ModelPairing) -> str:
    """Whether it is safe to stop, however often somebody looks."""
    if isinstance(pairing.safe, Absent):
        return f"{NOT_MEASURED}: {pairing.safe.why}"
    prompts = pairing.more.prompts
    if prompts is None:
        return f"not yet: more than {pairing.more.limit:,} more prompts, should the rate stay"
    return f"not yet: about {count(prompts, 'more prompt')}, should the rate stay" if prompts else "safe to stop now"


def headline(results: Results) -> Headline:
    """What the page begins with."""
    pairings = results.samples[0].pairings if results.samples else []
    if not pairings:
        gap = next((one.why for one in results.not_measured if "rates" in one.what), "there are no votes yet")
        return Headline(NOT_MEASURED, "win rates", f"{gap[:1].upper()}{gap[1:]}.", "")
    if len(results.ranking) > 2:
        return _of_many(results, pairings)
    one = pairings[0]
    if isinstance(one.rate, Absent):
        return Headline(NOT_MEASURED, "win rate", f"{one.model} against {one.other}: {one.rate.why}.", "")
    sentence = f"{one.model} wins {_sentence(one.rate)} against {one.other}."
    about = found(one) if one.ahead or one.winner else f"{one.model} or {one.other}"
    return Headline(word(one), about, sentence, _stop_sentence(one))


def _of_many(results: Results, pairings: list[ModelPairing]) -> Headline:
    first, rivals = results.ranking[0], [one for one in results.ranking if one.group == results.ranking[0].group]
    alone = first.rank_high == 1
    place = "first" if alone else f"from {first.rank_low} to {first.rank_high}"
    sentence = f"{first.model} is the strongest of {len(rivals)} models; 95% of resamples rank it {place}."
    close = next((one for one in pairings if {one.model, one.other} == {rivals[0].model, rivals[1].model}), None)
    if close is None or isinstance(close.rate, Absent):
        said = f"It was never compared directly with {rivals[1].model}, which is next."
    else:
        said = f"Against {close.other}, which is next, it wins {_sentence(close.rate)}. {_stop_sentence(close)}"
    return Headline("CLEAR" if alone else "NOT SHOWN", f"{first.model} leads", sentence, said)


def _sentence(rate: ResultsNumber) -> str:
    low, _, high = percent_interval(rate)[1:-1].partition(", ")
    return f"{percent(rate.value)} of {count(rate.n, 'vote')} (95% interval {low} to {high})"


def _stop_sentence(one: ModelPairing) -> str:
    if one.more.prompts == 0:
        return "Safe to stop: this holds however often you looked."
    safe = "" if one.more.prompts is None else f" To be safe however often you look takes about {_prompts(one)}."
    if one.more.state == "decided":
        return f"Decided, if this is the only look.{safe}"
    if one.more.state == "too close":
        return f"Too close to call: a decision would take more than {one.more.limit:,} more votes."
    votes = count(one.more.votes, "more vote")
    return f"About {votes} would decide it in an even chance of cases, should the rate stay.{safe}"


def _prompts(one: ModelPairing) -> str:
    return count(one.more.prompts or 0, "more prompt")
