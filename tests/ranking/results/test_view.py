"""The results as a whole: counts worked by hand, caveats, missing results, and speed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest

from ranking.results.votes import pair, store, vote
from trueup.data.votes.vote_types import Pair, StoreSettings, Vote
from trueup.ranking.results import Absent, Results, ResultsNumber, page, terminal, view
from trueup.ranking.results.phrases import headline, outcome


def by_hand() -> Results:
    """sft first in all pairs. 4 wins of dpo, 1 tie, 1 of sft, 1 both bad, 1 skip; gold and one-model pairs besides."""
    pairs = [pair(at) for at in range(1, 9)]
    pairs += [pair(9, gold="first"), pair(10, "sft", "sft"), pair(11, "", "dpo"), pair(12)]
    kinds = ("second", "second", "second", "second", "tie", "first", "both_bad", "skip", "first", "first", "second")
    return view(pairs, [vote(at, at, kind) for at, kind in enumerate(kinds, 1)])


def test_votes_are_counted_by_kind() -> None:
    made = by_hand()
    totals = made.totals
    assert (totals.votes, totals.preferences, totals.ties, totals.both_bad, totals.skips, totals.gold) == (
        11, 7, 1, 1, 1, 1,
    )  # fmt: skip
    assert (totals.pairs, totals.voted, totals.raters, totals.event, totals.complete) == (11, 9, 1, 11, None)
    (one,) = made.samples[0].pairings
    assert (one.model, one.other) == ("dpo", "sft")
    assert (one.wins, one.ties, one.losses, one.both_bad, one.prompts) == (4, 1, 1, 1, 6)
    assert isinstance(one.rate, ResultsNumber)
    assert (one.rate.value, one.rate.n) == (0.75, 6)
    assert made.lengths.longer == made.lengths.longer.model_copy(update={"n": 7})
    said = " ".join(made.notes)
    assert "2 votes are on two answers of the same model" in said
    assert "1 vote is on gold pairs: they are used for raters and sides only" in said


def test_rates_are_seen_from_the_stronger_model() -> None:
    made = view([pair(at) for at in range(1, 21)], [vote(at, at, "first") for at in range(1, 21)])
    (one,) = made.samples[0].pairings
    assert (one.model, one.winner, one.more.state, one.more.prompts) == ("sft", "sft", "decided", 0)
    assert headline(made).verdict == "CLEAR"
    assert "Safe to stop" in headline(made).next_step


def test_votes_are_taken_in_the_order_of_events() -> None:
    pairs, votes = store({"a": 0.0, "b": 1.0}, prompts=60, k=2, raters=2)
    assert view(pairs, votes[::-1]) == view(pairs, votes)
    assert view(pairs[::-1], votes).samples == view(pairs, votes).samples


def test_results_are_json_and_reproducible() -> None:
    pairs, votes = store({"a": 0.0, "b": 0.5, "c": 1.0}, prompts=80, k=2, raters=3, tags=("x",), reasons=("clear",))
    made = view(pairs, votes, settings=StoreSettings(raters_per_pair=2), seed=3)
    text = made.model_dump_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert Results.model_validate(json.loads(text)) == made == view(pairs, votes, settings=StoreSettings(2), seed=3)


def test_uncertain_and_random_votes_stand_apart() -> None:
    """On random pairs dpo wins 30 of 40; on pairs a model was uncertain of 10 of 20."""
    pairs = [pair(at) for at in range(1, 61)]
    kinds = ["second"] * 30 + ["first"] * 10 + ["second", "first"] * 10
    votes = [vote(at, at, kind, policy="random" if at <= 40 else "uncertain") for at, kind in enumerate(kinds, 1)]
    made = view(pairs, votes)
    fair, chosen = made.samples
    assert [(one.policy, one.votes) for one in made.samples] == [("random", 40), ("uncertain", 20)]
    assert (fair.pairings[0].rate.value, chosen.pairings[0].rate.value) == (0.75, 0.5)
    assert isinstance(chosen.pairings[0].safe, Absent)
    assert made.ranking[0].points.n == 40
    assert "no fair sample" in made.notes[0]
    only = view(pairs, votes[40:])
    assert [one.policy for one in only.samples] == ["uncertain"]
    assert "Every vote is on a pair that a reward model was uncertain of" in only.notes[0]


def test_imported_votes_are_counted_and_said() -> None:
    made = view([pair(1)], [vote(1, 1, "first", policy="")])
    assert made.samples[0].policy == "random"
    assert made.totals.policies == {"imported": 1}
    assert "1 vote is imported" in made.notes[0]


def test_tags() -> None:
    """Two tags on one prompt count in both, one tag twice once; votes on prompts without a tag are counted."""
    tags = [("code",), ("code", "maths"), ("code", "code"), ()]
    pairs = [pair(at, tags=own) for at, own in enumerate(tags, 1)]
    made = view(pairs, [vote(at, at, kind) for at, kind in enumerate(("first", "first", "second", "tie"), 1)])
    assert [(one.tag, one.votes) for one in made.tags] == [("code", 3), ("maths", 1)]
    assert made.untagged == 1
    (code,) = made.tags[0].pairings
    assert (code.model, code.rate.value) == ("sft", pytest.approx(2 / 3))


def test_reasons_are_of_wins_that_have_any() -> None:
    pairs = [pair(at) for at in range(1, 6)]
    said = [("first", ("clear", "correct")), ("first", ("clear",)), ("first", ()), ("second", ("my own words",))]
    votes = [vote(at, at, kind, reasons=why) for at, (kind, why) in enumerate(said, 1)]
    sft, dpo = view(pairs, votes).reasons
    assert (sft.model, sft.wins, {name: (one.value, one.n) for name, one in sft.shares.items()}) == (
        "sft", 3, {"clear": (1.0, 2), "correct": (0.5, 2)},
    )  # fmt: skip
    assert list(dpo.shares) == ["my own words"]
    assert "no reason was given" in view(pairs, [vote(1, 1, "first")]).reasons[0].why


def test_a_pair_counts_as_a_whole_in_the_interval_for_any_time() -> None:
    """k is 2: the prompts with two votes are outcomes, the one with a single vote is not yet."""
    pairs = [pair(at) for at in range(1, 4)]
    votes = [vote(1, 1, "first"), vote(2, 2, "first"), vote(3, 1, "first", rater=2), vote(4, 2, "second", rater=2)]
    votes.append(vote(5, 3, "first"))
    one = view(pairs, votes, settings=StoreSettings(raters_per_pair=2))
    assert (one.totals.complete, one.samples[0].pairings[0].rate.n) == (2, 5)
    safe = one.samples[0].pairings[0].safe
    assert isinstance(safe, ResultsNumber)
    assert (safe.n, safe.value) == (2, 0.75)
    none = view(pairs, votes[:2], settings=StoreSettings(raters_per_pair=2)).samples[0].pairings[0].safe
    assert none == Absent(why="no prompt has the 2 votes that it is to have")


@pytest.mark.parametrize(
    ("votes", "why"),
    [
        ([], "there are no votes yet"),
        ([(10, "first")], "all answers are of one model, sft"),
        ([(11, "first")], "the models that wrote the answers are unknown"),
        ([(1, "skip")], "no vote says which of two models is better"),
    ],
)
def test_missing_results_have_a_reason(votes: list, why: str) -> None:
    pairs = {1: pair(1), 10: pair(10, "sft", "sft"), 11: pair(11, "", "")}
    kept = [pairs[votes[0][0]]] if votes else []
    made = view(kept, [vote(at, on, kind) for at, (on, kind) in enumerate(votes, 1)])
    assert made.not_measured[0].what == "win rates and ranking"
    assert made.not_measured[0].why == why
    assert headline(made).verdict == "NOT MEASURED"
    assert why[:17].lower() in headline(made).sentence.lower()
    assert made.ranking == []
    assert {"win rates by tag", "reasons", "agreement of raters"} <= {one.what for one in made.not_measured}


def test_only_both_bad_is_no_rate_of_one_half() -> None:
    made = view([pair(1)], [vote(1, 1, "both_bad")])
    (one,) = made.samples[0].pairings
    assert isinstance(one.rate, Absent)
    assert (one.p, one.more.state, one.both_bad, one.winner) == (None, "not measured", 1, None)
    assert headline(made).verdict == "NOT MEASURED"


def test_models_that_never_met_are_named() -> None:
    pairs = [pair(1, "a", "b"), pair(2, "b", "c"), pair(3, "c", "d")]
    made = view(pairs, [vote(1, 1, "first"), vote(2, 2, "first")])
    gaps = {one.what: one.why for one in made.not_measured}
    assert gaps["ranking of d"] == "no deciding vote on any of their answers"
    assert gaps["4 win rates"] == "4 pairings of models have no vote"
    assert made.models == ["a", "b", "c", "d"]


def test_a_vote_on_an_unknown_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="vote 1 is on pair 7, which is not among the pairs"):
        view([pair(1)], [vote(1, 7, "first")])


@pytest.mark.slow
def test_equal_models_are_not_flagged() -> None:
    """The control: three equal models, raters who agree within a prompt; flagged at most about 5% of the time."""
    flagged, safe, rates = 0, 0, 0
    for seed in range(40):
        made = view(*store({"a": 0, "b": 0, "c": 0}, prompts=60, k=3, raters=3, within=2.0, seed=seed))
        for one in made.samples[0].pairings:
            rates += 1
            flagged += isinstance(one.rate, ResultsNumber) and one.rate.shown
            safe += one.more.prompts == 0
    assert rates == 120
    assert flagged <= 11
    assert safe <= 6


def test_with_many_pairings_a_win_is_one_after_holm() -> None:
    """15 of 20 votes have p 0.025: a win alone, and among three pairings no more than ahead."""
    alone = [("a", "b")] * 20
    others = [("a", "c"), ("b", "c")] * 10
    kinds = [*[""] * 20, *["first", "first", "second", "second"] * 5]
    pairs = [pair(at, one, other) for at, (one, other) in enumerate(alone + others, 1)]
    kinds[:20] = ["first", "second", "first", "first"] * 5  # never 20 times the wealth on the way
    votes = [vote(at, at, kinds[at - 1]) for at in range(1, 41)]
    (one,) = view(pairs[:20], votes[:20]).samples[0].pairings
    assert (one.winner, one.ahead, one.more.state) == ("a", "a", "decided")
    two = next(two for two in view(pairs, votes).samples[0].pairings if {two.model, two.other} == {"a", "b"})
    assert two.p == one.p
    assert two.p_adjusted == pytest.approx(3 * one.p)
    assert (two.ahead, two.winner) == ("a", None)
    assert outcome(two) == "a ahead, but not after Holm"


def test_unequal_models_are() -> None:
    made = view(*store({"a": 0, "b": 1.2}, prompts=150))
    (one,) = made.samples[0].pairings
    assert one.winner == "b"


def seconds_of(pairs: Sequence[Pair], votes: Sequence[Vote]) -> float:
    """Processor time of a view."""
    started = time.process_time()
    view(pairs, votes)
    return time.process_time() - started


@pytest.mark.slow
def test_the_time_grows_with_the_votes_and_not_faster() -> None:
    """Four times the votes may take eight times as long, as another process may be charged to this one; not sixteen."""
    for strengths, shape in (
        ({"a": 0, "b": 0.2}, {"prompts": 1250}),
        ({f"m{at}": at / 8 for at in range(12)}, {"prompts": 425, "k": 3, "raters": 40}),
    ):
        few, many = (
            store(
                strengths, tags=("x", "y", "z"), reasons=("clear", "correct"), uncertain=0.2, **shape | {"prompts": n}
            )
            for n in (shape["prompts"], 4 * shape["prompts"])
        )
        seconds_of(*few)  # what is computed once is computed
        assert seconds_of(*many) < 8 * seconds_of(*few) + 1


def test_a_great_many_pairs_that_nobody_saw_cost_nothing() -> None:
    pairs, votes = store({"a": 0, "b": 0.2}, prompts=50)
    huge = [pair(at, texts=("word " * 5000, "x")) for at in range(1000, 3000)]
    alone = seconds_of(pairs, votes)
    assert seconds_of([*pairs, *huge], votes) < 3 * alone + 0.5


def test_the_event_is_the_one_asked_for() -> None:
    """Not that of the last vote that stands: one before it may have been undone after it."""
    made = view([pair(1)], [vote(1, 1, "first")], event=1234)
    assert made.totals.event == 1234
    assert "as of event 1,234" in terminal(made)
    assert "as of event 1,234, last vote 2026-10-01" in page(made)
    assert "as of event 2 " in page(view([pair(1)], [], event=2))


@pytest.mark.parametrize(("seconds", "told"), [(2.44, "2.4 s"), (9.96, "10s"), (75.0, "1m15s")])
def test_a_raters_time_has_a_decimal_where_seconds_are_few(seconds: float, told: str) -> None:
    made = view([pair(1)], [vote(1, 1, "first", seconds=seconds)])
    assert told in terminal(made)
    assert told in page(made)


def test_sides_are_of_gold_pairs_too() -> None:
    made = view([pair(1), pair(2, gold="first")], [vote(1, 1, "first"), vote(2, 2, "first")])
    assert isinstance(made.left, ResultsNumber)
    assert made.left.n == 2
