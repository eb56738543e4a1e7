"""Who judges, as the configuration says: refusals by patterns or an endpoint, wins by a reward or an endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trueup.data.refusal import is_refusal
from trueup.data.rendering import Conversation, Message
from trueup.evaluation.items import Item, of_task
from trueup.evaluation.judges import EndpointJudge, EndpointRefusals

if TYPE_CHECKING:
    from trueup.config import EvaluateConfig


@dataclass(frozen=True, slots=True)
class Decided:
    """Verdicts on one model's answers, and who gave them."""

    judge: str
    items: list[Item]


def judge_of_refusals(config: EvaluateConfig) -> Callable[[Sequence[Conversation]], list[float]]:
    """1 for a refusal, 0 for another reply, NaN where the endpoint gave no verdict."""
    if config.refusals == "judge" and config.endpoint and config.judge_model:
        return EndpointRefusals(config.endpoint, config.judge_model)
    return lambda talks: [float(is_refusal(talk.response)) for talk in talks]


def verdicts(
    config: EvaluateConfig,
    prompts: Mapping[str, tuple[Message, ...]],
    ours: Sequence[Item],
    theirs: Sequence[Item],
    note: Callable[[str], None],
) -> Decided | None:
    """Which of two models' free answers are better, prompt by prompt; None where nobody can judge.

    `prompts` are the whole conversations by item id, for an endpoint to read.
    -> items of {"outcome": 1 ours, 0 theirs, one half a tie, absent without a verdict; "ours", "theirs": tokens}.
    """
    mine = {item.id: item for item in ours if item.task == "answers"}
    others = {item.id: item for item in theirs if item.task == "answers"}
    shared = [key for key in mine if key in others]
    if not shared:
        return None
    if config.endpoint and config.judge_model:
        note(f"asking {config.judge_model} to judge {len(shared)} pairs of answers, both ways round")
        pairs = [(mine[key], others[key]) for key in shared]
        outcomes = EndpointJudge(config.endpoint, config.judge_model)(
            [prompts[one.id] for one, _ in pairs],
            [one.answer or "" for one, _ in pairs],
            [other.answer or "" for _, other in pairs],
        )
        return Decided(config.judge_model, [_won(*pair, one) for pair, one in zip(pairs, outcomes, strict=True)])
    for name in ("gold", "reward") if config.judge is None else (config.judge,):
        if of_task(ours, "answers", name) and of_task(theirs, "answers", name):
            return Decided(
                name, [_won(mine[key], others[key], _higher(mine[key], others[key], name)) for key in shared]
            )
    return None


def _higher(ours: Item, theirs: Item, name: str) -> float:
    a, b = ours.values[name], theirs.values[name]
    return 0.5 if a == b else float(a > b)


def _won(ours: Item, theirs: Item, outcome: float) -> Item:
    values = {"ours": ours.values["length"], "theirs": theirs.values["length"]}
    if not math.isnan(outcome):
        values["outcome"] = outcome
    return Item("win-rate", ours.id, values, ours.topic, ours.prompt, ours.answer, theirs.answer)
