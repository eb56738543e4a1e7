"""KL(policy || reference): estimators from samples, and controllers of the penalty's coefficient.

The estimators take log-probabilities of tokens *sampled from the policy*; their means over such samples estimate
KL(policy || reference) in nats (Schulman 2020, "Approximating KL Divergence", joschu.net/blog/kl-approx.html).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trueup.errors import ConfigError, TrainingError


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log(policy / reference): unbiased, high variance, negative for single tokens (Schulman 2020). (N,), nats."""
    return logps - ref_logps


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log(policy / reference)^2 / 2: biased, low variance, never negative (Schulman 2020). (N,), nats."""
    return 0.5 * (logps - ref_logps).square()


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(r - 1) - log r, r = reference / policy: unbiased, low variance, never negative (Schulman 2020). (N,), nats."""
    log_ratio = ref_logps - logps
    return torch.expm1(log_ratio) - log_ratio


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""Estimators by the name used in the configuration."""


class FixedKL:
    """A coefficient that does not change, behind the interface of `AdaptiveKL`."""

    def __init__(self, coef: float) -> None:
        """Keep `coef`, which must not be negative."""
        self.coef = _non_negative("coef", coef)

    def update(self, kl: float, episodes: int) -> None:  # noqa: ARG002  (AdaptiveKL's signature)
        """Nothing to adapt; the KL is still checked to be finite."""
        _finite(kl)

    def state_dict(self) -> dict[str, float]:
        """JSON-able state."""
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up a saved state."""
        self.coef = float(state["coef"])


class AdaptiveKL:
    """Steers the coefficient so that the KL approaches `target` (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    error = clip((KL - target) / target, -0.2, 0.2);  coef <- coef * (1 + error * episodes / horizon)
    """

    def __init__(self, coef: float, target: float, horizon: float) -> None:
        """Start from `coef`.

        Args:
            coef: coefficient to start from, above 0 (the update multiplies it).
            target: KL wanted, in nats per response.
            horizon: episodes in which an error at the clip changes the coefficient by about a fifth.

        Raises:
            ConfigError: an argument is not above 0.
        """
        self.coef = _positive("coef", coef)
        self.target = _positive("target", target)
        self.horizon = _positive("horizon", horizon)

    def update(self, kl: float, episodes: int) -> None:
        """Adapt to the mean KL (nats per response) of the last `episodes` responses.

        Raises:
            TrainingError: the KL is not finite. Clipped, it would look like an ordinary error.
        """
        error = min(max((_finite(kl) - self.target) / self.target, -0.2), 0.2)
        self.coef *= 1 + error * episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        """JSON-able state. Target and horizon are configuration, not state."""
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up a saved state."""
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
