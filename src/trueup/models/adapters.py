"""LoRA's targets: the matrices of a model that get an adapter, fused experts included, and their share of the weights.

The experts of a mixture are single parameters of three dimensions, (experts, out, in), which PEFT adapts through
`target_parameters`: each expert gets an adapter of the same rank. Such adapters take no dropout, and all adapters of
one model must target the same parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trueup.errors import ModelError
from trueup.models.targets import target_problem

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLora
    from transformers import PreTrainedModel

    from trueup.config import LoraConfig


def expert_parameters(trunk: nn.Module) -> list[str]:
    """Return the names of the fused expert matrices: parameters of three dimensions in a module of experts."""
    names: list[str] = []
    for module_name, module in _own_modules(trunk):
        if "expert" not in f"{module_name}.{type(module).__name__}".lower():
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and parameter.is_floating_point():
                names.append(f"{module_name}.{name}")
    return names


def adapter_config(trunk: PreTrainedModel, lora: LoraConfig) -> PeftLora:
    """Return PEFT's configuration of a LoRA section for a model that has no adapter yet.

    `all-linear` is every linear layer but the LM head, and every fused expert matrix; without those whose adapter PEFT
    could not read back (`unreadable`). In a list, a name may also be that of an expert matrix, such as
    `experts.down_proj`.

    Raises:
        ModelError: the section's dropout cannot be had on fused experts, or a name in a list is that of a layer whose
            adapter PEFT could not read back.
    """
    from peft import LoraConfig as PeftLora

    experts = expert_parameters(trunk)
    routers = [name for name, module in _own_modules(trunk) if isinstance(module, nn.Linear) and not _is_linear(module)]
    settings: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if isinstance(lora.targets, str):
        layers = [name for name, module in _own_modules(trunk) if isinstance(module, nn.Linear)]
        if not experts and not routers and not unreadable(trunk, layers):
            return PeftLora(**settings, target_modules=lora.targets)
        chosen = PeftLora(**settings, **_all_linear(trunk, experts))
    else:
        layers = [
            name for name, _ in _own_modules(trunk) if any(f".{name}".endswith(f".{end}") for end in lora.targets)
        ]
        if lost := unreadable(trunk, layers):
            raise ModelError(
                f"lora.targets: PEFT would read the adapter of {lost[0]} back under another name, and leave it out\n"
                "  fix: take that name out of the list"
            )
        fused = [name for name in lora.targets if any(f".{expert}".endswith(f".{name}") for expert in experts)]
        others = [name for name in lora.targets if name not in fused or _names_module(trunk, name)]
        chosen = PeftLora(**settings, target_modules=others, target_parameters=fused or None)
    if problem := dropout_problem(lora, list(chosen.target_parameters or ())):
        raise ModelError(problem)
    return chosen


def check_adapters(trunk: PreTrainedModel, lora: LoraConfig) -> list[str]:
    """Add the adapters of a LoRA section to a model without numbers; return the fused expert matrices that they adapt.

    Targets that match no layer are left to `target_problem`.

    Raises:
        ModelError: PEFT does not make such adapters for this model, for example in a Mamba block.
    """
    from peft import get_peft_model

    if isinstance(lora.targets, list) and target_problem(trunk, lora.targets) is not None:
        return []
    chosen = adapter_config(trunk, lora)
    parameters = list(chosen.target_parameters or ())
    try:
        get_peft_model(trunk, chosen, low_cpu_mem_usage=True)
    except ValueError as error:
        raise ModelError(refused_targets(lora.targets, error)) from error
    return parameters


def refused_targets(targets: object, error: ValueError) -> str:
    """Return the message for LoRA targets that PEFT refuses."""
    return f"lora.targets: {targets!r} cannot be had in this model: {' '.join(str(error).split())[:300]}"


def dropout_problem(lora: LoraConfig, parameters: list[str]) -> str | None:
    """Return the error message if adapters of fused experts are wanted with dropout, which PEFT has not; else None."""
    if not (lora.dropout and parameters):
        return None
    return (
        f"lora.dropout: {lora.dropout:g} is not possible on this model's fused experts ({parameters[0]}): an adapter "
        "of a whole stack of experts never sees their inputs\n"
        "  fix: set lora.dropout=0, or name linear layers only, such as lora.targets=[q_proj, v_proj]"
    )


def _own_modules(trunk: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model's own modules by the names they have without adapters."""
    for name, module in trunk.named_modules():
        if ".lora_" not in name and not hasattr(module, "base_layer"):
            yield without_adapters(name), module


def without_adapters(name: str) -> str:
    """Return a parameter's or module's name as it is without PEFT, whose layers wrap a module as their `base_layer`.

    Adapters of several parameters of one module are nested.
    """
    return re.sub(r"(\.base_layer)+(?=\.|$)", "", name)


def _names_module(trunk: nn.Module, name: str) -> bool:
    return any(f".{module}".endswith(f".{name}") for module, _ in _own_modules(trunk))


def _is_linear(module: nn.Module) -> bool:
    """Return True for a linear layer whose result is one tensor; Llama 4's router, a subclass, returns two."""
    if not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward:
        return isinstance(module, nn.Linear)
    with torch.no_grad():
        result = module(module.weight.new_zeros(1, module.in_features))
    return isinstance(result, Tensor) and result.shape[-1] == module.out_features


def _all_linear(trunk: PreTrainedModel, experts: list[str]) -> dict[str, Any]:
    """Return `target_modules` and `target_parameters` for every linear layer but the LM head, and all expert matrices.

    For some mixtures PEFT takes names such as `gate_proj` for those that experts had before transformers 5 fused them,
    and would leave out a shared expert's layer of that name. Such a layer's weight is targeted as a parameter.
    """
    from peft import LoraConfig as PeftLora
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    from transformers.pytorch_utils import Conv1D

    head = trunk.get_output_embeddings()
    linear = {
        name
        for name, module in _own_modules(trunk)
        if (_is_linear(module) or isinstance(module, Conv1D)) and module is not head and "." in name
    }
    linear -= set(unreadable(trunk, linear))
    converted = PeftLora(target_modules=sorted(linear))
    convert_peft_config_for_transformers(converted, trunk, None)
    kept = set(converted.target_modules or ()) & linear
    renamed = [f"{name}.weight" for name in sorted(linear - kept)]
    return {"target_modules": sorted(kept), "target_parameters": sorted([*experts, *renamed])}


def unreadable(trunk: nn.Module, layers: Iterable[str]) -> list[str]:
    """Return those of a model's layers whose adapter PEFT saves, but cannot read back.

    On reading, PEFT renames an adapter's weights as transformers does those of old checkpoints of the family. A name
    that is new already may be renamed once more (Laguna's `shared_experts` to `shared_expertss`): the layer would be
    left without its adapter.
    """
    from peft import LoraConfig as PeftLora
    from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers

    names = {f"base_model.model.{layer}.lora_A.weight": layer for layer in layers}
    weights = {name: torch.empty(1, 1, device="meta") for name in names}
    read = convert_peft_adapter_state_dict_for_transformers(trunk, PeftLora(), weights)
    return sorted(layer for name, layer in names.items() if name not in read)


def restored_config(settings: dict[str, Any]) -> PeftLora:
    """Return the configuration of an adapter from the content of its adapter_config.json.

    Raises:
        KeyError: a key is missing.
    """
    from peft import LoraConfig as PeftLora

    return PeftLora(
        r=settings["r"], lora_alpha=settings["lora_alpha"], target_modules=settings["target_modules"],
        target_parameters=settings.get("target_parameters") or None, rank_pattern=settings.get("rank_pattern") or {},
        alpha_pattern=settings.get("alpha_pattern") or {},
    )  # fmt: skip


def reach(trunk: nn.Module, adapter: str) -> tuple[float, list[str]]:
    """Return the share of a model's weights that an adapter's layers hold, and the kinds of matrices it leaves out.

    A kind is a name without layer numbers, such as `model.layers.*.mlp.gate.weight`. Embeddings and the LM head, which
    LoRA leaves alone unless `lora.targets` names them, are then neither counted nor listed.
    """
    adapted: set[int] = set()
    for module in trunk.modules():
        if adapter in getattr(module, "lora_A", ()) or adapter in getattr(module, "lora_embedding_A", ()):
            base = cast("Any", module).get_base_layer()
            adapted.add(id(getattr(base, getattr(module, "parameter_name", "weight"))))
    total = reached = 0
    missed: dict[str, None] = {}
    head = cast("Any", trunk).get_output_embeddings()
    ends = {id(module.weight) for module in trunk.modules() if isinstance(module, nn.Embedding) or module is head}
    for name, parameter in trunk.named_parameters():
        if ".lora_" in name:
            continue
        if id(parameter) in ends and id(parameter) not in adapted:
            continue
        total += parameter.numel()
        if id(parameter) in adapted:
            reached += parameter.numel()
        elif parameter.ndim > 1:
            missed[re.sub(r"\.\d+\.", ".*.", without_adapters(name))] = None
    return reached / max(total, 1), list(missed)
