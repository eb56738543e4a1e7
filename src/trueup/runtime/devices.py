"""Choose the device and dtype, measure memory, and seed the random generators."""

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
    """Return the device that a configuration names; "auto" is CUDA, else MPS, else the CPU.

    Args:
        name: device name.
        local_rank: number of this process on its machine; it takes the GPU of that number.
        local_world: number of processes on this machine.

    Raises:
        ConfigError: the device does not exist or is not supported, or several processes would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not a torch device; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: {name!r} is not supported by trueup; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device: {name!r} is configured, but torch finds no CUDA device; use device=auto or cpu")
        if device.index is not None and local_world > 1:
            raise ConfigError(
                f"device: {name!r} is configured, but {local_world} processes on this machine would share it\n"
                "  fix: set device=cuda, so that each takes another GPU; CUDA_VISIBLE_DEVICES selects the GPUs"
            )
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if (count := torch.cuda.device_count()) <= device.index:
            raise ConfigError(f"device: '{device}' is configured, but there are {count} CUDA devices, from cuda:0")
        torch.cuda.set_device(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: 'mps' is configured, but torch finds no MPS; use device=auto or cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype; "auto" is bfloat16 on a CUDA device that supports it, else float32.

    Raises:
        ConfigError: the name is unknown.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in _DTYPES:
        raise ConfigError(f"dtype: {name!r} is unknown; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def seed_everything(seed: int) -> None:
    """Seed Python's and torch's random generators (all devices)."""
    random.seed(seed)
    torch.manual_seed(seed)


def mixed_seed(*numbers: int) -> int:
    """Return a seed made from several numbers (such as seed and step) by hashing, equal on every machine."""
    return random.Random(repr(numbers)).getrandbits(31)


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak memory counter where there is one, because a pipeline's stages share a process."""
    give_back_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to the present size


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory in bytes since `reset_peak_memory`: the GPU's on CUDA, else the process's resident memory.

    Outside Linux the process's memory is counted from its start.
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
