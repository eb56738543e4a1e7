"""`trueup check`: all that a training would look at before it starts, told at once, for people or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from trueup.chat import Renderer
from trueup.checking import examine
from trueup.config import PipelineConfig, StageConfig
from trueup.console import Progress, clean, make_console
from trueup.dataset.findings import Finding, fault
from trueup.dataset.prepare import Prepared
from trueup.errors import DataError, ModelError
from trueup.loading import load_tokenizer

_BAR = 30
_ORDER = ("error", "allowed", "warning", "note")
_MARKS = {"error": "✗ error", "allowed": "• allowed", "warning": "! warning", "note": "  note"}


@dataclass(slots=True)
class Checked:
    """What was found: stage by stage the accounts of their rows, and all findings, none twice."""

    stages: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def count(self, level: str) -> int:
        """How many findings are of a level."""
        return sum(one.level == level for one in self.findings)

    def exit_code(self, *, strict: bool) -> int:
        """0; 3 where rows would stop a training, 4 where only a model would; `strict` counts warnings too."""
        levels = ("error", "warning") if strict else ("error",)
        faulty = {one.section.rpartition(".")[2] for one in self.findings if one.level in levels}
        if not faulty:
            return 0
        return ModelError.exit_code if faulty <= {"model", "reward", "reference"} else DataError.exit_code

    def as_dict(self) -> dict[str, object]:
        """Fit for JSON."""
        counts = {f"{level}s": self.count(level) for level in ("error", "warning", "note")}
        found = [one.as_dict() for one in self.findings]
        return {"ok": not self.count("error"), **counts, "stages": self.stages, "findings": found}


def check_stage(config: StageConfig) -> Checked:
    """Check one stage."""
    return _check([("", config)], config.model)


def check_pipeline(config: PipelineConfig) -> Checked:
    """Check every stage of a pipeline. A stage whose model is not made yet is read with the base's tokenizer."""
    return _check([(name, config.stage(name)[1]) for name in config.stages], config.base)


def _check(stages: Sequence[tuple[str, StageConfig]], base: str) -> Checked:
    result, progress = Checked(), Progress()
    renderers: dict[str, Renderer] = {}
    for name, config in stages:
        model = config.model if Path(config.model).exists() or config.model == base else base
        if model not in renderers:
            renderers[model] = Renderer(load_tokenizer(model, trust_remote_code=config.trust_remote_code))
        made = _examined(replaced_model(config, model), renderers[model], progress)
        result.stages[name or config.method] = made.counts
        made.findings += list(_weights(config, model, renderers[model]))
        for one in made.findings:
            if all(
                (one.code, one.text, one.level) != (other.code, other.text, other.level) for other in result.findings
            ):
                result.findings.append(replace(one, section=f"{name}.{one.section}" if name else one.section))
    result.findings.sort(key=lambda one: _ORDER.index(one.level))
    return result


def replaced_model(config: StageConfig, model: str) -> StageConfig:
    """The stage as if it started from `model`, without rewards and references that are not made yet."""
    changed: dict[str, Any] = {"model": model}
    rewards = getattr(config, "rewards", None)
    if rewards is not None:
        there = [one for one in rewards if ".py:" in one or Path(one).exists()]
        changed["reward"] = there or ["not-made-yet.py:reward"]
    return config.model_copy(update=changed)


def _examined(config: StageConfig, renderer: Renderer, progress: Progress) -> Prepared:
    """The stage's data and findings; what cannot be read at all is a finding as well."""
    try:
        return examine(config, renderer, progress, collect=True)
    except (DataError, ModelError) as error:
        section = "model" if isinstance(error, ModelError) else "data"
        found = Finding("unusable", "error", section, str(error))
        return Prepared.empty([found])


def _weights(config: StageConfig, model: str, renderer: Renderer) -> Iterator[Finding]:
    """What can be told of a model's files without building it: its vocabulary, and numbers that are none."""
    folder = Path(model)
    if not (folder / "config.json").is_file():
        return
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'}: not readable as JSON: {error}") from None
    words = settings.get("vocab_size") or settings.get("text_config", {}).get("vocab_size")
    if isinstance(words, int) and len(renderer.tokenizer) > words:
        text = f"the tokenizer of {model} has {len(renderer.tokenizer)} tokens, the embedding only {words}"
        yield Finding("vocabulary", "error", "model", text, "take both from the same model")
    for path in sorted(folder.glob("*.safetensors")):
        if name := non_finite(path):
            text = f"{path}: {name} holds NaN or infinity"
            yield fault("non-finite-weights", "model", text, "take an earlier checkpoint", config.allow)
            return


def non_finite(path: Path) -> str | None:
    """The first tensor of a .safetensors file that holds NaN or infinity; one tensor is in memory at a time."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    return name
    except SafetensorError as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from None
    return None


def show(result: Checked, *, as_json: bool) -> None:
    """Print what was found to stdout."""
    if as_json:
        print(json.dumps(result.as_dict(), indent=2, ensure_ascii=True))
        return
    console = make_console(stderr=False)
    width = min(console.width, 80)
    for stage, sections in result.stages.items():
        for name, counts in sections.items():
            console.print(Text(f"{stage} · {name}", style="bold"))
            console.print(Text(f"  {_sum(counts)}", overflow="fold"), width=width)
    for one in result.findings:
        style = {"error": "red", "warning": "yellow", "allowed": "yellow"}.get(one.level, "")
        console.print(
            Text(clean(f"{_MARKS[one.level]} [{one.code}] {one.in_words()}"), style=style, overflow="fold"), width=width
        )
        if "histogram" in one.numbers:
            _draw(one.numbers["histogram"], console)
    verdict = "training would be refused" if result.count("error") else "nothing here stops a training"
    total = f"{result.count('error')} errors, {result.count('warning')} warnings: {verdict}"
    console.print(Text(total, style="bold"))
    sys.stdout.flush()


def _sum(counts: dict[str, Any]) -> str:
    """read = used + left out + not selected."""
    over = len(counts.get("over_length", {}).get("rows", ()))
    parts = [f"{counts['used']:,} used"]
    parts += [f"{len(counts['dropped']):,} identical pairs left out"] if counts["dropped"] else []
    parts += [f"{over:,} too long, left out"] if over else []
    parts += [f"{counts['unselected']:,} not selected"] if counts["unselected"] else []
    return f"{counts['read']:,} rows read = {' + '.join(parts)}"


def _draw(bars: Any, console: Any) -> None:
    most = max((bar[2] for bar in bars), default=1)
    for low, high, rows in bars:
        console.print(Text(f"      {low:>7,}-{high:<7,} {'█' * round(_BAR * rows / most) or '▏':<{_BAR}} {rows:,}"))
