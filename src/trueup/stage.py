"""What every recipe does before and after `fit`: open the run, read rows, keep count of them, export, sum up."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from trueup import objectives, runtime, sources
from trueup.batching import Branch, Example, Per, single
from trueup.chat import Message, Origin, Row
from trueup.config import to_yaml
from trueup.console import Progress, quiet_libraries
from trueup.errors import ConfigError, DataError
from trueup.export import export_adapter, export_policy
from trueup.files import atomic_write_text
from trueup.forward import check_head
from trueup.loading import load_network
from trueup.loggers import Logger, open_loggers
from trueup.loop import Fitted, fit
from trueup.runfolder import RunFolder
from trueup.terms import Evaluation, RowSource, Term

if TYPE_CHECKING:
    from trueup.config import DataConfig, StageConfig
    from trueup.models import Network

R = TypeVar("R", bound=Row)
_SHOWN_LINES = 5


@dataclass(slots=True)
class Stage:
    """An open run: the folder (locked), the network, and the count of every row read."""

    config: StageConfig
    run: RunFolder
    network: Network
    progress: Progress
    loggers: list[Logger] = field(default_factory=list)
    data: dict[str, dict[str, object]] = field(default_factory=dict)

    # -- data ----------------------------------------------------------------------------------------------------

    def load(self, name: str, data: DataConfig, want: sources.Want) -> sources.Rows[Any]:
        """Typed rows of a data section; counted under `name`."""
        rows = sources.load_section(data, want)
        self.data[name] = rows.counts.as_dict()
        return rows

    def examples(self, name: str, rows: Sequence[R], make: Callable[[R], Example]) -> list[Example]:
        """Render rows and hold each to `max_length`; what is dropped or cut is counted, and said.

        Raises:
            DataError: a row is too long and `over_length` is "error", or no row is usable.
        """
        limit, rule = self.config.max_length, self.config.over_length
        made = [replace(make(row), row=at) for at, row in enumerate(rows)]
        long = [one for one in made if one.longest > limit]
        if long and (rule == "error" or (rule == "drop" and len(long) == len(made))):
            raise DataError(_too_long(name, rows, made, long, limit))
        kept = [self._fitted(one, rows) for one in made if one.longest <= limit or rule == "cut"]
        untrained = [one for one in kept if not all(branch.trained for branch in one.branches)]
        if untrained:
            where = rows[untrained[0].row].origin
            raise DataError(f"{where}: no token of this row is trained; give the row an answer that is not empty")
        counts = self.data.setdefault(name, {})
        if long:
            lines = [str(rows[one.row].origin) for one in long]
            counts["over_length" if rule == "drop" else "cut"] = {"max_length": limit, "rows": lines}
            verb = "left out" if rule == "drop" else "cut"
            self.progress.warn(f"{name}: {len(long)} of {len(made)} rows over max_length={limit} were {verb}")
        counts["used"] = len(kept)
        counts["trained_tokens"] = sum(branch.trained for one in kept for branch in one.branches)
        counts["end_trained"] = sum(self._end_trained(one) for one in kept)
        self.progress.note(
            f"{name}: {len(rows)} rows read, {len(kept)} used, {counts['trained_tokens']:,} trained tokens, "
            f"end token trained in {counts['end_trained']}"
        )
        return kept

    def _end_trained(self, example: Example) -> bool:
        stops = self.network.renderer.stop_ids
        return all(branch.mask[-1] and branch.ids[-1] in stops for branch in example.branches)

    def _fitted(self, example: Example, rows: Sequence[R]) -> Example:
        """The example with each branch cut to `max_length`; a branch keeps its end token."""
        limit = self.config.max_length
        if example.longest <= limit:
            return example
        room = limit - len(example.trunk)
        if room < 2:
            raise DataError(
                f"{rows[example.row].origin}: the prompt alone has {len(example.trunk)} tokens, max_length is {limit}; "
                f"raise max_length, or set over_length=drop"
            )
        return replace(example, branches=tuple(_cut(branch, room) for branch in example.branches))

    def steps(self, rows: int) -> int:
        """Optimizer steps in all: `optim.steps`, else `optim.epochs` passes over `rows`."""
        optim = self.config.optim
        return optim.steps if optim.steps is not None else optim.epochs * math.ceil(rows / optim.batch_size)

    def sampler(self, rows: int, batch_size: int | None = None) -> sources.Sampler:
        """Which of `rows` rows each optimizer step takes, shuffled by the stage's seed."""
        return sources.Sampler(rows, batch_size or self.config.optim.batch_size, self.config.seed)

    def source(self, examples: list[Example], per: Per, *, batch_size: int | None = None) -> RowSource:
        """The examples as a source."""
        sampler = self.sampler(len(examples), batch_size)
        return RowSource(examples, sampler, self.network, per=per, max_tokens=self.config.max_tokens)

    def sft_examples(self, name: str, data: DataConfig) -> list[Example]:
        """Conversations, or plain text where `use: text`, as examples."""
        renderer = self.network.renderer
        if data.use == "text":
            return self.examples(name, self.load(name, data, "text"), lambda row: single(renderer.text(row.text)))
        rows = self.load(name, data, "conversation")
        return self.examples(name, rows, lambda row: single(renderer.conversation(row.messages, origin=row.origin)))

    def mix_terms(self) -> list[Term]:
        """SFT on other data as a second term, if the configuration mixes any in (PPO-ptx, rehearsal)."""
        mix = self.config.mix
        if mix is None:
            return []
        source = self.source(self.sft_examples("mix", mix.data), "token", batch_size=mix.batch_size)
        return [Term("mix", source, objectives.sft, mix.weight)]

    def pair_example(
        self, prompt: Sequence[Message], *completions: Sequence[Message], origin: Origin | None = None
    ) -> Example:
        """A prompt and the completions that branch off it, as one example."""
        renderer = self.network.renderer
        rendered = [renderer.continuation(prompt, completion, origin=origin) for completion in completions]
        return Example(renderer.prompt(prompt, origin=origin), tuple(Branch(one.ids, one.mask) for one in rendered))

    # -- training and after --------------------------------------------------------------------------------------

    def fit(
        self, terms: list[Term], steps: int, *, evaluation: Evaluation | None = None, headline: tuple[str, ...]
    ) -> Fitted:
        """Train. See `loop.fit`."""
        if "policy" in self.network.roles:
            check_head(self.network)
        atomic_write_text(self.run.path / "data.json", json.dumps(self.data, indent=2) + "\n")
        return fit(
            self.network, terms, config=self.config, steps=steps, run=self.run, progress=self.progress,
            evaluation=evaluation, loggers=self.loggers, headline=headline, resume_command=resume_command(),
        )  # fmt: skip

    def finish(
        self, fitted: Fitted, role: str, export: Callable[[Network, Path], None] = export_policy
    ) -> dict[str, Any]:
        """Export the trained role and write summary.json, which marks the stage as finished."""
        config, summary = (
            self.config,
            {"method": self.config.method, **fitted.summary(), "last": fitted.last, "data": self.data},
        )
        if self.network.runtime.is_main:
            self.progress.note(f"writing {self.run.model_path}")
            export(self.network, self.run.model_path)
            if config.lora is not None:
                export_adapter(self.network, self.run.adapter_path, config.lora, role=role, base=config.model)
            self.run.write_summary(summary)
        self.network.runtime.barrier()
        return summary


@contextmanager
def open_stage(config: StageConfig) -> Iterator[Stage]:
    """Lock the run folder, load the model, open the trackers; close all of it afterwards.

    Raises:
        CheckpointError: the folder is in use, or holds a run of another configuration.
        ModelError: the model cannot be used.
    """
    quiet_libraries()
    where = runtime.init(config.device, config.dtype, config.threads)
    if where.dtype == torch.float16:
        raise ConfigError(
            "dtype: float16 gradients vanish without loss scaling, which trueup does not do; use bfloat16 or float32"
        )
    runtime.seed_everything(config.seed)
    runtime.reset_peak_memory(where.device)
    progress = Progress(quiet=not where.is_main)
    run = RunFolder.create(config.output, to_yaml(config)) if where.is_main else RunFolder(config.output)
    loggers: list[Logger] = []
    try:
        where.barrier()
        progress.note(
            f"{config.method}: loading {config.model} on {where.device} in {str(where.dtype).removeprefix('torch.')}"
        )
        network = load_network(config, where)
        if where.is_main:
            saved = [int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")]
            loggers = open_loggers(
                config.log, run.path, config.model_dump(mode="json"), start_step=max(saved, default=0)
            )
        yield Stage(config, run, network, progress, loggers)
    finally:
        progress.stop()
        for logger in loggers:
            logger.close()
        run.close()


def resume_command() -> str:
    """The command that continues this run: the one it was started with."""
    return command_line() or "the same call again"


def command_line() -> str | None:
    """The command that this process was started with; None where it was no command of trueup's."""
    if Path(sys.argv[0]).name not in {"trueup", "__main__.py"}:
        return None
    processes = os.environ.get("WORLD_SIZE", "1")
    start = ["trueup"] if processes == "1" else ["torchrun", "--nproc-per-node", processes, "-m", "trueup"]
    return shlex.join([*start, *sys.argv[1:]])


def _cut(branch: Branch, room: int) -> Branch:
    """The branch cut to `room` tokens and back to its last trained one, its end token kept in the last place."""
    if len(branch.ids) <= room:
        return branch
    ids, mask = branch.ids[:room], branch.mask[:room]
    while mask and not mask[-1]:
        ids.pop()
        mask.pop()
    if ids and branch.mask[len(ids)]:  # cut inside an answer: it ends there
        ids[-1] = branch.ids[-1]
    return Branch(ids, mask, branch.columns, branch.scalars)


def _too_long(name: str, rows: Sequence[Row], made: list[Example], long: list[Example], limit: int) -> str:
    """What is too long, by how much, and which limit would do."""
    lengths = sorted(one.longest for one in made)
    first = ", ".join(f"{_place(rows[one.row].origin)} ({one.longest} tokens)" for one in long[:_SHOWN_LINES])
    more = f" and {len(long) - _SHOWN_LINES} more" if len(long) > _SHOWN_LINES else ""
    prompts = sum(len(one.trunk) >= limit for one in long)
    sides = [
        sum(len(one.trunk) + len(one.branches[k].ids) > limit for one in long) for k in range(len(long[0].branches))
    ]
    per_side = f"chosen {sides[0]}, rejected {sides[1]}, " if len(sides) == 2 else ""
    most = lengths[min(len(lengths) - 1, math.ceil(0.95 * len(lengths)) - 1)]
    return (
        f"{name}: {len(long)} of {len(made)} rows are longer than max_length={limit} tokens: {first}{more}\n"
        f"  over the limit: {per_side}prompt alone {prompts}\n"
        f"  max_length={lengths[-1]} keeps every row, max_length={most} keeps 95% of them;\n"
        f"  over_length=drop leaves the long rows out, over_length=cut cuts their answers (both are counted)"
    )


def _place(origin: Origin | None) -> str:
    return "a row" if origin is None else f"{Path(origin.file).name}:{origin.line}"
