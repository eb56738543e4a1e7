"""The check before every stage, and behind `trueup check`: data and models are what they should be, or training stops.

What is looked for in the data is in `trueup.data.tokens`; here are the models' faults and what is said of all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trueup.config import DpoConfig, PpoConfig, StageConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens import findings as found
from trueup.data.tokens.findings import Finding, fault
from trueup.data.tokens.prepare import Prepared, prepare
from trueup.models.loading import load_tokenizer
from trueup.models.reward_model import classifier_source
from trueup.system.files import atomic_write_text

if TYPE_CHECKING:
    from trueup.runs.folder import RunFolder
    from trueup.system.console import Progress

REPORT = "checks.json"


def checked(
    config: StageConfig,
    renderer: Renderer,
    progress: Progress,
    run: RunFolder,
    stores: Mapping[str, str],
    *,
    tell: bool,
) -> Prepared:
    """A stage's data, prepared and checked.

    Args:
        config: the stage.
        renderer: its tokenizer's.
        progress: shows the reading.
        run: the run that would go on; its data must not have changed.
        stores: as for `prepare`.
        tell: warn, and write all findings into the run folder: for one of several processes.

    Raises:
        DataError: a row cannot be used, or there is a fault that `allow` does not name.
    """
    prepared = examine(config, renderer, progress, run, stores)
    if tell:
        _tell(config, prepared, progress)
        told = [one.as_dict() for one in prepared.findings]
        atomic_write_text(run.path / REPORT, json.dumps(told, indent=2) + "\n")
    found.raise_errors(prepared.findings)
    return prepared


def _tell(config: StageConfig, prepared: Prepared, progress: Progress) -> None:
    for name, counts in prepared.counts.items():
        progress.note(_account(name, counts))
        asks = isinstance(config, PpoConfig) and name != "mix"
        what = "prompts without room for an answer" if asks else f"rows over max_length={config.max_length}"
        if long := counts.get("over_length"):
            progress.warn(f"{name}: {long['count']} of {long['count'] + counts['used']} {what} were left out")
        if long := counts.get("cut"):
            progress.warn(f"{name}: {long['count']} of {counts['used']} {what} were cut")
    for one in prepared.findings:
        if one.level in ("warning", "allowed"):
            progress.warn(one.in_words())


def examine(
    config: StageConfig, renderer: Renderer, progress: Progress, run: RunFolder | None = None,
    stores: Mapping[str, str] = MappingProxyType({}), *, collect: bool = False,
) -> Prepared:  # fmt: skip
    """The same, nothing told or raised of what is found; `collect` as for `prepare`."""
    prepared = prepare(
        config, renderer, workers=processes(config), reading=progress.reading, collect=collect, stores=stores
    )
    prepared.findings[:0] = [*_template(config, renderer), *_tokenizers(config, renderer)]
    if run is not None:
        prepared.findings += _changed(config, run, prepared)
    return prepared


def processes(config: StageConfig) -> int:
    """How many processes may turn rows into tokens: as many as `threads`, else as there are cores."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return config.threads or there or 1


def _account(name: str, counts: dict[str, Any]) -> str:
    """One line on what became of a section's rows."""
    line = f"{name}: {counts['read']} rows read, {counts['used']} used"
    if held := counts.get("held_out"):
        line += f", {held} held out" if name != "eval" else ""
    if "trained_tokens" in counts:
        line += f", {counts['trained_tokens']:,} trained tokens, end token trained in {counts['end_trained']}"
    return line


def _template(config: StageConfig, renderer: Renderer) -> list[Finding]:
    if not renderer.missing_template and not renderer.writes_end:
        end = renderer.tokenizer.convert_ids_to_tokens(renderer.end_id)
        text = f"the chat template writes no end token after an answer; {end} is trained there all the same"
        fix = "let the template write it: tools that render conversations by it would train a model that never stops"
        return [Finding("template-without-end", "warning", "model", text, fix)]
    if not renderer.missing_template:
        return []
    text = f"the tokenizer of {config.model} has no chat template; ChatML would be used, and saved with the model"
    fix = "use the tokenizer of an instruct model of the same family"
    return [fault("missing-template", "model", text, fix, config.allow)]


def models_beside(config: StageConfig) -> list[tuple[str, str]]:
    """(section, model) of the reference and the reward models that a stage names."""
    beside: list[tuple[str, str]] = []
    if isinstance(config, DpoConfig) and config.reference:
        beside.append(("reference", config.reference))
    if isinstance(config, PpoConfig):
        beside += [("reward", classifier_source(one)) for one in config.rewards if ".py:" not in one]
    return beside


def _tokenizers(config: StageConfig, renderer: Renderer) -> list[Finding]:
    """Models beside the policy that read other tokens than it does."""
    beside = models_beside(config)
    made: list[Finding] = []
    vocabulary = renderer.tokenizer.get_vocab() if beside else {}
    for section, model in beside:
        other = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
        if other.get_vocab() != vocabulary:
            text, fix = f"{model} has another tokenizer than {config.model}", "use a model of the same family"
            if section == "reference":  # the same ids are other words to it: no number of it would mean anything
                made.append(Finding("other-tokenizer", "error", section, text, fix))
                continue
            text += "; answers are read to it as text, and no value model can start from it"
            made.append(fault("other-tokenizer", section, text, fix, config.allow))
    return made


def _as_before(before: object, now: object) -> str:
    """How to go on with the rows there were: of a store of rankings, as it stood then."""
    events: dict[str, Any] = before if isinstance(before, dict) else {}
    moved = [f"{path}@{event}" for path, event in events.items() if isinstance(now, dict) and now.get(path) != event]
    if not moved:
        return "put the old rows back, or "
    return f"go on with the votes there were, by giving the data as {', '.join(moved)}; or "


def _changed(config: StageConfig, run: RunFolder, prepared: Prepared) -> list[Finding]:
    """Rows that are not those the checkpoints were made with."""
    path = run.path / "data.json"
    if not path.is_file() or not any(run.checkpoints.glob("step-*")):
        return []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        text = f"{path} cannot be read, so nothing tells whether the rows are those of the checkpoint there"
        return [fault("changed-data", "data", text, "put the file back, or train anew elsewhere", config.allow)]
    now, made = prepared.fingerprints, list[Finding]()
    for name in now:
        was = before.get(name, {}).get("fingerprint") if isinstance(before.get(name), dict) else None
        if was is not None and was != now[name]:
            text = f"the rows (or the tokenizer) are not those of the checkpoint in {run.path}"
            fix = _as_before(before[name].get("events"), prepared.counts[name].get("events"))
            fix += "train anew into another output folder"
            made.append(fault("changed-data", name, text, fix, config.allow))
    return made
