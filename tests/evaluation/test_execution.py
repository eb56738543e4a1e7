"""A model's code runs confined: it can compute, and cannot reach the network, files, programs, or run for long."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from trueup.errors import ConfigError
from trueup.evaluation.published import execution

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="processes are confined on Linux"
)


@linux
def test_programs_that_are_right_and_wrong(tmp_path: Path) -> None:
    """Each key is a program; what the first ones try to do is refused, and is not done."""
    kept, target = tmp_path / "kept", tmp_path / "target"
    kept.write_text("kept")
    deeds = [
        "socket.socket()", "os.execv('/bin/true', ['true'])", "os.fork()", "os.kill(os.getppid(), 15)",
        f"open({str(target)!r}, 'w')", f"open({str(kept)!r}, 'a')", f"os.remove({str(kept)!r})",
        f"os.rename({str(kept)!r}, {str(target)!r})", f"os.mkdir({str(target)!r})",
    ]  # fmt: skip
    tries = [f"try:\n    {deed}\nexcept PermissionError:\n    refused += 1" for deed in deeds]
    programs = {
        "import os, socket\nrefused = 0\n" + "\n".join(tries) + f"\nassert refused == {len(deeds)}": True,
        f"import math, heapq\nprint('text')\nassert open({str(kept)!r}).read() == 'kept'": True,
        "assert 1 == 2": False,
        "raise SystemExit(0)": False,
        "import os; os._exit(0)": False,
        "def broken(": False,
        "x = bytearray(4 << 30)": False,
        "import time; time.sleep(60)": False,
    }
    results = execution.passes(list(programs), seconds=0.2)
    assert dict(zip(programs, results, strict=True)) == programs
    assert kept.read_text() == "kept"
    assert not target.exists()


@linux
@pytest.mark.slow
def test_endless_programs_are_stopped_and_endless_output_fills_no_memory() -> None:
    fake = "import os\nfor n in range(3, 64):\n    try: os.write(n, b'x' * 99)\n    except OSError: pass"
    assert execution.passes(["while True: pass", "while True: print('x' * 9999)", fake], seconds=0.5) == [False] * 3


def test_elsewhere_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match=r"only run where its process can be confined, on Linux .* this is "):
        execution.passes(["print(1)"])
