"""What can be proven of an exported folder from its bytes alone: no pickles, finite weights, the dtype it claims."""

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
    """Name and value of every tensor of every safetensors file; one file is open at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safetensors' handle is no mapping
                yield name, file.get_tensor(name)


def check_files(folder: Path) -> Check:
    """Nothing that unpickling could run; a sharded model's index names exactly the tensors that are there."""
    pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
    if pickles:
        return Check("files", False, f"pickled files: {', '.join(pickles[:5])}", "no pickles")
    count = len(list(folder.glob("*.safetensors")))
    if not count:
        return Check("files", False, "there is no .safetensors file", "no pickles")
    if (folder / INDEX_FILE).is_file():
        listed = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
        if odd := sorted(set(listed) ^ {name for name, _ in tensors_of(folder)}):
            return Check("files", False, f"{INDEX_FILE} and the files disagree on {odd[:3]}")
    return Check("files", True, f"{count} .safetensors, nothing pickled", "no pickles")


def check_weights(folder: Path) -> Check:
    """Every weight is a finite number, and config.json names the dtype that most of them have."""
    sizes: dict[str, int] = {}
    broken: list[str] = []
    count = 0
    for name, tensor in tensors_of(folder):
        count += 1
        if tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            sizes[kind] = sizes.get(kind, 0) + tensor.numel()
            if not torch.isfinite(tensor.float()).all():
                broken.append(name)
    if broken:
        return Check("weights", False, f"NaN or infinite: {', '.join(broken[:2])} ({len(broken)} in all)", "finite")
    most = max(sizes, key=lambda kind: sizes[kind], default="none")
    if not is_adapter(folder) and (said := dtype_of(folder)) != most:
        return Check("weights", False, f"config.json says {said}, the files hold {most}")
    return Check("weights", True, f"{count} tensors, all finite, {' and '.join(sizes)}", "finite")


def dtype_of(folder: Path) -> str:
    """The dtype that config.json names."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(settings.get("dtype") or settings.get("torch_dtype"))


def check_rounding(folder: Path, source: Path) -> Check:
    """Each weight is the source's, cast: bit for bit."""
    before = {name: (path, name) for path in source.glob("*.safetensors") for name in _names(path)}
    odd: list[str] = []
    for name, tensor in tensors_of(folder):
        place = before.pop(name, None)
        if place is None or not torch.equal(_tensor(*place).to(tensor.dtype), tensor):
            odd.append(name)
    odd += before
    found = f"not the trained weights, cast: {', '.join(odd[:2])}" if odd else "each weight is the trained one, cast"
    return Check("rounding", not odd, found, "bit for bit")


def _names(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)
