"""`trueup check`: all that a training would look at before it starts, told at once, for people or as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from trueup.config import PipelineConfig, PpoConfig, StageConfig
from trueup.config.paths import is_adapter
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.findings import Finding
from trueup.data.tokens.prepare import Prepared
from trueup.errors import DataError, ModelError
from trueup.models.loading import code_problem, load_tokenizer, read_config
from trueup.preflight.check import examine, models_beside
from trueup.system.console import Progress, make_console
from trueup.system.text import clean

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
    return _check([("", config)])


def check_pipeline(config: PipelineConfig) -> Checked:
    """Check every stage of a pipeline. A stage whose model is not made yet is read with the base's tokenizer."""
    stages = [(name, config.stage(name)[1]) for name in config.stages]
    made = {str(stage.output) for _, stage in stages}
    return _check([(name, _as_of_now(stage, config.base, made)) for name, stage in stages])


def _as_of_now(config: StageConfig, base: str, made: Collection[str]) -> StageConfig:
    """The stage without what other stages (whose folders are `made`) did not make yet: it starts from `base` then."""

    def missing(folder: Path) -> bool:
        return str(folder) in made and not (folder / "model" / "config.json").is_file()

    changed: dict[str, Any] = {"model": base} if missing(Path(config.model).parent) else {}
    if isinstance(config, PpoConfig):
        changed["reward"] = [one for one in config.rewards if not missing(Path(one))] or ["not-made-yet.py:reward"]
    return config.model_copy(update=changed)


def _check(stages: Sequence[tuple[str, StageConfig]]) -> Checked:
    result, progress = Checked(), Progress()
    renderers: dict[str, Renderer] = {}
    told: set[tuple[str, str, str, str | None]] = set()
    for name, config in stages:
        fresh = config.model not in renderers
        if fresh:
            tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
            renderers[config.model] = Renderer(tokenizer)
        renderer = renderers[config.model]
        made = _examined(config, renderer, progress)
        result.stages[name or config.method] = made.counts
        before, prints = set(told), made.fingerprints
        for one in [*made.findings, *(_weights(config, renderer) if fresh else ())]:
            rows = prints.get(one.section.partition("[")[0])  # the same rows in two stages are told of once
            if (one.code, one.text, one.level, rows) not in before:
                told.add((one.code, one.text, one.level, rows))
                result.findings.append(replace(one, section=f"{name}.{one.section}" if name else one.section))
    result.findings.sort(key=lambda one: _ORDER.index(one.level))
    return result


def _examined(config: StageConfig, renderer: Renderer, progress: Progress) -> Prepared:
    """The stage's data and findings; what cannot be read at all is a finding as well."""
    try:
        return examine(config, renderer, progress, collect=True)
    except (DataError, ModelError) as error:
        section = "model" if isinstance(error, ModelError) else "data"
        found = Finding("unusable", "error", section, str(error))
        return Prepared.empty([found])


def _weights(config: StageConfig, renderer: Renderer) -> Iterator[Finding]:
    """What can be told of a model's files without building it: its vocabulary, and numbers that are none."""
    model, folder = config.model, Path(config.model)
    settings = read_config(folder) if (folder / "config.json").is_file() else {}
    inner = settings.get("text_config")
    words = settings.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else None)
    if settings and not config.trust_remote_code and (problem := code_problem(folder)):
        text, _, fix = problem.partition("\n  fix: ")
        yield Finding("unusable", "error", "model", text, fix)
    if isinstance(words, int) and len(renderer.tokenizer) > words:
        text = f"the tokenizer of {model} has {len(renderer.tokenizer)} tokens, the embedding only {words}"
        yield Finding("vocabulary", "error", "model", text, "take both from the same model")
    if is_adapter(folder):
        text = "whether the adapter was trained over these weights of its base is looked at when a training starts"
        yield Finding("other-base", "note", "model", text)
    for section, place in [("model", model), *models_beside(config)]:
        paths = sorted(Path(place).glob("*.safetensors"))
        found = next(((path, name) for path in paths if (name := non_finite(path))), None)
        if found is not None:
            text = f"{found[0]}: {found[1]} holds NaN or infinity"
            yield Finding("non-finite-weights", "error", section, text, "take an earlier checkpoint")


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
            console.print(Text(f"  {_sum(name, counts)}", overflow="fold"), width=width)
    for one in result.findings:
        style = {"error": "red", "warning": "yellow", "allowed": "yellow"}.get(one.level, "")
        console.print(
            Text(clean(f"{_MARKS[one.level]} [{one.code}] {one.in_words()}"), style=style, overflow="fold"), width=width
        )
        if "histogram" in one.numbers:
            _draw(one.numbers["histogram"], console)
    verdict = "training would be refused" if result.count("error") else "nothing here stops a training"
    total = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level in ("error", "warning") for n in [result.count(level)])
    console.print(Text(f"{total}: {verdict}", style="bold"))
    sys.stdout.flush()


def _sum(name: str, counts: dict[str, Any]) -> str:
    """What became of the rows: read = used + left out + held out + not selected."""
    over = counts.get("over_length", {}).get("count", 0)
    held = counts.get("held_out", 0) if name != "eval" else 0
    rest = counts["unselected"] - held
    parts = [f"{counts['used']:,} used"]
    left_out = Counter(drop["reason"] for drop in counts["dropped"])
    parts += [f"{number:,} left out ({reason})" for reason, number in left_out.most_common()]
    parts += [f"{over:,} too long, left out"] if over else []
    parts += [f"{held:,} held out"] if held else []
    parts += [f"{rest:,} not selected"] if rest else []
    return f"{counts['read']:,} rows read = {' + '.join(parts)}"


def _draw(bars: Any, console: Any) -> None:
    most, width = max((bar[2] for bar in bars), default=1), max(4, min(_BAR, console.width - 36))
    for low, high, rows in bars:
        console.print(Text(f"      {low:>7,}-{high:<7,} {'█' * round(width * rows / most) or '▏':<{width}} {rows:,}"))
