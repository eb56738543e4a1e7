"""PPO as a source: the KL at the start, where scores land, advantages by plain arithmetic, state, controllers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from tiny import END_ID, lora, shake, tiny_model, tiny_network
from trueup.algorithms.advantages import ADVANTAGES
from trueup.config import functions
from trueup.data.prompts import PromptRow
from trueup.data.rendering.messages import Conversation, Message
from trueup.data.tokens.sampler import Sampler
from trueup.errors import TrainingError
from trueup.models.network import Network
from trueup.recipes import behaviour_logps, rollouts
from trueup.recipes.rollouts import Rollouts, make_controller, pack, unpack
from trueup.runs.checkpoint import read_state, write_state
from trueup.sampling import Sample
from trueup.sampling.text import answer_text

QUESTIONS = ["Hi", "What is this, and why is it here at all?", "No?", "Tell me more about that."]


def length(conversations: Sequence[Conversation]) -> torch.Tensor:
    return torch.tensor([float(len(one.response)) for one in conversations])


class Bench:
    """A network with PPO's roles and a source over four prompts of different lengths."""

    def __init__(
        self, folder: Path, *, full: bool = False, reward: Any = length, variant: Any = None, **settings: Any
    ) -> None:
        self.config = tiny_data.stage("ppo", folder, **tiny_data.merged({"rollouts": {"whiten": False}}, settings))
        self.network = tiny_network(folder / "model", **(variant or {}))
        torch.manual_seed(0)
        self.network.add_trainable("policy", None if full else lora())
        self.network.add_reference()
        self.network.add_trainable("value", None if full else lora(), head=True)
        self.shown: list[dict[str, object]] = []
        self.reward = reward
        self.source = self.new_source()

    def new_source(self) -> Rollouts:
        prompts = [
            PromptRow((Message("user", one),), self.network.renderer.prompt((Message("user", one),)))
            for one in QUESTIONS
        ]
        settings = self.config.rollouts
        sampler = Sampler(len(prompts), settings.episodes // settings.per_prompt, 0)
        return Rollouts(self.network, prompts, sampler, self.reward, self.config, self.shown.extend)

    def later(self) -> None:
        """Change the policy as training would, and skip the check of the first rollout."""
        shake(self.network)
        self.source._rollout = 1

    def rollout(self) -> list[Any]:
        self.source.next(lambda: None)
        return self.source._episodes


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Let the policy "sample" these answers, over and over; one that ends with "." ended by itself."""

    def sample(network: Network, prompts: list[list[int]], **_: object) -> list[Sample]:
        made = []
        for at in range(len(prompts)):
            text = texts[at % len(texts)]
            ids = network.tokenizer(text)["input_ids"]
            made.append(Sample([*ids, END_ID], True) if text.endswith(".") else Sample(ids, False))
        return made

    monkeypatch.setattr(rollouts, "sample", sample)


# ------------------------------------------------------------------ the start


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["separate", "eos"])
def test_the_policy_is_its_reference_at_the_start(pad: str, side: str, full: bool, tmp_path: Path) -> None:
    variant = {"pad": pad, "padding_side": side}
    bench = Bench(tmp_path, full=full, variant=variant, max_tokens=150, rollouts={"max_new_tokens": 12})
    bench.rollout()
    assert abs(bench.source.metrics()["kl"]) < 1e-4
    assert len(bench.shown) == 4
    assert max(abs(float(str(row["kl"]))) for row in bench.shown) < 1e-4


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_wrong_reference_is_found_before_the_first_update(full: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path, full=full)
    bench.network.add_reference(tiny_model(seed=1))
    with pytest.raises(TrainingError, match="before the first update the policy differs from its reference by"):
        bench.rollout()


def test_a_reference_that_is_only_a_little_off_is_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    shake(bench.network, scale=0.02)
    with pytest.raises(TrainingError, match="differs from its reference"):
        bench.rollout()


# ------------------------------------------------------------------ one rollout by plain arithmetic


def logps_alone(network: Network, role: str, trunk: list[int], ids: list[int], temperature: float = 1.0) -> list[float]:
    """Of each answer token, from transformers' own logits of this sequence alone."""
    with torch.no_grad():
        logits = network.trunk(role)(input_ids=torch.tensor([trunk + ids])).logits[0]
    table = torch.log_softmax(logits.double() / temperature, -1)
    return [float(table[len(trunk) - 1 + at, token]) for at, token in enumerate(ids)]


def values_alone(network: Network, trunk: list[int], ids: list[int]) -> list[float]:
    with torch.no_grad():
        states = network.trunk("value").base_model(input_ids=torch.tensor([trunk + ids])).last_hidden_state[0]
        return network.heads["value"](states)[len(trunk) - 1 : -1, 0].tolist()


def gae_by_hand(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al. 2015, eq. 16, written as the sum it is."""
    after = [*values[1:], 0.0]
    deltas = [reward + gamma * nxt - value for reward, nxt, value in zip(rewards, after, values, strict=True)]
    return [sum((gamma * lam) ** (k - at) * deltas[k] for k in range(at, len(deltas))) for at in range(len(deltas))]


@pytest.mark.parametrize("apply", ["reward", "loss"])
def test_a_rollout_by_hand(apply: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("Yes.", "It goes on and on", "A fairly long answer.", "x")
    answers(monkeypatch, *texts)
    settings = {"gamma": 0.9, "lam": 0.8, "missing_end_penalty": 3.0}
    bench = Bench(tmp_path, kl={"coef": 0.3, "apply": apply, "logged": "k3"}, rollouts=settings, max_tokens=150)
    bench.later()
    episodes = bench.rollout()
    assert sorted(len(one.trunk) for one in episodes) != [len(episodes[0].trunk)] * 4  # lengths are mixed
    assert [one.branches[0].ids[-1] == END_ID for one in episodes] == [True, False, True, False]
    third = 0.0
    for one, text in zip(episodes, texts, strict=True):
        branch = one.branches[0]
        ours = logps_alone(bench.network, "policy", one.trunk, branch.ids)
        theirs = logps_alone(bench.network, "reference", one.trunk, branch.ids)
        values = values_alone(bench.network, one.trunk, branch.ids)
        assert branch.columns["old_logps"] == pytest.approx(ours, abs=1e-4)
        assert branch.columns["old_values"] == pytest.approx(values, abs=1e-4)
        gaps = [p - q for p, q in zip(ours, theirs, strict=True)]
        costs = gaps if apply == "reward" else [0.0] * len(gaps)
        if apply == "loss":
            assert branch.columns["ref_logps"] == pytest.approx(theirs, abs=1e-4)
            assert branch.columns["kl_coef"] == pytest.approx([0.3] * len(ours))
        assert max(map(abs, gaps)) > 0.01
        third += sum(math.expm1(-gap) + gap for gap in gaps) / len(texts)
        rewards = [-0.3 * cost for cost in costs]
        rewards[-1] += len(text) - (0.0 if text.endswith(".") else 3.0)
        advantages = gae_by_hand(rewards, values, 0.9, 0.8)
        assert branch.columns["advantages"] == pytest.approx(advantages, abs=1e-3)
        returns = [advantage + value for advantage, value in zip(advantages, values, strict=True)]
        assert branch.columns["returns"] == pytest.approx(returns, abs=1e-3)
    assert bench.source.metrics()["kl_logged"] == pytest.approx(third, abs=1e-3)


def test_the_score_lands_on_the_last_real_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without KL, discount or value nothing else is rewarded; with lambda 0 an advantage is its token's own reward."""
    answers(monkeypatch, "Yes.", "It goes on", "A long answer.", "x")
    bench = Bench(tmp_path, kl={"coef": 0.0}, rollouts={"lam": 0.0, "missing_end_penalty": 0.0})
    for one, score in zip(bench.rollout(), (4.0, 10.0, 14.0, 1.0), strict=True):
        advantages = one.branches[0].columns["advantages"]
        assert advantages[:-1] == [0.0] * (len(advantages) - 1)
        assert advantages[-1] == score


def test_the_penalty_is_for_answers_that_do_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "Yes.", "No", "Or.", "x")

    def last_returns(penalty: float) -> list[float]:
        bench = Bench(tmp_path, kl={"coef": 0.0}, rollouts={"missing_end_penalty": penalty})
        return [one.branches[0].columns["returns"][-1] for one in bench.rollout()]

    assert last_returns(0.0) == [4, 2, 3, 1]
    assert last_returns(5.0) == [4, -3, 3, -4]


def test_what_a_rollout_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "Yes.", "No", "Or.", "x")
    bench = Bench(tmp_path, kl={"coef": 0.25})
    bench.rollout()
    metrics = bench.source.metrics()
    expected = {"reward": 2.5, "reward_std": 1.25**0.5, "kl_coef": 0.25, "length": (5 + 2 + 4 + 1) / 4, "rollout": 1.0}
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert metrics["missing_end"] == 0.5
    assert [(row["answer"], row["reward"], row["finished"]) for row in bench.shown] == [
        ("Yes.", 4.0, True), ("No", 2.0, False), ("Or.", 3.0, True), ("x", 1.0, False),
    ]  # fmt: skip
    assert {row["step"] for row in bench.shown} == {1}


def test_the_answer_that_is_judged_is_the_text_without_its_end_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "Yes.", "No", ".", "é.")
    heard: list[str] = []

    def reward(conversations: Sequence[Conversation]) -> torch.Tensor:
        heard.extend(one.response for one in conversations)
        assert [one.messages[-2].role for one in conversations] == ["user"] * 4
        return length(conversations)

    Bench(tmp_path, reward=reward).rollout()
    assert heard == ["Yes.", "No", ".", "é."]


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_groups_are_compared_with_themselves(advantage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("a.", "bb", "cccc.", "ddd.", "eeeeee", "ff.", "g.", "hh.")
    answers(monkeypatch, *texts)
    settings = {"advantage": advantage, "per_prompt": 4, "episodes": 8, "missing_end_penalty": 0.5}
    bench = Bench(tmp_path, kl={"coef": 0.2}, rollouts=settings)
    bench.later()
    episodes = bench.rollout()
    assert len({tuple(one.trunk) for one in episodes[:4]}) == len({tuple(one.trunk) for one in episodes[4:]}) == 1
    assert episodes[0].trunk != episodes[4].trunk
    scores = []
    for one, text in zip(episodes, texts, strict=True):
        ids = one.branches[0].ids
        ours, theirs = (sum(logps_alone(bench.network, role, one.trunk, ids)) for role in ("policy", "reference"))
        scores.append(len(text) - 0.2 * (ours - theirs) - (0.0 if text.endswith(".") else 0.5))
    for at, one in enumerate(episodes):
        group = scores[at // 4 * 4 : at // 4 * 4 + 4]
        others = [score for k, score in enumerate(group) if k != at % 4]
        mean = sum(group) / 4
        deviation = (sum((score - mean) ** 2 for score in group) / 3) ** 0.5
        by_hand = scores[at] - sum(others) / 3 if advantage == "rloo" else (scores[at] - mean) / (deviation + 1e-4)
        columns = one.branches[0].columns
        assert set(columns) == {"advantages", "old_logps"}
        assert columns["advantages"] == pytest.approx([by_hand] * len(one.branches[0].ids), abs=2e-3)


def test_grpo_without_scale_is_dr_grpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores 1, 2, 3, 4 of one prompt, no KL: less their mean 2.5 and nothing else, for each token."""
    answers(monkeypatch, "a", "bb", "ccc", "dddd")
    settings = {"advantage": {"name": "grpo", "scale": False}, "per_prompt": 4, "episodes": 4}
    bench = Bench(tmp_path, kl={"coef": 0.0}, rollouts={**settings, "missing_end_penalty": 0.0})
    advantages = [one.branches[0].columns["advantages"] for one in bench.rollout()]
    assert advantages == [[-1.5], [-0.5] * 2, [0.5] * 3, [1.5] * 4]


def test_another_advantage_of_the_table_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throw-away advantage of 7 for each token, unknown to the table's readers but for its source."""
    source = tmp_path / "advantages.py"
    text = functions.ADVANTAGES.source.read_text(encoding="utf-8").replace(
        '"grpo": grpo}', '"grpo": grpo, "seven": seven}'
    )
    source.write_text(text + "\ndef seven(episodes: Episodes): ...\n", encoding="utf-8")
    monkeypatch.setattr(functions.ADVANTAGES, "source", source)
    monkeypatch.setitem(ADVANTAGES, "seven", lambda episodes: torch.full_like(episodes.rewards, 7))
    bench = Bench(tmp_path, rollouts={"advantage": "seven"})
    columns = [one.branches[0].columns for one in bench.rollout()]
    assert {value for column in columns for value in column["advantages"]} == {7.0}
    assert set(columns[0]) == {"advantages", "old_logps"}


def test_whitened_advantages(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rollouts={"whiten": True})
    values = torch.tensor([value for one in bench.rollout() for value in one.branches[0].columns["advantages"]])
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1, abs=1e-3)


def test_rewards_over_their_running_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "a.", "bbb.", "ccccc.", "ddddddd.")
    bench = Bench(tmp_path, kl={"coef": 0.0}, rollouts={"normalize_reward": True, "episodes": 4})
    scores = torch.tensor([2.0, 4.0, 6.0, 8.0])
    last = [one.branches[0].columns["returns"][-1] for one in bench.rollout()]
    assert last == pytest.approx((scores / scores.std()).tolist())
    assert bench.source.metrics()["reward"] == 5.0  # what is logged is the reward itself


# ------------------------------------------------------------------ memory


def test_max_tokens_bounds_what_is_sampled_at_once_and_changes_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 rows with 12 new tokens each, 50 tokens leave few at a time (four times 50 are sampled at once)."""
    real, budgets, widest = rollouts.sample, list[int](), list[int]()

    def sample(network: Network, prompts: list[list[int]], **how: Any) -> list[Sample]:
        rows: list[int] = []
        network.sampled_roles.add("policy")  # the check of the first sample has forward passes of its own
        trunk = network.trunk("policy")
        hook = trunk.register_forward_pre_hook(lambda _, __, k: rows.append(len(k["input_ids"])), with_kwargs=True)
        samples = real(network, prompts, **how)
        hook.remove()
        budgets.append(how["max_tokens"])
        widest.append(max(rows))
        return samples

    monkeypatch.setattr(rollouts, "sample", sample)
    settings = {"episodes": 16, "per_prompt": 4, "max_new_tokens": 12}
    tokens = [
        [one.branches[0].ids for one in Bench(tmp_path, max_tokens=size, rollouts=settings).rollout()]
        for size in (4096, 50)
    ]
    assert budgets == [4 * 4096, 200]
    assert widest[0] == 16
    assert widest[1] <= 200 // 12
    assert tokens[0] == tokens[1]


# ------------------------------------------------------------------ the sampler's log-probabilities


def many(folder: Path, **settings: Any) -> Bench:
    """Sixteen episodes of mixed lengths: twice as many as are compared."""
    rollouts_ = {"episodes": 16, "per_prompt": 4, "max_new_tokens": 12}
    return Bench(folder, **tiny_data.merged({"rollouts": rollouts_, "max_tokens": 150}, settings))


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the rows that run through each role from now on, without those of sampling."""
    counts: dict[str, int] = {}
    for module in (rollouts, behaviour_logps):
        original = module.forward_all

        def counting(network: Network, examples: Any, role: str, *args: Any, original: Any = original, **how: Any):
            counts[role] = counts.get(role, 0) + len(examples)
            return original(network, examples, role, *args, **how)

        monkeypatch.setattr(module, "forward_all", counting)
    return counts


def off_by(monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    """Let the sampler's log-probability of each sample's last token be another one."""

    def sample(*args: Any, **how: Any) -> list[Sample]:
        made = rollouts_sample(*args, **how)
        for one in made:
            one.logps[-1] += difference
        return made

    rollouts_sample = rollouts.sample
    monkeypatch.setattr(rollouts, "sample", sample)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_policy_is_not_run_again_where_sampler_and_training_agree(
    full: bool, temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = many(tmp_path, full=full, rollouts={"temperature": temperature})
    bench.later()
    with torch.no_grad():  # ends become likelier, so that samples are of various lengths
        bench.network.trunk("policy").get_output_embeddings().weight[END_ID] *= 3
    counts = counted(monkeypatch)
    episodes = bench.rollout()
    assert counts == {"policy": 8, "reference": 16, "value": 16}
    assert 0 < bench.source.metrics()["rollout_logp_gap"] < 2e-5
    ends = [one.branches[0].ids[-1] == END_ID for one in episodes]
    assert len({len(one.branches[0].ids) for one in episodes}) > 2
    assert any(ends)
    assert not all(ends)  # stop tokens and tokens at the cut are among what is compared here:
    for one in episodes:
        branch = one.branches[0]
        alone = logps_alone(bench.network, "policy", one.trunk, branch.ids, temperature)
        assert branch.columns["old_logps"] == pytest.approx(alone, abs=2e-5)


def test_the_first_rollout_is_computed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = many(tmp_path)
    counts = counted(monkeypatch)
    off_by(monkeypatch, 1.0)  # however wrong the sampler is, the policy is its reference
    bench.rollout()
    assert counts["policy"] == 16
    assert abs(bench.source.metrics()["kl"]) < 1e-4
    assert bench.source.metrics()["rollout_logp_gap"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("difference", "rows"), [(5e-5, 8), (5e-4, 8 + 16), (float("nan"), 8 + 16)])
def test_where_they_differ_the_training_side_counts(
    difference: float, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = many(tmp_path)
    bench.later()
    counts = counted(monkeypatch)
    off_by(monkeypatch, difference)
    episodes = bench.rollout()
    assert counts["policy"] == rows
    assert bench.source.metrics()["rollout_logp_gap"] == pytest.approx(difference, abs=2e-5, nan_ok=True)
    for one in episodes:
        alone = logps_alone(bench.network, "policy", one.trunk, one.branches[0].ids)
        assert one.branches[0].columns["old_logps"] == pytest.approx(alone, abs=1e-4)


def test_half_precision_takes_the_training_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = many(tmp_path, variant={"dtype": "bfloat16"})
    bench.later()
    counts = counted(monkeypatch)
    episodes = bench.rollout()
    assert counts["policy"] == 16
    assert bench.source.metrics()["rollout_logp_gap"] > 1e-4
    monkeypatch.undo()
    again = rollouts.forward_all(bench.network, episodes, "policy", "logps", max_tokens=150)
    assert [value for one in episodes for value in one.branches[0].columns["old_logps"]] == again.tolist()


# ------------------------------------------------------------------ minibatches and state


def drawn(source: Rollouts, count: int) -> list[Any]:
    return [batch for _ in range(count) for batch in source.next(lambda: None)]


def same_batches(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.targets, other.targets)
        assert set(one.columns) == set(other.columns)
        assert all(torch.equal(one.columns[name], other.columns[name]) for name in one.columns)


def test_every_episode_is_used_once_an_epoch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rollouts={"episodes": 4, "epochs": 3}, optim={"batch_size": 3})
    trained = [sum(batch.branches for batch in bench.source.next(lambda: None)) for _ in range(6)]
    assert trained == [3, 1] * 3
    assert bench.source.metrics()["rollout"] == 1
    bench.source.next(lambda: None)
    assert bench.source.metrics()["rollout"] == 2


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_the_state_goes_through_a_file(before: int, tmp_path: Path) -> None:
    """Two minibatches a rollout: the position is a boundary, the middle, a boundary again, the middle of the second."""
    settings = {"normalize_reward": True, "epochs": 1, "episodes": 4}
    bench = Bench(tmp_path, kl={"target": 0.1, "horizon": 10}, rollouts=settings, optim={"batch_size": 2})
    if before:
        drawn(bench.source, before)
    write_state(tmp_path, "source", bench.source.state_dict())
    other = bench.new_source()
    other.load_state_dict(read_state(tmp_path, "source"))
    assert other.metrics() == bench.source.metrics()
    same_batches(drawn(bench.source, 5), drawn(other, 5))
    assert other.metrics() == bench.source.metrics()


def test_packing_keeps_every_bit(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    episodes = bench.rollout()
    assert unpack(pack(episodes)) == episodes
    assert unpack(pack([])) == []


def test_a_stop_while_sampling_leaves_the_source_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = bench.source.state_dict()
    looks = iter(range(100))

    def check() -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    bench.network.check_stop = check
    with pytest.raises(KeyboardInterrupt):
        bench.source.next(lambda: None)
    bench.network.check_stop = lambda: None
    bench.source.load_state_dict(before)
    same_batches(drawn(bench.source, 3), drawn(bench.new_source(), 3))


# ------------------------------------------------------------------ the penalty


def test_the_adaptive_controller_moves_towards_its_target(tmp_path: Path) -> None:
    """KL above the target: the coefficient rises by a fifth of episodes / horizon, below it falls alike."""
    for target, sign in ((1e-3, 1), (1e6, -1)):
        bench = Bench(tmp_path, kl={"coef": 0.1, "target": target, "horizon": 16}, rollouts={"episodes": 4})
        bench.later()
        shake(bench.network, scale=0.2)
        bench.rollout()
        kl = bench.source.metrics()["kl"]
        assert 1 < kl < 1e6
        assert bench.source.metrics()["kl_coef"] == 0.1  # what this rollout was charged
        assert bench.source._controller.coef == pytest.approx(0.1 * (1 + sign * 0.2 * 4 / 16))


def test_a_fixed_coefficient_stays(tmp_path: Path) -> None:
    controller = make_controller(tiny_data.stage("ppo", tmp_path, kl={"coef": 0.1}))
    controller.update(100.0, 64)
    assert controller.coef == 0.1


COUNT_E = """
def score(conversations):
    return [float(one.response.count("e")) for one in conversations]
"""


@pytest.mark.parametrize("apply", ["reward", pytest.param("loss", marks=pytest.mark.slow)])
def test_the_penalty_holds_the_policy_nearer(apply: str, tmp_path: Path) -> None:
    def trained(coef: float) -> list[dict[str, float]]:
        config = tiny_data.stage(
            "ppo", tmp_path, f"run-{coef}", lora=tiny_data.LORA, kl={"coef": coef, "apply": apply}, seed=0,
            reward=tiny_data.reward_function(tmp_path, COUNT_E), prompts=tiny_data.data(tmp_path, "prompts", 6),
            optim={"steps": 32, "lr": 1e-2, "batch_size": 24, "schedule": "constant"},
            rollouts={"episodes": 24, "per_prompt": 4, "advantage": "rloo", "epochs": 2, "max_new_tokens": 8,
                      "missing_end_penalty": 0.0},
        )  # fmt: skip
        tiny_data.run(config)
        return tiny_data.metrics(config)

    free, held = trained(0.0), trained(5.0)
    assert free[0]["ppo/reward"] == held[0]["ppo/reward"]  # the same start
    assert free[-1]["ppo/reward"] > free[0]["ppo/reward"] + 0.5  # it learns
    assert held[-1]["ppo/kl"] < 0.5 * free[-1]["ppo/kl"]


# ------------------------------------------------------------------ what a policy may write


def test_an_end_token_spelled_out_in_ordinary_tokens_ends_the_answer(tmp_path: Path) -> None:
    """Such ids decode to the end token's text; the reward then gets what a reader would have read."""
    bench = Bench(tmp_path)
    renderer = bench.network.renderer
    end = bench.network.tokenizer.convert_ids_to_tokens(renderer.end_id)
    spelled = bench.network.tokenizer(f"yes{end[:2]}", add_special_tokens=False)["input_ids"]
    spelled += bench.network.tokenizer(f"{end[2:]} no", add_special_tokens=False)["input_ids"]
    assert renderer.end_id not in spelled
    assert answer_text(bench.network, Sample(spelled, finished=False)) == "yes"
