"""Checkpoints: every way that a disk or a killed process can spoil them, and that none is believed afterwards."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trueup.errors import CheckpointError
from trueup.runs import checkpoint as checkpoint_module
from trueup.runs.checkpoint import RunFolder, latest_checkpoint, save_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """An open, locked run folder."""
    with RunFolder.create(tmp_path / "run", "model: tiny\n") as folder:
        yield folder


def parts(seed: int = 0) -> dict[str, dict[str, Any]]:
    """A small model and its cursor, different for each seed."""
    weight = torch.full((4, 3), float(seed))
    return {"model": {"weight": weight, "bias": torch.arange(3.0)}, "source": {"epoch": 1, "position": seed}}


def test_save_and_latest(run: RunFolder) -> None:
    assert latest_checkpoint(run) is None
    path = save_checkpoint(run, 100, parts(7))
    found = latest_checkpoint(run)
    assert found is not None
    assert (path, found.path, found.step, found.skipped) == (run.checkpoints / "step-000100", path, 100, ())
    assert found.parts == {"model", "source"}
    assert found.part("source") == parts(7)["source"]
    assert torch.equal(found.part("model")["weight"], parts(7)["model"]["weight"])
    with pytest.raises(CheckpointError, match="no part `optimizer`; it has model, source"):
        found.part("optimizer")


def test_the_manifest_lists_every_other_file_and_no_pickle(run: RunFolder) -> None:
    path = save_checkpoint(run, 1, parts())
    manifest = json.loads((path / "manifest.json").read_text())
    names = {file.name for file in path.iterdir()}
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert {Path(name).suffix for name in names} == {".json", ".safetensors"}


def test_old_checkpoints_are_pruned(run: RunFolder) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(run, step, parts(step), keep_last=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000003", "step-000004"]
    save_checkpoint(run, 5, parts(5), keep_last=0)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000005"]


def test_damaged_checkpoints_do_not_count_as_kept(run: RunFolder) -> None:
    for step in (1, 2):
        save_checkpoint(run, step, parts(step))
    (run.checkpoints / "step-000002" / "manifest.json").unlink()
    save_checkpoint(run, 3, parts(3), keep_last=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000001", "step-000003"]


def test_an_abandoned_future_is_removed(run: RunFolder) -> None:
    for step in (1, 9):
        save_checkpoint(run, step, parts(step))
    save_checkpoint(run, 2, parts(2))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000001", "step-000002"]


def test_steps_sort_as_numbers(run: RunFolder) -> None:
    for step in (999_999, 1_000_000):
        save_checkpoint(run, step, parts(step), keep_last=9)
    found = latest_checkpoint(run)
    assert found is not None
    assert found.step == 1_000_000


def test_the_same_step_can_be_saved_again(run: RunFolder) -> None:
    save_checkpoint(run, 5, parts(1))
    save_checkpoint(run, 5, parts(2))
    found = latest_checkpoint(run)
    assert found is not None
    assert found.part("source")["position"] == 2
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000005"]


@pytest.mark.parametrize("name", ["manifest", "../up", "", "a/b", ".hidden"])
def test_part_names_are_plain(run: RunFolder, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot name a part"):
        save_checkpoint(run, 1, {name: {}})


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = {
    "flipped bit in tensors": (lambda path: _flip(path / "model.safetensors"), "sha256 differs"),
    "flipped bit in json": (lambda path: _flip(path / "source.json"), "sha256 differs"),
    "cut file": (lambda path: _cut(path / "model.safetensors"), "bytes instead of"),
    "empty file": (lambda path: (path / "source.json").write_bytes(b""), "0 bytes instead of"),
    "missing file": (lambda path: (path / "model.json").unlink(), "model.json is missing"),
    "missing manifest": (lambda path: (path / "manifest.json").unlink(), "no manifest.json"),
    "cut manifest": (lambda path: _cut_half(path / "manifest.json"), "cannot be used"),
    "manifest of another kind": (lambda path: (path / "manifest.json").write_text("[1]"), "cannot be used"),
    "other format": (lambda path: _edit(path / "manifest.json", "format", 99), "format is 99"),
    "other step": (lambda path: _edit(path / "manifest.json", "step", 3), "says step 3"),
    "empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), "no manifest.json"),
}


def _cut_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_loudly(run: RunFolder, kind: str) -> None:
    for step in (1, 2):
        save_checkpoint(run, step, parts(step))
    spoil, message = DAMAGE[kind]
    spoil(run.checkpoints / "step-000002")
    found = latest_checkpoint(run)
    assert found is not None
    assert (found.step, found.part("source")["position"]) == (1, 1)
    assert len(found.skipped) == 1
    assert "step-000002" in found.skipped[0]
    assert message in found.skipped[0]


def test_every_single_byte_is_checked(run: RunFolder) -> None:
    """A flip anywhere is either noticed, or (in the manifest's white space) changes nothing that is read."""
    path = save_checkpoint(run, 1, parts(1))
    save_checkpoint(run, 2, parts(2))
    for file in sorted((run.checkpoints / "step-000002").iterdir()):
        original = file.read_bytes()
        for index in range(0, len(original), max(1, len(original) // 60)):
            file.write_bytes(original[:index] + bytes([original[index] ^ 4]) + original[index + 1 :])
            found = latest_checkpoint(run)
            assert found is not None
            assert found.path == path or torch.equal(found.part("model")["weight"], parts(2)["model"]["weight"])
            assert found.path == path or file.name == "manifest.json"
        file.write_bytes(original)


def test_no_good_checkpoint_left_is_an_error(run: RunFolder) -> None:
    path = save_checkpoint(run, 1, parts())
    _flip(path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"No undamaged checkpoint is left\.\n  fix: restore one"):
        latest_checkpoint(run)


def _no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["write_state", "_write_manifest", "_publish", "fsync_path", "atomic_write_text"])
def test_a_full_disk_leaves_no_trace(run: RunFolder, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    save_checkpoint(run, 1, parts(1), keep_last=1)
    monkeypatch.setattr(checkpoint_module, where, _no_space)
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(run, 2, parts(2), keep_last=1)
    monkeypatch.undo()
    message = str(caught.value)
    assert "No space left on device" in message
    assert "step-000002" in message
    assert "free there" in message
    assert "last saved one is step-000001" in message
    assert len(message.splitlines()) <= 6
    found = latest_checkpoint(run)
    assert found is not None
    if where != "fsync_path":
        assert found.step == 1
    assert [path.name for path in run.checkpoints.iterdir()] == [found.path.name]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_file_size_limit_hits_the_real_writer(tmp_path: Path) -> None:
    """The kernel refuses the bytes half-way (RLIMIT_FSIZE): safetensors' own error is explained as well."""

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with RunFolder.create(tmp_path / "run", "a: 1") as run, pytest.raises(CheckpointError) as caught:
            save_checkpoint(run, 2, {"model": {"weight": torch.ones(50_000)}})
        (tmp_path / "message").write_text(str(caught.value))

    with RunFolder.create(tmp_path / "run", "a: 1") as run:
        save_checkpoint(run, 1, parts(1))
    assert os.waitpid(_fork(child), 0)[1] == 0
    message = (tmp_path / "message").read_text()
    assert "cannot save the checkpoint" in message
    assert "needs about 0.2 MB" in message
    with RunFolder.create(tmp_path / "run", "a: 1") as run:
        assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]
        assert latest_checkpoint(run) is not None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_writer_leaves_nothing_believable(tmp_path: Path) -> None:
    """SIGKILL at arbitrary moments while saving in a loop: what is found afterwards is always whole."""

    def child() -> None:
        run = RunFolder.create(tmp_path / "run", "a: 1")
        found = latest_checkpoint(run)
        for step in itertools.count((found.step if found else 0) * 2 + 1):  # every step is saved twice: both renames
            save_checkpoint(run, step // 2, {"model": {"weight": torch.full((2000,), step // 2)}})

    seen = 0
    for delay in (0.2, 0.11, 0.07, 0.13, 0.09, 0.15):
        process = _fork(child)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        assert os.waitpid(process, 0)[1] == signal.SIGKILL
        with RunFolder.create(tmp_path / "run", "a: 1") as run:  # the dead process's lock is gone
            found = latest_checkpoint(run)
            assert found is not None
            assert found.skipped == ()
            assert torch.equal(found.part("model")["weight"], torch.full((2000,), found.step))
            assert found.step >= seen
            seen = found.step
            assert all(path.name.startswith("step-") for path in run.checkpoints.iterdir())


def test_a_kill_between_the_two_renames_is_undone(run: RunFolder) -> None:
    path = save_checkpoint(run, 3, parts(3))
    path.rename(run.checkpoints / ".old-step-000003-12345")
    (run.checkpoints / ".tmp-step-000003-12345").mkdir()
    found = latest_checkpoint(run)
    assert found is not None
    assert found.step == 3
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step-000003"]


def test_a_reader_without_the_lock_touches_nothing(run: RunFolder) -> None:
    save_checkpoint(run, 3, parts(3))
    leftover = run.checkpoints / ".tmp-step-000004-12345"
    leftover.mkdir()
    reader = latest_checkpoint(RunFolder(run.path))
    assert reader is not None
    assert leftover.exists()
    latest_checkpoint(run)
    assert not leftover.exists()


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
