"""Tokenize chunks of rows in worker processes, which import neither torch nor the user's script."""

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
"""The number of the first entry in the source, from 0, and the entries."""


def pack_in_processes(task: Task, chunks: Iterator[Chunk], workers: int) -> Iterator[Packed]:
    """Yield the tokenized chunks in order, made by `workers` processes; at most four chunks a process are in progress.

    Raises:
        DataError: a process was killed.
        ModelError: the chat template cannot be used for a row.
    """
    context = get_context("spawn")  # a fork would copy locks that other threads hold
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(task,))
    in_progress: deque[Future[Packed]] = deque()
    try:
        for first, chunk in chunks:
            with _hide_script():
                in_progress.append(pool.submit(pack_chunk, first, chunk))
            if len(in_progress) >= 4 * workers:
                yield in_progress.popleft().result()
        while in_progress:
            yield in_progress.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that tokenizes rows was ended (out of memory, or killed)\n"
            "  fix: set threads=1, to use this process alone"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _hide_script() -> Iterator[None]:
    """Keep the processes started in this context from running the user's script.

    They would import it: a script without `if __name__ == "__main__"` would train in every process, and a script from
    stdin could not be found.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


_task: list[Task] = []


def _start_worker(task: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _task.append(task)


def _exit_with_parent() -> None:
    """Exit this worker when its parent process ends; otherwise it would wait for the next chunk for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def pack_chunk(first: int, chunk: list[Entry]) -> Packed:
    """Return a chunk as tokens and records, in a worker process.

    `first` is the number of its first row in the source.
    """
    return pack(_task[0], first, chunk)
