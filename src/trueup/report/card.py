"""Write the model card: README.md of a model's folder, as the Hugging Face hub shows it.

It stands without the report.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from trueup.pages.numbers import NOT_MEASURED, estimate, memory
from trueup.pages.text import cleaned, one_line
from trueup.report.report_schema import Measure, Report, StageRun
from trueup.report.view import Counts, counts
from trueup.system.text import clean, duration

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_AT_START = re.compile(r"^(\d*)([-+#=.)])(?=[-\s#=.)]|$)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LINES = 20
_NAMES = {"sft": "supervised fine-tuning", "reward": "reward modelling", "dpo": "direct preference optimisation",
          "ppo": "proximal policy optimisation"}  # fmt: skip


def model_card(report: Report, model: str, *, base: str, method: str, transformers: int = 5) -> str:
    """Return the text of the model card, README.md, for the folder of `model`.

    Args:
        report: the report on the run; what it lacks is named in the card as not measured.
        model: a name of the report's models, or a stage of it (a reward model).
        base: the model that training started from: hub id, folder or .gguf file.
        method: sft, reward, dpo or ppo.
        transformers: the lowest major version of transformers that reads the folder rightly, see `least_version`.
    """
    # Cleaned names are used for the look-up as well, as those of the report are cleaned.
    report, model, base = cleaned(report), _cleaned(model), _cleaned(base)
    stage = next((run for run in report.stages if run.name == model), None)
    parts = [
        _front(base, method),
        f"# {escaped(model)}\n\n{_what(base, method)}",
        _verdict(report, model),
        _measured(report, model),
        _not_measured(report),
        _training(stage, report),
        _loading(method, transformers),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Return a text in one line, with everything escaped that Markdown or HTML would interpret."""
    flat = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Bare addresses would become links.
    flat = flat.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
    return _AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", flat))


def fenced(text: str, language: str = "") -> str:
    """Return a text as a Markdown code block, whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _cleaned(text: str) -> str:
    return clean(text, one_line=True)


def is_hub_id(base: str) -> bool:
    """Return True if `base` can be a Hugging Face hub id: no path, no .gguf file, and no such file exists here."""
    return bool(_HUB_ID.fullmatch(base)) and not base.endswith(".gguf") and not Path(base).exists()


def _front(base: str, method: str) -> str:
    facts: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if method == "reward" else "text-generation",
        "tags": ["trueup", "alignment", _cleaned(method)],
    }
    if is_hub_id(base):
        facts["base_model"] = base
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _what(base: str, method: str) -> str:
    name = _NAMES.get(method, method)
    kind = "A reward model: one score for a conversation" if method == "reward" else "A causal language model"
    return f"{kind}, trained with trueup by {escaped(name)} from {escaped(base)}."


def _verdict(report: Report, model: str) -> str:
    model_verdict = report.verdict.models.get(model)
    if model_verdict is None:
        return "## Verdict\n\n**NOT JUDGED**: no gate was held against this model."
    lines = [
        f"## Verdict\n\n**{model_verdict.verdict}**"
        + (f": {'; '.join(map(escaped, model_verdict.reasons))}" if model_verdict.reasons else "")
    ]
    if model_verdict.gates:
        lines += ["", "| gate | outcome | |", "|---|---|---|"]
        lines += [
            f"| {escaped(gate.title)} | **{gate.outcome}** | {escaped(gate.words)} |" for gate in model_verdict.gates
        ]
    return "\n".join(lines)


def _measured(report: Report, model: str) -> str:
    lines = [_row(measure, model, report.against) for measure in report.measures if model in measure.values]
    card = report.reward_model
    if card is not None and card.name == model:
        rankings = (("accuracy", card.accuracy), ("where chosen is longer", card.chosen_longer),
                    ("where chosen is shorter", card.chosen_shorter))  # fmt: skip
        lines += [
            f"| {name}, share of held-out rankings | {estimate(number)} | {number.n} | | |"
            for name, number in rankings
            if number
        ]
    if not lines:
        return f"## Measured\n\n**{NOT_MEASURED}**: no number was taken of this model."
    against = escaped(report.against) if report.against else "the baseline"
    head = f"| measure | value [95% interval] | n | {against} | paired difference |\n|---|---|---:|---|---|"
    return f"## Measured\n\n{head}\n" + "\n".join(lines)


def _row(measure: Measure, model: str, against: str | None) -> str:
    value, difference = measure.values[model], measure.differences.get(model)
    base = measure.values.get(against) if against is not None else None
    difference_text = (
        "" if difference is None else f"{estimate(difference, sign=True)} **{measure.judgement(difference)}**"
    )
    title = f"{escaped(measure.title)}, {escaped(measure.unit)}"
    return f"| {title} | {estimate(value)} | {value.n} | {estimate(base) if base else ''} | {difference_text} |"


def _not_measured(report: Report) -> str:
    if not report.not_measured:
        return ""
    lines = [f"- {escaped(missing.what)}: {escaped(missing.why)}" for missing in report.not_measured]
    return f"## {NOT_MEASURED.capitalize()}\n\nNone of this counts for anything, good or bad.\n\n" + "\n".join(lines)


def _training(stage: StageRun | None, report: Report) -> str:
    if stage is None:
        return ""
    facts = [
        f"{stage.steps:,} steps" if stage.steps is not None else "",
        f"{stage.tokens:,} tokens" if stage.tokens is not None else "",
        duration(stage.seconds) if stage.seconds is not None else "",
        f"{memory(stage.peak_memory_bytes)} of memory at most" if stage.peak_memory_bytes is not None else "",
        f"seed {stage.seed}" if stage.seed is not None else "",
        "stopped early" if stage.stopped_early else "",
        f"watched on {stage.watched}" if stage.watched else "",
        "" if stage.finished else "**not finished**",
    ]
    parts = ["## Training", ", ".join(fact for fact in facts if fact) + "."]
    parts += [_data(counts(name, data)) for name, data in stage.data.items()]
    alarms = [alarm for alarm in report.alarms if alarm.stage == stage.name]
    if alarms:
        lines = [
            f"- step {alarm.step}, **{escaped(alarm.name)}**: {escaped(alarm.message)}. Fix: {escaped(alarm.fix)}"
            for alarm in alarms
        ]
        parts.append("### Alarms\n\n" + "\n".join(lines))
    if stage.config:
        parts.append(f"### Configuration\n\n{fenced(stage.config, 'yaml')}")
    if stage.command or report.command:
        parts.append("It is repeated by\n\n" + fenced(stage.command or report.command or "", "sh"))
    versions = ", ".join(f"{escaped(name)} {escaped(value)}" for name, value in report.versions.items())
    return "\n\n".join([*parts, f"Versions: {versions}."] if versions else parts)


def _data(data: Counts) -> str:
    read = "" if data.read is None else f"{data.read:,} rows read = "
    used = "" if data.used is None else f"{data.used:,} used + "
    where = f" ({escaped(data.path)})" if data.path else ""
    sums = f"{read}{used}{data.left_out:,} left out + {data.unselected:,} not selected"
    lines = [f"**{escaped(data.name)}**{where}: {sums}"]
    for listed in data.lists:
        shown = "; ".join(escaped(line) for line in listed.lines[:_LINES])
        more = f"; and {listed.count - _LINES:,} more" if len(listed.lines) > _LINES else ""
        lines.append(f"- {listed.count:,} {escaped(listed.title)}{': ' if shown else ''}{shown}{more}")
    return "\n".join(lines[:1]) + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def _loading(method: str, transformers: int) -> str:
    code = _SCORES if method == "reward" else _ANSWERS
    versions = "5 or later" if transformers > 4 else "5, or 4 (from 4.56, where it knows this family)"
    text = f"A standard folder: trueup is not needed. It needs transformers {versions}."
    return f"## Use\n\n{text}\n\n{fenced(code, 'python')}"


_ANSWERS = """
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{"role": "user", "content": "What is the capital of Iceland?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
""".lstrip()

_SCORES = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
messages = [
    {"role": "user", "content": "What is the capital of Iceland?"},
    {"role": "assistant", "content": "Reykjavik."},
]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
print(model(**inputs).logits[0, 0].item())  # higher is better
""".lstrip()
