"""Compare the weights that a model's files hold with those that its class has, so that none is random or left out.

`transformers` fills what a file lacks with random numbers, ignores what it does not know, and only logs both. Here its
report is read: from the headers of the files alone, before any weight is read (`folder_report`), and again from the
model as it was loaded (`loaded_report`), which also covers `.gguf` files and models with their own code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.models.blank import (
    blank_model,
    class_of,
    has_class,
    if_possible,
    meta_model,
    read_model_config,
    require_buildable,
)
from trueup.models.renaming import Renaming, renaming_of
from trueup.models.stored import INDEX, StoredWeight, named, stored_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
_BLOCK = re.compile(r"blk\.(\d+)\.")  # a layer in a .gguf file
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """The differences between the weights in a model's files and those of its class.

    Attributes:
        model: the class's name, such as LlamaForCausalLM.
        auto: the name of transformers' Auto class that loads it.
        expected: names of all weights that the class has.
        missing: names of those that no file holds.
        unexpected: names in the files that the class does not know.
        mismatched: (name, shape in the file, shape in the class).
        wrong_types: name -> type, for weights that are integers or 8-bit floats where the class has floats.
        left_out: names in the files that the class itself ignores on loading, such as `mtp.*` (multi-token prediction).
        stored: the weights in the files; empty if they could not be listed.
        layers: number of layers in config.json.
        tied: (name, name of the weight that it shares), for weights that the class shares although the files hold both.
    """

    model: str
    expected: frozenset[str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    wrong_types: Mapping[str, str]
    left_out: tuple[str, ...]
    stored: Mapping[str, StoredWeight]
    layers: int | None
    tied: tuple[tuple[str, str], ...] = ()

    @property
    def only_unexpected(self) -> bool:
        """True if the class got all of its weights, and the files hold more."""
        return bool(self.unexpected) and not (self.missing or self.mismatched or self.wrong_types)

    def share(self, names: Iterable[str]) -> float:
        """Return the share of the files' bytes that the weights called `names` take; NaN if the sizes are unknown."""
        total = sum(weight.size for weight in self.stored.values())
        return sum(self.stored[name].size for name in names if name in self.stored) / total if total else math.nan

    def ignored(self, names: Collection[str]) -> str:
        """Return the names of ignored weights as text, with their number and their share of bytes."""
        share = self.share(names)
        amount = "" if math.isnan(share) else f", {share:.2g}" if share < 0.001 else f", {share:.1%}"
        amount = amount and f"{amount} of the bytes"
        return f"{len(names)} of its weights{amount} ({named(_families(names))})"

    def problem(self, place: str) -> tuple[str, str] | None:
        """Return the difference as (text, fix), or None if there is none. `place` is the model's folder or name."""
        parts: list[str] = []
        if self.wrong_types:
            names = [f"{name}: {dtype}" for name, dtype in sorted(self.wrong_types.items())]
            scales = "" if any("scale" in name for name in self.unexpected) else " without their scales"
            parts.append(f"{len(names)} quantized{scales}, where it has floats ({named(names)})")
        if self.missing:
            names = named(sorted(self.missing))
            parts.append(f"{len(self.missing)} of {len(self.expected)} missing, which would be random ({names})")
        if self.mismatched:
            names = [f"{name}: {[*ours]} in the file, {[*model]} in the model" for name, ours, model in self.mismatched]
            parts.append(f"{len(names)} of another shape ({named(names, '; ')})")
        if self.unexpected:
            share = self.share(self.unexpected)
            amount = "" if math.isnan(share) else f"; {share:.1%} of the bytes"
            names = named(sorted(self.unexpected))
            parts.append(f"{len(self.unexpected)} unknown to it, which would be ignored ({names}{amount})")
        if not parts:
            return None
        text = f"{place}: its weights are not those of a {self.model}: {'; '.join(parts)}{self._layers()}"
        return text, self._fix(place)

    def _layers(self) -> str:
        """Return the text that config.json and the files have other numbers of layers, or ""."""
        in_model, in_files = _layers(self.expected), _layers(self.stored)
        stacks = [stack for stack in in_model if stack in in_files and in_model[stack] != in_files[stack]]
        if not stacks or self.layers is None:
            return ""
        return f". config.json says {self.layers} layers, the files hold {len(in_files[stacks[0]])} ({stacks[0]})"

    def _fix(self, place: str) -> str:
        if self.wrong_types:
            return "take the model's unquantized weights (bfloat16 or float32)"
        renaming = None if self.mismatched else renaming_of(self.unexpected, self.missing, self.expected)
        if renaming is not None:
            return self._renamed(place, renaming)
        if any(".lora_" in name for name in self.unexpected):
            return "an adapter is in these weights: merge it before saving (PEFT's merge_and_unload)"
        if any(name.startswith("score.") for name in self.unexpected):
            return "it has a reward model's score head: name a model that writes text, or give this one as `reward`"
        if self.only_unexpected:
            return (
                "take the config.json that belongs to these weights; if they are left out on purpose (a vision tower, "
                "layers for multi-token prediction), set allow=[ignored-weights] (for chat: --allow ignored-weights)"
            )
        if any(name.startswith("score.") for name in self.missing):
            return "a reward model has a trained score head: train one with `trueup reward`, or copy it whole again"
        return "copy or save the model again, whole, with the config.json that belongs to it"

    def _renamed(self, place: str, renaming: Renaming) -> str:
        if not Path(place).is_dir():
            return f"{renaming.text}; download it (`hf download {place} --local-dir FOLDER`) and check that folder"
        target, index = f"{place}-renamed", Path(place, f"model.safetensors{INDEX}")
        of_index = (
            f"; p = Path({target!r}, {index.name!r}); d = json.loads(p.read_text()); "
            f"d['weight_map'] = {{{renaming.call('n')}: f for n, f in d['weight_map'].items()}}; "
            "p.write_text(json.dumps(d))"
        )
        return (
            f"{renaming.text}; make a copy with the right ones, and name {target}: "
            'python -c "import json, re, shutil; from pathlib import Path; '
            f"from safetensors.torch import load_file, save_file; shutil.copytree({place!r}, {target!r}); "
            f"[save_file({{{renaming.call('n')}: w.clone() for n, w in load_file(p).items()}}, p, "
            f"{{'format': 'pt'}}) for p in Path({target!r}).glob('*.safetensors')]"
            f'{of_index if index.is_file() else ""}"'
        )


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers of the layers in names, by the name of their stack, such as {model.layers: {0, 1}}."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        if match := _LAYER.search(name):
            stacks.setdefault(name[: match.start()], set()).add(int(match[1]))
    return stacks


def _families(names: Collection[str]) -> list[str]:
    """Return the first parts of names (mtp.*, model.visual.*), each once, the most frequent first."""
    heads: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        last = next((index for index, part in enumerate(parts) if part.isdigit()), min(1, len(parts) - 1))
        head = ".".join([*parts[: last + 1], "*"]) if len(parts) > last + 1 else name
        heads[head] = heads.get(head, 0) + 1
    return sorted(heads, key=lambda head: (-heads[head], head))


def folder_report(folder: Path, auto: Any, *, head: bool = True, code: bool = False) -> WeightsReport | None:
    """Compare the headers of a folder's weight files with the class that `auto` makes of its config.json.

    transformers itself compares, with weights that have a shape and no numbers, so renamed, fused and tied weights are
    known to it as in loading. With `head` False a missing LM head is no difference; `code` runs the model's own code
    where its class is in it. Return None where that is not possible, or without weight files.

    Raises:
        ModelError: a file is missing or damaged, or transformers cannot make a model of the config.json.
    """
    if (generation := folder / "generation_config.json").is_file():
        read_json(generation)  # transformers leaves out a damaged one, and with it the ids that end an answer
    stored = stored_weights(folder)
    config = read_model_config(folder, code=code)
    if config is None or not stored or not has_class(auto, config, code):
        return None
    blank = require_buildable(auto, config, str(folder), code=code)
    pair = if_possible(lambda: meta_model(class_of(auto, config) or type(blank), config, stored))
    if pair is None:
        return None
    model, info = pair
    report = _report(model, auto, info, stored)
    return report if head else without_head(report, model)


def loaded_report(
    model: PreTrainedModel, auto: Any, info: Mapping[str, Any], folder: Path | None, *, head: bool = True
) -> WeightsReport:
    """Return the report of a loaded model.

    Args:
        model: the model.
        auto: transformers' Auto class that loaded it.
        info: transformers' report of the loading.
        folder: the folder of its weight files; None if it has none.
        head: False if a missing LM head is no difference.
    """
    report = _report(model, auto, info, stored_weights(folder) if folder is not None else {})
    return report if head else without_head(report, model)


def _report(model: Any, auto: Any, info: Mapping[str, Any], stored: Mapping[str, StoredWeight]) -> WeightsReport:
    expected = {name: weight.dtype.is_floating_point for name, weight in model.state_dict().items()}
    missing, unexpected = set(info["missing_keys"]), set(info["unexpected_keys"])
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    missing -= {name for name, source in tied.items() if source in missing}
    left_out = _left_out(model, set(stored) - unexpected - set(expected))
    # Loading may rename a module, but not what is in it: DeepSeek V4's table of experts by token holds integers.
    integers = {name.rpartition(".")[2] for name, is_float in expected.items() if not is_float}
    wrong = {
        name: weight.dtype
        for name, weight in stored.items()
        if weight.dtype not in _FLOATS and name.rpartition(".")[2] not in integers and name not in left_out | unexpected
    }
    if auto.__name__ == "AutoModelForSequenceClassification" and unexpected:
        unexpected -= _head_names(model.config)  # a reward model has no use for a language model's head
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    shapes = sorted((name, tuple(ours), tuple(theirs)) for name, ours, theirs in info["mismatched_keys"])
    return WeightsReport(
        type(model).__name__, frozenset(expected), tuple(sorted(missing)), tuple(sorted(unexpected)),
        tuple(shapes), wrong, tuple(sorted(left_out)), stored, layers if isinstance(layers, int) else None,
        tuple((name, source) for name, source in tied.items() if name in stored and source in stored),
    )  # fmt: skip


def _left_out(model: Any, names: set[str]) -> set[str]:
    """Return the names that the model's class leaves out on loading, by its own patterns."""
    patterns = {*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), r"inv_freq", r"position_ids$"}
    pattern = re.compile("|".join(f"({part})" for part in patterns))
    return {name for name in names if pattern.search(name)}


def _head_names(config: Any) -> set[str]:
    """Return the names of the weights of the LM head that a causal language model of this configuration has."""
    from transformers import AutoModelForCausalLM

    model = if_possible(lambda: blank_model(AutoModelForCausalLM, config))
    return set() if model is None else head_names(model)


def head_names(model: Any) -> set[str]:
    """Return the names of the weights of a language model's head; empty if it has none."""
    head = model.get_output_embeddings()
    name = next((name for name, module in model.named_modules() if module is head), None)
    return set() if name is None else {f"{name}.{part}" for part, _ in head.named_parameters()}


def without_head(report: WeightsReport, model: Any) -> WeightsReport:
    """Return the report without a missing LM head, for a model that is only scored and never reaches its head."""
    missing = tuple(name for name in report.missing if name not in head_names(model))
    return replace(report, missing=missing)


def with_layers_beyond(report: WeightsReport, path: Path) -> WeightsReport:
    """Return the report of a `.gguf` file with the weights of layers past the last, which transformers never reads."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    stored = {
        tensor.name: StoredWeight(tuple(map(int, tensor.shape)), tensor.tensor_type.name, int(tensor.n_bytes))
        for tensor in tensors
    }
    layers = report.layers or math.inf
    beyond = [name for name in stored if (match := _BLOCK.match(name)) and int(match[1]) >= layers]
    return replace(report, unexpected=(*report.unexpected, *sorted(beyond)), stored=stored)


def require_match(report: WeightsReport, place: str, *, ignored_weights: bool) -> None:
    """Raise ModelError if the report has a difference; `ignored_weights` accepts weights that the class has no use for.

    Raises:
        ModelError: weights are missing, of another shape or type, or not known to the class.
    """
    if report.only_unexpected and ignored_weights:
        return
    if (problem := report.problem(place)) is not None:
        raise ModelError("{}\n  fix: {}".format(*problem))
