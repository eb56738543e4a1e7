"""The process that writes answers ahead (`python -m trueup.ranking.writing.process`): `Ahead` starts and ends it.

Its job is the first line of its stdin, see `ahead`. The end of stdin ends it at once, whatever it does: the store is
whole after every pair, so nothing is lost.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trueup.config.paths import find_model
from trueup.errors import TrueupError
from trueup.ranking.writing.ahead import Job
from trueup.ranking.writing.line import Desk
from trueup.system.console import quiet_libraries
from trueup.system.text import excerpt, masked

_NICE = 10  # the server, which answers raters, comes first


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
    from trueup.data.votes.store import Store
    from trueup.ranking.writing.pairing import Pairing
    from trueup.ranking.writing.scoring import Scoring
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
