"""Run the stages of a pipeline in order, skip finished and unchanged ones, then measure and report.

A stage's inputs are its configuration and the contents of its data, model and reward. They are recorded in
`inputs.json` when the stage starts: a stopped stage with the same inputs resumes, one with other inputs starts again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trueup import runtime
from trueup.config import DpoConfig, PpoConfig, RewardConfig, to_yaml
from trueup.config.functions import UserFunction
from trueup.config.paths import function_sections, trust_of
from trueup.data.sources.reader import store_version
from trueup.errors import ConfigError
from trueup.evaluation.gate_power import announce, pipeline_gates, require_passable
from trueup.evaluation.plan import Plan
from trueup.evaluation.suite import measure
from trueup.recipes import dpo, ppo, reward, sft
from trueup.recipes.held_out import check_pipeline_rows
from trueup.recipes.stage import with_begun_lr
from trueup.report.publish import publish
from trueup.report.report_schema import Report
from trueup.runs.folder import RunFolder, config_differences, is_longer
from trueup.system.commandline import command_line
from trueup.system.console import Progress, quiet_libraries
from trueup.system.files import MODEL_CARD, atomic_write_text, fingerprint
from trueup.system.text import home_path

if TYPE_CHECKING:
    from trueup.config import PipelineConfig, StageConfig

RECIPES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "sft": sft.run,
    "reward": reward.run,
    "dpo": dpo.run,
    "ppo": ppo.run,
}


def run(
    config: PipelineConfig, *, force: Sequence[str] = (), dry_run: bool = False, source: Path | None = None
) -> Report | None:
    """Run the pipeline's stages, except finished and unchanged ones, measure the models, and return the report.

    The report is None on a dry run and on ranks other than 0. See `run_stages` for the arguments; `source` is the
    pipeline's file, which is copied into the run folder.
    """
    processes = _processes(config)
    progress = Progress(quiet=not processes.is_main)
    gates = pipeline_gates(config)
    require_passable(gates, config.allow)
    announce(gates, progress.note, progress.warn)
    trained = {} if dry_run else processes.from_first(lambda: check_pipeline_rows(config, progress))
    run_stages(config, progress, force=force, dry_run=dry_run)
    if dry_run:
        return None
    target = config.folder / "pipeline.yaml"
    if source is not None and source.resolve() != target.resolve():
        processes.from_first(lambda: shutil.copyfile(source, target))
    return evaluate(config, progress, command_line(), trained=trained)


def run_stages(config: PipelineConfig, progress: Progress, *, force: Sequence[str] = (), dry_run: bool = False) -> None:
    """Run the pipeline's stages in order, except finished and unchanged ones, and print why each runs or is skipped.

    Args:
        config: the pipeline.
        progress: display that prints the reasons.
        force: names of stages to run again although nothing changed; stages that start from them run again too.
        dry_run: True only prints what would run, and why.

    Raises:
        ConfigError: `force` names an unknown stage.
    """
    unknown = [name for name in force if name not in config.stages]
    if unknown:
        raise ConfigError(f"--force {unknown[0]}: there is no such stage; there are {', '.join(config.stages)}")
    rerun: set[str] = set()
    processes = _processes(config)
    for name in config.stages:
        method, stage = config.stage(name)
        upstream = _upstream_reason(config, name, rerun)
        # Rank 0 decides for all: it may already be changing files that the others would read.
        begun = with_begun_lr(stage, processes)
        reason = processes.from_first(partial(_reason, begun, upstream, forced=name in force))
        if reason is None or reason.startswith("going on"):
            stage = with_begun_lr(stage, processes, progress.note)
        if reason is None:
            progress.note(f"{name}: finished before, and nothing it was made from has changed: skipped")
            continue
        rerun.add(name)
        progress.note(f"{name}: {reason}")
        if not dry_run:
            _run_stage(stage, RECIPES[method], afresh=not reason.startswith("going on"))


def _processes(config: PipelineConfig) -> runtime.Runtime:
    return runtime.init(config.device, config.dtype, config.threads, config.strategy)


def _run_stage(stage: StageConfig, recipe: Callable[[Any], dict[str, Any]], *, afresh: bool) -> None:
    processes = runtime.init(stage.device, stage.dtype, stage.threads, stage.strategy)
    processes.from_first(lambda: _begin(stage, afresh=afresh))
    recipe(stage)


def _begin(stage: StageConfig, *, afresh: bool) -> None:
    if afresh:
        RunFolder.create(stage.output, to_yaml(stage), resume="never").close()
    atomic_write_text(_inputs_path(stage), json.dumps(inputs(stage), indent=2) + "\n")


def inputs(stage: StageConfig) -> dict[str, str]:
    """Return what a stage depends on, to detect changes: its configuration as YAML under "config", and content hashes.

    The other keys are the places in the configuration, such as "model"; the values are hashes of file, folder or hub
    id.
    """
    parts: dict[str, str] = {"config": to_yaml(stage)}
    for place, data in stage.data_sections:
        parts[".".join(map(str, place))] = store_version(data.path) or _content(data.path)
    parts["model"] = _content(stage.model)
    for key, value in _other_sources(stage):
        function = UserFunction.parse(value)
        parts[key] = _content(str(home_path(function.file)) if function else value)
    return parts


def _other_sources(stage: StageConfig) -> list[tuple[str, str]]:
    """Return (label, source) of a stage's rewards, reference model and user functions.

    A source is a folder, a hub id or file.py:function.
    """
    sources: list[tuple[str, str]] = []
    if isinstance(stage, PpoConfig):
        sources += [
            ("reward" if index == 0 else f"reward {index + 1}", reward) for index, reward in enumerate(stage.rewards)
        ]
    if isinstance(stage, DpoConfig):
        sources += [("reference", stage.reference)] if stage.reference else []
        sources += [("watch.reward", stage.watch.reward)] if stage.watch.reward else []
    if isinstance(stage, PpoConfig | DpoConfig) and stage.watch.gold:
        sources.append(("watch.gold", stage.watch.gold))
    sources += [
        (".".join(map(str, place)), section.name)
        for place, section in function_sections(stage)
        if UserFunction.parse(section.name)
    ]
    return sources


def _content(path: str) -> str:
    """Return a content hash of the file or folder at `path`, to detect changes.

    For a run folder it covers the exported model, for a hub id only the name.
    """
    source = Path(path)
    if (source / "model").is_dir():
        source = source / "model"
    exists = source.exists()
    return fingerprint([source], ignore=[MODEL_CARD]) if exists else hashlib.sha256(path.encode()).hexdigest()


def _inputs_path(stage: StageConfig) -> Path:
    return Path(stage.output) / "inputs.json"


def _recorded(path: Path) -> dict[str, str] | None:
    """Return the inputs that inputs.json recorded when the stage last started; None if the file is damaged."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return recorded if isinstance(recorded, dict) else None


def _upstream_reason(config: PipelineConfig, name: str, rerun: set[str]) -> str | None:
    used = config.upstream(name) & rerun
    return f"running, because {' and '.join(sorted(used))} runs again" if used else None


def _recorded_votes(folder: RunFolder) -> str:
    """Return a text for a message that names the vote stores a stage was trained on, each with its last event used.

    An event is a numbered entry of a store's log, so `votes.db@1200` is a state of the store. Empty without votes.
    """
    try:
        counts_by_section = json.loads((folder.path / "data.json").read_text(encoding="utf-8"))
        events = {
            f"{path}@{event}"
            for counts in counts_by_section.values()
            for path, event in counts.get("events", {}).items()
        }
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return f" ({', '.join(sorted(events))} are the votes it was made from)" if events else ""


def _reason(stage: StageConfig, upstream: str | None, *, forced: bool) -> str | None:
    """Return why the stage has to run, as a message; None if it is finished and unchanged.

    `upstream` is the message for a stage that starts from another stage that runs again; `forced` is True for --force.
    """
    path, folder = _inputs_path(stage), RunFolder(stage.output)
    if upstream and path.is_file():
        return upstream
    if forced:
        return "running, because --force asks for it"
    if not path.is_file():
        return "running for the first time"
    before, now = _recorded(path), inputs(stage)
    if before is None:
        return f"running again, because {path} cannot be read"
    keys = config_differences(before.get("config", ""), now["config"])
    longer = folder.summary_path.exists() and is_longer(before.get("config", ""), now["config"])
    if keys and not longer:
        return f"running again, because its configuration changed: {'; '.join(keys[:3])}"
    changed = [key for key in now if key != "config" and before.get(key) != now[key]]
    if changed:
        return f"running again, because what it is made from changed: {', '.join(changed)}{_recorded_votes(folder)}"
    if longer:
        return f"going on from its end, because it is to train longer: {keys[0]}"
    if folder.read_summary() is None or not folder.model_path.is_dir():
        return "going on, because it was stopped before its end"
    return None


def evaluate(
    config: PipelineConfig, progress: Progress, command: str | None = None, title: str | None = None, *,
    trained: Mapping[str, str] = MappingProxyType({}),
) -> Report | None:  # fmt: skip
    """Measure the base model and every policy of the pipeline, publish the report and return it.

    `trained` says which rows are not held out, for the report. On ranks other than 0 the result is None.
    """
    processes = _processes(config)
    quiet_libraries()
    plan = replace(evaluation_plan(config, command, title), trained=trained)
    measure(plan, processes, progress.note)
    return publish(config.folder) if processes.is_main else None


def evaluation_plan(config: PipelineConfig, command: str | None = None, title: str | None = None) -> Plan:
    """Return the plan of the pipeline's `evaluate` section, with stage names replaced by the models' folders.

    It lists the models to measure, the rewards that score them, and the settings of the report.
    """
    folder = config.folder
    unset = [key for key in ("chat_template", "template", "train_thinking") if getattr(config.evaluate, key) is None]
    shared = {key: getattr(config, key) for key in unset}
    settings = config.evaluate.model_copy(update=shared)
    methods = {name: config.stages[name]["method"] for name in config.stages}
    writers = [name for name, method in methods.items() if method != RewardConfig.method]
    trust = trust_of(*(config.stage(name)[1] for name in config.stages))
    models = {"base": config.base} | {name: str(folder / name / "model") for name in writers}

    def folder_of(reward: str | None) -> str | None:
        return str(folder / reward) if reward in config.stages else reward

    return Plan(
        folder=folder,
        models=models,
        against=config.against,
        settings=settings,
        reward=folder_of(config.proxy),
        gold=folder_of(settings.gold),
        seed=config.seed,
        trust=trust,
        title=title or config.name,
        stages=tuple(config.stages),
        gates=config.gates,
        candidates=tuple(config.candidates),
        command=command,
    )
