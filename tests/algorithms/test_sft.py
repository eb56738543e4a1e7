"""The loss of supervised fine-tuning."""

from __future__ import annotations

import torch

from trueup.algorithms.sft import cross_entropy
from trueup.algorithms.tensors import token_logps


def test_by_hand() -> None:
    """A token of probability 1/4 costs ln 4 = 1.386294, a certain one 0."""
    losses = cross_entropy(torch.tensor([0.25, 1.0]).log())
    torch.testing.assert_close(losses, torch.tensor([1.386294, 0.0]))


def test_equals_torch_cross_entropy() -> None:
    hidden, weight, targets = torch.randn(7, 3), torch.randn(19, 3), torch.randint(0, 19, (7,))
    logps, _ = token_logps(hidden, weight, targets, chunk_size=2)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(cross_entropy(logps), expected)
