"""Arguments of `fit`: the terms of the loss (each a source of batches with an objective), and an evaluation."""

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
    """Interface of a source of micro-batches, such as a shuffled data set or PPO's rollouts.

    Its position can be saved.
    """

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return this rank's micro-batches for the next optimizer step, on the CPU.

        `check` is called now and then, and may raise to stop a long draw.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Return numbers about the last draw for the log, by name, e.g. the epoch or the mean reward."""
        ...

    def origin(self, row: int, /) -> object:
        """Return the file and line that row number `row` of a batch came from, for messages."""
        ...

    def state_dict(self) -> StateDict:
        """Return the source's position, for a checkpoint."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the position that `state_dict` returned, so that the same batches follow."""
        ...


class RowSource:
    """Source of micro-batches of fixed examples, in the order of a sampler."""

    def __init__(
        self, examples: Sequence[Example], sampler: Sampler, network: Network, *, per: Per, max_tokens: int,
        origin: Callable[[int], object] = lambda row: f"row {row + 1}",
    ) -> None:  # fmt: skip
        self._examples, self._sampler, self._network = examples, sampler, network
        self._per: Per = per
        self._max_tokens = max_tokens
        self.origin = origin

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return this rank's micro-batches for the next optimizer step, on the CPU."""
        check()
        step = [self._examples[index] for index in self._sampler.next()]
        return collate_step(step, self._network, per=self._per, max_tokens=self._max_tokens)

    def metrics(self) -> dict[str, float]:
        """Return {"epoch": number of completed epochs} for the log."""
        return {"epoch": float(self._sampler.epoch)}

    def state_dict(self) -> StateDict:
        """Return the sampler's position, for a checkpoint."""
        return dict(self._sampler.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the sampler's position that `state_dict` returned."""
        self._sampler.load_state_dict(cast("Any", state))


def collate_step(examples: list[Example], network: Network, *, per: Per, max_tokens: int) -> list[Batch]:
    """Return this rank's micro-batches of an optimizer step's examples.

    With sharded weights every rank gets the same number of micro-batches: missing ones are filled with one of weight 0.

    Args:
        examples: all examples of the step, the same on every rank.
        network: the model; it sets layout, pad token and this rank's share.
        per: unit that has a weight, see `collate`.
        max_tokens: most tokens of a micro-batch, padding included.
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
    """One part of the loss: a source of batches, an objective computed on them, and the weight of the result.

    Terms that share a source get the same batches one after the other, so only one graph is alive at a time. `name` is
    the prefix of the term's metrics in the log.
    """

    name: str
    source: Source
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Plan of the measurements during training: `compute` runs every `every` steps and at the end.

    If `patience` is set, that many evaluations in a row without a better `metric` stop the run; if `ends` is, an
    evaluation for whose numbers it is True. Both keep the weights of the best evaluation.
    """

    compute: Callable[[int], dict[str, float]]
    """Called with the number of optimizer steps done."""
    every: int | None
    patience: int | None
    metric: str
    better: Literal["lower", "higher"] = "lower"
    at_start: bool = True
    """True also evaluates before the first step. False if the result is known: a zero head, a policy against itself."""
    ends: Callable[[dict[str, float]], bool] | None = None
