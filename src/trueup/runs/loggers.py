"""Optional experiment trackers: TensorBoard, Weights & Biases, Trackio, imported only if they are configured."""

from __future__ import annotations

import importlib
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from trueup.errors import ConfigError, MissingExtraError
from trueup.system.commandline import install_command
from trueup.system.files import atomic_write_text

_PROJECT = "trueup"


class Logger(Protocol):
    """Interface of an experiment tracker, such as TensorBoard: it records metrics by step."""

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """Record the metrics of an optimizer step; values that are not numbers are left out."""
        ...

    def close(self) -> None:
        """Write what is not written yet and close the tracker. May be called twice."""
        ...


def open_loggers(
    names: Sequence[str], folder: Path, config: Mapping[str, object], *, start_step: int = 0
) -> list[Logger]:
    """Open the named experiment trackers and return them.

    Args:
        names: any of "tensorboard", "wandb", "trackio".
        folder: the run folder; the run is named after it and its parent.
        config: the resolved configuration, JSON values.
        start_step: optimizer steps already done; a resumed run continues the earlier record from there. TensorBoard
            hides the later steps of an interrupted run; in wandb and trackio they stay.

    Raises:
        ConfigError: an unknown name.
        MissingExtraError: the tracker's package is not installed.
    """
    unknown = [name for name in names if name not in _OPENERS]
    if unknown:
        raise ConfigError(f"log: unknown tracker `{unknown[0]}`; the trackers are {', '.join(_OPENERS)}")
    opened: list[Logger] = []
    try:
        # extend keeps the trackers opened before one that fails.
        opened.extend(_OPENERS[name](folder, config, start_step) for name in dict.fromkeys(names))
    except BaseException:
        for logger in opened:
            logger.close()
        raise
    return opened


class TensorBoardLogger:
    """Experiment tracker that writes TensorBoard event files into `<run folder>/tensorboard`."""

    def __init__(self, folder: Path, config: Mapping[str, object], start_step: int) -> None:
        """Open an event file and write the configuration.

        The viewer hides what an interrupted run wrote after `start_step`.
        """
        _require("tensorboard", "tensorboard")
        module = importlib.import_module("torch.utils.tensorboard")
        purge_step = start_step + 1 if start_step else None
        self._writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=purge_step)
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """Write a scalar for each metric that is a number."""
        for name, value in _numbers(metrics).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class TrackerLogger:
    """Experiment tracker over an open wandb or trackio run, which share `log(metrics, step=)` and `finish()`."""

    def __init__(self, run: Any) -> None:  # `Any`: an object of an optional package
        """Wrap `run`, the open object of wandb or trackio."""
        self._run = run

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """Send the metrics that are finite numbers."""
        if self._run is not None:
            self._run.log({name: value for name, value in _numbers(metrics).items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        """Finish the tracker's run. May be called twice."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def _open_wandb(folder: Path, config: Mapping[str, object], _start_step: int) -> Logger:
    wandb = _require("wandb", "wandb")
    return TrackerLogger(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=_run_name(folder),
            id=_run_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )
    )


def _open_trackio(folder: Path, config: Mapping[str, object], _start_step: int) -> Logger:
    trackio = _require("trackio", "trackio")
    return TrackerLogger(
        trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{_run_name(folder)}-{_run_id(folder)[:8]}",
            config=dict(config),
            resume="allow",
        )
    )


_OPENERS: dict[str, Callable[[Path, Mapping[str, object], int], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": _open_wandb,
    "trackio": _open_trackio,
}


def _require(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"log: {extra} needs a package that is not installed: {install_command(extra)}"
        ) from error


def _run_name(folder: Path) -> str:
    path = folder.absolute()
    return f"{path.parent.name}-{path.name}"


def _run_id(folder: Path) -> str:
    """Return the tracker's id of this run folder, stored in it, so that a resumed run continues the same record."""
    path = folder / ".tracker-id"
    if not path.exists():
        atomic_write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    values = {name: value for name, value in metrics.items() if name != "step" and not isinstance(value, bool)}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
