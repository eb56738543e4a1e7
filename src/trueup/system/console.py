"""Terminal output: a live progress line (in a log file, a few plain lines), messages and tables.

Progress, notes and warnings go to stderr, results to stdout. Text from data or models passes through `clean`, so it
cannot move the cursor or act as markup. Everything fits 80 columns.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trueup.system.text import (
    clean,
    duration,
    format_number,
    masked,
    short_count,
)

_WIDTH = 80
_DEFAULT_NUMBERS = 3  # numbers shown when a stage names none
_PLAIN_LINES = 10  # a log file gets about this many progress lines a stage
_BAR = 20
_READING_DELAY, _READING_INTERVAL = 1.0, 10.0  # seconds before a reading is shown, and between two log lines


class Progress:
    """Progress display of a stage: live on a terminal, elsewhere a plain line for every tenth of the steps.

    Args:
        console: console to write to; by default stderr.
        quiet: show warnings only (for processes other than the first).
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        """Prepare the display; nothing is shown before `start`."""
        self.console = console or make_console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._stage = ""
        self._total = self._start_step = self._step = self._reported = 0
        self._names: tuple[str, ...] | None = None
        self._numbers: dict[str, float] = {}
        self._tokens_per_second: float | None = None
        self._started_at = 0.0

    def start(self, stage: str, total_steps: int, start_step: int = 0, *, show: Sequence[str] | None = None) -> None:
        """Begin the display of a stage.

        Args:
            stage: name of the stage.
            total_steps: steps of the whole stage.
            start_step: steps done before (in a resumed run).
            show: names of the numbers to show; by default the first three of each update.
        """
        self.stop()
        self._stage, self._total, self._start_step = clean(stage, one_line=True), total_steps, start_step
        self._step = self._reported = start_step
        self._names = None if show is None else tuple(show)
        self._numbers, self._tokens_per_second = {}, None
        self._started_at = time.monotonic()
        if self.console.is_terminal and not self._quiet:
            # Results piped to a file must reach it, so stdout is only redirected when it is the same terminal.
            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()

    def update(self, step: int, numbers: Mapping[str, float], tokens_per_second: float | None = None) -> None:
        """Show a step's numbers: at once on a terminal, elsewhere if a line is due.

        Args:
            step: optimizer steps done.
            numbers: metrics by name.
            tokens_per_second: throughput.
        """
        self._step = step
        self._numbers = dict(numbers)
        self._tokens_per_second = tokens_per_second
        if self._live is None and not self._quiet and self._line_due(step):
            self._reported = step
            self._print(self._plain_line(), "")

    def note(self, text: str) -> None:
        """Show a message, unless quiet."""
        if not self._quiet:
            self._print(clean(masked(text)), "")

    def warn(self, text: str) -> None:
        """Show a warning, also when quiet."""
        self._print(f"warning: {clean(masked(text))}", "yellow")

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[int, float], None]]:
        """Show in the context how much of a data source is read.

        Yields a function to call with rows read and share of bytes. On a terminal it is a live line, elsewhere a plain
        line every ten seconds; nothing if it takes less than a second.
        """
        started = last_line = time.monotonic()
        live: Live | None = None
        line = ""

        def tick(rows: int, share: float) -> None:
            nonlocal live, last_line, line
            now = time.monotonic()
            if self._quiet or now - started < _READING_DELAY:
                return
            left = f", {duration((now - started) * (1 - share) / share)} left" if share > 0 else ""
            percent = f" ({share:.0%})" if share > 0 else ""
            pace = short_count(rows / (now - started))
            line = f"{clean(name, one_line=True)}: {rows:,} rows{percent}, {pace} rows/s{left}"
            if self.console.is_terminal:
                if live is None:
                    live = Live(console=self.console, get_renderable=lambda: Text(line), transient=True)
                    live.start()
            elif now - last_line >= _READING_INTERVAL:
                last_line = now
                self._print(line, "")

        try:
            yield tick
        finally:
            if live is not None:
                live.stop()

    def stop(self) -> None:
        """End the display of a stage; its last line stays on the screen. May be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._print(self._plain_line(), "")
        elif self._step > self._reported and not self._quiet:
            self._print(self._plain_line(), "")
        self._reported = self._step

    def __enter__(self) -> Progress:
        """Return the display, for a `with` statement that stops it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display."""
        self.stop()

    def _print(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style, overflow="fold"), width=min(self.console.width, _WIDTH))

    def _line_due(self, step: int) -> bool:
        if step >= self._total or self._reported == self._start_step:
            return step > self._reported or step == self._start_step
        return step - self._reported >= max(1, math.ceil(self._total / _PLAIN_LINES))

    def _seconds_left(self) -> float | None:
        done = self._step - self._start_step
        if done <= 0 or self._step >= self._total:
            return None
        return (time.monotonic() - self._started_at) / done * (self._total - self._step)

    def _shown_numbers(self) -> list[tuple[str, str]]:
        names = (
            [name for name in self._names if name in self._numbers]
            if self._names
            else list(self._numbers)[:_DEFAULT_NUMBERS]
        )
        return [(clean(name, one_line=True), format_number(self._numbers[name])) for name in names]

    def _pace(self) -> list[str]:
        left = self._seconds_left()
        pace = [] if self._tokens_per_second is None else [f"{short_count(self._tokens_per_second)} tok/s"]
        return pace if left is None else [*pace, f"{duration(left)} left"]

    def _plain_line(self) -> str:
        numbers = [f"{name} {value}" for name, value in self._shown_numbers()]
        return "  ".join([self._stage, f"{self._step}/{self._total}", *self._pace(), *numbers])

    def _render(self) -> Group:
        head = Table.grid(padding=(0, 1))
        percent = f"{self._step / self._total:4.0%}" if self._total else ""
        bar = ProgressBar(total=max(self._total, 1), completed=self._step, width=_BAR)
        cells = [Text(self._stage, style="bold"), bar, Text(f"{self._step}/{self._total}"), Text(percent)]
        head.add_row(*cells, Text("  ".join(self._pace()), style="cyan"))
        numbers = "  ".join(f"{name} {value}" for name, value in self._shown_numbers())
        return Group(head, Text(f"  {numbers}", overflow="ellipsis", no_wrap=True))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, console: Console | None = None
) -> None:
    """Print a table of at most 80 columns to stdout; long cells are folded, columns of numbers are right-aligned.

    Args:
        title: line printed above the table.
        columns: headings.
        rows: cells of each row: text, numbers (printed with four digits), or None (printed as a dash).
        console: console to write to; by default stdout.
    """
    console = console or make_console(stderr=False)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        heading = Text(clean(name, one_line=True))
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(value)) for value in row))
    width = min(console.width, _WIDTH)
    console.print(Text(clean(title, one_line=True), style="bold", overflow="fold"), width=width)
    console.print(grid, width=width)


def make_console(*, stderr: bool) -> Console:
    """Return a console that prints text literally: no markup, no emoji codes, no automatic colours."""
    stream = sys.stderr if stderr else sys.stdout
    _never_fail(stream)
    return Console(file=stream, markup=False, emoji=False, highlight=False)


def quiet_libraries() -> None:
    """Silence the progress bars, deprecations and request logs of libraries such as transformers, datasets and httpx.

    Of their warnings only those are hidden that a check of ours reads (`_READ`, `_READ_WARNINGS`): any other may say
    that a model or a row is not what it seems, and is shown. Call it before they are imported; it imports none of them.
    Environment variables that the user has set win.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("httpx", "httpcore", "filelock", "fsspec", "urllib3", "absl"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not isinstance(logging.getLogRecordFactory(), _CleanRecords):
        logging.setLogRecordFactory(_CleanRecords(logging.getLogRecordFactory()))
    for name, messages in _READ.items():
        logger, known = logging.getLogger(name), _Known(messages)
        if known not in logger.filters:
            logger.addFilter(known)
    if not sys.warnoptions:
        for module in ("transformers", "datasets", "peft", "huggingface_hub", "torch", "accelerate"):
            warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{module}(\.|$)")
        for message in _READ_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        warnings.formatwarning = _on_one_line
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
    if "datasets" in sys.modules:
        import datasets

        datasets.disable_progress_bars()


@dataclass(frozen=True)
class _CleanRecords:
    """Factory of log records whose text, which may quote a model's files, cannot act on a terminal or tell a secret."""

    make: Callable[..., logging.LogRecord]

    def __call__(self, *args: object, **options: object) -> logging.LogRecord:
        """Return the record that `make` makes, with its text cleaned and masked."""
        record = self.make(*args, **options)
        if record.levelno >= logging.WARNING:
            with suppress(TypeError, ValueError):  # arguments that do not fit: `logging` reports them itself
                record.msg, record.args = clean(masked(record.getMessage())), ()
        return record


@dataclass(frozen=True)
class _Known(logging.Filter):
    """Filter of log records that leaves out those whose message matches one of the given patterns."""

    messages: tuple[str, ...]

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a message that a check of ours reads."""
        return not any(re.search(message, record.getMessage()) for message in self.messages)


_READ = {
    "transformers.modeling_utils": (
        "LOAD REPORT",
        "This checkpoint seem corrupted",  # models/matching.py
        "We strongly recommend passing in an `attention_mask`",  # batching and sampling hide padding themselves
    ),
    "transformers.tokenization_utils_base": ("Token indices sequence length is longer",),  # max_length; positions
}
"""Logger -> patterns of messages that are read by checks of ours, or hold nothing about a model or its data."""
_READ_WARNINGS = (
    "Found missing adapter keys",  # models/adapter_matching.py
    "fan_in_fan_out is set to False but the target module is `Conv1D`",  # PEFT then sets it itself; export proves it
)


def _on_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a library's warning as one line of text: its place and message, without its source code (`line`)."""
    del line
    place = filename.replace("\\", "/").rpartition("/site-packages/")[2]
    return f"warning: {category.__name__} of {place}:{lineno}: {clean(masked(' '.join(str(message).split())))}\n"


_QUIET = {
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers reads this one for its own bars as well
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # else a lost connection prints C++ stack frames before the message
    "TQDM_DISABLE": "1",  # bars that transformers draws while it reads a .gguf
    "TOKENIZERS_PARALLELISM": "false",  # else a warning follows every fork
}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float):
        return format_number(value)
    return clean(str(value))


def _never_fail(stream: TextIO) -> None:
    """Make a stream show characters that its encoding lacks as escapes instead of failing on them."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and stream.errors in ("strict", "surrogateescape"):  # the latter in the C locale
        reconfigure(errors="backslashreplace")
