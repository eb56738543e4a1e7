"""Starting and stopping: ports, signals, and that nothing acknowledged is ever lost."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ranking.page.serving import Served, Visitor, alias, store_of
from trueup.data.votes.store import Store
from trueup.errors import ConfigError
from trueup.ranking.page import Access, serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tmp_path: Path, start: Callable[..., Served], number: int) -> None:
    """Within two seconds, also while a browser keeps its connection open; then the caller goes on."""
    server = start(store_of(tmp_path / "votes.db", 3))
    visitor = Visitor(server.port).join("Ada")
    assert visitor.vote(visitor.state()["pair"])[0] == 200
    idle = http.client.HTTPConnection("127.0.0.1", server.port)
    idle.request("GET", "/rank.css")
    idle.getresponse().read()
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"POST /api/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
    time.sleep(0.2)
    code, out, err, seconds = server.stop(number)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["stopping; press Ctrl-C again to quit at once", "votes 1"]
    assert seconds < 30  # it waits for neither of them
    idle.close()
    half.close()


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, start: Callable[..., Served]) -> None:
    server = start(store_of(tmp_path / "votes.db", 3))
    half = socket.create_connection(("127.0.0.1", server.port))
    half.sendall(b"POST /api/vote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
    time.sleep(0.2)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.7)  # later than an echo of the first
    assert server.process.poll() is None, "the half request keeps it a second"
    code, _, err, _ = server.stop(signal.SIGINT)
    assert code != 0
    assert "Quit" in err
    half.close()


def test_a_taken_port_is_said_with_a_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Store.open(store_of(tmp_path / "votes.db", 1)) as store:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"--port {port}: taken by another program; --port \d+ is free"
        ) as caught:
            serve(store, None, Access(port=port), say=print)
        free = int(str(caught.value).split("--port ")[2].split()[0])
        with socket.create_server(("127.0.0.1", free)):
            pass


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ({"host": "192.0.2.1", "token_needed": True}, "192.0.2.1: not an address of this machine"),
        ({"host": "no.such.name.invalid", "token_needed": True}, "no address of that name"),
        ({"port": 70_000}, "--port 70000: a port is"),
        ({"port": -1}, "--port -1: a port is"),
    ],
)
def test_what_cannot_be_bound(tmp_path: Path, access: dict[str, Any], said: str) -> None:
    stop = threading.Event()
    stop.set()
    with Store.open(store_of(tmp_path / "votes.db", 1)) as store, pytest.raises(ConfigError, match=said):
        serve(store, None, Access(**access), say=print, stop=stop)


class Ahead:
    """Models that do nothing, and remember that they were started and stopped."""

    problem = ""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self, timeout: float = 2.0) -> None:
        self.calls.append("stop")

    def ask(self) -> None:
        self.calls.append("ask")

    def writing(self) -> None:
        return None

    def state(self) -> str:
        return "loading"


def test_it_serves_in_a_thread_and_stops_the_models(tmp_path: Path) -> None:
    ahead, stop, ready = Ahead(), threading.Event(), threading.Event()
    ports: list[int] = []

    def told(access: Access) -> None:
        ports.append(access.port)
        ready.set()

    with Store.open(store_of(tmp_path / "votes.db", 0)) as store:
        thread = threading.Thread(
            target=serve, args=(store, ahead, Access()), kwargs={"say": print, "ready": told, "stop": stop}
        )
        thread.start()
        assert ready.wait(10)
        state = Visitor(ports[0]).join("Ada").state()
        assert (state["kind"], state["writer"]) == ("waiting", "loading")
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert ahead.calls == ["start", "ask", "stop"]


def test_killed_it_has_every_vote_that_was_acknowledged(tmp_path: Path, start: Callable[..., Served]) -> None:
    """kill -9 while four raters vote as fast as they can; what was answered is in the store, once."""
    path = store_of(tmp_path / "votes.db", 2000)
    server = start(path)
    acknowledged: list[str] = []

    def rank(name: str) -> None:
        visitor = Visitor(server.port).join(name)
        shown = visitor.state()["pair"]
        try:
            while True:
                status, answer = visitor.vote(shown)
                assert status == 200
                acknowledged.append(answer["saved"])
                shown = answer["state"]["pair"]
        except (OSError, http.client.HTTPException):
            return

    threads = [threading.Thread(target=rank, args=(f"Rater {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 40:
        time.sleep(0.01)
    server.kill()
    for thread in threads:
        thread.join()
    with Store.open(path) as store:
        votes = store.votes()
        kept = {alias(store, vote, "vote") for vote in votes}
    assert kept >= set(acknowledged)
    assert len(acknowledged) == len(set(acknowledged))
    assert len(votes) <= len(acknowledged) + 4
    assert len({vote.ballot.pair for vote in votes}) == len(votes)
