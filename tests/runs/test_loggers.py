"""Trackers: TensorBoard is read back with its own reader; wandb and trackio are replaced by a recording module."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trueup.errors import ConfigError, MissingExtraError
from trueup.runs.loggers import open_loggers
from trueup.system.commandline import install_command


class FakeRun:
    """Records what a tracker's run is told."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = 0

    def log(self, metrics: dict[str, float], step: int) -> None:
        """As wandb.Run.log."""
        self.logged.append((metrics, step))

    def finish(self) -> None:
        """As wandb.Run.finish."""
        self.finished += 1


class FakeTracker(ModuleType):
    """A module with `init`, as wandb and trackio have."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.started: list[dict[str, Any]] = []
        self.runs: list[FakeRun] = []

    def init(self, **arguments: Any) -> FakeRun:
        """As wandb.init."""
        self.started.append(arguments)
        self.runs.append(FakeRun())
        return self.runs[-1]


def test_tensorboard_events_can_be_read(tmp_path: Path) -> None:
    accumulator_module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (logger,) = open_loggers(["tensorboard"], tmp_path, {"seed": 1})
    for step in (1, 2, 3):
        logger.log(step, {"step": step, "loss": 1 / step, "kl": math.nan, "name": "text", "done": True})
    logger.close()
    logger.close()
    accumulator = accumulator_module.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert sorted(accumulator.Tags()["scalars"]) == ["kl", "loss"]
    events = accumulator.Scalars("loss")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_resumed_tensorboard_run_hides_what_was_cut(tmp_path: Path) -> None:
    accumulator_module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, value in ((0, 1.0), (2, 5.0)):
        (logger,) = open_loggers(["tensorboard"], tmp_path, {}, start_step=start)
        for step in range(start + 1, 5):
            logger.log(step, {"loss": value})
        logger.close()
    accumulator = accumulator_module.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert [(event.step, event.value) for event in accumulator.Scalars("loss")] == [(1, 1), (2, 1), (3, 5), (4, 5)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_finite_numbers_and_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tracker = FakeTracker(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    folder = tmp_path / "my-assistant" / "dpo"
    folder.mkdir(parents=True)
    for _ in range(2):
        (logger,) = open_loggers([name], folder, {"optim": {"lr": 0.1}})
        logger.log(7, {"step": 7, "loss": 0.5, "kl": math.inf})
        logger.close()
        logger.close()
    first, second = tracker.started
    assert first == second
    assert first["project"] == "trueup"
    assert first["name"].startswith("my-assistant-dpo")
    assert first["config"] == {"optim": {"lr": 0.1}}
    assert first["resume"] == "allow"
    assert tracker.runs[0].logged == [({"loss": 0.5}, 7)]
    assert tracker.runs[0].finished == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command(name))):
        open_loggers([name], tmp_path, {})


def test_when_one_cannot_be_opened_the_others_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = FakeTracker("wandb")
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError):
        open_loggers(["wandb", "trackio"], tmp_path, {})
    assert tracker.runs[0].finished == 1


def test_an_unknown_tracker_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown tracker `mlflow`; the trackers are tensorboard, wandb, trackio"):
        open_loggers(["mlflow"], tmp_path, {})


def test_no_trackers() -> None:
    assert open_loggers([], Path("absent"), {}) == []
