"""Sample a policy's answers to prompts and measure them: reward, gold reward, KL, length, repetition.

Answers are sampled at the temperature of training, because a KL is an expectation under the policy itself, and always
with the same seed: two measurements then differ only by the weights, and can be compared prompt by prompt.
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
from trueup.models.forward import forward_all, token_kls
from trueup.models.rewards import Ensemble, disagreement
from trueup.sampling import Sample, sample, sampled_at_once
from trueup.sampling.text import answer_text

if TYPE_CHECKING:
    from trueup.models.network import Network
    from trueup.models.rewards import Reward


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings for sampling answers; lengths are in tokens.

    `max_tokens` is the size of a micro-batch; sampling uses batches of up to four times as many tokens.
    """

    max_new_tokens: int
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0


def answers_to(network: Network, prompts: Sequence[PromptRow], sampling: Sampling) -> list[Sample]:
    """Sample one answer to each prompt from the network's role "policy"."""
    return sample(
        network, [prompt.ids for prompt in prompts], max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature, seed=sampling.seed,
        max_tokens=sampled_at_once(sampling.max_tokens),
    )  # fmt: skip


def conversations(network: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample]) -> list[Conversation]:
    """Join each prompt and its sampled answer to a Conversation, the form that a reward scores."""
    return [
        Conversation((*prompt.messages, Message("assistant", answer_text(network, answer))), columns=prompt.columns)
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
    """Sample one answer to each prompt and measure the answers.

    Returns:
        Name -> one value per prompt, in the order of `prompts`: "length" (tokens, end token included), "missing_end" (1
        if the answer was cut before an end token, else 0), "repetition" (share of repeated word trigrams); "reward" and
        "gold" where such a reward is given; "disagreement" (deviation over the members of a reward ensemble); "kl",
        log(policy / reference) of the answer in nats, where the network has a role "reference": an unbiased estimate of
        the KL divergence at temperature 1.
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
    """Return the scores unchanged. Raises TrainingError, naming the first score that is NaN or infinite."""
    index = next((index for index, score in enumerate(scores) if not math.isfinite(score)), None)
    if index is not None:
        raise TrainingError(f"{name}: score {scores[index]} for answer {index + 1}; scores must be finite")
    return scores


def log_ratios(
    network: Network, reference: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample], max_tokens: int,
    *, role: str = "policy",
) -> list[float]:  # fmt: skip
    """Return for each sampled answer log p_policy(answer) - log p_reference(answer), in nats.

    At temperature 1 it is an unbiased estimate of the KL divergence of the policy from the reference.

    Args:
        network: has the role "policy", which sampled the answers.
        reference: the network with the reference model under `role`; it may be `network` itself.
        prompts: the prompts.
        samples: the answers, in the order of `prompts`.
        max_tokens: micro-batch size in tokens.
        role: the role of the reference model in `reference`.
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


def kls(
    network: Network, reference: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample], max_tokens: int
) -> tuple[list[float], list[float]]:
    """Return for each sampled answer the sum of its tokens' exact KLs, and the log-ratio of policy and reference.

    Both are unbiased estimates of the KL divergence of the policy from the reference at temperature 1, in nats; the
    first has the lower variance (`algorithms.kl.exact_kl`). Both networks have their model as the role "policy".
    """
    examples = [
        Example(prompt.ids, (Branch(answer.ids, [True] * len(answer.ids)),))
        for prompt, answer in zip(prompts, samples, strict=True)
    ]
    sizes = torch.tensor([len(answer.ids) for answer in samples])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    exact, sampled = token_kls(network, reference, examples, max_tokens=max_tokens)
    return segment_sum(exact, owners, len(sizes)).tolist(), segment_sum(sampled, owners, len(sizes)).tolist()


def means(items: dict[str, list[float]]) -> dict[str, float]:
    """Return name -> mean over the prompts for the result of `measure_policy`; "n" is the number of prompts."""
    n = max((len(values) for values in items.values()), default=0)
    return {name: sum(values) / len(values) for name, values in items.items()} | {"n": float(n)}
