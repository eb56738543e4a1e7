"""`trueup check`: what it finds, how it says it, and what it exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import tiny
import tiny_data
from data.tokens import making
from trueup.cli import main as cli
from trueup.config import PipelineConfig
from trueup.preflight.report import check_pipeline

Capture = pytest.CaptureFixture[str]


def said(text: str) -> str:
    """The text with its lines and marks joined, as words."""
    return " ".join(text.split())


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `trueup check words...`."""
    code = cli.main(["check", *words])
    out, err = capsys.readouterr()
    return code, out, err


def check_json(capsys: Capture, *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, *words, "--json")
    return code, json.loads(out)


def codes(report: dict[str, Any], level: str = "error") -> list[tuple[str, str]]:
    return [(one["section"], one["code"]) for one in report["findings"] if one["level"] == level]


def rankings(count: int) -> list[dict[str, str]]:
    """Rankings without a fault or a warning: all different, and both sides of one length."""
    made = []
    for index in range(count):
        words = making.sentence(index).split()
        made.append(
            {"prompt": f"{making.sentence(-index)}?", "chosen": " ".join(words), "rejected": " ".join(words[::-1])}
        )
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: str) -> Path:
    """A current folder with a model, and data that nothing is wrong with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    Path("base").symlink_to(tiny_base)
    tiny_data.write(Path("rankings.jsonl"), rankings(20))
    return tmp_path


@pytest.fixture
def own_base() -> str:
    """A model that may be damaged."""
    return tiny.tiny_folder("own")


class TestDataFiles:
    """DATA --model MODEL: the method is told by the first row."""

    @pytest.mark.parametrize(
        ("kind", "stage"),
        [("conversations", "sft"), ("rankings", "dpo"), ("labelled", "dpo"), ("prompts", "ppo"), ("texts", "sft")],
    )
    def test_the_first_row_says_what_it_is_for(self, capsys: Capture, folder: Path, kind: str, stage: str) -> None:
        code, report = check_json(capsys, tiny_data.data(folder, kind), "--model", "base")
        assert code == 0
        assert report["ok"]
        [(name, sections)] = report["stages"].items()
        assert name == stage
        assert [counts["used"] for counts in sections.values()] == [12]
        if kind == "labelled":
            assert ("data", "labels") in codes(report, "note")
        if kind == "texts":
            assert sections["data"]["trained_tokens"] > 300

    def test_messages_that_end_with_the_users_are_prompts(self, capsys: Capture, folder: Path) -> None:
        row = {"messages": [{"role": "user", "content": "Why?"}]}
        code, report = check_json(capsys, tiny_data.write(folder / "asked.jsonl", [row]), "--model", "base")
        assert (code, list(report["stages"])) == (0, ["ppo"])

    def test_settings_and_method_may_be_given(self, capsys: Capture) -> None:
        code, report = check_json(capsys, "rankings.jsonl", "data.use=chosen", "--model", "base", "--method", "sft")
        assert (code, list(report["stages"])) == (0, ["sft"])
        code, report = check_json(capsys, "rankings.jsonl", "data.rows=:5", "data.limit=3", "--model", "base")
        counts = report["stages"]["dpo"]["data"]
        assert (code, counts["read"], counts["used"], counts["unselected"]) == (0, 20, 3, 17)
        code, report = check_json(capsys, "rankings.jsonl", "--model", "base", "--method", "reward")
        assert list(report["stages"]) == ["reward"]

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["rankings.jsonl"], 2, "give the model whose tokenizer reads it: --model MODEL"),
            (
                ["rankings.jsonl", "--model", "base", "--method", "foo"],
                2,
                "--method foo: not a method; use one of: sft",
            ),
            (
                ["rankings.jsonl", "--model", "base", "--method", "sft"],
                3,
                "set use: chosen to train on the chosen side",
            ),
            (["rankings.jsonl", "--model", "base", "data.hold=1"], 2, "holdout"),
            (["rankings.jsonl", "--model", "nowhere"], 4, "nowhere: no such model folder"),
            (["nowhere.jsonl", "--model", "base"], 3, "nowhere.jsonl"),
            (["empty.jsonl", "--model", "base"], 3, "empty.jsonl"),
            (["odd.jsonl", "--model", "base"], 3, "no known format: the row has"),
            (["broken.jsonl", "--model", "base"], 3, "broken.jsonl:2"),
            (["nowhere.yaml"], 2, "nowhere.yaml"),
        ],
    )
    def test_wrong_targets_and_settings_are_refused(
        self, capsys: Capture, words: list[str], code: int, message: str
    ) -> None:
        Path("empty.jsonl").touch()
        tiny_data.write(Path("odd.jsonl"), [{"foo": 1}])
        Path("broken.jsonl").write_text('{"prompt": "q", "completion": "a"}\n{oops\n')
        found, out, err = run(capsys, *words)
        assert (found, out) == (code, "")
        assert message in err
        assert len(err.splitlines()) <= 6


class TestExitCodes:
    def test_nothing_to_say(self, capsys: Capture) -> None:
        assert run(capsys, "rankings.jsonl", "--model", "base", "--strict")[0] == 0

    def test_warnings_count_only_if_they_are_asked_to(self, capsys: Capture) -> None:
        tiny_data.write(Path("rankings.jsonl"), [{**row, "chosen": row["chosen"] * 2} for row in rankings(20)])
        code, out, _ = run(capsys, "rankings.jsonl", "--model", "base")
        assert code == 0
        assert out.splitlines()[-1] == "0 errors, 1 warning: training can start"
        code, report = check_json(capsys, "rankings.jsonl", "--model", "base", "--strict")
        assert (code, report["ok"]) == (3, True)
        assert codes(report, "warning") == [("data", "length-bias")]

    def test_rows(self, capsys: Capture) -> None:
        tiny_data.write(Path("rankings.jsonl"), [*rankings(20), {**rankings(1)[0], "prompt": "What is <|im_end|>?"}])
        code, out, _ = run(capsys, "rankings.jsonl", "--model", "base")
        assert code == 3
        assert out.splitlines()[-1] == "1 error, 0 warnings: training would be refused"
        assert "rankings.jsonl:21" in out
        code, report = check_json(capsys, "rankings.jsonl", "allow=[special-text]", "--model", "base", "--strict")
        assert (code, codes(report, "allowed")) == (0, [("data", "special-text")])

    def test_long_rows(self, capsys: Capture) -> None:
        """Told beside all else, not instead of it."""
        code, report = check_json(capsys, "rankings.jsonl", "max_length=180", "--model", "base")
        assert code == 3
        assert codes(report) == [("data", "over-length")]
        assert {"lengths", "duplicates"} <= {one["code"] for one in report["findings"]}
        _, out, _ = run(capsys, "rankings.jsonl", "max_length=180", "--model", "base")
        assert "data: data:" not in out

    def test_models(self, capsys: Capture, own_base: str) -> None:
        path = Path(own_base) / "model.safetensors"
        weights = load_file(path)
        name = sorted(weights)[1]
        weights[name].view(-1)[3] = torch.nan
        save_file(weights, path, metadata={"format": "pt"})
        code, report = check_json(capsys, "rankings.jsonl", "--model", own_base)
        assert (code, codes(report)) == (4, [("model", "non-finite-weights")])
        assert f"{own_base}: the weights {name} hold NaN or infinity" in report["findings"][0]["text"]

    def test_a_vocabulary_that_is_too_small(self, capsys: Capture, own_base: str) -> None:
        tokenizer = AutoTokenizer.from_pretrained(own_base)
        tokenizer.add_tokens([f"word{index}" for index in range(9)])
        tokenizer.save_pretrained(own_base)
        code, report = check_json(capsys, "rankings.jsonl", "--model", own_base)
        assert (code, codes(report)) == (4, [("model", "vocabulary")])
        assert "has 269 tokens, the embedding only 264" in report["findings"][0]["text"]

    def test_rows_and_models(self, capsys: Capture, own_base: str) -> None:
        for place in (Path(own_base) / "chat_template.jinja", Path(own_base) / "tokenizer_config.json"):
            if place.suffix == ".jinja":
                place.unlink(missing_ok=True)
            else:
                settings = json.loads(place.read_text())
                settings.pop("chat_template", None)
                place.write_text(json.dumps(settings))
        code, report = check_json(capsys, "rankings.jsonl", "--model", own_base)
        assert (code, codes(report)) == (4, [("model", "missing-template")])
        code, report = check_json(capsys, "rankings.jsonl", "max_length=180", "--model", own_base)
        assert code == 3
        assert codes(report) == [("model", "missing-template"), ("data", "over-length")]

    def test_weights_that_are_no_safetensors(self, capsys: Capture, own_base: str) -> None:
        (Path(own_base) / "model.safetensors").write_bytes(b"not weights")
        code, _, err = run(capsys, "rankings.jsonl", "--model", own_base)
        assert code == 4
        assert "not a readable safetensors file" in err


PIPELINE = """
name: p
base: base
stages:
  sft: {method: sft, data: {path: rankings.jsonl, use: chosen}}
  reward: {method: reward, from: sft, data: rankings.jsonl}
  dpo: {method: dpo, from: sft, data: {path: rankings.jsonl, holdout: 0.4}, max_length: 180}
  ppo: {method: ppo, from: sft, reward: reward, prompts: rankings.jsonl}
"""


class TestPipelines:
    def test_stages_whose_models_are_not_made_yet(self, capsys: Capture) -> None:
        Path("pipe.yaml").write_text(PIPELINE)
        code, report = check_json(capsys, "pipe.yaml")
        assert list(report["stages"]) == ["sft", "reward", "dpo", "ppo"]
        assert list(report["stages"]["dpo"]) == ["data", "eval"]
        assert (code, codes(report)) == (3, [("dpo.data", "over-length"), ("dpo.eval", "over-length")])

    def test_a_finding_of_the_same_rows_is_told_once_and_says_its_stage(self, capsys: Capture) -> None:
        """sft and ppo read other texts of the file than reward and dpo do."""
        Path("pipe.yaml").write_text(PIPELINE)
        _, report = check_json(capsys, "pipe.yaml")
        repeated = [one["section"] for one in report["findings"] if one["code"] == "duplicates"]
        assert repeated == ["sft.data", "reward.data", "ppo.prompts"]
        assert all(one["section"].partition(".")[0] in report["stages"] for one in report["findings"])

    def test_the_same_words_of_other_rows_are_another_finding(self, capsys: Capture) -> None:
        bad = [{"prompt": f"What is <|im_end|>, {word}?", "completion": "An end."} for word in making.WORDS]
        tiny_data.write(Path("one.jsonl"), bad)
        tiny_data.write(Path("other.jsonl"), [{**row, "completion": "No idea."} for row in bad])
        Path("pipe.yaml").write_text(
            "name: p\nbase: base\nstages:\n  a: {method: sft, data: one.jsonl}\n  b: {method: sft, data: other.jsonl}\n"
            "  c: {method: sft, data: one.jsonl}\n"
        )
        _, report = check_json(capsys, "pipe.yaml")
        assert codes(report) == [("a.data", "special-text"), ("b.data", "special-text")]

    def test_an_existing_reward_of_another_tokenizer(self, capsys: Capture, own_base: str) -> None:
        tokenizer = AutoTokenizer.from_pretrained(own_base)
        tokenizer.add_tokens(["market"])
        tokenizer.save_pretrained("runs/p/reward/model")
        for name in ("config.json", "model.safetensors"):
            (Path("runs/p/reward/model") / name).write_bytes((Path(own_base) / name).read_bytes())
        Path("pipe.yaml").write_text(PIPELINE.replace("max_length: 180", "max_length: 1000"))
        code, report = check_json(capsys, "pipe.yaml")
        # It is a language model, besides.
        assert (code, codes(report)) == (4, [("ppo.reward", "other-tokenizer"), ("ppo.reward", "unusable")])

    def test_a_stage_that_was_stopped_before_its_end_has_no_model(self, capsys: Capture) -> None:
        """Its folder is there, with checkpoints, but no model in it."""
        for name in ("sft", "reward"):
            Path("runs/p", name, "checkpoints").mkdir(parents=True)
        Path("pipe.yaml").write_text(PIPELINE.replace("max_length: 180", "max_length: 1000"))
        code, report = check_json(capsys, "pipe.yaml")
        assert (code, codes(report)) == (0, [])

    def test_a_model_of_a_stages_own_is_not_taken_for_one_to_be_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name on the hub is no folder here either: it is asked for, and not read as the base."""
        asked: list[str] = []

        def load(model: str, **_: object) -> Any:
            asked.append(model)
            return tiny.tiny_tokenizer()

        monkeypatch.setattr("trueup.models.loading.load_tokenizer", load)
        stages = {
            "sft": {"method": "sft", "data": tiny_data.data(Path(), "conversations"), "model": "somebody/model"},
            "dpo": {"method": "dpo", "data": "rankings.jsonl", "from": "sft"},
        }
        check_pipeline(PipelineConfig.model_validate({"name": "p", "base": "base", "stages": stages}))
        assert asked == ["somebody/model", "base"]


class TestWords:
    def test_json_holds_what_the_text_says(self, capsys: Capture) -> None:
        Path("pipe.yaml").write_text(PIPELINE)
        code, out, _ = run(capsys, "pipe.yaml")
        same, report = check_json(capsys, "pipe.yaml")
        assert code == same
        text = said(out)
        for one in report["findings"]:
            first = said(one["text"])
            assert f"[{one['code']}] {one['section']}: {first}" in text
            assert said(one["fix"]) in text
        for stage, sections in report["stages"].items():
            for name, counts in sections.items():
                assert f"{stage} · {name} {counts['read']} rows read = {counts['used']} used" in text
        assert out.count("[") == len(report["findings"]) + out.count("[0") + out.count("allow=[")
        levels = [one["level"] for one in report["findings"]]
        assert (report["errors"], report["warnings"], report["notes"]) == tuple(
            levels.count(level) for level in ("error", "warning", "note")
        )
        assert levels == sorted(levels, key=["error", "allowed", "warning", "note"].index)
        assert report["ok"] is False

    def test_held_out_rows_are_not_only_unselected(self, capsys: Capture) -> None:
        _, out, _ = run(
            capsys, "rankings.jsonl", "data.rows=2:20", "data.limit=12", "data.holdout=0.4", "--model", "base"
        )
        line = out.splitlines()[1]
        used, held, rest = (int(word) for word in line.split() if word.isdigit() and word != "20")
        assert line == f"  20 rows read = {used} used + {held} held out + {rest} not selected"
        assert (used + held, rest) == (12, 8)

    def test_output_fits_80_columns_and_escapes_data(self, capsys: Capture, folder: Path) -> None:
        """A file name with an escape sequence, very long, in a message of many places."""
        name = f"{'long' * 40}\x1b[31m.jsonl"
        rows = [{**row, "prompt": f"What is <|im_end|>{index}?"} for index, row in enumerate(rankings(20))]
        path = tiny_data.write(folder / name, rows)
        Path("pipe.yaml").write_text(
            json.dumps({"name": "p", "base": "base", "stages": {"d" * 30: {"method": "dpo", "data": path}}})
        )
        code, out, _ = run(capsys, "pipe.yaml")
        assert code == 3
        assert "\x1b" not in out
        assert "\\x1b[31m" in out.replace("\n", "")
        assert max(map(len, out.splitlines())) <= 80

    def test_a_wide_terminal_changes_nothing(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        _, narrow, _ = run(capsys, "rankings.jsonl", "--model", "base")
        monkeypatch.setenv("COLUMNS", "300")
        _, wide, _ = run(capsys, "rankings.jsonl", "--model", "base")
        assert wide == narrow
        assert max(map(len, wide.splitlines())) <= 80

    def test_the_longest_bar_is_the_fullest(self, capsys: Capture, folder: Path) -> None:
        rows = [{"text": "a" * size} for size in [10] * 3 + [20] * 6 + [300]]
        _, out, _ = run(capsys, tiny_data.write(folder / "texts.jsonl", rows), "--model", "base")
        bars = [line.split() for line in out.splitlines() if "█" in line or "▏" in line]
        spans = ["0-15", "16-31", "32-63", "64-127", "128-255", "256-511"]
        assert [(low, rows) for low, *_, rows in bars] == list(zip(spans, "360001", strict=True))
        assert [len(bar[1]) for bar in bars if "█" in bar[1]] == [15, 30, 5]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["check", "rankings.jsonl", "--model", "base", "max_lenght=9"], 2, "max_length"),
        (["check", "nowhere.jsonl", "--model", "base"], 3, "nowhere.jsonl"),
        (["check", "bad.jsonl", "--model", "base"], 3, "bad.jsonl:21"),
        (["check", "bad.yaml"], 3, "bad.jsonl:21"),
        (["check", "key.yaml"], 2, "key.yaml:6"),
    ],
)
def test_errors_are_reported_without_torch(words: list[str], code: int, message: str) -> None:
    tiny_data.write(Path("bad.jsonl"), [*rankings(20), {"prompt": "q", "chosen": "a"}])
    Path("bad.yaml").write_text(PIPELINE.replace("reward, from: sft, data: rankings", "reward, from: sft, data: bad"))
    Path("key.yaml").write_text(PIPELINE.replace("from: sft, data: rank", "form: sft, data: rank"))
    source = f"import sys; from trueup.cli.main import main; code = main({words}); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{code} False"
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 6
