"""The loss of supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logps: Tensor) -> Tensor:
    """Negative log-likelihood of each trained token (Ouyang et al. 2022, arXiv:2203.02155, section 3.5, SFT).

    Args:
        logps: (N,) log-probabilities of the trained tokens, nats. Prompt tokens and padding are not among them.

    Returns:
        losses (N,), nats. Weights and the mean over the whole optimizer step are the training loop's.
    """
    return -logps
