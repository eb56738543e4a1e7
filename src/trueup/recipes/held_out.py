"""Check that what an evaluation measures on was not trained on: by a pipeline's stages, or by finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trueup.config import STAGES, ComparisonConfig, EvaluateConfig, PipelineConfig, PpoConfig, StageConfig
from trueup.config.evaluation import JUDGED_SETS
from trueup.data.rendering.messages import Message, Origin
from trueup.data.tokens.contamination import Evaluated, EvaluatedSet, HeldOutCheck, joined
from trueup.data.tokens.findings import Finding, raise_errors
from trueup.data.tokens.prepare import prepare
from trueup.errors import DataError, TrueupError
from trueup.evaluation.published.table import PUBLISHED, read_set
from trueup.evaluation.sets import passages, prompts, questions, rankings
from trueup.models.loading import load_renderer
from trueup.preflight.check import processes
from trueup.preflight.report import checkable_stages
from trueup.runs.folder import PlainLoader, RunFolder
from trueup.system.console import Progress
from trueup.system.text import home_path


def evaluated_sets(config: EvaluateConfig, prefix: str = "") -> list[EvaluatedSet]:
    """Return all rows that an `evaluate` section measures on, to be looked up in training data.

    Held-out rows that the user names must not be trained on, except passages, which measure what is kept. Of the sets
    that come with trueup a large corpus may hold some questions, which is a warning.

    Args:
        config: the section.
        prefix: what stands before its keys in messages, such as "evaluate.".
    """
    chosen: list[EvaluatedSet] = []

    def wanted(*names: str) -> bool:
        return config.tasks is None or any(name in config.tasks for name in names)

    def add(key: str, rows: list[Evaluated]) -> None:
        ours = getattr(config, key) is None
        level = "warning" if ours else "note" if key == "forgetting" else "fault"
        chosen.append(EvaluatedSet(f"{prefix}{key}", rows, level, ours))

    if config.data is not None and wanted("preferences", "reward-model"):
        add("data", [_evaluated(row.origin, row.prompt, (row.chosen, row.rejected)) for row in rankings(config.data)])
    if wanted("answers", "win-rate"):
        add("prompts", [_evaluated(row.origin, row.prompt) for row in prompts("prompts", config.prompts)])
    if wanted("capability"):
        add("capability", [_evaluated(row.origin, row.prompt) for row in questions(config.capability)])
    if wanted("over-refusal"):
        add("innocent", [_evaluated(row.origin, row.prompt) for row in prompts("innocent", config.innocent)])
    if wanted("unsafe-compliance"):
        add("unsafe", [_evaluated(row.origin, row.prompt) for row in prompts("unsafe", config.unsafe)])
    if wanted("forgetting"):
        rows = passages(config.forgetting)
        texts = [(row.origin, row.text if row.text is not None else joined(row.messages)) for row in rows]
        add("forgetting", [Evaluated(origin, text) for origin, text in texts if origin is not None])
    for name, section in config.sets.items():
        if name in JUDGED_SETS and config.endpoint is None:
            continue  # it is not measured
        rows = [
            Evaluated(row.asked.origin, row.text) for row in read_set(name, section) if row.asked.origin is not None
        ]
        chosen.append(
            EvaluatedSet(
                f"{prefix}sets.{name}", rows, "fault" if PUBLISHED[name].hub else "warning", not PUBLISHED[name].hub
            )
        )
    return chosen


def _evaluated(
    origin: Origin | None, prompt: Sequence[Message], answers: Sequence[Sequence[Message]] = ()
) -> Evaluated:
    assert origin is not None
    return Evaluated(origin, joined(prompt), tuple(map(joined, answers)))


def check_pipeline_rows(config: PipelineConfig, progress: Progress) -> dict[str, str]:
    """Tokenize the data of all stages before any of them trains, and look up the evaluation's rows in them.

    Returns:
        "<set> as held-out rows" -> what is trained on, for the report.

    Raises:
        DataError: the data of a stage cannot be used, or rows are trained on and `allow` lacks eval-overlap.
        ModelError: a tokenizer or its template cannot be used.
    """
    held_out = HeldOutCheck(evaluated_sets(config.evaluate, "evaluate."))
    for name, stage in checkable_stages(config):
        try:
            prepared = prepare(stage, load_renderer(stage), workers=processes(stage), reading=progress.reading)
            raise_errors(prepared.findings)
        except DataError as error:
            raise DataError(f"stages.{name}: {error}") from error
        held_out.add(name, prepared.trained)
    return _reported(held_out.findings(config.allow), progress)


def check_models_rows(models: Iterable[str], config: ComparisonConfig, progress: Progress) -> dict[str, str]:
    """Look up the evaluation's rows in what the models were trained on, as far as their run folders say it.

    Args:
        models: folders of models or runs, and rewards; others are left out.
        config: the sets, and `allow`.
        progress: prints what cannot be compared.

    Returns:
        "<set> as held-out rows" -> what is trained on, or what could not be looked up; for the report.

    Raises:
        DataError: rows are trained on, and `allow` lacks eval-overlap.
    """
    runs = list(_lineage(models))
    if not runs:
        return {}
    held_out = HeldOutCheck(evaluated_sets(config))
    unknown: dict[str, str] = {}
    for run in runs:
        if (problem := _add(held_out, run, progress)) is not None:
            progress.warn(f"{run.folder}: rows to measure on are not compared with its training rows: {problem}")
            unknown[f"what {run.folder} was trained on"] = problem
    return unknown | _reported(held_out.findings(config.allow), progress)


@dataclass(frozen=True, slots=True)
class _Run:
    """The folder of a finished run; its configuration, or the reason for which that cannot be read."""

    folder: Path
    config: StageConfig | None
    problem: str = ""


def _lineage(models: Iterable[str]) -> Iterator[_Run]:
    """Yield the runs that trained the models, the models that these began from, and their rewards."""
    waiting = [(model, Path()) for model in models]
    seen: set[Path] = set()
    while waiting:
        model, used_by = waiting.pop(0)
        folder = _run_folder(model, used_by)
        if folder is None or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        run = _read(folder)
        yield run
        if run.config is not None:
            sources = [run.config.model, *(run.config.rewards if isinstance(run.config, PpoConfig) else [])]
            waiting += [(source, folder) for source in sources]


def _run_folder(model: str, used_by: Path) -> Path | None:
    """Return the folder of the run that made a model; None if no run did.

    A model that the run `used_by` began from may have moved together with it.
    """
    path = home_path(model)
    places = [path, path.parent] if path.name in ("model", "adapter") else [path]
    if used_by != Path():
        places += [used_by.parent / place.name for place in places]
    return next((place for place in places if RunFolder(place).config_path.is_file()), None)


def _read(folder: Path) -> _Run:
    path = RunFolder(folder).config_path
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
        return _Run(folder, STAGES[_method(values)].model_validate(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        more = (
            f"{len(error.errors())} of its keys are not of this version" if isinstance(error, ValidationError) else ""
        )
        return _Run(folder, None, f"{path} cannot be read as a stage's configuration{f' ({more})' if more else ''}")


def _method(values: dict[str, Any]) -> str:
    """Return the method of a configuration: config.yaml holds the keys of one stage, and not its name."""
    if "prompts" in values:
        return "ppo"
    loss = values.get("loss")
    if isinstance(loss, dict):
        return "dpo" if "name" in loss else "reward"
    return "sft"


def _add(held_out: HeldOutCheck, run: _Run, progress: Progress) -> str | None:
    """Look up the evaluation's rows in a run's training rows; return why that cannot be done, or only in part."""
    if run.config is None:
        return run.problem
    recorded = _recorded(run.folder / "data.json")
    events = [section.get("events") for section in recorded.values() if isinstance(section, dict)]
    stores = {path: f"{path}@{event}" for named in events if isinstance(named, dict) for path, event in named.items()}
    try:
        model = RunFolder(run.folder).model_path
        renderer = load_renderer(run.config, str(model) if model.is_dir() else None)
        prepared = prepare(
            run.config, renderer, workers=processes(run.config), reading=progress.reading, stores=stores, collect=True
        )
    except TrueupError as error:
        return " ".join(str(error).split("\n  fix:")[0].split())
    held_out.add(run.folder.name, prepared.trained)
    before = {name: section.get("fingerprint") for name, section in recorded.items() if isinstance(section, dict)}
    now = prepared.fingerprints
    changed = [name for name in now if before.get(name) != now[name]] if before else []
    return f"its {' and '.join(changed)} changed since it was trained: compared as of today" if changed else None


def _recorded(path: Path) -> dict[str, Any]:
    """Return what a run recorded about its rows, by section; {} if that cannot be read."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _reported(findings: list[Finding], progress: Progress) -> dict[str, str]:
    """Print warnings and allowed faults, raise the others, and return all of them for the report."""
    raise_errors(findings)
    for finding in findings:
        if finding.level in ("allowed", "warning"):
            progress.warn(finding.in_words())
    return {f"{finding.section} as held-out rows": finding.text for finding in findings if finding.level != "note"}
