"""What data, models, names of files and libraries' messages write can neither act in a terminal nor on a page."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
import warm
from hostile import evil
from report import sample_report
from trueup.report.card import model_card
from trueup.report.page import render
from trueup.report.report_schema import Report
from trueup.system.text import terminal_safe_json

ACTS = "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil\x07here\x1b]52;c;aGk=\x07\x9b31m\x08\x08\rgone\u202eevil\u2066\u200b\ufeff"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>[x](javascript:alert(1)) [bold red]b[/] | `c` {{ 7*7 }}"
NAME = "evil\x1b[31m\u202e\r\x07<b>"
"""Of a file: Linux takes any byte but / and NUL."""


def acting(text: str) -> list[str]:
    """Characters that a terminal obeys, or that hide or turn round what follows; ZWJ and ZWNJ are of scripts."""
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200c\u200d"
    ]


def trueup(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    done = warm.run([sys.executable, "-m", "trueup", *arguments], cwd=folder, input=typed.encode(), capture_output=True)
    told = [part.decode("utf-8") for part in (done.stdout, done.stderr)]
    return subprocess.CompletedProcess(done.args, done.returncode, *told)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile names: data, a model, a configuration."""
    folder = tmp_path_factory.mktemp("place")
    tiny.tiny_folder(folder / f"{NAME}model")
    talk = [{"role": "user", "content": ACTS + MARKUP}, {"role": "assistant", "content": MARKUP + ACTS}]
    rows = [json.dumps({"messages": talk, ACTS: 1}), json.dumps({"messages": [*talk[:1], {**talk[1], "content": "b"}]})]
    (folder / f"{NAME}.jsonl").write_text("\n".join(rows) + "\n")
    bad = {"messages": [{"role": ACTS, "content": MARKUP}]}
    (folder / f"{NAME}bad.jsonl").write_text(json.dumps(bad) + "\n")
    (folder / f"{NAME}.yaml").write_text(f"model: {json.dumps(ACTS)}\n{json.dumps(ACTS)}: {json.dumps(MARKUP)}\n")
    (folder / f"{NAME}broken").mkdir()
    (folder / f"{NAME}broken" / "config.json").write_text(json.dumps({"model_type": ACTS}))
    (folder / f"{NAME}broken" / "tokenizer.json").write_text(json.dumps({"version": ACTS}))
    (folder / f"{NAME}broken" / "model.safetensors").write_bytes(ACTS.encode())
    return folder


DATA, BAD, MODEL, BROKEN = f"{NAME}.jsonl", f"{NAME}bad.jsonl", f"{NAME}model", f"{NAME}broken"
TRAIN = [
    "sft",
    f"model={json.dumps(MODEL)}",
    f"data={json.dumps(DATA)}",
    "optim.steps=2",
    "optim.batch_size=1",
    "threads=1",
]
TRAIN += ["allow=[special-text]"]
COMMANDS = [
    ["check", DATA, "--model", MODEL],
    ["check", BAD, "--model", MODEL],
    ["check", DATA, "--model", BROKEN],
    ["check", f"{NAME}.yaml", "--method", "sft"],
    ["check", f"{NAME}none.jsonl", "--model", MODEL],
    ["show", DATA, "--model", MODEL, "--html", f"{NAME}.html"],
    ["show", DATA, "--model", MODEL, "--tokens"],
    ["sft", f"model={json.dumps(MODEL)}", f"data={json.dumps(BAD)}", f"output={json.dumps(NAME)}"],
    ["sft", f"model={json.dumps(BROKEN)}", f"data={json.dumps(DATA)}", f"output={json.dumps(NAME)}"],
    ["sft", f"{NAME}.yaml"],
    ["sft", f"model={MODEL}", f"data={DATA}", f"{NAME}=1"],
    [*TRAIN, f"output={json.dumps(NAME + 'out')}"],
    ["export", MODEL, "--output", f"{NAME}exported"],
    ["export", BROKEN],
    ["evaluate", BROKEN],
    ["report", f"{NAME}out"],
    ["chat", BROKEN],
    [NAME],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: re.sub(r"[^\w .=-]+", "?", " ".join(command)))
def test_nothing_on_the_terminal_acts(command: list[str], place: Path) -> None:
    done = trueup(place, *command)
    told = done.stdout + done.stderr
    assert told.strip()
    assert acting(told) == []
    assert "Traceback" not in told


def test_a_traceback_that_was_asked_for_is_harmless(place: Path) -> None:
    done = trueup(place, "--debug", "chat", f"{NAME}none")
    assert "Traceback" in done.stderr
    assert acting(done.stdout + done.stderr) == []


def test_a_chat_shows_harmless_text(place: Path) -> None:
    acts, name = ACTS.replace("\r", ""), NAME.replace("\r", "")
    lines = [f"hello {acts}", f"/save {name}saved.jsonl", f"/system {acts}", "hi", "/show", f"/save {name}/no.jsonl"]
    typed = "\n".join([*lines, f"/{acts}", f"/max {acts}", ""])
    done = trueup(place, "chat", MODEL, "--max-new-tokens", "20", "--temperature", "3", typed=typed)
    assert acting(done.stdout + done.stderr) == []
    saved = (place / f"{name}saved.jsonl").read_text()
    assert acting(saved) == []
    assert "Traceback" not in done.stderr


def test_a_terminals_live_lines_show_harmless_text(place: Path) -> None:
    """At a terminal rich writes sequences of its own; of those that the names hold none arrives."""
    main, terminal = pty.openpty()
    command = [*TRAIN, f"output={json.dumps(NAME + 'live')}"]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    run = warm.Popen(
        [sys.executable, "-m", "trueup", *command], cwd=place, env=environment,
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    seen, until = b"", time.monotonic() + 120
    while time.monotonic() < until:
        ready, _, _ = select.select([main], [], [], 1)
        try:
            part = os.read(main, 65536) if ready else None
        except OSError:  # the other side is closed
            break
        if part == b"":
            break
        seen += part or b""
    assert run.wait(30) == 0
    os.close(main)
    text = seen.decode("utf-8")
    assert "2/2" in text
    for sign in ("\x1b]", "\x9b", "\x07", "\x1b[31m", "\u202e", "\u200b", "\x1b[2J"):
        assert sign not in text


def test_the_page_of_rows_is_harmless(place: Path) -> None:
    trueup(place, "show", DATA, "--model", MODEL, "--html", "rows.html")
    page = (place / "rows.html").read_text()
    assert acting(page) == []
    assert "<script" not in page
    assert "<img" not in page
    assert "onerror" in html.unescape(re.sub("<[^>]*>", "", page))  # it is there, as text


@pytest.fixture(scope="module")
def kept(place: Path) -> Path:
    """A finished run under hostile names."""
    command = [*TRAIN, f"output={json.dumps(NAME + 'kept')}"]
    assert trueup(place, *command, "log=[tensorboard]").returncode == 0
    return place / f"{NAME}kept"


LOGS = ["summary.json", "metrics.jsonl", "config.yaml"]


def test_what_a_run_keeps_is_harmless(kept: Path) -> None:
    """Accounts and the model's own settings, as a person reads them in a terminal."""
    texts = [path for path in kept.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml", ".md", ".txt")]
    read = [path for path in texts if path.is_file() and path.name not in ("tokenizer.json", *LOGS)]
    assert len(read) > 5
    assert [path.name for path in read if acting(path.read_text(encoding="utf-8"))] == []


def test_logs_of_a_run_are_harmless(kept: Path) -> None:
    assert [name for name in LOGS if acting((kept / name).read_text(encoding="utf-8"))] == []


def test_json_that_is_harmless_reads_back_equal() -> None:
    value = {ACTS: [MARKUP, "\ud800", "\x7f\x85\u2028", "naïve 日本 👩‍👩‍👧", {"\u202e": 1}], "\U000e0041": "\n\t\r\\"}
    text = terminal_safe_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert acting(text) == []
    assert "naïve 日本 👩‍👩‍👧" in text


# -- the report ----------------------------------------------------------------------------------------------------

ODD = [
    "\ufffe\uffff",
    "\ud800half",
    "\x00nul",
    "\U000e0041tag",
    "\x85next\u2028line",
    "a" * 3000,
    MARKUP,
    ACTS,
    "🏴󠁧󠁢",
    "",
]


def renamed(value: Any, text: str) -> Any:
    """A report's every text with another behind it; words that mean something to it stay."""
    if isinstance(value, str):
        return value if value in _WORDS else value + text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: renamed(getattr(value, field.name), text) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    if isinstance(value, dict):
        return {renamed(key, text): renamed(item, text) for key, item in value.items()}
    return [renamed(item, text) for item in value] if isinstance(value, list) else value


_WORDS = frozenset(
    {"SHIP", "HOLD", "NOT SHOWN", "NOT JUDGED", "pass", "fail", "not shown", "not run", "higher", "lower", "neither"}
)


QUICK = ("", MARKUP, ACTS)


@pytest.mark.parametrize(
    "text", [text if text in QUICK else pytest.param(text, marks=pytest.mark.slow) for text in ODD], ids=ascii
)
def test_a_report_of_odd_text_is_made_and_harmless(text: str) -> None:
    report = renamed(sample_report.full(), text)
    assert isinstance(report, Report)
    page = render(report)
    page.encode("utf-8")
    assert acting(page) == []
    assert page.count("<script") == 1
    assert "<img" not in page
    assert not re.search(r"(href|src|on\w+)\s*=\s*[\"']?\s*javascript:", page)
    card = model_card(report, report.measures[0].title, base=f"owner/base{text}", method="sft")
    assert acting(card) == []
    assert "<script" not in card
    assert not re.search(r"(?<!\\)\]\(javascript", card)


def test_the_front_of_a_card_is_data() -> None:
    front = "x\n---\nlicense: evil\n---\n"
    card = model_card(sample_report.full(), front, base=front, method="sft")
    facts = yaml.safe_load(card.split("---")[1])
    assert "license" not in facts
    assert set(facts) <= {"library_name", "pipeline_tag", "tags", "base_model"}


def test_tables_of_a_card_keep_their_columns() -> None:
    report = renamed(sample_report.full(), " | a | b\n| c |")
    card = model_card(report, "sft", base="b", method="sft")
    heads = 0
    for block in re.split(r"\n\n", card):
        lines = [re.sub(r"\\.", "", line) for line in block.split("\n") if line.startswith("|")]
        heads += bool(lines)
        assert len({line.count("|") for line in lines}) <= 1
    assert heads


@pytest.mark.parametrize("key", ["model_type", "architectures", "dtype", "hidden_act", "rope_scaling", "auto_map"])
def test_messages_of_libraries_are_harmless(key: str, tmp_path: Path) -> None:
    """What transformers says repeats what a model's files hold."""
    from trueup import runtime
    from trueup.errors import ModelError
    from trueup.models.loading import load_causal_lm

    said = ""
    try:
        load_causal_lm(str(evil.model(tmp_path / "evil", **{key: ACTS})), runtime.init("cpu", "float32"))
    except ModelError as error:
        said = str(error)
    assert said or key in ("architectures", "dtype", "auto_map")
    assert acting(said) == []
