"""One comparison: the check that both libraries compute the same, then the timing, in turns."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import compare
from benchmarks.flops import useful
from benchmarks.job import Job, Told, WorkerError, start
from benchmarks.works import Plan, Side, Work, for_side, sequences, sizes

CHECKED = 2  # optimizer steps over which both sides must agree before anything is timed
USEFUL_AIM = 0.6


def run_side(job: Job, side: Side, plan: Plan, scratch: Path) -> Told:
    """Run one library's part in a separate process.

    Raises:
        WorkerError: it failed.
    """
    first = plan.trl_ppo if side.module == "ppo_trl_side" else None
    return start(side.module, for_side(job, side), scratch, plan.threads, first)


def check(work: Work, plan: Plan, scratch: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the same two steps with both libraries.

    Returns:
        The largest differences, and why a side (not one of the first two) did not run.

    Raises:
        DifferentWorkError: they do not compute the same.
        WorkerError: one of the first two sides failed.
    """
    job = replace(work.job, steps=CHECKED, captured=tuple(range(CHECKED)))
    if (
        job.method == "ppo"
    ):  # one rollout, each step over all of it: which rows a step takes is then no matter of chance
        numbers = job.options["numbers"] | {"episodes": job.batch, "epochs": CHECKED, "rollouts": 1}
        options = {"numbers": numbers, "samples": str(scratch / "samples.json")}
        job = replace(job, options=options, rows=job.rows.replace(".jsonl", ".check.jsonl"))
    told: dict[str, Told] = {}
    failed: dict[str, str] = {}
    for side in work.sides:
        more = {"logging_steps": 1} if side.module == "trl_side" else {}
        try:
            told[side.name] = run_side(replace(job, options=job.options | more), side, plan, scratch)
        except WorkerError as error:
            if side in work.sides[:2]:
                raise
            failed[side.name] = str(error).splitlines()[0]
    ours = told.pop(work.sides[0].name)
    agreed = [compare.agreement(ours, one, work.name) for one in told.values()]
    worst = {name: max(getattr(one, name) for one in agreed) for name in ("loss", "norm", "gradient")}
    return asdict(agreed[0]) | worst, failed


def race(work: Work, plan: Plan, scratch: Path, console: Console, matmul: float) -> dict[str, Any]:
    """Check, then time each side `plan.rounds` times, in turns. Return the comparison's part of the results.

    Raises:
        DifferentWorkError: the sides do not compute the same.
        WorkerError: a side failed.
    """
    console.print(f"[bold]{work.title}[/]: checking that both sides compute the same")
    agreed, failed = check(work, plan, scratch)
    runs: dict[str, list[compare.Measured]] = {side.name: [] for side in work.sides if side.name not in failed}
    for turn in range(plan.rounds):
        for side in (one for one in work.sides if one.name in runs):
            console.print(f"  round {turn + 1} of {plan.rounds}: {side.name}")
            runs[side.name].append(_measured(run_side(work.job, side, plan, scratch), work))
    sides = {side.name: {"note": f"{side.name}: {side.note}"} for side in work.sides}
    for name in sides:
        sides[name] |= compare.summary(runs[name]) if name in runs else {"failed": failed[name]}
    found: dict[str, Any] = {
        "name": work.name, "title": work.title, "unit": work.unit, "aims": work.aims, "sides": sides,
        "ratios": compare.ratios(sides), "agreement": agreed,
    }  # fmt: skip
    return found | ({"useful": _useful_share(work, sides["trueup"]["rate"], matmul)} if work.useful else {})


def _measured(told: Told, work: Work) -> compare.Measured:
    if work.unit == "tokens":
        units: list[float] = [float(one) for one in told.tokens]
    else:  # in PPO a rollout's episodes are in each of its epochs
        epochs = work.job.options["numbers"]["epochs"] if work.job.method == "ppo" else 1
        units = [work.job.batch / epochs] * work.job.steps
    return compare.measured(told, units, work.warmup, (work.job.steps - work.warmup) * work.job.batch / work.rows)


def _useful_share(work: Work, rate: float, matmul: float) -> dict[str, float]:
    """Return the useful arithmetic of trueup's timed steps, as a share of the matmul rate."""
    timed = sequences(work)[work.warmup * work.job.batch : work.job.steps * work.job.batch]
    operations = useful(sizes(work), timed, reference=work.job.method == "dpo")
    units = sum(one.prompt + sum(one.branches) for one in timed) if work.unit == "tokens" else len(timed)
    done = operations / units * rate
    return {"flops_per_second": done, "share": done / matmul, "aim": USEFUL_AIM}
