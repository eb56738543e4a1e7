"""The work of each stage, counted: seconds vary from machine to machine, forward passes and tokens do not.

A change that lets padding into the model, prompts through the LM head, or a forward pass run twice fails here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_data
from trueup.algorithms import tensors
from trueup.models.batching import Batch
from trueup.models.network import Network


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass."""

    role: str
    want: str
    cells: int  # tokens and padding that ran through the trunk
    tokens: int  # real ones
    targets: int
    trains: bool


class Count:
    """Everything that runs through a network's trunks and its LM head while a stage runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[Pass] = []
        self.head_rows = 0
        read, head = Network._outputs, tensors._Head.logits

        def counted(network: Network, batch: Batch, role: str, want: Any, *rest: Any) -> Any:
            cells = batch.input_ids.numel()
            self.passes.append(Pass(role, want, cells, batch.tokens, len(batch.targets), torch.is_grad_enabled()))
            return read(network, batch, role, want, *rest)

        def multiplied(self_: Any, hidden: torch.Tensor, *rest: Any) -> Any:
            self.head_rows += len(hidden)
            return head(self_, hidden, *rest)

        monkeypatch.setattr(Network, "_outputs", counted)
        monkeypatch.setattr(tensors._Head, "logits", multiplied)

    def of(self, role: str, *, trains: bool, least: int = 6) -> list[Pass]:
        """Return the passes of a role; those of fewer than `least` tokens belong to the checks before training."""
        return [item for item in self.passes if item.role == role and item.trains is trains and item.tokens >= least]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    return Count(monkeypatch)


def rendered(kind: str) -> list[tuple[int, list[int]]]:
    """Of each row its prompt's tokens and each answer's: a byte is a token, and ChatML adds what it adds."""
    turn = len("<|im_start|>" and "X" + "user\n") + len("X" + "\n")  # start, role, line; end, line
    opening = len("X" + "assistant\n")
    keys = {"conversations": ["completion"], "rankings": ["chosen", "rejected"], "prompts": []}[kind]
    return [(turn + len(row["prompt"]) + opening, [len(row[key]) + 1 for key in keys]) for row in tiny_data.rows(kind)]


@pytest.mark.parametrize(("lora", "kept", "times"), [(None, 2**25, 1), (None, 0, 2), (tiny_data.LORA, 0, 1)])
def test_sft_runs_each_real_token_once_and_only_answers_through_the_head(
    tmp_path: Path, count: Count, monkeypatch: pytest.MonkeyPatch, lora: Any, kept: int, times: int
) -> None:
    monkeypatch.setattr(tensors, "_KEPT_ELEMENTS", kept)
    config = tiny_data.stage("sft", tmp_path, optim={"steps": 3}, lora=lora)
    tiny_data.run(config)
    rows = rendered("conversations")
    training = count.of("policy", trains=True)
    assert len(training) == 3  # a step of 4 rows is one micro-batch; 3 steps are one epoch of the 12 rows
    assert sum(one.tokens for one in training) == sum(prompt + sum(answers) for prompt, answers in rows)
    assert sum(one.cells for one in training) == sum(one.tokens for one in training)  # no padding
    trained = sum(sum(answers) for _, answers in rows)
    assert sum(one.targets for one in training) == trained
    # A frozen head's gradient needs its logits once, a trained one's a second time unless they are few. 4 rows are
    # those of the check of the head.
    assert count.head_rows == trained * times + 4


def test_a_reward_model_shares_prompts_and_has_no_use_for_the_vocabulary(tmp_path: Path, count: Count) -> None:
    config = tiny_data.stage("reward", tmp_path, optim={"steps": 3})
    tiny_data.run(config)
    training = count.of("reward", trains=True)
    assert len(training) == 3
    assert sum(one.cells for one in training) == sum(p + sum(answers) for p, answers in rendered("rankings"))
    assert count.head_rows == 0


def test_dpo_shares_prompts_and_computes_the_reference_once(tmp_path: Path, count: Count) -> None:
    config = tiny_data.stage("dpo", tmp_path, optim={"steps": 6}, lora=tiny_data.LORA)
    tiny_data.run(config)
    rows = rendered("rankings")
    shared, trained = sum(p + sum(answers) for p, answers in rows), sum(sum(answers) for _, answers in rows)
    training, reference = count.of("policy", trains=True), count.of("reference", trains=False)
    assert len(training) == 6
    assert sum(one.cells for one in training) == 2 * shared  # two epochs
    assert [one.cells for one in reference] == [shared]  # once, however many epochs
    (compared,) = count.of("policy", trains=False)  # the first 8 rows against the reference, before the first step
    assert count.head_rows == 2 * trained + trained + compared.targets + 4


def test_ppo_computes_each_episode_once_a_role_and_epoch(tmp_path: Path, count: Count) -> None:
    """Two rollouts of 8 episodes, 2 epochs of 2 minibatches each."""
    prompts = tiny_data.data(tmp_path, "prompts", 16)
    config = tiny_data.stage("ppo", tmp_path, optim={"steps": 8}, lora=tiny_data.LORA, prompts=prompts)
    tiny_data.run(config)
    for role in ("reference", "value"):
        assert len(count.of(role, trains=False)) == 2  # one a rollout
    for role in ("policy", "value"):
        assert len(count.of(role, trains=True)) == 8
    assert all(one.cells == one.tokens for one in count.passes)
    first, second = count.of("reference", trains=False)
    for rollout, part in ((first, slice(0, 4)), (second, slice(4, 8))):
        passes = count.of("policy", trains=True)[part]
        assert sum(one.tokens for one in passes) == 2 * rollout.tokens  # epochs
    # The first rollout proves that the policy starts as its reference; later ones take the sampler's numbers and
    # compare a few. All 8 episodes are few here, so what is pinned is that no pass comes on top of that.
    made_up, *passes = count.of("policy", trains=False)  # before the first sample: sampling against whole rows
    assert made_up.targets == 6
    assert len(passes) == 2
