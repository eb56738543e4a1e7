"""The child as a process: a whole sitting with tiny models, and every way that it can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_folder
from trueup.config.ranking import RankConfig
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot, NewPrompt
from trueup.ranking.writing.ahead import AnswerWriter


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent is gone may be left to init for a while."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [tiny_folder(folder / "a" / "model"), tiny_folder(folder / "b", seed=1)]


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    with Store.open(tmp_path / "votes.db", create=True) as opened:
        opened.add_prompts(NewPrompt((Message("user", f"Question {at}?"),), (), f"p:{at}") for at in range(12))
        yield opened


@pytest.fixture
def ahead(store, models) -> Iterator[Callable[..., AnswerWriter]]:
    started: list[AnswerWriter] = []

    def start(**settings: Any) -> AnswerWriter:
        named: dict[str, Any] = {"model": models, "max_new_tokens": 8, "device": "cpu", "threads": 1}
        started.append(AnswerWriter(Path(store.path), RankConfig(**(named | settings))))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def pid(ahead: AnswerWriter) -> int:
    assert ahead._process is not None
    return ahead._process.pid


@pytest.mark.slow
def test_a_sitting(store, ahead, models):
    """AnswerWriter, used up by votes, watched, killed for want of memory, and done: every prompt has its one pair."""
    child = ahead(ahead=4, batch=2)
    assert child.state() == "loading"
    until(lambda: child.state() == "ahead" or child.problem)
    assert (child.problem, store.fresh()) == ("", 4)
    os.kill(pid(child), signal.SIGINT)  # a Ctrl-C is the server's
    rater = store.rater("r")
    for number in range(4):
        store.vote(rater, Ballot(str(number), store.next(rater).pair.id, "tie"))
    child.ask()
    until(lambda: store.fresh() >= 3)
    assert os.getpriority(os.PRIO_PROCESS, pid(child)) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    os.kill(pid(child), signal.SIGKILL)
    until(lambda: child.notes)
    for number in range(4, 12):
        until(lambda: store.fresh() or store.pairs()[11:])
        store.vote(rater, Ballot(str(number), store.next(rater).pair.id, "second"))
    until(lambda: child.state() == "done")
    assert child.notes == [
        "the process that writes answers was killed by SIGKILL (out of memory?) and was started again"
    ]
    assert set(Counter(one.prompt.id for one in store.pairs()).values()) == {1}
    assert len(store.pairs()) == 12
    assert {one.first.model for one in store.pairs()} == {str(Path(models[0]).parent), models[1]}
    child.stop()
    assert not is_there(pid(child))


@pytest.mark.slow
def test_a_pair_can_be_watched(store, ahead):
    child = ahead(ahead=1, max_new_tokens=64)
    until(lambda: child.state() == "ahead" or child.problem)
    store.next(store.rater("r"))
    seen = []

    def watched() -> bool:
        child.ask()
        if (now := child.writing()) is not None:
            seen.append(now)
        return bool(seen) and seen[-1].done

    until(watched)
    last = seen[-1]
    [pair] = [one for one in store.pairs() if one.prompt.id == last.prompt.id]
    assert last.prompt == pair.prompt
    assert (last.first, last.second) != ("", "")
    assert any(one.first != last.first or one.second != last.second for one in seen)


def test_a_model_that_is_not_there(ahead, store, tmp_path):
    child = ahead(model=[str(tmp_path / "none")])
    until(lambda: child.state() == "failed")
    assert child.problem.startswith(f"{tmp_path / 'none'}: no such model folder")
    assert store.next(store.rater("r")) is None  # the store serves on


@pytest.mark.slow
def test_a_broken_model_is_said_in_a_sentence(ahead, tmp_path):
    """What libraries print and warn of is not shown."""
    folder = Path(tiny_folder(tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"nonsense")
    child = ahead(model=[str(folder)])
    until(lambda: child.state() == "failed")
    assert child.problem.startswith(f"{folder}/model.safetensors: not a readable safetensors file")
    assert len(child.problem.splitlines()) <= 2
    assert child.notes == []


@pytest.mark.parametrize("after", [0.05, 0.5, 1.0])
def test_stop_in_the_middle_of_the_imports(ahead, after):
    child = ahead()
    time.sleep(after)
    began = time.monotonic()
    child.stop()
    assert time.monotonic() - began < 30
    assert not is_there(pid(child))


@pytest.mark.parametrize("wait", ["importing", pytest.param("resting", marks=pytest.mark.slow)])
def test_it_does_not_outlive_a_server_that_was_killed(store, models, wait):
    lines = """
import sys, time
from pathlib import Path
from trueup.config.ranking import RankConfig
from trueup.ranking.writing.ahead import AnswerWriter
ahead = AnswerWriter(Path(sys.argv[1]), RankConfig(model=[sys.argv[2]], max_new_tokens=4, ahead=2, device="cpu"))
ahead.start()
print(ahead._process.pid, flush=True)
while ahead.state() != "ahead":
    time.sleep(0.05)
print("ahead", flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", lines, str(store.path), models[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        if wait == "resting":
            assert server.stdout.readline() == "ahead\n"
        else:
            time.sleep(0.5)
        assert is_there(child)
        server.kill()
    until(lambda: not is_there(child), seconds=10)


def test_it_ends_when_it_is_told_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "trueup.ranking.writing.process"], input="", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
