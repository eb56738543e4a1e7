"""The process that writes answers ahead (`python -m trueup.ranking.writer`): started, told and ended by `Ahead`.

Its job is the first line of its stdin, see `ahead`. The end of stdin ends it at once, whatever it does: the store is
whole after every pair, so nothing is lost.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from trueup.config.paths import find_model
from trueup.errors import TrueupError
from trueup.ranking.ahead import Job
from trueup.system.console import quiet_libraries
from trueup.system.text import excerpt, masked

_NICE = 10  # the server, which answers raters, comes first


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


def main() -> int:
    """Write what the job says until the end of stdin. -> exit code of what ended it before."""
    # What libraries print on stdout is none of the server's: lines to it go by a descriptor of their own.
    desk = Desk(os.fdopen(os.dup(1), "w", encoding="ascii"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the server's, which ends this process
    with suppress(AttributeError, OSError):
        os.nice(_NICE)
    told = json.loads(sys.stdin.readline() or "null")
    if told is None:
        return 0
    desk.listen(sys.stdin)
    try:
        work(Path(told["store"]), Job(**told["job"]), desk)
    except TrueupError as error:
        desk.say(failed=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 -- whatever a library raises: the server goes on, and says this
        traceback.print_exc()
        desk.say(failed=_in_words(error))
        return 1
    return 0


def _in_words(error: Exception) -> str:
    said = excerpt(masked(" ".join(str(error).split())), 300)[1:-1]
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"the models do not fit into the memory: {said}\n  fix: shorter answers, or fewer pairs at once"
    return f"the models stopped: {type(error).__name__}: {said}"


def work(store: Path, job: Job, desk: Desk) -> None:
    """Load the models and write for ever.

    Raises:
        TrueupError: a model cannot be loaded or sampled from, or the store cannot be used.
    """
    quiet_libraries()
    desk.state("loading")
    job = replace(job, models=[find_model(one) for one in job.models])
    # torch takes seconds to import: only now, as from here on the end of stdin ends even that.
    from trueup.data.votes import Store
    from trueup.ranking.pairing import Pairing
    from trueup.ranking.scoring import Scoring
    from trueup.runtime import init

    where = init(job.device, job.dtype, job.threads)
    with Store.open(store) as opened:
        pairing = Pairing.load(opened, job, where, desk)
        scoring = Scoring(job.reward, opened, where, desk, max_tokens=job.max_tokens) if job.reward else None
        while True:
            wrote = pairing.write()
            if not ((scoring is not None and scoring.score()) or wrote):
                desk.state(pairing.resting)
                desk.rest(1.0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread still reads stdin, and would stop an orderly end
