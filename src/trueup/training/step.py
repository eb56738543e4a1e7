"""One optimizer step: every term's gradient, divided by its global weight, summed over ranks, clipped, applied.

A step whose loss or gradient is not finite is not applied: weights and optimizer stay as they were. After
`optim.bad_steps` of them in a row the training stops, and names the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trueup.errors import TrainingError
from trueup.models.batching import Batch
from trueup.runtime import mixed_seed
from trueup.training.optimizer import learning_rate, make_optimizer
from trueup.training.terms import Source, Term

if TYPE_CHECKING:
    from trueup.config import OptimConfig
    from trueup.models.network import Network

_NAMED_ROWS = 8  # rows named in a message


@dataclass(slots=True)
class _Accumulated:
    """Sums over a term's micro-batches on this rank, still on the device."""

    losses: list[Tensor]  # one a micro-batch
    totals: dict[str, Tensor]
    counts: dict[str, int]


class Stepper:
    """Takes optimizer steps.

    Args:
        network: what trains.
        terms: parts of the loss.
        optim: the optimizer's settings.
        steps: how many steps there will be in all.
        seed: of dropout.
        warn: called with a message for every step that was not applied.

    Attributes:
        optimizer: AdamW.
        skipped: steps that were not applied.
        in_a_row: how many of them the last ones were.
    """

    def __init__(
        self, network: Network, terms: Sequence[Term], optim: OptimConfig, *, steps: int, seed: int,
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        network.check_and_shard()
        self.network, self.terms, self.optim, self.runtime = network, terms, optim, network.runtime
        self._steps, self._seed, self._warn = steps, seed, warn
        # A source that several terms share is drawn from once, and known by the first one's name.
        self.sources: dict[str, Source] = {
            term.name: term.source for term in {id(term.source): term for term in reversed(terms)}.values()
        }
        self.optimizer = make_optimizer(network, optim)
        self.skipped = self.in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of steps that were not applied; the loop saves the optimizer's state."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def take(self, step: int, check: Callable[[], None]) -> dict[str, float]:
        """Step number `step`, from 0. Returns its row of the log.

        Raises:
            StopRequested: from `check`, with weights and optimizer untouched.
            TrainingError: too many steps in a row had no finite loss or gradient.
        """
        # Dropout follows from the seed, the step and the rank: there is no state of a generator to be saved or moved.
        torch.manual_seed(mixed_seed(self._seed, step, self.runtime.rank))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches = {id(source): source.next(check) for source in self.sources.values()}
        rate = learning_rate(step, self._steps, self.optim)
        row: dict[str, float] = {"step": step + 1, "lr": rate}
        loss, accumulated = 0.0, list[tuple[Source, list[Batch], list[Tensor]]]()
        for term in self.terms:
            micro = batches[id(term.source)]
            value, metrics, losses = self._accumulate(term, micro, check)
            accumulated.append((term.source, micro, losses))
            loss += term.weight * value
            row[f"{term.name}/loss"] = value
            row |= {f"{term.name}/{name}": number for name, number in metrics.items()}
        for name, source in self.sources.items():
            row |= {f"{name}/{key}": value for key, value in source.metrics().items()}
        row["loss"] = loss
        tokens = sum(batch.tokens for micro in batches.values() for batch in micro)
        row["tokens"] = round(self.runtime.global_sum(tokens)[0])  # whole on any number of processes
        row["grad_norm"] = norm = self._clip()
        if math.isfinite(norm) and math.isfinite(loss):
            self._apply(rate)
            self.in_a_row = 0
        else:
            row["skipped"] = 1.0
            self._skip(step, loss, norm, accumulated)
        return row

    def _accumulate(
        self, term: Term, micro: list[Batch], check: Callable[[], None]
    ) -> tuple[float, dict[str, float], list[Tensor]]:
        """Add a term's gradient; returns its loss, its metrics' means over the whole step, and each batch's loss."""
        (weight,) = self.runtime.global_sum(sum(float(batch.weights.sum()) for batch in micro))
        accumulated = _Accumulated([], {}, {})
        for batch in micro:
            check()
            moved = batch.to(self.runtime.device)
            values, metrics = term.objective(self.network, moved)
            loss = (values * moved.weights).sum() / max(weight, 1e-12)
            (loss * (term.weight * self.runtime.loss_scale)).backward()
            accumulated.losses.append(loss.detach())
            if batch.idle:
                continue
            for name, metric in metrics.items():
                zero = torch.zeros((), device=self.runtime.device)
                accumulated.totals[name] = accumulated.totals.get(name, zero) + metric.detach().float().sum()
                accumulated.counts[name] = accumulated.counts.get(name, 0) + metric.numel()
        names = sorted(set(self.runtime.gather(sorted(accumulated.totals))))
        # One transfer from the device for all of them.
        values = torch.stack([sum(accumulated.losses, torch.zeros((), device=self.runtime.device)), *(
            accumulated.totals.get(name, torch.zeros((), device=self.runtime.device)) for name in names
        )]).tolist()  # fmt: skip
        value, *sums = self.runtime.global_sum(*values)
        counts = self.runtime.global_sum(*(float(accumulated.counts.get(name, 0)) for name in names))
        means = {name: one / max(count, 1) for name, one, count in zip(names, sums, counts, strict=True)}
        return value, means, accumulated.losses

    def _clip(self) -> float:
        """Sum gradients over ranks and clip them. Returns their norm before."""
        parameters = [parameter for _, parameter in self.network.trainable()]
        self.runtime.sum_gradients(parameters)
        return self.runtime.clip_gradients(parameters, self.optim.clip)

    def _apply(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def _skip(
        self, step: int, loss: float, norm: float, accumulated: list[tuple[Source, list[Batch], list[Tensor]]]
    ) -> None:
        """Count a step that is not applied, and tell it; stop where there were too many in a row."""
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        rows = self._rows(accumulated)
        what = f"step {step + 1}: the loss is {loss:.4g}, the gradient's norm {norm:.4g}"
        if self.in_a_row < self.optim.bad_steps:
            self._warn(f"{what}; the step was left out. Rows: {rows}")
            return
        raise TrainingError(
            f"{what}, and {self.in_a_row} steps in a row were left out (optim.bad_steps)\n"
            f"  rows: {rows}\n"
            f"  the weights are as they were, and checkpoints are untouched\n"
            f"  fix: look at these rows (trueup show); or, in another output folder, lower optim.lr (now "
            f"{self.optim.lr:g}) or set dtype=float32"
        )

    def _rows(self, accumulated: list[tuple[Source, list[Batch], list[Tensor]]]) -> str:
        """The rows of the micro-batches whose loss is not finite; where only a gradient is not, of all."""
        places: list[tuple[bool, str]] = []
        for source, micro, losses in accumulated:
            for batch, loss in zip(micro, losses, strict=True):
                bad = not math.isfinite(float(loss))
                places += [(bad, str(source.origin(row))) for row in batch.rows if row >= 0]
        all_places = self.runtime.gather(places)
        worst = [place for bad, place in all_places if bad] or [place for _, place in all_places]
        named = list(dict.fromkeys(worst))
        more = f", and {len(named) - _NAMED_ROWS} more" if len(named) > _NAMED_ROWS else ""
        return ", ".join(named[:_NAMED_ROWS]) + more
