"""A finished tiny pipeline, as files to break: run folders, checkpoints, models, an adapter, caches, an evaluation."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from random import Random
from typing import Any

from mutation import exchanged

import tiny_data
from tiny import tiny_folder
from trueup.config import PipelineConfig
from trueup.recipes import pipeline

OPTIM = {"steps": 2, "batch_size": 4, "lr": 1e-3}


def finished(folder: Path) -> Path:
    """Run it: SFT with LoRA, a reward model, DPO, and the evaluation. -> the pipeline's run folder."""
    folder.mkdir(exist_ok=True)
    rankings = tiny_data.data(folder, "rankings", 8)
    common = {"optim": OPTIM, "allow": ["eval-overlap"], "save": {"every": 1}, "max_length": 256}
    config = {
        "name": "p", "base": tiny_folder(folder / "base"), "runs": str(folder / "runs"), "device": "cpu", "threads": 1,
        "stages": {
            "sft": {"method": "sft", "data": tiny_data.data(folder, "conversations", 8), "lora": tiny_data.LORA,
            **common},
            "reward": {"method": "reward", "from": "sft", "data": rankings, **common},
            "dpo": {"method": "dpo", "from": "sft", "data": rankings, "watch": {"samples": 2, "max_new_tokens": 4},
                    "eval": {"data": rankings, "every": 1}, **common},
        },
        "evaluate": {"data": rankings, "prompts": tiny_data.data(folder, "prompts", 4), "reward": "reward",
                     "samples": 4, "max_new_tokens": 4, "limit": 4, "max_length": 512},
        "gates": {"capability_drop": 0.05}, "allow": ["eval-overlap"],
    }  # fmt: skip
    pipeline.run(PipelineConfig.model_validate(config))
    return folder / "runs" / "p"


def resealed(folder: Path) -> None:
    """Let a checkpoint's manifest say again what its files are: then what reads the parts is reached."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    told = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": told}))


def retold(folder: Path, name: str) -> None:
    """The same of a folder of tokens: sizes and hashes in meta.json, and meta.json's own."""
    meta = folder / "meta.json"
    try:
        told = json.loads(meta.read_text())
        told.pop("seal", None)
        if name != "meta.json":
            data = (folder / name).read_bytes()
            told["stored"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        seal = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    except (ValueError, AttributeError, KeyError, TypeError):
        return
    meta.write_text(json.dumps({"seal": seal, **told}))


def header_exchanged(data: bytes, chance: Random) -> bytes:
    """A safetensors file whose header says something else: shapes, offsets, types, metadata."""
    size = int.from_bytes(data[:8], "little")
    header: Any = exchanged(json.loads(data[8 : 8 + size]), chance)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def files_of(*folders: Path) -> list[Path]:
    """All files in them, of a size that can be mutated quickly."""
    found = [Path(root, name) for folder in folders for root, _, names in os.walk(folder) for name in names]
    return sorted(path for path in found if path.stat().st_size < 1_000_000)
