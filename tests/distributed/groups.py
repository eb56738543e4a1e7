"""Run stages in groups of processes, and hold what two runs left against each other.

run_jobs([Job(config), Job(other, stop=3)], world=2)      # both in one group of two processes, one after the other
differences(one, two)                                     # what is not the same to 1e-5; [] if nothing
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tiny_data import finish_processes, start_processes
from trueup.config import to_yaml

WORKER = str(Path(__file__).with_name("worker.py"))
TOLERANCE = 1e-5  # of max(1, |x|)
SUMS = 1e-4  # of what is known of one row: the difference of log-probabilities of whole answers, hundreds of nats
_SUMS = {"kl", "chosen", "rejected"}
# What differs between any two runs: times, memory, and the names of processes.
_VOLATILE = {"seconds", "tokens_per_second", "peak_memory_bytes"}
_LINES = ("metrics.jsonl", "samples.jsonl", "watch.jsonl", "alarms.jsonl")


@dataclass(frozen=True)
class Job:
    """A stage to run; `stop`: at which step (one process: at which look) it is stopped and saved, as by Ctrl-C."""

    config: Any
    stop: int | None = None


def run_jobs(jobs: Sequence[Job], world: int, timeout: float = 500) -> list[str]:
    """Run all jobs in one group of `world` processes. -> what each process printed."""
    listed: list[dict[str, Any]] = []
    for at, job in enumerate(jobs):
        folder = Path(job.config.output)
        path = folder.with_name(f"{folder.name}-{world}-{at}.yaml")
        path.write_text(to_yaml(job.config), encoding="utf-8")
        listed.append({"method": job.config.method, "config": str(path), "stop": job.stop})
    table = Path(jobs[0].config.output).with_name(f"jobs-{world}-{len(jobs)}.json")
    table.write_text(json.dumps(listed), encoding="utf-8")
    return finish_processes(start_processes([WORKER, str(table)], world), timeout=timeout)


def rows_of(config: Any, world: int) -> dict[str, list[list[int]]]:
    """Source -> the rows of each step over all processes, sorted."""
    output, together = Path(config.output), dict[str, list[list[int]]]()
    for rank in range(world):
        own = json.loads(output.with_name(f"{output.name}.rows-{rank}.json").read_text(encoding="utf-8"))
        for name, steps in own.items():
            mine = together.setdefault(name, [[] for _ in steps])
            for at, rows in enumerate(steps):
                mine[at] = sorted(mine[at] + rows)
    return together


def differences(one: Any, two: Any, *, resumed: bool = False) -> list[str]:
    """Return the differences between the files of two runs: numbers to 1e-5, all else exactly.

    A summary counts the tokens since the start, so those of a resumed run are not compared.
    """
    first, second = Path(one.output), Path(two.output)
    found = [f"file {name}" for name in sorted(set(files(first)) ^ set(files(second)))]
    for name in _LINES:
        limit = TOLERANCE if name == "metrics.jsonl" else SUMS
        found += [f"{name}{place}" for place in _unequal(lines(first / name), lines(second / name), limit)]
    left_out = _VOLATILE | ({"tokens"} if resumed else set())
    for name in ("summary.json", "data.json"):
        left, right = (_json(folder / name, left_out) for folder in (first, second))
        found += [f"{name}{place}" for place in _unequal(left, right, TOLERANCE)]
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "outputs.safetensors"):
        if (first / name).exists() and (second / name).exists():
            found += [f"{name}: {place}" for place in _unequal_tensors(first / name, second / name)]
    return found


def files(folder: Path) -> list[str]:
    """The run folder's files. What is sharded is one thing, however many processes wrote it."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted({name for name in names if "/sharded/" not in name and "checkpoints/" not in name})


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none if it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _json(path: Path, left_out: set[str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in read.items() if name not in left_out}


def _unequal(one: Any, two: Any, sums: float, place: str = "", key: str = "") -> Iterator[str]:
    """Yield the differences of two JSON values; `sums` is the tolerance for the sums of a row's answers."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            yield f"{place}: keys {sorted(one.keys() ^ two.keys())}"
        for name in one.keys() & two.keys():
            yield from _unequal(one[name], two[name], sums, f"{place}.{name}", name)
    elif isinstance(one, list) and isinstance(two, list):
        if len(one) != len(two):
            yield f"{place}: {len(one)} and {len(two)}"
        for at, (left, right) in enumerate(zip(one, two, strict=False)):
            yield from _unequal(left, right, sums, f"{place}[{at}]", key)
    elif isinstance(one, float) and isinstance(two, float):
        limit = sums if key in _SUMS else TOLERANCE
        if not math.isclose(one, two, rel_tol=limit, abs_tol=limit):
            yield f"{place}: {one!r} and {two!r}"
    elif one != two or type(one) is not type(two):
        yield f"{place}: {one!r} and {two!r}"


def _unequal_tensors(one: Path, two: Path) -> Iterator[str]:
    """Tensors that differ: as a whole by 1e-5 of their norm, or in one number by ten times that.

    Adam divides a gradient by its own size, so a number whose gradient is next to nothing follows its rounding.
    """
    left, right = load_file(one), load_file(two)
    yield from (f"tensor {name}" for name in sorted(left.keys() ^ right.keys()))
    for name in sorted(left.keys() & right.keys()):
        first, second = left[name], right[name]
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            yield f"{name}: {first.dtype} {tuple(first.shape)}, {second.dtype} {tuple(second.shape)}"
        elif first.numel():
            apart, size = (first.double() - second.double()), first.double()
            if not apart.norm() <= TOLERANCE * max(1.0, size.norm().item()):
                yield f"{name} differs by {apart.norm():.2g} of {size.norm():.2g}"
            if not apart.abs().max() <= 10 * TOLERANCE * max(1.0, size.abs().max().item()):
                yield f"{name} differs in one number by {apart.abs().max():.2g}"


def each_once(steps: list[list[int]], rows: int) -> bool:
    """Return True if every epoch among the steps, the last perhaps incomplete, has each row once. Steps end epochs."""
    epoch: list[int] = []
    for step in steps:
        epoch += step
        if len(epoch) == rows:
            if Counter(epoch) != Counter(range(rows)):
                return False
            epoch = []
    return len(epoch) < rows and len(set(epoch)) == len(epoch)
