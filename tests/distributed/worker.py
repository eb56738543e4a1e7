"""One process of a group: runs a list of stages one after the other, so that a group is started only once.

`python worker.py JOBS.json`, started by `groups.run_jobs`; each job is a configuration file and where to stop.
Every process writes which rows it was given, step by step, into `rows-RANK.json` beside the run folder.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from trueup import runtime
from trueup.config import STAGES
from trueup.errors import Interrupted
from trueup.models.batching import Batch
from trueup.recipes.kto import KtoSource
from trueup.recipes.rollouts import Rollouts
from trueup.system.interrupt import InterruptGuard
from trueup.training import loop
from trueup.training.terms import RowSource

RANK = os.environ.get("RANK", "0")
seen: dict[str, list[list[int]]] = {}  # a source by its class and number of rows -> the rows of each step


def recording(cls: type[Any]) -> None:
    """Let a source write down which rows this process gets."""
    original: Callable[..., list[Batch]] = cls.next

    def remembering(self: Any, check: Callable[[], None]) -> list[Batch]:
        micro = original(self, check)
        name = f"{cls.__name__} of {self._sampler.n}"
        seen.setdefault(name, []).append([row for batch in micro for row in batch.rows])
        return micro

    cls.next = remembering


class Guard(InterruptGuard):
    """Is asked to stop at the `stop`-th look of the first process: with several, before that step."""

    stop: int | None = None
    looks = 0

    @property
    def requested(self) -> bool:
        """Return True if that check has come."""
        self.looks += 1
        return self.stop is not None and RANK == "0" and self.looks > self.stop

    @requested.setter
    def requested(self, _: bool) -> None: ...


def run(job: dict[str, Any]) -> None:
    """Run one job."""
    seen.clear()
    Guard.stop = job["stop"]
    config = STAGES[job["method"]].model_validate(yaml.safe_load(Path(job["config"]).read_text(encoding="utf-8")))
    try:
        importlib.import_module(f"trueup.recipes.{job['method']}").run(config)
        stopped = False
    except Interrupted:
        stopped = True
    assert stopped == (job["stop"] is not None), f"{config.output}: stopped {stopped}"
    output = Path(config.output)
    output.with_name(f"{output.name}.rows-{RANK}.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    for source in (RowSource, KtoSource, Rollouts):
        recording(source)
    loop.InterruptGuard = Guard
    for one in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(one)
    runtime.shutdown()
    os._exit(0)
