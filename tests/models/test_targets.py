"""Each name in `lora.targets` matches a layer, or is named with the one that was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny import lora, tiny_network
from trueup.errors import ModelError
from trueup.models.targets import target_problem
from trueup.preflight.models import check_models, target_findings
from trueup.preflight.report import check_stage
from trueup.system.console import Progress


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_network(tmp_path_factory.mktemp("targets") / "base")


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_proj", "v_porj"], "lora.targets: v_porj (did you mean v_proj?) matches no layer of this model"),
        (["w1", "qproj"], "lora.targets: w1, qproj (did you mean q_proj?) match no layer of this model"),
        (["self_attn"], "lora.targets: self_attn (a block, not a layer) matches no layer of this model"),
        (["layers.7.mlp.up_proj"], "lora.targets: layers.7.mlp.up_proj matches no layer of this model"),
        (
            ["all-linear"],
            "lora.targets: all-linear (for every linear layer write lora.targets=all-linear, without a list)",
        ),
        (["_proj"], "lora.targets: _proj (did you mean"),
    ],
)
def test_targets_that_match_nothing(network: Any, targets: list[str], said: str) -> None:
    problem = target_problem(network.trunks["base"], targets)
    assert problem is not None
    assert problem[0].startswith(said)
    assert (
        problem[1]
        == "its layers are down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    )


@pytest.mark.parametrize(
    "targets", [["q_proj"], ["layers.1.mlp.up_proj", "lm_head"], ["embed_tokens", "self_attn.k_proj"]]
)
def test_targets_that_match(network: Any, targets: list[str]) -> None:
    assert target_problem(network.trunks["base"], targets) is None


def test_a_network_refuses_them_and_takes_a_second_adapter(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", lora(targets=["q_proj"]))
    network.add_trainable("value", lora(targets=["q_proj", "up_proj"]), head=True)  # over PEFT's layers
    with pytest.raises(ModelError, match=r"v_porj \(did you mean v_proj\?\)"):
        network.add_trainable("other", lora(targets=["q_proj", "v_porj"]))


def test_a_check_and_a_stage_say_it_before_weights_load(tmp_path: Path) -> None:
    config = tiny_data.stage("sft", tmp_path, lora={"r": 4, "targets": ["q_proj", "v_porj"]})
    [finding] = target_findings(config)
    assert (finding.code, finding.section, finding.level) == ("unmatched-targets", "model", "error")
    with pytest.raises(ModelError, match="v_porj"):
        check_models(config, Progress(quiet=True))
    result = check_stage(config)
    assert result.exit_code(strict=False) == ModelError.exit_code
    assert not list(target_findings(tiny_data.stage("sft", tmp_path, lora={"r": 4})))
