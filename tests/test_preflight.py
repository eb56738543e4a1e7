"""Rows are read before torch is imported, whatever the stage, and handed over once."""

import json
import subprocess
import sys

import pytest

from trueup import preflight, sources
from trueup.config import DataConfig, DpoConfig, PipelineConfig, PpoConfig, RewardConfig, SftConfig
from trueup.errors import DataError

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


def test_preloaded_rows_are_handed_over_once_and_never_stale(tmp_path):
    path = tmp_path / "rows.jsonl"
    section = DataConfig(path=write(path, PAIR))
    sources.preload(section, "conversation")
    first = sources.load_section(section, "conversation")
    assert sources.load_section(section, "conversation") is not first
    sources.preload(section, "conversation")
    write(path, PAIR, PAIR)
    assert len(sources.load_section(section, "conversation")) == 2
    sources.forget()


def test_a_pipeline_reads_the_rows_of_all_its_stages(tmp_path):
    good, bad = write(tmp_path / "good.jsonl", PAIR), write(tmp_path / "bad.jsonl", {"chosen": "a"})
    stages = {"sft": {"method": "sft", "data": good}, "dpo": {"method": "dpo", "from": "sft", "data": bad}}
    config = PipelineConfig.model_validate({"name": "p", "base": "m", "stages": stages})
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        preflight.read_pipeline(config)


def test_a_broken_line_is_reported_without_importing_torch(tmp_path):
    data = write(tmp_path / "rows.jsonl", PAIR, "{oops\n")
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    code = (
        "import sys; from trueup.cli import main; "
        f"code = main(['sft', 'model={folder}', 'data={data}', 'output={tmp_path / 'o'}']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 False"
    assert "rows.jsonl:2" in done.stderr
    assert not (tmp_path / "o").exists()
