"""DPO and its relatives end to end on tiny rankings, KTO on labels too, and the cache of the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import tiny_folder
from trueup.algorithms import preference
from trueup.algorithms.preference import LOSSES, NEEDS_REFERENCE, UNPAIRED
from trueup.config import DpoConfig, functions
from trueup.data.unpaired import mismatched
from trueup.errors import DataError, TrainingError
from trueup.models.batching import Example
from trueup.recipes import reference
from trueup.report.stages import alarms

# The loss where the policy is its own reference: the log-ratios are 0.
AT_START = {
    "sigmoid": math.log(2),
    "robust": math.log(2),
    "ipo": (1 / (2 * 0.1)) ** 2,
    "hinge": 1.0,
    "sigmoid_norm": math.log(2),
    "dpop": math.log(2),
    "kto": 0.5,
}


def test_all_losses_with_a_reference_are_listed_here() -> None:
    assert set(AT_START) == set(NEEDS_REFERENCE)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_learns(name: str, tmp_path: Path) -> None:
    lora = tiny_data.LORA if name in ("robust", "orpo", "kto") else None
    config = tiny_data.stage(
        "dpo", tmp_path, lora=lora, loss={"name": name}, optim={"steps": 9, "lr": 3e-3, "warmup": 0}
    )
    summary = tiny_data.run(config)
    log = tiny_data.metrics(config)
    if name in AT_START:
        assert log[0]["loss"] == pytest.approx(AT_START[name], rel=1e-4)
    assert log[-1]["loss"] < log[0]["loss"]
    if name not in UNPAIRED:
        assert log[-1]["dpo/rewards/margin"] > log[0]["dpo/rewards/margin"]
    assert summary["steps"] == 9
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "reference-data.safetensors").is_file() == (name in NEEDS_REFERENCE)
    assert tiny_data.account(config)["used"] == 12


SMOLLM2 = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
REAL = [pytest.mark.slow, pytest.mark.skipif(not SMOLLM2.is_file(), reason="needs make smollm2")]


@pytest.mark.parametrize("lora", [{}, None], ids=["lora", "full"])
@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2", marks=REAL)])
def test_the_defaults_train(model: str, lora: dict[str, Any] | None, tmp_path: Path) -> None:
    """24 steps of 8 plain pairs, all else at its default: the margin grows, and held-out loss falls."""
    words = ["red", "blue", "green", "tall", "small", "warm", "cold", "old", "new", "fast", "slow", "kind"]
    pairs = [
        {"prompt": f"Is {word} a nice word?", "chosen": f"Yes, {word} is nice.", "rejected": "No, I do not like it."}
        for word in words
    ]
    data, held_out = tiny_data.write(tmp_path / "d.jsonl", pairs[:8]), tiny_data.write(tmp_path / "h.jsonl", pairs[8:])
    config = DpoConfig.model_validate(
        {
            "model": str(SMOLLM2) if model == "smollm2" else tiny_folder(tmp_path / "base"),
            "output": str(tmp_path / "run"), "data": data, "lora": lora,
            "optim": {"steps": 24}, "eval": {"data": held_out}, "device": "cpu", "threads": 1,
            "watch": {"samples": 0},
        }
    )  # fmt: skip
    summary = tiny_data.run(config)
    log = tiny_data.metrics(config)
    assert summary["outcome"] == []
    assert log[-1]["dpo/rewards/margin"] > 0.05
    assert log[-1]["eval/rewards/margin"] > 0.05
    assert log[-1]["eval/loss"] < math.log(2)


def test_a_training_in_which_nothing_moved_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the rate that was once the default. The report takes it from summary.json as an alarm of the stage."""
    config = tiny_data.stage("dpo", tmp_path, lora={}, optim={"lr": 1e-6})
    [alarm] = tiny_data.run(config)["outcome"]
    assert alarm["name"] == "nothing-moved"
    assert alarm["step"] == 4
    assert "nothing-moved: the training changed next to nothing: the margin over the last 1 steps" in " ".join(
        capsys.readouterr().err.split()
    )
    assert [(alarm.stage, alarm.name) for alarm in alarms("dpo", config.output)] == [("dpo", "nothing-moved")]


def test_without_a_reference_no_second_model_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tiny_data.networks(monkeypatch)
    tiny_data.run(tiny_data.stage("dpo", tmp_path, "a", loss={"name": "simpo"}, optim={"steps": 1}))
    tiny_data.run(tiny_data.stage("dpo", tmp_path, "b", lora=tiny_data.LORA, optim={"steps": 1}))
    assert [set(network.trunks) for network in seen] == [{"base"}, {"base"}]


def test_the_reference_can_be_another_model(tmp_path: Path) -> None:
    other = tiny_folder(tmp_path / "other", seed=5)
    config = tiny_data.stage("dpo", tmp_path, reference=other, optim={"steps": 1, "batch_size": 12})
    tiny_data.run(config)
    assert abs(tiny_data.metrics(config)[0]["loss"] - math.log(2)) > 1e-3


def test_held_out_rankings(tmp_path: Path) -> None:
    held_out = {"data": tiny_data.data(tmp_path, "rankings", 6), "every": 2}
    for name in ("sigmoid", "simpo", "kto"):
        config = tiny_data.stage(
            "dpo", tmp_path, name, loss={"name": name}, eval=held_out, optim={"steps": 4}, allow=["eval-overlap"]
        )
        last = tiny_data.run(config)["last"]
        assert last["eval/n"] == 6
        assert 0 <= last["eval/accuracy_low"] <= last["eval/accuracy"] <= last["eval/accuracy_high"] <= 1
        assert ("eval/loss" in last) == (name != "kto")


def test_mixed_instructions(tmp_path: Path) -> None:
    mix = {"data": tiny_data.data(tmp_path, "conversations", 5), "weight": 0.5}
    config = tiny_data.stage("dpo", tmp_path, mix=mix, optim={"steps": 2})
    tiny_data.run(config)
    for row in tiny_data.metrics(config):
        assert row["loss"] == pytest.approx(row["dpo/loss"] + 0.5 * row["mix/loss"])


# ------------------------------------------------------------------ KTO


def kto(tmp_path: Path, kind: str, **settings: Any) -> Any:
    data = tiny_data.data(tmp_path, kind, 6)
    options = {"data": data, "loss": {"name": "kto"}, "optim": {"steps": 2, "batch_size": 12}}
    return tiny_data.stage("dpo", tmp_path, **tiny_data.merged(options, settings))


def test_kto_on_labels(tmp_path: Path) -> None:
    config = kto(tmp_path, "labelled")
    tiny_data.run(config)
    made = tiny_data.rows("labelled", 6)
    counts = tiny_data.account(config)
    assert counts["used"] == 6
    assert counts["trained_tokens"] == sum(len(row["completion"]) + 1 for row in made)


def test_kto_on_rankings_takes_both_sides(tmp_path: Path) -> None:
    data = tiny_data.data(tmp_path, "rankings", 6)
    config = tiny_data.stage("dpo", tmp_path, data=data, loss={"name": "kto"}, optim={"epochs": 1})
    assert tiny_data.run(config)["steps"] == 3  # six rankings, twelve completions
    assert tiny_data.account(config)["used"] == 6


def test_kto_never_estimates_the_kl_on_a_prompts_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup.recipes import dpo

    made: list[list[Example]] = []
    monkeypatch.setattr(dpo, "mismatched", lambda examples, limit: made.append(examples) or mismatched(examples, limit))
    tiny_data.run(kto(tmp_path, "rankings"))
    [examples] = made
    own = {(tuple(one.trunk), tuple(one.branches[0].ids)) for one in examples}
    assert len(own) == 12
    assert sum(one.branches[0].scalars["desirable"] for one in examples) == 6
    for one in mismatched(examples, 10_000):
        assert (tuple(one.trunk), tuple(one.branches[0].ids)) not in own


@pytest.fixture
def fresh_readers() -> Iterator[None]:
    """Forget what was read from the losses' source, before and after."""
    readers = (functions._tree, functions._table, functions._names)
    for reader in readers:
        reader.cache_clear()
    yield
    for reader in readers:
        reader.cache_clear()


@pytest.mark.usefixtures("fresh_readers")
@pytest.mark.parametrize("with_reference", [True, False])
def test_an_unpaired_loss_of_another_name_is_the_one_that_trains(
    with_reference: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A throw-away loss in LOSSES and UNPAIRED that is 7 for each completion: every logged loss is 7."""

    def seven(completions: preference.Completions, *, beta: float = 0.1) -> torch.Tensor:
        assert (completions.ref_logps is not None) == (completions.kl is not None) == with_reference
        return 7 + 0 * beta * completions.logps

    source = tmp_path / "preference.py"
    text = functions.LOSSES.source.read_text(encoding="utf-8").replace(
        '"kto": kto,', '"kto": kto,\n    "seven": seven,'
    )
    text = text.replace('frozenset({"kto"})', 'frozenset({"kto", "seven"})')
    if with_reference:
        text = text.replace('"kto"})\n', '"kto", "seven"})\n', 1)
    source.write_text(text + "\ndef seven(completions: Completions, *, beta: float = 0.1): ...\n", encoding="utf-8")
    monkeypatch.setattr(functions.LOSSES, "source", source)
    monkeypatch.setitem(LOSSES, "seven", seven)
    config = kto(tmp_path, "labelled", loss={"name": "seven"})
    with pytest.raises(TrainingError, match="no weight of the policy differs"):  # its gradient is 0
        tiny_data.run(config)
    assert [row["dpo/loss"] for row in tiny_data.metrics(config)] == [7, 7]
    rankings = tiny_data.data(tmp_path, "rankings", 6)
    measured = {"output": str(tmp_path / "again"), "eval": {"data": rankings}, "allow": ["eval-overlap"]}
    config = kto(tmp_path, "rankings", loss={"name": "seven"}, **measured)
    with pytest.raises(TrainingError, match="no weight of the policy differs"):
        tiny_data.run(config)
    assert not any("eval/loss" in row for row in tiny_data.metrics(config))


def test_kto_on_rows_of_neither_kind_says_what_labels_need(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prompt, completion and label"):
        tiny_data.run(kto(tmp_path, "conversations"))


# ------------------------------------------------------------------ the reference's cache


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the examples of each pass through the reference."""
    passes: list[int] = []
    original = reference.branch_logps

    def counting(network: Any, examples: Any, role: str, **settings: Any) -> Any:
        if role == "reference":
            passes.append(len(examples))
        return original(network, examples, role, **settings)

    monkeypatch.setattr(reference, "branch_logps", counting)
    return passes


def cached(tmp_path: Path, **settings: Any) -> Any:
    return tiny_data.stage("dpo", tmp_path, **tiny_data.merged({"optim": {"steps": 1}}, settings))


def test_the_cache_is_used_when_nothing_changed(tmp_path: Path, computed: list[int]) -> None:
    tiny_data.run(cached(tmp_path))
    assert computed == [12]
    cache = (tmp_path / "run" / "reference-data.safetensors").read_bytes()
    tiny_data.run(cached(tmp_path, max_tokens=50))
    assert computed == [12]
    assert (tmp_path / "run" / "reference-data.safetensors").read_bytes() == cache


def test_changed_rows_are_computed_again(tmp_path: Path, computed: list[int]) -> None:
    made = tiny_data.rows("rankings", 6)
    path = tiny_data.write(tmp_path / "rows.jsonl", made)
    tiny_data.run(cached(tmp_path, data=path))
    made[3]["chosen"] += "!"
    tiny_data.write(tmp_path / "rows.jsonl", made)
    with pytest.raises(DataError, match="not those of the checkpoint"):
        tiny_data.run(cached(tmp_path, data=path))
    tiny_data.run(cached(tmp_path, data=path, output=str(tmp_path / "again")))
    assert computed == [6, 6]


def test_a_changed_reference_is_computed_again(tmp_path: Path, computed: list[int]) -> None:
    other = tiny_folder(tmp_path / "other", seed=5)
    tiny_data.run(cached(tmp_path, reference=other))
    (tmp_path / "other" / "config.json").unlink()
    tiny_folder(tmp_path / "other", seed=6)
    tiny_data.run(cached(tmp_path, reference=other))
    assert computed == [12, 12]


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", None])
def test_a_cache_that_cannot_be_read_is_made_again(damage: bytes | None, tmp_path: Path, computed: list[int]) -> None:
    tiny_data.run(cached(tmp_path))
    cache = tmp_path / "run" / "reference-data.safetensors"
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-8] if damage is None else damage)
    tiny_data.run(cached(tmp_path))
    assert computed == [12, 12]
    assert cache.read_bytes() == whole


def test_a_policy_that_is_not_its_reference_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference computed with something else than the policy's start: silent elsewhere, an error here."""
    from trueup.models.network import Network

    add = Network.add_reference

    def wrong(self: Network, trunk: Any = None) -> None:
        add(self, trunk)
        weight = next(iter(self.trunks["reference"].parameters()))
        weight.data += 0.05

    monkeypatch.setattr(Network, "add_reference", wrong)
    with pytest.raises(TrainingError, match="the policy differs from its reference by"):
        tiny_data.run(tiny_data.stage("dpo", tmp_path))
    assert not (tmp_path / "run" / "metrics.jsonl").is_file()
