"""Rewards that take columns of their rows, such as a known answer, by the names of their parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from trueup.config import DataConfig
from trueup.config.functions import UserFunction
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ConfigError, DataError, TrainingError
from trueup.evaluation.sets import Asked, lacking_column, prompts
from trueup.models.rewards import reward_from_file
from trueup.preflight.report import check_stage

SOURCE = """
import json

def score(conversations, answer):
    with open({log!r}, "a") as file:
        for talk, known in zip(conversations, answer):
            file.write(json.dumps([talk.prompt[-1].content, known]) + "\\n")
    return [float(len(talk.response) > len(known)) for talk, known in zip(conversations, answer)]

def keyword(conversations, *, answer, scale=2.0):
    return [scale * len(known) for known in answer]

def optional(conversations, answer=None, *, topic=None):
    return [len(known or "") + 10.0 * (subject is not None) for known, subject in zip(answer, topic)]

def old(conversations, *, scale=1.0):
    return [scale * len(talk.response) for talk in conversations]

def twice(conversations, answer, solution):
    return [0.0 for _ in conversations]
"""


def reward(folder: Path) -> str:
    path = folder / "mine.py"
    path.write_text(SOURCE.format(log=str(folder / "log.jsonl")), encoding="utf-8")
    return str(path)


def rows(folder: Path, name: str = "prompts", **changes: Any) -> str:
    written = [{"prompt": question, "answer": answer} for question, answer in zip(
        tiny_data.QUESTIONS, tiny_data.ANSWERS, strict=True)]  # fmt: skip
    written[2] |= changes
    return tiny_data.write(folder / f"{name}.jsonl", written)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("score", {"answer": True}),
        ("keyword", {"answer": True}),
        ("keyword(answer=3)", {}),
        ("optional", {"answer": False, "topic": False}),
        ("old", {}),
        ("gone", {}),
    ],
)
def test_the_columns_that_a_function_takes(tmp_path: Path, name: str, columns: dict[str, bool]) -> None:
    function = UserFunction.parse(f"{reward(tmp_path)}:{name}")
    assert function is not None
    assert function.columns() == columns


def test_scores_with_columns_by_hand(tmp_path: Path) -> None:
    """keyword: 2 x len("ab"), 3 x len("ab"); optional: len + 10 where there is a topic."""
    talks = [
        Conversation((Message("user", "q"), Message("assistant", "a")), columns=columns)
        for columns in ({"answer": "ab"}, {"answer": "abc", "topic": "x"})
    ]
    file = reward(tmp_path)
    assert reward_from_file(f"{file}:keyword")(talks).tolist() == [4.0, 6.0]
    assert reward_from_file(f"{file}:keyword(scale=3)")(talks).tolist() == [6.0, 9.0]
    assert reward_from_file(f"{file}:optional")(talks).tolist() == [2.0, 13.0]
    assert reward_from_file(f"{file}:old")(talks).tolist() == [1.0, 1.0]
    with pytest.raises(TrainingError, match="takes the column solution, which 2 of 2 rows lack"):
        reward_from_file(f"{file}:twice")(talks)


def test_ppo_gives_each_answer_the_column_of_its_own_row(tmp_path: Path) -> None:
    """In training, in the call before it, and in the measurements on held-out prompts by the watch."""
    held_out = [{"question": f"{question} Well?", "answer": answer} for question, answer in zip(
        tiny_data.QUESTIONS, tiny_data.WORSE, strict=True)]  # fmt: skip
    section = {"path": tiny_data.write(tmp_path / "held.jsonl", held_out), "columns": {"prompt": "question"}}
    spec = f"{reward(tmp_path)}:score"
    config = tiny_data.stage(
        "ppo", tmp_path, prompts=rows(tmp_path), reward=spec, eval={"data": section}, optim={"steps": 1}
    )
    tiny_data.run(config)
    known = dict(zip(tiny_data.QUESTIONS, tiny_data.ANSWERS, strict=True))
    known |= {row["question"]: row["answer"] for row in held_out}
    seen = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(known[question] == answer for question, answer in seen)
    assert {question for question, _ in seen} >= {row["question"] for row in held_out}
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["prompts"]["unused"] == []


def test_a_row_without_the_column_is_one_error_before_anything_loads(tmp_path: Path) -> None:
    made = [{"prompt": question} for question in tiny_data.QUESTIONS]
    made[0]["answer"] = made[1]["answer"] = "x"
    path = tiny_data.write(tmp_path / "prompts.jsonl", made)
    spec = f"{reward(tmp_path)}:score"
    config = tiny_data.stage("ppo", tmp_path, prompts=path, reward=spec)
    message = f"prompts: reward: {spec} takes the column answer, which 4 of 6 rows lack ({path}:3, {path}:4, "
    with pytest.raises(DataError) as caught:
        tiny_data.run(config)
    assert str(caught.value).startswith(message)
    assert "fix: add answer to these rows" in str(caught.value)
    assert not (tmp_path / "log.jsonl").exists()
    [finding] = [finding for finding in check_stage(config).findings if finding.code == "missing-column"]
    assert finding.level == "error"


def test_rows_left_unused_need_no_column(tmp_path: Path) -> None:
    made = [{"prompt": question, "answer": "x"} for question in tiny_data.QUESTIONS[:4]]
    path = tiny_data.write(tmp_path / "prompts.jsonl", [*made, {"prompt": "Late?"}])
    spec = {"name": f"{reward(tmp_path)}:keyword", "scale": 0.5}
    config = tiny_data.stage("ppo", tmp_path, prompts={"path": path, "rows": ":4"}, reward=spec)
    assert not [finding for finding in check_stage(config).findings if finding.code == "missing-column"]


def test_an_evaluation_names_the_prompt_that_lacks_it(tmp_path: Path) -> None:
    spec = f"{reward(tmp_path)}:score"
    with_answers = prompts("prompts", DataConfig(path=rows(tmp_path)))
    assert lacking_column(spec, with_answers) is None
    problem = lacking_column(spec, [*with_answers, Asked("prompts-7", (Message("user", "Hm?"),))])
    assert problem == f"{spec} takes the column answer, which 1 of 7 prompts lack (first prompts-7)"
    assert lacking_column("runs/reward", with_answers) is None


def test_a_function_whose_parameters_cannot_be_read_says_how(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("mine = lambda talks, answer: [0.0 for _ in talks]\n")
    with pytest.raises(ConfigError, match="cannot be called with 1 argument"):
        reward_from_file(f"{tmp_path / 'other.py'}:mine")
