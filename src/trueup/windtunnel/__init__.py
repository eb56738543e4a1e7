"""The wind tunnel: a small embedded world of known truth, in which alignment methods can be tested.

`build` writes its data and its untrained model; `Grader` knows which answers are right; `ANNOTATORS` are simulated
people with a stated bias who rank answers.
"""

from trueup.windtunnel.almanac import Fact, load_almanac
from trueup.windtunnel.annotators import ANNOTATORS, Annotator
from trueup.windtunnel.grader import Grade, Grader, gold, is_refusal
from trueup.windtunnel.world import World, build, rank_again

__all__ = [
    "ANNOTATORS",
    "Annotator",
    "Fact",
    "Grade",
    "Grader",
    "World",
    "build",
    "gold",
    "is_refusal",
    "load_almanac",
    "rank_again",
]
