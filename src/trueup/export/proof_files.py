"""Checks of an exported folder's files without loading the model: no pickles, finite weights, the right dtype."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from trueup.export.proof_fresh import Check, is_adapter

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".pyc"}
INDEX_FILE = "model.safetensors.index.json"


def tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of every tensor in a folder's safetensors files, with a single file open at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safetensors' handle is no mapping
                yield name, file.get_tensor(name)


def check_files(folder: Path) -> Check:
    """Check that no file is a pickle, and that a sharded model's index names exactly the tensors in its files."""
    pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
    if pickles:
        return Check("files", False, f"pickled files: {', '.join(pickles[:5])}", "no pickles")
    count = len(list(folder.glob("*.safetensors")))
    if not count:
        return Check("files", False, "there is no .safetensors file", "no pickles")
    if (folder / INDEX_FILE).is_file():
        listed = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
        if mismatched := sorted(set(listed) ^ {name for name, _ in tensors_of(folder)}):
            return Check("files", False, f"{INDEX_FILE} and the files disagree on {mismatched[:3]}")
    return Check("files", True, f"{count} .safetensors, nothing pickled", "no pickles")


def check_weights(folder: Path) -> Check:
    """Check that every weight is finite, and that config.json names the dtype of most weights."""
    sizes: dict[str, int] = {}  # elements by dtype
    broken: list[str] = []
    count = 0
    for name, tensor in tensors_of(folder):
        count += 1
        if tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            sizes[dtype] = sizes.get(dtype, 0) + tensor.numel()
            if not torch.isfinite(tensor.float()).all():
                broken.append(name)
    if broken:
        return Check("weights", False, f"NaN or infinite: {', '.join(broken[:2])} ({len(broken)} in all)", "finite")
    most = max(sizes, key=lambda dtype: sizes[dtype], default="none")
    if not is_adapter(folder) and (named := dtype_of(folder)) != most:
        return Check("weights", False, f"config.json says {named}, the files hold {most}")
    return Check("weights", True, f"{count} tensors, all finite, {' and '.join(sizes)}", "finite")


def dtype_of(folder: Path) -> str:
    """Return the dtype that a model folder's config.json names, such as "bfloat16"."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(settings.get("dtype") or settings.get("torch_dtype"))


def check_rounding(folder: Path, source: Path) -> Check:
    """Check that each exported weight equals the weight in `source` cast to the exported dtype, bit for bit."""
    sources = {name: (path, name) for path in source.glob("*.safetensors") for name in _names(path)}
    different: list[str] = []
    for name, tensor in tensors_of(folder):
        source_tensor = sources.pop(name, None)
        if source_tensor is None or not torch.equal(_tensor(*source_tensor).to(tensor.dtype), tensor):
            different.append(name)
    different += sources
    found = (
        f"not the trained weights, cast: {', '.join(different[:2])}"
        if different
        else "each weight is the trained one, cast"
    )
    return Check("rounding", not different, found, "bit for bit")


def _names(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)
