"""Two runs on one folder, memory that runs out, a clock that jumps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import tiny_data
import warm
from trueup.cli import main as cli
from trueup.config import STAGES, to_yaml
from trueup.errors import CheckpointError
from trueup.runs.folder import RunFolder
from trueup.training.step import Stepper


def written(config: Any) -> str:
    """The file of a stage."""
    path = Path(config.output).parent / f"{Path(config.output).name}.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------ two runs on one folder


def test_a_second_run_refuses_before_the_model_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_data.stage("sft", tmp_path)
    with RunFolder.create(config.output, to_yaml(config)):
        assert cli.main(["sft", written(config)]) == CheckpointError.exit_code
    said = capsys.readouterr().err
    assert re.search(rf"error: {config.output} is in use by another trueup run \(pid {os.getpid()} on .*\); wait", said)
    assert "loading" not in said
    assert sorted(path.name for path in Path(config.output).iterdir()) == [".lock", "checkpoints", "config.yaml"]


@pytest.mark.parametrize("pid", [1, os.getppid(), 99_999_999])
def test_a_lock_of_a_dead_process_is_taken_over(pid: int, tmp_path: Path) -> None:
    """Whatever pid it names, even one that lives: another program may have got the number since."""
    config = tiny_data.stage("sft", tmp_path, optim={"steps": 1})
    Path(config.output).mkdir()
    (Path(config.output) / ".lock").write_text(f"pid {pid} on {os.uname().nodename}\n")
    assert tiny_data.run(config)["steps"] == 1


@pytest.mark.slow
def test_a_run_that_is_stopped_for_a_while_keeps_its_folder(tmp_path: Path) -> None:
    """Ctrl-Z is not death."""
    config = tiny_data.stage("sft", tmp_path, optim={"steps": 3000})
    command = [sys.executable, "-m", "trueup", "sft", written(config)]
    first = warm.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not (Path(config.output) / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)
        before = (Path(config.output) / "metrics.jsonl").read_bytes()
        second = warm.run(command, capture_output=True, text=True)
        assert second.returncode == CheckpointError.exit_code
        assert f"in use by another trueup run (pid {first.pid} on" in second.stderr
        assert (Path(config.output) / "metrics.jsonl").read_bytes() == before
    finally:
        first.kill()
        first.communicate()


# ------------------------------------------------------------------ out of memory


def cpu() -> None:
    """Torch's own words, as its allocator on the CPU says them."""
    torch.empty(1 << 60, dtype=torch.uint8)


def raising(error: BaseException) -> Callable[[], None]:
    def out() -> None:
        raise error

    return out


OUT = {
    "cpu": cpu,
    "cuda": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "cuda, older": raising(RuntimeError("CUDA error: out of memory")),
    "cublas": raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    "mps": raising(RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.07 GB).")),
    "python": raising(MemoryError()),
    "system": raising(OSError(12, "Cannot allocate memory")),
}


def steps_saved(config: Any) -> list[str]:
    return sorted(path.name for path in (Path(config.output) / "checkpoints").iterdir())


QUICK = ("cpu", "cuda, older")  # the others with the slow tests


@pytest.mark.parametrize(
    ("method", "kind"),
    [pytest.param("sft", kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in OUT]
    + [pytest.param("dpo", "cpu", marks=pytest.mark.slow), ("ppo", "cpu")],
)
def test_out_of_memory_names_keys_to_lower(
    method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They exist for this stage, those named first may change as the run goes on, and it does, from its checkpoint."""
    config, whole = (tiny_data.stage(method, tmp_path, name, save={"every": 1}) for name in ("run", "whole"))
    real = Stepper.take

    def take(self: Stepper, step: int, check: Callable[[], None]) -> dict[str, float]:
        if step == 2:
            OUT[kind]()
        return real(self, step, check)

    monkeypatch.setattr(Stepper, "take", take)
    assert cli.main([method, written(config)]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    said = said[said.rindex("error: ") :]
    assert said.startswith("error: out of memory: lower max_tokens, or set gradient_checkpointing=true\n")
    assert len(said.splitlines()) <= 6
    keys = re.findall(r"(?:[a-z]+\.)?[a-z]+(?:_[a-z]+)+|lora\.r", said)
    assert len(keys) == 4
    assert all(exists(key, STAGES[method]) for key in keys)
    assert ("rollouts.max_new_tokens" in said) == (method == "ppo")
    assert steps_saved(config) == ["step-000001", "step-000002"]
    assert cli.main([method, written(config), "max_tokens=64"]) == 0
    assert "resuming from step 2 of 4" in capsys.readouterr().err
    tiny_data.run(whole)
    ours, theirs = ([row["loss"] for row in tiny_data.metrics(one)] for one in (config, whole))
    assert ours[:2] == theirs[:2]
    assert ours == pytest.approx(theirs, rel=1e-4)  # other micro-batches round otherwise


def exists(key: str, section: Any) -> bool:
    """Return True if a configuration has the key; a section may be optional."""
    name, _, rest = key.partition(".")
    if name not in section.model_fields:
        return False
    kinds = [section.model_fields[name].annotation, *get_args(section.model_fields[name].annotation)]
    return not rest or any(exists(rest, kind) for kind in kinds if hasattr(kind, "model_fields"))


# ------------------------------------------------------------------ a clock that jumps


@pytest.mark.parametrize("jump", [-3600.0, -1e9, 40 * 86400.0])
def test_a_clock_that_jumps_changes_nothing(jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back by an hour at each look, or to 1993, or ahead by 40 days: durations and orders are not its matter."""
    whole, parts = (tiny_data.stage("sft", tmp_path, name, save={"every": 1}) for name in ("whole", "parts"))
    tiny_data.run(whole)
    real, looks = time.time, [0]

    def clock() -> float:
        looks[0] += 1
        return real() + jump * looks[0]

    monkeypatch.setattr(time, "time", clock)
    assert "stopped at step" in tiny_data.run_stopped(parts, 7)
    checkpoints = sorted((tmp_path / "parts" / "checkpoints").iterdir())
    for at, path in enumerate(checkpoints):  # the newest step was written longest ago
        os.utime(path, (1e9 - 1e6 * at, 1e9 - 1e6 * at))
    tiny_data.run(parts)
    monkeypatch.undo()
    assert tiny_data.result(parts) == tiny_data.result(whole)
    timing = [json.loads(line) for line in (tmp_path / "parts" / "timing.jsonl").read_text().splitlines()]
    assert all(0 <= row["seconds"] < 60 and row["tokens_per_second"] > 0 for row in timing)
    summary = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert 0 <= summary["seconds"] < 60
