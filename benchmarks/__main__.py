"""Run the comparisons: `python -m benchmarks --only sft,dpo --rounds 2`, or `make bench`. See docs/speed.md."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import alone, growth, machine, table
from benchmarks.compare import DifferentWorkError
from benchmarks.job import WorkerError
from benchmarks.race import race
from benchmarks.works import WORKS, NotRunError, Plan
from trueup.errors import TrueupError
from trueup.system.console import quiet_libraries

HERE = Path(__file__).parent
GGUF = HERE.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ALL = (*WORKS, "sampling", "startup", "growth")
TRL_PPO = HERE / ".env" / "trl-1.9.2"


def options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(ALL), help=f"comparisons, separated by commas: {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each library, in turns (A B A B)")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps that are timed")
    parser.add_argument("--warmup", type=int, default=1, help="optimizer steps before the timed ones")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="OMP_NUM_THREADS of both libraries")
    parser.add_argument("--quick", action="store_true", help="one round of three steps: to see that it runs")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("TRUEUP_BENCH_DATA"), help="hh-rlhf's rankings, a .jsonl"
    )
    parser.add_argument(
        "--gguf", type=Path, default=GGUF, help="SmolLM2-135M-Instruct; by default where `make smollm2` puts it"
    )
    parser.add_argument("--trl-ppo", type=Path, default=TRL_PPO, help="the folder that TRL 1.9.2 was installed into")
    parser.add_argument("--output", type=Path, help="the file of results [benchmarks/results/<date>-<machine>.json]")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.steps, given.warmup = 1, 3, 1
    if unknown := [name for name in given.only.split(",") if name not in ALL]:
        parser.error(f"--only {unknown[0]}: there are {', '.join(ALL)}")
    if min(given.warmup, given.steps, given.rounds, given.threads) < 1:
        parser.error("--rounds, --steps, --warmup and --threads must be at least 1")
    if given.data and not Path(given.data).is_file():
        parser.error(f"--data (or TRUEUP_BENCH_DATA) {given.data}: no such file")
    if given.gguf != GGUF and not given.gguf.is_file():
        parser.error(f"--gguf {given.gguf}: no such file")
    return given


def free_name(folder: Path, stem: str) -> Path:
    """Return a path that no earlier run has written."""
    names = (f"{stem}{'' if turn == 1 else f'-{turn}'}.json" for turn in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def matmul(threads: int) -> dict[str, float]:
    """Return the machine's matmul rates, measured in a process with the same number of threads as the libraries."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"], env=env, cwd=HERE.parent, check=True, capture_output=True
    )
    return json.loads(made.stdout)


def _one(name: str, plan: Plan, scratch: Path, console: Console, result: dict[str, Any], *, quick: bool) -> None:
    """Run one comparison and put its figures into the results."""
    if name == "growth":
        result[name] = growth.grow(plan, scratch, console, quick=quick)
    elif name in ("sampling", "startup"):
        result[name] = getattr(alone, name)(plan, scratch, console)
    else:
        best = max(result["matmul"].values())
        result["works"].append(race(WORKS[name](plan), plan, scratch, console, best))


def main() -> int:
    """Run the chosen comparisons, print tables, write results. Return 1 if the libraries did not compute the same."""
    given, console = options(), Console(width=max(120, shutil.get_terminal_size().columns))
    cache = HERE / ".cache"
    cache.mkdir(exist_ok=True)
    quiet_libraries()
    plan = Plan(
        cache, given.warmup, given.steps, given.rounds, given.threads, data=Path(given.data) if given.data else None,
        gguf=given.gguf, trl_ppo=given.trl_ppo,
    )  # fmt: skip
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(), "machine": machine.describe(given.threads), "load": machine.load(),
        "settings": {"rounds": given.rounds, "steps": given.steps, "warmup": given.warmup},
        "asked": given.only, "quick": given.quick, "matmul": matmul(given.threads), "works": [],
    }  # fmt: skip
    stem = f"{result['date']}-{machine.slug()}{'-quick' if given.quick else ''}"
    output = given.output or free_name(HERE / "results", stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    code = 0
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                _one(name, plan, Path(scratch), console, result, quick=given.quick)
            except KeyboardInterrupt:
                console.print("[bold]stopped; what was finished is kept")
                code = 130
                break
            except NotRunError as error:
                result["works"].append({"name": name, "title": name, "not_run": str(error)})
            except (DifferentWorkError, WorkerError, TrueupError) as error:
                console.print(f"[bold]{escape(str(error))}", highlight=False)
                result["works"].append({"name": name, "title": name, "not_run": str(error).splitlines()[0]})
                code = 1
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")  # after each: nothing is lost
    table.show(result, console)
    console.print(f"results: {os.path.relpath(output)}", highlight=False)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
