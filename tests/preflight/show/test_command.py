"""`trueup show` from the command line: each kind of data, a mixture, a pipeline, a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_data
from tiny import tiny_folder
from trueup.cli import main as cli

RANKING = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_folder("base")
    tiny_data.write(Path("pairs.jsonl"), [{"prompt": f"q{n}?", "completion": f"a{n}."} for n in range(9)])
    tiny_data.write(Path("rankings.jsonl"), [RANKING | {"prompt": f"Why {n}?"} for n in range(5)])
    tiny_data.write(Path("prompts.jsonl"), [{"prompt": f"q{n}?"} for n in range(4)])
    labelled = [{"prompt": f"q{n}?", "completion": "a.", "label": n % 2 == 0} for n in range(6)]
    tiny_data.write(Path("labels.jsonl"), labelled)
    Path("notes.txt").write_text("One line.\nAnother.\n")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["show", *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "method", "total"),
    [
        ("pairs.jsonl", "sft", "trained in 9 of 9 rows"),
        ("rankings.jsonl", "dpo", "trained in 5 of 5 rows: chosen 5 of 5, rejected 5 of 5"),
        ("labels.jsonl", "dpo", "trained in 6 of 6 rows"),
        ("notes.txt", "sft", "trained in 2 of 2 rows"),
        ("prompts.jsonl", "ppo", "no answer is there yet"),
    ],
)
def test_each_kind_of_data(capsys: pytest.CaptureFixture[str], file: str, method: str, total: str) -> None:
    """The totals are of all rows, not of the two that are shown."""
    out = shown(capsys, file, "--model", "base", "-n", "2")
    assert out.startswith(f"{method}: ")
    assert total in " ".join(out.split())
    assert f"{file}:2" in out
    assert f"row 3: {file}:3" not in out


def test_both_sides_of_rankings_for_kto(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "rankings.jsonl", "loss.name=kto", "--model", "base", "-n", "1")
    assert "trained in 10 of 10 rows" in " ".join(out.split())


def test_a_mixture_with_small_weights_and_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    mixture = [{"path": "pairs.jsonl", "weight": 0.01}, {"path": "rankings.jsonl", "use": "chosen", "holdout": 0.5}]
    stages = {
        "sft": {"method": "sft", "data": mixture},
        "dpo": {"method": "dpo", "from": "sft", "data": "rankings.jsonl"},
    }
    Path("pipe.yaml").write_text(json.dumps({"name": "two", "base": "base", "stages": stages}))
    out = shown(capsys, "pipe.yaml", "-n", "10", "--html", "page.html")
    assert "== sft ==" in out
    assert "== dpo ==" in out
    assert "trained in 14 of 14 rows" in " ".join(out.split())
    assert "pairs.jsonl:9" in out
    assert "rankings.jsonl" in Path("page-dpo.html").read_text(encoding="utf-8")
    assert Path("page-sft.html").is_file()


def test_a_page_that_cannot_be_written_is_said_before_anything_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "pairs.jsonl", "--model", "base", "--html", "gone/page.html"]) == 2
    assert "there is no folder gone" in capsys.readouterr().err
