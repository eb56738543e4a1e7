"""`trueup check`: run all checks of a training before it starts and report every finding, as text or as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text

from trueup.config import PipelineConfig, PpoConfig, StageConfig
from trueup.config.paths import is_adapter
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.contamination import EvaluatedSet, HeldOutCheck
from trueup.data.tokens.findings import Finding, fault
from trueup.data.tokens.prepare import Prepared
from trueup.errors import ConfigError, DataError, ModelError
from trueup.models.blank import skeleton
from trueup.models.loading import code_problem, load_renderer, read_config
from trueup.models.stored import tensors_of
from trueup.models.weights import weight_problem
from trueup.preflight.check import examine
from trueup.preflight.models import family_findings, model_findings, other_models
from trueup.system.console import Progress, make_console
from trueup.system.text import clean

_BAR = 30
_ORDER = ("error", "allowed", "warning", "note")
_MARKS = {"error": "✗ error", "allowed": "• allowed", "warning": "! warning", "note": "  note"}


@dataclass(slots=True)
class CheckResult:
    """The result of `trueup check`.

    Attributes:
        stages: stage -> data section -> counts of its rows (read, used, dropped, ...).
        findings: all findings, each once, faults first.
    """

    stages: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def count(self, level: str) -> int:
        """Return the number of findings of a level: error, allowed, warning or note."""
        return sum(finding.level == level for finding in self.findings)

    def exit_code(self, *, strict: bool) -> int:
        """Return the exit code: 0 without faults, 3 if rows would stop a training, 4 if only a model would.

        It is 2 if only a gate would, which cannot pass. With `strict` warnings count as faults too.
        """
        levels = ("error", "warning") if strict else ("error",)
        faults = [finding for finding in self.findings if finding.level in levels]
        sections = {finding.section.rpartition(".")[2] for finding in faults if finding.code != "underpowered-gate"}
        if not sections:
            return ConfigError.exit_code if faults else 0
        return ModelError.exit_code if sections <= {"model", "reward", "reference", "gold"} else DataError.exit_code

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON fields: ok, numbers of errors, warnings and notes, the stages and the findings."""
        counts = {f"{level}s": self.count(level) for level in ("error", "warning", "note")}
        findings = [finding.as_dict() for finding in self.findings]
        return {"ok": not self.count("error"), **counts, "stages": self.stages, "findings": findings}


def check_stage(config: StageConfig) -> CheckResult:
    """Run all checks of one stage's data and models, and return the findings."""
    return _check([("", config)])


def check_pipeline(
    config: PipelineConfig, evaluated: Sequence[EvaluatedSet] = (), gates: Sequence[Finding] = ()
) -> CheckResult:
    """Run all checks of every stage of a pipeline, and return the findings.

    A stage that starts from a model which is not trained yet is checked with the tokenizer of the pipeline's base
    model. The rows of the sets `evaluated` must not be trained on. `gates` are findings on what the gates can decide.
    """
    held_out = HeldOutCheck(evaluated)
    result = _check(checkable_stages(config), held_out)
    result.findings += [*held_out.findings(config.allow), *gates]
    result.findings.sort(key=lambda finding: _ORDER.index(finding.level))
    return result


def checkable_stages(config: PipelineConfig) -> list[tuple[str, StageConfig]]:
    """Return the name and the configuration of each stage, without models that earlier stages are yet to train."""
    stages = [(name, config.stage(name)[1]) for name in config.stages]
    outputs = {str(stage.output) for _, stage in stages}
    return [(name, _without_untrained(stage, config.base, outputs)) for name, stage in stages]


def _without_untrained(config: StageConfig, base: str, outputs: Collection[str]) -> StageConfig:
    """Return the stage's configuration without models that earlier stages are yet to train.

    The model to start from becomes `base`; `outputs` are the output folders of all stages.
    """

    def missing(folder: Path) -> bool:
        return str(folder) in outputs and not (folder / "model" / "config.json").is_file()

    changed: dict[str, Any] = {"model": base} if missing(Path(config.model).parent) else {}
    if isinstance(config, PpoConfig):
        changed["reward"] = [reward for reward in config.rewards if not missing(Path(reward))] or [
            "not-made-yet.py:reward"
        ]
    return config.model_copy(update=changed)


def _check(stages: Sequence[tuple[str, StageConfig]], held_out: HeldOutCheck | None = None) -> CheckResult:
    result, progress = CheckResult(), Progress()
    renderers: dict[tuple[object, ...], Renderer] = {}
    models: set[str] = set()
    reported: set[tuple[str, str, str, str | None]] = set()
    for name, config in stages:
        is_new_model = config.model not in models
        models.add(config.model)
        rendering = (config.model, config.chat_template, str(config.template), config.train_thinking)
        if rendering not in renderers:
            renderers[rendering] = load_renderer(config)
        renderer = renderers[rendering]
        prepared = _prepared(config, renderer, progress)
        if held_out is not None:
            held_out.add(name, prepared.trained)
        result.stages[name or config.method] = prepared.counts
        before, fingerprints = set(reported), prepared.fingerprints
        of_model = [*family_findings(config), *model_findings(config)]
        if is_new_model:
            of_model[:0] = _model_findings(config, renderer)
        for finding in [*prepared.findings, *of_model]:
            rows = fingerprints.get(finding.section.partition("[")[0])  # the same rows in two stages are reported once
            if (finding.code, finding.text, finding.level, rows) not in before:
                reported.add((finding.code, finding.text, finding.level, rows))
                result.findings.append(
                    replace(finding, section=f"{name}.{finding.section}" if name else finding.section)
                )
    result.findings.sort(key=lambda finding: _ORDER.index(finding.level))
    return result


def _prepared(config: StageConfig, renderer: Renderer, progress: Progress) -> Prepared:
    """Return the stage's data and findings; data or models that cannot be read become a finding instead of an error."""
    try:
        return examine(config, renderer, progress, collect=True)
    except (DataError, ModelError) as error:
        section = "model" if isinstance(error, ModelError) else "data"
        finding = Finding("unusable", "error", section, str(error))
        return Prepared.empty([finding])


def _model_findings(config: StageConfig, renderer: Renderer) -> Iterator[Finding]:
    """Yield findings on a model's files, without building the model.

    Such are a vocabulary too small for the tokenizer, and weights that are NaN or infinite.
    """
    model, folder = config.model, Path(config.model)
    settings = read_config(folder) if (folder / "config.json").is_file() else {}
    inner = settings.get("text_config")
    vocabulary = settings.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else None)
    if settings and not config.trust_remote_code and (problem := code_problem(folder)):
        text, _, fix = problem.partition("\n  fix: ")
        yield Finding("unusable", "error", "model", text, fix)
    if isinstance(vocabulary, int) and len(renderer.tokenizer) > vocabulary:
        text = f"the tokenizer of {model} has {len(renderer.tokenizer)} tokens, the embedding only {vocabulary}"
        yield Finding("vocabulary", "error", "model", text, "take both from the same model")
    if is_adapter(folder):
        text = "the start of a training checks that the adapter was trained over these weights of its base"
        yield Finding("other-base", "note", "model", text)
    for section, place in [("model", model), *other_models(config)]:
        weights = (pair for path in sorted(Path(place).glob("*.safetensors")) for pair in tensors_of(path))
        problem = weight_problem(weights, partial(skeleton, place))
        if problem is not None and problem.code in config.allow:
            yield fault("constant-weights", section, f"{place}: {problem.text}", "", config.allow)
        elif problem is not None:
            yield Finding(problem.code, "error", section, f"{place}: {problem.text}", problem.fix)


def show(result: CheckResult, *, as_json: bool) -> None:
    """Print the result of a check to stdout, as text or as JSON."""
    if as_json:
        print(json.dumps(result.as_dict(), indent=2, ensure_ascii=True))
        return
    console = make_console(stderr=False)
    width = min(console.width, 80)
    for stage, sections in result.stages.items():
        for name, counts in sections.items():
            console.print(Text(f"{stage} · {name}", style="bold"))
            console.print(Text(f"  {_usage_line(name, counts)}", overflow="fold"), width=width)
    for finding in result.findings:
        style = {"error": "red", "warning": "yellow", "allowed": "yellow"}.get(finding.level, "")
        console.print(
            Text(clean(f"{_MARKS[finding.level]} [{finding.code}] {finding.in_words()}"), style=style, overflow="fold"),
            width=width,
        )
        if "histogram" in finding.numbers:
            _print_histogram(finding.numbers["histogram"], console)
    verdict = "training would be refused" if result.count("error") else "training can start"
    total = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level in ("error", "warning") for n in [result.count(level)])
    console.print(Text(f"{total}: {verdict}", style="bold"))
    sys.stdout.flush()


def _usage_line(name: str, counts: dict[str, Any]) -> str:
    """Return a line on the rows of a data section: read = used + left out (by reason) + held out + not selected."""
    over = counts.get("over_length", {}).get("count", 0)
    held_out = counts.get("held_out", 0) if name != "eval" else 0
    rest = counts["unselected"] - held_out
    parts = [f"{counts['used']:,} used"]
    left_out = Counter(drop["reason"] for drop in counts["dropped"])
    parts += [f"{number:,} left out ({reason})" for reason, number in left_out.most_common()]
    parts += [f"{over:,} too long, left out"] if over else []
    parts += [f"{held_out:,} held out"] if held_out else []
    parts += [f"{rest:,} not selected"] if rest else []
    return f"{counts['read']:,} rows read = {' + '.join(parts)}"


def _print_histogram(bars: Any, console: Any) -> None:
    most, width = max((bar[2] for bar in bars), default=1), max(4, min(_BAR, console.width - 36))
    for low, high, rows in bars:
        console.print(Text(f"      {low:>7,}-{high:<7,} {'█' * round(width * rows / most) or '▏':<{width}} {rows:,}"))
