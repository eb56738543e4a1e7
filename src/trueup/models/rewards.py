"""Rewards: anything that gives a list of conversations one score each.

The same object drives PPO, evaluation and best-of-n. A scalar-head model, a Python function and a sum of both fit it.
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
    """`reward(conversations) -> (N,)` float32 scores, higher is better, on any device."""

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """(N,) scores, one a conversation."""
        ...


def reward_from_file(spec: str) -> Reward:
    """The reward named by "file.py:function", a function from a list of Conversations to N numbers.

    The file is the user's own code and is run.

    Raises:
        ConfigError: the file or the function is not there.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"reward: no file {file or name!r}; give reward=FILE.py:FUNCTION")
    module_spec = importlib.util.spec_from_file_location(f"trueup_reward_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"reward: {file!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look their module up there
    module_spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        named = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(f"reward: {file} has no function {name!r}; it has {', '.join(named) or 'none'}")
    return checked_reward(function, spec)


def checked_reward(function: Callable[[Sequence[Conversation]], object], name: str) -> Reward:
    """The function, with its answer turned into a float32 tensor and its length and finiteness checked."""

    def reward(conversations: Sequence[Conversation], /) -> Tensor:
        answer = function(conversations)
        try:
            scores = torch.as_tensor(answer, dtype=torch.float32).flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"reward {name}: gave no list of numbers but {str(answer)[:80]!r}") from error
        if scores.shape[0] != len(conversations):
            raise TrainingError(
                f"reward {name}: {scores.shape[0]} scores for {len(conversations)} conversations; give one each"
            )
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).nonzero()[0])
            raise TrainingError(
                f"reward {name}: score {scores[bad].item()} for conversation {bad}; scores must be finite"
            )
        return scores

    return reward


class Ensemble:
    """Several rewards as one: their mean less `uncertainty` times their variance (Coste et al. 2023, eq. 4).

    A policy that has learnt to please one member is held back where the others disagree.
    """

    def __init__(self, members: Sequence[Reward], uncertainty: float = 0.0) -> None:
        """Take at least one member; of one, the variance is 0."""
        self._members, self._uncertainty = list(members), uncertainty

    def scores(self, conversations: Sequence[Conversation], /) -> Tensor:
        """(M, N) float32 scores on the CPU, a row a member."""
        return torch.stack([member(conversations).float().cpu() for member in self._members])

    def combine(self, scores: Tensor) -> Tensor:
        """(N,) from (M, N): the mean, less the weighted variance over members."""
        return scores.mean(0) - self._uncertainty * scores.var(0, unbiased=False)

    def __call__(self, conversations: Sequence[Conversation], /) -> Tensor:
        """(N,) combined scores."""
        return self.combine(self.scores(conversations))


def disagreement(scores: Tensor) -> Tensor:
    """(N,) standard deviation over the members of (M, N) scores."""
    return scores.std(0, unbiased=False)
