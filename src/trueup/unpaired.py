"""KTO's data: single completions labelled good or bad, and a source that estimates the step's KL before the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from trueup.algorithms.preference import kto_kl
from trueup.batching import Batch, Branch, Example
from trueup.errors import DataError
from trueup.reference import branch_logps
from trueup.terms import collate_step

if TYPE_CHECKING:
    from trueup.chat import Preference
    from trueup.config import DataConfig
    from trueup.models import Network
    from trueup.sources import Sampler
    from trueup.stage import Stage
    from trueup.state import State


def unpaired_examples(stage: Stage, data: DataConfig) -> list[Example]:
    """Labelled completions; of rankings, the chosen answer as desirable and the rejected one as not."""

    def ranked(row: Preference) -> Example:
        return stage.pair_example(row.prompt, row.chosen, row.rejected, origin=row.origin)

    try:
        rows = stage.load("data", data, "labelled")
    except DataError as error:
        try:
            pairs = stage.load("data", data, "preference")
        except DataError:
            raise error from None  # neither kind: the message about labelled rows is the one that helps with KTO
        made = [_labelled(pair, (True, False)) for pair in stage.examples("data", pairs, ranked)]
        # All chosen, then all rejected: side by side, `mismatched` would give a prompt its own other answer.
        return [chosen for chosen, _ in made] + [rejected for _, rejected in made]
    made = stage.examples("data", rows, lambda row: stage.pair_example(row.prompt, row.completion, origin=row.origin))
    return [one for example in made for one in _labelled(example, (rows[example.row].desirable,))]


def _labelled(example: Example, desirable: tuple[bool, ...]) -> list[Example]:
    """One single-branch example for each branch, with the scalar "desirable" (1 or 0)."""
    return [
        replace(example, branches=(replace(branch, scalars={**branch.scalars, "desirable": float(good)}),))
        for branch, good in zip(example.branches, desirable, strict=True)
    ]


def mismatched(examples: list[Example], max_length: int) -> list[Example]:
    """Each prompt with the next example's completion: what KTO estimates the KL on (arXiv:2402.01306, section 4.1).

    The pair was never held to `max_length`, so the completion is cut to what the prompt leaves of it.
    """
    shifted: list[Example] = []
    for one, other in zip(examples, examples[1:] + examples[:1], strict=True):
        room, branch = max_length - len(one.trunk), other.branches[0]
        shifted.append(Example(one.trunk, (Branch(branch.ids[:room], branch.mask[:room]),), row=one.row))
    return shifted


class KtoSource:
    """Labelled completions, each step with its z0 as the column "kl".

    The estimate is one number for the whole optimizer step: were it taken for each micro-batch, the gradient would
    depend on `max_tokens`.

    Args:
        examples: with the scalars "desirable" and "ref_logps".
        shifted: `mismatched(examples, …)`, with the scalar "ref_logps".
        sampler: over both.
        network: with the role "policy".
        max_tokens: micro-batch size.
    """

    def __init__(
        self, examples: list[Example], shifted: list[Example], sampler: Sampler, network: Network, *, max_tokens: int
    ) -> None:
        self._examples, self._shifted, self._sampler, self._network = examples, shifted, sampler, network
        self._max_tokens = max_tokens

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """This rank's micro-batches of the next step."""
        check()
        indices = self._sampler.next()
        others = [self._shifted[index] for index in indices]
        logps = branch_logps(self._network, others, "policy", max_tokens=self._max_tokens)
        reference = torch.tensor([one.branches[0].scalars["ref_logps"] for one in others])
        kl = float(kto_kl(logps, reference))
        step = [_with_scalar(self._examples[index], "kl", kl) for index in indices]
        return collate_step(step, self._network, per="branch", max_tokens=self._max_tokens)

    def metrics(self) -> dict[str, float]:
        """The epoch."""
        return {"epoch": float(self._sampler.epoch)}

    def state_dict(self) -> State:
        """The sampler's position."""
        return dict(self._sampler.state_dict())

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved position."""
        self._sampler.load_state_dict({name: int(str(value)) for name, value in state.items()})


def _with_scalar(example: Example, name: str, value: float) -> Example:
    branch = example.branches[0]
    return replace(example, branches=(replace(branch, scalars={**branch.scalars, name: value}),))
