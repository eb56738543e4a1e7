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
"""(model, batch) -> values shaped like batch.weights, and metrics as 1-D tensors; all unreduced, reported as means."""


class Source(Protocol):
    """Yields this rank's micro-batches of one optimizer step after another; its position can be saved."""

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """The next step's micro-batches, on the CPU. `check` may raise to stop a long draw."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers about the last draw, for the log."""
        ...

    def origin(self, row: int, /) -> object:
        """Return where row `row` of a batch came from, for messages: file and line."""
        ...

    def state_dict(self) -> StateDict:
        """Return the state from which `load_state_dict` goes on exactly here."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Go on exactly where `state_dict` was called."""
        ...


class RowSource:
    """Fixed examples, in an order that a sampler gives."""

    def __init__(
        self, examples: Sequence[Example], sampler: Sampler, network: Network, *, per: Per, max_tokens: int,
        origin: Callable[[int], object] = lambda row: f"row {row + 1}",
    ) -> None:  # fmt: skip
        self._examples, self._sampler, self._network = examples, sampler, network
        self._per: Per = per
        self._max_tokens = max_tokens
        self.origin = origin

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """This rank's micro-batches of the next step."""
        check()
        step = [self._examples[index] for index in self._sampler.next()]
        return collate_step(step, self._network, per=self._per, max_tokens=self._max_tokens)

    def metrics(self) -> dict[str, float]:
        """Epochs completed."""
        return {"epoch": float(self._sampler.epoch)}

    def state_dict(self) -> StateDict:
        """The sampler's position."""
        return dict(self._sampler.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Go on from a saved position."""
        self._sampler.load_state_dict(cast("Any", state))


def collate_step(examples: list[Example], network: Network, *, per: Per, max_tokens: int) -> list[Batch]:
    """One optimizer step's examples as this rank's micro-batches.

    Where weights are sharded, every rank gets as many: those that lack one get an example without weight.
    """
    layout, pad = network.layout, cast("int", network.tokenizer.pad_token_id)
    by_length = sorted(examples, key=lambda example: example.total, reverse=True)
    mine = network.runtime.share(by_length)
    groups = micro_batches(mine, max_tokens, layout=layout)
    batches = [collate(group, per=per, pad_id=pad, layout=layout) for group in groups]
    if network.runtime.sharded:
        shares = (by_length[rank :: network.runtime.world] for rank in range(network.runtime.world))
        most = max(len(micro_batches(share, max_tokens, layout=layout)) for share in shares)
        idle = collate(by_length[-1:], per=per, pad_id=pad, layout=layout).weightless()
        batches += [idle] * (most - len(batches))
    return batches


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss: where its batches come from, what it computes, and how much it counts.

    Terms that share a source see the same batches, one after the other, so only one graph is alive at a time.
    """

    name: str
    source: Source
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Computed every `every` steps and at the end; `patience` times without a better `metric` stop the run."""

    compute: Callable[[int], dict[str, float]]
    """Given the number of optimizer steps done."""
    every: int | None
    patience: int | None
    metric: str
    better: Literal["lower", "higher"] = "lower"
    at_start: bool = True
    """Also before the first step. False where that is known: a zero head's accuracy, a policy against itself."""
