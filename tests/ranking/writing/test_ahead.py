"""The models seen from the server: what a page is told, and a child that ends with the server and never hangs it.

The children here are a few lines of Python each, which say and do what the real one (see test_writer.py) might.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trueup.config.ranking import RankConfig
from trueup.ranking.writing import ahead as module
from trueup.ranking.writing.ahead import AnswerWriter

CONFIG = RankConfig(model=["a"])
PROMPT = {"id": 7, "messages": [{"role": "user", "content": "Hi?"}], "tags": ["greeting"], "origin": "p.jsonl:1"}
HELPERS = """
import json, os, signal, sys, time
def say(**line):
    print(json.dumps(line), flush=True)
def rest():
    sys.stdin.read()
    os._exit(0)
told = json.loads(sys.stdin.readline())
"""


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.fixture
def child(monkeypatch, tmp_path) -> Iterator[Callable[[str], AnswerWriter]]:
    """Starts an `AnswerWriter` whose child runs the given lines; all are stopped at the end."""
    started: list[AnswerWriter] = []

    def start(lines: str) -> AnswerWriter:
        monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", HELPERS + textwrap.dedent(lines)))
        started.append(AnswerWriter(tmp_path / "votes.db", CONFIG))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def pid(ahead: AnswerWriter) -> int:
    process = ahead._process
    assert process is not None
    return process.pid


def is_there(pid: int) -> bool:
    """Whether a process is there, be it as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------ what is said


def test_the_child_is_told_the_store_and_the_configuration(child, tmp_path):
    told = tmp_path / "told.json"
    child(
        f"open({str(told)!r} + '~', 'w').write(json.dumps(told)); os.rename({str(told)!r} + '~', {str(told)!r}); rest()"
    )
    until(told.exists)
    line = json.loads(told.read_text())
    assert line["store"] == str(tmp_path / "votes.db")
    assert RankConfig.model_validate(line["config"]) == CONFIG


def test_a_pair_is_watched_as_it_grows(child):
    ahead = child(
        f"""
        say(state="writing")
        say(begin={PROMPT!r})
        for line in sys.stdin:
            say(side="first", piece="Hel")
            say(side="first", piece="lo")
            break
        sys.stdin.readline()
        say(side="first", whole="Hello.")
        say(side="second", piece="Yes")
        say(end=True)
        say(state="ahead")
        rest()
        """
    )
    until(lambda: ahead.state() == "writing" and ahead.writing())
    got = ahead.writing()
    assert (got.prompt.id, got.prompt.messages[0].content, got.prompt.tags) == (7, "Hi?", ("greeting",))
    assert (got.first, got.second, got.done) == ("", "", False)
    ahead.ask()
    until(lambda: ahead.writing().first == "Hello")
    time.sleep(module._ASKS)
    ahead.ask()
    until(lambda: ahead.state() == "ahead")
    got = ahead.writing()
    assert (got.first, got.second, got.done) == ("Hello.", "Yes", True)


def test_a_pair_that_came_to_nothing_is_not_shown_on(child):
    ahead = child(f"say(begin={PROMPT!r}); say(end=False); say(state='done'); rest()")
    until(lambda: ahead.state() == "done")
    assert ahead.writing() is None


def test_a_hundred_who_ask_are_few_lines(child, tmp_path):
    count = tmp_path / "count"
    ahead = child(
        f"""
        lines = [line for line in sys.stdin]
        open({str(count)!r}, "w").write(str(len(lines)))
        """
    )
    for _ in range(100):
        ahead.ask()
    ahead.stop()
    assert count.read_text() in ("1", "2")


def test_what_was_left_out_is_counted_with_where_it_came_from(child):
    ahead = child(
        """
        for at in (4, 7, 9, 12, 12):
            say(left_out=at, what="prompt", why="left out, too long for base", origin=f"p.jsonl:{at}")
        say(left_out=1, what="prompt", why="left out, as both answers were the same", origin="")
        say(state="done")
        rest()
        """
    )
    until(lambda: ahead.state() == "done")
    assert ahead.notes == [
        "4 prompts left out, too long for base: p.jsonl:4, p.jsonl:7, p.jsonl:9 and 1 more",
        "1 prompt left out, as both answers were the same",
    ]


# ------------------------------------------------------------------ when it goes wrong


def test_a_model_that_cannot_be_loaded_is_said_once(child, tmp_path):
    ahead = child("say(failed='model: no such folder'); sys.exit(4)")
    until(lambda: ahead.state() == "failed")
    until(lambda: ahead._process.poll() is not None)
    ahead._listener.join(5)
    assert (ahead.problem, ahead.notes, ahead._starts) == ("model: no such folder", [], 1)
    ahead.ask()  # nobody is there: nothing happens


def test_a_child_that_dies_is_started_again_once(child):
    """Killed as by the kernel for want of memory; what it had begun is not shown on."""
    ahead = child(
        f"""
        say(begin={PROMPT!r})
        print("loading", file=sys.stderr)
        print("a last word \\x1b[31m", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    until(lambda: ahead.state() == "failed")
    assert ahead.notes == [
        "the process that writes answers was killed by SIGKILL (out of memory?) and was started again"
    ]
    assert ahead.problem == (
        "the process that writes answers was killed by SIGKILL (out of memory?), twice; its last output: "
        '"a last word \\x1b[31m"'
    )
    assert ahead.writing() is None
    assert not is_there(pid(ahead))


def test_the_second_child_goes_on(child, tmp_path):
    ahead = child(
        f"""
        import pathlib
        first = not pathlib.Path({str(tmp_path / "seen")!r}).exists()
        pathlib.Path({str(tmp_path / "seen")!r}).touch()
        if first:
            sys.stdout.write('{{"state": "do')
            sys.exit(3)
        say(state="ahead")
        rest()
        """
    )
    until(lambda: ahead.state() == "ahead")
    assert (ahead.problem, ahead.notes) == (
        "",
        ["the process that writes answers ended with exit code 3 and was started again"],
    )


def test_much_on_stderr_does_not_hold_the_child_up(child):
    ahead = child(
        "sys.stderr.write('x' * 79 + '\\n' * 1); sys.stderr.write('warning\\n' * 200_000); say(state='done'); rest()"
    )
    until(lambda: ahead.state() == "done")
    assert ahead.problem == ""


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize(
    "lines",
    [
        "rest()",
        "time.sleep(60)",  # never looks at its stdin, as while a library is imported
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(state='done'); time.sleep(60)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "say(failed='no'); sys.exit(4)",
        "sys.exit(3)",
    ],
    ids=["hears", "deaf", "stubborn", "stopped", "failed", "dying"],
)
def test_stop_ends_it_and_leaves_no_zombie(child, lines):
    ahead = child(lines)
    time.sleep(0.3)
    began = time.monotonic()
    ahead.stop()
    assert time.monotonic() - began < 30
    assert not is_there(pid(ahead))
    assert not ahead._listener.is_alive()
    starts = ahead._starts
    ahead.stop()
    ahead.start()
    ahead.ask()
    assert ahead._starts == starts
    assert ahead.problem in ("", "no") or "exit code 3" in ahead.problem


def test_stop_before_start(tmp_path):
    ahead = AnswerWriter(tmp_path / "votes.db", CONFIG)
    ahead.stop()
    ahead.start()
    assert ahead._process is None


def test_a_child_that_reads_nothing_hangs_nobody(child, monkeypatch):
    """The pipe holds 64 KiB."""
    monkeypatch.setattr(module, "_ASKS", 0.0)
    ahead = child("say(state='writing'); time.sleep(60)")
    until(lambda: ahead.state() == "writing")
    began = time.monotonic()
    for _ in range(40_000):
        ahead.ask()
    assert time.monotonic() - began < 30
    ahead.stop()


def test_the_terminals_ctrl_c_does_not_reach_it(child):
    ahead = child("say(state='done'); rest()")
    until(lambda: ahead.state() == "done")
    assert os.getpgid(pid(ahead)) != os.getpgid(0)


def test_the_servers_side_imports_no_torch():
    heavy = ("torch", "transformers")
    code = f"import sys, trueup.ranking.writing.ahead; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
