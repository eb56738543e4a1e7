"""Command line of this process, to show it or to run it again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

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


def install_command(extra: str) -> str:
    """Return the command that adds an extra here, such as `.venv/bin/pip install --editable '.[rank]'`."""
    return command(["install", *requirement(extra)], "pip")


def requirement(extra: str) -> list[str]:
    """Return pip's arguments for trueup with an extra, from where this installation came (PEP 610, direct_url.json).

    A name on a package index may be somebody else's, so it is given only if trueup came from an index.
    """
    name, (url, details) = f"trueup[{extra}]", _origin()
    if "vcs_info" in details:
        return [f"{name} @ {details['vcs_info']['vcs']}+{url}@{details['vcs_info']['commit_id']}"]
    if "dir_info" in details:
        path = f"{_shown(unquote(urlsplit(url).path))}[{extra}]"
        return ["--editable", path] if details["dir_info"].get("editable") else [path]
    return [f"{name} @ {url}"] if url else [f"{name}=={metadata.version('trueup')}"]


def is_from_this_machine() -> bool:
    """Return True if trueup was installed from a folder or a file, so that no other machine can install it so."""
    return _origin()[0].startswith("file:")


def _origin() -> tuple[str, dict[str, Any]]:
    """Return the URL that trueup was installed from, "" for an index, and PEP 610's details of it."""
    details = json.loads(metadata.distribution("trueup").read_text("direct_url.json") or "{}")
    return details.get("url", ""), details


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
