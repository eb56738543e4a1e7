"""Files that survive crashes: atomic replacement, fingerprints, and advice for a person whose disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trueup.errors import CheckpointError
from trueup.system.text import home_path

MODEL_CARD = "README.md"
"""File added to a model's folder after evaluation; a model's fingerprint leaves it out."""


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a file by `text` (UTF-8); after a crash it holds the old content or the new, never a mixture."""
    atomic_write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def fingerprint(paths: Sequence[Path], *, ignore: Sequence[str] = ()) -> str:
    """Return the sha256 (hex) over the contents of files and folders, in the order of `paths`.

    A folder is hashed by its sorted relative names and their contents, without names that begin with a dot or are in
    `ignore`. A file is hashed by its content alone, so moving it changes nothing.

    Raises:
        CheckpointError: a path does not exist.
    """
    total = hashlib.sha256()
    for path in paths:
        if path.is_dir():
            files = sorted(_visible_files(path, ignore), key=lambda file: file.relative_to(path).as_posix())
            total.update(f"folder {len(files)}\n".encode())
            for file in files:
                name = file.relative_to(path).as_posix()
                total.update(f"{len(name)} {name} {file_sha256(file)}\n".encode("utf-8", "surrogateescape"))
        elif path.exists():
            total.update(f"file {file_sha256(path)}\n".encode())
        else:
            raise CheckpointError(f"{path} does not exist, so its fingerprint cannot be taken")
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def split_event(name: str) -> tuple[str, int | None]:
    """Split the name of a vote store with an event number: `votes.db@1200` becomes ("votes.db", 1200).

    The number means the store as it was after that event. Other names become (name, None).
    """
    path, mark, event = name.rpartition("@")
    if not path or not mark or not re.fullmatch(r"[0-9]{1,15}", event) or home_path(name).exists():
        return name, None
    return path, int(event)


def fsync_path(path: Path) -> None:
    """Force a file's content, or a folder's list of file names, onto the disk, so that a power cut does not lose it."""
    if path.is_dir() and os.name != "posix":
        return  # only POSIX can open a folder
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_space_text(folder: Path) -> str:
    """Return a text with the free disk space at `folder`, such as "2.1 GB free there"."""
    existing = next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path("/"))
    return f"{format_size(shutil.disk_usage(existing).free)} free there"


def format_size(count: int) -> str:
    """Return a number of bytes as text: 0.3 MB, 2.1 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _visible_files(folder: Path, ignore: Sequence[str]) -> Iterator[Path]:
    def visible(names: list[str]) -> list[str]:
        return [name for name in names if not name.startswith(".") and name not in ignore]

    for root, folders, files in os.walk(folder):
        folders[:] = visible(folders)
        yield from (Path(root, name) for name in visible(files))


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Replace a file by `data`; after a crash it holds the old content or the new, never a mixture.

    Raises:
        OSError: writing failed; the error names the file, which is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk's error names no file, others name the temporary one
            error.filename, error.filename2 = str(path), None
        raise
    fsync_path(path.parent)


@contextmanager
def explain_disk_errors(action: str, folder: Path) -> Iterator[None]:
    """Turn disk errors inside the context into a CheckpointError that says what to do, e.g. to free space.

    Args:
        action: start of the message, such as "cannot write runs/a".
        folder: folder whose free space the message names.
    """
    try:
        yield
    except Exception as error:
        full = is_disk_full(error)
        if not full and not isinstance(error, OSError):
            raise
        fix = "free some space" if full else "check the path and its permissions"
        advice = f" ({free_space_text(folder)})" if full else ""
        reason = "No space left on device" if full else error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(f"{action}: {reason or error}{advice}; {fix}, or choose another `output`") from error


def is_disk_full(error: BaseException) -> bool:
    """Return True if the error means that no disk space is left.

    The errors of safetensors say so only in their message.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"os error {errno.ENOSPC}" in str(error)
