"""`trueup rank` as it is typed: what is refused before anything is touched, and a whole round without a model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import warm
from trueup.cli import commands
from trueup.cli import main as cli
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot
from trueup.system.commandline import install_command

STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with pairs in it. No server outlives its test."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{at}?", "chosen": f"yes {at}", "rejected": f"no {at}", "topic": "x"} for at in range(6)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("short.yaml").write_text("pairs: pairs.jsonl\nlease: 1\n", encoding="utf-8")
    Path("prompts.jsonl").write_text('{"prompt": "Why?"}\n', encoding="utf-8")
    yield tmp_path
    while STARTED:
        server = STARTED.pop()
        server.kill()
        server.communicate()


def make_base() -> None:
    """A folder that looks like a model's, until it is loaded."""
    Path("base").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        Path("base", name).write_text("{}", encoding="utf-8")


REFUSED = {
    "no store": ("votes.db", 2, "no such store yet"),
    "prompts without a model": ("votes.db --prompts prompts.jsonl", 2, "--model RUN"),
    "a missing file": ("votes.db --pairs pears.jsonl", 3, "did you mean pairs.jsonl?"),
    "not a store": ("pairs.jsonl", 3, "pairs.jsonl: not a store of rankings"),
    "a missing model": ("votes.db --prompts prompts.jsonl --model runs/none", 4, "runs/none"),
    "a model twice": ("votes.db --prompts prompts.jsonl --model base --model base", 2, "twice"),
    "a sure answer twice": ("votes.db --prompts prompts.jsonl --model base --temperature 0", 2, "temperature"),
    "uncertain of what": ("votes.db --pairs pairs.jsonl --next uncertain", 2, "--reward RUN"),
    "an unknown option": ("votes.db --prt 1", 2, "`trueup rank serve --help`"),
    "another model as a reward": (
        "votes.db --pairs pairs.jsonl --next uncertain --reward base",
        4,
        "not a reward model",
    ),
    "an unknown device": (
        "votes.db --prompts prompts.jsonl --model base --device cud",
        2,
        "--device: not understood; got 'cud'",
    ),
    "an unknown dtype": ("votes.db --prompts prompts.jsonl --model base --dtype int7", 2, "int7"),
    "an unknown order": ("votes.db --next best", 2, "best"),
    "no raters": ("votes.db --raters-per-pair 0", 2, "raters-per-pair"),
    "an unknown key": ("votes.db --pairs pairs.jsonl raters_per_par=2", 2, "did you mean raters_per_pair?"),
    "a wrong value": ("votes.db --pairs pairs.jsonl ahead=0", 2, "override ahead=0: must be at least 1"),
    "a short lease in a file": ("votes.db --config short.yaml", 2, "short.yaml:2: lease: must be at least 10"),
    "export of nothing": ("export votes.db rows.jsonl", 3, "votes.db: nothing is there"),
    "results of nothing": ("results votes.db", 3, "votes.db: nothing is there"),
    "import of nothing": ("import votes.db rows.jsonl", 3, "rows.jsonl: no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_in_words_and_no_store_is_made(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line, code, words = REFUSED[case]
    make_base()
    assert cli.main(["rank", *line.split()]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ")
    assert said.count("\n") <= 6
    assert not Path("votes.db").exists()


def test_rank_alone_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rank"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("serve", "export", "import", "results"))


def test_a_package_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "fastapi" else name)
    assert cli.main(["rank", "votes.db", "--pairs", "pairs.jsonl"]) == 7
    assert capsys.readouterr().err == f"error: rank needs fastapi\n  fix: {install_command('rank')}\n"


def served(*options: str) -> tuple[subprocess.Popen[str], list[str], str]:
    """A server started from the command line -> it, what it said, and its address."""
    server = warm.Popen(
        [sys.executable, "-m", "trueup", "rank", "votes.db", "--port", "0", *options], stderr=subprocess.PIPE, text=True
    )
    STARTED.append(server)
    assert server.stderr is not None
    said: list[str] = []
    for line in server.stderr:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    address = re.search(r"http://[^/]+/", "".join(said))
    assert address is not None, said
    return server, said, address[0]


def ended(server: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """What a server says once it is told to stop."""
    server.send_signal(number)
    STARTED.remove(server)
    rest = server.communicate(timeout=20)[1]
    assert server.returncode == 0
    return rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_served_until_it_is_told_to_stop(number: signal.Signals) -> None:
    server, said, address = served("--pairs", "pairs.jsonl", "--raters-per-pair", "2")
    with urllib.request.urlopen(address) as answer:
        assert b"trueup" in answer.read()
    with Store.open("votes.db") as store:
        rater = store.rater("ana")
        shown = store.next(rater)
        assert shown is not None
        store.vote(rater, Ballot("request-1", shown.pair.id, "first"))
    assert "1 vote in votes.db, 1 of them new; the same command goes on" in ended(server, number)
    assert said[0] == "votes.db: 6 prompts, 6 pairs, 0 votes; 2 votes a pair, next: random\n"


def test_raters_who_are_named_get_links_and_the_owner_too() -> None:
    server, said, _ = served("--pairs", "pairs.jsonl", "--rater", "ana", "--rater", "ben")
    links = [line.partition(": ") for line in said if "/join?token=" in line]
    assert [name for name, _, _ in links] == ["owner (sees the results)", "ana", "ben"]
    assert len({link for _, _, link in links}) == 3
    with urllib.request.urlopen(links[1][2].strip()) as answer:
        assert "ana" in answer.read().decode()
    ended(server)


def test_a_page_of_results_replaces_nothing_but_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rank", "import", "votes.db", "pairs.jsonl"]) == 0
    assert cli.main(["rank", "results", "votes.db@99"]) == 3
    assert "the store's last event is 6" in capsys.readouterr().err
    before = Path("votes.db").read_bytes()
    for name in ("votes.db", "pairs.jsonl", "."):
        assert cli.main(["rank", "results", "votes.db", "--html", name]) == 2
        assert "end it in .html" in capsys.readouterr().err
    assert Path("votes.db").read_bytes() == before


def test_gold_that_is_ordinary_in_the_store_already_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    server, _, _ = served("--pairs", "pairs.jsonl")
    ended(server)
    assert cli.main(["rank", "votes.db", "--gold", "pairs.jsonl"]) == 3
    assert "6 pairs of --gold are ordinary ones in it, first 1" in capsys.readouterr().err
    with Store.open("votes.db") as store:
        assert store.counts().gold == 0


def test_pairs_that_are_gold_too_are_gold() -> None:
    rows = Path("pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("gold.jsonl").write_text("".join(rows[:2]), encoding="utf-8")
    server, said, _ = served("--pairs", "pairs.jsonl", "--gold", "gold.jsonl")
    ended(server)
    assert said[0] == "votes.db: 6 prompts, 4 pairs and 2 to check raters by, 0 votes; 1 vote a pair, next: random\n"


def test_models_that_fail_are_said_at_once_and_at_the_end() -> None:
    make_base()
    server, _, _ = served("--prompts", "prompts.jsonl", "--model", "base")
    assert server.stderr is not None
    line = next(line for line in server.stderr if line.startswith("no more answers are written: "))
    assert "base/model.safetensors: not a readable safetensors file" in line
    server.send_signal(signal.SIGINT)
    STARTED.remove(server)
    rest = server.communicate(timeout=20)[1]
    assert server.returncode == 4
    assert "\nerror: base/model.safetensors: not a readable safetensors file" in rest


def test_settings_that_are_not_given_stay() -> None:
    server, _, _ = served("--pairs", "pairs.jsonl", "--raters-per-pair", "3", "--gold-every", "0", "--seed", "7")
    ended(server)
    server, said, _ = served()
    ended(server)
    assert "3 votes a pair" in said[0]
    with Store.open("votes.db") as store:
        assert (store.settings.seed, store.settings.gold_every, store.settings.raters_per_pair) == (7, 0, 3)


def test_votes_go_out_and_in_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rank", "import", "votes.db", "pairs.jsonl", "--rater", "ana"]) == 0
    assert cli.main(["rank", "export", "votes.db", "rows.jsonl"]) == 0
    assert cli.main(["rank", "import", "other.db", "rows.jsonl"]) == 0
    assert cli.main(["rank", "export", "other.db", "again.jsonl"]) == 0
    first, again = (
        [json.loads(row) for row in Path(name).read_text().splitlines()] for name in ("rows.jsonl", "again.jsonl")
    )
    keys = ("prompt", "chosen", "rejected")
    assert [[row[key] for key in keys] for row in first] == [[row[key] for key in keys] for row in again]
    assert [row["chosen"][0]["content"] for row in first] == [f"yes {at}" for at in range(6)]
    capsys.readouterr()
    assert cli.main(["rank", "results", "votes.db", "--json", "--html", "page.html"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["votes"] == 6
    assert "<html" in Path("page.html").read_text()
    assert cli.main(["rank", "results", "votes.db"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
