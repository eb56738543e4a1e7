"""The reward model end to end on tiny rankings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import shake, tiny_network
from trueup.errors import DataError
from trueup.models.batching import Branch, Example, collate
from trueup.training import objectives


@pytest.mark.parametrize("lora", [None, tiny_data.LORA], ids=["full", "lora"])
def test_it_learns_the_rankings(lora: Any, tmp_path: Path) -> None:
    config = tiny_data.stage("reward", tmp_path, lora=lora, optim={"epochs": 10, "lr": 1e-2})
    summary = tiny_data.run(config)
    log = tiny_data.metrics(config)
    assert log[0]["loss"] == pytest.approx(math.log(2))  # a head of zeros
    assert log[0]["reward/accuracy"] == 0.5  # ties count as halves
    assert log[-1]["reward/accuracy"] > 0.9
    assert summary["method"] == "reward"
    assert (tmp_path / "run" / "adapter").exists() == (lora is not None)


def test_the_export_scores_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from trueup.data.rendering.messages import Conversation, Message
    from trueup.models.reward_model import model_reward

    seen = tiny_data.networks(monkeypatch)
    tiny_data.run(tiny_data.stage("reward", tmp_path, lora=tiny_data.LORA, optim={"steps": 8, "lr": 1e-2}))
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    text = tokenizer.apply_chat_template(talk, tokenize=False).rstrip("\n")
    with torch.no_grad():
        theirs = float(model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits)
    ours = model_reward(seen[0], max_tokens=1000)([Conversation(tuple(Message(**one) for one in talk))])
    assert float(ours) == pytest.approx(theirs, abs=1e-4)
    assert theirs != 0


def test_margins(tmp_path: Path) -> None:
    """At the start all scores are 0, so each pair costs -log sigmoid(-margin)."""
    data = tiny_data.data(tmp_path, "margins", 6)
    settings = {"data": data, "loss": {"margin": True}, "optim": {"steps": 2, "batch_size": 6}}
    config = tiny_data.stage("reward", tmp_path, **settings)
    tiny_data.run(config)
    margins = [row["margin"] for row in tiny_data.rows("margins", 6)]
    assert tiny_data.metrics(config)[0]["loss"] == pytest.approx(
        sum(math.log1p(math.exp(margin)) for margin in margins) / 6, rel=1e-5
    )


def test_a_missing_margin_is_named(tmp_path: Path) -> None:
    made = tiny_data.rows("margins", 3)
    made[1].pop("margin")
    path = tiny_data.write(tmp_path / "some.jsonl", made)
    with pytest.raises(DataError, match=r"some\.jsonl:2: .*margin"):
        tiny_data.run(tiny_data.stage("reward", tmp_path, data=path, loss={"margin": True}))


def test_centering_costs_the_square_of_the_scores_sum(tmp_path: Path) -> None:
    """Eisenstein et al. 2023, eq. 2; in its own run the first step costs nothing, as all scores are 0."""
    config = tiny_data.stage("reward", tmp_path, loss={"center": 0.5}, optim={"steps": 2})
    tiny_data.run(config)
    assert tiny_data.metrics(config)[0]["loss"] == pytest.approx(math.log(2))
    network = tiny_network(config.model)
    network.add_trainable("reward", None, head=True)
    shake(network, scale=0.3)
    examples = [
        Example([5, 6, 7 + at], (Branch([8, 9], [True] * 2), Branch([10 + at], [True]))) for at in range(3)
    ]  # fmt: skip
    batch = collate(examples, per="example", pad_id=0)
    with torch.no_grad():
        scores = network(batch, "reward", "scores")[0]
        plain, centred = (
            objectives.reward(type(config.loss)(center=center))(network, batch)[0] for center in (0.0, 0.5)
        )
    sums = scores[0::2] + scores[1::2]
    assert float(sums.abs().min()) > 0.01
    assert torch.allclose(centred - plain, 0.5 * sums.square(), atol=1e-6)


def test_held_out_accuracy_has_its_n_and_interval(tmp_path: Path) -> None:
    held_out = {"data": tiny_data.data(tmp_path, "rankings", 6), "every": 2}
    config = tiny_data.stage("reward", tmp_path, allow=["eval-overlap"], eval=held_out, optim={"steps": 4})
    last = tiny_data.run(config)["last"]
    assert last["eval/n"] == 6
    assert 0 <= last["eval/accuracy_low"] <= last["eval/accuracy"] <= last["eval/accuracy_high"] <= 1


def test_long_pairs_are_counted_by_side(tmp_path: Path) -> None:
    made = tiny_data.rows("rankings", 4)
    made[2]["rejected"] = "long " * 30
    path = tiny_data.write(tmp_path / "long.jsonl", made)
    settings: dict[str, Any] = {"data": path, "max_length": 80, "optim": {"steps": 1}}
    with pytest.raises(DataError, match=r"long\.jsonl:3 (.|\n)*chosen 0, rejected 1, prompt alone 0"):
        tiny_data.run(tiny_data.stage("reward", tmp_path, **settings))
    config = tiny_data.stage("reward", tmp_path, **settings, over_length="drop")
    tiny_data.run(config)
    assert tiny_data.account(config)["used"] == 3


def test_identical_pairs_are_listed_or_dropped_and_counted(tmp_path: Path) -> None:
    made = tiny_data.rows("rankings", 5)
    for at in (1, 3):
        made[at]["rejected"] = made[at]["chosen"]
    path = tiny_data.write(tmp_path / "same.jsonl", made)
    with pytest.raises(DataError, match="2 of 5 pairs have the same chosen and rejected: lines 2, 4"):
        tiny_data.run(tiny_data.stage("reward", tmp_path, data=path))
    config = tiny_data.stage("reward", tmp_path, data={"path": path, "identical_pairs": "drop"}, optim={"steps": 1})
    tiny_data.run(config)
    counts = tiny_data.account(config)
    assert (counts["read"], counts["used"]) == (5, 3)
    assert [Path(one["at"]).name for one in counts["dropped"]] == ["same.jsonl:2", "same.jsonl:4"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["data"]["data"] == counts
