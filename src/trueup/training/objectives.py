"""Objectives: functions from (network, micro-batch) to a loss for each token, response or pair, and metrics.

`fit` weights and sums the losses. Each objective runs a role of the network and calls a pure function of `algorithms/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from trueup.algorithms import ppo, preference
from trueup.algorithms.kl import ESTIMATORS, kl_loss
from trueup.algorithms.reward import bradley_terry
from trueup.algorithms.sft import cross_entropy
from trueup.algorithms.tensors import segment_sum

if TYPE_CHECKING:
    from trueup.config import KlConfig, PreferenceLossConfig, RewardLossConfig, RolloutConfig
    from trueup.models.batching import Batch
    from trueup.models.network import Network
    from trueup.training.terms import Metrics, Objective


def sft(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
    """Return the negative log-likelihood of each trained token, (N,) nats, and no metrics."""
    return cross_entropy(network.logps(batch)), {}


def reward(settings: RewardLossConfig) -> Objective:
    """Return the objective of reward modelling: the Bradley-Terry loss on the two scores of each pair, (P,).

    Its metrics are accuracy, margin (chosen less rejected score) and score.
    """

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        scores, _ = network(batch, "reward", "scores")
        chosen, rejected = scores[0::2], scores[1::2]
        margin = batch.columns["margin"] if settings.margin else None
        losses = bradley_terry(chosen, rejected, margin=margin, center=settings.center)
        difference = (chosen - rejected).detach()
        return losses, {"accuracy": accuracy(difference), "margin": difference, "score": scores.detach()}

    return objective


def accuracy(margins: Tensor) -> Tensor:
    """Return (P,) 1 where the margin (chosen less rejected) is above 0, 0 where it is below, one half for a tie."""
    return (margins > 0).float() + 0.5 * (margins == 0).float()


def pairs_of(logps: Tensor, batch: Batch) -> preference.Pairs:
    """Return the pairs of a batch, with token log-probabilities (N,) summed over each response.

    The batch's column "ref_logps" holds the sums under the reference model, if the loss needs them.
    """
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
    """Return the objective of the configured loss on (chosen, rejected) pairs, such as DPO: one loss per pair, (P,)."""
    loss, beta = settings.function(preference.LOSSES, "loss"), float(settings.params.get("beta", 1.0))

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        pairs = pairs_of(network.logps(batch), batch)
        return loss(pairs), preference.metrics(pairs, beta)

    return objective


def unpaired_preference(settings: PreferenceLossConfig) -> Objective:
    """Return the objective of the configured loss on single labelled completions, such as KTO: one loss each, (S,).

    With a reference model, the batch's column "kl" is the KL estimate of the whole step, so the size of micro-batches
    does not matter.
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


def policy(settings: RolloutConfig, penalty: KlConfig | None = None) -> Objective:
    """Return PPO's objective for the policy: clipped loss less the entropy bonus, one loss per token, (N,).

    If `penalty` is a loss (`kl.apply: loss`), it is added, with the coefficient in the batch's column "kl_coef".
    """
    as_loss = penalty is not None and penalty.apply == "loss"
    estimator = penalty.estimator.function(ESTIMATORS, "kl.estimator") if penalty is not None and as_loss else None

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        logps, entropy = network(
            batch, "policy", "logps", temperature=settings.temperature, entropy=settings.entropy_coef > 0
        )
        old = batch.columns["old_logps"]
        losses = ppo.policy_loss(
            logps, old, batch.columns["advantages"], clip=settings.clip, dual_clip=settings.dual_clip
        )
        metrics = ppo.policy_metrics(logps.detach(), old, settings.clip)
        if estimator is not None:
            kl = kl_loss(logps, batch.columns["ref_logps"], old, estimator)
            losses = losses + batch.columns["kl_coef"] * kl
            metrics["kl_loss"] = kl.detach()
        if entropy is not None:
            losses = losses - settings.entropy_coef * entropy
            metrics["entropy"] = entropy.detach()
        return losses, metrics

    return objective


def value(settings: RolloutConfig) -> Objective:
    """Return PPO's objective for the value model: clipped squared error, one loss per token, (N,)."""

    def objective(network: Network, batch: Batch) -> tuple[Tensor, Metrics]:
        values, _ = network(batch, "value", "values")
        losses = ppo.value_loss(values, batch.columns["old_values"], batch.columns["returns"], clip=settings.value_clip)
        return losses, {"value": values.detach()}

    return objective
