"""The server's side of the process that writes answers: start it, ask it for a pair, end it. Imports no torch.

The child (`python -m trueup.ranking.writing.process`) reads the store's path and the configuration from the first line
of its stdin and puts pairs into the store itself. A further line says that a rater waits; the end of stdin ends the
child, so it never outlives the server. It reports its work as lines of JSON on stdout; `AnswerWriter` keeps what a page
needs.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

from trueup.config.ranking import RankConfig
from trueup.data.rendering.messages import Message, ToolCall
from trueup.data.votes.vote_types import StoredPrompt
from trueup.system.text import excerpt, masked

WriterState = Literal["loading", "writing", "ahead", "done", "failed"]
"""What the models do. ahead: enough pairs are written, so they rest; done: every prompt has its pairs."""

COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "trueup.ranking.writing.process",
)  # -P: what lies in the current folder is no module
_STARTS = 2  # times that the child is started at most, if it dies
_ASKS = 0.25  # seconds between two signals that a rater waits
_NAMED = 3  # prompts that a note lists


@dataclass(frozen=True, slots=True)
class PairInProgress:
    """A pair whose answers are written while a rater watches them grow.

    Attributes:
        prompt: the prompt.
        first: the first answer so far, free of control characters.
        second: the second answer so far.
        done: True once the pair is in the store.
    """

    prompt: StoredPrompt
    first: str = ""
    second: str = ""
    done: bool = False


class AnswerWriter:
    """Handle of the child process whose models write answers. All methods may be called from any thread.

    Args:
        store_path: the store, which exists already.
        config: what is written, by which models.
        report: shows a line to the person at the terminal: a failure, a restart, the first prompt that is left out for
            each reason.
    """

    def __init__(
        self, store_path: Path, config: RankConfig, *, report: Callable[[str], None] = lambda _line: None
    ) -> None:
        """Prepare the child's configuration; nothing runs before `start`."""
        self._line = _json({"store": str(store_path), "config": config.model_dump(mode="json")})
        self.blind = len(config.model) > 1  # raters must not learn which model writes which answer
        self._report = report
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._starts = 0
        self._stopping = False
        self._signalled_at = -math.inf
        self._state: WriterState = "loading"
        self._problem = ""
        self._writing: PairInProgress | None = None
        self._notes: list[str] = []
        self._left_out: dict[tuple[str, str], dict[int, str]] = {}  # (kind, reason): id -> origin

    def start(self) -> None:
        """Start the child process. It loads the models in the background; if it fails, `problem` holds the reason."""
        with self._lock:
            if self._process is None and not self._stopping:
                child = self._spawn()
                self._listener = threading.Thread(target=self._listen, args=child, name="ahead", daemon=True)
                self._listener.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the child process within `timeout` seconds, whatever it is doing."""
        with self._lock:
            self._stopping = True
            process, listener = self._process, self._listener
            if process is None or listener is None or process.stdin is None:
                return
            with suppress(OSError):
                process.stdin.close()
        for share, end in ((0.25, process.terminate), (0.25, process.kill)):
            with suppress(subprocess.TimeoutExpired):
                process.wait(share * timeout)
                break
            end()  # while it imports a library, the child may not see the end of its stdin
        process.wait()
        listener.join(timeout)

    def ask(self) -> None:
        """Tell the child process that a rater waits: it writes the next pair alone, so that the rater can watch.

        Cheap; may be called often.
        """
        with self._lock:
            process, now = self._process, time.monotonic()
            if process is None or process.stdin is None or self._stopping or now - self._signalled_at < _ASKS:
                return
            self._signalled_at = now
            with suppress(OSError, ValueError):  # it has just ended
                process.stdin.write(b"ask\n")

    def writing(self) -> PairInProgress | None:
        """Return the pair that was last written alone for a waiting rater, finished or not; None if there was none."""
        with self._lock:
            return self._writing

    def state(self) -> WriterState:
        """Return the state of the models: "loading", "writing", "ahead", "done" or "failed"; see `WriterState`."""
        with self._lock:
            return self._state

    @property
    def problem(self) -> str:
        """The reason why the models failed, in one sentence and perhaps a fix; "" while they work."""
        with self._lock:
            return self._problem

    @property
    def notes(self) -> list[str]:
        """Notes for the person at the terminal: a restart, and what was left out and why."""
        with self._lock:
            return [*self._notes, *(_note(*key, list(origins.values())) for key, origins in self._left_out.items())]

    # -- the child ----------------------------------------------------------------------------------------------------

    def _spawn(self) -> tuple[subprocess.Popen[bytes], _LastLines]:
        """Start the child process in its own session, as Ctrl-C in the terminal is for the server.

        Returns the process and its last lines on stderr.
        """
        pipe = subprocess.PIPE
        process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
        self._process, self._starts, self._state = process, self._starts + 1, "loading"
        assert process.stdin is not None
        assert process.stderr is not None
        stderr_lines = _LastLines(process.stderr)
        with suppress(OSError):
            process.stdin.write(self._line)
            os.set_blocking(process.stdin.fileno(), False)  # a child that hangs must not hang who asks
        return process, stderr_lines

    def _listen(self, process: subprocess.Popen[bytes], stderr_lines: _LastLines) -> None:
        """Handle the JSON lines of the child process until it ends; if it dies, start it again, but only once."""
        while True:
            assert process.stdout is not None
            with _buffered(process.stdout) as lines:
                for line in lines:
                    with suppress(ValueError):  # cut off when it was killed
                        self._take(json.loads(line))
            code = process.wait()
            with self._lock:
                if process.stdin is not None:
                    process.stdin.close()
                if not self._restarts(code, stderr_lines):
                    return
                process, stderr_lines = self._spawn()

    def _restarts(self, code: int, stderr_lines: _LastLines) -> bool:
        """Report why the child process has ended. Returns True if it is to be started again."""
        self._writing = None if self._writing and not self._writing.done else self._writing
        if self._stopping or self._problem:
            return False
        how = f"the process that writes answers {_ending(code)}"
        if self._starts < _STARTS:
            self._notes.append(f"{how} and was started again")
            self._report(self._notes[-1])
            return True
        last = stderr_lines.last()
        output = f"; its last output: {excerpt(masked(last), 200)}" if last else ""
        self._fail(f"{how}, twice{output}")
        return False

    def _fail(self, problem: str) -> None:
        self._state, self._problem = "failed", problem
        self._report(f"no more answers are written: {problem}")

    # -- the child's lines --------------------------------------------------------------------------------------------

    def _take(self, line: dict[str, Any]) -> None:
        with self._lock:
            match line:
                case {"state": state}:
                    self._state = state
                case {"failed": problem}:
                    self._fail(problem)
                case {"begin": prompt}:
                    self._writing = PairInProgress(_prompt(prompt))
                case {"side": side, "piece": piece} if self._writing:
                    self._writing = replace(self._writing, **{side: getattr(self._writing, side) + piece})
                case {"side": side, "whole": text} if self._writing:
                    self._writing = replace(self._writing, **{side: text})
                case {"end": added} if self._writing:
                    self._writing = replace(self._writing, done=True) if added else None
                case {"left_out": number, "what": what, "why": why, "origin": origin}:
                    origins = self._left_out.setdefault((what, why), {})
                    if not origins:
                        self._report(_note(what, why, [origin]))
                    origins[number] = origin
                case _:
                    pass


class _LastLines:
    """The last lines that a process writes to a pipe, read by a thread so that the process never waits."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, args=(pipe,), name="ahead-stderr", daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with _buffered(pipe) as lines:
            for line in lines:
                self._lines.append(line.decode(errors="replace").rstrip())

    def last(self) -> str:
        """Return the last line that is not blank, or "", of a process that has ended."""
        self._reader.join(timeout=2)  # a grandchild may hold the pipe open
        return next((line for line in reversed(self._lines) if line.strip()), "")


def _buffered(pipe: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", pipe))  # a raw one reads its lines byte by byte


def _json(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _prompt(fields: Mapping[str, Any]) -> StoredPrompt:
    messages = tuple(
        Message(**message | {"calls": tuple(ToolCall(**call) for call in message.get("calls", ()))})
        for message in fields["messages"]
    )
    return StoredPrompt(fields["id"], messages, tuple(fields["tags"]), fields["origin"])


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"was killed by signal {-code}"


def _note(what: str, why: str, origins: list[str]) -> str:
    """Return a note on what was left out, such as `3 prompts left out, too long for base: a.jsonl:2, a.jsonl:7`."""
    count, named = len(origins), [origin for origin in origins if origin][:_NAMED]
    more = f" and {count - len(named)} more" if named and count > len(named) else ""
    where = f": {', '.join(named)}{more}" if named else ""
    return f"{count} {what}{'s'[: count != 1]} {why}{where}"
