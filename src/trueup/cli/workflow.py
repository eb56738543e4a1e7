"""Write the workflow of GitHub Actions that runs `trueup audit` on every pull request and comments the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from trueup.errors import ConfigError
from trueup.system.commandline import is_from_this_machine, requirement
from trueup.system.files import atomic_write_text

PATH = Path(".github/workflows/trueup-audit.yml")


def write_workflow(words: Sequence[str], root: Path = Path()) -> Path:
    """Write the workflow for an audit with these models and settings; return its path below `root`.

    Raises:
        ConfigError: there is another workflow of this name, or a word cannot stand in one.
    """
    path, text = root / PATH, workflow(words)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{path}: exists already, with other contents\n  fix: remove or rename it")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, text)
    return path


def workflow(words: Sequence[str]) -> str:
    """Return the workflow's text; it installs trueup from where this installation came, if a runner can reach that.

    Raises:
        ConfigError: a word holds a line break, or `${{`, which GitHub would replace.
    """
    for word in words:
        if "${{" in word or not word.isprintable():
            raise ConfigError(
                f"--workflow: {word!r} cannot stand in a workflow: it holds `${{{{` or a control character"
            )
    template = resources.files("trueup.cli").joinpath("audit-workflow.yml").read_text(encoding="utf-8")
    source = "" if is_from_this_machine() else requirement("gguf")[0]
    return template.replace("@@SOURCE@@", source.replace("'", "''")).replace("@@WORDS@@", shlex.join(words))
