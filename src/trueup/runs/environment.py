"""What a run's bits depend on beside its configuration and data: software, processor, threads, device.

A stage writes them to `surroundings.json` when its training begins. Where it goes on under others, that is told, and
the file keeps both: a list of parts, each with the step that it holds from.

    {"parts": [{"from_step": 0, "surroundings": {"torch": "2.9.0", "threads": "4", ...}}, ...]}

Nothing of the environment's variables is kept, no name of the machine or of a person.
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
    """Everything here that may change the last bits of a sum, in words, fit for JSON.

    Args:
        device: where the model is.
        dtype: what it computes in.
        world: the number of processes, each of which sums gradients in an order of its own.
        strategy: how they share the work.
        attention: transformers' name of the attention that is in use, if it is known.
    """
    found = {name: _version(name) for name in _PACKAGES}
    found |= {
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
    return found | (_cuda(device) if device.type == "cuda" else {})


def list_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, such as `torch: 2.8.0 -> 2.9.0`."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key}: {before.get(key, _UNKNOWN)} -> {now.get(key, _UNKNOWN)}" for key in keys]


def record_surroundings(folder: Path, step: int, now: Mapping[str, str]) -> list[str]:
    """Write `surroundings.json` into a run folder. -> what has changed since the run's last part; usually nothing.

    Args:
        folder: the run folder.
        step: optimizer steps done: 0 of a new run, else those of the checkpoint that it goes on from.
        now: what `surroundings` gives.

    Raises:
        OSError: it cannot be written.
    """
    known = _parts(folder / SURROUNDINGS_FILE)
    parts = [part for part in known if part["from_step"] < step]  # later ones belong to steps that are done again
    before = parts[-1]["surroundings"] if parts else None
    if before != dict(now):
        parts.append({"from_step": step, "surroundings": dict(now)})
    if parts != known:
        atomic_write_text(folder / SURROUNDINGS_FILE, json.dumps({"parts": parts}, indent=2, ensure_ascii=False) + "\n")
    return [] if before is None else list_changes(before, now)


def changes_warning(changed: list[str]) -> str:
    """What to tell where a run goes on under other surroundings."""
    return f"goes on under other surroundings, so its bits may differ: {'; '.join(changed)}"


@cache
def code_version() -> str:
    """A hash of trueup's own code, whether it was installed or is a working copy."""
    sources = sorted(Path(str(resources.files("trueup"))).rglob("*.py"))
    return fingerprint(sources)[:16]


def _parts(path: Path) -> list[dict[str, Any]]:
    """The parts that a file tells; none where it is not there, or is not as it was written."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        kept = [{"from_step": int(one["from_step"]), "surroundings": dict(one["surroundings"])} for one in parts]
        return sorted(kept, key=lambda one: one["from_step"])
    return []


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _UNKNOWN


def _cpu() -> str:
    """The processor's name: other ones may choose other kernels."""
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _math() -> str:
    """The libraries that multiply matrices on the processor, as torch was built with them."""
    built = torch.__config__.show()
    named = re.findall(r"^\s*- (Intel\(R\).*? Version \S+|Intel\(R\) MKL-DNN v\S+)", built, re.MULTILINE)
    blas = re.search(r"BLAS_INFO=(\w+)", built)
    return ", ".join([*named, *([f"BLAS {blas[1]}"] if blas else [])]) or _UNKNOWN


def _cuda(device: torch.device) -> dict[str, str]:
    """What a GPU's bits depend on, of CUDA and of ROCm."""
    major, minor = torch.cuda.get_device_capability(device)
    driver = _UNKNOWN
    with suppress(OSError):
        found = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text(encoding="utf-8"))
        driver = found[1] if found else _UNKNOWN
    return {
        "gpu": torch.cuda.get_device_name(device),
        "compute capability": f"{major}.{minor}",
        "driver": driver,
        "cuda": str(torch.version.cuda or torch.version.hip),
        "cudnn": str(torch.backends.cudnn.version()),
        "cudnn deterministic": str(torch.backends.cudnn.deterministic).lower(),
        "cudnn benchmark": str(torch.backends.cudnn.benchmark).lower(),
    }
