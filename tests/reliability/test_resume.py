"""A run that is stopped anywhere and started again ends with the same bits as one that never was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tiny_data
import warm
from tiny_data import finish_processes, start_processes
from trueup.config import to_yaml
from trueup.errors import CheckpointError, DataError

MIX = {"weight": 0.5, "batch_size": 3}
LORA = tiny_data.LORA
EVAL = {"every": 2}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {"eval": EVAL, "mix": MIX}),
    "sft-lora-dropout": ("sft", {"lora": LORA | {"dropout": 0.3}}),
    "sft-patience": ("sft", {"eval": EVAL | {"patience": 1}, "optim": {"steps": 6, "lr": 0.3}}),
    "reward": ("reward", {"eval": EVAL, "loss": {"center": 0.1}}),
    "reward-lora": ("reward", {"lora": LORA}),
    "dpo": ("dpo", {"eval": EVAL, "mix": MIX}),
    "dpo-lora": ("dpo", {"lora": LORA, "loss": {"name": "robust"}}),
    "kto-lora": ("dpo", {"lora": LORA, "loss": {"name": "kto"}}),
    "ppo": ("ppo", {"kl": {"target": 1.0, "horizon": 20}, "rollouts": {"normalize_reward": True}, "mix": MIX}),
    "ppo-lora": ("ppo", {"kl": {"target": 1.0, "horizon": 20}, "lora": LORA, "mix": MIX, "eval": EVAL}),
    "grpo-lora": ("ppo", {"lora": LORA, "rollouts": {"advantage": "grpo", "per_prompt": 4}}),
}
# Answers to a prompt differ in it from the first step on, where most have the same length: an advantage within a group
# of equal rewards is 0, and one such step trains nothing.
LETTERS = """
def score(conversations):
    return [sum(one.response.encode()) % 97 / 10 for one in conversations]
"""
REWARDS = {"grpo-lora": LETTERS}
# The guard is looked at before every step, micro-batch and sampled token: a few stops of each kind.
STOPS = {"sft": (0, 9), "ppo": (0, 4, 23), "ppo-lora": (3, 19)}


def config(name: str, folder: Path, output: str) -> Any:
    method, settings = RUNS[name]
    extra: dict[str, Any] = {"optim": {"steps": 5}, "max_tokens": 100} | reward(name, folder)
    if "mix" in settings:
        extra["mix"] = {"data": tiny_data.data(folder, "conversations", 7)}
    if "eval" in settings:
        extra |= {"eval": {"data": tiny_data.data(folder, tiny_data.KIND[method], 5)}, "allow": ["eval-overlap"]}
    return tiny_data.stage(method, folder, output, **tiny_data.merged(extra, settings))


def reward(name: str, folder: Path) -> dict[str, str]:
    return {"reward": tiny_data.reward_function(folder, REWARDS[name])} if name in REWARDS else {}


FAST = {"sft": (9,), "sft-patience": (10,), "reward": (10,), "dpo-lora": (10,), "ppo": (23,), "ppo-lora": (19,)}


def cases() -> list[Any]:
    """Every run and stop; some of them only with the slow tests."""
    every = [(name, stop) for name in RUNS for stop in STOPS.get(name, (10,))]
    return [pytest.param(*case, marks=[] if case[1] in FAST.get(case[0], ()) else [pytest.mark.slow]) for case in every]


@pytest.mark.parametrize(("name", "checks"), cases())
def test_stopped_and_resumed_is_never_stopped(name: str, checks: int, tmp_path: Path) -> None:
    whole, parts = config(name, tmp_path, "whole"), config(name, tmp_path, "parts")
    tiny_data.run(whole)
    assert re.match(r"stopped at step \d of \d, saved\.", tiny_data.run_stopped(parts, checks))
    assert not (tmp_path / "parts" / "model").exists()
    tiny_data.run(parts)
    assert tiny_data.result(parts) == tiny_data.result(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-lora-dropout", "ppo"])
def test_stopped_again_and_again(name: str, tmp_path: Path) -> None:
    """Each part gets a little further; a PPO rollout takes more looks than one part has, so the parts grow."""
    whole, parts = config(name, tmp_path, "whole"), config(name, tmp_path, "parts")
    tiny_data.run(whole)
    stops = [checks for checks in range(3, 40, 4) if tiny_data.run_stopped(parts, checks)]
    assert len(stops) > 1
    tiny_data.run(parts)
    assert tiny_data.result(parts) == tiny_data.result(whole)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    """After `kill -9` the log and samples are ahead of the checkpoint, and are cut back to it."""
    whole, parts = config("ppo", tmp_path, "whole"), config("ppo", tmp_path, "parts")
    whole, parts = (one.model_copy(update={"save": type(one.save)(every=3)}) for one in (whole, parts))
    tiny_data.run(whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-000005")
    for name in ("model/model.safetensors", "summary.json"):
        (tmp_path / "parts" / name).unlink()
    tiny_data.run(parts)
    assert tiny_data.result(parts) == tiny_data.result(whole)


# ------------------------------------------------------------------ Ctrl-C


def wait_for_lines(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and len(path.read_bytes().splitlines()) >= lines:
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{path} did not get {lines} lines: {process.communicate()}")


def test_ctrl_c(tmp_path: Path) -> None:
    """The program itself gets a SIGINT in the middle of a run: exit code 130, no traceback, the command to go on."""
    steps = {"steps": 120}  # some seconds: time enough to be stopped in
    whole = tiny_data.stage("sft", tmp_path, "whole", optim=steps)
    parts = tiny_data.stage("sft", tmp_path, "parts", optim=steps)
    path = tmp_path / "sft.yaml"
    path.write_text(to_yaml(parts), encoding="utf-8")
    command = [sys.executable, "-m", "trueup", "sft", str(path), "seed=0"]
    process = warm.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_lines(tmp_path / "parts" / "metrics.jsonl", 5, process)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - asked < 30  # under 10 s on an idle machine; this one may be shared
    assert process.returncode == 130, err
    assert "Traceback" not in err + out
    words = " ".join(err.split())
    assert "of 120, saved." in words
    assert re.search(rf"Go on with: \S*trueup sft {path} seed=0", words)
    assert not (tmp_path / "parts" / "summary.json").exists()
    tiny_data.run(parts)
    tiny_data.run(whole)
    assert tiny_data.result(parts) == tiny_data.result(whole)


@pytest.mark.slow
@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)])
def test_ctrl_c_with_two_processes(told: tuple[int, ...], tmp_path: Path) -> None:
    """Whichever process hears it, both stop before the same step; resumed, they end as if never stopped."""
    config = tiny_data.stage("sft", tmp_path, "parts", optim={"steps": 60})
    path = tmp_path / "sft.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    command = ["-m", "trueup", "sft", str(path)]
    processes = start_processes(command)
    try:
        wait_for_lines(tmp_path / "parts" / "metrics.jsonl", 5, processes[0])
        for rank in told:
            os.kill(processes[rank].pid, signal.SIGINT)
        outputs = finish_processes(processes, code=130, timeout=60)
    finally:
        for process in processes:
            process.kill()
    assert all("saved. Go on with" in " ".join(output.split()) for output in outputs)
    finish_processes(start_processes(command))
    finish_processes(start_processes([*command, f"output={tmp_path / 'whole'}"]))
    whole = config.model_copy(update={"output": tmp_path / "whole"})
    assert tiny_data.result(config) == tiny_data.result(whole)


def test_changed_rows_are_allowed_when_the_run_goes_on(tmp_path: Path) -> None:
    """The word that the message names can be added to a run that is there already."""
    rows = tiny_data.rows("conversations", 6)
    path = tiny_data.write(tmp_path / "rows.jsonl", rows)
    tiny_data.run(tiny_data.stage("sft", tmp_path, data=path, optim={"steps": 2}))
    tiny_data.write(tmp_path / "rows.jsonl", [*rows[:5], rows[5] | {"completion": "Something else."}])
    again = tiny_data.stage("sft", tmp_path, data=path, optim={"steps": 2})
    with pytest.raises(DataError, match="changed-data"):
        tiny_data.run(again)
    tiny_data.run(tiny_data.stage("sft", tmp_path, data=path, optim={"steps": 2}, allow=["changed-data"]))


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("sft", "epochs"),
        ("dpo-lora", "steps"),
        pytest.param("kto-lora", "epochs", marks=pytest.mark.slow),
        pytest.param("reward", "epochs", marks=pytest.mark.slow),
        pytest.param("ppo", "epochs", marks=pytest.mark.slow),
        pytest.param("grpo-lora", "steps", marks=pytest.mark.slow),
    ],
)
def test_a_finished_run_that_is_made_longer_is_the_long_run(
    name: str, length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rates that do not depend on the length, the weights and the state are the same bits."""

    def of(output: str, number: int) -> Any:
        method, settings = RUNS[name]
        optim = {"optim": {length: number, "schedule": "constant", "warmup": 0}}
        extra = {"eval": {"data": None, "every": None}} if "eval" in settings else {}
        mix = {"mix": {"data": tiny_data.data(tmp_path, "conversations", 7)}} if "mix" in settings else {}
        return tiny_data.stage(method, tmp_path, output, **tiny_data.merged(settings, optim | extra | mix | rewards))

    rewards = reward(name, tmp_path)
    tiny_data.run(of("whole", 2))
    tiny_data.run(of("parts", 1))
    capsys.readouterr()
    summary = tiny_data.run(of("parts", 2))
    assert "its weights will be those of a run of" in " ".join(capsys.readouterr().err.split())
    whole, parts = (tiny_data.result(of(output, 2)) for output in ("whole", "parts"))
    assert parts == whole
    assert summary["steps"] == tiny_data.metrics(of("whole", 2))[-1]["step"]


def test_a_longer_run_of_another_schedule_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def of(**optim: Any) -> Any:
        return tiny_data.stage("sft", tmp_path, optim=optim)

    tiny_data.run(of(epochs=1))
    assert tiny_data.run(of(epochs=2))["steps"] == 6
    words = " ".join(capsys.readouterr().err.split())
    assert "had finished at step 3; a run of 6 steps from the start has other learning rates from step 2 on" in words
    assert "(optim.schedule: cosine, optim.warmup: 0.05)" in words
    with pytest.raises(CheckpointError, match=r"optim\.epochs: 2 -> 1"):
        tiny_data.run(of(epochs=1))
    with pytest.raises(CheckpointError, match=r"optim\.lr"):
        tiny_data.run(of(epochs=3, lr=1e-5))
