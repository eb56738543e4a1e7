"""Rewards: callables that give each conversation of a list a score.

PPO, evaluation and best-of-n use the same interface, for scalar-head models, Python functions and ensembles.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trueup.data.rendering.messages import Conversation
from trueup.errors import ConfigError, TrainingError


class Reward(Protocol):
    """Interface of a reward: `reward(conversations)` returns (N,) float32 scores on any device, higher is better."""

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """Return (N,) scores, one per conversation."""
        ...


def reward_from_file(spec: str) -> Reward:
    """Load the reward "file.py:function": a function from a list of Conversations to N numbers.

    The file is the user's own code and is executed.

    Raises:
        ConfigError: the file or the function does not exist.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"reward: no file {file or name!r}; give reward=FILE.py:FUNCTION")
    module_spec = importlib.util.spec_from_file_location(f"trueup_reward_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"reward: {file!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look up their module here
    module_spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        functions = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(f"reward: {file} has no function {name!r}; it has {', '.join(functions) or 'none'}")
    return checked_reward(function, spec)


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
