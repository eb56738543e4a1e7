"""Handle Ctrl-C and SIGTERM between two training steps, so that progress is saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from trueup.errors import Interrupted

# A supervisor (torchrun, a batch system) repeats the terminal's Ctrl-C as a second signal within this time (seconds);
# only a later signal comes from a person who does not want to wait.
_REPEAT_SECONDS = 0.5

_MESSAGE = "stopping after this step and saving; press Ctrl-C again to quit at once"


class StopRequested(Exception):  # noqa: N818 -- a request, not an error
    """Request to stop, raised by `InterruptGuard.check`.

    The training loop catches it, saves, and raises `Interrupted`.
    """


class Quit(KeyboardInterrupt):
    """Ctrl-C that ends the program.

    Not a plain KeyboardInterrupt: if that is raised inside `exec` (a dataclass defined while libraries are imported),
    Python ends by the signal, whatever exit code is set later.
    """


@contextmanager
def quit_on_ctrl_c() -> Iterator[None]:
    """Make Ctrl-C raise `Quit` inside the context.

    Nothing changes off the main thread, or if Ctrl-C is handled already.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _quit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_FRAGILE = ("trueup.cli.main", "numpy", "torch", "transformers", "peft")
"""While one of these is imported, no work has begun, and an exception may abort inside C++: so exit at once."""


def _quit(_number: int, _frame: FrameType | None) -> None:
    specs = [getattr(sys.modules.get(name), "__spec__", None) for name in _FRAGILE]
    if any(getattr(spec, "_initializing", False) for spec in specs):
        with suppress(OSError):
            os.write(2, b"interrupted\n")
        os._exit(Interrupted.exit_code)
    raise Quit


class InterruptGuard:
    """Context manager that turns the first Ctrl-C or SIGTERM into a request to stop.

    The next Ctrl-C raises `Quit` at once. The request sets `requested`. On other threads it does nothing, because only
    the main thread may handle signals. A signal that is ignored when the context begins (`nohup`, background jobs)
    stays ignored. Guards may be nested.

    Args:
        say: function that shows a line to the user; by default it is written to stderr.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """Prepare the guard; the `with` statement installs the signal handlers."""
        self.requested = False
        self._say = say
        self._first_at = 0.0
        self._previous: dict[int, Any] = {}  # values of signal.getsignal: a callable, an enum or None

    def check(self) -> None:
        """Raise StopRequested if a stop was requested. Call it where stopping is safe.

        Raises:
            StopRequested: Ctrl-C or SIGTERM arrived.
        """
        if self.requested:
            raise StopRequested

    def __enter__(self) -> InterruptGuard:
        """Install the signal handlers and return the guard."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                if previous is not None and previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the earlier signal handlers."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            self._first_at = time.monotonic()
            self._announce()
        elif number == signal.SIGINT and time.monotonic() - self._first_at > _REPEAT_SECONDS:
            # If unwinding hangs, the operating system handles another Ctrl-C.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise Quit

    def _announce(self) -> None:
        try:
            if self._say is not None:
                self._say(_MESSAGE)
                return
        except RuntimeError:
            pass  # the signal came in the middle of a write to the same stream: bypass the stream
        with suppress(OSError):
            os.write(2, f"\n{_MESSAGE}\n".encode())
