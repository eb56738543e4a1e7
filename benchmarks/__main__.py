"""Compare: `python -m benchmarks --only sft,dpo --rounds 2`, or `make bench`, `make bench-quick`. See docs/speed.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import compare, machine, table
from benchmarks.flops import useful
from benchmarks.job import Told, WorkerError, start
from benchmarks.works import WORKS, NotRunError, Plan, Work, for_side, sequences, sizes

HERE = Path(__file__).parent
CHECKED = 2  # optimizer steps over which both sides must agree before anything is timed
USEFUL_AIM = 0.6


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS), help=f"works, by commas: {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side, in turns (A B A B)")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps that are timed")
    parser.add_argument("--warmup", type=int, default=2, help="optimizer steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="OMP_NUM_THREADS of both sides")
    parser.add_argument("--quick", action="store_true", help="one round of three steps: to see that all works")
    parser.add_argument("--data", type=Path, default=os.environ.get("TRUEUP_BENCH_DATA"), help="hh-rlhf's pairs.jsonl")
    parser.add_argument("--output", type=Path, help="the results; else benchmarks/results/<date>-<machine>.json")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.steps, given.warmup = 1, 3, 1
    if unknown := [name for name in given.only.split(",") if name not in WORKS]:
        parser.error(f"--only {unknown[0]}: there are {', '.join(WORKS)}")
    if given.warmup < 1 or given.steps < 1 or given.rounds < 1:
        parser.error("--rounds, --steps and --warmup must be at least 1")
    return given


def compared(work: Work, plan: Plan, rounds: int, threads: int, scratch: Path, console: Console) -> dict[str, Any]:
    """Check that the sides compute the same, then time them in turns.

    Raises:
        DifferentWorkError: they do not.
    """
    console.print(f"[bold]{work.title}[/]: checking that both sides compute the same")
    checked = replace(work.job, steps=CHECKED, captured=tuple(range(CHECKED)))
    told: dict[str, Told] = {}
    sides: dict[str, dict[str, Any]] = {side.name: {"note": f"{side.name}: {side.note}"} for side in work.sides}
    for side in work.sides:
        more = {"logging_steps": 1} if side.module == "trl_side" else {}
        try:
            job = for_side(checked, side)
            told[side.name] = start(side.module, replace(job, options=job.options | more), scratch / "check", threads)
        except WorkerError as error:
            if side in work.sides[:2]:
                raise
            sides[side.name]["failed"] = str(error).splitlines()[-1]
    agreed = [compare.agreement(told["trueup"], one, work.name) for name, one in told.items() if name != "trueup"]
    runs: dict[str, list[compare.Measured]] = {name: [] for name in told}
    for turn in range(rounds):
        for side in work.sides:
            if side.name not in told:
                continue
            console.print(f"  round {turn + 1} of {rounds}: {side.name}")
            one = start(side.module, for_side(work.job, side), scratch / "run", threads)
            units = (
                [float(count) for count in one.tokens]
                if work.unit == "tokens"
                else [float(work.job.batch)] * work.job.steps
            )
            runs[side.name].append(compare.measured(one, units, plan.warmup, plan.steps * work.job.batch / work.rows))
    for name, measured in runs.items():
        sides[name] |= compare.summary(measured)
    return {
        "name": work.name, "title": work.title, "unit": work.unit, "aims": work.aims, "sides": sides,
        "ratios": compare.ratios(sides), "agreement": asdict(max(agreed, key=lambda one: one.gradient)),
    }  # fmt: skip


def useful_share(work: Work, plan: Plan, found: dict[str, Any], best: float) -> dict[str, float]:
    """The useful arithmetic of trueup's timed steps, as a share of the matmul rate."""
    first = plan.warmup * work.job.batch
    timed = sequences(work)[first : first + plan.steps * work.job.batch]
    operations = useful(sizes(work), timed, reference=work.job.method == "dpo", head=work.job.method != "reward")
    units = sum(one.prompt + sum(one.branches) for one in timed) if work.unit == "tokens" else len(timed)
    rate = operations / units * found["sides"]["trueup"]["rate"]
    return {"flops_per_second": rate, "share": rate / best, "aim": USEFUL_AIM}


def matmul(threads: int) -> dict[str, float]:
    """The machine's matmul rates, measured in a process with as many threads as the sides get."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"], env=env, cwd=HERE.parent, check=True, capture_output=True
    )
    return json.loads(made.stdout)


def main() -> int:
    """Run what was asked for, print the tables, keep the results. -> 1 if two sides did not compute the same."""
    given, console = options(), Console(soft_wrap=True)
    cache = HERE / ".cache"
    cache.mkdir(exist_ok=True)
    gguf = HERE.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    plan = Plan(cache, given.warmup, given.steps, Path(given.data) if given.data else None, gguf)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(), "machine": machine.describe(given.threads), "load": machine.load(),
        "settings": {"rounds": given.rounds, "steps": given.steps, "warmup": given.warmup},
        "matmul": matmul(given.threads), "works": [],
    }  # fmt: skip
    best, code = max(result["matmul"].values()), 0
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                work = WORKS[name](plan)
                found = compared(work, plan, given.rounds, given.threads, Path(scratch), console)
                if work.useful:
                    found["useful"] = useful_share(work, plan, found, best)
            except NotRunError as error:
                found = {"name": name, "title": name, "not_run": str(error)}
            except (compare.DifferentWorkError, WorkerError) as error:
                console.print(f"[bold]{error}", markup=True, highlight=False)
                found, code = {"name": name, "title": name, "not_run": str(error).splitlines()[0]}, 1
        result["works"].append(found)
    table.show(result, console)
    output = given.output or HERE / "results" / f"{result['date']}-{machine.slug()}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"results: {output.name}")
    return code


if __name__ == "__main__":
    sys.exit(main())
