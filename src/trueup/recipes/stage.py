"""The part that all recipes share, before and after `fit`: check the data, open the run, export, write the summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trueup import runtime
from trueup.config import to_yaml
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.reader import store_events
from trueup.data.tokens.prepare import Prepared
from trueup.data.tokens.sampler import Sampler
from trueup.data.tokens.select import Examples
from trueup.errors import CheckpointError, ConfigError
from trueup.export import export_adapter, export_policy
from trueup.export.merging import MAX_MERGE_LOSS, merge_kept_share
from trueup.export.proof import record_outputs
from trueup.models.batching import Example, Per
from trueup.models.forward import check_lm_head
from trueup.models.loading import load_network, load_tokenizer
from trueup.preflight.check import prepare_checked
from trueup.preflight.functions import check_functions, check_rewards
from trueup.runs.folder import RunFolder
from trueup.runs.loggers import Logger, open_loggers
from trueup.system.console import Progress, quiet_libraries
from trueup.system.files import atomic_write_text, explain_disk_errors
from trueup.training import objectives
from trueup.training.loop import Fitted, fit
from trueup.training.terms import Evaluation, RowSource, Term

if TYPE_CHECKING:
    from trueup.config import StageConfig
    from trueup.models.network import Network
from trueup.system.commandline import resume_command


@dataclass(slots=True)
class Stage:
    """An open run: the folder (locked), the network, and the count of every row read."""

    config: StageConfig
    run: RunFolder
    network: Network
    progress: Progress
    prepared: Prepared
    loggers: list[Logger] = field(default_factory=list)

    @property
    def data(self) -> dict[str, dict[str, Any]]:
        """Section -> what became of its rows."""
        return self.prepared.counts

    # -- data ----------------------------------------------------------------------------------------------------

    @property
    def train(self) -> Examples:
        """The rows that are trained on; for PPO, its prompts."""
        return self.prepared.train

    @property
    def held_out(self) -> Examples | None:
        """The rows that are measured on."""
        return self.prepared.held_out

    def steps(self, epoch: int) -> int:
        """Optimizer steps in all: `optim.steps`, else `optim.epochs` epochs of so many rows."""
        optim = self.config.optim
        return optim.steps if optim.steps is not None else optim.epochs * math.ceil(epoch / optim.batch_size)

    def sampler(self, rows: int | None = None, batch_size: int | None = None) -> Sampler:
        """Which rows each optimizer step takes, shuffled by the stage's seed.

        Args:
            rows: how many there are; by default those that are trained on, each as often as its section's weight says.
            batch_size: rows at once; by default `optim.batch_size`.
        """
        sizes = [len(rows) for rows in self.train.rows] if rows is None else [rows]
        weights = self.prepared.weights if rows is None else (1.0,)
        size = batch_size or self.config.optim.batch_size
        return Sampler(sizes, size, self.config.seed, weights=weights)

    def source(
        self, examples: Sequence[Example], per: Per, *, sampler: Sampler, origin: Callable[[int], object] | None = None
    ) -> RowSource:
        """The examples as a source, in `sampler`'s order; `origin` says where one came from, if not from `train`."""
        return RowSource(
            examples, sampler, self.network, per=per, max_tokens=self.config.max_tokens,
            origin=origin or self.train.origin,
        )  # fmt: skip

    def mix_terms(self) -> list[Term]:
        """SFT on other data as a second term, if the configuration mixes any in (PPO-ptx, rehearsal)."""
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
        """Train. See `loop.fit`."""
        if "policy" in self.network.roles:
            check_lm_head(self.network)
        text = json.dumps(self.data, indent=2) + "\n"
        self.network.runtime.from_first(lambda: atomic_write_text(self.run.path / "data.json", text))
        return fit(
            self.network, terms, config=self.config, steps=steps, run=self.run, progress=self.progress,
            evaluation=evaluation, loggers=self.loggers, headline=headline, resume_command=resume_command(),
        )  # fmt: skip

    def finish(
        self, fitted: Fitted, role: str, export: Callable[[Network, Path], None] = export_policy
    ) -> dict[str, Any]:
        """Export the trained role and write summary.json, which marks the stage as finished."""
        summary = {"method": self.config.method, **fitted.summary(), "last": fitted.last, "data": self.data}
        # A run that is exported anew is not finished until it is: killed between, it would have no model.
        where = self.network.runtime
        where.from_first(lambda: self.run.summary_path.unlink(missing_ok=True))
        with explain_disk_errors(f"cannot write {self.run.path}", self.run.path):
            self._export(role, export)
        where.from_first(lambda: self.run.write_summary(summary))
        return summary

    def _export(self, role: str, export: Callable[[Network, Path], None]) -> None:
        config = self.config
        # Every rank takes part, as each may hold only a part of the weights; the first one writes.
        record_outputs(self.network, role, self.train, self.run.outputs_path, prompt=self.train.prompt)
        self.progress.note(f"writing {self.run.model_path}")
        if abs(merge_kept_share(self.network, role) - 1) > MAX_MERGE_LOSS:
            self.progress.note("model/ is float32: rounding to bfloat16 would undo part of the training")
        export(self.network, self.run.model_path)
        if config.lora is not None:
            export_adapter(self.network, self.run.adapter_path, config.lora, role=role, base=config.model)


@contextmanager
def open_stage(config: StageConfig) -> Iterator[Stage]:
    """Lock the run folder, load the model, open the trackers; close all of it afterwards.

    Raises:
        CheckpointError: the folder is in use, or holds a run of another configuration.
        ModelError: the model cannot be used.
    """
    quiet_libraries()
    where = runtime.init(config.device, config.dtype, config.threads, config.strategy)
    if where.dtype == torch.float16:
        raise ConfigError(
            "dtype: float16 gradients vanish without loss scaling, which trueup does not do; use bfloat16 or float32"
        )
    check_functions(config)
    runtime.seed_everything(config.seed)
    runtime.reset_peak_memory(where.device)
    progress = Progress(quiet=not where.is_main)
    run = _run_folder(config, where)
    loggers: list[Logger] = []
    try:
        tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        renderer = Renderer(tokenizer)
        stores = where.from_first(lambda: store_events(data.path for _, data in config.data_sections))
        prepared = runtime.first_then_all(
            where, lambda: prepare_checked(config, renderer, progress, run, stores, report=where.is_main)
        )
        where.from_first(lambda: check_rewards(config, prepared.train, prepared.held_out))
        runtime.seed_everything(config.seed)  # a user's functions may have drawn numbers
        progress.note(
            f"{config.method}: loading {config.model} on {where.device} in {str(where.dtype).removeprefix('torch.')}"
        )
        network = load_network(config, where, renderer)
        if where.is_main:
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


def _run_folder(config: StageConfig, where: runtime.Runtime) -> RunFolder:
    """The run's folder, made and locked by the first process; the others only look at it.

    Raises:
        CheckpointError: it is in use, or holds a run of another configuration, or another node does not see it.
    """
    created: list[RunFolder] = []
    where.from_first(lambda: created.append(RunFolder.create(config.output, to_yaml(config))))
    run = created[0] if created else RunFolder(config.output)
    if blind := [rank for rank, sees in enumerate(where.gather([run.config_path.is_file()])) if not sees]:
        run.close()
        raise CheckpointError(
            f"{config.output}: process {blind[0]} does not see the run folder that process 0 has made\n"
            "  fix: put `output` on a file system that all nodes share"
        )
    return run
