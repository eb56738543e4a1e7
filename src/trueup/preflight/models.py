"""Check the models that a stage names by their configurations and files' headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueup.config import DpoConfig, PpoConfig, StageConfig
from trueup.config.functions import UserFunction
from trueup.config.paths import adapter_base, is_adapter, trust_of
from trueup.config.untrusted import refusal
from trueup.data.tokens.findings import Finding, fault
from trueup.errors import ModelError
from trueup.models.adapter_matching import adapter_problem, adapter_report
from trueup.models.blank import read_model_config, skeleton
from trueup.models.family import check_family
from trueup.models.loading import inspected_folder, kind_problem
from trueup.models.matching import WeightsReport, folder_report
from trueup.models.positions import position_limit
from trueup.models.reward_model import classifier_source
from trueup.models.settings import setting_problems
from trueup.models.stored import read_adapter, read_weights, same_weights
from trueup.models.targets import target_problem
from trueup.system.text import home_path, listed

if TYPE_CHECKING:
    from trueup.data.tokens.prepare import Prepared
    from trueup.data.tokens.select import Examples
    from trueup.system.console import Progress


def check_models(config: StageConfig, progress: Progress) -> None:
    """Check the models that a stage names, and print what is left out of them.

    Raises:
        ModelError: a model's weights are not those of its class, or an adapter's not those for its base.
    """
    findings = [*model_findings(config)]
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise ModelError("\n".join(finding.in_words() for finding in errors[:3]))
    for finding in findings:
        show = progress.note if finding.level == "note" else progress.warn
        show(finding.in_words())


def family_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield a finding if the stage's method or LoRA section is not possible for the family of its model."""
    try:
        check_family(config)
    except ModelError as error:
        text, _, fix = str(error).partition("\n  fix: ")
        yield Finding("unusable", "error", "model", text.removeprefix("model: "), fix)


def model_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield the findings on a stage's models that their configurations and files tell, for its model's family apart."""
    yield from weight_findings(config)
    yield from reward_findings(config)
    yield from setting_findings(config)
    yield from target_findings(config)


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
    if (problem := kind_problem(folder, model, auto)) is not None:
        text, _, fix = problem.partition("\n  fix: ")
        yield Finding("unusable", "error", section, text, fix)
        return
    try:
        if is_adapter(folder):
            yield from _weights(section, adapter_base(folder), auto, config, head=head)
            if others := sorted(path.parent.name for path in folder.glob("*/adapter_config.json")):
                text = f"{model}: the adapters in folders of it are not used: {listed(others, 5)}"
                yield Finding("other-adapters", "note", section, text)
            base = skeleton(model)
            report = None if base is None else adapter_report(folder, base)
            if report is not None and _is_untrained(folder):
                text = f"{model}: all of its lora_B are zeros, so it changes nothing: this is its base"
                yield Finding("untrained-adapter", "warning", section, text, "name the base, or a trained adapter")
            if report is not None and (problem := adapter_problem(report, folder, adapter_base(folder))):
                yield Finding("unmatched-weights", "error", section, *problem)
            return
        report = folder_report(folder, auto, head=head, code=trust.code)
    except ModelError as error:
        text, _, fix = str(error).partition("\n  fix: ")
        yield Finding("unmatched-weights", "error", section, text, fix)
        return
    if report is None:
        return
    yield from _value_findings(section, folder, auto, report)
    if report.left_out:
        text = f"{report.model} leaves out {report.ignored(report.left_out)}; a model trained from it is without them"
        yield Finding("ignored-weights", "note", section, f"{model}: {text}")
    if report.only_unexpected and "ignored-weights" in config.allow:
        text = f"{model}: {report.model} has no use for {report.ignored(report.unexpected)}"
        yield fault("ignored-weights", section, text, "", config.allow)
    elif problem := report.problem(model):
        yield Finding("unmatched-weights", "error", section, *problem)


def _value_findings(section: str, folder: Path, auto: Any, report: WeightsReport) -> Iterator[Finding]:
    """Yield findings on the numbers of single weights: a score head of zeros, an LM head tied by config.json alone."""
    heads = {"score.weight"} & {*report.stored}
    if auto.__name__ == "AutoModelForSequenceClassification" and heads:
        if not any(bool(weight.any()) for weight in read_weights(folder, heads).values()):
            text = f"{folder}: its score head (score.weight) is all zeros: every answer has the same score"
            yield Finding("constant-reward", "error", section, text, "train the reward model, or copy it whole again")
    elif report.tied:
        weights = read_weights(folder, {name for pair in report.tied for name in pair})
        differing = [(name, source) for name, source in report.tied if not _equal(weights, name, source)]
        if differing:
            name, source = differing[0]
            text = (
                f"{folder}: config.json ties {name} to {source}, but the files hold other numbers for it; these are "
                "used, and tools that tie (transformers 4) would compute something else"
            )
            yield Finding("untied-head", "warning", section, text, "set tie_word_embeddings=false in its config.json")


def _is_untrained(adapter: Path) -> bool:
    """Return True if a LoRA adapter is as it was made, before any training: the second matrix of each layer is zero."""
    weights = read_adapter(adapter)
    seconds = [weight for name, weight in weights.items() if ".lora_B." in name]
    others = any(".lora_" not in name or "magnitude" in name for name in weights)
    return bool(seconds) and not others and not any(bool(weight.any()) for weight in seconds)


def _equal(weights: Mapping[str, Tensor], name: str, other: str) -> bool:
    return name not in weights or other not in weights or torch.equal(weights[name], weights[other])


def reward_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield a finding for a reward of an ensemble that is another one again: the same weights, or the same code."""
    rewards = config.rewards if isinstance(config, PpoConfig) else []
    if isinstance(config, PpoConfig) and (problem := _value_problem(config)) is not None:
        yield Finding("unusable", "error", "reward", *problem)
    for index, reward in enumerate(rewards):
        for first, other in enumerate(rewards[:index]):
            if _same_reward(other, reward):
                text = f"{reward} is a copy of reward[{first}] ({other}), and one model twice disagrees on nothing"
                yield Finding("repeated-reward", "error", "reward", text, "name it once, or a model of another seed")
                break


def _value_problem(config: PpoConfig) -> tuple[str, str] | None:
    """Return (text, fix) if the value model cannot start from the first reward, of another vocabulary; else None."""
    source, model = Path(classifier_source(config.rewards[0])), Path(config.model)
    if config.lora is not None or not config.rollouts.advantage.needs_values:
        return None
    try:
        kinds = [read_model_config(folder) if folder.is_dir() else None for folder in (source, model)]
    except ModelError:
        return None  # a finding of its own
    sizes = [getattr(kind.get_text_config(), "vocab_size", None) for kind in kinds if kind is not None]
    if len(sizes) < 2 or sizes[0] == sizes[1]:
        return None
    text = (
        f"{source} has another vocabulary ({sizes[0]}) than {model} ({sizes[1]}), so no value model can start from it"
    )
    return text, "use a reward model of the same family, or rollouts.advantage=rloo, which needs no values"


def _same_reward(first: str, second: str) -> bool:
    functions = [UserFunction.parse(first), UserFunction.parse(second)]
    if functions[0] and functions[1]:
        codes = [(home_path(f.file).read_bytes(), f.name, f.settings) for f in functions if f is not None]
        return codes[0] == codes[1]
    folders = [Path(classifier_source(reward)) for reward in (first, second)]
    if any(functions) or not all(folder.is_dir() for folder in folders):
        return False
    try:
        return same_weights(*folders)
    except ModelError:
        return False  # a file that cannot be read is a finding of its own


def other_models(config: StageConfig) -> list[tuple[str, str]]:
    """Return (section, model) for the reference model and the reward models that a stage names."""
    models: list[tuple[str, str]] = []
    if isinstance(config, DpoConfig) and config.reference:
        models.append(("reference", config.reference))
    if isinstance(config, PpoConfig):
        models += [("reward", classifier_source(reward)) for reward in config.rewards if ".py:" not in reward]
    return models


def setting_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield a finding for each setting without sense of the stage's model, and of its reference and reward models."""
    for section, model in [("model", config.model), *other_models(config)]:
        base = adapter_base(Path(model)) if is_adapter(Path(model)) else model
        try:
            folder = inspected_folder(base)
        except ModelError:
            continue  # the hub has it not, which `check_family` or the loader says
        if folder is None or refusal(folder, trust_of(config), weights=False):
            continue
        for text, fix in setting_problems(folder, base):
            yield Finding("unusable", "error", section, text, fix)


def target_findings(config: StageConfig) -> Iterator[Finding]:
    """Yield a finding if a name in `lora.targets` matches no layer of the stage's model, where its layers are known."""
    if config.lora is None or isinstance(config.lora.targets, str):
        return
    model = skeleton(config.model)
    if model is not None and (problem := target_problem(model, config.lora.targets)) is not None:
        yield Finding("unmatched-targets", "error", "model", *problem)


# -- positions -------------------------------------------------------------------------------------------------------


def position_findings(config: StageConfig, prepared: Prepared) -> Iterator[Finding]:
    """Yield a finding for each data section with rows longer than the positions of the stage's model.

    It is a fault where the positions are a table, past whose end nothing can be computed, and a warning where they are
    rotary. The length of a prompt that is answered includes the new tokens.
    """
    model = skeleton(config.model)
    limit = None if model is None else position_limit(model)
    if limit is None:
        return
    main, watched = config.data_fields[0], isinstance(config, DpoConfig) and config.watch.samples
    new_tokens = {"mix": 0, "eval": config.watch.max_new_tokens if isinstance(config, DpoConfig) and watched else 0}
    if isinstance(config, PpoConfig):
        new_tokens |= {main: config.rollouts.max_new_tokens, "eval": config.rollouts.max_new_tokens}
    for section, rows in ((main, prepared.train), ("eval", prepared.held_out), ("mix", prepared.mix)):
        if rows is None or not len(rows):
            continue
        new = new_tokens.get(section, 0)
        long_rows = _longer_than(rows, limit.positions, new)
        pairs = isinstance(config, DpoConfig) and config.loss.unpaired and section == main
        mismatched = min(long_rows.longest_pair, config.max_length) if pairs and limit.is_table else 0
        if not long_rows.count and mismatched <= limit.positions:
            continue
        what = f"with up to {new} new tokens " if new else ""
        counted = f"{long_rows.count:,} of {len(rows):,} rows {what}are longer than"
        if not long_rows.count:
            counted = "a prompt with another row's answer, which the loss compares with, can be longer than"
        longest = max(long_rows.longest, mismatched)
        has = f"the {limit.positions:,} positions of {config.model}: up to {longest:,} tokens"
        fix = f"set max_length={limit.positions}, with over_length=drop or cut; or take a model with more positions"
        if limit.is_table:
            text = f"{counted} {has}, and it computes nothing past them"
            yield Finding("positions", "error", section, text, fix, long_rows.places)
        else:
            text = f"{counted} {has}, and what it computes past those of its training is not reliable"
            yield Finding("positions", "warning", section, text, fix, long_rows.places)


@dataclass(slots=True)
class _LongRows:
    """Rows longer than a limit: their number, the first places, the longest, and the longest prompt plus answer."""

    count: int
    places: tuple[str, ...]
    longest: int
    longest_pair: int


def _longer_than(rows: Examples, limit: int, new_tokens: int) -> _LongRows:
    """Return the rows of which the whole, or the prompt with `new_tokens` more, has more than `limit` tokens."""
    over: list[int] = []
    seen = longest = trunk = branch = 0

    def visit(records: NDArray[np.void]) -> None:
        nonlocal seen, longest, trunk, branch
        prompts = records["trunk"].astype(np.int64)
        answers = np.maximum(records["first"], records["second"]).astype(np.int64)
        sizes = np.minimum(prompts + answers, rows.cut or np.iinfo(np.int64).max)
        if new_tokens:
            sizes = np.maximum(sizes, prompts + new_tokens)
        over.extend((np.flatnonzero(sizes > limit) + seen).tolist())
        longest = max(longest, int(sizes.max(initial=0)))
        trunk, branch = max(trunk, int(prompts.max(initial=0))), max(branch, int(answers.max(initial=0)))
        seen += len(records)

    rows.map_records(visit)
    return _LongRows(len(over), tuple(str(rows.origin(index)) for index in over[:10]), longest, trunk + branch)
