"""Token rewards, GAE, group baselines and running normalisation."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trueup.algorithms.advantages import Episodes, RunningNorm, gae, grpo, missing_end_penalty, rloo, token_rewards
from trueup.errors import ConfigError

RAGGED = torch.tensor([0, 0, 0, 1, 2, 2])


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """One episode by the definition: advantage[t] = sum over l of (gamma * lam)^l * error[t + l]."""
    after = [*values[1:], 0.0]
    errors = [r + gamma * v_next - v for r, v, v_next in zip(rewards, values, after, strict=True)]
    return [
        sum((gamma * lam) ** step * error for step, error in enumerate(errors[start:])) for start in range(len(errors))
    ]


def layout(lengths: list[int]) -> Tensor:
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.long))


def tokens(rewards: Tensor, values: Tensor, branch_of: Tensor) -> Episodes:
    """Episodes for an advantage that looks at tokens."""
    return Episodes(rewards, torch.zeros(0), branch_of, torch.zeros(0), values)


def responses(totals: Tensor, group: Tensor) -> Episodes:
    """Episodes of one token each, for an advantage that compares responses."""
    return Episodes(totals, totals, torch.arange(len(totals)), group)


class TestTokenRewards:
    def test_by_hand(self) -> None:
        """KL of 1 nat a token at 0.1 costs 0.1 each; scores 10, 20, 30 land on tokens 2, 3 and 5 and nowhere else."""
        rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), torch.ones(6), RAGGED, 0.1)
        torch.testing.assert_close(rewards, torch.tensor([-0.1, -0.1, 9.9, 19.9, -0.1, 29.9]))

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    def test_the_score_lands_on_the_last_token_alone(self, lengths: list[int]) -> None:
        scores = torch.arange(1.0, len(lengths) + 1)
        branch_of = layout(lengths)
        rewards = token_rewards(scores, torch.zeros(len(branch_of)), branch_of, 0.05)
        position = 0
        for length, score in zip(lengths, scores.tolist(), strict=True):
            assert rewards[position : position + length].tolist() == [0.0] * (length - 1) + [score]
            position += length

    def test_a_branch_without_tokens_is_refused(self) -> None:
        with pytest.raises(ValueError, match="branch 1 has no tokens"):
            token_rewards(torch.ones(3), torch.zeros(2), torch.tensor([0, 2]), 0.1)

    def test_a_wrong_order_is_refused(self) -> None:
        with pytest.raises(ValueError, match="branch_of decreases"):
            token_rewards(torch.ones(2), torch.zeros(3), torch.tensor([0, 1, 0]), 0.1)

    def test_its_inputs_are_left_alone(self) -> None:
        kl = torch.ones(6)
        token_rewards(torch.ones(3), kl, RAGGED, 1.0)
        assert kl.tolist() == [1.0] * 6


class TestGae:
    def test_by_hand(self) -> None:
        """Rewards 0, 0, 1, values 0.5, 0.6, 0.7, gamma 1, lambda 0.5.

        Errors: 0.6 - 0.5 = 0.1; 0.7 - 0.6 = 0.1; 1 + 0 - 0.7 = 0.3 (nothing follows the last token).
        Advantages, backwards: 0.3; 0.1 + 0.5 * 0.3 = 0.25; 0.1 + 0.5 * 0.25 = 0.225.
        """
        rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.6, 0.7])
        advantages = gae(tokens(rewards, values, torch.zeros(3, dtype=torch.long)), gamma=1.0, lam=0.5)
        torch.testing.assert_close(advantages, torch.tensor([0.225, 0.25, 0.3]))

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.integers(1, 9), min_size=1, max_size=7),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(0, 2**31 - 1),
    )
    def test_equals_the_definition_branch_by_branch(
        self, lengths: list[int], gamma: float, lam: float, seed: int
    ) -> None:
        """Ragged lengths together give each branch what it gets alone."""
        generator = torch.Generator().manual_seed(seed)
        branch_of = layout(lengths)
        rewards = torch.randn(len(branch_of), generator=generator, dtype=torch.float64)
        values = torch.randn(len(branch_of), generator=generator, dtype=torch.float64)
        advantages = gae(tokens(rewards, values, branch_of), gamma=gamma, lam=lam)
        expected: list[float] = []
        for r, v in zip(rewards.split(lengths), values.split(lengths), strict=True):
            expected += slow_gae(r.tolist(), v.tolist(), gamma, lam)
        torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64))

    def test_lambda_one_gives_rewards_to_go_as_returns(self) -> None:
        """Gamma 1: 1 + 2 + 3 = 6, 5, 3 in branch 0; 4 in branch 1; 5 + 6 = 11, 6 in branch 2, whatever the values."""
        rewards = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        values = torch.randn(6)
        advantages = gae(tokens(rewards, values, RAGGED), gamma=1.0, lam=1.0)
        torch.testing.assert_close(advantages + values, torch.tensor([6.0, 5.0, 3.0, 4.0, 11.0, 6.0]))

    def test_lambda_zero_gives_one_step_errors(self) -> None:
        rewards, values = torch.randn(6), torch.randn(6)
        advantages = gae(tokens(rewards, values, RAGGED), gamma=0.9, lam=0.0)
        after = torch.tensor([values[1], values[2], 0, 0, values[5], 0])
        torch.testing.assert_close(advantages, rewards + 0.9 * after - values)

    def test_results_are_constants(self) -> None:
        values = torch.randn(6, requires_grad=True)
        assert not gae(tokens(torch.randn(6), values, RAGGED)).requires_grad

    def test_branch_numbers_may_skip(self) -> None:
        rewards, values = torch.randn(3), torch.randn(3)
        skipped = gae(tokens(rewards, values, torch.tensor([1, 1, 4])))
        torch.testing.assert_close(skipped, gae(tokens(rewards, values, torch.tensor([0, 0, 1]))))

    def test_no_tokens(self) -> None:
        assert gae(tokens(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))).shape == (0,)

    def test_values_are_needed(self) -> None:
        with pytest.raises(ValueError, match="needs the values"):
            gae(responses(torch.zeros(2), torch.zeros(2)))

    def test_a_wrong_order_is_refused(self) -> None:
        with pytest.raises(ValueError, match="branch_of decreases"):
            gae(tokens(torch.zeros(2), torch.zeros(2), torch.tensor([1, 0])))


class TestRloo:
    def test_by_hand(self) -> None:
        """Scores 1, 2, 6 of one prompt: 1 - (2 + 6) / 2 = -3; 2 - 3.5 = -1.5; 6 - 1.5 = 4.5. Another: 5, 7: -2, 2."""
        advantages = rloo(responses(torch.tensor([1.0, 5.0, 2.0, 7.0, 6.0]), torch.tensor([8, 3, 8, 3, 8])))
        torch.testing.assert_close(advantages, torch.tensor([-3.0, -2.0, -1.5, 2.0, 4.5]))

    def test_equals_scaled_centred_scores(self) -> None:
        """k / (k - 1) * (score - mean), the form in the literature."""
        scores = torch.randn(4, 5, dtype=torch.float64)
        group = torch.arange(4).repeat_interleave(5)
        expected = 5 / 4 * (scores - scores.mean(1, keepdim=True))
        torch.testing.assert_close(rloo(responses(scores.flatten(), group)), expected.flatten())

    @pytest.mark.parametrize("baseline", [rloo, grpo])
    def test_a_group_of_one_is_refused(self, baseline: object) -> None:
        assert callable(baseline)
        with pytest.raises(ConfigError, match="one sample") as caught:
            baseline(responses(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1])))
        assert isinstance(caught.value, ValueError)


class TestGrpo:
    def test_by_hand(self) -> None:
        """Scores 1, 2, 3: mean 2, unbiased deviation 1: -1, 0, 1. Scores 0, 4: mean 2, deviation sqrt(8)."""
        advantages = grpo(responses(torch.tensor([1.0, 0.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 0, 0, 1])))
        expected = torch.tensor([-1.0, -0.707107, 0.0, 1.0, 0.707107])
        torch.testing.assert_close(advantages, expected, rtol=2e-4, atol=0)

    def test_a_ten_thousandth_is_added_to_the_deviation(self) -> None:
        """Scores 0, 1e-4 and 2e-4: deviation 1e-4, plus 1e-4: -1/2, 0, 1/2."""
        advantages = grpo(responses(torch.tensor([0.0, 1e-4, 2e-4]), torch.zeros(3)))
        torch.testing.assert_close(advantages, torch.tensor([-0.5, 0.0, 0.5]))

    def test_every_token_has_its_responses_advantage(self) -> None:
        totals = torch.tensor([1.0, 2.0, 6.0])
        advantages = grpo(Episodes(torch.zeros(6), totals, RAGGED, torch.zeros(3)), scale=False)
        assert advantages.tolist() == [-2.0, -2.0, -2.0, -1.0, 3.0, 3.0]

    def test_equal_scores_have_no_advantage(self) -> None:
        assert not grpo(responses(torch.full((4,), 0.3), torch.zeros(4))).any()

    def test_without_scale_only_the_mean_is_taken(self) -> None:
        advantages = grpo(responses(torch.tensor([1.0, 2.0, 6.0]), torch.zeros(3)), scale=False)
        torch.testing.assert_close(advantages, torch.tensor([-2.0, -1.0, 3.0]))


def test_missing_end_penalty() -> None:
    """Only the unfinished response pays: 2 - 1.5 = 0.5."""
    scores = missing_end_penalty(torch.tensor([1.0, 2.0]), torch.tensor([True, False]), 1.5)
    assert scores.tolist() == [1.0, 0.5]


class TestRunningNorm:
    def test_by_hand(self) -> None:
        """1, 2 | 3, 4, 5: mean 3, squares 4 + 1 + 0 + 1 + 4 = 10, unbiased variance 10 / 4 = 2.5."""
        norm = RunningNorm()
        norm.update(torch.tensor([1.0, 2.0]))
        norm.update(torch.tensor([[3.0, 4.0, 5.0]]))
        assert norm.count == 5
        assert norm.mean == pytest.approx(3)
        assert norm.std == pytest.approx(2.5**0.5)
        torch.testing.assert_close(norm.normalize(torch.tensor([2.5**0.5, 0.0])), torch.tensor([1.0, 0.0]))

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=6), min_size=1, max_size=6))
    def test_batches_equal_everything_at_once(self, batches: list[list[float]]) -> None:
        norm = RunningNorm()
        for batch in batches:
            norm.update(torch.tensor(batch, dtype=torch.float64))
        seen = torch.tensor([x for batch in batches for x in batch], dtype=torch.float64)
        assert norm.count == seen.numel()
        if norm.count:
            assert norm.mean == pytest.approx(seen.mean().item(), abs=1e-9)
        if norm.count > 1 and seen.std() > 1e-6:
            assert norm.std == pytest.approx(seen.std().item(), rel=1e-6)

    def test_a_large_offset_loses_nothing(self) -> None:
        norm = RunningNorm()
        for batch in (1e8 + torch.randn(50, 20, dtype=torch.float64)).unbind():
            norm.update(batch)
        assert norm.std == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.0], [0.1] * 7])
    def test_without_spread_nothing_is_divided(self, values: list[float]) -> None:
        """Seven times 0.1 has a mean that is off by a rounding: dividing by that would give 1e16."""
        norm = RunningNorm()
        norm.update(torch.tensor(values))
        assert norm.std == 1.0
        assert norm.normalize(torch.tensor([7.0])).item() == 7.0

    def test_state_survives_json_bit_for_bit(self) -> None:
        norm, restored = RunningNorm(), RunningNorm()
        norm.update(torch.randn(13))
        restored.load_state_dict(json.loads(json.dumps(norm.state_dict())))
        for each in (norm, restored):
            each.update(torch.linspace(-2, 5, 9))
        assert restored.state_dict() == norm.state_dict()
        assert restored.std == norm.std
