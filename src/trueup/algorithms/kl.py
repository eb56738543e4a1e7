"""Estimate KL(policy || reference) from samples, penalize it, and control the coefficient of the penalty.

The estimators take log-probabilities of tokens *sampled from the policy*; their means over such samples estimate
KL(policy || reference) in nats (Schulman 2020, "Approximating KL Divergence", joschu.net/blog/kl-approx.html).

A good estimate of the KL need not have the gradient of the KL. In the *reward*, k1 has it, and k2 and k3 nearly none
of it; as a *loss*, k2 has it, k3 approximates it, and k1 has a mean gradient of zero (Shah et al. 2025, "A Comedy of
Estimators", arXiv:2512.21852; Liu et al. 2025, "Rethinking KL Regularization in RLHF", arXiv:2510.01555).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trueup.algorithms.ppo import LARGEST_LOG_RATIO
from trueup.algorithms.tensors import LMHead, chunks_of_rows
from trueup.errors import ConfigError, TrainingError


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Return the KL estimate log(policy / reference) of each token, (N,) nats (Schulman 2020).

    Unbiased, but of high variance, and negative for single tokens.
    """
    return logps - ref_logps


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Return the KL estimate log(policy / reference)^2 / 2 of each token, (N,) nats (Schulman 2020).

    Biased, of low variance, never negative.
    """
    return 0.5 * (logps - ref_logps).square()


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Return the KL estimate (r - 1) - log r of each token, with r = reference / policy, (N,) nats (Schulman 2020).

    Unbiased, of low variance, never negative.
    """
    log_ratio = ref_logps - logps
    return torch.expm1(log_ratio) - log_ratio


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""Estimators by the name used in the configuration."""


@torch.no_grad()
def exact_kl(
    hidden: Tensor, head: LMHead, ref_hidden: Tensor, ref_head: LMHead, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return for each sampled token the KL of the whole next-token distributions, and the token's own log-ratio.

    The sum over an answer's tokens of sum_v policy(v) log(policy(v) / reference(v)), at the prefixes that were sampled,
    is the conditional mean of the sampled log-ratio given these prefixes: unbiased for the same KL of answers, and of
    no larger variance (Rao-Blackwell; Amini, Vieira & Cotterell 2025, "Better Estimation of the KL Divergence Between
    Language Models", arXiv:2504.10637, section 4). Logits are made in chunks of rows.

    Args:
        hidden: (N, H) the policy's hidden states that the tokens are predicted from.
        head: the policy's output layer.
        ref_hidden: (N, H') the reference's hidden states.
        ref_head: the reference's output layer, over the same vocabulary.
        targets: (N,) the tokens that were sampled.

    Returns:
        (N,) KL and (N,) log-ratio of each token, in nats.

    Raises:
        ConfigError: the vocabularies have different sizes.
    """
    sizes = head.weight.shape[0], ref_head.weight.shape[0]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"the KL of two models needs one vocabulary; they have {sizes[0]} and {sizes[1]} tokens")
    kls: list[Tensor] = []
    log_ratios: list[Tensor] = []
    for rows in chunks_of_rows(len(targets), sizes[0]):
        logps = head.logps(hidden[rows])
        differences = logps - ref_head.logps(ref_hidden[rows])
        log_ratios.append(differences.gather(-1, targets[rows, None]).squeeze(-1))
        # A token of probability 0 under both has the difference NaN, and no part in the sum.
        kls.append((logps.exp_() * differences).nansum(-1))
    return torch.cat(kls), torch.cat(log_ratios)


def kl_loss(
    logps: Tensor, ref_logps: Tensor, old_logps: Tensor, estimator: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return a loss per token, (N,), whose mean gradient is that of the KL of the policy from the reference.

    With k2 it is (log policy - log reference) * grad log policy, whose mean over samples of the policy is the gradient
    of KL(policy || reference) of the next token. With k3 it is (1 - reference / policy) * grad log policy, the gradient
    of KL(reference || policy), which equals the other one to first order near the reference (Liu et al. 2025,
    arXiv:2510.01555, sections 4 and 5). The effect of a token on the KL of later tokens is not in it.

    PPO reuses samples of an earlier policy, so each token is weighted by policy / earlier policy, as a constant:
    without that weight the gradient would be that of the KL only in the first update after sampling.

    Args:
        logps: (N,) log-probabilities of the sampled tokens under the policy being trained, nats.
        ref_logps: (N,) theirs under the reference, nats, constant.
        old_logps: (N,) theirs under the policy that sampled them, nats, constant.
        estimator: the estimator, such as `k2`.
    """
    weight = (logps - old_logps).detach().clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    return weight * estimator(logps, ref_logps)


class FixedKL:
    """Constant coefficient of the KL penalty, with the methods of `AdaptiveKL`."""

    def __init__(self, coef: float) -> None:
        """Set the coefficient (reward units per nat of KL).

        Raises:
            ConfigError: it is negative.
        """
        self.coef = _non_negative("coef", coef)

    def update(self, kl: float, episodes: int) -> None:  # noqa: ARG002  (AdaptiveKL's signature)
        """Check that the KL (nats per response) is finite; the coefficient does not change.

        Raises:
            TrainingError: the KL is NaN or infinite.
        """
        _finite(kl)

    def state_dict(self) -> dict[str, float]:
        """Return the coefficient as JSON values, for a checkpoint."""
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the coefficient that `state_dict` returned."""
        self.coef = float(state["coef"])


class AdaptiveKL:
    """Controller that steers the KL penalty's coefficient so that KL(policy || reference) approaches `target`.

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2:
    error = clip((KL - target) / target, -0.2, 0.2);  coef <- coef * (1 + error * episodes / horizon)
    """

    def __init__(self, coef: float, target: float, horizon: float) -> None:
        """Set the first coefficient and the target.

        Args:
            coef: coefficient to start from, above 0 (the update multiplies it).
            target: KL wanted, in nats per response.
            horizon: number of responses after which the largest error (0.2) has changed the coefficient by about a
                fifth.

        Raises:
            ConfigError: an argument is not above 0.
        """
        self.coef = _positive("coef", coef)
        self.target = _positive("target", target)
        self.horizon = _positive("horizon", horizon)

    def update(self, kl: float, episodes: int) -> None:
        """Adapt the coefficient to the mean KL (nats per response) of the last `episodes` responses.

        It grows if the KL is above `target`, and shrinks if the KL is below.

        Raises:
            TrainingError: the KL is not finite. Clipped, it would look like an ordinary error.
        """
        error = min(max((_finite(kl) - self.target) / self.target, -0.2), 0.2)
        self.coef *= 1 + error * episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        """Return the coefficient as JSON values, for a checkpoint; target and horizon come from the configuration."""
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the coefficient that `state_dict` returned."""
        self.coef = float(state["coef"])


def _finite(kl: float) -> float:
    if not math.isfinite(kl):
        raise TrainingError(f"the KL from the reference is {kl}; the policy has diverged (lower the learning rate)")
    return kl


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ConfigError(f"KL {name} is {value}; it must be above 0")
    return float(value)


def _non_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ConfigError(f"KL {name} is {value}; it must not be negative")
    return float(value)
