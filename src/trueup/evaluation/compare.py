"""Compare models: one row each, every number with its n and interval; and their answers side by side.

Numbers about answers are of samples at temperature 1, because a KL is an expectation under the policy itself. Greedy
answers are only shown. What was not measured is absent from a row, never zero.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from trueup import sources
from trueup.batching import Branch, Example
from trueup.chat import Conversation, Message
from trueup.console import clean, table
from trueup.evaluation.intervals import Estimate, mean, rate
from trueup.forward import forward_all
from trueup.loading import load_causal_lm, load_classifier, load_tokenizer
from trueup.model_reward import model_reward
from trueup.models import Network
from trueup.objectives import accuracy
from trueup.reference import branch_logps
from trueup.rollouts import PromptRow, answer_text
from trueup.sampling import Sample, sample

if TYPE_CHECKING:
    from trueup.chat import Preference, Prompt
    from trueup.config import DataConfig
    from trueup.rewards import Reward
    from trueup.runtime import Runtime

COLUMNS = {
    "reward": "reward",
    "wins": "wins",
    "kl": "KL, nats",
    "length": "tokens",
    "ended": "ended",
    "prefers": "prefers",
}
"""Keys of a row, and their titles in the table."""


@dataclass(slots=True)
class Comparison:
    """What was measured: a row of estimates a model, answers to a few prompts, the reward model's accuracy."""

    against: str | None
    rows: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    reward_accuracy: Estimate | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same, fit for JSON."""
        return {
            "against": self.against,
            "models": {name: {key: one.as_dict() for key, one in row.items()} for name, row in self.rows.items()},
            "reward_accuracy": None if self.reward_accuracy is None else self.reward_accuracy.as_dict(),
            "not_measured": self.not_measured,
            "answers": self.answers,
        }

    def show(self) -> None:
        """Print the table, then the answers, within 80 columns."""
        keys = [key for key in COLUMNS if any(key in row for row in self.rows.values())]
        body = [[name, *(str(row[key]) if key in row else "-" for key in keys)] for name, row in self.rows.items()]
        # Six intervals do not fit 80 columns side by side: three to a table.
        for start in range(0, len(keys), 3):
            part = keys[start : start + 3]
            title = "value [95% interval]" + (f", against {self.against}" if self.against else "")
            table(
                title,
                ["model", *(COLUMNS[key] for key in part)],
                [[row[0], *row[1 + start : 4 + start]] for row in body],
            )
        if self.reward_accuracy is not None:
            one = self.reward_accuracy
            print(f"reward model: right on {one} of {one.n} held-out rankings")
        for what, why in self.not_measured.items():
            print(f"NOT MEASURED: {what}: {why}")
        for shown in self.answers:
            print(f"\n> {clean(shown['prompt'], one_line=True)[:300]}")
            for name, answer in shown["answers"].items():
                print(f"  {name:>8}: {clean(answer, one_line=True)[:400]}")


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure on: prompts to answer, rankings held out, a reward; any may be missing."""

    prompts: Sequence[Prompt] = ()
    rankings: Sequence[Preference] = ()
    reward: str | None = None
    max_new_tokens: int = 64
    max_tokens: int = 4096
    show: int = 3
    seed: int = 0


def compare(
    models: dict[str, str],
    task: Task,
    runtime: Runtime,
    *,
    against: str | None = None,
    note: Callable[[str], None] = print,
) -> Comparison:
    """Measure each model.

    Args:
        models: name -> folder, hub id or .gguf.
        task: what to measure on.
        runtime: device and dtype.
        against: the model (a key of `models`) that KL, wins and preferences are taken against; usually the SFT model.
        note: told what is being done.
    """
    result = Comparison(against)
    reward_network = None if task.reward is None else _reward_network(task.reward, runtime)
    reward = None if reward_network is None else model_reward(reward_network, max_tokens=task.max_tokens)
    _say_what_is_missing(result, task)
    if reward_network is not None and task.rankings:
        scores = _scores_of_rankings(reward_network, task)
        wins = accuracy(scores[0::2] - scores[1::2])
        result.reward_accuracy = rate(float(wins.sum()), len(wins))
    reference = None if against is None else _policy_network(models[against], runtime)
    baseline: list[float] | None = None
    result.answers = [{"prompt": one.messages[-1].content, "answers": {}} for one in task.prompts[: task.show]]
    order = sorted(models, key=lambda name: name != against)  # the baseline's rewards are needed first
    for name in order:
        note(f"evaluating {name}")
        network = reference if name == against and reference is not None else _policy_network(models[name], runtime)
        comparable = reference
        if reference is not None and network.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
            comparable = None
            result.not_measured[f"KL of {name}"] = f"its tokenizer is not {against}'s"
        row, rewards = _measure(network, comparable, reward, task, baseline, is_baseline=name == against)
        baseline = rewards if name == against else baseline
        result.rows[name] = row
        for shown, answer in zip(result.answers, _greedy(network, task), strict=True):
            shown["answers"][name] = answer
        del network
        gc.collect()
    result.rows = {name: result.rows[name] for name in models}
    for shown in result.answers:
        shown["answers"] = {name: shown["answers"][name] for name in models}
    return result


def _say_what_is_missing(result: Comparison, task: Task) -> None:
    if not task.prompts:
        result.not_measured["reward, KL, length"] = "no prompts; set evaluate.prompts"
    if not task.rankings:
        result.not_measured["reward model's accuracy, preferences"] = "no held-out rankings; set evaluate.data"
    if task.reward is None:
        result.not_measured["reward"] = "no reward model among the stages"


def _policy_network(model: str, runtime: Runtime) -> Network:
    network = Network(load_causal_lm(model, runtime), load_tokenizer(model), runtime)
    network.add_frozen("policy")
    return network


def _reward_network(folder: str, runtime: Runtime) -> Network:
    classifier = load_classifier(folder, runtime)
    network = Network(classifier, load_tokenizer(folder), runtime)
    network.add_classifier("reward", classifier, trainable=False)
    return network


def _measure(
    network: Network, reference: Network | None, reward: Reward | None, task: Task, baseline: list[float] | None,
    *, is_baseline: bool,
) -> tuple[dict[str, Estimate], list[float] | None]:  # fmt: skip
    """One model's row, and its rewards prompt by prompt."""
    row: dict[str, Estimate] = {}
    rewards: list[float] | None = None
    if task.prompts:
        prompts = [PromptRow(one.messages, network.renderer.prompt(one.messages)) for one in task.prompts]
        samples = sample(network, [one.ids for one in prompts], max_new_tokens=task.max_new_tokens, seed=task.seed)
        row["length"] = mean([float(len(one.ids)) for one in samples])
        row["ended"] = rate(sum(one.finished for one in samples), len(samples))
        if reward is not None:
            rewards = reward(conversations(network, prompts, samples)).tolist()
            row["reward"] = mean(rewards)
            if baseline is not None:
                row["wins"] = rate(_wins(rewards, baseline), len(rewards))
        if reference is not None and not is_baseline:
            row["kl"] = mean(log_ratios(network, reference, prompts, samples, task.max_tokens))
    if task.rankings:
        row["prefers"] = _preference_rate(network, reference, task, is_baseline=is_baseline)
    return row, rewards


def _wins(rewards: list[float], baseline: list[float]) -> float:
    return sum(float(one > other) + 0.5 * float(one == other) for one, other in zip(rewards, baseline, strict=True))


def conversations(network: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample]) -> list[Conversation]:
    """Prompts and sampled answers as conversations, for a reward."""
    return [
        Conversation((*prompt.messages, Message("assistant", answer_text(network, one))))
        for prompt, one in zip(prompts, samples, strict=True)
    ]


def log_ratios(
    network: Network, reference: Network, prompts: Sequence[PromptRow], samples: Sequence[Sample], max_tokens: int
) -> list[float]:
    """log(policy / reference) of each sampled answer in nats: unbiased for the KL at temperature 1."""
    examples = [
        Example(prompt.ids, (Branch(one.ids, [True] * len(one.ids)),))
        for prompt, one in zip(prompts, samples, strict=True)
    ]
    ours = branch_logps(network, examples, "policy", max_tokens=max_tokens)
    return (ours - branch_logps(reference, examples, "policy", max_tokens=max_tokens)).tolist()


def _greedy(network: Network, task: Task) -> list[str]:
    prompts = [network.renderer.prompt(one.messages) for one in task.prompts[: task.show]]
    samples = sample(network, prompts, max_new_tokens=task.max_new_tokens, temperature=0.0)
    return [answer_text(network, one) for one in samples]


def _ranking_examples(network: Network, rankings: Sequence[Preference]) -> list[Example]:
    renderer = network.renderer
    examples: list[Example] = []
    for one in rankings:
        rendered = [renderer.continuation(one.prompt, side) for side in (one.chosen, one.rejected)]
        examples.append(Example(renderer.prompt(one.prompt), tuple(Branch(side.ids, side.mask) for side in rendered)))
    return examples


def _scores_of_rankings(network: Network, task: Task) -> torch.Tensor:
    return forward_all(
        network, _ranking_examples(network, task.rankings), "reward", "scores", max_tokens=task.max_tokens
    )


def _preference_rate(network: Network, reference: Network | None, task: Task, *, is_baseline: bool) -> Estimate:
    """Share of held-out rankings in which chosen is the likelier, relative to the reference where it is another model.

    For the baseline itself the plain log-probabilities are compared: its ratio to itself says nothing.
    """
    examples = _ranking_examples(network, task.rankings)
    sums = branch_logps(network, examples, "policy", max_tokens=task.max_tokens)
    if reference is not None and not is_baseline:
        sums = sums - branch_logps(reference, examples, "policy", max_tokens=task.max_tokens)
    wins = accuracy(sums[0::2] - sums[1::2])
    return rate(float(wins.sum()), len(wins))


def load_task(
    prompts: DataConfig | None, rankings: DataConfig | None, *, samples: int, reward: str | None, max_new_tokens: int,
    show: int, seed: int,
) -> Task:  # fmt: skip
    """Read what a configuration names; the first `samples` prompts are used."""
    asked: Sequence[Prompt] = ()
    ranked: Sequence[Preference] = ()
    if prompts is not None:
        asked = list(sources.load_section(prompts, "prompt"))[:samples]
    if rankings is not None:
        ranked = list(sources.load_section(rankings, "preference"))
    return Task(asked, ranked, reward, max_new_tokens=max_new_tokens, show=show, seed=seed)
