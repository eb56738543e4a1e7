"""The almanac: the wind tunnel's true facts, each with its wordings, from the YAML files in `data/`.

A fact is a subject, a relation and a short answer ("France", "capital", "Paris"). Its wordings are made from templates:
statements for the documents, and three lists of questions that share no wording: for the documents, for training, for
the test. Nothing here is random; `documents.py` decides which facts are shown to which stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import cast

import yaml

from trueup.errors import DataError
from trueup.windtunnel.text import contains, without_article

# Files of `data/` that are not topics.
_FRAMES = "frames.yaml"
_UNSAFE = "unsafe.yaml"


@dataclass(frozen=True, slots=True)
class Questions:
    """The wordings of one fact's question, in three lists (documents, training, test) with no wording in common."""

    documents: tuple[str, ...]
    training: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact, with its wordings as statements, questions and answers."""

    id: str
    topic: str
    relation: str
    subject: str
    answer: str
    aliases: tuple[str, ...]
    distractors: tuple[str, ...]
    """Wrong answers of the right kind: the other answers of the relation."""
    statements: tuple[str, ...]
    """The fact in full sentences, for the documents."""
    response: str
    """The answer that SFT teaches: "The capital of France is Paris."."""
    questions: Questions
    innocent: bool = False
    """True for a harmless request that looks like an unsafe one."""
    pinned: bool = False
    """True for a fact that is held out with every seed."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted answers to the fact's question, the preferred one first."""
        return (self.answer, *self.aliases)

    def respond(self, answer: str) -> str:
        """Return the sentence `response` with `answer` in place of the true one, to make a wrong answer."""
        head, _, tail = self.response.rpartition(self.answer)
        return f"{head}{answer}{tail}"


@dataclass(frozen=True, slots=True)
class Unsafe:
    """An unsafe request, which a model should refuse, in its wordings for training and for the test."""

    id: str
    request: str
    training: tuple[str, ...]
    test: tuple[str, ...]


@cache
def load_almanac() -> tuple[Fact, ...]:
    """Return all facts of the almanac, in file order.

    Raises:
        DataError: a data file breaks a rule that grading relies on, e.g. two facts share the wording of a question.
    """
    frames = _mapping(_read(_FRAMES), _FRAMES)
    facts = [fact for name in _topic_files() for fact in _topic(name, _mapping(_read(name), name), frames)]
    _check(facts)
    return tuple(facts)


@cache
def load_unsafe() -> tuple[Unsafe, ...]:
    """Return the unsafe requests, made from the same templates as the harmless requests that look unsafe."""
    frames = _mapping(_mapping(_read(_FRAMES), _FRAMES)["action"], _FRAMES)
    questions = _mapping(frames["questions"], _FRAMES)
    return tuple(
        Unsafe(
            id=f"unsafe.{_slug(request)}",
            request=request,
            training=_fill(_strings(questions["training"], _FRAMES), n=request),
            test=_fill(_strings(questions["test"], _FRAMES), n=request),
        )
        for request in _strings(_mapping(_read(_UNSAFE), _UNSAFE)["requests"], _UNSAFE)
    )


@cache
def load_refusals() -> tuple[str, ...]:
    """Return the short refusals that SFT teaches as answers to unsafe requests."""
    return _strings(_mapping(_read(_UNSAFE), _UNSAFE)["refusals"], _UNSAFE)


def _topic(file: str, content: Mapping[str, object], frames: Mapping[str, object]) -> Iterator[Fact]:
    topic = str(content["topic"])
    for item in cast("Sequence[object]", content["relations"]):
        relation = _mapping(item, file)
        grammar = _mapping(frames["noun" if "noun" in relation else "action"], _FRAMES)
        yield from _relation(file, topic, relation, grammar)


def _relation(file: str, topic: str, relation: Mapping[str, object], grammar: Mapping[str, object]) -> Iterator[Fact]:
    name = str(relation["name"])
    pinned = _strings(relation.get("pinned", []), file)
    answers = {
        subject: _strings([answer] if isinstance(answer, str) else answer, file)
        for subject, answer in _mapping(relation["facts"], file).items()
    }
    for subject, (answer, *aliases) in answers.items():
        noun = str(relation.get("noun", relation.get("action", "{s}"))).format(s=subject)
        question_word = str(relation.get("what", "what"))
        slots = {
            "s": subject,
            "n": noun,
            "N": _capital(noun),
            "w": question_word,
            "W": _capital(question_word),
            "a": answer,
        }
        accepted = {without_article(a) for a in (answer, *aliases)}
        yield Fact(
            id=f"{_slug(topic)}.{name}.{_slug(subject)}",
            topic=topic,
            relation=name,
            subject=subject,
            answer=answer,
            aliases=tuple(aliases),
            distractors=tuple(dict.fromkeys(a for a, *_ in answers.values() if without_article(a) not in accepted)),
            statements=_fill(_strings(grammar["statements"], _FRAMES), **slots),
            response=str(grammar["response"]).format(**slots),
            questions=Questions(
                **{
                    split: _fill(_wordings(grammar, split, _FRAMES) + _wordings(relation, split, file), **slots)
                    for split in ("documents", "training", "test")
                }
            ),
            innocent=bool(relation.get("innocent", False)),
            pinned=subject in pinned,
        )


def _check(facts: Sequence[Fact]) -> None:
    """Check that answers can be graded by the words they contain.

    Raises:
        DataError: two facts share an id or a wording, an answer is not one to six words, or a question holds its
            answer.
    """
    owners: dict[str, str] = {}
    for fact in facts:
        for key in {fact.id, *fact.questions.documents, *fact.questions.training, *fact.questions.test}:
            if key in owners:
                raise DataError(f"almanac: {key!r} belongs to {owners[key]!r} and to {fact.id!r}; make them differ")
            owners[key] = fact.id
        if not 1 <= len(fact.answer.split()) <= 6:
            raise DataError(f"almanac: {fact.id}: the answer {fact.answer!r} is not one to six words; shorten it")
        for question in (*fact.questions.training, *fact.questions.test):
            if any(contains(question, answer) for answer in fact.answers):
                raise DataError(f"almanac: {fact.id}: the question {question!r} contains its answer; reword it")


def _wordings(source: Mapping[str, object], split: str, file: str) -> tuple[str, ...]:
    return _strings(_mapping(source.get("questions", {}), file).get(split, []), file)


def _fill(templates: Sequence[str], **slots: str) -> tuple[str, ...]:
    return tuple(template.format(**slots) for template in templates)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _folder() -> Traversable:
    return resources.files("trueup.windtunnel") / "data"


def _topic_files() -> list[str]:
    names = (item.name for item in _folder().iterdir())
    return sorted(name for name in names if name.endswith(".yaml") and name not in (_FRAMES, _UNSAFE))


def _read(name: str) -> object:
    # BaseLoader keeps every scalar a string: no answer turns into a number, a date or a boolean ("no", "on").
    return yaml.load((_folder() / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _mapping(value: object, file: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise DataError(f"almanac: {file}: expected a mapping, found {value!r}")
    return cast("Mapping[str, object]", value)


def _strings(value: object, file: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise DataError(f"almanac: {file}: expected a list of strings, found {value!r}")
    return tuple(cast("Sequence[str]", value))
