"""Devices and dtypes refused by name, and two processes that sum, gather and end together."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trueup import runtime
from trueup.errors import ConfigError
from trueup.runtime import Runtime

CPU = torch.device("cpu")


def test_automatic_choices_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    found = runtime.init()
    assert (found.device.type, found.dtype, found.rank, found.world) == ("cpu", torch.float32, 0, 1)
    assert found.is_main


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_dtypes(name):
    assert runtime.init("cpu", name).dtype == getattr(torch, name)


@pytest.mark.parametrize("name", ["float64", "int8", "fp16", ""])
def test_unknown_dtypes(name):
    with pytest.raises(ConfigError, match=rf"dtype: '{name}' is unknown; use auto, float32, bfloat16, float16"):
        runtime.init("cpu", name)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "tpu"])
def test_unknown_devices(name):
    with pytest.raises(ConfigError, match=rf"device: '{name}' is not a torch device"):
        runtime.init(name)


@pytest.mark.parametrize("name", ["meta", "xla", "vulkan"])
def test_devices_that_torch_names_but_trueup_does_not_run_on(name):
    with pytest.raises(ConfigError, match=rf"device: '{name}'"):
        runtime.init(name)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(ConfigError, match=rf"'{name}' is configured, but torch finds no CUDA"):
            runtime.init(name)
    with pytest.raises(ConfigError, match="'mps' is configured"):
        runtime.init("mps")


def test_a_cuda_device_beyond_those_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"'cuda:2' is configured, but there are 2"):
        runtime.init("cuda:2")


def test_threads():
    before = torch.get_num_threads()
    try:
        runtime.init("cpu", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_process_needs_no_group():
    alone = Runtime(CPU, torch.float32)
    weight = nn.Parameter(torch.ones(2))
    assert alone.global_sum(1.5, 2) == [1.5, 2]
    assert alone.gather(["a"]) == ["a"]
    assert alone.share([1, 2, 3]) == [1, 2, 3]
    alone.sum_gradients([weight])
    assert weight.grad is None
    alone.barrier()
    runtime.shutdown()


def test_shards_share_out_everything_once():
    items = list(range(11))
    shards = [Runtime(CPU, torch.float32, rank, 3).share(items) for rank in range(3)]
    assert sorted(item for shard in shards for item in shard) == items
    assert shards[1] == [1, 4, 7, 10]
    assert [Runtime(CPU, torch.float32, rank, 3).is_main for rank in range(3)] == [True, False, False]


def test_a_seed_decides_every_generator():
    runtime.seed_everything(7)
    first = torch.rand(3).tolist(), random.random()
    runtime.seed_everything(7)
    assert (torch.rand(3).tolist(), random.random()) == first


def test_seeds_mixed_of_several_numbers_differ():
    made = [runtime.mixed_seed(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)]
    assert len(set(made)) == len(made)
    assert runtime.mixed_seed(1, 2, 0) == made[1 * 60 + 2 * 3]  # and are the same every time


def test_peak_memory_is_that_of_this_process():
    assert 50 * 2**20 < runtime.peak_memory_bytes(CPU) < 2**40


# Each process writes what it saw into a file of its own; the two run as under torchrun.
WORKER = """
import json, sys
import torch
from torch import nn
from trueup import runtime
from trueup.runtime import processes

here = runtime.init("cpu", "float32", 1)
rank = here.rank
seen = {"world": here.world, "rank": rank, "main": here.is_main}
seen["sum"] = here.global_sum(rank + 1, 0.1, 2.0**53)
seen["shard"] = here.share("abcde")
seen["gather"] = here.gather([{"rank": rank, "at": at} for at in range(rank + 1)])
seen["nothing"] = here.gather([])

processes._BUCKET_ELEMENTS = 5  # several buckets, one of them overfull
both, first, second, none = (nn.Parameter(torch.zeros(size)) for size in (3, 7, (2, 2), 1))
frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
both.grad = torch.full((3,), 1.0 + rank)
if rank == 0:
    first.grad = torch.arange(7.0)
else:
    second.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()  # not contiguous
here.sum_gradients([both, first, second, none])
seen["gradients"] = [one.grad.tolist() for one in (both, first, second, none)]
seen["frozen"] = frozen.grad

# An uneven number of micro-batches: the same parameters in the same order are summed once a step.
linear = nn.Linear(2, 1, bias=False)
nn.init.ones_(linear.weight)
for at in range(1 + 2 * rank):
    linear(torch.full((1, 2), float(at + 1))).sum().backward()
here.sum_gradients(linear.parameters())
seen["uneven"] = linear.weight.grad.tolist()
here.barrier()
runtime.shutdown()
runtime.shutdown()  # a second time does nothing
open(sys.argv[1], "w").write(json.dumps(seen))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    port, processes = str(free_port()), []
    source = str(Path(runtime.__file__).parents[2])
    for rank in range(2):
        launched = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        environment = os.environ | launched | {"MASTER_PORT": port, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
        command = [sys.executable, "worker.py", f"{rank}.json"]
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [(one["world"], one["rank"], one["main"]) for one in seen] == [(2, 0, True), (2, 1, False)]
    assert [one["shard"] for one in seen] == [["a", "c", "e"], ["b", "d"]]
    for one in seen:
        assert one["sum"] == [3.0, pytest.approx(0.2), 2.0**54]
        assert one["gather"] == [{"rank": 0, "at": 0}, {"rank": 1, "at": 0}, {"rank": 1, "at": 1}]
        assert one["nothing"] == []
        assert one["gradients"] == [[3.0] * 3, [float(at) for at in range(7)], [[1.0, 3.0], [2.0, 4.0]], [0.0]]
        assert one["frozen"] is None
        assert one["uneven"] == [[7.0, 7.0]]  # 1 on the first rank, 1 + 2 + 3 on the second
