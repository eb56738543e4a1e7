"""Compute advantages of tokens from scores of responses.

An advantage is a function from `Episodes` to (N,). Its keyword-only parameters are its configuration: their names are
the keys, their defaults the defaults (they are read from this file's source, so they are literals). Adding one touches
this file alone: write the function, enter it in `ADVANTAGES`, and in `NEEDS_VALUES` or `NEEDS_GROUPS` where it belongs.

Layout: the N sampled tokens of S branches (responses) lie flat, one branch after another; `branch_of` (N,) names the
branch of each token and never decreases. There is no padding, so none can leak into a sum, a mean or a return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from trueup.errors import ConfigError


def token_rewards(scores: Tensor, kl: Tensor, branch_of: Tensor, coef: float) -> Tensor:
    """Return per-token rewards: -coef * KL everywhere, plus the score on each branch's last token.

    Ouyang et al. 2022 (arXiv:2203.02155, eq. 2), spread over tokens as in Ziegler et al. 2019's code.

    Args:
        scores: (S,) reward of each response.
        kl: (N,) per-token estimate of KL(policy || reference), nats.
        branch_of: (N,) response (branch) of each token; never decreases.
        coef: price of a nat of KL, in reward units.

    Returns:
        (N,) rewards of the tokens.

    Raises:
        ValueError: branch_of decreases, or a branch has no token for its score to land on.
    """
    lengths = _lengths(branch_of, scores.shape[0])
    if bool((lengths == 0).any()):
        empty = int((lengths == 0).nonzero()[0])
        raise ValueError(f"branch {empty} has no tokens, so there is nowhere to put its score")
    return (-coef * kl).index_add(0, lengths.cumsum(0) - 1, scores.to(kl.dtype))


@dataclass(frozen=True, slots=True)
class Episodes:
    """Input of an advantage function: S sampled responses with N tokens in all, without gradients.

    Attributes:
        rewards: (N,) reward of each token, from `token_rewards`.
        totals: (S,) reward of each response: its score less the price of its KL, the sum of its `rewards`.
        branch_of: (N,) which response each token belongs to; never decreases.
        group: (S,) integer, equal for responses to one prompt.
        values: (N,) value of the state in which each token was chosen; None where the advantage has no value head.
    """

    rewards: Tensor
    totals: Tensor
    branch_of: Tensor
    group: Tensor
    values: Tensor | None = None


def gae(episodes: Episodes, *, gamma: float = 1.0, lam: float = 0.95) -> Tensor:
    """Return advantages by generalised advantage estimation, GAE (Schulman et al. 2015, arXiv:1506.02438, eq. 16).

    An episode is one response and ends at its last token: the value after it is 0, and no reward or value of another
    response enters.

    Args:
        episodes: the sampled responses, with `values` from the value head.
        gamma: discount per token.
        lam: 0 uses one-step errors (low variance), 1 the whole return (no bias from the value head).

    Returns:
        advantages (N,), detached.

    Raises:
        ValueError: branch_of decreases, or there are no values.
    """
    if episodes.values is None:
        raise ValueError("GAE needs the values of a value head")
    rewards, values, branch_of = episodes.rewards.detach(), episodes.values.detach(), episodes.branch_of
    if rewards.numel() == 0:
        return rewards.clone()
    lengths = _lengths(branch_of, int(branch_of[-1]) + 1)
    starts = lengths.cumsum(0) - lengths
    column = torch.arange(rewards.shape[0], device=rewards.device) - starts[branch_of]
    longest = int(lengths.max())
    # After the end of a branch, value, reward and advantage are 0, which the zero padding gives.
    padded_rewards = rewards.new_zeros(lengths.shape[0], longest)
    padded_values = values.new_zeros(lengths.shape[0], longest + 1)
    padded_rewards[branch_of, column] = rewards
    padded_values[branch_of, column] = values
    errors = padded_rewards + gamma * padded_values[:, 1:] - padded_values[:, :-1]
    padded = torch.zeros_like(errors)
    running = errors.new_zeros(lengths.shape[0])
    for t in range(longest - 1, -1, -1):
        running = errors[:, t] + gamma * lam * running
        padded[:, t] = running
    return padded[branch_of, column]


def rloo(episodes: Episodes) -> Tensor:
    """Return REINFORCE leave-one-out advantages: reward less the mean reward of the prompt's *other* responses.

    Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; for RLHF Ahmadian et al. 2024,
    arXiv:2402.14740.

    Returns:
        advantages (N,), the same for all tokens of a response.

    Raises:
        ConfigError: a prompt has a single response, so there is no baseline (also a ValueError).
    """
    totals = episodes.totals
    index, counts = _groups(episodes.group)
    others = _sums(totals, index, counts)[index] - totals
    return (totals - others / (counts[index] - 1))[episodes.branch_of]


def grpo(episodes: Episodes, *, scale: bool = True) -> Tensor:
    """Return each reward minus the mean reward of its prompt's responses, over their standard deviation (GRPO).

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2. The standard deviation is the unbiased one (n - 1) plus 1e-4, as
    in TRL. Equal rewards give advantages of 0.

    Args:
        episodes: the sampled responses; `group` says which ones answer the same prompt.
        scale: False leaves the division out, which favours prompts that are too easy or too hard (Dr. GRPO: Liu et
            al. 2025, arXiv:2503.20783).

    Returns:
        advantages (N,), the same for all tokens of a response.

    Raises:
        ConfigError: a prompt has a single response (also a ValueError).
    """
    totals = episodes.totals
    index, counts = _groups(episodes.group)
    centred = totals - (_sums(totals, index, counts) / counts)[index]
    if scale:
        variance = _sums(centred.square(), index, counts) / (counts - 1)
        centred = centred / (variance.sqrt()[index] + 1e-4)
    return centred[episodes.branch_of]


ADVANTAGES: dict[str, Callable[..., Tensor]] = {"gae": gae, "rloo": rloo, "grpo": grpo}
"""Advantages by the name used in the configuration."""

NEEDS_VALUES: frozenset[str] = frozenset({"gae"})
"""Advantages for which a value head is trained; its targets are advantage + value."""

NEEDS_GROUPS: frozenset[str] = frozenset({"rloo", "grpo"})
"""Advantages that compare the responses to one prompt: at least two are sampled, and `whiten` leaves them alone."""


def missing_end_penalty(scores: Tensor, finished: Tensor, penalty: float) -> Tensor:
    """Return the scores, less `penalty` for every response that was cut off before its end token.

    After Huang et al. 2024 (arXiv:2403.17031, "EOS trick"), who replace the score by -1; subtracting keeps the order
    among unfinished responses.

    Args:
        scores: (S,) reward of each response.
        finished: (S,) bool, True where the response ends with an end token.
        penalty: how much to subtract, in reward units.

    Returns:
        (S,) scores.
    """
    return scores - penalty * (~finished).to(scores.dtype)


class RunningNorm:
    """Running mean and variance of all values seen so far (Chan, Golub and LeVeque 1979; Welford 1962).

    Rewards divided by their running standard deviation keep one scale while a run goes on. Statistics are Python floats
    (float64), so a saved and restored state continues bit for bit. On several ranks, update with all ranks' values.
    """

    def __init__(self) -> None:
        """Start with no values seen."""
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    @property
    def std(self) -> float:
        """Unbiased standard deviation of the values seen; 1 until two values have been seen, or while all are equal."""
        spread = math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0
        # Equal values leave rounding errors of their mean, about 1e-16 of it, which are no spread to divide by.
        return spread if spread > 1e-7 * abs(self.mean) else 1.0

    def update(self, x: Tensor) -> None:
        """Update mean and variance with the values of `x`, a tensor of any shape."""
        batch = x.detach().double().flatten()
        n = batch.numel()
        if n == 0:
            return
        mean = float(batch.mean())
        gap, total = mean - self.mean, self.count + n
        self._squares += float((batch - mean).square().sum()) + gap * gap * self.count * n / total
        self.mean += gap * n / total
        self.count = total

    def normalize(self, x: Tensor) -> Tensor:
        """Return `x` divided by the running standard deviation.

        The mean stays: shifting would move the reward's zero, which decides if longer responses gain or lose.
        """
        return x / self.std

    def state_dict(self) -> dict[str, float]:
        """Return count, mean and sum of squared deviations, for `load_state_dict`."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore a state that `state_dict` returned."""
        self.count, self.mean = int(state["count"]), float(state["mean"])
        self._squares = float(state["squares"])


def _lengths(branch_of: Tensor, branches: int) -> Tensor:
    """Return (S,) the number of tokens of each branch (response).

    Raises:
        ValueError: branch_of decreases, so a branch's last token would be unknown.
    """
    if bool((branch_of[1:] < branch_of[:-1]).any()):
        raise ValueError("branch_of decreases; the tokens of a branch must lie together, branches in order")
    return torch.bincount(branch_of, minlength=branches)


def _groups(group: Tensor) -> tuple[Tensor, Tensor]:
    """Number the groups (the responses to one prompt) from 0.

    Returns:
        (S,) group number of each response, and (G,) the number of responses of each group, at least 2.

    Raises:
        ConfigError: a group has a single response.
    """
    unique = cast("Callable[..., tuple[Tensor, Tensor, Tensor]]", torch.unique)  # pyright: ignore[reportUnknownMemberType]
    _, index, counts = unique(group, return_inverse=True, return_counts=True)
    if bool((counts < 2).any()):
        raise ConfigError(
            "a prompt has one sample only, and its baseline would be the others: sample 2 or more a prompt"
        )
    return index, counts


def _sums(x: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Return (G,) the sum of `x` (S,) over each group.

    Args:
        x: (S,) values of the responses.
        index: (S,) group number of each response.
        counts: (G,) group sizes; only their number is used.
    """
    return x.new_zeros(counts.shape[0]).index_add(0, index, x)
