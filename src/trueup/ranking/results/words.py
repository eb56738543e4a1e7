"""Numbers and judgements of the results in words, the same on the page and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trueup.ranking.results.schema import Absent, Measured, More, Number, Pairing, Results
from trueup.system.text import clean, duration

MINUS = "\u2212"
NOT_MEASURED = "NOT MEASURED"
Word = Literal["CLEAR", "NOT SHOWN", "NOT MEASURED"]
SYMBOLS: dict[str, str] = {"CLEAR": "check", "NOT SHOWN": "question", "NOT MEASURED": "dash"}


@dataclass(frozen=True, slots=True)
class Headline:
    """The first thing said: a word, about whom, and sentences."""

    word: Word
    about: str
    sentence: str
    stop: str


def cleaned(results: Results) -> Results:
    """The same results with every text, keys included, passed through `clean`: nothing can act, everything is seen."""
    return Results.model_validate(_clean(results.model_dump()))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(" ".join(value.split()), one_line=True)
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def share(one: Measured) -> str:
    """`61% [52%, 70%]`."""
    if isinstance(one, Absent):
        return NOT_MEASURED
    return f"{percent(one.value)} {interval(one)}"


def percent(value: float) -> str:
    """A share in whole percent, except that what is not all is never 100%, and what is not nothing never 0%."""
    rounded = round(100 * value)
    if rounded in (0, 100) and 0 < value < 1:
        return f"{'<1' if rounded == 0 else '>99'}%"
    return f"{rounded}%"


def interval(one: Number) -> str:
    """`[52%, 70%]`: rounded outwards where rounding would move an end across one half."""
    low, high = one.low or 0.0, 1.0 if one.high is None else one.high
    ends = [_end(low), _end(high)]
    return f"[{ends[0]}, {ends[1]}]"


def _end(value: float) -> str:
    """Near one half a decimal is kept: 50.4% is not 50%."""
    return f"{100 * value:.1f}%" if round(100 * value) == 50 and abs(value - 0.5) > 5e-4 else percent(value)


def coefficient(one: Measured) -> str:
    """`0.62 [0.48, 0.74]`."""
    if isinstance(one, Absent):
        return NOT_MEASURED
    return f"{decimal(one.value)} [{_open(one.low, 2)}, {_open(one.high, 2)}]"


def amount(one: Measured, *, places: int = 0, sign: bool = True) -> str:
    """`+34 [+5, +73]`; an open end is an ellipsis."""
    if isinstance(one, Absent):
        return NOT_MEASURED
    ends = (_open(end, places, sign=sign) for end in (one.low, one.high))
    return f"{decimal(one.value, places, sign=sign)} [{', '.join(ends)}]"


def decimal(value: float, places: int = 2, *, sign: bool = False) -> str:
    """A number with so many decimals and a true minus sign; never a minus before zero."""
    text = f"{value:{'+' if sign else ''},.{places}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def _open(value: float | None, places: int, *, sign: bool = False) -> str:
    return "…" if value is None else decimal(value, places, sign=sign)


def p_value(p: float | None) -> str:
    """`p 0.03`, `p < 0.001`; nothing where there is none."""
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def count(n: float, noun: str) -> str:
    """`1 vote`, `1,200 votes`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def seconds(value: float) -> str:
    """`2.4 s`, `12s`, `3m10s`."""
    return f"{value:.1f} s" if value < 9.95 else duration(value)


def word(pairing: Pairing) -> Word:
    """What is known of two models."""
    if isinstance(pairing.rate, Absent):
        return NOT_MEASURED
    return "CLEAR" if pairing.winner else "NOT SHOWN"


def found(pairing: Pairing) -> str:
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


def stop(pairing: Pairing) -> str:
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


def _of_many(results: Results, pairings: list[Pairing]) -> Headline:
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


def _sentence(rate: Number) -> str:
    low, _, high = interval(rate)[1:-1].partition(", ")
    return f"{percent(rate.value)} of {count(rate.n, 'vote')} (95% interval {low} to {high})"


def _stop_sentence(one: Pairing) -> str:
    if one.more.prompts == 0:
        return "Safe to stop: this holds however often you looked."
    safe = "" if one.more.prompts is None else f" To be safe however often you look takes about {_prompts(one)}."
    if one.more.state == "decided":
        return f"Decided, if this is the only look.{safe}"
    if one.more.state == "too close":
        return f"Too close to call: a decision would take more than {one.more.limit:,} more votes."
    votes = count(one.more.votes, "more vote")
    return f"About {votes} would decide it in an even chance of cases, should the rate stay.{safe}"


def _prompts(one: Pairing) -> str:
    return count(one.more.prompts or 0, "more prompt")
