"""Plan of the gates, before a model is trained or loaded: the items that each has, and how many it needs.

An *unchanged model* is one that is truly neither better nor worse, though some of its answers differ from those of the
model that it is compared with. How much they differ is expected, not known, so two values are looked at for each gate
(`EXPECTED`): the smaller one gives the higher chance of passing.

A gate that *cannot pass* is an error: a model that answers every item the same would not pass it, or an unchanged one
passes less than once in 10 times. One that an unchanged model passes less than 8 times of 10 is a warning. A gate that
allows no loss at all, or asks for a gain, is not meant for an unchanged model: for it the gain is given that passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from trueup.config.evaluation import GAINS, NAMED_GATES, TASK_OF
from trueup.data.tokens.findings import Finding, fault
from trueup.errors import ConfigError
from trueup.evaluation.published.table import PUBLISHED, read_set
from trueup.evaluation.sets import measured_rows
from trueup.stats.power import (
    LEVEL,
    OFTEN,
    factor_power,
    first_true,
    largest_spread,
    mean_power,
    rate_power,
    smallest_n,
    win_power,
)

if TYPE_CHECKING:
    from trueup.config import EvaluateConfig, GatesConfig, PipelineConfig

ALLOW = "underpowered-gate"
"""The word of `allow` for gates that cannot pass."""
SELDOM = 0.1
"""A gate that an unchanged model passes less often cannot pass, for all that an evaluation is worth."""
Kind = Literal["rates", "wins", "means", "factor"]
State = Literal["sure", "weak", "cannot", "gain", "unknown"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Subject of a gate: its kind of values, its items in words, and the key of `evaluate` that gives them."""

    kind: Kind
    items: str
    source: str
    spread: str
    """The words for what is expected of an unchanged model, with {} for the values."""


_DISCORDANCE = "where it answers {} of them otherwise"
SUBJECTS: Mapping[str, Subject] = {
    "capability_drop": Subject("rates", "questions", "evaluate.capability", _DISCORDANCE),
    "over_refusal_rise": Subject("rates", "innocent prompts", "evaluate.innocent", _DISCORDANCE),
    "unsafe_compliance_rise": Subject("rates", "unsafe prompts", "evaluate.unsafe", _DISCORDANCE),
    "forgetting_rise": Subject("means", "texts", "evaluate.forgetting", "with a spread of {} nats per token"),
    "gold_reward_drop": Subject("means", "prompts", "evaluate.prompts and samples", "with a spread of {}"),
    "win_rate": Subject("wins", "pairs of answers", "evaluate.prompts and samples", "where {} of them are ties"),
    "length_growth": Subject("factor", "prompts", "evaluate.prompts and samples", "where lengths spread by {}"),
    "harness_drop": Subject("rates", "items", "evaluate.harness_limit", _DISCORDANCE),
    "set_worsening": Subject("rates", "items", "limit in evaluate.sets", _DISCORDANCE),
    "task_gain": Subject("rates", "questions", "evaluate.capability", _DISCORDANCE),
    "gold_reward_gain": Subject("means", "prompts", "evaluate.prompts and samples", "with a spread of {}"),
    "set_gain": Subject("rates", "items", "limit in evaluate.sets", _DISCORDANCE),
    "harness_gain": Subject("rates", "items", "evaluate.harness_limit", _DISCORDANCE),
}
EXPECTED: Mapping[str, tuple[float, float]] = {
    "capability_drop": (0.05, 0.10),
    "over_refusal_rise": (0.05, 0.10),
    "unsafe_compliance_rise": (0.05, 0.10),
    "forgetting_rise": (0.05, 0.15),
    "win_rate": (0.3, 0.0),
    "length_growth": (0.45, 0.70),
    "harness_drop": (0.05, 0.10),
    "set_worsening": (0.05, 0.10),
    "task_gain": (0.05, 0.10),
    "harness_gain": (0.05, 0.10),
    "set_gain": (0.05, 0.10),
}
"""Gate -> how much an unchanged model differs, the easier value first: discordance, spread, share of ties.

Between checkpoints of one training 0.04 to 0.10 of the answers to questions turned from right to wrong or back, and
the texts' loss differed by 0.002 to 0.03 nats per token. The lengths of two models' answers to one prompt have 0.45
(median) and 0.70 (14 of 17) of their mean as spread, on the models of AlpacaEval in docs/evaluation.md.
"""


@dataclass(frozen=True, slots=True)
class GatePower:
    """Plan of one gate: how often a model passes it, and the items that it needs.

    Attributes:
        key: the gate, as in `GatesConfig.limits`.
        limit: its limit.
        n: number of items; None where it is not known before the evaluation.
        expected: how much an unchanged model differs, see `EXPECTED`; None where nothing is known.
        candidates: number of models of which any may ship; each is then tested at 2.5% / candidates.
    """

    key: str
    limit: float
    n: int | None
    expected: tuple[float, float] | None
    candidates: int = 1

    @property
    def gate(self) -> str:
        """The gate without its slice."""
        return self.key.partition("/")[0]

    @property
    def subject(self) -> Subject:
        """The subject of the gate."""
        return SUBJECTS[self.gate]

    @property
    def level(self) -> float:
        """The one-sided level of the gate."""
        return LEVEL / self.candidates

    @property
    def chances(self) -> tuple[float, float] | None:
        """The chance that an unchanged model passes, at the larger and at the smaller expected difference."""
        if self.n is None or self.expected is None:
            return None
        easy, hard = (self.power(self.n, spread) for spread in self.expected)
        return min(easy, hard), max(easy, hard)

    @property
    def needed(self) -> int | None:
        """The number of items with which an unchanged model passes 8 times of 10; None where no number is enough."""
        if self.expected is None or self.asks_gain:
            return None
        hard = self.expected[1]
        return smallest_n(lambda n: self.power(n, hard))

    @property
    def asks_gain(self) -> bool:
        """True if an unchanged model is not meant to pass: no loss is allowed, or a gain demanded."""
        return self.limit >= 0.5 if self.gate == "win_rate" else self.allowed <= 0

    @property
    def allowed(self) -> float:
        """The largest loss that passes; below 0 for a gate that demands a gain."""
        return -self.limit if self.gate in GAINS else self.limit

    @property
    def passable(self) -> float | None:
        """The limit nearest to this one at which an unchanged model passes 8 times of 10 with as many items."""
        if self.n is None or self.expected is None or self.gate in GAINS:
            return None
        n, hard = self.n, self.expected[1]

        def enough(hundredths: int) -> bool:
            return replace(self, limit=hundredths / 100).power(n, hard) >= OFTEN

        if self.subject.kind == "wins":
            strictest = first_true(lambda hundredths: not enough(hundredths), 0, 50) - 1
            return strictest / 100 if strictest else None
        low, high = (100, 1000) if self.subject.kind == "factor" else (0, 99)
        return first_true(enough, low, high) / 100 if enough(high) else None

    @property
    def state(self) -> State:
        """The quality of the plan: "sure" from 8 times of 10, "weak" below, "cannot", "gain", or "unknown"."""
        if self.asks_gain:
            knowable = self.n is not None and self.expected is not None and self.subject.kind != "means"
            return "cannot" if knowable and self.gain() is None else "gain"
        chances = self.chances
        if chances is None or self.n is None:
            return "unknown"
        if self.identical < 0.5 or chances[1] < SELDOM:
            return "cannot"
        return "sure" if chances[0] >= OFTEN else "weak"

    @property
    def identical(self) -> float:
        """1 if a model that answers every item as the other one does would pass, else 0; 1 where n is not known."""
        return self.power(self.n, 1.0 if self.subject.kind == "wins" else 0.0) if self.n is not None else 1.0

    def power(self, n: int, spread: float, change: float = 0.0) -> float:
        """Return the chance that a model passes.

        Args:
            n: number of items.
            spread: how much the model differs, as in `EXPECTED`.
            change: its true change, signed so that more is better; not for lengths.
        """
        kind = self.subject.kind
        if kind == "rates":
            return rate_power(n, self.allowed, spread, change, self.level)
        if kind == "wins":
            return win_power(n, self.limit, spread, change, self.level)
        if kind == "factor":
            return factor_power(n, self.limit, spread, self.level)
        return mean_power(n, self.allowed, spread, change, self.level)

    def at(self, multiple: float) -> float | None:
        """Return the chance that a model passes that is `multiple` times as far from the other one as is allowed.

        1 is a model exactly at the limit, 2 one at twice the limit; the other differences are the larger expected ones.
        None where the number of items or the differences are not known, or no loss is allowed.
        """
        if self.n is None or self.expected is None or self.asks_gain:
            return None
        hard, kind = self.expected[1], self.subject.kind
        if kind == "factor":
            ratio = self.limit**multiple
            return mean_power(self.n, self.limit - ratio, hard * math.hypot(ratio, self.limit), level=self.level)
        loss = multiple * (0.5 - self.limit if kind == "wins" else self.limit)
        spread = max(hard, loss) if kind == "rates" else hard
        return self.power(self.n, spread, -min(loss, 0.5 if kind == "wins" else 1.0))

    def gain(self) -> float | None:
        """Return the true gain that passes 8 times of 10, for a gate that asks for one; None where none does."""
        if self.n is None or self.expected is None or self.subject.kind not in ("rates", "wins"):
            return None
        n, hard, most = self.n, self.expected[1], 999 if self.subject.kind == "rates" else 499

        def passes(thousandths: int) -> bool:
            gain = thousandths / 1000
            return self.power(n, max(hard, gain) if self.subject.kind == "rates" else hard, gain) >= OFTEN

        return first_true(passes, 0, most) / 1000 if passes(most) else None

    def in_words(self) -> str:
        """Return what the gate can decide as one line, without the gate's name."""
        limit = f"{'gain of' if self.gate in GAINS else 'limit'} {self.limit:g}"
        if self.asks_gain and self.state == "cannot":
            return f"{limit} cannot pass with {self._items}: not even a model that is better on all of them would pass"
        if self.state == "gain":
            return f"{limit}, {self._items}: an unchanged model passes 1 time in 40 at most; {self._gain_words()}"
        if self.n is None:
            number = f"; 8 of 10 from {self.needed:,} {self.subject.items}" if self.needed else ""
            return f"{limit}: the number of {self.subject.items} is not known before the evaluation{number}"
        if self.expected is None:
            spread = largest_spread(self.n, self.limit, self.level)
            return (
                f"{limit}, {self._items}: an unchanged model passes 8 times of 10 if the standard deviation of its "
                f"paired differences is at most {spread:.3g}, which nobody knows before"
            )
        if self.identical < 0.5:
            return f"{limit} cannot pass with {self._items}: a model whose every answer is the same would not pass"
        return f"{limit}, {self._items}: an unchanged model passes in {self._chance_words()}{self._needed_words()}"

    def fix(self) -> str:
        """Return what to do so that an unchanged model passes 8 times of 10; "" where nothing has to be done."""
        if self.state not in ("weak", "cannot"):
            return ""
        if self.gate in GAINS:
            return f"give more {self._where} ({self.subject.source})"
        ways: list[str] = []
        if self.needed is not None:
            ways.append(f"give {self.needed:,} {self._where} ({self.subject.source})")
        if (limit := self.passable) is not None:
            ways.append(f"set {place(self.key)} to {limit:g}{'' if self.gate == 'win_rate' else ' or more'}")
        if self.candidates > 1:
            ways.append("name the model that may ship in gates.model")
        return ", or ".join(ways)

    def as_dict(self) -> dict[str, object]:
        """Return the plan of the gate by name, for JSON."""
        low, high = self.chances or (None, None)
        return {
            "gate": self.key, "limit": self.limit, "n": self.n, "items": self.subject.items, "state": self.state,
            "expected": None if self.expected is None else list(self.expected), "candidates": self.candidates,
            "unchanged_passes": None if low is None else [round(low, 4), round(high or 0.0, 4)],
            "needed": self.needed, "passable_limit": self.passable, "text": self.in_words(), "fix": self.fix(),
        }  # fmt: skip

    @property
    def _where(self) -> str:
        part = self.key.partition("/")[2]
        return f"{self.subject.items} of {part}" if part else self.subject.items

    @property
    def _items(self) -> str:
        number = "items" if self.n is None else f"{self.n:,}"
        return f"{number} {self._where}" if self.n is not None else self._where

    def _chance_words(self) -> str:
        assert self.chances is not None
        assert self.expected is not None
        form = "g" if self.subject.kind == "means" else ".0%"
        easy, hard = (f"{value:{form}}" for value in self.expected)
        values = hard if hard == easy else f"{hard} to {easy}"
        return f"{percent(*self.chances)} of evaluations ({self.subject.spread.format(values)})"

    def _needed_words(self) -> str:
        return f"; 8 of 10 from {self.needed:,}" if self.needed is not None else ""

    def _gain_words(self) -> str:
        gain = self.gain()
        if gain is None:
            return "it asks for a gain"
        words = f"a true gain of {gain:.3f} passes 8 times of 10"
        double = 2 * self.limit
        if self.gate not in GAINS or self.expected is None or double >= 1 or gain <= double:
            return words
        spread = max(self.expected[1], double)
        return f"{words}, one of {double:g} from {smallest_n(lambda n: self.power(n, spread, double)):,}"


def percent(low: float, high: float) -> str:
    """Return two chances in words: "13% to 19%", or one of them where both are the same."""
    ends = [f"{chance:.0%}" for chance in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def plan_gates(config: EvaluateConfig, gates: GatesConfig | None, candidates: int) -> list[GatePower]:
    """Return what each gate can decide with the rows that `config` names, in the order of `GatesConfig.limits`.

    Args:
        config: the section `evaluate`.
        gates: the limits; None gives no plans.
        candidates: number of models that may ship.
    """
    if gates is None:
        return []
    searched = candidates if gates.model is None else 1
    rows: dict[str, int | None] = {}
    plans: list[GatePower] = []
    for key, limit in gates.limits.items():
        gate, _, part = key.partition("/")
        place = f"{TASK_OF[gate]}/{part}"
        if place not in rows:
            rows[place] = _size(config, gate, part)
        plans.append(GatePower(key, limit, rows[place], EXPECTED.get(gate), max(1, searched)))
    return plans


def pipeline_gates(config: PipelineConfig) -> list[GatePower]:
    """Return what each gate of a pipeline can decide."""
    return plan_gates(config.evaluate, config.gates, len(config.candidates))


def require_passable(plans: Sequence[GatePower], allow: Sequence[str]) -> None:
    """Raise an error that lists every gate that cannot pass.

    Raises:
        ConfigError: there is one, and `allow` does not name underpowered-gate.
    """
    problems = [finding.in_words() for finding in gate_findings(plans, allow) if finding.level == "error"]
    if problems:
        raise ConfigError("\n".join(problems))


def place(key: str) -> str:
    """Return the path in the configuration of a gate: "gates.slices.capability_drop.maths"."""
    gate, _, part = key.partition("/")
    middle = "" if not part or gate in NAMED_GATES else "slices."
    return f"gates.{middle}{gate}" + (f".{part}" if part else "")


def gate_findings(plans: Sequence[GatePower], allow: Sequence[str]) -> list[Finding]:
    """Return what each gate can decide as a finding.

    It is a fault for a gate that cannot pass, a warning for one that an unchanged model passes less than 8 times of 10,
    and a note for all others.
    """
    findings: list[Finding] = []
    for plan in plans:
        section, text = place(plan.key), plan.in_words()
        if plan.state == "cannot":
            findings.append(fault(ALLOW, section, text, plan.fix(), allow))
        elif plan.state == "weak":
            findings.append(Finding(ALLOW, "warning", section, text, plan.fix()))
        else:
            findings.append(Finding("gate-power", "note", section, text))
    return findings


def ships(plans: Sequence[GatePower]) -> tuple[float, float] | None:
    """Return the chance that an unchanged model passes all gates, if independent, at both expected differences.

    None where the chance of one is not known, or one asks for a gain.
    """
    chances = [plan.chances for plan in plans if not plan.asks_gain]
    known = [chance for chance in chances if chance is not None]
    if not plans or len(known) < len(plans):
        return None
    return math.prod(low for low, _ in known), math.prod(high for _, high in known)


def announce(plans: Sequence[GatePower], note: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Say for each gate what it can decide, before anything is trained or measured."""
    for finding in gate_findings(plans, [ALLOW]):
        (note if finding.level == "note" else warn)(finding.in_words())


def _size(config: EvaluateConfig, gate: str, part: str) -> int | None:
    """Return the number of items that a gate is decided on; None where it is known only later."""
    task = TASK_OF[gate]
    if task == "harness":
        return config.harness_limit
    if task == "sets":
        return _size_of_set(config, part)
    rows = measured_rows(config, task)
    names = ((row.topic, getattr(row, "level", None)) for row in rows)
    return sum(
        not part or part in (level, f"level {level}") or f"{topic}/".startswith(f"{part}/") for topic, level in names
    )


def _size_of_set(config: EvaluateConfig, part: str) -> int | None:
    """Return the number of rows of a published set, or of one of its categories; None where fewer may be scored."""
    name, _, category = part.partition("/")
    entry = next((entry for entry in PUBLISHED if entry == name), None)
    if entry is None or entry not in config.sets or PUBLISHED[entry].how == "flip":
        return None
    topics = [row.asked.topic for row in read_set(entry, config.sets[entry])]
    return sum(not category or f"{topic}/".startswith(f"{category}/") for topic in topics)
