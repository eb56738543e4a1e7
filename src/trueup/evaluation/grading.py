"""Grade written answers without a model, by what they assert; measure a text's repetition and variety.

`is_right` reads a reply in steps, each in its own module: `plain` (one notation for LaTeX, Markdown, characters),
`assertions` (the part that decides, and what of it is asserted), `quantities` (numbers, units, dates). The rules make
errors; `answers.grader_error` measures them on labelled replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trueup.evaluation.answers.assertions import normal, with_marks
from trueup.evaluation.answers.choices import (
    chosen_letter,
    formula_stands,
    is_formula,
    is_letter,
    is_symbolic,
    polarity,
    stated_polarity,
    symbol_stands,
)
from trueup.evaluation.answers.names import names
from trueup.evaluation.answers.numbers import as_quantities, gives_quantities
from trueup.evaluation.answers.plain import own_answer, plain, without_thoughts
from trueup.evaluation.answers.question import Question, with_sides, without_question

_WORD = re.compile(r"\w+", re.UNICODE)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, in order; a word is a run of letters and digits of any script."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return every run of n neighbouring tokens, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def repetition(text: str) -> float:
    """Return the share of a text's word trigrams that occurred earlier in it, in [0, 1]; 0 with fewer than 3 words.

    It is 1 - distinct-3 of the text (Li et al. 2016, arXiv:1510.03055): "yes yes yes yes yes" has three trigrams, two
    of them repeated: 2/3.
    """
    runs = ngrams(words(text), 3)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(texts: Iterable[str]) -> float:
    """Return distinct-2 of a set of answers (Li et al. 2016): the number of different word bigrams over all, in [0, 1].

    It is low where a model gives every prompt the same phrases. It falls with the amount of text, so compare only sets
    of answers to the same prompts, and compare their lengths too.
    """
    runs = [run for text in texts for run in ngrams(words(text), 2)]
    return len(set(runs)) / len(runs) if runs else 0.0


def is_right(reply: str, accepted: Sequence[str], question: str | None = None) -> bool:
    """Return True if a reply asserts one of the accepted answers.

    The first assertion that answers the question decides, or what follows a final-answer mark ("#### 42", "the answer
    is", a box) or a correction ("wait, no,"). Reasons, units, other facts and worked steps do not count against it;
    what is denied, supposed, asked, or named beside another answer does not count for it. Numbers are compared as
    values; of several numbers the one is taken that has the noun, the unit or the subject of the question.

    Args:
        reply: the text that the model wrote.
        accepted: the accepted answers.
        question: the text of the question. A reply that only repeats it gives no answer.
    """
    asked = Question.of(plain(question or ""))
    keys = [plain(key) for key in accepted]
    text = plain(with_marks(own_answer(without_thoughts(reply))))
    if asked.text and not any(normal(key) == normal(asked.text.rstrip("?")) for key in keys):
        text = without_question(text, asked.text)
    text = with_sides(text, asked)
    if not text.strip(" \n⟦⟧"):
        return False
    return any(_asserts(text, key, keys, asked) for key in dict.fromkeys([*keys, *asked.counterparts(keys)]) if key)


def _asserts(text: str, key: str, keys: Sequence[str], asked: Question) -> bool:
    """Return True if a reply asserts one accepted answer, by the rules for answers of its kind."""
    if polarity(key) is not None and asked.is_polar:
        return stated_polarity(text, asked) == polarity(key)
    if is_letter(key):
        return chosen_letter(text, asked) == key.strip("() .").upper()
    wanted = as_quantities(key)
    if wanted is not None:
        return gives_quantities(text, wanted, asked)
    if is_symbolic(key):
        return symbol_stands(text, key)
    if is_formula(key):
        return formula_stands(text, key) or names(text, key, keys, asked)
    return names(text, key, keys, asked) or symbol_stands(text, key)
