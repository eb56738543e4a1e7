"""Command line of this process, to show it or to run it again."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from trueup.system.text import masked


def resume_command() -> str:
    """Return the command that resumes this run, or "the same call again" if it was not started by a command."""
    return command_line() or "the same call again"


def command_line() -> str | None:
    """Return the command that started this process, with secrets masked; None if that was not trueup's command line."""
    if Path(sys.argv[0]).name not in {"trueup", "__main__.py"}:
        return None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    nodes = [] if local_world == world else ["--nnodes", str(world // local_world)]  # to be started on each node
    torchrun = ["torchrun", *nodes, "--nproc-per-node", str(local_world), "-m", "trueup"]
    program = ["trueup"] if world == 1 else torchrun
    return masked(shlex.join([*program, *sys.argv[1:]]))
