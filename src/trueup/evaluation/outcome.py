"""Warnings at the end of a training: nothing moved, nothing was learned, or the model fell apart.

They are computed from the run's log and its measurements on held-out prompts alone. Nothing has moved if no measure of
the training is above its error: the KL from the start, the margin, the reward. A rate that is too low trains like that
without any error, and its loss looks ordinary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trueup.evaluation.watch import AlarmText, Measurement, change, far_away, repeats

SURE = 1.96
"""A mean counts as different from 0 from this many standard errors."""
SMALL_KL = 1e-3
"""Nats per answer that rounding may show without any training."""
SMALL_MARGIN = 0.1
"""Nats per pair: a smaller margin changes the odds of chosen against rejected by less than a tenth."""
SMALL_SCORE = 0.02
"""A reward model's margin: a smaller one calls the chosen answer better with a probability of 0.505 or less."""
SMALL_LOSS = 1e-3
"""Nats per token by which SFT's held-out loss has to fall."""

Row = Mapping[str, float]


def outcome(
    method: str,
    rows: Sequence[Row],
    history: Sequence[Measurement],
    *,
    beta: float = 1.0,
    kl_target: float | None = None,
) -> list[AlarmText]:
    """Return the warnings about a training that has ended: "nothing-moved" or "nothing-learned", and "fell-apart".

    Args:
        method: "sft", "reward", "dpo" or "ppo".
        rows: the rows of metrics.jsonl, the oldest first.
        history: the measurements of watch.jsonl, the oldest first; empty without held-out prompts.
        beta: DPO's beta, by which the margins in the log were multiplied.
        kl_target: PPO's kl.target.
    """
    texts = [_moved(method, rows, history, beta), _apart(history, kl_target)]
    return [text for text in texts if text is not None]


def _moved(method: str, rows: Sequence[Row], history: Sequence[Measurement], beta: float) -> AlarmText | None:
    """Return the warning that nothing moved, or that what the method trains for did not rise; None if it did."""
    target = {"sft": _loss, "reward": _score, "dpo": _margin, "ppo": _reward}[method](rows, history, beta)
    kl = _kl(history)
    if target is None or (method == "ppo" and kl is None):
        return None
    learned, words = target
    fix = "raise optim.lr (the default depends on lora: trueup config METHOD) or train for more steps"
    if not learned and (kl is None or not kl[0]):
        facts = words if kl is None else f"{words}, and {kl[1]}"
        return AlarmText("nothing-moved", f"the training changed next to nothing: {facts}", fix)
    if not learned and kl is not None:
        return AlarmText("nothing-learned", f"{words}, although {kl[1]}", f"check the data, or {fix}")
    return None


def _kl(history: Sequence[Measurement]) -> tuple[bool, str] | None:
    """Return if the KL from the start is above its error, and its value in words; None if it was not measured."""
    if not history or "kl" not in history[-1].items:
        return None
    mean, error = _mean_error(history[-1].items["kl"])
    moved = abs(mean) > max(SURE * error, SMALL_KL)
    words = f"the KL from the start is {mean:.2g} ± {SURE * error:.2g} nats per answer"
    return moved, words if moved else f"{words}, within its error"


def _margin(rows: Sequence[Row], history: Sequence[Measurement], beta: float) -> tuple[bool, str] | None:
    """Judge the margin: chosen over rejected, against the reference, on held-out pairs or in the log's last steps."""
    if history and {"chosen", "rejected"} <= set(history[-1].items):
        now = history[-1].items
        values = [good - bad for good, bad in zip(now["chosen"], now["rejected"], strict=True)]
        place = "on held-out pairs"
    else:
        logged = [_logged_margin(row) for row in rows]
        values = [margin / beta for margin in logged[-_last(logged) :] if margin is not None]
        place = f"over the last {len(values)} steps"
    if not values:
        return None
    mean, error = _mean_error(values)
    words = f"the margin {place} is {mean:.2g} ± {SURE * error:.2g} nats"
    return mean > max(SURE * error, SMALL_MARGIN), f"{words}, not above {SMALL_MARGIN:g}"


def _logged_margin(row: Row) -> float | None:
    """Return the margin in a row of the log; None for a loss without a reference, whose margin does not start at 0."""
    if "dpo/rewards/desirable" in row and "dpo/rewards/undesirable" in row:
        return row["dpo/rewards/desirable"] - row["dpo/rewards/undesirable"]
    return row.get("dpo/rewards/margin")


def _score(rows: Sequence[Row], history: Sequence[Measurement], beta: float) -> tuple[bool, str] | None:
    """Judge a reward model's margin between chosen and rejected in the log's last steps."""
    del history, beta
    logged = [row["reward/margin"] for row in rows if "reward/margin" in row]
    if not logged:
        return None
    mean, error = _mean_error(logged[-_last(logged) :])
    words = f"the margin over the last {_last(logged)} steps is {mean:.2g} ± {SURE * error:.2g}"
    return mean > max(SURE * error, SMALL_SCORE), f"{words}, not above {SMALL_SCORE:g}"


def _loss(rows: Sequence[Row], history: Sequence[Measurement], beta: float) -> tuple[bool, str] | None:
    """Judge SFT's held-out loss: at its best against the start."""
    del history, beta
    losses = [row["eval/loss"] for row in rows if "eval/loss" in row]
    if len(losses) < 2 or rows[0].get("step") != 0:
        return None
    fall = losses[0] - min(losses[1:])
    return fall > SMALL_LOSS, f"the held-out loss fell by {fall:.2g} nats a token"


def _reward(rows: Sequence[Row], history: Sequence[Measurement], beta: float) -> tuple[bool, str] | None:
    """Judge PPO's reward on the held-out prompts, at its best measurement against the first one."""
    del rows, beta
    if len(history) < 2 or "reward" not in history[-1].items:
        return None
    best = max(history[1:], key=lambda measurement: measurement.mean("reward"))
    rise, errors = change(best, history[0], "reward")
    words = f"the reward changed by {rise:.2g} ({errors:.1f} standard errors) at its best measurement"
    return rise > 0 and errors > SURE, words


def _apart(history: Sequence[Measurement], kl_target: float | None) -> AlarmText | None:
    """Return the warning that the model fell apart: it repeats itself, or is far from where it started."""
    if not history:
        return None
    ends = [replace(history[index], planned=1) for index in dict.fromkeys((0, len(history) - 1))]
    found = [text for rule in (repeats, far_away(kl_target)) if (text := rule(ends)) is not None]
    if not found:
        return None
    return AlarmText(
        "fell-apart",
        "the trained model fell apart: " + "; ".join(text.message for text in found),
        "use an earlier checkpoint (save.keep_best, eval.patience), or train again: lower optim.lr, or raise the KL "
        "penalty (kl.coef; DPO: beta)",
    )


def _last(values: Sequence[object]) -> int:
    """Return the number of steps that are the end of a training: the last quarter of them."""
    return max(1, len(values) // 4)


def _mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of independent values and its standard error, which is 0 for a single value."""
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n)
