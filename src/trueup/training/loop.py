"""`fit`: the training loop of all methods.

The loss is a sum of terms, each with a source of micro-batches and an objective (terms.py). Each optimizer step
(step.py) draws from every term's source, sums the terms' values over all micro-batches and all ranks, divides each
term by its *global* weight (the sum of its weights over all of them), and steps once. So neither the micro-batch size
nor the number of processes changes the gradient. Mixed-in data is a second term; PPO is a source that samples its
batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.config.paths import function_files
from trueup.errors import CheckpointError, Interrupted, TrueupError
from trueup.runs.checkpoint import Checkpoint, RunFolder, StateDict, latest_checkpoint, save_checkpoint
from trueup.runs.environment import changes_warning, record_surroundings, surroundings
from trueup.runs.state import ShardedRef
from trueup.runtime import copy_into, is_sharded, peak_memory_bytes
from trueup.system.interrupt import InterruptGuard, StopRequested
from trueup.training.optimizer import learning_rate
from trueup.training.step import Stepper
from trueup.training.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import StageConfig
    from trueup.models.network import Network
    from trueup.runs.loggers import Logger
    from trueup.system.console import Progress


@dataclass(slots=True)
class Fitted:
    """Result of a training loop: steps, tokens, seconds, peak memory, skipped steps, and the last logged metrics."""

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    stopped_early: bool = False
    skipped_steps: int = 0
    last: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, float | int | bool]:
        """Return the result as JSON values for summary.json, without the last metrics and with tokens per second."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "stopped_early": self.stopped_early,
            "skipped_steps": self.skipped_steps,
        }


class Fit:
    """State of one training loop: step, optimizer, sources and best evaluation. Call `fit`, which makes and runs it."""

    def __init__(
        self, network: Network, terms: list[Term], config: StageConfig, steps: int, run: RunFolder,
        *, evaluation: Evaluation | None, progress: Progress, loggers: Iterable[Logger], headline: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.network, self.terms, self.config, self.steps, self.run = network, terms, config, steps, run
        self.evaluation, self.progress, self.loggers, self.headline = evaluation, progress, list(loggers), headline
        self.runtime = network.runtime
        self.stepper = Stepper(network, terms, config.optim, steps=steps, seed=config.seed, warn=self._warn)
        self.sources = self.stepper.sources
        self.step = 0
        self.tokens = 0
        self.last: dict[str, float] = {}  # the last row of the log
        self.pending: dict[str, float] | None = None  # the row of a step that is not evaluated yet
        self.best: dict[str, Any] | None = None  # value, step, misses and weights of the best evaluation

    def _warn(self, text: str) -> None:
        if self.runtime.is_main:
            self.progress.warn(text)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, StateDict]:
        """Return everything that a resumed run depends on, as the parts of a checkpoint.

        The parts are "trainer", "weights", "optimizer" and "sources". Their tensors are live, not copies: write them at
        once.
        """
        moments = self.stepper.optimizer.state
        optimizer = {name: dict(moments[weight]) for name, weight in self.network.trainable() if weight in moments}
        return {
            "trainer": {
                "step": self.step,
                "tokens": self.tokens,
                "best": self.best,
                "last": self.last,
                "pending": self.pending,
                "stepper": self.stepper.state_dict(),
            },
            "weights": {name: value.detach() for name, value in self.network.trainable()},
            "optimizer": cast("StateDict", optimizer),
            "sources": {name: source.state_dict() for name, source in self.sources.items()},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set weights, optimizer, sources and step to those of a checkpoint.

        Raises:
            CheckpointError: its weights are not this model's.
        """
        trainer = cast("dict[str, Any]", checkpoint.part("trainer"))
        weights, moments = checkpoint.part("weights"), checkpoint.part("optimizer")
        parameters = dict(self.network.trainable())
        if set(parameters) != set(weights):
            name = sorted(set(parameters) ^ set(weights))[0]
            raise CheckpointError(
                f"{checkpoint.path}: its weights are not this model's ({name}); use another output folder"
            )
        reader = _TensorReader()
        for name, parameter in parameters.items():
            reader.into(parameter, weights[name])
            if name in moments:
                self.stepper.optimizer.state[parameter] = {
                    # Adam's step counter lives on the CPU; its moments are like the parameter.
                    key: value if key == "step" else reader.like(parameter, value)
                    for key, value in moments[name].items()
                }
        self.best = trainer["best"]
        if self.best is not None:
            # Whole weights stay on the CPU, as `_copy_aside` stores them.
            self.best["weights"] = {
                name: reader.like(parameters[name], value) if isinstance(value, ShardedRef) else value
                for name, value in self.best["weights"].items()
            }
        reader.finish(checkpoint)
        sources = cast("dict[str, StateDict]", checkpoint.part("sources"))
        for name, source in self.sources.items():
            source.load_state_dict(sources[name])
        self.pending = trainer["pending"]
        self.step, self.tokens, self.last = trainer["step"], trainer["tokens"], dict(trainer["last"])
        self.stepper.load_state_dict(trainer["stepper"])

    def save(self) -> None:
        """Write a checkpoint of the current step: every rank its part of sharded tensors, rank 0 the rest."""
        keep = [self.best["step"]] if self.config.save.keep_best and self.best is not None else []
        save_checkpoint(
            self.run, self.step, self.state(), keep_last=self.config.save.keep_last, keep=keep, where=self.runtime
        )

    # -- evaluation ----------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """True if the run stops early: the last `patience` evaluations were no better, or the newest one ends it."""
        if self.evaluation is None or self.best is None:
            return False
        patience = self.evaluation.patience
        return self.best.get("ended", False) or (patience is not None and self.best["misses"] >= patience)

    def evaluate(self) -> dict[str, float]:
        """Compute the evaluation's metrics and return them by name.

        If they are the best so far, remember step and weights.
        """
        plan = self.evaluation
        if plan is None:
            return {}
        self.network.eval()
        with torch.no_grad():
            # Rank 0's numbers count, so that all ranks stop at the same step even if a reward differs between them.
            numbers = self.runtime.gather([plan.compute(self.step)])[0]
        value = numbers[plan.metric] * (1 if plan.better == "lower" else -1)
        if self.best is None or _beats(value, self.best["value"]):
            kept = self.network.trainable() if plan.patience or plan.ends else ()
            weights = {name: _copy_aside(weight) for name, weight in kept}
            self.best = {"value": value, "step": self.step, "misses": 0, "weights": weights, "row": numbers}
        else:
            self.best["misses"] += 1
        if plan.ends is not None and plan.ends(numbers):
            self.best["ended"] = True
        return numbers

    def use_best(self) -> None:
        """Set the weights to those of the best evaluation, if early stopping kept them."""
        if self.best is not None and self.best["weights"]:
            for name, parameter in self.network.trainable():
                copy_into(parameter, self.best["weights"][name])

    def due(self, every: int | None) -> bool:
        """Return True if this step is the last one or a multiple of `every` (None: only the last one)."""
        return self.step == self.steps or (every is not None and self.step % every == 0)


class _TensorReader:
    """Reader that copies a checkpoint's tensors into live ones.

    Sharded tensors are collected and read together at the end.
    """

    def __init__(self) -> None:
        self._sharded: dict[str, Tensor] = {}

    def into(self, target: Tensor, value: Tensor | ShardedRef) -> None:
        """Copy a saved tensor into `target`; a sharded one is only noted, and `finish` fills it."""
        if isinstance(value, ShardedRef):
            self._sharded[value.name] = target.detach()
        else:
            copy_into(target, value)

    def like(self, parameter: Tensor, value: Tensor | ShardedRef) -> Tensor:
        """Return a saved tensor on the parameter's device, with the parameter's dtype and sharding."""
        target = torch.zeros_like(parameter.detach())
        self.into(target, value)
        return target

    def finish(self, checkpoint: Checkpoint) -> None:
        """Fill all collected sharded tensors from the checkpoint; every rank has to call."""
        checkpoint.read_sharded(self._sharded)


def _beats(value: float, best: float) -> bool:
    """Return True if a measurement (lower is better) is better than the best so far; any number beats a NaN."""
    return value < best or (math.isnan(best) and not math.isnan(value))


def _copy_aside(weight: Tensor) -> Tensor:
    """Return a copy of a weight, on the CPU unless it is sharded."""
    copied = weight.detach().clone()
    return copied if is_sharded(copied) else copied.cpu()


def fit(
    network: Network, terms: list[Term], *, config: StageConfig, steps: int, run: RunFolder, progress: Progress,
    evaluation: Evaluation | None = None, loggers: Iterable[Logger] = (), headline: tuple[str, ...] = ("loss",),
    resume_command: str = "",
) -> Fitted:  # fmt: skip
    """Train until `steps`, from the newest complete checkpoint of the run folder if there is one.

    Args:
        network: the model with its roles added; all parameters of `network.trainable()` are optimized.
        terms: parts of the loss; a source is saved under the name of the first term that uses it.
        config: the stage's configuration: optimizer, seed, checkpoints.
        steps: total number of optimizer steps.
        run: folder for metrics.jsonl (deterministic numbers only), timing.jsonl and checkpoints.
        progress: the live display.
        evaluation: measurement made before the first step (as step 0), every `evaluation.every` steps and at the end.
        loggers: experiment trackers, such as TensorBoard.
        headline: names of the metrics that the live display shows.
        resume_command: command printed when the run is stopped, to continue it.

    Raises:
        TrainingError: too many steps in a row had no finite loss or gradient.
        Interrupted: Ctrl-C or SIGTERM; the current step is saved first. On the CPU a resumed run gives the same bits
            as an uninterrupted one; on a GPU only if its kernels are deterministic.
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
        # A single process may also stop inside an evaluation or a rollout; of several, none may leave the others.
        network.check_stop = guard.check if state.runtime.world == 1 else _never
        while state.pending is not None or (state.step < steps and not state.exhausted):
            before = _Position(state)
            try:
                _one_step(state, guard)
            except StopRequested as error:
                if state.pending is None:  # else the step is complete, and only its evaluation is missing
                    before.rewind()
                state.save()
                raise _stopped(state, resume_command) from error
        if _stop_requested(state, guard):  # during the last step, which is saved: skip export and later stages
            raise _stopped(state, resume_command)
    if state.best is not None and state.best["weights"] and state.best["misses"]:
        state.use_best()
        state.last |= {f"eval/{name}": value for name, value in state.best["row"].items()}
        progress.note(f"the weights are those of step {state.best['step']}, the best evaluation")
    if state.exhausted:
        metric = evaluation.metric if evaluation else ""
        reason = "has clearly fallen" if state.best is not None and state.best.get("ended") else "no longer improves"
        progress.note(f"stopped early at step {state.step}: {metric} {reason}")
    seconds = time.perf_counter() - started
    progress.stop()
    memory = peak_memory_bytes(state.runtime.device)
    skipped = state.stepper.skipped
    return Fitted(state.step, state.tokens - first_tokens, seconds, memory, state.exhausted, skipped, state.last)


def _resume(state: Fit) -> bool:
    """Resume from the newest complete checkpoint and cut the logs back to its step.

    Return True if there is a checkpoint.
    """
    run, progress = state.run, state.progress
    # Rank 0 holds the lock, clears leftovers, and reads every byte.
    checkpoint = state.runtime.from_first(lambda: latest_checkpoint(run))
    checkpoint = replace(checkpoint, where=state.runtime) if checkpoint is not None else None
    if checkpoint is not None:
        for message in checkpoint.skipped:
            state._warn(message)
        _restore(state, checkpoint)
        progress.note(f"resuming from step {state.step} of {state.steps}")
        if run.finished_at is not None:
            progress.note(_extended(run.finished_at, state.steps, state.config))
    if state.runtime.is_main:
        # A step that is not evaluated yet has no row; a row from an earlier try would be written twice. Its answers
        # were sampled, and are not sampled again.
        recorded = state.step if state.pending is None else state.step - 1
        if checkpoint is None:
            run.truncate_metrics(-1)
        else:
            run.truncate_metrics(recorded, sampled=state.step)
        _record_surroundings(state)
    state.runtime.barrier()
    return checkpoint is not None


def _extended(before: int, steps: int, config: StageConfig) -> str:
    """Return what a run that goes on after its end has in common with one that had all `steps` from the start."""
    optim = config.optim
    first = next(
        (at for at in range(before) if learning_rate(at, before, optim) != learning_rate(at, steps, optim)), None
    )
    if first is None:
        return f"the run had finished at step {before}; its weights will be those of a run of {steps} steps"
    return (
        f"the run had finished at step {before}; a run of {steps} steps from the start has other learning rates from "
        f"step {first + 1} on (optim.schedule: {optim.schedule}, optim.warmup: {optim.warmup:g}), so its weights differ"
    )


def _restore(state: Fit, checkpoint: Checkpoint) -> None:
    try:
        state.restore(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, TrueupError | torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{checkpoint.path}: what it holds is not what this run saves ({type(error).__name__}: {reason})\n"
            "  fix: remove it, and the run goes on from the one before; or use another output folder"
        ) from error


def _record_surroundings(state: Fit) -> None:
    """Record device, versions and other surroundings that the bits depend on.

    Warn if they changed since the run began.
    """
    runtime = state.runtime
    attention = getattr(state.network.trunks["base"].config, "_attn_implementation", None)
    now = surroundings(
        runtime.device, runtime.dtype, world=runtime.world, strategy=runtime.strategy,
        attention=cast("str | None", attention),
    )  # fmt: skip
    now |= function_files(state.config)
    if changed := record_surroundings(state.run.path, state.step, now):
        state.progress.warn(changes_warning(changed))


def _one_step(state: Fit, guard: InterruptGuard) -> None:
    """Train one step, then evaluate and save if due. If the run was stopped during an evaluation, only evaluate."""
    clock = time.perf_counter()
    if state.pending is None:
        row = state.stepper.take(state.step, _agreed_check(state, guard))
        state.step += 1
        state.tokens += int(row["tokens"])
        state.pending = row
    row, numbers = state.pending, dict[str, float]()
    if state.evaluation is not None and state.due(state.evaluation.every):
        numbers = state.evaluate()
    state.pending = None
    _record(state, row, numbers, time.perf_counter() - clock)
    best_now = bool(numbers) and state.best is not None and state.best["step"] == state.step
    if state.exhausted or state.due(state.config.save.every) or (state.config.save.keep_best and best_now):
        state.save()


def _never() -> None:
    """Do nothing: the stop check of runs with several processes, which may not stop inside a step."""


def _agreed_check(state: Fit, guard: InterruptGuard) -> Callable[[], None]:
    """Return the stop check to call during the step; it raises StopRequested when a stop was requested.

    A single process may stop anywhere. Several must stop before the same step, or some would wait for ever for the
    gradients of the one that left, so their check does nothing.

    Raises:
        StopRequested: a process was asked to stop already.
    """
    if state.runtime.world == 1:
        guard.check()
        return guard.check
    if _stop_requested(state, guard):
        raise StopRequested
    return _never


def _stop_requested(state: Fit, guard: InterruptGuard) -> bool:
    """Return True if any process was asked to stop; every rank must call this."""
    return state.runtime.global_sum(float(guard.requested))[0] > 0


def _stopped(state: Fit, resume_command: str) -> Interrupted:
    return Interrupted(f"stopped at step {state.step} of {state.steps}, saved. Go on with: {resume_command}")


class _Position:
    """Saved positions of all sources before a step, so that a step that was stopped half-way can be repeated."""

    def __init__(self, state: Fit) -> None:
        self._state = state
        self._sources = {name: source.state_dict() for name, source in state.sources.items()}

    def rewind(self) -> None:
        for name, source in self._state.sources.items():
            source.load_state_dict(self._sources[name])


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
        headline = {name: row[name] for name in state.headline if name in row}
        state.progress.update(int(row["step"]), headline, rate)
