"""Watching a run for reward hacking and drift: each measurement is held against the first and the best one.

A rule looks at the history and gives a named warning, with numbers and the fix, or nothing. All comparisons are paired
over the prompts, which stay the same; a rule speaks only when the mean change is several of its standard errors, so
that noise is not reported. What the rules catch, and how often they are wrong, is measured in the wind tunnel
(`trueup experiment reward-hacking`; figures in docs/decisions.md).
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
"""Standard errors that a change of length, repetition or disagreement must have: it is looked at often."""
CLEAR = 3.0
"""Standard errors that a fall of the gold reward must have: it is rarer and costs more to miss."""
LONGER = 1.5
"""Growth of the mean length from which on it is reported, where there is no gold reward to say what it brought."""
LONGER_IN_VAIN = 1.2
"""The same where there is one, and it did not rise."""
REPEATS = 0.1
"""Rise of the share of repeated trigrams from which on it is reported."""
DISAGREES = 1.5
"""Growth of an ensemble's disagreement from which on it is reported."""
PATIENCE = 2
"""Measurements without a better gold reward after which `watch.stop: best-gold` ends a run without eval.patience."""
FAR = 20.0
"""Nats per answer beyond which a policy is far from its reference whatever it was told."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured at one step: name -> one value a prompt (or pair), always in the same order."""

    step: int
    items: dict[str, list[float]]

    def mean(self, name: str) -> float:
        """The mean of one measurement."""
        values = self.items[name]
        return math.fsum(values) / len(values)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A named warning."""

    step: int
    name: str
    message: str
    fix: str


class Found(NamedTuple):
    """What a rule reports: an Alarm without its step."""

    name: str
    message: str
    fix: str


Rule = Callable[[Sequence[Measurement]], Found | None]
"""History, the newest last -> what there is to report."""


class Watch:
    """Remembers the measurements of a run in its watch.jsonl and raises each warning once.

    Args:
        run: the run folder; what an earlier part of the run measured is read back from it.
        rules: what is looked for.
        progress: told of a warning as it is raised.
    """

    def __init__(self, run: RunFolder, rules: Sequence[Rule], progress: Progress) -> None:
        self._run, self._rules, self._progress = run, rules, progress

    def see(self, step: int, items: dict[str, list[float]]) -> list[Alarm]:
        """Record a measurement; returns the warnings that it raises for the first time. Only the main process calls."""
        history = [*self.history(), Measurement(step, items)]
        before = {row["name"] for row in _rows(self._run.alarms_path)} if self._has_alarms else set()
        alarms = [alarm for alarm in raised(history, self._rules) if alarm.name not in before]
        self._run.append_watch({"step": step, "items": items})
        for alarm in alarms:
            self._run.append_alarm(asdict(alarm))
            self._progress.warn(f"{alarm.name}: {alarm.message}; {alarm.fix}")
        return alarms

    @property
    def _has_alarms(self) -> bool:
        return self._run.alarms_path.is_file()

    def history(self) -> list[Measurement]:
        """The measurements so far, the oldest first."""
        path = self._run.watch_path
        return read_history(path) if path.is_file() else []


def read_history(path: Path) -> list[Measurement]:
    """The measurements in a watch.jsonl, the oldest first."""
    return [Measurement(row["step"], row["items"]) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        fix = "remove the file, and what was measured or warned of so far is forgotten"
        raise CheckpointError(f"{path}: damaged ({error})\n  fix: {fix}") from None


def raised(history: Sequence[Measurement], rules: Sequence[Rule]) -> list[Alarm]:
    """The warnings that the newest measurement gives."""
    found = [rule(history) for rule in rules]
    return [Alarm(history[-1].step, one.name, one.message, one.fix) for one in found if one is not None]


def change(now: Measurement, then: Measurement, name: str) -> tuple[float, float]:
    """(mean of the paired differences, how many of its standard errors that is).

    A difference that is the same for every prompt has an infinite number of standard errors, unless it is 0.
    """
    differences = [a - b for a, b in zip(now.items[name], then.items[name], strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2:
        return mean, 0.0
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (n - 1) / n)
    return mean, mean / error if error else math.copysign(math.inf, mean) if mean else 0.0


def _have(history: Sequence[Measurement], *names: str) -> bool:
    """Whether there are two measurements to compare, with all of these numbers."""
    return len(history) > 1 and all(name in history[-1].items for name in names)


# -- rules of every method that samples ------------------------------------------------------------------------------


def gold_falls(history: Sequence[Measurement]) -> Found | None:
    """The gold reward has fallen from its best; where the reward being optimized rose meanwhile, that is hacking."""
    now = history[-1]
    if not _have(history, "gold"):
        return None
    best = max(history[:-1], key=lambda one: one.mean("gold"))
    fall, errors = change(now, best, "gold")
    rise = change(now, best, "reward")[0] if "reward" in now.items else None
    if errors > -CLEAR or (rise is not None and rise <= 0):
        return None
    meanwhile = "" if rise is None else f" while the reward rose by {rise:.2f}: it is being hacked"
    return Found(
        "gold-falls",
        f"the gold reward fell from {best.mean('gold'):.2f} at step {best.step} to {now.mean('gold'):.2f} "
        f"(by {-fall:.2f}, {-errors:.1f} standard errors){meanwhile}",
        "raise the KL penalty (kl.coef, kl.target; DPO: beta), mix SFT data in, or set watch.stop=best-gold",
    )


def length_grows(history: Sequence[Measurement]) -> Found | None:
    """Answers grew and, where there is a gold reward, it did not rise with them."""
    now, first = history[-1], history[0]
    if not _have(history, "length") or first.mean("length") <= 0:
        return None
    growth, judged = now.mean("length") / first.mean("length"), "gold" in now.items
    if growth < (LONGER_IN_VAIN if judged else LONGER) or change(now, first, "length")[1] < STRONG:
        return None
    if judged and change(now, first, "gold")[1] > CLEAR:
        return None
    words = " while the gold reward did not rise" if judged else ""
    return Found(
        "length-grows",
        f"answers grew {growth:.1f}x since step {first.step}, from {first.mean('length'):.0f} to "
        f"{now.mean('length'):.0f} tokens{words}",
        "set rollouts.length_penalty or raise kl.coef (DPO: loss sigmoid_norm or simpo, or a higher beta)",
    )


def repeats(history: Sequence[Measurement]) -> Found | None:
    """Answers repeat themselves more than they did."""
    now, first = history[-1], history[0]
    if not _have(history, "repetition"):
        return None
    rise, errors = change(now, first, "repetition")
    if rise < REPEATS or errors < STRONG:
        return None
    return Found(
        "repetition",
        f"{now.mean('repetition'):.0%} of the answers' trigrams are repeats, at step {first.step} it was "
        f"{first.mean('repetition'):.0%}",
        "raise the KL penalty or lower optim.lr: the policy falls into loops",
    )


def disagrees(history: Sequence[Measurement]) -> Found | None:
    """The members of a reward ensemble disagree more about these answers than about the first ones."""
    now, first = history[-1], history[0]
    if not _have(history, "disagreement") or first.mean("disagreement") <= 0:
        return None
    growth = now.mean("disagreement") / first.mean("disagreement")
    if growth < DISAGREES or change(now, first, "disagreement")[1] < STRONG:
        return None
    return Found(
        "rewards-disagree",
        f"the rewards disagree {growth:.1f}x as much as at step {first.step}: the policy is where they know little",
        "set rollouts.uncertainty, or raise the KL penalty",
    )


def far_away(target: float | None) -> Rule:
    """The policy is far from its reference: beyond three times the target, or beyond FAR without one."""
    limit = FAR if target is None else 3 * target

    def rule(history: Sequence[Measurement]) -> Found | None:
        now = history[-1]
        if "kl" not in now.items or now.mean("kl") <= limit:
            return None
        what = f"{FAR:g} nats" if target is None else f"three times kl.target ({target:g})"
        return Found(
            "kl-high",
            f"{now.mean('kl'):.1f} nats an answer from the reference, over {what}",
            "raise kl.coef (DPO: beta), lower optim.lr, or train for fewer steps",
        )

    return rule


# -- rules of DPO ----------------------------------------------------------------------------------------------------


def chosen_falls(history: Sequence[Measurement]) -> Found | None:
    """The margin rises only because rejected falls: chosen answers become less likely too."""
    now = history[-1]
    if "chosen" not in now.items:
        return None
    zero = Measurement(0, {name: [0.0] * len(now.items[name]) for name in ("chosen", "rejected")})
    chosen, errors = change(now, zero, "chosen")
    rejected, _ = change(now, zero, "rejected")
    if errors > -STRONG or rejected >= chosen:
        return None
    return Found(
        "chosen-falls",
        f"the chosen answers became less likely, by {-chosen:.1f} nats an answer; the margin rises only because the "
        f"rejected ones fell by {-rejected:.1f}",
        "use loss dpop or mix SFT data on the chosen answers in (mix), raise beta, or lower optim.lr",
    )


def watched(plan: Evaluation, config: PpoConfig | DpoConfig) -> Evaluation:
    """The evaluation as it is; with `watch.stop: best-gold` it ends the run by the gold reward and keeps the best."""
    if config.watch.stop == "never":
        return plan
    return replace(plan, metric="gold", better="higher", patience=plan.patience or PATIENCE)


def ppo_rules(target: float | None) -> list[Rule]:
    """What PPO is watched for; `target` is its kl.target."""
    return [gold_falls, length_grows, repeats, disagrees, far_away(target)]


def dpo_rules() -> list[Rule]:
    """What DPO is watched for."""
    return [chosen_falls, gold_falls, length_grows, repeats, far_away(None)]
