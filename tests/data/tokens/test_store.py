"""Rows read back from disk are the rows that were rendered, and a file that is not whole is noticed."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.tokens import making
from trueup.data.rendering.messages import Message, Origin
from trueup.data.sources.parser import Parser
from trueup.data.sources.reader import open_reader
from trueup.data.tokens.pack import compared, parts_of, rendered_row
from trueup.data.tokens.record import Flag
from trueup.data.tokens.store import FILES, Tokenized, read_sealed, write_sealed
from trueup.errors import DataError

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <|im_end|>?"},
    {"role": "assistant", "content": "Héllo 🎉"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because\n\n日本."},
]
KINDS: dict[str, list[dict[str, Any]]] = {
    "conversation": [{"messages": TALK}, {"messages": TALK[1:3]}, {"messages": TALK[:3]}],
    "preference": [
        {"prompt": "q", "chosen": "a", "rejected": "bb", "margin": 0.5},
        {"prompt": "q two", "chosen": "ccc", "rejected": "d", "margin": 7},
        {"prompt": TALK[1:4], "chosen": "e", "rejected": "f", "margin": 1e-9},
    ],
    "labelled": [
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": "q", "completion": "b", "label": False},
    ],
    "prompt": [{"prompt": "one?"}, {"prompt": TALK[:4]}],
    "text": [{"text": "A document.\nOf two lines."}, {"text": "é"}],
}


def rows_of(path: Path, kind: Any) -> list[Any]:
    """Parse the file without the package under test."""
    parser, made = Parser(kind), []
    for origin, row in open_reader(str(path), "train").entries():
        assert isinstance(row, dict)
        if not parser.started:
            parser.start(origin, row)
        made += parser.parse(origin, row, []).rows
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_is_what_was_rendered(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.jsonl"
    stored = making.tokens(path, KINDS[kind], kind)
    rows, renderer = rows_of(path, kind), making.renderer()
    assert len(stored) == len(rows) == len(KINDS[kind])
    for at, row in enumerate(rows):
        direct, found = rendered_row(renderer, row)[0], stored.example(at)
        assert (found.trunk, found.branches) == (direct.trunk, direct.branches)
        assert found.row == at
        assert stored.origin(at) == row.origin == Origin(str(path), at + 1)
        assert stored.parts(at) == [[list(message) for message in part] for part in parts_of(row)]
        record = stored.record(at)
        assert record["trained"] == sum(branch.trained for branch in direct.branches)
        assert record["trunk"] == len(direct.trunk)


def test_prompts_and_scalars(tmp_path: Path) -> None:
    ranked = making.tokens(tmp_path / "a.jsonl", KINDS["preference"], "preference")
    assert [float(ranked.record(at)["scalar"]) for at in range(3)] == [0.5, 7, 1e-9]
    assert ranked.prompt(2) == tuple(Message(one["role"], one["content"]) for one in TALK[1:4])
    labelled = making.tokens(tmp_path / "b.jsonl", KINDS["labelled"], "labelled")
    assert [float(labelled.record(at)["scalar"]) for at in range(2)] == [1, 0]
    asked = making.tokens(tmp_path / "c.jsonl", KINDS["prompt"], "prompt")
    assert asked.prompt(0) == (Message("user", "one?"),)
    assert [branch.ids for branch in asked.example(0).branches] == [[]]
    assert np.isnan(asked.record(0)["scalar"])


def test_flags(tmp_path: Path) -> None:
    """The content of row 0 spells a control token; all ends are trained, of prompts nothing is said."""
    stored = making.tokens(tmp_path / "a.jsonl", KINDS["conversation"])
    flags = [Flag(int(stored.record(at)["flags"])) for at in range(3)]
    assert all(one == Flag.ENDS | Flag.SPECIAL | Flag.JUDGED | Flag.COMPARED for one in flags)
    asked = making.tokens(tmp_path / "b.jsonl", [{"prompt": "one?"}], "prompt")
    assert Flag(int(asked.record(0)["flags"])) == Flag.JUDGED | Flag.COMPARED


def test_history_that_the_template_rewrites_is_flagged_in_every_row(tmp_path: Path) -> None:
    """Also in a row whose prompt is that of the row before, which the renderer remembers."""
    talk = [*TALK[1:4], {"role": "assistant", "content": "No."}]
    other = [*talk[:3], {"role": "assistant", "content": "Yes."}]
    rows = [{"messages": talk}, {"messages": other}, {"messages": talk}, {"messages": TALK[1:3]}]
    stored = making.tokens(tmp_path / "a.jsonl", rows, by=making.renderer(making.REWRITING))
    flags = [bool(stored.record(at)["flags"] & Flag.REWRITTEN) for at in range(4)]
    assert flags == [True, True, True, False]
    plain = making.tokens(tmp_path / "a.jsonl", rows)
    assert not any(plain.record(at)["flags"] & Flag.REWRITTEN for at in range(4))


def test_an_empty_answer_is_flagged_also_in_the_middle(tmp_path: Path) -> None:
    silent = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}, *TALK[3:]]
    rows = [{"messages": silent}, {"messages": silent[:2]}, {"messages": TALK}]
    stored = making.tokens(tmp_path / "a.jsonl", rows, allow_empty=True)
    assert [bool(stored.record(at)["flags"] & Flag.EMPTY) for at in range(3)] == [True, True, False]
    ranked = making.tokens(tmp_path / "b.jsonl", [{"prompt": "q", "chosen": "a", "rejected": ""}], "preference",
                           allow_empty=True)  # fmt: skip
    assert ranked.record(0)["flags"] & Flag.EMPTY


def test_the_two_sides_are_compared_in_any_order() -> None:
    """So that A > B and B > A are one content, and where the prompt ends matters little."""
    ask, a, b = [("user", "q")], [("assistant", "a")], [("assistant", "b")]
    assert compared([ask, a, b]) == compared([ask, b, a]) == "q\na\nb"


class TestWhole:
    @pytest.fixture
    def stored(self, tmp_path: Path) -> Tokenized:
        return making.tokens(tmp_path / "rows.jsonl", making.pairs(5))

    @pytest.mark.parametrize("name", [*FILES, "meta.json"])
    def test_a_flipped_bit_is_noticed(self, stored: Tokenized, name: str) -> None:
        path = stored.folder / name
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(ValueError, match=r"not as it was written|line|char|codec"):
                Tokenized(stored.folder)
        path.write_bytes(whole)
        assert len(Tokenized(stored.folder)) == 5

    @pytest.mark.parametrize("name", [*FILES, "meta.json"])
    def test_a_cut_or_longer_file_is_noticed(self, stored: Tokenized, name: str) -> None:
        path = stored.folder / name
        whole = path.read_bytes()
        for changed in (whole[:-1], b"", whole + b"\0"):
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"."):
                Tokenized(stored.folder)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            Tokenized(stored.folder)

    @pytest.mark.parametrize("text", ["[]", "null", "{}", '{"stored": {}}', "5", ""])
    def test_a_meta_of_another_form(self, stored: Tokenized, text: str) -> None:
        (stored.folder / "meta.json").write_text(text)
        with pytest.raises(ValueError, match=r"."):
            Tokenized(stored.folder)

    def test_a_changed_count_is_noticed(self, stored: Tokenized) -> None:
        path = stored.folder / "meta.json"
        path.write_text(path.read_text().replace('"read": 5', '"read": 6'))
        with pytest.raises(ValueError, match="not as it was written"):
            Tokenized(stored.folder)

    def test_a_file_cut_while_it_is_in_use_is_no_shorter_row(self, stored: Tokenized) -> None:
        (stored.folder / "tokens.u32").write_bytes(b"")
        with pytest.raises(DataError, match="changed while it is in use"):
            stored.example(0)

    def test_open_files_outlive_their_folder(self, stored: Tokenized) -> None:
        """Another process may tidy away what was not opened for a month, while this one still trains on it."""
        expected = pickle.loads(pickle.dumps(stored)).example(4)
        shutil.rmtree(stored.folder)
        assert stored.example(4) == expected
        assert stored.parts(0)[0][0][0] == "user"
        assert stored.signatures(0, 5).shape == (5, 32)

    def test_it_can_be_pickled(self, stored: Tokenized) -> None:
        copy = pickle.loads(pickle.dumps(stored))
        assert [copy.example(at) for at in range(5)] == [stored.example(at) for at in range(5)]
        assert copy.fingerprint == stored.fingerprint


@pytest.mark.parametrize(("kind", "key", "value"), [("labelled", "label", False), ("preference", "margin", 0.25),
                                                    ("conversation", "messages", TALK[:3]),
                                                    ("prompt", "prompt", "two?")])  # fmt: skip
def test_the_fingerprint_changes_with_every_part_of_a_row(tmp_path: Path, kind: str, key: str, value: Any) -> None:
    before = making.tokens(tmp_path / "a.jsonl", KINDS[kind], kind)
    after = making.tokens(tmp_path / "a.jsonl", [{**KINDS[kind][0], key: value}, *KINDS[kind][1:]], kind)
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_is_of_the_rows_alone(tmp_path: Path) -> None:
    """Neither the file's name nor blank lines change what is trained on."""
    before = making.tokens(tmp_path / "a.jsonl", making.pairs(4))
    after = making.tokens(tmp_path / "b.jsonl", ["", *making.pairs(4), ""])
    assert before.folder != after.folder
    assert before.fingerprint == after.fingerprint


def test_sealed_json(tmp_path: Path) -> None:
    told = {"near": 3, "share": 0.1, "names": ["ä", "\udc80"], "none": None}
    path = tmp_path / "told.json"
    write_sealed(path, told)
    assert read_sealed(path) == told
    path.write_text(json.dumps({**json.loads(path.read_text()), "near": 4}))
    with pytest.raises(ValueError, match=r"told\.json is not as it was written"):
        read_sealed(path)


@pytest.mark.filterwarnings("error")
def test_collected_in_a_cycle_its_files_are_closed_without_a_word(tmp_path: Path) -> None:
    """Rows in a reference cycle, as in a stage, whose network and sources refer to each other."""
    stored = making.tokens(tmp_path / "rows.jsonl", making.pairs(3))
    descriptors = list(stored._opened.values())
    circle: list[Any] = [stored]
    circle.append(circle)
    del stored, circle
    gc.collect()
    for one in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(one)
