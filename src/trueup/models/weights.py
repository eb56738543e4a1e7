"""Parts that every `transformers` model has (embeddings, heads, dropout), and the numbers in its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from trueup.errors import ModelError
from trueup.models.stored import named
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def input_embeddings(trunk: nn.Module) -> Tensor:
    """Return the (V, H) token embedding weight."""
    return cast("nn.Embedding", cast("PreTrainedModel", trunk).get_input_embeddings()).weight


def decoder(trunk: PreTrainedModel) -> nn.Module:
    """Return the part of a model that computes its last hidden states: everything but its head.

    `base_model` names it, but in a few families (Llama 4's text model) its prefix is that of a larger model and names
    no part of this one. Then it is the child that holds the token embedding.
    """
    if trunk.base_model is not trunk:
        return trunk.base_model
    embedding = trunk.get_input_embeddings()
    for child in trunk.children():
        if child is not embedding and any(module is embedding for module in child.modules()):
            return child
    return trunk


def move_module(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a module to `device` and `dtype`, in place, and return it."""
    return nn.Module.to(module, device, dtype)  # transformers' own annotation of `to` misleads type checkers


def output_embeddings(trunk: nn.Module) -> nn.Linear | None:
    """Return the LM head (the layer from hidden states to logits), or None if the model has none."""
    return cast("nn.Linear | None", cast("PreTrainedModel", trunk).get_output_embeddings())


def head_weight(head: nn.Module, adapter: str | None) -> tuple[Tensor, Tensor | None]:
    """Return the (V, H) weight and the (V,) bias of the LM head; with the adapter's LoRA delta if the head has one."""
    base = cast("nn.Linear", getattr(head, "base_layer", head))
    if base is head or adapter is None or adapter not in getattr(head, "lora_A", {}):
        return base.weight, base.bias
    return base.weight + cast("Any", head).get_delta_weight(adapter).to(base.weight.dtype), base.bias


def logit_scale(config: PreTrainedConfig) -> float:
    """Return the factor by which the model multiplies its logits, 1 for most.

    It is a multiplier in Cohere's and Falcon-H1's configuration, the inverse of a divisor in Granite's.
    """
    factor = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    return factor or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)


def logit_softcap(config: PreTrainedConfig) -> float | None:
    """Return the bound c of a model that computes its logits as c * tanh(logits / c); None for most."""
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((cap for name in names if (cap := getattr(config, name, None))), None)


def score_head(classifier: nn.Module) -> nn.Linear:
    """Return the scalar head (linear layer) of a sequence classifier with a single label.

    Raises:
        ModelError: there is no such head, or it has several labels.
    """
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear):
        # A "classifier" head, like BERT's, reads a pooled first token, not the last token's state.
        raise ModelError(f"{type(classifier).__name__} has no linear `score` head; a reward model needs one")
    if head.out_features != 1:
        raise ModelError(
            f"a reward model has a single label, this classifier has {head.out_features}: set num_labels=1"
        )
    return head


LARGEST_WEIGHT = 65504.0
"""The largest number that float16 holds: no released model has a weight beyond it."""


class WeightProblem(NamedTuple):
    """A problem of the numbers in a model's weights: the code of its finding, the text and the fix."""

    code: str
    text: str
    fix: str


def weight_problem(
    weights: Iterable[tuple[str, Tensor]], blank: Callable[[], PreTrainedModel | None]
) -> WeightProblem | None:
    """Return the worst problem of the numbers in weights: NaN or infinity, absurdly large ones, constant matrices.

    A matrix in which all numbers are equal, such as zeros, tells nothing about what goes into it. One is accepted if
    the model's class begins it so, as it does with some biases and gates.

    Args:
        weights: (name, weight); read one after the other.
        blank: makes the model without numbers, or None where its class is not known.
    """
    no_numbers, absurd, equal = list[str](), list[str](), dict[str, float]()
    for name, weight in weights:
        if not (weight.is_floating_point() and weight.element_size() > 1 and weight.numel()):
            continue  # torch cannot say of 8-bit floats; they are refused, or dequantized, when their model loads
        low, high = (float(bound) for bound in weight.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            no_numbers.append(name)
        elif weight.ndim and max(-low, high) > LARGEST_WEIGHT:
            absurd.append(f"{name}: {max(low, high, key=abs):.3g}")
        elif low == high and _is_matrix(name, weight):
            equal[name] = low + 0.0  # of -0 too
    if no_numbers:
        text = f"the weights {named(no_numbers)} hold NaN or infinity"
        return WeightProblem("non-finite-weights", text, "take an earlier checkpoint")
    if absurd:
        text = f"{len(absurd)} weights hold numbers beyond {LARGEST_WEIGHT:,.0f} ({named(absurd)}), as no model does"
        return WeightProblem("absurd-weights", text, "take an earlier checkpoint, or copy the model again, whole")
    if equal and (model := blank()) is not None:
        equal = {name: value for name, value in equal.items() if not _begins_so(model, name, value)}
    if equal:
        names = named([f"{name}: {value:.3g}" for name, value in equal.items()])
        text = f"in {len(equal)} matrices all numbers are equal ({names}): they tell nothing of what goes into them"
        fix = (
            "copy or save the model again, whole; if they are meant to begin so (layers added to a model), set "
            "allow=[constant-weights] (for chat: --allow constant-weights)"
        )
        return WeightProblem("constant-weights", text, fix)
    return None


def _is_matrix(name: str, weight: Tensor) -> bool:
    """Return True for a weight that is multiplied with what goes through it: no bias, no vector, no adapter's half."""
    parts = name.split(".")
    is_other = parts[-1].endswith("bias") or any(part.startswith("lora_") for part in parts)
    return not is_other and sum(size > 1 for size in weight.shape) > 1


def _begins_so(blank: PreTrainedModel, name: str, value: float) -> bool:
    """Return True if the class of a model starts the weight `name` with `value` everywhere.

    A module's weights may also be started by a module around it, the innermost first.
    """
    place, _, part = name.rpartition(".")
    parts = place.split(".")
    try:
        owner = blank.get_submodule(place).to_empty(device="cpu", recurse=False)
        weight = cast("Tensor", getattr(owner, part))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            weight.fill_(math.nan)
            for depth in range(len(parts), -1, -1):
                cast("Any", blank)._init_weights(blank.get_submodule(".".join(parts[:depth])))
    except (AttributeError, RuntimeError, TypeError, ValueError, KeyError):  # the family's own code, without numbers
        return False
    return bool((weight == value).all())


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def bit_sum(value: Tensor) -> int:
    """Return the sum of a tensor's elements with their bits read as integers, as a checksum (it wraps at 64 bits)."""
    return int(value.detach().contiguous().view(_BITS[value.element_size()]).sum(dtype=torch.int64))


@torch.no_grad()
def weights_fingerprint(module: nn.Module) -> str:
    """Return a hash of 16 hex digits over all weights, to tell whether two models hold the same ones.

    For each weight it covers the name, the shape, the sum of its bits and up to 512 spread-out elements. It is equal on
    every device, because integers add up to the same sum in any order.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.flatten()
        sample = flat[:: max(1, flat.numel() // 512)][:512].float().cpu()
        digest.update(f"{name}{tuple(value.shape)}{bit_sum(flat)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 (hex) over the names, shapes and values of all weights; tied ones count once.

    Floating-point values are hashed as float32, so a copy in a wider format, such as a `.gguf` file of type F32, has
    the same hash.
    """
    digest, seen = hashlib.sha256(), set[int]()
    for name, weight in sorted(module.state_dict(keep_vars=True).items()):
        if id(weight) not in seen:
            seen.add(id(weight))
            value = weight.detach().to("cpu", torch.float32 if weight.is_floating_point() else None).contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.numpy())
    return digest.hexdigest()


def end_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids at which a model's own settings end its answers, which may be several (Llama 3, Qwen, Gemma).

    They are those in generation_config.json and in config.json. A single id that is only that of the configuration
    counts if it is a special token: it may be no more than the default of the configuration's class.

    Raises:
        ModelError: `eos_token_id` is neither an id of the vocabulary nor a list of them.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids: set[int] = set()
    for listed, is_certain in _named_ends(model):
        ids |= listed if is_certain else special & listed
    return frozenset(ids)


def check_end_ids(model: nn.Module) -> None:
    """Raise ModelError if a model's own settings name an end token that is none of its tokens."""
    for _ in _named_ends(model):
        pass


def _named_ends(model: nn.Module) -> Iterator[tuple[set[int], bool]]:
    """Yield the end ids of each of a model's settings, and False if they may be no more than their class's default."""
    config, generation = cast("Any", model).config, getattr(model, "generation_config", None)
    vocabulary = input_embeddings(model).shape[0]
    written = not getattr(generation, "_from_model_config", False)
    files = {"generation_config.json": [generation], "config.json": [config, config.get_text_config()]}
    for file, part in ((file, part) for file, parts in files.items() for part in parts):
        named = getattr(part, "eos_token_id", None)
        is_certain = isinstance(named, list) or (part is generation and written)
        yield set(_token_ids(named, file, vocabulary)), is_certain


def _token_ids(value: object, file: str, vocabulary: int) -> list[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    ids = [index for index in values if isinstance(index, int) and not isinstance(index, bool)]
    if len(ids) != len(values) or not all(0 <= index < vocabulary for index in ids):
        raise ModelError(
            f"{file}: eos_token_id is {excerpt(value)}\n"
            f"  fix: write a token's id (0 to {vocabulary - 1}: the model has {vocabulary:,} tokens), or a list of ids"
        )
    return ids
