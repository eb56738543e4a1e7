"""What an attacker would write. Each leaves a file, the marker, when its code has run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

import tiny


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def pickled(path: Path, marker: Path) -> Path:
    """A file that makes `marker` when it is unpickled (and does: see `test_the_pickle_is_one`)."""
    torch.save({"model.embed_tokens.weight": Touch(marker)}, path)
    return path


def plain_pickle(path: Path, marker: Path) -> Path:
    """The same without torch's zip file around it."""
    path.write_bytes(pickle.dumps({"text": Touch(marker)}))
    return path


def model(folder: Path, **settings: Any) -> Path:
    """A tiny model of its own, its config.json changed."""
    path = Path(tiny.tiny_folder(folder))
    change(path / "config.json", **settings)
    return path


def classifier(folder: Path) -> Path:
    """A tiny reward model."""
    from transformers import AutoModelForSequenceClassification

    path = Path(tiny.tiny_folder(folder))
    AutoModelForSequenceClassification.from_pretrained(path, num_labels=1).save_pretrained(str(path))
    return path


def adapter(folder: Path, base: Path | str, **settings: Any) -> Path:
    """A PEFT adapter over `base`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    trunk = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(trunk, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(folder))
    change(folder / "adapter_config.json", base_model_name_or_path=str(base), **settings)
    return folder


def with_code(folder: Path, marker: Path) -> Path:
    """A model whose architecture is code of its own, which makes `marker` when it is imported."""
    path = Path(tiny.tiny_folder(folder))
    (path / "modeling_evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
        "class Evil(LlamaForCausalLM):\n    config_class = EvilConfig\n"
        "class EvilScore(LlamaForSequenceClassification):\n    config_class = EvilConfig\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class EvilTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    names = {
        "AutoConfig": "EvilConfig",
        "AutoModelForCausalLM": "Evil",
        "AutoModelForSequenceClassification": "EvilScore",
    }
    change(
        path / "config.json", model_type="evil", architectures=["Evil"],
        auto_map={auto: f"modeling_evil.{name}" for auto, name in names.items()},
    )  # fmt: skip
    return path


def with_tokenizer_code(folder: Path, marker: Path) -> Path:
    """A model whose tokenizer is code of its own."""
    path = with_code(folder, marker)
    (path / "config.json").unlink()
    shutil.copy(Path(tiny.tiny_folder(folder / "other")) / "config.json", path)
    change(
        path / "tokenizer_config.json", tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [None, "modeling_evil.EvilTokenizer"]},
    )  # fmt: skip
    return path


def change(path: Path, **settings: Any) -> None:
    """Put keys into a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
