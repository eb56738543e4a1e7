"""The method that a data file is for: guessed for every named format, and then read by the stage as it was guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.sources.public_sets import FIVE, KTO, PREFERENCES, SAFE, TALKS, XLAM, Row
from tiny_data import write
from trueup.config import DpoConfig
from trueup.data.sources.generic import PARSERS
from trueup.data.sources.schemas import SCHEMAS
from trueup.errors import ConfigError, DataError
from trueup.preflight.early import read_rows
from trueup.preflight.method import stage_for

CASES: dict[str, list[Row]] = {
    **{form: rows for _, form, rows, _, _ in PREFERENCES},
    **{form: rows for _, form, rows in reversed(TALKS)},
    "safe-rlhf-safety": SAFE,
    "xlam": XLAM,
    "verdict": [{"prompt": q, "completion": g, "label": i % 2 == 0} for i, (q, g, _) in enumerate(FIVE)],
    "prompt": [{"prompt": q} for q, _, _ in FIVE],
    "text": [{"text": g} for _, g, _ in FIVE],
}
"""Rows of every format, by its name."""
METHODS = {"conversation": "sft", "pair": "sft", "ranking": "dpo", "verdict": "dpo", "prompt": "ppo", "text": "sft"}


@pytest.mark.parametrize("form", [*PARSERS, *(schema.name for schema in SCHEMAS)])
def test_every_format_has_a_method_whose_stage_reads_it(tmp_path: Path, form: str) -> None:
    path = str(write(tmp_path / "x.jsonl", CASES[form]))
    gives = next((schema.gives[0] for schema in SCHEMAS if schema.name == form), form)
    key = "prompts" if gives == "prompt" else "data"
    named = stage_for(path, "base", None, [f"{key}.format={form}"])
    guessed = stage_for(path, "base", None, [])
    for config in (named, guessed):
        read_rows(config)
        assert config.method == METHODS[gives]
        assert not isinstance(config, DpoConfig) or config.loss.unpaired == (gives == "verdict")


def test_the_guess_reads_the_row_by_the_settings_of_its_section(tmp_path: Path) -> None:
    renamed = [{"good": g, "bad": b, "asked": q, "label": 3} for q, g, b in FIVE]
    path = str(write(tmp_path / "x.jsonl", renamed))
    with pytest.raises(DataError, match=r"no known format: .*\n.*{chosen: good, rejected: bad}"):
        stage_for(path, "base", None, [])
    columns = "data.columns={chosen: good, rejected: bad, prompt: asked}"
    config = stage_for(path, "base", None, [columns, "data.ignore=[label]"])
    read_rows(config)
    assert config.method == "dpo"
    chosen = stage_for(path, "base", None, [columns, "data.use=chosen", "data.ignore=[label]"])
    read_rows(chosen)
    assert chosen.method == "sft"
    asked = stage_for(path, "base", None, ["prompts.columns={prompt: asked}", "prompts.ignore=[label]"])
    read_rows(asked)
    assert asked.method == "ppo"
    rankings = str(write(tmp_path / "nectar.jsonl", CASES["nectar"]))
    assert stage_for(rankings, "base", None, ["prompts.format=nectar"]).method == "ppo"
    with pytest.raises(DataError, match=r"columns reads prompt from .askd.*"):
        stage_for(path, "base", None, ["data.columns={prompt: askd}"])


@pytest.mark.parametrize(
    ("setting", "message"), [("data.format=nectr", "data.format.*nectar"), ("prompts.format=promt", "prompts.format")]
)
def test_a_wrong_setting_of_the_section_is_explained_by_its_key(tmp_path: Path, setting: str, message: str) -> None:
    path = str(write(tmp_path / "x.jsonl", CASES["nectar"]))
    with pytest.raises(ConfigError, match=message):
        stage_for(path, "base", None, [setting])


def test_a_verdict_of_another_name_makes_a_file_one_for_kto(tmp_path: Path) -> None:
    config = stage_for(str(write(tmp_path / "x.jsonl", KTO)), "base", None, [])
    read_rows(config)
    assert isinstance(config, DpoConfig)
    assert config.loss.unpaired
    named = [{**row, "label": "sports"} for row in CASES["pair"]]  # no verdict
    assert stage_for(str(write(tmp_path / "y.jsonl", named)), "base", None, []).method == "sft"


AMBIGUOUS = [
    ({"prompt": "q", "accepted": "a", "rejected": "b"}, "{chosen: accepted, rejected: rejected}"),
    ({"question": "q", "response_j": "a", "response_k": "b"}, "{chosen: response_j, rejected: response_k}"),
    ({"question": "q", "solution": "4", "attempt": "It is 4.", "thinking_trajectories": ["t"]}, "{response: solution}"),
    ({"prompt": "q", "model_answer": "a", "gold": "b"}, "{response: model_answer}"),
    ({"question": "q", "context": "c", "answers": {"text": ["a"]}}, "write it at response"),
    ({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "write it at response"),
]


@pytest.mark.parametrize(("row", "fix"), AMBIGUOUS)
def test_a_question_beside_texts_that_may_be_answers_is_no_prompt_alone(tmp_path: Path, row: Row, fix: str) -> None:
    """Such files were guessed to hold prompts for PPO, and their answers not read."""
    path = str(write(tmp_path / "x.jsonl", [row]))
    with pytest.raises(DataError, match="it is not known which is the answer") as caught:
        stage_for(path, "base", None, [])
    assert fix in str(caught.value)
    assert stage_for(path, "base", "ppo", []).method == "ppo"
    if "{" in fix:
        keys = ["data.ignore=[thinking_trajectories]"] if "thinking_trajectories" in row else []
        read_rows(stage_for(path, "base", None, [f"data.columns={fix}", *keys]))
