"""Weights are those of the model's class: none is random, none is left out, and the headers alone say so."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_data
import warm
from tiny import tiny_folder, tiny_network
from trueup import runtime
from trueup.chat.speaker import Speaker
from trueup.cli.main import main
from trueup.config import SftConfig
from trueup.config.paths import find_policy
from trueup.config.untrusted import Trust
from trueup.errors import ModelError
from trueup.models.forward import check_causal, check_lm_head
from trueup.models.loading import compare_headers, load_causal_lm, load_classifier, load_tokenizer
from trueup.models.renaming import renaming_of
from trueup.models.stored import stored_weights
from trueup.preflight.models import check_models, family_findings, model_findings, reward_findings, weight_findings
from trueup.preflight.report import check_stage
from trueup.system.console import Progress

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("untied") / "base", tied=False)


@pytest.fixture(scope="module")
def scorer(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("scorer") / "model"
    AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return str(folder)


def damaged(
    source: str, folder: Path, change: Callable[[Weights], Weights] | None = None, name: str = "model.safetensors",
    **settings: Any,
) -> str:  # fmt: skip
    """A copy of a model or adapter with other weights or settings."""
    shutil.copytree(source, folder)
    if change is not None:
        weights = {key: value.clone() for key, value in load_file(folder / name).items()}
        save_file(change(weights), folder / name, {"format": "pt"})
    if settings:
        path = folder / ("config.json" if name.startswith("model") else "adapter_config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def loaded(model: str, *, head: bool = True, **permissions: bool) -> Any:
    return load_causal_lm(model, runtime.init("cpu", "float32"), trust=Trust(**permissions), head=head)


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def keyed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): value for name, value in weights.items()}


def plus(more: Weights) -> Callable[[Weights], Weights]:
    return lambda weights: weights | more


def quantized(dtype: torch.dtype) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value.to(dtype) if "proj" in name else value for name, value in weights.items()}


DAMAGE: dict[str, tuple[Callable[[Weights], Weights] | None, dict[str, Any], str]] = {
    "a tensor less": (without("layers.1.mlp.up_proj"), {}, r"1 of 21 missing, .*random \(model.layers.1.mlp.up_proj"),
    "a layer more": (
        None,
        {"num_hidden_layers": 3},
        r"9 of 30 missing.*says 3 layers, the files hold 2 \(model.layers",
    ),
    "a layer fewer": (
        None,
        {"num_hidden_layers": 1},
        r"9 unknown to it.*% of the bytes\).*says 1 layers, the files hold 2",
    ),
    "another width": (
        None,
        {"intermediate_size": 48},
        r"6 of another shape .*\[32, 64\] in the file, \[32, 48\] in the mod",
    ),
    "integers": (quantized(torch.int8), {}, r"14 quantized without their scales.*down_proj.weight: int8"),
    "bytes": (quantized(torch.uint8), {}, r"14 quantized without their scales.*down_proj.weight: uint8"),
    "8-bit floats": (quantized(torch.float8_e4m3fn), {}, r"14 quantized without.*down_proj.weight: float8_e4m3fn"),
    "8-bit floats with scales": (
        lambda weights: {**quantized(torch.float8_e4m3fn)(weights), "model.layers.0.weight_scale_inv": torch.ones(2)},
        {},
        r"14 quantized, where it has floats.*1 unknown to it.*weight_scale_inv",
    ),
    "more": (
        plus({"tower.0.w": torch.ones(9)}),
        {},
        r"1 unknown to it, .*ignored \(tower.0.w; ",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_weights_that_are_not_the_models_are_refused(kind: str, tiny_base: str, tmp_path: Path) -> None:
    change, settings, message = DAMAGE[kind]
    folder = damaged(tiny_base, tmp_path / "model", change, **settings)
    with pytest.raises(ModelError, match=f"model: its weights are not those of a LlamaForCausalLM: .*{message}"):
        loaded(folder)
    config = tiny_data.stage("sft", tmp_path / "run", model=folder)
    [finding] = weight_findings(config)
    assert (finding.code, finding.level, finding.section) == ("unmatched-weights", "error", "model")
    assert re.search(message, finding.text)
    with pytest.raises(ModelError, match=message):
        check_models(config, Progress(quiet=True))


def test_the_models_own_weights_are_accepted(tiny_base: str, untied: str, scorer: str) -> None:
    for model in (tiny_base, untied):
        assert loaded(model).config.num_hidden_layers == 2
    assert load_classifier(scorer, runtime.init("cpu", "float32")).config.num_labels == 1
    sizes = {name: weight.size for name, weight in stored_weights(Path(tiny_base)).items()}
    assert sizes == {name: value.nbytes for name, value in load_file(Path(tiny_base, "model.safetensors")).items()}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "learner.net.", "model.model."])
def test_a_prefix_is_named_with_a_line_that_takes_it_away(prefix: str, tiny_base: str, tmp_path: Path) -> None:
    folder = damaged(tiny_base, tmp_path / "model", prefixed(prefix))
    with pytest.raises(ModelError, match=r"20 of 21 missing.*20 unknown to it") as caught:
        loaded(folder)
    assert not {"!", "$"} & set(str(caught.value))  # a shell replaces them inside of double quotes
    assert f"the names hold {prefix if prefix != 'learner.net.' else 'learner., net.'}" in str(caught.value)
    code = str(caught.value).partition('python -c "')[2].removesuffix('"')
    done = warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fixed, right = loaded(f"{folder}-renamed").state_dict(), loaded(tiny_base).state_dict()
    assert all(torch.equal(fixed[name], value) for name, value in right.items())
    assert find_policy(f"{folder}-renamed") == f"{folder}-renamed"


def test_a_wrapper_inside_of_the_names_is_named(tiny_base: str, tmp_path: Path) -> None:
    inside = keyed("layers.1.", "layers.1._orig_mod.")
    with pytest.raises(ModelError, match=r"the names hold _orig_mod. \(left by torch.compile\)"):
        loaded(damaged(tiny_base, tmp_path / "model", inside))


def test_an_adapter_that_was_not_merged_before_saving_is_named(tiny_base: str, tmp_path: Path) -> None:
    more = plus({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)})
    with pytest.raises(ModelError, match="merge it before saving"):
        loaded(damaged(tiny_base, tmp_path / "model", more))


def test_an_untied_head_is_needed_but_for_a_reward_model(untied: str, tmp_path: Path) -> None:
    folder = damaged(untied, tmp_path / "model", without("lm_head"))
    with pytest.raises(ModelError, match=r"1 of 21 missing, which would be random \(lm_head.weight\)"):
        loaded(folder)
    assert loaded(folder, head=False).config.num_hidden_layers == 2
    assert not list(weight_findings(tiny_data.stage("reward", tmp_path, model=folder)))
    [finding] = weight_findings(tiny_data.stage("dpo", tmp_path, model=folder))
    assert "lm_head.weight" in finding.text


def test_parts_left_out_on_purpose_are_allowed_and_named(tiny_base: str, tmp_path: Path) -> None:
    tower = plus({f"vision.{index}.w": torch.ones(900) for index in range(5)})
    folder = damaged(tiny_base, tmp_path / "model", tower)
    with pytest.raises(ModelError, match=r"allow=\[ignored-weights\]"):
        loaded(folder)
    assert loaded(folder, ignored_weights=True).config.num_hidden_layers == 2
    config = tiny_data.stage("sft", tmp_path, model=folder, allow=["ignored-weights"], optim={"steps": 1})
    [finding] = weight_findings(config)
    size = sum(value.nbytes for value in load_file(Path(tiny_base, "model.safetensors")).values())
    share = 5 * 900 * 4 / (size + 5 * 900 * 4)  # float32
    assert finding.level == "allowed"
    assert f"5 of its weights, {share:.1%} of the bytes (vision.0.*, vision.1.*, vision.2.* and 2 more)" in finding.text
    tiny_data.run(config)
    missing = damaged(folder, tmp_path / "missing", without("layers.1.mlp.up_proj"))
    with pytest.raises(ModelError, match="1 of 21 missing"):
        loaded(missing, ignored_weights=True)


def test_what_the_class_itself_leaves_out_is_a_note(tmp_path: Path) -> None:
    import transformers

    common = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "layer_types": ["full_attention"]}
    model = transformers.Qwen3_5ForCausalLM(transformers.Qwen3_5TextConfig(**common, **heads))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({**load_file(path), "mtp.layers.0.w": torch.ones(50)}, tmp_path / "more.safetensors", {"format": "pt"})
    (tmp_path / "more.safetensors").rename(path)
    [finding] = weight_findings(tiny_data.stage("sft", tmp_path, model=str(folder)))
    assert (finding.level, finding.code) == ("note", "ignored-weights")
    assert "leaves out 1 of its weights" in finding.text
    assert "mtp.layers.0.*" in finding.text


def test_weights_in_several_files(tiny_base: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_base).save_pretrained(folder, max_shard_size="40KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    loaded(str(folder))
    weights = load_file(parts[-1])
    gone = max(weights)
    save_file({name: w.clone() for name, w in weights.items() if name != gone}, parts[-1], {"format": "pt"})
    with pytest.raises(ModelError, match=rf"1 of 21 missing, which would be random \({gone}\)"):
        loaded(str(folder))
    parts[-1].unlink()
    with pytest.raises(ModelError, match=rf"names 1 files that are not there \({parts[-1].name}\)"):
        loaded(str(folder))


def test_pickled_weights_are_compared_too(tiny_base: str, tmp_path: Path) -> None:
    folder = Path(damaged(tiny_base, tmp_path / "model"))
    torch.save(quantized(torch.int8)(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"14 quantized without their scales"):
        loaded(str(folder), pickles=True)
    torch.save([torch.ones(2)], folder / "pytorch_model.bin")
    assert stored_weights(folder) == {}


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd", "norm": "output_norm",
}  # fmt: skip


def gguf_file(source: str, path: Path, change: Callable[[Weights], Weights] = lambda weights: weights) -> str:
    """The tiny model as a .gguf file."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(264)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(264)])
    writer.add_token_merges([])
    for name, value in change(load_file(Path(source, "model.safetensors"))).items():
        layer, kind = re.match(r"(?:model\.)(?:layers\.(\d+)\.)?(.*)\.weight", name).groups()  # type: ignore[union-attr]
        block = "" if layer is None else f"blk.{layer}."
        writer.add_tensor(f"{block}{GGUF_NAMES.get(kind, kind)}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_a_gguf_file_is_compared_too(tiny_base: str, tmp_path: Path) -> None:
    assert loaded(gguf_file(tiny_base, tmp_path / "plain.gguf")).config.num_hidden_layers == 2
    with pytest.raises(ModelError, match=r"1 of 21 missing, which would be random \(model.layers.1.mlp.up_proj.weight"):
        loaded(gguf_file(tiny_base, tmp_path / "less.gguf", without("layers.1.mlp.up_proj")))
    more = plus({"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)})
    with pytest.raises(ModelError, match=r"1 unknown to it, which would be ignored \(blk.2.ffn_up.weight; 7.0%"):
        loaded(gguf_file(tiny_base, tmp_path / "more.gguf", more))
    assert loaded(str(tmp_path / "more.gguf"), ignored_weights=True).config.num_hidden_layers == 2


def test_a_check_does_not_change_what_training_draws(tiny_base: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    right = torch.randn(4)
    torch.manual_seed(3)
    check_models(tiny_data.stage("sft", tmp_path, model=tiny_base), Progress(quiet=True))
    assert torch.equal(torch.randn(4), right)


def test_check_finds_them_without_reading_a_weight(tiny_base: str, tmp_path: Path) -> None:
    folder = damaged(tiny_base, tmp_path / "model", without("layers.1.mlp.up_proj"))
    result = check_stage(tiny_data.stage("sft", tmp_path, model=folder))
    assert ("unmatched-weights", "error") in {(finding.code, finding.level) for finding in result.findings}
    assert result.exit_code(strict=False) == ModelError.exit_code


# -- roles -----------------------------------------------------------------------------------------------------------


def test_a_reward_model_without_its_head_is_refused(scorer: str, tmp_path: Path) -> None:
    folder = damaged(scorer, tmp_path / "model", without("score"))
    with pytest.raises(
        ModelError, match=r"1 of 21 missing, .*\(score.weight\)\n  fix: a reward model has a trained score"
    ):
        load_classifier(folder, runtime.init("cpu", "float32"))
    [finding] = weight_findings(tiny_data.stage("ppo", tmp_path, reward=folder))
    assert (finding.section, finding.level) == ("reward", "error")


def test_a_reward_model_may_keep_a_language_models_head(scorer: str, tmp_path: Path) -> None:
    folder = damaged(scorer, tmp_path / "model", plus({"lm_head.weight": torch.ones(264, 32)}))
    assert load_classifier(folder, runtime.init("cpu", "float32")).config.num_labels == 1


def test_a_reward_model_is_no_policy_and_a_policy_no_reward(scorer: str, tiny_base: str, tmp_path: Path) -> None:
    for refuse in (loaded, find_policy):
        with pytest.raises(ModelError, match="is a reward model, which scores answers and cannot generate text"):
            refuse(scorer)
    nameless = damaged(scorer, tmp_path / "nameless", architectures=None)
    with pytest.raises(ModelError, match=r"unknown to it.*score.weight.*\n  fix: it has a reward model's score head"):
        loaded(nameless)
    with pytest.raises(ModelError, match="holds a LlamaForCausalLM, not a reward model"):
        load_classifier(tiny_base, runtime.init("cpu", "float32"))
    unnamed = damaged(tiny_base, tmp_path / "unnamed", architectures=None, num_labels=1)
    with pytest.raises(ModelError, match=r"1 of 21 missing, .*\(score.weight\)"):
        load_classifier(unnamed, runtime.init("cpu", "float32"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantized by gptq to 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "quantized by awq to 4 bits"),
        ({"quant_method": "fp8"}, "quantized by fp8 "),
        ({"load_in_4bit": True}, "quantized by bitsandbytes "),
    ],
)
def test_quantized_models_are_refused(settings: dict[str, Any], said: str, tiny_base: str, tmp_path: Path) -> None:
    folder = damaged(tiny_base, tmp_path / "model", quantization_config=settings)
    for refuse in (loaded, find_policy):
        with pytest.raises(ModelError, match=rf"its weights are {said}.*\n  fix: take the model that was quantized"):
            refuse(folder)


# -- adapters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(loaded(tiny_base), lora).save_pretrained(str(folder))
    return str(folder)


ADAPTERS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "half": (without("layers.0"), r"14 of 28 weights missing, which would be untrained"),
    "no layer's": (keyed("layers", "blocks"), r"28 of 28 weights missing.*28 for no layer of it"),
    "more layers": (
        lambda weights: {**weights, **keyed("layers.1", "layers.7")({n: w.clone() for n, w in weights.items()})},
        r"14 for no layer of it, which would be ignored \(base_model.model.model.layers.7",
    ),
    "another rank": (
        lambda weights: {name: w[:2].clone() if "lora_A" in name else w for name, w in weights.items()},
        r"14 of another shape .*\[2, 64\] in the file, \[4, 64\] over this base",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_refused(kind: str, adapter: str, tmp_path: Path) -> None:
    change, message = ADAPTERS[kind]
    folder = damaged(adapter, tmp_path / "adapter", change, "adapter_model.safetensors")
    with pytest.raises(ModelError, match=f"adapter: this adapter does not fit .*base: .*{message}"):
        loaded(folder)
    [finding] = weight_findings(tiny_data.stage("sft", tmp_path, model=folder))
    assert re.search(message, finding.text)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_an_adapters_prefix_is_named_with_a_line_that_takes_it_away(prefix: str, adapter: str, tmp_path: Path) -> None:
    folder = damaged(adapter, tmp_path / "adapter", prefixed(prefix), "adapter_model.safetensors")
    with pytest.raises(ModelError, match="the names hold ") as caught:
        loaded(folder)
    code = str(caught.value).partition('python -c "')[2].removesuffix('"')
    done: subprocess.CompletedProcess[str] = warm.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fixed, right = loaded(folder).state_dict(), loaded(adapter).state_dict()
    assert all(torch.equal(fixed[name], value) for name, value in right.items())


def test_an_adapter_over_a_resized_vocabulary_names_the_fix(tiny_base: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base, folder = loaded(tiny_base), tmp_path / "adapter"
    base.resize_token_embeddings(270, mean_resizing=False)
    lora = LoraConfig(
        r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM",
        ensure_weight_tying=True,
    )  # fmt: skip
    get_peft_model(base, lora).save_pretrained(str(folder), save_embedding_layers=False)
    damaged(str(folder), tmp_path / "named", name="adapter", base_model_name_or_path=tiny_base)
    with pytest.raises(ModelError, match=r"the base has 264 tokens, the adapter was trained over 270: resize the base"):
        loaded(str(tmp_path / "named"))


def test_a_runs_folder_stands_for_its_model(tmp_path: Path) -> None:
    first = tiny_data.stage("sft", tmp_path, lora={"r": 4}, optim={"steps": 2, "lr": 0.05})
    tiny_data.run(first)
    run = str(first.output)
    second = tiny_data.stage("dpo", tmp_path / "dpo", model=run, reference=run, optim={"steps": 1})
    tiny_data.run(second)
    assert f"model: {run}/model\n" in (second.output / "config.yaml").read_text()
    shutil.rmtree(first.output / "model")
    again = tiny_data.stage("sft", tmp_path / "again", model=run, optim={"steps": 1})
    tiny_data.run(again)
    assert f"model: {run}/adapter\n" in (again.output / "config.yaml").read_text()


def test_a_stage_says_it_before_its_run_folder_is_made(tiny_base: str, tmp_path: Path) -> None:
    folder = damaged(tiny_base, tmp_path / "model", prefixed("_orig_mod."))
    config = tiny_data.stage("sft", tmp_path / "run", model=folder)
    assert isinstance(config, SftConfig)
    with pytest.raises(ModelError, match=r"left by torch\.compile"):
        tiny_data.run(config)
    assert not config.output.exists()


def test_a_check_reads_8_bit_floats(untied: str, tmp_path: Path) -> None:
    """torch has no `isfinite` for them: the check ends with a finding, not with an error of torch's."""
    model = damaged(untied, tmp_path / "fp8", quantized(torch.float8_e4m3fn))
    result = check_stage(tiny_data.stage("sft", tmp_path, model=model))
    assert [finding.code for finding in result.findings if finding.level == "error"] == ["unmatched-weights"]


def test_parts_without_their_index_are_named(untied: str, tmp_path: Path) -> None:
    model = Path(damaged(untied, tmp_path / "parts"))
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    with pytest.raises(ModelError, match=r"no model\.safetensors\.index\.json that names its parts\n  fix: copy"):
        check_models(tiny_data.stage("sft", tmp_path, model=str(model)), Progress())


def test_a_damaged_generation_config_is_named(untied: str, tmp_path: Path) -> None:
    """transformers leaves it out in silence, and with it the ids that end an answer."""
    model = Path(damaged(untied, tmp_path / "ends"))
    (model / "generation_config.json").write_text('{"eos_token_id": [2, 3')
    with pytest.raises(ModelError, match=r"generation_config\.json: not readable as JSON"):
        check_models(tiny_data.stage("sft", tmp_path, model=str(model)), Progress())


@pytest.mark.parametrize(
    ("settings", "part"), [({"model_type": "llamma"}, "llamma"), ({"num_hidden_layers": "2"}, "num_hidden_layers")]
)
def test_a_check_names_a_config_that_transformers_cannot_read(
    untied: str, tmp_path: Path, settings: dict[str, Any], part: str
) -> None:
    config = tiny_data.stage("sft", tmp_path, model=damaged(untied, tmp_path / "kind", **settings))
    errors = [finding for finding in family_findings(config) if finding.level == "error"]
    assert len(errors) == 1
    assert part in errors[0].text
    assert "config.json" in errors[0].text


@torch.no_grad()
def test_a_model_that_computes_no_numbers_is_named_as_such(untied: str) -> None:
    """The message once said that the model is no causal one."""
    network = tiny_network(untied)
    network.add_trainable("policy", None)
    for name, weight in network.trunk("policy").named_parameters():
        weight.mul_(1e30 if "mlp" in name else 1)
    with pytest.raises(ModelError, match="computes is NaN or infinity, although its weights are finite"):
        check_causal(network)


@pytest.mark.parametrize("theta", [0.0, -1.0])
def test_rotary_frequencies_are_finite(untied: str, tmp_path: Path, theta: float) -> None:
    model = damaged(untied, tmp_path / "rope", rope_parameters={"rope_type": "default", "rope_theta": theta})
    with pytest.raises(ModelError, match=r"rotary frequencies model\.rotary_emb\.inv_freq"):
        loaded(model)


def test_a_chat_refuses_an_embedding_smaller_than_the_tokenizer(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "small", vocabulary=256)
    with pytest.raises(ModelError, match="the tokenizer has 260 tokens, the embedding only 256"):
        Speaker(model, runtime.init("cpu", "float32"))


# -- more kinds --------------------------------------------------------------------------------------------------------


def run_code(message: str) -> None:
    """Run the line of Python that a message's fix holds."""
    code = message.partition('python -c "')[2].partition('"')[0]
    done = warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def errors_of(model: str, tmp_path: Path, **settings: Any) -> list[str]:
    config = tiny_data.stage("sft", tmp_path / "run", model=model, **settings)
    findings = [*family_findings(config), *model_findings(config)]
    return [f"{finding.text}\n  fix: {finding.fix}" for finding in findings if finding.level == "error"]


@pytest.mark.parametrize("prefix", ["transformer.", "gpt.decoder."])
def test_another_prefix_is_named_with_a_line_that_renames(prefix: str, tiny_base: str, tmp_path: Path) -> None:
    folder = damaged(tiny_base, tmp_path / "model", keyed("model.", prefix))
    with pytest.raises(ModelError, match=f"names begin with {prefix} where the model's begin with model.") as caught:
        loaded(folder)
    run_code(str(caught.value))
    fixed, right = loaded(f"{folder}-renamed").state_dict(), loaded(tiny_base).state_dict()
    assert all(torch.equal(fixed[name], value) for name, value in right.items())


def test_a_prefix_that_the_files_lack_is_a_renaming_too() -> None:
    """transformers itself adds the prefix of a class; other parts it does not."""
    renaming = renaming_of({"a.w"}, {"model.a.w"}, {"model.a.w", "head.w"})
    assert renaming is not None
    assert (renaming.apply("a.w"), renaming.text) == ("model.a.w", "the names lack model. before them")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "rope": ({"rope_parameters": {"rope_type": "zigzag", "rope_theta": 1e4}}, "rope_parameters.rope_type: 'zigzag'"),
    "activation": ({"hidden_act": "slui"}, "hidden_act: 'slui'"),
    "dtype": ({"dtype": "float17"}, "dtype: 'float17'"),
    "heads": ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
    "padding": ({"pad_token_id": 999}, "[Pp]adding_idx"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_config_of_which_no_model_can_be_made_is_known_before_weights_load(
    kind: str, untied: str, tmp_path: Path
) -> None:
    settings, part = BROKEN[kind]
    folder = damaged(untied, tmp_path / "model", **settings)
    errors = errors_of(folder, tmp_path)
    assert errors
    for text in errors:
        assert f"{folder}: transformers can make no model of its config.json" in text
        assert re.search(part, text)
    for load in (lambda: loaded(folder), lambda: compare_headers(folder, Trust())):
        with pytest.raises(ModelError, match=part):
            load()
    if kind in ("dtype", "heads"):  # transformers reads the configuration for the tokenizer too
        with pytest.raises(ModelError, match="can make no model of its config"):
            load_tokenizer(folder)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt key": ({"lora_dropuot": 0.1}, "lora_dropuot is no setting of LoraConfig in peft"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha is None, not a number above 0"),
    "alpha as text": ({"lora_alpha": "16"}, 'lora_alpha is "16", not a number above 0'),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_an_adapter_that_would_be_ignored_or_guessed(kind: str, adapter: str, tmp_path: Path) -> None:
    settings, part = SETTINGS[kind]
    folder = damaged(adapter, tmp_path / "adapter", None, "adapter_model.safetensors", **settings)
    assert [part in text and "adapter_config.json" in text for text in errors_of(folder, tmp_path)] == [True]
    with pytest.raises(ModelError, match=part):
        loaded(folder)


def test_a_setting_of_a_later_peft_without_effect_is_accepted(adapter: str, tmp_path: Path) -> None:
    later = damaged(adapter, tmp_path / "later", None, "adapter_model.safetensors", use_later=False, later_config=None)
    assert not errors_of(later, tmp_path)
    path = Path(later, "adapter_config.json")
    settings = json.loads(path.read_text())
    del settings["lora_alpha"]
    path.write_text(json.dumps(settings))
    assert ["lora_alpha is missing" in text for text in errors_of(later, tmp_path)] == [True]


def test_an_adapter_in_parts_is_joined_by_the_line_that_is_named(adapter: str, tmp_path: Path) -> None:
    folder = Path(damaged(adapter, tmp_path / "adapter"))
    whole = folder / "adapter_model.safetensors"
    weights = load_file(whole)
    names = sorted(weights)
    for number, part in enumerate((names[:2], names[2:]), 1):
        save_file({name: weights[name] for name in part}, folder / f"adapter_model-0000{number}-of-00002.safetensors")
    whole.unlink()
    [text] = errors_of(str(folder), tmp_path)
    assert "its weights are in 2 parts" in text
    run_code(text)
    assert not errors_of(str(folder), tmp_path)
    right = loaded(adapter).state_dict()
    assert all(torch.equal(value, right[name]) for name, value in loaded(str(folder)).state_dict().items())


def test_pickled_weights_are_converted_by_the_line_that_is_named(tiny_base: str, tmp_path: Path) -> None:
    folder = Path(damaged(tiny_base, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(sorted(weights), 1):
        torch.save({name: weights[name]}, folder / f"pytorch_model-{number:05}-of-00020.bin")
    with pytest.raises(ModelError, match="these weights are pickled") as caught:
        find_policy(str(folder))
    run_code(str(caught.value))
    assert find_policy(str(folder)) == str(folder)
    right = loaded(tiny_base).state_dict()
    assert all(torch.equal(value, right[name]) for name, value in loaded(str(folder)).state_dict().items())


def test_models_and_adapters_in_the_folders_of_a_folder_are_named(adapter: str, tmp_path: Path) -> None:
    one, other = damaged(adapter, tmp_path / "two" / "one"), damaged(adapter, tmp_path / "two" / "other")
    with pytest.raises(ModelError, match=f"name a folder in it, such as {re.escape(one)}: one, other"):
        find_policy(str(tmp_path / "two"))
    shutil.copytree(other, Path(one, "reference"))
    config = tiny_data.stage("sft", tmp_path, model=one)
    [note] = weight_findings(config)
    assert (note.level, note.code) == ("note", "other-adapters")
    assert note.text.endswith("are not used: reference")


def test_a_head_that_only_config_json_ties_is_a_warning(untied: str, tmp_path: Path) -> None:
    [finding] = weight_findings(
        tiny_data.stage("sft", tmp_path, model=damaged(untied, tmp_path / "model", tie_word_embeddings=True))
    )
    assert (finding.level, finding.code) == ("warning", "untied-head")

    def copied(weights: Weights) -> Weights:
        return weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}

    tied = damaged(untied, tmp_path / "tied", copied, tie_word_embeddings=True)
    assert not list(weight_findings(tiny_data.stage("sft", tmp_path, model=tied)))


def in_parts(model: str, folder: Path) -> list[Path]:
    """Write a model's weights in two parts with an index; return the paths of the parts."""
    weights = load_file(Path(model, "model.safetensors"))
    names = sorted(weights)
    parts = [folder / f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for path, chosen in zip(parts, (names[:9], names[9:]), strict=True):
        save_file({name: weights[name] for name in chosen}, path, {"format": "pt"})
    named = {name: parts[index >= 9].name for index, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return parts


def test_weights_that_are_there_twice_are_refused(tiny_base: str, untied: str, tmp_path: Path) -> None:
    both = Path(damaged(tiny_base, tmp_path / "both"))
    parts = in_parts(tiny_base, both)
    [text] = errors_of(str(both), tmp_path)
    assert "its weights are there twice, in model.safetensors and in parts (model-00001-of-00002.safetensors" in text
    (both / "model.safetensors").unlink()
    assert not errors_of(str(both), tmp_path)
    first, second = map(load_file, parts)
    name = sorted(second)[0]
    save_file({**first, name: second[name] * 3}, parts[0], {"format": "pt"})
    [text] = errors_of(str(both), tmp_path)
    assert f"holds 1 weights that another part of the model holds too ({name}); only one of each" in text


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(name: str, tiny_base: str, tmp_path: Path) -> None:
    folder = Path(damaged(tiny_base, tmp_path / "model"))
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")
    with pytest.raises(ModelError, match=f"{name}: is a pointer of Git LFS.*\n  fix: run `git lfs pull`"):
        find_policy(str(folder))


@pytest.mark.parametrize("key", ["eos_token", "bos_token"])
def test_a_token_that_the_tokenizers_file_does_not_hold_is_refused(key: str, tiny_base: str, tmp_path: Path) -> None:
    """transformers would add it as token 260, behind the 260 of the file, and the embedding has 264 rows."""
    folder = Path(damaged(tiny_base, tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "<|ende|>"}))
    with pytest.raises(ModelError, match=f"{key} is .*ende.*it would be a new token, 260, whose embedding"):
        load_tokenizer(str(folder))


def test_rotary_frequencies_are_known_before_weights_load(untied: str, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}
    folder = damaged(untied, tmp_path / "rope", rope_parameters=rope)
    assert ["rotary frequencies model.rotary_emb.inv_freq" in text for text in errors_of(folder, tmp_path)] == [True]
    assert not errors_of(damaged(untied, tmp_path / "right", rope_parameters={**rope, "factor": 2.0}), tmp_path)


def test_a_norm_that_computes_nan_is_named_as_such(untied: str) -> None:
    network = tiny_network(untied)
    network.add_trainable("policy", None)
    cast("Any", network.trunk("policy")).model.norm.variance_epsilon = -1e3
    with pytest.raises(ModelError, match="computes is NaN or infinity, although its weights are finite"):
        check_lm_head(network)


def test_an_adapter_that_nothing_has_trained_is_a_warning(adapter: str, tmp_path: Path) -> None:
    def untrained(weights: Weights) -> Weights:
        return {name: weight * (0 if "lora_B" in name else 1) for name, weight in weights.items()}

    folder = damaged(adapter, tmp_path / "adapter", untrained, "adapter_model.safetensors")
    [finding] = weight_findings(tiny_data.stage("sft", tmp_path, model=folder))
    assert (finding.level, finding.code) == ("warning", "untrained-adapter")


# -- rewards that teach nothing ----------------------------------------------------------------------------------------


def scored(scorer: str, folder: Path, change: Callable[[Weights], Weights]) -> str:
    return damaged(scorer, folder, change)


def random_head(seed: int) -> Callable[[Weights], Weights]:
    head = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
    return plus({"score.weight": head})


def test_a_reward_that_is_a_copy_of_another_is_refused(scorer: str, tmp_path: Path) -> None:
    first = scored(scorer, tmp_path / "first", random_head(0))
    copy, other = damaged(first, tmp_path / "copy"), scored(scorer, tmp_path / "other", random_head(1))
    halved = scored(first, tmp_path / "halved", lambda weights: {name: w.bfloat16() for name, w in weights.items()})
    for rewards, repeated in (([first, copy], True), ([first, other], False), ([other, first, halved], True)):
        errors = [finding.code for finding in reward_findings(tiny_data.stage("ppo", tmp_path, reward=rewards))]
        assert errors == ["repeated-reward"] * repeated
    code = "def score(conversations):\n    return [1.0 for _ in conversations]\n"
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(code)
    config = tiny_data.stage("ppo", tmp_path, reward=[f"{tmp_path}/a.py:score", f"{tmp_path}/b.py:score"])
    [finding] = reward_findings(config)
    assert "b.py:score is a copy of reward[0]" in finding.text


def test_a_reward_whose_score_is_constant_is_refused(scorer: str, tiny_base: str, tmp_path: Path) -> None:
    zeros = scored(scorer, tmp_path / "zeros", plus({"score.weight": torch.zeros(1, 32)}))
    [finding] = weight_findings(tiny_data.stage("ppo", tmp_path, model=tiny_base, reward=zeros))
    assert (finding.code, finding.section) == ("constant-reward", "reward")
    unread = torch.eye(32)[0]  # the one channel that the last norm lets through has no weight in the score
    still = plus({"model.norm.weight": unread, "score.weight": 1 - unread[None]})
    config = tiny_data.stage("ppo", tmp_path, model=tiny_base, reward=scored(scorer, tmp_path / "still", still))
    assert not list(weight_findings(config))
    with pytest.raises(ModelError, match="it gives every answer the same score"):
        tiny_data.run(config)


def test_a_reward_of_another_vocabulary_is_known_before_weights_load(
    scorer: str, tiny_base: str, tmp_path: Path
) -> None:
    """The value model starts from it: it was found when both models had loaded."""
    other = damaged(scorer, tmp_path / "other", vocab_size=300)
    config = tiny_data.stage("ppo", tmp_path, model=tiny_base, reward=other)
    [finding] = reward_findings(config)
    assert "has another vocabulary (300)" in finding.text
    free = tiny_data.stage("ppo", tmp_path, model=tiny_base, reward=other, lora={"r": 2})
    assert not list(reward_findings(free))


# -- permissions of `evaluate` and `chat` ------------------------------------------------------------------------------


def test_ignored_weights_are_allowed_and_named_where_models_are_only_used(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = damaged(tiny_base, tmp_path / "model", plus({"tower.0.w": torch.ones(900)}))
    assert main(["chat", folder, "--device", "cpu"]) == 4
    assert "--allow ignored-weights" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    chat = ["chat", folder, "--device", "cpu", "--max-new-tokens", "2", "--allow"]
    assert main([*chat, "ignored-weights"]) == 0
    assert f"allowed: {folder}: LlamaForCausalLM has no use for 1 of its weights" in capsys.readouterr().err
    assert main([*chat, "ignored"]) == 2
    evaluate = ["evaluate", folder, "tasks=[forgetting]", "limit=2", "--output", str(tmp_path / "report")]
    evaluate += ["--device", "cpu"]
    assert main(evaluate) == 4
    assert main([*evaluate, "allow=[ignored-weights]"]) == 0
    assert "LlamaForCausalLM has no use for 1 of its weights" in " ".join(capsys.readouterr().err.split())
