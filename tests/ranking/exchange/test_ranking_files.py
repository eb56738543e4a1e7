"""Prompts and pairs to rank, of any form of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny_votes import checked_message
from trueup.data.rendering.messages import Message
from trueup.data.votes.vote_types import NewPair
from trueup.errors import DataError
from trueup.ranking.exchange import read_pairs, read_prompts

PAIR = {"prompt": "Why?", "response_a": "Because.", "response_b": "No."}
RANKING = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}


def write(path: Path, *rows: Any) -> str:
    return tiny_data.write(path, list(rows))


def better(pair: NewPair) -> str:
    assert pair.gold is not None
    return (pair.first if pair.gold == "first" else pair.second).text


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?"},
        {"question": "Why?", "answer": "Because."},
        {"messages": [U]},
        {"messages": [U, A]},
        RANKING,
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    ],
)
def test_a_prompt_of_any_row(tmp_path: Path, row: Any) -> None:
    path = write(tmp_path / "x.jsonl", row)
    (prompt,) = read_prompts(path)
    assert prompt.messages == (Message("user", "Why?"),)
    assert prompt.origin == f"{path}:1"


def test_lines_of_text_are_no_prompts_and_json_lists_are_files_too(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"prompt": "a"}, {"prompt": "b"}]))
    assert [prompt.messages[0].content for prompt in read_prompts(str(tmp_path / "x.json"))] == ["a", "b"]
    (tmp_path / "x.txt").write_text("Why?\n")
    with pytest.raises(DataError) as caught:
        read_prompts(str(tmp_path / "x.txt"))
    checked_message(caught.value)


@pytest.mark.parametrize(
    ("more", "tags"),
    [
        ({}, ()),
        ({"tags": ["a", "b"]}, ("a", "b")),
        ({"topic": "a"}, ("a",)),
        ({"category": "a", "tags": None}, ("a",)),
        ({"tags": []}, ()),
    ],
)
def test_tags(tmp_path: Path, more: Any, tags: tuple[str, ...]) -> None:
    assert read_prompts(write(tmp_path / "x.jsonl", {"prompt": "p"} | more))[0].tags == tags
    assert read_pairs(write(tmp_path / "y.jsonl", PAIR | more))[0].prompt.tags == tags


def test_bad_prompts_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path / "x.jsonl", {"prompt": "p"}, {"prompt": " "}, {"prompt": 3}))
    assert "x.jsonl:2: " in checked_message(caught.value)
    assert "also unusable: line 3, of 3 rows read" in str(caught.value)


@pytest.mark.parametrize("names", ["response_a response_b", "answer_a answer_b", "a b", "output_1 output_2"])
def test_two_answers_under_many_names(tmp_path: Path, names: str) -> None:
    one, two = names.split()
    ends = [name[-1] for name in (one, two)]
    row = {"prompt": "Why?", one: "Because.", two: "No.", f"model_{ends[0]}": "good", f"model_{ends[1]}": "bad"}
    (pair,) = read_pairs(write(tmp_path / "x.jsonl", row))
    assert {(answer.text, answer.model) for answer in (pair.first, pair.second)} == {
        ("Because.", "good"),
        ("No.", "bad"),
    }
    assert pair.gold is None


def test_pairs_of_chosen_and_rejected_tell_nothing_by_their_order(tmp_path: Path) -> None:
    rows = [RANKING | {"prompt": f"Why {at}?", "chosen": f"So {at}."} for at in range(40)]
    path = write(tmp_path / "x.jsonl", *rows)
    first = sum(pair.first.text != "No." for pair in read_pairs(path))
    assert 8 <= first <= 32  # of 40, 20 are expected
    gold = read_pairs(path, gold=True)
    assert [better(pair) for pair in gold] == [row["chosen"] for row in rows]


def test_gold_of_a_winner(tmp_path: Path) -> None:
    rows = [PAIR | {"winner": "a"}, PAIR | {"winner": "response_b"}, PAIR | {"winner": "B"}]
    assert [better(pair) for pair in read_pairs(write(tmp_path / "x.jsonl", *rows), gold=True)] == [
        "Because.", "No.", "No.",
    ]  # fmt: skip
    for spoil in ({"winner": "tie"}, {}):
        with pytest.raises(DataError) as caught:
            read_pairs(write(tmp_path / "y.jsonl", PAIR | {"winner": "a"}, PAIR | spoil), gold=True)
        assert "y.jsonl:2: " in checked_message(caught.value)


def test_identical_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", PAIR, PAIR | {"response_b": "Because. "}, PAIR | {"response_a": "No."})
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert "in 2 pairs the two answers are the same: lines 2, 3" in checked_message(caught.value)
    assert "fix: remove the rows" in str(caught.value)


def test_answers_of_several_messages(tmp_path: Path) -> None:
    long = {"chosen": [U, A, U, A], "rejected": [U, A | {"content": "No."}, U, A]}
    with pytest.raises(DataError) as caught:
        read_pairs(write(tmp_path / "x.jsonl", RANKING, long))
    assert "answers of more than one message: line 2" in checked_message(caught.value)


def test_no_pair(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(write(tmp_path / "x.jsonl", {"prompt": "p", "completion": "c"}))
    assert "response_a and response_b" in checked_message(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "fix: end with a message of the user"),
        ({"request": "Why?"}, "fix: name the field prompt"),
        ({"a;b": "Why?"}, "fix: put commas between the cells"),
    ],
)
def test_no_prompt(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(write(tmp_path / "x.jsonl", row))
    assert "x.jsonl:1: " in checked_message(caught.value)
    assert says in str(caught.value).splitlines()[-1]
    assert "columns" not in str(caught.value)
