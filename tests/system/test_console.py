"""The console: what is shown on a terminal and in a log file, in 80 columns, whatever the text holds."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import warm
from trueup.system import console
from trueup.system.console import Progress, quiet_libraries, table
from trueup.system.text import clean, duration, format_number, short_count

HOSTILE = "[bold red]x[/] :smile: \x1b[2J\x1b]0;title\x07 \x9b31m \r over \b \u202egnp \ud800"


def plain_console(width: int = 80) -> Console:
    """A console that writes to a log file."""
    return Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)


def terminal(width: int = 80) -> Console:
    """A console on a terminal."""
    stream = io.StringIO()
    return Console(file=stream, width=width, height=24, force_terminal=True, markup=False, emoji=False, highlight=False)


def text_of(target: Console) -> str:
    """Everything written to it."""
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def assert_fits(text: str, width: int = 80) -> None:
    """No line is wider than `width` once colours and cursor movements are taken out."""
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert all(cell_len(line) <= width for line in re.split(r"[\r\n]", shown))


# -- text ------------------------------------------------------------------------------------------------------------


def test_clean_makes_control_visible() -> None:
    assert clean("a\x1b[31mb") == r"a\x1b[31mb"
    assert clean("a\rb\x08\x07\x9b") == r"a\rb\x08\x07\x9b"
    assert clean("two\nlines\tand") == "two\nlines\tand"
    assert clean("two\nlines\tand", one_line=True) == r"two\nlines\tand"
    assert clean("\u202e\u2066\u200b\u2028\ud800") == r"\u202e\u2066\u200b\u2028\ud800"


@pytest.mark.parametrize("text", ["naïve 日本語 العربية", "👩‍👩‍👧 ❤️ 🇫🇷", "می‌خواهم", "[not markup] 50% \\n"])
def test_clean_keeps_ordinary_text(text: str) -> None:
    assert clean(text) == text


@given(st.text(alphabet=st.characters()))
def test_clean_is_safe_and_stable(text: str) -> None:
    shown = clean(text, one_line=True)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or 0xD800 <= ord(char) < 0xE000 for char in shown)
    assert clean(shown, one_line=True) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.69314718, "0.6931"),
        (12.3456, "12.35"),
        (3.0, "3.000"),
        (999.96, "1000"),
        (123456.7, "123457"),
        (-0.5, "-0.5000"),
        (1e-5, "1e-05"),
        (0.0, "0.0000"),
        (3, "3"),
        (48211, "48211"),
        (12345678, "1.2e+07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert format_number(value) == shown


def test_counts_and_durations() -> None:
    assert [short_count(value) for value in (950.0, 1234.0, 3.4e6, 2e9, math.inf)] == [
        "950",
        "1.2k",
        "3.4M",
        "2.0G",
        "inf",
    ]
    assert [duration(value) for value in (0.4, 42, 190, 7500, 273600)] == ["0s", "42s", "3m10s", "2h05m", "3d04h"]


# -- progress --------------------------------------------------------------------------------------------------------


def test_a_log_file_gets_about_ten_lines() -> None:
    target = plain_console()
    with Progress(target) as progress:
        progress.start("sft", 1000)
        for step in range(1, 1001):
            progress.update(step, {"loss": 2 / step, "acc": 0.5, "lr": 1e-5, "hidden": 9.0}, 1234.0)
    lines = text_of(target).splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[0].startswith("sft  1/1000  1.2k tok/s  ")
    assert lines[-1] == "sft  1000/1000  1.2k tok/s  loss 0.0020  acc 0.5000  lr 1e-05"
    assert "\x1b" not in text_of(target)
    assert_fits(text_of(target))


def test_a_short_stage_reports_every_step_once() -> None:
    target = plain_console()
    with Progress(target) as progress:
        progress.start("dpo", 3, show=["margin"])
        for step in (0, 1, 2, 3):
            progress.update(step, {"loss": 1.0, "margin": float(step)})
    steps = [line.split()[1] for line in text_of(target).splitlines()]
    assert steps == ["0/3", "1/3", "2/3", "3/3"]
    assert "margin 3.000" in text_of(target)
    assert "loss" not in text_of(target)


def test_a_resumed_stage_counts_from_where_it_was() -> None:
    target = plain_console()
    with Progress(target) as progress:
        progress.start("ppo", 100, 90)
        progress.update(91, {})
        assert re.fullmatch(r"ppo  91/100  \d+s left\n", text_of(target))


def test_a_stage_that_ends_early_shows_its_last_step() -> None:
    target = plain_console()
    with Progress(target) as progress:
        progress.start("sft", 100)
        for step in range(1, 38):
            progress.update(step, {})
        progress.stop()
    assert [line.split()[1] for line in text_of(target).splitlines()] == [
        "1/100",
        "11/100",
        "21/100",
        "31/100",
        "37/100",
    ]


def test_a_terminal_gets_a_live_view_that_fits() -> None:
    for width in (80, 40):
        target = terminal(width)
        with Progress(target) as progress:
            progress.start("a stage", 123456)
            progress.update(120000, {"eval/preference_accuracy": 0.123456, "loss": 12.5, "approx_kl": 1e-7}, 123456.0)
            assert progress._live is not None
            progress._live.refresh()
            progress.note("a note")
        out = text_of(target)
        assert "a note" in out
        assert "120000/123456" in out
        assert "\x1b[?25h" in out  # the cursor is given back
        assert_fits(out, width)


def test_nothing_hostile_reaches_the_terminal() -> None:
    for target in (plain_console(), terminal()):
        with Progress(target) as progress:
            progress.start(f"stage {HOSTILE}", 2)
            progress.update(1, {f"loss {HOSTILE}": 1.0})
            progress.note(HOSTILE)
            progress.warn(HOSTILE)
        table(HOSTILE, [HOSTILE], [[HOSTILE]], console=target)
        out = text_of(target)
        assert "\x1b[2J" not in out
        assert "\x1b]0" not in out
        assert not set("\x07\x08\x9b\u202e\ud800") & set(out)
        assert "[bold red]x[/]" in out
        assert ":smile:" in out
        assert_fits(out)


def test_quiet_shows_warnings_only() -> None:
    target = plain_console()
    with Progress(target, quiet=True) as progress:
        progress.start("sft", 10)
        progress.update(1, {"loss": 1.0})
        progress.note("nothing")
        progress.warn("something")
    assert text_of(target) == "warning: something\n"


def test_messages_go_to_stderr_and_tables_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.start("sft", 1)
        progress.update(1, {"loss": 1.0})
        progress.warn("careful")
    table("Results", ["a"], [[1]])
    captured = capsys.readouterr()
    assert "careful" in captured.err
    assert "Results" in captured.out
    assert "Results" not in captured.err
    assert "sft" not in captured.out


def test_results_reach_a_pipe_while_the_live_view_is_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    target = terminal()
    with Progress(target) as progress:
        progress.start("sft", 10)
        print("a result")
    assert capsys.readouterr().out == "a result\n"


# -- tables ----------------------------------------------------------------------------------------------------------


def test_a_wide_table_fits_80_columns() -> None:
    target = plain_console(width=200)
    rows = [[f"task number {index}", 0.123456, None, "a long explanation " * 8, index] for index in range(3)]
    table("What it cost", ["task", "accuracy", "base", "why", "n"], rows, console=target)
    out = text_of(target)
    assert_fits(out)
    assert "0.1235" in out
    assert "\u2026" not in out  # nothing is cut away
    assert out.count("explanation") == 24


def test_an_empty_table_has_its_headings() -> None:
    target = plain_console()
    table("Nothing", ["task", "n"], [], console=target)
    assert "task" in text_of(target)


def test_an_ascii_stream_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    table("日本", ["ü"], [["é"]])
    sys.stdout.flush()
    assert rb"\u65e5\u672c" in raw.getvalue()


# -- libraries -------------------------------------------------------------------------------------------------------


def test_quiet_libraries_imports_nothing_and_respects_choices() -> None:
    code = (
        "import os, sys; os.environ['TRANSFORMERS_VERBOSITY'] = 'info'\n"
        "from trueup.system.console import quiet_libraries; quiet_libraries()\n"
        "loaded = [name for name in ('transformers', 'datasets', 'torch', 'httpx') if name in sys.modules]\n"
        "print(loaded, os.environ['TRANSFORMERS_VERBOSITY'], os.environ['TQDM_DISABLE'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == "[] info 1\n"


def test_libraries_warnings_are_shown_unless_a_check_reads_them() -> None:
    code = (
        "import logging, sys, warnings\n"
        "from trueup.system.console import quiet_libraries; quiet_libraries()\n"
        "from transformers.utils import logging as of_transformers\n"
        "log = of_transformers.get_logger('transformers.modeling_utils')\n"
        "log.warning('LlamaForCausalLM LOAD REPORT from: a folder')\n"
        "log.warning('something no check reads')\n"
        "warnings.warn_explicit('deprecated', FutureWarning, '/x/site-packages/peft/a.py', 3, module='peft.a')\n"
        "warnings.warn_explicit('Found missing adapter keys: x', UserWarning, 'a.py', 3, module='peft.a')\n"
        "warnings.warn_explicit('an unread\\n one', UserWarning, '/x/site-packages/peft/a.py', 3, module='peft.a')\n"
    )
    done = warm.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "[transformers] something no check reads",
        "warning: UserWarning of peft/a.py:3: an unread one",
    ]


def test_quiet_libraries_hushes_request_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in console._QUIET:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    for name in ("transformers", "datasets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    logging.getLogger("httpx").setLevel(logging.INFO)
    quiet_libraries()
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


def test_a_librarys_warning_cannot_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may quote a model's files, or an address with a password."""
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    before = logging.getLogRecordFactory()
    try:
        quiet_libraries()
        quiet_libraries()  # cleans once
        logging.getLogger("transformers.x").warning("type %s at https://u:hunter2@host %d%%", "\x1b[31m", 5)
    finally:
        logging.setLogRecordFactory(before)
    assert [record.getMessage() for record in caplog.records] == [r"type \x1b[31m at https://***@host 5%"]
