"""Run folder of a stage, locked by a single process at a time, and the small files in it.

    config.yaml  metrics.jsonl  timing.jsonl  samples.jsonl  watch.jsonl  alarms.jsonl
    checkpoints/step-000100/  model/  adapter/  summary.json

Files are replaced atomically, so a reader never sees half of one. The `.jsonl` files grow a line at a time;
`metrics.jsonl` holds only numbers that an equal run repeats, so that two runs can be compared byte for byte, and
`timing.jsonl` the rest. `watch.jsonl` holds the values behind the reward-hacking warnings, `alarms.jsonl` the warnings.
`summary.json` is written last: its presence means that the stage is finished.
A number that is not finite is written as null, which every JSON reader accepts and pandas reads as NaN.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml
from filelock import lock_descriptor

from trueup.errors import CheckpointError
from trueup.system.files import atomic_write_bytes, atomic_write_text, explain_disk_errors, split_event
from trueup.system.text import expanded, terminal_safe_json

HARMLESS = frozenset(
    {"save", "log", "device", "threads", "strategy", "output", "max_tokens", "gradient_checkpointing", "allow"}
)
"""Top-level configuration keys that may change when a run resumes: they do not change what is learned, or (`allow`)
only turn errors into warnings."""

IMPLIED = {"kl.apply": "reward"}
"""Keys that earlier versions did not have, with the value that their runs had without them."""

_SHOWN_DIFFERENCES = 3
_SHOWN_LENGTH = 120  # characters of a key or value that differs


class RunFolder:
    """Folder of one stage's run. `RunFolder(path)` only reads it; `RunFolder.create` makes it, locks it and may write.

    Attributes:
        path: the folder.
        locked: True if this object holds the folder's lock.
        finished_at: the number of steps of the finished run in the folder that this one goes on from, as it is longer;
            else None.
    """

    def __init__(self, path: Path | str) -> None:
        """Refer to the folder at `path`; nothing is created, read or locked."""
        self.path = Path(path)
        self.locked = False
        self.finished_at: int | None = None
        self._lock_fd: int | None = None
        self._handles: dict[Path, FileIO] = {}

    @property
    def config_path(self) -> Path:
        """Path of config.yaml, the resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """Path of metrics.jsonl: a JSON line for every logged step, with its metrics by name."""
        return self.path / "metrics.jsonl"

    @property
    def timing_path(self) -> Path:
        """Path of timing.jsonl: a JSON line for every step, with seconds and tokens per second."""
        return self.path / "timing.jsonl"

    @property
    def samples_path(self) -> Path:
        """Path of samples.jsonl: a JSON line for some sampled answers, with prompt and reward."""
        return self.path / "samples.jsonl"

    @property
    def watch_path(self) -> Path:
        """Path of watch.jsonl: a JSON line for every measurement on held-out prompts, with values per prompt.

        The warnings of reward hacking and drift are computed from it.
        """
        return self.path / "watch.jsonl"

    @property
    def alarms_path(self) -> Path:
        """Path of alarms.jsonl: a JSON line for every warning of reward hacking or drift during training."""
        return self.path / "alarms.jsonl"

    @property
    def summary_path(self) -> Path:
        """Path of summary.json, the stage's results; it exists only when the stage is finished."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """Path of the folder of all checkpoints."""
        return self.path / "checkpoints"

    @property
    def outputs_path(self) -> Path:
        """Path of outputs.safetensors, the trained network's outputs on a few rows; exports are compared with them."""
        return self.path / "outputs.safetensors"

    @property
    def model_path(self) -> Path:
        """Path of the folder of the exported Hugging Face model."""
        return self.path / "model"

    @property
    def adapter_path(self) -> Path:
        """Path of the folder of the exported PEFT adapter (LoRA runs only)."""
        return self.path / "adapter"

    @classmethod
    def create(
        cls,
        path: Path | str,
        config_yaml: str,
        *,
        resume: Literal["auto", "never"] = "auto",
    ) -> RunFolder:
        """Create or reopen a run folder, lock it, and write its `config.yaml`.

        Args:
            path: the folder; missing parents are created.
            config_yaml: the resolved configuration as YAML.
            resume: "auto" keeps an earlier run's files, so that it continues; "never" deletes them and starts again.

        Raises:
            CheckpointError: another process holds the folder, it cannot be written, or an earlier run with a checkpoint
                or summary had another configuration (keys in `HARMLESS` do not count, and a finished run may be given
                more epochs or steps).
        """
        run = cls(path)
        try:
            with explain_disk_errors(f"cannot use the run folder {run.path}", run.path):
                run.path.mkdir(parents=True, exist_ok=True)
                run._lock()
                run._adopt(config_yaml, resume)
                run.checkpoints.mkdir(exist_ok=True)
        except BaseException:
            run.close()
            raise
        return run

    def restart(self) -> None:
        """Delete all of an earlier run's files (checkpoints, logs, model, summary) but config.yaml and the lock."""
        self._close_handles()
        # If killed half-way, the folder must neither look finished nor resume from a checkpoint without logs: so the
        # summary is deleted first, then all checkpoints at once.
        self.summary_path.unlink(missing_ok=True)
        deleted = self.path / ".checkpoints-gone"
        shutil.rmtree(deleted, ignore_errors=True)  # of a restart that was killed
        if self.checkpoints.exists():
            self.checkpoints.rename(deleted)
        for path in (self.outputs_path, *self._logs, self.path / ".tracker-id"):
            path.unlink(missing_ok=True)
        for folder in (deleted, self.model_path, self.adapter_path, self.path / "tensorboard"):
            if folder.exists():
                shutil.rmtree(folder)
        self.checkpoints.mkdir(exist_ok=True)

    def append_metrics(self, metrics: Mapping[str, object]) -> None:
        """Append a line to `metrics.jsonl`, visible to readers at once. `metrics` needs an int "step"."""
        self._append(self.metrics_path, [metrics])

    def append_timing(self, timing: Mapping[str, object]) -> None:
        """Append a line to `timing.jsonl`. `timing` needs an int "step"."""
        self._append(self.timing_path, [timing])

    def append_samples(self, samples: Sequence[Mapping[str, object]]) -> None:
        """Append a line for each sampled answer to `samples.jsonl`. Each needs an int "step"."""
        self._append(self.samples_path, samples)

    def append_watch(self, measurement: Mapping[str, object]) -> None:
        """Append a measurement on held-out prompts, as one line, to `watch.jsonl`. It needs an int "step"."""
        self._append(self.watch_path, [measurement])

    def append_alarm(self, alarm: Mapping[str, object]) -> None:
        """Append a warning of reward hacking or drift to `alarms.jsonl`. It needs an int "step"."""
        self._append(self.alarms_path, [alarm])

    def truncate_metrics(self, step: int, sampled: int | None = None) -> None:
        """Cut the `.jsonl` files back to the lines of steps up to and including `step`.

        Incomplete lines of a killed process are removed too; lines without a step stay.

        Args:
            step: the last step whose row is written.
            sampled: the last step whose answers were sampled, for `samples.jsonl`; None: `step`.
        """
        self._close_handles()
        with explain_disk_errors(f"cannot cut the logs in {self.path} back to step {step}", self.path):
            for path in (path for path in self._logs if path.exists()):
                lines = path.read_bytes().splitlines(keepends=True)
                last = sampled if sampled is not None and path == self.samples_path else step
                kept = [line for line in lines if _belongs(line, last)]
                if len(kept) < len(lines):
                    atomic_write_bytes(path, b"".join(kept))

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Write the stage's results (JSON values) to `summary.json`, which marks the stage as finished."""
        with explain_disk_errors(f"cannot write {self.summary_path}", self.path):
            self.flush()
            text = terminal_safe_json(json.dumps(_plain(summary), indent=2, ensure_ascii=False))
            atomic_write_text(self.summary_path, text + "\n")

    def read_summary(self) -> dict[str, Any] | None:
        """Return the content of `summary.json`, or None if the stage is not finished.

        Raises:
            CheckpointError: the file exists and is not a JSON object.
        """
        try:
            summary = json.loads(self.summary_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.summary_path} is not JSON ({error}); delete it to run the stage") from error
        if not isinstance(summary, dict):
            raise CheckpointError(f"{self.summary_path} is not a JSON object; delete it to run the stage")
        return summary

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of `metrics.jsonl`, the oldest first; numbers that were not finite are left out of a row."""
        lines = self.metrics_path.read_bytes().splitlines() if self.metrics_path.is_file() else []
        rows = [json.loads(line) for line in lines]
        return [{key: value for key, value in row.items() if value is not None} for row in rows]

    def begun_lr(self) -> float | None:
        """Return the learning rate of the run in this folder; None if no run with results is there.

        A configuration without `optim.lr` resumes a run with the rate that it began with, even if the default has
        changed since.
        """
        if not self._has_results or not self.config_path.exists():
            return None
        try:
            values = _flat(yaml.load(self.config_path.read_text(encoding="utf-8"), PlainLoader))
        except (yaml.YAMLError, ValueError, RecursionError, OSError):  # `_check_config` says what is wrong
            return None
        lr = values.get("optim.lr")
        return lr if isinstance(lr, float) and lr > 0 and math.isfinite(lr) else None

    @property
    def _has_results(self) -> bool:
        return self.summary_path.exists() or any(self.checkpoints.glob("step-*"))

    def flush(self) -> None:
        """Force the appended lines onto the disk, so that they survive a power cut."""
        for handle in self._handles.values():
            os.fsync(handle.fileno())

    def close(self) -> None:
        """Close the log files and release the lock. May be called twice."""
        self._close_handles()
        if self._lock_fd is not None:
            os.close(self._lock_fd)  # closing the descriptor releases the lock; unlinking the file would be a race
            self._lock_fd = None
        self.locked = False

    def __enter__(self) -> RunFolder:
        """Return the folder, for a `with` statement that closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log files and release the lock."""
        self.close()

    @property
    def _logs(self) -> tuple[Path, ...]:
        return self.metrics_path, self.timing_path, self.samples_path, self.watch_path, self.alarms_path

    def _lock(self) -> None:
        """Lock the folder through its open `.lock` file; the lock ends with this process, however the process ends.

        Raises:
            CheckpointError: another process holds the lock.
        """
        fd = _no_link(str(self.path / ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            self.locked = lock_descriptor(fd, blocking=False)
        except OSError:  # a file system without locks, such as some network mounts: go on without one
            self.locked = False
        else:
            if not self.locked:
                os.close(fd)
                raise CheckpointError(
                    f"{self.path} is in use by another trueup run ({self._holder()}); "
                    "wait for it, stop it, or choose another `output`"
                )
        self._lock_fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())

    def _holder(self) -> str:
        """Return who holds the lock: the process id and host that the holder wrote into the lock file."""
        try:
            text = (self.path / ".lock").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:  # Windows: nobody else may read a locked file
            return "its process is unknown"
        return text or "still starting"

    def _adopt(self, config_yaml: str, resume: str) -> None:
        was_run = self.config_path.exists()
        if was_run and resume == "never":
            self.restart()
        elif self._has_results and was_run:
            self._check_config(config_yaml)
        elif was_run:
            self.truncate_metrics(-1)  # an earlier run ended before it saved anything: this one starts at step 0
        atomic_write_text(self.config_path, config_yaml)

    def _check_config(self, config_yaml: str) -> None:
        earlier = self.config_path.read_text(encoding="utf-8", errors="backslashreplace")
        differences = config_differences(earlier, config_yaml)
        if not differences:
            return
        if self.summary_path.exists() and is_longer(earlier, config_yaml):
            steps = (self.read_summary() or {}).get("steps")
            self.finished_at = steps if isinstance(steps, int) else None
            self.summary_path.unlink()  # if it is stopped now, it is not finished
            return
        more = len(differences) - _SHOWN_DIFFERENCES
        lines = [*differences[:_SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
        raise CheckpointError(
            f"{self.path} holds a run with another configuration ({len(differences)} keys differ):\n  "
            + "\n  ".join(lines)
            + "\nRestore the old values to continue, choose another `output`, or remove this folder to start again."
        )

    def _append(self, path: Path, rows: Iterable[Mapping[str, object]]) -> None:
        # A lone surrogate in a text cannot be UTF-8; backslashreplace writes it as a JSON escape.
        text = "".join(terminal_safe_json(json.dumps(_plain(row), ensure_ascii=False)) + "\n" for row in rows)
        data = memoryview(text.encode("utf-8", errors="backslashreplace"))
        with explain_disk_errors(f"cannot write {path}", self.path):
            if path not in self._handles:
                # Unbuffered: a failed write leaves nothing pending.
                self._handles[path] = FileIO(path, "a", opener=_no_link)
            while data:
                data = data[self._handles[path].write(data) :]

    def _close_handles(self) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()


def _no_link(path: str, flags: int) -> int:
    """Open a file and return its descriptor, but refuse a symbolic link, which could lead to another file."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def config_differences(old_yaml: str, new_yaml: str) -> list[str]:
    """Return the keys whose values differ between two configurations in YAML, as `optim.lr: 1e-05 -> 2e-05`.

    Keys in `HARMLESS`, which may change when a run resumes, are left out.
    """
    try:
        old, new = (_flat(_at_home(yaml.load(text, PlainLoader))) for text in (old_yaml, new_yaml))
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date or number out of Python's range
        return ["config.yaml of the earlier run is not YAML that trueup wrote"]
    keys = [key for key in {**old, **new} if key.split(".")[0] not in HARMLESS]
    pairs = [(key, old.get(key, "absent"), new.get(key, "absent")) for key in keys if _differ(key, old, new)]
    return [f"{_brief(key)}: {_brief(was)} -> {_brief(now)}" for key, was, now in pairs]


def is_longer(old_yaml: str, new_yaml: str) -> bool:
    """Return True if two configurations in YAML differ only in that the new one has more epochs or more steps."""
    differences = config_differences(old_yaml, new_yaml)
    if len(differences) != 1 or not re.match(r"optim\.(epochs|steps): \d+ -> \d+$", differences[0]):
        return False
    before, after = differences[0].partition(": ")[2].split(" -> ")
    return int(after) > int(before)


class PlainLoader(yaml.SafeLoader):
    """YAML loader that refuses aliases: trueup writes none, and nine lines of them can expand to a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next YAML node, as the base class does.

        Raises:
            YAMLError: the node is an alias.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _brief(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"


def _differ(key: str, old: dict[str, object], new: dict[str, object]) -> bool:
    # A key that an earlier version did not have is as good as one that is not set, or that has the value it stood for.
    was, now = (values.get(key, IMPLIED.get(key)) for values in (old, new))
    return _without_event(key, was) != _without_event(key, now)


def _without_event(key: str, value: object) -> object:
    """Return a configuration value with vote-store paths (`votes.db@1200`) stripped of their event number.

    Changed votes are detected elsewhere. `key` is the value's key in the configuration.
    """
    if isinstance(value, list):
        return [
            {k: _without_event(k, v) for k, v in item.items()} if isinstance(item, dict) else item for item in value
        ]
    return split_event(value)[0] if isinstance(value, str) and key.endswith("path") else value


def _at_home(value: object) -> object:
    """Return a configuration with the home folder for `~`, which earlier versions kept in paths."""
    if isinstance(value, dict):
        return {key: _at_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return expanded(value) if isinstance(value, str) else value


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict) and value:
        return {key: leaf for name, item in value.items() for key, leaf in _flat(item, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): value}


def _belongs(line: bytes, step: int) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not line.endswith(b"\n") or not isinstance(row, dict):
        return False
    row_step = row.get("step")
    return not isinstance(row_step, int | float) or row_step <= step


def _plain(value: object) -> object:
    """Return `value` as strict JSON values: numbers that are not finite become None, tensor scalars become numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)  # 0-dim tensors and NumPy scalars, without importing either
    return _plain(item()) if callable(item) else value
