"""Checkpoints: complete or absent, checked when read, and never fewer than one good one.

    checkpoints/step-000100/  <part>.json  <part>.safetensors  ...  manifest.json

`save_checkpoint` writes into a hidden folder beside, syncs every file, writes the manifest (size and sha256 of each
file) last, and renames. `latest_checkpoint` believes a folder only when its manifest agrees with every byte, and falls
back to the one before. Whoever holds the run folder's lock is its only writer, so it also clears what a killed process
left half-written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trueup.errors import CheckpointError
from trueup.files import atomic_write_text, disk_advice, file_sha256, fingerprint, fsync_path, size_in_words
from trueup.runfolder import HARMLESS, RunFolder
from trueup.state import State, read_state, state_bytes, write_state

__all__ = [
    "HARMLESS",
    "Checkpoint",
    "RunFolder",
    "State",
    "atomic_write_text",
    "fingerprint",
    "latest_checkpoint",
    "read_state",
    "save_checkpoint",
    "write_state",
]

_FORMAT = 1
_MANIFEST = "manifest.json"
_STEP = re.compile(r"step-(\d+)")
_ASIDE = re.compile(r"\.old-(step-\d+)-\d+")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        step: optimizer steps done when it was taken.
        path: its folder.
        skipped: one message for each newer checkpoint that was damaged; tell the person.
    """

    step: int
    path: Path
    skipped: tuple[str, ...] = ()

    @property
    def parts(self) -> frozenset[str]:
        """Names of the saved parts."""
        return frozenset(path.stem for path in self.path.glob("*.json") if path.name != _MANIFEST)

    def part(self, name: str) -> State:
        """Read one part; tensors come back on the CPU.

        Raises:
            CheckpointError: there is no such part.
        """
        if name not in self.parts:
            raise CheckpointError(f"{self.path} has no part `{name}`; it has {', '.join(sorted(self.parts))}")
        return read_state(self.path, name)


def save_checkpoint(run: RunFolder, step: int, parts: Mapping[str, State], *, keep_last: int = 2) -> Path:
    """Save a checkpoint, then delete all but the newest `keep_last` (at least one).

    Checkpoints of later steps are deleted too: they belong to a future that this run left by resuming before them.

    Args:
        run: the run folder.
        step: optimizer steps done.
        parts: one nested state for each name, such as model, optimizer, scheduler, rng, source.
        keep_last: how many complete checkpoints stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written; nothing of it is left, and earlier checkpoints are as they were.
    """
    _check_names(parts)
    final = run.checkpoints / f"step-{step:06d}"
    temporary = run.checkpoints / f".tmp-{final.name}-{os.getpid()}"
    try:
        run.flush()  # the log must not be behind the checkpoint after a power cut
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, state in parts.items():
            write_state(temporary, name, state)
        _seal(temporary, step)
        _publish(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_failure(run, final, parts, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(run, step, keep_last)
    return final


def latest_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The newest checkpoint that is complete and undamaged, or None when the run has none at all.

    Reads every byte of it. When `run` holds the lock, leftovers of killed processes are removed first.

    Raises:
        CheckpointError: there are checkpoints and all of them are damaged.
    """
    if run.locked:
        _clear_leftovers(run.checkpoints)
    skipped: list[str] = []
    for step, folder in reversed(_step_folders(run.checkpoints)):
        problem = _problem(folder, step)
        if problem is None:
            return Checkpoint(step, folder, tuple(skipped))
        brief = " ".join(problem.split())[:300]  # it may hold names and values of a damaged manifest
        skipped.append(f"skipped the damaged checkpoint {folder}: {brief}")
    if skipped:
        raise CheckpointError("\n".join([*skipped[:3], "No undamaged checkpoint is left; --restart begins again."]))
    return None


def _check_names(parts: Mapping[str, State]) -> None:
    for name in parts:
        if not _PART.fullmatch(name) or f"{name}.json" == _MANIFEST:
            raise CheckpointError(f"`{name}` cannot name a part of a checkpoint: use letters, digits, - and _")


def _seal(folder: Path, step: int) -> None:
    """Sync every file, then write the manifest that makes the folder believable, then sync the folder."""
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        fsync_path(folder / name)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names}
    manifest = {"format": _FORMAT, "step": step, "files": files}
    atomic_write_text(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _publish(temporary: Path, final: Path) -> None:
    """Rename into place. A folder already there steps aside first, under a name `_clear_leftovers` can undo."""
    aside = final.with_name(f".old-{final.name}-{os.getpid()}")
    if final.exists():
        final.rename(aside)
    try:
        temporary.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    fsync_path(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _failure(run: RunFolder, final: Path, parts: Mapping[str, State], error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    older = [folder.name for _, folder in _step_folders(run.checkpoints)]
    needed = size_in_words(sum(state_bytes(state) for state in parts.values()))
    before = f"The last saved one is {older[-1]}." if older else "None was saved before."
    return (
        f"cannot save the checkpoint {final}: {reason}\n"
        f"It needs about {needed}; {disk_advice(run.path)}. {before}\n"
        "Free some space (or lower save.keep_last) and run the same command again: it goes on from what was saved."
    )


def _prune(run: RunFolder, step: int, keep_last: int) -> None:
    kept = 0
    for older, folder in reversed(_step_folders(run.checkpoints)):
        if older <= step and kept < max(1, keep_last) and _sizes_agree(folder):
            kept += 1
            continue
        # Renamed before it is emptied, so that a crash in between leaves a leftover and not a damaged checkpoint.
        doomed = folder.with_name(f".tmp-pruned-{folder.name}-{os.getpid()}")
        with contextlib.suppress(OSError):  # the new one is safe; a folder that cannot go now must not stop training
            folder.rename(doomed)
            shutil.rmtree(doomed)


def _clear_leftovers(checkpoints: Path) -> None:
    for path in list(checkpoints.glob(".old-*")):
        match = _ASIDE.fullmatch(path.name)
        if match and not (checkpoints / match[1]).exists():
            path.rename(checkpoints / match[1])  # killed between the two renames of `_publish`
        else:
            shutil.rmtree(path, ignore_errors=True)
    for path in list(checkpoints.glob(".tmp-*")):
        shutil.rmtree(path, ignore_errors=True)


def _step_folders(checkpoints: Path) -> list[tuple[int, Path]]:
    matches = ((_STEP.fullmatch(path.name), path) for path in checkpoints.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _sizes_agree(folder: Path) -> bool:
    try:
        files = _read_manifest(folder)["files"]
        return all((folder / name).stat().st_size == entry["size"] for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _problem(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint, or None when every byte is as it was written."""
    try:
        manifest = _read_manifest(folder)
        if manifest["format"] != _FORMAT:
            return f"its format is {manifest['format']!r}, this trueup reads {_FORMAT}"
        if manifest["step"] != step:
            return f"its manifest says step {manifest['step']!r}"
        for name, entry in manifest["files"].items():
            if name != Path(name).name or name == "..":
                return f"its manifest names {name!r}, which is no file of it"
            if not (folder / name).exists():
                return f"{name} is missing"
            if (folder / name).stat().st_size != entry["size"]:
                return f"{name} has {(folder / name).stat().st_size} bytes instead of {entry['size']}"
            if file_sha256(folder / name) != entry["sha256"]:
                return f"{name} has other content than was written (sha256 differs)"
    except FileNotFoundError:
        return "it has no manifest.json"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest.json cannot be used ({error!r})"
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
