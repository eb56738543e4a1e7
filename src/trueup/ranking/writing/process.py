"""The process that writes answers (`python -m trueup.ranking.writing.process`): `AnswerWriter` starts and ends it.

Its configuration is the first line of its stdin, see `ahead`. The end of stdin ends it at once, whatever it does: the
store is whole after every pair, so nothing is lost.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from trueup.config.paths import find_model
from trueup.config.ranking import RankConfig
from trueup.errors import TrueupError
from trueup.ranking.writing.line import ServerLine
from trueup.system.console import quiet_libraries
from trueup.system.text import excerpt, masked

_NICE = 10  # the server, which answers raters, comes first


def main() -> int:
    """Run the writing process until its stdin ends.

    Returns the exit code: 0, or that of the error which ended it before.
    """
    # Libraries may print on stdout, which the server reads: lines to it go through a copy of the descriptor.
    server = ServerLine(os.fdopen(os.dup(1), "w", encoding="ascii"))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the server's, which ends this process
    with suppress(AttributeError, OSError):
        os.nice(_NICE)
    job = json.loads(sys.stdin.readline() or "null")
    if job is None:
        return 0
    server.listen(sys.stdin)
    try:
        work(Path(job["store"]), RankConfig.model_validate(job["config"]), server)
    except TrueupError as error:
        server.send(failed=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 -- whatever a library raises: the server goes on, and shows it
        traceback.print_exc()
        server.send(failed=_in_words(error))
        return 1
    return 0


def _in_words(error: Exception) -> str:
    message = excerpt(masked(" ".join(str(error).split())), 300)[1:-1]
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"the models do not fit into the memory: {message}\n  fix: lower max_tokens, batch or max_new_tokens"
    return f"the models stopped: {type(error).__name__}: {message}"


def work(store: Path, config: RankConfig, server: ServerLine) -> None:
    """Load the models and write pairs until this process is ended.

    Raises:
        TrueupError: a model cannot be loaded or sampled from, or the store cannot be used.
    """
    quiet_libraries()
    server.send_state("loading")
    config = config.model_copy(update={"model": [find_model(model) for model in config.model]})
    # torch takes seconds to import: only now, as from here on the end of stdin ends even that.
    from trueup.data.votes.store import Store
    from trueup.ranking.writing.pairing import Pairing
    from trueup.ranking.writing.scoring import Scoring
    from trueup.runtime import init

    runtime = init(config.device, config.dtype, config.threads)
    with Store.open(store) as opened:
        pairing = Pairing.load(opened, config, runtime, server)
        scoring = None
        if config.reward:
            scoring = Scoring(config.reward, opened, runtime, server, max_tokens=config.max_tokens)
        while True:
            wrote = pairing.write()
            if not ((scoring is not None and scoring.score()) or wrote):
                server.send_state(pairing.idle_state)
                server.pause(1.0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread still reads stdin, and would stop an orderly end
