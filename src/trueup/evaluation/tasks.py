"""The tasks: a model and a set give one row an item.

Questions that have a right answer and prompts that might be refused are answered greedily, as a user would see; free
answers are sampled at temperature 1 with a fixed seed, because a KL is an expectation under the policy itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueup.data.prompts import PromptRow
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import TrainingError
from trueup.evaluation.grading import is_right, repetition
from trueup.evaluation.items import Item
from trueup.evaluation.policy import Sampling, answers_to, conversations, finite, log_ratios
from trueup.models.batching import Branch, Example, single
from trueup.models.forward import branch_logps, forward_all

if TYPE_CHECKING:
    from torch import Tensor

    from trueup.data.rendering.messages import Preference
    from trueup.evaluation.sets import Asked, Passage
    from trueup.models.network import Network
    from trueup.models.rewards import Reward


@dataclass(frozen=True, slots=True)
class Subject:
    """The model being measured.

    Attributes:
        network: with the role "policy".
        reference: what KL and preferences are taken against; None where the tokenizers differ, or there is none.
        is_reference: whether it is that model itself.
        max_new_tokens: longest answer.
        counter: in whose tokens texts and answers are counted, so that models of other tokenizers can be compared.
        max_tokens: micro-batch size.
        temperature: of free answers.
        seed: of free answers.
    """

    network: Network
    reference: Network | None
    is_reference: bool
    max_new_tokens: int
    counter: Network
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0

    def rows(self, asked: Sequence[Asked]) -> list[PromptRow]:
        """Rendered prompts."""
        return [PromptRow(one.prompt, self.network.renderer.prompt(one.prompt)) for one in asked]

    def sampling(self, temperature: float) -> Sampling:
        """How answers are drawn."""
        return Sampling(self.max_new_tokens, self.max_tokens, temperature, self.seed)

    @property
    def counts_alike(self) -> bool:
        """Whether its own tokens are those that are counted."""
        return self.is_reference or self.reference is not None

    def tokens(self, text: str) -> float:
        """Tokens of a text and its end, in the counter's tokenizer."""
        return float(len(self.counter.renderer.text(text).ids))

    def greedy(self, asked: Sequence[Asked]) -> list[Conversation]:
        """Greedy answers."""
        rows = self.rows(asked)
        return conversations(self.network, rows, answers_to(self.network, rows, self.sampling(0.0)))


def capability(subject: Subject, asked: Sequence[Asked], grader: Reward | None) -> list[Item]:
    """Questions with a right answer: written and graded, or the likeliest of the choices. -> {"right"}."""
    written = [one for one in asked if not one.choices]
    talks = subject.greedy(written) if written else []
    if grader is not None:
        scores = grader(talks).tolist() if talks else []
        wrong = next((at for at, score in enumerate(scores) if not 0 <= score <= 1), None)
        if wrong is not None:
            raise TrainingError(
                f"evaluate.grader: gave {scores[wrong]} for {written[wrong].id}; grades are from 0 to 1"
            )
    else:
        scores = [
            float(is_right(talk.response, one.answers, one.text)) for talk, one in zip(talks, written, strict=True)
        ]
    items = [
        _item("capability", one, {"right": score}, talk.response)
        for one, talk, score in zip(written, talks, scores, strict=True)
    ]
    by_id = {item.id: item for item in [*items, *_chosen(subject, [one for one in asked if one.choices])]}
    return [by_id[one.id] for one in asked]


def _chosen(subject: Subject, asked: Sequence[Asked]) -> list[Item]:
    """Multiple choice: log-probability of each choice a byte, end token included; the first of equal ones counts."""
    if not asked:
        return []
    renderer = subject.network.renderer
    examples: list[Example] = []
    for one in asked:
        rendered = [renderer.continuation(one.prompt, [Message("assistant", choice)]) for choice in one.choices]
        examples.append(Example(renderer.prompt(one.prompt), tuple(Branch(side.ids, side.mask) for side in rendered)))
    sums = branch_logps(subject.network, examples, "policy", max_tokens=subject.max_tokens)
    items: list[Item] = []
    for one, logps in zip(asked, sums.split([len(one.choices) for one in asked]), strict=True):
        per_byte = [float(logp) / len(choice.encode()) for logp, choice in zip(logps, one.choices, strict=True)]
        best = one.choices[per_byte.index(max(per_byte))]
        items.append(_item("capability", one, {"right": float(best == one.answers[0])}, best))
    return items


def forgetting(subject: Subject, passages: Sequence[Passage]) -> list[Item]:
    """Likelihood of texts and conversations. -> {"nats": summed, "tokens": how many}."""
    renderer = subject.network.renderer
    rendered = [
        renderer.text(one.text) if one.text is not None else renderer.conversation(one.messages) for one in passages
    ]
    logps = forward_all(
        subject.network, [single(one) for one in rendered], "policy", "logps", max_tokens=subject.max_tokens
    )
    sizes = [single(one).branches[0].trained for one in rendered]
    counted = [float(size) for size in sizes]
    if not subject.counts_alike:
        counted = [subject.tokens(one.text or one.messages[-1].content) for one in passages]
    return [
        Item(
            "forgetting", one.id, {"nats": -float(part.double().sum()), "tokens": count}, one.topic,
            prompt=one.text or one.messages[-2].content,
        )
        for one, part, count in zip(passages, logps.split(sizes), counted, strict=True)
    ]  # fmt: skip


def refusals(
    subject: Subject, task: str, asked: Sequence[Asked], judge: Callable[[Sequence[Conversation]], list[float]]
) -> list[Item]:
    """Which prompts are refused. -> {"refused"}, and NaN where a judge gave no verdict is left out."""
    talks = subject.greedy(asked)
    verdicts = judge(talks)
    return [
        _item(task, one, {} if math.isnan(verdict) else {"refused": verdict}, talk.response)
        for one, talk, verdict in zip(asked, talks, verdicts, strict=True)
    ]


def answers(subject: Subject, asked: Sequence[Asked], reward: Reward | None, gold: Reward | None) -> list[Item]:
    """Free answers. -> {"length": tokens, "ended", "repetition", "entropy": nats a token, of the sampled ones}.

    And "reward", "gold" and "kl" (nats an answer) where there are such judges and a reference.
    """
    network, rows = subject.network, subject.rows(asked)
    samples = answers_to(network, rows, subject.sampling(subject.temperature))
    talks = conversations(network, rows, samples)
    counted = subject.counts_alike
    columns = {
        "length": [
            float(len(one.ids)) if counted else subject.tokens(talk.response)
            for one, talk in zip(samples, talks, strict=True)
        ],
        "ended": [float(one.finished) for one in samples],
        "repetition": [repetition(one.response) for one in talks],
    }
    for name, judge in (("reward", reward), ("gold", gold)):
        if judge is not None:
            columns[name] = finite(judge(talks).tolist(), name)
    if not counted:
        return _answers(asked, talks, columns)
    examples = [
        Example(row.ids, (Branch(one.ids, [True] * len(one.ids)),)) for row, one in zip(rows, samples, strict=True)
    ]
    sums = branch_logps(network, examples, "policy", max_tokens=subject.max_tokens).tolist()
    columns["entropy"] = [-total / len(one.ids) for total, one in zip(sums, samples, strict=True)]
    if subject.reference is not None and not subject.is_reference:
        columns["kl"] = log_ratios(network, subject.reference, rows, samples, subject.max_tokens)
    return _answers(asked, talks, columns)


def _answers(asked: Sequence[Asked], talks: Sequence[Conversation], columns: dict[str, list[float]]) -> list[Item]:
    return [
        _item("answers", one, {name: column[at] for name, column in columns.items()}, talk.response)
        for at, (one, talk) in enumerate(zip(asked, talks, strict=True))
    ]


def preferences(subject: Subject, rankings: Sequence[Preference], reference: Tensor | None) -> list[Item]:
    """Has the chosen side of a ranking gained more over the reference than the rejected one? -> {"margin": nats}.

    It is DPO's implicit reward without its beta. The reference itself has none: its ratio to itself is 0 everywhere.
    `reference` are its `ranking_logps`, (2 N,); None where the tokenizers differ.
    """
    if reference is None or subject.is_reference:
        return []
    sums = ranking_logps(subject.network, rankings, subject.max_tokens) - reference
    return [_ranked("preferences", at, one, margin) for at, one, margin in _margins(rankings, sums)]


def ranking_logps(network: Network, rankings: Sequence[Preference], max_tokens: int) -> Tensor:
    """(2 N,) summed log-probabilities of chosen and rejected, side by side, under the role "policy"."""
    return branch_logps(network, ranking_examples(network, rankings), "policy", max_tokens=max_tokens)


def reward_model(judge: Network, rankings: Sequence[Preference], max_tokens: int) -> list[Item]:
    """What a reward model makes of held-out rankings. -> {"margin", "chosen_longer": tokens chosen less rejected}."""
    examples = ranking_examples(judge, rankings)
    scores = forward_all(judge, examples, "reward", "scores", max_tokens=max_tokens)
    longer = [len(one.branches[0].ids) - len(one.branches[1].ids) for one in examples]
    return [
        _ranked("reward-model", at, one, margin, chosen_longer=float(longer[at]))
        for at, one, margin in _margins(rankings, scores)
    ]


def ranking_examples(network: Network, rankings: Sequence[Preference]) -> list[Example]:
    """Rankings as prefix-shared examples, in a network's own template."""
    renderer = network.renderer
    examples: list[Example] = []
    for one in rankings:
        rendered = [renderer.continuation(one.prompt, side, origin=one.origin) for side in (one.chosen, one.rejected)]
        examples.append(Example(renderer.prompt(one.prompt), tuple(Branch(side.ids, side.mask) for side in rendered)))
    return examples


def _margins(rankings: Sequence[Preference], sums: Tensor) -> list[tuple[int, Preference, float]]:
    margins = (sums[0::2] - sums[1::2]).tolist()
    return [(at, one, margin) for at, (one, margin) in enumerate(zip(rankings, margins, strict=True))]


def _ranked(task: str, at: int, one: Preference, margin: float, **more: float) -> Item:
    line = at + 1 if one.origin is None else one.origin.line
    return Item(task, f"ranking-{line}", {"margin": margin, **more}, prompt=one.prompt[-1].content)


def _item(task: str, asked: Asked, values: dict[str, float], answer: str) -> Item:
    expected = asked.answers[0] if asked.answers else None
    return Item(task, asked.id, values, asked.topic, asked.text, answer, expected)
