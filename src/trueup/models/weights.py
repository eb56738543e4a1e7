"""What is the same in every `transformers` model: embeddings, heads, and a fingerprint of the weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trueup.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def input_embeddings(trunk: nn.Module) -> Tensor:
    """(V, H) token embeddings."""
    return cast("nn.Embedding", cast("PreTrainedModel", trunk).get_input_embeddings()).weight


_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop")


def without_dropout(trunk: PreTrainedModel) -> PreTrainedModel:
    """The model with its own dropout off; LoRA's, which is asked for, comes later.

    The log-probabilities that PPO and DPO compare with are taken without dropout: with it, the policy would differ from
    itself.
    """
    for module in trunk.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in _DROPOUTS:  # numbers that a layer hands to a function
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return trunk


def move_module(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The module there and in that type."""
    return nn.Module.to(module, device, dtype)  # transformers' own annotation of `to` misleads type checkers


def output_embeddings(trunk: nn.Module) -> nn.Linear | None:
    """The LM head, or None where a model has none."""
    return cast("nn.Linear | None", cast("PreTrainedModel", trunk).get_output_embeddings())


def head_weight(head: nn.Module, adapter: str | None) -> tuple[Tensor, Tensor | None]:
    """(V, H) weight and bias of the LM head, with its LoRA delta if it carries an adapter."""
    base = cast("nn.Linear", getattr(head, "base_layer", head))
    if base is head or adapter is None or adapter not in getattr(head, "lora_A", {}):
        return base.weight, base.bias
    return base.weight + cast("Any", head).get_delta_weight(adapter).to(base.weight.dtype), base.bias


def logit_scale(config: PreTrainedConfig) -> float:
    """What the model multiplies its logits by (Cohere, Falcon-H1) or divides them by (Granite)."""
    factor = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    return factor or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)


def score_head(classifier: nn.Module) -> nn.Linear:
    """The one-output linear head of a sequence classifier.

    Raises:
        ModelError: it has another number of labels than one.
    """
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear):
        # A "classifier" head, as BERT's, reads a pooled first token, not the state of the last.
        raise ModelError(f"{type(classifier).__name__} has no linear `score` head; a reward model needs one")
    if head.out_features != 1:
        raise ModelError(f"a reward model has one label, this classifier has {head.out_features}: set num_labels=1")
    return head


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def bit_sum(value: Tensor) -> int:
    """The sum of a tensor's elements, each taken as a whole number of its bits (it wraps at 64 bits)."""
    return int(value.detach().contiguous().view(_BITS[value.element_size()]).sum(dtype=torch.int64))


@torch.no_grad()
def weights_fingerprint(module: nn.Module) -> str:
    """A short hash of all weights: names, shapes, sums of their bits and up to 512 spread-out elements of each.

    The same on every device: whole numbers are added up, in whatever order.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.flatten()
        sample = flat[:: max(1, flat.numel() // 512)][:512].float().cpu()
        digest.update(f"{name}{tuple(value.shape)}{bit_sum(flat)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]
