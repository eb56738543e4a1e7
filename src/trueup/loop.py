"""`fit`: the training loop, the one all four stages share.

Each optimizer step draws from every term's source, sums the terms' values over all micro-batches and all ranks, divides
each term by its *global* weight, and steps once. So neither the micro-batch size nor the number of processes changes
the gradient. Mixing is a second term; PPO is a source whose batches happen to be sampled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.batching import Batch
from trueup.checkpoint import Checkpoint, RunFolder, State, latest_checkpoint, save_checkpoint
from trueup.errors import CheckpointError, Interrupted, TrainingError
from trueup.interrupt import InterruptGuard, StopRequested
from trueup.optimizer import learning_rate, make_optimizer
from trueup.runtime import peak_memory_bytes, rng_state, set_rng_state
from trueup.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import StageConfig
    from trueup.console import Progress
    from trueup.loggers import Logger
    from trueup.models import Network


@dataclass(slots=True)
class Fitted:
    """What a finished run reports."""

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    stopped_early: bool = False
    last: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, float | int | bool]:
        """JSON-able, for summary.json."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "stopped_early": self.stopped_early,
        }


class Fit:
    """The state of one run of the loop. Use `fit`."""

    def __init__(
        self, network: Network, terms: list[Term], config: StageConfig, steps: int, run: RunFolder,
        *, evaluation: Evaluation | None, progress: Progress, loggers: Iterable[Logger], headline: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.network, self.terms, self.config, self.steps, self.run = network, terms, config, steps, run
        self.evaluation, self.progress, self.loggers, self.headline = evaluation, progress, list(loggers), headline
        self.runtime = network.runtime
        self.sources = {term.name: term.source for term in {id(term.source): term for term in reversed(terms)}.values()}
        self.optimizer = make_optimizer(network, config.optim)
        self.names = {id(parameter): name for name, parameter in network.trainable()}
        self.step = 0
        self.tokens = 0
        self.last: dict[str, float] = {}  # the last row of the log
        self.pending: dict[str, float] | None = None  # a step's row whose evaluation is still to come
        self.best: dict[str, Any] | None = None  # value, step, misses and weights of the best evaluation

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, State]:
        """Everything that decides how the run goes on. The tensors are the live ones: write them at once."""
        optimizer = {self.names[id(one)]: dict(values) for one, values in self.optimizer.state.items()}
        return {
            "trainer": {
                "step": self.step,
                "tokens": self.tokens,
                "best": self.best,
                "last": self.last,
                "pending": self.pending,
                "rng": dict(rng_state()),
            },
            "weights": {name: value.detach() for name, value in self.network.trainable()},
            "optimizer": cast("State", optimizer),
            "sources": {name: source.state_dict() for name, source in self.sources.items()},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was taken."""
        trainer = cast("dict[str, Any]", checkpoint.part("trainer"))
        weights = cast("dict[str, Tensor]", checkpoint.part("weights"))
        moments = cast("dict[str, dict[str, Tensor]]", checkpoint.part("optimizer"))
        mine = dict(self.network.trainable())
        if set(mine) != set(weights):
            odd = sorted(set(mine) ^ set(weights))[0]
            raise CheckpointError(
                f"{checkpoint.path}: its weights are not this model's ({odd}); use another output folder"
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(weights[name])
                if name in moments:
                    device = parameter.device
                    self.optimizer.state[parameter] = {
                        # Adam's step counter lives on the CPU; its moments beside the parameter.
                        key: value if key == "step" else value.to(device)
                        for key, value in moments[name].items()
                    }
        sources = cast("dict[str, State]", checkpoint.part("sources"))
        for name, source in self.sources.items():
            source.load_state_dict(sources[name])
        self.pending = trainer["pending"]
        self.step, self.tokens, self.best = trainer["step"], trainer["tokens"], trainer["best"]
        self.last = dict(trainer["last"])
        set_rng_state(trainer["rng"])

    def save(self) -> None:
        """Write a checkpoint of the current step (rank 0 writes: every rank holds the same state)."""
        if self.runtime.is_main:
            save_checkpoint(self.run, self.step, self.state(), keep_last=self.config.save.keep_last)
        self.runtime.barrier()

    # -- one step ------------------------------------------------------------------------------------------------

    def train_step(self, check: Callable[[], None]) -> dict[str, float]:
        """One optimizer step. Raises `StopRequested` from `check` with weights and optimizer untouched."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches = {id(source): source.next(check) for source in self.sources.values()}
        rate = learning_rate(self.step, self.steps, self.config.optim)
        row: dict[str, float] = {"step": self.step + 1, "lr": rate}
        loss, seen = 0.0, 0
        for term in self.terms:
            micro = batches[id(term.source)]
            value, metrics = self._accumulate(term, micro, check)
            loss += term.weight * value
            row[f"{term.name}/loss"] = value
            row |= {f"{term.name}/{name}": number for name, number in metrics.items()}
        for source in self.sources.values():
            seen += sum(batch.tokens for batch in batches[id(source)])
        row |= {
            f"{name}/{key}": value for name, source in self.sources.items() for key, value in source.metrics().items()
        }
        row["loss"] = loss
        row["tokens"] = round(self.runtime.global_sum(seen)[0])  # whole on any number of processes
        row["grad_norm"] = self._update(rate)
        return row

    def _accumulate(self, term: Term, micro: list[Batch], check: Callable[[], None]) -> tuple[float, dict[str, float]]:
        """Add a term's gradient; returns its loss and its metrics' means over the whole step."""
        (total_weight,) = self.runtime.global_sum(sum(float(batch.weights.sum()) for batch in micro))
        totals: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        device = self.runtime.device
        value_sum = torch.zeros((), device=device)
        for batch in micro:
            check()
            moved = batch.to(device)
            values, metrics = term.objective(self.network, moved)
            loss = (values * moved.weights).sum() / max(total_weight, 1e-12)
            (loss * term.weight).backward()
            value_sum += loss.detach()
            for name, metric in metrics.items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + metric.detach().float().sum()
                counts[name] = counts.get(name, 0) + metric.numel()
        names = sorted(totals)
        flat = [float(value_sum), *(float(totals[name]) for name in names), *(float(counts[name]) for name in names)]
        if self.runtime.world > 1:
            names = sorted(set(self.runtime.gather(names)))
            flat = [float(value_sum), *(float(totals.get(name, 0.0)) for name in names)]
            flat += [float(counts.get(name, 0)) for name in names]
            flat = self.runtime.global_sum(*flat)
        sums, numbers = flat[1 : 1 + len(names)], flat[1 + len(names) :]
        return flat[0], {name: one / max(count, 1) for name, one, count in zip(names, sums, numbers, strict=True)}

    def _update(self, rate: float) -> float:
        """Sum gradients over ranks, clip, step. Returns the gradient norm before clipping."""
        parameters = [parameter for _, parameter in self.network.trainable()]
        self.runtime.sum_gradients(parameters)
        limit = self.config.optim.clip
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {self.step + 1}: the gradient norm is {norm}; the last checkpoint is untouched. "
                f"Lower optim.lr (now {self.config.optim.lr}), or use dtype=float32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return norm

    # -- evaluation ----------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations have brought nothing better: the run stops early."""
        patience = self.evaluation.patience if self.evaluation is not None else None
        return patience is not None and self.best is not None and self.best["misses"] >= patience

    def evaluate(self) -> dict[str, float]:
        """Run the evaluation, remember the best one; returns its numbers."""
        plan = self.evaluation
        if plan is None:
            return {}
        self.network.eval()
        with torch.no_grad():
            # Rank 0's numbers count: were a reward to answer differently elsewhere, the ranks would stop apart.
            numbers = self.runtime.gather([plan.compute(self.step)])[0]
        value = numbers[plan.metric] * (1 if plan.better == "lower" else -1)
        if self.best is None or not value >= self.best["value"]:  # `not >=`: a NaN is beaten by anything
            weights = (
                {name: one.detach().clone().cpu() for name, one in self.network.trainable()} if plan.patience else {}
            )
            self.best = {"value": value, "step": self.step, "misses": 0, "weights": weights, "row": numbers}
        else:
            self.best["misses"] += 1
        return numbers

    def use_best(self) -> None:
        """Put back the weights of the best evaluation, if early stopping kept them."""
        if self.best is not None and self.best["weights"]:
            with torch.no_grad():
                for name, parameter in self.network.trainable():
                    parameter.copy_(self.best["weights"][name])

    def due(self, every: int | None) -> bool:
        """Whether something done every so many steps is due now; the last step always counts."""
        return self.step == self.steps or (every is not None and self.step % every == 0)


def fit(
    network: Network, terms: list[Term], *, config: StageConfig, steps: int, run: RunFolder, progress: Progress,
    evaluation: Evaluation | None = None, loggers: Iterable[Logger] = (), headline: tuple[str, ...] = ("loss",),
    resume_command: str = "",
) -> Fitted:  # fmt: skip
    """Train until `steps`, from the newest complete checkpoint of the run folder if there is one.

    Args:
        network: roles built; whatever `network.trainable()` lists is optimized.
        terms: parts of the loss; sources are saved and restored by the name of the first term that uses them.
        config: the stage's `optim` and `save` sections are used.
        steps: optimizer steps in all.
        run: receives metrics.jsonl (deterministic numbers only), timing.jsonl and checkpoints.
        progress: the live view.
        evaluation: computed before the first step (as step 0), every so many steps, and at the end.
        loggers: TensorBoard and the like.
        headline: metrics shown live.
        resume_command: told to the user on Ctrl-C.

    Raises:
        TrainingError: the loss or its gradient is not finite.
        Interrupted: Ctrl-C or SIGTERM; the current step is saved first. A resumed run goes on bit for bit on the CPU;
            on a GPU as far as its kernels repeat themselves.
    """
    state = Fit(
        network, terms, config, steps, run, evaluation=evaluation, progress=progress, loggers=loggers, headline=headline
    )
    resumed = _resume(state)
    if not resumed and evaluation is not None and evaluation.at_start:
        _record(state, {"step": 0}, state.evaluate(), 0.0)
    progress.start(run.path.name, steps, state.step)
    started, first_tokens = time.perf_counter(), state.tokens
    with InterruptGuard(progress.note) as guard:
        # One process may be stopped inside an evaluation or a rollout too; of several, none may leave the others there.
        network.check = guard.check if state.runtime.world == 1 else _never
        while state.pending is not None or (state.step < steps and not state.exhausted):
            before = _Position(state)
            try:
                _one_step(state, guard)
            except StopRequested as error:
                if state.pending is None:  # else the step itself was done
                    before.rewind()
                state.save()
                raise Interrupted(
                    f"stopped at step {state.step} of {steps}, saved. Go on with: {resume_command}"
                ) from error
    if state.best is not None and state.best["weights"] and state.best["misses"]:
        state.use_best()
        state.last |= {f"eval/{name}": value for name, value in state.best["row"].items()}
        progress.note(f"the weights are those of step {state.best['step']}, the best evaluation")
    if state.exhausted:
        progress.note(
            f"stopped early at step {state.step}: {evaluation.metric if evaluation else ''} no longer improves"
        )
    seconds = time.perf_counter() - started
    progress.stop()
    memory = peak_memory_bytes(state.runtime.device)
    return Fitted(state.step, state.tokens - first_tokens, seconds, memory, state.exhausted, state.last)


def _resume(state: Fit) -> bool:
    """Go on from the newest complete checkpoint, the logs cut back to it. Returns whether there was one."""
    run, progress = state.run, state.progress
    # Rank 0 holds the lock and clears leftovers; the others look when it is done.
    checkpoint = latest_checkpoint(run) if state.runtime.is_main else None
    state.runtime.barrier()
    if not state.runtime.is_main:
        checkpoint = latest_checkpoint(run)
    if checkpoint is not None:
        for message in checkpoint.skipped:
            progress.warn(message)
        state.restore(checkpoint)
        progress.note(f"resuming from step {state.step} of {state.steps}")
    if state.runtime.is_main:
        # A step whose evaluation is still to come has no row yet; one from an earlier try would come twice.
        recorded = state.step if state.pending is None else state.step - 1
        run.truncate_metrics(-1 if checkpoint is None else recorded)
    state.runtime.barrier()
    return checkpoint is not None


def _one_step(state: Fit, guard: InterruptGuard) -> None:
    """Train one step, evaluate and save if due. Stopped in the evaluation, it is only evaluated when it goes on."""
    clock = time.perf_counter()
    if state.pending is None:
        row = state.train_step(_agreed_check(state, guard))
        state.step += 1
        state.tokens += int(row["tokens"])
        state.pending = row
    row, numbers = state.pending, dict[str, float]()
    if state.evaluation is not None and state.due(state.evaluation.every):
        numbers = state.evaluate()
    state.pending = None
    _record(state, row, numbers, time.perf_counter() - clock)
    if state.exhausted or state.due(state.config.save.every):
        state.save()


def _never() -> None:
    """Stops nothing."""


def _agreed_check(state: Fit, guard: InterruptGuard) -> Callable[[], None]:
    """Raises StopRequested now if any process was asked to stop; returns what may stop the step half-way.

    One process may stop anywhere. Several have to stop before the same step: one that left in the middle of it would
    leave the others waiting for its gradients for ever.
    """
    if state.runtime.world == 1:
        guard.check()
        return guard.check
    if state.runtime.global_sum(float(guard.requested))[0] > 0:
        raise StopRequested
    return lambda: None


class _Position:
    """Sources and generators at the start of a step, so that a step stopped half-way can be taken again from there."""

    def __init__(self, state: Fit) -> None:
        self._state = state
        self._sources = {name: source.state_dict() for name, source in state.sources.items()}
        self._rng = rng_state()

    def rewind(self) -> None:
        for name, source in self._state.sources.items():
            source.load_state_dict(self._sources[name])
        set_rng_state(self._rng)


def _record(state: Fit, row: dict[str, float], numbers: dict[str, float], seconds: float) -> None:
    state.last = row = row | {f"eval/{name}": value for name, value in numbers.items()}
    if not state.runtime.is_main:
        return
    if len(row) > 1:
        state.run.append_metrics(row)
    for logger in state.loggers:
        logger.log(int(row["step"]), {name: value for name, value in row.items() if name != "step"})
    if "tokens" in row:
        rate = row["tokens"] / max(seconds, 1e-9)
        state.run.append_timing(
            {"step": row["step"], "seconds": round(seconds, 4), "tokens_per_second": round(rate, 1)}
        )
        shown = {name: row[name] for name in state.headline if name in row}
        state.progress.update(int(row["step"]), shown, rate)
