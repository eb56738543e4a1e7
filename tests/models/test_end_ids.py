"""All end ids of a model end an answer, in sampling and in the exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import EOS_ID, tiny_folder, tiny_network
from trueup import runtime
from trueup.chat.speaker import Speaker
from trueup.errors import ModelError
from trueup.preflight.models import setting_findings
from trueup.sampling import sample

LETTER = 40
"""The id of an ordinary token: it ends an answer only where the model says so."""


def base(path: Path, ids: object, file: str = "generation_config.json") -> str:
    folder = tiny_folder(path)
    settings = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(settings | {"eos_token_id": ids}))
    return folder


def test_every_id_of_generation_config_ends_an_answer(tmp_path: Path) -> None:
    network = tiny_network(base(tmp_path / "base", [2, 0, LETTER]))
    network.add_frozen("policy")
    assert network.stop_ids == {2, 0, LETTER}
    prompts = [[5, 6, 7], [9, 8]]
    free = sample(tiny_network_without(tmp_path), prompts, max_new_tokens=40, seed=3)
    ended = sample(network, prompts, max_new_tokens=40, seed=3)
    for before, after in zip(free, ended, strict=True):
        cut = next((index for index, token in enumerate(before.ids) if token in network.stop_ids), None)
        assert after.ids == (before.ids if cut is None else before.ids[: cut + 1])
        assert after.finished == (cut is not None)
    assert any(answer.ids[-1] in (0, LETTER) for answer in forced(network, prompts))


def tiny_network_without(tmp_path: Path):
    network = tiny_network(tmp_path / "plain")
    network.stop_ids = frozenset()
    network.add_frozen("policy")
    return network


def forced(network, prompts):
    """Samples of the network with the letter's logit raised until it comes."""
    head = network.trunks["base"].get_output_embeddings()
    with torch.no_grad():
        head.weight[LETTER] = head.weight.mean(0) * 0
        hidden = network.trunks["base"].base_model(input_ids=torch.tensor([prompts[0]])).last_hidden_state[0, -1]
        head.weight[LETTER] = 10 * hidden
    return sample(network, prompts[:1], max_new_tokens=4, temperature=0.0)


def test_a_list_in_config_json_counts_and_a_single_ordinary_id_does_not(tmp_path: Path) -> None:
    listed, single = Path(tiny_folder(tmp_path / "listed")), Path(tiny_folder(tmp_path / "single"))
    for folder in (listed, single):
        (folder / "generation_config.json").unlink()
    base(listed, [2, LETTER], "config.json")
    base(single, LETTER, "config.json")
    assert tiny_network(listed).stop_ids == {2, LETTER}
    assert tiny_network(single).stop_ids == {2}


def test_what_is_no_id_is_refused(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "base")
    trunk: Any = network.trunks["base"]
    trunk.generation_config.eos_token_id = ["</s>"]
    from trueup.models.weights import end_ids

    with pytest.raises(ModelError, match=r"generation_config.json: eos_token_id is .*\n  fix: write a token's id"):
        end_ids(trunk, network.tokenizer)


def test_they_stand_in_the_exported_folder_and_go_on_from_there(tmp_path: Path) -> None:
    model = base(tmp_path / "base", [2, EOS_ID])
    config = tiny_data.stage("sft", tmp_path / "run", model=model, optim={"steps": 1, "lr": 0.01})
    tiny_data.run(config)
    exported = config.output / "model"
    assert json.loads((exported / "generation_config.json").read_text())["eos_token_id"] == [2, EOS_ID]
    assert tiny_network(exported).stop_ids == {2, EOS_ID}


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_an_end_token_beyond_the_vocabulary_is_known_before_weights_load(file: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", [2, 264], file)
    [finding] = setting_findings(tiny_data.stage("sft", tmp_path, model=folder))
    assert finding.text == f"{folder}: {file}: eos_token_id is [2, 264]"
    assert "0 to 263" in finding.fix
    with pytest.raises(ModelError, match=f"{folder}: {file}: eos_token_id is"):
        Speaker(folder, runtime.init("cpu", "float32"))
    assert not list(setting_findings(tiny_data.stage("sft", tmp_path, model=base(tmp_path / "base", [2, 263], file))))
