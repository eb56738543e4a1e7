"""The run folder: one process at a time, one configuration, logs that can be cut back, and files never half-written."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from trueup.errors import CheckpointError
from trueup.runs.checkpoint import latest_checkpoint, save_checkpoint
from trueup.runs.folder import RunFolder
from trueup.system.files import atomic_write_text, fingerprint

CONFIG = "model: tiny\noptim:\n  lr: 0.001\n  steps: 10\nsave:\n  every: 5\n"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """An open, locked run folder."""
    with RunFolder.create(tmp_path / "run", CONFIG) as folder:
        yield folder


def test_create_writes_the_config_and_locks(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a" / "b", CONFIG) as run:
        assert run.locked
        assert run.config_path.read_text() == CONFIG
        with pytest.raises(CheckpointError, match=rf"in use by another trueup run \(pid {os.getpid()} on "):
            RunFolder.create(tmp_path / "a" / "b", CONFIG)
    with RunFolder.create(tmp_path / "a" / "b", CONFIG) as run:
        assert run.locked


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_another_process_holds_the_lock_until_it_dies(tmp_path: Path) -> None:
    def child() -> None:
        run = RunFolder.create(tmp_path / "run", "a: 1")
        (tmp_path / "ready").touch()
        time.sleep(60)
        run.close()

    process = _fork(child)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    with pytest.raises(CheckpointError, match=f"pid {process} "):
        RunFolder.create(tmp_path / "run", "a: 1")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    RunFolder.create(tmp_path / "run", "a: 1").close()


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot use the run folder .*choose another `output`"):
        RunFolder.create(tmp_path / "run", CONFIG)


def _with_results(path: Path) -> None:
    with RunFolder.create(path, CONFIG) as run:
        save_checkpoint(run, 5, {"source": {"position": 5}})
        run.append_metrics({"step": 5, "loss": 1.0})
        run.write_summary({"loss": 1.0})


def test_another_configuration_is_refused_by_key(tmp_path: Path) -> None:
    _with_results(tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        RunFolder.create(tmp_path / "run", CONFIG.replace("0.001", "0.002").replace("tiny", "big") + "seed: 1\n")
    message = str(caught.value)
    assert "optim.lr: 0.001 -> 0.002" in message
    assert "model: tiny -> big" in message
    assert "seed: absent -> 1" in message
    assert "optim.steps" not in message
    assert "remove this folder to start again" in message
    assert len(message.splitlines()) <= 6
    assert (tmp_path / "run" / "config.yaml").read_text() == CONFIG


def test_harmless_keys_may_change(tmp_path: Path) -> None:
    _with_results(tmp_path / "run")
    with RunFolder.create(tmp_path / "run", CONFIG.replace("every: 5", "every: 7") + "threads: 3\n") as run:
        assert latest_checkpoint(run) is not None
        assert run.read_summary() is not None
        assert "threads: 3" in run.config_path.read_text()


def test_resume_never_begins_again(tmp_path: Path) -> None:
    _with_results(tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("kept")
    with RunFolder.create(tmp_path / "run", CONFIG, resume="never") as run:
        assert latest_checkpoint(run) is None
        assert run.read_summary() is None
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", "checkpoints", "config.yaml", "mine.txt"]


def test_a_run_that_saved_nothing_may_change_its_configuration(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", CONFIG) as run:
        run.append_metrics({"step": 1, "loss": 2.0})
    with RunFolder.create(tmp_path / "run", "model: other\n") as run:
        assert run.metrics_path.read_text() == ""


def test_metrics_are_strict_json_visible_at_once(run: RunFolder) -> None:
    run.append_metrics({"step": 1, "loss": 0.5, "kl": math.nan, "x": [math.inf, torch.tensor(2.5)], "p": Path("a")})
    line = run.metrics_path.read_text()
    assert line == '{"step": 1, "loss": 0.5, "kl": null, "x": [null, 2.5], "p": "a"}\n'


def test_samples_hold_any_text(run: RunFolder) -> None:
    texts = ["line\nbreak\u2028", "日本", "\ud800 lone", '"quoted"', "\x1b[31m"]
    run.append_samples([{"step": 1, "text": text} for text in texts])
    rows = [json.loads(line) for line in run.samples_path.read_bytes().decode("utf-8").strip("\n").split("\n")]
    assert [row["text"] for row in rows] == texts


def test_truncate_metrics(run: RunFolder) -> None:
    for step in range(1, 5):
        run.append_metrics({"step": step, "loss": step / 2})
        run.append_timing({"step": step, "seconds": 0.1})
        run.append_samples([{"step": step, "text": "a"}, {"step": step, "text": "b"}])
    with run.metrics_path.open("a") as handle:
        handle.write('{"step": 2, "loss"')  # torn by a kill
    run.truncate_metrics(2)
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1, 2]
    assert [json.loads(line)["step"] for line in run.timing_path.read_text().splitlines()] == [1, 2]
    assert [json.loads(line)["step"] for line in run.samples_path.read_text().splitlines()] == [1, 1, 2, 2]
    run.append_metrics({"step": 3})
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1, 2, 3]


def test_answers_of_a_step_that_is_not_evaluated_yet_are_kept(run: RunFolder) -> None:
    """Its row is written after the evaluation, its answers before: they are not sampled again."""
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
        run.append_samples([{"step": step}])
    run.truncate_metrics(1, sampled=2)
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1]
    assert [json.loads(line)["step"] for line in run.samples_path.read_text().splitlines()] == [1, 2]


def test_a_full_disk_in_the_log_is_explained(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trueup.runs.folder.FileIO", _no_space)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: No space left on device \(.* free there\); free some"):
        run.append_metrics({"step": 1})


def test_summary(run: RunFolder) -> None:
    assert run.read_summary() is None
    run.write_summary({"loss": math.nan, "steps": 3, "name": "é"})
    assert run.read_summary() == {"loss": None, "steps": 3, "name": "é"}
    run.summary_path.write_text("{")
    with pytest.raises(CheckpointError, match=r"summary.json is not JSON"):
        run.read_summary()


def _no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    monkeypatch.setattr(Path, "replace", _no_space)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_fingerprint_follows_content_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    first = fingerprint([folder, folder / "a.txt"])
    (folder / ".lock").write_text("pid 1")
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert fingerprint([moved, moved / "a.txt"]) == first
    seen = {first, fingerprint([folder / "a.txt", folder]), fingerprint([folder])}
    (folder / "a.txt").write_text("A")
    seen.add(fingerprint([folder, folder / "a.txt"]))
    (folder / "a.txt").rename(folder / "c.txt")
    seen.add(fingerprint([folder]))
    assert len(seen) == 5
    with pytest.raises(CheckpointError, match="absent does not exist"):
        fingerprint([tmp_path / "absent"])


def _fork(action: Callable[[], None]) -> int:
    """Run `action` in a copy of this process; -> its pid. Its exit status is 0 when nothing was raised."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return process


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
def test_a_link_in_a_run_folder_writes_nothing_elsewhere(name: str, tmp_path: Path) -> None:
    """A run folder may come from somebody else."""
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("as it was")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(CheckpointError, match="link"), RunFolder.create(folder, "a: 1\n") as run:
        run.append_metrics({"step": 1})
    assert victim.read_text() == "as it was"
