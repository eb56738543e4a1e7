"""Python processes that start in milliseconds: forks of one warm process that has imported torch and trueup.

    done = warm.run([sys.executable, "-m", "trueup", "sft", "sft.yaml"], capture_output=True, text=True)
    server = warm.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

`run` and `Popen` take and return the same as those of `subprocess`. A fresh interpreter costs some seconds of imports,
a fork of the warm one none. Not for tests of what is imported when, of variables that libraries read while they are
imported (HF_HOME, OMP_NUM_THREADS), or of memory: those start an interpreter of their own.

This file is also the program that forks. It has one thread, as a fork of several could hang.
"""

from __future__ import annotations

import atexit
import functools
import gc
import inspect
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock

_MESSAGE = 2**20  # bytes of a request at most
_PARAMETERS = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class _Server:
    """The warm process, seen from the tests."""

    def __init__(self) -> None:
        self._socket = _socket()
        self._process: subprocess.Popen[bytes] | None = None
        # The test processes of one session share it: who comes first starts it.
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
        address = Path(tempfile.gettempdir()) / f"trueup-warm-{session}"
        with FileLock(address.with_suffix(".lock")):
            try:
                self._socket.connect(str(address))
            except OSError:
                listening = _socket()
                address.unlink(missing_ok=True)
                listening.bind(str(address))
                listening.listen()
                environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
                command = [sys.executable, __file__, str(listening.fileno()), str(address)]
                self._process = subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()])
                listening.close()
                self._socket.connect(str(address))
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}

    def start(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a child with these standard streams. Returns its process id."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], list(descriptors))
            while True:
                message = self._receive()
                if "started" in message:
                    pid = int(message["started"])
                    self._codes.pop(pid, None)  # of an earlier process: the system gives numbers out again
                    return pid

    def exit_code(self, pid: int, timeout: float | None) -> int | None:
        """Return a child's exit code (negative: the signal that ended it), or None where it still runs."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                while pid not in self._codes and select.select([self._socket], [], [], 0)[0]:
                    self._receive()
                if pid in self._codes:
                    return self._codes[pid]
            if until is not None and time.monotonic() >= until:
                return None
            select.select([self._socket], [], [], 0.05)

    def _receive(self) -> dict[str, Any]:
        content = self._socket.recv(_MESSAGE)
        if not content:
            raise RuntimeError("the warm process has ended: see what it printed")
        message: dict[str, Any] = json.loads(content)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
        return message

    def close(self) -> None:
        """Leave the warm process, which ends when nobody is left."""
        self._socket.close()
        if self._process is not None:
            self._process.wait()


def _socket() -> socket.socket:
    """Return a socket for whole messages, each with open files."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE)
    return made


@functools.cache
def _server() -> _Server:
    """The session's warm process, started for the first test that needs it."""
    started = _Server()
    atexit.register(started.close)
    return started


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen` of a Python program, by a fork of the warm process.

    Args:
        args: `[sys.executable, "-m", MODULE | "-c", CODE | FILE, …]`.
        before: "module:function", called in the child before the program, with `settings`.
        settings: for `before`; fit for JSON.
        options: as `subprocess.Popen` takes them; of `preexec_fn` nothing is called, as SIGINT is heard anyway.
    """

    def __init__(
        self, args: Sequence[str], *, before: str | None = None, settings: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self._before = (before, settings or {})
        super().__init__(args, **options)

    def _execute_child(self, *args: Any) -> None:
        given = _PARAMETERS.bind(self, *args).arguments
        command = [os.fspath(word) for word in given["args"]]
        assert command[0] == sys.executable, "only Python programs are forked"
        ends = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        environment = os.environ if given["env"] is None else given["env"]
        request = {
            "command": command[1:],
            "cwd": os.fspath(given["cwd"] or Path.cwd()),
            "env": dict(environment),
            "session": given["start_new_session"],
            "before": self._before,
        }
        self.pid = _server().start(request, [end if end != -1 else number for number, end in enumerate(ends)])
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = _server().exit_code(self.pid, 0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self.returncode = _server().exit_code(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


def run(
    args: Sequence[str], *, input: Any = None, capture_output: bool = False, timeout: float | None = None,  # noqa: A002 -- as subprocess
    check: bool = False, **options: Any,
) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """`subprocess.run` of a Python program, by a fork of the warm process."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, args, out, err)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


# ------------------------------------------------------------------ in the process that forks


def serve(listening: socket.socket) -> None:
    """Fork a child for each request; tell its process id, and its exit code when it ends. Ends with the last user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is pytest's
    warm_up()
    gc.collect()
    gc.freeze()  # nothing of it is to be tidied away in a child
    users: set[socket.socket] = {listening.accept()[0]}
    children: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> process id, who asked for it
    while users:
        for ready in select.select([listening, *users, *children], [], [])[0]:
            if ready is listening:
                users.add(listening.accept()[0])
            elif isinstance(ready, socket.socket):
                content, descriptors, *_ = socket.recv_fds(ready, _MESSAGE, 3)
                if not content:
                    users.remove(ready)
                    ready.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    for end in (listening, *users):
                        end.close()
                    for descriptor in children:
                        os.close(descriptor)
                    child(json.loads(content), descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                children[os.pidfd_open(pid)] = pid, ready
                ready.send(json.dumps({"started": pid}).encode())
            else:
                pid, user = children.pop(ready)
                os.close(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):  # who asked is gone
                    user.send(json.dumps({"ended": pid, "code": code}).encode())


def warm_up() -> None:
    """Import everything, and run each stage once: no child waits for what is imported only when it is used."""
    import tiny_data
    import trueup

    for module in pkgutil.walk_packages(trueup.__path__, "trueup."):
        if not module.name.endswith("__main__"):
            import_module(module.name)

    with tempfile.TemporaryDirectory() as place, redirect_stderr(StringIO()):
        os.environ["TRUEUP_CACHE"] = place
        for method in tiny_data.KIND:
            tiny_data.run(tiny_data.stage(method, Path(place), method, lora=tiny_data.LORA, optim={"steps": 1}))


def child(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Become the program that was asked for; never returns."""
    code = 70
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in descriptors:
            os.close(descriptor)
        if request["session"]:
            os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):  # a background job's child would ignore SIGINT
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            errors = "backslashreplace" if number == 2 else "strict"
            stream = open(number, mode, encoding="utf-8", errors=errors, closefd=False, buffering=1)  # noqa: SIM115
            setattr(sys, name, stream)
        name, settings = request["before"]
        if name is not None:
            module, _, function = name.partition(":")
            getattr(import_module(module), function)(**settings)
        code = exit_code(lambda: program(request["command"]))
    except BaseException:  # noqa: BLE001 -- this child must never go on as a second server
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def program(command: list[str]) -> None:
    """Run `-m MODULE …`, `-c CODE …` or `FILE …` as `python` does."""
    while command[0] in ("-P", "-u"):
        command = command[1:]
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        sys.path.insert(0, "")
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        runpy.run_path(command[0], run_name="__main__")


def exit_code(work: Callable[[], None]) -> int:
    """Do the work; return the exit code that Python would end with, after the handlers of `atexit`."""
    code: Any = 0
    try:
        work()
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 -- as Python does
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads that are no daemons
    atexit._run_exitfuncs()
    return code or 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    finally:
        for path in (Path(sys.argv[2]), Path(sys.argv[2]).with_suffix(".lock")):
            path.unlink(missing_ok=True)
