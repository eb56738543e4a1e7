"""Loss of reward modelling from rankings (Bradley-Terry)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everybody reads)


def bradley_terry(chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, center: float = 0.0) -> Tensor:
    """Return the reward-model loss of each pair: minus the log-probability that the chosen response wins.

    Under Bradley and Terry's (1952) model of comparisons it is
    -log sigmoid(chosen - rejected - margin) + center * (chosen + rejected)^2: Ouyang et al. 2022 (arXiv:2203.02155,
    eq. 1); the margin is Llama 2's (Touvron et al. 2023, arXiv:2307.09288, eq. 2); the last term keeps rewards near
    zero, which comparisons alone leave free to drift (Eisenstein et al. 2023, arXiv:2312.09244, eq. 2; TRL: 0.01).

    Args:
        chosen: (P,) rewards of the preferred responses.
        rejected: (P,) rewards of the other responses.
        margin: (P,) by how much the chosen reward ought to be higher, in reward units. None: 0.
        center: weight of the centring term.

    Returns:
        losses (P,), nats.
    """
    gap = chosen - rejected
    if margin is not None:
        gap = gap - margin
    losses = -F.logsigmoid(gap)
    return losses + center * (chosen + rejected).square() if center else losses
