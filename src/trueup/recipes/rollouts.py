"""Source of PPO's minibatches: it samples answers to prompts, scores them and computes advantages.

A rollout is one round of sampled answers (episodes). A new rollout is sampled when its minibatches are used up;
logging, clipping, evaluation and resuming belong to the loop. GRPO and RLOO differ only in the advantage function. The
state holds the current samples, so a run resumes inside a rollout.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.algorithms import kl as kl_module
from trueup.algorithms import ppo
from trueup.algorithms.advantages import ADVANTAGES, Episodes, RunningNorm, missing_end_penalty, token_rewards
from trueup.algorithms.tensors import segment_sum, whiten
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import TrainingError
from trueup.models.batching import Batch, Branch, Example
from trueup.models.forward import forward_all
from trueup.models.rewards import Ensemble, disagreement
from trueup.recipes.behaviour_logps import policy_logps
from trueup.recipes.reference import START_TOLERANCE
from trueup.runtime import mixed_seed
from trueup.sampling import Sample, sample, sampled_at_once
from trueup.training.terms import collate_step

if TYPE_CHECKING:
    from trueup.config import PpoConfig
    from trueup.data.tokens.sampler import Sampler
    from trueup.models.network import Network
    from trueup.models.rewards import Reward
    from trueup.runs.checkpoint import StateDict
from trueup.data.prompts import PromptRow, Prompts
from trueup.sampling.text import answer_text

_RECORDED = 4  # samples of each rollout written to samples.jsonl


class Rollouts:
    """Source that yields the minibatches of one rollout (a round of sampled, scored answers) after another.

    Args:
        network: the model with roles "policy" and "reference", and "value" for GAE.
        prompts: the prompts; the sampler's indices point into them.
        sampler: draws `rollouts.episodes / rollouts.per_prompt` prompts at a time.
        reward: scores whole conversations.
        config: the stage's configuration.
        record: receives a few samples of each rollout, for samples.jsonl.
    """

    def __init__(
        self, network: Network, prompts: Sequence[PromptRow], sampler: Sampler, reward: Reward, config: PpoConfig,
        record: Callable[[list[dict[str, object]]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._network, self._prompts, self._sampler = network, prompts, sampler
        self._reward = reward if isinstance(reward, Ensemble) else Ensemble([reward])
        self._config, self._record = config, record
        self._controller = make_controller(config)
        self._kl = config.kl.estimator.function(kl_module.ESTIMATORS, "kl.estimator")
        logged = config.kl.logged
        self._logged = None if logged is None else logged.function(kl_module.ESTIMATORS, "kl.logged")
        self._advantage = config.rollouts.advantage_function(ADVANTAGES)
        self._norm = RunningNorm()
        self._episodes: list[Example] = []
        self._packed: StateDict | None = None  # `_episodes` as a checkpoint stores them
        self._queue: list[list[int]] = []  # the remaining minibatches, as indices of episodes
        self._drawn = 0  # number of minibatches returned
        self._rollout = 0  # number of rollouts sampled
        self._metrics: dict[str, float] = {}

    # -- Source --------------------------------------------------------------------------------------------------

    def next(self, check: Callable[[], None]) -> list[Batch]:
        """Return this rank's micro-batches of the next minibatch; a new rollout is sampled if none is left."""
        if not self._queue:
            self._sample(check)
        indices, self._queue = self._queue[0], self._queue[1:]
        self._drawn += 1
        chosen = [self._episodes[index] for index in indices]
        return collate_step(chosen, self._network, per="token", max_tokens=self._config.max_tokens)

    def metrics(self) -> dict[str, float]:
        """Return means over the current rollout by name, e.g. "reward", "kl" (nats per answer) and "length"."""
        return self._metrics

    def origin(self, row: int) -> object:
        """Return the file and line of prompt number `row`, for messages."""
        return self._prompts.origin(row) if isinstance(self._prompts, Prompts) else f"prompt {row + 1}"

    def state_dict(self) -> StateDict:
        """Return the state for a checkpoint: positions, KL coefficient, reward scale and the current samples."""
        if self._packed is None:
            self._packed = pack(self._episodes)
        return {
            "sampler": cast("StateDict", self._sampler.state_dict()),
            "controller": cast("StateDict", self._controller.state_dict()),
            "norm": cast("StateDict", self._norm.state_dict()),
            "episodes": self._packed,
            "queue": cast("Any", self._queue),
            "drawn": self._drawn,
            "rollout": self._rollout,
            "metrics": cast("StateDict", self._metrics),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore what `state_dict` returned, so that the run continues even inside a rollout."""
        values = cast("dict[str, Any]", state)
        self._sampler.load_state_dict(values["sampler"])
        self._controller.load_state_dict(values["controller"])
        self._norm.load_state_dict(values["norm"])
        self._episodes, self._packed = unpack(values["episodes"]), values["episodes"]
        self._queue = [list(indices) for indices in values["queue"]]
        self._drawn, self._rollout = values["drawn"], values["rollout"]
        self._metrics = dict(values["metrics"])

    # -- one rollout ---------------------------------------------------------------------------------------------

    def _sample(self, check: Callable[[], None]) -> None:
        settings = self._config.rollouts
        # The samples of a prompt are neighbours: the groups of RLOO and GRPO.
        rows = [index for index in self._sampler.next() for _ in range(settings.per_prompt)]
        prompts = [self._prompts[row] for row in rows]
        samples = sample(
            self._network, [prompt.ids for prompt in prompts], max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature, seed=mixed_seed(self._config.seed, self._rollout),
            max_tokens=sampled_at_once(self._config.max_tokens),
        )  # fmt: skip
        check()
        self._episodes = self._judge(prompts, samples, rows)
        self._packed = None
        self._queue = self._minibatches(len(rows))
        self._rollout += 1

    def _minibatches(self, episodes: int) -> list[list[int]]:
        size, queue = self._config.optim.batch_size, list[list[int]]()
        for epoch in range(self._config.rollouts.epochs):
            order = list(range(episodes))
            random.Random(f"{self._config.seed}-{self._rollout}-{epoch}").shuffle(order)
            queue += [order[start : start + size] for start in range(0, episodes, size)]
        return queue

    def _judge(self, prompts: list[PromptRow], samples: list[Sample], rows: list[int]) -> list[Example]:
        """Score the sampled answers and return them as examples with the columns that PPO needs.

        A column, such as advantages or old log-probabilities, has one value per token. Metrics and samples.jsonl are
        updated too.
        """
        settings, network = self._config.rollouts, self._network
        answers = [answer_text(network, sampled) for sampled in samples]
        conversations = [
            Conversation((*prompt.messages, Message("assistant", text)), columns=prompt.columns)
            for prompt, text in zip(prompts, answers, strict=True)
        ]
        members = self._reward.scores(conversations)
        raw = self._reward.combine(members)
        plain = [
            Example(prompt.ids, (Branch(sampled.ids, [True] * len(sampled.ids)),), row=row)
            for prompt, sampled, row in zip(prompts, samples, rows, strict=True)
        ]
        forward_settings = {"max_tokens": self._config.max_tokens, "temperature": settings.temperature}
        # In the first rollout compute all: policy and reference are compared below, without rounding of the sampler.
        policy, gap = policy_logps(network, plain, samples, **forward_settings, compare_all=self._rollout == 0)
        reference = forward_all(network, plain, "reference", "logps", **forward_settings)
        values = (
            forward_all(network, plain, "value", "values", **forward_settings)
            if settings.advantage.needs_values
            else None
        )
        branch_of = torch.repeat_interleave(
            torch.arange(len(samples)), torch.tensor([len(sampled.ids) for sampled in samples])
        )
        in_loss = self._config.kl.apply == "loss"
        per_token = torch.zeros_like(policy) if in_loss else self._kl(policy, reference)
        kl = segment_sum(policy - reference, branch_of, len(samples))
        if self._rollout == 0:
            _check_start(policy - reference, network)
        finished = torch.tensor([sampled.finished for sampled in samples])
        scores = self._shape(raw, finished, torch.tensor([len(sampled.ids) for sampled in samples]))
        columns = self._advantages(
            scores, per_token, branch_of, values, torch.tensor([rows.index(row) for row in rows])
        )
        columns["old_logps"] = policy
        if in_loss:
            columns["ref_logps"] = reference
            columns["kl_coef"] = torch.full_like(policy, self._controller.coef)
        self._measure(raw, kl, samples, columns)
        if self._logged is not None:
            logged = segment_sum(self._logged(policy, reference), branch_of, len(samples))
            self._metrics["kl_logged"] = float(logged.mean())
        if gap is not None:
            self._metrics["rollout_logp_gap"] = gap
        if len(members) > 1:
            self._metrics["reward_disagreement"] = float(disagreement(members).mean())
        self._record(self._records(conversations, raw, kl, samples))
        self._controller.update(float(kl.mean()), len(samples))
        return [
            replace(example, branches=(replace(example.branches[0], columns=values),))
            for example, values in zip(plain, _split(columns, samples), strict=True)
        ]

    def _shape(self, raw: Tensor, finished: Tensor, lengths: Tensor) -> Tensor:
        """Return (S,) the scores that PPO uses, normalised if configured.

        Penalties for the length and for a missing end token are subtracted.
        """
        scores = raw
        if self._config.rollouts.normalize_reward:
            self._norm.update(raw)
            scores = self._norm.normalize(raw)
        scores = scores - self._config.rollouts.length_penalty * lengths
        return missing_end_penalty(scores, finished, self._config.rollouts.missing_end_penalty)

    def _advantages(
        self, scores: Tensor, per_token_kl: Tensor, branch_of: Tensor, values: Tensor | None, groups: Tensor
    ) -> dict[str, Tensor]:
        settings, coef = self._config.rollouts, self._controller.coef
        episodes = Episodes(
            token_rewards(scores, per_token_kl, branch_of, coef),
            scores - coef * segment_sum(per_token_kl, branch_of, len(scores)),
            branch_of, groups, values,
        )  # fmt: skip
        advantages = self._advantage(episodes)
        columns = {} if values is None else {"returns": advantages + values, "old_values": values}
        if (
            settings.whiten and not settings.advantage.needs_groups
        ):  # a group is a baseline already; another shift would undo it
            advantages = whiten(advantages)
        return {"advantages": advantages, **columns}

    def _measure(self, raw: Tensor, kl: Tensor, samples: list[Sample], columns: dict[str, Tensor]) -> None:
        lengths = torch.tensor([float(len(sampled.ids)) for sampled in samples])
        self._metrics = {
            "reward": float(raw.mean()),
            "reward_std": float(raw.std(unbiased=False)),
            "kl": float(kl.mean()),
            "kl_coef": float(self._controller.coef),
            "length": float(lengths.mean()),
            "missing_end": sum(not sampled.finished for sampled in samples) / len(samples),
            "rollout": float(self._rollout + 1),
        }
        if "returns" in columns:
            self._metrics["explained_variance"] = float(
                ppo.explained_variance(columns["old_values"], columns["returns"])
            )

    def _records(
        self, conversations: list[Conversation], raw: Tensor, kl: Tensor, samples: list[Sample]
    ) -> list[dict[str, object]]:
        return [
            {
                "step": self._drawn + 1,
                "prompt": conversations[index].messages[-2].content,
                "answer": conversations[index].response,
                "reward": float(raw[index]),
                "kl": float(kl[index]),
                "finished": samples[index].finished,
            }
            for index in range(min(_RECORDED, len(samples)))
        ]


def make_controller(config: PpoConfig) -> kl_module.FixedKL | kl_module.AdaptiveKL:
    """Return the controller of the KL penalty's coefficient: adaptive if `kl.target` is set, else fixed."""
    if config.kl.target is None:
        return kl_module.FixedKL(config.kl.coef)
    return kl_module.AdaptiveKL(config.kl.coef, config.kl.target, config.kl.horizon)


def _check_start(log_ratios: Tensor, network: Network) -> None:
    """Check that the policy gives the same log-probabilities as its reference before the first update.

    Raises:
        TrainingError: they differ, so the KL penalty would be wrong, which no log would show.
    """
    per_token = float(log_ratios.abs().mean())
    tolerance = START_TOLERANCE[network.runtime.dtype == torch.float32]
    if not per_token < tolerance:
        raise TrainingError(
            f"before the first update the policy differs from its reference by {per_token:.3g} nats a token "
            f"(allowed: {tolerance:g}): the KL penalty would be wrong. Start PPO from the same model as its reference"
        )


def _split(columns: dict[str, Tensor], samples: list[Sample]) -> list[dict[str, list[float]]]:
    """Return for each sample its part of the columns: lists of numbers, one for each token, by column name."""
    sizes = [len(sampled.ids) for sampled in samples]
    parts = {name: [piece.tolist() for piece in column.split(sizes)] for name, column in columns.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(samples))]


def pack(examples: Sequence[Example]) -> StateDict:
    """Return examples of one branch each as flat tensors and lists, for a checkpoint; `unpack` reverses it."""
    if not examples:
        return {"prompt_lengths": [], "columns": []}
    branches = [example.branches[0] for example in examples]
    state: dict[str, Any] = {
        "prompt_lengths": [len(example.trunk) for example in examples],
        "rows": [example.row for example in examples],
        "lengths": [len(branch.ids) for branch in branches],
        "prompts": torch.tensor([token for example in examples for token in example.trunk]),
        "ids": torch.tensor([token for branch in branches for token in branch.ids]),
        "columns": sorted(branches[0].columns),
    }
    for name in branches[0].columns:
        # float64: a Python float survives unchanged.
        flat = [value for branch in branches for value in branch.columns[name]]
        state[f"column/{name}"] = torch.tensor(flat, dtype=torch.float64)
    return state


def unpack(state: dict[str, Any]) -> list[Example]:
    """Return the examples that `pack` turned into `state`."""
    if not state["prompt_lengths"]:
        return []
    prompts = state["prompts"].split(list(state["prompt_lengths"]))
    ids = state["ids"].split(list(state["lengths"]))
    columns = {name: state[f"column/{name}"].split(list(state["lengths"])) for name in state["columns"]}
    return [
        Example(
            prompt.tolist(),
            (Branch(answer.tolist(), [True] * len(answer), {name: columns[name][index].tolist() for name in columns}),),
            row=state["rows"][index],
        )
        for index, (prompt, answer) in enumerate(zip(prompts, ids, strict=True))
    ]
