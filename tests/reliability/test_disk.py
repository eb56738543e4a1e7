"""A disk that is full, may only be read, or hands back other bytes than were written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tiny_data
from reliability import forking, test_resume
from reliability.forking import KILLED, Ended
from reliability.test_kill import Killed, points
from trueup.config import to_yaml
from trueup.errors import CheckpointError, ConfigError, DataError
from trueup.runs.checkpoint import latest_checkpoint
from trueup.runs.folder import RunFolder

KB = 1024
FULL = "No space left on device|disk full|File too large"


def mounted(place: Path, *options: str) -> bool:
    """Mount (or remount) a small file system in memory at a folder. -> False where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    return (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A disk of `size` bytes at a folder.

    Raises:
        pytest.skip: mounting is not allowed here.
    """
    if not mounted(place, f"size={size}"):
        pytest.skip("a small disk cannot be mounted here: that needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def refused(ended: Ended, *codes: int) -> None:
    """It ended with words: what was written, that the disk is full, and what to do, in six lines."""
    assert ended.code in (codes or (CheckpointError.exit_code, 1)), ended.said
    assert "Traceback" not in ended.said
    message = ended.said[ended.said.rindex("error: ") :]
    assert re.search(FULL, message), message
    assert re.search(r"[Ff]ree some space", message), message
    assert len(message.splitlines()) <= 6, message


def saved(folder: Path) -> int:
    """The step of the last checkpoint, which is whole; 0 where there is none."""
    found = latest_checkpoint(RunFolder(folder))
    assert found is None or found.skipped == ()
    return found.step if found else 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-lora-dropout", "dpo", "ppo-lora"])
def test_a_disk_of_any_size_gets_full(name: str, tmp_path: Path) -> None:
    """From a disk that holds nothing to one that holds all but the last file; given more space, the run goes on."""
    disk = tmp_path / "parts"
    config = test_resume.config(name, tmp_path, "parts")
    path = tmp_path / "stage.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    command = (config.method, str(path), "save.every=2", "save.keep_last=1")
    whole = forking.run(*command, under=disk)
    assert whole.code == 0, whole.said
    expected, needed = tiny_data.result(config), sum(one.stat().st_size for one in disk.rglob("*") if one.is_file())
    shutil.rmtree(disk)
    steps, places = set[int](), set[str]()
    for size in range(16 * KB, 2 * needed, 2 * needed // 24):
        with small_disk(disk, size):
            ended = forking.run(*command)
            if ended.code == 0:
                assert tiny_data.result(config) == expected
                break
            refused(ended)
            steps.add(saved(disk))
            places.add(ended.said[ended.said.rindex("error: ") :].partition(";")[0].replace(str(disk), ""))
            assert mounted(disk, "remount", f"size={4 * needed}")
            ended = forking.run(*command)
            assert ended.code == 0, ended.said
            assert tiny_data.result(config) == expected, size
    print(f"{name}: full after steps {sorted(steps)}, in", *sorted(places), sep="\n  ")
    assert len(steps) > 1


@pytest.mark.slow
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """Without root: the kernel refuses the bytes beyond a largest size of files (RLIMIT_FSIZE)."""
    stage = Killed(tmp_path, "sft", "save.keep_last=1")
    at = points(stage.run(under=stage.parts).changes, "rename .*/step-000003")[0] + 1
    assert tiny_data.result(stage.config) == stage.expected
    largest = max(path.stat().st_size for path in stage.parts.rglob("*.safetensors") if "checkpoints" in str(path)) - 1
    stage.result()
    stage.run(kill_at=at, under=stage.parts)
    ended = forking.run(*stage.command, largest=largest)
    refused(ended)
    assert re.search(r"The last saved one is step-00000\d\.", ended.said)
    assert saved(stage.parts) == stage.saved() > 0
    stage.finish()
    assert stage.result() == stage.expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [4 * KB, 16 * KB, 40 * KB])
def test_a_full_disk_under_the_cache_of_tokens(size: int, tmp_path: Path) -> None:
    """It names the folder and the variable that moves it, and nothing half-made is believed afterwards."""
    stage, cache = Killed(tmp_path, "sft"), tmp_path / "cache"
    with small_disk(cache, size):
        ended = forking.run(*stage.command, env={"TRUEUP_CACHE": str(cache)})
        refused(ended, DataError.exit_code)
        assert str(cache) in ended.said
        assert "TRUEUP_CACHE" in ended.said
        assert mounted(cache, "remount", "size=9m")
        ended = forking.run(*stage.command, env={"TRUEUP_CACHE": str(cache)})
        assert ended.code == 0, ended.said
    assert stage.result() == stage.expected


# ------------------------------------------------------------------ read only


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_that_may_only_be_read(begun: bool, tmp_path: Path) -> None:
    """Before the model loads; what lies there is left as it is."""
    stage = Killed(tmp_path, "sft")
    with small_disk(stage.parts, 9 * KB * KB):
        if begun:
            stage.run(kill_at=points(stage.run(under=stage.parts).changes, "rename .*outputs")[0], under=stage.parts)
        assert mounted(stage.parts, "remount", "ro")
        ended = forking.run(*stage.command)
        assert ended.code == ConfigError.exit_code, ended.said
        assert f"output: {stage.parts}: cannot be written: no permission in {stage.parts}" in ended.said
        assert "loading" not in ended.said
        assert "Traceback" not in ended.said
        assert mounted(stage.parts, "remount", "rw")
        ended = forking.run(*stage.command)
        assert ended.code == 0, ended.said
        assert tiny_data.result(stage.config) == stage.expected


# ------------------------------------------------------------------ other bytes than were written


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda last: os.truncate(last / "weights.safetensors", 100), "weights.safetensors has 100 bytes instead"),
    "flipped": (lambda last: _flip(last / "optimizer.safetensors"), "optimizer.safetensors has changed"),
    "missing": (lambda last: (last / "sources.json").unlink(), "sources.json is missing"),
    "no manifest": (lambda last: (last / "manifest.json").unlink(), "it has no manifest.json"),
    "empty manifest": (lambda last: (last / "manifest.json").write_text(""), "its manifest.json cannot be used"),
    "flipped manifest": (lambda last: _flip(last / "manifest.json"), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(name: str, tmp_path: Path) -> None:
    stage, (damage, problem) = Killed(tmp_path, "sft"), DAMAGE[name]
    at = points(stage.run(under=stage.parts).changes, "rename .*/step-000004")[0] + 2
    stage.result()
    assert stage.run(kill_at=at, under=stage.parts).code == KILLED
    last = stage.parts / "checkpoints" / "step-000004"
    damage(last)
    said = "".join(stage.finish().said.split())  # a narrow terminal breaks lines inside of paths
    assert f"warning: skipped the damaged checkpoint {last}: {problem}".replace(" ", "") in said
    assert "resumingfromstep3of5" in said
    assert stage.result() == stage.expected


@pytest.mark.slow
def test_when_all_are_damaged_the_run_stops(tmp_path: Path) -> None:
    """Beginning again by itself would throw away what a person may still rescue."""
    stage = Killed(tmp_path, "sft")
    at = points(stage.run(under=stage.parts).changes, "rename .*/step-000004")[0] + 2
    stage.result()
    stage.run(kill_at=at, under=stage.parts)
    for path in (stage.parts / "checkpoints").glob("step-*"):
        _flip(path / "weights.safetensors")
    before = tiny_data.result(stage.config)
    ended = forking.run(*stage.command)
    assert ended.code == CheckpointError.exit_code
    assert "No undamaged checkpoint is left" in ended.said
    assert tiny_data.result(stage.config) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl", "samples.jsonl", "checks.json"])
def test_a_small_file_that_is_torn(name: str, tmp_path: Path) -> None:
    """Half a line of bytes that are no text, as after a power cut: cut back or written anew, never fatal."""
    stage = Killed(tmp_path, "ppo")
    at = points(stage.run(under=stage.parts).changes, "rename .*/step-000004")[0] + 2
    stage.result()
    stage.run(kill_at=at, under=stage.parts)
    with (stage.parts / name).open("ab") as opened:
        opened.write(b'{"step": 4, "x": "\xff\x00')
    stage.finish()
    assert stage.result() == stage.expected


@pytest.mark.slow
def test_an_account_of_the_rows_that_is_torn_has_to_be_allowed(tmp_path: Path) -> None:
    """Without it nothing tells whether the rows are those of the checkpoint."""
    stage = Killed(tmp_path, "sft")
    at = points(stage.run(under=stage.parts).changes, "rename .*/step-000002")[0] + 2
    stage.result()
    stage.run(kill_at=at, under=stage.parts)
    (stage.parts / "data.json").write_bytes(b'{"step": 4, "x": "\xff\x00')
    ended = forking.run(*stage.command)
    assert ended.code == DataError.exit_code
    assert "allow=[changed-data]" in ended.said
    ended = forking.run(*stage.command, "allow=[eval-overlap, changed-data]")
    assert ended.code == 0, ended.said
    assert stage.result() == stage.expected
