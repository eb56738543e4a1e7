"""FSDP2 sharding: each process holds a part of every weight, and a layer is whole only while it runs.

A trunk's (transformer's) decoder layers are sharded one by one, then the rest of it (embeddings, final norm, LM head)
together. LoRA adapters and scalar heads stay whole on every rank: they are small, and their gradients are summed as
with DDP.

All code that uses sharded weights runs inside the forward of `ShardedTrunk`; outside of it they are DTensors. Observed
with torch 2.13: the divide factor cannot be set on gloo, so the loss is scaled instead; a call of an inner module
outside of the root's forward makes that module a separate root; the root stays whole after a forward without gradients
unless it is resharded.
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
    """Wrapper of a sharded transformer: inside its forward the weights outside the decoder layers are whole."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, work: Callable[[], T]) -> T:
        """Return `work()`, which may call any part of the transformer."""
        return work()

    def run(self, work: Callable[[], T]) -> T:
        """Return `work()`, called with the trunk's weights whole. Every rank has to call it equally often.

        Weights outside the decoder layers may be used only inside `work`. Gradients flow back from the tensors that
        `work` returns.
        """
        result = self(work)
        if not torch.is_grad_enabled():
            self._reshard()
        return result

    def _reshard(self) -> None:
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def shard(
    trunk: nn.Module, replicated: Iterable[nn.Parameter], *, device: torch.device, dtype: torch.dtype, world: int
) -> ShardedTrunk:
    """Shard a trunk (transformer) over all ranks, move this rank's part to its device, and return it wrapped.

    Args:
        trunk: a `transformers` model, whole and equal on every rank.
        replicated: its parameters that every rank keeps whole.
        device: device for this rank's part.
        dtype: compute dtype of the forward pass; gradients are reduced in float32.
        world: number of ranks.

    Raises:
        ModelError: the trunk has no stack of layers.
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
    unsharded = [name for name, weight in trunk.named_parameters() if weight not in kept and not is_sharded(weight)]
    if unsharded:
        raise TrueupError(f"strategy: fsdp left {unsharded[0]} unsharded ({len(unsharded)} weights in all)")
    return root


def layers_of(trunk: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers: the module list with the most weights.

    Raises:
        ModelError: the model has no module list.
    """
    stacks = [module for module in trunk.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise ModelError(f"{type(trunk).__name__} has no stack of layers to shard; use strategy=ddp")
    return max(stacks, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))


def run_unsharded(root: ShardedTrunk, work: Callable[[], T]) -> T:
    """Return `work()`, called with all layers whole, so that ranks may run different numbers of forward passes in it.

    For sampling, without gradients. Every rank has to call it.
    """
    modules = [cast("Any", module) for module in root.modules() if isinstance(module, FSDPModule)]

    def unshard_and_work() -> T:
        for module in modules:
            module.unshard()
        return work()

    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        return root.run(unshard_and_work)
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(
                module is not root, recurse=False
            )  # a root stays whole until its backward pass


def is_sharded(tensor: Tensor) -> bool:
    """Return True if this process holds only a part of the tensor."""
    return isinstance(tensor, DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the whole tensor, gathered if it is sharded, in which case every rank has to call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, and any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_into(target: Tensor, value: Tensor) -> None:
    """Copy `value` into `target`, a tensor of the same shape; a sharded target takes this rank's part."""
    if isinstance(target, DTensor) and not isinstance(value, DTensor):
        moved = value.to(target.device)
        target.copy_(distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None))
    else:
        target.copy_(value)
