"""PPO's losses and diagnostics, per token.

Every tensor is flat (N,) over the sampled response tokens alone: no prompt, no padding, so nothing needs a mask here.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_LOG_RATIO = 20.0
"""Nats. Log-ratios are clamped to this before `exp`, as verl does: an infinite ratio would give a gradient of NaN."""


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, clip: float = 0.2, dual_clip: float | None = None
) -> Tensor:
    """Return PPO's clipped surrogate objective per token, negated (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    Args:
        logps: (N,) log-probabilities of the sampled tokens under the policy being trained, nats.
        old_logps: (N,) their log-probabilities under the policy that sampled them, nats, constant.
        advantages: (N,), constant.
        clip: how far the probability ratio may move away from 1 and still be rewarded.
        dual_clip: above 1: where the advantage is negative the loss is at most dual_clip * |advantage|, so that a ratio
            that has grown large cannot dominate the step (Ye et al. 2020, arXiv:1912.09729, eq. 5; they use 3).
            None: no such bound.

    Returns:
        losses (N,).
    """
    ratio = _log_ratio(logps, old_logps).exp()
    losses = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    if dual_clip is None:
        return losses
    return torch.where(advantages < 0, torch.min(losses, -dual_clip * advantages), losses)


def _log_ratio(logps: Tensor, old_logps: Tensor) -> Tensor:
    return (logps - old_logps).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float | None = 0.2) -> Tensor:
    """Return half the squared error of each value, the larger of clipped and unclipped.

    After OpenAI Baselines' ppo2, `vf_loss`; see also detail 9 of Huang et al. 2022, "The 37 Implementation Details of
    Proximal Policy Optimization".

    Args:
        values: (N,) values that the value head predicts now.
        old_values: (N,) values that it predicted when the responses were sampled, constant.
        returns: (N,) targets of the values (advantage + old value), constant.
        clip: how far a value may move from the old one; None does not clip.

    Returns:
        losses (N,).
    """
    errors = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.max(errors, (clipped - returns).square())
    return 0.5 * errors


def policy_metrics(logps: Tensor, old_logps: Tensor, clip: float) -> dict[str, Tensor]:
    """Return per-token measures of the distance between policy and sampling policy (Huang et al. 2022, detail 12).

    Returns:
        "approx_kl": KL(old || new) by the estimator k3 of `kl.py`, nats; "clipfrac": 1.0 where the ratio left
        [1 - clip, 1 + clip], else 0.0; "ratio": new over old probability. Each (N,), detached; their means are logged.
    """
    log_ratio = _log_ratio(logps, old_logps).detach()
    ratio = log_ratio.exp()
    # The samples are the old policy's, so k3's ratio is new / old: the same ratio as PPO's.
    approx_kl = torch.expm1(log_ratio) - log_ratio
    return {"approx_kl": approx_kl, "clipfrac": ((ratio - 1).abs() > clip).to(ratio.dtype), "ratio": ratio}


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Return the share of the returns' variance that the values predict, 1 - Var(returns - values) / Var(returns).

    As OpenAI Baselines' `explained_variance`. 1: the values predict the returns perfectly; 0: no better than a
    constant; negative: worse than a constant.

    Returns:
        scalar, detached; NaN where the returns do not vary, because then there is nothing to explain.
    """
    values, returns = values.detach(), returns.detach()
    total = returns.var(correction=0)
    share = 1 - (returns - values).var(correction=0) / total
    # Equal returns leave rounding errors of their mean, about 1e-14 of its square in float32.
    return torch.where(total > 1e-12 * returns.square().mean(), share, torch.nan)
