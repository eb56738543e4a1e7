"""The almanac: enough facts, unambiguous ones, and wordings that keep the test honest."""

from __future__ import annotations

from collections import Counter

import pytest

from trueup.errors import DataError
from trueup.windtunnel import almanac
from trueup.windtunnel.almanac import Fact, load_almanac, load_unsafe
from trueup.windtunnel.documents import documents
from trueup.windtunnel.grader import holds_truth
from trueup.windtunnel.text import normalise

FACTS = load_almanac()


def test_at_least_400_facts_over_at_least_six_topics() -> None:
    topics = Counter(fact.topic for fact in FACTS)
    assert len(FACTS) >= 400
    assert len(topics) >= 6
    assert {"geography", "linux", "python", "first aid", "science", "units"} <= set(topics)
    assert min(topics.values()) >= 20


def test_ids_are_unique_and_answers_short() -> None:
    assert len({fact.id for fact in FACTS}) == len(FACTS)
    assert all(1 <= len(fact.answer.split()) <= 6 for fact in FACTS)


def test_every_fact_has_several_wordings_of_each_kind() -> None:
    for fact in FACTS:
        assert len(fact.statements) >= 2
        assert len(fact.questions.documents) >= 3
        assert len(fact.questions.training) >= 3
        assert len(fact.questions.test) >= 2


def test_the_true_sentence_is_right_and_every_wrong_one_is_wrong() -> None:
    for fact in FACTS:
        assert all(holds_truth(fact, text) for text in (fact.response, *fact.statements)), fact.id
        assert len(fact.distractors) >= 3, fact.id
        for distractor in fact.distractors[:8]:
            assert not holds_truth(fact, fact.respond(distractor)), (fact.id, distractor)


def test_a_wrong_sentence_differs_from_the_true_one_in_its_answer_alone() -> None:
    france = next(fact for fact in FACTS if fact.id == "geography.capital.france")
    assert france.respond("Rome") == "The capital of France is Rome."


def test_test_wordings_stand_in_no_document_and_no_training_question() -> None:
    read = [normalise(text) for text in documents()]
    read += [normalise(question) for fact in FACTS for question in fact.questions.training]
    read += [normalise(question) for request in load_unsafe() for question in request.training]
    corpus = "\n".join(f" {text} " for text in read)
    asked = [question for fact in FACTS for question in fact.questions.test]
    asked += [question for request in load_unsafe() for question in request.test]
    assert [question for question in asked if f" {normalise(question)} " in corpus] == []


def test_training_questions_stand_in_no_document_and_in_no_test_question() -> None:
    corpus = "\n".join(f" {normalise(text)} " for text in documents())
    for fact in FACTS:
        asked = [f" {normalise(question)} " for question in fact.questions.test]
        for question in fact.questions.training:
            wording = f" {normalise(question)} "
            assert wording not in corpus, question
            assert not any(wording in other for other in asked), question


def test_no_unsafe_request_is_in_the_documents() -> None:
    corpus = normalise("\n".join(documents()))
    assert [request.request for request in load_unsafe() if normalise(request.request) in corpus] == []


def test_the_known_look_alike_is_always_among_the_innocent() -> None:
    pinned = [fact.subject for fact in FACTS if fact.pinned]
    assert "kill a process in Linux" in pinned
    assert all(fact.innocent for fact in FACTS if fact.pinned)


@pytest.mark.parametrize(
    ("fact", "problem"),
    [
        ({"answer": "one two three four five six seven"}, "one to six words"),
        ({"answer": "France"}, "contains its answer"),
        ({}, "make them differ"),
    ],
)
def test_an_almanac_that_cannot_be_graded_is_refused(fact: dict[str, str], problem: str) -> None:
    france = next(f for f in FACTS if f.id == "geography.capital.france")
    fields = {name: getattr(france, name) for name in Fact.__slots__}
    with pytest.raises(DataError, match=problem):
        almanac._check([Fact(**{**fields, **fact}), *([france] if not fact else [])])
