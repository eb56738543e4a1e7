"""The forks that stand for fresh Python processes in other tests: they end as these would."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import warm


def ended(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("", 0), ("import sys; sys.exit(7)", 7), ("1 / 0", 1), ("import os, signal; os.kill(os.getpid(), 9)", -9)],
)
def test_the_exit_code_is_pythons(code: str, expected: int) -> None:
    assert ended(code).returncode == expected


def test_a_number_that_is_given_out_again_has_the_exit_code_of_the_later_process() -> None:
    """The system counts to 32,768 and begins again: the code of an earlier process of that number was returned."""
    process = warm.Popen([sys.executable, "-c", ""])
    process.wait()
    warm._server()._codes.update(dict.fromkeys(range(process.pid + 1, process.pid + 1000), 7))
    done = ended("import time; time.sleep(0.1); print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
