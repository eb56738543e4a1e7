"""Comparing tiny models: a model against itself gains nothing, a damaged one is seen, what was not measured is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny import shake, tiny_folder, tiny_network
from trueup import runtime
from trueup.config import DataConfig
from trueup.errors import ConfigError
from trueup.evaluation import command
from trueup.evaluation.compare import Comparison, Task, compare, load_task
from trueup.evaluation.policy import measure_policy
from trueup.rollouts import PromptRow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a copy of it under another name, another model, and a reward model."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_folder(folder / "base")
    tiny_folder(folder / "copy")
    tiny_folder(folder / "other", seed=7)
    tiny_data.run(tiny_data.stage("reward", folder, "rm", optim={"steps": 10, "lr": 1e-2}))
    tiny_data.data(folder, "prompts", 10)
    tiny_data.data(folder, "rankings", 12)
    return folder


def task(folder: Path, **changes: Any) -> Task:
    options: dict[str, Any] = {
        "prompts": DataConfig(path=str(folder / "prompts-10.jsonl")),
        "rankings": DataConfig(path=str(folder / "rankings-12.jsonl")),
        "samples": 8,
        "reward": str(folder / "rm" / "model"),
        "max_new_tokens": 8,
        "show": 2,
        "seed": 0,
    }
    return load_task(**(options | changes))


def compared(folder: Path, *names: str, against: str | None = "base", **changes: Any) -> Comparison:
    models = {name: str(folder / name) for name in names}
    where = runtime.init("cpu", threads=1)
    return compare(models, task(folder, **changes), where, against=against, note=lambda _: None)


def test_an_identical_model_differs_in_nothing(folder: Path) -> None:
    result = compared(folder, "base", "copy")
    base, copy = result.rows["base"], result.rows["copy"]
    for key in ("reward", "length", "ended"):
        assert base[key] == copy[key]
    assert copy["kl"].value == pytest.approx(0, abs=1e-5)
    assert copy["wins"].value == 0.5  # ties are halves
    assert copy["wins"].low < 0.5 < copy["wins"].high
    for shown in result.answers:
        assert shown["answers"]["base"] == shown["answers"]["copy"]


def test_another_model_has_a_distance(folder: Path) -> None:
    result = compared(folder, "base", "other")
    other = result.rows["other"]
    assert other["kl"].low > 1  # far outside of zero
    assert 0 <= other["wins"].value <= 1
    assert other["wins"].n == other["kl"].n == other["length"].n == 8
    assert other["prefers"].n == 12
    assert "kl" not in result.rows["base"]
    assert "wins" not in result.rows["base"]


def test_the_order_is_the_callers_and_the_result_is_json(folder: Path) -> None:
    result = compared(folder, "other", "base", "copy")
    assert list(result.rows) == ["other", "base", "copy"]
    assert [list(one["answers"]) for one in result.answers] == [["other", "base", "copy"]] * 2
    assert json.loads(json.dumps(result.as_dict()))["models"]["other"]["reward"]["n"] == 8
    assert set(result.rows["other"]) == {"length", "ended", "reward", "wins", "kl", "prefers"}


def test_the_reward_models_own_accuracy(folder: Path) -> None:
    accuracy = compared(folder, "base").reward_accuracy
    assert accuracy is not None
    assert accuracy.n == 12
    assert accuracy.value > 0.8  # it was trained on these very rows


@pytest.mark.parametrize(
    ("changes", "absent", "said"),
    [
        ({"prompts": None}, {"reward", "wins", "kl", "length", "ended"}, "no prompts; set evaluate.prompts"),
        ({"rankings": None}, {"prefers"}, "no held-out rankings; set evaluate.data"),
        ({"reward": None}, {"reward", "wins"}, "no reward model among the stages"),
    ],
)
def test_what_was_not_measured_is_absent_and_said(
    changes: dict[str, None], absent: set[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compared(folder, "base", "copy", **changes)
    assert not absent & (set(result.rows["base"]) | set(result.rows["copy"]))
    assert said in result.not_measured.values()
    result.show()
    assert f"NOT MEASURED: {next(key for key, why in result.not_measured.items() if why == said)}" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_table_fits_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(folder, "base", "other").show()
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(at for at, line in enumerate(lines) if line.startswith("reward model:"))]
    assert max(map(len, table)) <= 80
    assert sum(line.split()[:1] == ["base"] for line in table) == 2  # six columns in two tables


# ------------------------------------------------------------------ the command


def test_the_command_finds_the_judge_among_the_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = command.run(
        [str(folder / "base"), str(folder / "other"), str(folder / "rm")],
        data=DataConfig(path=str(folder / "rankings-12.jsonl")),
        prompts=DataConfig(path=str(folder / "prompts-10.jsonl")), samples=4, output=folder / "out", max_new_tokens=4,
    )  # fmt: skip
    assert list(result.rows) == ["base", "other"]
    assert result.against == "base"
    assert result.reward_accuracy is not None
    assert json.loads((folder / "out" / "evaluation.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    assert "written to" in capsys.readouterr().out


def test_the_command_needs_something_to_measure(folder: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to measure on"):
        command.run([str(folder / "base")], data=None, prompts=None, samples=4, output=None)
    rankings = DataConfig(path=str(folder / "rankings-12.jsonl"))
    with pytest.raises(ConfigError, match="every model given is a reward model"):
        command.run([str(folder / "rm")], data=rankings, prompts=None, samples=4, output=None)


# ------------------------------------------------------------------ one policy


def test_a_policy_by_itself(tmp_path: Path) -> None:
    from trueup.chat import Message

    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", None)
    asked = [(Message("user", text),) for text in ("Hi", "Why is that so?")]
    prompts = [PromptRow(one, network.renderer.prompt(one)) for one in asked]
    alone = measure_policy(network, prompts, None, max_new_tokens=5, max_tokens=500)
    assert set(alone.means()) == {"length", "missing_end", "n"}
    network.add_reference()
    same = measure_policy(network, prompts, None, max_new_tokens=5, max_tokens=500)
    assert same.means()["kl"] == pytest.approx(0, abs=1e-5)
    assert same.answers == alone.answers
    shake(network)
    moved = measure_policy(network, prompts, None, max_new_tokens=5, max_tokens=500)
    assert math.isfinite(moved.means()["kl"])
    assert moved.means()["kl"] != 0
