"""Merge LoRA adapters into plain weights that compute the same as the trunk (transformer) with its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trueup.models.adapters import without_adapters
from trueup.runtime import full_tensor, is_sharded

if TYPE_CHECKING:
    from trueup.models.network import Network

MAX_MERGE_LOSS = (
    0.02  # share of the trained change that rounding may lose (or add) in a merge; beyond it the export is float32
)


@torch.no_grad()
def merged_state(network: Network, role: str) -> dict[str, Tensor]:
    """Return the weights of a role's trunk by name, with LoRA deltas added, so that they need neither adapter nor PEFT.

    Changed weights are CPU copies. With sharded weights every rank has to call; the first gets the weights, on the CPU,
    and the others an empty dict. The weights have the trunk's dtype, unless rounding to it would undo the training:
    then all are float32.
    """
    trunk, layers = cast("nn.Module", network.trunk(role)), _adapted_layers(network, role)
    to_float32 = abs(merge_kept_share(network, role) - 1) > MAX_MERGE_LOSS
    state: dict[str, Tensor] = {}
    widened: dict[int, Tensor] = {}  # by address, so that tied weights stay tied
    gathered: dict[int, Tensor | None] = {}  # likewise, by parameter id
    for name, parameter in trunk.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        weight = _gathered(parameter, gathered, keep=network.runtime.is_main)
        if weight is None:
            continue
        plain = without_adapters(name)
        layer = layers.get(plain)
        if layer is not None:
            # Added in float32: a bfloat16 sum would lose small updates before they are rounded once.
            delta = layer.get_delta_weight(network.roles[role].adapter).float()
            merged = weight.float() + delta.to(weight.device)
            state[plain] = (merged if to_float32 else merged.to(weight.dtype)).cpu()
        else:
            state[plain] = weight
            if to_float32 and weight.is_floating_point():
                state[plain] = widened.setdefault(weight.data_ptr(), weight.float().cpu())
    return state


def _weight_name(layer: Any) -> str:
    """Return the name of the parameter that a LoRA layer adapts, in its base layer."""
    return getattr(layer, "parameter_name", "weight")


def _gathered(parameter: Tensor, known: dict[int, Tensor | None], *, keep: bool) -> Tensor | None:
    """Return the whole weight, on the CPU if it was sharded, or None unless `keep`.

    `known` caches gathered weights by parameter id, so that a tied weight is gathered once.
    """
    if not is_sharded(parameter):
        return parameter.detach() if keep else None
    if id(parameter) not in known:
        gathered = full_tensor(parameter.detach())
        known[id(parameter)] = gathered.cpu() if keep else None
    return known[id(parameter)]


@torch.no_grad()
def merge_kept_share(network: Network, role: str) -> float:
    """Return the share of LoRA's change that is kept by a merge in the trunk's dtype; 1 for a role without LoRA.

    With deltas D and weights W it is sum(D * (round(W + D) - W)) / sum(D * D). In bfloat16 a delta below half of the
    last of 8 bits rounds away: forty steps on SmolLM2-135M at lr 2e-5 keep 0.34, at 2e-4 0.96, at 1e-3 0.999.
    """
    adapter, kept, total = network.roles[role].adapter, 0.0, 0.0
    for layer in _adapted_layers(network, role).values():
        base = getattr(layer.get_base_layer(), _weight_name(layer))
        weight, delta = full_tensor(base), layer.get_delta_weight(adapter).float()
        change = (weight.float() + delta).to(weight.dtype).float() - weight.float()
        kept += float((change * delta).sum(dtype=torch.float64))
        total += float((delta * delta).sum(dtype=torch.float64))
    return kept / total if total else 1.0


def _adapted_layers(network: Network, role: str) -> dict[str, Any]:
    """Return the layers that have the role's LoRA adapter, by the names of their weights in the trunk without PEFT."""
    adapter, trunk = network.roles[role].adapter, cast("nn.Module", network.trunk(role))
    if adapter is None:
        return {}
    layers = {name: cast("Any", module) for name, module in trunk.named_modules() if hasattr(module, "lora_A")}
    return {
        f"{without_adapters(name)}.{_weight_name(layer)}": layer
        for name, layer in layers.items()
        if adapter in layer.lora_A or adapter in getattr(layer, "lora_embedding_A", {})
    }
