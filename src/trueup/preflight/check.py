"""Check a stage's data and models before it trains, for every stage and for `trueup check`.

Faults of data are found in `trueup.data.tokens`; here faults of models are found, and all findings printed.

The faults of data are in `trueup.data.tokens`; here are those of models, and the printing of all findings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trueup.config import PpoConfig, StageConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.findings import Finding, fault, raise_errors
from trueup.data.tokens.prepare import Prepared, prepare
from trueup.models.loading import load_tokenizer
from trueup.preflight.models import other_models, position_findings
from trueup.system.files import atomic_write_text

if TYPE_CHECKING:
    from trueup.runs.folder import RunFolder
    from trueup.system.console import Progress

REPORT = "checks.json"


def prepare_checked(
    config: StageConfig,
    renderer: Renderer,
    progress: Progress,
    run: RunFolder,
    stores: Mapping[str, str],
    *,
    report: bool,
) -> Prepared:
    """Turn a stage's data into tokens and check it, before training starts.

    Args:
        config: the stage.
        renderer: turns rows into tokens by the chat template of the stage's tokenizer.
        progress: shows how far reading is.
        run: the run that would continue; its data must not have changed.
        stores: as for `prepare`.
        report: print warnings, and write all findings to checks.json in the run folder; True in only one process.

    Raises:
        DataError: a row cannot be used, or there is a fault that `allow` does not name.
    """
    prepared = examine(config, renderer, progress, run, stores)
    if report:
        _print_warnings(config, prepared, progress)
        content = [finding.as_dict() for finding in prepared.findings]
        atomic_write_text(run.path / REPORT, json.dumps(content, indent=2) + "\n")
    raise_errors(prepared.findings)
    return prepared


def _print_warnings(config: StageConfig, prepared: Prepared, progress: Progress) -> None:
    for name, counts in prepared.counts.items():
        progress.note(_usage_line(name, counts))
        is_prompts = isinstance(config, PpoConfig) and name != "mix"
        rows = "prompts without room for an answer" if is_prompts else f"rows over max_length={config.max_length}"
        if long := counts.get("over_length"):
            progress.warn(f"{name}: {long['count']} of {long['count'] + counts['used']} {rows} were left out")
        if long := counts.get("cut"):
            progress.warn(f"{name}: {long['count']} of {counts['used']} {rows} were cut")
    for finding in prepared.findings:
        if finding.level in ("warning", "allowed"):
            progress.warn(finding.in_words())


def examine(
    config: StageConfig, renderer: Renderer, progress: Progress, run: RunFolder | None = None,
    stores: Mapping[str, str] = MappingProxyType({}), *, collect: bool = False,
) -> Prepared:  # fmt: skip
    """Turn a stage's data into tokens and check it; its findings are returned, not printed or raised.

    `run`, if given, is the run that would continue; `stores` and `collect` are as for `prepare`.
    """
    prepared = prepare(
        config, renderer, workers=processes(config), reading=progress.reading, collect=collect, stores=stores
    )
    prepared.findings[:0] = [*_template_findings(config, renderer), *_tokenizer_findings(config, renderer)]
    prepared.findings += position_findings(config, prepared)
    if run is not None:
        prepared.findings += _changed_rows(config, run, prepared)
    return prepared


def processes(config: StageConfig) -> int:
    """Return the number of processes that may tokenize rows: the setting `threads`, else the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return config.threads or cores or 1


def _usage_line(name: str, counts: dict[str, Any]) -> str:
    """Return a line on how many rows of a data section were read, used and held out, and how many tokens train."""
    line = f"{name}: {counts['read']} rows read, {counts['used']} used"
    if held_out := counts.get("held_out"):
        line += f", {held_out} held out" if name != "eval" else ""
    if "trained_tokens" in counts:
        line += f", {counts['trained_tokens']:,} trained tokens, end token trained in {counts['end_trained']}"
    return line


def _template_findings(config: StageConfig, renderer: Renderer) -> list[Finding]:
    if not renderer.missing_template and not renderer.writes_end:
        end = renderer.tokenizer.convert_ids_to_tokens(renderer.end_id)
        text = f"the chat template writes no end token after an answer; {end} is added and trained there"
        fix = "add it to the template: other tools that render conversations by it would train a model that never stops"
        return [Finding("template-without-end", "warning", "model", text, fix)]
    if not renderer.missing_template:
        return []
    text = f"the tokenizer of {config.model} has no chat template; ChatML would be used, and saved with the model"
    fix = "use the tokenizer of an instruct model of the same family"
    return [fault("missing-template", "model", text, fix, config.allow)]


def _tokenizer_findings(config: StageConfig, renderer: Renderer) -> list[Finding]:
    """Return a finding for each reference or reward model whose tokenizer differs from the policy's."""
    models = other_models(config)
    findings: list[Finding] = []
    vocabulary = renderer.tokenizer.get_vocab() if models else {}
    for section, model in models:
        other = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
        if other.get_vocab() != vocabulary:
            text, fix = f"{model} has another tokenizer than {config.model}", "use a model of the same family"
            if section == "reference":  # the ids mean other words to it, so its log-probabilities are useless
                findings.append(Finding("other-tokenizer", "error", section, text, fix))
                continue
            text += "; it gets answers as text, and no value model can start from it"
            findings.append(fault("other-tokenizer", section, text, fix, config.allow))
    return findings


def _old_rows_fix(before: object, now: object) -> str:
    """Return the beginning of the advice for changed data: how to continue with the rows of before.

    `before` and `now` map the path of a store of votes to the event up to which its votes were used.
    """
    events: dict[str, Any] = before if isinstance(before, dict) else {}
    moved = [f"{path}@{event}" for path, event in events.items() if isinstance(now, dict) and now.get(path) != event]
    if not moved:
        return "put the old rows back, or "
    return f"continue with the old votes by giving the data as {', '.join(moved)}; or "


def _changed_rows(config: StageConfig, run: RunFolder, prepared: Prepared) -> list[Finding]:
    """Return a finding for each data section whose rows differ from those of the run's checkpoints."""
    path = run.path / "data.json"
    if not path.is_file() or not any(run.checkpoints.glob("step-*")):
        return []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        text = f"{path} cannot be read, so it is not known whether the rows are those of the checkpoint"
        return [
            fault("changed-data", "data", text, "restore the file, or train in another output folder", config.allow)
        ]
    now, findings = prepared.fingerprints, list[Finding]()
    for name in now:
        fingerprint = before.get(name, {}).get("fingerprint") if isinstance(before.get(name), dict) else None
        if fingerprint is not None and fingerprint != now[name]:
            text = f"the rows (or the tokenizer) are not those of the checkpoint in {run.path}"
            fix = _old_rows_fix(before[name].get("events"), prepared.counts[name].get("events"))
            fix += "train anew into another output folder"
            findings.append(fault("changed-data", name, text, fix, config.allow))
    return findings
