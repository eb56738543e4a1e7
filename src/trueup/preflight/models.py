"""Check the models that a stage names by their configurations and files' headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.config import DpoConfig, PpoConfig, StageConfig
from trueup.config.paths import adapter_base, is_adapter, trust_of
from trueup.config.untrusted import refusal
from trueup.data.tokens.findings import Finding, fault
from trueup.errors import ModelError
from trueup.models.matching import adapter_problem, adapter_report, folder_report, skeleton
from trueup.models.reward_model import classifier_source

if TYPE_CHECKING:
    from trueup.system.console import Progress


def check_models(config: StageConfig, progress: Progress) -> None:
    """Check the models that a stage names, and print what is left out of them.

    Raises:
        ModelError: a model's weights are not those of its class, or an adapter's not those for its base.
    """
    findings = list(weight_findings(config))
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise ModelError("\n".join(finding.in_words() for finding in errors[:3]))
    for finding in findings:
        show = progress.warn if finding.level == "allowed" else progress.note
        show(finding.in_words())


def weight_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield a finding for each model of a stage whose weights are not those of its class, or are left out in part.

    Models on the hub, `.gguf` files and models with their own code are compared when they load.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    yield from _weights("model", config.model, AutoModelForCausalLM, config, head=config.method != "reward")
    if isinstance(config, DpoConfig) and config.reference:
        yield from _weights("reference", config.reference, AutoModelForCausalLM, config)
    rewards = [("reward", reward) for reward in config.rewards] if isinstance(config, PpoConfig) else []
    if isinstance(config, PpoConfig | DpoConfig):
        watched = (("reward", getattr(config.watch, "reward", None)), ("gold", config.watch.gold))
        rewards += [(section, reward) for section, reward in watched if reward]
    for section, reward in rewards:
        if ".py:" not in reward:
            yield from _weights(section, classifier_source(reward), AutoModelForSequenceClassification, config)


def _weights(section: str, model: str, auto: Any, config: StageConfig, *, head: bool = True) -> Iterator[Finding]:
    folder, trust = Path(model), trust_of(config)
    if not folder.is_dir() or refusal(folder, trust):
        return
    try:
        if is_adapter(folder):
            yield from _weights(section, adapter_base(folder), auto, config, head=head)
            base = skeleton(model)
            report = None if base is None else adapter_report(folder, base)
            if report is not None and (problem := adapter_problem(report, folder, adapter_base(folder))):
                yield Finding("unmatched-weights", "error", section, *problem)
            return
        report = folder_report(folder, auto, head=head)
    except ModelError as error:
        text, _, fix = str(error).partition("\n  fix: ")
        yield Finding("unmatched-weights", "error", section, text, fix)
        return
    if report is None:
        return
    if report.left_out:
        text = f"{report.model} leaves out {report.ignored(report.left_out)}; a model trained from it is without them"
        yield Finding("ignored-weights", "note", section, f"{model}: {text}")
    if report.only_unexpected and "ignored-weights" in config.allow:
        text = f"{model}: {report.model} has no use for {report.ignored(report.unexpected)}"
        yield fault("ignored-weights", section, text, "", config.allow)
    elif problem := report.problem(model):
        yield Finding("unmatched-weights", "error", section, *problem)
