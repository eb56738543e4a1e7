"""Whether a written answer is right: it holds an accepted answer, as whole words, case and punctuation aside."""

from __future__ import annotations

import re
import unicodedata
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


_ARTICLES = {"the", "a", "an"}
# A hyphen is a minus only where nothing stands before it: "COVID-19" and "1914-1918" hold no negative number.
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*")


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether `answer` gives one of the accepted answers.

    A number is right when it is the last number of the answer or of its first line: a model may work towards it, or
    give it and go on. Any other answer is right when its words stand in the answer one after another; articles, case,
    accents and punctuation do not count. Lenient on purpose, as a base model does not stop when it is done; and the
    same for every model.
    """
    return any(_number_right(answer, one) if _is_number(one) else _holds(answer, one) for one in accepted)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip().strip("$%")) is not None


def _number_right(answer: str, expected: str) -> bool:
    wanted = _value(expected.strip().strip("$%"))
    first_line = answer.strip().partition("\n")[0]
    return any(found[-1] == wanted for text in (answer, first_line) if (found := _numbers(text)))


def _numbers(text: str) -> list[float]:
    return [_value(one) for one in _NUMBER.findall(text)]


def _value(number: str) -> float:
    """1,234.5 -> 1234.5: a comma before three digits groups, any other is a decimal comma."""
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    head, *rest = plain.split(".")
    return float(head + ("." + "".join(rest) if rest else ""))


def _holds(answer: str, expected: str) -> bool:
    if re.fullmatch(r"[A-Za-z]", expected.strip()):  # the letter of a choice: "a" elsewhere is only an article
        letter = expected.strip().upper()
        return answer.strip(" .()*\n").upper() == letter or re.search(rf"\b{letter}\b", answer) is not None
    wanted = _words(expected)
    articles = not wanted  # an answer that is an article, such as the letter of a choice: then they count
    wanted, words = _words(expected, articles=articles), _words(answer, articles=articles)
    if not wanted:  # an answer of symbols alone, such as "==": compared as it stands
        return expected.strip() in answer
    if any(unicodedata.category(char) == "Lo" for char in expected):  # a script that puts no spaces between words
        return "".join(wanted) in "".join(words)
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _words(text: str, *, articles: bool = False) -> list[str]:
    """Lower-case words of any script, without accents, and without articles unless they are asked for."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    plain = plain.replace("'", "").replace(chr(0x2019), "")
    return [word for word in re.findall(r"\w+", plain.casefold()) if articles or word not in _ARTICLES]
