"""A pipeline by two processes: its stages, and the evaluation at its end, give what one process gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_data
from tiny import tiny_folder


def written(folder: Path, name: str) -> Path:
    """A pipeline over tiny rows: five rankings and an odd number of prompts to measure on."""
    (folder / "five").mkdir(exist_ok=True)
    rankings, optim = tiny_data.data(folder, "rankings"), {"steps": 3, "batch_size": 4, "lr": 1e-3}
    rollouts = {"episodes": 8, "max_new_tokens": 6}
    content: dict[str, Any] = {
        "name": name, "base": tiny_folder(folder / "base"), "runs": str(folder / "runs"), "device": "cpu", "threads": 1,
        "allow": ["eval-overlap"],
        "stages": {
            "sft": {"method": "sft", "data": tiny_data.data(folder, "conversations"), "optim": optim},
            "reward": {"method": "reward", "from": "sft", "data": rankings, "optim": optim},
            "ppo": {"method": "ppo", "from": "sft", "reward": "reward", "prompts": tiny_data.data(folder, "prompts"),
                    "optim": optim, "rollouts": rollouts, "max_length": 256},
        },
        "evaluate": {"data": tiny_data.data(folder / "five", "rankings", 5), "max_new_tokens": 8, "limit": 7},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """The items of an evaluation's file, without its header."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(strategy: str, tmp_path: Path) -> None:
    one, two = (["-m", "trueup", "run", str(written(tmp_path, name))] for name in ("one", "two"))
    tiny_data.finish_processes(tiny_data.start_processes(one, world=1))
    outputs = tiny_data.finish_processes(tiny_data.start_processes([*two, f"strategy={strategy}"]))
    assert "the report:" in outputs[0]
    assert "the report:" not in outputs[1]  # the first process alone speaks
    files = sorted((tmp_path / "runs" / "one" / "evaluation").glob("*.jsonl"))
    assert {"base.jsonl", "sft.jsonl", "ppo.jsonl", "reward-model.jsonl"} <= {path.name for path in files}
    for path in files:
        ours, theirs = rows(path), rows(tmp_path / "runs" / "two" / "evaluation" / path.name)
        assert [(row["task"], row["id"], row.get("reply")) for row in ours] == [
            (row["task"], row["id"], row.get("reply")) for row in theirs
        ]
        for row, other in zip(ours, theirs, strict=True):
            assert row["values"] == pytest.approx(other["values"], rel=1e-4, abs=1e-4)
