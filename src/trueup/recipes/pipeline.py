"""One YAML of stages: run each in order, skip what is finished and unchanged, compare the models at the end.

A stage's inputs are its configuration and the contents of its data, model and reward. They are recorded in
`inputs.json` when the stage starts: a stopped stage with the same inputs goes on, one with other inputs begins again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup import runtime
from trueup.config import STAGES, DataConfig, to_yaml
from trueup.console import Progress, quiet_libraries
from trueup.errors import ConfigError
from trueup.evaluation.compare import Comparison, compare, load_task
from trueup.files import atomic_write_text, fingerprint
from trueup.recipes import dpo, ppo, reward, sft
from trueup.runfolder import RunFolder, config_differences

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
) -> Comparison | None:
    """Run the stages that need it, then the comparison. Returns the comparison (None on a dry run).

    See `run_stages` for the arguments; `source` is the pipeline's file, copied into the run folder.
    """
    progress = Progress()
    run_stages(config, progress, force=force, dry_run=dry_run)
    if dry_run:
        return None
    target = config.folder / "pipeline.yaml"
    if source is not None and source.resolve() != target.resolve() and runtime.init(config.device).is_main:
        shutil.copyfile(source, target)
    return evaluate(config, progress)


def run_stages(config: PipelineConfig, progress: Progress, *, force: Sequence[str] = (), dry_run: bool = False) -> None:
    """Run the stages that need it, in order, and say why each runs or is skipped.

    Args:
        config: the pipeline.
        progress: told why.
        force: stages to run again although nothing changed; those that start from them follow by themselves.
        dry_run: only say what would run, and why.

    Raises:
        ConfigError: `force` names a stage that is not there.
    """
    unknown = [name for name in force if name not in config.stages]
    if unknown:
        raise ConfigError(f"--force {unknown[0]}: there is no such stage; there are {', '.join(config.stages)}")
    rerun: set[str] = set()
    for name in config.stages:
        method, stage = config.stage(name)
        upstream = _upstream_reason(config, name, rerun) if _inputs_path(stage).is_file() else None
        because = upstream or _reason(stage, forced=name in force)
        if because is None:
            progress.note(f"{name}: finished before, and nothing it was made from has changed: skipped")
            continue
        rerun.add(name)
        progress.note(f"{name}: {because}")
        if not dry_run:
            _run_stage(stage, RECIPES[method], afresh=not because.startswith("going on"))


def _run_stage(stage: StageConfig, recipe: Callable[[Any], dict[str, Any]], *, afresh: bool) -> None:
    where = runtime.init(stage.device, stage.dtype, stage.threads)
    if where.is_main:
        if afresh:
            RunFolder.create(stage.output, to_yaml(stage), resume="never").close()
        atomic_write_text(_inputs_path(stage), json.dumps(inputs(stage), indent=2) + "\n")
    where.barrier()
    recipe(stage)


def inputs(stage: StageConfig) -> dict[str, str]:
    """What the stage is made from: label -> hash of its contents (a hub id stands for itself)."""
    parts: dict[str, str] = {"config": to_yaml(stage)}
    for key, data in _data_sections(stage):
        parts[key] = _content(data.path)
    parts["model"] = _content(stage.model)
    for key in ("reward", "reference"):
        value = getattr(stage, key, None)
        if isinstance(value, str):
            parts[key] = _content(value.rpartition(":")[0] if ".py:" in value else value)
    return parts


def _data_sections(stage: StageConfig) -> list[tuple[str, DataConfig]]:
    sections = [(key, getattr(stage, key)) for key in stage.data_fields]
    if stage.eval.data is not None:
        sections.append(("eval.data", stage.eval.data))
    if stage.mix is not None:
        sections.append(("mix.data", stage.mix.data))
    return sections


def _content(path: str) -> str:
    place = Path(path)
    if (place / "model").is_dir():  # a reward stage's run folder: what counts is what it exported
        place = place / "model"
    return fingerprint([place]) if place.exists() else hashlib.sha256(path.encode()).hexdigest()


def _inputs_path(stage: StageConfig) -> Path:
    return Path(stage.output) / "inputs.json"


def _upstream_reason(config: PipelineConfig, name: str, rerun: set[str]) -> str | None:
    used = {config.stages[name].get("from"), config.stages[name].get("reward")} & rerun
    return f"running, because {' and '.join(sorted(str(one) for one in used))} runs again" if used else None


def _reason(stage: StageConfig, *, forced: bool) -> str | None:
    """Why the stage has to run; None if it is finished and unchanged."""
    if forced:
        return "running, because --force asks for it"
    path, folder = _inputs_path(stage), RunFolder(stage.output)
    if not path.is_file():
        return "running for the first time"
    before, now = json.loads(path.read_text()), inputs(stage)
    if keys := config_differences(before.get("config", ""), now["config"]):
        return f"running again, because its configuration changed: {'; '.join(keys[:3])}"
    changed = [key for key in now if key != "config" and before.get(key) != now[key]]
    if changed:
        return f"running again, because what it is made from changed: {', '.join(changed)}"
    if folder.read_summary() is None or not folder.model_path.is_dir():
        return "going on, because it was stopped before its end"
    return None


def evaluate(config: PipelineConfig, progress: Progress) -> Comparison | None:
    """Compare the base and every policy of the pipeline; print it and write evaluation.json."""
    settings = config.evaluate
    where = runtime.init(config.device, config.dtype, config.threads)
    if not where.is_main:
        return None
    quiet_libraries()
    methods = {name: config.stages[name]["method"] for name in config.stages}
    models = {"base": config.base} | {
        name: str(config.folder / name / "model")
        for name, method in methods.items()
        if method != STAGES["reward"].method
    }
    rewards = [name for name, method in methods.items() if method == "reward"]
    against = next((name for name, method in methods.items() if method == "sft"), "base")
    task = load_task(
        settings.prompts, settings.data, samples=settings.samples, show=settings.show, seed=config.seed,
        max_new_tokens=settings.max_new_tokens, reward=str(config.folder / rewards[-1] / "model") if rewards else None,
    )  # fmt: skip
    result = compare(models, task, where, against=against, note=progress.note)
    atomic_write_text(
        config.folder / "evaluation.json", json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n"
    )
    result.show()
    return result
