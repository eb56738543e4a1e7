"""No run ends without its model: a failed export keeps the weights and goes on; NaN or nothing learned is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from trueup.errors import ModelError, TrainingError
from trueup.recipes import sft, stage


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_failed_export_keeps_the_weights_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Any
) -> None:
    config = tiny_data.stage("sft", tmp_path, lora=lora, optim={"steps": 2})
    expected = tiny_data.stage("sft", tmp_path, "whole", lora=lora, optim={"steps": 2})
    tiny_data.run(expected)

    def broken(*_: Any) -> None:
        raise AttributeError("'LlamaExperts' object has no attribute 'weight'")

    with monkeypatch.context() as patch:
        patch.setattr("trueup.export.writing.merged_state", broken)
        with pytest.raises(ModelError, match=r"(?s)training is done.*LlamaExperts.*step-0*2.*without training again"):
            sft.run(config)
    output = Path(config.output)
    assert not (output / "summary.json").exists()
    assert (output / "adapter").is_dir() == (lora is not None)
    trained: list[int] = []
    monkeypatch.setattr("trueup.training.step.Stepper.take", lambda *_: trained.append(1))
    tiny_data.run(config)
    assert not trained
    assert tiny_data.result(config) == tiny_data.result(expected)


def test_a_model_of_nan_is_an_error_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_data.stage("sft", tmp_path, optim={"steps": 1})
    original = stage.fit

    def damaged(network: Any, *rest: Any, **more: Any) -> Any:
        fitted = original(network, *rest, **more)
        with torch.no_grad():
            next(weight for name, weight in network.trainable() if "up_proj" in name)[0, 0] = float("nan")
        return fitted

    monkeypatch.setattr(stage, "fit", damaged)
    with pytest.raises(TrainingError, match=r"holds NaN or infinity \(.*up_proj"):
        tiny_data.run(config)
    assert (Path(config.output) / "model" / "model.safetensors").is_file()
    assert not (Path(config.output) / "summary.json").exists()


def test_a_model_equal_to_its_start_is_an_error_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_data.stage("sft", tmp_path, optim={"steps": 1})
    monkeypatch.setattr("trueup.training.step.Stepper._apply", lambda *_: None)
    with pytest.raises(TrainingError, match=r"(?s)after 1 steps no weight of the policy differs.*now 0\.003"):
        tiny_data.run(config)
    assert (Path(config.output) / "model" / "model.safetensors").is_file()
