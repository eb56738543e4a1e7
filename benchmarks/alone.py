"""Comparisons that time no optimizer steps: start-up, and sampling against `transformers`' generate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks import workloads
from benchmarks.compare import DifferentWorkError
from benchmarks.job import Job, WorkerError
from benchmarks.race import run_side
from benchmarks.works import TRL, TRUEUP, Plan, with_rows

STARTUP_AIM = 3.0  # seconds
SAMPLING_AIM = 2.0  # times generate's rate


def startup(plan: Plan, scratch: Path, console: Console) -> dict[str, Any]:
    """Return the seconds from the import of torch to the end of the first step: SFT of a tiny model on 32 rows."""
    console.print("[bold]start-up[/]")
    model = workloads.llama(plan.cache / "tiny", workloads.TINY)
    job = Job("sft", str(model), "", 1, batch=4)
    job = with_rows(job, workloads.rankings(32, words=workloads.TINY.words), plan, "startup")
    for side in (TRUEUP, TRL):  # the files of both libraries are in memory from here on
        run_side(job, side, plan, scratch / f"cold-{side.name}")
    seconds: dict[str, list[float]] = {"trueup": [], "TRL": []}
    for turn in range(plan.rounds):
        for side in (TRUEUP, TRL):
            told = run_side(replace(job), side, plan, scratch / f"{side.name}-{turn}")
            seconds[side.name].append(told.ends[0] - told.imported)
    found = {name: median(values) for name, values in seconds.items()}
    return {"name": "startup", "seconds": found, "aim": STARTUP_AIM}


def sampling(plan: Plan, scratch: Path, console: Console) -> dict[str, Any]:
    """Return the tokens per second of greedy sampling, after checking that the answers are equal.

    Raises:
        DifferentWorkError: an answer differs.
    """
    console.print("[bold]sampling[/]: greedy, mixed lengths")
    model = workloads.llama(plan.cache / "wandering", workloads.WANDERING)
    told: dict[str, list[dict[str, Any]]] = {"trueup": [], "transformers": []}
    for _ in range(plan.rounds):
        for side, kept in told.items():
            kept.append(_answers(side, model, scratch, plan.threads))
    ours, theirs = (told[side][0]["ids"] for side in ("trueup", "transformers"))
    if odd := [at for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other]:
        raise DifferentWorkError(
            f"sampling: {len(odd)} of {len(ours)} greedy answers differ, the first is {odd[0] + 1}"
        )
    lengths = sorted(map(len, ours))
    sides = {
        name: {
            "rate": sum(lengths) / median(one["seconds"] for one in kept),
            "peak_bytes": max(one["peak"] for one in kept),
        }
        for name, kept in told.items()
    }
    ratio = sides["trueup"]["rate"] / sides["transformers"]["rate"]
    spread = {"answers": len(lengths), "shortest": lengths[0], "median": median(lengths), "longest": lengths[-1]}
    return {"name": "sampling", "sides": sides, "ratio": ratio, "aim": SAMPLING_AIM, "lengths": spread}


def _answers(side: str, model: Path, scratch: Path, threads: int) -> dict[str, Any]:
    """Return a worker's answers, seconds and peak memory.

    Raises:
        WorkerError: it failed.
    """
    asked, answer = scratch / "asked.json", scratch / "answer.json"
    asked.write_text(json.dumps({"model": str(model)}), encoding="utf-8")
    answer.unlink(missing_ok=True)
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks.generation", side, str(asked), str(answer)]
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if made.returncode:
        raise WorkerError(f"generation, {side}: ended with code {made.returncode}\n{made.stderr[-800:]}")
    return json.loads(answer.read_text(encoding="utf-8"))
