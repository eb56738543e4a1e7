"""Models are what they say: adapters belong to their base, weights are numbers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import families
import tiny_data
from tiny import tiny_folder
from trueup import runtime
from trueup.config.untrusted import Trust
from trueup.errors import ModelError
from trueup.models.blank import blank_model
from trueup.models.loading import load_causal_lm, load_tokenizer
from trueup.models.weights import weight_problem
from trueup.preflight.models import weight_findings
from trueup.preflight.report import check_stage

IDS = torch.tensor([[4, 9, 30, 77, 5]])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A finished LoRA run: adapter/ and model/."""
    config = tiny_data.stage("sft", tmp_path, lora={"r": 4}, optim={"steps": 3, "lr": 0.05})
    tiny_data.run(config)
    return Path(config.output)


def logits(folder: Path | str, **more: Any) -> torch.Tensor:
    model = load_causal_lm(str(folder), runtime.init("cpu", "float32"), **more)
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_an_adapter_is_its_base_with_the_adapter_merged(trained: Path) -> None:
    base = json.loads((trained / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    whole, merged = logits(trained / "adapter"), logits(trained / "model")
    assert torch.allclose(whole, merged, atol=1e-5)
    assert not torch.allclose(whole, logits(base), atol=1e-3)
    assert load_tokenizer(str(trained / "adapter")).get_vocab() == load_tokenizer(base).get_vocab()


def test_training_goes_on_from_an_adapter(trained: Path, tmp_path: Path) -> None:
    config = tiny_data.stage("sft", tmp_path / "on", model=str(trained / "adapter"), optim={"steps": 1})
    tiny_data.run(config)
    assert (Path(config.output) / "model" / "config.json").is_file()


def test_an_adapter_of_another_base_is_refused(trained: Path, tmp_path: Path) -> None:
    settings = trained / "adapter" / "adapter_config.json"
    told = json.loads(settings.read_text()) | {"base_model_name_or_path": tiny_folder(tmp_path / "other", seed=9)}
    settings.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"trained over other weights than those of .*other"):
        logits(trained / "adapter")
    assert logits(trained / "adapter", other_base=True).isfinite().all()
    with pytest.raises(ModelError, match="trained over other weights"):
        tiny_data.run(tiny_data.stage("sft", tmp_path / "no", model=str(trained / "adapter")))
    allowed = {"model": str(trained / "adapter"), "allow": ["other-base"], "optim": {"steps": 1}}
    tiny_data.run(tiny_data.stage("sft", tmp_path / "yes", **allowed))


def test_an_adapter_of_another_shape_is_refused(trained: Path, tmp_path: Path) -> None:
    settings = trained / "adapter" / "adapter_config.json"
    wide = tiny_folder(tmp_path / "wide", hidden=64)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": wide}))
    (trained / "adapter" / "trueup.json").unlink()  # as an adapter of another tool
    with pytest.raises(ModelError, match="does not fit"):
        logits(trained / "adapter")


def test_an_adapter_without_its_weights_is_named(trained: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(trained / "adapter", tmp_path / "copied")
    (copied / "adapter_model.safetensors").unlink()
    findings = weight_findings(tiny_data.stage("sft", tmp_path, model=str(copied)))
    said = [finding.text for finding in findings if finding.level == "error"]
    assert said == [f"{copied}: has no adapter_model.safetensors, the adapter's weights"]


def test_an_adapter_of_another_family_is_named_by_a_check(trained: Path, tmp_path: Path) -> None:
    settings = trained / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"target_modules": ["c_attn"]}))
    findings = weight_findings(tiny_data.stage("sft", tmp_path, model=str(trained / "adapter")))
    said = [finding.text for finding in findings if finding.level == "error"]
    assert len(said) == 1
    assert "does not fit a LlamaForCausalLM, which has none of its target modules" in said[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tiny_base: str, value: float) -> None:
    shutil.copytree(tiny_base, tmp_path / "bad")
    path = tmp_path / "bad" / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = value
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} hold NaN or infinity"):
        tiny_data.run(tiny_data.stage("sft", tmp_path, model=str(tmp_path / "bad")))


def changed(base: str, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> str:
    """A copy of a model whose weights `change` has changed in place."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(("value", "said"), [
    (1e20, r"1 weights hold numbers beyond 65,504 \(model.layers.1.mlp.up_proj.weight: 1e\+20\)"),
    (-1e6, r"model.layers.1.mlp.up_proj.weight: -1e\+06"),
])  # fmt: skip
def test_an_absurd_number_is_refused_before_training(tmp_path: Path, tiny_base: str, value: float, said: str) -> None:
    folder = changed(tiny_base, tmp_path / "bad", lambda w: w["model.layers.1.mlp.up_proj.weight"][3].fill_(value))
    config = tiny_data.stage("sft", tmp_path, model=folder)
    with pytest.raises(ModelError, match=said):
        tiny_data.run(config)
    [finding] = [finding for finding in check_stage(config).findings if finding.level == "error"]
    assert finding.code == "absurd-weights"
    assert re.search(said, finding.text)


@pytest.mark.parametrize(("part", "value", "said"), [
    ("", 0.0, "in 15 matrices all numbers are equal"),
    ("1.mlp.up_proj", 0.0, r"in 1 matrices all numbers are equal \(model.layers.1.mlp.up_proj.weight: 0\)"),
    ("embed", 0.25, r"model.embed_tokens.weight: 0.25"),
])  # fmt: skip
def test_a_matrix_of_one_number_is_refused_unless_allowed(
    tmp_path: Path, tiny_base: str, part: str, value: float, said: str
) -> None:
    def constant(weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            weight.fill_(value) if part in name else None

    folder = changed(tiny_base, tmp_path / "bad", constant)
    with pytest.raises(ModelError, match=said) as caught:
        load_causal_lm(folder, runtime.init("cpu", "float32"))
    assert "allow=[constant-weights]" in str(caught.value)
    load_causal_lm(folder, runtime.init("cpu", "float32"), trust=Trust(constant_weights=True))
    levels = {}
    for allow in ([], ["constant-weights"]):
        config = tiny_data.stage("sft", tmp_path, model=folder, allow=allow)
        levels[len(allow)] = {f.level for f in check_stage(config).findings if f.code == "constant-weights"}
    assert levels == {0: {"error"}, 1: {"allowed"}}


def test_a_matrix_that_its_class_begins_so_is_accepted(tmp_path: Path) -> None:
    """AFMoE's routers begin at zero, its up-projections do not."""
    blank = blank_model(AutoModelForCausalLM, families.tiny_config("afmoe"))
    router, up = "model.layers.0.mlp.router.gate.weight", "model.layers.0.self_attn.q_proj.weight"
    weights = dict(blank.state_dict())
    assert weight_problem([(router, torch.zeros(weights[router].shape))], lambda: blank) is None
    problem = weight_problem([(up, torch.zeros(weights[up].shape))], lambda: blank)
    assert problem is not None
    assert problem.code == "constant-weights"
    others = {"bias": torch.ones(4, 4), "norm": torch.zeros(9), "score": torch.zeros(1, 9)}
    assert weight_problem(others.items(), lambda: None) is None


def test_a_model_that_reads_nothing_is_named_as_such(tmp_path: Path, tiny_base: str) -> None:
    """All norms are zero, so every token gives the same states."""
    folder = changed(tiny_base, tmp_path / "bad", lambda w: [v.zero_() for name, v in w.items() if "norm" in name])
    with pytest.raises(ModelError, match="it computes the same whatever token it reads"):
        tiny_data.run(tiny_data.stage("sft", tmp_path, model=folder))


def test_a_merge_that_half_precision_would_undo_is_not_trained_on_in_it(tmp_path: Path) -> None:
    small = {"lora": {"r": 4}, "dtype": "bfloat16", "optim": {"steps": 2, "lr": 1e-6}}
    first = tiny_data.stage("sft", tmp_path, **small)
    tiny_data.run(first)
    model = Path(first.output) / "model"
    assert json.loads((model / "rounding.json").read_text())["kept"] < 0.9
    assert {one.dtype for one in load_file(model / "model.safetensors").values()} == {torch.float32}
    again = {"model": str(model), "optim": {"steps": 1}}
    with pytest.raises(ModelError, match=r"(?s)only \d+% of what was trained .*dtype=float32"):
        tiny_data.run(tiny_data.stage("sft", tmp_path / "half", dtype="bfloat16", **again))
    tiny_data.run(tiny_data.stage("sft", tmp_path / "known", dtype="bfloat16", allow=["rounded-weights"], **again))
    tiny_data.run(tiny_data.stage("sft", tmp_path / "full", dtype="float32", **again))
