"""Compare the weights that a model's files hold with those that its class has, so that none is random or left out.

`transformers` fills what a file lacks with random numbers, ignores what it does not know, and only logs both. Here its
report is read: from the headers of the files alone, before any weight is read (`folder_report`), and again from the
model as it was loaded (`loaded_report`), which also covers `.gguf` files and models with their own code.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from trueup.config.paths import adapter_base, is_adapter
from trueup.config.problems import nearest
from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.system.text import excerpt, masked, printable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
_INDEX = ".index.json"
_ADAPTER = "adapter_model.safetensors"
_FILES = ("model.safetensors", "pytorch_model.bin")  # each also in parts, with an index; transformers' own order
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DistributedDataParallel",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
    "base_layer": "an adapter of PEFT that was not merged",
    "base_model": "an adapter of PEFT that was not merged",
}
_BLOCK = re.compile(r"blk\.(\d+)\.")  # a layer in a .gguf file
_LAYER = re.compile(r"\.(\d+)\.")
_SHOWN = 3
_LONGEST = 160


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in a file: its shape, its type as torch names it, and its size in bytes."""

    shape: tuple[int, ...]
    dtype: str
    size: int


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
        target, index = f"{place}-renamed", Path(place, f"model.safetensors{_INDEX}")
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


class Renaming(NamedTuple):
    """A change of names that turns those in the files into the class's: each match of a pattern is replaced.

    It holds no character that a shell replaces inside of double quotes, such as `!`.
    """

    pattern: str
    replacement: str
    text: str
    """The difference in words, for a message."""

    def apply(self, name: str) -> str:
        """Return the class's name of the weight that the files call `name`."""
        return re.sub(self.pattern, self.replacement, name)

    def call(self, variable: str) -> str:
        """Return Python code that renames what the variable holds."""
        return f"re.sub(r'{self.pattern}', r'{self.replacement}', {variable})"


def renaming_of(unexpected: Collection[str], missing: Collection[str], expected: Collection[str]) -> Renaming | None:
    """Return the renaming that explains every difference between the names in the files and the class's, if any.

    Such are the prefix of a wrapper around the model that was saved (`_orig_mod.` of torch.compile), and another
    prefix (`transformer.` for `model.`). The arguments are names that the class does not know, those that it lacks, and
    all of its names.
    """
    if not (unexpected and missing):
        return None
    names, lacking = set(expected), set(missing)
    for renaming in _renamings(unexpected, lacking, names):
        renamed = {renaming.apply(name) for name in unexpected}
        if len(renamed) == len(unexpected) and renamed <= names and renamed >= lacking:
            return renaming
    return None


def _renamings(unexpected: Collection[str], missing: set[str], expected: set[str]) -> Iterator[Renaming]:
    known = {part for name in expected for part in name.split(".")}
    if extra := sorted({part for name in unexpected for part in name.split(".")} - known):
        text = ", ".join(f"{part}." for part in extra)
        pattern = rf"(^|\.)(?:(?:{'|'.join(map(re.escape, extra))})\.)+"
        yield Renaming(pattern, r"\1", f"the names hold {text}{_origin(text)}")
    first = min(unexpected)
    prefixes = {first.removesuffix(name) for name in missing if first.endswith(f".{name}")}
    for prefix in sorted(prefixes, key=len):
        yield Renaming(rf"(^){re.escape(prefix)}", r"\1", f"the names hold {prefix}{_origin(prefix)}")
    heads = {pair for name in missing if (pair := _heads(first, name)) is not None}
    for ours, theirs in sorted(heads, key=lambda pair: len(pair[0]) + len(pair[1])):
        text = f"begin with {ours} where the model's begin with {theirs}" if ours else f"lack {theirs} before them"
        yield Renaming(rf"^{re.escape(ours)}", theirs, f"the names {text}")


def _heads(first: str, second: str) -> tuple[str, str] | None:
    """Return what two names begin with before their longest common end of whole parts; None if they have none."""
    ours, theirs = first.split("."), second.split(".")
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    common = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs)))
    if not common:
        return None
    return "".join(f"{part}." for part in ours[:-common]), "".join(f"{part}." for part in theirs[:-common])


def _origin(removed: str) -> str:
    """Return the text (left by torch.compile) for a removed prefix such as `_orig_mod.`, or ""."""
    origins = sorted({_WRAPPERS[part] for part in removed.replace(", ", "").split(".") if part in _WRAPPERS})
    return f" (left by {', '.join(origins)})" if origins else ""


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers of the layers in names, by the name of their stack, such as {model.layers: {0, 1}}."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        if match := _LAYER.search(name):
            stacks.setdefault(name[: match.start()], set()).add(int(match[1]))
    return stacks


def named(names: Collection[str], separator: str = ", ") -> str:
    """Return the first three of `names` as text for a message, and how many more there are."""
    shown = separator.join(
        printable(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…") for name in [*names][:_SHOWN]
    )
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _families(names: Collection[str]) -> list[str]:
    """Return the first parts of names (mtp.*, model.visual.*), each once, the most frequent first."""
    heads: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        last = next((index for index, part in enumerate(parts) if part.isdigit()), min(1, len(parts) - 1))
        head = ".".join([*parts[: last + 1], "*"]) if len(parts) > last + 1 else name
        heads[head] = heads.get(head, 0) + 1
    return sorted(heads, key=lambda head: (-heads[head], head))


# -- what the files hold ---------------------------------------------------------------------------------------------


def stored_weights(folder: Path) -> dict[str, StoredWeight]:
    """Return name -> weight for all weights that transformers would read from a model's folder; only headers are read.

    Raises:
        ModelError: a file is missing or damaged.
    """
    stored: dict[str, StoredWeight] = {}
    for path in weight_files(folder):
        weights = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
        if twice := sorted(weights.keys() & stored.keys()):
            raise ModelError(
                f"{path}: holds {len(twice)} weights that another part of the model holds too ({named(twice)}); only "
                "one of each would be read\n  fix: copy or save the model again, whole"
            )
        stored |= weights
    return stored


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder from which transformers reads its weights; empty if there are none.

    Raises:
        ModelError: a file that an index names is missing, or the index itself, or there is a whole file beside the
            parts.
    """
    settings = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    given = settings.get("transformers_weights")
    for name in (given,) if isinstance(given, str) else _FILES:
        stem = name.removesuffix(_INDEX)
        index = folder / f"{stem}{_INDEX}"
        weights = read_json(index).get("weight_map") if index.is_file() else None
        names = sorted(set(map(str, weights.values()))) if isinstance(weights, dict) else []
        if (folder / stem).is_file():
            if parts := [part for part in names if part != stem and (folder / part).is_file()]:
                raise ModelError(
                    f"{folder}: its weights are there twice, in {stem} and in parts ({named(parts)}), of which "
                    f"only {stem} would be read\n"
                    "  fix: remove what is not the model's: that file, or the parts and their index"
                )
            return [folder / stem]
        if index.is_file():
            if absent := [part for part in names if not (folder / part).is_file()]:
                raise ModelError(
                    f"{index}: names {len(absent)} files that are not there ({named(absent)})\n"
                    "  fix: copy the model again, whole"
                )
            return [folder / part for part in names]
    if others := sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_")):
        raise ModelError(
            f"{folder}: its weights ({named(others)}) are not where transformers reads them: it has no {_FILES[0]}, "
            f"and no {_FILES[0]}{_INDEX} that names its parts\n  fix: copy the model again, whole"
        )
    return []


def _safetensors(path: Path) -> dict[str, StoredWeight]:
    from safetensors import SafetensorError, safe_open

    weights: dict[str, StoredWeight] = {}
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                part = opened.get_slice(name)
                shape, kind = tuple(part.get_shape()), str(part.get_dtype())
                bits = int(digits[0]) if (digits := re.search(r"\d+", kind)) else 8
                weights[name] = StoredWeight(shape, _TYPES.get(kind, kind), math.prod(shape) * bits // 8)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}\n  fix: copy it again, whole") from None
    return weights


def read_weights(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Return name -> weight for those of `names` that a folder's `.safetensors` hold, as they are stored.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, framework="pt") as opened:
                weights |= {name: opened.get_tensor(name) for name in opened.keys() if name in names}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: not a readable safetensors file: {error}\n  fix: copy it again, whole") from None
    return weights


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return name -> weight of an adapter's `.safetensors`; empty if it has none.

    Raises:
        ModelError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _ADAPTER
    try:
        return load_file(path) if path.is_file() else {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}\n  fix: copy it again, whole") from None


def same_weights(first: Path, second: Path) -> bool:
    """Return True if two models' folders hold the same weights, whatever their files; in another precision too.

    Only `.safetensors` are compared, one weight at a time.

    Raises:
        ModelError: a file is missing or damaged.
    """
    ours, theirs = stored_weights(first), stored_weights(second)
    if not ours or {name: weight.shape for name, weight in ours.items()} != {
        name: weight.shape for name, weight in theirs.items()
    }:
        return False
    compared = False
    for name in sorted(ours, key=lambda name: ours[name].size):  # different models part at the first small weight
        pair = [read_weights(folder, {name}).get(name) for folder in (first, second)]
        if pair[0] is None or pair[1] is None:
            return False
        coarser = min((tensor for tensor in pair if tensor is not None), key=lambda tensor: tensor.element_size()).dtype
        if not torch.equal(pair[0].to(coarser), pair[1].to(coarser)):
            return False
        compared = True
    return compared


def _pickled(path: Path) -> dict[str, StoredWeight]:
    """Return the weights in a pickled file; its tensors alone are read (`weights_only`), without their numbers."""
    content = _if_possible(lambda: torch.load(path, map_location="meta", weights_only=True)) or {}
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return {
        name: StoredWeight(tuple(value.shape), str(value.dtype).removeprefix("torch."), value.nbytes)
        for name, value in tensors.items()
    }


# -- what the class has ----------------------------------------------------------------------------------------------


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
    if config is None or not stored or not _has_class(auto, config, code):
        return None
    blank = require_buildable(auto, config, str(folder), code=code)
    pair = _if_possible(lambda: meta_model(_class_of(auto, config) or type(blank), config, stored))
    if pair is None:
        return None
    model, info = pair
    report = _report(model, auto, info, stored)
    return report if head else without_head(report, model)


def read_model_config(folder: Path, *, code: bool = False) -> Any | None:
    """Return the configuration of a model's folder; None if it has none, or needs code of its own that may not run.

    Raises:
        ModelError: transformers cannot read its config.json.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=code)
    except Exception as error:  # a library may raise anything on a file that is no model's
        if not code and read_json(folder / "config.json").get("auto_map"):
            return None
        raise ModelError(config_message(str(folder), error, read_json(folder / "config.json"))) from error


def _class_of(auto: Any, config: Any) -> Any | None:
    """Return transformers' own class that `auto` loads for a configuration; None if it has none."""
    mapping = auto._model_mapping
    if type(config) in mapping:
        return mapping[type(config)]
    return None


def _has_class(auto: Any, config: Any, code: bool) -> bool:
    """Return True if there is a class that `auto` may load: transformers' own, or with `code` the model's."""
    classes = getattr(config, "auto_map", None)
    own = classes.get(auto.__name__) if isinstance(classes, dict) else None
    return own is not None if code and own is not None else _class_of(auto, config) is not None


def require_buildable(auto: Any, config: Any, place: str, *, code: bool = False) -> PreTrainedModel:
    """Return the model that `auto` makes of a configuration, with shapes and no numbers.

    Raises:
        ModelError: its class refuses the configuration. `place` is the model's folder or name, for the message.
    """
    try:
        return blank_model(auto, config, code=code)
    except Exception as error:  # a library may raise anything on settings that are wrong
        # The loader makes the model in a context of its own, in which more of them can be made without numbers.
        kind = _class_of(auto, config)
        pair = None if kind is None else _if_possible(lambda: meta_model(kind, config, {}))
        if pair is None:
            raise ModelError(config_message(place, error, config.to_dict())) from error
        return pair[0]


def config_message(place: str, error: Exception, settings: Mapping[str, Any]) -> str:
    """Return the message for a config.json of which transformers can make no model; `settings` are what it holds.

    It names the keys whose values the error quotes.
    """
    if isinstance(error, ImportError):
        return f"{place}: {library_reason(error, 300)}\n  fix: install that package into trueup's environment"
    quoted = [
        f"{key}: {value!r}"
        for key, value in _leaves(settings)
        if isinstance(value, str) and len(value) > 1 and any(f"{mark}{value}{mark}" in str(error) for mark in "'\"`")
    ]
    keys = f" ({named(quoted)})" if quoted else ""
    return (
        f"{place}: transformers can make no model of its config.json{keys}: {library_reason(error, 300)}\n"
        "  fix: correct that value, or take the config.json that belongs to these weights; or another version of "
        "transformers, if the model is newer than this one"
    )


def frequencies_message(place: str, name: str) -> str:
    """Return the message for rotary frequencies of NaN or infinity, in the buffer `name`."""
    return (
        f"{place}: the rotary frequencies {name}, which follow from its config.json, hold NaN or infinity\n"
        "  fix: correct rope_parameters (rope_theta, factor) there, or take the model's own config.json"
    )


def endless_frequencies(blank: nn.Module) -> str | None:
    """Return the name of the first rotary frequencies that are NaN or infinity; `blank` is a model without numbers.

    Their modules are made again, with numbers. One that is not made of the configuration alone is left out.
    """
    config = cast("Any", blank).config.get_text_config()

    def remade(module: nn.Module) -> nn.Module | None:
        return _if_possible(lambda: cast("Any", type(module))(config=config))

    for name, module in blank.named_modules():
        if not any("inv_freq" in buffer for buffer, _ in module.named_buffers(recurse=False)):
            continue
        with_numbers = remade(module)
        for buffer, value in with_numbers.named_buffers() if with_numbers is not None else ():
            if "inv_freq" in buffer and not value.is_meta and not bool(value.isfinite().all()):
                return f"{name}.{buffer}"
    return None


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in nested settings that is no mapping itself."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def library_reason(error: Exception, limit: int) -> str:
    """Return a library's error as one line of at most `limit` characters, with its class unless that says nothing."""
    is_plain = isinstance(error, OSError | ValueError | RuntimeError)
    message = masked(f"{'' if is_plain else type(error).__name__ + ': '}{error}")
    return excerpt(" ".join(message.split()), limit)[1:-1]


def _if_possible(work: Callable[[], T]) -> T | None:
    """Return `work()`, or None if a library refuses a model's files: the loader, which meets the same, reports it."""
    try:
        return work()
    except Exception:  # noqa: BLE001 -- a library may raise anything on files that are not a model
        return None


def meta_model(kind: Any, config: Any, stored: Mapping[str, StoredWeight]) -> tuple[Any, dict[str, Any]]:
    """Return a model with shapes and no numbers, and transformers' report of loading weights of such shapes into it.

    `kind` is the model's class.
    """
    weights = {name: torch.empty(weight.shape, device="meta") for name, weight in stored.items()}
    with torch.random.fork_rng(devices=[]):  # the numbers that training draws do not depend on a check
        return kind.from_pretrained(
            None, config=config, state_dict=weights, device_map="meta", dtype=torch.float32,
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip


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

    model = _if_possible(lambda: blank_model(AutoModelForCausalLM, config))
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


# -- adapters --------------------------------------------------------------------------------------------------------


class AdapterReport(NamedTuple):
    """The differences between an adapter's file and the adapter that its settings make over a base, as PEFT reports."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, str, str], ...] = ()
    """(name, shape in the file, shape over this base)."""
    expected: tuple[str, ...] = ()
    vocabulary: int | None = None
    """Number of tokens of the base."""


def skeleton(model: str) -> PreTrainedModel | None:
    """Return the causal language model of a folder, or of an adapter's base, with its settings and without numbers.

    Return None for a name on the hub, a `.gguf` file, or a class that is not transformers' own.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = Path(adapter_base(Path(model)) if is_adapter(Path(model)) else model)
    if not (folder / "config.json").is_file():
        return None
    trunk = _if_possible(
        lambda: blank_model(AutoModelForCausalLM, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    )
    if trunk is not None and (folder / "generation_config.json").is_file():
        with suppress(Exception):  # as in loading: a file that is no such configuration is left out
            trunk.generation_config = GenerationConfig.from_pretrained(folder)
    return trunk


def blank_model(auto: Any, config: Any, *, code: bool = False) -> Any:
    """Return the model that `auto` makes of a configuration, with shapes and no numbers; `code` runs its own code."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return auto.from_config(copy.deepcopy(config), trust_remote_code=code)


def meta_base(base: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same class and configuration with shapes and no numbers."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return type(base)(copy.deepcopy(base.config))


def adapter_report(folder: Path, base: PreTrainedModel) -> AdapterReport | None:
    """Compare the header of an adapter's file with the adapter that its settings make over `base`, as PEFT reports.

    `base` needs shapes only (`meta_base`), and gets the adapter. Return None where PEFT cannot make it without numbers.

    Raises:
        ModelError: the file is missing or damaged, its settings are not PEFT's, or the base has none of the adapter's
            target modules.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    check_adapter_settings(folder)
    path = folder / _ADAPTER
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            return None
        raise ModelError(_no_adapter_weights(folder))
    stored = _safetensors(path)
    weights = {name: torch.empty(weight.shape, device="meta") for name, weight in stored.items()}

    def load() -> tuple[Any, Any]:
        settings = PeftConfig.from_pretrained(str(folder))
        adapted = get_peft_model(base, settings, adapter_name="default", low_cpu_mem_usage=True)
        return adapted, set_peft_model_state_dict(
            adapted, weights, "default", ignore_mismatched_sizes=True, low_cpu_mem_usage=True
        )

    with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices=[]):
        warnings.simplefilter("always")
        try:
            pair = load()
        except ValueError as error:
            if "not found in the base model" not in str(error):
                return None
            raise ModelError(
                f"{folder}: this adapter does not fit a {type(base).__name__}, which has none of its target modules\n"
                "  fix: name the base that it was trained over in adapter_config.json"
            ) from error
        except Exception:  # noqa: BLE001 -- as in `_if_possible`: the loader, which meets the same, reports it
            return None
    adapted, result = pair
    shapes = [match.groups() for warning in caught for match in _SHAPES.finditer(str(warning.message))]
    expected = [name for name, _ in adapted.named_parameters() if _is_adapters(name)]
    mismatched = tuple((name, ours, theirs) for name, ours, theirs in shapes)
    missing = sorted(set(filter(_is_adapters, result.missing_keys)) - {name for name, _, _ in mismatched})
    vocabulary = getattr(base.config.get_text_config(), "vocab_size", None)
    # PEFT also calls a weight unexpected whose name it has completed before it compared the shapes.
    known = {name.replace(".default", "") for name, _, _ in mismatched}
    unexpected = sorted(set(result.unexpected_keys) - known)
    return AdapterReport(tuple(missing), tuple(unexpected), mismatched, tuple(expected), vocabulary)


def _no_adapter_weights(folder: Path) -> str:
    """Return the message for an adapter's folder without the file that PEFT reads."""
    parts = sorted(path.name for path in folder.glob(f"{_ADAPTER.removesuffix('.safetensors')}-*.safetensors"))
    if not parts:
        return f"{folder}: has no {_ADAPTER}, the adapter's weights\n  fix: copy the adapter again, whole"
    return (
        f"{folder}: its weights are in {len(parts)} parts ({named(parts)}), and PEFT reads only {_ADAPTER}\n"
        '  fix: join them: python -c "from pathlib import Path; from safetensors.torch import load_file, save_file; '
        f"f = Path({str(folder)!r}); w = {{}}; "
        "[w.update(load_file(p)) for p in f.glob('adapter_model-*.safetensors')]; "
        f"save_file(w, f / '{_ADAPTER}', {{'format': 'pt'}})\""
    )


_FACTOR = re.compile(r"(?:alpha|scaling)$")
"""Settings that multiply an adapter: a value that is missing or wrong changes what it computes, not its shapes."""


def check_adapter_settings(folder: Path) -> None:
    """Check that PEFT reads every setting in an adapter's adapter_config.json, and takes no factor from its defaults.

    Raises:
        ModelError: PEFT does not know a key and would ignore it, or the adapter's factor is missing or no number.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    path = folder / "adapter_config.json"
    settings = read_json(path)
    types: dict[Any, Any] = dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    kind = types.get(settings.get("peft_type"))
    if kind is None:
        return
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in known and value:  # a later version writes its new settings even where they change nothing
            close = nearest(key, [name for name in known if name not in settings])
            raise ModelError(
                f"{path}: {excerpt(key)[1:-1]} is no setting of {kind.__name__} in peft {peft.__version__}, which "
                f"would ignore it{f' (did you mean {close}?)' if close else ''}\n"
                "  fix: correct the key, or take it out; or install the version of peft that wrote it"
            )
    for key, default in known.items():
        if not _FACTOR.search(key) or isinstance(default, bool) or not isinstance(default, int | float):
            continue
        value = settings.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            state = f"is {excerpt(value)}, not a number above 0" if key in settings else f"is missing (PEFT: {default})"
            raise ModelError(
                f"{path}: {key} {state}; the strength of the adapter depends on it\n"
                "  fix: write the value that it was trained with"
            )


_SHAPES = re.compile(r"- (\S+): found shape torch\.Size\((\[.*?\])\) in the checkpoint and torch\.Size\((\[.*?\])\)")


def _is_adapters(name: str) -> bool:
    """Return True if a parameter of PEFT's model belongs to the adapter called "default", not to the base."""
    return ".default" in name and ".base_layer." not in name


def adapter_problem(report: AdapterReport, folder: Path, base: str) -> tuple[str, str] | None:
    """Return the difference between an adapter and its base as (text, fix), or None if there is none.

    Args:
        report: PEFT's report.
        folder: the adapter's folder.
        base: the base's folder or hub id.
    """
    of_all = f" of {len(report.expected)}" if report.expected else ""
    missing, parts = [name.replace(".default", "") for name in report.missing], list[str]()
    if missing:
        parts.append(f"{len(missing)}{of_all} weights missing, which would be untrained ({named(missing)})")
    if report.unexpected:
        names = named(report.unexpected)
        parts.append(f"{len(report.unexpected)} for no layer of it, which would be ignored ({names})")
    if report.mismatched:
        names = [f"{name}: {ours} in the file, {theirs} over this base" for name, ours, theirs in report.mismatched]
        parts.append(f"{len(names)} of another shape ({named(names, '; ')})")
    if not parts:
        return None
    text = f"{folder}: this adapter does not fit {base}: {'; '.join(parts)}"
    expected = [name.replace(".default", "") for name in report.expected]
    if (renaming := renaming_of(report.unexpected, missing, expected)) is not None:
        path = str(folder / _ADAPTER)
        return text, (
            f"{renaming.text}; rename them: "
            'python -c "import re; from safetensors.torch import load_file, save_file; '
            f"save_file({{{renaming.call('name')}: value.clone() "
            f"for name, value in load_file({path!r}).items()}}, {path!r}, {{'format': 'pt'}})\""
        )
    if (tokens := _trained_vocabulary(report)) is not None:
        return text, (
            f"the base has {report.vocabulary} tokens, the adapter was trained over {tokens}: resize the base as that "
            f'training did, save it, and name it in adapter_config.json: python -c "from transformers import '
            f"AutoModelForCausalLM; m = AutoModelForCausalLM.from_pretrained({base!r}, dtype='auto'); "
            f"m.resize_token_embeddings({tokens}); m.save_pretrained('{Path(base).name}-resized')\" (and its tokenizer)"
        )
    return text, "name the base that it was trained over in adapter_config.json, or copy the adapter again, whole"


def _trained_vocabulary(report: AdapterReport) -> int | None:
    """Return the vocabulary that an adapter was trained with, if that is the only difference from the base's."""
    tokens: set[int] = set()
    for _, ours, theirs in report.mismatched:
        pairs = list(zip(json.loads(ours), json.loads(theirs), strict=False))
        differing = [pair for pair in pairs if pair[0] != pair[1]]
        if len(differing) != 1 or differing[0][1] != report.vocabulary:
            return None
        tokens.add(differing[0][0])
    return tokens.pop() if len(tokens) == 1 else None


def require_adapter_match(report: AdapterReport | None, folder: Path, base: str) -> None:
    """Raise ModelError if an adapter's report has a difference; the arguments are those of `adapter_problem`.

    Raises:
        ModelError: a weight of the adapter is missing, fits no layer, or has another shape.
    """
    if report is not None and (problem := adapter_problem(report, folder, base)) is not None:
        raise ModelError("{}\n  fix: {}".format(*problem))
