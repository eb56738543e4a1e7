"""Numbers of texts alone: how much an answer repeats itself, how varied a set of answers is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-case words, of any script."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n tokens, in order."""
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def repetition(text: str, n: int = 3) -> float:
    """The share of an answer's word n-grams that stood in it before, in [0, 1]; 0 where it has fewer than n words.

    One minus the "distinct" of a single text (Li et al. 2016, arXiv:1510.03055): "yes yes yes yes yes" has three
    trigrams, two of them repeated: 2/3.
    """
    runs = ngrams(words(text), n)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """distinct-n of a set of answers (Li et al. 2016): different n-grams over all n-grams, in [0, 1].

    Low where a model gives every prompt the same phrases. It falls with the amount of text, so compare only sets of
    answers to the same prompts, and look at their lengths beside it.
    """
    runs = [run for text in texts for run in ngrams(words(text), n)]
    return len(set(runs)) / len(runs) if runs else 0.0
