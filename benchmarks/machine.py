"""A description of the machine: processor, memory, versions, and its rate of float32 matrix products."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")
# (m, k, n): rows of a micro-batch through the layers of the two models, and large squares.
SHAPES = ((2048, 576, 1536), (2048, 576, 576), (1024, 256, 704), (1024, 1024, 1024), (2048, 2048, 2048))


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use: in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slug() -> str:
    """Return a name for results files: processor and cores, without the host's name."""
    name = re.sub(r"\(r\)|\(tm\)|cpu|processor|@.*", "", processor(), flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {cores()} cores".lower()).strip("-")


def memory_bytes() -> int:
    """Return the size of the memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def commit() -> str:
    """Return the commit that is measured, with a + where files differ from it."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty=+"]
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def describe(threads: int) -> dict[str, Any]:
    """Return the description of the machine for a results file."""
    import trueup

    versions: dict[str, str] = {"trueup": trueup.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "accelerator": "none",
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": threads,
        "commit": commit(),
        "versions": versions,
    }


def load() -> float:
    """Return the load average of the last minute: above 0.5 at the start, others are using the machine."""
    return os.getloadavg()[0]


def matmul_rates(seconds: float = 0.5) -> dict[str, float]:
    """Return the floating-point operations per second of float32 matrix products, by shape: the best of many each."""
    import torch

    rates: dict[str, float] = {}
    for m, k, n in SHAPES:
        left, right = torch.randn(m, k), torch.randn(n, k)
        best, until = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = min(best, time.perf_counter() - began)
        rates[f"{m}x{k}x{n}"] = 2 * m * k * n / best
    return rates


if __name__ == "__main__":  # in a process of its own, with the threads that the sides get
    import json

    json.dump(matmul_rates(), sys.stdout)
