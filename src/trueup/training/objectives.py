"""Objectives: functions from (network, micro-batch) to unreduced values and metrics, which `fit` reduces.

Each binds a role of the network to a pure function of `algorithms/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from trueup.algorithms import ppo, preference
from trueup.algorithms.reward import bradley_terry
from trueup.algorithms.sft import cross_entropy
from trueup.algorithms.tensors import segment_sum

if TYPE_CHECKING:
    from trueup.config import PreferenceLossConfig, RewardLossConfig, RolloutConfig
    from trueup.models.batching import Batch
    from trueup.models.network import Network
    from trueup.training.terms import Metrics, Objective


def sft(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
    """Return the negative log-likelihood of each trained token, (N,)."""
    return cross_entropy(network.logps(batch)), {}


def reward(settings: RewardLossConfig) -> Objective:
    """Return the Bradley-Terry objective on the scores of each pair, (P,)."""

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        scores, _ = network(batch, "reward", "scores")
        chosen, rejected = scores[0::2], scores[1::2]
        margin = batch.columns["margin"] if settings.margin else None
        losses = bradley_terry(chosen, rejected, margin=margin, center=settings.center)
        difference = (chosen - rejected).detach()
        return losses, {"accuracy": accuracy(difference), "margin": difference, "score": scores.detach()}

    return objective


def accuracy(margins: Tensor) -> Tensor:
    """Return (P,) 1 where chosen is above rejected, 0 where it is below, one half for a tie."""
    return (margins > 0).float() + 0.5 * (margins == 0).float()


def pairs_of(logps: Tensor, batch: Batch) -> preference.Pairs:
    """Sum token log-probabilities (N,) into the pairs of a batch; the column "ref_logps" holds the reference's sums."""
    sums = segment_sum(logps, batch.branch_of, batch.branches)
    reference = batch.columns.get("ref_logps")
    return preference.Pairs(
        chosen=sums[0::2],
        rejected=sums[1::2],
        ref_chosen=None if reference is None else reference[0::2],
        ref_rejected=None if reference is None else reference[1::2],
        chosen_len=batch.lengths[0::2],
        rejected_len=batch.lengths[1::2],
    )


def paired_preference(settings: PreferenceLossConfig) -> Objective:
    """Return the objective of a loss on (chosen, rejected) pairs, (P,)."""
    loss, beta = settings.function(preference.LOSSES, "loss"), float(settings.params.get("beta", 1.0))

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        pairs = pairs_of(network.logps(batch), batch)
        return loss(pairs), preference.metrics(pairs, beta)

    return objective


def unpaired_preference(settings: PreferenceLossConfig) -> Objective:
    """Return the objective of a loss on single labelled completions, (S,).

    With a reference, the column "kl" is the estimate of the whole step, so micro-batches do not matter.
    """
    loss, beta = settings.function(preference.LOSSES, "loss"), float(settings.params.get("beta", 1.0))

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        sums = segment_sum(network.logps(batch), batch.branch_of, batch.branches)
        desirable = batch.columns["desirable"] > 0
        reference, kl = batch.columns.get("ref_logps"), batch.columns.get("kl")
        completions = preference.Completions(sums, desirable, reference, None if kl is None else kl[0])
        rewards = beta * (sums if reference is None else sums - reference).detach()
        metrics = {"rewards/desirable": rewards[desirable], "rewards/undesirable": rewards[~desirable]}
        return loss(completions), metrics if kl is None else metrics | {"kl": kl}

    return objective


def policy(settings: RolloutConfig) -> Objective:
    """Return the objective of the policy: the clipped loss less the entropy bonus, per token (N,)."""

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        logps, entropy = network(
            batch, "policy", "logps", temperature=settings.temperature, entropy=settings.entropy_coef > 0
        )
        old = batch.columns["old_logps"]
        losses = ppo.policy_loss(
            logps, old, batch.columns["advantages"], clip=settings.clip, dual_clip=settings.dual_clip
        )
        metrics = ppo.policy_metrics(logps.detach(), old, settings.clip)
        if entropy is not None:
            losses = losses - settings.entropy_coef * entropy
            metrics["entropy"] = entropy.detach()
        return losses, metrics

    return objective


def value(settings: RolloutConfig) -> Objective:
    """Return the objective of the value model: the clipped loss, per token (N,)."""

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        values, _ = network(batch, "value", "values")
        losses = ppo.value_loss(values, batch.columns["old_values"], batch.columns["returns"], clip=settings.value_clip)
        return losses, {"value": values.detach()}

    return objective
