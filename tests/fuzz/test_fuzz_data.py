"""Fuzzing data: every kind of file for every kind of row, read by the stream, and on to tokens by `prepare`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from campaign import SECONDS, Case, fuzz
from mutation import JSON_TOKENS, exchanged_json, mutated

import tiny
import tiny_data
from trueup.config import STAGES, DataConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.parser import FORMATS
from trueup.data.sources.stream import RowStream
from trueup.data.tokens.prepare import prepare

TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
TALK = "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: So?\n\nAssistant: "
ROWS: dict[str, list[list[dict[str, Any]]]] = {
    "conversation": [
        tiny_data.rows("conversations", 3), [{"messages": TURNS}] * 2,
        [{"instruction": "i", "input": "m", "output": "o", "system": "s"}] * 2,
        [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}],
    ],
    "preference": [
        tiny_data.rows("rankings", 3), tiny_data.rows("margins", 2), [{"chosen": f"{TALK}yes",
        "rejected": f"{TALK}no"}] * 2,
        [{"chosen": TURNS, "rejected": [*TURNS[:2], {"role": "assistant", "content": "b"}], "score_chosen": 2,
        "score_rejected": 1}],
    ],
    "labelled": [tiny_data.rows("labelled", 4)],
    "prompt": [tiny_data.rows("prompts", 3), [{"messages": TURNS[:2]}], tiny_data.rows("rankings", 2)],
    "text": [tiny_data.rows("texts", 3)],
}  # fmt: skip
USES = list(FORMATS)
SUFFIXES = (
    ".jsonl",
    ".jsonl",
    ".json",
    ".json",
    ".csv",
    ".tsv",
    ".txt",
    ".parquet",
    ".jsonl.gz",
    ".csv.gz",
    ".json.gz",
    ".ndjson",
)
METHODS = {"conversation": "sft", "preference": "dpo", "labelled": "dpo", "prompt": "ppo", "text": "sft"}
LONG = gzip.compress(bytes(100 * 2**20))
"""A hundred million bytes without a line's end, in a hundred thousand."""


def packed(rows: Sequence[dict[str, Any]], suffix: str) -> bytes:
    """The rows as the file of a sound user."""
    kind = suffix.removesuffix(".gz")
    if kind == ".json":
        return json.dumps(rows, indent=1).encode()
    if kind in (".csv", ".tsv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    if kind == ".txt":
        return b"one line\nanother\n\nlast"
    if kind == ".parquet":
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
        return file.getvalue()
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


SEEDS = {
    (want, suffix): [packed(rows, suffix) for rows in found] for want, found in ROWS.items() for suffix in set(SUFFIXES)
}
EVERY = [seed for found in SEEDS.values() for seed in found]


def broken(data: bytes, suffix: str, chance: Random) -> bytes:
    """A mutation that suits the kind of file."""
    kind = suffix.removesuffix(".gz")
    if kind in (".jsonl", ".json", ".ndjson") and chance.random() < 0.5:
        data = exchanged_json(data, chance, lines=kind != ".json")
        return data if chance.random() < 0.8 else mutated(data, chance, EVERY, JSON_TOKENS)
    return mutated(data, chance, EVERY, JSON_TOKENS)


def draw(chance: Random) -> Case:
    want, use = chance.choice(USES)
    suffix = chance.choice(SUFFIXES)
    of = "preference" if use == "chosen" else "text" if use == "text" else want
    data = broken(chance.choice(SEEDS[of, suffix]), suffix, chance)
    if suffix.endswith(".gz"):
        data = gzip.compress(data, 1)
        data = mutated(data, chance, [data], JSON_TOKENS) if chance.random() < 0.5 else data
        data = LONG if chance.random() < 0.0005 else data
    settings: dict[str, Any] = {
        "use": use if use != "auto" else chance.choice(("auto", "auto", "prompt", "chosen", "text"))
    }
    settings["identical_pairs"] = chance.choice(("error", "drop"))
    if chance.random() < 0.2:
        settings["rows"] = chance.choice(("0:2", "1:", ":1", "5:9", "0:99999999999999999999"))
    if chance.random() < 0.1:
        settings["columns"] = chance.choice(
            ({"prompt": "question"}, {"prompt": "prompt"}, {"x": "y"}, {"prompt": "chosen"}, {})
        )
    return Case(suffix, data, (want, json.dumps(settings)))


def section(case: Case, folder: Path) -> DataConfig:
    """The file, written, as a data section."""
    path = folder / f"rows{case.kind}"
    path.write_bytes(case.data)
    return DataConfig.model_validate({"path": str(path), **json.loads(case.words[1])})


def check_stream(case: Case, folder: Path) -> None:
    """Read it twice; every row is used, dropped or outside of the slice."""
    found = RowStream(section(case, folder), cast("Any", case.words[0]), allow_empty=len(case.data) % 2 == 0)
    rows = list(found)
    counts = found.account
    assert counts.read == counts.used + len(counts.dropped) + counts.unselected
    assert len(rows) == counts.used > 0
    assert list(found) == rows
    assert found.account == counts
    json.dumps(counts.counts(found.reader.left_out, found.reader.blank))


def check_tokens(case: Case, folder: Path, renderer: Renderer) -> None:
    """From the file to rows of tokens; the account adds up."""
    method = METHODS[case.words[0]]
    field = STAGES[method].data_fields[0]
    data = section(case, folder).model_dump(exclude_unset=True)
    (folder / "score.py").write_text("def score(conversations):\n    return [0.0 for _ in conversations]\n")
    rest = {"reward": f"{folder}/score.py:score", "rollouts": {"max_new_tokens": 8}} if method == "ppo" else {}
    config = STAGES[method].model_validate(
        {"model": "m", "output": "o", "max_length": 64, "over_length": "drop", "allow": ["empty-response"], field: data}
        | rest
    )
    ready = prepare(config, renderer)
    for counts in ready.counts.values():
        over = counts.get("over_length", {"count": 0})["count"]
        assert counts["read"] == counts["used"] + len(counts["dropped"]) + counts["unselected"] + over
    for at in range(len(ready.train)):
        one = ready.train[at]
        assert all(0 <= token < tiny.VOCABULARY for token in one.trunk)


@pytest.mark.slow
def test_no_file_breaks_the_reading_of_rows(tmp_path: Path) -> None:
    fuzz("data", draw, lambda case: check_stream(case, tmp_path), tmp_path, SECONDS * 2 / 3)


@pytest.mark.slow
def test_no_file_breaks_the_way_to_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    renderer = Renderer(tiny.tiny_tokenizer())

    def drawn(chance: Random) -> Case:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return draw(chance)

    fuzz("tokens", drawn, lambda case: check_tokens(case, tmp_path, renderer), tmp_path, SECONDS / 3)
