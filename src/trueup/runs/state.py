"""Nested states on disk: tensors in a safetensors file, everything else in a JSON file. Never pickle.

A state is a dict of JSON values, tensors, and dicts, lists and tuples of these, like the `state_dict()` of a model, an
optimizer, a scheduler or a data source. Values that JSON does not have are written as a dict with a marker key:

    tensor          {"__tensor__": "name in the safetensors file"}
    tuple           {"__tuple__": [...]}
    nan, inf, -inf  {"__float__": "nan"}
    int keys        {"__dict__": [[key, value], ...]}        (optimizer states), and keys that begin with "__"
    sharded tensor  {"__sharded__": "its name"}              each process writes its part (runtime.save_sharded)

Everything is read back exactly, on the CPU: types, dtypes, 0-dim and empty tensors, and the order of keys. A tensor
with two names (tied weights) is stored once and read back as a single tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trueup.errors import CheckpointError
from trueup.runtime import is_sharded

# `Any`: only the owner of a part knows its content; `_encode` checks every leaf.
StateDict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardedRef:
    """Placeholder for a sharded tensor in a state that was read.

    It holds the tensor's name in the folder `sharded/`.
    """

    name: str


_RESERVED = "__metadata__"  # safetensors keeps this name for itself


def write_state(folder: Path, name: str, state: StateDict) -> None:
    """Write a nested state as `<name>.json` and, if it holds tensors, `<name>.safetensors`.

    Args:
        folder: an existing folder.
        name: the file name without its extension.
        state: the nested state; tensors may be on any device, contiguous or not.

    Raises:
        CheckpointError: a leaf is neither a JSON value nor a dense tensor.
        OSError, SafetensorError: writing failed.
    """
    writer = _TensorWriter()
    text = json.dumps(_encode(state, name, writer), allow_nan=False)
    tensors_path = folder / f"{name}.safetensors"
    if writer.tensors:
        save_file(writer.tensors, tensors_path)
    else:
        tensors_path.unlink(missing_ok=True)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def read_state(folder: Path, name: str) -> StateDict:
    """Return the nested state that `write_state` wrote, with tensors on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    path = folder / f"{name}.json"
    tensors_path = folder / f"{name}.safetensors"
    try:
        encoded = json.loads(path.read_text(encoding="utf-8"))
        # Cloned: load_file returns the mapped file itself, unaligned, and would keep its disk space in use.
        loaded = load_file(tensors_path) if tensors_path.exists() else {}
        tensors = {key: tensor.clone() for key, tensor in loaded.items()}
        state = _decode(encoded, tensors)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: the saved state `{name}` cannot be read ({reason})") from error
    return state


def sharded_leaves(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of the sharded tensors of a nested state, with the names that `write_state` gives them.

    `path` is the name of `value` itself, to which keys and indices are appended.
    """
    if isinstance(value, Tensor):
        if is_sharded(value):
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from sharded_leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from sharded_leaves(item, f"{path}.{index}")


def state_bytes(state: object) -> int:
    """Return the size in bytes of all tensors of a nested state, for messages about disk space."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(state_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(state_bytes(value) for value in state)
    return 0


class _TensorWriter:
    """Collection of named tensors in the form that safetensors needs: dense, on the CPU, sharing no memory."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}
        self._storages: set[int] = set()

    def add(self, tensor: Tensor, path: str) -> str:
        """Add a tensor, named after its `path` in the state; return its name in the safetensors file.

        Raises:
            CheckpointError: safetensors cannot store it, e.g. because it is sparse or quantized.
        """
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.dtype == torch.complex128:
            raise CheckpointError(f"cannot save {path}: a {tensor.dtype} tensor ({tensor.layout}, {tensor.device})")
        identity = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and identity in self._names:
            return self._names[identity]
        name = self._free_name(path)
        self.tensors[name] = self._separate(tensor)
        self._names[identity] = name
        return name

    def _separate(self, tensor: Tensor) -> Tensor:
        prepared = tensor.detach().cpu().contiguous()
        storage = prepared.untyped_storage().data_ptr()
        if storage in self._storages:  # a view of a tensor added before: safetensors refuses overlaps
            return prepared.clone()
        if prepared.numel():
            self._storages.add(storage)
        return prepared

    def _free_name(self, path: str) -> str:
        # Paths can collide ({"a.b": t} with {"a": {"b": t}}, key 0 with key "0"); the JSON file holds the real name.
        name, count = path, 1
        while name in self.tensors or name in (_RESERVED, ""):
            count += 1
            name = f"{path}~{count}"
        return name


def _encode(value: object, path: str, writer: _TensorWriter) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Tensor):
        return {"__sharded__": path} if is_sharded(value) else {"__tensor__": writer.add(value, path)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"__float__": repr(float(value))}
    if isinstance(value, list):
        return [_encode(item, f"{path}.{index}", writer) for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"__tuple__": [_encode(item, f"{path}.{index}", writer) for index, item in enumerate(value)]}
    if isinstance(value, dict):
        return _encode_dict(value, path, writer)
    raise CheckpointError(f"cannot save {path}: {type(value).__name__} is neither a JSON value nor a tensor")


def _encode_dict(value: dict[Any, Any], path: str, writer: _TensorWriter) -> object:
    for key in value:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise CheckpointError(f"cannot save {path}: key {key!r} is neither a string nor an integer")
    items = [(key, _encode(item, f"{path}.{key}", writer)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("__") for key in value):
        return dict(items)
    return {"__dict__": [list(item) for item in items]}


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__sharded__" in value:
        return ShardedRef(value["__sharded__"])
    if "__tuple__" in value:
        return tuple(_decode(item, tensors) for item in value["__tuple__"])
    if "__float__" in value:
        return float(value["__float__"])
    if "__dict__" in value:
        return {key: _decode(item, tensors) for key, item in value["__dict__"]}
    return {key: _decode(item, tensors) for key, item in value.items()}
