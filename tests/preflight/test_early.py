"""Rows are read before torch is imported, whatever the stage: of large data the beginning."""

import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from trueup.config import DpoConfig, PipelineConfig, PpoConfig, RewardConfig, SftConfig
from trueup.data.sources import stream
from trueup.data.sources.parser import Parser
from trueup.errors import DataError
from trueup.preflight import early as preflight

PAIR = {"prompt": "q", "completion": "a"}
RANKING = {"prompt": "q", "chosen": "a", "rejected": "b"}
LABELLED = {"prompt": "q", "completion": "a", "label": True}


def write(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def stage(cls, path, **more):
    key = "prompts" if cls is PpoConfig else "data"
    extra = {"reward": "r"} if cls is PpoConfig else {}
    return cls.model_validate({"model": "m", "output": "o", key: path, **extra, **more})


@pytest.mark.parametrize(
    ("cls", "row"),
    [(SftConfig, PAIR), (RewardConfig, RANKING), (DpoConfig, RANKING), (PpoConfig, {"prompt": "q"})],
)
def test_every_stage_reads_its_own_kind_of_row(tmp_path, cls, row):
    good = write(tmp_path / "good.jsonl", row, row)
    preflight.read_rows(stage(cls, good))
    broken = write(tmp_path / "broken.jsonl", row, row, "{oops\n")
    with pytest.raises(DataError, match=r"broken\.jsonl:3"):
        preflight.read_rows(stage(cls, broken))


@pytest.mark.parametrize("row", [LABELLED, RANKING])
def test_kto_takes_labels_or_rankings(tmp_path, row):
    preflight.read_rows(stage(DpoConfig, write(tmp_path / "rows.jsonl", row, row), loss={"name": "kto"}))


def test_kto_speaks_of_labels_when_the_rows_are_neither(tmp_path):
    with pytest.raises(DataError, match="label"):
        preflight.read_rows(stage(DpoConfig, write(tmp_path / "rows.jsonl", PAIR), loss={"name": "kto"}))


def test_evaluation_and_mixed_rows_are_read_too(tmp_path):
    good, bad = write(tmp_path / "good.jsonl", PAIR), write(tmp_path / "bad.jsonl", {"prompt": "q"})
    for more in ({"eval": {"data": bad}}, {"mix": {"data": bad}}):
        with pytest.raises(DataError, match=r"bad\.jsonl:1"):
            preflight.read_rows(stage(SftConfig, good, **more))


def looked_at(monkeypatch):
    """Count the rows that are parsed from now on, with no time to read more than needed."""
    seen = []
    parse = Parser.parse

    def counted(self, origin, found, notes):
        seen.append(origin.line)
        return parse(self, origin, found, notes)

    monkeypatch.setattr(Parser, "parse", counted)
    monkeypatch.setattr(preflight, "SECONDS", 0.0)
    monkeypatch.setattr(stream, "_CHECK_CLOCK_EVERY", 4)
    return seen


def test_of_large_data_only_the_beginning_is_read(tmp_path, monkeypatch):
    seen = looked_at(monkeypatch)
    preflight.read_rows(stage(SftConfig, write(tmp_path / "rows.jsonl", *[PAIR] * 1000)))
    assert 1 <= len(seen) <= 4


@pytest.mark.parametrize("bad", ["{oops\n", {"prompt": "q"}, {"prompt": "q", "completion": 5}])
def test_errors_read_before_the_time_is_up_are_reported(tmp_path, monkeypatch, bad):
    """A second passes at each look: time is up at the second row of 50."""
    clock = itertools.count()
    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(preflight, "SECONDS", 1.5)
    monkeypatch.setattr(stream, "_CHECK_CLOCK_EVERY", 1)
    path = write(tmp_path / "rows.jsonl", PAIR, bad, PAIR, *[PAIR] * 46, "{late\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2") as caught:
        preflight.read_rows(stage(SftConfig, path))
    assert ":50" not in str(caught.value)
    assert next(clock) == 3


def test_an_empty_answer_may_be_allowed(tmp_path):
    path = write(tmp_path / "rows.jsonl", PAIR, {**PAIR, "completion": ""})
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        preflight.read_rows(stage(SftConfig, path))
    preflight.read_rows(stage(SftConfig, path, allow=["empty-response"]))


def test_every_section_of_a_mixture_is_read(tmp_path):
    good, bad = write(tmp_path / "good.jsonl", PAIR), write(tmp_path / "bad.jsonl", {"prompt": "q"})
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        preflight.read_rows(stage(SftConfig, [good, {"path": bad, "weight": 0.5}]))


def test_a_pipeline_reads_the_rows_of_all_its_stages(tmp_path):
    good, bad = write(tmp_path / "good.jsonl", PAIR), write(tmp_path / "bad.jsonl", {"chosen": "a"})
    stages = {"sft": {"method": "sft", "data": good}, "dpo": {"method": "dpo", "from": "sft", "data": bad}}
    config = PipelineConfig.model_validate({"name": "p", "base": "m", "stages": stages})
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        preflight.read_pipeline(config)


def test_a_pipeline_reads_the_same_rows_once(tmp_path, monkeypatch):
    path, read = write(tmp_path / "rows.jsonl", RANKING, RANKING), []
    stages = {
        "reward": {"method": "reward", "data": path},
        "dpo": {"method": "dpo", "data": {"path": path, "limit": 1}},
        "kto": {"method": "dpo", "data": path, "loss": {"name": "kto"}},
        "half": {"method": "dpo", "data": {"path": path, "rows": "1:"}},
    }
    monkeypatch.setattr(preflight, "_read_beginning", lambda section, kinds, **_: read.append((section.rows, kinds)))
    preflight.read_pipeline(PipelineConfig.model_validate({"name": "p", "base": "m", "stages": stages}))
    assert read == [(None, ("preference",)), (None, ("labelled", "preference")), ("1:", ("preference",))]


def test_a_broken_line_is_reported_without_importing_torch(tmp_path):
    data = write(tmp_path / "rows.jsonl", PAIR, "{oops\n")
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    code = (
        "import sys; from trueup.cli.main import main; "
        f"code = main(['sft', 'model={folder}', 'data={data}', 'output={tmp_path / 'o'}']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 False"
    assert "rows.jsonl:2" in done.stderr
    assert not (tmp_path / "o").exists()


def test_the_clock_is_looked_at_whatever_the_slice(tmp_path, monkeypatch):
    """All rows before the slice are judged too; their time counts."""
    monkeypatch.setattr(preflight, "SECONDS", 0.0)
    rows = [PAIR] * 3000
    path = write(tmp_path / "late.jsonl", *rows, "{oops\n")
    preflight.read_rows(stage(SftConfig, {"path": path, "rows": "2990:"}))  # ends before it comes to the last line
    early = write(tmp_path / "early.jsonl", "{oops\n", *rows)
    with pytest.raises(DataError, match=r"early\.jsonl:1"):
        preflight.read_rows(stage(SftConfig, {"path": early, "rows": "2990:"}))
