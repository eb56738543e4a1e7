"""A process that dies or fails ends the others, who say why; and the run goes on from its last checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny_data import stage, start_processes
from trueup.config import to_yaml
from trueup.errors import ConfigError, LostPeerError, ModelError, TrainingError
from trueup.runtime.devices import choose_device
from trueup.runtime.sharding import layers_of

SECONDS = 60  # in which the others have to end
Processes = list[subprocess.Popen[str]]


def start(config: Any, world: int = 2, *, launcher: bool = False, **options: Any) -> Processes:
    """Start the stage as `world` processes, or under torchrun, which is one that starts them."""
    path = Path(config.output).with_suffix(".yaml")
    path.write_text(to_yaml(config), encoding="utf-8")
    command = ["-m", "trueup", config.method, str(path)]
    if not launcher:
        return start_processes(command, world, **options)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    return start_processes([*torchrun, *command], 1, **options)


def wait_until(ready: Callable[[], bool], processes: Processes) -> None:
    """Wait for something to happen while all processes run."""
    until = time.monotonic() + 120
    while not ready():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            for process in processes:
                process.kill()
            pytest.fail("\n".join(process.communicate()[0][-1500:] for process in processes))
        time.sleep(0.02)


def ended(processes: Processes) -> tuple[list[int], list[str]]:
    """The exit codes and words of processes that have to end within the minute."""
    until = time.monotonic() + SECONDS
    try:
        said = [process.communicate(timeout=max(1.0, until - time.monotonic()))[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [" ".join(one.split()) for one in said]


def logged(config: Any, count: int) -> Callable[[], bool]:
    return lambda: len(lines_or_none(Path(config.output) / "metrics.jsonl")) >= count


def lines_or_none(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def long_sft(folder: Path, strategy: str, **settings: Any) -> Any:
    """A stage that would take minutes."""
    long: dict[str, Any] = {"strategy": strategy, "optim": {"steps": 5000}, "save": {"every": 3}}
    return stage("sft", folder, **(long | settings))


def goes_on(config: Any, world: int = 2) -> None:
    """Run the command again: it resumes from a checkpoint and finishes."""
    last = max(int(path.name[5:]) for path in (Path(config.output) / "checkpoints").glob("step-*"))
    assert last >= 3
    again = config.model_copy(update={"optim": config.optim.model_copy(update={"steps": last + 2})})
    path = Path(config.output) / "config.yaml"
    path.write_text(to_yaml(again), encoding="utf-8")  # a shorter run, which is another configuration
    codes, said = ended(start(again, world))
    assert codes == [0] * world, said
    assert f"resuming from step {last} of" in said[0]


# ------------------------------------------------------------------ killed


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_training(victim: int, strategy: str, tmp_path: Path) -> None:
    config = long_sft(tmp_path, strategy)
    processes = start(config)
    wait_until(logged(config, 8), processes)
    processes[victim].kill()
    codes, said = ended(processes)
    other = 1 - victim
    assert (codes[victim], codes[other]) == (-signal.SIGKILL, LostPeerError.exit_code), said
    assert "error: another process of this run has ended, so this one ends too" in said[other]
    assert "the same command continues from the last checkpoint" in said[other]
    assert "Traceback" not in said[other]
    goes_on(config)


@pytest.mark.slow
def test_one_of_three_killed_in_a_rollout(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rollouts": {"episodes": 8, "epochs": 1, "max_new_tokens": 200}, "save": {"every": 1}}
    config = stage("ppo", tmp_path, strategy="fsdp", optim={"steps": 500}, max_length=300, **settings)
    processes = start(config, 3)
    wait_until(logged(config, 4), processes)  # two minibatches a rollout, whose sampling takes most of the time
    processes[2].kill()
    codes, said = ended(processes)
    assert codes == [LostPeerError.exit_code, LostPeerError.exit_code, -signal.SIGKILL], said


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_loading(victim: int, tmp_path: Path) -> None:
    """While one reads rows and the model, and the other waits for it."""
    config = long_sft(tmp_path, "ddp")
    processes = start(config)
    wait_until((Path(config.output) / "config.yaml").exists, processes)
    processes[victim].kill()
    codes, said = ended(processes)
    assert codes[1 - victim] == LostPeerError.exit_code, said


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_killed_while_saving(strategy: str, tmp_path: Path) -> None:
    config = long_sft(tmp_path, strategy, save={"every": 1})
    processes = start(config)
    folder = Path(config.output) / "checkpoints"
    wait_until(lambda: logged(config, 6)() and any(folder.glob(".tmp-step-*")), processes)
    processes[1].kill()
    codes, said = ended(processes)
    assert codes == [LostPeerError.exit_code, -signal.SIGKILL], said
    assert not list(folder.glob(".tmp-step-*"))
    goes_on(config)


@pytest.mark.slow
def test_killed_under_torchrun(tmp_path: Path) -> None:
    config = long_sft(tmp_path, "fsdp")
    (launcher,) = processes = start(config, launcher=True)
    wait_until(logged(config, 8), processes)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    workers = [int(one) for one in children if b"trueup" in Path(f"/proc/{one}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    codes, _ = ended(processes)
    assert codes != [0]
    goes_on(config)


@pytest.mark.slow
def test_sigterm_to_torchrun(tmp_path: Path) -> None:
    """A batch system's end: torchrun passes it on, all stop before the same step, and save."""
    held_out = {"every": 4, "data": tiny_data.data(tmp_path, "conversations", 5)}
    config = long_sft(tmp_path, "fsdp", eval=held_out, allow=["eval-overlap"])
    processes = start(config, launcher=True)
    wait_until(logged(config, 8), processes)
    processes[0].terminate()
    codes, said = ended(processes)
    assert codes != [0]
    assert re.search(r"saved\. Go on with: \S*torchrun --nproc-per-node 2 -m trueup sft", said[0])
    goes_on(config)


# ------------------------------------------------------------------ failing alone


RAISES = """
import os
calls = 0
def score(conversations):
    global calls
    calls += 1
    if calls == 3:
        raise RuntimeError("the grader has no more credit")
    return [1.0 for _ in conversations]
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_reward_that_raises(strategy: str, tmp_path: Path) -> None:
    """It is asked by the first process only; the others say the same."""
    function = tiny_data.reward_function(tmp_path, RAISES)
    codes, said = ended(start(stage("ppo", tmp_path, reward=function, strategy=strategy, optim={"steps": 20})))
    assert codes == [codes[0]] * 2
    assert codes[0] not in (0, LostPeerError.exit_code)
    assert all("the grader has no more credit" in one for one in said), said


ALONE = """
import os, sys
from trueup.errors import TrainingError
from trueup.training.step import Stepper
take = Stepper.take
def failing(self, step, check):
    if step == 3 and os.environ["RANK"] == "1":
        {what}
    return take(self, step, check)
Stepper.take = failing
from trueup.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def alone(config: Any, what: str, folder: Path, world: int = 2) -> tuple[list[int], list[str]]:
    """The stage, in which process 1 does something else before step 4."""
    script, path = folder / "alone.py", folder / "stage.yaml"
    script.write_text(ALONE.format(what=what), encoding="utf-8")
    path.write_text(to_yaml(config), encoding="utf-8")
    return ended(start_processes([str(script), config.method, str(path)], world))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_error_of_one_process_is_told_by_the_others(strategy: str, tmp_path: Path) -> None:
    what = 'raise TrainingError("row 7 of data.jsonl\\n  cannot be trained on")'
    codes, said = alone(stage("sft", tmp_path, strategy=strategy, optim={"steps": 9}), what, tmp_path, world=3)
    assert codes == [LostPeerError.exit_code, TrainingError.exit_code, LostPeerError.exit_code], said
    for one in (said[0], said[2]):
        assert "another process of this run has ended, so this one ends too: process 1: error: row 7 of" in one


@pytest.mark.slow
def test_one_that_waits_for_ever_is_ended_by_what_another_one_said(tmp_path: Path) -> None:
    """NCCL waits for ever after a lost connection: here process 1 sleeps where it should be in a sum."""
    what = "import time; time.sleep(300)"
    config = stage("sft", tmp_path, strategy="ddp", optim={"steps": 9})
    script = tmp_path / "waits.py"
    told = 'os.environ["RANK"] == "0" and step == 3'
    source = ALONE.format(what=what).replace(
        "    return take", f'    if {told}:\n        raise TrainingError("row 7")\n    return take'
    )
    script.write_text(source, encoding="utf-8")
    path = tmp_path / "stage.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    codes, said = ended(start_processes([str(script), "sft", str(path)]))
    assert codes == [TrainingError.exit_code, LostPeerError.exit_code], said


NAN = "import torch\n        next(iter(self.network.trainable()))[1].data.fill_(float('nan'))"


@pytest.mark.slow
def test_one_process_that_meets_nan(tmp_path: Path) -> None:
    """All leave the steps out together, and stop together."""
    codes, said = alone(stage("sft", tmp_path, strategy="ddp", optim={"steps": 9}), NAN, tmp_path)
    assert codes == [TrainingError.exit_code] * 2, said
    assert all("3 steps in a row were left out" in one for one in said)


# ------------------------------------------------------------------ asked for, and not there


def said_by_one(config: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        tiny_data.run(config)
    assert not (Path(config.output) / "model").exists()
    return str(caught.value)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_strategy_of_many_for_one_process(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = said_by_one(stage("sft", tmp_path, strategy=strategy), {}, monkeypatch)
    assert said.startswith(f"strategy: {strategy} is configured, but there is only this process")
    assert "torchrun --nproc-per-node" in said


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS is 4, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "RANK is 2, but WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "RANK, MASTER_ADDR or MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "must be whole numbers, as a launcher sets them"),
        ({"WORLD_SIZE": "0"}, "RANK is 0, but WORLD_SIZE is 0"),
    ],
)
def test_a_group_that_is_not_there(
    environment: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in said_by_one(stage("sft", tmp_path), environment, monkeypatch)


def test_one_gpu_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take the same one. With one process a node it is meant."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    with pytest.raises(ConfigError, match="device: 'cuda:0' is configured, but 2 processes on this machine"):
        choose_device("cuda:0", 1, 2)
    assert choose_device("cuda:1", 0, 1) == torch.device("cuda:1")
    assert choose_device("cuda", 3, 4) == torch.device("cuda:3")


OTHER = """
import os, sys
from trueup.models.network import Network
settle = Network.check_and_shard
def other(self):
    if os.environ["RANK"] == "1":
        next(iter(self.trainable()))[1].data[0] += 1e-3
    settle(self)
Network.check_and_shard = other
from trueup.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_processes_with_other_weights(tmp_path: Path) -> None:
    """A node whose copy of the model is an older one: ddp would add up gradients of different models for ever."""
    script, path = tmp_path / "other.py", tmp_path / "stage.yaml"
    script.write_text(OTHER, encoding="utf-8")
    path.write_text(to_yaml(stage("sft", tmp_path)), encoding="utf-8")
    codes, said = ended(start_processes([str(script), "sft", str(path)]))
    assert codes == [ModelError.exit_code] * 2, said
    assert all("process 1 has loaded other weights than process 0" in one for one in said)


def test_a_model_without_layers_is_not_sharded() -> None:
    with pytest.raises(ModelError, match="Linear has no stack of layers to shard; use strategy=ddp"):
        layers_of(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_a_run_folder_that_not_all_see(tmp_path: Path) -> None:
    """Two nodes with a relative `output` on a disk of each."""
    config = stage("sft", tmp_path).model_copy(update={"output": "runs/here"})
    path = tmp_path / "stage.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    script = tmp_path / "there.py"
    script.write_text(
        "import os, sys\n"
        f"os.chdir({[str(place) for place in places]!r}[int(os.environ['RANK'])])\n"
        "from trueup.cli.main import main\nsys.exit(main(sys.argv[1:]))\n",
        encoding="utf-8",
    )
    codes, said = ended(start_processes([str(script), "sft", str(path)]))
    assert codes == [5, 5], said
    assert all("process 1 does not see the run folder that process 0 has made" in one for one in said)
    assert all("put `output` on a file system that all nodes share" in one for one in said)
