"""Files that lead elsewhere, run code or never end: data, saved data sets, and what an export copies."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
import tiny_data
from hostile import evil
from trueup import export
from trueup.config import DataConfig, PipelineConfig
from trueup.data.sources import decoding
from trueup.data.sources.stream import RowStream
from trueup.errors import CheckpointError, ConfigError, DataError, ModelError


def rows(path: Path) -> list[Any]:
    return list(RowStream(DataConfig(path=str(path)), "text"))


# -- code in data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["data.pt", "data.pkl", "data.npy", "data.bin", "data.pickle", "data.arrow", "data.tar"]
)
def test_what_is_no_data_format_is_refused(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "the code ran"
    with pytest.raises(DataError, match="is not a data format"):
        rows(evil.plain_pickle(tmp_path / name, marker))
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("write", [evil.pickled, evil.plain_pickle])
def test_pickles_under_a_data_name_are_not_unpickled(
    write: Callable[[Path, Path], Path], suffix: str, tmp_path: Path
) -> None:
    marker = tmp_path / "the code ran"
    with pytest.raises(DataError):
        rows(write(tmp_path / f"data.{suffix}", marker))
    assert not marker.exists()


def test_extension_types_of_parquet_are_not_unpickled(tmp_path: Path) -> None:
    """pyarrow once unpickled the metadata of arrow.py_extension_type on reading (CVE-2023-47248)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    marker = tmp_path / "the code ran"
    note = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(evil.Touch(marker)),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=note)])
    pq.write_table(pa.table([["a text"]], schema=schema), tmp_path / "data.parquet")
    assert [row.text for row in rows(tmp_path / "data.parquet")] == ["a text"]
    assert not marker.exists()


def test_a_folder_with_a_loading_script_is_only_read(tmp_path: Path) -> None:
    marker, folder = tmp_path / "the code ran", tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(marker)!r}, 'w')")
    (folder / "data.txt").write_text("a text\n")
    assert [row.text for row in rows(folder)] == ["a text"]
    assert not marker.exists()


# -- names that lead elsewhere -------------------------------------------------------------------------------------


def saved(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"text": ["a text"]}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("name", ["../secret/data-00000-of-00001.arrow", "/etc/passwd", ".."])
def test_a_saved_data_set_reads_its_own_files(name: str, tmp_path: Path) -> None:
    saved(tmp_path / "secret")
    folder = saved(tmp_path / "set")
    assert [row.text for row in rows(folder)] == ["a text"]
    evil.change(folder / "state.json", _data_files=[{"filename": name}])
    with pytest.raises(DataError, match=r"state\.json: names .* which does not lie in the folder"):
        rows(folder)


def test_a_saved_data_set_has_its_own_splits(tmp_path: Path) -> None:
    saved(tmp_path / "secret")
    folder = tmp_path / "sets"
    saved(folder / "train")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../secret"]}))
    with pytest.raises(DataError, match=r"dataset_dict\.json: names"):
        rows(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", "[]", '{"_data_files": 3, "splits": 4}'])
def test_a_saved_data_set_with_broken_settings(text: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set")
    (folder / "state.json").write_text(text)
    with pytest.raises(DataError):
        rows(folder)


@pytest.mark.parametrize("name", ["../up", "/tmp/up", ".", "..", "a/b", "a\\b", "", ".hidden", "a\x1b[2J"])
def test_names_of_stages_and_pipelines_are_names_of_folders(name: str) -> None:
    stage = {"method": "sft", "data": "a.jsonl"}
    for given in ({"name": name, "stages": {"sft": stage}}, {"name": "ok", "stages": {name: stage}}):
        with pytest.raises((ConfigError, ValueError)):
            PipelineConfig.model_validate({"base": "base", **given})


def test_names_of_models_are_no_paths_in_an_evaluation(tmp_path: Path) -> None:
    from trueup.config import EvaluateConfig
    from trueup.evaluation.plan import Plan

    plan = Plan(tmp_path / "out", {}, "base", EvaluateConfig())
    for name in ("../../up", "/etc/passwd", "..", "a\x00b", "x" * 5000, "\udc80"):
        assert plan.file(name).parent == plan.place
        assert plan.wins_file(name).parent == plan.place
        assert len(plan.file(name).name) < 200


# -- exports -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_data.stage("sft", tmp_path_factory.mktemp("finished"), lora={"r": 2}, optim={"steps": 1})
    tiny_data.run(config)
    return Path(config.output)


@pytest.mark.parametrize("link", ["secret", "folder", "relative", "nowhere"])
def test_an_export_carries_nothing_from_elsewhere(link: str, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("hunter2")
    target = {
        "secret": tmp_path / "secrets" / "key", "folder": tmp_path / "secrets",
        "relative": Path("../../secrets/key"), "nowhere": tmp_path / "gone",
    }[link]  # fmt: skip
    (run / "model" / "notes.txt").symlink_to(target)
    with pytest.raises(ModelError, match=r"notes\.txt: a link out of the model's folder"):
        export.run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


@pytest.mark.slow
def test_an_export_follows_links_of_the_hub_cache_and_leaves_hidden_files(tmp_path: Path) -> None:
    folder = Path(tiny.tiny_folder(tmp_path / "made"))
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    (snapshot / ".env").write_text("HF_TOKEN=hunter2")
    (snapshot / ".git").mkdir()
    (snapshot / ".git" / "config").write_text("hunter2")
    out = export.run(snapshot, tmp_path / "out")
    assert not any(path.is_symlink() or path.name.startswith(".") for path in out.rglob("*"))
    assert (out / "model.safetensors").is_file()


def test_an_export_of_a_broken_file_is_an_error_of_the_model(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "model" / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError):
        export.run(run, tmp_path / "out", dtype="bfloat16")


def test_an_export_does_not_wait_at_a_pipe(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    os.mkfifo(run / "model" / "pipe")
    with pytest.raises((ModelError, CheckpointError)):
        export.run(run, tmp_path / "out")


def test_what_a_run_folder_says_of_code_is_not_believed(finished: Path, tmp_path: Path) -> None:
    marker, run = tmp_path / "the code ran", shutil.copytree(finished, tmp_path / "run")
    code = evil.with_code(tmp_path / "code", marker)
    shutil.rmtree(run / "model")
    shutil.copytree(code, run / "model")
    (run / "outputs.safetensors").unlink(missing_ok=True)
    (run / "config.yaml").write_text("trust_remote_code: true\n")
    with pytest.raises(ModelError):
        export.run(run, tmp_path / "out")
    assert not marker.exists()


# -- what never ends -----------------------------------------------------------------------------------------------

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "jsonl.gz": (b'{"text": "', b"a"),
    "json.gz": (b'[{"text": "', b"a"),
    "nested.json.gz": (b'[{"text": ', b"["),
    "spaces.json.gz": (b"[", b" "),
    "numbers.json.gz": (b'[{"text": "a", "n": ', b"1"),
    "csv.gz": (b'text\n"', b"a"),
    "lines.csv.gz": (b'text\n"', b"a\n"),
    "cells.csv.gz": (b'a,b\n"', b'a","\n'),
    "txt.gz": (b"", b"a"),
    "blank.txt.gz": (b"a\n", b" "),
}


LONG = {"lines.csv.gz", "cells.csv.gz"}  # many small pieces, which tracing makes slow


@pytest.mark.parametrize(
    "suffix", [pytest.param(one, marks=pytest.mark.slow) if one in LONG else one for one in ENDLESS]
)
def test_a_small_file_that_unpacks_without_end_takes_bounded_memory(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 MB from 32 kB, with the limit at 1 MB: what is read of a row ends at the limit, and so does memory."""
    monkeypatch.setattr(decoding, "LINE_LIMIT", 2**20)
    head, unit = ENDLESS[suffix]
    path = tmp_path / f"bomb.{suffix}"
    with gzip.open(path, "wb") as file:
        file.write(head)
        for _ in range(32):
            file.write(unit * (2**20 // len(unit)))
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            rows(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert "\n  fix: " in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.slow
def test_a_gigabyte_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'{"text": "')
        for _ in range(1024):
            file.write(b"a" * 2**20)
        file.write(b'"}\n')
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="a line of more than 67,108,864 bytes"):
            rows(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * decoding.LINE_LIMIT
    finally:
        tracemalloc.stop()


def test_a_parquet_row_has_a_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(decoding, "LINE_LIMIT", 2**20)
    texts = ["short", "a" * 2**21, "short again"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "bomb.parquet", compression="zstd")
    with pytest.raises(DataError, match=r"(?s)bomb\.parquet:2: .*a row of more than 1,048,576 bytes"):
        rows(tmp_path / "bomb.parquet")


def test_a_csv_row_may_have_many_lines_within_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], ["one\ntwo\nthree"], ["four"]])
    assert [row.text for row in rows(tmp_path / "data.csv")] == ["one\ntwo\nthree", "four"]
