"""Reward functions: each gives every conversation of a list a score.

PPO, evaluation and best-of-n use the same interface, for scalar-head models, Python functions and ensembles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from trueup.config.functions import UserFunction, load_function
from trueup.data.rendering.messages import Conversation
from trueup.errors import TrainingError
from trueup.system.text import excerpt


class Reward(Protocol):
    """Interface of a reward function: `reward(conversations)` returns (N,) float32 scores on any device.

    A higher score is better.
    """

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (N,) scores, one per conversation."""
        ...


def reward_from_file(spec: str, key: str = "reward") -> Reward:
    """Return the reward function named by "file.py:function": it takes a list of Conversations and returns N numbers.

    Columns of the rows that it takes (`UserFunction.columns`) are passed by keyword, as lists of N values. The file is
    the user's own code and is run. `key` is the configuration key that names it, for messages.

    Raises:
        ConfigError: the file or the function does not exist, or the function does not take one argument.
    """
    parsed = UserFunction.parse(spec)
    columns = parsed.columns() if parsed else {}
    required = [name for name, needed in columns.items() if needed]
    function = load_function(spec, key, arguments=", ".join(["conversations", *required]), columns=columns)
    return checked_reward(function, f"{key}: {spec}", columns)


def checked_reward(
    function: Callable[..., object], name: str, columns: Mapping[str, bool] = MappingProxyType({})
) -> Reward:
    """Return `function` as a reward: its result becomes a float32 tensor; `name` is for messages.

    `columns` are those of the conversations that it takes by keyword: {name: each must have it}. The reward raises
    TrainingError if one lacks such a column, or the result is not one finite number per conversation.
    """
    fix = "\n  fix: return one finite number for each conversation"

    def reward(conversations: Sequence[Conversation], /) -> Tensor:
        taken = {column: _column(conversations, column, needed, name) for column, needed in columns.items()}
        result = function([*conversations], **taken)  # a list of its own, which it may change
        try:
            scores = torch.as_tensor(result, dtype=torch.float32).detach().cpu().flatten()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TrainingError(
                f"{name} returned {excerpt(result, 80)}, which is not a list of numbers{fix}"
            ) from error
        if scores.shape[0] != len(conversations):
            raise TrainingError(f"{name} gave {scores.shape[0]} scores for {len(conversations)} conversations{fix}")
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).nonzero()[0])
            response = excerpt(conversations[bad].response, 60)
            raise TrainingError(
                f"{name} gave the score {scores[bad].item()} for the answer {response}; scores must be finite{fix}"
            )
        return scores

    return reward


def _column(conversations: Sequence[Conversation], column: str, needed: bool, reward: str) -> list[object]:
    """Return a column of the rows that the conversations answer; None for a row that lacks it, where none is needed."""
    lacking = sum(column not in talk.columns for talk in conversations)
    if needed and lacking:
        fix = (
            f"give rows with {column}; where no row stands behind an answer (trueup rank), give the parameter a default"
        )
        raise TrainingError(
            f"{reward} takes the column {column}, which {lacking} of {len(conversations)} rows lack\n  fix: {fix}"
        )
    return [talk.columns.get(column) for talk in conversations]


class Ensemble:
    """Reward made of several reward functions: mean minus `uncertainty` times variance (Coste et al. 2023, eq. 4).

    A policy that exploits one of them loses reward where the others disagree.
    """

    def __init__(self, members: Sequence[Reward], uncertainty: float = 0.0) -> None:
        """Combine at least one reward function; with a single one the variance is 0."""
        self._members, self._uncertainty = list(members), uncertainty

    def scores(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (M, N) float32 scores of N conversations on the CPU, a row for each of the M reward functions."""
        return torch.stack([member(conversations).float().cpu() for member in self._members])

    def combine(self, scores: Tensor) -> Tensor:
        """Return (N,) combined scores of (M, N) scores: the mean minus `uncertainty` times the variance over M."""
        return scores.mean(0) - self._uncertainty * scores.var(0, unbiased=False)

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (N,) combined scores."""
        return self.combine(self.scores(conversations))


def disagreement(scores: Tensor) -> Tensor:
    """Return (N,) the standard deviation of each conversation's (M, N) scores over the M rewards of an ensemble."""
    return scores.std(0, unbiased=False)
