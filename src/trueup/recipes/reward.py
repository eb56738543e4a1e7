"""Training of the reward model: a scalar head learns which of two answers people prefer (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trueup.data.example import Example, Lazy
from trueup.data.tokens.select import Examples
from trueup.errors import DataError
from trueup.export import export_reward
from trueup.models.forward import forward_all
from trueup.recipes.stage import Stage, open_stage
from trueup.stats.intervals import rate
from trueup.training import objectives
from trueup.training.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import RewardConfig


def run(config: RewardConfig) -> dict[str, Any]:
    """Train a reward model on rankings and export it as a one-label sequence classifier.

    Return the content of summary.json.
    """
    with open_stage(config) as stage:
        examples, sampler = _with_margins(stage.train, config), stage.sampler()
        stage.network.add_trainable("reward", config.lora, head=True)
        source = stage.source(examples, "example", sampler=sampler)
        fitted = stage.fit(
            [Term("reward", source, objectives.reward(config.loss))], stage.steps(sampler.n),
            evaluation=_evaluation(stage, config), headline=("loss", "reward/accuracy", "eval/accuracy"),
        )  # fmt: skip
        return stage.finish(fitted, "reward", export_reward)


def _with_margins(rows: Examples, config: RewardConfig) -> Sequence[Example]:
    """Return the rows, each with its margin as a scalar if the loss uses margins.

    The margin says how much better the chosen answer is.

    Raises:
        DataError: a row has no margin.
    """
    if not config.loss.margin:
        return rows
    missing: list[int] = []
    seen = 0

    def note_missing(records: NDArray[np.void]) -> None:
        nonlocal seen
        missing.extend((np.flatnonzero(np.isnan(records["scalar"])) + seen).tolist())
        seen += len(records)

    rows.map_records(note_missing)
    if missing:
        raise DataError(
            f"{rows.origin(missing[0])}: loss.margin is on, but this row has no margin; add one, or turn it off"
        )
    return Lazy(len(rows), lambda index: replace(rows[index], scalars={"margin": rows.scalar(index)}))


def _evaluation(stage: Stage, config: RewardConfig) -> Evaluation | None:
    """Return the evaluation during training, accuracy and mean margin on held-out rankings; None without any.

    A ranking counts as correct if the chosen answer scores higher.
    """
    held_out = stage.held_out
    if held_out is None:
        return None

    def compute(_: int) -> dict[str, float]:
        scores = forward_all(stage.network, held_out, "reward", "scores", max_tokens=config.max_tokens)
        margins = scores[0::2] - scores[1::2]
        correct = rate(float(objectives.accuracy(margins).sum()), len(margins))
        return {
            "accuracy": correct.value,
            "accuracy_low": correct.low,
            "accuracy_high": correct.high,
            "margin": float(margins.mean()),
            "n": float(correct.n),
        }

    return Evaluation(compute, config.eval.every, config.eval.patience, "accuracy", better="higher", at_start=False)
