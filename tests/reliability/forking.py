"""Runs of `trueup …` that can be killed anywhere: each is a fork of the warm process (see `warm`).

    run("sft", "sft.yaml", kill_after=0.3)           # SIGKILL after 0.3 s
    run("sft", "sft.yaml", kill_at=17, under=folder) # at its 17th change of a file below the folder

A change of a file is: a file opened for writing, a line appended, tensors written (both half written when it is the
moment to die), a sync, a rename, a removal, a folder made.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import warm

KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Ended:
    """Result of a run: exit code (negative: the signal), seconds, output, and its changes of files."""

    code: int
    seconds: float
    said: str
    changes: list[str]


def run(
    *arguments: str, kill_after: float | None = None, kill_at: int | None = None, under: Path | None = None,
    by: signal.Signals = signal.SIGKILL, times: int = 1, env: dict[str, str] | None = None, largest: int | None = None,
) -> Ended:  # fmt: skip
    """Run a command to its end, or until it is killed.

    Args:
        arguments: of `trueup`.
        kill_after: seconds.
        kill_at: the change of a file, from 1, that is not made any more.
        under: the folder whose changes count and are told.
        by: another signal, which need not end it: then the change is made.
        times: how often that signal comes, with a second between.
        env: more variables of its environment.
        largest: bytes that a file may have.
    """
    settings: dict[str, Any] = {"kill_at": kill_at, "under": None, "by": by, "times": times, "largest": largest}
    with subprocess_file() as said, subprocess_file() as told:
        if under is not None:
            settings |= {"under": str(under), "changes": told.name}
        started = time.monotonic()
        process = warm.Popen(
            [sys.executable, "-m", "trueup", *arguments], before="reliability.forking:prepare", settings=settings,
            env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            _send(process.pid, by, times)
            process.wait()
        seconds = time.monotonic() - started
        texts = [Path(file.name).read_text("utf-8", "replace") for file in (said, told)]
    return Ended(process.returncode, seconds, texts[0], texts[1].splitlines())


def subprocess_file() -> Any:
    """A temporary file with a name, that a child writes."""
    return tempfile.NamedTemporaryFile(prefix="trueup-tests-")


# ------------------------------------------------------------------ in the child


def prepare(
    kill_at: int | None, under: str | None, by: int, times: int, largest: int | None, changes: str = ""
) -> None:
    """Set the child up: limits, and the watch over its changes of files."""
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if under is not None:
        _watch(under, kill_at, by, times, os.open(changes, os.O_WRONLY))


def _send(process: int, by: int, times: int) -> None:
    for number in range(times):
        time.sleep(bool(number))
        os.kill(process, by)


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch(under: str, kill_at: int | None, by: int, times: int, told: int) -> None:
    """Tell every change of a file below a folder; die at the one whose turn it is."""
    changes = 0

    def change(what: str, path: object, half: Callable[[], object] = lambda: None) -> None:
        nonlocal changes
        changes += 1
        os.write(told, f"{what} {str(path).removeprefix(under)}\n".encode())
        if changes == kill_at:
            if by == signal.SIGKILL:
                half()
            _send(os.getpid(), by, times)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str) and path.startswith(under) and flags & WRITING:
                change("open", path)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            path = os.fspath(args[0])
            if str(path).startswith(under) or not str(path).startswith("/"):  # relative: rmtree, in an open folder
                change(event.removeprefix("os."), " -> ".join(map(str, args[: 1 + (event == "os.rename")])))

    _watch_writes(change, under)
    sys.addaudithook(audit)


def _watch_writes(change: Callable[..., None], under: str) -> None:
    """Watch writes without an audit event: syncs, appended lines, and tensors, which safetensors writes by itself."""
    from trueup.runs import folder as runfolder
    from trueup.runs import state

    sync, save = os.fsync, state.save_file

    def fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.startswith(under):
            change("sync", path)
        sync(descriptor)

    def save_file(tensors: Any, path: Path, *rest: Any) -> None:
        def half() -> None:
            save(tensors, path, *rest)
            os.truncate(path, path.stat().st_size // 2)

        change("tensors", path, half)
        save(tensors, path, *rest)

    class Appending(FileIO):
        def write(self, data: Any) -> int:
            change("append", self.name, lambda: super(Appending, self).write(data[: len(data) // 2]))
            return super().write(data)

    os.fsync, state.save_file, runfolder.FileIO = fsync, save_file, Appending  # type: ignore[assignment,misc] # doubles
