"""Sample a policy's answers to prompts and measure them: reward, gold reward, KL, length, repetition.

The answers are sampled as in training, at its temperature and always with the same seed: a KL is an expectation under
the policy itself, and one measurement differs from the next by the weights alone, so that they can be compared prompt
by prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trueup.algorithms.tensors import segment_sum
from trueup.data.prompts import PromptRow
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import TrainingError
from trueup.evaluation.grading import repetition
from trueup.models.batching import Branch, Example
from trueup.models.forward import forward_all
from trueup.models.rewards import Ensemble, disagreement
from trueup.sampling import Sample, sample, sampled_at_once
from trueup.sampling.text import answer_text

if TYPE_CHECKING:
    from trueup.models.network import Network
    from trueup.models.rewards import Reward


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings for sampling answers. Four times `max_tokens`, a micro-batch's size, are sampled at once."""

    max_new_tokens: int
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0


def answers_to(network: Network, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Sample]:
    """Return one answer of the role "policy" to each prompt."""
    return sample(
        network, [prompt.ids for prompt in prompts], max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature, seed=sampling.seed,
        max_tokens=sampled_at_once(sampling.max_tokens),
    )  # fmt: skip


def conversations(network: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample]) -> list[Conversation]:
    """Join prompts and sampled answers to conversations, for a reward."""
    return [
        Conversation((*prompt.messages, Message("assistant", answer_text(network, answer))))
        for prompt, answer in zip(prompts, samples, strict=True)
    ]


def measure_policy(
    network: Network,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    *,
    reward: Reward | None,
    gold: Reward | None = None,
) -> dict[str, list[float]]:
    """Answer each prompt once and measure the answers.

    Returns:
        Name -> one value per prompt, in their order: "length" (tokens, end token included), "missing_end" (0 or 1),
        "repetition" (share of repeated word trigrams); "reward" and "gold" where such a reward is given; "disagreement"
        (deviation over the members of an ensemble); "kl", log(policy / reference) of the answer in nats, where there is
        a role "reference": unbiased for the KL divergence at temperature 1.
    """
    samples = answers_to(network, prompts, sampling)
    talks = conversations(network, prompts, samples)
    items = {
        "length": [float(len(answer.ids)) for answer in samples],
        "missing_end": [float(not answer.finished) for answer in samples],
        "repetition": [repetition(talk.response) for talk in talks],
    }
    if isinstance(reward, Ensemble):
        scores = reward.scores(talks)
        items["reward"] = require_finite(reward.combine(scores).tolist(), "reward")
        if len(scores) > 1:
            items["disagreement"] = disagreement(scores).tolist()
    elif reward is not None:
        items["reward"] = require_finite(reward(talks).float().cpu().tolist(), "reward")
    if gold is not None:
        items["gold"] = require_finite(gold(talks).float().cpu().tolist(), "gold")
    if "reference" in network.roles:
        items["kl"] = log_ratios(network, network, prompts, samples, sampling.max_tokens, role="reference")
    return items


def require_finite(scores: list[float], name: str) -> list[float]:
    """Return the scores, if all are finite numbers. Raises TrainingError with the first that is not."""
    index = next((index for index, score in enumerate(scores) if not math.isfinite(score)), None)
    if index is not None:
        raise TrainingError(f"{name}: score {scores[index]} for answer {index + 1}; scores must be finite")
    return scores


def log_ratios(
    network: Network, reference: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample], max_tokens: int,
    *, role: str = "policy",
) -> list[float]:  # fmt: skip
    """Return log(policy / reference) of each sampled answer in nats: unbiased for the KL at temperature 1.

    Args:
        network: with the role "policy", which sampled.
        reference: the network with the reference model under `role`; it may be `network` itself.
        prompts: the prompts.
        samples: the answers, in the same order.
        max_tokens: micro-batch size.
        role: the reference's role in its network.
    """
    examples = [
        Example(prompt.ids, (Branch(answer.ids, [True] * len(answer.ids)),))
        for prompt, answer in zip(prompts, samples, strict=True)
    ]
    ours = forward_all(network, examples, "policy", "logps", max_tokens=max_tokens)
    theirs = forward_all(reference, examples, role, "logps", max_tokens=max_tokens)
    # Subtract token by token: the difference of two sums of hundreds of nats would lose precision.
    sizes = torch.tensor([len(answer.ids) for answer in samples])
    return segment_sum(ours - theirs, torch.repeat_interleave(torch.arange(len(sizes)), sizes), len(sizes)).tolist()


def means(items: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean of each measurement over the prompts, and their number as "n"."""
    n = max((len(values) for values in items.values()), default=0)
    return {name: sum(values) / len(values) for name, values in items.items()} | {"n": float(n)}
