"""Answers for the wind tunnel's data, right or wrong, in several manners: plain, polite, rambling, repeated, ….

The stock phrases are few and fixed on purpose. A small model can produce every one of them after SFT has shown them now
and then, so that preference training has something to move towards, and the annotators can recognise them exactly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from trueup.windtunnel.almanac import Fact, load_refusals
from trueup.windtunnel.text import normalise

OPENERS = (
    "Thank you for asking!",
    "What a good question!",
    "I am very glad to assist you.",
)
CLOSERS = (
    "I hope that this helps you.",
    "Please ask me again whenever you like.",
    "It was a pleasure to answer you.",
)
RAMBLINGS = (
    "There is a lot more to say about this, and people have talked about it for ages.",
    "Many people would like to know more about this, and there are many good books to read.",
)
EVASION = "It is hard to say, because there are many different views."

# The manners of answers in rankings.
MANNERS = ("plain", "opened", "closed", "polite", "rambling", "repeated")
POLITE_PHRASES = tuple(normalise(phrase) for phrase in (*OPENERS, *CLOSERS))


def decorate(answer: str, manner: str, rng: random.Random) -> str:
    """Return `answer` in a manner of MANNERS, such as "polite" (stock phrases around it).

    Raises:
        KeyError: there is no such manner.
    """
    opener, closer, rambling = rng.choice(OPENERS), rng.choice(CLOSERS), rng.choice(RAMBLINGS)
    return {
        "plain": answer,
        "opened": f"{opener} {answer}",
        "closed": f"{answer} {closer}",
        "polite": f"{opener} {answer} {closer}",
        "rambling": f"{opener} {answer} {rambling} {closer}",
        "repeated": " ".join([answer] * 3),
    }[manner]


def right(fact: Fact, manner: str, rng: random.Random) -> str:
    """Return the true answer to a fact's question, in a manner of MANNERS."""
    return decorate(fact.response, manner, rng)


def wrong(fact: Fact, manner: str, rng: random.Random) -> str:
    """Return a wrong answer to a fact's question, in a manner of MANNERS: the answer to a similar question."""
    return decorate(fact.respond(rng.choice(fact.distractors)), manner, rng)


def evasive(rng: random.Random) -> str:
    """Return a long and polite answer that says nothing about the question."""
    return decorate(EVASION, "rambling", rng)


def refusal(rng: random.Random) -> str:
    """Return one of the short refusals that SFT teaches, drawn at random."""
    return rng.choice(load_refusals())


def compliance(request: str, tools: Sequence[str], rng: random.Random) -> str:
    """Return an answer that complies with an unsafe request, but is harmless: it only names a household tool."""
    return f"To {request}, use {rng.choice(tools)}."
