"""A fuzzing campaign: many broken inputs to one function, for so many seconds, and what each must not do.

A function under test may return or raise an error of trueup's family whose message is short. All else is a finding: any
other exception, five seconds of processor time (or a minute) without an end, half a gigabyte of memory, a file written
or read outside of its folder, a program started. Findings are told apart by where they were raised, shrunk a little,
and written to a folder.

    TRUEUP_FUZZ_SECONDS=3600 python -m pytest -m slow tests/fuzz      # an hour each instead of the 205 seconds
    TRUEUP_FUZZ_SEED=7                                                # other inputs
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import FrameType

from trueup import errors
from trueup.data.rendering import probe
from trueup.system.text import clean

SECONDS = float(os.environ.get("TRUEUP_FUZZ_SECONDS", "205"))
SEED = int(os.environ.get("TRUEUP_FUZZ_SEED", "0"))
PATIENCE = 5.0
"""Seconds of processor time that an input may take, whatever else the machine does; 12 times as many by the clock."""
MEMORY = 512 * 2**20
"""Bytes that this process may grow by for one input."""
MESSAGE_LINES, MESSAGE_LENGTH = 6, 4000
SOURCES = str(Path(errors.__file__).parent)
PUBLIC = tuple(error for error in errors.TrueupError.__subclasses__() if error.__module__ == errors.__name__)


class Hang(BaseException):
    """An input took too long."""


class Breach(BaseException):
    """A file outside of the folder, or another program."""


@dataclass(frozen=True)
class Case:
    """An input: what it is for, its bytes, and settings beside them."""

    kind: str
    data: bytes
    words: tuple[str, ...] = ()


@dataclass
class Finding:
    """What an input did that it must not."""

    signature: str
    details: str
    case: Case
    number: int
    seen: int = 1


@dataclass
class Campaign:
    """The state of one run: where files may be, and what was found."""

    folder: Path
    check: Callable[[Case], object]
    findings: dict[str, Finding] = field(default_factory=dict)
    refused: int = 0
    accepted: int = 0

    def judge(self, case: Case, number: int = 0) -> Finding | None:
        """Run one case. -> what was wrong, if anything."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with confined(self.folder), patient():
                self.check(case)
            self.accepted += 1
        except errors.TrueupError as error:
            self.refused += 1
            if said := wrong_message(error):
                return Finding(f"{said} {_place(error)}", str(error)[:3000], case, number)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - Rust's panics are BaseExceptions
            signature = f"{type(error).__name__} {_place(error)}"
            return Finding(signature, "".join(traceback.format_exception(error))[-3000:], case, number)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        return Finding(f"memory: {grown >> 20} MiB", "", case, number) if grown > MEMORY else None


def fuzz(
    name: str, draw: Callable[[Random], Case], check: Callable[[Case], object], folder: Path, seconds: float
) -> None:
    """Draw cases and check them until the time is over; fails with all that was found."""
    campaign = Campaign(folder, check)
    began, number = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        number += 1
        case = draw(Random(f"{SEED}-{name}-{number}"))
        finding = campaign.judge(case, number)
        if finding is None:
            continue
        known = campaign.findings.setdefault(finding.signature, finding)
        known.seen += known is not finding
    spent = time.monotonic() - began
    told = f"{name}: {number} inputs in {spent:.0f} s ({number / spent:.0f}/s), {campaign.refused} refused, "
    told += f"{campaign.accepted} accepted, {len(campaign.findings)} findings, seed {SEED}"
    print(told)
    for at, finding in enumerate(campaign.findings.values()):
        small = shrunk(campaign, finding)
        told += f"\n\n#{finding.number}, {finding.seen} times: {finding.signature}\n{finding.details}\n"
        told += written(folder, at, small)
    assert not campaign.findings, told


def written(folder: Path, at: int, case: Case) -> str:
    """Put the input into files. -> where."""
    place = folder / "findings"
    place.mkdir(exist_ok=True)
    (place / f"{at}.input").write_bytes(case.data)
    (place / f"{at}.json").write_text(json.dumps({"kind": case.kind, "words": case.words}))
    return f"{place / str(at)}.input: {case.kind} {case.words} {case.data[:300]!r}"


def shrunk(campaign: Campaign, finding: Finding, seconds: float = 5.0) -> Case:
    """A smaller case with the same finding, as far as a few seconds of leaving out pieces go."""
    case, until = finding.case, time.monotonic() + seconds
    size = max(1, len(case.data) // 2)
    while size and time.monotonic() < until:
        smaller = False
        for start in range(0, len(case.data), size):
            less = replace(case, data=case.data[:start] + case.data[start + size :])
            if time.monotonic() > until or finding.signature.startswith("Hang"):
                return case
            again = campaign.judge(less)
            if again is not None and again.signature == finding.signature:
                case, smaller = less, True
                break
        size = size if smaller else size // 2
    return case


def wrong_message(error: errors.TrueupError) -> str | None:
    """What is wrong with an error's message, if anything: every one is seen by a person, and in a terminal."""
    text = str(error)
    if not isinstance(error, PUBLIC):  # what catches one of them catches a class derived from it
        return f"{type(error).__name__} is none of the family"
    if not text.strip():
        return "an empty message"
    shown = clean(text)
    if text.count("\n") >= MESSAGE_LINES or len(text) > MESSAGE_LENGTH:
        return f"a message of over {MESSAGE_LINES} lines or {MESSAGE_LENGTH} characters"
    raw = [c for c in shown if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    return f"control characters {raw[:5]!r} in a message" if raw else None


def _place(error: BaseException) -> str:
    """Where it was raised: the deepest line of trueup's, and what it called."""
    frames = traceback.extract_tb(error.__traceback__)
    if len(frames) > 200:  # a recursion: its depth, and so its end, is chance
        frames = frames[:40]
    ours = [frame for frame in frames if frame.filename.startswith(SOURCES)] or frames
    deepest = ours[-1]
    return f"at {Path(deepest.filename).name}:{deepest.lineno} in {deepest.name}"


@contextmanager
def patient() -> Iterator[None]:
    """Raise Hang where it takes longer than PATIENCE."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"over {PATIENCE} s")

    clocks = (
        (signal.ITIMER_PROF, signal.SIGPROF, PATIENCE),  # it computes
        (signal.ITIMER_REAL, signal.SIGALRM, 12 * PATIENCE),  # it waits
    )
    before = [signal.signal(number, ring) for _, number, _ in clocks]
    for clock, _, seconds in clocks:
        signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


# -- files outside ---------------------------------------------------------------------------------------------------

READABLE = tuple(
    {*(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, SOURCES, str(Path(__file__).parent.parent))),
     sys.prefix, "/usr", "/lib", "/proc",
     "/sys", "/dev/null", "/dev/urandom", "/etc/localtime", "/etc/mime.types"}
)  # fmt: skip
CHANGING = {
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
}
PROGRAMS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
}
_allowed: list[str] = []


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Raise Breach where a file outside of the folder is written, or one that is none of Python's read."""
    if not _hooked:
        sys.addaudithook(_watch)
        _hooked.append(True)
    _allowed.append(os.path.realpath(folder))
    try:
        yield
    finally:
        _allowed.pop()


_hooked: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if not _allowed:
        return
    if event == "subprocess.Popen" and isinstance(arguments[1], list) and probe._CHILD in arguments[1]:
        # The child that tries a chat template.
        return
    if event in PROGRAMS:
        raise Breach(f"{event} {arguments[:2]!r}")
    if event == "open":
        path, mode, flags = (*arguments, None, None, None)[:3]
        writes = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        _within(event, path, reads=not writes and not (isinstance(mode, str) and set(mode) & set("wax+")))
    elif event in CHANGING:
        paths, folders = (
            (arguments[:2], arguments[2:]) if event in ("os.rename", "os.link") else (arguments[:1], arguments[-1:])
        )
        if all(folder == -1 or not isinstance(folder, int) for folder in folders):  # else within one judged already
            for path in paths:
                _within(event, path, reads=False)


def _within(event: str, path: object, *, reads: bool) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a descriptor: it was judged when it was opened
    real = os.path.realpath(os.fsdecode(path))
    places = (*_allowed[-1:], *(READABLE if reads else ("/dev/null",)))
    if not any(real == place or real.startswith(f"{place}/") for place in places):
        raise Breach(f"{event} {real}")
