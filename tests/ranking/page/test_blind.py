"""Raters learn neither which pairs are gold, nor which model wrote an answer, nor how much other raters do."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.page.serving import Served, Visitor, pair, store_of
from thorough import trials
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot, Rater
from trueup.errors import DataError
from trueup.ranking.page.desk import RankingService
from trueup.ranking.page.wire import UndoRequest, VoteRequest


def number_of(store: Store, shown: dict[str, Any]) -> int:
    """The id in the store of the pair that is on a screen, found by its answers' texts."""
    texts = {shown["a"]["text"], shown["b"]["text"]}
    return next(pair.id for pair in store.pairs() if {pair.first.text, pair.second.text} == texts)


def test_a_pairs_id_tells_neither_its_number_nor_that_it_is_gold(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Gold pairs are stored first, as with `--gold` and a model: their numbers in the store are 1 to 5."""
    gold = [replace(pair(number), gold="first") for number in range(5)]
    path = store_of(tmp_path / "votes.db", [*gold, *map(pair, range(5, 20))], gold_every=2, raters_per_pair=2)
    server = start(path)
    ids: dict[str, dict[int, str]] = {}
    with Store.open(path, read_only=True) as store:
        for name in ("Ada", "Bob"):
            visitor, seen = Visitor(server.port).join(name), ids.setdefault(name, {})
            while (state := visitor.state())["kind"] == "pair":
                shown = state["pair"]
                assert visitor.state()["pair"] == shown, "a refresh keeps the id"
                assert re.fullmatch("[0-9a-f]{16}", shown["id"])
                seen[number_of(store, shown)] = shown["id"]
                assert visitor.vote(shown)[0] == 200
    by_number = [ids["Ada"][number] for number in sorted(ids["Ada"])]
    assert len(set(by_number)) == 20
    assert by_number != sorted(by_number), "ids carry no order"
    assert not set(ids["Ada"].values()) & set(ids["Bob"].values()), "each rater has other ids"


def test_another_raters_id_names_no_pair(tmp_path: Path, start: Callable[..., Served]) -> None:
    port = start(store_of(tmp_path / "votes.db", 3)).port
    ada, bob = Visitor(port).join("Ada"), Visitor(port).join("Bob")
    shown = ada.state()["pair"]
    for stranger in (shown["id"], "0" * 16, "f" * 16):
        status, answer = bob.vote(shown | {"id": stranger})
        assert (status, answer["error"]) == (409, "this pair is not in the store: reload the page")
    assert ada.vote(shown)[0] == 200


def test_no_message_or_field_holds_a_number_of_the_store(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Numbers of events would tell how much the others vote, numbers of pairs which of them are gold."""
    path = store_of(tmp_path / "votes.db", [pair(number) for number in range(7001, 7051)])
    with Store.open(path) as store:
        assert [pair.id for pair in store.pairs()] == [*range(1, 51)]
        for turn in range(30):
            store.undo(store.rater("Bob"), f"turn-{turn}")
    ada = Visitor(start(path).port).join("Ada")
    first = ada.state()["pair"]
    answers = [ada.vote(first), ada.vote(first), ada.vote(first, request="x" * 8), ada.undo(), ada.vote(first, "skip")]
    answers += [ada.vote(first, "a", seconds=1), ada.call("POST", "/api/undo", {"request": "12345678", "of": "0" * 16})]
    assert [answer[0] for answer in answers if isinstance(answer, tuple)] == [200, 409, 409, 200, 409, 409]
    fields = _without(json.loads(json.dumps(answers, default=str)), "turns", "a", "b", "seconds")
    numbers = {int(number) for number in re.findall(r"(?<![0-9a-z])\d+(?![0-9a-z])", json.dumps(fields))}
    assert numbers <= {0, 1, 200, 409, 49, 50}, "statuses, own votes, and the pairs that are left"
    assert "has voted on it" in json.dumps(fields)


def _without(value: Any, *keys: str) -> Any:
    """The JSON value without the texts of pairs."""
    if isinstance(value, dict):
        return {key: _without(item, *keys) for key, item in value.items() if key not in keys}
    return [_without(item, *keys) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("wanted", "every", "most"), [(1, 2, 28), (2, 3, 21)])
def test_no_number_on_the_screen_tells_a_gold_pair(tmp_path: Path, wanted: int, every: int, most: int) -> None:
    """Of a vote on an ordinary and on a gold pair the page shows the same change, to the last pair.

    By hand, 12 ordinary pairs: with one in two gold 12 are expected, + sqrt(12) = 15.5, so 12 + 16 = 28 at first; with
    one in three 12 / 2 = 6, + sqrt(6) = 8.4, so 12 + 9 = 21. A rater often gets more gold pairs than that: also then.
    """
    gold = [replace(pair(number), gold="first") for number in range(100, 125)]
    path = store_of(tmp_path / "votes.db", [*gold, *map(pair, range(12))], gold_every=every, raters_per_pair=wanted)
    with Store.open(path) as store:
        for name in ("Ada", "Ben", "Cid"):
            rater, desk, left = store.rater(name), RankingService(store), list[int]()
            if store.progress(rater).left < 12:
                break
            while (state := desk.state(rater))["kind"] == "pair":
                left.append(state["progress"]["left"])
                desk.vote(rater, _vote(state, len(left)))
            assert left[0] == most
            changes = {before - after for before, after in itertools.pairwise(left) if before > 1}
            assert changes == {1}
            assert min(left) >= 1, "0 left, with a pair on the screen, would mean a gold one"
            assert state["progress"]["left"] == 0


def _vote(state: dict[str, Any], number: int, choice: Any = "a") -> VoteRequest:
    return VoteRequest(request=f"request-{number}", pair=state["pair"]["id"], a=state["pair"]["print"], choice=choice)


def test_the_answer_to_a_request_is_as_long_for_a_gold_pair(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Bytes and names of the fields, of pairs whose texts are of one length."""
    pairs = [replace(pair(number), gold="first" if number < 55 else None) for number in range(50, 60)]
    visitor = Visitor(start(store_of(tmp_path / "votes.db", pairs, gold_every=2)).port).join("Ada")
    lengths = set[int]()
    while (state := visitor.state())["kind"] == "pair":
        _, sent, answer = visitor.call("GET", "/api/state")
        assert {"etag", "last-modified", "age"}.isdisjoint({name.lower() for name, _ in answer.getheaders()})
        first_vote = state["progress"]["last"] is None
        lengths |= set() if first_vote else {len(json.dumps(sent["pair"]))}
        assert sent == state
        visitor.vote(state["pair"])
    assert len(lengths) == 1


# ---- Who wrote an answer


def test_answers_of_several_models_are_not_shown_while_they_are_written(tmp_path: Path) -> None:
    """The slower of two models would be known by its pace."""
    with Store.open(store_of(tmp_path / "votes.db", 1)) as store:
        prompt, rater = store.prompts()[0], store.rater("Ada")
        store.vote(rater, _ballot(store, rater))
        for blind in (False, True):
            now = SimpleNamespace(prompt=prompt, first="Because of", second="", done=False)
            writer: Any = SimpleNamespace(
                problem="", blind=blind, ask=lambda: None, state=lambda: "writing", writing=lambda now=now: now
            )
            state = RankingService(store, writer).state(rater)
            assert state["kind"] == ("waiting" if blind else "writing")
            assert ("Because of" in json.dumps(state)) is not blind


def _ballot(store: Store, rater: Rater) -> Ballot:
    shown = store.next(rater)
    assert shown is not None
    return Ballot("request", shown.pair.id, "tie")


def test_why_models_failed_is_for_the_terminal(tmp_path: Path) -> None:
    """The reason names a model, a folder, or what it wrote."""
    writer: Any = SimpleNamespace(problem="runs/secret-model: no weights", blind=True, state=lambda: "failed")
    with Store.open(store_of(tmp_path / "votes.db", 0)) as store:
        state = RankingService(store, writer).state(store.rater("Ada"))
    assert state["kind"] == "failed"
    assert "secret-model" not in json.dumps(state)


# ---- Who leaves and comes back


@contextmanager
def desk_of(folder: Path, pairs: int, gold: int = 0, **settings: Any) -> Iterator[RankingService]:
    """A desk over a new store."""
    checks = [replace(pair(number), gold="first") for number in range(100, 100 + gold)]
    path = store_of(folder / "votes.db", [*checks, *map(pair, range(pairs))], **settings)
    with Store.open(path) as store:
        yield RankingService(store)


def test_a_gold_pair_does_not_wait_for_who_signed_out(tmp_path: Path) -> None:
    """An ordinary pair is given to the next rater who asks; were a gold one always there again, it would be known."""
    with desk_of(tmp_path, 10, gold=10, gold_every=1) as desk:
        ada, bob = desk.store.rater("Ada"), desk.store.rater("Bob")
        shown = desk.state(ada)
        desk.store.release(ada)
        assert desk.state(ada)["pair"] == shown["pair"], "nobody asked meanwhile"
        desk.store.release(ada)
        desk.vote(bob, _vote(desk.state(bob), 1))
        again = desk.state(ada)["pair"]
        assert again["id"] != shown["pair"]["id"]
        assert desk.store.pair(number_of(desk.store, again)).gold, "the next gold one"


# ---- As many votes as are wanted


def test_an_undone_skip_gives_no_vote_too_many(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Ada skips the pair, Bob ranks it; Ada's undo takes the skip back, but the pair is no longer hers."""
    path = store_of(tmp_path / "votes.db", 1)
    port = start(path).port
    ada, bob = Visitor(port).join("Ada"), Visitor(port).join("Bob")
    shown = ada.state()["pair"]
    assert ada.vote(shown, "skip")[0] == 200
    assert bob.vote(bob.state()["pair"])[0] == 200
    answer = ada.undo()
    assert answer["undone"]["choice"] == "skip"
    assert answer["returned"] is False
    assert answer["state"]["kind"] == "done"
    status, refused = ada.vote(shown, "b")
    assert status == 409
    assert "this pair: needs no more votes" in refused["error"]
    with Store.open(path, read_only=True) as store:
        assert [vote.rater.name for vote in store.votes()] == ["Bob"]


def test_an_undo_after_the_number_of_votes_was_lowered(tmp_path: Path) -> None:
    """Two votes stand where one is wanted by now: an undo leaves the other, and no place for a second."""
    with desk_of(tmp_path, 1, raters_per_pair=2) as desk:
        for name in ("Ada", "Bob"):
            rater = desk.store.rater(name)
            desk.vote(rater, _vote(desk.state(rater), 1))
        desk.store.configure(replace(desk.store.settings, raters_per_pair=1))
        answer = desk.undo(rater, UndoRequest(request="undo-it-1"))
        assert (answer["returned"], answer["state"]["kind"]) == (False, "done")


ACTIONS = ("vote", "skip", "undo", "leave", "late")
"""late: a vote from a window that still shows a pair of before."""


@trials(60)
@given(data=st.data(), wanted=st.integers(1, 3), pairs=st.integers(1, 4), gold=st.integers(0, 2))
def test_no_pair_gets_more_votes_than_are_wanted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, wanted: int, pairs: int, gold: int
) -> None:
    """Whatever up to four raters do in turn; gold pairs are for every rater, once."""
    steps = data.draw(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(ACTIONS)), max_size=40))
    folder = tmp_path_factory.mktemp("votes")
    with desk_of(folder, pairs, gold, raters_per_pair=wanted, gold_every=2 if gold else 0) as desk:
        store, shown = desk.store, dict[str, list[dict[str, Any]]]()
        golden = {pair.id for pair in store.pairs() if pair.gold}
        for turn, (name, action) in enumerate(steps):
            rater, seen = store.rater(name), shown.setdefault(name, [])
            if action == "leave":
                store.release(rater)
            elif action == "undo":
                answer = desk.undo(rater, UndoRequest(request=f"undo-{turn:04}"))
                if answer["undone"] and answer["returned"]:
                    assert answer["state"]["pair"]["id"] in [state["pair"]["id"] for state in seen]
            elif action == "late" and seen:
                state = data.draw(st.sampled_from(seen))
                with suppress(DataError):
                    desk.vote(rater, _vote(state, turn, "b"))
            elif (state := desk.state(rater))["kind"] == "pair":
                seen.append(state)
                desk.vote(rater, _vote(state, turn, "a" if action == "vote" else "skip"))
            counted = [vote for vote in store.votes() if vote.ballot.choice != "skip"]
            for number in {vote.ballot.pair for vote in counted}:
                of_pair = [vote.rater.name for vote in counted if vote.ballot.pair == number]
                assert len(of_pair) == len(set(of_pair))
                assert number in golden or len(of_pair) <= wanted
