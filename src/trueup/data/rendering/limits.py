"""Someone else's code, run for so long and with so much memory at most: a chat template is a program.

The sandbox keeps a template from files and from Python's insides, but not from looping for ever, nor from writing a
text of ten gigabytes. So each rendering gets a timer of processor time, and a limit on the memory that the process may
take beside what it has. Both are lifted when it ends; together they cost three microseconds.

Not covered: renderings in other threads than the main one have no limits (the processes that tokenize rows render in
their main threads), and what other threads allocate meanwhile counts too; memory is limited on Linux alone; a single
step of the interpreter is not cut short, but what it can do is bounded by the memory that there is.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
SECONDS = 10.0
"""Of processor time. A conversation is written in some 20 microseconds, one of 64 MB in a second."""
MEMORY = 2 * 2**30
"""Bytes beside what the process has. A conversation of 64 MB takes a quarter of it."""
_FRESH = 1.0  # seconds that the process is taken not to have grown for


class OverLimit(Exception):  # noqa: N818 - it says what was reached; who knows the template makes an error of it
    """The time or the memory that a rendering may take is used up."""


def within_limits(work: Callable[..., T], *arguments: object) -> T:
    """What `work(*arguments)` returns.

    Raises:
        OverLimit: it took more than SECONDS or MEMORY.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return work(*arguments)
    while True:
        try:
            return _limited(work, arguments)
        except MemoryError:
            if _memory.is_fresh:
                raise OverLimit(f"more than {MEMORY / 2**30:g} GB of memory") from None
            _memory.read_at = -_FRESH  # perhaps the process has grown since: once more, beside what it has now


def _limited(work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    # The process's time and not the clock's: a computer that sleeps, or is busy, is not the template's fault.
    watched = _watching()
    if watched:
        _time.until = time.thread_time() + SECONDS
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, SECONDS / 10)
    before = None
    try:
        before = _memory.lower()
        return work(*arguments)
    finally:
        if watched:  # first: no tick may come between
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        _memory.lift(before)


class _Time:
    """Until when, in the thread's own processor time, the present rendering may go on."""

    until = 0.0

    def look(self, _signal: int, _frame: FrameType | None) -> None:
        """Raises OverLimit when it is over: the timer counts what all threads take, and may be early."""
        if time.thread_time() >= self.until:
            raise OverLimit(f"more than {SECONDS:g} seconds")


class _Memory:
    """The limit on the process's data, lowered while a template is rendered, and lifted."""

    def __init__(self) -> None:
        self.read_at, self._has, self.is_fresh = -_FRESH, 0, True
        try:
            import resource  # not on every system

            Path("/proc/self/statm").read_bytes()
        except (ImportError, OSError):
            self._resource = None
        else:
            self._resource = resource
            self._page = resource.getpagesize()

    def lower(self) -> tuple[int, int] | None:
        """To what the process has, and MEMORY. Returns what `lift` needs."""
        if self._resource is None:
            return None
        now = time.monotonic()
        self.is_fresh = now - self.read_at >= _FRESH
        if self.is_fresh:
            self.read_at, self._has = now, int(Path("/proc/self/statm").read_bytes().split()[5]) * self._page
        soft, hard = self._resource.getrlimit(self._resource.RLIMIT_DATA)
        limit = self._has + MEMORY
        if soft == self._resource.RLIM_INFINITY or limit < soft:
            self._resource.setrlimit(self._resource.RLIMIT_DATA, (limit, hard))
        return soft, hard

    def lift(self, before: tuple[int, int] | None) -> None:
        """As it was before."""
        if self._resource is not None and before is not None:
            self._resource.setrlimit(self._resource.RLIMIT_DATA, before)


_time, _memory = _Time(), _Memory()


@cache
def _watching() -> bool:
    """Whether the timer's signal is ours. Its handler stays: to put it there each time would take twice as long."""
    if not hasattr(signal, "SIGVTALRM") or signal.getsignal(signal.SIGVTALRM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGVTALRM, _time.look)
    return True
