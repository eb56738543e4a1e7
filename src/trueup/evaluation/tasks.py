"""Evaluation tasks: each measures one model on one set of rows and returns one Item per row.

Questions that have a right answer and prompts that might be refused are answered greedily, as a user would see; free
answers are sampled at temperature 1 with a fixed seed, because a KL is an expectation under the policy itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from trueup.data.prompts import PromptRow
from trueup.data.refusal import is_refusal
from trueup.data.rendering.messages import Conversation, Message
from trueup.evaluation.grading import is_right, repetition
from trueup.evaluation.items import Item
from trueup.evaluation.policy import Sampling, answers_to, conversations, kls, log_ratios, require_finite
from trueup.models.batching import Branch, Example, single
from trueup.models.forward import branch_logps, forward_all

if TYPE_CHECKING:
    from torch import Tensor

    from trueup.data.rendering.messages import Preference
    from trueup.evaluation.grader import AnswerGrader
    from trueup.evaluation.rows import Asked, Passage
    from trueup.models.network import Network
    from trueup.models.rewards import Reward


@dataclass(frozen=True, slots=True)
class Subject:
    """The model being measured, and the settings for measuring it.

    Attributes:
        network: has the model as its role "policy".
        reference: the model to compare with (KL, preferences); None where its tokenizer differs, or there is none.
        is_reference: True if the measured model is the reference model itself.
        max_new_tokens: longest answer in tokens.
        counter: the network whose tokenizer counts tokens, so that models with different tokenizers can be compared;
            None: characters are counted, because the reference is an endpoint.
        max_tokens: micro-batch size in tokens.
        temperature: sampling temperature of free answers.
        seed: seed of free answers.
    """

    network: Network
    reference: Network | None
    is_reference: bool
    max_new_tokens: int
    counter: Network | None
    max_tokens: int
    temperature: float = 1.0
    seed: int = 0

    def rows(self, questions: Sequence[Asked]) -> list[PromptRow]:
        """Return the prompts of `questions` rendered to token ids by the model's chat template."""
        return [PromptRow(row.prompt, self.network.renderer.prompt(row.prompt), row.fields) for row in questions]

    def sampling(self, temperature: float) -> Sampling:
        """Return the settings for sampling this model's answers at a temperature."""
        return Sampling(self.max_new_tokens, self.max_tokens, temperature, self.seed)

    @property
    def counts_alike(self) -> bool:
        """True if the model has the reference's tokenizer, so that its own token counts can be compared."""
        return self.is_reference or self.reference is not None

    def tokens(self, text: str) -> float:
        """Return the length of a text, by the tokenizer of the network `counter`."""
        return text_size(self.counter, text)

    def greedy(self, questions: Sequence[Asked]) -> list[Conversation]:
        """Answer each prompt greedily; return each prompt and its answer as a Conversation."""
        rows = self.rows(questions)
        return conversations(self.network, rows, answers_to(self.network, rows, self.sampling(0.0)))


def text_size(counter: Network | None, text: str) -> float:
    """Return the number of a text's tokens and its end token by a network's tokenizer; without one, of characters."""
    return float(len(text) if counter is None else len(counter.renderer.text(text).ids))


class Writer(Protocol):
    """A model that answers prompts greedily: one that is loaded here, or one behind an endpoint."""

    def greedy(self, questions: Sequence[Asked]) -> list[Conversation]:
        """Answer each prompt greedily; return each prompt and its answer as a Conversation."""
        ...


def capability(subject: Subject, questions: Sequence[Asked], grader: AnswerGrader | None) -> list[Item]:
    """Measure accuracy on questions that have a right answer.

    The model writes an answer, which is graded (by `is_right` if `grader` is None), or where a question has choices the
    likeliest choice is its answer.

    Returns:
        Items in the order of `questions` with {"right": grade from 0 to 1}.
    """
    items = written(subject, [question for question in questions if not question.choices], grader)
    by_id = {
        item.id: item for item in [*items, *_chosen(subject, [question for question in questions if question.choices])]
    }
    return [by_id[question.id] for question in questions]


def written(subject: Writer, questions: Sequence[Asked], grader: AnswerGrader | None) -> list[Item]:
    """Measure accuracy on questions without choices, as `capability` does."""
    talks = subject.greedy(questions) if questions else []
    if grader is not None:
        scores = grader(questions, talks) if talks else []
    else:
        scores = [
            float(is_right(talk.response, question.answers, question.text))
            for talk, question in zip(talks, questions, strict=True)
        ]
    return [
        asked_item("capability", question, {"right": score}, talk.response)
        for question, talk, score in zip(questions, talks, scores, strict=True)
    ]


def graded(item: Item, question: Asked | None) -> Item:
    """Return an item of a written answer with the grade of this version's rules; other items as they are."""
    if item.task != "capability" or question is None or item.answer is None:
        return item
    right = float(is_right(item.answer, question.answers, question.text))
    return replace(item, values={**item.values, "right": right})


def refused_again(item: Item, question: Asked | None) -> Item:
    """Return an item of a prompt that may be refused with the verdict of this version's rules; others as they are."""
    if item.task not in ("over-refusal", "unsafe-compliance") or question is None or item.answer is None:
        return item
    refused = float(is_refusal(item.answer, question.prompt[-1].content))
    return replace(item, values={**item.values, "refused": refused})


def _chosen(subject: Subject, questions: Sequence[Asked]) -> list[Item]:
    """Answer multiple-choice questions by the choice with the highest log-probability per byte (end token included).

    Of equal choices the first is taken. Returns items with {"right": 0 or 1}.
    """
    if not questions:
        return []
    renderer = subject.network.renderer
    examples: list[Example] = []
    for question in questions:
        rendered = [
            renderer.continuation(question.prompt, [Message("assistant", choice)]) for choice in question.choices
        ]
        examples.append(
            Example(renderer.prompt(question.prompt), tuple(Branch(side.ids, side.mask) for side in rendered))
        )
    sums = branch_logps(subject.network, examples, "policy", max_tokens=subject.max_tokens)
    items: list[Item] = []
    for question, logps in zip(questions, sums.split([len(question.choices) for question in questions]), strict=True):
        per_byte = [float(logp) / len(choice.encode()) for logp, choice in zip(logps, question.choices, strict=True)]
        best = question.choices[per_byte.index(max(per_byte))]
        items.append(asked_item("capability", question, {"right": float(best == question.answers[0])}, best))
    return items


def forgetting(subject: Subject, passages: Sequence[Passage]) -> list[Item]:
    """Measure the likelihood of texts and conversations; a fall against the base model is forgetting.

    Returns:
        Items with {"nats": negative log-likelihood summed over the passage, "tokens": their number}.
    """
    renderer = subject.network.renderer
    rendered = [
        renderer.text(passage.text) if passage.text is not None else renderer.conversation(passage.messages)
        for passage in passages
    ]
    logps = forward_all(
        subject.network, [single(tokens) for tokens in rendered], "policy", "logps", max_tokens=subject.max_tokens
    )
    sizes = [single(tokens).branches[0].trained for tokens in rendered]
    counted = [float(size) for size in sizes]
    if not subject.counts_alike and subject.counter is not None:
        counted = [subject.tokens(passage.text or passage.messages[-1].content) for passage in passages]
    return [
        Item(
            "forgetting", passage.id, {"nats": -float(part.double().sum()), "tokens": count}, passage.topic,
            prompt=passage.text or passage.messages[-2].content,
        )
        for passage, part, count in zip(passages, logps.split(sizes), counted, strict=True)
    ]  # fmt: skip


def refusals(
    subject: Writer,
    task: str,
    questions: Sequence[Asked],
    judge: Callable[[Sequence[Conversation]], list[float]],
    check: Callable[[Sequence[Conversation]], list[float]] | None = None,
) -> list[Item]:
    """Measure which prompts the model refuses to answer.

    For each reply `judge` gives 1 for a refusal, 0 for none, NaN where it gave no verdict; so does `check`, a better
    judge that reads a random part of the replies.

    Returns:
        Items of `task` with {"refused": 0 or 1}, and with {"checked": 0 or 1} where `check` read the reply; without
        these values where there was no verdict.
    """
    talks = subject.greedy(questions)
    columns = {"refused": judge(talks)} | ({"checked": check(talks)} if check is not None else {})
    return [
        asked_item(
            task,
            question,
            {name: column[index] for name, column in columns.items() if not math.isnan(column[index])},
            talk.response,
        )
        for index, (question, talk) in enumerate(zip(questions, talks, strict=True))
    ]


def answers(subject: Subject, questions: Sequence[Asked], reward: Reward | None, gold: Reward | None) -> list[Item]:
    """Sample one free answer to each prompt and measure it.

    Returns:
        Items with {"length": tokens, "ended": 1 if by the end token, "repetition": share of repeated trigrams,
        "entropy": estimated nats per token}, with "reward" and "gold" where such a reward is given, and with "kl" (nats
        per answer, of the sampled tokens) and "kl_exact" (at each of them over the whole vocabulary) where there is a
        reference. "entropy", "kl" and "kl_exact" are absent where the tokenizer is not the reference's, "kl_exact" also
        where the two models' output layers differ in size.
    """
    network, rows = subject.network, subject.rows(questions)
    samples = answers_to(network, rows, subject.sampling(subject.temperature))
    talks = conversations(network, rows, samples)
    counted = subject.counts_alike
    columns = {
        "length": [
            float(len(answer.ids)) if counted else subject.tokens(talk.response)
            for answer, talk in zip(samples, talks, strict=True)
        ],
        "ended": [float(answer.finished) for answer in samples],
        "repetition": [repetition(talk.response) for talk in talks],
    }
    for name, judge in (("reward", reward), ("gold", gold)):
        if judge is not None:
            columns[name] = require_finite(judge(talks).tolist(), name)
    if not counted:
        return _answers(questions, talks, columns)
    examples = [
        Example(row.ids, (Branch(answer.ids, [True] * len(answer.ids)),))
        for row, answer in zip(rows, samples, strict=True)
    ]
    sums = branch_logps(network, examples, "policy", max_tokens=subject.max_tokens).tolist()
    columns["entropy"] = [-total / len(answer.ids) for total, answer in zip(sums, samples, strict=True)]
    if subject.reference is not None and not subject.is_reference:
        same = network.lm_head("policy").weight.shape[0] == subject.reference.lm_head("policy").weight.shape[0]
        if same:
            columns["kl_exact"], columns["kl"] = kls(network, subject.reference, rows, samples, subject.max_tokens)
        else:  # one has rows of padding at the end of its vocabulary
            columns["kl"] = log_ratios(network, subject.reference, rows, samples, subject.max_tokens)
    return _answers(questions, talks, columns)


def _answers(questions: Sequence[Asked], talks: Sequence[Conversation], columns: dict[str, list[float]]) -> list[Item]:
    return [
        asked_item("answers", question, {name: column[index] for name, column in columns.items()}, talk.response)
        for index, (question, talk) in enumerate(zip(questions, talks, strict=True))
    ]


def preferences(subject: Subject, rankings: Sequence[Preference], reference: Tensor | None) -> list[Item]:
    """Measure on each ranking if training raised the chosen answer's log-probability more than the rejected one's.

    The margin is DPO's implicit reward without its beta. It is not measured on the reference, where it is 0 everywhere.

    Args:
        subject: the model.
        rankings: held-out rankings.
        reference: the reference's `ranking_logps`, (2 N,); None where the tokenizers differ.

    Returns:
        Items with {"margin": nats, above 0 where the chosen answer gained more}; none for the reference.
    """
    if reference is None or subject.is_reference:
        return []
    sums = ranking_logps(subject.network, rankings, subject.max_tokens) - reference
    return [_ranked("preferences", index, ranking, margin) for index, ranking, margin in _margins(rankings, sums)]


def ranking_logps(network: Network, rankings: Sequence[Preference], max_tokens: int) -> Tensor:
    """Return the summed log-probabilities of each ranking's answers under the role "policy", (2 N,).

    The order is chosen and rejected of the first ranking, then of the second, and so on.
    """
    return branch_logps(network, ranking_examples(network, rankings), "policy", max_tokens=max_tokens)


def reward_model(judge: Network, rankings: Sequence[Preference], max_tokens: int) -> list[Item]:
    """Score the two answers of each held-out ranking with a reward model.

    Returns:
        Items with {"margin": score of chosen less that of rejected, "chosen_longer": tokens of chosen less those of
        rejected}.
    """
    examples = ranking_examples(judge, rankings)
    scores = forward_all(judge, examples, "reward", "scores", max_tokens=max_tokens)
    longer = [len(example.branches[0].ids) - len(example.branches[1].ids) for example in examples]
    return [
        _ranked("reward-model", index, ranking, margin, chosen_longer=float(longer[index]))
        for index, ranking, margin in _margins(rankings, scores)
    ]


def ranking_examples(network: Network, rankings: Sequence[Preference]) -> list[Example]:
    """Return each ranking as one Example: the prompt as shared prefix, chosen and rejected as two branches.

    The token ids follow the network's own chat template.
    """
    renderer = network.renderer
    examples: list[Example] = []
    for ranking in rankings:
        rendered = [
            renderer.continuation(ranking.prompt, side, origin=ranking.origin)
            for side in (ranking.chosen, ranking.rejected)
        ]
        examples.append(
            Example(renderer.prompt(ranking.prompt), tuple(Branch(side.ids, side.mask) for side in rendered))
        )
    return examples


def _margins(rankings: Sequence[Preference], sums: Tensor) -> list[tuple[int, Preference, float]]:
    margins = (sums[0::2] - sums[1::2]).tolist()
    return [(index, ranking, margin) for index, (ranking, margin) in enumerate(zip(rankings, margins, strict=True))]


def _ranked(task: str, index: int, ranking: Preference, margin: float, **more: float) -> Item:
    line = index + 1 if ranking.origin is None else ranking.origin.line
    return Item(task, f"ranking-{line}", {"margin": margin, **more}, prompt=ranking.prompt[-1].content)


def asked_item(task: str, question: Asked, values: dict[str, float], answer: str) -> Item:
    """Return the Item of a question and the answer to it."""
    expected = question.answers[0] if question.answers else None
    return Item(task, question.id, values, question.topic, question.text, answer, expected, question.level)
