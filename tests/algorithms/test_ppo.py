"""PPO's losses and diagnostics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trueup.algorithms.advantages import Episodes, gae, token_rewards
from trueup.algorithms.kl import k1
from trueup.algorithms.ppo import explained_variance, policy_loss, policy_metrics, value_loss
from trueup.algorithms.tensors import token_logps, whiten


def one_policy_loss(logp: float, old_logp: float, advantage: float, clip: float) -> float:
    """Equation 7, for one action, in plain Python: -min(r A, clip(r, 1 - e, 1 + e) A)."""
    ratio = math.exp(logp - old_logp)
    return -min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)


def one_value_loss(value: float, old_value: float, target: float, clip: float) -> float:
    clipped = old_value + min(max(value - old_value, -clip), clip)
    return 0.5 * max((value - target) ** 2, (clipped - target) ** 2)


class TestPolicyLoss:
    def test_by_hand(self) -> None:
        """Clip 0.2, so the ratio counts as 0.8 to 1.2 when moving further pays.

        Ratio 1.5, A = 2: min(3, 2.4), loss -2.4. Ratio 1.5, A = -2: min(-3, -2.4), loss 3.
        Ratio 0.5, A = 2: min(1, 1.6), loss -1. Ratio 0.5, A = -2: min(-1, -1.6), loss 1.6. Ratio 1, A = 2: loss -2.
        """
        ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0])
        advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
        losses = policy_loss(ratio.log(), torch.zeros(5), advantages)
        torch.testing.assert_close(losses, torch.tensor([-2.4, 3.0, -1.0, 1.6, -2.0]))

    def test_gradient_vanishes_exactly_where_clipped(self) -> None:
        """d(-r A)/d log r = -r A where not clipped (same five cases), 0 where clipped."""
        logps = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0]).log().requires_grad_()
        losses = policy_loss(logps, torch.zeros(5), torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0]))
        (grad,) = torch.autograd.grad(losses.sum(), logps)
        torch.testing.assert_close(grad, torch.tensor([0.0, 3.0, -1.0, 0.0, -2.0]))

    def test_equals_a_plain_loop(self) -> None:
        logps, old_logps, advantages = torch.randn(3, 200, dtype=torch.float64).unbind()
        expected = [one_policy_loss(*row, clip=0.3) for row in torch.stack([logps, old_logps, advantages], 1).tolist()]
        losses = policy_loss(logps, old_logps, advantages, clip=0.3)
        torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))

    @pytest.mark.parametrize("log_ratio", [21.0, 89.0, 1e4])
    @pytest.mark.parametrize("advantage", [2.0, -2.0])
    def test_a_ratio_without_bounds_is_bounded(self, log_ratio: float, advantage: float) -> None:
        """Log-ratios count as 20 to -20: the loss of A = -2 is 2 e^20, that of A = 2 is -2.4, and no gradient is NaN.

        In float32 e^89 is infinite, and 0 times its gradient is NaN.
        """
        logps = torch.tensor([log_ratio, -log_ratio]).requires_grad_()
        losses = policy_loss(logps, torch.zeros(2), torch.full((2,), advantage))
        (grad,) = torch.autograd.grad(losses.sum(), logps)
        expected = [-2.4, -2 * math.exp(-20)] if advantage > 0 else [2 * math.exp(20), 1.6]
        torch.testing.assert_close(losses, torch.tensor(expected))
        assert grad.tolist() == [0, 0]
        assert all(values.isfinite().all() for values in policy_metrics(logps, torch.zeros(2), 0.2).values())

    def test_dual_clip_by_hand(self) -> None:
        """Dual clip 3: with A = -2 the loss is at most 6. Ratio 5, A = -2: 10, so 6, without gradient.

        Ratio 2, A = -2: 4, below 6, gradient 4. Ratio 0.5, A = -2: 1.6 (the ordinary clip). Ratio 5, A = 2: -2.4, as
        without: a positive advantage is left as it was.
        """
        logps = torch.tensor([5.0, 2.0, 0.5, 5.0]).log().requires_grad_()
        losses = policy_loss(logps, torch.zeros(4), torch.tensor([-2.0, -2.0, -2.0, 2.0]), dual_clip=3.0)
        torch.testing.assert_close(losses, torch.tensor([6.0, 4.0, 1.6, -2.4]))
        (grad,) = torch.autograd.grad(losses.sum(), logps)
        torch.testing.assert_close(grad, torch.tensor([0.0, 4.0, 0.0, 0.0]))

    def test_first_step_is_the_policy_gradient(self) -> None:
        """With the ratio at 1 the gradient is that of -A * log p."""
        logps = torch.randn(20, requires_grad=True)
        advantages = torch.randn(20)
        (grad,) = torch.autograd.grad(policy_loss(logps, logps.detach(), advantages).sum(), logps)
        torch.testing.assert_close(grad, -advantages)


class TestValueLoss:
    def test_by_hand(self) -> None:
        """Old value 0, clip 0.2, value 1 counts as 0.2.

        Return 2: errors 1 and 3.24, half the worse is 1.62. Return -1: errors 4 and 1.44, half the worse is 2.
        """
        losses = value_loss(torch.ones(2), torch.zeros(2), torch.tensor([2.0, -1.0]))
        torch.testing.assert_close(losses, torch.tensor([1.62, 2.0]))

    def test_without_clip_it_is_half_the_squared_error(self) -> None:
        losses = value_loss(torch.ones(2), torch.zeros(2), torch.tensor([2.0, -1.0]), clip=None)
        torch.testing.assert_close(losses, torch.tensor([0.5, 2.0]))

    def test_equals_a_plain_loop(self) -> None:
        values, old_values, returns = torch.randn(3, 200, dtype=torch.float64).unbind()
        expected = [one_value_loss(*row, clip=0.4) for row in torch.stack([values, old_values, returns], 1).tolist()]
        torch.testing.assert_close(
            value_loss(values, old_values, returns, clip=0.4), torch.tensor(expected, dtype=torch.float64)
        )


class TestDiagnostics:
    def test_policy_metrics_by_hand(self) -> None:
        """Ratios 1, 1.1 and 0.5 with clip 0.2: only the last has left. KL: (r - 1) - ln r = 0, 0.004690, 0.193147."""
        logps = torch.tensor([1.0, 1.1, 0.5]).log().requires_grad_()
        found = policy_metrics(logps, torch.zeros(3), 0.2)
        torch.testing.assert_close(found["ratio"], torch.tensor([1.0, 1.1, 0.5]))
        torch.testing.assert_close(found["approx_kl"], torch.tensor([0.0, 0.004690, 0.193147]), atol=1e-6, rtol=1e-4)
        assert found["clipfrac"].tolist() == [0.0, 0.0, 1.0]
        assert not any(value.requires_grad for value in found.values())

    def test_approx_kl_estimates_kl_from_the_sampling_policy(self) -> None:
        """Its exact expectation over the old policy's words is KL(old || new)."""
        old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
        approx_kl = policy_metrics(new.log(), old.log(), 0.2)["approx_kl"]
        torch.testing.assert_close((old * approx_kl).sum(), (old * (old / new).log()).sum())

    def test_explained_variance_by_hand(self) -> None:
        """Returns 1, 2, 3 vary by 2/3. Values 1, 2, 3 leave nothing: 1. A constant: 0. Values 3, 2, 1 leave 8/3: -3."""
        returns = torch.tensor([1.0, 2.0, 3.0])
        assert explained_variance(returns, returns).item() == 1
        assert explained_variance(torch.full((3,), 7.0), returns).item() == pytest.approx(0)
        assert explained_variance(returns.flip(0), returns).item() == pytest.approx(-3)

    def test_constant_returns_have_no_variance_to_explain(self) -> None:
        for constant in (0.0, 1.0, 0.1, -7.3):
            assert explained_variance(torch.randn(999), torch.full((999,), constant)).isnan()


class Rollout:
    """Branches of unequal length, with what a policy, a reference and a value head say about each token."""

    def __init__(self, lengths: list[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = lengths
        total = sum(lengths)
        self.hidden = torch.randn(total, 4, generator=generator, dtype=torch.float64)
        self.weight = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(0, 9, (total,), generator=generator)
        self.ref_logps = -torch.rand(total, generator=generator, dtype=torch.float64)
        self.values = torch.randn(total, generator=generator, dtype=torch.float64)
        self.scores = torch.randn(len(lengths), generator=generator, dtype=torch.float64)

    def quantities(self, branches: list[int]) -> list[Tensor]:
        """Logps, entropy, KL, rewards, advantages and returns of the named branches, processed together, per branch."""
        starts = [sum(self.lengths[:b]) for b in branches]
        rows = torch.cat([torch.arange(s, s + self.lengths[b]) for s, b in zip(starts, branches, strict=True)])
        sizes = [self.lengths[b] for b in branches]
        branch_of = torch.arange(len(branches)).repeat_interleave(torch.tensor(sizes))
        logps, entropy = token_logps(self.hidden[rows], self.weight, self.targets[rows], entropy=True, chunk_size=4)
        assert entropy is not None
        kl = k1(logps, self.ref_logps[rows])
        rewards = token_rewards(self.scores[branches], kl, branch_of, 0.1)
        values = self.values[rows]
        advantages = gae(Episodes(rewards, torch.zeros(0), branch_of, torch.zeros(0), values))
        returns = advantages + values
        stacked = torch.stack([logps, entropy, kl, rewards, advantages, returns], 1)
        return list(stacked.split(sizes))


def test_a_ragged_batch_gives_every_branch_what_it_gets_alone() -> None:
    """No padding exists to leak: the known fault of scores, KL, entropy and returns computed over padded rows."""
    rollout = Rollout([1, 7, 3, 12, 2])
    together = rollout.quantities([0, 1, 2, 3, 4])
    for branch, found in enumerate(together):
        (alone,) = rollout.quantities([branch])
        torch.testing.assert_close(found, alone)
    for branch, found in zip([3, 0, 4], rollout.quantities([3, 0, 4]), strict=True):
        torch.testing.assert_close(found, together[branch])


def test_whitened_advantages_are_those_of_real_tokens() -> None:
    """Flat tokens, or the same tokens in padded rows with a mask: the same numbers, zeros in the padding."""
    flat = torch.randn(10, dtype=torch.float64)
    padded = torch.full((3, 6), 1e6, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [1], [3]])
    padded[mask] = flat
    torch.testing.assert_close(whiten(padded, mask)[mask], whiten(flat))
    assert not whiten(padded, mask)[~mask].any()
