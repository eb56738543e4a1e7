"""SIGKILL at any moment: the same command goes on, and ends with the bits of a run that was never killed."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_data
from reliability import forking, test_resume
from reliability.forking import KILLED, Ended
from tiny_data import finish_processes, start_processes
from trueup.config import to_yaml
from trueup.errors import LostPeerError

pytestmark = pytest.mark.slow

KINDS = ("sft", "sft-lora-dropout", "reward", "dpo-lora", "kto-lora", "ppo", "ppo-lora")
KILLS = 20


class Killed:
    """One stage that is run whole once, and in parts as often as a test likes."""

    def __init__(self, folder: Path, name: str, *settings: str) -> None:
        """Run it whole, twice: the second time tells how long it takes with its rows in the cache."""
        self.config = test_resume.config(name, folder, "parts")
        self.parts, path = folder / "parts", folder / "stage.yaml"
        path.write_text(to_yaml(self.config), encoding="utf-8")
        self.command = (self.config.method, str(path), "save.every=1", *settings)
        for _ in range(2):
            self.whole = self.finish()
            self.expected = self.result()

    def run(self, **kill: Any) -> Ended:
        """Run or go on, to the end or until it is killed."""
        ended = forking.run(*self.command, **kill)
        assert ended.code in (0, KILLED), ended.said
        return ended

    def finish(self) -> Ended:
        """Go on to the end."""
        ended = self.run()
        assert ended.code == 0
        return ended

    def result(self) -> dict[str, str]:
        """Return its result and remove the folder, so that the next run starts anew."""
        found = tiny_data.result(self.config)
        left = [path.name for path in (self.parts / "checkpoints").iterdir() if not path.name.startswith("step-")]
        assert left == []
        shutil.rmtree(self.parts)
        return found

    def saved(self) -> int:
        """The step of the last checkpoint; 0 where there is none."""
        names = (path.name for path in (self.parts / "checkpoints").glob("step-*"))
        return max((int(name.removeprefix("step-")) for name in names), default=0)


@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_moments(name: str, tmp_path: Path) -> None:
    """A run that ends before it is killed is compared, and the next one begins, until so many were killed."""
    stage, moments = Killed(tmp_path, name), random.Random(name)
    changes = len(stage.run(under=stage.parts).changes)
    stage.result()
    killed, at = list[str](), dict[str, Any]()
    while len(killed) < KILLS:
        # By the clock, and by the changes of files in turn: these spread over the run whatever the machine's pace.
        if len(killed) % 2:
            at, moment = {"kill_at": moments.randint(1, changes), "under": stage.parts}, "a change"
        else:
            delay = moments.uniform(0, 1.1 * stage.whole.seconds)
            at, moment = {"kill_after": delay}, f"{delay:.3f} s"
        if stage.run(**at).code == KILLED:
            killed.append(f"{moment}: step {stage.saved()}")
        else:
            assert stage.result() == stage.expected, killed
    stage.finish()
    print(f"{name} killed after", ", ".join(killed))
    assert stage.result() == stage.expected, killed
    assert len({one.partition(": ")[2] for one in killed}) > 2


# ------------------------------------------------------------------ at every change of a file


def points(changes: Iterable[str], *wanted: str) -> list[int]:
    """The numbers, from 1, of the changes that match."""
    return [at for at, change in enumerate(changes, 1) if any(re.search(one, change) for one in wanted)]


def check_points(stage: Killed, at: Iterable[int]) -> None:
    """Kill the run at each of these changes of a file, go on, compare."""
    for point in at:
        ended = stage.run(kill_at=point, under=stage.parts)
        assert ended.code == KILLED, point
        stage.finish()
        assert stage.result() == stage.expected, ended.changes[-1]


def test_killed_at_every_change_of_a_file(tmp_path: Path) -> None:
    """Two steps, each saved, the first then removed; the export of model and adapter; the summary."""
    stage = Killed(tmp_path, "sft-lora-dropout", "optim.steps=2", "save.keep_last=1")
    changes = stage.run(under=stage.parts).changes
    assert stage.result() == stage.expected
    for wanted in (
        "append /metrics", "tensors .*optimizer", "sync .*weights", "rename .*manifest.json", "rename .*/step-000002$",
        "rename .*pruned-step-000001", "remove .*", "rename .*outputs", "open /.model.partial/config.json",
        "rename .*/model$", "open /.adapter.partial", "rename .*/adapter$", "rename .*summary.json",
    ):  # fmt: skip
        assert points(changes, wanted), wanted
    check_points(stage, range(1, len(changes) + 1))


@pytest.mark.parametrize("name", ["ppo-lora", "dpo", "reward"])
def test_killed_where_other_kinds_write(name: str, tmp_path: Path) -> None:
    """Samples, the reference's cache, a reward model's export: what a run of SFT does not write."""
    stage = Killed(tmp_path, name, "optim.steps=3")
    changes = stage.run(under=stage.parts).changes
    stage.result()
    check_points(stage, points(changes, "append", "reference", "partial", "rename .*/(model|adapter)$"))


def test_killed_while_it_goes_on(tmp_path: Path) -> None:
    """Killed in a removal, it is killed again at each change of a file as it goes on: clearing, cutting logs back."""
    stage = Killed(tmp_path, "sft", "optim.steps=3", "save.keep_last=1")
    changes = stage.run(under=stage.parts).changes
    stage.result()
    inside = points(changes, "remove manifest.json")[0]
    stage.run(kill_at=inside, under=stage.parts)
    going_on = stage.run(under=stage.parts).changes
    assert stage.result() == stage.expected
    assert points(going_on, "rmdir .*pruned")
    for point in range(1, points(going_on, "rename .*/step-000003")[0] + 2):
        assert stage.run(kill_at=inside, under=stage.parts).code == KILLED
        assert stage.run(kill_at=point, under=stage.parts).code == KILLED
        stage.finish()
        assert stage.result() == stage.expected, going_on[point - 1]


# ------------------------------------------------------------------ two processes, and a pipeline


def test_two_processes_killed(tmp_path: Path) -> None:
    """Both ranks of PPO, one a moment before the other, at three moments."""
    config = test_resume.config("ppo", tmp_path, "parts")
    path = tmp_path / "ppo.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    command = ["-m", "trueup", "ppo", str(path), "save.every=1"]
    for first, lines in ((0, 1), (1, 2), (0, 4)):
        processes = start_processes(command)
        test_resume.wait_for_lines(tmp_path / "parts" / "metrics.jsonl", lines, processes[0])
        processes[first].kill()
        time.sleep(0.05)
        processes[1 - first].kill()
        for process in processes:
            process.communicate(timeout=60)
        codes = [process.returncode for process in processes]
        assert codes[first] == KILLED
        assert codes[1 - first] in (KILLED, LostPeerError.exit_code)  # it may notice, and end, before it is killed
    finish_processes(start_processes(command))
    finish_processes(start_processes([*command, f"output={tmp_path / 'whole'}"]))
    whole = config.model_copy(update={"output": tmp_path / "whole"})
    assert tiny_data.result(config) == tiny_data.result(whole)


STAGES = ("sft", "reward", "dpo", "ppo")


def pipeline(folder: Path) -> Path:
    """The file of a pipeline of all four stages, with a short evaluation."""
    optim = {"steps": 2, "batch_size": 4, "lr": 1e-3}
    common: dict[str, Any] = {"optim": optim, "save": {"every": 1}}
    rankings = tiny_data.data(folder, "rankings", 8)
    rollouts = {"episodes": 4, "epochs": 1, "max_new_tokens": 5}
    stages: dict[str, dict[str, Any]] = {
        "sft": {"method": "sft", "data": tiny_data.data(folder, "conversations", 8)},
        "reward": {"method": "reward", "from": "sft", "data": rankings},
        "dpo": {"method": "dpo", "from": "sft", "data": rankings},
        "ppo": {"method": "ppo", "from": "sft", "reward": "reward", "rollouts": rollouts, "max_length": 200}
        | {"prompts": tiny_data.data(folder, "prompts", 4)},
    }
    evaluate = {
        "tasks": ["answers"],
        "prompts": tiny_data.data(folder, "prompts", 5),
        "samples": 5,
        "max_new_tokens": 4,
    }
    told = {
        "name": "p", "base": tiny_data.tiny_folder(folder / "base"), "runs": str(folder / "runs"),
        "device": "cpu", "threads": 1, "evaluate": evaluate, "allow": ["eval-overlap"],
        "stages": {name: stage | common for name, stage in stages.items()},
    }  # fmt: skip
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    return path


def results(folder: Path) -> dict[str, dict[str, str]]:
    """Of every stage."""
    return {name: tiny_data.result(_Named(folder / "runs" / "p" / name)) for name in STAGES}


class _Named:
    """All that `tiny_data.result` asks of a configuration."""

    def __init__(self, output: Path) -> None:
        self.output = output


def test_a_killed_pipeline_goes_on_at_its_stage(tmp_path: Path) -> None:
    """Killed at random changes of files; what was finished stays, what was begun goes on, the report is written."""
    path, moments = pipeline(tmp_path), random.Random("pipeline")
    command, runs = ("run", str(path)), tmp_path / "runs" / "p"
    whole = forking.run(*command, under=runs)
    assert whole.code == 0, whole.said
    expected = results(tmp_path)
    shutil.rmtree(runs)
    killed: list[str] = []
    while len(killed) < KILLS:
        finished = {name: _written(runs / name) for name in STAGES if _finished(runs / name)}
        at = moments.randint(1, len(whole.changes) // 4)  # about a stage's: some parts begin, some end them
        ended = forking.run(*command, kill_at=at, under=runs)
        assert ended.code in (0, KILLED), ended.said
        for name, before in finished.items():
            assert _written(runs / name) == before, f"{name} was run again: {ended.said}"
        if ended.code == KILLED:
            killed.append(f"change {at}: {next((one for one in STAGES if not _finished(runs / one)), 'report')}")
        else:
            assert results(tmp_path) == expected
            assert (runs / "report.html").is_file()
            shutil.rmtree(runs)
    ended = forking.run(*command)
    assert ended.code == 0, ended.said
    print("the pipeline was killed after", ", ".join(killed))
    assert results(tmp_path) == expected
    assert len({one.partition(": ")[2] for one in killed}) > 2


def _finished(folder: Path) -> bool:
    return (folder / "summary.json").is_file()


def _written(folder: Path) -> tuple[int, int]:
    """Which file the summary is: another one once the stage was run again."""
    stat = (folder / "summary.json").stat()
    return stat.st_ino, stat.st_mtime_ns


def test_a_stage_that_is_begun_again_can_be_killed_anywhere(tmp_path: Path) -> None:
    """`--force` empties a folder: killed in the middle of that, `trueup run` goes on or begins again."""
    path = pipeline(tmp_path)
    command, folder = ("run", str(path)), tmp_path / "runs" / "p" / "dpo"
    assert forking.run(*command).code == 0
    expected = results(tmp_path)
    changes = forking.run(*command, "--force", "dpo", under=folder).changes
    assert results(tmp_path) == expected
    begun = points(changes, "append")[0]
    for point in points(changes[:begun], "remove", "rename", "rmdir", "mkdir", "append"):
        assert forking.run(*command, "--force", "dpo", kill_at=point, under=folder).code == KILLED
        ended = forking.run(*command)
        assert ended.code == 0, (changes[point - 1], ended.said)
        assert results(tmp_path) == expected, changes[point - 1]
