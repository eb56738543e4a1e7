"""The contents of `report.json`, which `report.html` and the terminal show.

Everything here was measured; what was not is absent, and named in `not_measured` with the reason. A difference is
always paired, item by item, against `Report.against`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from trueup.stats.intervals import Estimate

VerdictWord = Literal["SHIP", "HOLD", "NOT SHOWN", "NOT JUDGED"]
Outcome = Literal["pass", "fail", "not shown", "not run"]


class ReportPart(BaseModel):
    """Base class of all parts of the report: unknown keys are refused, and field docstrings are their descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


_NULL = PlainSerializer(lambda end: end if math.isfinite(end) else None, return_type=float | None, when_used="json")
LowEnd = Annotated[float, BeforeValidator(lambda end: -math.inf if end is None else end), _NULL]
HighEnd = Annotated[float, BeforeValidator(lambda end: math.inf if end is None else end), _NULL]
"""The ends of an interval; an infinite one is null in JSON."""


class ReportNumber(ReportPart):
    """A value, its 95% interval and the number of items it was measured on."""

    value: float
    low: LowEnd
    high: HighEnd
    n: int
    withheld: str | None = None
    """The reason why no interval is given (its ends are null), such as "too skewed to say: …"; None where one is."""

    @classmethod
    def of(cls, estimate: Estimate) -> ReportNumber:
        """Return a statistical estimate (value, interval, n) as a part of the report."""
        return ReportNumber(
            value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n, withheld=estimate.withheld or None
        )  # fmt: skip


class Difference(ReportNumber):
    """A paired difference: a model's value minus that of the model `Report.against`, on the same items."""

    shown: bool
    """True if the interval leaves out zero. False is shown as "not shown", never as "no difference"."""
    p: float | None = None
    """Two-sided p-value of `test`."""
    test: str | None = None
    """The test: "McNemar, exact" or "paired bootstrap"."""
    detectable: float | None = None
    """The smallest difference that this n would show with a power of 80%."""
    adjusted: float | None = None
    """The p-value corrected for all differences in its table (Holm 1979), which the words "better" and "worse" need."""

    @property
    def sure(self) -> bool:
        """True if the difference is shown also after the correction for the number of differences in its table."""
        return self.shown and (self.adjusted is None or self.adjusted <= 0.05)


class Measure(ReportPart):
    """One measured quantity, such as capability or KL, with a number for each model."""

    key: str
    """Such as "capability", "over-refusal", "kl"."""
    title: str
    unit: str
    """Such as "share right", "nats per answer", "tokens"."""
    better: Literal["higher", "lower", "neither"]
    values: dict[str, ReportNumber] = Field(default_factory=dict)
    """Model -> number."""
    differences: dict[str, Difference] = Field(default_factory=dict)
    """Model -> paired difference from `Report.against`."""
    topics: list[Topic] = Field(default_factory=list)
    """Numbers by topic, if the task has topics."""
    note: str | None = None
    """A caveat for the reader, such as the refusal detector's own error."""

    @property
    def aim(self) -> str:
        """The direction in which the measure gets better, in words; "" if neither is better."""
        return {"higher": "higher is better", "lower": "lower is better", "neither": ""}[self.better]

    def judgement(self, difference: Difference) -> str:
        """Return "better", "worse", "higher" or "lower" if the difference is sure, else "not shown"."""
        if not difference.sure:
            return "not shown"
        if self.better == "neither":
            return "higher" if difference.value > 0 else "lower"
        return "better" if (difference.value > 0) == (self.better == "higher") else "worse"


class Topic(ReportPart):
    """The values and differences of a measure on the items of one topic, by model."""

    topic: str
    values: dict[str, ReportNumber] = Field(default_factory=dict)
    differences: dict[str, Difference] = Field(default_factory=dict)


class GateResult(ReportPart):
    """Outcome of one gate (a limit on a cost such as a drop in capability), decided on an end of an interval."""

    key: str
    """The key under `gates:`, such as "capability_drop"."""
    title: str
    limit: float
    bound: float
    """The limit on the axis of the estimate: a drop of 0.05 allowed is a change of -0.05."""
    outcome: Outcome
    words: str
    """The outcome in a sentence, with numbers."""
    estimate: ReportNumber | None = None
    """The number compared with the limit; None when the check did not run."""
    detectable: float | None = None


class ModelVerdict(ReportPart):
    """Verdict on one model: the outcomes of its gates together, and the reasons."""

    verdict: VerdictWord
    reasons: list[str] = Field(default_factory=list)
    gates: list[GateResult] = Field(default_factory=list)


class Verdict(ReportPart):
    """The verdict of the whole report, shown first, with the verdicts on all models."""

    verdict: VerdictWord
    sentence: str
    model: str | None = None
    """The model that the verdict is about."""
    models: dict[str, ModelVerdict] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    """What the reader must know beside it, such as that two models have the same weights."""
    search: str | None = None
    """How the choice of the best of several candidates is allowed for; None where there is no choice."""


class FrontierPoint(ReportPart):
    """A point of reward against KL: one model at one training step, with its KL from the reference model."""

    model: str
    step: int | None
    """The training step; None for the finished model as evaluated at the end."""
    kl: float
    proxy: float | None = None
    gold: float | None = None


class Curve(ReportPart):
    """A metric of one stage over training steps."""

    stage: str
    key: str
    """The name in metrics.jsonl, such as "ppo/reward", "eval/gold"."""
    title: str
    steps: list[int]
    values: list[float | None]


class ReportAlarm(ReportPart):
    """A warning raised while a stage trained, such as that the gold reward falls, with the advice on it."""

    stage: str
    step: int
    name: str
    """Such as "gold-falls", "length-growth"."""
    message: str
    """The finding, with numbers."""
    fix: str


class Bin(ReportPart):
    """One bin of the reward model's calibration curve."""

    predicted: float
    """Mean predicted probability that chosen wins."""
    observed: ReportNumber
    """Share in which chosen won."""


class RewardModelCard(ReportPart):
    """Accuracy and calibration of the reward model on held-out rankings."""

    name: str
    accuracy: ReportNumber
    chosen_longer: ReportNumber | None = None
    """Accuracy where the chosen answer is the longer one."""
    chosen_shorter: ReportNumber | None = None
    calibration: list[Bin] = Field(default_factory=list)
    calibration_error: float | None = None
    """Expected calibration error: mean |observed - predicted|, weighted by bin size."""


class RewardSet(ReportPart):
    """The score of the reward model on a published set, and on its parts."""

    title: str
    """Such as "RewardBench 2"."""
    unit: str
    score: ReportNumber
    """The mean over the set's categories, as its paper has it."""
    parts: dict[str, ReportNumber] = Field(default_factory=dict)
    """Category, or further value such as "hard" -> number."""
    note: str


class JudgeCard(ReportPart):
    """The judge's own quality: position and length bias, agreement with people and with itself, and its cost."""

    name: str
    pairs: int
    """Pairs of answers it was to judge; identical answers are ties without being sent."""
    identical: int = 0
    unjudged: int = 0
    """Pairs without a verdict: a reply without one, or no reply."""
    undecided: str | None = None
    """The reason why its verdicts decide nothing, such as that they follow the places of the answers."""
    first: ReportNumber | None = None
    """Share of the places it named that were the first one; 0.5 without position bias."""
    consistent: ReportNumber | None = None
    """Share of pairs on which its two replies, in both orders, agree."""
    longer: ReportNumber | None = None
    """Share of decided pairs of unequal length that the longer answer won."""
    agreement: ReportNumber | None = None
    """Share of held-out rankings on which it prefers the answer that people chose, ties as halves."""
    length_bias: Difference | None = None
    """How much more often it prefers the longer answer of a held-out ranking than people do."""
    self_preference: Difference | None = None
    """Its win rate for its own model's answers less the gold reward's, on the same prompts."""
    self_note: str | None = None
    """Which model is the judge itself; None if none is, by name."""
    questions: int | None = None
    requests: int | None = None
    unread: int = 0
    """Questions whose replies held no verdict."""
    failed: int = 0
    """Questions that found no reply."""
    unread_example: str | None = None
    prompt_tokens: int | None = None
    """As the endpoint counted them; None where it did not for every reply."""
    completion_tokens: int | None = None
    seconds: float = 0.0
    cost: float | None = None
    """In the currency of evaluate.judging's prices; None without prices or counts."""
    lines: list[str] = Field(default_factory=list)
    """All of it in sentences, for people."""


class ReportAnswer(ReportPart):
    """The answer of one model to a prompt, with its scores."""

    text: str
    tokens: int | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    """Such as {"proxy": 1.2, "gold": 0.0, "right": 1.0, "refused": 0.0}."""


class ReportSample(ReportPart):
    """One prompt with the answers of all models to it."""

    task: str
    topic: str | None = None
    prompt: str
    expected: str | None = None
    answers: dict[str, ReportAnswer]
    change: float | None = None
    """Score of the last model minus that of `Report.against`: the largest gains and losses are shown first."""
    by: str | None = None
    """The score that `change` is of."""


class StageRun(ReportPart):
    """One training stage that was run: its data, steps, time and configuration."""

    name: str
    method: str
    finished: bool
    base: str
    """The model that it started from."""
    data: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Section -> counts: {"path", "rows", "used", "dropped", …} as in data.json."""
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    stopped_early: bool = False
    watched: str = ""
    """How much the warnings while training rest on: "200 held-out prompts, 25 measurements"; empty without any."""
    seed: int | None = None
    config: str = ""
    """config.yaml, resolved."""
    command: str | None = None


class ModelOrigin(ReportPart):
    """The origin of a measured model, and the hash that tells its weights from others."""

    source: str
    """Folder, hub id, .gguf file, or the address of an endpoint with the model's name behind #."""
    weights: str | None = None
    """sha256 over all tensors as float32; None where they cannot be seen (an endpoint) or were not hashed."""
    date: str | None = None
    """ISO date of the measurement."""


class ReportMissing(ReportPart):
    """A check that did not run, and why. It enters no verdict."""

    what: str
    why: str


class Report(ReportPart):
    """The whole report on a run folder, as in report.json."""

    title: str
    kind: Literal["pipeline", "comparison"]
    made: str
    """ISO date and time."""
    versions: dict[str, str]
    """trueup, python, torch, transformers, peft, and the machine."""
    command: str | None = None
    """The command that repeats it."""
    verdict: Verdict
    against: str | None
    models: list[str]
    """In the order of the pipeline; `against` is one of them."""
    measures: list[Measure]
    origins: dict[str, ModelOrigin] = Field(default_factory=dict)
    """Model -> where it came from."""
    reward_model: RewardModelCard | None = None
    reward_sets: list[RewardSet] = Field(default_factory=list)
    """The reward model on published sets such as RewardBench 2."""
    judge: JudgeCard | None = None
    """The judge of win rates or refusals, if it is an endpoint."""
    frontier: list[FrontierPoint] = Field(default_factory=list)
    curves: list[Curve] = Field(default_factory=list)
    lengths: dict[str, list[int]] = Field(default_factory=dict)
    """Model -> tokens of each answer, for the histograms."""
    alarms: list[ReportAlarm] = Field(default_factory=list)
    samples: list[ReportSample] = Field(default_factory=list)
    stages: list[StageRun] = Field(default_factory=list)
    not_measured: list[ReportMissing] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    """Stage, or "evaluation" -> seconds it took."""
