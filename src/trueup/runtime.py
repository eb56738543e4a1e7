"""Where and on how many processes the code runs. The only module that imports `torch.distributed`.

One process is the ordinary case and needs no launcher. Under `torchrun -m trueup …` each process holds the whole model,
takes its share of every optimizer step's examples, and `sum_gradients` adds the gradients up once a step. That is DDP
without its wrapper: ranks may run different numbers of micro-batches, adapters may go unused, and nothing hangs.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trueup.errors import ConfigError, TrueupError

T = TypeVar("T")
_BUCKET_ELEMENTS = 2**24


@dataclass(frozen=True, slots=True)
class Runtime:
    """This process: its device, compute dtype, rank and the number of processes."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def shard(self, items: Sequence[Any]) -> list[Any]:
        """This rank's share: every world-th item. Sharing out a sorted list balances the ranks."""
        return list(items[self.rank :: self.world])

    def global_sum(self, *values: float) -> list[float]:
        """Sum each value over all ranks, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all ranks, in flat buckets; a parameter without a gradient here counts as zero."""
        if self.world == 1:
            return
        bucket: list[nn.Parameter] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter)
            if sum(one.numel() for one in bucket) >= _BUCKET_ELEMENTS:
                _all_reduce_bucket(bucket)
                bucket = []
        if bucket:
            _all_reduce_bucket(bucket)

    def gather(self, items: list[Any]) -> list[Any]:
        """All ranks' items in rank order, on every rank. For plain Python values (ids, floats), not tensors."""
        if self.world == 1:
            return items
        gathered: list[list[Any]] = [[] for _ in range(self.world)]
        dist.all_gather_object(gathered, items)
        return [item for part in gathered for item in part]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


def shutdown() -> None:
    """Leave the process group, if there is one. The barrier first: without it the exit aborts now and then.

    Only where every rank comes here: after an error in one of them it would wait for ever.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _all_reduce_bucket(bucket: list[nn.Parameter]) -> None:
    gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, piece in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def init(device: str = "auto", dtype: str = "auto", threads: int | None = None) -> Runtime:
    """Choose device and dtype, and join the process group if a launcher started several processes.

    Args:
        device: "auto" (CUDA, else MPS, else CPU) or a torch device name.
        dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16" or "float16".
        threads: torch's CPU threads in this process; None leaves torch's choice.

    Raises:
        ConfigError: the device is not there, or the dtype is not one of those named.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=2))
        if dist.get_world_size() != world:
            raise ConfigError(f"WORLD_SIZE is {world}, but the process group has {dist.get_world_size()} processes")
    return Runtime(chosen, _dtype(dtype, chosen), rank, world)


def first_then_all(where: Runtime, work: Callable[[], T]) -> T:
    """`work` by the first process, then, when it is done there, by the others, who find what it left on disk.

    Raises:
        TrueupError: on every rank, what the first one met.
    """
    if where.world == 1:
        return work()
    outcome: T | TrueupError | None = None
    if where.is_main:
        try:
            outcome = work()
        except TrueupError as error:
            outcome = error
    met = where.gather([outcome if isinstance(outcome, TrueupError) else None])[0]
    if met is not None:
        raise met
    return cast("T", outcome) if where.is_main else work()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not a torch device; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: {name!r} is none that trueup runs on; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device: {name!r} was asked for, but torch sees no CUDA device here; use device=auto or cpu"
            )
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if (there := torch.cuda.device_count()) <= device.index:
            raise ConfigError(f"device: '{device}' was asked for, but there are {there} CUDA devices, from cuda:0")
        torch.cuda.set_device(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: 'mps' was asked for, but torch has no MPS here; use device=auto or cpu")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in named:
        raise ConfigError(f"dtype: {name!r} is unknown; use auto, {', '.join(named)}")
    return named[name]


def seed_everything(seed: int) -> None:
    """Seed Python's and torch's generators (all devices)."""
    random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Tensor]:
    """Torch's generator states, for a checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new count of the peak: a pipeline's stages share one process. No effect where there is no count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM back to the present size


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_memory`: of the GPU on CUDA, else the largest resident size of this process.

    Off Linux the process's size is counted from its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # POSIX only: at the top it would break Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, Linux KiB
