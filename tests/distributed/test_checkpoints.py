"""Checkpoints that several processes write in parts: any number goes on from them, with the same losses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import config
from groups import Job, differences, run_jobs

from tiny_data import finish_processes, result, stage, start_processes
from trueup.config import to_yaml

# Best weights kept, adapters and whole weights, and a stop inside of a rollout, of which each makes 4 minibatches.
NAMES = ("sft-full", "sft-lora", "ppo-full", "ppo-lora")
STOP = 6  # before this step, from 0; one process looks oftener, so it stops earlier
STEPS = {"optim": {"steps": 10}}
WRITTEN = {"fsdp2": 2, "ddp2": 2, "one": 1}
READ = {"one": 1, "ddp2": 2, "fsdp2": 2, "ddp3": 3, "fsdp3": 3}


def settings(how: str) -> dict[str, Any]:
    return STEPS | {"strategy": how[:-1] if how != "one" else "auto"}


def made(name: str, folder: Path, how: str, label: str) -> Any:
    """The case as `how` runs it, in a run folder of the label."""
    return config(name, folder, f"{label}-{how}", **settings(how))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were never stopped, and for each way of writing one that was stopped, and went on in each other way."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for world in (1, 2):
        hows = [how for how, count in WRITTEN.items() if count == world]
        jobs = [Job(made(name, folder, how, "whole")) for how in hows for name in NAMES]
        stop = STOP if world > 1 else 40
        run_jobs(jobs + [Job(made(name, folder, how, "stopped"), stop) for how in hows for name in NAMES], world)
    for world in (1, 2, 3):
        jobs = []
        for read in (how for how, count in READ.items() if count == world):
            for name in NAMES:
                for written in WRITTEN:
                    here = made(name, folder, read, f"after-{written}")
                    shutil.copytree(made(name, folder, written, "stopped").output, here.output)
                    jobs.append(Job(here))
        run_jobs(jobs, world)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", NAMES)
def test_others_go_on(name: str, written: str, read: str, runs: Path) -> None:
    resumed = made(name, runs, read, f"after-{written}")
    if read == written:
        assert result(resumed) == result(made(name, runs, read, "whole"))  # to the bit
    assert differences(made(name, runs, "one", "whole"), resumed, resumed=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stop_was_in_the_middle(name: str, runs: Path) -> None:
    """The tests above need a run with steps done and steps left."""
    for written in WRITTEN:
        output = Path(made(name, runs, written, "stopped").output)
        (folder,) = (output / "checkpoints").glob("step-*")
        assert 0 < int(folder.name[5:]) < 10
        whole_weights = written == "fsdp2" and name.endswith("full")
        assert len(list(folder.glob("sharded/*.safetensors"))) == (2 if whole_weights else 0)


@pytest.mark.slow
@pytest.mark.parametrize("written", WRITTEN)
def test_nothing_is_pickled(written: str, runs: Path) -> None:
    """Every file of a checkpoint is JSON or safetensors, which begins with the size of its header, a JSON object."""
    for name in NAMES:
        folder = Path(made(name, runs, written, "stopped").output) / "checkpoints"
        paths = [path for path in folder.rglob("*") if path.is_file()]
        assert len(paths) > 4
        for path in paths:
            content = path.read_bytes()
            if path.suffix == ".json":
                json.loads(content)
                continue
            assert path.suffix == ".safetensors", path
            size = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + size]), dict), path


# ------------------------------------------------------------------ damaged


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


@pytest.mark.slow
def test_the_one_before_a_damaged_one_is_used(tmp_path: Path) -> None:
    """A shard that is cut, has one bit flipped or is missing: said loudly, and the run ends as if it never had been."""
    small: dict[str, Any] = {"strategy": "fsdp", "optim": {"steps": 6}, "save": {"every": 2}}
    whole, stopped = (stage("sft", tmp_path, name, **small) for name in ("whole", "stopped"))
    run_jobs([Job(whole), Job(stopped, stop=5)], 2)
    assert sorted(path.name for path in (tmp_path / "stopped/checkpoints").iterdir()) == ["step-000004", "step-000005"]
    harms: dict[str, Callable[[Path], None]] = {"cut": cut, "flipped": flipped, "missing": Path.unlink}
    jobs = []
    for name, harm in harms.items():
        jobs.append(Job(stage("sft", tmp_path, name, **small)))
        shutil.copytree(tmp_path / "stopped", tmp_path / name)
        harm(sorted((tmp_path / name / "checkpoints" / "step-000005" / "sharded").iterdir())[1])
    said = " ".join(run_jobs(jobs, 2)[0].split())
    for job, words in zip(jobs, ("bytes instead of", "sha256 differs", "is missing"), strict=True):
        assert words in said
        assert result(job.config) == result(whole)
    assert said.count("skipped the damaged checkpoint") == 3
    assert said.count("resuming from step 4 of 6") == 3


# ------------------------------------------------------------------ refused by the disk

REFUSED = """
import os, resource, sys
from trueup.runs import checkpoint
from trueup.training.step import Stepper
take = Stepper.take
def full(self, step, check):
    if step == 3 and os.environ["RANK"] == "{rank}":
        {what}
    return take(self, step, check)
Stepper.take = full
from trueup.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"  # a shard is larger, the logs are process 0's
SEAL = "def no(*_): raise OSError(28, 'No space left on device')\n        checkpoint._write_manifest = no"


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "what"), [(1, LIMIT), (0, SEAL)], ids=["shard-of-1", "manifest-of-0"])
def test_refused_by_one_disk(rank: int, what: str, tmp_path: Path) -> None:
    """All say that it could not be saved; nothing of it is there, and the one before is good."""
    settings: dict[str, Any] = {"optim": {"steps": 6}, "save": {"every": 2}, "strategy": "fsdp"}
    config, whole = stage("sft", tmp_path, **settings), stage("sft", tmp_path, "whole", **settings)
    script, path = tmp_path / "refused.py", tmp_path / "stage.yaml"
    script.write_text(REFUSED.format(rank=rank, what=what), encoding="utf-8")
    path.write_text(to_yaml(config), encoding="utf-8")
    said = finish_processes(start_processes([str(script), "sft", str(path)]), code=5, timeout=60)
    for one in (" ".join(text.split()) for text in said):
        assert "cannot save the checkpoint" in one
        assert "The last saved one is step-000002" in one
        assert "Traceback" not in one
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]
    run_jobs([Job(config), Job(whole)], 2)
    assert result(config) == result(whole)
