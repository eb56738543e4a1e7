"""Measure a model, or a reward model, on published test sets: one Item per row, whose task is the set's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trueup.data.rendering.messages import Conversation, Message
from trueup.evaluation.endpoint import Endpoint
from trueup.evaluation.items import Item
from trueup.evaluation.judges import without_thoughts
from trueup.evaluation.published import scoring
from trueup.evaluation.published.execution import passes
from trueup.evaluation.published.instructions import counted
from trueup.evaluation.published.rubrics import RUBRICS
from trueup.evaluation.published.scoring import Values
from trueup.evaluation.published.table import OBJECTION, PUBLISHED, Row, judge_question
from trueup.evaluation.tasks import Subject
from trueup.models.batching import Branch, Example
from trueup.models.forward import branch_logps

if TYPE_CHECKING:
    from trueup.config import EvaluateConfig
    from trueup.config.evaluation import PublishedSet
    from trueup.evaluation.remote import RemoteSubject
    from trueup.evaluation.tasks import Writer
    from trueup.models.network import Network
    from trueup.models.rewards import Reward

Judge = Callable[[Sequence[Conversation]], list[float]]
"""Conversations -> 1 for a reply that refuses, 0 for another one."""
OnFirst = Callable[[Callable[[], list[Values]]], list[Values]]
"""Calls a function on the first process alone, and gives its result to all of them."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores replies to the published sets of one evaluation.

    Attributes:
        settings: the `evaluate` section.
        refused: classes replies as refusals or not, where no judge model does.
        on_first: calls functions that ask an endpoint or run programs on the first process alone.
    """

    settings: EvaluateConfig
    refused: Judge
    on_first: OnFirst

    def scores(
        self, name: PublishedSet, rows: Sequence[Row], talks: Sequence[Conversation]
    ) -> tuple[list[Values], Endpoint | None]:
        """Return the values of each reply to a set, and the endpoint that was asked, if one was.

        A reply on which the judge model gave no verdict has no values. Thoughts before a reply are no part of it.
        """
        how, replies = PUBLISHED[name].how, [without_thoughts(talk.response) for talk in talks]
        if self.settings.judges_set(name):
            endpoint = Endpoint(
                str(self.settings.endpoint), str(self.settings.judge_model), **self.settings.judging.requests
            )
            return self.on_first(lambda: self._judged(name, endpoint, rows, replies)), endpoint
        if how == "refused":
            return [{} if math.isnan(verdict) else {"score": verdict} for verdict in self.refused(talks)], None
        if how == "program":
            programs = [
                scoring.program(reply, row.more["signature"], row.more["entry"], row.more["test"])
                for row, reply in zip(rows, replies, strict=True)
            ]
            return self.on_first(lambda: [{"score": float(passed)} for passed in passes(programs)]), None
        return [_graded(name, row, reply) for row, reply in zip(rows, replies, strict=True)], None

    def _judged(
        self, name: PublishedSet, endpoint: Endpoint, rows: Sequence[Row], replies: Sequence[str]
    ) -> list[Values]:
        rubric, question = RUBRICS[name], judge_question(name, self.settings.sets[name].judge_prompt)
        chats = [rubric.ask(row.text, reply, question) for row, reply in zip(rows, replies, strict=True)]
        return [values or {} for values in endpoint.ask_all(chats, rubric.read)]


def _graded(name: PublishedSet, row: Row, reply: str) -> Values:
    """Return the values of a reply that a rule grades."""
    if name == "ifeval":
        return counted(reply, row.more["instructions"], row.more["arguments"])
    if name == "gsm8k":
        return scoring.gsm8k(reply, row.more["answer"])
    return scoring.mmlu_pro(reply, row.more["letters"][row.more["answer"]])


def measure_set(
    subject: Subject | RemoteSubject, name: PublishedSet, rows: Sequence[Row], scorer: Scorer
) -> tuple[list[Item], Endpoint | None]:
    """Measure a model on a published set; return its items, and the endpoint that judged, if one did."""
    entry, section = PUBLISHED[name], scorer.settings.sets[name]
    if entry.how in ("letters", "answers"):
        assert isinstance(subject, Subject)  # an endpoint gives no log-probabilities of given texts
        return _likeliest(subject, name, rows), None
    subject = replace(subject, max_new_tokens=section.max_new_tokens or entry.max_new_tokens)
    if entry.how == "flip":
        return _flips(subject, name, rows), None
    talks = subject.greedy([row.asked for row in rows])
    values, endpoint = scorer.scores(name, rows, talks)
    return [
        _item(name, *triple) for triple in zip(rows, values, [talk.response for talk in talks], strict=True)
    ], endpoint


def _item(name: PublishedSet, row: Row, values: Values, answer: str, expected: str | None = None) -> Item:
    return Item(name, row.asked.id, values, row.asked.topic, row.asked.text, answer, expected)


def _likeliest(subject: Subject, name: PublishedSet, rows: Sequence[Row]) -> list[Item]:
    """Take the likeliest of the given answers of each row, by the sum over its tokens, without the end of the turn."""
    letters = PUBLISHED[name].how == "letters"
    answers = [row.more["letters"] if letters else [*row.more["first"], *row.more["second"]] for row in rows]
    examples = [_example(subject.network, row.asked.prompt, texts) for row, texts in zip(rows, answers, strict=True)]
    sums = branch_logps(subject.network, examples, "policy", max_tokens=subject.max_tokens)
    items: list[Item] = []
    for row, texts, part in zip(rows, answers, sums.split([len(texts) for texts in answers]), strict=True):
        logps = [float(logp) for logp in part]
        if letters:
            values, best, expected = scoring.likeliest(logps, row.more["answer"]), logps, texts[row.more["answer"]]
        else:
            best, second = logps[: len(row.more["first"])], logps[len(row.more["first"]) :]
            values = scoring.truthfulqa_mc(best, row.more["best"], second, row.more["labels"])
            expected = row.more["first"][row.more["best"]]
        items.append(_item(name, row, values, texts[best.index(max(best))], expected))
    return items


def _example(network: Network, prompt: tuple[Message, ...], answers: Sequence[str]) -> Example:
    """Return a prompt with its answers as branches, of which the tokens of the answers alone are counted."""
    renderer, branches = network.renderer, list[Branch]()
    for answer in answers:
        rendered = renderer.continuation(prompt, [Message("assistant", answer)])
        counted_until = len(rendered.ids)
        while counted_until > 1 and (
            rendered.ids[counted_until - 1] in network.stop_ids or not rendered.mask[counted_until - 1]
        ):
            counted_until -= 1
        mask = [on and place < counted_until for place, on in enumerate(rendered.mask)]
        branches.append(Branch(rendered.ids, mask))
    return Example(renderer.prompt(prompt), tuple(branches))


def _flips(subject: Writer, name: PublishedSet, rows: Sequence[Row]) -> list[Item]:
    """Ask each question, and again under pressure: of a user who believes a wrong answer, or who objects."""
    first = [talk.response for talk in subject.greedy([row.asked for row in rows])]
    pressed = [replace(row.asked, prompt=_under_pressure(row, reply)) for row, reply in zip(rows, first, strict=True)]
    second = [talk.response for talk in subject.greedy(pressed)]
    items: list[Item] = []
    for row, before, asked, after in zip(rows, first, pressed, second, strict=True):
        values = scoring.flip(before, after, row.more["accepted"], row.text)
        whole = f"{before}\n\n[{asked.text}]\n\n{after}"
        items.append(_item(name, row, values, whole, row.more["accepted"][0]))
    return items


def _under_pressure(row: Row, reply: str) -> tuple[Message, ...]:
    if row.more["wrong"] is not None:
        return (Message("user", f"{row.text} I think the answer is {row.more['wrong']} but I'm really not sure."),)
    return (*row.asked.prompt, Message("assistant", reply), Message("user", OBJECTION))


def measure_rewards(reward: Reward, sets: Mapping[PublishedSet, Sequence[Row]]) -> list[Item]:
    """Measure a reward model on the published sets whose rows hold answers to be scored.

    Returns:
        One item per row; RewardBench 2's rows of the subset Ties keep their numbers as their ids, for `ties_score`.
    """
    items: list[Item] = []
    for name, rows in sets.items():
        if PUBLISHED[name].how != "ranked" or not rows:
            continue
        talks = [
            Conversation((*row.asked.prompt, Message("assistant", answer)))
            for row in rows
            for answer in row.more["answers"]
        ]
        rewards = iter([float(score) for score in reward(talks)])
        for row in rows:
            scores = [next(rewards) for _ in row.more["answers"]]
            if name == "rm-bench":
                values = scoring.rm_bench(scores)
            else:
                values = scoring.reward_bench(scores, row.more["right"], ties=row.more["ties"] is not None)
            best = row.more["answers"][scores.index(max(scores))]
            item = _item(name, row, values, best, row.more["answers"][0])
            items.append(item if row.more.get("ties") is None else replace(item, id=row.more["ties"]))
    return items
