"""The arguments of `fit`: terms of a loss, each with a source of batches and an objective, and an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from torch import Tensor

from trueup.models.batching import Batch, Example, Per, collate, micro_batches
from trueup.runs.state import StateDict

if TYPE_CHECKING:
    from trueup.data.tokens.sampler import Sampler
    from trueup.models.network import Network

Metrics = dict[str, Tensor]
Objective = Callable[["Network", Batch], tuple[Tensor, Metrics]]
"""Returns values shaped like `batch.weights`, and metrics as 1-D tensors; all unreduced, reported as means."""


class Source(Protocol):
    """A source of this rank's micro-batches, step by step; its position can be saved."""

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return the next step's micro-batches, on the CPU. `check` may raise to stop a long draw."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return numbers about the last draw, for the log."""
        ...

    def origin(self, row: int, /) -> object:
        """Return the file and line of row `row` of a batch, for messages."""
        ...

    def state_dict(self) -> StateDict:
        """Return the state for `load_state_dict`."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was called."""
        ...


class RowSource:
    """Fixed examples in a sampler's order."""

    def __init__(
        self, examples: Sequence[Example], sampler: Sampler, network: Network, *, per: Per, max_tokens: int,
        origin: Callable[[int], object] = lambda row: f"row {row + 1}",
    ) -> None:  # fmt: skip
        self._examples, self._sampler, self._network = examples, sampler, network
        self._per: Per = per
        self._max_tokens = max_tokens
        self.origin = origin

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return this rank's micro-batches of the next step."""
        check()
        step = [self._examples[index] for index in self._sampler.next()]
        return collate_step(step, self._network, per=self._per, max_tokens=self._max_tokens)

    def metrics(self) -> dict[str, float]:
        """Return the number of completed epochs."""
        return {"epoch": float(self._sampler.epoch)}

    def state_dict(self) -> StateDict:
        """Return the sampler's position."""
        return dict(self._sampler.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a saved position."""
        self._sampler.load_state_dict(cast("Any", state))


def collate_step(examples: list[Example], network: Network, *, per: Per, max_tokens: int) -> list[Batch]:
    """Collate the examples of an optimizer step into this rank's micro-batches.

    With sharded weights every rank gets the same number of them: missing ones are filled with a weightless example.
    """
    layout, pad = network.layout, cast("int", network.tokenizer.pad_token_id)
    by_length = sorted(examples, key=lambda example: example.total, reverse=True)
    groups = micro_batches(network.runtime.share(by_length), max_tokens, layout=layout)
    batches = [collate(group, per=per, pad_id=pad, layout=layout) for group in groups]
    if network.runtime.sharded:
        shares = (by_length[rank :: network.runtime.world] for rank in range(network.runtime.world))
        most = max(len(micro_batches(share, max_tokens, layout=layout)) for share in shares)
        idle = collate(by_length[-1:], per=per, pad_id=pad, layout=layout).weightless()
        batches += [idle] * (most - len(batches))
    return batches


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss: its source of batches, its objective and its weight.

    Terms that share a source get the same batches one after the other, so only one graph is alive at a time.
    """

    name: str
    source: Source
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Computed every `every` steps and at the end; `patience` evaluations without a better `metric` stop the run."""

    compute: Callable[[int], dict[str, float]]
    """Called with the number of optimizer steps done."""
    every: int | None
    patience: int | None
    metric: str
    better: Literal["lower", "higher"] = "lower"
    at_start: bool = True
    """True also evaluates before the first step. False if the result is known: a zero head, a policy against itself."""
