"""Ctrl-C and SIGTERM: while libraries load, in a step, while files are written, in a pipeline; once, and twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tiny_data
import warm
from reliability import forking
from reliability.test_kill import Killed, pipeline, points, results
from reliability.test_resume import wait_for_lines
from trueup.config import to_yaml
from trueup.errors import Interrupted

INTERRUPTED = Interrupted.exit_code


def written(folder: Path) -> tuple[Any, str]:
    """A stage of SFT that takes some seconds, and its file."""
    config = tiny_data.stage("sft", folder, optim={"steps": 2000})
    path = folder / "sft.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return config, str(path)


@contextmanager
def started(*arguments: str, popen: type[subprocess.Popen[Any]] = warm.Popen) -> Iterator[subprocess.Popen[str]]:
    """`python -m trueup …`, killed at the end if it is still there."""
    process = popen(
        [sys.executable, "-m", "trueup", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.slow
def test_ctrl_c_while_libraries_load(tmp_path: Path) -> None:
    """A word and the code at every moment: an exception inside the libraries' C++ would abort, inside `exec` kill."""
    _, path = written(tmp_path)
    with started("sft", path, "optim.steps=1", popen=subprocess.Popen) as process:  # how long loading takes here
        begun = time.monotonic()
        wait_for_lines(tmp_path / "run" / "metrics.jsonl", 1, process)
        loading = time.monotonic() - begun
        process.communicate()
    for at in range(1, 26):
        with started("sft", path, f"output={tmp_path / str(at)}", popen=subprocess.Popen) as process:
            time.sleep(loading * at / 25)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[0]
        assert process.returncode == INTERRUPTED, (at, said)
        assert "Traceback" not in said
        assert re.search("interrupted|saved. Go on with", said), (at, said)


def test_sigterm(tmp_path: Path) -> None:
    """A batch system stops a job: the step is finished and saved, the exit code is the documented one."""
    config, path = written(tmp_path)
    with started("sft", path, "seed=0") as process:
        wait_for_lines(tmp_path / "run" / "metrics.jsonl", 5, process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # some send it more than once; it is one request
        said = " ".join(process.communicate(timeout=60)[0].split())
    assert process.returncode == INTERRUPTED, said
    match = re.search(rf"stopped at step (\d+) of 2000, saved\. Go on with: \S*trueup sft {path} seed=0", said)
    assert match, said
    assert [int(row["step"]) for row in tiny_data.metrics(config)] == list(range(1, int(match[1]) + 1))
    assert (tmp_path / "run" / "checkpoints" / f"step-{int(match[1]):06d}" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_second_ctrl_c_quits_at_once(tmp_path: Path) -> None:
    """In a step that takes long: a reward that sleeps. The first is heard, the second ends it, and nothing is lost."""
    slow = (
        "import time\n\ndef score(conversations):\n    time.sleep(0 if stop.exists() else 30)\n"
        "    return [len(one.response) / 10 for one in conversations]\n"
    )
    stop = tmp_path / "quick"
    reward = tiny_data.reward_function(tmp_path, f"from pathlib import Path\nstop = Path({str(stop)!r})\n{slow}")
    config = tiny_data.stage("ppo", tmp_path, "run", reward=reward, save={"every": 1})
    path = tmp_path / "ppo.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    with started("ppo", str(path)) as process:
        until = time.monotonic() + 60
        while not (tmp_path / "run" / "data.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1.5)  # in the reward by now
        process.send_signal(signal.SIGINT)
        time.sleep(0.7)  # later than a supervisor passes the same one on
        assert process.poll() is None
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[0]
    assert time.monotonic() - asked < 20
    assert process.returncode == INTERRUPTED
    assert "stopping after this step and saving; press Ctrl-C again to quit at once" in " ".join(said.split())
    assert said.endswith("interrupted; the same command goes on from what was saved before\n")
    assert "Traceback" not in said
    stop.touch()
    tiny_data.run(config)
    whole = config.model_copy(update={"output": tmp_path / "whole"})
    tiny_data.run(whole)
    assert tiny_data.result(config) == tiny_data.result(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("by", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_signal_while_files_are_written(by: signal.Signals, times: int, tmp_path: Path) -> None:
    """At every change of a file (twice: at some): in a checkpoint that is being written it is not lost."""
    stage = Killed(tmp_path, "sft-lora-dropout", "optim.steps=2", "save.keep_last=1")
    changes = stage.run(under=stage.parts).changes
    stage.result()
    last = points(changes, "append /metrics")[-1]  # of the last step: nothing is left to stop before
    for point in range(1, len(changes) + 1, 1 if times == 1 else 9):
        ended = forking.run(*stage.command, kill_at=point, under=stage.parts, by=by, times=times)
        place = (changes[point - 1], ended.said)
        if by == signal.SIGTERM and (point > last or "append" not in " ".join(changes[:point])):
            assert ended.code in (-signal.SIGTERM, INTERRUPTED, 0), place  # while loading, or in the export: it ends
        else:
            assert ended.code == INTERRUPTED or (times == 1 and point > last), place
        assert "Traceback" not in ended.said, place
        stage.finish()
        assert stage.result() == stage.expected, place


@pytest.mark.slow
def test_a_pipeline_says_how_to_go_on(tmp_path: Path) -> None:
    """In the second stage: the command is the pipeline's; given again, it begins there."""
    path = pipeline(tmp_path)
    command, folder = ("run", str(path), "seed=3"), tmp_path / "runs" / "p"
    saved = points(forking.run(*command, under=folder / "reward").changes, "rename .*/step-000001")[0]
    expected = results(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "aside")
    ended = forking.run(*command, kill_at=saved, under=folder / "reward", by=signal.SIGINT)
    assert ended.code == INTERRUPTED, ended.said
    said = " ".join(ended.said.split())
    assert re.search(rf"stopped at step 1 of 2, saved\. Go on with: \S*trueup run {path} seed=3$", said), said
    ended = forking.run(*command)
    assert ended.code == 0
    assert "sft: finished before" in ended.said
    assert "reward: going on, because it was stopped before its end" in ended.said
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_a_stop_in_the_last_step_stops_a_pipeline(tmp_path: Path) -> None:
    path = pipeline(tmp_path)
    folder = tmp_path / "runs" / "p"
    saved = points(forking.run("run", str(path), under=folder / "sft").changes, "rename .*/step-000002")[0]
    (tmp_path / "runs").rename(tmp_path / "aside")
    ended = forking.run("run", str(path), kill_at=saved, under=folder / "sft", by=signal.SIGINT)
    assert ended.code == INTERRUPTED, ended.said
    assert not (folder / "reward").exists()
