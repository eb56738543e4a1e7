"""Many raters at once, in threads and processes; processes killed in the middle of a vote; a disk that is full."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import warm
from data.votes.store_examples import check_store, connect, make_store, new_pair, vote_on
from trueup.data.votes.header import StoreError, is_store
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot, Rater, StoreSettings
from trueup.errors import DataError

VOTER = """
import itertools, sys
from pathlib import Path
from trueup.data.votes.vote_types import Ballot
from trueup.data.votes.store import Store
path, name, most = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Store.open(path) as store:
    rater = store.rater(name)
    for number in range(most):
        shown = store.next(rater)
        if shown is None:
            break
        note = f"{name} {shown.pair.first.text}"
        vote = store.vote(rater, Ballot(f"{number}", shown.pair.id, "first", note=note))
        print(vote.id, shown.pair.id, flush=True)
        if number % 5 == 4:
            undone = store.undo(rater, f"undo {number}")
            print(-undone.id, undone.ballot.pair, flush=True)
"""


def start(path: Path, name: str, most: int = 10**6) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", VOTER, str(path), name, str(most)]
    return warm.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def not_mixed_up(opened: Store) -> None:
    """A vote's note names its rater and its pair's answer."""
    for said in opened.votes():
        answer = opened.pair(said.ballot.pair).first.text
        assert said.ballot.note == f"{said.rater.name} {answer}"


@pytest.mark.parametrize("wanted", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_eight_threads_and_three_processes_vote_on_one_file(tmp_path, wanted):
    with make_store(tmp_path, 90, gold=5, gold_every=10, raters_per_pair=wanted) as opened:
        acknowledged: list[tuple[int, int]] = []
        broken: list[BaseException] = []

        def work(name: str) -> None:
            try:
                rater = opened.rater(name)
                while shown := opened.next(rater):
                    said = vote_on(opened, rater, shown.pair.id, note=f"{name} {shown.pair.first.text}")
                    acknowledged.append((said.id, said.ballot.pair))
            except Exception as error:  # noqa: BLE001 -- shown by the test, not lost with the thread
                broken.append(error)

        others = [start(opened.path, f"process {number}", 8) for number in range(3)]
        threads = [threading.Thread(target=work, args=(f"thread {number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for other in others:
            out, errors = other.communicate(timeout=60)
            assert (other.returncode, errors) == (0, "")
            acknowledged += [(int(line.split()[0]), int(line.split()[1])) for line in out.splitlines()]
        assert broken == []
        undone = {-event for event, _ in acknowledged if event < 0}
        stood = sorted((event, one) for event, one in acknowledged if event > 0 and event not in undone)
        votes = opened.votes()
        assert [(said.id, said.ballot.pair) for said in votes] == stood
        assert len({event for event, _ in acknowledged}) == len(acknowledged)
        for one in opened.pairs():
            by = [said for said in votes if said.ballot.pair == one.id]
            assert one.gold or len(by) <= wanted  # leases never ran out, so none was ranked too often
        not_mixed_up(opened)
        check_store(opened)


@pytest.mark.parametrize("rounds", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_kill_minus_nine_loses_no_vote_that_was_acknowledged(tmp_path, rounds):
    """Every vote and undo told over the pipe is there once; one more of each process may be, whose word was cut off."""
    chance = random.Random(0)
    with make_store(tmp_path, 300 * rounds) as opened:
        path = opened.path
    told: list[tuple[int, ...]] = []
    for number in range(rounds):
        voters = [start(path, f"voter {number}"), start(path, f"other {number}")]
        first = [voter.stdout.readline() for voter in voters if voter.stdout]
        time.sleep(chance.uniform(0, 0.3))
        for voter in voters:
            voter.send_signal(signal.SIGKILL)
        lines = [*first, *(line for voter in voters if voter.stdout for line in voter.stdout)]
        told += [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
        for voter in voters:
            voter.communicate()
    assert len(told) > 3 * rounds
    assert len(set(told)) == len(told)
    with Store.open(path) as opened:
        connection = connect(path)
        entered = connection.execute("SELECT ifnull(-undoes, id), pair FROM events WHERE rater").fetchall()
        connection.close()
        assert set(told) <= set(entered)
        assert len(entered) - len(told) <= 2 * rounds
        not_mixed_up(opened)
        check_store(opened)


def test_a_store_is_asked_what_it_is_while_it_is_open_and_keeps_its_votes(tmp_path):
    """Closing a descriptor drops a process's locks; without them the next process that ends takes the log away.

    Then what is voted here would go into a file that has no name any more.
    """
    with make_store(tmp_path, 4) as opened:
        ann = opened.rater("A")
        assert is_store(opened.path)
        second = Store.open(opened.path)  # reads the header too
        second.close()
        finish = start(opened.path, "B", 1)
        assert finish.communicate(timeout=60)[1] == ""
        given = vote_on(opened, ann, opened.next(ann).pair.id)
        other = start(opened.path, "C", 1)
        assert other.communicate(timeout=60)[1] == ""
        assert [said.rater.name for said in opened.votes()] == ["B", "A", "C"]
    assert [said.id for said in Store.open(tmp_path / "votes.db").votes()][1] == given.id


def test_a_vote_is_refused_when_the_file_is_not_there_any_more(tmp_path):
    with make_store(tmp_path, 4) as opened:
        ann = opened.rater("A")
        vote_on(opened, ann, 1)
        opened.path.rename(tmp_path / "away.db")
        with pytest.raises(StoreError, match="moved, replaced or removed"):
            vote_on(opened, ann, 2)
        with pytest.raises(StoreError, match="moved, replaced or removed"):
            opened.next(ann)
        (tmp_path / "away.db").rename(opened.path)
        vote_on(opened, ann, 2)
        assert len(opened.votes()) == 2


FULL = """
import resource, sys
from trueup.errors import DataError
from trueup.data.votes.vote_types import Ballot
from trueup.data.votes.store import Store
with Store.open(sys.argv[1]) as store:
    rater = store.rater("A")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    for number in range(1, 1000):
        try:
            vote = store.vote(rater, Ballot(f"{number}", store.next(rater).pair.id, "first", note="n" * 2000))
        except DataError as error:
            print(error)
            break
        print(vote.id)
    print(len(store.votes()))
"""


def test_a_disk_without_space_refuses_a_vote_and_keeps_the_others(tmp_path):
    with make_store(tmp_path, 300) as opened:
        path = opened.path
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    *ids, reason, fix, count = done.stdout.splitlines()
    assert 10 < len(ids) < 299
    assert reason.startswith(f"{path}: ")
    assert fix.startswith("  fix: ")
    assert int(count) == len(ids)
    with Store.open(path) as opened:
        assert [str(said.id) for said in opened.votes()] == ids
        vote_on(opened, opened.rater("A"), 299)
        check_store(opened)


def test_a_full_database_says_so(tmp_path, monkeypatch):
    with make_store(tmp_path, 5) as opened:
        path = opened.path
    monkeypatch.setattr("trueup.data.votes.database._PRAGMAS", ("foreign_keys = ON", "max_page_count = 1"))
    with Store.open(path) as opened, pytest.raises(StoreError, match=r"full\n  fix: free some space .* free there"):
        opened.add_pairs(new_pair(number) for number in range(500))


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    """The event is added, then the counting breaks: neither is there, and the request is free."""
    with make_store(tmp_path, 4) as opened:
        ann = opened.rater("A")
        with monkeypatch.context() as patched:
            patched.setattr("trueup.data.votes.counting._move", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                vote_on(opened, ann, 1)
        assert opened.votes() == []
        assert opened.vote(ann, Ballot("A on 1", 1, "tie")).ballot.choice == "tie"
        check_store(opened)


def test_closing_waits_for_the_write_that_goes_on(tmp_path):
    opened = make_store(tmp_path, 400)
    ann, entered = opened.rater("A"), []

    def work() -> None:
        with suppress(DataError):  # it is closed, at some time
            while True:
                entered.append(vote_on(opened, ann, len(entered) + 1))

    thread = threading.Thread(target=work)
    thread.start()
    while len(entered) < 5:
        time.sleep(0.001)
    opened.close()
    opened.close()
    thread.join()
    assert not list(tmp_path.glob("*-wal")), "nothing is left beside the file"
    with pytest.raises(StoreError, match="closed"):
        opened.votes()
    with Store.open(tmp_path / "votes.db") as again:
        assert again.votes() == entered


def test_settings_written_by_one_process_count_in_the_other(tmp_path):
    with make_store(tmp_path) as one, Store.open(one.path) as two:
        one.configure(StoreSettings(raters_per_pair=4))
        assert two.settings.raters_per_pair == 4


def test_a_fault_of_the_file_is_told_from_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr("trueup.data.votes.database._BUSY", 0.05)
    with make_store(tmp_path, 2) as opened:
        other = connect(opened.path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked\n  fix: end the other program"):
            opened.rater("A")
        other.rollback()
        other.close()
        ann = opened.rater("A")
        for refused in (Ballot("r", 99, "first"), Ballot("", 1, "first"), Ballot("r", 1, "tie", 2)):
            with pytest.raises(DataError) as told:
                opened.vote(ann, refused)
            assert not isinstance(told.value, StoreError)
        with pytest.raises(DataError, match="of this store") as told:
            opened.next(Rater(7, "Nobody"))
        assert not isinstance(told.value, StoreError)


@pytest.mark.parametrize("again", [False, True])
def test_a_vote_is_refused_when_the_log_is_not_there_any_more(tmp_path, again):
    """Otherwise the vote would go into a deleted file, and be lost with the process."""
    opened = make_store(tmp_path, 4)
    ann = opened.rater("A")
    given = vote_on(opened, ann, 1)
    log = tmp_path / "votes.db-wal"
    log.rename(tmp_path / "away")
    if again:
        log.touch()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"db-wal: the file was moved, replaced or removed"):
            opened.next(ann)
    log.unlink(missing_ok=True)
    (tmp_path / "away").rename(log)
    assert vote_on(opened, ann, 2).id > given.id
    opened.close()


def test_processes_that_open_and_close_in_turn_keep_the_log(tmp_path):
    with make_store(tmp_path, 40) as opened:
        ann = opened.rater("A")
        for number in range(3):
            vote_on(opened, ann, opened.next(ann).pair.id)
            assert start(opened.path, f"p{number}", 2).communicate(timeout=60)[1] == ""
            with Store.open(opened.path) as second:
                assert second.next(second.rater(f"s{number}"))
            vote_on(opened, ann, opened.next(ann).pair.id)
    assert start(opened.path, "alone", 2).communicate(timeout=60)[1] == ""
    with Store.open(opened.path) as again:
        assert len(again.votes()) == 6 + 3 * 2 + 2
        assert again.next(again.rater("A"))


def test_a_clean_close_leaves_an_empty_log_to_another_process(tmp_path):
    opened = make_store(tmp_path, 4)
    reader = connect(opened.path)
    reader.execute("SELECT count(*) FROM events").fetchall()  # has the file open, so that the log stays
    given = vote_on(opened, opened.rater("A"), 1)
    opened.close()
    assert (tmp_path / "votes.db-wal").stat().st_size == 0
    assert reader.execute("SELECT max(id) FROM events").fetchone() == (given.id,)
    reader.close()
