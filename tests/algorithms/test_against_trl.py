"""Compare our numbers with TRL's own code, run on stand-ins for its trainers. Needs TRL; checked against 1.16."""

from __future__ import annotations

import warnings
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trueup.algorithms import preference
from trueup.algorithms.advantages import Episodes, grpo
from trueup.algorithms.preference import Completions, Pairs
from trueup.algorithms.reward import bradley_terry

pytest.importorskip("trl")

pytestmark = pytest.mark.trl

P, PROMPT, LONGEST = 5, 3, 8
CHOSEN_LEN = torch.tensor([8, 1, 5, 3, 6])
REJECTED_LEN = torch.tensor([2, 7, 5, 8, 1])


def gather(x: Tensor) -> Tensor:
    return x


ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=gather, gather_for_metrics=gather, autocast=nullcontext
)


def mask(lengths: Tensor, width: int = LONGEST) -> Tensor:
    return (torch.arange(width) < lengths[:, None]).float()


def token_logps(seed: int) -> Tensor:
    """(2P, LONGEST) log-probabilities, chosen above rejected, zero beyond a response's end."""
    values = -3 * torch.rand(2 * P, LONGEST, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return values * mask(torch.cat([CHOSEN_LEN, REJECTED_LEN]))


POLICY, REFERENCE = token_logps(0), token_logps(1)


def make_pairs() -> Pairs:
    chosen, rejected = POLICY.sum(1).chunk(2)
    ref_chosen, ref_rejected = REFERENCE.sum(1).chunk(2)
    return Pairs(chosen, rejected, CHOSEN_LEN.float(), REJECTED_LEN.float(), ref_chosen, ref_rejected)


def outputs(logps: Tensor) -> Any:
    zeros = torch.zeros_like(logps)
    return SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def stub_model(logps: Tensor) -> Any:
    """Answers like TRL's patched model: log-probabilities per predicted token, those of the prompt being 0."""
    prompt = torch.zeros(len(logps), PROMPT - 1)

    class Model:
        def __call__(self, **_: object) -> Any:
            return outputs(torch.cat([prompt, logps], 1))

    return Model()


def sequences(lengths: Tensor) -> dict[str, Tensor]:
    """Token ids (all 1) and completion mask of prompt plus response."""
    completion = torch.cat([torch.zeros(len(lengths), PROMPT), mask(lengths)], 1)
    return {
        "input_ids": torch.ones_like(completion, dtype=torch.long),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion.long(),
    }


def trl_dpo(loss_type: str, beta: float, label_smoothing: float = 0.0) -> tuple[Tensor, dict[str, float]]:
    """DPOTrainer._compute_loss, one pair at a time, because it returns the mean."""
    from trl.trainer.dpo_trainer import DPOTrainer

    losses: list[Tensor] = []
    logged: dict[str, float] = defaultdict(float)
    for p in range(P):
        rows = torch.tensor([p, P + p])
        trainer = SimpleNamespace(
            accelerator=ACCELERATOR,
            model=SimpleNamespace(training=True),
            aux_loss_enabled=False,
            beta=beta,
            f_divergence_type="reverse_kl",
            label_smoothing=label_smoothing,
            ld_alpha=None,
            loss_types=[loss_type],
            loss_weights=[1.0],
            precompute_ref_logps=True,
            use_weighting=False,
            _metrics={"train": defaultdict(list)},
            _total_train_tokens=0,
            _tp_size=1,
        )
        inputs = sequences(torch.cat([CHOSEN_LEN, REJECTED_LEN])[rows])
        inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = REFERENCE[rows].sum(1).chunk(2)
        trainer_loss: Any = DPOTrainer._compute_loss
        losses.append(trainer_loss(trainer, stub_model(POLICY[rows]), inputs, return_outputs=False))
        for name, values in trainer._metrics["train"].items():
            logged[name] += values[-1] / P
    return torch.stack(losses), logged


@pytest.mark.parametrize("beta", [0.05, 0.5])
@pytest.mark.parametrize("name", ["sigmoid", "hinge", "ipo", "sigmoid_norm"])
def test_pair_losses_equal_trl(name: str, beta: float) -> None:
    ours = preference.LOSSES[name](make_pairs(), beta=beta)
    torch.testing.assert_close(ours, trl_dpo(name, beta)[0])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_robust_equals_trl(share: float) -> None:
    ours = preference.robust(make_pairs(), beta=0.2, label_smoothing=share)
    torch.testing.assert_close(ours, trl_dpo("robust", 0.2, share)[0])


def test_metrics_equal_trl() -> None:
    ours = {name: values.mean().item() for name, values in preference.metrics(make_pairs(), 0.3).items()}
    theirs = trl_dpo("sigmoid", 0.3)[1]
    named = {"rewards/accuracy": "rewards/accuracies", "rewards/margin": "rewards/margins"}
    for name, value in ours.items():
        assert value == pytest.approx(theirs[named.get(name, name)], rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_label_smoothed_dpo_equals_trl_cpo_on_log_ratios(share: float) -> None:
    """TRL's DPO no longer smooths labels; its CPO loss still does, and gives cDPO when fed log-ratios."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
    trainer = SimpleNamespace(alpha=0.0, accelerator=ACCELERATOR, beta=0.2, label_smoothing=share, loss_type="sigmoid")
    chosen, rejected = (POLICY - REFERENCE).sum(1).chunk(2)
    cpo_loss: Any = CPOTrainer.cpo_loss
    theirs = cpo_loss(trainer, chosen, rejected)[0]
    torch.testing.assert_close(preference.sigmoid(make_pairs(), beta=0.2, label_smoothing=share), theirs)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.5), (2.5, 1.4)])
def test_simpo_equals_trl(beta: float, gamma: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
    trainer = SimpleNamespace(
        alpha=0.0, accelerator=ACCELERATOR, beta=beta, label_smoothing=0.0, loss_type="simpo", simpo_gamma=gamma
    )
    given = make_pairs()
    cpo_loss: Any = CPOTrainer.cpo_loss
    theirs = cpo_loss(trainer, given.chosen / given.chosen_len, given.rejected / given.rejected_len)[0]
    torch.testing.assert_close(preference.simpo(given, beta=beta, gamma=gamma), theirs)


def test_orpo_equals_trl_odds_ratio_term() -> None:
    """TRL adds one NLL for the batch, over prompts too; ours is each pair's own, so it is added here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer
    given = make_pairs()
    chosen, rejected = given.chosen / given.chosen_len, given.rejected / given.rejected_len
    odds_ratio_loss: Any = ORPOTrainer.odds_ratio_loss
    theirs = odds_ratio_loss(SimpleNamespace(accelerator=ACCELERATOR, beta=0.3), chosen, rejected)[0]
    torch.testing.assert_close(preference.orpo(given, beta=0.3), -chosen - theirs)


@pytest.mark.parametrize(("good", "bad"), [(1.0, 1.0), (1.0, 1.33)])
@pytest.mark.parametrize("lift", [-20.0, 20.0])
def test_kto_equals_trl(good: float, bad: float, lift: float) -> None:
    """KTOTrainer._compute_loss with the mismatched log-probabilities far below (z0 clamped at 0) and above."""
    from trl.trainer.kto_trainer import KTOTrainer

    logps, ref_logps = POLICY.sum(1), REFERENCE.sum(1)
    mismatched, ref_mismatched = ref_logps.flip(0) + lift, ref_logps.flip(0)
    desirable = torch.tensor([True, False, False, True, True, False, True, False, False, True])
    trainer = SimpleNamespace(
        accelerator=ACCELERATOR,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        beta=0.1,
        calculate_KL=True,
        desirable_weight=good,
        loss_type="kto",
        precompute_ref_logps=True,
        undesirable_weight=bad,
        _compute_kl_logps=lambda model, batch: mismatched,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = sequences(torch.cat([CHOSEN_LEN, REJECTED_LEN]))
    inputs |= {"label": desirable, "ref_logps": ref_logps, "ref_KL_logps": ref_mismatched}
    compute_loss: Any = KTOTrainer._compute_loss
    theirs = compute_loss(trainer, stub_model(POLICY), inputs, return_outputs=False)
    kl = preference.kto_kl(mismatched, ref_mismatched)
    assert kl.item() == pytest.approx(trainer._metrics["train"]["kl"][0])
    ours = preference.kto(
        Completions(logps, desirable, ref_logps, kl), beta=0.1, desirable_weight=good, undesirable_weight=bad
    )
    torch.testing.assert_close(ours.mean(), theirs)


@pytest.mark.parametrize("center", [None, 0.01])
@pytest.mark.parametrize("with_margin", [False, True])
def test_reward_loss_equals_trl(center: float | None, with_margin: bool) -> None:
    from trl.trainer.reward_trainer import RewardTrainer

    rewards = torch.randn(2 * P, 1, generator=torch.Generator().manual_seed(3))
    margin = torch.linspace(0, 2, P) if with_margin else None

    class Model:
        def __call__(self, **_: object) -> Any:
            return SimpleNamespace(logits=rewards)

    trainer = SimpleNamespace(
        accelerator=ACCELERATOR,
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=center),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    compute_loss: Any = RewardTrainer.compute_loss
    theirs = compute_loss(trainer, Model(), {} if margin is None else {"margin": margin})
    chosen, rejected = rewards.squeeze(1).chunk(2)
    torch.testing.assert_close(bradley_terry(chosen, rejected, margin=margin, center=center or 0.0).mean(), theirs)


def test_grpo_uses_trl_deviation() -> None:
    """TRL computes its advantages inside a 900-line method; its standard deviation can be called."""
    from trl.trainer.utils import nanstd

    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    expected = (scores - scores.mean(1, keepdim=True)) / (nanstd(scores, dim=1)[:, None] + 1e-4)
    ours = grpo(Episodes(scores.flatten(), scores.flatten(), torch.arange(24), torch.arange(4).repeat_interleave(6)))
    torch.testing.assert_close(ours, expected.flatten())
