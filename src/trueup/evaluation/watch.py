"""The reward-hacking watch: warnings while a model trains, from measurements on held-out prompts.

A rule takes the history of measurements and returns a named warning, with numbers and the fix, or None. It compares
the newest measurement with the first or the best one, paired over the prompts, which stay the same, and reports a
change only when its mean is several of its standard errors, so that noise is not reported. The rules' hits and false
alarms are measured in the wind tunnel (`trueup experiment reward-hacking`; figures in docs/evaluation.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trueup.errors import CheckpointError

if TYPE_CHECKING:
    from trueup.config import DpoConfig, PpoConfig
    from trueup.runs.folder import RunFolder
    from trueup.system.console import Progress
    from trueup.training.terms import Evaluation

STRONG = 4.0
"""A change of length, repetition or disagreement is reported from this many standard errors: it is tested often."""
CLEAR = 3.0
"""A fall of the gold reward is reported from this many standard errors: it is rarer and costs more to miss."""
LONGER = 1.5
"""Without a gold reward, growth of the mean length is reported from this factor."""
LONGER_AND_NO_BETTER = 1.2
"""With a gold reward that did not rise, growth of the mean length is reported from this factor."""
REPEATS = 0.1
"""A rise of the share of repeated trigrams is reported from this value."""
DISAGREES = 1.5
"""Growth of an ensemble's disagreement is reported from this factor."""
PATIENCE = 2
"""`eval.patience` of `watch.stop: best-gold` where it is unset: measurements without a better gold reward."""
FAR = 20.0
"""Without kl.target, a policy is reported as far from its reference beyond this many nats per answer."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measured values at one training step: name -> one value per prompt (or pair), always in the same order."""

    step: int
    items: dict[str, list[float]]

    def mean(self, name: str) -> float:
        """Return the mean over the prompts of the values under `name`, such as "reward" or "length"."""
        values = self.items[name]
        return math.fsum(values) / len(values)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A warning about the training run: the step it was raised at, its name, its message and the fix."""

    step: int
    name: str
    message: str
    fix: str


class AlarmText(NamedTuple):
    """A warning as a rule returns it: name, message and fix, without the training step."""

    name: str
    message: str
    fix: str


Rule = Callable[[Sequence[Measurement]], AlarmText | None]
"""Takes the history, the newest last, and returns a warning or None."""


class Watch:
    """The reward-hacking watch of a run: records measurements in the run's watch.jsonl and raises each warning once.

    Args:
        run: the run folder; measurements from before a resume are read from it.
        rules: the rules to apply.
        progress: prints each warning when it is raised.
    """

    def __init__(self, run: RunFolder, rules: Sequence[Rule], progress: Progress) -> None:
        self._run, self._rules, self._progress = run, rules, progress

    def see(self, step: int, items: dict[str, list[float]]) -> list[Alarm]:
        """Record the measurements of a step and return the warnings raised for the first time in the run.

        Call it only in the main process: it writes files.
        """
        history = [*self.history(), Measurement(step, items)]
        before = {row["name"] for row in _rows(self._run.alarms_path)} if self._has_alarms else set()
        alarms = [alarm for alarm in current_alarms(history, self._rules) if alarm.name not in before]
        self._run.append_watch({"step": step, "items": items})
        for alarm in alarms:
            self._run.append_alarm(asdict(alarm))
            self._progress.warn(f"{alarm.name}: {alarm.message}; {alarm.fix}")
        return alarms

    @property
    def _has_alarms(self) -> bool:
        return self._run.alarms_path.is_file()

    def history(self) -> list[Measurement]:
        """Return the run's measurements so far, the oldest first."""
        path = self._run.watch_path
        return read_history(path) if path.is_file() else []


def read_history(path: Path) -> list[Measurement]:
    """Return the measurements recorded in a watch.jsonl file, the oldest first."""
    return [Measurement(row["step"], row["items"]) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        fix = "remove the file; the measurements or warnings in it are then lost"
        raise CheckpointError(f"{path}: damaged ({error})\n  fix: {fix}") from None


def current_alarms(history: Sequence[Measurement], rules: Sequence[Rule]) -> list[Alarm]:
    """Apply the rules to the history and return the warnings raised at its newest measurement."""
    texts = [rule(history) for rule in rules]
    return [Alarm(history[-1].step, text.name, text.message, text.fix) for text in texts if text is not None]


def change(now: Measurement, then: Measurement, name: str) -> tuple[float, float]:
    """Compare a value between two measurements, paired over the prompts.

    Returns:
        The mean of the differences `now` - `then`, and that mean in units of its standard error: infinite where the
        difference is the same for every prompt, unless it is 0.
    """
    differences = [a - b for a, b in zip(now.items[name], then.items[name], strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2:
        return mean, 0.0
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1) / n)
    return mean, mean / error if error else math.copysign(math.inf, mean) if mean else 0.0


def _comparable(history: Sequence[Measurement], *names: str) -> bool:
    """Return True if there are at least two measurements, and the newest has all the named values."""
    return len(history) > 1 and all(name in history[-1].items for name in names)


# -- rules of every method that samples ------------------------------------------------------------------------------


def gold_falls(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the gold reward is clearly below its best so far; with a risen optimized reward, this is reward hacking.

    Where the optimized reward is measured too and did not rise, there is no warning.
    """
    now = history[-1]
    if not _comparable(history, "gold"):
        return None
    best = max(history[:-1], key=lambda measurement: measurement.mean("gold"))
    fall, errors = change(now, best, "gold")
    rise = change(now, best, "reward")[0] if "reward" in now.items else None
    if errors > -CLEAR or (rise is not None and rise <= 0):
        return None
    meanwhile = "" if rise is None else f" while the optimized reward rose by {rise:.2f}: the reward is being hacked"
    return AlarmText(
        "gold-falls",
        f"the gold reward fell from {best.mean('gold'):.2f} at step {best.step} to {now.mean('gold'):.2f} "
        f"(by {-fall:.2f}, {-errors:.1f} standard errors){meanwhile}",
        "raise the KL penalty (kl.coef, kl.target; DPO: beta), mix SFT data in, or set watch.stop=best-gold",
    )


def length_grows(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if answers grew clearly longer than at first, and the gold reward (if measured) did not rise."""
    now, first = history[-1], history[0]
    if not _comparable(history, "length") or first.mean("length") <= 0:
        return None
    growth, has_gold = now.mean("length") / first.mean("length"), "gold" in now.items
    if growth < (LONGER_AND_NO_BETTER if has_gold else LONGER) or change(now, first, "length")[1] < STRONG:
        return None
    if has_gold and change(now, first, "gold")[1] > CLEAR:
        return None
    words = " while the gold reward did not rise" if has_gold else ""
    return AlarmText(
        "length-grows",
        f"answers grew {growth:.1f}x since step {first.step}, from {first.mean('length'):.0f} to "
        f"{now.mean('length'):.0f} tokens{words}",
        "set rollouts.length_penalty or raise kl.coef (DPO: loss sigmoid_norm or simpo, or a higher beta)",
    )


def repeats(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the answers' share of repeated word trigrams is clearly above that of the first measurement."""
    now, first = history[-1], history[0]
    if not _comparable(history, "repetition"):
        return None
    rise, errors = change(now, first, "repetition")
    if rise < REPEATS or errors < STRONG:
        return None
    return AlarmText(
        "repetition",
        f"{now.mean('repetition'):.0%} of the answers' word trigrams are repeats, up from "
        f"{first.mean('repetition'):.0%} at step {first.step}",
        "raise the KL penalty or lower optim.lr: the policy falls into loops",
    )


def disagrees(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the members of a reward ensemble disagree clearly more about a policy's answers than at first."""
    now, first = history[-1], history[0]
    if not _comparable(history, "disagreement") or first.mean("disagreement") <= 0:
        return None
    growth = now.mean("disagreement") / first.mean("disagreement")
    if growth < DISAGREES or change(now, first, "disagreement")[1] < STRONG:
        return None
    return AlarmText(
        "rewards-disagree",
        f"the rewards disagree {growth:.1f}x as much as at step {first.step}, so their scores are less reliable",
        "set rollouts.uncertainty, or raise the KL penalty",
    )


def far_away(target: float | None) -> Rule:
    """Return a rule that warns if the policy's KL from the reference model is above 3 x `target` nats (None: FAR)."""
    limit = FAR if target is None else 3 * target

    def rule(history: Sequence[Measurement]) -> AlarmText | None:
        now = history[-1]
        if "kl" not in now.items or now.mean("kl") <= limit:
            return None
        bound = f"{FAR:g} nats" if target is None else f"three times kl.target ({target:g})"
        return AlarmText(
            "kl-high",
            f"the policy is {now.mean('kl'):.1f} nats per answer from the reference, more than {bound}",
            "raise kl.coef (DPO: beta), lower optim.lr, or train for fewer steps",
        )

    return rule


# -- rules of DPO ----------------------------------------------------------------------------------------------------


def chosen_falls(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if chosen answers became clearly less likely than under the reference model, and rejected ones even more.

    DPO's margin then rises only because rejected answers fall.
    """
    now = history[-1]
    if "chosen" not in now.items:
        return None
    zero = Measurement(0, {name: [0.0] * len(now.items[name]) for name in ("chosen", "rejected")})
    chosen, errors = change(now, zero, "chosen")
    rejected, _ = change(now, zero, "rejected")
    if errors > -STRONG or rejected >= chosen:
        return None
    return AlarmText(
        "chosen-falls",
        f"the chosen answers became less likely, by {-chosen:.1f} nats per answer; the margin rises only because the "
        f"rejected ones fell by {-rejected:.1f}",
        "use loss dpop or mix SFT data on the chosen answers in (mix), raise beta, or lower optim.lr",
    )


def with_gold_stop(plan: Evaluation, config: PpoConfig | DpoConfig) -> Evaluation:
    """Return the evaluation plan, changed if `watch.stop` is "best-gold": it then stops training by the gold reward.

    Training ends once the gold reward has not improved for `patience` measurements, and the best model is kept.
    """
    if config.watch.stop == "never":
        return plan
    return replace(plan, metric="gold", better="higher", patience=plan.patience or PATIENCE)


def ppo_rules(target: float | None) -> list[Rule]:
    """Return the warning rules for a PPO run; `target` is the setting kl.target (nats per answer) or None."""
    return [gold_falls, length_grows, repeats, disagrees, far_away(target)]


def dpo_rules() -> list[Rule]:
    """Return the warning rules for a DPO run."""
    return [chosen_falls, gold_falls, length_grows, repeats, far_away(None)]
