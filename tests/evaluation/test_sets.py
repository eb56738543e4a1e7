"""The keys of a data section act on the sets of an evaluation as on a stage's rows, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.config import DataConfig, EvaluateConfig
from trueup.data.sources.account import Drop
from trueup.errors import DataError
from trueup.evaluation import sets
from trueup.evaluation.plan import Plan


def section(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> DataConfig:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig.model_validate({"path": str(path), **keys})


QUESTION = {"question": "What is two and two?", "answer": "4"}
TWO_TURNS = {
    "messages": [
        {"role": "user", "content": "What is"},
        {"role": "user", "content": "two and two?"},
        {"role": "assistant", "content": "4"},
    ]
}
ODD = {
    "no-answer": {"question": "Well?"},
    "media": {**QUESTION, "images": ["a.png"]},
    "turn-order": TWO_TURNS,
    "empty": {"question": " ", "answer": "4"},
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_question_is_an_error_with_its_line_or_left_out_and_said(tmp_path: Path, kind: str) -> None:
    rows = [QUESTION, ODD[kind], QUESTION]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        sets.questions(section(tmp_path, rows))
    dropped: list[Drop] = []
    left = sets.questions(section(tmp_path, rows, skip=[kind]), dropped=dropped)
    assert [row.id for row in left] == ["capability-1", "capability-3"]
    assert [(drop.origin.line, drop.reason.partition(":")[0]) for drop in dropped] == [(2, kind)]
    config = EvaluateConfig(tasks=["capability"], capability=section(tmp_path, rows, skip=[kind]))
    [(what, why)] = Plan(tmp_path, {"base": "m"}, "base", config).left_out.items()
    assert what == "1 rows of evaluate.capability"
    assert why.startswith(f"left out: 1 {kind}: ")
    assert "rows.jsonl:2)" in why


def test_turns_are_merged_fields_ignored_and_splits_chosen(tmp_path: Path) -> None:
    [row] = sets.questions(section(tmp_path, [TWO_TURNS], merge_turns=True))
    assert row.prompt[0].content == "What is\n\ntwo and two?"
    assert row.answers == ("4",)
    with_picture = [{**QUESTION, "images": ["a.png"]}]
    assert len(sets.questions(section(tmp_path, with_picture, ignore=["images"]))) == 1
    split = [{**QUESTION, "split": "train"}, {**QUESTION, "split": "test", "id": "b"}]
    dropped: list[Drop] = []
    [row] = sets.questions(section(tmp_path, split, split="test"), dropped=dropped)
    assert row.id == "b#2"
    assert [drop.reason for drop in dropped] == ['of split "train"']
    texts = [{"text": "One.", "split": "train"}, {"text": "Two.", "split": "test"}]
    [passage] = sets.passages(section(tmp_path, texts, split="test", use="text"))
    assert passage.text == "Two."


def test_prompts_keep_id_topic_and_fields_and_say_what_is_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi?", "id": "x", "topic": "t", "answer": 3}, {"prompt": " "}]
    dropped: list[Drop] = []
    [row] = sets.prompts("prompts", section(tmp_path, rows, skip=["empty"]), dropped=dropped)
    assert (row.id, row.topic, row.fields["answer"]) == ("x#1", "t", 3)
    assert [drop.origin.line for drop in dropped] == [2]
    pair = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
    same = {**pair, "rejected": "Yes."}
    dropped.clear()
    [kept] = sets.rankings(section(tmp_path, [pair, same], identical_pairs="drop"), dropped=dropped)
    assert kept.chosen[0].content == "Yes."
    assert [drop.reason for drop in dropped] == ["chosen and rejected are the same"]


def test_where_a_row_stands_and_its_fields_change_no_fingerprint(tmp_path: Path) -> None:
    """Evaluations that were finished before are not measured again because a file has another name."""
    [row] = sets.questions(section(tmp_path, [QUESTION]))
    assert "rows.jsonl" not in repr(row)
    assert "fields" not in repr(row)


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("capability", {"format": "pair"}),
        ("capability", {"use": "prompt"}),
        ("capability", {"tools": "t.json"}),
        ("forgetting", {"pairs": "all"}),
        ("forgetting", {"use": "chosen"}),
        ("forgetting", {"identical_pairs": "drop"}),
    ],
)
def test_keys_without_effect_are_refused(key: str, more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"has no effect: (questions|passages) are read as they stand"):
        EvaluateConfig.model_validate({key: {"path": "x.jsonl", **more}})
