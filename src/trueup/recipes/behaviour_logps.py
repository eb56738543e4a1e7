"""Log-probabilities that PPO's ratios start from: those of the sampler, if the training forward pass agrees with them.

Sampling runs token by token over a cache, training over whole rows. In exact arithmetic both give the same numbers; if
they differ, PPO's ratios are off before the first update ("training-inference mismatch": Yao et al. 2025, "Your
Efficient RL Framework Secretly Brings You Off-Policy RL Training"). So a few rows are computed both ways first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trueup.models.batching import Example
from trueup.models.forward import forward_all
from trueup.sampling import Sample

if TYPE_CHECKING:
    from trueup.models.network import Network

AGREEMENT = 1e-4
"""Nats by which a token may differ: float32 rounding stays below a tenth of it, bfloat16 is far above."""
_COMPARED = 8


def policy_logps(
    network: Network, examples: Sequence[Example], samples: Sequence[Sample], *, max_tokens: int, temperature: float,
    compare_all: bool = False,
) -> tuple[Tensor, float | None]:  # fmt: skip
    """Return the log-probabilities of all sampled tokens under the policy that sampled them.

    Args:
        network: the model with the role "policy", not updated since it sampled.
        examples: a prompt and its sampled answer each.
        samples: the samples, in the same order.
        max_tokens: micro-batch size.
        temperature: the temperature of sampling.
        compare_all: True computes every row with the training forward and uses no log-probability of the sampler.

    Returns:
        (N,) float32 nats, the samples' tokens one after another; and the largest difference between sampler and
        training forward among the compared tokens, None if the samples have no log-probabilities.
    """

    def computed(indices: Sequence[int]) -> Tensor:
        chosen = [examples[index] for index in indices]
        return forward_all(network, chosen, "policy", "logps", max_tokens=max_tokens, temperature=temperature)

    sampled = [torch.tensor(sample.logps, dtype=torch.float32) for sample in samples]
    complete = all(sample.logps for sample in samples)
    compared = _spread(samples)
    if complete and not compare_all and len(compared) < len(samples) and network.runtime.dtype == torch.float32:
        gap = _largest(torch.cat([sampled[index] for index in compared]) - computed(compared))
        if gap <= AGREEMENT:
            return torch.cat(sampled), gap
    trained = computed(range(len(samples)))
    return trained, _largest(torch.cat(sampled) - trained) if complete else None


def _spread(samples: Sequence[Sample]) -> list[int]:
    """Return the indices of at most eight samples, spread from the shortest to the longest.

    Errors of the cache often begin late, so the longest sample is always among them.
    """
    order = sorted(range(len(samples)), key=lambda index: len(samples[index].ids))
    count = min(_COMPARED, len(order))
    return [order[place * (len(order) - 1) // max(1, count - 1)] for place in range(count)]


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max())
