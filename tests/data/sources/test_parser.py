"""A Parser can be pickled to other processes, and accepts empty answers where they are allowed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from casekit import numbers, refusal, section, write

from trueup.data.rendering.messages import Conversation, Message, Origin, Preference
from trueup.data.sources.parser import Parser, same_answers
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
SILENT = {**GOOD, "chosen": ""}
PAIR = {"prompt": "p", "completion": "c"}


def test_a_started_parser_goes_to_another_process(tmp_path: Path) -> None:
    row = {**PAIR, "id": 7}
    parser, origin = Parser("conversation"), Origin("x", 1)
    assert not parser.started
    parser.start(origin, row)
    there = pickle.loads(pickle.dumps(parser))
    assert (there.started, there.format, there.reason) == (True, "pair", "prompt, completion")
    made = there.parse(origin, row, [])
    assert made.rows == [Conversation((Message("user", "p"), Message("assistant", "c")), origin)]
    assert made.unread == {"id"}
    with pytest.raises(DataError, match='no "completion"'):
        there.parse(origin, {"prompt": "p"}, [])
    with pytest.raises(DataError, match="as it was"):
        there.parse(origin, pickle.loads(pickle.dumps(DataError("as it was"))), [])


@pytest.mark.parametrize(("said", "same"), [("a", True), (" a\n", True), ("A", False), ("a.", False)])
def test_same_answers(said: str, same: bool) -> None:
    prompt, answer = (Message("user", "p"),), (Message("assistant", "a"),)
    assert same_answers(Preference(prompt, answer, (Message("assistant", said),))) is same
    assert not same_answers(Conversation((*prompt, *answer)))


LISTS = {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": " "}]}
TALK = {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": ""}]}
HH = {"chosen": "\n\nHuman: p\n\nAssistant:", "rejected": "\n\nHuman: p\n\nAssistant: b"}
EMPTY: list[tuple[str, dict[str, Any], str]] = [
    ("conversation", {"prompt": "p", "completion": ""}, "completion"),
    ("conversation", {"question": "p", "answer": " \n"}, "answer"),
    ("conversation", LISTS, "completion"),
    ("conversation", TALK, "messages"),
    ("preference", SILENT, "chosen"),
    ("preference", {**SILENT, "chosen": "a", "rejected": " "}, "rejected"),
    ("labelled", {"prompt": "p", "completion": "", "label": False}, "completion"),
]


@pytest.mark.parametrize(("want", "row", "key"), EMPTY)
def test_an_empty_answer_is_refused_or_noted(tmp_path: Path, want: Any, row: dict[str, Any], key: str) -> None:
    path = write(tmp_path / "x.jsonl", row, row)
    assert "x.jsonl:1: " in (message := refusal(RowStream(section(path), want)))
    assert " is empty" in message
    found = RowStream(section(path), want, allow_empty=True)
    assert numbers(found) == [1, 2]
    assert [(origin.line, note) for origin, note in found.account.notes] == [
        (line, f"{key}: the response is empty") for line in (1, 2)
    ]


def test_an_empty_answer_of_a_transcript_is_always_noted(tmp_path: Path) -> None:
    found = RowStream(section(write(tmp_path / "x.jsonl", HH)), "preference")
    assert len(list(found)) == 1
    assert [note for _, note in found.account.notes] == ["chosen: the response is empty"]


@pytest.mark.parametrize("row", [{"prompt": "", "completion": "c"}, {"prompt": "p", "completion": None}])
def test_nothing_else_may_be_empty(tmp_path: Path, row: dict[str, Any]) -> None:
    assert "x.jsonl:1: " in refusal(
        RowStream(section(write(tmp_path / "x.jsonl", row)), "conversation", allow_empty=True)
    )


def test_two_empty_answers_are_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", GOOD, {**SILENT, "rejected": " "})
    assert "1 of 2 pairs" in refusal(RowStream(section(path), "preference", allow_empty=True))
