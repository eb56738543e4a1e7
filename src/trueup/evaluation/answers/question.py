"""The parts of a question that help to find its answer in a reply: what is asked for, numbers, unit, options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trueup.evaluation.answers.assertions import content, gist, normal, sentences, stem, tokens
from trueup.evaluation.answers.quantities import Quantity, Unit, Value, quantities, unit_asked

_HOW_MANY = re.compile(
    r"\b(?:how many|how much|number of|amount of)\s+((?:[a-z][\w-]*\s+){0,4}?[a-z][\w-]*)"
    r"(?=\s+(?:do|does|did|are|is|were|was|has|have|had|can|could|will|would|should|must|may|in|of|on|at|for|per|that|"
    r"there|he|she|it|they|we|you|i|make|fit)\b|\s+(?-i:[A-Z])|\s*[?,.:;]|\s*$)",
    re.IGNORECASE,
)
_WHAT_IS = re.compile(
    r"\b(?:what(?:'s| is| was| are| were)|find|determine|calculate|compute|give|state)\s+(?:the |its |his |her |their )?"
    r"(?:(?:exact|total|final|numerical|value of(?: the)?)\s+)*((?:[a-z][\w-]*\s+)?[A-Za-z][\w-]*)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\b(?:what is|find|solve for|value of)\s+\$?([a-zA-Z])\$?\s*(?:\?|\.|$)", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|(?<=\s))\(?([A-Ja-j])[).:]\s+(\S.*?)(?=\s+\(?[A-Ja-j][).:]\s|\n|[,;]?\s*$)", re.MULTILINE)
_WH = re.compile(
    r"\b(?:what|which|who|whom|whose|when|where|how (?:many|much|long|far|old|tall|big)|how)\b", re.IGNORECASE
)
_WH_NOUN = re.compile(r"\b(?:which|what)\s+((?:[A-Z]\w*\s+)*)([a-z][\w-]*)(?=\s+[a-z])")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(r"\bin (thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_FORM = re.compile(
    r"\b(?:plural|singular|spell\w*|spelt|tense|form|participle|comparative|superlative|opposite)\b", re.IGNORECASE
)
_ROUND = re.compile(r"\bround(?:ed)?\b|\bdecimals?\b|\bnearest\b|\bsignificant\b", re.IGNORECASE)
_POLAR = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|must|true or false)\b|true or false|\byes or no\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as far as it helps to read replies.

    Attributes:
        text: the whole question in plain notation; empty where it is not known.
        asking: its last sentence that asks.
        nouns: stems of the things counted ("how many edges") or of the sought variable.
        labels: stems of the sought property ("what is its area").
        modifiers: skeletons of the words before that noun: "red" of "how many red cards".
        subject: skeletons of the words that carry the meaning of the asking clause.
        core: skeletons of those in lower case but for the noun of "which country": the verb, the sought property.
        words: stems of all words of the question that carry meaning.
        numbers: the numbers that the question gives, with the stems of the nouns behind them.
        unit: the unit that it asks for.
        options: letter -> text of the options of a multiple-choice question.
    """

    text: str
    asking: str
    nouns: frozenset[str]
    labels: frozenset[str]
    modifiers: frozenset[str]
    subject: frozenset[str]
    core: frozenset[str]
    words: frozenset[str]
    numbers: dict[Value, set[str]]
    unit: Unit | None
    options: dict[str, str]

    @staticmethod
    def of(text: str) -> Question:
        """Return the parts of a question in plain notation."""
        options = _options(text)
        stem_text = text[: text.find(next(iter(options.values())))] if options else text
        spans = sentences(stem_text)
        asks = [span for span in spans if stem_text[slice(*span)].rstrip(" \"')\n").endswith(("?", "？"))] or spans
        asking = stem_text[slice(*asks[-1])].strip() if asks else ""
        variable = _VARIABLE.search(asking)
        counted = _HOW_MANY.search(asking)
        nouns = {variable[1].lower()} if variable else {stem(normal(counted[1].split()[-1]))} if counted else set[str]()
        sought = None if counted or variable else _WHAT_IS.search(asking)
        labels = {stem(token.word) for token in tokens(sought[1])} & set(content(sought[1])) if sought else set[str]()
        modifiers = gist(counted[1].rpartition(" ")[0]) if counted else set[str]()
        numbers: dict[Value, set[str]] = {}
        for quantity in quantities(text):
            for value in quantity.values:
                numbers.setdefault(value, set()).add(noun_after(text, quantity.end))
        start = _WH.search(asking)
        clause = asking[start.start() :] if start else asking
        small = re.sub(r"\b[A-Z]\w*", " ", _WH_NOUN.sub(r" ", clause))
        return Question(
            text, asking, frozenset(nouns), frozenset(labels), frozenset(modifiers), frozenset(gist(clause)),
            frozenset(gist(small)), frozenset(content(text)), numbers, unit_asked(asking), options,
        )  # fmt: skip

    @property
    def is_polar(self) -> bool:
        """True if the question can be answered by yes or no; also where it is not known."""
        return not self.asking or _POLAR.search(self.asking) is not None

    @property
    def is_calculation(self) -> bool:
        """True if the question gives two numbers or more, as a word problem does."""
        return len(self.numbers) >= 2

    @property
    def is_negated(self) -> bool:
        """True if the question asks what is not: "Which of these is not a mammal?"."""
        return re.search(r"\b(?:not|never)\b|n't\b", self.asking, re.IGNORECASE) is not None

    @property
    def asks_for_form(self) -> bool:
        """True if the question is about a word's form or spelling, where another number or spelling is wrong."""
        return asks_for_form(self.text)

    @property
    def asks_to_round(self) -> bool:
        """True if the question says how a number is to be rounded."""
        return _ROUND.search(self.text) is not None

    @property
    def scale(self) -> int:
        """The factor of the unit that is asked for: 10^9 for "in billions of years"."""
        match = _SCALE.search(self.asking)
        return _SCALES[match[1].lower()] if match else 1

    def is_given(self, quantity: Quantity, noun: str = "") -> bool:
        """Return True if the question itself gives this number, of the same thing where both name one."""
        known = [self.numbers.get(value) for value in quantity.values]
        return all(nouns is not None and (not noun or "" in nouns or noun in nouns) for nouns in known)

    def overlap(self, text: str) -> float:
        """Return the share of the asking clause's meaningful words that a text repeats, from 0 to 1."""
        return len(self.subject & gist(text)) / len(self.subject) if self.subject else 0.0

    def asks_core(self, text: str) -> bool:
        """Return True if a text repeats half or more of what is asked about: "wrote" of "Who wrote Hamlet?"."""
        return bool(self.core) and 2 * len(self.core & gist(text)) >= len(self.core)

    def foreign(self, text: str) -> list[str]:
        """Return the stems of a text's meaningful words that the question does not contain."""
        if self.asks_for_form:  # "mouses" is not "mouse"
            asked = {token.word for token in tokens(self.text)}
            return [token.word for token in tokens(text) if content(token.word) and token.word not in asked]
        return [word for word in content(text) if word not in self.words]

    @property
    def alternatives(self) -> tuple[str, str] | None:
        """The two things between which the question lets choose: "tea" and "milk" of "Is it tea or milk?"."""
        match = re.search(
            r"(?:[,:]|\b(?:is it|between))\s*([^,:?]{1,60}?)\s+or\s+([^,:?]{1,60}?)\s*\?", self.text, re.IGNORECASE
        )
        return (match[1], match[2]) if match else None

    def counterparts(self, keys: Sequence[str]) -> list[str]:
        """Return for keys that are an option's letter the option's text, and the other way round."""
        by_text = {_same(text): letter for letter, text in self.options.items()}
        result = [self.options[key.strip("() .").upper()] for key in keys if key.strip("() .").upper() in self.options]
        return result + [by_text[_same(key)] for key in keys if _same(key) in by_text]


def asks_for_form(question: str) -> bool:
    """Return True for a question about a word's form or spelling."""
    return _FORM.search(question) is not None


_NOUN_AFTER = re.compile(r"[ -]?([^\W\d_][\w'-]*)(?:\s+([^\W\d_][\w'-]*))?(?:\s+([^\W\d_][\w'-]*))?")


def words_after(text: str, place: int) -> list[str]:
    """Return up to three words behind a number, up to the next punctuation; none where a pronoun or verb follows."""
    match = _NOUN_AFTER.match(text, place)
    words = [word for word in match.groups() if word] if match else []
    return words if words and (content(words[0]) or words[0] in ("of", "more", "other", "different")) else []


def noun_after(text: str, place: int) -> str:
    """Return the stem of the word behind a number, such as "marbl" of "17 marbles"; empty where there is none."""
    words = words_after(text, place)
    return stem(normal(words[0])) if words else ""


def _same(text: str) -> str:
    return " ".join(token.word for token in tokens(text)) or text.strip()


def _options(text: str) -> dict[str, str]:
    """Return letter -> text of the options A, B, … in a question; empty where there are not at least two, from A on."""
    options: dict[str, str] = {}
    for match in _OPTION.finditer(text):
        if match[1].upper() == "ABCDEFGHIJ"[len(options) : len(options) + 1]:
            options[match[1].upper()] = match[2].strip(" ,;")
    return options if len(options) >= 2 else {}


def with_sides(text: str, question: Question) -> str:
    """Return a reply in which "the former" and "the latter" are the alternatives that the question offers."""
    if question.alternatives is None:
        return text
    for pattern, side in zip(
        (r"\bthe (?:former|first(?: one)?)\b", r"\bthe (?:latter|second(?: one)?)\b"),
        question.alternatives,
        strict=True,
    ):
        text = re.sub(pattern, lambda _, side=side: side, text, flags=re.IGNORECASE)
    return text


def without_question(text: str, question: str) -> str:
    """Return a reply with every verbatim repetition of the question removed, ignoring case and punctuation."""
    if len(tokens(question)) < 2:
        return text
    rest = _without(text, question)
    for quotation in re.findall(r'"([^"]{12,300})"', question):
        rest = _without(rest, quotation) if len(tokens(quotation)) >= 4 else rest
    return (
        re.sub(r"^\s*q(?:uestion)?\s*[:.]\s*a(?:nswer)?\s*[:.]", "", rest, flags=re.IGNORECASE)
        if rest != text
        else text
    )


def _without(text: str, repeated: str) -> str:
    words = [re.escape(repeated[token.start : token.end]) for token in tokens(repeated)]
    return re.sub(r"\b" + r"\W+".join(words) + r"\b[ ?.!:\"')]*", "\n", text, flags=re.IGNORECASE)
