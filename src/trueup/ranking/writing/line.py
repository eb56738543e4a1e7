"""Connection from the process that writes answers to the server: JSON lines out, and signals that a rater waits in."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class ServerLine:
    """The writing process's end of its connection to the server: it reports progress, and learns that a rater waits.

    Args:
        out: receives lines of JSON.
    """

    def __init__(self, out: TextIO) -> None:
        """Keep the stream to the server; nothing is read before `listen`."""
        self._out = out
        self._waiting = threading.Event()
        self._state = ""

    def send(self, **fields: Any) -> None:
        """Send the fields to the server as one line of JSON. Ends this process if the server is gone."""
        try:
            self._out.write(json.dumps(fields) + "\n")
            self._out.flush()
        except OSError:
            os._exit(0)

    def send_state(self, state: str) -> None:
        """Send the state of this process ("loading", "writing", "ahead" or "done") if it has changed."""
        if state != self._state:
            self._state = state
            self.send(state=state)

    def listen(self, lines: Iterable[str]) -> None:
        """Start a thread that reads the server's lines: each means a rater waits, and their end ends this process."""

        def hear() -> None:
            with suppress(OSError, ValueError):
                for _ in lines:
                    self._waiting.set()
            os._exit(0)

        threading.Thread(target=hear, daemon=True).start()

    @property
    def rater_waits(self) -> bool:
        """True from the server's signal that a rater waits until `forget_rater`."""
        return self._waiting.is_set()

    def forget_rater(self) -> None:
        """Take the signal that a rater waits as handled: from here on only a new one counts."""
        self._waiting.clear()

    def pause(self, seconds: float) -> None:
        """Wait for so many seconds, or until a rater waits for a pair."""
        self._waiting.wait(seconds)
