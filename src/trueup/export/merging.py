"""LoRA merged: the weights that another tool needs to compute what the trunk with its adapter computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trueup.runtime import full_tensor, is_sharded

if TYPE_CHECKING:
    from trueup.models.network import Network

MAX_MERGE_LOSS = 0.02  # the share of the trained change that a merge may lose (or gain) by rounding; beyond it, float32


@torch.no_grad()
def merged_state(network: Network, role: str) -> dict[str, Tensor]:
    """The role's trunk as plain weights: LoRA deltas added, PEFT's names undone. What changed is a copy on the CPU.

    Of sharded weights every rank has to ask, and the first one gets them, on the CPU; the others get nothing.

    Merged weights have the trunk's dtype, unless rounding to it would undo the training: then all are float32.
    """
    trunk, layers = cast("nn.Module", network.trunk(role)), _adapted(network, role)
    wide = abs(merge_kept_share(network, role) - 1) > MAX_MERGE_LOSS
    state: dict[str, Tensor] = {}
    widened: dict[int, Tensor] = {}  # by address, so that tied weights stay one
    gathered: dict[int, Tensor | None] = {}  # likewise, by parameter
    for name, held in trunk.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        weight = _gathered(held, gathered, keep=network.runtime.is_main)
        if weight is None:
            continue
        plain = name.replace(".base_layer.", ".")
        layer = layers.get(plain.removesuffix(".weight")) if plain.endswith(".weight") else None
        if layer is not None:
            # Added in float32: a bfloat16 sum would lose small updates before they are rounded once.
            delta = layer.get_delta_weight(network.roles[role].adapter).float()
            merged = weight.float() + delta.to(weight.device)
            state[plain] = (merged if wide else merged.to(weight.dtype)).cpu()
        else:
            state[plain] = weight
            if wide and weight.is_floating_point():
                state[plain] = widened.setdefault(weight.data_ptr(), weight.float().cpu())
    return state


def _gathered(held: Tensor, known: dict[int, Tensor | None], *, keep: bool) -> Tensor | None:
    """The whole weight where it is kept, on the CPU if it was sharded; one that stands in two places once."""
    if not is_sharded(held):
        return held.detach() if keep else None
    if id(held) not in known:
        gathered = full_tensor(held.detach())
        known[id(held)] = gathered.cpu() if keep else None
    return known[id(held)]


@torch.no_grad()
def merge_kept_share(network: Network, role: str) -> float:
    """The share of what LoRA learned that is left when it is merged in the trunk's dtype; 1 for any other role.

    With deltas D and weights W, sum(D * (round(W + D) - W)) / sum(D * D). In bfloat16 a delta below half of the last of
    8 bits rounds away: forty steps on SmolLM2-135M at lr 2e-5 leave 0.34, at 2e-4 0.96, at 1e-3 0.999.
    """
    adapter, left, all_of_it = network.roles[role].adapter, 0.0, 0.0
    for layer in _adapted(network, role).values():
        weight, delta = full_tensor(layer.get_base_layer().weight), layer.get_delta_weight(adapter).float()
        change = (weight.float() + delta).to(weight.dtype).float() - weight.float()
        left += float((change * delta).sum(dtype=torch.float64))
        all_of_it += float((delta * delta).sum(dtype=torch.float64))
    return left / all_of_it if all_of_it else 1.0


def _adapted(network: Network, role: str) -> dict[str, Any]:
    """The layers that carry the role's adapter, by their plain names."""
    adapter, trunk = network.roles[role].adapter, cast("nn.Module", network.trunk(role))
    if adapter is None:
        return {}
    layers = {name: cast("Any", module) for name, module in trunk.named_modules() if hasattr(module, "lora_A")}
    return {
        name: layer
        for name, layer in layers.items()
        if adapter in layer.lora_A or adapter in getattr(layer, "lora_embedding_A", {})
    }
