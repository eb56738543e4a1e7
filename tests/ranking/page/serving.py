"""Stores to rank on, a server in a process of its own, and a visitor without a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import warm
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, NewPair, NewPrompt, StoreSettings, Vote
from trueup.ranking.page.aliases import Aliases, NumberKind

SOURCE = Path(__file__).parents[3] / "src"

SERVER = """
import sys, json
from trueup.ranking.page import Access, serve
from trueup.data.votes.store import Store

with Store.open(sys.argv[1]) as store:
    access = Access(**json.loads(sys.argv[2]))
    ready = lambda access: print(access.port, flush=True)
    code = serve(store, None, access, say=lambda line: print(line, flush=True), ready=ready)
    print("votes", len(store.votes()), flush=True)
sys.exit(code)
"""


def pair(number: int, **given: Any) -> NewPair:
    """Pair `number`: two short answers that say which pair and which answer they are."""
    prompt = NewPrompt((Message("user", f"Question {number}?"),))
    first, second = (Answer(f"pair {number}, {side}", model=f"secret-{side}") for side in ("first", "second"))
    return NewPair(**{"prompt": prompt, "first": first, "second": second} | given)


def alias(store: Store, vote: Vote, kind: NumberKind = "pair") -> str:
    """The alias under which the page of a vote's rater knows the pair, or the vote."""
    return Aliases(store.salt).alias(kind, vote.rater.id, vote.ballot.pair if kind == "pair" else vote.id)


def vote_of(store: Store, saved: str) -> Vote:
    """The vote that the page knows under this alias."""
    return next(vote for vote in store.votes() if alias(store, vote, "vote") == saved)


def store_of(path: Path, pairs: list[NewPair] | int, **settings: Any) -> Path:
    """A store with pairs, closed; no gold ones by default."""
    with Store.open(path, create=True) as store:
        store.configure(StoreSettings(**{"gold_every": 0} | settings))
        store.add_pairs(map(pair, range(1, pairs + 1)) if isinstance(pairs, int) else pairs)
    return path


class Served:
    """A server in a process of its own."""

    def __init__(self, store: Path, port: int = 0, **access: Any) -> None:
        given = json.dumps({"port": port} | access)
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        self.process = warm.Popen(
            [sys.executable, "-c", SERVER, str(store), given],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        first = self.process.stdout.readline().strip()
        if not first.isdecimal():
            raise AssertionError(f"{first}\n{self.process.communicate()[1]}")
        self.port = int(first)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str, float]:
        """A signal. -> exit code, what was printed since, stderr, seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err, time.monotonic() - began


class Visitor:
    """A browser of a few lines: cookies, the page's token, its Origin."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port, self.host = port, f"{host}:{port}"
        self.cookie = self.csrf = ""

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str | None] | None = None
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        """-> status, JSON or text, the answer with its headers."""
        sent: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie or None}
        data = body if isinstance(body, bytes) else None if body is None else _json(body)
        if method == "POST":
            sent |= {"Origin": f"http://{self.host}", "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        sent |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json and text else text, answer

    def token(self) -> None:
        """Read the page's token."""
        found = re.search(r'name="csrf" content="([^"]+)"', self.call("GET", "/")[1])
        self.csrf = found[1] if found else ""

    def join(self, name: str) -> Visitor:
        self.token()
        status, answer, _ = self.call("POST", "/api/join", {"name": name})
        assert status == 204, answer
        self.token()
        return self

    def state(self) -> Any:
        status, state, _ = self.call("GET", "/api/state")
        assert status == 200, state
        return state

    def vote(self, shown: Any, choice: str = "a", **more: Any) -> tuple[int, Any]:
        said = {"request": secrets.token_hex(8), "pair": shown["id"], "a": shown["print"], "choice": choice} | more
        return self.call("POST", "/api/vote", said)[:2]

    def undo(self) -> Any:
        return self.call("POST", "/api/undo", {"request": secrets.token_hex(8)})[1]


def _json(body: Any) -> bytes:
    """As a browser writes it: UTF-8, but for halves of surrogate pairs."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()
