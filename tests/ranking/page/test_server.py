"""The server over HTTP: what it answers, and above all what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ranking.page.serving import Served, Visitor, pair, store_of, vote_of
from trueup.cli import rank
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import MOST_EDIT, Answer, NewPrompt, Pair, StoredPrompt
from trueup.errors import ConfigError
from trueup.ranking import command
from trueup.ranking.page import Access, make_app
from trueup.ranking.page.desk import RankingService
from trueup.ranking.page.limits import MOST_BODY
from trueup.ranking.page.wire import UndoRequest, VoteRequest


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("rank") / "votes.db", 200)


@pytest.fixture(scope="module")
def port(store: Path) -> Iterator[int]:
    server = Served(store)
    yield server.port
    code, _, err, _ = server.stop()
    assert (code, err) == (0, "")


@pytest.fixture
def ada(port: int) -> Visitor:
    return Visitor(port).join(f"Ada {secrets.token_hex(4)}")


def test_a_vote_and_what_comes_next(ada: Visitor, store: Path) -> None:
    state = ada.state()
    assert state["kind"] == "pair"
    assert state["progress"]["voted"] == 0
    shown = state["pair"]
    said = {
        "strength": 2,
        "reasons": ["correct", "clear"],
        "note": " because ",
        "edit": "better",
        "edit_of": "b",
        "seconds": 4.25,
    }
    status, answer = ada.vote(shown, "b", **said)
    assert status == 200
    assert answer["choice"] == "b"
    assert answer["state"]["pair"]["id"] != shown["id"]
    assert answer["state"]["progress"] | {"left": 0} == {
        "voted": 1,
        "skipped": 0,
        "left": 0,
        "last": answer["saved"],
        "pace": 4.2,
    }
    with Store.open(store) as opened:
        vote = vote_of(opened, answer["saved"])
        kept = opened.pair(vote.ballot.pair)
    right = "second" if vote.left == "first" else "first"
    assert shown["a"]["text"] == kept.answer(vote.left).text
    assert shown["b"]["text"] == kept.answer(right).text
    ballot = vote.ballot
    assert (ballot.choice, ballot.strength, ballot.reasons) == (right, 2, ("correct", "clear"))
    assert (ballot.note, ballot.edit, ballot.edit_of, ballot.seconds) == ("because", "better", right, 4.25)


def test_nobody_is_told_of_models_or_of_gold(tmp_path: Path, start: Callable[..., Served]) -> None:
    gold = [replace(pair(number), gold="first") for number in range(3)]
    server = start(store_of(tmp_path / "votes.db", [*gold, pair(9)], gold_every=1))
    visitor = Visitor(server.port).join("Ada")
    everything = json.dumps([visitor.state(), visitor.call("GET", "/")[1]])
    for _ in range(4):
        state = visitor.state()
        everything += json.dumps(
            [state, visitor.vote(state["pair"], "a"), visitor.undo(), visitor.vote(state["pair"], "b")]
        )
    assert visitor.state()["kind"] == "done"
    assert "secret" not in everything
    assert "gold" not in everything


def test_what_is_left_does_not_tell_a_check(tmp_path: Path) -> None:
    """It falls by one at every vote, gold or not, also after a restart, and an undo gives it back."""
    gold = [replace(pair(number), gold="first") for number in range(100, 140)]
    path = store_of(tmp_path / "votes.db", [*gold, *map(pair, range(60))], gold_every=4)
    moved: dict[bool, set[int]] = {True: set(), False: set()}
    with Store.open(path) as store:
        rater, desk = store.rater("Ada"), RankingService(store)
        for at in range(50):
            shown = desk.state(rater)
            one = VoteRequest(request=f"request{at}", pair=shown["pair"]["id"], a=shown["pair"]["print"], choice="a")
            after = desk.vote(rater, one)["state"]
            if at % 5 == 0:
                back = desk.undo(rater, UndoRequest(request=f"undoing{at}"))["state"]
                assert back["progress"]["left"] == shown["progress"]["left"]
                after = desk.vote(rater, one.model_copy(update={"request": f"again{at}"}))["state"]
            kept = store.pair(desk.aliases.number("pair", rater.id, one.pair))
            moved[kept.gold is not None].add(after["progress"]["left"] - shown["progress"]["left"])
            desk = RankingService(store) if at == 25 else desk
    assert moved == {True: {-1}, False: {-1}}


def test_a_vote_sent_twice_counts_once(ada: Visitor, store: Path) -> None:
    shown, request = ada.state()["pair"], secrets.token_hex(8)
    answers = [ada.vote(shown, "a", request=request)[1] for _ in range(3)]
    assert len({answer["saved"] for answer in answers}) == 1
    assert answers[-1]["state"]["progress"]["voted"] == 1


def test_a_second_vote_on_a_pair_is_refused_in_one_sentence(ada: Visitor) -> None:
    shown = ada.state()["pair"]
    assert ada.vote(shown)[0] == 200
    status, answer = ada.vote(shown, "b")
    assert status == 409
    assert answer["error"].endswith("has voted on it: undo first")


def test_a_refusal_is_one_whatever_the_store_is_called(
    tmp_path: Path, start: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store named "p": "pair 1: ..." is no fault of the file, which the page would send again for ever."""
    monkeypatch.chdir(tmp_path)
    ada = Visitor(start(store_of(Path("p"), 2)).port).join("Ada")
    shown = ada.state()["pair"]
    assert ada.vote(shown)[0] == 200
    assert ada.vote(shown)[0] == 409


def test_a_vote_counts_for_the_words_that_were_read(ada: Visitor, store: Path) -> None:
    """Whichever side the server would show now, A is the answer whose print the page sends."""
    shown = ada.state()["pair"]
    from trueup.ranking.page.wire import answer_hash

    swapped = shown | {"print": answer_hash(shown["b"]["text"])}
    status, answer = ada.vote(swapped, "a")
    assert status == 200
    with Store.open(store) as opened:
        vote = vote_of(opened, answer["saved"])
        kept = opened.pair(vote.ballot.pair)
    assert kept.answer(vote.ballot.choice).text == shown["b"]["text"]  # pyright: ignore[reportArgumentType]
    other = ada.state()["pair"]
    status, answer = ada.vote(other | {"print": "0" * 16}, "a")
    assert (status, answer["error"]) == (409, "this pair has changed since it was shown: reload the page")


def test_a_pair_is_kept_without_being_sent(tmp_path: Path, start: Callable[..., Served]) -> None:
    """What the page sends while a pair is read: the lease begins anew, and nothing comes back."""
    path = store_of(tmp_path / "votes.db", 1, lease_seconds=2.0)
    port = start(path).port
    ada, bob = Visitor(port).join("Ada"), Visitor(port).join("Bob")
    ada.state()
    for _ in range(3):
        time.sleep(1)
        assert ada.call("POST", "/api/keep", {})[:2] == (204, "")
    assert bob.state()["kind"] == "done"


def test_a_conversation_of_thousands_of_turns(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Its first and last turns are there in time, both answers as Markdown, and what is left out is said."""
    slow = "*a* `b` [c](https://d.example/) " * 100
    messages = tuple(Message(("user", "assistant")[at % 2], f"turn {at} {slow}") for at in range(3001))
    long = replace(pair(1), prompt=NewPrompt(messages), first=Answer("*one*"), second=Answer("*two*"))
    ada = Visitor(start(store_of(tmp_path / "votes.db", [long])).port).join("Ada")
    shown = ada.state()["pair"]
    turns = shown["turns"]
    assert [turns[at]["text"].split()[1] for at in (0, 19, 21, 120)] == ["0", "19", "2901", "3000"]
    assert (turns[20], len(turns)) == ({"left_out": 2881}, 121)
    assert shown["a"]["html"]
    assert shown["b"]["html"]
    assert turns[120]["html"]


def test_a_screen_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers first, then turns from the last backwards; what is left is plain, and whole."""
    from trueup.ranking.page import wire

    clock, order = iter(range(100)), []
    monkeypatch.setattr(wire.time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(wire, "MOST_SECONDS", 5)
    monkeypatch.setattr(wire, "rendered", lambda text: order.append(text) or f"<p>{text}")
    turns = tuple(Message(("user", "assistant")[at % 2], f"turn {at}") for at in range(5))
    kept = Pair(1, StoredPrompt(1, turns), Answer("first"), Answer("second"))
    view = wire.pair_view(kept, "second", "0" * 16)
    assert order == ["second", "first", "turn 4", "turn 3"]
    assert [turn["html"] is None for turn in view["turns"]] == [True, True, True, False, False]
    assert "turn 0" in view["turns"][0]["plain"]


def test_undo_brings_back_what_was_said(ada: Visitor) -> None:
    first = ada.state()["pair"]
    said = {"strength": 3, "reasons": ["safe"], "note": "n", "edit": "e", "edit_of": "a"}
    waiting = ada.vote(first, "a", **said)[1]["state"]["pair"]
    answer = ada.undo()
    assert answer["undone"] == {"choice": "a"} | said
    assert answer["state"]["pair"] == first
    assert ada.state()["pair"] == first, "a refresh shows it too"
    assert ada.vote(first, "tie")[1]["state"]["pair"] == waiting, "then the one that waited"
    assert ada.undo()["undone"]["choice"] == "tie"


def test_an_undo_takes_back_what_was_meant_or_nothing(ada: Visitor) -> None:
    """Pressed in a window that does not know of the last vote, it says so, and then it is known."""
    saved = [ada.vote(ada.state()["pair"])[1]["saved"] for _ in range(2)]
    for late in (saved[0], ""):
        status, answer, _ = ada.call("POST", "/api/undo", {"request": secrets.token_hex(8), "of": late})
        assert (status, answer["error"]) == (409, "you have voted since, in another window: press undo again")
    last = ada.state()["progress"]["last"]
    assert last == saved[1]
    status, answer, _ = ada.call("POST", "/api/undo", {"request": secrets.token_hex(8), "of": last})
    assert (status, answer["state"]["progress"]["last"]) == (200, saved[0])


def test_undo_with_nothing_to_undo(ada: Visitor) -> None:
    before = ada.state()["pair"]
    answer = ada.undo()
    assert answer["undone"] is None
    assert answer["state"]["pair"] == before


def test_two_raters_never_get_one_pair(port: int) -> None:
    """k is 1: eight at once, each until ten pairs are ranked."""

    def rank(name: str) -> list[int]:
        visitor = Visitor(port).join(name)
        seen = []
        shown = visitor.state()["pair"]
        for _ in range(10):
            seen.append(shown["id"])
            status, answer = visitor.vote(shown)
            assert status == 200
            shown = answer["state"]["pair"]
        return seen

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(rank, [f"Rater {number}" for number in range(8)]))
    assert len({one for each in seen for one in each}) == 80


# ---- Who may not


@pytest.mark.parametrize(
    "change",
    [
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"X-CSRF-Token": None},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": "é"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["vote", "undo", "leave", "keep", "join"])
def test_a_write_from_elsewhere_is_refused(ada: Visitor, path: str, change: dict[str, str | None]) -> None:
    shown = ada.state()["pair"]
    bodies = {
        "vote": {"request": secrets.token_hex(8), "pair": shown["id"], "a": shown["print"], "choice": "a"},
        "undo": {"request": secrets.token_hex(8)},
        "join": {"name": "Eve"},
        "leave": {},
        "keep": {},
    }
    if change.get("X-CSRF-Token") == "é":
        change = {"X-CSRF-Token": "\xe9"}
    status, answer, _ = ada.call("POST", f"/api/{path}", bodies[path], change)
    assert status == 403
    assert list(answer) == ["error"]
    assert ada.state()["progress"]["voted"] == 0


def test_a_form_of_another_page_cannot_vote(ada: Visitor) -> None:
    """What a page elsewhere can send without asking first: text/plain."""
    shown = ada.state()["pair"]
    body = json.dumps({"request": "12345678", "pair": shown["id"], "a": shown["print"], "choice": "a"}).encode()
    status, _, _ = ada.call("POST", "/api/vote", body, {"Content-Type": "text/plain"})
    assert status == 422


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "169.254.1.1", "localhost.evil.example", "", "[", "127.0.0.1.evil.example"],
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/rank.js", "/join?token=x"])
def test_an_unknown_host_is_refused(ada: Visitor, host: str, path: str) -> None:
    """A page elsewhere whose own name points here by now (DNS rebinding)."""
    status, answer, _ = ada.call("GET", path, headers={"Host": host})
    assert status in (400, 421)
    assert "trueup" not in str(answer)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:9", "[::1]:9", "127.1.2.3"])
def test_a_known_host_is_let_in(ada: Visitor, host: str) -> None:
    """The port may be another one, as through `ssh -L 9:localhost:8000`."""
    assert ada.call("GET", "/api/state", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/state"), ("GET", "/api/progress"), ("GET", "/results")])
def test_strangers_get_nothing(port: int, method: str, path: str) -> None:
    stranger = Visitor(port)
    status, answer, _ = stranger.call(method, path)
    assert (status, list(answer)) == (401, ["error"])
    stranger.cookie = "trueup_rank_00000000=x; " + "a" * 3000
    assert stranger.call(method, path)[0] == 401


def test_the_headers(ada: Visitor) -> None:
    for path in ("/", "/rank.js", "/rank.css", "/api/state", "/nowhere", "/favicon.ico"):
        headers = ada.call("GET", path)[2]
        policy = headers.getheader("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers.getheader("X-Content-Type-Options") == "nosniff"
        assert headers.getheader("Referrer-Policy") == "no-referrer"
        assert headers.getheader("Cache-Control") == "no-store"
        assert headers.getheader("Server") is None


def test_the_cookie(port: int) -> None:
    visitor = Visitor(port)
    visitor.token()
    answer = visitor.call("POST", "/api/join", {"name": "Ada"})[2]
    cookie = (answer.getheader("Set-Cookie") or "").lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie


def test_no_documentation_of_the_interface_is_served(ada: Visitor) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert ada.call("GET", path)[:2] == (404, {"error": "not found"})
    assert ada.call("GET", "/api/vote")[:2] == (405, {"error": "method not allowed"})
    assert ada.call("POST", "/../../etc/passwd", {})[0] in (404, 405)


# ---- What may not be said


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": "c"},
        {"choice": None},
        {"pair": 1},
        {"pair": "0" * 17},
        {"pair": "x" * 16},
        {"strength": 4},
        {"strength": True},
        {"reasons": ["mine"]},
        {"reasons": ["safe"] * 9},
        {"reasons": "safe"},
        {"note": "x" * 2001},
        {"edit": "x" * (MOST_EDIT + 1)},
        {"note": "\ud800"},
        {"edit_of": "first"},
        {"seconds": -1},
        {"seconds": "x"},
        {"request": ""},
        {"request": "x" * 65},
        {"request": "a b c d e"},
        {"left": "first"},
        {"rater": 1},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_what_cannot_be_meant_is_refused(ada: Visitor, wrong: dict[str, Any]) -> None:
    status, answer = ada.vote(ada.state()["pair"], **({"choice": "a"} | wrong))
    assert status == 422
    assert next(iter(wrong)) in answer["error"]
    assert "xxxx" not in answer["error"]
    assert ada.state()["progress"]["voted"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"pair":' + b"9" * 10_000 + b"}",
        b'{"seconds": NaN}',
        b'{"seconds": 1e999}',
        b"\xff\xfe",
        b"\x00",
    ],
    ids=range(10),
)
def test_what_is_no_json_of_ours_is_refused(ada: Visitor, body: bytes) -> None:
    status, answer, _ = ada.call("POST", "/api/vote", body)
    assert status in (400, 422)
    assert list(answer) == ["error"]
    assert "Traceback" not in answer["error"]


def test_too_large_a_request_is_refused_before_it_is_read(ada: Visitor) -> None:
    raw = socket.create_connection(("127.0.0.1", ada.port), timeout=20)
    head = f"POST /api/vote HTTP/1.1\r\nHost: {ada.host}\r\nContent-Type: application/json\r\n"
    raw.sendall(f"{head}Content-Length: {MOST_BODY + 1}\r\n\r\n".encode())
    answer = raw.makefile("rb").read().decode()
    raw.close()
    assert answer.startswith("HTTP/1.1 413 ")


def test_too_large_a_request_without_its_length_is_refused(tmp_path: Path) -> None:
    """The app alone, which is handed a body in parts and must ask for none beyond the limit."""
    parts = iter([b"x" * 65_536] * 20)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(parts), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/vote", "raw_path": b"/api/vote", "query_string": b"",
        "root_path": "", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }  # fmt: skip
    with Store.open(store_of(tmp_path / "votes.db", 1)) as store:
        app = make_app(store, access=Access())
        # In a thread: a browser that is open in this one (see conftest) has its own loop of events.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(lambda: asyncio.run(app(scope, receive, send))).result()
    assert sent[0]["status"] == 413
    assert len(list(parts)) == 20 - MOST_BODY // 65_536 - 1


def test_a_head_without_end_is_refused(ada: Visitor) -> None:
    raw = socket.create_connection(("127.0.0.1", ada.port), timeout=20)
    raw.sendall(b"GET / HTTP/1.1\r\nX-a: " + b"b" * 20_000)
    assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    raw.close()


def test_the_longest_edit_in_the_widest_script_fits(ada: Visitor) -> None:
    status, answer = ada.vote(ada.state()["pair"], "a", edit="語" * MOST_EDIT, edit_of="a", note="語" * 2000)
    assert status == 200, answer


def test_a_client_that_leaves_early_harms_nobody(ada: Visitor) -> None:
    for _ in range(5):
        raw = socket.create_connection(("127.0.0.1", ada.port))
        raw.sendall(f"POST /api/vote HTTP/1.1\r\nHost: {ada.host}\r\nContent-Length: 100\r\n\r\n".encode())
        raw.close()
    assert ada.state()["kind"] == "pair"


# ---- Who comes in


def test_a_name_is_checked(port: int) -> None:
    visitor = Visitor(port)
    visitor.token()
    for name, status in (
        ("", 422),
        ("x" * 61, 422),
        ("  ", 409),
        ("a\u202eb", 409),
        ("a\x00b", 409),
        ("Zoë 日本", 204),
    ):
        assert visitor.call("POST", "/api/join", {"name": name})[0] == status


def test_leaving_gives_the_pair_back(tmp_path: Path, start: Callable[..., Served]) -> None:
    port = start(store_of(tmp_path / "votes.db", 1)).port
    ada, bob = Visitor(port).join("Ada"), Visitor(port).join("Bob")
    assert ada.state()["kind"] == "pair"
    assert bob.state()["kind"] == "done"
    assert ada.call("POST", "/api/leave", {})[0] == 204
    assert bob.state()["kind"] == "pair"


def test_who_left_is_out_with_the_cookie_too(ada: Visitor) -> None:
    """Somebody may have a copy of it."""
    assert ada.call("GET", "/api/state")[0] == 200
    kept = ada.cookie
    assert ada.call("POST", "/api/leave", {})[0] == 204
    assert ada.call("GET", "/api/state", headers={"Cookie": kept})[0] == 401


def test_who_typed_a_name_is_a_guest(tmp_path: Path, start: Callable[..., Served]) -> None:
    """A cookie from when a name was enough counts for nothing once links are needed."""
    path = store_of(tmp_path / "votes.db", 3)
    first = start(path, owner="Owner")
    eve = Visitor(first.port).join("Eve")
    for name in ("owner", " OWNER ", "\uff2fwner"):
        status, answer, _ = Visitor(first.port).call("POST", "/api/join", {"name": name}, {"X-CSRF-Token": eve.csrf})
        assert status == 403, answer
        visitor = Visitor(first.port)
        visitor.token()
        assert visitor.call("POST", "/api/join", {"name": name})[0] == 409
    first.kill()
    second = start(path, owner="Owner", token_needed=True)
    eve.port, eve.host = second.port, f"127.0.0.1:{second.port}"
    assert eve.call("GET", "/api/state")[0] == 401
    with Store.open(path) as store:
        token = store.invite("Eve")
    assert eve.call("GET", f"/join?token={token}")[0] == 200
    assert eve.call("GET", "/api/state")[0] == 200


def test_a_link_of_another_asks_first(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Somebody's link, followed by mistake or by a trick, does not make ana's next votes mal's."""
    path = store_of(tmp_path / "votes.db", 3)
    with Store.open(path) as store:
        links = {name: f"/join?token={store.invite(name)}" for name in ("ana", "mal")}
        who = {rater.name: rater.id for rater in store.raters()}
    ana = Visitor(start(path, token_needed=True).port)
    cookies = ana.call("GET", links["ana"])[2].headers.get_all("Set-Cookie") or []
    lax = next(one.partition(";")[0] for one in cookies if "samesite=lax" in one.lower())
    assert lax.endswith(f"_who={who['ana']}")
    kept = ana.cookie
    for sent in (kept, lax):  # from a link elsewhere only the lax cookie comes
        status, page, answer = ana.call("GET", links["mal"], headers={"Cookie": sent})
        assert (status, answer.getheader("Set-Cookie")) == (200, None)
        assert "Go on as <bdi>mal</bdi>?" in page
        assert ("You are <bdi>ana</bdi> here" in page) == (sent == kept)
    assert ana.call("GET", links["ana"])[2].getheader("Set-Cookie") is None, "her own link changes nothing"
    body = {"token": links["mal"].partition("=")[2]}
    form = re.search(r'name="csrf" content="([^"]+)"', page)
    assert form
    for wrong in ({"Origin": "http://evil.example"}, {"X-CSRF-Token": "x"}):
        assert ana.call("POST", "/api/join/link", body, {"X-CSRF-Token": form[1]} | wrong)[0] == 403
    assert ana.cookie == kept
    assert ana.call("POST", "/api/join/link", {"token": "wrong"}, {"X-CSRF-Token": form[1]})[0] == 403
    assert ana.call("POST", "/api/join/link", body, {"X-CSRF-Token": form[1]})[0] == 204
    assert "mal" in ana.call("GET", "/")[1]
    assert ana.call("GET", "/api/state", headers={"Cookie": kept})[0] == 401


def test_a_store_has_one_cookie_however_it_is_named(
    tmp_path: Path, start: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store_of(tmp_path / "votes.db", 3)
    monkeypatch.chdir(tmp_path)
    names = {Visitor(start(one).port).join("Ada").cookie.partition("=")[0] for one in (path, Path("votes.db"))}
    assert len(names) == 1
    others = store_of(tmp_path / "other.db", 1)
    assert Visitor(start(others).port).join("Ada").cookie.partition("=")[0] not in names


def test_beyond_loopback_a_link_is_needed(tmp_path: Path, start: Callable[..., Served]) -> None:
    path = store_of(tmp_path / "votes.db", 3)
    with Store.open(path) as store:
        owner, bob = store.invite("Owner"), store.invite("Bob")
    port = start(path, host="0.0.0.0", token_needed=True, owner="Owner").port
    visitors = {}
    for name, token in (("Owner", owner), ("Bob", bob)):
        visitor = visitors[name] = Visitor(port)
        visitor.token()
        assert visitor.call("POST", "/api/join", {"name": "Owner"})[0] == 403
        status, page, _ = visitor.call("GET", f"/join?token={token}")
        assert status == 200
        assert token not in page
        assert name in page
        visitor.token()
        assert visitor.state()["kind"] == "pair"
    assert visitors["Bob"].call("GET", "/results")[0] == 403
    status, page, answer = visitors["Owner"].call("GET", "/results")
    assert status == 200
    assert "0 votes" in page
    assert '<a href="/">Back to the ranking</a>' in page
    assert "script-src" not in (answer.getheader("Content-Security-Policy") or "")
    assert 'href="/results"' in visitors["Owner"].call("GET", "/")[1]
    assert 'href="/results"' not in visitors["Bob"].call("GET", "/")[1]


def test_wrong_links_are_counted(tmp_path: Path, start: Callable[..., Served]) -> None:
    path = store_of(tmp_path / "votes.db", 1)
    with Store.open(path) as store:
        good = store.invite("Ada")
    visitor = Visitor(start(path, token_needed=True, owner="Ada").port)
    tries = [visitor.call("GET", f"/join?token={token}")[0] for token in ["", "x", "x" * 5000, *["wrong"] * 7]]
    assert tries == [403] * 10
    assert visitor.call("GET", "/join?token=wrong")[0] == 429
    assert visitor.cookie == ""
    assert visitor.call("GET", f"/join?token={good}")[0] == 200, "who has a link comes in, whoever else tries"
    assert visitor.cookie


def test_beyond_loopback_without_tokens_there_is_no_page() -> None:
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0"):
        Access(host="0.0.0.0")
    assert Access(host="127.0.0.1", port=8000).link("t") == "http://127.0.0.1:8000/join?token=t"
    assert Access(host="::1", port=8).address == "http://[::1]:8/"


def test_a_proxys_name_can_be_allowed() -> None:
    access = Access(names=("rank.example",), token_needed=True)
    assert access.knows_host("rank.example:443")
    assert access.same_origin("https://rank.example", "127.0.0.1:8000")
    assert not access.same_origin("https://other.example", "127.0.0.1:8000")
    assert not access.knows_host("other.example")


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("https://rank.example.org", "https://rank.example.org/join?token=t"),
        ("rank.example.org", "http://rank.example.org:8100/join?token=t"),
        ("rank.example.org:9000", "http://rank.example.org:9000/join?token=t"),
    ],
)
def test_links_are_of_the_first_name(name: str, link: str) -> None:
    access = Access(port=8100, names=(name, "https://second.example"), token_needed=True)
    assert access.link("t") == link
    for host in ("rank.example.org", "RANK.example.org:443", "second.example", "127.0.0.1:8100"):
        assert access.knows_host(host)
    assert not access.knows_host("third.example")
    assert access.same_origin("https://rank.example.org", "127.0.0.1:8100")


@pytest.mark.parametrize(
    "name", ["", "*", "https://", "a/b", "ftp://a.example", "a b", "a.example\n", ".example", "a@b"]
)
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        Access(names=(name,), token_needed=True)


@pytest.mark.parametrize(("arguments", "needed"), [([], False), (["--name", "a.example", "--name", "b.example"], True)])
def test_a_page_with_a_name_of_its_own_needs_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], needed: bool
) -> None:
    """On the command line; who gives it a name lets others in."""
    asked: list[Access] = []
    monkeypatch.setattr(command, "serve_page", lambda _store, _ahead, access, **_: asked.append(access))
    rank.app(["serve", str(store_of(tmp_path / "votes.db", 1)), *arguments], standalone_mode=False)()
    assert (asked[0].token_needed, asked[0].names) == (needed, tuple(arguments[1::2]))


def test_the_cookie_is_for_https_only_where_the_visitor_came_by_it(
    tmp_path: Path, start: Callable[..., Served]
) -> None:
    path = store_of(tmp_path / "votes.db", 1)
    with Store.open(path) as store:
        token = store.invite("Ada")
    port = start(path, token_needed=True, names=["https://rank.example.org", "plain.example"]).port
    for host, secure in (("rank.example.org", True), ("plain.example", False), (f"127.0.0.1:{port}", False)):
        answer = Visitor(port).call("GET", f"/join?token={token}", headers={"Host": host})[2]
        assert ("secure" in (answer.getheader("Set-Cookie") or "").lower()) == secure, host


def test_the_server_answers_while_a_bomb_is_rendered(tmp_path: Path, start: Callable[..., Served]) -> None:
    bomb = Answer("<![CDATA[" * 2200 + "\n\n" + "a|" * 100)
    port = start(store_of(tmp_path / "votes.db", [pair(1, first=bomb, second=Answer("![" * 9000)), pair(2)])).port
    ada, bob = Visitor(port).join("Ada"), Visitor(port).join("Bob")
    thread = threading.Thread(target=ada.state)
    thread.start()
    assert bob.state()["kind"] in ("pair", "done")
    thread.join()
    assert ada.state()["kind"] == "pair"
