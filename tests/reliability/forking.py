"""Runs of `trueup …` that can be killed anywhere: each is a fork of one process that has imported all of it before.

    with Forks() as forks:
        forks.run("sft", "sft.yaml", kill_after=0.3)           # SIGKILL after 0.3 s
        forks.run("sft", "sft.yaml", kill_at=17, under=folder) # at its 17th change of a file below the folder

A change of a file is: a file opened for writing, a line appended, tensors written (both half written when it is the
moment to die), a sync, a rename, a removal, a folder made. This file is also the program that forks.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import FileIO, StringIO
from pathlib import Path
from types import TracebackType
from typing import Any

KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit code (negative: the signal), seconds, what it said, which changes it made to files."""

    code: int
    seconds: float
    said: str
    changes: list[str]


class Forks:
    """The process that forks. It has one thread and one CPU, as a fork of several threads could hang."""

    def __init__(self) -> None:
        """Start it; importing takes some seconds."""
        env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, __file__], env=env, **pipes)

    def run(
        self, *arguments: str, kill_after: float | None = None, kill_at: int | None = None, under: Path | None = None,
        by: signal.Signals = signal.SIGKILL, times: int = 1, **more: Any,
    ) -> Ended:  # fmt: skip
        """Run a command to its end, or until it is killed.

        Args:
            arguments: of `trueup`.
            kill_after: seconds.
            kill_at: the change of a file, from 1, that is not made any more.
            under: the folder whose changes count and are told.
            by: another signal, which need not end it: then the change is made.
            times: how often that signal comes, with a second between.
            more: `env`, variables of its environment; `largest`, bytes that a file may have.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked: dict[str, Any] = {
            "arguments": arguments,
            "after": kill_after,
            "at": kill_at,
            "under": str(under) if under else None,
        }
        asked |= {"by": by, "times": times, **more}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Forks:
        """Use it in a `with` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


# ------------------------------------------------------------------ in the process that forks


def serve() -> None:
    """Fork a child for each line of stdin; answer with how it ended."""
    _warm_up()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        said, told = os.memfd_create("said"), os.memfd_create("changes")
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(asked, said, told)
        if asked["after"] is not None:
            watched = os.pidfd_open(child)
            if not select.select([watched], [], [], asked["after"])[0]:
                _send(child, asked)
            os.close(watched)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seconds = time.monotonic() - started
        changes = _all(told).splitlines()
        answers.write(json.dumps({"code": code, "seconds": seconds, "said": _all(said), "changes": changes}) + "\n")
        answers.flush()


def _warm_up() -> None:
    """One run of each kind, so that what is imported only when it is used is there: no child waits for it."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import tiny_data
    import trueup.recipes.pipeline  # noqa: F401

    with tempfile.TemporaryDirectory() as place, redirect_stderr(StringIO()):
        for method in tiny_data.KIND:
            config = tiny_data.stage(method, Path(place), method, lora=tiny_data.LORA, optim={"steps": 1})
            tiny_data.run(config)


def _send(process: int, asked: dict[str, Any]) -> None:
    for time_ in range(asked["times"]):
        time.sleep(bool(time_))
        os.kill(process, asked["by"])


def _child(asked: dict[str, Any], said: int, told: int) -> None:
    """One run; never returns."""
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore it
        os.environ.update(asked.get("env", {}))
        if "largest" in asked:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], asked["largest"]))
        sys.argv = ["trueup", *asked["arguments"]]
        if asked["under"] is not None:
            _watch(asked, told)
        from trueup.cli.main import main

        code = main(asked["arguments"])
    except BaseException:  # noqa: BLE001 -- whatever it is, this child must not go on as a second server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _all(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read().decode("utf-8", "replace")


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch(asked: dict[str, Any], told: int) -> None:
    """Tell every change of a file below a folder; die at the one whose turn it is."""
    under, changes = asked["under"], 0

    def change(what: str, path: object, half: Callable[[], object] = lambda: None) -> None:
        nonlocal changes
        changes += 1
        os.write(told, f"{what} {str(path).removeprefix(under)}\n".encode())
        if changes == asked["at"]:
            if asked["by"] == signal.SIGKILL:
                half()
            _send(os.getpid(), asked)

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
    """What no audit event is told of: syncs, appended lines, and tensors, which safetensors writes by itself."""
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


if __name__ == "__main__":
    serve()
