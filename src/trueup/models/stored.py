"""Weights in a model's files: which there are, from the headers alone; their numbers, for those that are asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.system.text import printable

ADAPTER = "adapter_model.safetensors"
INDEX = ".index.json"
_FILES = ("model.safetensors", "pytorch_model.bin")  # each also in parts, with an index; transformers' own order
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
_SHOWN = 3
_LONGEST = 160


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in a file: its shape, its type as torch names it, and its size in bytes."""

    shape: tuple[int, ...]
    dtype: str
    size: int


def stored_weights(folder: Path) -> dict[str, StoredWeight]:
    """Return name -> weight for all weights that transformers would read from a model's folder; only headers are read.

    Raises:
        ModelError: a file is missing or damaged.
    """
    stored: dict[str, StoredWeight] = {}
    for path in weight_files(folder):
        weights = read_header(path) if path.suffix == ".safetensors" else _pickled(path)
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
        stem = name.removesuffix(INDEX)
        index = folder / f"{stem}{INDEX}"
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
            f"and no {_FILES[0]}{INDEX} that names its parts\n  fix: copy the model again, whole"
        )
    return []


def read_header(path: Path) -> dict[str, StoredWeight]:
    """Return name -> weight of a `.safetensors` file, from its header.

    Raises:
        ModelError: the file is damaged.
    """
    weights: dict[str, StoredWeight] = {}
    with _opened(path) as file:
        names = file.keys()
        for name in names:
            part = file.get_slice(name)
            shape, kind = tuple(part.get_shape()), str(part.get_dtype())
            bits = int(digits[0]) if (digits := re.search(r"\d+", kind)) else 8
            weights[name] = StoredWeight(shape, _TYPES.get(kind, kind), math.prod(shape) * bits // 8)
    return weights


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a `.safetensors` file, and raise ModelError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}\n  fix: copy it again, whole") from None


def tensors_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of every tensor in a `.safetensors` file, one at a time.

    Raises:
        ModelError: the file is damaged.
    """
    with _opened(path) as file:
        names = file.keys()
        for name in names:
            yield name, file.get_tensor(name)


def read_weights(folder: Path, names: Set[str]) -> dict[str, Tensor]:
    """Return name -> weight for those of `names` that a folder's `.safetensors` hold, as they are stored.

    Raises:
        ModelError: a file is missing or damaged.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            with _opened(path) as file:
                weights |= {name: file.get_tensor(name) for name in names & {*file.keys()}}
    return weights


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return name -> weight of an adapter's `.safetensors`; empty if it has none.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / ADAPTER
    return dict(tensors_of(path)) if path.is_file() else {}


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
    for name in sorted(ours, key=lambda name: ours[name].size):  # different models part at the first small weight
        pair = [read_weights(folder, {name}).get(name) for folder in (first, second)]
        if pair[0] is None or pair[1] is None:
            return False
        coarser = min((tensor for tensor in pair if tensor is not None), key=lambda tensor: tensor.element_size()).dtype
        if not torch.equal(pair[0].to(coarser), pair[1].to(coarser)):
            return False
    return True


def _pickled(path: Path) -> dict[str, StoredWeight]:
    """Return the weights in a pickled file; its tensors alone are read (`weights_only`), without their numbers."""
    content: Any = None
    with suppress(Exception):  # a pickle may raise anything; the loader, which meets the same, reports it
        content = torch.load(path, map_location="meta", weights_only=True)
    items = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in items if isinstance(value, torch.Tensor)}
    return {
        name: StoredWeight(tuple(value.shape), str(value.dtype).removeprefix("torch."), value.nbytes)
        for name, value in tensors.items()
    }


def named(names: Collection[str], separator: str = ", ") -> str:
    """Return the first three of `names` as text for a message, and how many more there are."""
    shown = separator.join(
        printable(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…") for name in [*names][:_SHOWN]
    )
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
