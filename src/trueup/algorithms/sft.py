"""Loss of supervised fine-tuning (cross-entropy)."""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logps: Tensor) -> Tensor:
    """Return the negative log-likelihood of each trained token (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).

    Args:
        logps: (N,) log-probabilities of the trained tokens, nats, without prompt tokens and padding.

    Returns:
        losses (N,), nats; the training loop weights them and takes the mean over the whole optimizer step.
    """
    return -logps
