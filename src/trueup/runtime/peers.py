"""Tell the processes of a group why one of them ended, through torch's rendezvous store, which all of them can read.

A process that ends with an error writes a note into the store. The others read it every two seconds: a wait for the
ended process may never return (NCCL), or fail without a reason.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Any, cast

from torch.distributed.distributed_c10d import PrefixStore, Store

from trueup.errors import LostPeerError
from trueup.system.text import clean

_NOTE, _INTERVAL = "note", 2.0
_GRACE = 10.0  # seconds in which a process may end by itself, through the same error or a closed connection
_STORE_LOST = "process 0, or the launcher that holds the group together, has ended"
_LINES = 3  # lines of an error that are passed on
NOTICE_SECONDS = _INTERVAL + 0.5  # after this time every process has read a note


class Peers:
    """Watcher of the process group that reports this process's error, and ends this process after another has ended.

    Args:
        store: the group's rendezvous store; a separate connection to it is opened.
        rank: this process's rank.
    """

    def __init__(self, store: Store, rank: int) -> None:
        connection = cast("Any", store).clone()  # torch's stubs lack it
        self._store, self._rank = PrefixStore("trueup-peers", connection), rank
        self._leaving = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def leave(self, why: str | None = None) -> None:
        """Stop watching because this process ends.

        Send `why`, the error message if it failed, to the other processes.
        """
        self._leaving.set()
        self._watching.join(_INTERVAL)
        if why is not None:
            first = "\n".join(clean(why).splitlines()[:_LINES])
            with suppress(RuntimeError):  # the store is gone, so nobody can read the note
                self._store.set(_NOTE, f"process {self._rank}: {first}")

    def note(self) -> str | None:
        """Return the note (rank and error message) that an ended process left in the store, or None."""
        return self._store.get(_NOTE).decode(errors="replace") if self._store.check([_NOTE]) else None

    def cause(self) -> str | None:
        """Return why another process ended, after a connection was lost: the note it left, if any."""
        for _ in range(2):
            try:
                if (note := self.note()) is not None:
                    return note
            except RuntimeError:
                return _STORE_LOST
            self._leaving.wait(_INTERVAL / 2)  # the note may not have arrived yet
        return None

    def _watch(self) -> None:
        note = None
        while note is None and not self._leaving.wait(_INTERVAL):
            try:
                note = self.note()
            except RuntimeError:
                note = _STORE_LOST
        if not self._leaving.wait(_GRACE):
            print(f"error: {peer_ended_message(note)}", file=sys.stderr, flush=True)
            os._exit(LostPeerError.exit_code)


def peer_ended_message(note: str | None) -> str:
    """Return the error message for a process that ends because another one ended.

    `note` is that one's note, if known.
    """
    cause = "the cause is in that process's own error message" if note is None else note
    return (
        f"another process of this run has ended, so this one ends too: {cause}\n"
        "the same command continues from the last checkpoint, if there is one"
    )
