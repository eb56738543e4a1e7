"""Why another process of the group has ended, told through the store at which the group met.

A process that ends with an error leaves a note there. The others read it every two seconds: a wait for that process may
be one that never ends (NCCL's), or one that ends without saying why.
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

_NOTE, _EVERY = "note", 2.0
_GRACE = 10.0  # seconds in which a process may end by itself: it meets the same error, or finds the connection closed
_GONE = "process 0, or the launcher that holds the group together, has gone"
_LINES = 3  # of an error that are passed on
NOTICED = _EVERY + 0.5  # seconds after which every process has read a note


class Peers:
    """The other processes of the group: tells them why this one ends, and ends this one when one of them has.

    Args:
        store: where the group met; a connection of its own is made to it.
        rank: this process's.
    """

    def __init__(self, store: Store, rank: int) -> None:
        own = cast("Any", store).clone()  # torch's stubs lack it
        self._store, self._rank = PrefixStore("trueup-peers", own), rank
        self._leaving = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def leave(self, why: str | None = None) -> None:
        """Stop watching, for this process ends; `why` is told to the others, if it is an error of its own."""
        self._leaving.set()
        self._watching.join(_EVERY)
        if why is not None:
            first = "\n".join(clean(why).splitlines()[:_LINES])
            with suppress(RuntimeError):  # the store has gone: there is nobody to be told
                self._store.set(_NOTE, f"process {self._rank}: {first}")

    def note(self) -> str | None:
        """What a process that ended has said; None if none has."""
        return self._store.get(_NOTE).decode(errors="replace") if self._store.check([_NOTE]) else None

    def cause(self) -> str | None:
        """After a lost connection: the note of the process that ended, if it left one."""
        for _ in range(2):
            try:
                if (note := self.note()) is not None:
                    return note
            except RuntimeError:
                return _GONE
            self._leaving.wait(_EVERY / 2)  # its note may be on the way
        return None

    def _watch(self) -> None:
        said = None
        while said is None and not self._leaving.wait(_EVERY):
            try:
                said = self.note()
            except RuntimeError:
                said = _GONE
        if not self._leaving.wait(_GRACE):
            print(f"error: {peer_ended_message(said)}", file=sys.stderr, flush=True)
            os._exit(LostPeerError.exit_code)


def peer_ended_message(said: str | None) -> str:
    """What a process says that ends because another one has."""
    why = "what that one said is the cause" if said is None else said
    return (
        f"another process of this run has ended, so this one ends too: {why}\n"
        "the same command goes on from the last checkpoint, where one was saved"
    )
