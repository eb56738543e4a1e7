"""Several processes compute what one computes: every stage, LoRA and full, with the strategies ddp and fsdp.

Losses, metrics and measurements to 1e-5 over 20 steps, the same samples, the same exported weights and the same files;
and of every step the same rows, none twice and none left out.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, STEPS, config
from groups import Job, differences, each_once, lines, rows_of, run_jobs
from safetensors.torch import load_file, save_file

from tiny_data import finish_processes, free_port, run, start_processes
from trueup.config import to_yaml

# In which order: what starts from another case's run comes after it.
NAMES = sorted(CASES, key=lambda name: name not in ("reward-lora", "reward-full"))
FAST = (("sft-full", "ddp"), ("ppo-lora", "fsdp"))
THREE = ("sft-lora", "sft-one-row", "dpo-full", "ppo-full", "grpo-lora")  # with three processes


def moved(one: Any) -> float:
    """Return the relative change of the weights by training: a comparison must be far below it."""
    before, after = (load_file(Path(path) / "model.safetensors") for path in (one.model, f"{one.output}/model"))
    shared = [name for name in after if name in before]
    change = math.hypot(*((after[name] - before[name]).norm().item() for name in shared))
    return change / math.hypot(*(before[name].norm().item() for name in shared))


def same(name: str, folder: Path, how: str, world: int) -> None:
    """The case's run by several processes is that of one."""
    one, several = config(name, folder, "one"), config(name, folder, how)
    assert differences(one, several) == []
    assert rows_of(several, world) == rows_of(one, 1)
    assert moved(one) > 1e-3
    logged = [row for row in lines(Path(one.output) / "metrics.jsonl") if "loss" in row]
    assert len(logged) == (STEPS if one.optim.steps else 21)
    assert len({row["loss"] for row in logged}) > 10


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few cases: by one process, and by two."""
    folder = tmp_path_factory.mktemp("few")
    run_jobs([Job(config(name, folder, "one")) for name, _ in FAST], 1)
    run_jobs([Job(config(name, folder, strategy, strategy=strategy)) for name, strategy in FAST], 2)
    return folder


@pytest.mark.parametrize(("name", "strategy"), FAST)
def test_two_processes_quickly(name: str, strategy: str, few: Path) -> None:
    same(name, few, strategy, 2)


@pytest.fixture(scope="module")
def all_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """(strategy, how many processes) -> the folder in which these runs are, beside those of one process."""
    folder = tmp_path_factory.mktemp("equal")
    run_jobs([Job(config(name, folder, "one")) for name in NAMES], 1)

    @cache
    def several(strategy: str, world: int) -> Path:
        names = NAMES if world == 2 else THREE
        run_jobs([Job(config(name, folder, f"{strategy}{world}", strategy=strategy)) for name in names], world)
        return folder

    return several


GROUPS = [(strategy, world) for world in (2, 3) for strategy in ("ddp", "fsdp")]
EACH = [(strategy, world, name) for strategy, world in GROUPS for name in (NAMES if world == 2 else THREE)]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "world", "name"), EACH)
def test_several_processes(strategy: str, world: int, name: str, all_of: Callable[[str, int], Path]) -> None:
    same(name, all_of(strategy, world), f"{strategy}{world}", world)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-one-row", "dpo-full"])
@pytest.mark.parametrize(("strategy", "world"), GROUPS)
def test_no_row_twice_or_left_out(strategy: str, world: int, name: str, all_of: Callable[[str, int], Path]) -> None:
    """Over all processes, in every epoch of the 12 rows and the 8 mixed in; batches of 5 and 3 divide into neither."""
    seen = rows_of(config(name, all_of(strategy, world), f"{strategy}{world}"), world)
    assert [len(steps) for steps in seen.values()] == [STEPS, STEPS]
    assert each_once(seen["RowSource of 12"], 12)
    assert each_once(seen["RowSource of 8"], 8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy"), [("sft-lora", "ddp"), ("ppo-full", "fsdp")])
def test_the_command_under_torchrun(name: str, strategy: str, tmp_path: Path) -> None:
    one, several = config(name, tmp_path, "one"), config(name, tmp_path, strategy, strategy=strategy)
    run(one)
    path = tmp_path / "stage.yaml"
    path.write_text(to_yaml(several), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trueup"]
    (said,) = finish_processes(start_processes([*launcher, one.method, str(path)], 1))
    assert "Traceback" not in said
    assert differences(one, several) == []


@pytest.mark.slow
def test_two_nodes(tmp_path: Path) -> None:
    """Two launchers of a process each, which meet on the loopback; docs/scale.md names the command."""
    one, several = config("sft-full", tmp_path, "one"), config("sft-full", tmp_path, "fsdp", strategy="fsdp")
    run(one)
    path = tmp_path / "stage.yaml"
    path.write_text(to_yaml(several), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    command = [*launcher, "--master-port", str(free_port()), "-m", "trueup", one.method, str(path)]
    nodes = [start_processes([*command[:4], "--node-rank", str(rank), *command[4:]], 1)[0] for rank in range(2)]
    finish_processes(nodes)  # the launcher that ends last may complain that the other one has gone, and ends with 0
    assert differences(one, several) == []


def test_a_difference_is_seen(few: Path, tmp_path: Path) -> None:
    """The comparison finds a loss changed by 2e-5, a sample, a weight, a file."""
    one = config("ppo-lora", few, "one")
    copy = one.model_copy(update={"output": tmp_path / "copy"})
    folder = tmp_path / "copy"
    for change in ("loss", "sample", "weight", "file"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(one.output, folder)
        assert differences(one, copy) == []
        if change == "loss":
            rows = lines(folder / "metrics.jsonl")
            rows[5]["loss"] *= 1 + 2e-5 * max(1, 1 / abs(rows[5]["loss"]))
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif change == "sample":
            rows = lines(folder / "samples.jsonl")
            rows[3]["answer"] += "!"
            (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif change == "weight":
            weights = load_file(folder / "model" / "model.safetensors")
            weights["model.norm.weight"][3] += 2e-3
            save_file(weights, folder / "model" / "model.safetensors")
        else:
            (folder / "timing.jsonl").unlink()
        assert differences(one, copy) != [], change
