"""Freed memory is kept for the next step instead of being taken fresh from the system, page by page."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trueup.runtime import allocator

FAULTS = """
import resource, sys, torch
from trueup.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for turn in range(12):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(allocator._c_library() is None, reason="needs Linux with glibc")
def test_a_freed_tensor_s_pages_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tensors of 64 MB: 16,384 pages each where the system hands them out anew (fewer where it has large pages)."""
    for name in allocator._USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    fresh, kept = faults("default"), faults("keep")
    assert fresh > 300
    assert kept < fresh / 10


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not allocator.keep_freed_memory()


def test_another_system_s_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
    allocator.give_back_memory()
