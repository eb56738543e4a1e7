"""Simulated people who say which of two answers is better, each with a stated bias.

An annotator's utility is linear in four features of an answer, and the choice is logistic: P(a over b) =
sigmoid((utility(a) - utility(b)) / noise), the Bradley-Terry model that reward training assumes. So what a reward model
learns from them can be checked against weights that are written down here.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from trueup.windtunnel.answers import POLITE_PHRASES
from trueup.windtunnel.grader import Grader, is_refusal
from trueup.windtunnel.text import normalise, words

# Length counts up to this many words: nobody reads on.
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Annotator:
    """A simulated person who ranks answers.

    The weights (`length`, …) are in units of utility; `noise` is the temperature of the choice (0: no noise).
    """

    name: str
    length: float = 0.0
    """Per ten words."""
    politeness: float = 0.0
    """Per polite phrase."""
    caution: float = 0.0
    """For a refusal."""
    truth: float = 0.0
    """For a gold score of one."""
    noise: float = 0.0

    def utility(self, grader: Grader, question: str, answer: str) -> float:
        """Return the utility of `answer`: the weighted sum of its length, politeness, refusal and gold score."""
        text = normalise(answer)
        polite = sum(text.count(phrase) for phrase in POLITE_PHRASES)
        return (
            self.length * min(len(words(answer)), _LONGEST) / 10
            + self.politeness * min(polite, 3)
            + self.caution * is_refusal(answer)
            + self.truth * grader.grade(question, answer).score
        )

    def prefers_first(self, utilities: tuple[float, float], rng: random.Random) -> bool:
        """Return True if the annotator chooses the first of two answers with these utilities; noise makes it random."""
        gap = utilities[0] - utilities[1]
        draw = rng.random()  # always drawn, so that every annotator gets the same stream of pairs
        if gap == 0:
            return draw < 0.5
        if self.noise == 0:
            return gap > 0
        return draw < 1 / (1 + math.exp(max(min(-gap / self.noise, 50.0), -50.0)))


ANNOTATORS = {
    annotator.name: annotator
    for annotator in (
        Annotator("unbiased", truth=1.0),
        Annotator("noisy", truth=1.0, noise=0.7),
        Annotator("biased", length=0.5, politeness=0.7, truth=0.8, noise=0.5),
        Annotator("wordy", length=1.0, truth=0.8, noise=0.5),
        Annotator("polite", politeness=1.2, truth=0.8, noise=0.5),
        Annotator("cautious", caution=2.5, truth=1.0, noise=0.5),
    )
}
