"""The command line that this process was started with, to be shown or run again."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from trueup.system.text import masked


def resume_command() -> str:
    """The command that continues this run: the one it was started with."""
    return command_line() or "the same call again"


def command_line() -> str | None:
    """The command that this process was started with; None where it was no command of trueup's."""
    if Path(sys.argv[0]).name not in {"trueup", "__main__.py"}:
        return None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    several = [] if here == world else ["--nnodes", str(world // here)]  # started once on each
    start = ["trueup"] if world == 1 else ["torchrun", *several, "--nproc-per-node", str(here), "-m", "trueup"]
    return masked(shlex.join([*start, *sys.argv[1:]]))
