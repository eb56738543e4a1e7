"""Steps that all recipes share around `fit`: check the data, open the run folder, export, write the summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file

from trueup import runtime
from trueup.config import DpoConfig, PpoConfig, StageConfig, to_yaml
from trueup.data.sources.reader import store_events
from trueup.data.tokens.prepare import Prepared
from trueup.data.tokens.sampler import Sampler
from trueup.data.tokens.select import Examples
from trueup.errors import CheckpointError, ConfigError, LostPeerError, ModelError, TrainingError, TrueupError
from trueup.evaluation.outcome import outcome
from trueup.evaluation.watch import Alarm, read_history
from trueup.export import export_adapter, export_policy
from trueup.export.merging import MAX_MERGE_LOSS, merge_kept_share
from trueup.export.proof import record_outputs
from trueup.models.adapters import reach
from trueup.models.batching import Example, Per
from trueup.models.family import check_family
from trueup.models.forward import check_causal, check_lm_head, check_training_mode
from trueup.models.loading import load_network, load_renderer
from trueup.models.weights import bit_sum
from trueup.preflight.check import prepare_checked
from trueup.preflight.functions import check_functions, check_rewards
from trueup.preflight.models import check_models
from trueup.runs.folder import RunFolder
from trueup.runs.loggers import Logger, open_loggers
from trueup.runtime import local_tensor, lost_peer_message
from trueup.system.console import Progress, quiet_libraries
from trueup.system.files import atomic_write_text, explain_disk_errors, is_disk_full
from trueup.system.text import excerpt
from trueup.training import objectives
from trueup.training.loop import Fitted, fit
from trueup.training.terms import Evaluation, RowSource, Term

if TYPE_CHECKING:
    from trueup.models.network import Network
from trueup.system.commandline import resume_command

StageConfigT = TypeVar("StageConfigT", bound=StageConfig)


@dataclass(slots=True)
class Stage:
    """One open training stage: its configuration, locked run folder, network, prepared data and loggers."""

    config: StageConfig
    run: RunFolder
    network: Network
    progress: Progress
    prepared: Prepared
    loggers: list[Logger] = field(default_factory=list)
    checked: bool = False
    """True once `check_model` has passed."""
    start: list[list[int]] | None = None
    """Checksums of the weights that train, as they were before the first step: a list for each process."""

    @property
    def data(self) -> dict[str, dict[str, Any]]:
        """Counts of rows read, used and left out, by name, for each data section of the configuration."""
        return self.prepared.counts

    # -- data ----------------------------------------------------------------------------------------------------

    @property
    def train(self) -> Examples:
        """Training rows as examples; for PPO, the prompts."""
        return self.prepared.train

    @property
    def held_out(self) -> Examples | None:
        """Held-out rows for evaluation as examples; None if the configuration has none."""
        return self.prepared.held_out

    def steps(self, epoch: int) -> int:
        """Return the number of optimizer steps: `optim.steps`, or that of `optim.epochs` epochs of `epoch` rows."""
        optim = self.config.optim
        return optim.steps if optim.steps is not None else optim.epochs * math.ceil(epoch / optim.batch_size)

    def sampler(self, rows: int | None = None, batch_size: int | None = None) -> Sampler:
        """Return a sampler that draws the row numbers of each optimizer step, shuffled with the stage's seed.

        Args:
            rows: number of rows to draw from; by default all training rows, with the weights of their data sections.
            batch_size: rows of a step; by default `optim.batch_size`.
        """
        sizes = [len(rows) for rows in self.train.rows] if rows is None else [rows]
        weights = self.prepared.weights if rows is None else (1.0,)
        size = batch_size or self.config.optim.batch_size
        return Sampler(sizes, size, self.config.seed, weights=weights)

    def source(
        self, examples: Sequence[Example], per: Per, *, sampler: Sampler, origin: Callable[[int], object] | None = None
    ) -> RowSource:
        """Return a source of micro-batches that yields the examples in the sampler's order.

        Args:
            examples: the rows.
            per: unit that has a weight, see `collate`.
            sampler: draws row numbers.
            origin: returns the file and line of a row number, for messages; by default that of the training rows.
        """
        return RowSource(
            examples, sampler, self.network, per=per, max_tokens=self.config.max_tokens,
            origin=origin or self.train.origin,
        )  # fmt: skip

    def mix_terms(self) -> list[Term]:
        """Return a list with the loss term of SFT on the data of `mix` (PPO-ptx, rehearsal).

        The list is empty if `mix` is not configured.
        """
        mix, examples = self.config.mix, self.prepared.mix
        if mix is None or examples is None:
            return []
        sampler = self.sampler(len(examples), mix.batch_size)
        source = self.source(examples, "token", sampler=sampler, origin=examples.origin)
        return [Term("mix", source, objectives.sft, mix.weight)]

    # -- training and after --------------------------------------------------------------------------------------

    def fit(
        self, terms: list[Term], steps: int, *, evaluation: Evaluation | None = None, headline: tuple[str, ...]
    ) -> Fitted:
        """Check the model, write data.json, and train with `loop.fit`, whose arguments these are.

        Raises:
            ConfigError: the warm-up is longer than the training.
        """
        if problem := self.config.optim.warmup_problem(steps):
            raise ConfigError(f"optim.warmup: {problem}")
        if not self.checked:
            self.check_model()
        text = json.dumps(self.data, indent=2) + "\n"
        self.network.runtime.from_first(lambda: atomic_write_text(self.run.path / "data.json", text))
        self.network.check_and_shard()
        self.start = self.network.runtime.gather([self._weight_sums()])
        return fit(
            self.network, terms, config=self.config, steps=steps, run=self.run, progress=self.progress,
            evaluation=evaluation, loggers=self.loggers, headline=headline, resume_command=resume_command(),
        )  # fmt: skip

    def check_model(self) -> None:
        """Check that trueup computes what the model computes, in training too, and say what its adapters reach.

        Call it when all roles are added, before the first forward pass.

        Raises:
            ModelError: the model is no causal language model, has no plain LM head, or its own dropout is on.
        """
        if "policy" in self.network.roles:
            check_lm_head(self.network)
        check_causal(self.network)
        check_training_mode(self.network)
        self._note_reach()
        self.checked = True

    def _note_reach(self) -> None:
        """Print which matrices the adapters do not reach, with the share of the weights that they do reach."""
        for role in self.network.trained_roles:
            if (adapter := self.network.roles[role].adapter) is None:
                continue
            share, missed = reach(self.network.trunk(role), adapter)
            if missed:
                names = f"{', '.join(missed[:3])}{' and others' if len(missed) > 3 else ''}"
                self.progress.note(
                    f"lora: the adapters of {role} reach {share:.0%} of the weights; {names} stay as they are"
                )

    def finish(
        self, fitted: Fitted, role: str, export: Callable[[Network, Path], None] = export_policy
    ) -> dict[str, Any]:
        """Export the trained role and write summary.json, which marks the stage as finished; return the summary.

        Args:
            fitted: result of the training loop.
            role: the trained role, "policy" or "reward".
            export: function that writes the role as a model folder.
        """
        alarms = self.network.runtime.from_first(lambda: self._outcome(fitted.steps))
        summary = {
            "method": self.config.method, **fitted.summary(), "last": fitted.last, "data": self.data, "outcome": alarms,
        }  # fmt: skip
        # Without the old summary, a run that is killed during a new export does not count as finished.
        processes = self.network.runtime
        processes.from_first(lambda: self.run.summary_path.unlink(missing_ok=True))
        with explain_disk_errors(f"cannot write {self.run.path}", self.run.path), self._explain_failed_export():
            self._export(role, export)
        self._check_output(role, fitted)
        processes.from_first(lambda: self.run.write_summary(summary))
        for alarm in alarms:
            self.progress.warn(f"{alarm['name']}: {alarm['message']}; {alarm['fix']}")
        return summary

    def _outcome(self, step: int) -> list[dict[str, Any]]:
        """Return the warnings about the training as a whole, such as that nothing moved, as alarms at its last step."""
        config, run = self.config, self.run
        history = read_history(run.watch_path) if run.watch_path.is_file() else []
        # Without a reference a margin does not start at 0, so the log does not say if it rose.
        without = isinstance(config, DpoConfig) and not config.loss.needs_reference
        rows = [] if without else run.read_metrics()
        texts = outcome(
            config.method, rows, history,
            beta=float(config.loss.params.get("beta") or 1.0) if isinstance(config, DpoConfig) else 1.0,
            kl_target=config.kl.target if isinstance(config, PpoConfig) else None,
        )  # fmt: skip
        return [asdict(Alarm(step, *text)) for text in texts]

    @contextmanager
    def _explain_failed_export(self) -> Iterator[None]:
        """Turn any other error inside the context into a ModelError that says where the trained weights are.

        The last checkpoint holds them, so that the same command goes on with the export alone.
        """
        try:
            yield
        except Exception as error:
            lost = isinstance(error, OSError | MemoryError | torch.OutOfMemoryError | LostPeerError)
            if lost or is_disk_full(error) or lost_peer_message(error):
                raise
            checkpoint = max(self.run.checkpoints.glob("step-*"), default=self.run.checkpoints)
            adapter = f", the adapter is in {self.run.adapter_path}" if self.run.adapter_path.is_dir() else ""
            reason = str(error) if isinstance(error, TrueupError) else f"{type(error).__name__}: {error}"
            reason = excerpt(" ".join(reason.split()), 300)[1:-1]
            raise ModelError(
                f"the training is done, but its model cannot be written: {reason}\n"
                f"  the trained weights are in {checkpoint}{adapter}\n"
                "  fix: remove the cause, or take another version of transformers; then the same command writes the "
                f"model without training again: {resume_command()}"
            ) from error

    def _check_output(self, role: str, fitted: Fitted) -> None:
        """Check that the trained model computes numbers, and others than the one it started from.

        Raises:
            TrainingError: weights or outputs are NaN or infinite, or no weight has changed. The run folder is kept.
        """
        network, lr = self.network, self.config.optim.lr
        bad = [name for name, weight in network.trainable() if not bool(local_tensor(weight).isfinite().all())]
        if network.runtime.is_main:
            outputs = load_file(self.run.outputs_path)
            bad += [f"output {name}" for name, values in outputs.items() if not bool(values.isfinite().all())]
        bad, sums = network.runtime.gather(bad), network.runtime.gather([self._weight_sums()])
        if bad:
            raise TrainingError(
                f"the trained model holds NaN or infinity ({', '.join(bad[:2])}; {len(bad)} in all); it is kept in "
                f"{self.run.path}\n  fix: in another output folder, lower optim.lr (now {lr:g}) or set dtype=float32"
            )
        if sums == self.start:
            raise TrainingError(
                f"after {fitted.steps} steps no weight of the {role} differs from the model that it started from; it "
                f"is kept in {self.run.path}\n  fix: in another output folder, raise optim.lr (now {lr:g}) or train "
                "longer; with eval.patience or watch.stop=best-gold the best measurement may have been the one before "
                "the first step"
            )

    def _weight_sums(self) -> list[int]:
        """Return a checksum of each trained tensor; of a sharded one, of this process's part."""
        return [bit_sum(local_tensor(weight)) for _, weight in self.network.trainable()]

    def _export(self, role: str, export: Callable[[Network, Path], None]) -> None:
        config = self.config
        if config.lora is not None:  # before the model, which may fail to take the adapter in
            export_adapter(self.network, self.run.adapter_path, config.lora, role=role, base=config.model)
        # Every rank takes part, since each may hold only a part of the weights; rank 0 writes.
        record_outputs(self.network, role, self.train, self.run.outputs_path, prompt=self.train.prompt)
        self.progress.note(f"writing {self.run.model_path}")
        if abs(merge_kept_share(self.network, role) - 1) > MAX_MERGE_LOSS:
            self.progress.note("model/ is float32: rounding to bfloat16 would undo part of the training")
        export(self.network, self.run.model_path)


@contextmanager
def open_stage(config: StageConfig) -> Iterator[Stage]:
    """Lock the run folder, check the data, load the model and open the loggers; close everything after the context.

    Raises:
        CheckpointError: the folder is in use, or holds a run of another configuration.
        ConfigError: a function of the configuration cannot be used, or a family cannot be trained so.
        DataError: the data has errors.
        ModelError: the model cannot be used.
    """
    quiet_libraries()
    processes = runtime.init(config.device, config.dtype, config.threads, config.strategy)
    check_functions(config, processes.device)
    check_family(config)
    runtime.seed_everything(config.seed)
    runtime.reset_peak_memory(processes.device)
    progress = Progress(quiet=not processes.is_main)
    config = with_begun_lr(config, processes, progress.note)
    check_models(config, progress)
    run = _run_folder(config, processes)
    loggers: list[Logger] = []
    try:
        renderer = load_renderer(config)
        stores = processes.from_first(lambda: store_events(data.path for _, data in config.data_sections))
        prepared = runtime.first_then_all(
            processes, lambda: prepare_checked(config, renderer, progress, run, stores, report=processes.is_main)
        )
        processes.from_first(lambda: check_rewards(config, prepared.train, prepared.held_out, prepared.columns))
        runtime.seed_everything(config.seed)  # a user's functions may have drawn numbers
        dtype = str(processes.dtype).removeprefix("torch.")
        progress.note(f"{config.method}: loading {config.model} on {processes.device} in {dtype}")
        network = load_network(config, processes, renderer)
        network.longest = prepared.longest + (config.rollouts.max_new_tokens if isinstance(config, PpoConfig) else 0)
        if processes.is_main:
            saved = [int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")]
            loggers = open_loggers(
                config.log, run.path, config.model_dump(mode="json"), start_step=max(saved, default=0)
            )
        yield Stage(config, run, network, progress, prepared, loggers)
    finally:
        progress.stop()
        for logger in loggers:
            logger.close()
        run.close()


def with_begun_lr(
    config: StageConfigT, processes: runtime.Runtime, note: Callable[[str], None] = lambda _: None
) -> StageConfigT:
    """Return the configuration with the learning rate of the run in its folder, if it gives none of its own.

    So a run that an earlier version began with another default resumes with its rate. `note` is called with a message
    that says so.
    """
    if config.gives_lr:
        return config
    lr = processes.from_first(RunFolder(config.output).begun_lr)
    if lr is None or lr == config.optim.lr:
        return config
    note(f"optim.lr is {lr:g}, with which the run in {config.output} began; the default is {config.optim.lr:g}")
    return config.model_copy(update={"optim": config.optim.model_copy(update={"lr": lr})})


def _run_folder(config: StageConfig, processes: runtime.Runtime) -> RunFolder:
    """Return the run folder, which rank 0 creates and locks.

    Raises:
        CheckpointError: it is in use, holds a run of another configuration, or is not visible to every node.
    """
    created: list[RunFolder] = []
    processes.from_first(lambda: created.append(RunFolder.create(config.output, to_yaml(config))))
    run = created[0] if created else RunFolder(config.output)
    if blind := [rank for rank, sees in enumerate(processes.gather([run.config_path.is_file()])) if not sees]:
        run.close()
        raise CheckpointError(
            f"{config.output}: process {blind[0]} does not see the run folder that process 0 has made\n"
            "  fix: put `output` on a file system that all nodes share"
        )
    return run
