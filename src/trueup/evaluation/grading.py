"""Grade written answers without a model: an answer is right if it contains an accepted answer as whole words.

The module also measures a text's repetition and the variety of its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

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


_ARTICLES = {"the", "a", "an"}
# A hyphen is a minus only where nothing stands before it: "COVID-19" and "1914-1918" hold no negative number.
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*")


def is_right(reply: str, accepted: Sequence[str], question: str | None = None) -> bool:
    """Return True if a reply gives one of the accepted answers.

    A number is right when it is the last number of the reply or of its first line: a model may work towards it, or
    give it and go on. Any other answer is right when its words stand in the reply one after another; articles, case,
    accents and punctuation do not count. The rule is lenient on purpose, as a base model does not stop when it is done;
    every model is graded by the same rule.

    Args:
        reply: the text that the model wrote.
        accepted: the accepted answers.
        question: the text of the question. A reply that only repeats the question gives no answer: the reply must also
            be right with the repeated question taken out ("Is it tea or milk?" is no answer to itself). Without effect
            where the question is itself an accepted answer, as when a word is to be translated into the same word.
    """
    if question is not None and not any(words(answer) == words(question) for answer in accepted):
        rest = _without_question(reply, question)
        if rest != reply and not is_right(rest, accepted):
            return False
    return any(_has_number(reply, answer) if _is_number(answer) else _has_words(reply, answer) for answer in accepted)


def _without_question(reply: str, question: str) -> str:
    """Return the reply with every verbatim repetition of the question removed, ignoring case and punctuation."""
    question_words = words(question)
    if not question_words:
        return reply
    repeated = r"\b" + r"\W+".join(map(re.escape, question_words)) + r"\b\W?"
    return re.sub(repeated, "\n", reply, flags=re.IGNORECASE)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip().strip("$%")) is not None


def _has_number(reply: str, expected: str) -> bool:
    wanted = _value(expected.strip().strip("$%"))
    first_line = reply.strip().partition("\n")[0]
    return any(numbers[-1] == wanted for text in (reply, first_line) if (numbers := _numbers(text)))


def _numbers(text: str) -> list[float]:
    return [_value(number) for number in _NUMBER.findall(text)]


def _value(number: str) -> float:
    """Return a written number as a float: "1,250" is 1250 (a comma before three digits groups), "2,5" is 2.5."""
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    head, *rest = plain.split(".")
    return float(head + ("." + "".join(rest) if rest else ""))


def _has_words(reply: str, expected: str) -> bool:
    if re.fullmatch(r"[A-Za-z]", expected.strip()):  # the letter of a choice: "a" elsewhere is only an article
        letter = expected.strip().upper()
        return reply.strip(" .()*\n").upper() == letter or re.search(rf"\b{letter}\b", reply) is not None
    wanted = _plain_words(expected)
    articles = not wanted  # an answer that is an article, such as the letter of a choice: then they count
    wanted, words = _plain_words(expected, articles=articles), _plain_words(reply, articles=articles)
    if not wanted:  # an answer of symbols alone, such as "==": compared as it stands
        return expected.strip() in reply
    if any(unicodedata.category(char) == "Lo" for char in expected):  # a script that puts no spaces between words
        return "".join(wanted) in "".join(words)
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1))


def _plain_words(text: str, *, articles: bool = False) -> list[str]:
    """Return the lower-case words of a text in any script, without accents; articles only if `articles` is set."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    plain = plain.replace("'", "").replace(chr(0x2019), "")
    return [word for word in re.findall(r"\w+", plain.casefold()) if articles or word not in _ARTICLES]
