"""KL estimators and controllers."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from trueup.algorithms import tensors
from trueup.algorithms.kl import ESTIMATORS, AdaptiveKL, FixedKL, exact_kl, k1, k2, k3, kl_loss
from trueup.algorithms.tensors import LMHead
from trueup.errors import ConfigError, TrainingError

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


class TestEstimators:
    def test_by_hand(self) -> None:
        """Policy 1/2, reference 1/4: log-ratio ln 2 = 0.693147.

        k1 = 0.693147; k2 = 0.693147^2 / 2 = 0.240227; k3 = 1/2 - 1 + 0.693147 = 0.193147.
        """
        logps, ref_logps = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
        torch.testing.assert_close(k1(logps, ref_logps), torch.tensor([0.693147]))
        torch.testing.assert_close(k2(logps, ref_logps), torch.tensor([0.240227]))
        torch.testing.assert_close(k3(logps, ref_logps), torch.tensor([0.193147]))

    @pytest.mark.parametrize("name", ["k1", "k3"])
    def test_expectation_under_the_policy_is_the_kl(self, name: str) -> None:
        """Exactly, because the expectation is a sum over three words: this fixes sign and direction."""
        kl = (POLICY * (POLICY / REFERENCE).log()).sum()
        torch.testing.assert_close((POLICY * ESTIMATORS[name](POLICY.log(), REFERENCE.log())).sum(), kl)

    def test_k2_and_k3_are_never_negative_and_k1_is(self) -> None:
        logps, ref_logps = -3 * torch.rand(100), -3 * torch.rand(100)
        assert (k1(logps, ref_logps) < 0).any()
        assert (k2(logps, ref_logps) >= 0).all()
        assert (k3(logps, ref_logps) >= 0).all()

    @pytest.mark.parametrize("name", ["k1", "k2", "k3"])
    def test_zero_where_policy_is_reference(self, name: str) -> None:
        assert not ESTIMATORS[name](POLICY.log(), POLICY.log()).any()

    def test_k3_keeps_small_differences(self) -> None:
        """exp(x) - 1 - x at x = 1e-3 is 5.0e-7; taken naively in float32 it is off by a tenth."""
        assert k3(torch.tensor([0.0]), torch.tensor([1e-3])).item() == pytest.approx(5.0017e-7, rel=1e-3)

    def test_names(self) -> None:
        assert list(ESTIMATORS.items()) == [("k1", k1), ("k2", k2), ("k3", k3)]


class TestLoss:
    """The mean gradient by the three logits, exactly: the expectation is a sum over three words.

    By hand, at policy p = (1/2, 3/10, 1/5) and reference q = (1/5, 3/10, 1/2): the gradient of KL(p || q) by logit i is
    p_i (log(p_i / q_i) - KL), with logs (0.916291, 0, -0.916291) and KL = 0.3 * 0.916291 = 0.274887:
    (0.320702, -0.082466, -0.238236). That of KL(q || p) is p - q: (0.3, 0, -0.3).
    """

    REVERSE = torch.tensor([0.320702, -0.082466, -0.238236], dtype=torch.float64)
    FORWARD = torch.tensor([0.3, 0.0, -0.3], dtype=torch.float64)

    @staticmethod
    def gradient(name: str, sampled_from: torch.Tensor, policy: torch.Tensor = POLICY) -> torch.Tensor:
        """Return the gradient, by the logits of the policy, of the mean loss over words of another distribution."""
        logits = policy.log().requires_grad_()
        loss = kl_loss(logits.log_softmax(0), REFERENCE.log(), sampled_from.log(), ESTIMATORS[name])
        (sampled_from * loss).sum().backward()
        assert logits.grad is not None
        return logits.grad

    def test_the_gradient_by_hand_is_that_of_the_kl(self) -> None:
        logits = POLICY.log().requires_grad_()
        policy = logits.softmax(0)
        (policy * (policy / REFERENCE).log()).sum().backward()
        torch.testing.assert_close(logits.grad, self.REVERSE, atol=1e-6, rtol=0)

    def test_k2_has_the_gradient_of_the_kl(self) -> None:
        torch.testing.assert_close(self.gradient("k2", POLICY), self.REVERSE, atol=1e-6, rtol=0)

    def test_k3_has_the_gradient_of_the_other_kl(self) -> None:
        torch.testing.assert_close(self.gradient("k3", POLICY), self.FORWARD, atol=1e-6, rtol=0)

    def test_k1_has_none(self) -> None:
        torch.testing.assert_close(self.gradient("k1", POLICY), torch.zeros(3, dtype=torch.float64))

    def test_k3_approximates_it_near_the_reference(self) -> None:
        """The relative difference falls with the distance: 0.01 from the reference it is under a hundredth."""
        near = REFERENCE + 0.01 * (POLICY - REFERENCE)
        k2_gradient, k3_gradient = (self.gradient(name, near, near) for name in ("k2", "k3"))
        assert (k2_gradient - k3_gradient).norm() < 0.01 * k2_gradient.norm()
        far = (self.gradient(name, POLICY) for name in ("k2", "k3"))
        assert torch.dist(*far) > 0.1 * self.REVERSE.norm()

    @pytest.mark.parametrize(("name", "gradient"), [("k2", REVERSE), ("k3", FORWARD)])
    def test_samples_of_an_earlier_policy_have_the_same_mean_gradient(self, name: str, gradient: torch.Tensor) -> None:
        """Unweighted they would not: k2's first component would be 0.32 of words drawn half as often."""
        earlier = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
        torch.testing.assert_close(self.gradient(name, earlier), gradient, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(("name", "share"), [("k1", 1.0), ("k2", 0.129), ("k3", -0.008)])
    def test_in_the_reward_only_k1_has_it(self, name: str, share: float) -> None:
        """In the reward an estimate c is a constant, so the gradient by logit i is p_i (c_i - mean of c).

        k2: c = (0.419795, 0, 0.419795), mean 0.293856: (0.062969, -0.088157, 0.025188), along the gradient of the KL
        0.021463 / 0.166409 = 0.129 of it. k3: c = (0.316291, 0, 0.583709), mean 0.274887: -0.001315 / 0.166409.
        """
        logits = POLICY.log().requires_grad_()
        logps = logits.log_softmax(0)
        (POLICY * ESTIMATORS[name](logps.detach(), REFERENCE.log()) * logps).sum().backward()
        assert logits.grad is not None
        left = float(logits.grad @ self.REVERSE / self.REVERSE.square().sum())
        assert left == pytest.approx(share, abs=1e-3)


class TestAdaptiveKL:
    def test_by_hand(self) -> None:
        """Target 6, KL 6.6: error 0.1, so 256 episodes of 10,000 multiply by 1 + 0.1 * 0.0256 = 1.00256."""
        controller = AdaptiveKL(coef=0.2, target=6.0, horizon=10_000)
        controller.update(6.6, 256)
        assert controller.coef == pytest.approx(0.2 * 1.00256)

    @pytest.mark.parametrize(("kl", "factor"), [(60.0, 1.02), (0.0, 0.98), (-5.0, 0.98), (6.0, 1.0)])
    def test_the_error_is_clipped(self, kl: float, factor: float) -> None:
        """Beyond a fifth off target the error is 0.2: 1,000 episodes of 10,000 change the coefficient by 2%."""
        controller = AdaptiveKL(coef=0.1, target=6.0, horizon=10_000)
        controller.update(kl, 1_000)
        assert controller.coef == pytest.approx(0.1 * factor)

    def test_a_kl_that_falls_with_the_coefficient_reaches_its_target(self) -> None:
        controller = AdaptiveKL(coef=1.0, target=6.0, horizon=1_000)
        for _ in range(200):
            controller.update(3.0 / controller.coef, 100)
        assert 3.0 / controller.coef == pytest.approx(6.0, rel=1e-3)

    def test_state_survives_json(self) -> None:
        controller = AdaptiveKL(0.1, 6.0, 10_000)
        controller.update(7.0, 100)
        restored = AdaptiveKL(0.1, 6.0, 10_000)
        restored.load_state_dict(json.loads(json.dumps(controller.state_dict())))
        assert restored.coef == controller.coef

    @pytest.mark.parametrize("kl", [math.nan, math.inf])
    def test_a_kl_that_is_not_finite_stops_the_run(self, kl: float) -> None:
        """Clipping would turn NaN into an error of 0.2 and hide it."""
        for controller in (AdaptiveKL(0.1, 6.0, 10_000), FixedKL(0.1)):
            with pytest.raises(TrainingError, match="diverged"):
                controller.update(kl, 10)
            assert controller.coef == 0.1

    @pytest.mark.parametrize("wrong", [{"coef": 0.0}, {"target": -1.0}, {"horizon": 0.0}, {"target": math.nan}])
    def test_refuses(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AdaptiveKL(**{"coef": 0.1, "target": 6.0, "horizon": 10_000.0, **wrong})


class TestFixedKL:
    def test_never_changes(self) -> None:
        controller = FixedKL(0.05)
        controller.update(100.0, 10_000)
        assert controller.coef == 0.05

    def test_state_survives_json(self) -> None:
        restored = FixedKL(0.0)
        restored.load_state_dict(json.loads(json.dumps(FixedKL(0.3).state_dict())))
        assert restored.coef == 0.3

    def test_refuses_a_negative_coefficient(self) -> None:
        with pytest.raises(ConfigError, match="coef"):
            FixedKL(-0.1)


def two_token_world(draws: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Answers of two tokens, each a or b, by two models that look at the token before: the true KL and two estimates.

    The hidden state is one-hot: start, a or b. The policy says b after start in 5% of cases, the reference in 5% times
    e^-4; after a and b they differ a little. The true KL is the sum over all four answers.
    """
    policy = torch.tensor([[0.95, 0.6, 0.3], [0.05, 0.4, 0.7]], dtype=torch.float64)
    rare = 0.05 * math.exp(-4)
    reference = torch.tensor([[1 - rare, 0.5, 0.5], [rare, 0.5, 0.5]], dtype=torch.float64)
    truth = 0.0
    for first, second in itertools.product((0, 1), repeat=2):
        ours = float(policy[first, 0] * policy[second, 1 + first])
        theirs = float(reference[first, 0] * reference[second, 1 + first])
        truth += ours * math.log(ours / theirs)
    generator = torch.Generator().manual_seed(0)
    firsts = (torch.rand(draws, generator=generator, dtype=torch.float64) < policy[1, 0]).long()
    seconds = (torch.rand(draws, generator=generator, dtype=torch.float64) < policy[1, 1 + firsts]).long()
    states = torch.nn.functional.one_hot(torch.stack([torch.zeros_like(firsts), 1 + firsts], 1).flatten(), 3).double()
    kls, log_ratios = exact_kl(
        states, LMHead(policy.log()), states, LMHead(reference.log()), torch.stack([firsts, seconds], 1).flatten()
    )
    return truth, kls.view(-1, 2).sum(1), log_ratios.view(-1, 2).sum(1)


def test_the_exact_kl_is_unbiased_and_of_lower_variance() -> None:
    truth, exact, sampled = two_token_world(20_000)
    for estimate in (exact, sampled):
        assert abs(float(estimate.mean()) - truth) < 3.5 * float(estimate.std()) / math.sqrt(20_000)
    assert float(exact.var()) < 0.02 * float(sampled.var())


def test_the_exact_kl_by_hand_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of (0.8, 0.2) from (0.5, 0.5): 0.8 log 1.6 + 0.2 log 0.4 = 0.1927; the second token's log-ratio is log 0.4."""
    hidden = torch.eye(1, dtype=torch.float64).repeat(5, 1)
    ours, theirs = (
        LMHead(torch.tensor(shares, dtype=torch.float64).log()[:, None]) for shares in ((0.8, 0.2), (0.5, 0.5))
    )
    targets = torch.tensor([0, 1, 1, 0, 1])
    whole = exact_kl(hidden, ours, hidden, theirs, targets)
    assert whole[0].tolist() == pytest.approx([0.8 * math.log(1.6) + 0.2 * math.log(0.4)] * 5)
    assert whole[1][:2].tolist() == pytest.approx([math.log(1.6), math.log(0.4)])
    monkeypatch.setattr(tensors, "_CHUNK_ELEMENTS", 4)
    for part, other in zip(exact_kl(hidden, ours, hidden, theirs, targets), whole, strict=True):
        assert torch.equal(part, other)
    with pytest.raises(ConfigError, match="2 and 3 tokens"):
        exact_kl(hidden, ours, hidden, LMHead(torch.zeros(3, 1)), targets)
