"""The quickstart: all of it with hardly any training, and (slow) whole, with what it claims to learn."""

import json
import time

import pytest

from trueup import quickstart

STEPS = {"base": 3, "sft": 2, "reward": 2, "dpo": 2, "ppo": 2}


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(quickstart, "QUESTIONS", 12)
    short = [f"stages.{name}.optim={{lr: 1e-4, steps: {steps}, batch_size: 8}}" for name, steps in STEPS.items()]
    return [*short, "stages.ppo.rollouts.episodes=16", "stages.dpo.data.rows=0:16", "stages.reward.eval.data.rows=0:8"]


def test_every_stage_is_run_and_every_model_measured(tmp_path, brief, capsys):
    folder = tmp_path / 'with a space: "é" #1'
    result = quickstart.run(folder, settings=brief)
    assert list(result["models"]) == ["base", "sft", "dpo", "ppo"]
    for name, row in result["models"].items():
        assert row["accuracy"]["n"] == 12
        assert ("kl" in row) == (name != "sft")  # its KL from itself is not a measurement
        for one in row.values():
            assert one["low"] <= one["value"] <= one["high"]
    assert len(result["answers"]) == 6
    assert json.loads((folder / "quickstart.json").read_text())["models"] == result["models"]
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if any(line.strip(" │┃").startswith(name) for name in STEPS)]
    assert len(table) >= 4
    assert max(map(len, printed.splitlines()[:12])) <= 80


def test_a_second_quickstart_in_the_same_folder_trains_nothing(tmp_path, brief, capsys):
    first = quickstart.run(tmp_path / "q", settings=brief)
    stamps = {name: (tmp_path / "q" / "stages" / name / "summary.json").stat().st_mtime_ns for name in STEPS}
    second = quickstart.run(tmp_path / "q", settings=brief)
    assert {name: (tmp_path / "q" / "stages" / name / "summary.json").stat().st_mtime_ns for name in STEPS} == stamps
    assert first["models"] == second["models"]  # measured again, the same to the last bit
    assert capsys.readouterr().err.count("skipped") == len(STEPS)


@pytest.mark.slow
def test_the_whole_quickstart_learns_what_it_says(tmp_path):
    started = time.perf_counter()
    result = quickstart.run(tmp_path / "q")
    seconds = time.perf_counter() - started
    models = {name: {key: one["value"] for key, one in row.items()} for name, row in result["models"].items()}
    assert models["base"]["accuracy"] < 0.3 < models["sft"]["accuracy"]  # the base completes, SFT answers
    assert models["sft"]["over_refusal"] < 0.2
    assert result["reward_accuracy"]["low"] > 0.55  # clearly more than half of the held-out rankings
    for name in ("dpo", "ppo"):
        assert models[name]["proxy"] > models["sft"]["proxy"]
        assert 0 < models[name]["kl"] < 60
    print(f"quickstart: {seconds:.0f} s")
