"""The loss of reward modelling."""

from __future__ import annotations

import pytest
import torch

from trueup.algorithms.reward import bradley_terry

CHOSEN, REJECTED = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])


def test_by_hand() -> None:
    """Gaps 1 and -2: ln(1 + e^-1) = 0.313262 and ln(1 + e^2) = 2.126928."""
    torch.testing.assert_close(bradley_terry(CHOSEN, REJECTED), torch.tensor([0.313262, 2.126928]))


def test_margin_is_taken_from_the_gap() -> None:
    """Gaps 1 - 1 and -2 - 3: ln 2 = 0.693147 and ln(1 + e^5) = 5.006715."""
    losses = bradley_terry(CHOSEN, REJECTED, margin=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(losses, torch.tensor([0.693147, 5.006715]))


def test_center_adds_the_squared_sum() -> None:
    """Sums 1 and 0: 0.5 * 1 is added to the first, nothing to the second."""
    losses = bradley_terry(CHOSEN, REJECTED, center=0.5)
    torch.testing.assert_close(losses, torch.tensor([0.813262, 2.126928]))


def test_only_differences_matter_unless_centred() -> None:
    moved = (CHOSEN + 10, REJECTED + 10)
    torch.testing.assert_close(bradley_terry(*moved), bradley_terry(CHOSEN, REJECTED))
    assert (bradley_terry(*moved, center=0.01) > bradley_terry(CHOSEN, REJECTED, center=0.01)).all()


@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_extreme_gaps_stay_finite(gap: float) -> None:
    chosen = torch.tensor([gap], requires_grad=True)
    loss = bradley_terry(chosen, torch.zeros(1))
    (grad,) = torch.autograd.grad(loss.sum(), chosen)
    assert loss.item() == max(0.0, -gap)
    assert grad.item() == (-1.0 if gap < 0 else 0.0)
