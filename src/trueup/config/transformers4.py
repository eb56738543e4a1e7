"""Write a model folder's settings so that transformers 4 reads them as transformers 5 does.

transformers 5 keeps a model's rotary positions under one key, `rope_parameters`, and names the tokenizer's class
`TokenizersBackend`. Version 4 ignores the first, and computes with its default `rope_theta`, without a word; the second
it does not know. Both versions read the keys of version 4, so those are written beside the new ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trueup.config.untrusted import read_json
from trueup.errors import ModelError

_OLD_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "gpt_neox_japanese": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "modernbert-decoder": {"rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
}
"""Names in version 4 where they are not those of the other families."""
_OF_LOADING = ("is_local", "local_files_only")  # how the tokenizer was loaded here; no setting of it


def write_for_transformers_4(folder: Path) -> None:
    """Add to a model folder's config.json and tokenizer_config.json what transformers 4 needs, in place.

    A key that would change what transformers 5 reads is left out; then `least_version` says 5.
    """
    path = folder / "config.json"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        before, settings = _rope_as_read(folder), read_json(path)
        if _add_rope(settings):
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            if _rope_as_read(folder) != before:
                path.write_text(text, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        settings = read_json(path)
        path.write_text(
            json.dumps(_tokenizer_settings(settings), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def least_version(folder: Path) -> int:
    """Return the lowest major version of transformers that reads a model folder's positions rightly: 4 or 5.

    Whether version 4 has the family at all it says itself, when it loads the folder.
    """
    try:
        settings = read_json(folder / "config.json")
    except ModelError:
        return 5
    return 4 if all(_is_readable(part) for part in _parts(settings)) else 5


def _parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings, and those of the models that a model of several kinds of input is made of."""
    return [settings, *(part for part in settings.values() if isinstance(part, dict) and "model_type" in part)]


def _is_readable(part: dict[str, Any]) -> bool:
    wanted = _old_keys(part)
    return wanted is not None and all(part.get(key) == value for key, value in wanted.items())


def _add_rope(settings: dict[str, Any]) -> bool:
    """Add version 4's keys to each part of the settings; return True if any was added."""
    added = False
    for part in _parts(settings):
        wanted = _old_keys(part) or {}
        added = added or any(part.get(key) != value for key, value in wanted.items())
        part.update(wanted)
    return added


def _old_keys(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return version 4's keys for a part's rotary positions; None if version 4 has none that say the same."""
    rope = part.get("rope_parameters")
    if not isinstance(rope, dict) or not rope:
        return {}
    local: dict[str, Any] = {}
    if all(isinstance(value, dict) for value in rope.values()):  # one for each kind of layer
        if not rope.keys() <= {"full_attention", "sliding_attention"} or "full_attention" not in rope:
            return None
        sliding = rope.get("sliding_attention", rope["full_attention"])
        if sliding.get("rope_type", "default") != "default":
            return None
        local = {"rope_local_base_freq": sliding.get("rope_theta")}
        rope = rope["full_attention"]
    keys = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope} | local
    if rope.get("rope_type", "default") != "default":
        keys["rope_scaling"] = {name: value for name, value in rope.items() if name not in keys}
    names = _OLD_NAMES.get(str(part.get("model_type")), {})
    return {names.get(name, name): value for name, value in keys.items()}


def _rope_as_read(folder: Path) -> list[Any]:
    """Return the rotary positions that this version of transformers reads from a folder's config.json."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception:  # noqa: BLE001 - a model with code of its own; it is left as it is
        return []
    return [part.get("rope_parameters") for part in _parts(config.to_dict())]


def _tokenizer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's settings with a class and special tokens that both versions read."""
    settings = {key: value for key, value in settings.items() if key not in _OF_LOADING}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):  # version 4 expects a mapping there
        del settings["extra_special_tokens"]
        settings["additional_special_tokens"] = extra
    return settings
