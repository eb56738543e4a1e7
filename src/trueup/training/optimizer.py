"""Optimizer (AdamW) and learning rate, a pure function of the step: there is no scheduler state to save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from trueup.errors import TrainingError
from trueup.runtime import is_sharded

if TYPE_CHECKING:
    from trueup.config import OptimConfig
    from trueup.models.network import Network


def learning_rate(step: int, steps: int, optim: OptimConfig) -> float:
    """Return the learning rate of step `step` (from 0): linear warm-up, then constant, or linear or cosine decay.

    Args:
        step: the step's number.
        steps: total number of optimizer steps.
        optim: peak rate `lr`, `warmup` (steps; below 1 a share of all steps) and `schedule`.
    """
    warmup = round(optim.warmup * steps) if optim.warmup < 1 else int(optim.warmup)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if optim.schedule == "linear":
        return optim.lr * (1 - done)
    if optim.schedule == "cosine":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * done))
    return optim.lr


def make_optimizer(network: Network, optim: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters, with weight decay on matrices only.

    Raises:
        TrainingError: no parameter is trainable.
    """
    parameters = [parameter for _, parameter in network.trainable()]
    if not parameters:
        raise TrainingError("nothing trains: no parameter of the model requires a gradient")
    # Sharded and whole parameters need groups of their own: torch updates a group in one call.
    groups = [
        {
            "params": [
                parameter
                for parameter in parameters
                if _decays(parameter) is decays and is_sharded(parameter) is sharded
            ],
            "weight_decay": optim.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
        for sharded in (False, True)
    ]
    # One pass over each parameter instead of ten; not every device type has the fused kernel.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=optim.lr, fused=fused)


def _decays(parameter: torch.nn.Parameter) -> bool:
    """Return True if the parameter gets weight decay: a matrix does, a vector does not.

    A scalar head's (1, H) weight counts as a vector.
    """
    return parameter.ndim >= 2 and parameter.shape[0] > 1
