"""Rewards: callables that give each conversation of a list a score.

PPO, evaluation and best-of-n use the same interface, for scalar-head models, Python functions and ensembles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trueup.config.functions import load_function
from trueup.data.rendering.messages import Conversation
from trueup.errors import TrainingError


class Reward(Protocol):
    """Interface of a reward: `reward(conversations)` returns (N,) float32 scores on any device, higher is better."""

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (N,) scores, one per conversation."""
        ...


def reward_from_file(spec: str, key: str = "reward") -> Reward:
    """Return the reward named by "file.py:function", a function from a list of Conversations to N numbers.

    The file is the user's own code and is run. `key` is the configuration key that names it, for messages.

    Raises:
        ConfigError: the file or the function is not there, or the function does not take one argument.
    """
    return checked_reward(load_function(spec, key), spec)


def checked_reward(function: Callable[[Sequence[Conversation]], object], name: str) -> Reward:
    """Wrap a function: its result becomes a float32 tensor, whose length and finiteness are checked."""

    def reward(conversations: Sequence[Conversation], /) -> Tensor:
        result = function(conversations)
        try:
            scores = torch.as_tensor(result, dtype=torch.float32).flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"reward {name}: returned {str(result)[:80]!r}, which is not a list of numbers"
            ) from error
        if scores.shape[0] != len(conversations):
            raise TrainingError(
                f"reward {name}: {scores.shape[0]} scores for {len(conversations)} conversations; return one for each"
            )
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).nonzero()[0])
            raise TrainingError(
                f"reward {name}: score {scores[bad].item()} for conversation {bad}; scores must be finite"
            )
        return scores

    return reward


class Ensemble:
    """Ensemble of rewards: their mean minus `uncertainty` times their variance (Coste et al. 2023, eq. 4).

    A policy that exploits one member loses reward where the others disagree.
    """

    def __init__(self, members: Sequence[Reward], uncertainty: float = 0.0) -> None:
        """Combine at least one reward; with a single one the variance is 0."""
        self._members, self._uncertainty = list(members), uncertainty

    def scores(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (M, N) float32 scores on the CPU, a row per member."""
        return torch.stack([member(conversations).float().cpu() for member in self._members])

    def combine(self, scores: Tensor) -> Tensor:
        """Combine (M, N) scores into (N,): their mean minus the weighted variance over members."""
        return scores.mean(0) - self._uncertainty * scores.var(0, unbiased=False)

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (N,) combined scores."""
        return self.combine(self.scores(conversations))


def disagreement(scores: Tensor) -> Tensor:
    """Return the (N,) standard deviation over the members of (M, N) scores."""
    return scores.std(0, unbiased=False)
