"""The reward-hacking watch: warnings while a model trains, from measurements on held-out prompts.

A rule takes the history of measurements and returns a named warning, with numbers and the fix, or None. It compares
the newest measurements with earlier ones, paired over the prompts, which stay the same. Each rule is a test over the
whole run (stats/looks.py): in a run in which nothing changes, it warns with a chance of at most 5%, however often it
looks. The rules' hits and false alarms are measured (`trueup experiment reward-hacking`, tests/stats/test_looks.py;
figures in docs/evaluation.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trueup.errors import CheckpointError
from trueup.stats import looks
from trueup.stats.pivots import Student

if TYPE_CHECKING:
    from trueup.config import DpoConfig, PpoConfig
    from trueup.runs.folder import RunFolder
    from trueup.system.console import Progress
    from trueup.training.terms import Evaluation

LONGER = 1.5
"""Without a gold reward, growth of the mean length is reported from this factor."""
LONGER_AND_NO_BETTER = 1.2
"""With a gold reward that did not rise, growth of the mean length is reported from this factor."""
REPEATS = 0.1
"""A rise of the share of repeated trigrams is reported from this value."""
DISAGREES = 1.5
"""Growth of an ensemble's disagreement is reported from this factor."""
FAR = 20.0
"""Without kl.target, a policy is reported as far from its reference beyond this many nats per answer."""
UNKNOWN = 200
"""Measurements that a run is taken to have where its record does not say (runs begun before this was recorded)."""
GOLD_FALL = "gold_fall_p"
"""Name in the log of the p-value of `watch.stop: best-gold`: at or below 0.05 training ends."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measured values at one training step: name -> one value per prompt (or pair), always in the same order.

    `planned` is the number of measurements after the first that the run was to have at that time; 0 if not recorded.
    """

    step: int
    items: dict[str, list[float]]
    planned: int = 0

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
        planned: the number of measurements after the first that the run is to have (see `planned_looks`).
    """

    def __init__(self, run: RunFolder, rules: Sequence[Rule], progress: Progress, planned: int) -> None:
        self._run, self._rules, self._progress, self._planned = run, rules, progress, planned

    def see(self, step: int, items: dict[str, list[float]]) -> list[Alarm]:
        """Record the measurements of a step and return the warnings raised for the first time in the run.

        Call it only in the main process: it writes files.
        """
        history = [*self.history(), Measurement(step, items, self._planned)]
        if len(history) == 1:
            self._warn_of_few(items)
        before = {row["name"] for row in _rows(self._run.alarms_path)} if self._has_alarms else set()
        alarms = [alarm for alarm in current_alarms(history, self._rules) if alarm.name not in before]
        self._run.append_watch({"step": step, "items": items, "planned": self._planned})
        for alarm in alarms:
            self._run.append_alarm(asdict(alarm))
            self._progress.warn(f"{alarm.name}: {alarm.message}; {alarm.fix}")
        return alarms

    def gold_fall(self) -> float:
        """Return the p-value of "the gold reward did not fall", corrected for all measurements; 1 after the first."""
        history = self.history()
        return _gold_fall(history).p if _comparable(history, "gold") else 1.0

    def _warn_of_few(self, items: dict[str, list[float]]) -> None:
        needed, n = looks.fewest_items(self._planned), len(items.get("gold", ()))
        if 0 < n < needed:
            self._progress.warn(
                f"watch.gold: {n} held-out prompts are too few to tell a fall of the gold reward from chance in "
                f"{self._planned} measurements; gold-falls and stop=best-gold cannot act\n"
                f"  fix: at least {needed} rows in eval.data, better 200; or a larger eval.every"
            )

    @property
    def _has_alarms(self) -> bool:
        return self._run.alarms_path.is_file()

    def history(self) -> list[Measurement]:
        """Return the run's measurements so far, the oldest first."""
        path = self._run.watch_path
        return read_history(path) if path.is_file() else []


def read_history(path: Path) -> list[Measurement]:
    """Return the measurements recorded in a watch.jsonl file, the oldest first."""
    return [Measurement(row["step"], row["items"], row.get("planned", 0)) for row in _rows(path)]


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


def planned_looks(steps: int, every: int | None) -> int:
    """Return the number of measurements after the first in `steps` steps: one every `every` steps, one at the end."""
    return 1 if every is None else math.ceil(steps / every)


def _comparable(history: Sequence[Measurement], *names: str) -> bool:
    """Return True if there are at least two measurements, and the newest has all the named values."""
    return len(history) > 1 and all(name in history[-1].items for name in names)


def _planned(history: Sequence[Measurement]) -> list[int]:
    """Return for each measurement after the first the number of them then planned, as `stats.looks` takes it."""
    known = next((measurement.planned for measurement in reversed(history) if measurement.planned), UNKNOWN)
    return [measurement.planned or known for measurement in history[1:]]


def _values(measurement: Measurement, name: str) -> np.ndarray:
    return np.asarray(measurement.items[name], dtype=np.float64)


def _rose(history: Sequence[Measurement], name: str) -> bool:
    """Return True if a value is clearly above that of the first measurement, given the number of measurements."""
    return looks.rise(_values(history[-1], name), _values(history[0], name), _planned(history)) <= looks.ALPHA


def _extent(history: Sequence[Measurement], name: str) -> str:
    """Return in words how much a warning about the values under `name` rests on: prompts and measurements."""
    n, planned = len(history[-1].items[name]), history[-1].planned
    return (
        f"n = {n}" if planned == 1 else f"n = {n}, measurement {len(history) - 1}{f' of {planned}' if planned else ''}"
    )


# -- rules of every method that samples ------------------------------------------------------------------------------


def _gold_fall(history: Sequence[Measurement]) -> looks.Fall:
    return looks.fall(np.stack([_values(measurement, "gold") for measurement in history]), _planned(history))


def gold_falls(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the gold reward is clearly below an earlier level; with a clearly risen optimized reward it is hacking.

    Where the optimized reward is measured too and did not rise, there is no warning.
    """
    if not _comparable(history, "gold"):
        return None
    found = _gold_fall(history)
    if found.p > looks.ALPHA:
        return None
    meanwhile = ""
    if "reward" in history[-1].items:
        now, before = (_over(history, "reward", window) for window in (found.now, found.before))
        rise = float((now - before).mean())
        if rise <= 0:
            return None
        clear = float(looks.below((before - now)[None])[0]) <= looks.ALPHA
        meanwhile = f" while the optimized reward rose by {rise:.2f}"
        meanwhile += ": the reward is being hacked" if clear else ", which may be chance"
    then, at = (_over(history, "gold", window).mean() for window in (found.before, found.now))
    return AlarmText(
        "gold-falls",
        f"the gold reward fell by {-found.value:.2f}, from {then:.2f} {_steps(history, found.before)} to {at:.2f} "
        f"{_steps(history, found.now)} ({_extent(history, 'gold')}, p = {found.p:.2g} over all of them){meanwhile}",
        "raise the KL penalty (kl.coef, kl.target; DPO: beta), mix SFT data in, or set watch.stop=best-gold",
    )


def _over(history: Sequence[Measurement], name: str, window: tuple[int, int]) -> np.ndarray:
    """Return the mean of each prompt's values over the measurements from the first to the last index of `window`."""
    first, last = window
    return np.mean([_values(measurement, name) for measurement in history[first : last + 1]], axis=0)


def _steps(history: Sequence[Measurement], window: tuple[int, int]) -> str:
    first, last = (history[index].step for index in window)
    return f"at step {first}" if first == last else f"at steps {first} to {last}"


def length_grows(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if answers grew clearly longer than at first, and the gold reward (if measured) did not clearly rise."""
    now, first = history[-1], history[0]
    if not _comparable(history, "length") or first.mean("length") <= 0:
        return None
    growth, has_gold = now.mean("length") / first.mean("length"), "gold" in now.items
    if growth < (LONGER_AND_NO_BETTER if has_gold else LONGER) or not _rose(history, "length"):
        return None
    if has_gold and _rose(history, "gold"):
        return None
    words = " while the gold reward did not clearly rise" if has_gold else ""
    return AlarmText(
        "length-grows",
        f"answers grew {growth:.1f}x since step {first.step}, from {first.mean('length'):.0f} to "
        f"{now.mean('length'):.0f} tokens ({_extent(history, 'length')}){words}",
        "set rollouts.length_penalty or raise kl.coef (DPO: loss sigmoid_norm or simpo, or a higher beta)",
    )


def repeats(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the answers' share of repeated word trigrams is clearly above that of the first measurement."""
    now, first = history[-1], history[0]
    if not _comparable(history, "repetition"):
        return None
    if now.mean("repetition") - first.mean("repetition") < REPEATS or not _rose(history, "repetition"):
        return None
    return AlarmText(
        "repetition",
        f"{now.mean('repetition'):.0%} of the answers' word trigrams are repeats, up from "
        f"{first.mean('repetition'):.0%} at step {first.step} ({_extent(history, 'repetition')})",
        "raise the KL penalty or lower optim.lr: the policy falls into loops",
    )


def disagrees(history: Sequence[Measurement]) -> AlarmText | None:
    """Warn if the members of a reward ensemble disagree clearly more about a policy's answers than at first."""
    now, first = history[-1], history[0]
    if not _comparable(history, "disagreement") or first.mean("disagreement") <= 0:
        return None
    growth = now.mean("disagreement") / first.mean("disagreement")
    if growth < DISAGREES or not _rose(history, "disagreement"):
        return None
    return AlarmText(
        "rewards-disagree",
        f"the rewards disagree {growth:.1f}x as much as at step {first.step} ({_extent(history, 'disagreement')}), so "
        "their scores are less reliable",
        "set rollouts.uncertainty, or raise the KL penalty",
    )


def far_away(target: float | None) -> Rule:
    """Return a rule that warns if the policy's KL from the reference is clearly above 3 x `target` nats (None: FAR).

    It is a one-sided t-test: the KLs of single answers are skewed to the right, which makes it cautious.
    """
    limit = FAR if target is None else 3 * target

    def rule(history: Sequence[Measurement]) -> AlarmText | None:
        now = history[-1]
        if "kl" not in now.items or now.mean("kl") <= limit:
            return None
        values = _values(now, "kl") - limit
        n = len(values)
        error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        t = float(values.mean()) / error if error else math.inf
        if Student(max(1, n - 1)).above(t) * looks.corrections(_planned(history) or [1]) > looks.ALPHA:
            return None
        bound = f"{FAR:g} nats" if target is None else f"three times kl.target ({target:g})"
        return AlarmText(
            "kl-high",
            f"the policy is {now.mean('kl'):.1f} nats per answer from the reference, more than {bound} "
            f"({_extent(history, 'kl')})",
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
    chosen, rejected = now.mean("chosen"), now.mean("rejected")
    values, planned = _values(now, "chosen"), _planned(history) or [now.planned or UNKNOWN]
    if rejected >= chosen or looks.rise(np.zeros_like(values), values, planned) > looks.ALPHA:
        return None
    return AlarmText(
        "chosen-falls",
        f"the chosen answers became less likely, by {-chosen:.1f} nats per answer; the margin rises only because the "
        f"rejected ones fell by {-rejected:.1f} ({_extent(history, 'chosen')})",
        "use loss dpop or mix SFT data on the chosen answers in (mix), raise beta, or lower optim.lr",
    )


def with_gold_stop(plan: Evaluation, config: PpoConfig | DpoConfig, watch: Watch, *, is_main: bool) -> Evaluation:
    """Return the evaluation plan, changed if `watch.stop` is "best-gold": it then stops training by the gold reward.

    Training ends once the gold reward has clearly fallen, by the test of "gold-falls"; with `eval.patience`, once it
    has not improved for that many measurements. The weights of the best measurement are kept.
    """
    if config.watch.stop == "never":
        return plan
    plan = replace(plan, metric="gold", better="higher")
    if plan.patience is not None:
        return plan

    def compute(step: int) -> dict[str, float]:
        # The record of measurements is the main process's; its numbers count for all.
        return plan.compute(step) | {GOLD_FALL: watch.gold_fall() if is_main else 1.0}

    return replace(plan, compute=compute, ends=lambda numbers: numbers[GOLD_FALL] <= looks.ALPHA)


def ppo_rules(target: float | None) -> list[Rule]:
    """Return the warning rules for a PPO run; `target` is the setting kl.target (nats per answer) or None."""
    return [gold_falls, length_grows, repeats, disagrees, far_away(target)]


def dpo_rules() -> list[Rule]:
    """Return the warning rules for a DPO run."""
    return [chosen_falls, gold_falls, length_grows, repeats, far_away(None)]
