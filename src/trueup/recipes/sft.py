"""Supervised fine-tuning: cross-entropy on the answers (and their end tokens) of conversations, or on plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trueup.models.forward import forward_all
from trueup.recipes.stage import Stage, open_stage
from trueup.training import objectives
from trueup.training.terms import Evaluation, Term

if TYPE_CHECKING:
    from trueup.config import SftConfig


def run(config: SftConfig) -> dict[str, Any]:
    """Train `config.model` on `config.data` and export it to `<output>/model`; return the content of summary.json.

    Raises:
        TrueupError: data, model or run folder cannot be used, or training failed; each cause has its own subclass.
    """
    with open_stage(config) as stage:
        stage.network.add_trainable("policy", config.lora)
        sampler = stage.sampler()
        terms = [Term("sft", stage.source(stage.train, "token", sampler=sampler), objectives.sft), *stage.mix_terms()]
        fitted = stage.fit(
            terms, stage.steps(sampler.n), evaluation=_evaluation(stage, config), headline=("loss", "eval/loss")
        )
        return stage.finish(fitted, "policy")


def _evaluation(stage: Stage, config: SftConfig) -> Evaluation | None:
    """Return the evaluation during training: the mean NLL per held-out answer token, in nats.

    Return None if there is no held-out data.
    """
    held_out = stage.held_out
    if held_out is None:
        return None

    def compute(_: int) -> dict[str, float]:
        logps = forward_all(stage.network, held_out, "policy", "logps", max_tokens=config.max_tokens)
        return {"loss": -float(logps.double().mean())}

    return Evaluation(compute, config.eval.every, config.eval.patience, "loss")
