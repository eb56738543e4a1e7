"""Command line of this process, to show it or to run it again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trueup.system.text import masked


def resume_command() -> str:
    """Return the command that resumes this run, or "the same call again" if it was not started by a command."""
    line = command_line()
    if line is None:
        return "the same call again"
    name, *arguments = shlex.split(line)
    return command(arguments, name)


def command(arguments: Sequence[str], program: str = "trueup") -> str:
    """Return a command that works in the user's shell as it stands, quoted, such as `.venv/bin/trueup chat runs/a`.

    The program is named alone if the shell finds the one of this environment by its name, else by its path: often
    nobody activated the environment.
    """
    beside = shutil.which(program, path=str(Path(sys.executable).parent))
    found = shutil.which(program)
    if beside is None:
        start = [_shown(sys.executable), "-m", "trueup"] if program == "trueup" and not found else [program]
    else:
        start = [program] if found and Path(found).samefile(beside) else [_shown(beside)]
    return shlex.join([*start, *arguments])


def _shown(path: str) -> str:
    """Return a path relative to the current folder if it is inside of it, else as it is."""
    inside = Path(path).is_relative_to(Path.cwd())
    return os.path.relpath(path) if inside else path


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
