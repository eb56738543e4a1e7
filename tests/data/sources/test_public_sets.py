"""Public data sets load as they are: who is chosen, by how much, what is left out, and what nothing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from casekit import load, refusal, section, write
from public_sets import ALL, BAD, FIVE, GOOD, NECTAR, OASST_FLAT, PREFERENCES, QUESTIONS, TALKS, Pair, Row, arrow, chat

from trueup.config.sections import RowFormat
from trueup.data.sources.generic import PARSERS
from trueup.data.sources.schemas import SCHEMAS
from trueup.data.sources.stream import RowStream

SETS = [pytest.param(*case, id=case[0]) for case in PREFERENCES]


@pytest.mark.parametrize(("_name", "form", "rows", "pairs", "ties"), SETS)
def test_a_preference_set_gives_its_pairs(
    tmp_path: Path, _name: str, form: str, rows: list[Row], pairs: list[Pair], ties: int
) -> None:
    path = write(tmp_path / "x.jsonl", *rows)
    stream = RowStream(section(path), "preference")
    made = list(stream)
    assert [(row.chosen[-1].content, row.rejected[-1].content, row.margin) for row in made] == pairs
    assert all(any(question in row.prompt[-1].content for question in QUESTIONS) for row in made)
    assert stream.parser.format == form
    account = stream.account
    assert [drop.reason for drop in account.dropped] == ["a tie"] * ties
    assert account.read == account.used + len(account.dropped)
    assert load(path, "preference", format=form) == made
    prompts = load(path, "prompt")
    asked = {row.messages[-1].content for row in prompts}
    assert {row.prompt[-1].content for row in made} <= asked
    assert len(prompts) == 5  # ties do not matter to prompts


@pytest.mark.parametrize(("_name", "form", "rows", "pairs", "ties"), SETS)
def test_the_chosen_sides_are_conversations(
    tmp_path: Path, _name: str, form: str, rows: list[Row], pairs: list[Pair], ties: int
) -> None:
    made = load(write(tmp_path / "x.jsonl", *rows), "conversation", use="chosen")
    assert [row.response for row in made] == list(dict.fromkeys(chosen for chosen, _, _ in pairs if chosen in GOOD))


@pytest.mark.parametrize(("_name", "form", "rows"), [pytest.param(*case, id=case[0]) for case in TALKS])
def test_a_set_of_conversations_gives_its_answers(tmp_path: Path, _name: str, form: str, rows: list[Row]) -> None:
    path = write(tmp_path / "x.jsonl", *rows)
    stream = RowStream(section(path), "conversation")
    assert [(row.prompt[-1].content, row.response) for row in stream] == [(q, g) for q, g, _ in FIVE]
    assert stream.parser.format == form
    assert load(path, "conversation", format=form) == list(stream)


def test_every_format_is_a_value_of_the_setting() -> None:
    assert set(get_args(RowFormat)) == {"auto", *PARSERS, *(schema.name for schema in SCHEMAS)}


def test_the_best_and_the_worst_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *NECTAR)
    made = load(path, "preference", pairs="best-worst")
    assert [(row.chosen[0].content, row.rejected[0].content) for row in made] == list(zip(GOOD, BAD, strict=True))


def test_equal_ranks_are_left_out_and_counted(tmp_path: Path) -> None:
    row = {**NECTAR[0], "answers": [{"answer": text, "rank": rank} for text, rank in (("a", 1), ("b", 2), ("c", 2))]}
    stream = RowStream(section(write(tmp_path / "x.jsonl", row)), "preference")
    assert [(made.chosen[0].content, made.rejected[0].content) for made in stream] == [("a", "b"), ("a", "c")]
    assert (stream.account.read, [drop.reason for drop in stream.account.dropped]) == (3, ["a tie"])


def test_nectar_s_answers_as_columns(tmp_path: Path) -> None:
    rows = [{**row, "answers": arrow(row["answers"])} for row in NECTAR]
    assert load(write(tmp_path / "x.jsonl", *rows), "preference") == load(
        write(tmp_path / "x.jsonl", *NECTAR), "preference"
    )


def test_the_safer_answer_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *{name: rows for name, _, rows, _, _ in PREFERENCES}["PKU-SafeRLHF"])
    made = load(path, "preference", format="safe-rlhf-safety")
    assert [(row.chosen[0].content, row.rejected[0].content) for row in made] == [(b, g) for g, b, _ in ALL]


def test_sides_that_part_before_the_last_answer(tmp_path: Path) -> None:
    row = {
        "model_a": "m",
        "model_b": "n",
        "winner": "model_b",
        "conversation_a": chat("q", "a1", "r", "a2"),
        "conversation_b": chat("q", "b1", "r", "b2"),
    }
    (made,) = load(write(tmp_path / "x.jsonl", row), "preference")
    assert [message.content for message in made.prompt] == ["q"]
    assert [message.content for message in made.chosen] == ["b1", "r", "b2"]


def test_a_tree_whose_messages_are_mixed_up_is_refused(tmp_path: Path) -> None:
    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", *OASST_FLAT[:2], *OASST_FLAT[6:8])), "preference"))
    assert "x.jsonl:3: the message that this one replies to" in message
    assert "sort the rows by message_tree_id" in message


BROKEN: list[tuple[str, Any, str]] = [
    ("HelpSteer2-preference", {"preference_strength": 4}, '"preference_strength" is 4'),
    ("HelpSteer2-preference", {"preference_strength": None}, '"preference_strength" is null'),
    ("HelpSteer2-preference", {"response_1": ""}, '"response_1" is empty'),
    ("Nectar", {"answers": [{"answer": "a", "rank": 1}]}, "holds 1 answers"),
    ("Nectar", {"answers": [{"answer": "a"}, {"answer": "b"}]}, 'no "answers[0].rank"'),
    ("PKU-SafeRLHF", {"better_response_id": 2}, '"better_response_id" is 2'),
    ("SHP", {"labels": 0, "score_A": 9, "score_B": 3}, "name different answers"),
    ("SHP", {"human_ref_A": 5}, '"human_ref_A" is a number'),
    ("WebGPT", {"question": {"id": "i"}}, '"question.full_text" is null'),
    ("summarize-from-feedback", {"info": {"post": None}}, "neither a post nor an article"),
    ("summarize-from-feedback", {"choice": 2}, '"choice" is 2'),
    ("Chatbot Arena", {"winner": "nobody"}, "names no answer"),
    ("LMSYS 55k", {"winner_tie": 1}, "not a single 1 and two 0"),
    ("LMSYS 55k", {"response_a": '["a", "b"]'}, "different numbers of turns"),
    ("UltraFeedback", {"completions": "none"}, '"completions" is a string'),
    ("OASST, trees", {"prompt": "text"}, '"prompt" is a string'),
    ("ShareGPT pairs", {"chosen": {"from": "gpt"}}, '"chosen" is an object'),
    (
        "UltraFeedback binarized",
        {"messages": chat("q", "another")},
        "neither the prompt nor the prompt with the chosen",
    ),
]


@pytest.mark.parametrize(("name", "change", "says"), BROKEN)
def test_a_broken_row_is_named_by_its_own_fields(tmp_path: Path, name: str, change: Row, says: str) -> None:
    rows = next(rows for title, _, rows, _, _ in PREFERENCES if title == name)
    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", rows[0], {**rows[0], **change})), "preference"))
    assert "x.jsonl:2: " in message
    assert says in message


def test_a_named_format_that_does_not_fit_says_what_it_needs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    message = refusal(RowStream(section(path, format="nectar"), "preference"))
    assert "format nectar needs: prompt, answers" in message
