"""FSDP2: each process holds a part of every weight, and meets the whole of a layer only while it runs.

A trunk's decoder layers are sharded one by one, then the rest of it (embeddings, final norm, LM head) together. LoRA
adapters and scalar heads stay whole on every rank: they are small, and their gradients are added up as with DDP.

Everything that touches sharded weights runs inside the forward of `ShardedTrunk`: outside of it they are DTensors.
Known from trying (torch 2.13): the divide factor cannot be set on gloo, so the loss is scaled instead; a call of an
inner module outside of the root's forward makes that module a root of its own; the root stays whole after a forward
without gradients unless it is resharded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trueup.errors import ModelError, TrueupError

T = TypeVar("T")


class ShardedTrunk(nn.Module):
    """The root of a sharded trunk: whatever runs in its forward meets the weights whole."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, work: Callable[[], T]) -> T:
        """`work()`, which may call any part of the trunk."""
        return work()

    def run(self, work: Callable[[], T]) -> T:
        """`work()` where the trunk's weights are whole. Every rank has to come here, as often as the others.

        What is used of the trunk's own weights outside of a layer must be used inside `work`; tensors that `work`
        returns are what gradients flow back from.
        """
        result = self(work)
        if not torch.is_grad_enabled():
            self._reshard()
        return result

    def _reshard(self) -> None:
        for one in self.modules():
            if isinstance(one, FSDPModule):
                one.reshard()


def shard(
    trunk: nn.Module, replicated: Iterable[nn.Parameter], *, device: torch.device, dtype: torch.dtype, world: int
) -> ShardedTrunk:
    """Shard a trunk over all ranks; the device's share of it moves to the device.

    Args:
        trunk: a `transformers` model, whole and the same on every rank.
        replicated: parameters in it that every rank keeps whole.
        device: where this rank's share goes.
        dtype: what the forward pass computes in; gradients are reduced in float32.
        world: the number of ranks.

    Raises:
        ModelError: it has no stack of layers.
        TrueupError: a weight is not sharded afterwards.
    """
    mesh = init_device_mesh(device.type, (world,))
    kept = set(replicated)
    half = dtype != torch.float32
    precision = MixedPrecisionPolicy(
        param_dtype=dtype if half else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    root = ShardedTrunk(trunk)
    for module in (*layers_of(trunk), root):
        fully_shard(module, mesh=mesh, mp_policy=precision, ignored_params=kept)
    for parameter in kept:
        parameter.data = parameter.data.to(device)
    odd = [name for name, one in trunk.named_parameters() if one not in kept and not is_sharded(one)]
    if odd:
        raise TrueupError(f"strategy: fsdp was asked for, but {odd[0]} is not sharded ({len(odd)} weights)")
    return root


def layers_of(trunk: nn.Module) -> nn.ModuleList:
    """The stack of decoder layers: of all lists of modules the one with the most weights.

    Raises:
        ModelError: there is none.
    """
    stacks = [one for one in trunk.modules() if isinstance(one, nn.ModuleList)]
    if not stacks:
        raise ModelError(f"{type(trunk).__name__} has no stack of layers to shard; use strategy=ddp")
    return max(stacks, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))


def run_unsharded(root: ShardedTrunk, work: Callable[[], T]) -> T:
    """`work()` with every layer whole at once: forward passes in it need no other rank, so their number may differ.

    For sampling, without gradients. Every rank has to come here.
    """
    parts = [cast("Any", one) for one in root.modules() if isinstance(one, FSDPModule)]

    def inside() -> T:
        for one in parts:
            one.unshard()
        return work()

    for one in parts:
        one.set_reshard_after_forward(False, recurse=False)
    try:
        return root.run(inside)
    finally:
        for one in parts:
            one.reshard()
            one.set_reshard_after_forward(one is not root, recurse=False)  # a root stays whole until its backward pass


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of it."""
    return isinstance(tensor, DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor; of a sharded one every rank has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_into(target: Tensor, value: Tensor) -> None:
    """Copy a tensor into another of the same shape; into a sharded one this rank's part of it."""
    if isinstance(target, DTensor) and not isinstance(value, DTensor):
        moved = value.to(target.device)
        target.copy_(distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None))
    else:
        target.copy_(value)
