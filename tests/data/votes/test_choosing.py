"""Which pair comes next: the random order, the uncertain ones first, gold ones now and then; found at once."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import event

from data.votes.store_examples import check_store, connect, make_store, new_pair, vote_on, with_salt
from trueup.data.votes import settings
from trueup.data.votes.content import draw_number, left_side
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Rater, StoreSettings
from trueup.errors import ConfigError, DataError


def order(opened: Store, rater: Rater, most: int = 10**6):
    """Vote on what comes. -> all that was shown."""
    shown = []
    while len(shown) < most and (one := opened.next(rater)):
        vote_on(opened, rater, one.pair.id)
        shown.append(one)
    return shown


def ids(shown) -> list[int]:
    return [one.pair.id for one in shown]


def test_the_order_is_random_and_the_seeds_own(tmp_path):
    orders = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        with with_salt(make_store(tmp_path / name, 40, seed=seed)) as opened:
            orders[name] = ids(order(opened, opened.rater("A")))
    assert sorted(orders["a"]) == [*range(1, 41)]
    assert orders["a"] != sorted(orders["a"])
    assert orders["a"] == orders["b"] != orders["c"]


def test_another_seed_draws_the_order_of_pairs_and_prompts_anew(tmp_path):
    with with_salt(make_store(tmp_path, 40, seed=3)) as opened:
        before = [prompt.id for prompt in opened.unpaired(2, 40)]
        opened.configure(StoreSettings(gold_every=0))
        assert [prompt.id for prompt in opened.unpaired(2, 40)] != before
        zero = ids(order(opened, opened.rater("A")))
    (tmp_path / "other").mkdir()
    with with_salt(make_store(tmp_path / "other", 40)) as opened:
        assert ids(order(opened, opened.rater("A"))) == zero


def test_sides_are_random_by_prompt_and_rater():
    """Of 2,000 fair coins, 1,000 +- 4 x 22 fall on a side."""
    left = [(left_side("key", number, 1), left_side("key", number, 2)) for number in range(2000)]
    for count in (
        sum(one == "first" for one, _ in left),
        sum(two == "first" for _, two in left),
        sum(one == two for one, two in left),
    ):
        assert abs(count - 1000) < 4 * math.sqrt(2000 / 4)


def test_a_side_stays(tmp_path):
    with make_store(tmp_path, 1) as opened:
        ann = opened.rater("A")
        shown = opened.next(ann)
        assert shown.left == opened.left_of(shown.pair.prompt.id, ann) == opened.left_of(shown.pair.prompt.id, ann)
        assert vote_on(opened, ann, shown.pair.id).left == shown.left


def test_the_uncertain_come_first_by_the_model_that_scored_last(tmp_path):
    """1 - |2 sigmoid(m) - 1| falls with |m|: of -0.1, 3, 0.5, -2 the order is -0.1, 0.5, -2, 3; then the others."""
    with make_store(tmp_path, 8, policy="uncertain") as opened:
        opened.score("old", dict.fromkeys(range(1, 9), 9.0))
        opened.score("new", {2: -0.1, 5: 3.0, 7: 0.5, 3: -2.0})
        ann = opened.rater("A")
        shown = order(opened, ann)
        assert ids(shown)[:4] == [2, 7, 3, 5]
        assert [one.policy for one in shown] == ["uncertain"] * 4 + ["random"] * 4
        for one, margin in zip(shown, (-0.1, 0.5, -2.0, 3.0), strict=False):
            assert one.score == pytest.approx(1 - abs(2 / (1 + math.exp(-margin)) - 1), abs=1e-12)
        assert [one.score for one in shown[4:]] == [None] * 4
        assert [(said.policy, said.score) for said in opened.votes()] == [(one.policy, one.score) for one in shown]
        check_store(opened)


def test_a_model_that_scores_again_counts_again_with_what_it_said_before(tmp_path):
    with make_store(tmp_path, 3, policy="uncertain") as opened:
        opened.score("a", {1: 0.0, 2: 5.0})
        opened.score("b", {2: 0.0})
        opened.score("a", {3: 1.0})
        opened.score("a", {2: 0.5})  # it may change its mind
        assert [(one.pair.id, one.score) for one in order(opened, opened.rater("A"))] == [
            (1, 1.0),
            (2, pytest.approx(1 - math.tanh(0.25))),
            (3, pytest.approx(1 - math.tanh(0.5))),
        ]


def test_random_order_does_not_look_at_scores(tmp_path):
    with make_store(tmp_path, 20) as opened:
        opened.score("m", {number: float(number) for number in range(1, 21)})
        shown = opened.next(opened.rater("A"))
        assert (shown.policy, shown.score) == ("random", None)


def test_unscored_pairs_are_those_that_this_model_has_not_scored(tmp_path):
    with make_store(tmp_path, 5) as opened:
        opened.score("a", {1: 0.0, 4: 1.0})
        assert [one.id for one in opened.unscored("a", 9)] == [2, 3, 5]
        assert len(opened.unscored("a", 2)) == 2
        assert len(opened.unscored("b", 9)) == 5
        opened.score("a", {2: 0.0, 3: 1.0, 5: -1.0})
        assert opened.unscored("a", 9) == []
        opened.add_pairs([new_pair(77)])
        assert [one.id for one in opened.unscored("a", 9)] == [6]
        with pytest.raises(DataError, match="margin nan"):
            opened.score("a", {6: float("nan")})
        with pytest.raises(DataError, match="of this store"):
            opened.score("a", {99: 0.0})
        assert [one.id for one in opened.unscored("a", 9)] == [6]


@pytest.mark.parametrize("every", [2, 4, 10])
def test_gold_pairs_are_drawn_about_every_so_many_times(every):
    """Of 4,000 draws with p = 1/every, 4,000 p +- 4 sqrt(4,000 p (1 - p)) are due; others for another rater."""
    due = [[draw_number("key", "gold", rater, votes) % every == 0 for votes in range(4000)] for rater in (1, 2)]
    for drawn in due:
        assert abs(sum(drawn) - 4000 / every) <= 4 * math.sqrt(4000 / every * (1 - 1 / every))
    both = sum(one and other for one, other in zip(*due, strict=True))
    assert abs(both - 4000 / every**2) <= 4 * math.sqrt(4000 / every**2 * (1 - 1 / every**2))


@pytest.mark.parametrize("every", [1, 4])
def test_a_gold_pair_comes_when_it_is_drawn(tmp_path, every):
    """At each vote of a rater by a draw of the store's key, the rater and how many votes there are."""
    with make_store(tmp_path, 60, gold=40, gold_every=every) as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        with opened._database.reading() as connection:
            key = settings.key(connection)
        shown = order(opened, ann, 40)
        assert [one.pair.gold is not None for one in shown] == [
            draw_number(key, "gold", ann.id, votes) % every == 0 for votes in range(40)
        ]
        assert {one.policy for one in shown} == {"random"}
        theirs = order(opened, bob, 40)
        both = set(ids(theirs)) & set(ids(shown))
        assert all(opened.pair(number).gold for number in both)  # these alone are for every rater
        assert both or every > 1
        told = opened.progress(ann)
        assert (told.mine, told.pairs) == (40, 60)
        check_store(opened)


def test_gold_ones_end_and_are_not_all_there_is(tmp_path):
    with make_store(tmp_path, 10, gold=2, gold_every=1) as opened:
        ann = opened.rater("A")
        gold = [one.pair.gold for one in order(opened, ann)]
        assert gold == ["first"] * 2 + [None] * 10
    (tmp_path / "never").mkdir()
    with make_store(tmp_path / "never", 10, gold=10, gold_every=0) as opened:
        assert {one.pair.gold for one in order(opened, opened.rater("A"))} == {None}
        assert opened.counts().gold == 10


def test_a_gold_pair_is_not_held_for_one(tmp_path):
    with make_store(tmp_path, 0, gold=1, gold_every=1) as opened:
        assert [opened.next(opened.rater(name)).pair.id for name in "AB"] == [1, 1]
        assert opened.fresh() == 0


@pytest.mark.parametrize(
    "wrong",
    [{"raters_per_pair": 0}, {"gold_every": -1}, {"policy": "best"}, {"lease_seconds": 0.0}, {"seed": 2**64}],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, wrong):
    with make_store(tmp_path) as opened:
        before = opened.settings
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            opened.configure(StoreSettings(**wrong))
        assert opened.settings == before


def test_settings_are_an_event_when_they_differ(tmp_path):
    with make_store(tmp_path) as opened:
        before = opened.last_event()
        opened.configure(opened.settings)
        assert opened.last_event() == before
        opened.configure(StoreSettings(seed=9))
        assert opened.last_event() == before + 1
        assert opened.settings == StoreSettings(seed=9)


def test_no_question_of_a_rater_looks_at_every_pair(tmp_path):
    """SQLite's own plan of every statement: a search in an index each, nothing read through or sorted that grows."""
    with make_store(tmp_path, 20, gold=3, raters_per_pair=2, gold_every=2, policy="uncertain") as opened:
        ann, bob = opened.rater("A"), opened.rater("B")
        plans: set[str] = set()

        def explain(_connection, cursor, statement, parameters, _context, many):
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
                asked = cursor.connection.execute(
                    f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters
                )
                plans.update(f"{row[3]}: {' '.join(statement.split())}" for row in asked)

        event.listen(opened._database._reader, "before_cursor_execute", explain)
        for turn in range(8):
            for rater in (ann, bob):
                shown = opened.next(rater)
                vote_on(opened, rater, shown.pair.id, "skip" if turn == 3 else "first")
                opened.progress(rater), opened.history(rater, 5)
        opened.undo(ann, "u"), opened.fresh(), opened.unpaired(2, 5)
        assert len(plans) > 20
        big = ("tallies", "pairs", "prompts", "events", "standing", "shares", "scores")
        assert [plan for plan in plans if plan.startswith(tuple(f"SCAN {table}" for table in big))] == []
        sorts = [plan for plan in plans if "TEMP B-TREE" in plan]
        assert all("FROM leases" in plan or "GROUP BY standing.counted" in plan for plan in sorts), sorts


def test_what_is_drawn_cannot_be_worked_out_from_the_settings(tmp_path):
    """Two stores of the same content and settings: sides, order and where gold pairs come are each one's own."""
    drawn = []
    for name in "ab":
        (tmp_path / name).mkdir()
        with make_store(tmp_path / name, 60, gold=60, gold_every=2) as opened:
            shown = order(opened, opened.rater("A"), 60)
            assert all(one.left == opened.left_of(one.pair.prompt.id, Rater(1, "A")) for one in shown)
            sides = [opened.left_of(number, Rater(1, "A")) for number in range(60)]
            drawn.append((opened.salt, sides, [one.pair.gold for one in shown], ids(shown)))
            assert len(opened.salt) >= 32
            told = str(connect(opened.path).execute("SELECT * FROM events").fetchall())
            assert opened.salt not in f"{told} {opened.settings}"
        with Store.open(opened.path) as again:
            assert again.salt == drawn[-1][0]
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_a_store_without_a_secret_gets_one_and_keeps_what_was_shown(tmp_path):
    with make_store(tmp_path, 40) as opened:
        ann = opened.rater("A")
        order(opened, ann, 5)
        held, votes = opened.next(ann), opened.votes()
    connection = connect(opened.path)
    connection.execute("DELETE FROM meta WHERE key = 'salt'")  # as the first stores are
    connection.commit()
    connection.close()
    with Store.open(opened.path, read_only=True) as reader:
        assert reader.votes() == votes
    with Store.open(opened.path) as opened:
        assert len(opened.salt) >= 32
        assert (opened.next(ann), opened.votes()) == (held, votes)
        check_store(opened)  # the order is the new secret's
