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
    """P pairs of responses to the same prompt, as their log-probabilities: the input of a paired preference loss.

    Attributes:
        chosen: (P,) summed log-probability of the preferred response's tokens under the policy, nats.
        rejected: (P,) summed log-probability of the other response under the policy, nats.
        chosen_len: (P,) number of tokens of the preferred response, at least 1.
        rejected_len: (P,) number of tokens of the other response, at least 1.
        ref_chosen: (P,) `chosen` under the reference model, constant; None where the loss has no reference model.
        ref_rejected: (P,) `rejected` under the reference model, constant; None likewise.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_len: Tensor
    rejected_len: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Completions:
    """S single responses labelled good or bad, as their log-probabilities: the input of the losses in `UNPAIRED` (KTO).

    Attributes:
        logps: (S,) summed log-probability of each response's tokens under the policy, nats.
        desirable: (S,) bool, True for a response labelled good.
        ref_logps: (S,) `logps` under the reference model, constant; None where the loss has no reference model.
        kl: scalar estimate of KL(policy || reference) in nats from `kto_kl` (z0 in the paper), constant; None likewise.
    """

    logps: Tensor
    desirable: Tensor
    ref_logps: Tensor | None = None
    kl: Tensor | None = None


def sigmoid(pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Return the DPO loss of each pair (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

    With label smoothing it is conservative DPO.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
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
    """Return the robust DPO loss of each pair, unbiased if a share e of the labels is flipped (Chowdhury et al. 2024).

    arXiv:2403.00409: ((1 - e) * loss(as labelled) - e * loss(flipped)) / (1 - 2e). It can be negative.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
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
    """Return the IPO loss of each pair (Azar et al. 2023, arXiv:2310.12036, eq. 17), with log-ratios per token.

    The paper writes whole-response log-ratios. Summed, the squared error is dominated by length: a pair of 200 tokens
    would have to reach the same total margin 1 / (2 beta) as one of 5. The authors told TRL's maintainers that the
    paper's results are those of the averaged form; TRL does the same.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
        beta: the paper's tau; the margin wanted is 1 / (2 beta) nats per token.

    Returns:
        losses (P,), nats per token, squared.
    """
    return (_delta_per_token(pairs) - 1 / (2 * beta)).square()


def hinge(pairs: Pairs, *, beta: float = 0.1) -> Tensor:
    """Return SLiC's hinge loss on the log-ratios of each pair (Zhao et al. 2023, arXiv:2305.10425).

    In this form Liu et al. 2023, arXiv:2309.06657.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
        beta: 1 / beta is the margin in nats beyond which a pair costs nothing.

    Returns:
        losses (P,).
    """
    return torch.relu(1 - beta * _delta(pairs))


def sigmoid_norm(pairs: Pairs, *, beta: float = 5.0) -> Tensor:
    """Return the length-normalised DPO loss of each pair: DPO with log-ratios averaged over tokens.

    Lambert et al. 2024, "Tulu 3", arXiv:2411.15124.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
        beta: acts on nats *per token*, so it is some fifty times the beta of `sigmoid`; Tulu 3 used 5.

    Returns:
        losses (P,), nats.
    """
    return -F.logsigmoid(beta * _delta_per_token(pairs))


def dpop(pairs: Pairs, *, beta: float = 0.1, penalty: float = 50.0) -> Tensor:
    """Return the DPO-Positive loss of each pair: DPO with a penalty if the chosen response becomes less likely.

    Pal et al. 2024, arXiv:2402.13228.

    Args:
        pairs: the pairs, with log-probabilities under the reference model.
        beta: strength of the pull towards the reference.
        penalty: the paper's lambda, on max(0, -log-ratio of chosen) inside the sigmoid.

    Returns:
        losses (P,), nats.
    """
    chosen, rejected = _log_ratios(pairs)
    return -F.logsigmoid(beta * (chosen - rejected - penalty * torch.relu(-chosen)))


def simpo(pairs: Pairs, *, beta: float = 2.0, gamma: float = 0.5) -> Tensor:
    """Return the SimPO loss of each pair (Meng et al. 2024, arXiv:2405.14734, eq. 6).

    It is the margin between mean log-probabilities per token, without a reference model.

    Args:
        pairs: the pairs; log-probabilities under a reference model are not used.
        beta: scales the difference of mean log-probabilities.
        gamma: margin wanted, in units of the scaled difference (SimPO's own code sets gamma / beta).

    Returns:
        losses (P,), nats.
    """
    margin = pairs.chosen / pairs.chosen_len - pairs.rejected / pairs.rejected_len
    return -F.logsigmoid(beta * margin - gamma)


def orpo(pairs: Pairs, *, beta: float = 0.1) -> Tensor:
    """Return the ORPO loss of each pair: NLL of the chosen response plus an odds-ratio term (Hong et al. 2024).

    arXiv:2403.07691, eq. 6 and 7. Probabilities are geometric means over tokens. The NLL is the mean over the tokens of
    the pair's chosen response; TRL takes the mean over all tokens of the batch, the prompts' included.

    Args:
        pairs: the pairs; log-probabilities under a reference model are not used.
        beta: the paper's lambda, weight of the odds-ratio term.

    Returns:
        losses (P,), nats.
    """
    chosen, rejected = pairs.chosen / pairs.chosen_len, pairs.rejected / pairs.rejected_len
    return -chosen - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def kto(
    completions: Completions, *, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """Return the KTO loss of single responses labelled good or bad.

    Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1: weight * (1 - sigmoid(beta * (log-ratio - z0))) for a good
    response; for a bad one the sign inside is reversed.

    Args:
        completions: the responses, with `kl` (z0) from `kto_kl`.
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
    """Return KTO's reference point z0, an estimate of KL(policy || reference) (arXiv:2402.01306, section 4.1).

    The responses are *mismatched*: each is scored after another example's prompt (the paper shifts the responses of a
    batch by one), so that the estimate does not use the responses that are being trained. The estimate is the mean
    log-ratio, clamped at 0 because a KL is not negative, without gradient. It is biased, and its noise falls with the
    number of responses, so pass those of the whole optimizer step where possible.

    Args:
        logps_mismatched: (M,) summed log-probabilities of the mismatched responses under the policy, nats.
        ref_logps_mismatched: (M,) their summed log-probabilities under the reference model, nats.

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
    """Return the rewards that the policy itself assigns: beta * log-ratio (Rafailov et al. 2023, section 4); detached.

    Without a reference model: beta * mean log-probability per token, SimPO's reward (Meng et al. 2024, eq. 4).

    Returns:
        (P,) rewards of the chosen and (P,) of the rejected responses.
    """
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        chosen, rejected = pairs.chosen / pairs.chosen_len, pairs.rejected / pairs.rejected_len
    else:
        chosen, rejected = _log_ratios(pairs)
    return beta * chosen.detach(), beta * rejected.detach()


def metrics(pairs: Pairs, beta: float) -> dict[str, Tensor]:
    """Return the metrics of training on pairs under TRL's names: implicit rewards, log-probabilities and accuracy.

    Each is (P,), detached. `rewards/accuracy` is 1.0 where the chosen reward is strictly higher, so it starts at 0 with
    policy = reference. A falling `logps/chosen` means that the preferred responses themselves become less likely.
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
    """Return log(policy / reference) of the chosen and of the rejected responses, (P,) each, in nats.

    Raises:
        ValueError: the pairs carry no log-probabilities of the reference model.
    """
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
    """Return log(p / (1 - p)) from log p, exact at both ends.

    Maechler 2012, "Accurately computing log(1 - exp(-|a|))". A p that rounds to 1 counts as the number just below 1: at
    1 the odds are infinite, and their gradient is NaN.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # The branch not taken must stay finite too, or its gradient, times zero, is not a number.
    near_zero = logp > -math.log(2)
    log_complement = torch.where(near_zero, torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))
    return logp - log_complement


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}; a share of wrong labels lies in [0, 0.5)")
