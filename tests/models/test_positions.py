"""Rows longer than a model's positions are found before training, and never run past the end of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import tiny_folder, tiny_network, tiny_tokenizer
from trueup.errors import DataError, ModelError
from trueup.models.batching import Branch, Example
from trueup.models.forward import forward_all
from trueup.models.positions import PositionLimit, position_limit
from trueup.preflight.report import check_stage
from trueup.sampling import sample

SMALL: dict[str, Any] = {"vocab_size": 264, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {**SMALL, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
LLAMA = {
    **SMALL, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip


def model(kind: str, **settings: Any) -> Any:
    """A tiny model on the device "meta", and the same one with numbers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


FAMILIES: dict[str, tuple[str, dict[str, Any], PositionLimit | None]] = {
    "gpt2": ("gpt2", GPT2, PositionLimit(128, is_table=True)),
    "gptj": ("gptj", {**GPT2, "rotary_dim": 8}, PositionLimit(128, is_table=True)),
    "opt": (
        "opt",
        {**LLAMA, "ffn_dim": 32, "word_embed_proj_dim": 32},
        PositionLimit(128, is_table=True),
    ),
    "bloom": ("bloom", {**SMALL, "hidden_size": 32, "n_layer": 1, "n_head": 2}, None),
    "mpt": (
        "mpt",
        {**SMALL, "d_model": 32, "n_heads": 2, "n_layers": 1, "max_seq_len": 128},
        PositionLimit(128, is_table=True),
    ),
    "llama": ("llama", LLAMA, PositionLimit(128, is_table=False)),
    "linear": (
        "llama",
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        PositionLimit(256, is_table=False),
    ),
    "yarn, of a shorter training": (
        "llama",
        {
            **LLAMA,
            "rope_parameters": {
                "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64,
            },
        },
        PositionLimit(256, is_table=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_limit_is_known_and_a_longer_row_fails_where_it_is_a_table(family: str) -> None:
    from transformers import AutoModelForCausalLM

    kind, settings, limit = FAMILIES[family]
    meta = model(kind, **settings)
    assert position_limit(meta) == limit
    real = AutoModelForCausalLM.from_config(meta.config).eval()

    def runs(length: int) -> bool:
        try:
            real(input_ids=torch.full((1, length), 9))
        except (IndexError, RuntimeError, ValueError):
            return False
        return True

    assert runs(128)
    assert runs(129) is (limit is None or not limit.is_table)


def learned(folder: Path) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_network_never_runs_past_the_end_of_a_table(tmp_path: Path) -> None:
    network = tiny_network(learned(tmp_path / "gpt2"))
    network.add_frozen("policy")
    longer, fits = (Example([5] * 100, (Branch([6] * length, [True] * length),)) for length in (29, 28))
    assert forward_all(network, [fits], "policy", "logps", max_tokens=256).shape == (28,)
    with pytest.raises(ModelError, match="a row of 129 tokens is longer than the 128 positions of this model"):
        forward_all(network, [longer], "policy", "logps", max_tokens=256)
    assert sample(network, [[5] * 100], max_new_tokens=28)[0].ids
    with pytest.raises(ModelError, match="lower max_length to 128, the new tokens of an answer included"):
        sample(network, [[5] * 100], max_new_tokens=29)


def rows(folder: Path, *lengths: int, kind: str = "sft") -> str:
    if kind == "sft":
        made: list[dict[str, Any]] = [{"prompt": "Hi?", "completion": "a" * length} for length in lengths]
    else:
        made = [{"prompt": "a" * length} for length in lengths]
    return tiny_data.write(folder / f"{kind}.jsonl", made)


def test_a_table_is_a_fault_with_the_rows_and_the_fix(tmp_path: Path) -> None:
    base = learned(tmp_path / "gpt2")
    config = tiny_data.stage("sft", tmp_path, model=base, data=rows(tmp_path, 20, 300, 20, 250), max_length=512)
    found = {finding.code: finding for finding in check_stage(config).findings}
    text = found["positions"].in_words()
    assert found["positions"].level == "error"
    # 37 tokens of template, prompt and end token around an answer's bytes
    assert "2 of 4 rows are longer than the 128 positions of" in text
    assert f"up to {found['lengths'].numbers['longest']} tokens" in text
    assert "sft.jsonl:2" in text
    assert "sft.jsonl:4" in text
    assert "fix: set max_length=128, with over_length=drop or cut" in text
    with pytest.raises(DataError, match=r"2 of 4 rows are longer than the 128 positions"):
        tiny_data.run(config)
    cut = config.model_copy(update={"max_length": 128, "over_length": "cut"})
    assert "positions" not in {finding.code for finding in check_stage(cut).findings}


def test_rotary_positions_are_a_warning(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "llama", max_position_embeddings=128)
    config = tiny_data.stage("sft", tmp_path, model=base, data=rows(tmp_path, 20, 300), max_length=512)
    [finding] = [finding for finding in check_stage(config).findings if finding.code == "positions"]
    assert finding.level == "warning"
    assert "1 of 2 rows are longer than the 128 positions" in finding.text
    fits = tiny_data.stage("sft", tmp_path / "fits", model=base, data=rows(tmp_path / "fits", 20, 30))
    assert "positions" not in {finding.code for finding in check_stage(fits).findings}


def test_a_prompt_counts_with_the_tokens_to_come(tmp_path: Path) -> None:
    base = learned(tmp_path / "gpt2")
    settings = {"model": base, "prompts": rows(tmp_path, 5, 60, kind="ppo"), "max_length": 256}
    config = tiny_data.stage("ppo", tmp_path, **settings, rollouts={"max_new_tokens": 80, "episodes": 4})
    [finding] = [finding for finding in check_stage(config).findings if finding.code == "positions"]
    assert finding.section == "prompts"
    assert "rows with up to 80 new tokens are longer than the 128 positions" in finding.text
