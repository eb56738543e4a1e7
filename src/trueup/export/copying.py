"""A model's folder copied for others to have: what lies in it, and nothing that it merely points to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from trueup.errors import ModelError
from trueup.system.text import excerpt


def copy_model(source: Path, folder: Path) -> None:
    """Copy the files of a model, links as what they lead to, but for hidden ones (`.git`, `.env`).

    Raises:
        ModelError: a link leads out of the folder: an export, and an upload, would carry along what is elsewhere. Links
            of the hub's cache, whose files all lie in one place, are followed.
        OSError: it cannot be copied.
    """
    inside = places_of(source)
    for at, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(at, name) for name in (*folders, *files) if not name.startswith(".")):
            check_link(path, inside)
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def places_of(source: Path) -> list[Path]:
    """Where the files of a model's folder may really lie: in it; of the hub's cache, in its one place for all."""
    real = source.resolve()
    return [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]


def check_link(path: Path, places: Sequence[Path]) -> None:
    """Raise ModelError for a link that leads out of these places."""
    if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in places):
        raise ModelError(
            f"{excerpt(str(path), 200)[1:-1]}: a link out of the model's folder, to "
            f"{excerpt(str(path.readlink()), 200)}: an export would carry that along\n"
            "  fix: remove the link, or put the file itself in its place"
        )
