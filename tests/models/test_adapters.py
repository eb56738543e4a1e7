"""LoRA on mixtures of experts: which matrices are reached, merged exactly, and what is refused before weights load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import families
import tiny_data
from tiny import lora, shake, tiny_folder, tiny_tokenizer
from trueup.config import PpoConfig, RewardConfig, SftConfig
from trueup.errors import ModelError
from trueup.export import merged_state
from trueup.models.adapters import adapter_config, reach
from trueup.models.blank import blank_model
from trueup.models.family import check_family
from trueup.models.network import Network
from trueup.preflight.models import family_findings
from trueup.runtime import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)


def model_of(model_type: str, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(families.tiny_config(model_type, **settings)).eval()


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "gpt_oss", "jetmoe"])
def test_adapters_of_experts_are_merged_exactly(model_type: str) -> None:
    """The merged weights, in a plain model, compute what the model with two adapters on one trunk computes."""
    network = Network(model_of(model_type), tiny_tokenizer(), CPU)
    network.add_trainable("policy", lora())
    network.add_trainable("value", lora(), head=True)
    shake(network, scale=0.2)
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        ours = network.eval().trunk("policy")(input_ids=ids).logits
        plain = model_of(model_type)
        before = plain(input_ids=ids).logits
        missing, unexpected = plain.load_state_dict(merged_state(network, "policy"), strict=False)
        merged = plain(input_ids=ids).logits
    assert not unexpected
    assert not [name for name in missing if "lm_head" not in name]
    torch.testing.assert_close(merged, ours, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, ours, atol=1e-3)
    share, missed = reach(network.trunk("policy"), "policy")
    assert share > 0.9
    assert not any("experts" in name and "bias" not in name for name in missed), missed


def test_a_shared_experts_layer_is_not_taken_for_the_experts_own(tmp_path: Path) -> None:
    """PEFT reads `gate_proj` as the experts' in some families: shared experts' layers are targeted by their weights."""
    config = adapter_config(model_of("qwen3_next"), lora())
    assert "model.layers.0.mlp.shared_expert.gate_proj.weight" in (config.target_parameters or ())
    assert not any("shared_expert.gate_proj" in name for name in config.target_modules or ())
    chosen = adapter_config(model_of("qwen2_moe"), lora(targets=["q_proj", "experts.down_proj"]))
    assert set(chosen.target_modules or ()) == {"q_proj"}
    assert chosen.target_parameters == ["experts.down_proj"]


def settings_of(model_type: str, folder: Path) -> str:
    """A model's folder without weights."""
    families.tiny_config(model_type).save_pretrained(folder)
    return str(folder)


def stage(kind: Any, model: str, **more: Any) -> Any:
    data = {"prompts" if kind is PpoConfig else "data": "rows.jsonl"}
    return kind.model_validate({"model": model, "output": "run", **data, **more})


def test_dropout_on_experts_is_refused_before_weights_load(tmp_path: Path) -> None:
    model = settings_of("mixtral", tmp_path)
    with pytest.raises(ModelError, match=r"(?s)lora\.dropout: 0\.1 .*fused experts.*lora\.targets=\[q_proj"):
        check_family(stage(SftConfig, model, lora={"dropout": 0.1}))
    check_family(stage(SftConfig, model, lora={"dropout": 0.1, "targets": ["q_proj"]}))
    check_family(stage(SftConfig, model, lora={}))


def test_a_reward_adapter_on_other_experts_is_refused_before_weights_load(tmp_path: Path) -> None:
    model = settings_of("mixtral", tmp_path / "model")
    adapter = tmp_path / "reward" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"target_parameters": ["experts.down_proj"]}))
    with pytest.raises(ModelError, match="adapts other expert matrices"):
        check_family(stage(PpoConfig, model, lora={}, reward=str(tmp_path / "reward")))
    same = {"targets": ["experts.down_proj"]}
    check_family(stage(PpoConfig, model, lora=same, reward=str(tmp_path / "reward")))


@pytest.mark.parametrize("model_type", ["cohere", "granite", "lfm2", "olmoe", "mamba"])
def test_a_reward_model_that_no_class_could_hold_is_refused_before_weights_load(
    tmp_path: Path, model_type: str
) -> None:
    model = settings_of(model_type, tmp_path)
    with pytest.raises(ModelError, match=rf"no sequence classifier of {model_type} models.*\n  fix: "):
        check_family(stage(RewardConfig, model))
    check_family(stage(SftConfig, model))


def test_families_that_are_no_decoders_are_refused_in_a_line(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="no causal language model of t5"):
        check_family(stage(SftConfig, str(tmp_path / "t5")))
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "config.json").write_text(json.dumps({"model_type": "bart", "is_encoder_decoder": True}))
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        check_family(stage(SftConfig, str(tmp_path / "bart")))
    [finding] = family_findings(stage(SftConfig, str(tmp_path / "bart")))  # of `trueup check`
    assert (finding.level, finding.section) == ("error", "model")
    assert finding.text.endswith("is an encoder-decoder (bart); trueup trains decoder-only language models")
    check_family(stage(RewardConfig, tiny_folder(tmp_path / "llama")))


def test_an_encoder_is_refused_before_the_first_step(tmp_path: Path) -> None:
    base = families.tiny_family("bert-generation", tmp_path / "base")
    config = tiny_data.stage("sft", tmp_path, model=base)
    with pytest.raises(ModelError, match="no causal language model"):
        tiny_data.run(config)
    assert not (Path(config.output) / "metrics.jsonl").is_file()


def config_alone(family: str, folder: Path) -> str:
    """A model's folder without weights: what is refused, is refused by the configuration."""
    families.tiny_config(family).save_pretrained(folder)
    return str(folder)


def test_an_encoder_is_known_by_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is an encoder \(roberta\), no causal language model"):
        check_family(tiny_data.stage("sft", tmp_path, model=config_alone("roberta", tmp_path / "base")))


def test_adapters_that_peft_refuses_are_known_by_the_configuration(tmp_path: Path) -> None:
    base = config_alone("mamba", tmp_path / "base")
    check_family(tiny_data.stage("sft", tmp_path, model=base))
    with pytest.raises(ModelError, match=r"lora.targets: 'all-linear' cannot be had in this model.*Mamba"):
        check_family(tiny_data.stage("sft", tmp_path, model=base, lora={"r": 2}))


def test_a_layer_whose_adapter_peft_would_not_read_back_gets_none(tmp_path: Path) -> None:
    """PEFT renames Laguna's `shared_experts`, as transformers does the `shared_expert` of its old checkpoints."""
    trunk = blank_model(AutoModelForCausalLM, families.tiny_config("laguna"))
    chosen = adapter_config(trunk, lora())
    names = {name for name, _ in trunk.named_modules()}
    lost = {name for name in names if ".shared_experts." in name and name.endswith("_proj")}
    assert len(lost) == 3
    assert not lost & set(chosen.target_modules or ())
    assert {name for name in names if name.endswith("q_proj")} <= set(chosen.target_modules or ())
    base = config_alone("laguna", tmp_path / "base")
    named = tiny_data.stage("sft", tmp_path, model=base, lora={"r": 2, "targets": ["q_proj", "shared_experts.up_proj"]})
    with pytest.raises(ModelError, match=r"adapter of model.layers.1.mlp.shared_experts.up_proj back"):
        check_family(named)
