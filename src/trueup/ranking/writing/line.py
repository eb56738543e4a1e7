"""The line between the server and the process that writes answers ahead."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO


class Desk:
    """The line to the server: says what is done, hears that a rater waits.

    Args:
        out: takes lines of JSON.
    """

    def __init__(self, out: TextIO) -> None:
        """Take the line."""
        self._out = out
        self._asked = threading.Event()
        self._state = ""

    def say(self, **line: Any) -> None:
        """Say it; a server that is gone ends this process."""
        try:
            self._out.write(json.dumps(line) + "\n")
            self._out.flush()
        except OSError:
            os._exit(0)

    def state(self, state: str) -> None:
        """Say what is being done now, if it is something else than before."""
        if state != self._state:
            self._state = state
            self.say(state=state)

    def listen(self, lines: Iterable[str]) -> None:
        """Hear from now on, in a thread, whether a rater waits; the end of the lines ends this process."""

        def hear() -> None:
            with suppress(OSError, ValueError):
                for _ in lines:
                    self._asked.set()
            os._exit(0)

        threading.Thread(target=hear, daemon=True).start()

    @property
    def asked(self) -> bool:
        """Whether a rater waits."""
        return self._asked.is_set()

    def heard(self) -> None:
        """From here on only who asks again waits."""
        self._asked.clear()

    def rest(self, seconds: float) -> None:
        """Do nothing for so long, or until a rater waits."""
        self._asked.wait(seconds)
