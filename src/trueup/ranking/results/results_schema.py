"""Data model of the results, as JSON: every number has its interval, or a reason why it is missing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from trueup.stats.intervals import Estimate

Policy = Literal["random", "uncertain"]


class ResultsPart(BaseModel):
    """Base class of all parts of the results: unknown keys are refused, and field docstrings are their descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ResultsNumber(ResultsPart):
    """A value, its 95% interval (None: open on that side) and the number of votes or pairs it is computed from."""

    value: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Return a statistical estimate (value, interval, n) as a part of the results."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n)

    @property
    def shown(self) -> bool:
        """True if this number, a share, has an interval that excludes one half."""
        return (self.low is not None and self.low > 0.5) or (self.high is not None and self.high < 0.5)


class Absent(ResultsPart):
    """Placeholder for a number that could not be measured, with the reason in `why`."""

    why: str


Measured = ResultsNumber | Absent


class ResultsMissing(ResultsPart):
    """Entry in the list of missing results: the result's name and the reason why it is missing."""

    what: str
    why: str


class VoteTotals(ResultsPart):
    """Counts of votes, pairs and raters; undone votes are not counted."""

    prompts: int
    """Prompts with a pair, without gold pairs."""
    pairs: int
    """Pairs, without gold pairs."""
    voted: int
    """Pairs with a vote other than a skip."""
    complete: int | None
    """Pairs with the votes they are to have; None if the number is unknown."""
    votes: int
    """All votes: preferences, ties, both bad, skips and votes on gold pairs."""
    preferences: int
    ties: int
    both_bad: int
    skips: int
    gold: int
    edits: int
    """Votes with an improved answer written by the rater."""
    raters: int
    policies: dict[str, int]
    """Votes by the policy that chose their pairs: "random", "uncertain", "imported"."""
    first_at: str
    last_at: str
    event: int
    """Event of the store as of which the votes are counted."""


class More(ResultsPart):
    """Number of further votes and prompts that a decision between two models still needs if the rate stays as it is."""

    state: Literal["decided", "more", "too close", "not measured"]
    votes: int = 0
    """Further votes after which the 95% interval excludes one half with a chance of 50%."""
    prompts: int | None = None
    """Further prompts with a vote until the confidence sequence excludes one half; 0: it does already, and later votes
    cannot change that; None: beyond the limit, or there is no confidence sequence."""
    limit: int
    """Number of further votes above which the state is "too close"."""


class ModelPairing(ResultsPart):
    """Comparison of two models. Rates are win rates of `model` against `other`, ties counted as halves."""

    model: str
    other: str
    rate: Measured
    wins: int
    ties: int
    losses: int
    both_bad: int
    """Votes that both answers are bad; not part of any rate."""
    prompts: int
    design: float
    """Design effect: the factor on the variance because votes on one prompt are alike; 1 if no prompt repeats."""
    p: float | None
    """Two-sided p-value of a rate of one half; None if not measured."""
    p_adjusted: float | None
    """`p` adjusted by Holm over all pairings of this list."""
    safe: Measured
    """The rate with one outcome per prompt, and its confidence sequence: an interval valid however often one looks."""
    more: More
    controlled: Measured
    """The length-adjusted win rate of a lone pair: from no effect of length to the whole association with it."""

    @property
    def ahead(self) -> str | None:
        """The model whose win rate is above one half by the ordinary interval, valid for a single look.

        None if that interval contains one half.
        """
        return self._side(self.rate) if isinstance(self.rate, ResultsNumber) and self.rate.shown else None

    @property
    def winner(self) -> str | None:
        """The model that is shown to win by the confidence sequence, or by the p-value after Holm's correction.

        None if neither shows a winner, or if they disagree.
        """
        safe = self._side(self.safe) if isinstance(self.safe, ResultsNumber) and self.more.prompts == 0 else None
        single_look = self.ahead if self.p_adjusted is not None and self.p_adjusted < 0.05 else None
        winners = {safe, single_look} - {None}
        return winners.pop() if len(winners) == 1 else None

    def _side(self, rate: ResultsNumber) -> str:
        return self.model if (rate.low or 0.0) >= 0.5 else self.other


class PolicySample(ResultsPart):
    """Win rates from votes on pairs chosen in one way: at random, or because a reward model was unsure of them."""

    policy: Policy
    votes: int
    """Votes between two named models: wins, ties and losses."""
    pairings: list[ModelPairing]


class Strength(ResultsPart):
    """Rank and Bradley-Terry strength of one model."""

    model: str
    rank: int
    rank_low: int
    rank_high: int
    """95% of resamples rank it from `rank_low` to `rank_high`."""
    points: ResultsNumber
    """Strength in Elo points, 400 log10(odds), relative to the mean of the model's group; n is votes."""
    wins: float
    """Votes won, ties as halves."""
    group: int
    """Number of the group. Strengths of different groups do not compare: no vote links them, even through others."""


class Tag(ResultsPart):
    """The win rates on the prompts of one tag."""

    tag: str
    votes: int
    pairings: list[TagRate]


class TagRate(ResultsPart):
    """The win rate of `model` against `other` on the prompts of a tag."""

    model: str
    other: str
    rate: Measured


class Reasons(ResultsPart):
    """The reasons that raters gave for preferring one model's answers, as shares of its wins."""

    model: str
    wins: int
    shares: dict[str, ResultsNumber]
    """Reason -> share of the wins with any reason; a vote may have several."""
    why: str = ""
    """The cause if there are no reasons."""


class Kappa(ResultsPart):
    """Agreement of two raters on the pairs that both voted on, as Cohen's kappa."""

    rater: str
    other: str
    n: int
    agreed: Measured
    kappa: Measured
    """Cohen's kappa of first / neither / second."""
    weighted: Measured
    """Kappa with linear weights: a tie against a preference is half a disagreement."""


class Agreement(ResultsPart):
    """Agreement of all raters on the same pairs, as Krippendorff's alpha, and of each two of them."""

    pairs: int
    """Pairs with two votes or more; n of the alphas."""
    nominal: Measured
    """Krippendorff's alpha of first / neither / second."""
    ordinal: Measured
    """Krippendorff's alpha with these three in this order."""
    raters: list[Kappa]


class RaterRow(ResultsPart):
    """Statistics of one rater. Unless noted, shares are of the rater's votes without skips."""

    rater: str
    votes: int
    skips: int
    seconds: float | None
    """Median time from seeing a pair to the vote."""
    ties: Measured
    both_bad: Measured
    left: Measured
    """Share of preferences for the answer shown as A."""
    left_p: float | None
    """Two-sided p-value of one half, adjusted by Holm over the raters."""
    majority: Measured
    """Share of votes equal to the majority of the other raters on the same pair."""
    gold: Measured
    """Share of votes on gold pairs that name the better answer."""
    longer: Measured
    """Share of preferences for the longer answer."""
    flags: list[str]


class Lengths(ResultsPart):
    """Length of the winning answer minus that of the losing one, over all votes for one of the answers."""

    characters: Measured
    words: Measured
    longer: Measured
    """Share of preferences between answers of unequal length for the longer one."""


class Results(ResultsPart):
    """All results computed from the votes in a store."""

    totals: VoteTotals
    models: list[str]
    """In the order of the ranking."""
    samples: list[PolicySample]
    """The random sample first, if there is one: ranking, tags and headline use the first sample only."""
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
    """Caveats for the reader."""
    not_measured: list[ResultsMissing] = Field(default_factory=list[ResultsMissing])
