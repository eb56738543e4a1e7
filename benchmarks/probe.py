"""Record in a worker the end of each optimizer step, its gradient, and peak memory: the same code for both libraries.

It uses torch's hooks for optimizers, so neither library is changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks.job import Told

_VALUES = 64  # of each tensor's gradient


def since_start() -> float:
    """Return the seconds since the worker was started."""
    return time.time() - float(os.environ["STARTED"])


IMPORTED = since_start() if "STARTED" in os.environ else 0.0
"""Seconds after which torch was imported; the libraries are imported after it."""


def peak_memory() -> int:
    """Return the high-water mark of this process's resident memory, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would also count what the parent held when it forked
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def plain(name: str) -> str:
    """Return a parameter's name without either library's prefixes; names of PPO's value model stay distinct."""
    value = re.search(r"^(?:trunks|heads)\.value\.|^value_model\.|\.lora_[AB]\.value\.", name)
    name = re.sub(r"^heads\.\w+\.", "score.", name)
    name = re.sub(r"^(?:trunks\.\w+|policy|value_model)\.", "", name).removeprefix("base_model.model.")
    name = re.sub(r"(\.lora_[AB])\.\w+", r"\1", name).replace(".modules_to_save.default", "")
    return f"value: {name}" if value else name


class Probe:
    """Fill a `Told` while the optimizer steps.

    Args:
        told: receives step ends, peak memory and gradients.
        captured: the steps whose gradients are kept.
        norms: whether to take each step's gradient norm here; else the library tells it, as it was before clipping.
    """

    def __init__(self, told: Told, captured: Iterable[int], *, norms: bool = False) -> None:
        self.told, self.captured, self.norms = told, set(captured), norms
        self.names: dict[int, str] = {}
        register_optimizer_step_pre_hook(self._before)
        register_optimizer_step_post_hook(self._after)

    def see(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        """Record the names of trained parameters."""
        self.names |= {id(parameter): plain(name) for name, parameter in parameters}

    def begin(self) -> None:
        """Record the start of training, just before the first batch is drawn."""
        self.told.began = since_start()

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if len(self.told.ends) not in self.captured:
            return
        found = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        for parameter in found:
            name = f"{len(self.told.ends)}/{self.names[id(parameter)]}"
            self.told.gradients[name] = sampled(parameter.grad)
        if self.norms:
            self.told.norms.append(float(torch.stack([one.grad.norm() for one in found]).norm()))

    def _after(self, *_: Any) -> None:
        self.told.ends.append(since_start())
        self.told.peak = peak_memory()


def sampled(gradient: torch.Tensor) -> list[float]:
    """Return a gradient's norm, then some evenly spaced values."""
    flat = gradient.detach().flatten()
    places = torch.linspace(0, flat.numel() - 1, min(_VALUES, flat.numel()), dtype=torch.float64).round().long()
    return [float(flat.norm()), *flat[places].tolist()]


def digest(ids: list[int], trained: list[bool]) -> str:
    """Return length and hash of a sequence as it reached the model."""
    return f"{len(ids)} {hashlib.sha256(repr((ids, [int(one) for one in trained])).encode()).hexdigest()[:16]}"


def same_adapters() -> None:
    """Make PEFT initialise adapters by shape and order of creation alone, so that both libraries start equal."""
    from peft.tuners.lora.layer import LoraLayer

    original, made = LoraLayer.reset_lora_parameters, [0]

    def seeded(self: Any, *arguments: Any, **named: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(made[0])
            original(self, *arguments, **named)
        made[0] += 1

    LoraLayer.reset_lora_parameters = seeded  # type: ignore[method-assign]  # the seed is not PEFT's to take


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    from importlib.metadata import version

    return {name: version(name) for name in names}
