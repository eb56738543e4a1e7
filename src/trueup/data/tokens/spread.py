"""Chunks of rows spread over processes that know nothing of torch, nor of the script that the user runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import ModuleType

from trueup.data.sources.decoding import Entry
from trueup.data.tokens.pack import Packed, Task, pack
from trueup.errors import DataError

Chunk = tuple[int, list[Entry]]
"""Number of the first entry in the source, from 0, and the entries."""


def by_processes(task: Task, chunks: Iterator[Chunk], workers: int) -> Iterator[Packed]:
    """The chunks packed, in order; at most four chunks a process are under way.

    Raises:
        DataError: a process was ended from outside.
        ModelError: as `pack`.
    """
    context = get_context("spawn")  # a fork would copy locks that other threads hold
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(task,))
    under_way: deque[Future[Packed]] = deque()
    try:
        for first, chunk in chunks:
            with _without_script():
                under_way.append(pool.submit(pack_there, first, chunk))
            if len(under_way) >= 4 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that tokenizes rows was ended (out of memory, or killed)\n"
            "  fix: set threads=1, to use this process alone"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_script() -> Iterator[None]:
    """A process that is started inside does not run the user's script, as it else would, to know what it defines.

    A script without `if __name__ == "__main__"` would train in every process, one from stdin could not be found.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


_task: list[Task] = []


def _begin(task: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _task.append(task)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: its processes would wait for the next chunk for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def pack_there(first: int, chunk: list[Entry]) -> Packed:
    """In a process of the pool."""
    return pack(_task[0], first, chunk)
