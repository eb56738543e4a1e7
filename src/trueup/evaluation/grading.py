"""Whether a written answer is right: it holds an accepted answer, as whole words, case and punctuation aside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = {"the", "a", "an"}
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


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
    wanted, words = _words(expected), _words(answer)
    if not wanted:  # an answer of symbols alone, such as "==": compared as it stands
        return expected.strip() in answer
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _words(text: str) -> list[str]:
    """Lower-case words of any script, without accents and articles."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    plain = plain.replace("'", "").replace(chr(0x2019), "")
    return [word for word in re.findall(r"\w+", plain.casefold()) if word not in _ARTICLES]
