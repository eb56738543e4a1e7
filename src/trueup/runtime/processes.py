"""Processes of a run: this process's rank and device, and operations that all processes do together."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trueup.errors import ConfigError, TrueupError
from trueup.runtime.allocator import keep_freed_memory
from trueup.runtime.devices import choose_device, choose_dtype
from trueup.runtime.peers import NOTICE_SECONDS, Peers, peer_ended_message
from trueup.runtime.sharding import full_tensor, is_sharded

T = TypeVar("T")
Parallelism = Literal["one", "ddp", "fsdp"]
_BUCKET_ELEMENTS = 2**24
_peers: Peers | None = None
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Device, compute dtype and rank of this process, with the collective operations of all processes of the run.

    Attributes:
        device: device of this process.
        dtype: compute dtype.
        rank: number of this process, from 0.
        world: number of processes.
        strategy: "one" process, "ddp" (each holds the whole model) or "fsdp" (each holds a part of every weight).
    """

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1
    strategy: Parallelism = "one"

    @property
    def is_main(self) -> bool:
        """True on rank 0, the process that writes files and shows progress."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """True if weights are sharded: every rank has to take part in every forward and backward pass."""
        return self.strategy == "fsdp"

    @property
    def load_device(self) -> torch.device:
        """Device to load a model on: `device`, but the CPU if weights will be sharded, as only a part stays here."""
        return torch.device("cpu") if self.sharded else self.device

    @property
    def loss_scale(self) -> int:
        """Factor for a loss before its backward pass, which turns FSDP's average of gradients over ranks into a sum."""
        return self.world if self.sharded else 1

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Return this rank's share of the items: every world-th one.

        If they are sorted by size, that balances the ranks.
        """
        return list(items[self.rank :: self.world])

    def global_sum(self, *values: float) -> list[float]:
        """Return each value summed over all ranks, in float64; every rank has to call."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Return the sum of all ranks' tensors of equal shape, in the tensor's dtype and on its device.

        Every rank has to call.
        """
        if self.world == 1:
            return tensor
        moved = tensor.to(self.device)
        dist.all_reduce(moved)
        return moved.to(tensor.device)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all ranks, in place; a parameter without a gradient counts as zero.

        Sharded parameters are left out: the backward pass has summed them already.
        """
        if self.world == 1:
            return
        bucket: list[nn.Parameter] = []
        for parameter in parameters:
            if is_sharded(parameter):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter)
            if sum(item.numel() for item in bucket) >= _BUCKET_ELEMENTS:
                self._sum_bucket(bucket)
                bucket = []
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        if len(gradients) == 1 and gradients[0].is_contiguous():  # a large gradient: without a copy
            dist.all_reduce(gradients[0])
            gradients[0] /= self.loss_scale
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.loss_scale
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def clip_gradients(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Scale all gradients, in place, so that their joint norm is at most `limit`.

        Return the norm before scaling.
        """
        kinds = [[item for item in parameters if is_sharded(item) is sharded] for sharded in (False, True)]
        norms = [
            full_tensor(get_total_norm([item.grad for item in kind if item.grad is not None])) for kind in kinds if kind
        ]
        total = norms[0] if len(norms) == 1 else torch.stack([norm.to(self.device) for norm in norms]).norm()
        for kind in kinds:
            if kind and math.isfinite(total):
                clip_grads_with_norm_(kind, limit, total)
        return float(total)

    def gather(self, items: list[Any]) -> list[Any]:
        """Return all ranks' items as one list in rank order, on every rank.

        For plain Python values (ids, floats), not tensors.
        """
        if self.world == 1:
            return items
        gathered: list[list[Any]] = [[] for _ in range(self.world)]
        dist.all_gather_object(gathered, items)
        return [item for part in gathered for item in part]

    def from_first(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 only and return its result on every rank. For plain Python values.

        Raises:
            Exception: on every rank, the error that `work` raised on rank 0.
        """
        if self.world == 1:
            return work()
        value, raised = None, None
        if self.is_main:
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 -- after any error the others must not wait for an answer
                raised = error
        value, first_error = self.gather([(value, None if raised is None else _portable(raised))])[0]
        if first_error is not None:
            raise raised or first_error  # the first process raises its own, with its traceback
        return cast("T", value)

    def barrier(self) -> None:
        """Wait until every rank has called this method."""
        if self.world > 1:
            dist.barrier()


def _portable(error: Exception) -> Exception:
    """Return the error if it can be pickled (those of libraries often cannot), else a RuntimeError of its message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 -- pickled by this process
    except Exception:  # noqa: BLE001 -- whatever their constructors raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def shutdown(*, together: bool = True, why: str | None = None) -> bool:
    """Leave the process group; return True if this process was in one.

    Args:
        together: every rank calls this and waits for the others; without the wait the exit sometimes aborts. False
            after an error on a rank, when it would wait for ever.
        why: that error, to be reported by the other processes.
    """
    global _peers  # noqa: PLW0603 -- at most one group per process
    if not (dist.is_available() and dist.is_initialized()):
        return False
    if _peers is not None:
        _peers.leave(None if together else why)
        if not together and dist.get_rank() == 0:
            time.sleep(NOTICE_SECONDS)  # this process may hold the store, and the others have yet to read the note
        _peers = None
    if together:
        dist.barrier()
        dist.destroy_process_group()
    return True


def _join(device: torch.device, rank: int, world: int) -> None:
    """Join the process group, and start watching for processes that end with an error."""
    global _peers  # noqa: PLW0603 -- as above
    # A process that never joins is noticed in minutes. Later waits may be longer, while the first process prepares data
    # or writes a large export.
    store, _, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=PrefixStore("group", store), rank=rank,
        world_size=world, timeout=timedelta(days=2),
    )  # fmt: skip
    _peers = Peers(store, rank)


def init(device: str = "auto", dtype: str = "auto", threads: int | None = None, strategy: str = "auto") -> Runtime:
    """Choose device and dtype, join the process group if a launcher started several processes, and return the runtime.

    Args:
        device: "auto" (CUDA, else MPS, else CPU) or a torch device name.
        dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16" or "float16".
        threads: torch's CPU threads in this process; None leaves torch's choice.
        strategy: "auto" (ddp where there are several processes), "ddp" or "fsdp".

    Raises:
        ConfigError: the device does not exist, the dtype is unknown, or the launcher's settings are wrong.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    world, rank = _launched()
    if world == 1 and strategy in ("ddp", "fsdp"):
        raise ConfigError(
            f"strategy: {strategy} is configured, but there is only this process\n"
            "  fix: start it with `torchrun --nproc-per-node N -m trueup …` (docs/scale.md), or leave strategy out"
        )
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")), local_world)
    if chosen.type == "cpu":
        keep_freed_memory()
    if world > 1 and chosen.type == "cuda" and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "LOCAL_RANK is not set, so every process would take the same GPU\n"
            "  fix: start with `torchrun -m trueup …`, which sets it, or set it to the process's number on its machine"
        )
    if world > 1 and chosen.type == "mps":
        raise ConfigError("device: several processes do not run on mps; use device=cpu, or start one process")
    if world > 1 and not dist.is_initialized():
        _join(chosen, rank, world)
    if world > 1 and dist.get_world_size() != world:
        raise ConfigError(f"WORLD_SIZE is {world}, but the process group has {dist.get_world_size()} processes")
    parallelism: Parallelism = "one" if world == 1 else "fsdp" if strategy == "fsdp" else "ddp"
    return Runtime(chosen, choose_dtype(dtype, chosen), rank, world, parallelism)


def _launched() -> tuple[int, int]:
    """Return the number of processes that the launcher started, and this process's rank, from environment variables.

    Raises:
        ConfigError: the variables are wrong or incomplete, e.g. several processes without the variables that connect
            them.
    """
    try:
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE and RANK must be whole numbers, as a launcher sets them: {error}") from None
    counts = {name: os.environ.get(name, "") for name in _LAUNCHERS}
    name = next((name for name, count in counts.items() if count.isdigit() and int(count) > 1), None)
    if "WORLD_SIZE" not in os.environ and name is not None:
        raise ConfigError(
            f"{name} is {counts[name]}, but WORLD_SIZE is not set: each of these processes would train alone\n"
            "  fix: let each node start one `torchrun -m trueup …` (docs/scale.md, scripts/launch)"
        )
    if world > 1 and not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise ConfigError(
            f"WORLD_SIZE is {world}, but RANK, MASTER_ADDR or MASTER_PORT is not set\n"
            "  fix: start with `torchrun --nproc-per-node N -m trueup …`, which sets them"
        )
    if not 0 <= rank < world:
        raise ConfigError(f"RANK is {rank}, but WORLD_SIZE is {world}; ranks are 0 to {world - 1}")
    return world, rank


_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "Connection refused")


def is_lost_peer(error: BaseException) -> bool:
    """Return True if the error means that another process of the group has ended."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(message in text for message in _LOST)
    )


def lost_peer_message(error: BaseException) -> str | None:
    """Return the message for an error caused by another process that ended; None for any other error."""
    if not is_lost_peer(error):
        return None
    return peer_ended_message(_peers.cause() if _peers is not None else None)


def first_then_all(runtime: Runtime, work: Callable[[], T]) -> T:
    """Call `work` on rank 0, and then on the other ranks, which find the files that rank 0 wrote; return its result.

    Raises:
        TrueupError: on every rank, the error of rank 0.
    """
    if runtime.world == 1:
        return work()
    outcome: T | TrueupError | None = None
    if runtime.is_main:
        try:
            outcome = work()
        except TrueupError as error:
            outcome = error
    first_error = runtime.gather([outcome if isinstance(outcome, TrueupError) else None])[0]
    if first_error is not None:
        raise first_error
    return cast("T", outcome) if runtime.is_main else work()
