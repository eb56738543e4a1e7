"""PPO: the policy answers prompts, a reward scores the answers, a KL penalty keeps the policy near the reference.

With LoRA the policy, the value model and the reward model are adapters over one frozen base and the reference is that
base alone. `mix` adds SFT data as another term of the loss (PPO-ptx, Ouyang et al. 2022, eq. 2).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.config.paths import trust_of
from trueup.data.prompts import Prompts
from trueup.errors import ConfigError
from trueup.evaluation.policy import Sampling, means, measure_policy
from trueup.evaluation.watch import Watch, planned_looks, ppo_rules, with_gold_stop
from trueup.models.loading import load_classifier
from trueup.models.reward_model import classifier_source, open_reward
from trueup.models.rewards import Ensemble
from trueup.models.weights import input_embeddings
from trueup.recipes.rollouts import Rollouts
from trueup.recipes.stage import Stage, open_stage
from trueup.training import objectives
from trueup.training.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import PpoConfig


def run(config: PpoConfig) -> dict[str, Any]:
    """Train the policy against `config.reward` and export it; return the content of summary.json."""
    with open_stage(config) as stage:
        prompts = Prompts(stage.train, stage.prepared.columns)
        stage.network.add_trainable("policy", config.lora)
        stage.network.add_reference()
        reward = _reward_and_value(stage, config)
        settings = config.rollouts
        sampler = stage.sampler(batch_size=settings.episodes // settings.per_prompt)
        # Every rank scores all samples; rank 0 writes some of them.
        record = stage.run.append_samples if stage.network.runtime.is_main else lambda _: None
        source = Rollouts(stage.network, prompts, sampler, reward, config, record=record)
        terms = [Term("ppo", source, objectives.policy(settings, config.kl))]
        if settings.advantage.needs_values:
            terms.append(Term("value", source, objectives.value(settings), settings.value_coef))
        steps = _steps(config, sampler.n)
        fitted = stage.fit(
            [*terms, *stage.mix_terms()], steps,
            evaluation=_evaluation(stage, config, reward, steps), headline=("ppo/reward", "ppo/kl", "ppo/length"),
        )  # fmt: skip
        return stage.finish(fitted, "policy")


def _steps(config: PpoConfig, prompts: int) -> int:
    """Return the number of optimizer steps: `optim.steps`, or the minibatches in `optim.epochs` epochs of the prompts.

    `prompts` is the number of prompts in an epoch.
    """
    settings, optim = config.rollouts, config.optim
    if optim.steps is not None:
        return optim.steps
    steps, prompts_per_rollout = 0, settings.episodes // settings.per_prompt
    for start in range(0, prompts, prompts_per_rollout):
        episodes = min(prompts_per_rollout, prompts - start) * settings.per_prompt
        steps += settings.epochs * math.ceil(episodes / optim.batch_size)
    return optim.epochs * steps


def _reward_and_value(stage: Stage, config: PpoConfig) -> Ensemble:
    """Return the ensemble of all configured rewards, and add a value model if the advantage needs one.

    The value model starts from the first reward if that is a reward model of the same kind as the policy.
    """
    roles = ["reward", *(f"reward{number}" for number in range(2, len(config.rewards) + 1))]
    opened = [
        open_reward(source, stage.network, config, role=role)
        for source, role in zip(config.rewards, roles, strict=True)
    ]
    if config.rollouts.advantage.needs_values:
        _add_value(stage, config, config.rewards[0], on_backbone=opened[0][1])
    return Ensemble([reward for reward, _ in opened], config.rollouts.uncertainty)


def _add_value(stage: Stage, config: PpoConfig, source: str, *, on_backbone: bool) -> None:
    """Add the role "value": a trainable copy of the reward model if that fits, else a head that starts at zero.

    Args:
        stage: the open stage.
        config: its configuration.
        source: the first reward: a folder, hub id or file.py:function.
        on_backbone: True if that reward is an adapter over the policy's base.

    Raises:
        ConfigError: the reward model has another vocabulary than the policy.
    """
    network = stage.network
    if on_backbone:
        stage.progress.note(
            "one backbone: policy, value and reward are adapters over one base, the reference is the base"
        )
        network.add_scorer("value", Path(source) / "adapter", trainable=True)
    elif ".py:" not in source and config.lora is None:
        classifier = load_classifier(classifier_source(source), network.runtime, trust=trust_of(config))
        if input_embeddings(classifier).shape[0] != network.vocabulary:
            raise ConfigError(
                f"reward: {source} has another vocabulary than {config.model}, so no value model can start from it"
            )
        network.add_classifier("value", classifier, trainable=True)
    else:
        if ".py:" not in source:
            stage.progress.warn(
                "the reward model was not trained over this base: the value model starts at zero, not from it"
            )
        network.add_trainable("value", config.lora, head=True)


def _evaluation(stage: Stage, config: PpoConfig, reward: Ensemble, steps: int) -> Evaluation | None:
    """Return the evaluation during a training of `steps` steps; None without held-out prompts.

    It measures reward, gold reward, KL and length of sampled answers to them, and warns of reward hacking.
    """
    if stage.held_out is None:
        return None
    prompts = Prompts(stage.held_out, stage.prepared.columns)
    gold = None if config.watch.gold is None else open_reward(config.watch.gold, stage.network, config, role="gold")[0]
    sampling = Sampling(config.rollouts.max_new_tokens, config.max_tokens, config.rollouts.temperature, config.seed)
    watch = Watch(stage.run, ppo_rules(config.kl.target), stage.progress, planned_looks(steps, config.eval.every))

    def compute(step: int) -> dict[str, float]:
        items = measure_policy(stage.network, prompts, sampling, reward=reward, gold=gold)
        if stage.network.runtime.is_main:
            watch.see(step, items)
        return means(items)

    return with_gold_stop(
        Evaluation(compute, config.eval.every, config.eval.patience, "reward", better="higher"),
        config,
        watch,
        is_main=stage.network.runtime.is_main,
    )
