"""Exports under transformers 4: the same positions and the same tokens as under transformers 5, or the card says 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import tiny_data
from tiny import tiny_folder, tiny_tokenizer
from trueup.config.transformers4 import least_version, write_for_transformers_4

YARN = {"rope_type": "yarn", "rope_theta": 5e4, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
NESTED = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


def written(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """config.json after the export's addition."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    write_for_transformers_4(folder)
    return json.loads((folder / "config.json").read_text())


def test_positions_are_written_under_the_keys_of_version_4_too(tmp_path: Path) -> None:
    plain = written(tmp_path, {"model_type": "llama", "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}})
    assert plain["rope_theta"] == 1e5
    assert "rope_scaling" not in plain
    scaled = written(tmp_path, {"model_type": "llama", "rope_parameters": dict(LLAMA3)})
    assert scaled["rope_theta"] == 5e5
    assert scaled["rope_scaling"] == {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    part = {"rope_theta": 3e4, "partial_rotary_factor": 0.5, "rope_type": "default"}
    assert written(tmp_path, {"model_type": "phi", "rope_parameters": part})["partial_rotary_factor"] == 0.5
    old = written(tmp_path, {"model_type": "gpt_neox", "rope_parameters": part})
    assert (old["rotary_emb_base"], old["rotary_pct"]) == (3e4, 0.5)
    assert least_version(tmp_path) == 4
    layers = written(tmp_path, {"model_type": "gemma3_text", "rope_parameters": NESTED})
    assert (layers["rope_theta"], layers["rope_local_base_freq"]) == (1e6, 2e4)
    assert layers["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert least_version(tmp_path) == 4


def test_positions_that_version_4_cannot_say_are_left_and_the_card_says_5(tmp_path: Path) -> None:
    other = {"full_attention": {"rope_theta": 1e4}, "chunked_attention": {"rope_theta": 1e5}}
    settings = {"model_type": "llama", "rope_parameters": other}
    assert written(tmp_path, settings) == settings
    assert least_version(tmp_path) == 5


def test_a_tokenizer_is_written_with_a_class_and_tokens_that_both_versions_know(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    tokenizer.save_pretrained(tmp_path)
    write_for_transformers_4(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<|tool|>"]
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("a<|tool|>b")["input_ids"] == tokenizer("a<|tool|>b")["input_ids"]
    assert again.all_special_tokens == tokenizer.all_special_tokens


OLD = Path(os.environ.get("TRUEUP_TRANSFORMERS4", Path(sys.prefix) / "transformers4"))
"""Where `make transformers4` installs version 4."""
PROGRAM = """
import json, sys, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, ids = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model(input_ids=torch.tensor([ids])).logits[0]
text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi?"}], tokenize=False, add_generation_prompt=True)
print(json.dumps({"logits": logits.tolist(), "ids": tokenizer(text)["input_ids"], "text": text}))
"""
CASES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    "llama-3": {"rope_parameters": dict(LLAMA3)},
    "qwen2": {"rope_parameters": dict(YARN)},
    "gemma3_text": {"rope_parameters": NESTED},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.5}},
    "phi": {"rope_parameters": {"rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.5}},
    "mixtral": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    "gpt_oss": {},
    "smollm3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
}


@pytest.mark.slow
@pytest.mark.skipif(not (OLD / "transformers").is_dir(), reason="no transformers 4 (make transformers4)")
@pytest.mark.parametrize("case", CASES)
def test_transformers_4_computes_what_was_trained(tmp_path: Path, case: str) -> None:
    model_type = case.removesuffix("-3")
    base = families.tiny_family(model_type, tmp_path / "base", **CASES[case])
    config = tiny_data.stage("sft", tmp_path, model=base, lora={"r": 4}, optim={"steps": 2})
    tiny_data.run(config)
    folder = Path(config.output) / "model"
    ids = list(range(4, 104))
    environment = {**os.environ, "PYTHONPATH": str(OLD), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(ids)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        ours = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(torch.tensor(theirs["logits"]), ours, rtol=1e-4, atol=1e-4)
    assert theirs["ids"] == AutoTokenizer.from_pretrained(folder)(theirs["text"])["input_ids"]
    assert least_version(folder) == 4


def test_a_run_writes_both(tmp_path: Path) -> None:
    rope = {"rope_theta": 1e5, "rope_type": "default"}
    base = tiny_folder(tmp_path / "base", rope_parameters=rope)
    config = tiny_data.stage("sft", tmp_path, model=base, optim={"steps": 1})
    tiny_data.run(config)
    settings = json.loads((Path(config.output) / "model" / "config.json").read_text())
    assert settings["rope_theta"] == 1e5
    assert settings["rope_parameters"] == rope
