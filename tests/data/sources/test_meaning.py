"""Fields that change a row's meaning are honoured or refused; what nothing reads is counted; suggestions can work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from casekit import PAIR, RANKING, load, refusal, section, write
from public_sets import chat, sharegpt

from trueup.data.rendering.messages import Conversation, Labelled, Message, Preference
from trueup.data.sources.stream import RowStream

Row = dict[str, Any]
Q, A = Message("user", "q"), Message("assistant", "a")
TALK = {"messages": chat("q", "a")}
LONG = chat("q", "BAD", "again", "GOOD")


def flagged(**flags: Any) -> Row:
    return {"messages": [*LONG[:1], {**LONG[1], **flags}, *LONG[2:]]}


def made(tmp_path: Path, row: Row, want: str = "conversation", **keys: Any) -> Any:
    (result,) = load(write(tmp_path / "x.jsonl", row), want, **keys)
    return result


@pytest.mark.parametrize(
    "flags",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"train": False},
        {"trainable": False},
        {"loss": False},
        {"loss_mask": 0},
        {"weight": 0, "train": False},
    ],
)
def test_a_flag_makes_a_message_context(tmp_path: Path, flags: Row) -> None:
    row = made(tmp_path, flagged(**flags))
    assert [message.trained for message in row.messages] == [True, False, True, True]


@pytest.mark.parametrize(
    "flags",
    [{"weight": 1}, {"weight": None}, {"train": True}, {"weight": 1.0}, {"toxic": True}, {"trained_on": "2025-01-01"}],
)
def test_a_flag_that_says_the_usual_changes_nothing(tmp_path: Path, flags: Row) -> None:
    assert made(tmp_path, flagged(**flags)) == made(tmp_path, {"messages": LONG})


REFUSED: list[tuple[str, Row, str, str]] = [
    ("a share", flagged(weight=0.5), '"weight" is neither 0 nor 1', "conversation"),
    ("a word", flagged(train="no"), '"train" is neither 0 nor 1', "conversation"),
    ("a mask", flagged(mask=True), 'holds "mask"', "conversation"),
    ("parts of a message", flagged(train_detail=[{"begin_offset": 0}]), 'holds "train_detail"', "conversation"),
    ("a flag of another name", flagged(ignore=True), 'holds "ignore", which may say', "conversation"),
    ("a flag by its name", flagged(learnable=0), 'holds "learnable", which may say', "conversation"),
    ("a label of a message", flagged(label=False), 'holds "label", which may say', "conversation"),
    ("contradicting flags", flagged(weight=0, train=True), "contradict each other", "conversation"),
    (
        "the user's",
        {"messages": [{**LONG[0], "train": True}, *LONG[1:]]},
        "asks to train on a message of the user",
        "conversation",
    ),
    ("nothing to train", {"messages": [LONG[0], {**LONG[1], "weight": 0}]}, "no message of", "conversation"),
    (
        "nothing to train in a pair",
        {"messages": chat("q"), "chosen": {**chat("q", "a")[1], "weight": 0}, "rejected": chat("q", "b")[1]},
        'no message of "chosen"',
        "preference",
    ),
    ("a row's weight 0", {**TALK, "weight": 0}, '"weight" is 0', "conversation"),
    ("a weight of CSV", {**PAIR, "weight": "0"}, '"weight" is "0": the row is not to be trained', "conversation"),
    ("a flag of CSV", {**PAIR, "train": "False"}, '"train" is "False": the row is not to be', "conversation"),
    ("tools of a message", {"messages": [{**LONG[0], "tools": [{"name": "w"}]}, LONG[1]]}, "declares", "conversation"),
    ("a row's weight", {**PAIR, "weight": 0.3}, "single rows have no weight", "conversation"),
    ("a pair's weight", {**RANKING, "weight": 2}, "single rows have no weight", "preference"),
    ("the assistant masked", {**TALK, "mask": "Assistant"}, '"mask" leaves out', "conversation"),
    ("a bad one", {**TALK, "label": False}, '"label" says if the answer is good', "conversation"),
    ("a good one", {**TALK, "label": True}, "skip: [undesirable]", "conversation"),
    ("LLaMA-Factory's KTO", {"instruction": "q", "output": "a", "kto_tag": False}, '"kto_tag" says', "conversation"),
    ("0 and 1", {**PAIR, "label": 0}, '"label" says', "conversation"),
    ("a score", {**TALK, "score": 0.1}, '"score" says how good', "conversation"),
    ("a score as text", {**PAIR, "rating": "3.5"}, '"rating" says how good', "conversation"),
    (
        "pictures",
        {"messages": chat("<image>Who is it?", "Ana."), "images": ["a.png"]},
        '"images" holds pictures',
        "conversation",
    ),
    ("a picture of a question", {"prompt": "Who?", "image": {"path": "a.png"}}, '"image" holds pictures', "prompt"),
    ("sound", {**RANKING, "audio": "a.wav"}, '"audio" holds pictures', "preference"),
    (
        "history that is no list",
        {"instruction": "q", "output": "a", "history": "earlier"},
        "history[0] is not",
        "conversation",
    ),
    (
        "two materials",
        {"instruction": "q", "input": "x", "context": "y", "output": "a"},
        "both hold a prompt",
        "conversation",
    ),
    ("two questions", {"question": "q", "query": "r", "answer": "a"}, '"question" and "query" both', "conversation"),
    ("another prompt", {**TALK, "prompt": "another"}, '"prompt" beside "messages"', "conversation"),
    ("a context apart", {**TALK, "context": "Ana won."}, '"context" beside "messages"', "conversation"),
    ("a history apart", {**TALK, "history": [["h", "i"]]}, '"history" beside "messages"', "conversation"),
    (
        "another system message",
        {"messages": [{"role": "system", "content": "s"}, *chat("q", "a")], "system": "t"},
        "another system message",
        "conversation",
    ),
    ("another chosen", {**TALK, "chosen": "b", "rejected": "c"}, "set use: chosen", "conversation"),
]


@pytest.mark.parametrize(("_title", "row", "says", "want"), [pytest.param(*case, id=case[0]) for case in REFUSED])
def test_refused(tmp_path: Path, _title: str, row: Row, says: str, want: Any) -> None:
    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", row)), want))
    assert "x.jsonl:1: " in message
    assert says in message


BAD_ROWS: list[tuple[Row, str]] = [
    ({"is_safe": False}, "conversation"),
    ({"responseIsSafe": "false"}, "conversation"),
    ({"quality": "bad"}, "conversation"),
    ({"quality": "very poor"}, "conversation"),
    ({"loss": 0}, "conversation"),
    ({"do_train": 0}, "conversation"),
    ({"is_masked": True}, "conversation"),
    ({"loss_mask": [0, 1]}, "conversation"),
    ({"rejected": True}, "conversation"),
    ({"accepted": False}, "conversation"),
    ({"deleted": True}, "conversation"),
    ({"is_deleted": 1}, "preference"),
    ({"valid": False}, "preference"),
    ({"status": "rejected"}, "preference"),
    ({"status": "deleted"}, "prompt"),
    ({"review_status": "not approved"}, "conversation"),
    ({"correct": "no"}, "conversation"),
    ({"answer_correctness": "incorrect"}, "conversation"),
    ({"toxic": True}, "conversation"),
    ({"response_harm_label": "harmful"}, "conversation"),
    ({"answer_score": 2}, "conversation"),
    ({"upvotes": "3"}, "conversation"),
]


@pytest.mark.parametrize(("fields", "want"), BAD_ROWS, ids=str)
def test_a_field_that_says_that_a_row_is_bad_stops_or_is_ignored(tmp_path: Path, fields: Row, want: Any) -> None:
    row = {**({"preference": RANKING, "prompt": {"prompt": "p"}}.get(want) or PAIR), **fields}
    path = write(tmp_path / "x.jsonl", row)
    (key,) = fields
    assert f'x.jsonl:1: "{key}"' in (message := refusal(RowStream(section(path), want)))
    assert f"ignore: [{key}]" in message
    assert len(load(path, want, ignore=[key])) == 1


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"is_safe": True}, "conversation"),
        ({"is_safe": False}, "preference"),  # of which answer, it does not say
        ({"deleted": False}, "conversation"),
        ({"quality": "good"}, "conversation"),
        ({"status": "unchanged"}, "preference"),
        ({"loss": 1.37}, "conversation"),
        ({"in_gsm8k_train": False}, "preference"),
        ({"prompt_harm_label": "harmful"}, "conversation"),
        ({"rejection_reason": "bad"}, "conversation"),
        ({"category": {"safe": False}}, "conversation"),
        ({"error_count": 0}, "conversation"),
        ({"review": "It is not a bad answer, all in all."}, "conversation"),
    ],
    ids=str,
)
def test_a_field_that_says_nothing_of_the_kind_is_left_alone(tmp_path: Path, fields: Row, want: Any) -> None:
    row = {**(RANKING if want == "preference" else PAIR), **fields}
    assert len(load(write(tmp_path / "x.jsonl", row), want)) == 1


@pytest.mark.parametrize("fields", [{"tie": True}, {"status": "tie"}, {"is_draw": "true"}, {"winner": "tie (bothbad)"}])
def test_a_ranking_that_is_called_a_tie_is_left_out(tmp_path: Path, fields: Row) -> None:
    stream = RowStream(section(write(tmp_path / "x.jsonl", RANKING, {**RANKING, **fields})), "preference")
    assert [row.origin.line for row in stream] == [1]
    assert [drop.reason for drop in stream.account.dropped] == ["a tie"]


REVERSED: list[Row] = [
    {"score_chosen": 1, "score_rejected": 2},
    {"chosen_rating": "3.5", "rejected_rating": "4"},
    {"chosen-score": 0, "rejected-score": 9.5},
    {"ratingChosen": 1, "ratingRejected": 2},
    {"chosen_avg_rating": 2, "rejected_avg_rating": 3},
    {"chosen_rank": 2, "rejected_rank": 1},
    {"chosen_score": 5, "rejected_score": 1, "chosen_reward": 0.1, "rejected_reward": 0.2},
    {"margin": -1},
]


@pytest.mark.parametrize("fields", REVERSED, ids=str)
def test_a_better_score_of_the_rejected_answer_stops_or_is_left_out(tmp_path: Path, fields: Row) -> None:
    """Such rows gave a margin below 0 without a word, or the scores were not read."""
    path = write(tmp_path / "x.jsonl", {**RANKING, **dict.fromkeys(fields, 1)}, {**RANKING, **fields})
    message = refusal(RowStream(section(path), "preference"))
    assert "x.jsonl:2: " in message
    assert "skip: [reversed]" in message
    (keys,) = re.findall(r"ignore: \[([^]]+)\]", message)
    assert len(load(path, "preference", ignore=keys.split(", "))) == 2
    assert [row.origin.line for row in load(path, "preference", skip=["reversed"])] == [1]
    assert len(load(path, "prompt")) == 2
    if columns := re.search(r"columns: \{(.*)\}", message):
        swapped = dict(pair.split(": ") for pair in columns[1].split(", "))
        assert swapped == {"chosen": "rejected", "rejected": "chosen"}


def test_scores_of_the_two_messages_are_compared_in_every_row(tmp_path: Path) -> None:
    def row(better: float, worse: float) -> Row:
        chosen, rejected = ({**chat("q", text)[1], "score": value} for text, value in (("a", better), ("b", worse)))
        return {"prompt": "q", "chosen": [chosen], "rejected": rejected}

    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", row(3, 1), row(1, 2))), "preference"))
    assert 'x.jsonl:2: "rejected[].score" is better than "chosen[].score"' in message
    late = [RANKING, {**RANKING, "chosen_score": 1, "rejected_score": 2}]  # the first row decides the format
    assert "x.jsonl:2: " in refusal(RowStream(section(write(tmp_path / "x.jsonl", *late)), "preference"))


def test_messages_written_as_text_are_messages_or_refused(tmp_path: Path) -> None:
    """An answer that was JSON text of one message, as CSV files hold it, was trained as that text."""
    one, other = (chat("q", text)[1] for text in "ab")
    (pair,) = load(write(tmp_path / "x.jsonl", {**RANKING, "chosen": json.dumps(one), "rejected": json.dumps([other])}),
                   "preference")  # fmt: skip
    assert [turns[0].content for turns in (pair.chosen, pair.rejected)] == ["a", "b"]
    for value in (repr(one), repr([one])):
        message = refusal(RowStream(section(write(tmp_path / "x.jsonl", {**RANKING, "chosen": value})), "preference"))
        assert "messages as Python prints them" in message
    (row,) = load(write(tmp_path / "x.jsonl", {**PAIR, "completion": '{"value": 3}'}), "conversation")
    assert row.response == '{"value": 3}'  # an answer in JSON is an answer


def test_roles_in_capitals_are_roles(tmp_path: Path) -> None:
    turns = [{"role": "User", "content": "q"}, {"role": "ASSISTANT", "content": "a"}]
    assert made(tmp_path, {"messages": turns}).messages == (Q, A)


@pytest.mark.parametrize(
    ("fields", "margin"),
    [
        ({"chosen_rating": 4.5, "rejected_rating": 2}, 2.5),
        ({"stars_chosen": "5", "stars_rejected": "3"}, 2.0),
        ({"chosen_rank": 1, "rejected_rank": 4}, None),
        ({"chosen_length": 1, "rejected_length": 9}, None),
        ({"chosen_model": "1", "rejected_model": "2"}, None),
        ({"score_chosen": 3, "score_rejected": 3}, 0.0),
    ],
)
def test_scores_beside_a_ranking_are_its_margin(tmp_path: Path, fields: Row, margin: float | None) -> None:
    (row,) = load(write(tmp_path / "x.jsonl", {**RANKING, **fields}), "preference")
    assert row.margin == margin


def test_equal_scores_are_said(tmp_path: Path) -> None:
    row = {**RANKING, "score_chosen": 3, "score_rejected": 3}
    stream = RowStream(section(write(tmp_path / "x.jsonl", row)), "preference")
    list(stream)
    assert [note for _, note in stream.account.notes] == [
        "score_chosen and score_rejected are equal, and chosen is taken as the better answer"
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_beside_a_pairs_answer_is_the_answers(tmp_path: Path, key: str) -> None:
    want = (Q, Message("assistant", "a", thinking="t"))
    assert made(tmp_path, {"prompt": "q", "completion": "a", key: "t"}).messages == want
    labelled = made(tmp_path, {"prompt": "q", "completion": "a", "label": True, key: ["t"]}, "labelled")
    assert labelled.completion == want[1:]


def test_a_thought_of_another_name_is_named_or_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "q", "completion": "a", "chain_of_thought": "t", "cot_type": "math"})
    message = refusal(RowStream(section(path), "conversation"))
    assert "set columns: {thinking: chain_of_thought}" in message
    (row,) = load(path, "conversation", columns={"thinking": "chain_of_thought"})
    assert row.messages[-1].thinking == "t"
    assert len(load(path, "conversation", ignore=["chain_of_thought"])) == 1


def test_a_thought_beside_messages_stops_unless_they_have_it(tmp_path: Path) -> None:
    message = refusal(RowStream(section(write(tmp_path / "x.jsonl", {**TALK, "reasoning": "t"})), "conversation"))
    assert '"reasoning" holds a thought' in message
    turns = [TALK["messages"][0], {**TALK["messages"][1], "reasoning_content": "t"}]
    assert made(tmp_path, {"messages": turns, "reasoning": "t"}).messages[-1].thinking == "t"


def test_two_answers_to_a_prompt_stop_unless_one_is_named(tmp_path: Path) -> None:
    row = {"question": "q", "solution": "It is 4.", "answer": "5"}
    path = write(tmp_path / "x.jsonl", row)
    message = refusal(RowStream(section(path), "conversation"))
    assert '"answer" and "solution" both hold an answer' in message
    assert load(path, "conversation", columns={"completion": "solution"})[0].response == "It is 4."
    assert load(path, "conversation", ignore=["solution"])[0].response == "5"
    inside = write(tmp_path / "y.jsonl", {**row, "response": "It is 4.\n5", "answer": "5"})
    assert load(inside, "conversation")[0].response == "It is 4.\n5"


def test_an_answer_beside_a_ranking_of_others_stops(tmp_path: Path) -> None:
    """Step-DPO's rows have the key "4" at `answer`, which was trained in place of the solutions."""
    row = {"prompt": "2 + 2?", "chosen": "Two and two: 4.", "rejected": "Two and two: 5.", "answer": "4"}
    path = write(tmp_path / "x.jsonl", row)
    message = refusal(RowStream(section(path), "conversation"))
    assert '"answer" and a ranking (chosen, rejected) both hold an answer' in message
    assert "set use: chosen" in message
    assert load(path, "conversation", use="chosen")[0].response == "Two and two: 4."
    assert load(path, "conversation", ignore=["chosen", "rejected"])[0].response == "4"
    assert len(load(path, "preference")) == 1
    same = write(tmp_path / "y.jsonl", {**row, "answer": row["chosen"]})
    assert load(same, "conversation")[0].response == "Two and two: 4."


IGNORABLE = [
    row for _, row, says, _ in REFUSED if re.search(r'label" says|kto_tag|score|rating|images|beside|query', says)
]


@pytest.mark.parametrize("row", IGNORABLE, ids=str)
def test_what_is_refused_can_be_ignored_as_the_message_says(tmp_path: Path, row: Row) -> None:
    path = write(tmp_path / "x.jsonl", row)
    message = refusal(RowStream(section(path), "conversation"))
    (key,) = re.findall(r"ignore: \[(\w+)\]", message)
    ignored = [key, "rejected"] if key == "chosen" else [key]
    assert len(load(path, "conversation", ignore=ignored)) == 1


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[index % 2], text) for index, text in enumerate(texts))


READ: list[tuple[str, Row, Any, str]] = [
    (
        "Dolly's context",
        {"instruction": "Who won?", "context": "Ana won.", "response": "Ana."},
        Conversation(said("Who won?\n\nAna won.", "Ana.")),
        "conversation",
    ),
    (
        "a context of a question",
        {"question": "Who?", "context": "Ana won.", "answer": "Ana."},
        Conversation(said("Who?\n\nAna won.", "Ana.")),
        "conversation",
    ),
    (
        "Alpaca's history",
        {"instruction": "And now?", "input": "", "output": "B.", "history": [["First?", "A."]]},
        Conversation(said("First?", "A.", "And now?", "B.")),
        "conversation",
    ),
    (
        "a history of a pair",
        {"prompt": "r", "history": [["q", "a"]], "chosen": "b", "rejected": "c"},
        Preference(said("q", "a", "r"), A_ := (Message("assistant", "b"),), (Message("assistant", "c"),)),
        "preference",
    ),
    ("KTO of messages", {**TALK, "label": False}, Labelled((Q,), (A,), False), "labelled"),
    ("KTO of ShareGPT", {"conversations": sharegpt("q", "a"), "kto_tag": True}, Labelled((Q,), (A,), True), "labelled"),
    (
        "KTO of Alpaca",
        {"instruction": "q", "input": "", "output": "a", "kto_tag": True},
        Labelled((Q,), (A,), True),
        "labelled",
    ),
    ("a system field", {**TALK, "system": "s"}, Conversation((Message("system", "s"), Q, A)), "conversation"),
    (
        "the same system message twice",
        {"messages": [{"role": "system", "content": "s"}, *chat("q", "a")], "system": "s"},
        Conversation((Message("system", "s"), Q, A)),
        "conversation",
    ),
    ("the prompt twice", {**TALK, "prompt": " q "}, Conversation((Q, A)), "conversation"),
    ("the user masked", {**TALK, "mask": "User"}, Conversation((Q, A)), "conversation"),
    ("no pictures", {**TALK, "images": [], "audio": None, "videos": [None]}, Conversation((Q, A)), "conversation"),
    ("a label in words", {**TALK, "label": "sports"}, Conversation((Q, A)), "conversation"),
    ("messages and a completion", {"messages": chat("q"), "response": "a"}, Conversation((Q, A)), "conversation"),
    (
        "text parts",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, chat("q", "a")[1]]},
        Conversation((Q, A)),
        "conversation",
    ),
    ("JSON text", {"messages": json.dumps(chat("q", "a"))}, Conversation((Q, A)), "conversation"),
    (
        "columns",
        {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
        Conversation((Q, A)),
        "conversation",
    ),
    (
        "an empty system message",
        {"messages": [{"role": "system", "content": ""}, *chat("q", "a")]},
        Conversation((Q, A)),
        "conversation",
    ),
    (
        "a developer",
        {"messages": [{"role": "developer", "content": "s"}, *chat("q", "a")]},
        Conversation((Message("system", "s"), Q, A)),
        "conversation",
    ),
]


@pytest.mark.parametrize(("_title", "row", "expected", "want"), [pytest.param(*case, id=case[0]) for case in READ])
def test_read(tmp_path: Path, _title: str, row: Row, expected: Any, want: str) -> None:
    found = made(tmp_path, row, want)
    bare = {key: getattr(found, key) for key in found.__dataclass_fields__ if key != "origin"}
    assert type(found)(**bare) == expected


def test_the_bad_rows_are_left_out_and_the_good_ones_trained(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {**TALK, "label": True}, {**TALK, "label": False})
    stream = RowStream(section(path, skip=["undesirable"]), "conversation")
    assert [row.origin.line for row in stream] == [1]
    assert [(drop.origin.line, drop.reason.partition(":")[0]) for drop in stream.account.dropped] == [
        (2, "undesirable")
    ]


ODD: list[tuple[str, Row]] = [
    ("turn-order", {"messages": [*chat("q", "a")[1:], *chat("q", "a")]}),
    ("turn-order", {"messages": [*chat("q")[:1], *chat("q", "a")]}),
    ("unknown-role", {"messages": [*chat("q"), {"role": "narrator", "content": "x"}, chat("q", "a")[1]]}),
    ("no-answer", {"messages": chat("q", "a", "r")}),
    ("empty", {"messages": chat("q", "")}),
    ("empty", {"messages": chat("q", "\u200b")}),
    ("empty", {"messages": []}),
    ("media", {"messages": [{"role": "user", "content": [{"type": "image"}]}, chat("q", "a")[1]]}),
    ("untrained", {"messages": [chat("q")[0], {**chat("q", "a")[1], "weight": 0}]}),
]


@pytest.mark.parametrize(("kind", "row"), ODD)
def test_a_kind_of_row_is_left_out_and_counted_by_line(tmp_path: Path, kind: str, row: Row) -> None:
    path = write(tmp_path / "x.jsonl", TALK, row, TALK)
    assert f"skip: [{kind}]" in refusal(RowStream(section(path), "conversation"))
    stream = RowStream(section(path, skip=[kind]), "conversation")
    assert [made.origin.line for made in stream] == [1, 3]
    account = stream.account
    assert [(drop.origin.line, drop.reason.partition(":")[0]) for drop in account.dropped] == [(2, kind)]
    assert (account.read, account.used) == (3, 2)
    refusal(RowStream(section(path, skip=["tools"]), "conversation"))


def test_nothing_left(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"messages": chat("q", "")})
    assert "all 1 rows are left out: 1 empty" in refusal(RowStream(section(path, skip=["empty"]), "conversation"))


def test_consecutive_turns_are_joined_by_choice(tmp_path: Path) -> None:
    row = {"messages": [*chat("q"), *chat("r", "a"), chat("q", "b")[1]]}
    path = write(tmp_path / "x.jsonl", row)
    assert "merge_turns: true" in refusal(RowStream(section(path), "conversation"))
    stream = RowStream(section(path, merge_turns=True), "conversation")
    assert [made.messages for made in stream] == [said("q\n\nr", "a\n\nb")]
    assert [note for _, note in stream.account.notes] == ["consecutive messages of one role, joined"] * 2


def test_rows_of_another_split_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *({**PAIR, "split": split} for split in ("train", "validation", "train", "odd")))
    stream = RowStream(section(path), "conversation")
    assert [row.origin.line for row in stream] == [1, 3, 4]
    assert [drop.reason for drop in stream.account.dropped] == ['of split "validation"']
    assert len(load(path, "conversation", split="validation")) == 2
    message = refusal(RowStream(section(write(tmp_path / "y.jsonl", {**PAIR, "split": "dev"})), "conversation"))
    assert 'all 1 rows are left out: 1 of split "dev"\n  fix: set split' in message


def test_a_split_of_a_file_that_has_none_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", PAIR)
    with pytest.raises(Exception, match="split: validation"):
        load(path, "conversation", split="validation")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.jsonl", PAIR)
    with pytest.raises(Exception, match="split: validation"):
        load(str(tmp_path / "folder"), "conversation", split="validation")


def test_what_nothing_reads_is_counted(tmp_path: Path) -> None:
    talk = [{**turn, "name": "Ana"} for turn in chat("q", "a")]
    talk[0]["thinking"] = "a thought of the user's"
    rows = [{"messages": talk, "source": "s", "id": 0, "tags": []}, {**TALK, "source": None, "id": 1}]
    stream = RowStream(section(write(tmp_path / "x.jsonl", *rows)), "conversation")
    list(stream)
    assert stream.account.unread == {"source": 1, "id": 2, "messages[].name": 1, "messages[].thinking": 1}
    assert stream.account.holders == 2


SUGGESTED: list[tuple[str, Row, str]] = [
    ("preference", {"prompt": "p", "good": "a", "bad": "b"}, "{chosen: good, rejected: bad}"),
    (
        "preference",
        {"question": "p", "preferred_answer": "a", "dispreferred_answer": "b"},
        "{chosen: preferred_answer, rejected: dispreferred_answer}",
    ),
    ("preference", {"prompt": "p", "y_w": "a", "y_l": "b"}, "{chosen: y_w, rejected: y_l}"),
    ("conversation", {"promt": "p", "compleation": "c"}, "{prompt: promt, completion: compleation}"),
    ("conversation", {"prompt": "p", "num_responses": 7}, "{field: its name in the file}"),
    ("conversation", {"prompt": "p", "response_1": "a", "response_2": "b"}, "{response: response_1}"),
    ("conversation", {"good": chat("q", "a"), "bad": chat("q", "b")}, "{messages: good}"),
    ("conversation", {"question": "q", "solution": "4", "attempt": "It is 4."}, "{response: attempt}"),
    ("conversation", {"prompt": "q", "model_answer": "a", "answer_id": "7"}, "{response: model_answer}"),
]


@pytest.mark.parametrize(("want", "row", "says"), SUGGESTED)
def test_a_suggestion_is_possible(tmp_path: Path, want: Any, row: Row, says: str) -> None:
    path = write(tmp_path / "x.jsonl", row)
    message = refusal(RowStream(section(path), want))
    assert f"set columns: {says}" in message
    columns = dict(pair.split(": ") for pair in says.strip("{}").split(", "))
    assert len(set(columns)) == len(columns)
    if "field" not in columns:
        assert len(load(path, want, columns=columns)) == 1


def test_hidden_files_of_a_folder_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", PAIR)
    write(tmp_path / ".old.jsonl", PAIR)
    write(tmp_path / "~a.jsonl", PAIR)
    stream = RowStream(section(str(tmp_path)), "conversation")
    assert len(list(stream)) == 1
    assert stream.reader.hidden == (".old.jsonl", "~a.jsonl")
