"""Effects of a seed: equal to the bit with equal arithmetic, up to rounding where sums are grouped anew.

The bits: weights as exported, metrics.jsonl, samples.jsonl (`tiny_data.result`). To a rounding, over 8 steps of
float32: the same rows a step, the same samples, losses within 1e-5 (relative, and as much absolute), each tensor of the
weights within 1e-5 of its norm. Not promised: LoRA's dropout under other micro-batches, as each draws a mask.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import tiny_data
from tiny import tiny_network
from trueup.data.tokens import build
from trueup.preflight import check as checking
from trueup.recipes import rollouts
from trueup.sampling import sample
from trueup.system.files import fingerprint
from trueup.training import terms

METHODS = ("sft", "reward", "dpo", "ppo")


def methods(*quick: str) -> list[Any]:
    """All methods; those not named are tried by `make test-slow` alone."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


STEPS = 8
NARROW = 100
"""`max_tokens` at which each step's rows take several micro-batches; by default they are one."""
RELATIVE = 1e-5
# Adam divides by the root of the mean square: the rounding of a gradient near zero moves its weight by a whole step.
OF_WEIGHTS = 5e-5


def trained(method: str, folder: Path, output: str, **settings: Any) -> Any:
    """A finished stage. -> its configuration."""
    config = tiny_data.stage(method, folder, output, **tiny_data.merged({"optim": {"steps": STEPS}}, settings))
    tiny_data.run(config)
    return config


def said(config: Any) -> list[tuple[Any, ...]]:
    """The samples without their numbers: step, prompt and answer."""
    path = Path(config.output) / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [tuple(value for value in row.values() if isinstance(value, str | int)) for row in rows]


def agree(one: Any, other: Any) -> None:
    """Hold two runs to the promise of a rounding."""
    rows, others = tiny_data.metrics(one), tiny_data.metrics(other)
    assert len(rows) == len(others) == STEPS
    for row, its in zip(rows, others, strict=True):
        assert (row["step"], row["tokens"], row["lr"]) == (its["step"], its["tokens"], its["lr"])
        losses = [name for name in row if name == "grad_norm" or name.endswith("loss")]
        assert {name: its[name] for name in losses} == pytest.approx(
            {name: row[name] for name in losses}, rel=RELATIVE, abs=RELATIVE
        )
    assert said(one) == said(other)
    assert bool(said(one)) == (one.method == "ppo")
    weights, its = (load_file(Path(config.output) / "model" / "model.safetensors") for config in (one, other))
    for name, weight in weights.items():
        assert float((weight - its[name]).norm()) <= OF_WEIGHTS * float(weight.norm()), name


@pytest.fixture
def rows_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], int]]:
    """Of each optimizer step the rows it was made of, in order of their numbers, and the count of micro-batches."""
    seen: list[tuple[list[int], int]] = []
    real = terms.collate_step

    def watched(examples: list[Any], *args: Any, **options: Any) -> list[Any]:
        made = real(examples, *args, **options)
        seen.append((sorted(example.row for example in examples), len(made)))
        return made

    monkeypatch.setattr(terms, "collate_step", watched)
    monkeypatch.setattr(rollouts, "collate_step", watched)
    return seen


# -- to the bit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods("sft", "ppo"))
def test_two_runs_are_the_same_to_the_bit_and_another_seed_is_another_run(method: str, tmp_path: Path) -> None:
    """The second half is the control: were nothing random, or nothing recorded, the first would show nothing."""
    first, second = (tiny_data.result(trained(method, tmp_path, name)) for name in ("a", "b"))
    other = tiny_data.result(trained(method, tmp_path, "c", seed=1))
    assert first == second
    assert "model/model.safetensors" in first
    told = {"model/model.safetensors", "metrics.jsonl"} | ({"samples.jsonl"} if method == "ppo" else set())
    assert {name for name in told if first[name] == other[name]} == set()


@pytest.mark.parametrize("method", methods("dpo"))
def test_dropout_is_fixed_by_the_seed(method: str, tmp_path: Path) -> None:
    lora = tiny_data.LORA | {"dropout": 0.3}
    first, second = (tiny_data.result(trained(method, tmp_path, name, lora=lora)) for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("method", ["sft", pytest.param("ppo", marks=pytest.mark.slow)])
def test_workers_and_the_cache_change_no_bit(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, then three of which each gets rows; a cache that is not there, and one that is."""
    monkeypatch.setattr(build, "CHUNK", 2)
    monkeypatch.setattr(build, "_ALONE", 2)
    started: list[int] = []
    real = build.pack_in_processes

    def watched(task: Any, rest: Any, workers: int) -> Any:
        started.append(workers)
        return real(task, rest, workers)

    monkeypatch.setattr(build, "pack_in_processes", watched)
    found = []
    for number, workers in enumerate((1, 3)):
        monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / f"cache-{workers}"))
        monkeypatch.setattr(checking, "processes", lambda _, workers=workers: workers)
        found += [tiny_data.result(trained(method, tmp_path, f"{number}-{name}")) for name in ("cold", "warm")]
    assert started == [3]
    assert found == [found[0]] * 4


def test_what_python_compiles_is_no_part_of_the_caches_key(tmp_path: Path) -> None:
    """Else a second run would tokenize all rows again, because the first one left its .pyc files."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    before = fingerprint([tmp_path / "code"], ignore=["__pycache__"])
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_bytes(b"2")
    assert fingerprint([tmp_path / "code"], ignore=["__pycache__"]) == before


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_order_in_which_a_folder_lists_its_files_changes_no_bit(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_data.rows(tiny_data.KIND[method])
    for at in (2, 0, 1):
        tiny_data.write(tmp_path / "rows" / f"part-{at}.jsonl", rows[4 * at : 4 * at + 4])
    listed = Path.iterdir
    found = []
    for turn in (False, True):
        monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / f"cache-{turn}"))
        monkeypatch.setattr(Path, "iterdir", lambda self, turn=turn: iter(sorted(listed(self), reverse=turn)))
        found.append(tiny_data.result(trained(method, tmp_path, f"run-{turn}", data=str(tmp_path / "rows"))))
    assert found[0] == found[1]


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest, tiny_data, json
from pathlib import Path
found = {}
for method in ("sft", "reward", "dpo", "ppo"):
    config = tiny_data.stage(method, Path(sys.argv[2]), f"{sys.argv[3]}-{method}")
    tiny_data.run(config)
    found[method] = tiny_data.result(config)
print(json.dumps({"found": found, "hash": hash("a")}))
"""


@pytest.mark.slow
def test_pythons_hash_seed_changes_no_bit(tmp_path: Path) -> None:
    """Sets and dictionaries of text go in another order in each process; nothing may hang on it."""
    told = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), str(tmp_path), seed],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        told.append(json.loads(done.stdout.splitlines()[-1]))
    assert told[0]["hash"] != told[1]["hash"]
    assert set(told[0]["found"]) == set(METHODS)
    assert told[0]["found"] == told[1]["found"]


@pytest.mark.parametrize("budget", [30, 64, 1_000])
def test_how_prompts_are_batched_changes_no_sample(tmp_path: Path, budget: int) -> None:
    """A row's draws depend on the seed, its number and the position alone: one row at a time, or all of them."""
    network = tiny_network(tmp_path / "base")
    network.add_frozen("policy")
    prompts = [[5, 6, 7], [20] * 11, [30, 31], [9], [40, 41, 42, 43, 44, 45]]
    whole = sample(network, prompts, max_new_tokens=12, seed=3)
    assert len({tuple(one.ids) for one in whole}) == len(prompts)
    assert whole != sample(network, prompts, max_new_tokens=12, seed=4)
    assert whole == sample(network, prompts, max_new_tokens=12, seed=3, max_tokens=budget)


# -- to a rounding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods("dpo", "ppo"))
def test_other_micro_batches_are_the_same_to_a_rounding(
    method: str, tmp_path: Path, rows_seen: list[tuple[list[int], int]]
) -> None:
    wide = trained(method, tmp_path, "wide")
    of_wide = list(rows_seen)
    rows_seen.clear()
    narrow = trained(method, tmp_path, "narrow", max_tokens=NARROW)
    assert [rows for rows, _ in rows_seen] == [rows for rows, _ in of_wide]
    assert {count for _, count in of_wide} == {1}
    assert min(count for _, count in rows_seen) > 1, "the control: the second run is grouped otherwise"
    agree(wide, narrow)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [{"threads": 2}, {"gradient_checkpointing": True}], ids=["threads", "checkpointing"])
def test_threads_and_recomputing_are_the_same_to_a_rounding(
    method: str, change: dict[str, Any], tmp_path: Path
) -> None:
    agree(trained(method, tmp_path, "a"), trained(method, tmp_path, "b", **change))


def _shifted(run: Path) -> None:
    """Another loss in the last row, by a ten-thousandth."""
    path = run / "metrics.jsonl"
    *lines, last = path.read_text().splitlines()
    row = json.loads(last)
    path.write_text("\n".join([*lines, json.dumps(row | {"loss": row["loss"] * (1 + 1e-4)})]) + "\n")


def _nudged(run: Path) -> None:
    """One tensor of the weights, by a ten-thousandth."""
    path = run / "model" / "model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] * (1 + 1e-4)}, path)


@pytest.mark.parametrize("spoil", [_shifted, _nudged])
def test_the_comparison_sees_what_is_no_rounding(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    one, other = trained("sft", tmp_path, "a"), trained("sft", tmp_path, "b")
    agree(one, other)
    spoil(Path(other.output))
    with pytest.raises(AssertionError):
        agree(one, other)
