"""A pair is kept for the rater who looks at it; so many raters rank each pair as are wanted, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data.votes.store_examples import check_store, make_store, new_pair, pairs_of, vote_on
from trueup.data.votes.vote_types import Ballot, StoreSettings
from trueup.errors import DataError


def drain(opened, rater, now, choice="first"):
    """Vote until nothing comes. -> the pairs, in order."""
    seen = []
    while shown := opened.next(rater, now=now):
        assert shown.pair.id not in seen
        vote_on(opened, rater, shown.pair.id, choice)
        seen.append(shown.pair.id)
    return seen


def test_no_two_raters_hold_a_pair_when_one_vote_is_wanted(tmp_path):
    with make_store(tmp_path, 4) as opened:
        held = [opened.next(opened.rater(name), now=0) for name in "ABCDE"]
        assert sorted(shown.pair.id for shown in held[:4]) == [1, 2, 3, 4]
        assert held[4] is None
        assert opened.progress(opened.rater("E"), now=0).left == 0
        assert opened.progress(opened.rater("A"), now=0).left == 1  # what A holds is A's
        assert opened.fresh(now=0) == 0


def test_a_refresh_shows_the_same_pair_the_same_way_and_keeps_it(tmp_path):
    with make_store(tmp_path, lease_seconds=10.0) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        shown = opened.next(ann, now=0)
        opened.configure(StoreSettings(gold_every=0, lease_seconds=10.0, seed=5))  # sides and order are others now
        assert opened.next(ann, now=9) == shown
        assert opened.next(ann, now=18) == shown
        assert opened.next(bob, now=27).pair != shown.pair
        given = vote_on(opened, ann, shown.pair.id)
        assert given.left == shown.left  # as it was shown, not as it would be now


def test_a_late_vote_counts_unless_another_rater_has_got_the_pair(tmp_path):
    with make_store(tmp_path, 1, lease_seconds=10.0) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        assert opened.next(ann, now=0).pair.id == 1
        assert opened.next(bob, now=9.9) is None
        assert opened.next(bob, now=10.1).pair.id == 1
        assert opened.next(ann, now=10.2) is None
        late = Ballot("late", 1, "second")
        with pytest.raises(DataError, match=r"pair 1: needs no more votes, as other raters got it .*\n  fix: "):
            opened.vote(ann, late, now=10.3)
        opened.release(bob, now=11)
        assert opened.vote(ann, late, now=12).policy == "random"  # it is still known how it was chosen
        with pytest.raises(DataError, match="pair 1: needs no more votes"):
            vote_on(opened, bob, 1)
        assert vote_on(opened, bob, 1, "skip").ballot.choice == "skip"
        check_store(opened)


def test_a_pair_whose_lease_ran_out_comes_again_where_nobody_took_it(tmp_path):
    with make_store(tmp_path, lease_seconds=10.0) as opened:
        ann = opened.rater("A")
        shown = opened.next(ann, now=0)
        assert opened.next(ann, now=1000) == shown
        assert opened.next(opened.rater("B"), now=1001).pair != shown.pair


def test_released_pairs_are_for_others(tmp_path):
    with make_store(tmp_path, 1) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        shown = opened.next(ann, now=0)
        assert opened.fresh(now=1) == 0
        opened.release(ann, now=1)
        assert opened.fresh(now=1) == 1
        assert opened.next(bob, now=1).pair == shown.pair
        opened.release(bob, now=1)
        opened.release(bob, now=2)
        assert opened.next(ann, now=3) == shown


def test_undo_gives_the_pair_back_before_anybody_else_gets_it(tmp_path):
    with make_store(tmp_path, 3) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        first, second = (opened.next(ann, now=0) for _ in range(2))
        assert first == second
        vote_on(opened, ann, first.pair.id)
        second = opened.next(ann, now=1)
        opened.vote(ann, Ballot("2", second.pair.id, "tie"))
        third = opened.next(ann, now=2)
        assert opened.undo(ann, "u1", now=3).ballot.pair == second.pair.id
        assert opened.undo(ann, "u2", now=3).ballot.pair == first.pair.id
        assert opened.next(bob, now=4) is None  # all three are Ann's
        again = []
        for number in range(3):
            again.append(opened.next(ann, now=5))
            opened.vote(ann, Ballot(f"again{number}", again[-1].pair.id, "second"))
        assert again == [first, second, third]  # the last one undone first
        assert opened.next(bob, now=6) is None
        check_store(opened)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_each_pair_is_ranked_by_as_many_raters_as_are_wanted(tmp_path, wanted):
    with make_store(tmp_path, 7, raters_per_pair=wanted) as opened:
        raters = [opened.rater(name) for name in "ABCD"]
        for turn in range(100):
            rater = raters[turn * turn % 4 if turn % 3 else turn % 4]  # some come oftener than others
            shown = opened.next(rater, now=turn)
            if shown:
                vote_on(opened, rater, shown.pair.id)
        for rater in raters:
            drain(opened, rater, now=1000)
        assert sorted(pairs_of(opened.votes())) == sorted([*range(1, 8)] * wanted)
        told = opened.progress(raters[0], now=1000)
        assert (told.pairs, told.complete, told.left, told.prompts) == (7, 7, 0, 7)
        check_store(opened)


def test_begun_pairs_are_finished_before_new_ones_are_begun(tmp_path):
    with make_store(tmp_path, 50, raters_per_pair=2) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        for number in range(5):
            shown = opened.next(ann, now=number)
            vote_on(opened, ann, shown.pair.id)
        opened.release(ann, now=9)
        begun = pairs_of(opened.votes())
        for _ in range(5):
            vote_on(opened, bob, opened.next(bob, now=10).pair.id)
        assert pairs_of(opened.votes())[5:] == begun
        assert opened.progress(ann, now=11).complete == 5


def test_a_skip_does_not_count_and_does_not_come_again(tmp_path):
    with make_store(tmp_path, 3) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        skipped = drain(opened, ann, now=0, choice="skip")
        assert sorted(skipped) == [1, 2, 3]
        told = opened.progress(ann, now=1)
        assert (told.mine, told.skipped, told.left, told.complete) == (0, 3, 0, 0)
        assert opened.progress(bob, now=1).left == 3
        assert opened.fresh(now=1) == 0  # nothing is left for the one who skipped them
        assert drain(opened, bob, now=1) == skipped  # the one skipped first comes first
        assert opened.progress(bob, now=2).complete == 3
        check_store(opened)


def test_fresh_pairs_come_before_those_that_others_skipped(tmp_path):
    with make_store(tmp_path, 4) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        skipped = opened.next(ann, now=0).pair.id
        vote_on(opened, ann, skipped, "skip")
        assert drain(opened, bob, now=0)[-1] == skipped


def test_wanting_more_votes_opens_pairs_that_were_done(tmp_path):
    with make_store(tmp_path, 4) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        done = drain(opened, ann, now=0)
        assert opened.next(bob, now=0) is None
        opened.configure(StoreSettings(raters_per_pair=2, gold_every=0))
        assert opened.next(ann, now=0) is None
        assert (opened.progress(ann, now=0).left, opened.progress(bob, now=0).left) == (0, 4)
        assert drain(opened, bob, now=0) == done
        opened.configure(StoreSettings(gold_every=0))
        assert opened.progress(opened.rater("C"), now=0).left == 0


def test_a_raters_own_undo_is_found_again_after_all_was_looked_through(tmp_path):
    """A pair that an undo opens again is found, although the search had passed it for good."""
    with make_store(tmp_path, 5, raters_per_pair=2) as opened:
        ann, bob, cid = (opened.rater(name) for name in ("A", "B", "C"))
        drain(opened, ann, now=0)
        assert opened.next(ann, now=0) is None  # all marked as Ann's
        drain(opened, bob, now=0)
        assert opened.next(cid, now=0) is None
        undone = opened.undo(ann, "u", now=0).ballot.pair
        opened.release(ann, now=1)
        assert opened.progress(cid, now=1).left == 1
        assert opened.next(cid, now=1).pair.id == undone
        opened.release(cid, now=2)
        assert opened.next(ann, now=3).pair.id == undone
        assert opened.next(bob, now=3) is None
        check_store(opened)


def test_what_others_hold_is_found_again_when_they_let_go(tmp_path):
    with make_store(tmp_path, 3, raters_per_pair=2, lease_seconds=10.0) as opened:
        ann, bob, cid = (opened.rater(name) for name in ("A", "B", "C"))
        drain(opened, ann, now=0)
        held = opened.next(bob, now=0)
        others = drain(opened, cid, now=1)
        assert held.pair.id not in others
        assert len(others) == 2
        assert opened.next(cid, now=2) is None
        assert opened.next(cid, now=11).pair == held.pair


def test_another_processes_votes_are_seen_by_this_ones_search(tmp_path):
    with make_store(tmp_path, 6, raters_per_pair=2) as one, type(one).open(one.path) as two:
        ann, bob = one.rater("A"), one.rater("B")
        for turn in range(6):
            opened = (one, two)[turn % 2]
            vote_on(opened, ann, opened.next(ann, now=0).pair.id)
            vote_on(two, bob, two.next(bob, now=0).pair.id)
        assert one.next(ann, now=0) is None
        assert two.next(bob, now=0) is None
        two.add_pairs([new_pair(77)])
        assert one.next(ann, now=0).pair == two.next(bob, now=0).pair
        check_store(one)


def test_a_pair_that_a_rater_shares_with_others_is_still_the_raters(tmp_path):
    with make_store(tmp_path, 1, raters_per_pair=2) as opened:
        ann, bob, cid = (opened.rater(name) for name in ("A", "B", "C"))
        assert opened.next(ann, now=0).pair == opened.next(bob, now=0).pair
        assert [opened.progress(rater, now=0).left for rater in (ann, bob, cid)] == [1, 1, 0]


@pytest.mark.parametrize("give_back", [False, True])
def test_a_vote_counts_however_long_ago_its_pair_was_shown(tmp_path, give_back):
    """A page without a network keeps votes, over a holiday too; meanwhile the rater goes on in another window."""
    with make_store(tmp_path, lease_seconds=10.0) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        old = opened.next(ann, now=0)
        if give_back:
            opened.release(ann, now=1)
        assert opened.next(bob, now=2_999_999).pair == old.pair  # so that it does not come to Ann again
        assert opened.next(ann, now=3_000_000).pair != old.pair
        opened.release(bob, now=3_000_001)
        late = opened.vote(ann, Ballot("late", old.pair.id, "tie"), now=3_000_002)
        assert (late.left, late.policy) == (old.left, old.policy)
        check_store(opened)


def test_a_clock_that_is_set_back_does_not_keep_pairs_for_long(tmp_path):
    with make_store(tmp_path, 1, lease_seconds=10.0) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        day = 86_400
        shown = opened.next(ann, now=day)
        assert opened.next(bob, now=day - 5) is None  # a clock is set right by a little, and nobody loses a pair
        assert opened.fresh(now=day - 5) == 0
        assert (opened.fresh(now=0), opened.progress(bob, now=0).left) == (1, 1)
        assert opened.next(bob, now=0) == replace(shown, left=opened.left_of(1, bob))
        assert opened.next(ann, now=1) is None
        vote_on(opened, ann, 1)  # all the same
