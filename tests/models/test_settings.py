"""Settings without sense in config.json and generation_config.json, and encoders, are known before weights load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import families
import tiny_data
from trueup.cli.main import main
from trueup.config.untrusted import NO_TRUST
from trueup.errors import ModelError
from trueup.models.blank import blank_model
from trueup.models.family import check_family
from trueup.models.loading import compare_headers
from trueup.models.settings import sees_both_ways, setting_problems
from trueup.preflight.models import setting_findings

Settings = dict[str, Any]


def with_settings(base: str, folder: Path, file: str, settings: Settings) -> str:
    """A copy of a model with other values in one of its JSON files."""
    shutil.copytree(base, folder)
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | settings))
    return str(folder)


def problems(folder: str) -> list[tuple[str, str]]:
    return list(setting_problems(Path(folder), folder))


@pytest.mark.parametrize(("settings", "said"), [
    ({"max_position_embeddings": -5}, "max_position_embeddings is -5, and a model has at least one position"),
    ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06, where LlamaConfig has 1e-06 by default"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    ({"attention_dropout": -1}, "attention_dropout is -1, where LlamaConfig has 0.0"),
    ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": -2}}, "rope_parameters.factor is -2"),
])  # fmt: skip
def test_numbers_that_a_configuration_cannot_mean(
    settings: Settings, said: str, tiny_base: str, tmp_path: Path
) -> None:
    folder = with_settings(tiny_base, tmp_path / "model", "config.json", settings)
    [finding] = setting_findings(tiny_data.stage("sft", tmp_path, model=folder))
    assert finding.text.startswith(f"{folder}: config.json: {said}")
    with pytest.raises(ModelError, match="config"):
        compare_headers(folder, NO_TRUST)


@pytest.mark.parametrize("settings", [{"pad_token_id": -1}, {"max_position_embeddings": 1}, {"attention_dropout": 0}])
def test_numbers_that_it_can_mean(settings: Settings, tiny_base: str, tmp_path: Path) -> None:
    """Many released models have -1 for "no padding token"."""
    assert not list(problems(with_settings(tiny_base, tmp_path / "model", "config.json", settings)))


@pytest.mark.parametrize(("settings", "said"), [
    ({"temperature": -1}, "holds a value that transformers refuses: `temperature` (=-1)"),
    ({"do_sample": True, "temperature": 0.0}, "holds a value that transformers refuses: `temperature` (=0.0)"),
    ({"top_p": 3}, "top_p is 3, and a probability lies between 0 and 1"),
    ({"top_p": -0.5}, "top_p is -0.5, and a probability lies between 0 and 1"),
    ({"typical_p": 7}, "typical_p is 7"),
    ({"top_k": -3}, "holds a value that transformers refuses: `top_k`"),
    ({"repetition_penalty": 0}, "holds a value that transformers refuses: `penalty`"),
    ({"max_new_tokens": -1}, "holds a value that transformers refuses: `max_new_tokens`"),
])  # fmt: skip
def test_settings_of_generation_that_no_tool_could_use(
    settings: Settings, said: str, tiny_base: str, tmp_path: Path
) -> None:
    """transformers leaves a file with some of them out in silence, and with it the ids that end an answer."""
    folder = with_settings(tiny_base, tmp_path / "model", "generation_config.json", settings)
    texts = [text.removeprefix(f"{folder}: generation_config.json") for text, _ in problems(folder)]
    assert texts[0].strip(": ").startswith(said)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.0}, {"length_penalty": -1.0}])
def test_settings_of_generation_with_sense(settings: Settings, tiny_base: str, tmp_path: Path) -> None:
    assert not list(problems(with_settings(tiny_base, tmp_path / "m", "generation_config.json", settings)))


def test_train_evaluate_and_chat_say_the_same(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_settings(tiny_base, tmp_path / "model", "generation_config.json", {"temperature": -1})
    data = tiny_data.data(tmp_path, "conversations")
    stage = ["model=" + folder, "data=" + data, f"output={tmp_path / 'run'}", "device=cpu"]
    for command in (
        ["sft", *stage], ["check", data, "--model", folder, "--method", "sft"], ["chat", folder, "--device", "cpu"],
        ["evaluate", folder, "tasks=[forgetting]", "--output", str(tmp_path / "report"), "--device", "cpu"],
    ):  # fmt: skip
        assert main(command) == 4, command
        printed = capsys.readouterr()
        assert "`temperature` (=-1)" in " ".join((printed.err + printed.out).split())


# -- encoders ----------------------------------------------------------------------------------------------------------

ENCODERS = (
    "bert", "big_bird", "roformer", "rembert", "megatron-bert", "xlnet", "xlm", "cpmant", "electra", "xmod"
)  # fmt: skip
DECODERS = ("llama", "bloom", "mpt", "codegen", "openai-gpt", "gpt_neox_japanese", "mamba", "rwkv", "xglm", "trocr")


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_are_known_by_their_configuration(family: str, tmp_path: Path) -> None:
    families.tiny_config(family).save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match=r"no causal language model"):
        check_family(tiny_data.stage("sft", tmp_path, model=str(tmp_path / "base")))


@pytest.mark.parametrize("family", DECODERS)
def test_families_whose_attention_does_not_call_itself_causal_are_tried(family: str) -> None:
    assert not sees_both_ways(blank_model(AutoModelForCausalLM, families.tiny_config(family)))


def test_an_encoder_that_is_told_to_be_a_decoder_is_one() -> None:
    config = families.tiny_config("roformer", is_decoder=True)
    assert not sees_both_ways(blank_model(AutoModelForCausalLM, config))
