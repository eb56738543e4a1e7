"""Fifty raters at once, at the pace of people: no vote lost, doubled or mixed up. As a script it prints the times."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import warm
from ranking.page.serving import alias
from thorough import THOROUGH
from trueup.data.votes.store import Store
from trueup.ranking.page.access import csrf_token

RATERS, VOTES = 50, 6 if THOROUGH else 2
CHOICES = ("a", "b", "tie", "both_bad", "skip")


@dataclass
class Session:
    """A rater's browser: one kept connection, a cookie, and what it was told."""

    name: str
    port: int
    rng: random.Random
    think: float
    seconds: list[float] = field(default_factory=list)
    saved: dict[str, tuple[int, str, str]] = field(default_factory=dict)  # request -> pair, the text preferred, choice

    async def run(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.think))  # fifty people do not click in the same millisecond
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        form = re.search(r'csrf[^>]*content="([^"]+)"', (await self.call("GET", "/", timed=False))[1])
        assert form is not None
        self.cookie, self.token = "", form[1]
        head, _ = await self.call("POST", "/api/join", {"name": self.name}, timed=False)
        cookie = re.search(r"set-cookie: ([^;]+)", head, re.IGNORECASE)
        assert cookie is not None, head
        self.cookie, self.token = cookie[1], csrf_token(cookie[1].partition("=")[2])
        state = json.loads((await self.call("GET", "/api/state"))[1])
        for at in range(VOTES):
            if state["kind"] != "pair":
                break
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * self.think)
            state = await self.vote(state["pair"], f"{self.name.replace(' ', '-')}-vote-{at:04}")
        self.writer.close()

    async def vote(self, pair: dict[str, Any], request: str) -> dict[str, Any]:
        choice = self.rng.choice(CHOICES)
        body = {
            "request": request,
            "pair": pair["id"],
            "a": pair["print"],
            "choice": choice,
            "note": self.note(pair["id"]),
        }
        _, answer = await self.call("POST", "/api/vote", body)
        told = json.loads(answer)
        assert told.get("choice") == choice, told
        self.saved[request] = (pair["id"], pair[choice]["text"] if choice in "ab" else "", choice)
        if self.rng.random() < 0.1:  # the answer was lost on the way: the page sends the same again
            _, again = await self.call("POST", "/api/vote", body)
            assert json.loads(again)["saved"] == told["saved"]
        return told["state"]

    def note(self, pair: str) -> str:
        return f"{self.name} on {pair}"

    async def call(self, method: str, path: str, body: Any = None, *, timed: bool = True) -> tuple[str, str]:
        sent = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(sent)}"]
        if method == "POST":
            lines += [f"Origin: http://127.0.0.1:{self.port}", f"X-CSRF-Token: {self.token}"]
            lines += ["Content-Type: application/json"]
        if getattr(self, "cookie", ""):
            lines += [f"Cookie: {self.cookie}"]
        started = time.perf_counter()
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        answer = await self.reader.readexactly(int(length[1])) if length else b""
        if timed:
            self.seconds.append(time.perf_counter() - started)
        assert head.split()[1] in ("200", "204"), head + answer.decode()
        return head, answer.decode()


def filled(path: Path, pairs: int) -> Path:
    """A file of pairs as long as real ones."""
    words = ["the", "answer", "to", "this", "is", "not", "a", "short", "one", "`x = 1`", "people", "like", "reasons"]
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as handle:
        for at in range(pairs):
            one, other = (" ".join(rng.choices(words, k=120)) for _ in range(2))
            row = {"prompt": f"Question {at}?", "chosen": f"{one} {at}", "rejected": f"{other} {at}"}
            handle.write(json.dumps(row) + "\n")
    return path


async def load(port: int, raters: int, think: float) -> list[Session]:
    sessions = [Session(f"rater {at:02}", port, random.Random(at), think) for at in range(raters)]
    await asyncio.gather(*(one.run() for one in sessions))
    return sessions


def measured(folder: Path, think: float, *, pairs: int = 600, raters_per_pair: int = 2) -> tuple[list[Session], Path]:
    """Serve a store from the command line and load it. -> what every rater saw, and the store."""
    store = folder / "votes.db"
    command = [
        sys.executable,
        "-m",
        "trueup",
        "rank",
        str(store),
        "--pairs",
        str(filled(folder / "pairs.jsonl", pairs)),
    ]
    with warm.Popen(
        [*command, "--port", "0", "--raters-per-pair", str(raters_per_pair)], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            port = next(int(at[1]) for line in server.stderr if (at := re.search(r"http://[^:]+:(\d+)/", line)))
            # In a thread: a browser that is open in this one (see conftest) has its own loop of events.
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(lambda: asyncio.run(load(port, RATERS, think))).result(), store
        finally:
            server.terminate()
            server.wait(20)


def p95(sessions: list[Session]) -> float:
    seconds = sorted(second for one in sessions for second in one.seconds)
    return seconds[int(0.95 * len(seconds))]


def check(sessions: list[Session], path: Path) -> None:
    """Every vote that a rater was told is saved is in the store once, as it was said, and no other is."""
    with Store.open(path) as store:
        votes, pairs = store.votes(), {pair.id: pair for pair in store.pairs()}
        aliases = {vote.id: alias(store, vote) for vote in votes}
    assert len(votes) == RATERS * VOTES == sum(len(one.saved) for one in sessions)
    told = {request: (one, *said) for one in sessions for request, said in one.saved.items()}
    assert len({(vote.rater.id, vote.ballot.pair) for vote in votes}) == len(votes)
    for vote in votes:
        session, pair, preferred, choice = told[vote.ballot.request]
        assert (vote.rater.name, aliases[vote.id], vote.ballot.note) == (
            session.name,
            pair,
            session.note(aliases[vote.id]),
        )
        if choice in "ab":
            assert vote.ballot.choice in ("first", "second")
            assert pairs[vote.ballot.pair].answer(vote.ballot.choice).text == preferred
            assert (vote.left == vote.ballot.choice) == (choice == "a")
        else:
            assert vote.ballot.choice == choice
    counted = Counter(vote.ballot.pair for vote in votes if vote.ballot.choice != "skip")
    assert max(counted.values()) <= 2  # leases hold: never more raters on a pair than were asked for


def test_fifty_raters_at_once_lose_double_and_mix_up_nothing(tmp_path: Path) -> None:
    """A vote a second each, faster than anybody reads. How long a request takes is what the script measures."""
    check(*measured(tmp_path, think=1.0))


def main() -> None:
    import tempfile

    for think in (1.0, 0.4, 0.0):
        with tempfile.TemporaryDirectory() as folder:
            sessions, _ = measured(Path(folder), think)
            seconds = sorted(second for one in sessions for second in one.seconds)
            print(
                f"{RATERS} raters, a vote every {think} s each: {len(seconds)} requests, median "
                f"{1000 * seconds[len(seconds) // 2]:.0f} ms, p95 {1000 * p95(sessions):.0f} ms"
            )


if __name__ == "__main__":
    main()
