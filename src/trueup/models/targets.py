"""The layers that `lora.targets` names: each name has to match one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from trueup.config.problems import nearest
from trueup.errors import ModelError
from trueup.system.text import excerpt, listed

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLora

    from trueup.config import LoraConfig

_BASE_LAYER = re.compile(r"(\.base_layer)+(?=\.|$)")  # inside of PEFT's layer


def target_problem(model: nn.Module, targets: Sequence[str]) -> tuple[str, str] | None:
    """Return the problem of LoRA targets that match no layer of a model as (text, fix); None if each matches one.

    A target matches the layers whose name is it, or ends in a dot and it, as PEFT decides; also a stack of experts.
    """
    modules = {_BASE_LAYER.sub("", name): module for name, module in model.named_modules() if ".lora_" not in name}
    layers = {name for name, module in modules.items() if name and _takes_adapter(module)}
    experts = {name for name, parameter in model.named_parameters() if parameter.ndim == 3}
    kinds = sorted({name.rpartition(".")[2] for name in layers | experts if not name.rpartition(".")[2].isdigit()})
    unmatched: list[str] = []
    for target in targets:
        if any(f".{name}".endswith(f".{target}") for name in layers | experts):
            continue
        close = nearest(target, kinds)
        inside = any(f".{name}".endswith(f".{target}") for name in modules)
        hint = " (a block, not a layer)" if inside else f" (did you mean {close}?)" if close else ""
        if target in ("all", "all-linear", "*"):
            hint = " (for every linear layer write lora.targets=all-linear, without a list)"
        unmatched.append(f"{excerpt(target)[1:-1]}{hint}")
    if not unmatched:
        return None
    verb = "matches" if len(unmatched) == 1 else "match"
    return f"lora.targets: {', '.join(unmatched)} {verb} no layer of this model", f"its layers are {listed(kinds, 30)}"


def check_targets(model: nn.Module, lora: LoraConfig | PeftLora | None) -> None:
    """Raise ModelError if `lora` names a target that matches no layer of the model."""
    targets = None if lora is None else getattr(lora, "targets", None)
    if not isinstance(targets, list):
        return
    if (problem := target_problem(model, targets)) is not None:
        raise ModelError("{}\n  fix: {}".format(*problem))


def _takes_adapter(module: nn.Module) -> bool:
    """Return True for the kinds of layers that PEFT's LoRA adapts, and for one that it has adapted."""
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, Conv1D)
    return isinstance(module, kinds) or hasattr(module, "base_layer")
