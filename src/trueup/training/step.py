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
    """Sums over one term's micro-batches on this rank, still on the device.

    They are the loss of each micro-batch, and the total and the count of each metric by name.
    """

    losses: list[Tensor]  # of each micro-batch
    totals: dict[str, Tensor]
    counts: dict[str, int]


class Stepper:
    """Maker of optimizer steps: it draws micro-batches, adds up gradients, clips them and applies AdamW.

    Args:
        network: the network to train.
        terms: parts of the loss.
        optim: the optimizer's settings.
        steps: total number of steps.
        seed: seed of dropout, mixed with the step and the rank.
        warn: called with a message for every skipped step.

    Attributes:
        optimizer: AdamW.
        skipped: number of steps that were not applied.
        in_a_row: number of skipped steps since the last applied one.
    """

    def __init__(
        self, network: Network, terms: Sequence[Term], optim: OptimConfig, *, steps: int, seed: int,
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        network.check_and_shard()
        self.network, self.terms, self.optim, self.runtime = network, terms, optim, network.runtime
        self._steps, self._seed, self._warn = steps, seed, warn
        # A source that several terms share is drawn from once, and named after the first of them.
        self.sources: dict[str, Source] = {
            term.name: term.source for term in {id(term.source): term for term in reversed(terms)}.values()
        }
        self.optimizer = make_optimizer(network, optim)
        self.skipped = self.in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of skipped steps, for a checkpoint; the loop saves the optimizer's state itself."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts that `state_dict` returned."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def take(self, step: int, check: Callable[[], None]) -> dict[str, float]:
        """Take step number `step` (from 0) and return its metrics by name, a row of metrics.jsonl.

        `check` is called between micro-batches and may raise StopRequested.

        Raises:
            StopRequested: from `check`, with weights and optimizer untouched.
            TrainingError: too many steps in a row had no finite loss or gradient.
        """
        # Dropout depends on the seed, the step and the rank only, so no generator state has to be saved.
        torch.manual_seed(mixed_seed(self._seed, step, self.runtime.rank))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches = {id(source): source.next(check) for source in self.sources.values()}
        rate = learning_rate(step, self._steps, self.optim)
        row: dict[str, float] = {"step": step + 1, "lr": rate}
        loss, accumulated = 0.0, list[tuple[Source, list[Batch], list[Tensor]]]()
        for term in self.terms:
            micro_batches = batches[id(term.source)]
            value, metrics, losses = self._accumulate(term, micro_batches, check)
            accumulated.append((term.source, micro_batches, losses))
            loss += term.weight * value
            row[f"{term.name}/loss"] = value
            row |= {f"{term.name}/{name}": number for name, number in metrics.items()}
        for name, source in self.sources.items():
            row |= {f"{name}/{key}": value for key, value in source.metrics().items()}
        row["loss"] = loss
        tokens = sum(batch.tokens for micro_batches in batches.values() for batch in micro_batches)
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
        self, term: Term, micro_batches: list[Batch], check: Callable[[], None]
    ) -> tuple[float, dict[str, float], list[Tensor]]:
        """Run a term's objective on its micro-batches and add its gradient to the parameters' gradients.

        Returns:
            The term's loss over all ranks, its metrics' means over the whole step, and the loss of each micro-batch of
            this rank.
        """
        (weight,) = self.runtime.global_sum(sum(float(batch.weights.sum()) for batch in micro_batches))
        accumulated = _Accumulated([], {}, {})
        for batch in micro_batches:
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
        means = {name: total / max(count, 1) for name, total, count in zip(names, sums, counts, strict=True)}
        return value, means, accumulated.losses

    def _clip(self) -> float:
        """Sum the gradients over ranks, scale them to the norm `optim.clip` at most, and return their norm before."""
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
        """Count a step that was not applied and warn, naming its data rows.

        Raises:
            TrainingError: `optim.bad_steps` steps in a row were skipped.
        """
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        rows = self._rows(accumulated)
        problem = f"step {step + 1}: the loss is {loss:.4g}, the gradient's norm {norm:.4g}"
        if self.in_a_row < self.optim.bad_steps:
            self._warn(f"{problem}; the step was left out. Rows: {rows}")
            return
        raise TrainingError(
            f"{problem}, and {self.in_a_row} steps in a row were left out (optim.bad_steps)\n"
            f"  rows: {rows}\n"
            f"  the weights are as they were, and checkpoints are untouched\n"
            f"  fix: look at these rows (trueup show); or, in another output folder, lower optim.lr (now "
            f"{self.optim.lr:g}) or set dtype=float32"
        )

    def _rows(self, accumulated: list[tuple[Source, list[Batch], list[Tensor]]]) -> str:
        """Return a text that names the data rows (file and line) of the micro-batches with a non-finite loss.

        If every loss is finite, and only a gradient is not, it names the rows of all micro-batches.
        """
        places: list[tuple[bool, str]] = []
        for source, micro_batches, losses in accumulated:
            for batch, loss in zip(micro_batches, losses, strict=True):
                is_bad = not math.isfinite(float(loss))
                places += [(is_bad, str(source.origin(row))) for row in batch.rows if row >= 0]
        all_places = self.runtime.gather(places)
        worst = [place for is_bad, place in all_places if is_bad] or [place for _, place in all_places]
        named = list(dict.fromkeys(worst))
        more = f", and {len(named) - _NAMED_ROWS} more" if len(named) > _NAMED_ROWS else ""
        return ", ".join(named[:_NAMED_ROWS]) + more
