"""Checkpoints of a run: complete or absent, verified when read, and at least one good one is always kept.

    checkpoints/step-000100/  <part>.json  <part>.safetensors  ...  sharded/  manifest.json

`save_checkpoint` writes into a hidden folder in `checkpoints/`, syncs every file, writes the manifest (size and sha256
of each file) last, and renames the folder. `latest_checkpoint` accepts a folder only if every byte agrees with its
manifest, else it takes the checkpoint before. Only the holder of the run folder's lock writes, so it also removes what
a killed process left half-written.

With sharded weights every process writes its part into `sharded/`; any number of processes can read them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from trueup.errors import CheckpointError
from trueup.runs.folder import HARMLESS, RunFolder
from trueup.runs.state import StateDict, read_state, sharded_leaves, state_bytes, write_state
from trueup.runtime import Runtime, load_sharded, save_sharded
from trueup.system.files import atomic_write_text, file_sha256, fingerprint, format_size, free_space_text, fsync_path

__all__ = [
    "HARMLESS",
    "Checkpoint",
    "RunFolder",
    "StateDict",
    "atomic_write_text",
    "fingerprint",
    "latest_checkpoint",
    "read_state",
    "save_checkpoint",
    "write_state",
]

_FORMAT = 2
_MANIFEST = "manifest.json"
_SHARDED = "sharded"
_SINGLE_PROCESS = Runtime(torch.device("cpu"), torch.float32)
_STEP = re.compile(r"step-(\d+)")
_REPLACED = re.compile(r"\.old-(step-\d+)-\d+")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Verified checkpoint of a run; a part is a named nested state, such as "weights" or "optimizer".

    Attributes:
        step: optimizer steps done when it was saved.
        path: its folder.
        skipped: a message for each newer checkpoint that is damaged, to be shown to the user.
        where: the group of processes that read it, for sharded tensors.
    """

    step: int
    path: Path
    skipped: tuple[str, ...] = ()
    where: Runtime = _SINGLE_PROCESS

    @property
    def parts(self) -> frozenset[str]:
        """Names of the saved parts, e.g. "weights" and "optimizer"."""
        files = (Path(name) for name in _read_manifest(self.path)["files"])  # files not in the manifest are ignored
        return frozenset(path.stem for path in files if path.suffix == ".json" and path.name == str(path))

    def part(self, name: str) -> StateDict:
        """Return the nested state of one part, with tensors on the CPU.

        Raises:
            CheckpointError: there is no such part, or it cannot be read.
        """
        if name not in self.parts:
            raise CheckpointError(f"{self.path} has no part `{name}`; it has {', '.join(sorted(self.parts))}")
        return read_state(self.path, name)

    def read_sharded(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill sharded tensors from the checkpoint. Every rank has to call, with the same names.

        `tensors` maps the names in a part's `ShardedRef` leaves to the tensors to fill.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        if tensors:
            load_sharded(self.path / _SHARDED, tensors, self.where)


def save_checkpoint(
    run: RunFolder, step: int, parts: Mapping[str, StateDict], *, keep_last: int = 2, keep: Collection[int] = (),
    where: Runtime = _SINGLE_PROCESS,
) -> Path:  # fmt: skip
    """Save a checkpoint, then delete all but the newest `keep_last` (at least one) and those of the steps `keep`.

    Every rank has to call; the first one writes, and each rank writes its part of sharded tensors. Checkpoints of later
    steps are deleted too: the run resumed from an earlier step, so it will compute these steps again.

    Args:
        run: the run folder.
        step: optimizer steps done.
        parts: nested states by name, such as "weights", "optimizer" and "sources".
        keep_last: number of complete checkpoints to keep, this one included.
        keep: steps whose checkpoints are kept in addition.
        where: the group of processes that saves.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written; nothing of it is left, and earlier checkpoints are unchanged.
    """
    _check_names(parts)
    final = run.checkpoints / f"step-{step:06d}"
    temporary = run.checkpoints / where.from_first(lambda: f".tmp-{final.name}-{os.getpid()}")
    sharded = {name: tensor for part, state in parts.items() for name, tensor in sharded_leaves(state, part)}
    try:
        where.from_first(partial(_write, run, temporary, parts))
        if sharded:
            save_sharded(temporary / _SHARDED, sharded, where)
        where.from_first(partial(_finish, temporary, final, step))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_failure(run, final, parts, error)) from error
    finally:
        if where.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    where.from_first(partial(_prune, run, step, keep_last, frozenset(keep)))
    return final


def _write(run: RunFolder, temporary: Path, parts: Mapping[str, StateDict]) -> None:
    """Write a checkpoint's parts (weights, optimizer, ...) into the new folder `temporary`; rank 0 alone calls this.

    Tensors that are sharded over the ranks are left out: all ranks write them afterwards. The run's metrics are synced
    to the disk first, so that after a power cut they are not older than the checkpoint.
    """
    run.flush()  # the log must not be behind the checkpoint after a power cut
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / _SHARDED).mkdir(parents=True)
    for name, state in parts.items():
        write_state(temporary, name, state)


def _finish(temporary: Path, final: Path, step: int) -> None:
    """Write the manifest that lists the files of all ranks, and rename the folder to its final name."""
    if not any((temporary / _SHARDED).iterdir()):
        (temporary / _SHARDED).rmdir()
    _write_manifest(temporary, step)
    _publish(temporary, final)


def latest_checkpoint(run: RunFolder) -> Checkpoint | None:
    """Return the newest complete and undamaged checkpoint, or None if the run has no checkpoint.

    Every byte of a checkpoint is read to check it. If `run` holds the lock, leftovers of killed processes are removed
    first.

    Raises:
        CheckpointError: there are checkpoints and all of them are damaged.
    """
    if run.locked:
        _clear_leftovers(run.checkpoints)
    skipped: list[str] = []
    for step, folder in reversed(_step_folders(run.checkpoints)):
        damage = _find_damage(folder, step)
        if damage is None:
            return Checkpoint(step, folder, tuple(skipped))
        brief = " ".join(damage.split())[:300]  # it may hold names and values of a damaged manifest
        skipped.append(f"skipped the damaged checkpoint {folder}: {brief}")
    if skipped:
        fix = f"  fix: restore one from a backup, or remove {run.checkpoints} to start again"
        raise CheckpointError("\n".join([*skipped[:3], "No undamaged checkpoint is left.", fix]))
    return None


def _check_names(parts: Mapping[str, StateDict]) -> None:
    for name in parts:
        if not _PART.fullmatch(name) or f"{name}.json" == _MANIFEST:
            raise CheckpointError(f"`{name}` cannot name a part of a checkpoint: use letters, digits, - and _")


def _write_manifest(folder: Path, step: int) -> None:
    """Sync every file, then write manifest.json (size and sha256 of each file), which makes the checkpoint valid."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        fsync_path(folder / name)
    if (folder / _SHARDED).is_dir():
        fsync_path(folder / _SHARDED)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names}
    manifest = {"format": _FORMAT, "step": step, "files": files}
    atomic_write_text(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _publish(temporary: Path, final: Path) -> None:
    """Rename the folder to its final name.

    A folder that has the name already is renamed first, so that `_clear_leftovers` can restore it after a crash.
    """
    replaced = final.with_name(f".old-{final.name}-{os.getpid()}")
    if final.exists():
        final.rename(replaced)
    try:
        temporary.rename(final)
    except BaseException:
        if replaced.exists():
            replaced.rename(final)
        raise
    fsync_path(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _failure(run: RunFolder, final: Path, parts: Mapping[str, StateDict], error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    older = [folder.name for _, folder in _step_folders(run.checkpoints)]
    needed = format_size(sum(state_bytes(state) for state in parts.values()))
    before = f"The last saved one is {older[-1]}." if older else "None was saved before."
    return (
        f"cannot save the checkpoint {final}: {reason}\n"
        f"It needs about {needed}; {free_space_text(run.path)}. {before}\n"
        "Free some space (or lower save.keep_last) and run the same command again: it resumes from the last checkpoint."
    )


def _prune(run: RunFolder, step: int, keep_last: int, keep: frozenset[int]) -> None:
    kept = 0
    for older, folder in reversed(_step_folders(run.checkpoints)):
        if older <= step and _sizes_agree(folder) and (kept < max(1, keep_last) or older in keep):
            kept += 1
            continue
        # Renamed before it is emptied, so that a crash in between leaves a leftover, not a damaged checkpoint.
        pruned = folder.with_name(f".tmp-pruned-{folder.name}-{os.getpid()}")
        with contextlib.suppress(OSError):  # the new one is saved: failing to delete must not stop training
            folder.rename(pruned)
            shutil.rmtree(pruned)


def _clear_leftovers(checkpoints: Path) -> None:
    for path in list(checkpoints.glob(".old-*")):
        match = _REPLACED.fullmatch(path.name)
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


def _find_damage(folder: Path, step: int) -> str | None:
    """Return a text that says what is damaged in a checkpoint, or None if every byte is as it was written."""
    try:
        manifest = _read_manifest(folder)
        if manifest["format"] != _FORMAT:
            return f"its format is {manifest['format']!r}, this trueup reads {_FORMAT}"
        if manifest["step"] != step:
            return f"its manifest says step {manifest['step']!r}"
        for name, entry in manifest["files"].items():
            if not _inside(name):
                return f"its manifest names {name!r}, which is not one of its files"
            if not (folder / name).exists():
                return f"{name} is missing"
            if (folder / name).stat().st_size != entry["size"]:
                return f"{name} has {(folder / name).stat().st_size} bytes instead of {entry['size']}"
            if file_sha256(folder / name) != entry["sha256"]:
                return f"{name} has changed since it was written (sha256 differs)"
    except FileNotFoundError:
        return "it has no manifest.json"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest.json cannot be used ({error!r})"
    return None


def _inside(name: str) -> bool:
    """Return True if a manifest's file name lies directly in the checkpoint's folder or in its `sharded` folder."""
    folder, _, file = name.rpartition("/")
    return folder in ("", _SHARDED) and file not in ("", "..") and file == Path(file).name


def _read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
