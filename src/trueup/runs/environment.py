"""Environment that a run's bits depend on, besides configuration and data: software, processor, threads, device.

A stage writes it to `surroundings.json` when its training begins. If the run resumes in another environment, the user
is warned, and the file keeps both: a list of parts, each with its first step.

    {"parts": [{"from_step": 0, "surroundings": {"torch": "2.9.0", "threads": "4", ...}}, ...]}

It contains no environment variables and no name of the machine or of a person.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from trueup.system.files import atomic_write_text, fingerprint

SURROUNDINGS_FILE = "surroundings.json"
_PACKAGES = ("trueup", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")
_UNKNOWN = "not known"


def surroundings(
    device: torch.device, dtype: torch.dtype, *, world: int = 1, strategy: str = "one", attention: str | None = None
) -> dict[str, str]:
    """Return everything outside configuration and data that may change the last bits of a sum, as texts by name.

    Names are e.g. "torch", "cpu", "threads" and "gpu"; the values are versions and settings.

    Args:
        device: the model's device.
        dtype: compute dtype.
        world: number of processes; it sets the order in which gradients are summed.
        strategy: `Runtime.strategy`.
        attention: transformers' name of the attention in use, if known.
    """
    values = {name: _version(name) for name in _PACKAGES}
    values |= {
        "python": platform.python_version(),
        "code": code_version(),
        "platform": " ".join(filter(None, (platform.system(), platform.machine(), *platform.libc_ver()))),
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "math": _math(),
        "threads": str(torch.get_num_threads()),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "processes": f"{world}, {strategy}",
        "attention": attention or _UNKNOWN,
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "float32 products": torch.get_float32_matmul_precision(),
    }
    return values | (_cuda(device) if device.type == "cuda" else {})


def list_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the differences between two results of `surroundings`, such as `torch: 2.8.0 -> 2.9.0`."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key}: {before.get(key, _UNKNOWN)} -> {now.get(key, _UNKNOWN)}" for key in keys]


def record_surroundings(folder: Path, step: int, now: Mapping[str, str]) -> list[str]:
    """Write the surroundings into a run folder's `surroundings.json`, and return the changes since the last start.

    The list of changes is empty if there are none, or if the run is new.

    Args:
        folder: the run folder.
        step: optimizer steps done: 0 in a new run, else the step of the checkpoint that it resumes from.
        now: the result of `surroundings`.

    Raises:
        OSError: it cannot be written.
    """
    earlier = _read_parts(folder / SURROUNDINGS_FILE)
    parts = [part for part in earlier if part["from_step"] < step]  # later steps will be computed again
    before = parts[-1]["surroundings"] if parts else None
    if before != dict(now):
        parts.append({"from_step": step, "surroundings": dict(now)})
    if parts != earlier:
        atomic_write_text(folder / SURROUNDINGS_FILE, json.dumps({"parts": parts}, indent=2, ensure_ascii=False) + "\n")
    return [] if before is None else list_changes(before, now)


def changes_warning(changed: list[str]) -> str:
    """Return the warning for a run that resumes in another environment; `changed` is the result of `list_changes`."""
    return f"the run resumes in another environment, so its bits may differ: {'; '.join(changed)}"


@cache
def code_version() -> str:
    """Return a hash (16 hex digits) of trueup's own Python files, installed or in a working copy."""
    sources = sorted(Path(str(resources.files("trueup"))).rglob("*.py"))
    return fingerprint(sources)[:16]


def _read_parts(path: Path) -> list[dict[str, Any]]:
    """Return the entries of surroundings.json, each with "from_step" and "surroundings".

    The list is empty if the file is missing or damaged.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        valid = [{"from_step": int(part["from_step"]), "surroundings": dict(part["surroundings"])} for part in parts]
        return sorted(valid, key=lambda part: part["from_step"])
    return []


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _UNKNOWN


def _cpu() -> str:
    """Return the processor's name: kernels are chosen by it."""
    with suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _math() -> str:
    """Return the names of the CPU's linear algebra libraries that torch was built with, as one text."""
    built = torch.__config__.show()
    libraries = re.findall(r"^\s*- (Intel\(R\).*? Version \S+|Intel\(R\) MKL-DNN v\S+)", built, re.MULTILINE)
    blas = re.search(r"BLAS_INFO=(\w+)", built)
    return ", ".join([*libraries, *([f"BLAS {blas[1]}"] if blas else [])]) or _UNKNOWN


def _cuda(device: torch.device) -> dict[str, str]:
    """Return the versions and settings by name that a GPU's bits depend on, for CUDA and ROCm."""
    major, minor = torch.cuda.get_device_capability(device)
    driver = _UNKNOWN
    with suppress(OSError):
        match = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text(encoding="utf-8"))
        driver = match[1] if match else _UNKNOWN
    return {
        "gpu": torch.cuda.get_device_name(device),
        "compute capability": f"{major}.{minor}",
        "driver": driver,
        "cuda": str(torch.version.cuda or torch.version.hip),
        "cudnn": str(torch.backends.cudnn.version()),
        "cudnn deterministic": str(torch.backends.cudnn.deterministic).lower(),
        "cudnn benchmark": str(torch.backends.cudnn.benchmark).lower(),
    }
