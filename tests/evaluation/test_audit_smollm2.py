"""`trueup audit` on a real small model: one set of weights in three forms, and a planted damage.

TRUEUP_SMOLLM2 names SmolLM2-135M-Instruct as a .gguf file, which `make smollm2` writes into models/.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from stand_in_model import serving_model
from trueup import runtime
from trueup.cli import main as cli
from trueup.evaluation.items import read_items
from trueup.models.loading import load_causal_lm, load_tokenizer
from trueup.report.report_schema import Report

GGUF = os.environ.get("TRUEUP_SMOLLM2", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(GGUF).is_file(), reason="no SmolLM2: make smollm2, or set TRUEUP_SMOLLM2 to its .gguf"),
]
FEW = ["limit=12", "samples=4", "max_new_tokens=16", "--device", "cpu", "--dtype", "float32", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file's weights as a folder of float32, which holds them exactly."""
    folder = tmp_path_factory.mktemp("smollm2") / "same"
    load_causal_lm(GGUF, runtime.init("cpu", "float32", threads=1)).save_pretrained(folder)
    load_tokenizer(GGUF).save_pretrained(folder)
    return folder


def audit(out: Path, *models: str, more: tuple[str, ...] = ()) -> tuple[int, Report]:
    code = cli.main(["audit", *models, *FEW, *more, "--output", str(out)])
    return code, Report.model_validate_json((out / "report.json").read_text())


def answers(out: Path, name: str) -> dict[tuple[str, str], str | None]:
    """The greedy answers that a model wrote itself."""
    items = read_items(next((out / "evaluation").glob(f"{name}*.jsonl")))
    return {(one.task, one.id): one.answer for one in items if one.task not in ("answers", "forgetting")}


def test_a_file_a_folder_and_a_server_give_the_same_greedy_answers(folder: Path, tmp_path: Path) -> None:
    with serving_model(folder, "served") as server:
        _, report = audit(tmp_path, str(folder), GGUF, f"{server.url}#served")
    file = Path(GGUF).name
    assert report.origins["same"].weights == report.origins[file].weights is not None
    assert f"Identical weights: same and {file} are the same, tensor for tensor." in report.verdict.notes
    ours, served = answers(tmp_path, "same"), answers(tmp_path, "served")
    assert answers(tmp_path, file.removesuffix(".gguf")) == ours
    assert served
    assert served == {key: ours[key] for key in served}
    for measure in report.measures:
        if measure.key in ("capability", "over-refusal", "unsafe-compliance", "forgetting"):
            assert measure.differences[file].value == 0 if file in measure.differences else True, measure.key


def test_a_scaled_layer_is_found(folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.layers.12.mlp.down_proj.weight"] *= 6
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    code, report = audit(
        tmp_path / "out", str(folder), str(damaged), more=("tasks=forgetting", "gates.forgetting_rise=0.1")
    )
    assert report.verdict.notes == []
    assert code == 8
    assert "text outside the domain is forgotten: " in report.verdict.sentence
