"""The input and output of a worker process, as JSON files that both libraries' workers use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Method = Literal["sft", "reward", "dpo", "ppo"]


@dataclass(frozen=True, slots=True)
class Job:
    """The task of one worker: one library's part of one comparison.

    Attributes:
        method: the stage.
        model: folder of the causal language model.
        rows: .jsonl of what trains, in the order in which trueup's sampler is to give them (see `works.with_rows`).
        steps: optimizer steps.
        batch: rows in each.
        lora: rank of adapters on all linear layers; None trains every weight.
        lr: AdamW's learning rate, constant; betas, eps as torch has them, no weight decay.
        longest: no row is longer.
        captured: optimizer steps (from 0) whose gradient is told.
        options: of this side alone: TRL's options beside its defaults, PPO's numbers.
        classifier: folder of the same model with a score head (TRL's reward model starts there; PPO's reward).
    """

    method: Method
    model: str
    rows: str
    steps: int
    batch: int = 8
    lora: int | None = None
    lr: float = 1e-5
    longest: int = 400
    captured: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    classifier: str = ""


@dataclass(slots=True)
class Told:
    """The measurements of a worker.

    Attributes:
        losses: of each optimizer step.
        norms: of each step's gradient, before clipping.
        tokens: real tokens (no padding) of each step, prompt and answer; of a pair both sides.
        ends: when each optimizer step ended, in seconds since the worker started.
        began: when the first one began, likewise (data drawn, nothing computed).
        imported: when torch had been imported, and nothing else of weight, likewise.
        once: seconds that work done once before training took (DPO's reference log-probabilities).
        peak: high-water mark of resident memory in bytes, up to the last step's end.
        rows: the sequences that reached the model in the first steps: sorted (ids, trained) by their digest.
        gradients: "step/tensor" -> its norm and some of its values.
        more: numbers of one method alone.
        versions: of torch, transformers and the library.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    began: float = 0.0
    imported: float = 0.0
    once: float = 0.0
    peak: int = 0
    rows: list[str] = field(default_factory=list)
    gradients: dict[str, list[float]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


class WorkerError(RuntimeError):
    """A worker ended without a result."""


def start(module: str, job: Job, folder: Path, threads: int, first_on_path: Path | None = None) -> Told:
    """Run `python -m benchmarks.<module>` on the job in a new process, and wait for it.

    Raises:
        WorkerError: it failed; the end of what it said is in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for cache in ("cache", "datasets"):  # no side finds what its last run tokenized
        shutil.rmtree(folder / cache, ignore_errors=True)
    asked, answer, log = folder / "job.json", folder / "told.json", folder / "log.txt"
    answer.unlink(missing_ok=True)
    asked.write_text(json.dumps(asdict(job)), encoding="utf-8")
    path = [str(first_on_path)] if first_on_path else []
    path += [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(path),
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets"), "TRUEUP_CACHE": str(folder / "cache"),
        "STARTED": repr(time.time()), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    with log.open("w", encoding="utf-8") as out:
        command = [sys.executable, "-m", f"benchmarks.{module}", str(asked), str(answer)]
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=env, check=False).returncode
    if code or not answer.is_file():
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise WorkerError(f"{module}: {job.method} ended with code {code}\n{end}")
    return Told(**json.loads(answer.read_text(encoding="utf-8")))


def asked() -> tuple[Job, Path]:
    """Return the job of this worker process, and the path of its result."""
    values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return Job(**values | {"captured": tuple(values["captured"])}), Path(sys.argv[2])


def tell(told: Told, path: Path) -> None:
    """Write the result of this worker process."""
    path.write_text(json.dumps(asdict(told)), encoding="utf-8")
