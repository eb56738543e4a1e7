"""A judge's server that is hostile: replies without end, in a trickle, of any form, and addresses to go elsewhere."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError, TrueupError
from trueup.evaluation import endpoint
from trueup.evaluation.endpoint import Endpoint
from trueup.evaluation.judges import EndpointJudge, refusal_verdict, verdict

KEY = "sk-test-0123456789"
PROMPT = (Message("user", "Which?"),)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request and then does as it likes; -> its url, and what it was sent."""
    server = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                threading.Thread(target=each, args=(one,), daemon=True).start()

    def each(one: socket.socket) -> None:
        with suppress(OSError), one:
            got.append(one.recv(2**20))
            answer(one)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", got
    finally:
        server.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_JUDGE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judged(url: str, **settings: float) -> list[float]:
    judge = EndpointJudge(url, "judge", **{"timeout": 0.4, "retries": 0, "pause": 0.01, **settings})  # pyright: ignore[reportArgumentType]
    return judge([PROMPT], ["a"], ["b"])


def trickle(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Never late by a timeout, and never done."""

    def answer(one: socket.socket) -> None:
        one.sendall(head)
        while True:
            one.sendall(piece)
            time.sleep(0.05)

    return answer


TRICKLES = {
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "no length": (HEAD + b"\r\n", b" "),
    "headers": (HEAD, b"X: y\r\n"),
    "one header": (HEAD + b"X: ", b"y"),
    "status": (b"", b"H"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "error": (b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n", b"e"),
}


@pytest.mark.parametrize("kind", TRICKLES)
def test_a_trickle_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 1)
    started = time.monotonic()
    with answering(trickle(*TRICKLES[kind])) as (url, _), suppress(TrueupError):
        assert all(map(math.isnan, judged(url)))  # no answer is an error; of one that was cut there is no verdict
    assert time.monotonic() - started < 30


def test_a_reply_without_end_is_read_in_part() -> None:
    sent = 0

    def answer(one: socket.socket) -> None:
        nonlocal sent
        one.sendall(HEAD + b"\r\n")
        while sent < 200_000_000:
            sent += one.send(b"a" * 2**20)

    with answering(answer) as (url, _):
        assert all(map(math.isnan, judged(url, timeout=5)))
    assert sent < 2 * (endpoint.LARGEST_REPLY + 8 * 2**20)


def reply(body: bytes) -> Callable[[socket.socket], None]:
    return lambda one: one.sendall(HEAD + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)


def content(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


NO_VERDICT = {
    "nothing": b"",
    "not JSON": b"<html>",
    "not UTF-8": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "nested content": b'{"choices": [{"message": {"content": ' + b"[" * 100_000,
    "a huge number": b'{"choices": ' + b"9" * 100_000 + b"}",
    "other types": b'{"choices": {"0": 1}}',
    "content of numbers": b'{"choices": [{"message": {"content": 1e999}}]}',
    "a score": content('{"verdict": 5}'),
    "a strange label": content('{"verdict": "C"}'),
    "half a character": content('{"verdict": "\ud800"}'),
    "infinite": content('{"verdict": "Infinity"}'),
    "both": content('{"verdict": "A"} {"verdict": "B"}'),
}


@pytest.mark.parametrize("body", NO_VERDICT.values(), ids=list(NO_VERDICT))
def test_a_reply_that_is_none_is_not_judged(body: bytes) -> None:
    with answering(reply(body)) as (url, _):
        assert all(map(math.isnan, judged(url)))


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:1/steal", "file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1:1/"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, where: str) -> None:
    def answer(one: socket.socket) -> None:
        one.sendall(f"HTTP/1.1 {status} Go\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())

    with answering(answer) as (url, got), pytest.raises(TrueupError, match=f"HTTP status {status}") as caught:
        judged(url)
    assert all(KEY.encode() in one for one in got)  # it was sent to the judge, and to nobody else
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/v1", "javascript:alert(1)", "http://", "//h/v1", "http://[::1"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint(url, "m")


def test_a_server_that_repeats_the_key_does_not_get_it_shown() -> None:
    def answer(one: socket.socket) -> None:
        told = f"no: Bearer {KEY}\x1b[2J".encode()
        one.sendall(b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(told) + told)

    with answering(answer) as (url, _), pytest.raises(TrueupError) as caught:
        judged(url)
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_proxy_of_the_environment_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(reply(content('{"verdict": "A"}'))) as (url, got):
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY")
        opener = urllib.request.build_opener(endpoint._NoRedirect, endpoint._Http, endpoint._Https)
        monkeypatch.setattr(endpoint, "_OPENER", opener)
        judged("http://somewhere.invalid/v1", timeout=5)
    assert got[0].startswith(b"POST http://somewhere.invalid/v1/chat/completions ")


UNITS = [
    "<think>",
    '"verdict"',
    '"verdict": ',
    "verdict: ",
    "answer A is ",
    " ",
    "(((",
    "better ",
    "a",
    "[[",
    '"refusal": ',
]


@pytest.mark.parametrize("unit", UNITS)
def test_reading_a_long_reply_takes_no_more_than_its_length(unit: str) -> None:
    """Four times the reply takes about four times as long: eight at most, where a square would take sixteen."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        started = time.process_time()
        verdict(text)
        refusal_verdict(text)
        return time.process_time() - started

    seconds(1000)  # what is compiled once is compiled
    length = endpoint.LARGEST_REPLY // 16
    assert seconds(4 * length) < 8 * seconds(length) + 1
