"""The screen of a chat: read what a person types, and show answers in one column or two as they grow."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from types import FrameType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trueup.errors import DataError
from trueup.system.text import clean

FENCE = '"""'
WIDE = 100
"""Two answers are shown side by side from this terminal width."""
_REFRESH = 0.1  # seconds
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_DIM, _UNDIM = "\x1b[2m", "\x1b[22m"
_MARGIN = 4  # columns left free at the right, for the ^C that a terminal writes: in a line of its own it would stay

Show = Callable[[int, str], None]
"""Takes the model's number and a cleaned piece of its answer."""


def say(text: str) -> None:
    """Print a notice of the program to stderr, so that stdout holds only the models' answers."""
    sys.stdout.flush()
    print(clean(text), file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class TypedEntry:
    """A person's input: a message to the model, or a command that begins with a slash."""

    text: str
    command: bool


class InputReader:
    """Reads messages and commands from stdin.

    A line that ends with a backslash goes on in the next one; lines between two lines of three quotation marks are one
    message. At a terminal there is a prompt, with readline's editing and history where Python has it.
    """

    def __init__(self) -> None:
        """Find out if stdin is a terminal, and then load readline."""
        self.interactive = sys.stdin.isatty()
        self._warned = False
        if self.interactive:
            with suppress(ImportError):
                import_module("readline")  # `input` uses it from now on

    def read(self) -> TypedEntry | None:
        """Return the next message or command; None at the end of the input.

        Raises:
            KeyboardInterrupt: Ctrl-C twice in a row, or once where the input is no terminal.
            DataError: the input is not UTF-8.
        """
        while True:
            try:
                entry = self._entry()
            except KeyboardInterrupt:
                if self._warned or not self.interactive:
                    raise
                self._warned = True
                say("\n(Ctrl-C again or /quit ends)")
                continue
            self._warned = False
            if entry is None or entry.text:
                return entry

    def _entry(self) -> TypedEntry | None:
        line = self._line("> ")
        if line is None:
            return None
        if line.strip() == FENCE:
            return TypedEntry("\n".join(self._until_fence()).strip("\n"), command=False)
        lines = [line]
        while lines[-1].endswith("\\") and (line := self._line("| ")) is not None:
            lines.append(line)
        text = "\n".join([*(part.removesuffix("\\") for part in lines[:-1]), lines[-1]])
        return TypedEntry(text.strip(), command=text.startswith("/"))

    def _until_fence(self) -> Iterator[str]:
        while (line := self._line("| ")) is not None and line.strip() != FENCE:
            yield line

    def _line(self, prompt: str) -> str | None:
        if self.interactive and not sys.stdout.isatty():
            print(prompt, end="", file=sys.stderr, flush=True)
        try:
            line = input(prompt if self.interactive and sys.stdout.isatty() else "")
            line.encode()
        except EOFError:
            if self.interactive:
                say("")
            return None
        except UnicodeError as error:
            raise DataError("the input is not UTF-8 text\n  fix: set the terminal to UTF-8, or convert it") from error
        return line


@contextmanager
def ctrl_c(wanted: bool) -> Iterator[Callable[[], None]]:
    """Return a context in which Ctrl-C raises KeyboardInterrupt only when the yielded function `check` is called.

    A second Ctrl-C before that raises at once. Off the main thread, or if not `wanted`, Ctrl-C is left as it was.
    """
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = not pressed
        if not pressed:
            raise KeyboardInterrupt

    def check() -> None:
        nonlocal pressed
        if pressed:
            pressed = False
            raise KeyboardInterrupt

    if not wanted or threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def answers(console: Console, labels: Sequence[str]) -> AbstractContextManager[Show]:
    """Return a context that shows models' answers while they are sampled.

    They stand side by side on a wide terminal, else one after the other. The context yields a function that is called
    with the model's number and the next piece of its text.
    """
    side_by_side = len(labels) > 1 and console.is_terminal and console.width >= WIDE
    return _columns(console, labels) if side_by_side else _stacked(console, labels)


@contextmanager
def _stacked(console: Console, labels: Sequence[str]) -> Iterator[Show]:
    now: int | None = None
    dims = console.is_terminal and console.color_system is not None
    text = ""

    def show(side: int, piece: str) -> None:
        nonlocal now, text
        if side != now:
            if len(labels) > 1:
                print(f"{'' if now is None else chr(10)}{labels[side]}")
            now, text = side, ""
        before, text = len(text), text + piece
        print(_dimmed(text, before) if dims else piece, end="", flush=True)

    try:
        yield show
    finally:
        print(flush=True)


def _dimmed(text: str, start: int) -> str:
    """Return the text from `start` on as a terminal gets it, with thoughts (<think>…</think>) dimmed."""
    pieces: list[str] = []
    at = start
    for match in _THOUGHT.finditer(text):
        first, last = max(match.start(), start), match.end()
        if last > first:
            pieces += [text[at:first], _DIM, text[first:last], _UNDIM]
            at = last
    return "".join([*pieces, text[at:]])


@contextmanager
def _columns(console: Console, labels: Sequence[str]) -> Iterator[Show]:
    pair = _Columns(labels)
    shown_at = 0.0
    try:
        with Live(_Tail(pair), console=console, auto_refresh=False, transient=True, redirect_stderr=False) as live:

            def show(side: int, piece: str) -> None:
                nonlocal shown_at
                pair.texts[side] += piece
                if time.monotonic() - shown_at > _REFRESH:
                    shown_at = time.monotonic()
                    live.refresh()

            yield show
    finally:
        console.print(pair, width=console.width - _MARGIN)


class _Columns:
    """A table for rich in which the answers of the models stand side by side, each below its label."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.texts = [""] * len(labels)

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in self._labels:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(Text(label, style="bold") for label in self._labels))
        table.add_row(*map(_with_thought, self.texts))
        return table


def _with_thought(text: str) -> Text:
    """Return an answer for rich, with its thought dimmed."""
    shown = Text(text)
    for match in _THOUGHT.finditer(text):
        shown.stylize("dim", *match.span())
    return shown


class _Tail:
    """A renderable for rich that shows only the last lines of the columns, as many as the screen is high."""

    def __init__(self, inner: _Columns) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._inner, options.update_width(options.max_width - _MARGIN), pad=False)
        for line in lines[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()
