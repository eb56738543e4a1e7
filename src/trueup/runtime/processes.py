"""The processes of a run: who this one is, and what they do together."""

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
from trueup.runtime.peers import NOTICED, Peers, peer_ended_message
from trueup.runtime.sharding import full_tensor, is_sharded

T = TypeVar("T")
Parallelism = Literal["one", "ddp", "fsdp"]
_BUCKET_ELEMENTS = 2**24
_peers: Peers | None = None
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@dataclass(frozen=True, slots=True)
class Runtime:
    """This process: its device, compute dtype, rank, the number of processes, and what they share.

    Attributes:
        device: what it computes on.
        dtype: what it computes in.
        rank: its number, from 0.
        world: how many there are.
        strategy: "one" process, "ddp" (each holds the whole model) or "fsdp" (each holds a part of every weight).
    """

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1
    strategy: Parallelism = "one"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether weights are held in parts: every rank has to take part in every forward and backward pass."""
        return self.strategy == "fsdp"

    @property
    def load_device(self) -> torch.device:
        """Where a model is loaded to: on the CPU where only a part of it will stay on the device."""
        return torch.device("cpu") if self.sharded else self.device

    @property
    def loss_scale(self) -> int:
        """What a loss is multiplied by before its backward pass: sharded gradients are averaged over ranks."""
        return self.world if self.sharded else 1

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This rank's share: every world-th item. Sharing out a sorted list balances the ranks."""
        return list(items[self.rank :: self.world])

    def global_sum(self, *values: float) -> list[float]:
        """Sum each value over all ranks, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors of one shape, in the tensor's dtype, where the tensor is."""
        if self.world == 1:
            return tensor
        moved = tensor.to(self.device)
        dist.all_reduce(moved)
        return moved.to(tensor.device)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all ranks, in flat buckets; a parameter without a gradient here counts as zero.

        Sharded parameters were reduced in the backward pass already.
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
            if sum(one.numel() for one in bucket) >= _BUCKET_ELEMENTS:
                self._sum_bucket(bucket)
                bucket = []
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, bucket: list[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        if len(gradients) == 1 and gradients[0].is_contiguous():  # a large one: without a copy
            dist.all_reduce(gradients[0])
            gradients[0] /= self.loss_scale
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.loss_scale
        for gradient, piece in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def clip_gradients(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Scale all gradients so that their joint norm is at most `limit`. Returns the norm before."""
        kinds = [[one for one in parameters if is_sharded(one) is kind] for kind in (False, True)]
        norms = [
            full_tensor(get_total_norm([one.grad for one in kind if one.grad is not None])) for kind in kinds if kind
        ]
        total = norms[0] if len(norms) == 1 else torch.stack([norm.to(self.device) for norm in norms]).norm()
        for kind in kinds:
            if kind and math.isfinite(total):
                clip_grads_with_norm_(kind, limit, total)
        return float(total)

    def gather(self, items: list[Any]) -> list[Any]:
        """All ranks' items in rank order, on every rank. For plain Python values (ids, floats), not tensors."""
        if self.world == 1:
            return items
        gathered: list[list[Any]] = [[] for _ in range(self.world)]
        dist.all_gather_object(gathered, items)
        return [item for part in gathered for item in part]

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` gives the first process, on every rank: plain Python values. The others do not call it.

        Raises:
            Exception: on every rank, what the first one met.
        """
        if self.world == 1:
            return work()
        value, met = None, None
        if self.is_main:
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 -- whatever it is, the others must not wait for an answer
                met = error
        value, told = self.gather([(value, None if met is None else _portable(met))])[0]
        if told is not None:
            raise met or told  # the first process raises its own, with its traceback
        return cast("T", value)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


def _portable(error: Exception) -> Exception:
    """The error, where another process can be told it as it is (classes of libraries often cannot); else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 -- this process's own
    except Exception:  # noqa: BLE001 -- whatever their constructors raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def shutdown(*, together: bool = True, why: str | None = None) -> bool:
    """Leave the process group. Returns whether there was one.

    Args:
        together: every rank comes here, and waits for the others: without that the exit aborts now and then. False
            after an error in one of them, when it would wait for ever.
        why: that error, for the other processes to say.
    """
    global _peers  # noqa: PLW0603 -- as many as there are groups: one or none
    if not (dist.is_available() and dist.is_initialized()):
        return False
    if _peers is not None:
        _peers.leave(None if together else why)
        if not together and dist.get_rank() == 0:
            time.sleep(NOTICED)  # this process may hold the store: the others have yet to read what is noted there
        _peers = None
    if together:
        dist.barrier()
        dist.destroy_process_group()
    return True


def _join(device: torch.device, rank: int, world: int) -> None:
    """Join the process group, and begin to watch for those that end with an error."""
    global _peers  # noqa: PLW0603 -- as above
    # A process that never comes is noticed in minutes. Later they wait longer: the first one may prepare data, or
    # write a large export, meanwhile.
    store, _, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=PrefixStore("group", store), rank=rank,
        world_size=world, timeout=timedelta(days=2),
    )  # fmt: skip
    _peers = Peers(store, rank)


def init(device: str = "auto", dtype: str = "auto", threads: int | None = None, strategy: str = "auto") -> Runtime:
    """Choose device and dtype, and join the process group if a launcher started several processes.

    Args:
        device: "auto" (CUDA, else MPS, else CPU) or a torch device name.
        dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16" or "float16".
        threads: torch's CPU threads in this process; None leaves torch's choice.
        strategy: "auto" (ddp where there are several processes), "ddp" or "fsdp".

    Raises:
        ConfigError: the device is not there, the dtype is not one of those named, or the processes that were asked for
            are not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    world, rank = _launched()
    if world == 1 and strategy in ("ddp", "fsdp"):
        raise ConfigError(
            f"strategy: {strategy} was asked for, but this is one process\n"
            "  fix: start it with `torchrun --nproc-per-node N -m trueup …` (docs/scale.md), or leave strategy out"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")), here)
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
    kind: Parallelism = "one" if world == 1 else "fsdp" if strategy == "fsdp" else "ddp"
    return Runtime(chosen, choose_dtype(dtype, chosen), rank, world, kind)


def _launched() -> tuple[int, int]:
    """How many processes were started, and which of them this one is.

    Raises:
        ConfigError: a launcher started several, and did not tell them of each other: each would train alone.
    """
    try:
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE and RANK are set by a launcher, to whole numbers: {error}") from None
    started = {name: os.environ.get(name, "") for name in _LAUNCHERS}
    name = next((name for name, count in started.items() if count.isdigit() and int(count) > 1), None)
    if "WORLD_SIZE" not in os.environ and name is not None:
        raise ConfigError(
            f"{name} is {started[name]}, but WORLD_SIZE is not set: so many processes would each train alone\n"
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
    """Whether an error means that another process of the group has gone."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    text = str(error)
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(one in text for one in _LOST))


def lost_peer_message(error: BaseException) -> str | None:
    """What to say after an error by which another process of the group has gone; None after any other error."""
    if not is_lost_peer(error):
        return None
    return peer_ended_message(_peers.cause() if _peers is not None else None)


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
