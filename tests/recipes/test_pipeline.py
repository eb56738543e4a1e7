"""A pipeline: what runs, what is left out and why, going on after a stop, the comparison at the end."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny import tiny_folder
from trueup.config import PipelineConfig
from trueup.errors import ConfigError, Interrupted
from trueup.recipes import pipeline
from trueup.report.report_schema import Report
from trueup.system.console import Progress

OPTIM = {"steps": 2, "batch_size": 4, "lr": 1e-3}


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: dict[str, str] = {}

    def note(self, text: str) -> None:
        name, _, why = text.partition(": ")
        self.said[name] = why


def settings(folder: Path, name: str = "p", **stages: Any) -> PipelineConfig:
    """SFT, then a reward model and DPO from it; `dpo={"seed": 1}` changes a stage."""
    folder.mkdir(exist_ok=True)
    rankings = tiny_data.data(folder, "rankings", 8)
    made: dict[str, Any] = {
        "sft": {"method": "sft", "data": tiny_data.data(folder, "conversations", 8), "optim": OPTIM},
        "reward": {"method": "reward", "from": "sft", "data": rankings, "optim": OPTIM},
        "dpo": {"method": "dpo", "from": "sft", "data": rankings, "optim": OPTIM},
    }
    return PipelineConfig.model_validate(
        {
            "name": name,
            "base": tiny_folder(folder / "base"),
            "runs": str(folder / "runs"),
            "stages": tiny_data.merged(made, stages),
            "device": "cpu",
            "threads": 1,
        }
    )


def go(config: PipelineConfig, **options: Any) -> dict[str, str]:
    """Run the stages; -> what was said of each."""
    notes = Notes()
    pipeline.run_stages(config, notes, **options)
    return notes.said


def ran(said: dict[str, str]) -> list[str]:
    return [name for name, why in said.items() if "skipped" not in why]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a finished pipeline, trained once, and a copy of it."""
    place = tmp_path_factory.mktemp("finished")
    assert go(settings(place / "it")) == dict.fromkeys(("sft", "reward", "dpo"), "running for the first time")
    shutil.copytree(place / "it", place / "copy")
    return place / "it", place / "copy"


@pytest.fixture
def folder(finished: tuple[Path, Path]) -> Path:
    """A finished pipeline, as it was when it was finished."""
    place, copy = finished
    shutil.rmtree(place)
    shutil.copytree(copy, place)
    return place


def test_what_is_finished_and_unchanged_is_skipped(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    said = go(settings(folder))
    assert ran(said) == []
    assert set(said.values()) == {"finished before, and nothing it was made from has changed: skipped"}
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}


def test_a_changed_setting_runs_the_stage_and_those_that_start_from_it(folder: Path) -> None:
    said = go(settings(folder, dpo={"loss": {"beta": 0.5}}))
    assert ran(said) == ["dpo"]
    assert said["dpo"] == "running again, because its configuration changed: loss.beta: 0.1 -> 0.5"
    said = go(settings(folder, sft={"seed": 1}, dpo={"loss": {"beta": 0.5}}))
    assert ran(said) == ["sft", "reward", "dpo"]
    assert said["dpo"] == "running, because sft runs again"


def test_a_longer_stage_goes_on_from_its_end(folder: Path) -> None:
    said = go(settings(folder, dpo={"optim": {"steps": 3}}))
    assert ran(said) == ["dpo"]
    assert said["dpo"] == "going on from its end, because it is to train longer: optim.steps: 2 -> 3"
    log = (folder / "runs" / "p" / "dpo" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3]
    assert ran(go(settings(folder, dpo={"optim": {"steps": 3}}))) == []


def test_a_harmless_setting_runs_nothing(folder: Path) -> None:
    assert ran(go(settings(folder, sft={"max_tokens": 77, "save": {"every": 1}}))) == []


def test_changed_rows_run_the_stages_that_read_them(folder: Path) -> None:
    path = Path(tiny_data.data(folder, "rankings", 8))
    path.write_text(path.read_text() + json.dumps({"prompt": "New?", "chosen": "Yes.", "rejected": "No."}) + "\n")
    said = go(settings(folder))
    assert ran(said) == ["reward", "dpo"]
    assert said["dpo"] == "running again, because what it is made from changed: data"
    data = json.loads((folder / "runs" / "p" / "dpo" / "data.json").read_text())
    assert data["data"]["used"] == 9


def test_rows_of_the_same_content_run_nothing(folder: Path) -> None:
    path = Path(tiny_data.data(folder, "rankings", 8))
    os.utime(path, (1, 1))
    assert ran(go(settings(folder))) == []


def test_a_changed_base_runs_everything(folder: Path) -> None:
    (folder / "base" / "config.json").unlink()
    tiny_folder(folder / "base", seed=9)
    said = go(settings(folder))
    assert said["sft"] == "running again, because what it is made from changed: model"
    assert ran(said) == ["sft", "reward", "dpo"]


def test_a_model_changed_behind_the_pipelines_back_runs_what_uses_it(folder: Path) -> None:
    note = folder / "runs" / "p" / "sft" / "model" / "note.txt"
    note.write_text("x")
    said = go(settings(folder))
    assert ran(said) == ["reward", "dpo"]
    assert said["reward"] == "running again, because what it is made from changed: model"


def test_force(folder: Path) -> None:
    said = go(settings(folder), force=["reward"])
    assert ran(said) == ["reward"]
    assert said["reward"] == "running, because --force asks for it"
    assert ran(go(settings(folder), force=["sft"])) == ["sft", "reward", "dpo"]
    with pytest.raises(ConfigError, match="--force pdo: there is no such stage; there are sft, reward, dpo"):
        go(settings(folder), force=["pdo"])


def test_a_dry_run_says_the_same_and_does_nothing(tmp_path: Path) -> None:
    assert ran(go(settings(tmp_path), dry_run=True)) == ["sft", "reward", "dpo"]
    assert not (tmp_path / "runs").exists()
    go(settings(tmp_path))
    assert ran(go(settings(tmp_path), dry_run=True)) == []
    changed = settings(tmp_path, sft={"seed": 1})
    assert ran(go(changed, dry_run=True)) == ran(go(changed, dry_run=True)) == ["sft", "reward", "dpo"]
    assert ran(go(settings(tmp_path))) == []


def test_a_stage_without_its_model_goes_on(folder: Path) -> None:
    (folder / "runs" / "p" / "dpo" / "summary.json").unlink()
    before = tiny_data.result(settings(folder).stage("dpo")[1])
    said = go(settings(folder))
    assert ran(said) == ["dpo"]
    assert said["dpo"] == "going on, because it was stopped before its end"
    assert tiny_data.result(settings(folder).stage("dpo")[1]) == before


def test_a_stopped_pipeline_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SFT is done, the reward model stopped in its second step: it goes on, and all ends as if never stopped."""
    config, whole = settings(tmp_path), settings(tmp_path, name="whole")
    go(whole)
    real = pipeline.RECIPES["reward"]

    def stopped(stage: Any) -> dict[str, Any]:
        tiny_data.stop_after(3, monkeypatch)
        return real(stage)

    monkeypatch.setitem(pipeline.RECIPES, "reward", stopped)
    with pytest.raises(Interrupted, match="stopped at step 1 of 2"):
        go(config)
    monkeypatch.undo()
    said = go(config)
    assert said == {
        "sft": "finished before, and nothing it was made from has changed: skipped",
        "reward": "going on, because it was stopped before its end",
        "dpo": "running for the first time",
    }
    for name in config.stages:
        assert tiny_data.result(config.stage(name)[1]) == tiny_data.result(whole.stage(name)[1])


def test_a_stopped_stage_whose_data_changed_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_data.stop_after(3, monkeypatch)
    with pytest.raises(Interrupted):
        go(settings(tmp_path))
    monkeypatch.undo()
    path = Path(tiny_data.data(tmp_path, "conversations", 8))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    said = go(settings(tmp_path))
    assert said["sft"] == "running again, because what it is made from changed: data"
    log = tiny_data.metrics(settings(tmp_path).stage("sft")[1])
    assert [row["step"] for row in log] == [1, 2]


def whole(tmp_path: Path, **evaluate: Any) -> PipelineConfig:
    """All four stages, and an evaluation on small sets."""
    small = {"optim": OPTIM, "rollouts": {"episodes": 4, "epochs": 1, "max_new_tokens": 5}, "max_length": 200}
    ppo = {
        "method": "ppo",
        "from": "sft",
        "reward": "reward",
        "prompts": tiny_data.data(tmp_path, "prompts", 4),
    } | small
    settled = {
        "data": tiny_data.data(tmp_path, "rankings", 6),
        "prompts": tiny_data.data(tmp_path, "prompts", 5),
        "samples": 5,
        "max_new_tokens": 6,
        "limit": 4,
    }
    base = settings(tmp_path).model_dump(by_alias=True)
    base["stages"]["ppo"] = ppo
    base["allow"] = ["eval-overlap", "underpowered-gate"]
    gates = {"capability_drop": 0.05} | ({"gold_reward_drop": 0.1} if "gold" in evaluate else {})
    return PipelineConfig.model_validate(base | {"evaluate": settled | evaluate, "gates": gates})


Reported = tuple[Path, PipelineConfig, Report, str]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A pipeline that was run to its report: its place, its configuration, the report, and what was printed."""
    place, printed = tmp_path_factory.mktemp("reported"), StringIO()
    config, source = whole(place), place / "mine.yaml"
    source.write_text("name: p\n")
    with redirect_stdout(printed):
        result = pipeline.run(config, source=source)
    assert result is not None
    return place, config, result, printed.getvalue()


def test_the_report_at_the_end(reported: Reported) -> None:
    place, _, result, printed = reported
    folder = place / "runs" / "p"
    written = Report.model_validate_json((folder / "report.json").read_text())
    assert written == result
    assert (folder / "pipeline.yaml").read_text() == "name: p\n"
    assert written.models == ["base", "sft", "dpo", "ppo"]
    assert written.against == "sft"
    assert written.reward_model is not None
    assert written.reward_model.accuracy.n == 6
    rows = {row.key: row for row in written.measures}
    for name in ("base", "dpo", "ppo"):
        assert {key for key in ("kl", "win-rate", "reward", "capability", "forgetting") if name in rows[key].values}
    assert {number.n for number in rows["kl"].values.values()} == {5}
    assert [stage.method for stage in written.stages] == ["sft", "reward", "dpo", "ppo"]
    assert written.stages[0].data["data"]["used"] == 8
    assert set(written.seconds) == {"sft", "reward", "dpo", "ppo", "evaluation"}
    assert written.verdict.verdict == "NOT SHOWN"  # four questions show nothing
    assert {gate.outcome for gate in written.verdict.models["ppo"].gates} == {"not shown"}
    assert "95% interval" in printed
    assert max(len(line) for line in printed.splitlines() if "\u2502" in line or "\u2500" in line) <= 80


def test_a_finished_pipeline_reports_again_without_training(reported: Reported) -> None:
    """The model card is written into the model's folder: the model is the same with it and without."""
    place, config, first, _ = reported
    assert (place / "runs" / "p" / "sft" / "model" / "README.md").is_file()
    assert ran(go(config)) == []
    second = pipeline.run(config)
    assert second is not None
    assert first.measures == second.measures


@pytest.mark.slow
def test_rewards_may_be_stages_everywhere(tmp_path: Path) -> None:
    base = whole(tmp_path, gold="gold", reward="reward").model_dump(by_alias=True, exclude_unset=True)
    ppo = base["stages"].pop("ppo")
    base["stages"]["gold"] = {**base["stages"]["reward"], "seed": 5}
    watch = {"eval": {"data": ppo["prompts"]}, "watch": {"gold": "gold"}, "allow": ["eval-overlap"]}
    base["stages"]["ppo"] = {**ppo, "reward": ["reward", "gold"], **watch}
    config = PipelineConfig.model_validate(base)
    stage = config.stage("ppo")[1]
    assert stage.rewards == [str(config.folder / "reward"), str(config.folder / "gold")]
    assert stage.watch.gold == str(config.folder / "gold")
    assert config.upstream("ppo") == {"sft", "reward", "gold"}
    result = pipeline.run(config)
    assert result is not None
    rows = {row.key: row for row in result.measures}
    assert set(rows["gold"].values) == {"base", "sft", "dpo", "ppo"}
    assert result.verdict.models["ppo"].gates[1].outcome != "not run"
    assert [point.step for point in result.frontier if point.model == "ppo"] == [0, 2, None]
    assert ran(go(config, force=["gold"])) == ["gold", "ppo"]


def test_a_dry_run_compares_nothing(tmp_path: Path) -> None:
    assert pipeline.run(settings(tmp_path), dry_run=True) is None
    assert not (tmp_path / "runs").exists()
