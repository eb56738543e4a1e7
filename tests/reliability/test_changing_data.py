"""Rows that change under a run, or in their cache: it trains on what it had read, or stops; never on others, unsaid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from data.tokens import making
from trueup.config import DataConfig
from trueup.data.tokens.build import tokenize
from trueup.errors import DataError
from trueup.training.step import Stepper


def cached(folder: Path) -> Path:
    """The one folder of tokens in a cache."""
    (found,) = (path for path in (folder / "tokens").iterdir() if not path.name.startswith("."))
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of this test alone."""
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def meddled(config: Any, meddle: Callable[[], object]) -> None:
    """Run a stage; before its third step somebody meddles."""
    real = Stepper.take

    def take(self: Stepper, step: int, check: Callable[[], None]) -> dict[str, float]:
        if step == 2:
            meddle()
        return real(self, step, check)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "take", take)
        tiny_data.run(config)


def flip(path: Path, at: int) -> None:
    """Change one bit, in place."""
    with path.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))


def flip_every_row(folder: Path) -> None:
    for at in range(0, (folder / "tokens.u32").stat().st_size, 4):
        flip(folder / "tokens.u32", at)


def append(path: Path, text: str = '{"prompt": "New?", "completion": "Yes."}\n') -> None:
    with path.open("a") as opened:
        opened.write(text)


HARMLESS: dict[str, Callable[[Path, Path], object]] = {
    "rows appended": lambda path, _: append(path),
    "file replaced": lambda path, _: path.write_text('{"prompt": "New?", "completion": "Yes."}\n' * 12),
    "file cut in the middle of a line": lambda path, _: os.truncate(path, 100),
    "file deleted": lambda path, _: path.unlink(),
    "cache deleted": lambda _, cache: shutil.rmtree(cache),
    "cache replaced": lambda _, cache: (shutil.copytree(cache, f"{cache}2"), shutil.rmtree(cache),
                                       Path(f"{cache}2").rename(cache), flip_every_row(cached(cache))),
}  # fmt: skip


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if "replaced" in name else [SLOW]) for name in HARMLESS])
def test_a_run_goes_on_with_what_it_had_read(name: str, tmp_path: Path, cache: Path) -> None:
    """Each row is read 2 times in 6 steps of 4, so the later steps would show other rows."""
    path = Path(tiny_data.data(tmp_path, "conversations"))
    whole, parts = (tiny_data.stage("sft", tmp_path, name, optim={"steps": 6}) for name in ("whole", "parts"))
    tiny_data.run(whole)
    meddled(parts, lambda: HARMLESS[name](path, cache))
    assert tiny_data.result(parts) == tiny_data.result(whole)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("tokens.u32", "flipped"),
        pytest.param("tokens.u32", "cut", marks=SLOW),
        pytest.param("records.bin", "flipped", marks=SLOW),
        ("records.bin", "cut"),
    ],
)
def test_a_cache_that_is_overwritten_in_place_stops_the_run(
    file: str, damage: str, tmp_path: Path, cache: Path
) -> None:
    """The file that is open is the one that changes: the next row read would be another one."""
    whole, parts = (tiny_data.stage("sft", tmp_path, name, optim={"steps": 6}) for name in ("whole", "parts"))
    tiny_data.run(whole)
    path = cached(cache) / file
    with pytest.raises(DataError, match="changed while it is in use\n  fix: run again: it is made again"):
        meddled(parts, lambda: flip(path, 0) if damage == "flipped" else os.truncate(path, 8))
    assert not (tmp_path / "parts" / "model").exists()
    tiny_data.run(parts)  # made anew
    assert tiny_data.result(parts) == tiny_data.result(whole)


def test_a_copy_that_opens_later_reads_the_same_rows_or_none(tmp_path: Path, cache: Path) -> None:
    """A `Tokenized` that was pickled to another process opens the files when it reads."""
    rows = making.tokens(tmp_path / "rows.jsonl", making.pairs(4))
    copy = type(rows).__new__(type(rows))
    copy.__dict__.update(rows.__getstate__())
    assert copy.example(1) == rows.example(1)
    later = type(rows).__new__(type(rows))
    later.__dict__.update(rows.__getstate__())
    flip(rows.folder / "tokens.u32", 0)
    with pytest.raises(DataError, match="changed while it is in use"):
        later.example(0)


@pytest.mark.parametrize(
    "name", ["appended", "deleted", *(pytest.param(name, marks=SLOW) for name in ("replaced", "cut", "cut in a line"))]
)
def test_between_the_parts_of_a_run_it_is_refused(name: str, tmp_path: Path, cache: Path) -> None:
    """Before the weights load, in words; with the old rows back it goes on as if nothing had been."""
    path = Path(tiny_data.data(tmp_path, "conversations"))
    whole, parts = (tiny_data.stage("sft", tmp_path, name, optim={"steps": 5}) for name in ("whole", "parts"))
    tiny_data.run(whole)
    assert "stopped at step" in tiny_data.run_stopped(parts, 9)
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    path.write_bytes(
        {
            "appended": before + b'{"prompt": "New?", "completion": "Yes."}\n',
            "replaced": b"".join(reversed(lines)),
            "cut": b"".join(lines[:8]),
            "cut in a line": before[:-10],
            "deleted": b"",
        }[name]
    )
    if name == "deleted":
        path.unlink()
    with pytest.raises(DataError) as caught:
        tiny_data.run(parts)
    assert str(path) in str(caught.value) or "not those of the checkpoint" in str(caught.value)
    path.write_bytes(before)
    tiny_data.run(parts)
    assert tiny_data.result(parts) == tiny_data.result(whole)


# ------------------------------------------------------------------ processes that tokenize

MANY = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from data.tokens import making
from trueup.data.tokens import build
build.CHUNK, build._ALONE = 8, 8
rows = ({{"prompt": "q " * 200, "completion": f"answer {{at}} " * 200}} for at in range(20_000))
making.tokens(Path({path!r}), list(rows), workers=2)
"""


def children(parent: int) -> set[int]:
    """Processes whose parent it is, with what it started to watch them left out."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()}


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def tokenizing(tmp_path: Path, cache: Path) -> subprocess.Popen[str]:
    """A process that tokenizes for a minute, its two children at work."""
    source = MANY.format(tests=str(Path(__file__).parent.parent), path=str(tmp_path / "rows.jsonl"))
    process = subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(children(process.pid)) == 2 or process.poll() is not None)
    time.sleep(1)
    return process


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_reading_in_words(tokenizing: subprocess.Popen[str], cache: Path) -> None:
    killed, other = children(tokenizing.pid)
    os.kill(killed, signal.SIGKILL)
    said = tokenizing.communicate(timeout=30)[1]
    assert tokenizing.returncode == 1
    assert "DataError: a process that tokenizes rows was ended (out of memory, or killed)" in said
    assert "fix: set threads=1" in said
    wait_for(lambda: not Path(f"/proc/{other}").exists(), 10)
    assert not list((cache / "tokens").iterdir())


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tokenizing: subprocess.Popen[str]) -> None:
    """Killed, it cannot tell them to."""
    workers = children(tokenizing.pid)
    tokenizing.kill()
    tokenizing.communicate()
    wait_for(lambda: not any(_alive(one) for one in workers), 10)


def _alive(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, cache: Path) -> None:
    """Appended to, cut, or deleted: nothing is kept, and the message names the file."""
    for meddle in (
        append,
        lambda path: os.truncate(path, path.stat().st_size // 2),
        Path.unlink,
    ):
        path = making.write(tmp_path / "rows.jsonl", making.pairs(2_000))
        done: list[int] = []

        def tick(rows: int, _share: float, path: Path = path, meddle: Any = meddle, done: list[int] = done) -> None:
            if not done:
                meddle(path)
            done.append(rows)

        with pytest.raises(DataError, match=r"rows\.jsonl") as caught:
            tokenize(DataConfig(path=str(path)), ["conversation"], making.renderer(), tick=tick)
        assert "it was changed while it was read" in str(caught.value) or "not JSON" in str(caught.value), caught.value
        assert not list((cache / "tokens").iterdir())
