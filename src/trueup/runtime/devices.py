"""Which device and dtype, its memory, and the generators' seeds."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

import torch

from trueup.errors import ConfigError
from trueup.runtime.allocator import give_back_memory

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str, local_rank: int, local_world: int = 1) -> torch.device:
    """The device that a configuration names, "auto" being CUDA, else MPS, else the CPU.

    Args:
        name: the device.
        local_rank: this process's number on its machine: of several GPUs each takes the one of its number.
        local_world: how many processes this machine runs.

    Raises:
        ConfigError: it is not there, or not one that trueup runs on, or several processes would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not a torch device; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: {name!r} is none that trueup runs on; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device: {name!r} was asked for, but torch sees no CUDA device here; use device=auto or cpu"
            )
        if device.index is not None and local_world > 1:
            raise ConfigError(
                f"device: {name!r} was asked for, but {local_world} processes run here, and would share it\n"
                "  fix: set device=cuda, and each takes a GPU of its own; CUDA_VISIBLE_DEVICES says which there are"
            )
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if (there := torch.cuda.device_count()) <= device.index:
            raise ConfigError(f"device: '{device}' was asked for, but there are {there} CUDA devices, from cuda:0")
        torch.cuda.set_device(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: 'mps' was asked for, but torch has no MPS here; use device=auto or cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The compute dtype, "auto" being bfloat16 on CUDA where it has it, else float32.

    Raises:
        ConfigError: it is none of those that a configuration may name.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in _DTYPES:
        raise ConfigError(f"dtype: {name!r} is unknown; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def seed_everything(seed: int) -> None:
    """Seed Python's and torch's generators (all devices)."""
    random.seed(seed)
    torch.manual_seed(seed)


def mixed_seed(*numbers: int) -> int:
    """One seed out of several numbers, well spread, the same on every machine."""
    return random.Random(repr(numbers)).getrandbits(31)


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new count of the peak: a pipeline's stages share one process. No effect where there is no count."""
    give_back_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to the present size


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_memory`: of the GPU on CUDA, else the largest resident size of this process.

    Off Linux the process's size is counted from its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # POSIX only: at the top it would break Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, Linux KiB
