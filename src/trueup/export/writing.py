"""Write trained roles as standard folders that other tools open without trueup.

`model/` is a plain Hugging Face folder with LoRA merged in; `adapter/` is the PEFT adapter. A reward model is an
`AutoModelForSequenceClassification` with one label. Each folder is written beside and renamed into place.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trueup.errors import ModelError
from trueup.models import HEAD_KEY
from trueup.weights import score_head

if TYPE_CHECKING:
    from trueup.config import LoraConfig
    from trueup.models import Network

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_policy(network: Network, folder: Path, *, role: str = "policy") -> None:
    """Write a causal language model with its tokenizer, template and stop tokens."""
    trunk = cast("Any", network.trunk(role))  # transformers' annotations of its mixins mislead type checkers
    temporary = _fresh(folder)
    generation = copy.deepcopy(trunk.generation_config)
    stops = [network.renderer.end_id, *sorted(network.renderer.stop_ids - {network.renderer.end_id})]
    if generation is not None:
        # Other tools stop only where this file tells them to.
        generation.eos_token_id = stops if len(stops) > 1 else stops[0]
        generation.pad_token_id = network.tokenizer.pad_token_id
    state, config = merged_state(network, role), trunk.config
    previous, trunk.generation_config = trunk.generation_config, generation
    try:
        if _came_apart(trunk, state):
            trunk.config = copy.deepcopy(config)
            trunk.config.tie_word_embeddings = False
        trunk.save_pretrained(temporary, state_dict=state)
    finally:
        trunk.generation_config, trunk.config = previous, config
    network.tokenizer.save_pretrained(temporary)
    _publish(temporary, folder)


def _came_apart(trunk: Any, state: dict[str, Tensor]) -> bool:
    """Whether embedding and LM head were one matrix until an adapter changed one of the two."""
    if not trunk.config.tie_word_embeddings:
        return False
    ends: tuple[nn.Module, nn.Module] = (trunk.get_input_embeddings(), trunk.get_output_embeddings())
    names = {id(module): name for name, module in trunk.named_modules()}
    first, second = (state[f"{names[id(end)]}.weight"] for end in ends)
    return first.data_ptr() != second.data_ptr()


def export_reward(network: Network, folder: Path, *, role: str = "reward") -> None:
    """Write a one-label sequence classifier.

    The score is read at the last token that is not the pad token, as transformers does. Where pad and end token are
    the same id, another special token is made the pad token, or the end token itself would be passed over.
    """
    from transformers import AutoModelForSequenceClassification

    trunk, place = cast("Any", network.trunk(role)), network.roles[role]
    config = copy.deepcopy(trunk.config)
    config.num_labels = 1
    config.pad_token_id, pad_token = _pad_apart(network)
    with torch.device("meta"):
        classifier = cast("nn.Module", AutoModelForSequenceClassification.from_config(config))
    state = {name: one for name, one in merged_state(network, role).items() if name in classifier.state_dict()}
    head = score_head(classifier)
    head_name = next(name for name, module in classifier.named_modules() if module is head)
    dtype = next(iter(state.values())).dtype
    score = cast("nn.Linear", network.heads[cast("str", place.head)])
    state[f"{head_name}.weight"] = score.weight.detach().to(dtype)
    if missing := set(classifier.state_dict()) - set(state):
        raise ModelError(f"cannot export the reward model: no weights for {sorted(missing)[:3]}")
    classifier.load_state_dict(state, assign=True)
    temporary = _fresh(folder)
    cast("Any", classifier).save_pretrained(temporary, state_dict=state)
    tokenizer = copy.deepcopy(network.tokenizer)
    tokenizer.pad_token = pad_token
    tokenizer.save_pretrained(temporary)
    _publish(temporary, folder)


def _pad_apart(network: Network) -> tuple[int | None, str | None]:
    """A pad token that ends no answer: the tokenizer's own, else another special token."""
    tokenizer, end = network.tokenizer, network.renderer.end_id
    if tokenizer.pad_token_id != end:
        return cast("int", tokenizer.pad_token_id), cast("str", tokenizer.pad_token)
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for index, token in (named | added).items():
        if index not in (end, tokenizer.bos_token_id):
            return index, token
    return None, None


@torch.no_grad()
def merged_state(network: Network, role: str) -> dict[str, Tensor]:
    """The role's trunk as plain weights: LoRA deltas added, PEFT's names undone. Only changed matrices are copies."""
    trunk, adapter = cast("nn.Module", network.trunk(role)), network.roles[role].adapter
    deltas = _deltas(trunk, adapter)
    state: dict[str, Tensor] = {}
    for name, weight in trunk.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        delta = deltas.get(plain.removesuffix(".weight"))
        # Added in float32: a bfloat16 sum would lose small updates before they are rounded once.
        state[plain] = weight if delta is None else (weight.float() + delta.float()).to(weight.dtype)
    return state


def _deltas(trunk: nn.Module, adapter: str | None) -> dict[str, Tensor]:
    if adapter is None:
        return {}
    layers = {name: cast("Any", module) for name, module in trunk.named_modules() if hasattr(module, "lora_A")}
    return {
        name: layer.get_delta_weight(adapter)
        for name, layer in layers.items()
        if adapter in layer.lora_A or adapter in getattr(layer, "lora_embedding_A", {})
    }


def export_adapter(network: Network, folder: Path, lora: LoraConfig, *, role: str, base: str) -> None:
    """Write the role's LoRA adapter as a PEFT folder; a reward adapter carries its score head."""
    temporary = _fresh(folder)
    network.save_adapter(role, temporary)
    weights_path, settings_path = temporary / "adapter_model.safetensors", temporary / "adapter_config.json"
    settings = json.loads(settings_path.read_text())
    settings |= {"base_model_name_or_path": base, "task_type": "CAUSAL_LM"}
    head = network.roles[role].head
    if head is not None:
        weights = load_file(weights_path)
        weights[HEAD_KEY] = cast("nn.Linear", network.heads[head]).weight.detach().cpu().contiguous()
        save_file(weights, weights_path, metadata={"format": "pt"})
        settings |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    settings_path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    origin = {"base_fingerprint": network.base_fingerprint, "r": lora.r, "role": role}
    (temporary / "trueup.json").write_text(json.dumps(origin, indent=2) + "\n")
    _publish(temporary, folder)


def adapter_for(folder: Path, network: Network) -> Path | None:
    """The reward adapter in a run folder, if it was trained over exactly this network's base; else None."""
    origin = folder / "adapter" / "trueup.json"
    if not origin.is_file():
        return None
    settings = json.loads(origin.read_text())
    same = settings.get("base_fingerprint") == network.base_fingerprint
    return origin.parent if same and settings.get("role") == "reward" else None


def run(run_folder: Path, output: Path, *, merge: bool = True, dtype: str = "auto") -> None:
    """`trueup export`: write a finished run's model elsewhere, in another dtype if asked, or only its adapter.

    Raises:
        ModelError: the run has no model, or (without `merge`) no adapter; `output` is there already; the dtype is
            unknown, or asked for an adapter, which is only copied.
    """
    if output.exists():
        raise ModelError(f"{output} is there already; name a folder that is not, or remove it")
    source = run_folder / ("model" if merge else "adapter")
    if not merge:
        if not source.is_dir():
            raise ModelError(f"{run_folder} has no adapter: it was not trained with lora; leave out --no-merge")
        if dtype != "auto":
            raise ModelError("dtype: an adapter is exported as it was trained; leave out dtype, or --no-merge")
        _copy(source, output)
    else:
        source = source if source.is_dir() else run_folder
        if not (source / "config.json").is_file():
            raise ModelError(f"{run_folder} has no model: give the folder of a finished run, or a model's own")
        if dtype == "auto":
            _copy(source, output)
        else:
            _convert(source, output, dtype)
    print(f"written to {output}")


def _copy(source: Path, output: Path) -> None:
    temporary = _fresh(output)
    shutil.copytree(source, temporary, dirs_exist_ok=True)
    _publish(temporary, output)


def _convert(source: Path, output: Path, dtype: str) -> None:
    """Cast every floating-point weight, file by file, and say so in config.json."""
    if dtype not in _DTYPES:
        raise ModelError(f"dtype: {dtype!r} is unknown; use auto, {', '.join(_DTYPES)}")
    temporary = _fresh(output)
    shutil.copytree(source, temporary, dirs_exist_ok=True)
    for path in temporary.glob("*.safetensors"):
        tensors = {
            name: one.to(_DTYPES[dtype]) if one.is_floating_point() else one for name, one in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    settings = json.loads((temporary / "config.json").read_text())
    settings["dtype"] = dtype
    (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    _publish(temporary, output)


def _fresh(folder: Path) -> Path:
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def _publish(temporary: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
