"""Preference losses against arithmetic worked by hand, and the rules that make them configurable."""

from __future__ import annotations

import ast
import inspect
import typing
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trueup.algorithms import preference
from trueup.algorithms.preference import LOSSES, NEEDS_REFERENCE, UNPAIRED, Completions, Pairs
from trueup.errors import ConfigError

PAIRED = sorted(LOSSES.keys() - UNPAIRED)


def pairs(requires_grad: bool = False) -> Pairs:
    """Two pairs. Log-ratios: +1 and -1 (difference 2); -2 and +1 (difference -3). At beta 0.5 the logits are 1, -1.5.

    Per token: 1/4 and -1/2 (difference 0.75); -2/3 and 1/3 (difference -1).
    Mean log-probabilities: -1 and -3; -2 and -1.
    """
    return Pairs(
        chosen=torch.tensor([-4.0, -6.0], requires_grad=requires_grad),
        rejected=torch.tensor([-6.0, -3.0], requires_grad=requires_grad),
        ref_chosen=torch.tensor([-5.0, -4.0]),
        ref_rejected=torch.tensor([-5.0, -4.0]),
        chosen_len=torch.tensor([4.0, 3.0]),
        rejected_len=torch.tensor([2.0, 3.0]),
    )


def completions(requires_grad: bool = False) -> Completions:
    """A good response with log-ratio 1 and a bad one with log-ratio -2; z0 is 0.5."""
    return Completions(
        logps=torch.tensor([-4.0, -6.0], requires_grad=requires_grad),
        ref_logps=torch.tensor([-5.0, -4.0]),
        desirable=torch.tensor([True, False]),
        kl=torch.tensor(0.5),
    )


def check(losses: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(losses, torch.tensor(expected), atol=2e-6, rtol=0)


class TestByHand:
    def test_sigmoid(self) -> None:
        """Logits 1, -1.5: ln(1 + e^-1) = 0.313262, ln(1 + e^1.5) = 1.701413."""
        check(preference.sigmoid(pairs(), beta=0.5), [0.313262, 1.701413])

    def test_sigmoid_with_label_smoothing(self) -> None:
        """0.9 * 0.313262 + 0.1 * ln(1 + e) = 0.9 * 0.313262 + 0.1 * 1.313262 = 0.413262.

        0.9 * 1.701413 + 0.1 * ln(1 + e^-1.5) = 0.9 * 1.701413 + 0.1 * 0.201413 = 1.551413.
        """
        check(preference.sigmoid(pairs(), beta=0.5, label_smoothing=0.1), [0.413262, 1.551413])

    def test_robust(self) -> None:
        """(0.9 * 0.313262 - 0.1 * 1.313262) / 0.8 = 0.188262; (0.9 * 1.701413 - 0.1 * 0.201413) / 0.8 = 1.888913."""
        check(preference.robust(pairs(), beta=0.5, label_smoothing=0.1), [0.188262, 1.888913])

    def test_ipo(self) -> None:
        """1 / (2 * 0.5) = 1: (0.75 - 1)^2 = 0.0625 and (-1 - 1)^2 = 4."""
        check(preference.ipo(pairs(), beta=0.5), [0.0625, 4.0])

    def test_hinge(self) -> None:
        """max(0, 1 - 1) = 0 and max(0, 1 + 1.5) = 2.5."""
        check(preference.hinge(pairs(), beta=0.5), [0.0, 2.5])

    def test_sigmoid_norm(self) -> None:
        """2 * 0.75 = 1.5 and 2 * -1 = -2: ln(1 + e^-1.5) = 0.201413, ln(1 + e^2) = 2.126928."""
        check(preference.sigmoid_norm(pairs(), beta=2.0), [0.201413, 2.126928])

    def test_dpop(self) -> None:
        """Chosen rose in the first pair: no penalty, 0.313262 as DPO. It fell by 2 in the second:

        0.5 * (-3 - 3 * 2) = -4.5, ln(1 + e^4.5) = 4.511048.
        """
        check(preference.dpop(pairs(), beta=0.5, penalty=3.0), [0.313262, 4.511048])

    def test_simpo(self) -> None:
        """2 * (-1 + 3) - 0.5 = 3.5: ln(1 + e^-3.5) = 0.029750; 2 * (-2 + 1) - 0.5 = -2.5: ln(1 + e^2.5) = 2.578890."""
        check(preference.simpo(pairs(), beta=2.0, gamma=0.5), [0.029750, 2.578890])

    def test_orpo(self) -> None:
        """Log-odds of e^-x are -ln(e^x - 1): -0.541325 for 1, -1.854587 for 2, -2.948931 for 3.

        Pair 1: 1 + 0.1 * ln(1 + e^-(2.948931 - 0.541325)) = 1 + 0.1 * 0.086191 = 1.008619.
        Pair 2: 2 + 0.1 * ln(1 + e^(1.854587 - 0.541325)) = 2 + 0.1 * 1.551445 = 2.155144.
        """
        check(preference.orpo(pairs(), beta=0.1), [1.008619, 2.155144])

    def test_kto(self) -> None:
        """Good: 1 - sigmoid(1 - 0.5) = 0.377541. Bad: 1 - sigmoid(0.5 + 2) = 0.075858. Weights 2 and 3 multiply."""
        check(preference.kto(completions(), beta=1.0), [0.377541, 0.075858])
        weighted = preference.kto(completions(), beta=1.0, desirable_weight=2.0, undesirable_weight=3.0)
        check(weighted, [0.755081, 0.227575])

    def test_kto_kl(self) -> None:
        """Log-ratios 2 and -1: mean 0.5. With -2 and -1 the mean is below 0, which no KL is: 0. Constant."""
        logps = torch.tensor([-3.0, -5.0], requires_grad=True)
        kl = preference.kto_kl(logps, torch.tensor([-5.0, -4.0]))
        assert kl.item() == 0.5
        assert kl.shape == ()
        assert not kl.requires_grad
        assert preference.kto_kl(logps, torch.tensor([-1.0, -4.0])).item() == 0.0


class TestMetrics:
    def test_by_hand(self) -> None:
        """Beta 0.5 times the log-ratios 1, -1 and -2, 1."""
        found = preference.metrics(pairs(requires_grad=True), 0.5)
        check(found["rewards/chosen"], [0.5, -1.0])
        check(found["rewards/rejected"], [-0.5, 0.5])
        check(found["rewards/margin"], [1.0, -1.5])
        check(found["rewards/accuracy"], [1.0, 0.0])
        check(found["logps/chosen"], [-4.0, -6.0])
        check(found["logps/rejected"], [-6.0, -3.0])
        assert not any(value.requires_grad for value in found.values())

    def test_without_a_reference_rewards_are_mean_log_probabilities(self) -> None:
        """2 * -4 / 4 = -2 and 2 * -6 / 3 = -4; 2 * -6 / 2 = -6 and 2 * -3 / 3 = -2."""
        chosen, rejected = preference.implicit_rewards(replace(pairs(), ref_chosen=None, ref_rejected=None), 2.0)
        check(chosen, [-2.0, -4.0])
        check(rejected, [-6.0, -2.0])

    def test_policy_equal_to_reference(self) -> None:
        same = pairs()
        same = replace(same, ref_chosen=same.chosen, ref_rejected=same.rejected)
        found = preference.metrics(same, 0.1)
        assert not found["rewards/margin"].any()
        check(preference.sigmoid(same), [0.693147, 0.693147])


class TestProperties:
    @pytest.mark.parametrize("name", PAIRED)
    def test_descending_raises_chosen_and_lowers_rejected(self, name: str) -> None:
        given = pairs(requires_grad=True)
        by_chosen, by_rejected = torch.autograd.grad(LOSSES[name](given).sum(), (given.chosen, given.rejected))
        assert (by_chosen < 0).all()
        assert (by_rejected > 0).all()

    def test_descending_kto_raises_good_and_lowers_bad(self) -> None:
        given = completions(requires_grad=True)
        (grad,) = torch.autograd.grad(preference.kto(given).sum(), given.logps)
        assert grad[0] < 0 < grad[1]

    @pytest.mark.parametrize("name", sorted(LOSSES))
    def test_one_loss_each_and_finite_at_extremes(self, name: str) -> None:
        """Long responses, a certain response (log-probability 0), huge differences: no NaN in loss or gradient."""
        low, high = torch.tensor([-3000.0, 0.0, -1.0, -1e-9]), torch.tensor([-0.0, -4000.0, -1.0, -1e-9])
        low, high = low.requires_grad_(), high.requires_grad_()
        if name in UNPAIRED:
            given = Completions(low, torch.tensor([True, False, True, False]), torch.full((4,), -50.0), torch.zeros(()))
        else:
            ones = torch.ones(4)
            given = Pairs(low, high, ones, ones, torch.full((4,), -50.0), torch.full((4,), -50.0))
        losses = LOSSES[name](given)
        assert losses.shape == (4,)
        assert losses.isfinite().all()
        grads = torch.autograd.grad(losses.sum(), (low, high), allow_unused=True)
        assert all(bool(grad.isfinite().all()) for grad in grads if grad is not None)

    @pytest.mark.parametrize("name", PAIRED)
    def test_a_pair_does_not_depend_on_its_batch(self, name: str) -> None:
        given = pairs()
        fields = given.__dataclass_fields__
        for row in range(2):
            alone = Pairs(**{field: getattr(given, field)[row : row + 1] for field in fields})
            torch.testing.assert_close(LOSSES[name](alone), LOSSES[name](given)[row : row + 1])

    def test_length_normalised_losses_do_not_grow_with_length(self) -> None:
        """Ten times as many tokens of the same mean log-ratio: ipo, sigmoid_norm, simpo and orpo do not change."""
        once = pairs()
        tenfold = Pairs(**{field: 10 * getattr(once, field) for field in once.__dataclass_fields__})
        for name in ("ipo", "sigmoid_norm", "simpo", "orpo"):
            torch.testing.assert_close(LOSSES[name](tenfold), LOSSES[name](once))

    def test_robust_without_noise_is_dpo(self) -> None:
        torch.testing.assert_close(preference.robust(pairs(), label_smoothing=0.0), preference.sigmoid(pairs()))

    def test_robust_is_unbiased(self) -> None:
        """Averaged over flips with the assumed probability, the clean loss comes back: the theorem it is built on."""
        given, e = pairs(), 0.2
        flipped = Pairs(
            chosen=given.rejected,
            rejected=given.chosen,
            chosen_len=given.rejected_len,
            rejected_len=given.chosen_len,
            ref_chosen=given.ref_rejected,
            ref_rejected=given.ref_chosen,
        )
        kept, turned = (preference.robust(p, label_smoothing=e) for p in (given, flipped))
        torch.testing.assert_close((1 - e) * kept + e * turned, preference.sigmoid(given))

    @pytest.mark.parametrize("name", ["sigmoid", "robust"])
    @pytest.mark.parametrize("share", [-0.1, 0.5, 1.0])
    def test_impossible_label_smoothing_is_refused(self, name: str, share: float) -> None:
        with pytest.raises(ConfigError, match="label_smoothing"):
            LOSSES[name](pairs(), label_smoothing=share)

    @pytest.mark.parametrize("name", PAIRED)
    def test_a_missing_reference_is_refused_where_one_is_needed(self, name: str) -> None:
        without = replace(pairs(), ref_chosen=None, ref_rejected=None)
        if name in NEEDS_REFERENCE:
            with pytest.raises(ValueError, match="reference"):
                LOSSES[name](without)
        else:
            torch.testing.assert_close(LOSSES[name](without), LOSSES[name](pairs()))


class TestRegistry:
    def test_names(self) -> None:
        expected = {"sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "dpop", "simpo", "orpo", "kto"}
        assert LOSSES.keys() == expected
        assert all(function.__name__ == name for name, function in LOSSES.items())
        assert expected >= NEEDS_REFERENCE | UNPAIRED

    @pytest.mark.parametrize("name", sorted(LOSSES))
    def test_parameters_are_configuration(self, name: str) -> None:
        """One positional argument, then keyword-only numbers with literal defaults, readable without an import."""
        parameters = list(inspect.signature(LOSSES[name]).parameters.values())
        assert len(parameters) > 1
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[1:])
        hints = typing.get_type_hints(LOSSES[name])
        assert all(hints[p.name] in (float, int, bool) for p in parameters[1:])
        tree = ast.parse(inspect.getsource(LOSSES[name])).body[0]
        assert isinstance(tree, ast.FunctionDef)
        read = {
            argument.arg: ast.literal_eval(default)
            for argument, default in zip(tree.args.kwonlyargs, tree.args.kw_defaults, strict=True)
            if default is not None
        }
        assert read == {p.name: p.default for p in parameters[1:]}
