"""PPO end to end on tiny prompts: every advantage, every kind of reward, one backbone with LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from tiny import tiny_folder
from trueup.errors import ConfigError, DataError, TrainingError

GROUPS = {"per_prompt": 4}


def reward_model(folder: Path, output: str = "rm", **settings: Any) -> str:
    """A trained reward run's folder."""
    config = tiny_data.stage("reward", folder, output, **settings)
    tiny_data.run(config)
    return str(config.output)


@pytest.mark.parametrize("lora", [None, tiny_data.LORA], ids=["full", "lora"])
@pytest.mark.parametrize("advantage", ["gae", "rloo", "grpo"])
def test_every_advantage(advantage: str, lora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tiny_data.networks(monkeypatch)
    rollouts = {"advantage": advantage} | ({} if advantage == "gae" else GROUPS)
    config = tiny_data.stage("ppo", tmp_path, lora=lora, rollouts=rollouts)
    summary = tiny_data.run(config)
    log = tiny_data.metrics(config)
    assert abs(log[0]["ppo/kl"]) < 1e-4
    assert log[0]["ppo/ratio"] == pytest.approx(1, abs=1e-5)
    assert log[0]["ppo/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert ("value/loss" in log[0]) == ("ppo/explained_variance" in log[0]) == (advantage == "gae")
    assert summary["steps"] == 4
    assert tiny_data.account(config, "prompts")["used"] == 12
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    own_trunks = {"base"} if lora else {"base", "reference"} | ({"value"} if advantage == "gae" else set())
    assert set(seen[0].trunks) == own_trunks
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert set(samples[0]) == {"step", "prompt", "answer", "reward", "kl", "finished"}


def test_with_lora_all_four_roles_share_one_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = reward_model(tmp_path, lora=tiny_data.LORA)
    seen = tiny_data.networks(monkeypatch)
    config = tiny_data.stage("ppo", tmp_path, reward=reward, lora=tiny_data.LORA)
    tiny_data.run(config)
    [network] = seen
    assert set(network.trunks) == {"base"}
    assert set(network.roles) == {"policy", "reference", "reward", "value"}
    assert {place.adapter for place in network.roles.values()} == {"policy", None, "reward", "value"}
    trained = {name for name, _ in network.trainable()}
    assert trained
    assert all(".policy." in name or ".value." in name or name == "heads.value.weight" for name in trained)
    assert tiny_data.metrics(config)[0]["ppo/reward_std"] > 0


def test_the_value_model_starts_from_the_reward_model(tmp_path: Path) -> None:
    """A head of zeros would predict 0 for every state."""
    reward = reward_model(tmp_path, lora=tiny_data.LORA, optim={"steps": 8, "lr": 1e-2})
    config = tiny_data.stage("ppo", tmp_path, reward=reward, lora=tiny_data.LORA, optim={"steps": 1})
    tiny_data.run(config)
    assert abs(tiny_data.metrics(config)[0]["value/value"]) > 1e-3


def test_the_frozen_reward_model_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    reward = reward_model(tmp_path, lora=tiny_data.LORA)
    seen = tiny_data.networks(monkeypatch)
    tiny_data.run(tiny_data.stage("ppo", tmp_path, reward=reward, lora=tiny_data.LORA, optim={"steps": 6, "lr": 1e-2}))
    kept = load_file(Path(reward) / "adapter" / "adapter_model.safetensors")
    state = {name: one for name, one in seen[0].named_parameters() if ".reward." in name}
    for name, one in state.items():
        if "lora_" in name:
            stored = name.removeprefix("trunks.base.").replace(".reward.", ".")
            assert (kept[f"base_model.model.{stored}"] == one).all(), name
    assert sum("lora_" in name for name in state) == len(kept) - 1


def test_full_training_has_a_model_for_each_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = reward_model(tmp_path)
    seen = tiny_data.networks(monkeypatch)
    config = tiny_data.stage("ppo", tmp_path, reward=reward)
    tiny_data.run(config)
    assert set(seen[0].trunks) == {"base", "reference", "value"}
    assert tiny_data.metrics(config)[0]["ppo/reward_std"] > 0


@pytest.mark.parametrize("advantage", ["gae", "grpo"])
def test_a_reward_model_of_another_base(advantage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own size, template end token and adapters do not matter: it reads text."""
    other = tiny_folder(tmp_path / "other", seed=3, hidden=16, eos="<|endoftext|>")
    reward = reward_model(tmp_path, model=other, lora=tiny_data.LORA)
    seen = tiny_data.networks(monkeypatch)
    rollouts = {"advantage": advantage} | ({} if advantage == "gae" else GROUPS)
    config = tiny_data.stage("ppo", tmp_path, reward=reward, lora=tiny_data.LORA, rollouts=rollouts)
    tiny_data.run(config)
    assert set(seen[0].trunks) == {"base"}
    assert tiny_data.metrics(config)[0]["ppo/reward_std"] > 0


def test_the_exported_folder_of_a_reward_model_will_do(tmp_path: Path) -> None:
    reward = reward_model(tmp_path)
    config = tiny_data.stage("ppo", tmp_path, reward=f"{reward}/model", optim={"steps": 1})
    tiny_data.run(config)
    by_run = tiny_data.stage("ppo", tmp_path, "by-run", reward=reward, optim={"steps": 1})
    tiny_data.run(by_run)
    assert tiny_data.metrics(config) == tiny_data.metrics(by_run)


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    from trueup.errors import ModelError

    config = tiny_data.stage("ppo", tmp_path, reward=tiny_folder(tmp_path / "base"))
    with pytest.raises(ModelError, match="not a reward model"):
        tiny_data.run(config)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("def other(conversations): return []", ConfigError, "has no function 'score'; it has other"),
        ("def score(conversations): return [1.0] * 2", TrainingError, "2 scores for 8 conversations"),
        (
            "def score(conversations): return [float('nan') if len(conversations) > 2 else 0.0] * len(conversations)",
            TrainingError,
            "scores must be finite",
        ),
    ],
)
def test_a_reward_function_that_cannot_be_used(source: str, error: type[Exception], said: str, tmp_path: Path) -> None:
    config = tiny_data.stage("ppo", tmp_path, reward=tiny_data.reward_function(tmp_path, source))
    with pytest.raises(error, match=said):
        tiny_data.run(config)


def test_the_reward_function_hears_the_whole_conversation(tmp_path: Path) -> None:
    source = """
def score(conversations):
    assert all(one.messages[-1].role == "assistant" and one.messages[-2].role == "user" for one in conversations)
    return [float(len(one.prompt[-1].content)) for one in conversations]
"""
    config = tiny_data.stage(
        "ppo", tmp_path, reward=tiny_data.reward_function(tmp_path, source), rollouts={"episodes": 12}
    )
    tiny_data.run(config)
    asked = [len(row["prompt"]) for row in tiny_data.rows("prompts")]
    assert tiny_data.metrics(config)[0]["ppo/reward"] == pytest.approx(sum(asked) / len(asked))


def test_mixed_instructions_and_held_out_prompts(tmp_path: Path) -> None:
    config = tiny_data.stage(
        "ppo", tmp_path, allow=["eval-overlap"],
        mix={"data": tiny_data.data(tmp_path, "conversations", 5), "weight": 0.5},
        eval={"data": tiny_data.data(tmp_path, "prompts", 3), "every": 2}, kl={"target": 4.0, "horizon": 100},
    )  # fmt: skip
    tiny_data.run(config)
    log = tiny_data.metrics(config)
    assert [row["step"] for row in log if "eval/reward" in row] == [0, 2, 4]
    assert log[0]["eval/kl"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["eval/n"] == 3
    for row in log[1:]:
        assert row["loss"] == pytest.approx(row["ppo/loss"] + 0.1 * row["value/loss"] + 0.5 * row["mix/loss"], abs=1e-5)


# ------------------------------------------------------------------ prompts


def long_prompts(tmp_path: Path, rule: str, **settings: Any) -> Any:
    made = tiny_data.rows("prompts", 4)
    made.insert(2, {"prompt": "word " * 30})
    options = {"prompts": tiny_data.write(tmp_path / "long.jsonl", made), "max_length": 100, "over_length": rule}
    return tiny_data.stage("ppo", tmp_path, **(options | settings))


@pytest.mark.parametrize("rule", ["error", "cut"])
def test_a_prompt_without_room_for_an_answer(rule: str, tmp_path: Path) -> None:
    needed = len(".user\n" + "word " * 30 + ".\n.assistant\n") + 6
    with pytest.raises(DataError, match=r"long\.jsonl:3: 1 of 5 prompts leave no room for 6 new tokens") as caught:
        tiny_data.run(long_prompts(tmp_path, rule))
    assert f"set max_length={needed}" in str(caught.value)
    tiny_data.run(long_prompts(tmp_path, rule, max_length=needed, optim={"lr": 1e-3, "batch_size": 4, "steps": 1}))


def test_long_prompts_are_left_out_and_counted(tmp_path: Path) -> None:
    config = long_prompts(tmp_path, "drop")
    tiny_data.run(config)
    counts = tiny_data.account(config, "prompts")
    assert (counts["read"], counts["used"]) == (5, 4)
    assert [Path(row).name for row in counts["over_length"]["rows"]] == ["long.jsonl:3"]


def test_only_long_prompts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 of 5 prompts(.|\n)*set max_length="):
        tiny_data.run(long_prompts(tmp_path, "drop", max_length=20))


def test_epochs_are_passes_over_the_prompts(tmp_path: Path) -> None:
    """12 prompts, 8 an update round: rounds of 8 and 4 episodes, two epochs of minibatches of 3 each."""
    config = tiny_data.stage("ppo", tmp_path, optim={"epochs": 1, "batch_size": 3})
    assert tiny_data.run(config)["steps"] == 2 * 3 + 2 * 2
    log = tiny_data.metrics(config)
    assert [row["ppo/rollout"] for row in log] == [1] * 6 + [2] * 4


# ------------------------------------------------------------------ against reward hacking


def constant(folder: Path, name: str, value: str) -> str:
    """A file with a reward function. -> file.py:score."""
    path = folder / f"{name}.py"
    path.write_text(f"def score(talks): return [{value} for one in talks]\n", encoding="utf-8")
    return f"{path}:score"


def test_an_ensemble_of_functions_and_its_disagreement(tmp_path: Path) -> None:
    """Members 1 and 3: mean 2, variance 1, deviation 1. An uncertainty of 0.5 takes half of the variance off."""
    members = [constant(tmp_path, "one", "1.0"), constant(tmp_path, "three", "3.0")]
    for output, rollouts, expected in (("plain", {}, 2.0), ("careful", {"uncertainty": 0.5}, 1.5)):
        config = tiny_data.stage("ppo", tmp_path, output, reward=members, rollouts=rollouts, optim={"steps": 1})
        tiny_data.run(config)
        [row] = [row for row in tiny_data.metrics(config) if row["step"] == 1]
        assert row["ppo/reward"] == expected
        assert row["ppo/reward_disagreement"] == 1.0


def test_an_ensemble_of_adapters_shares_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [reward_model(tmp_path, name, lora=tiny_data.LORA, seed=at) for at, name in enumerate(("rm1", "rm2"))]
    seen = tiny_data.networks(monkeypatch)
    config = tiny_data.stage("ppo", tmp_path, reward=members, lora=tiny_data.LORA)
    tiny_data.run(config)
    assert set(seen[0].trunks) == {"base"}
    assert set(seen[0].roles) == {"policy", "reference", "reward", "reward2", "value"}
    assert tiny_data.metrics(config)[0]["ppo/reward_disagreement"] > 0


def test_a_length_penalty_takes_its_share_a_token(tmp_path: Path) -> None:
    """The advantages of RLOO are rewards less the others' mean: with a constant reward only the lengths differ."""
    config = tiny_data.stage(
        "ppo", tmp_path, reward=constant(tmp_path, "one", "1.0"), kl={"coef": 0.0}, optim={"steps": 1},
        rollouts={
            "advantage": "rloo", **GROUPS, "length_penalty": 0.1, "missing_end_penalty": 0.0, "max_new_tokens": 100,
        },
    )  # fmt: skip
    from trueup.recipes import rollouts as module

    made: list[Any] = []
    judge = module.Rollouts._judge

    def remembering(self: Any, *args: Any) -> Any:
        made.extend(judge(self, *args))
        return list(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Rollouts, "_judge", remembering)
        tiny_data.run(config)
    lengths = [len(one.branches[0].ids) for one in made]
    assert len(set(lengths)) > 1
    got = [one.branches[0].columns["advantages"][0] for one in made]
    for group in range(0, len(made), 4):
        for at in range(group, group + 4):
            others = [lengths[k] for k in range(group, group + 4) if k != at]
            assert got[at] == pytest.approx(-0.1 * (lengths[at] - sum(others) / 3), abs=1e-5)
