"""Data of KTO: single completions labelled good or bad, and a source that estimates the KL of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from trueup.algorithms.preference import kto_kl
from trueup.data.tokens.sampler import Sampler
from trueup.models.batching import Batch, Example
from trueup.models.forward import branch_logps
from trueup.training.terms import collate_step

if TYPE_CHECKING:
    from trueup.models.network import Network
    from trueup.recipes.stage import Stage
    from trueup.runs.state import StateDict
from trueup.data.unpaired import is_ranked


def unpaired_sampler(stage: Stage) -> Sampler:
    """Return a sampler over the completions of a KTO stage.

    Rankings are used as two completions, and both have the weight of the ranking's data section.
    """
    sizes, weights = [len(rows) for rows in stage.train.rows], list(stage.prepared.weights)
    sides = 2 if is_ranked(stage.train) else 1
    return Sampler(sizes * sides, stage.config.optim.batch_size, stage.config.seed, weights=weights * sides)


class KtoSource:
    """Source of labelled completions for KTO, each with the step's KL estimate (z0) as the column "kl".

    The estimate is one number for the whole optimizer step: an estimate for each micro-batch would make the gradient
    depend on `max_tokens`.

    Args:
        examples: completions with the scalars "desirable" and "ref_logps".
        shifted: the completions after other prompts, `mismatched(examples, …)`, with the scalar "ref_logps".
        sampler: draws indices into both.
        network: the model with the role "policy".
        max_tokens: micro-batch size.
        origin: returns the file and line of a completion.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        shifted: Sequence[Example],
        sampler: Sampler,
        network: Network,
        *,
        max_tokens: int,
        origin: Callable[[int], object] = lambda row: f"row {row + 1}",
    ) -> None:
        self._examples, self._shifted, self._sampler, self._network = examples, shifted, sampler, network
        self._max_tokens = max_tokens
        self.origin = origin

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return this rank's micro-batches for the next optimizer step, after estimating the step's KL."""
        check()
        indices = self._sampler.next()
        others = [self._shifted[index] for index in indices]
        logps = branch_logps(self._network, others, "policy", max_tokens=self._max_tokens)
        reference = torch.tensor([example.branches[0].scalars["ref_logps"] for example in others])
        kl = float(kto_kl(logps, reference))
        step = [_with_scalar(self._examples[index], "kl", kl) for index in indices]
        return collate_step(step, self._network, per="branch", max_tokens=self._max_tokens)

    def metrics(self) -> dict[str, float]:
        """Return {"epoch": number of completed epochs} for the log."""
        return {"epoch": float(self._sampler.epoch)}

    def state_dict(self) -> StateDict:
        """Return the sampler's position, for a checkpoint."""
        return dict(self._sampler.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the sampler's position that `state_dict` returned."""
        self._sampler.load_state_dict({name: int(str(value)) for name, value in state.items()})


def _with_scalar(example: Example, name: str, value: float) -> Example:
    branch = example.branches[0]
    return replace(example, branches=(replace(branch, scalars={**branch.scalars, name: value}),))
