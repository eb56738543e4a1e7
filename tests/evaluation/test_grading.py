"""Right answers in many wordings, wrong ones that look like them; the sets' readers; numbers of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_data
from trueup.config import DataConfig, EvaluateConfig
from trueup.data.rendering.messages import Message
from trueup.errors import DataError
from trueup.evaluation import sets
from trueup.evaluation.grading import distinct, is_right, repetition


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("The capital of France is Paris.", ["Paris"], True),
        ("It is PARIS!", ["paris"], True),
        ("Parisian cafés", ["Paris"], False),
        ("São Tomé", ["sao tome"], True),
        ("the Netherlands", ["Netherlands"], True),
        ("Netherlands", ["The Netherlands"], True),
        ("use the mv command", ["cp", "mv"], True),
        ("removal", ["mv"], False),
        ("7 + 5 = 12", ["12"], True),
        ("12, because 7 and 5 make it", ["12"], True),
        ("12\n7 and 5 make it", ["12"], True),  # its first line settles it
        ("1,234 people", ["1234"], True),
        ("It costs $18.", ["$18"], True),
        ("3,5 litres", ["3.5"], True),
        ("I count 13.", ["12"], False),
        ("no number", ["12"], False),
        ("Use == to compare", ["=="], True),
        ("don't", ["dont"], True),
        ("北京 是 首都", ["北京"], True),
        ("东京是首都", ["东京"], True),
        ("Answer: A", ["A"], True),
        ("a", ["A"], True),
        ("(B).", ["B"], True),
        ("Answer: B", ["A"], False),
        ("The answer is B. All others are a mistake", ["A"], False),
        ("COVID-19", ["19"], True),
        ("1914-1918", ["1918"], True),
        ("minus: -4", ["-4"], True),
        ("", ["Paris"], False),
    ],
)
def test_is_right(answer: str, accepted: list[str], right: bool) -> None:
    assert is_right(answer, accepted) is right


def test_repetition_by_hand() -> None:
    """yes x5: three trigrams, one kind: 1 - 1/3."""
    assert repetition("Yes yes, YES yes yes!") == pytest.approx(2 / 3)
    assert repetition("one two three four") == 0
    assert repetition("too short") == 0
    assert repetition("") == 0


def test_distinct_by_hand() -> None:
    """Bigrams: (a b)(b c) and (a b)(b d): 3 kinds of 4."""
    assert distinct(["a b c", "a b d"]) == 0.75
    assert distinct([]) == 0


def rows(tmp_path: Path, *made: dict[str, Any]) -> DataConfig:
    return DataConfig(path=tiny_data.write(tmp_path / "rows.jsonl", list(made)))


def test_questions_in_every_form(tmp_path: Path) -> None:
    asked = sets.questions(rows(
        tmp_path,
        {"id": "x", "topic": "maths", "question": "2 + 2?", "answer": "4", "accept": ["four"]},
        {"question": "Which?", "choices": ["a", "b"], "answer": "b"},
        {"question": "How many?", "answer": "First 3, then 4.\n#### 7"},
        {"messages": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "Paris."}]},
    ))  # fmt: skip
    assert [one.answers for one in asked] == [("4", "four"), ("b",), ("7",), ("Paris.",)]
    assert [one.choices for one in asked] == [(), ("a", "b"), (), ()]
    assert [one.id for one in asked] == ["x#1", "capability-2", "capability-3", "capability-4"]
    assert asked[0].topic == "maths"
    assert asked[3].text == "Capital?"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "2 + 2?"}, "rows.jsonl:1: the question has no answer"),
        ({"answer": "4"}, "rows.jsonl:1: no question in the row"),
        ({"question": "?", "choices": ["a", "b"], "answer": "c"}, "rows.jsonl:1: the answer is not one of the choices"),
        ({"question": "?", "choices": "ab", "answer": "a"}, 'rows.jsonl:1: "choices" is a string, expected a list'),
        ({"question": " ", "answer": "a"}, 'rows.jsonl:1: "question" is empty'),
    ],
)
def test_a_question_that_cannot_be_asked(row: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        sets.questions(rows(tmp_path, row))
    assert said in str(caught.value)


def test_choices_are_taken_as_they_stand(tmp_path: Path) -> None:
    [one] = sets.questions(rows(tmp_path, {"question": "?", "choices": [" Paris", " Rome"], "answer": " Paris"}))
    assert one.answers == (" Paris",)


def test_prompts_of_rankings_and_conversations(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    sides = [("Because.", "No."), ("A.", "B.")]
    data = rows(tmp_path, *({"chosen": f"{talk} {a}", "rejected": f"{talk} {b}"} for a, b in sides))
    asked = sets.prompts("prompts", data.model_copy(update={"rows": "1:2"}))
    assert [one.id for one in asked] == ["prompts-2"]
    assert [message.content for message in asked[0].prompt] == ["Hi", "Hello", "Why?"]
    assert sets.prompts("innocent", rows(tmp_path, {"prompt": "A?", "id": "x", "topic": "t"}))[0] == sets.Asked(
        "x#1", (Message("user", "A?"),), "t"
    )


def test_passages_and_columns(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    made = sets.passages(rows(tmp_path, {"text": "A text."}, {"messages": talk, "topic": "chat"}))
    assert made[0].text == "A text."
    assert made[1].messages[-1].content == "Hello"
    assert made[1].topic == "chat"
    with pytest.raises(DataError, match=r"rows\.jsonl:1: neither a text nor an answered conversation"):
        sets.passages(rows(tmp_path, {"prompt": "Hi"}))
    other = DataConfig(path=tiny_data.write(tmp_path / "c.jsonl", [{"q": "2?", "a": "2"}]), columns={"question": "q"})
    with pytest.raises(DataError, match="no answer"):
        sets.questions(other)


def test_limits_spread_evenly(tmp_path: Path) -> None:
    data = rows(tmp_path, *({"prompt": str(index)} for index in range(10)))
    assert [one.text for one in sets.prompts("innocent", data, 5)] == ["0", "2", "4", "6", "8"]
    assert len(sets.prompts("innocent", data, 50)) == 10
    assert len(sets.prompts("innocent", None)) >= 100
    assert len(sets.questions(None)) >= 100


def test_every_named_set_is_read_before_any_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n{"prompt": \n')
    for key in ("capability", "forgetting", "innocent", "unsafe", "prompts", "data"):
        with pytest.raises(DataError, match=r"broken\.jsonl:"):
            sets.check_sets(EvaluateConfig.model_validate({key: str(broken)}))


def test_gsm8k_rows_are_questions(gsm8k: Path) -> None:
    asked = sets.questions(DataConfig(path=str(gsm8k), rows="0:50"))
    assert all(is_right(one.answers[0], one.answers) for one in asked)
