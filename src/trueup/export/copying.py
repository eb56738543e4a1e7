"""Copy a model's folder for publication, but no file from elsewhere that a link in the folder points to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from trueup.errors import ModelError
from trueup.system.text import excerpt


def copy_model(source: Path, folder: Path) -> None:
    """Copy a model's files from `source` to `folder`, following links, without hidden files (`.git`, `.env`).

    Raises:
        ModelError: a link leads out of the folder, so an export or upload would publish files from elsewhere. Links of
            the hub's cache into its folder of blobs are followed.
        OSError: a file cannot be copied.
    """
    allowed = allowed_roots(source)
    for root, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(root, name) for name in (*folders, *files) if not name.startswith(".")):
            check_link(path, allowed)
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def allowed_roots(source: Path) -> list[Path]:
    """Return the folders that links in a model's folder may lead to: itself, and the hub cache's folder of blobs."""
    real = source.resolve()
    return [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]


def check_link(path: Path, roots: Sequence[Path]) -> None:
    """Check that `path` is no link that leads out of the folders `roots`.

    Raises:
        ModelError: it is such a link.
    """
    if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
        raise ModelError(
            f"{excerpt(str(path), 200)[1:-1]}: a link out of the model's folder, to "
            f"{excerpt(str(path.readlink()), 200)}: an export would publish that file\n"
            "  fix: remove the link, or replace it by the file itself"
        )
