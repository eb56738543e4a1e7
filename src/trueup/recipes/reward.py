"""The reward model: a scalar head on the last token learns which of two answers people prefer (Bradley-Terry)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueup import objectives
from trueup.batching import Example
from trueup.errors import DataError
from trueup.evaluation.intervals import rate
from trueup.export import export_reward
from trueup.forward import forward_all
from trueup.stage import Stage, open_stage
from trueup.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.chat import Preference
    from trueup.config import DataConfig, RewardConfig


def run(config: RewardConfig) -> dict[str, Any]:
    """Train a reward model on rankings and export it as a one-label sequence classifier. Returns the summary."""
    with open_stage(config) as stage:
        examples = _examples(stage, config, "data", config.data)
        stage.network.add_trainable("reward", config.lora, head=True)
        terms = [Term("reward", stage.source(examples, "example"), objectives.reward(config.loss))]
        fitted = stage.fit(
            terms, stage.steps(len(examples)), evaluation=_evaluation(stage, config),
            headline=("loss", "reward/accuracy", "eval/accuracy"),
        )  # fmt: skip
        return stage.finish(fitted, "reward", export_reward)


def _examples(stage: Stage, config: RewardConfig, name: str, data: DataConfig) -> list[Example]:
    def make(row: Preference) -> Example:
        example = stage.pair_example(row.prompt, row.chosen, row.rejected, origin=row.origin)
        if config.loss.margin and row.margin is None:
            raise DataError(f"{row.origin}: loss.margin is on, but this row has no margin; add one, or turn it off")
        scalars = {"margin": row.margin} if config.loss.margin and row.margin is not None else {}
        return Example(example.trunk, example.branches, scalars)

    return stage.examples(name, stage.load(name, data, "preference"), make)


def _evaluation(stage: Stage, config: RewardConfig) -> Evaluation | None:
    """Share of held-out rankings on which the chosen answer scores higher, and the mean margin."""
    if config.eval.data is None:
        return None
    held_out = _examples(stage, config, "eval", config.eval.data)

    def compute(_: int) -> dict[str, float]:
        scores = forward_all(stage.network, held_out, "reward", "scores", max_tokens=config.max_tokens)
        margins = scores[0::2] - scores[1::2]
        right = rate(float(objectives.accuracy(margins).sum()), len(margins))
        return {
            "accuracy": right.value,
            "accuracy_low": right.low,
            "accuracy_high": right.high,
            "margin": float(margins.mean()),
            "n": float(right.n),
        }

    return Evaluation(compute, config.eval.every, config.eval.patience, "accuracy", better="higher", at_start=False)
