"""Direct preference optimisation and its relatives: the policy learns from rankings, without a reward model.

The reference model does not run in the loop: its log-probabilities are a column of the data. KTO learns from single
completions (or from both sides of rankings) and needs one more forward pass a step, to estimate the KL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trueup.algorithms import preference
from trueup.config.paths import trust_of
from trueup.data.example import Example
from trueup.data.prompts import PromptRow, Prompts
from trueup.data.rendering.messages import Message
from trueup.data.tokens.select import Examples
from trueup.data.unpaired import mismatched, unpaired_examples
from trueup.errors import DataError
from trueup.evaluation.policy import Sampling, means, measure_policy
from trueup.evaluation.watch import Watch, dpo_rules, planned_looks, with_gold_stop
from trueup.models.forward import branch_logps
from trueup.models.loading import load_causal_lm
from trueup.models.reward_model import open_reward
from trueup.recipes.kto import KtoSource, unpaired_sampler
from trueup.recipes.reference import check_start, with_reference
from trueup.recipes.stage import Stage, open_stage
from trueup.stats.intervals import rate
from trueup.training import objectives
from trueup.training.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import DpoConfig


def run(config: DpoConfig) -> dict[str, Any]:
    """Train the policy on rankings with the loss `config.loss` and export it; return the content of summary.json."""
    with open_stage(config) as stage:
        stage.network.add_trainable("policy", config.lora)
        if config.loss.needs_reference:
            _add_reference(stage, config)
        stage.check_model()
        term, epoch = _unpaired_term(stage, config) if config.loss.unpaired else _paired_term(stage, config)
        steps = stage.steps(epoch)
        fitted = stage.fit(
            [term, *stage.mix_terms()], steps, evaluation=_evaluation(stage, config, steps),
            headline=("loss", "dpo/rewards/accuracy", "dpo/rewards/margin"),
        )  # fmt: skip
        return stage.finish(fitted, "policy")


def _add_reference(stage: Stage, config: DpoConfig) -> None:
    """Add the reference model: the one that `reference` names, else the policy's initial weights."""
    if config.reference is None:
        stage.network.add_reference()
        return
    other = load_causal_lm(config.reference, stage.network.runtime, trust=trust_of(config))
    stage.network.add_reference(other)


def _paired_term(stage: Stage, config: DpoConfig) -> tuple[Term, int]:
    """Return the loss term on (chosen, rejected) pairs, and the number of pairs in an epoch."""
    source = stage.source(_pairs(stage, config, "data", stage.train), "example", sampler=(sampler := stage.sampler()))
    return Term("dpo", source, objectives.paired_preference(config.loss)), sampler.n


def _pairs(stage: Stage, config: DpoConfig, name: str, rows: Examples) -> Sequence[Example]:
    """Return the rows as examples, with the reference model's log-probabilities if the loss needs them.

    `name`, "data" or "eval", is the section of the configuration they come from; it names the cache file.
    """
    if not config.loss.needs_reference:
        return rows
    stage.progress.note(f"{name}: reference log-probabilities of {len(rows)} pairs")
    cache, tokens = stage.run.path / f"reference-{name}.safetensors", config.max_tokens
    examples = with_reference(stage.network, rows, cache, max_tokens=tokens)
    if config.reference is None:
        check_start(stage.network, examples, max_tokens=tokens)
    return examples


def _unpaired_term(stage: Stage, config: DpoConfig) -> tuple[Term, int]:
    """Return the loss term on single completions (KTO), and the number of completions in an epoch."""
    network, tokens, rows = stage.network, config.max_tokens, stage.train
    examples, sampler = unpaired_examples(rows), unpaired_sampler(stage)

    def origin(index: int) -> object:
        return rows.origin(index % len(rows))  # both sides of a ranking are completions, all chosen ones first

    objective = objectives.unpaired_preference(config.loss)
    if not config.loss.needs_reference:
        return Term("dpo", stage.source(examples, "branch", sampler=sampler, origin=origin), objective), sampler.n
    shifted = with_reference(
        network, mismatched(examples, config.max_length), stage.run.path / "reference-kl.safetensors", max_tokens=tokens
    )
    examples = with_reference(network, examples, stage.run.path / "reference-data.safetensors", max_tokens=tokens)
    source = KtoSource(examples, shifted, sampler, network, max_tokens=tokens, origin=origin)
    return Term("dpo", source, objective), sampler.n


def _evaluation(stage: Stage, config: DpoConfig, steps: int) -> Evaluation | None:
    """Return the evaluation during a training of `steps` steps; None without held-out rankings.

    It measures loss, accuracy and margin on held-out rankings, KL and length of sampled answers, and warns of drift.
    """
    if stage.held_out is None:
        return None
    held_out = _pairs(stage, config, "eval", stage.held_out)
    sampled = _sampled_measures(stage, config)
    watch = Watch(stage.run, dpo_rules(), stage.progress, planned_looks(steps, config.eval.every))
    scalars = [branch.scalars for example in held_out for branch in example.branches]
    lengths = torch.tensor([float(branch.trained) for example in held_out for branch in example.branches])
    reference = torch.tensor([values["ref_logps"] for values in scalars]) if "ref_logps" in scalars[0] else None
    loss = config.loss.function(preference.LOSSES, "loss")
    beta = float(config.loss.params.get("beta", 1.0))

    def compute(step: int) -> dict[str, float]:
        sums = branch_logps(stage.network, held_out, "policy", max_tokens=config.max_tokens)
        pairs = preference.Pairs(
            chosen=sums[0::2], rejected=sums[1::2],
            ref_chosen=None if reference is None else reference[0::2],
            ref_rejected=None if reference is None else reference[1::2],
            chosen_len=lengths[0::2], rejected_len=lengths[1::2],
        )  # fmt: skip
        measured = preference.metrics(pairs, beta)
        margins = measured["rewards/margin"]
        numbers = {name: float(values.mean()) for name, values in measured.items() if name != "rewards/accuracy"}
        if not config.loss.unpaired:
            numbers["loss"] = float(loss(pairs).mean())
        won = rate(float(objectives.accuracy(margins).sum()), len(margins))
        numbers |= {"accuracy": won.value, "accuracy_low": won.low, "accuracy_high": won.high, "n": float(won.n)}
        items = sampled()
        if reference is not None:
            items |= {"chosen": (sums - reference)[0::2].tolist(), "rejected": (sums - reference)[1::2].tolist()}
        if items and stage.network.runtime.is_main:
            watch.see(step, items)
        return {name: value for name, value in means(items).items() if name != "n"} | numbers

    metric = ("accuracy", "higher") if config.loss.unpaired else ("loss", "lower")
    # Before the first step a policy equals its reference, so only its answers are worth measuring, for comparison.
    at_start = reference is None or config.reference is not None or config.watch.samples > 0
    return with_gold_stop(
        Evaluation(compute, config.eval.every, config.eval.patience, *metric, at_start=at_start),
        config,
        watch,
        is_main=stage.network.runtime.is_main,
    )


def _sampled_measures(stage: Stage, config: DpoConfig) -> Callable[[], dict[str, list[float]]]:
    """Return a function that answers the first `watch.samples` held-out prompts and returns values per prompt by name.

    Raises:
        DataError: no prompt leaves room for an answer.
    """
    settings, rows = config.watch, stage.held_out
    if rows is None or not settings.samples:
        return dict
    candidates = Prompts(rows, stage.prepared.columns)
    prompts = _prompts(candidates, config.max_length - settings.max_new_tokens, settings.samples)
    if not prompts:
        raise DataError(
            f"eval: no prompt leaves room for watch.max_new_tokens={settings.max_new_tokens} within "
            f"max_length={config.max_length}; lower it, or set watch.samples=0 to watch no answers"
        )
    stage.progress.note(f"watch: {len(prompts)} held-out prompts are answered at each measurement")
    reward, gold = (
        None if source is None else open_reward(source, stage.network, config, role=role)[0]
        for role, source in (("reward", settings.reward), ("gold", settings.gold))
    )  # fmt: skip
    sampling = Sampling(settings.max_new_tokens, config.max_tokens, seed=config.seed)
    return lambda: measure_policy(stage.network, prompts, sampling, reward=reward, gold=gold)


def _prompts(rows: Sequence[PromptRow], room: int, count: int) -> list[PromptRow]:
    """Return the first `count` different prompts of at most `room` tokens; longer ones leave no space for an answer."""
    by_messages: dict[tuple[Message, ...], PromptRow] = {}
    for row in rows:
        if len(row.ids) <= room:
            by_messages.setdefault(row.messages, row)
        if len(by_messages) == count:
            break
    return list(by_messages.values())
