"""Refuse model files that would be unpickled, run code, or name files elsewhere, unless the user allows it.

This is checked before torch loads, and again where the files are read. A pickle can run any code when it is loaded;
safetensors and JSON cannot. Code that comes with a model is refused by transformers, which alone knows whether it has
the architecture itself; this module refuses the ways around that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trueup.errors import ModelError
from trueup.system.text import excerpt

PICKLED = ("pytorch_model*.bin", "model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MERGEABLE = frozenset({
    "LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA", "HRA", "FOURIERFT", "RANDLORA", "MISS", "LN_TUNING"
})  # fmt: skip
"""PEFT's adapter types that can be merged. Others load further models, tokenizers or files that their settings name."""
_JSON_LIMIT = 2**26  # bytes; the index of the largest models has some four million
_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")


class Trust(NamedTuple):
    """The permissions that the user gave to a model: its code, pickles, and weights left out or without sense."""

    code: bool = False
    """Run the model's own code: `trust_remote_code`."""
    pickles: bool = False
    """Read pickled weights: `allow: [pickled-weights]`."""
    ignored_weights: bool = False
    """Leave out weights that the model's class has no use for: `allow: [ignored-weights]`."""
    constant_weights: bool = False
    """Accept matrices in which all numbers are equal: `allow: [constant-weights]`."""


NO_TRUST = Trust()
"""No permission."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a model's JSON file, such as config.json.

    Raises:
        ModelError: the file cannot be read, is too large, or holds something other than an object.
    """
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise ModelError(
                f"{excerpt(str(path), 300)[1:-1]}: more than {_JSON_LIMIT:,} bytes, too large for a model's JSON file"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelError(f"{path}: brackets nested too deep") from None
    except (OSError, ValueError) as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise ModelError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold an object, not {type(value).__name__}")
    return value


def refusal(folder: Path, trust: Trust, *, weights: bool = True) -> str | None:
    """Return the reason why the model or adapter in `folder` is refused as unsafe, with the fix; None if accepted.

    Args:
        folder: the folder of a model or an adapter.
        trust: the user's permissions.
        weights: also check the weight files; False where they are not in the folder.

    Raises:
        ModelError: one of its JSON files cannot be read.
    """
    checks = [_mixed(folder), _settings(folder, trust.code), _adapter(folder), _names(folder, trust.pickles)]
    checks += [_pickles(folder, trust.pickles)] if weights else []
    return next((problem for problems in checks for problem in problems), None)


def _pickles(folder: Path, allowed: bool) -> Iterator[str]:
    if allowed:
        return
    adapter = (folder / "adapter_config.json").is_file()
    # Of an adapter only this name is read: with other .safetensors files in the folder, the pickle would be loaded.
    has_safetensors = (folder / "adapter_model.safetensors").is_file() if adapter else any(folder.glob("*.safetensors"))
    names = (path.name for pattern in PICKLED for path in sorted(folder.glob(pattern)))
    if not has_safetensors and (name := next(names, None)) is not None:
        yield pickle_message(str(folder / name), _conversion(folder, adapter))


def pickle_message(place: str, conversion: str = "") -> str:
    """Return the error message about pickled weights in the file `place`, with the line that converts them if known."""
    return (
        f"{place}: these weights are pickled, and a pickle can run any code when it is read\n"
        f"  fix: take the model's .safetensors{conversion}; or, if you trust who wrote it, allow=[pickled-weights] "
        "(for chat: --allow pickled-weights)"
    )


def _conversion(folder: Path, adapter: bool) -> str:
    """Return the advice to write a folder's pickled weights as safetensors, by torch's reader of tensors alone."""
    old, new = ("adapter_model.bin", "adapter_model") if adapter else ("pytorch_model*.bin", "model")
    if not any(folder.glob(old)):
        return ""
    return (
        ', or write them so, reading only tensors: python -c "import torch; from pathlib import Path; '
        f"from safetensors.torch import save_file; f = Path({str(folder)!r}); w = {{}}; "
        f"[w.update(torch.load(p, map_location='cpu', weights_only=True)) for p in sorted(f.glob({old!r}))]; "
        f"save_file({{n: t.clone().contiguous() for n, t in w.items()}}, f / '{new}.safetensors', {{'format': 'pt'}})\""
    )


def _mixed(folder: Path) -> Iterator[str]:
    if (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        yield (
            f"{folder}: holds a model (config.json) and an adapter (adapter_config.json): it is unclear what is meant\n"
            "  fix: give each a folder of its own; where there is an adapter alone, remove config.json"
        )


def _settings(folder: Path, code: bool) -> Iterator[str]:
    path = folder / "config.json"
    settings = read_json(path) if path.is_file() else {}
    weights = settings.get("transformers_weights")
    if weights is not None and not (isinstance(weights, str) and _is_plain(weights) and ".safetensors" in weights):
        yield _elsewhere(path, "transformers_weights", weights)
    kernel = None if code else next(_kernels(settings), None)
    if kernel is not None:
        yield (
            f"{path}: its attention ({excerpt(kernel)}) is code from the hub\n"
            "  fix: take attn_implementation out of it; or, if you trust who wrote it, trust_remote_code=true"
        )
    path = folder / "tokenizer_config.json"
    names = read_json(path).get("fast_tokenizer_files", []) if path.is_file() else []
    yield from (_elsewhere(path, "fast_tokenizer_files", name) for name in _listed(names) if not _is_plain(name))


def _kernels(settings: object, depth: int = 0) -> Iterator[str]:
    """Yield each attention implementation in a model's settings that is code from a hub repository (`owner/name`)."""
    if not isinstance(settings, dict) or depth > 8:
        return
    for key, value in settings.items():
        named = value.values() if isinstance(value, dict) else [value]
        if key in _KERNELS:
            yield from (name for name in named if isinstance(name, str) and "/" in name)
        else:
            yield from _kernels(value, depth + 1)


def _adapter(folder: Path) -> Iterator[str]:
    path = folder / "adapter_config.json"
    settings = read_json(path) if path.is_file() else {"peft_type": "LORA"}
    kind = settings.get("peft_type")
    if not (isinstance(kind, str) and kind in MERGEABLE):
        names = ", ".join(sorted(MERGEABLE))
        yield f"{path}: an adapter of peft_type {excerpt(kind)} cannot be merged; use one of {names}"
    if settings.get("megatron_config"):
        yield f"{path}: megatron_config imports the module that megatron_core names; take both out"


def _names(folder: Path, allowed: bool) -> Iterator[str]:
    """Yield a problem for each weight file in an index (*.index.json) that lies in another folder or is a pickle."""
    for path in sorted(folder.glob("*.index.json")):
        if path.name.endswith(".bin.index.json") and any(folder.glob("*.safetensors")):
            continue  # the other form's: not read
        names = read_json(path).get("weight_map")
        for name in sorted(set(map(str, names.values()))) if isinstance(names, dict) else ():
            if not _is_plain(name):
                yield _elsewhere(path, "weight_map", name)
            elif not name.endswith(".safetensors") and not allowed:
                yield pickle_message(f"{path}: {excerpt(name)}")


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _elsewhere(path: Path, key: str, name: object) -> str:
    return f"{path}: {key} names {excerpt(name)}, which is not a file in its folder\n  fix: download the model again"
