"""PPO: the policy answers prompts, a reward scores the answers, a KL penalty holds it to where it started.

With LoRA the policy, the value model and the reward model are adapters over one frozen base and the reference is that
base alone. `mix` adds SFT data as another term of the loss (PPO-ptx, Ouyang et al. 2022, eq. 2).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup import objectives
from trueup.errors import ConfigError, DataError
from trueup.evaluation.policy import measure_policy
from trueup.export import adapter_for
from trueup.loading import load_classifier
from trueup.model_reward import model_reward, separate_reward
from trueup.rewards import from_function
from trueup.rollouts import PromptRow, Rollouts
from trueup.stage import Stage, open_stage
from trueup.terms import Evaluation, Term
from trueup.weights import input_embeddings

if TYPE_CHECKING:
    from trueup.config import DataConfig, PpoConfig
    from trueup.rewards import Reward


def run(config: PpoConfig) -> dict[str, Any]:
    """Train the policy against `config.reward` and export it. Returns the summary."""
    with open_stage(config) as stage:
        prompts = _prompts(stage, "prompts", config.prompts)
        stage.network.add_trainable("policy", config.lora)
        stage.network.add_reference()
        reward = _reward_and_value(stage, config)
        settings = config.rollouts
        sampler = stage.sampler(len(prompts), settings.episodes // settings.per_prompt)
        # Every rank judges all samples, one writes them.
        record = stage.run.append_samples if stage.network.runtime.is_main else lambda _: None
        source = Rollouts(stage.network, prompts, sampler, reward, config, record=record)
        terms = [Term("ppo", source, objectives.policy(settings))]
        if settings.advantage == "gae":
            terms.append(Term("value", source, objectives.value(settings), settings.value_coef))
        fitted = stage.fit(
            [*terms, *stage.mix_terms()], _steps(config, len(prompts)),
            evaluation=_evaluation(stage, config, reward), headline=("ppo/reward", "ppo/kl", "ppo/length"),
        )  # fmt: skip
        return stage.finish(fitted, "policy")


def _prompts(stage: Stage, name: str, data: DataConfig) -> list[PromptRow]:
    """Rendered prompts that leave room for an answer.

    Raises:
        DataError: one does not; no prompt is ever cut, and none left out unless `over_length` is "drop".
    """
    config: Any = stage.config
    room = config.max_length - config.rollouts.max_new_tokens
    rows = stage.load(name, data, "prompt")
    made = [PromptRow(row.messages, stage.network.renderer.prompt(row.messages, origin=row.origin)) for row in rows]
    long = [at for at, one in enumerate(made) if len(one.ids) > room]
    if long and (config.over_length != "drop" or len(long) == len(made)):
        worst = max(len(one.ids) for one in made)
        raise DataError(
            f"{rows[long[0]].origin}: {len(long)} of {len(made)} prompts leave no room for "
            f"{config.rollouts.max_new_tokens} new tokens within max_length={config.max_length}\n"
            f"  set max_length={worst + config.rollouts.max_new_tokens}, or leave them out with over_length=drop"
        )
    kept = [one for at, one in enumerate(made) if at not in set(long)]
    stage.data[name] |= {"used": len(kept), "over_length": {"rows": [str(rows[at].origin) for at in long]}}
    if long:
        stage.progress.warn(f"{name}: {len(long)} of {len(made)} prompts without room for an answer were left out")
    return kept


def _steps(config: PpoConfig, prompts: int) -> int:
    """Optimizer steps: `optim.steps`, else minibatches of `optim.epochs` passes over the prompts."""
    settings, optim = config.rollouts, config.optim
    if optim.steps is not None:
        return optim.steps
    per_rollout, at_once = 0, settings.episodes // settings.per_prompt
    for start in range(0, prompts, at_once):
        episodes = min(at_once, prompts - start) * settings.per_prompt
        per_rollout += settings.epochs * math.ceil(episodes / optim.batch_size)
    return optim.epochs * per_rollout


def _reward_and_value(stage: Stage, config: PpoConfig) -> Reward:
    """Build the reward, and the value model (GAE only) from it where it is a model of the same kind."""
    network, needs_value = stage.network, config.rollouts.advantage == "gae"
    if ".py:" in config.reward:
        if needs_value:
            network.add_trainable("value", config.lora, head=True)
        return from_function(config.reward)
    folder = Path(config.reward)
    adapter = adapter_for(folder, network) if config.lora is not None else None
    if adapter is not None:
        stage.progress.note(
            "one backbone: policy, value and reward are adapters over one base, the reference is the base"
        )
        network.add_scorer("reward", adapter, trainable=False)
        if needs_value:
            network.add_scorer("value", adapter, trainable=True)
        return model_reward(network, max_tokens=config.max_tokens)
    source = str(folder / "model") if (folder / "model").is_dir() else config.reward
    if not needs_value:
        return separate_reward(source, config, network.runtime)
    reward = separate_reward(source, config, network.runtime)
    if config.lora is None:
        classifier = load_classifier(source, network.runtime, trust_remote_code=config.trust_remote_code)
        if input_embeddings(classifier).shape[0] != network.vocabulary:
            raise ConfigError(
                f"reward: {source} has another vocabulary than {config.model}, so no value model can start from it"
            )
        network.add_classifier("value", classifier, trainable=True)
    else:
        stage.progress.warn(
            "the reward model was not trained over this base: the value model starts at zero, not from it"
        )
        network.add_trainable("value", config.lora, head=True)
    return reward


def _evaluation(stage: Stage, config: PpoConfig, reward: Reward) -> Evaluation | None:
    """On held-out prompts, greedy: reward, KL from the reference and length."""
    if config.eval.data is None:
        return None
    prompts = _prompts(stage, "eval", config.eval.data)

    def compute() -> dict[str, float]:
        measured = measure_policy(
            stage.network, prompts, reward, max_new_tokens=config.rollouts.max_new_tokens, max_tokens=config.max_tokens
        )
        return measured.means()

    return Evaluation(compute, config.eval.every, config.eval.patience, "reward", better="higher")
