"""What the votes of a store say, fit for JSON: every number with its interval, or why there is none."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from trueup.stats.intervals import Estimate

Policy = Literal["random", "uncertain"]


class ResultsPart(BaseModel):
    """Base of every part: unknown keys are refused, field docstrings describe them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ResultsNumber(ResultsPart):
    """A value, its 95% interval (None: no end on that side) and the number of votes or pairs behind it."""

    value: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Return the estimate as a number of the results."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)

    @property
    def shown(self) -> bool:
        """True for a share if the interval leaves out one half."""
        return (self.low is not None and self.low > 0.5) or (self.high is not None and self.high < 0.5)


class Absent(ResultsPart):
    """NOT MEASURED, and why."""

    why: str


Measured = ResultsNumber | Absent


class ResultsMissing(ResultsPart):
    """Something a reader may look for and not find."""

    what: str
    why: str


class VoteTotals(ResultsPart):
    """How much there is. A vote is a standing one: what was undone is not counted."""

    prompts: int
    """With a pair."""
    pairs: int
    """Gold ones left out."""
    voted: int
    """Of these, with a vote other than a skip."""
    complete: int | None
    """Of these, with as many votes as are wanted; None: nobody said how many are."""
    votes: int
    """Of every kind: the five below and the votes on gold pairs."""
    preferences: int
    ties: int
    both_bad: int
    skips: int
    gold: int
    edits: int
    """Votes with a better answer written by the rater."""
    raters: int
    policies: dict[str, int]
    """Votes by how their pairs were chosen: "random", "uncertain", "imported"."""
    first_at: str
    last_at: str
    event: int
    """As of which the votes stand: the same store as of this event says the same."""


class More(ResultsPart):
    """How many more votes a decision needs, should the rate stay as it is."""

    state: Literal["decided", "more", "too close", "not measured"]
    votes: int = 0
    """More votes until the 95% interval would leave out one half in an even chance of cases."""
    prompts: int | None = None
    """More prompts with a vote until the interval that may be looked at at any time would, 0: it does, and nothing that
    comes can change that; None: beyond the limit, or there is no such interval."""
    limit: int
    """What is beyond this is "too close"."""


class ModelPairing(ResultsPart):
    """Two models beside each other. Rates are the first's: `model` against `other`, ties as halves."""

    model: str
    other: str
    rate: Measured
    wins: int
    ties: int
    losses: int
    both_bad: int
    """Votes that both answers are bad: in no rate."""
    prompts: int
    design: float
    """How many times the variance is larger because votes on one prompt resemble each other; 1 where none repeats."""
    p: float | None
    """Two-sided, of a rate of one half; None where nothing was measured."""
    p_adjusted: float | None
    """The same after Holm for all pairings of this list."""
    safe: Measured
    """The rate over the first deciding vote on each prompt, with the interval that holds however often one looks."""
    more: More
    controlled: Measured
    """The rate at equal lengths."""

    @property
    def ahead(self) -> str | None:
        """Whose side of one half the interval of a single look is on; None: it holds one half."""
        return self._side(self.rate) if isinstance(self.rate, ResultsNumber) and self.rate.shown else None

    @property
    def winner(self) -> str | None:
        """Who wins, by the interval that holds at any time or by p after Holm; None: not shown, or they disagree."""
        safe = self._side(self.safe) if isinstance(self.safe, ResultsNumber) and self.more.prompts == 0 else None
        once = self.ahead if self.p_adjusted is not None and self.p_adjusted < 0.05 else None
        sides = {safe, once} - {None}
        return sides.pop() if len(sides) == 1 else None

    def _side(self, one: ResultsNumber) -> str:
        return self.model if (one.low or 0.0) >= 0.5 else self.other


class PolicySample(ResultsPart):
    """The votes of one way to choose pairs."""

    policy: Policy
    votes: int
    """Deciding ones between two named models: wins, ties and losses."""
    pairings: list[ModelPairing]


class Strength(ResultsPart):
    """One model in the ranking."""

    model: str
    rank: int
    rank_low: int
    rank_high: int
    """95% of resamples rank it from `rank_low` to `rank_high`."""
    points: ResultsNumber
    """Strength in Elo's unit, 400 log10(odds), against the mean of the models of its group; n is votes."""
    wins: float
    """Ties as halves."""
    group: int
    """Models of different groups never met, not even through others: their strengths do not compare."""


class Tag(ResultsPart):
    """The win rates on the prompts of one tag."""

    tag: str
    votes: int
    pairings: list[TagRate]


class TagRate(ResultsPart):
    """One of them."""

    model: str
    other: str
    rate: Measured


class Reasons(ResultsPart):
    """Why a model's answers were preferred."""

    model: str
    wins: int
    shares: dict[str, ResultsNumber]
    """Reason -> share of the wins that came with any reason; several may be ticked."""
    why: str = ""
    """Why there are none."""


class Kappa(ResultsPart):
    """Two raters on the pairs that both voted on."""

    rater: str
    other: str
    n: int
    agreed: Measured
    kappa: Measured
    """Cohen's, of first / neither / second."""
    weighted: Measured
    """The same with linear weights: a tie beside a preference is half a disagreement."""


class Agreement(ResultsPart):
    """Whether raters say the same of the same pair."""

    pairs: int
    """With two votes or more; n of the alphas."""
    nominal: Measured
    """Krippendorff's alpha of first / neither / second."""
    ordinal: Measured
    """The same with these three in this order."""
    raters: list[Kappa]


class RaterRow(ResultsPart):
    """One rater. Shares are of the rater's votes without skips unless said otherwise."""

    rater: str
    votes: int
    skips: int
    seconds: float | None
    """The median from seeing a pair to the vote."""
    ties: Measured
    both_bad: Measured
    left: Measured
    """Share of preferences for the answer shown as A."""
    left_p: float | None
    """Two-sided, of one half, after Holm over the raters."""
    majority: Measured
    """Share of votes equal to the commonest of the others' on the same pair."""
    gold: Measured
    """Share of votes on gold pairs that name the better answer."""
    longer: Measured
    """Share of preferences for the longer answer."""
    flags: list[str]


class Lengths(ResultsPart):
    """Whether length is liked. Winners minus losers, preferences only."""

    characters: Measured
    words: Measured
    longer: Measured
    """Share of preferences, between answers of unequal length, for the longer."""


class Results(ResultsPart):
    """All of it."""

    totals: VoteTotals
    models: list[str]
    """In the ranking's order."""
    samples: list[PolicySample]
    """The fair one first, where there is one: all else about models is of the first's votes."""
    ranking: list[Strength]
    tags: list[Tag]
    untagged: int
    """Deciding votes on prompts without a tag."""
    reasons: list[Reasons]
    agreement: Agreement
    raters: list[RaterRow]
    left: Measured
    left_p: float | None
    lengths: Lengths
    notes: list[str] = Field(default_factory=list[str])
    """What a reader must know to trust the numbers."""
    not_measured: list[ResultsMissing] = Field(default_factory=list[ResultsMissing])
