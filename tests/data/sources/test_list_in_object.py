"""Rows of a .json file as the list under one key, `{"data": [{…}, …]}`; what looks like it but is a row stays one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from casekit import load, refusal, section
from public_sets import FIVE, Row, chat

from trueup.data.rendering.messages import Conversation
from trueup.data.sources.reader import open_reader
from trueup.data.sources.records import MESSAGES
from trueup.data.sources.stream import RowStream
from trueup.data.tokens.findings import reading_findings

ROWS = [{"prompt": q, "completion": g} for q, g, _ in FIVE]


def lines(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("key", ["data", "rows", 'a "quoted" key', "instances"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n  "])
def test_the_list_under_one_key_holds_the_rows(tmp_path: Path, key: str, indent: int | None, before: str) -> None:
    path = lines(tmp_path / "x.json", before + json.dumps({key: ROWS}, indent=indent) + "\n")
    assert [(row.messages[0].content, row.response) for row in load(path, "conversation")] == [
        (q, g) for q, g, _ in FIVE
    ]
    assert open_reader(path, "train").keys == (key,)
    assert [str(origin) for origin, _ in open_reader(path, "train").entries()] == [f"{path}:{n}" for n in range(1, 6)]


@pytest.mark.parametrize("field", [*MESSAGES, "prompt", "chosen", "tools"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("end", ["\n", ""])
def test_rows_of_one_field_are_rows(tmp_path: Path, field: str, count: int, end: str) -> None:
    row = json.dumps({field: chat("Hi", "Hello.")})
    path = lines(tmp_path / "x.json", "\n".join([row] * count) + end)
    assert open_reader(path, "train").keys == ()
    assert len(list(open_reader(path, "train").entries())) == count


def test_the_check_names_the_key() -> None:
    meta = {"format": "pair", "reason": "prompt", "keys": ["data"], "unread": {}, "holders": 0, "read": 1}
    findings = reading_findings("data", meta | {"hidden": [], "dropped": [], "note_counts": {}})
    (text,) = [finding.text for finding in findings][1:]
    assert text.startswith("the rows are the list under the key data; ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"version": "1.1"}, {}),
        ({}, {"version": 2}),
        ({"info": {"by": "us", "tags": ["a"]}, "n": 5}, {"license": None, "more": {"x": [{"y": 1}]}}),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_list_may_stand_beside_a_version(tmp_path: Path, before: Row, after: Row, indent: int | None) -> None:
    path = lines(tmp_path / "x.json", json.dumps({**before, "data": ROWS, **after}, indent=indent))
    assert [row.response for row in load(path, "conversation")] == [g for _, g, _ in FIVE]
    assert open_reader(path, "train").keys == ("data",)


def test_a_row_with_a_list_of_objects_stays_a_row(tmp_path: Path) -> None:
    row = {"prompt": "q", "notes": [{"x": 1}], "completion": "a"}
    (read,) = load(lines(tmp_path / "x.json", json.dumps(row)), "conversation")
    assert read.response == "a"


def test_a_row_of_messages_under_another_name_is_a_row(tmp_path: Path) -> None:
    dialog = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    path = lines(tmp_path / "x.json", json.dumps({"dialog": dialog}))
    stream = RowStream(section(path, columns={"messages": "dialog"}), "conversation")
    (row,) = list(stream)
    assert isinstance(row, Conversation)
    assert row.response == "Hello."


def test_rows_of_lists_of_other_objects_are_rows_where_they_stand_on_lines(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.json", "".join(json.dumps({"turns": [{"ask": q}]}) + "\n" for q, _, _ in FIVE))
    assert open_reader(path, "train").keys == ()
    assert len(list(open_reader(path, "train").entries())) == 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"train": [{"prompt": "a", "completion": "b"}], "test": [{}]}', "another list follows the list of rows"),
        ('{"v": 1, "data": [{"prompt": "a", "completion": "b"}], "more": }', "Expecting value"),
        ('{"data": [{"prompt": "a", "completion": "b"}]', "Expecting '}'"),
        ('{"data": [{"prompt": "a", "completion": "b"}', "Expecting ',' delimiter"),
        ('{"data": [{"prompt": "a", "completion": "b"}]} {}', "Extra data"),
        ('{"v":', "Expecting value"),
        ('{"v": ' + "[" * 20_000, "brackets nested"),
    ],
)
def test_what_follows_the_list_is_no_row_and_is_not_passed_over(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in refusal(RowStream(section(lines(tmp_path / "x.json", text)), "conversation"))
