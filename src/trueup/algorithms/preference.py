"""Losses that learn from preferences directly, each a pure function returning one loss a pair (or a completion).

A function's keyword-only parameters are its configuration: their names are the keys, their defaults the defaults (they
are read from this file's source, so they are literals with plain annotations). Adding a loss touches this file alone:
write the function, enter it in `LOSSES`, and in `NEEDS_REFERENCE` or `UNPAIRED` where it belongs.

Log-probabilities are sums over a response's tokens in nats. A *log-ratio* is log(policy / reference) of a response.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everybody reads)

from trueup.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs of responses to the same prompt.

    Attributes:
        chosen: (P,) summed log-probability of the preferred response under the policy.
        rejected: (P,) of the other response.
        chosen_len: (P,) how many tokens the sum runs over, at least 1.
        rejected_len: (P,) likewise.
        ref_chosen: (P,) summed log-probability under the reference, constant; None where the loss has no reference.
        ref_rejected: (P,) likewise.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_len: Tensor
    rejected_len: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Completions:
    """S single responses labelled good or bad, for the losses in `UNPAIRED`.

    Attributes:
        logps: (S,) summed log-probability under the policy.
        desirable: (S,) bool.
        ref_logps: (S,) under the reference, constant; None where the loss has no reference.
        kl: scalar, the reference point z0 from `kto_kl`, constant; None where the loss has no reference.
    """

    logps: Tensor
    desirable: Tensor
    ref_logps: Tensor | None = None
    kl: Tensor | None = None


def sigmoid(pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7); with label smoothing, conservative DPO.

    Args:
        pairs: with a reference.
        beta: strength of the pull towards the reference.
        label_smoothing: assumed share of wrong labels, in [0, 0.5) (Mitchell 2023, "A note on DPO with noisy
            preferences", ericmitchell.ai/cdpo.pdf, eq. 3).

    Returns:
        losses (P,), nats.
    """
    _check_smoothing(label_smoothing)
    logits = beta * _delta(pairs)
    losses = -F.logsigmoid(logits)
    # -log sigmoid(-x) = x - log sigmoid(x)
    return losses + label_smoothing * logits if label_smoothing else losses


def robust(pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): unbiased when that share of the labels is flipped.

    ((1 - e) * loss(as labelled) - e * loss(flipped)) / (1 - 2e). Can be negative.

    Args:
        pairs: with a reference.
        beta: strength of the pull towards the reference.
        label_smoothing: e, the share of flipped labels, in [0, 0.5); the paper recommends 0.1.

    Returns:
        losses (P,), nats.
    """
    _check_smoothing(label_smoothing)
    logits = beta * _delta(pairs)
    as_labelled, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return ((1 - label_smoothing) * as_labelled - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def ipo(pairs: Pairs, *, beta: float = 0.1) -> Tensor:
    """IPO (Azar et al. 2023, arXiv:2310.12036, eq. 17), its log-ratios averaged over tokens.

    The paper writes whole-response log-ratios. Summed, the squared error is dominated by length: a pair of 200 tokens
    would have to reach the same total margin 1 / (2 beta) as one of 5. The authors told TRL's maintainers that the
    paper's results are those of the averaged form; TRL does the same.

    Args:
        pairs: with a reference.
        beta: the paper's tau; the margin wanted is 1 / (2 beta) nats per token.

    Returns:
        losses (P,), nats per token, squared.
    """
    return (_delta_per_token(pairs) - 1 / (2 * beta)).square()


def hinge(pairs: Pairs, *, beta: float = 0.1) -> Tensor:
    """SLiC's hinge on log-ratios (Zhao et al. 2023, arXiv:2305.10425; in this form Liu et al. 2023, arXiv:2309.06657).

    Args:
        pairs: with a reference.
        beta: 1 / beta is the margin in nats beyond which a pair costs nothing.

    Returns:
        losses (P,).
    """
    return torch.relu(1 - beta * _delta(pairs))


def sigmoid_norm(pairs: Pairs, *, beta: float = 5.0) -> Tensor:
    """Length-normalised DPO (Lambert et al. 2024, "Tulu 3", arXiv:2411.15124): log-ratios averaged over tokens.

    Args:
        pairs: with a reference.
        beta: acts on nats *per token*, so it is some fifty times the beta of `sigmoid`; Tulu 3 used 5.

    Returns:
        losses (P,), nats.
    """
    return -F.logsigmoid(beta * _delta_per_token(pairs))


def dpop(pairs: Pairs, *, beta: float = 0.1, penalty: float = 50.0) -> Tensor:
    """DPO-Positive (Pal et al. 2024, arXiv:2402.13228): DPO with a penalty if the chosen response becomes less likely.

    Args:
        pairs: with a reference.
        beta: strength of the pull towards the reference.
        penalty: the paper's lambda, on max(0, -log-ratio of chosen) inside the sigmoid.

    Returns:
        losses (P,), nats.
    """
    chosen, rejected = _log_ratios(pairs)
    return -F.logsigmoid(beta * (chosen - rejected - penalty * torch.relu(-chosen)))


def simpo(pairs: Pairs, *, beta: float = 2.0, gamma: float = 0.5) -> Tensor:
    """SimPO (Meng et al. 2024, arXiv:2405.14734, eq. 6): length-normalised margin, no reference.

    Args:
        pairs: a reference is not used.
        beta: scales the difference of mean log-probabilities.
        gamma: margin wanted, in units of the scaled difference (SimPO's own code sets gamma / beta).

    Returns:
        losses (P,), nats.
    """
    margin = pairs.chosen / pairs.chosen_len - pairs.rejected / pairs.rejected_len
    return -F.logsigmoid(beta * margin - gamma)


def orpo(pairs: Pairs, *, beta: float = 0.1) -> Tensor:
    """ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7): NLL of the chosen response plus an odds-ratio term.

    Probabilities are geometric means over tokens. The NLL is each pair's own mean over its response; TRL's is over all
    tokens of the batch together and includes the prompt's.

    Args:
        pairs: a reference is not used.
        beta: the paper's lambda, weight of the odds-ratio term.

    Returns:
        losses (P,), nats.
    """
    chosen, rejected = pairs.chosen / pairs.chosen_len, pairs.rejected / pairs.rejected_len
    return -chosen - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def kto(
    completions: Completions, *, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """KTO (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1): learns from single responses labelled good or bad.

    weight * (1 - sigmoid(beta * (log-ratio - z0))) for a good response; for a bad one the sign inside is reversed.

    Args:
        completions: with z0 from `kto_kl`.
        beta: how fast the gain saturates.
        desirable_weight: weight of good responses. The paper keeps weight times count of good to that of bad
            responses between 1 and 4/3.
        undesirable_weight: weight of bad responses.

    Returns:
        losses (S,), between 0 and the weight.
    """
    if completions.ref_logps is None or completions.kl is None:
        raise ValueError("KTO compares with a reference, and the completions carry no reference log-probabilities")
    gain = beta * (completions.logps - completions.ref_logps - completions.kl)
    signed = torch.where(completions.desirable, gain, -gain)
    weight = torch.where(completions.desirable, desirable_weight, undesirable_weight).to(gain.dtype)
    return weight * torch.sigmoid(-signed)


def kto_kl(logps_mismatched: Tensor, ref_logps_mismatched: Tensor) -> Tensor:
    """KTO's reference point z0, an estimate of KL(policy || reference) (arXiv:2402.01306, section 4.1).

    The responses are *mismatched*: each is scored after another example's prompt (the paper shifts the responses of a
    batch by one), so that the estimate does not use the responses that are being trained. It is the mean log-ratio,
    clamped at 0 because a KL is not negative, and constant: no gradient flows through it. The estimate is biased, and
    its noise falls with the number of responses, so give it those of the whole optimizer step where possible.

    Args:
        logps_mismatched: (M,) summed log-probabilities under the policy.
        ref_logps_mismatched: (M,) under the reference.

    Returns:
        scalar, nats, detached.
    """
    return (logps_mismatched - ref_logps_mismatched).detach().mean().clamp(min=0)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "sigmoid_norm": sigmoid_norm,
    "dpop": dpop,
    "simpo": simpo,
    "orpo": orpo,
    "kto": kto,
}
"""Losses by the name used in the configuration."""

NEEDS_REFERENCE: frozenset[str] = frozenset({"sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "dpop", "kto"})
"""Losses that compare with a reference model."""

UNPAIRED: frozenset[str] = frozenset({"kto"})
"""Losses that take `Completions` instead of `Pairs`."""


def implicit_rewards(pairs: Pairs, beta: float) -> tuple[Tensor, Tensor]:
    """Rewards that the policy itself assigns, beta * log-ratio (Rafailov et al. 2023, section 4); detached.

    Without a reference: beta * mean log-probability per token, SimPO's reward (Meng et al. 2024, eq. 4).

    Returns:
        chosen (P,) and rejected (P,).
    """
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        chosen, rejected = pairs.chosen / pairs.chosen_len, pairs.rejected / pairs.rejected_len
    else:
        chosen, rejected = _log_ratios(pairs)
    return beta * chosen.detach(), beta * rejected.detach()


def metrics(pairs: Pairs, beta: float) -> dict[str, Tensor]:
    """Return the metrics of training on pairs, under the names that TRL made usual; each (P,), detached.

    `rewards/accuracy` is 1.0 where the chosen reward is strictly higher, so it starts at 0 with policy = reference. A
    falling `logps/chosen` means that the preferred responses themselves become less likely.
    """
    chosen, rejected = implicit_rewards(pairs, beta)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margin": chosen - rejected,
        "rewards/accuracy": (chosen > rejected).to(chosen.dtype),
        "logps/chosen": pairs.chosen.detach(),
        "logps/rejected": pairs.rejected.detach(),
    }


def _log_ratios(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """log(policy / reference) of the chosen and the rejected responses, (P,) each."""
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        raise ValueError("this loss compares with a reference, and the pairs carry no reference log-probabilities")
    return pairs.chosen - pairs.ref_chosen, pairs.rejected - pairs.ref_rejected


def _delta(pairs: Pairs) -> Tensor:
    chosen, rejected = _log_ratios(pairs)
    return chosen - rejected


def _delta_per_token(pairs: Pairs) -> Tensor:
    chosen, rejected = _log_ratios(pairs)
    return chosen / pairs.chosen_len - rejected / pairs.rejected_len


def _log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p, exact at both ends (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").

    A p that rounds to 1 counts as the number just below it: its odds are infinite, and their gradient is not a number.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # The branch not taken must stay finite too, or its gradient, times zero, is not a number.
    near_zero = logp > -math.log(2)
    log_complement = torch.where(near_zero, torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))
    return logp - log_complement


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}; a share of wrong labels lies in [0, 0.5)")
