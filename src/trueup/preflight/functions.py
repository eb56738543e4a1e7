"""Call a user's functions on a small made-up batch before any weights load: they must return what training needs.

A loss, an advantage and a KL estimator get tensors. A reward gets two conversations: prompts of the stage's own data,
each with the answer "A made-up answer." (a reward may look up its prompt, so the prompts are not made up).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from trueup.algorithms.advantages import ADVANTAGES, Episodes
from trueup.algorithms.kl import ESTIMATORS
from trueup.algorithms.preference import LOSSES, Completions, Pairs
from trueup.config import DpoConfig, PpoConfig, PreferenceLossConfig, RolloutConfig, StageConfig
from trueup.config.functions import UserFunction
from trueup.config.sections import EstimatorConfig
from trueup.data.prompts import Prompts
from trueup.data.rendering.messages import Conversation, Message
from trueup.data.sources.columns import Columns
from trueup.data.tokens.select import Examples
from trueup.errors import ConfigError, TrainingError
from trueup.models.rewards import reward_from_file

MADE_UP_ANSWER = "A made-up answer."
_REWARD_FIX = (
    "  fix: take a list of Conversations (.prompt and .response; a row's other columns by further parameters of their "
    "names, see docs/extending.md), return a number for each"
)
_BRANCH_OF = (0, 0, 0, 1, 2, 2, 3, 3, 3, 3)


def check_functions(config: StageConfig, device: torch.device) -> None:
    """Call the loss, the advantage and the KL estimators that are a user's own functions, if the stage names any.

    Args:
        config: the stage.
        device: the device of the training; the made-up batch lies on it.

    Raises:
        ConfigError: a function cannot be imported, fails, changes its input, or returns a wrong shape, type or device,
            or numbers that are not finite; or a loss has no gradient, or one that is not finite.
    """
    if isinstance(config, DpoConfig) and UserFunction.parse(config.loss.name):
        _check_loss(config.loss, device)
    if isinstance(config, PpoConfig):
        if UserFunction.parse(config.rollouts.advantage.name):
            _check_advantage(config.rollouts, device)
        if UserFunction.parse(config.kl.estimator.name):
            _check_estimator("kl.estimator", config.kl.estimator, device, is_loss=config.kl.apply == "loss")
        if config.kl.logged is not None and UserFunction.parse(config.kl.logged.name):
            _check_estimator("kl.logged", config.kl.logged, device, is_loss=False)


def _check_estimator(key: str, section: EstimatorConfig, device: torch.device, *, is_loss: bool) -> None:
    function = section.function(ESTIMATORS, key)
    logps = torch.linspace(-2, -1, 10, device=device).requires_grad_(is_loss)
    batch = "two tensors of 10 log-probabilities"
    estimates = _check(key, section.name, function, (logps, logps.detach() - 0.1), 10, batch)
    if is_loss:
        _check_gradient(f"{key}: {section.name}, as a loss (kl.apply: loss)", estimates, logps)


def _check_loss(loss: PreferenceLossConfig, device: torch.device) -> None:
    function = loss.function(LOSSES, "loss")
    sums = torch.tensor([-4.0, -6.0, -9.0], device=device).requires_grad_()
    reference = torch.tensor([-5.0, -5.0, -8.0], device=device) if loss.needs_reference else None
    if loss.unpaired:
        kl = torch.tensor(0.5, device=device) if loss.needs_reference else None
        desirable = torch.tensor([True, False, True], device=device)
        data, batch = Completions(sums, desirable, reference, kl), "Completions of 3"
    else:
        lengths = torch.tensor([4.0, 3.0, 5.0], device=device)
        data, batch = Pairs(sums, sums - 1, lengths, lengths, reference, reference), "Pairs of 3"
    if reference is None:
        batch += f"; without a reference, as the file's NEEDS_REFERENCE does not name {loss.name.rpartition(':')[2]}"
    losses = _check("loss", loss.name, function, (data,), 3, batch)
    _check_gradient(f"loss: {loss.name}", losses, sums)


def _check_gradient(name: str, losses: Tensor, sums: Tensor) -> None:
    """Raise ConfigError unless the losses have a finite gradient with respect to the log-probabilities `sums`."""
    if not losses.requires_grad:
        raise ConfigError(
            f"{name}: does not depend on the policy's log-probabilities, so nothing would train\n"
            "  fix: compute with the tensors given, without .detach(), .item() or torch.no_grad()"
        )
    (gradient,) = torch.autograd.grad(losses.sum(), sums, allow_unused=True)
    if gradient is not None and not gradient.isfinite().all():
        raise ConfigError(
            f"{name}: on a made-up batch its losses are finite, but their gradient is {gradient.tolist()}\n"
            "  fix: no sqrt, norm or division at 0 (torch.where does not remove their gradient); clamp before it"
        )


def _check_advantage(rollouts: RolloutConfig, device: torch.device) -> None:
    function = rollouts.advantage_function(ADVANTAGES)
    values = torch.linspace(-1, 1, 10, device=device) if rollouts.advantage.needs_values else None
    totals = torch.tensor([1.0, 2.0, 0.5, 3.0], device=device)
    branch_of = torch.tensor(_BRANCH_OF, device=device)
    group = torch.tensor([0, 0, 1, 1], device=device)
    episodes = Episodes(torch.linspace(0, 1, 10, device=device), totals, branch_of, group, values)
    batch = "Episodes of 4 responses with 10 tokens"
    if values is None:
        name = rollouts.advantage.name.rpartition(":")[2]
        batch += f"; without values, as the file's NEEDS_VALUES does not name {name}"
    _check("rollouts.advantage", rollouts.advantage.name, function, (episodes,), 10, batch)


def _check(
    key: str, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], size: int, batch: str
) -> Tensor:
    """Call a function on a made-up batch and return its result, which must be `size` finite numbers.

    Args:
        key: the setting that names the function, for messages.
        name: the function's file and name.
        function: the user's function.
        arguments: the batch: tensors, or dataclasses of tensors.
        size: numbers that it must return.
        batch: the batch in words.

    Raises:
        ConfigError: the function fails, changes the batch, or returns something else.
    """
    inputs = {
        name: tensor for number, argument in enumerate(arguments, 1) for name, tensor in _tensors(argument, number)
    }
    before = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    device = next(iter(inputs.values())).device
    place = f"{key}: {name}, called on a made-up batch ({batch}),"
    fix = f"return a float tensor of shape ({size},) here, one finite number each"
    try:
        result = function(*arguments)
    except TrainingError as error:
        raise ConfigError(f"{error} (on a made-up batch: {batch})\n  fix: {fix}") from error
    if changed := [name for name, tensor in inputs.items() if not tensor.equal(before[name])]:
        raise ConfigError(
            f"{place} changed its input in place ({', '.join(changed)}), which the training still needs\n"
            "  fix: compute new tensors, or .clone() the input first"
        )
    if not isinstance(result, Tensor):
        raise ConfigError(f"{place} returned {type(result).__name__}\n  fix: {fix}")
    if result.shape != (size,) or not result.is_floating_point():
        raise ConfigError(f"{place} returned {result.dtype} of shape {tuple(result.shape)}\n  fix: {fix}")
    if result.device != device:
        raise ConfigError(
            f"{place} returned a tensor on {result.device}\n  fix: return one on {device}, as the input is"
        )
    if not result.isfinite().all():
        raise ConfigError(f"{place} returned {result.tolist()}\n  fix: {fix}")
    return result


def _tensors(argument: Any, number: int) -> list[tuple[str, Tensor]]:
    """Return (name, tensor) of the tensor that is argument `number`, or of those in the fields of a dataclass."""
    if isinstance(argument, Tensor):
        return [(f"argument {number}", argument)]
    named = [(field.name, getattr(argument, field.name)) for field in fields(argument)]
    return [(name, value) for name, value in named if isinstance(value, Tensor)]


def check_rewards(
    config: StageConfig, train: Examples, held_out: Examples | None, columns: Columns = MappingProxyType({})
) -> None:
    """Call each reward that is a user's own function on two prompts of the data, each with a made-up answer.

    Raises:
        ConfigError: a reward cannot be imported, fails, or does not return a finite number for each conversation.
    """
    if not isinstance(config, PpoConfig | DpoConfig):
        return
    named = [("reward", spec) for spec in config.rewards] if isinstance(config, PpoConfig) else []
    named += [(f"watch.{key}", spec) for key in ("reward", "gold") if (spec := getattr(config.watch, key, None))]
    rows = train if isinstance(config, PpoConfig) or held_out is None else held_out
    for key, spec in named:
        if not UserFunction.parse(spec) or not len(rows):
            continue
        reward = reward_from_file(spec, key)
        prompts = Prompts(rows, columns)[: min(2, len(rows))]
        conversations = [
            Conversation((*prompt.messages, Message("assistant", MADE_UP_ANSWER)), columns=prompt.columns)
            for prompt in prompts
        ]
        try:
            reward(conversations)
        except TrainingError as error:
            problem, _, fix = str(error).partition("\n")
            called = f"called on {len(prompts)} prompts of the data with the answer {MADE_UP_ANSWER!r}"
            raise ConfigError(f"{problem} ({called})\n{fix or _REWARD_FIX}") from error
