"""Rows that an evaluation holds out and that a pipeline's stages, or finished runs, train on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_data
from data.tokens import making
from tiny import tiny_folder
from trueup.cli.main import main
from trueup.config import ComparisonConfig, PipelineConfig
from trueup.errors import DataError
from trueup.recipes import pipeline
from trueup.recipes.held_out import check_models_rows, check_pipeline_rows
from trueup.system.console import Progress

QUIET = Progress(quiet=True)
OPTIM = {"steps": 2, "batch_size": 4, "lr": 1e-3}


class Warned(Progress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def settings(folder: Path, stages: dict[str, Any] | None = None, **evaluate: Any) -> dict[str, Any]:
    """SFT, a reward model, and PPO with SFT rows mixed in, each on rows of its own; and an evaluation."""
    rows = {
        "sft": making.pairs(8),
        "rankings": making.rankings(8, 100),
        "prompts": [{"prompt": making.sentence(at)} for at in range(200, 208)],
        "mix": making.pairs(8, 300),
    }
    for name, written in rows.items():
        making.write(folder / f"{name}.jsonl", written)
    ours: dict[str, Any] = {
        "sft": {"method": "sft", "data": str(folder / "sft.jsonl"), "optim": OPTIM},
        "rm": {"method": "reward", "from": "sft", "data": str(folder / "rankings.jsonl"), "optim": OPTIM},
        "ppo": {
            "method": "ppo", "from": "sft", "reward": "rm", "prompts": str(folder / "prompts.jsonl"), "optim": OPTIM,
            "rollouts": {"episodes": 4, "max_new_tokens": 4}, "mix": {"data": str(folder / "mix.jsonl")},
        },
    }  # fmt: skip
    return {
        "name": "p",
        "base": tiny_folder(folder / "base"),
        "runs": str(folder / "runs"),
        "stages": ours | (stages or {}),
        "evaluate": {"tasks": ["answers", "preferences"], "samples": 2, "max_new_tokens": 4} | evaluate,
        "device": "cpu",
        "threads": 1,
    }


def held(folder: Path, *rows: dict[str, Any]) -> str:
    return str(making.write(folder / "held.jsonl", [*rows, {"prompt": making.sentence(900)}]))


def ranking(number: int) -> dict[str, str]:
    return making.rankings(1, number)[0]


def contaminated(folder: Path) -> dict[str, Any]:
    """A pipeline of which each stage trains on rows that the evaluation holds out."""
    sft, mixed, other = making.pairs(1, 5)[0], making.pairs(1, 307)[0], making.rankings(1, 400)[0]
    prompts = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]}
        for text in (sft["prompt"], ranking(102)["prompt"].lower(), f"  {making.sentence(205)}\n", mixed["prompt"],
                     making.sentence(901))
    ]  # fmt: skip
    rankings = [
        {**ranking(104), "chosen": ranking(104)["rejected"], "rejected": ranking(104)["chosen"]},
        {**other, "prompt": making.sentence(201)},
        {"prompt": sft["prompt"], "chosen": sft["completion"], "rejected": "No."},
        {**other, "prompt": ranking(103)["prompt"]},
        other,
    ]
    paths: dict[str, Any] = {
        "prompts": str(making.write(folder / "held-prompts.jsonl", prompts)),
        "data": str(making.write(folder / "held-rankings.jsonl", rankings)),
    }
    return settings(folder, **paths)


def test_rows_of_any_stage_stop_the_pipeline_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = contaminated(tmp_path)
    with pytest.raises(DataError) as caught:
        pipeline.run(PipelineConfig.model_validate(config))
    for text in (
        "evaluate.data: 3 of 5 rows (60.0%) are trained on: 3 word for word, 0 nearly; by sft (1), rm (1), ppo (1) (",
        "evaluate.prompts: 4 of 5 rows (80.0%) are trained on: 3 word for word, 1 nearly; by sft (1), rm (1), ppo (2)",
        "or allow it: allow=[eval-overlap]",
    ):
        assert text in str(caught.value)
    assert not (tmp_path / "runs").exists()
    allowed = check_pipeline_rows(PipelineConfig.model_validate({**config, "allow": ["eval-overlap"]}), QUIET)
    assert "are trained on" in allowed["evaluate.prompts as held-out rows"]
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["check", str(path), "--json"]) == 3
    findings = json.loads(capsys.readouterr().out)["findings"]
    places = {one["section"]: one["places"] for one in findings if one["code"] == "eval-overlap"}
    assert places == {
        "evaluate.data": [
            "held-rankings.jsonl:1 = rm rankings.jsonl:5",
            "held-rankings.jsonl:2 = ppo prompts.jsonl:2",
            "held-rankings.jsonl:3 = sft sft.jsonl:6",
        ],
        "evaluate.prompts": [
            "held-prompts.jsonl:1 = sft sft.jsonl:6",
            "held-prompts.jsonl:2 = rm rankings.jsonl:3",
            "held-prompts.jsonl:3 = ppo prompts.jsonl:6",
            "held-prompts.jsonl:4 = ppo mix.jsonl:8",
        ],
    }


def test_rows_that_no_stage_trains_on_pass(tmp_path: Path) -> None:
    stages = {
        "sft": {
            "method": "sft", "optim": OPTIM,
            "data": {"path": str(tmp_path / "sft.jsonl"), "rows": "0:5"},
            "eval": {"data": {"path": str(tmp_path / "sft.jsonl"), "rows": "5:"}},
        }
    }  # fmt: skip
    path = held(tmp_path, {"prompt": making.pairs(1, 6)[0]["prompt"]})
    config = PipelineConfig.model_validate(settings(tmp_path, stages, prompts=path))
    assert check_pipeline_rows(config, QUIET) == {}


def test_questions_of_ours_that_are_trained_on_are_a_warning(tmp_path: Path) -> None:
    rows = [{"prompt": "What does the abbreviation URL stand for?", "completion": "Uniform Resource Locator"}]
    making.write(tmp_path / "facts.jsonl", [*rows, *making.pairs(3)])
    stages = {"sft": {"method": "sft", "data": str(tmp_path / "facts.jsonl"), "optim": OPTIM}}
    config = settings(tmp_path, stages, tasks=["capability"])
    warned = Warned()
    reported = check_pipeline_rows(PipelineConfig.model_validate(config), warned)
    assert list(reported) == ["evaluate.capability as held-out rows"]
    assert len(warned.warnings) == 1
    assert "1 of our 600 rows (0.2%) are trained on: 1 word for word" in warned.warnings[0]
    assert "capability.jsonl:1 = sft facts.jsonl:1" in warned.warnings[0]


def test_a_fault_of_a_later_stage_is_found_before_the_first_trains(tmp_path: Path) -> None:
    config = settings(tmp_path)
    making.write(tmp_path / "mix.jsonl", [{"prompt": "long", "completion": "word " * 2000}])
    with pytest.raises(DataError, match=r"^stages\.ppo: mix: 1 of 1 rows"):
        pipeline.run(PipelineConfig.model_validate(config))
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished SFT run, and a DPO run from it."""
    folder = tmp_path_factory.mktemp("trained")
    making.write(folder / "sft.jsonl", making.pairs(8))
    making.write(folder / "rankings.jsonl", making.rankings(8, 100))
    for method, more in (("sft", {}), ("dpo", {"model": str(folder / "runs/sft/model")})):
        data = str(folder / {"sft": "sft.jsonl", "dpo": "rankings.jsonl"}[method])
        tiny_data.run(tiny_data.stage(method, folder, f"runs/{method}", data=data, optim={"steps": 1}, **more))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it whose paths are of the copy."""
    shutil.copytree(trained, tmp_path / "all", ignore=shutil.ignore_patterns("checkpoints"))
    for path in (tmp_path / "all").glob("runs/*/config.yaml"):
        path.write_text(path.read_text().replace(str(trained), str(tmp_path / "all")))
    return tmp_path / "all"


def compared(model: Path, **config: Any) -> tuple[dict[str, str], list[str]]:
    """What is reported of the run, and the warnings."""
    warned = Warned()
    asked = ComparisonConfig.model_validate({"tasks": ["answers"], **config})
    return check_models_rows([str(model)], asked, warned), warned.warnings


class TestRuns:
    @pytest.mark.parametrize("name", ["dpo", "dpo/model"])
    @pytest.mark.parametrize(
        ("row", "by"),
        [
            (ranking(103), "dpo (1) (held.jsonl:1 = dpo rankings.jsonl:4)"),
            (making.pairs(1, 2)[0], "sft (1) (held.jsonl:1 = sft sft.jsonl:3)"),
        ],
    )
    def test_what_a_run_and_the_one_before_it_trained_on(
        self, folder: Path, name: str, row: dict[str, str], by: str
    ) -> None:
        path = held(folder, {"prompt": row["prompt"]})
        with pytest.raises(DataError) as caught:
            compared(folder / "runs" / name, prompts=path)
        assert f"prompts: 1 of 2 rows (50.0%) are trained on: 1 word for word, 0 nearly; by {by}" in str(caught.value)
        reported, warnings = compared(folder / "runs" / name, prompts=path, allow="eval-overlap")
        assert list(reported) == ["prompts as held-out rows"]
        assert "allowed" in warnings[0]

    def test_nothing_is_said_where_nothing_is_known_or_shared(self, folder: Path) -> None:
        path = held(folder)
        assert compared(folder / "runs/dpo", prompts=path) == ({}, [])
        assert compared(folder / "base", prompts=path) == ({}, [])

    def test_runs_that_moved_together(self, folder: Path, tmp_path: Path) -> None:
        (folder / "runs").rename(folder / "old")
        path = held(tmp_path, {"prompt": making.pairs(1, 2)[0]["prompt"]})
        with pytest.raises(DataError, match=r"sft sft\.jsonl:3"):
            compared(folder / "old/dpo", prompts=path)

    def test_data_that_moved_are_said(self, folder: Path) -> None:
        (folder / "rankings.jsonl").rename(folder / "moved.jsonl")
        reported, [warning] = compared(folder / "runs/dpo", prompts=held(folder))
        assert list(reported) == [f"what {folder / 'runs/dpo'} was trained on"]
        assert "rankings.jsonl" in warning
        assert "not compared" in warning

    def test_data_that_changed_are_said_and_compared(self, folder: Path) -> None:
        row = {"prompt": making.sentence(77), "chosen": "Yes.", "rejected": "No."}
        making.write(folder / "rankings.jsonl", [row, *making.rankings(4)])
        warned = Warned()
        config = ComparisonConfig.model_validate(
            {"tasks": ["answers"], "prompts": held(folder, {"prompt": row["prompt"]}), "allow": "eval-overlap"}
        )
        reported = check_models_rows([str(folder / "runs/dpo")], config, warned)
        assert "its data changed since it was trained" in warned.warnings[0]
        assert "by dpo (1)" in reported["prompts as held-out rows"]

    def test_a_configuration_that_is_none_is_said(self, folder: Path) -> None:
        for text in ("- a\n", "model: [", "loss: {name: gone}\nmodel: x\n", ""):
            (folder / "runs/dpo/config.yaml").write_text(text)
            reported, [warning] = compared(folder / "runs/dpo", prompts=held(folder))
            assert reported
            assert "config.yaml cannot be read as a stage's configuration" in warning
