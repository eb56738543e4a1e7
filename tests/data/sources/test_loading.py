"""Files to typed rows: every format, every malformed file named by line and field, every row counted; the sampler."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from casekit import load, section
from hypothesis import given
from hypothesis import strategies as st

from thorough import trials
from trueup.data.rendering.messages import Conversation, Labelled, Message, Origin, Preference, Prompt, Text
from trueup.data.sources.records import is_transcript, parse_transcript
from trueup.data.sources.stream import RowStream
from trueup.data.tokens.sampler import Sampler
from trueup.errors import CheckpointError, ConfigError, DataError, MissingExtraError, TrueupError

PAIR = {"prompt": "p", "completion": "c"}
RANKING = {"prompt": "p", "chosen": "a", "rejected": "b"}
CHAT = {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]}


def user(content: str) -> Message:
    return Message("user", content)


def said(content: str) -> Message:
    return Message("assistant", content)


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    """Write a file into the test's folder; gives its path as text."""

    def write(content: str | bytes, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return write


def refusal(spec: str, kind: type[TrueupError] = DataError, **arguments) -> str:
    """The message of the error that `load` must raise: short, printable, with a fix."""
    with pytest.raises(TrueupError) as caught:
        load(spec, **arguments)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert len(message.splitlines()) <= 6
    assert all(c.isprintable() or c == "\n" for c in message)
    assert re.search(r"\n {2}fix: .", message)
    return message


# Formats: (rows of the file, what is wanted, use) -> the row it becomes.
P, C = (user("p"),), (said("c"),)
A, B = (said("a"),), (said("b"),)
HH_A, HH_B = "\n\nHuman: p\n\nAssistant: a", "\n\nHuman: p\n\nAssistant: b"
UC = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
UA = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
UB = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "b"}]
SYSTEM = {"role": "system", "content": "s"}
S = (Message("system", "s"),)
FORMATS = [
    ("messages", CHAT, "conversation", "auto", Conversation(P + C)),
    ("messages, system", {"messages": [SYSTEM, *UC]}, "conversation", "auto", Conversation(S + P + C)),
    ("ShareGPT", {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]}, "conversation",
     "auto", Conversation(P + C)),
    ("ShareGPT, system field", {"system": "s", "conversations": [{"from": "user", "value": "p"},
     {"from": "assistant", "value": "c"}]}, "conversation", "auto", Conversation(S + P + C)),
    ("prompt, completion", PAIR, "conversation", "auto", Conversation(P + C)),
    ("prompt, response", {"prompt": "p", "response": "c"}, "conversation", "auto", Conversation(P + C)),
    ("message lists", {"prompt": [UC[0]], "completion": [UC[1]]}, "conversation", "auto", Conversation(P + C)),
    ("completion with its prompt", {"prompt": "p", "completion": UC}, "conversation", "auto", Conversation(P + C)),
    ("system prompt", {"system_prompt": "s", "question": "p", "response": "c"}, "conversation", "auto",
     Conversation(S + P + C)),
    ("Alpaca", {"instruction": "p", "input": "", "output": "c"}, "conversation", "auto", Conversation(P + C)),
    ("Alpaca, null input", {"instruction": "p", "input": None, "output": "c"}, "conversation", "auto",
     Conversation(P + C)),
    ("Alpaca with input", {"instruction": "p", "input": "i", "output": "c"}, "conversation", "auto",
     Conversation((user("p\n\ni"), *C))),
    ("GSM8K", {"question": "p", "answer": "c"}, "conversation", "auto", Conversation(P + C)),
    ("outer spaces stay", {"prompt": " p\n", "completion": " c "}, "conversation", "auto",
     Conversation((user(" p\n"), said(" c ")))),
    ("ranking", RANKING, "preference", "auto", Preference(P, A, B)),
    ("ranking, question", {"question": "p", "chosen": "a", "rejected": "b"}, "preference", "auto",
     Preference(P, A, B)),
    ("ranking, lists alone", {"chosen": UA, "rejected": UB}, "preference", "auto", Preference(P, A, B)),
    ("ranking, lists and prompt", {"prompt": "p", "chosen": UA, "rejected": UB}, "preference", "auto",
     Preference(P, A, B)),
    ("ranking, answers as lists", {"prompt": [UA[0]], "chosen": UA[1:], "rejected": UB[1:]}, "preference", "auto",
     Preference(P, A, B)),
    ("ranking, system in both", {"prompt": "p", "chosen": [SYSTEM, *UA], "rejected": [SYSTEM, *UB]}, "preference",
     "auto", Preference(S + P, A, B)),
    ("ranking, system in one list", {"prompt": "p", "chosen": [SYSTEM, *UA], "rejected": "b"}, "preference", "auto",
     Preference(S + P, A, B)),
    ("ranking, system field", {"system": "s", "chosen": UA, "rejected": UB}, "preference", "auto",
     Preference(S + P, A, B)),
    ("ranking, turns differ early", {"chosen": [*UA, *UC], "rejected": UB}, "preference", "auto",
     Preference(P, (*A, *P, *C), B)),
    ("ranking, one goes on", {"chosen": UA, "rejected": [*UA, *UC]}, "preference", "auto",
     Preference(P, A, (*A, *P, *C))),
    ("ranking, margin", {**RANKING, "margin": 2}, "preference", "auto", Preference(P, A, B, 2.0)),
    ("ranking, scores", {**RANKING, "score_chosen": 7.5, "score_rejected": 3}, "preference", "auto",
     Preference(P, A, B, 4.5)),
    ("hh", {"chosen": HH_A, "rejected": HH_B}, "preference", "auto", Preference(P, A, B)),
    ("hh, several turns", {"chosen": HH_A + "\n\nHuman: q\n\nAssistant: c", "rejected": HH_A +
     "\n\nHuman: q\n\nAssistant: b"}, "preference", "auto", Preference((*P, *A, user("q")), C, B)),
    ("hh, prompt apart", {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": " a", "rejected": "b"}, "preference",
     "auto", Preference(P, A, B)),
    ("hh, prompt twice", {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": HH_A, "rejected": HH_B}, "preference",
     "auto", Preference(P, A, B)),
    ("chosen side", RANKING, "conversation", "chosen", Conversation(P + A)),
    ("UltraFeedback as SFT", {**RANKING, **CHAT, "chosen": "c"}, "conversation", "auto", Conversation(P + C)),
    ("verdict", {**PAIR, "label": True}, "labelled", "auto", Labelled(P, C, True)),
    ("verdict, false", {**PAIR, "label": False}, "labelled", "auto", Labelled(P, C, False)),
    ("prompt", {"prompt": "p"}, "prompt", "auto", Prompt(P)),
    ("prompt, use", {"prompt": "p"}, "prompt", "prompt", Prompt(P)),
    ("prompt, messages", {"messages": UC[:1]}, "prompt", "auto", Prompt(P)),
    ("prompt of a conversation", CHAT, "prompt", "auto", Prompt(P)),
    ("prompt of a pair", {"question": "p", "answer": "c"}, "prompt", "auto", Prompt(P)),
    ("prompt of a ranking", {"chosen": HH_A, "rejected": HH_B}, "prompt", "auto", Prompt(P)),
    ("text", {"text": "t"}, "text", "auto", Text("t")),
    ("text, use", {"text": "t"}, "conversation", "text", Text("t")),
]  # fmt: skip


@pytest.mark.parametrize(("row", "want", "use", "expected"), [f[1:] for f in FORMATS], ids=[f[0] for f in FORMATS])
def test_format(write, row, want, use, expected):
    path = write(lines(row))
    (made,) = load(path, want=want, use=use)
    assert made == type(expected)(**{**fields(expected), "origin": Origin(path, 1)})


def fields(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}  # type: ignore[attr-defined]


def test_other_rows_may_differ_in_optional_fields(write):
    rows = load(write(lines({"instruction": "p", "input": "i", "output": "c"}, {"instruction": "p", "output": "c"})),
                want="conversation")  # fmt: skip
    assert [row.messages[0].content for row in rows] == ["p\n\ni", "p"]


# Containers.


def test_json_array(write):
    path = write(json.dumps([PAIR, PAIR], indent=2), "rows.json")
    assert [row.origin for row in load(path, want="conversation")] == [Origin(path, 1), Origin(path, 2)]


def test_json_file_of_lines(write):
    assert len(load(write(lines(PAIR, PAIR), "rows.json"), want="conversation")) == 2


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl", "rows.ndjson"])
def test_gzip_by_content(write, name):
    rows = load(write(gzip.compress(lines(PAIR).encode()), name), want="conversation")
    assert rows[0].messages == P + C


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + lines(PAIR, PAIR).encode(),
        lines(PAIR, PAIR).replace("\n", "\r\n").encode(),
        lines(PAIR, PAIR).rstrip("\n").encode(),
    ],
    ids=["byte order mark", "CRLF", "no last line break"],
)
def test_harmless_differences(write, raw):
    assert [row.messages for row in load(write(raw), want="conversation")] == [P + C, P + C]


def test_unicode_line_separators_end_no_row(write):
    content = "a\u2028b\x85c\x0cd"
    rows = load(write(lines({"text": content}) * 2), want="text")
    assert [row.text for row in rows] == [content, content]


def test_csv(write, tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = [["p\nq", 'a, "x"', "b" * 200_000, "1.5"], ["p", "a", "b", "1"]]
        csv.writer(file).writerows([["prompt", "chosen", "rejected", "margin"], *rows])
    first, second = load(str(path), want="preference")
    assert first == Preference((user("p\nq"),), (said('a, "x"'),), (said("b" * 200_000),), 1.5, Origin(str(path), 2))
    assert (second.margin, second.origin) == (1.0, Origin(str(path), 4))


def test_tsv_and_verdicts(write):
    path = write("prompt\tcompletion\tlabel\np\tc\tTrue\np\tc\tfalse\n", "rows.tsv")
    assert [row.desirable for row in load(path, want="labelled")] == [True, False]


def test_text_file_is_a_row_per_line(write):
    rows = RowStream(section(write("one\r\n\n two \n\n", "rows.txt")), "text")
    assert [(row.text, row.origin.line) for row in rows] == [("one", 1), (" two ", 3)]
    assert rows.reader.blank == 2


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([CHAT, CHAT]), tmp_path / "rows.parquet")
    rows = load(str(tmp_path / "rows.parquet"), want="conversation")
    assert [row.messages for row in rows] == [P + C, P + C]
    assert rows[1].origin == Origin(str(tmp_path / "rows.parquet"), 2)


def test_parquet_null_names_the_row(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([PAIR, {"prompt": "p", "completion": None}]), tmp_path / "rows.parquet")
    assert 'rows.parquet:2: "completion" is null' in refusal(str(tmp_path / "rows.parquet"), want="conversation")


def test_parquet_needs_pyarrow(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install" in refusal(write(b"PAR1", "rows.parquet"), MissingExtraError, want="text")


def test_folder_is_read_in_order_of_name(write, tmp_path):
    write(lines({"text": "b"}), "data/b.jsonl")
    write("a\n", "data/a.txt")
    write("# about", "data/README.md")
    rows = RowStream(section(str(tmp_path / "data")), "text")
    assert [row.text for row in rows] == ["a", "b"]
    assert [Path(file).name for file in rows.reader.files] == ["a.txt", "b.jsonl"]


def test_folder_with_splits(write, tmp_path):
    for name in ("train-1", "train-0", "test", "my.validation"):
        write(lines({"text": name}), f"{name}.jsonl")
    assert [row.text for row in load(str(tmp_path), want="text")] == ["train-0", "train-1"]
    assert [row.text for row in load(str(tmp_path), want="text", split="test")] == ["test"]
    assert "test, train, validation" in refusal(str(tmp_path), want="text", split="dev")
    write(lines({"text": "x"}), "more.jsonl")
    assert "not: more.jsonl" in refusal(str(tmp_path), want="text")


@pytest.mark.parametrize("with_splits", [True, False])
def test_saved_data_set(tmp_path, with_splits):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list([PAIR, PAIR])
    (datasets.DatasetDict({"train": saved}) if with_splits else saved).save_to_disk(tmp_path / "saved")
    rows = load(str(tmp_path / "saved"), want="conversation")
    assert [row.messages for row in rows] == [P + C, P + C]
    if with_splits:
        assert "one of: train" in refusal(str(tmp_path / "saved"), want="conversation", split="test")


class TestHub:
    """A stand-in for `datasets`: the hub itself is not asked in tests."""

    @pytest.fixture
    def asked(self, monkeypatch):
        asked: list[tuple[object, ...]] = []

        class Fake:
            DatasetDict = dict

            @staticmethod
            def load_dataset(name, configuration, split, streaming):
                assert streaming
                asked.append((name, configuration, split))
                if name == "owner/missing":
                    raise FileNotFoundError("Dataset 'owner/missing' doesn't exist on the Hub")
                return [PAIR, PAIR]

        monkeypatch.setitem(sys.modules, "datasets", Fake)
        return asked

    def test_loads(self, asked):
        rows = load("owner/name:main", want="conversation", split="test")
        assert asked == [("owner/name", "main", "test")]
        assert rows[1].origin == Origin("owner/name:main", 2)

    def test_not_there(self, asked):
        assert "owner/missing: no such file, and not loaded from the hub" in refusal("owner/missing", want="text")

    def test_path_like_names_are_not_asked_for(self, asked, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        for spec in ("data/pairs", "owner/rows.jsonl", "./owner/name", "a/b/c", "/owner/name"):
            assert "no such file" in refusal(spec, want="text")
        assert asked == []

    def test_needs_datasets(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        assert "pip install" in refusal("owner/name", MissingExtraError, want="text")


# Bad rows: what the second line of the file is -> what is said of it.
OK_CHAT, OK_PAIR, OK_RANKING = lines(CHAT), lines(PAIR), lines(RANKING)
HH = {"chosen": HH_A, "rejected": HH_B}
U, S_, X = {"role": "user", "content": "p"}, SYSTEM, {"role": "assistant", "content": "c"}
BAD = [
    # JSON itself
    ("conversation", PAIR, '{"prompt": "p", "completion"', "broken JSON at column 29"),
    ("conversation", PAIR, '{"prompt": "p" "completion": "c"}', "broken JSON at column 16: Expecting ','"),
    ("conversation", PAIR, "{'prompt': 'p', 'completion': 'c'}", "broken JSON at column 2"),
    ("conversation", PAIR, '{"prompt": "p", "completion": "c"},', "broken JSON at column 35: Extra data"),
    ("conversation", PAIR, '{"prompt": "p", "completion": "c"}{"prompt": "p"}', "Extra data"),
    ("conversation", PAIR, "not JSON", "broken JSON at column 1"),
    ("conversation", PAIR, '{"prompt": "p\tq", "completion": "c"}', "Invalid control character"),
    ("conversation", PAIR, '{"prompt": "p", "completion": "\\x"}', "Invalid \\\\escape"),
    ("conversation", PAIR, "[" * 100_000, "JSON that cannot be read"),
    ("conversation", PAIR, '{"prompt": "p", "completion": ' + "9" * 5000 + "}", "JSON that cannot be read"),
    ("conversation", PAIR, '{"prompt": "p", "prompt": "q", "completion": "c"}', 'key "prompt" occurs twice'),
    ("conversation", CHAT, '{"messages": [{"role": "user", "role": "user"}]}', 'key "role" occurs twice'),
    ("conversation", PAIR, "[1, 2]", "must be a JSON object, this is a list"),
    ("conversation", PAIR, '"p"', "must be a JSON object, this is a string"),
    ("conversation", PAIR, "null", "must be a JSON object, this is null"),
    ("conversation", PAIR, "12", "must be a JSON object, this is a number"),
    ("conversation", PAIR, b'{"prompt": "caf\xe9", "completion": "c"}', "byte 16 of the line is not UTF-8"),
    ("conversation", PAIR, b'{"prompt": "p\0", "completion": "c"}', "NUL bytes"),
    ("conversation", PAIR, b"\0" * 50, "NUL bytes"),
    # fields
    ("conversation", PAIR, {}, 'no "prompt", the row has: nothing'),
    ("conversation", PAIR, {"prompt": "p"}, 'no "completion", the row has: prompt'),
    ("conversation", PAIR, {"prompt": "p", "completions": "c"}, 'rename "completions" to "completion"'),
    ("conversation", PAIR, {"prompt": "p", "response": "c"}, 'no "completion"'),
    ("conversation", PAIR, CHAT, 'no "prompt"'),
    ("conversation", PAIR, {"prompt": "p", "completion": None}, '"completion" is null'),
    ("conversation", PAIR, {"prompt": "p", "completion": 12}, '"completion" is a number, expected a string'),
    ("conversation", PAIR, {"prompt": "p", "completion": True}, '"completion" is true or false'),
    ("conversation", PAIR, {"prompt": {"a": 1}, "completion": "c"}, '"prompt" is an object, expected a string'),
    ("conversation", PAIR, {"prompt": "p", "completion": ""}, '"completion" is empty'),
    ("conversation", PAIR, {"prompt": " \n", "completion": "c"}, '"prompt" is empty'),
    ("conversation", PAIR, {"prompt": "p", "completion": []}, '"completion" is an empty list'),
    ("conversation", PAIR, {"prompt": "p", "completion": ["c"]}, "completion[0] is a string, expected a message"),
    ("conversation", PAIR, {"prompt": [X], "completion": "c"}, "message 1 has role assistant, expected user"),
    ("conversation", PAIR, {"prompt": [U, X], "completion": "c"}, "last message has role assistant, expected user"),
    ("conversation", PAIR, {"prompt": "p", "completion": [U]}, '"completion" does not begin with the prompt'),
    ("conversation", PAIR, {"prompt": "q", "completion": [U, X]}, '"completion" does not begin with the prompt'),
    ("conversation", PAIR, {"prompt": "p", "completion": [S_, U, X]}, "another system message than the prompt"),
    ("conversation", PAIR, '{"prompt": "p", "completion": "\\ud83d"}', '"completion" holds half a surrogate pair'),
    # messages
    ("conversation", CHAT, {"messages": []}, '"messages" is an empty list'),
    ("conversation", CHAT, {"messages": "hi"}, '"messages" is a string, expected a list of messages'),
    ("conversation", CHAT, {"messages": None}, '"messages" is null'),
    ("conversation", CHAT, {"messages": [U, "x"]}, "messages[1] is a string, expected a message"),
    ("conversation", CHAT, {"messages": [U, None]}, "messages[1] is null, expected a message"),
    ("conversation", CHAT, {"messages": [U, {"role": "assistant"}]}, 'messages[1]: "content" is missing'),
    ("conversation", CHAT, {"messages": [U, {"content": "c"}]}, 'messages[1]: "role" is missing'),
    ("conversation", CHAT, {"messages": [U, {"role": "assistant", "content": None}]}, '"content" is null'),
    ("conversation", CHAT, {"messages": [U, {"role": "assistant", "content": [{}]}]}, 'holds a part that is no text'),
    ("conversation", CHAT, {"messages": [U, {"role": 1, "content": "c"}]}, '"role" is a number'),
    ("conversation", CHAT, {"messages": [U, {"from": "gpt"}]}, '"value" is missing'),
    ("conversation", CHAT, {"messages": [U, {"role": "tool", "content": "c"}]}, "message 2 has role tool, expected as"),
    ("conversation", CHAT, {"messages": [U, {"role": "Narrator", "content": "c"}]}, 'unknown role "Narrator"'),
    ("conversation", CHAT, {"messages": [U, U, X]}, "message 2 has role user, expected assistant"),
    ("conversation", CHAT, {"messages": [U, X, X]}, "message 3 has role assistant, expected user"),
    ("conversation", CHAT, {"messages": [U, S_, X]}, "message 2 has role system, expected assistant"),
    ("conversation", CHAT, {"messages": [X]}, "message 1 has role assistant, expected user"),
    ("conversation", CHAT, {"messages": [S_]}, "last message has role system"),
    ("conversation", CHAT, {"messages": [U]}, "there is no response to train on"),
    ("conversation", CHAT, {"messages": [U, {"role": "assistant", "content": " "}]}, "message 2 (assistant) is empty"),
    ("conversation", CHAT, {"messages": [{"role": "user", "content": ""}, X]}, "message 1 (user) is empty"),
    # rankings
    ("preference", RANKING, {"prompt": "p", "rejected": "b"}, 'no "chosen", the row has: prompt, rejected'),
    ("preference", RANKING, {"prompt": "p", "chosen": "a"}, 'no "rejected"'),
    ("preference", RANKING, {"chosen": "a", "rejected": "b"}, 'no "prompt"'),
    ("preference", RANKING, {**RANKING, "chosen": None}, '"chosen" is null'),
    ("preference", RANKING, {**RANKING, "chosen": ""}, '"chosen" is empty'),
    ("preference", RANKING, {**RANKING, "rejected": 5}, '"rejected" is a number'),
    ("preference", {"chosen": UA, "rejected": UB}, {"chosen": "a", "rejected": "b"}, "there is no prompt"),
    ("preference", {"chosen": UA, "rejected": UB}, {"chosen": [{**U, "content": "q"}, X], "rejected": UB},
     "do not begin with the same user message"),
    ("preference", {"chosen": UA, "rejected": UB}, {"chosen": [SYSTEM, *UA], "rejected": UB},
     "do not begin with the same user message"),
    ("preference", RANKING, {"prompt": "p", "chosen": [S_, U, X], "rejected": [{**S_, "content": "t"}, U, X]},
     "another system message than the prompt"),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": float("nan")}, '"margin" is nan'),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": float("inf")}, '"margin" is inf'),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": "big"}, '"margin" is a string, expected a number'),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": True}, '"margin" is true or false'),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": 10**400}, '"margin" is over a float\'s range'),
    ("preference", {**RANKING, "margin": 1}, {**RANKING, "margin": None}, '"margin" is null'),
    ("preference", {**RANKING, "margin": 1}, RANKING, 'no "margin"'),
    ("preference", HH, {"chosen": "\n\nHuman: p", "rejected": HH_B}, "do not begin with the same user message"),
    ("preference", HH, {"chosen": HH_A + "\n\nHuman: q", "rejected": HH_B}, "last message has role user"),
    ("preference", HH, {"chosen": "\n\nHuman: \n\nAssistant: a", "rejected": "\n\nHuman: \n\nAssistant: b"},
     "message 1 (user) is empty"),
    ("preference", HH, {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": HH_B}, "the same user message"),
    # verdicts, prompts, text
    ("labelled", {**PAIR, "label": True}, PAIR, 'no "label"'),
    ("labelled", {**PAIR, "label": True}, {**PAIR, "label": 1}, '"label" is a number, expected true or false'),
    ("labelled", {**PAIR, "label": True}, {**PAIR, "label": "yes"}, '"label" is a string, expected true or false'),
    ("labelled", {**PAIR, "label": True}, {**PAIR, "label": None}, '"label" is null'),
    ("prompt", {"prompt": "p"}, {"prompt": ""}, '"prompt" is empty'),
    ("prompt", {"messages": [U]}, {"messages": [S_]}, "last message has role system"),
    ("text", {"text": "t"}, {"text": "\n"}, '"text" is empty'),
    ("text", {"text": "t"}, {"text": ["t"]}, '"text" is a list, expected a string'),
]  # fmt: skip


@pytest.mark.parametrize(("want", "good", "bad", "problem"), BAD, ids=range(len(BAD)))
def test_bad_row(write, want, good, bad, problem):
    raw = bad if isinstance(bad, bytes) else (bad if isinstance(bad, str) else json.dumps(bad)).encode()
    path = write(lines(good).encode() + raw + b"\n" + lines(good).encode())
    assert f"{path}:2: " in (message := refusal(path, want=want))
    assert problem.replace("\\\\", "\\") in message


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "there are no rows in it"),
        (b"\n\r\n  \n", "there are no rows in it"),
        (b"\xef\xbb\xbf", "there are no rows in it"),
        (lines(PAIR).encode("utf-16"), ":1: encoded as UTF-16"),
        (lines(PAIR).encode("utf-16-le"), ":1: the line holds NUL bytes"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", ":1: an HTML or XML page"),
        (b"\n<html>", ":1: an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ":1: a Git LFS pointer"),
        (b"PAR1\x15\x04", ":1: a Parquet file"),
        (b"PK\x03\x04\x14", ":1: a zip file"),
        (gzip.compress(lines(PAIR).encode(), mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8b\x08\x00garbage garbage", "cannot be read"),
        (b"[\n" + lines(PAIR).encode() + b"]", ":1: broken JSON"),
        (json.dumps([PAIR]).encode(), "a list of rows goes in a .json file"),
        (json.dumps(PAIR, indent=2).encode(), ":1: broken JSON"),
        (b'{"prompt": 1}', ":1: no messages, or prompt and completion in the row, it has: prompt"),
        (b'{"a": 1}', ":1: no messages, or prompt and completion in the row, it has: a"),
        (b"{}", ":1: no messages, or prompt and completion in the row, it has: nothing"),
        (lines({"promt": "p", "completion": "c"}).encode(), "set columns: {prompt: promt}"),
        (lines({"mesages": []}).encode(), "set columns: {messages: mesages}"),
        (lines(RANKING).encode(), ":1: the rows are rankings"),
        (lines({"text": "t"}).encode(), ":1: the rows are plain text"),
        (lines({**PAIR, "label": False}).encode(), '"label" says if the answer is good'),
    ],
)
def test_bad_file(write, raw, problem):
    path = write(raw)
    message = refusal(path, want="conversation")
    assert message.startswith(path)
    assert problem in message


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("[]", "there are no rows in it"),
        (' [{"text": "a"}, 3]', ":2: a row must be a JSON object, this is a number"),
        ('[{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', ":3: broken JSON at column 1"),
        ('[{"text": "a"},\n{"text": "b"', ":2: broken JSON"),
        ('[{"text": "a", "text": "b"}]', ':1: key "text" occurs twice'),
        ("[" * 100_000, ":1: JSON that cannot be read"),
        ('[{"text": "a"}, {"txt": "b"}]', ':2: no "text"'),
        (b'[{"text": "a"},\n{"text": "\xff"}]', ":2: byte 11 of the line is not UTF-8"),
        ('{\n "text": "a"\n}', ":1: broken JSON"),
    ],
)
def test_bad_json(write, raw, problem):
    assert problem in refusal(write(raw, "rows.json"), want="text")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("", "there are no rows in it"),
        ("prompt,completion\n", "there are no rows in it"),
        ("prompt,prompt\na,b\n", ':1: column "prompt" occurs twice'),
        ("prompt,completion\np,c\np\n", ":3: the row has 1 cells, the header 2"),
        ("prompt,completion\np,c\np,c,d\n", ":3: the row has 3 cells, the header 2"),
        ('prompt,completion\np,c\n"p,c\n', ":3: broken CSV"),
        ('prompt,completion\n"p\nq",c\n"p"x,c\n', ":4: broken CSV"),
        ("prompt,completion\np,\n", ':2: "completion" is empty'),
        ("prompt;completion\np;c\n", ":2: no messages, or prompt and completion in the row"),
        (b"prompt,completion\np,caf\xe9\n", ":2: byte 6 of the line is not UTF-8"),
        (b"prompt,completion\np,c\0\n", ":2: the line holds NUL bytes"),
        ("prompt,messages\np,x\n", ':2: "messages" is a string, expected a list of messages'),
    ],
)
def test_bad_csv(write, raw, problem):
    limit = csv.field_size_limit()
    assert problem in refusal(write(raw, "rows.csv"), want="conversation")
    assert csv.field_size_limit() == limit


def test_bad_text_file(write):
    assert ":2: byte 1 of the line" in refusal(write(b"a\n\xff\n", "rows.txt"), want="text")
    assert "there are no rows" in refusal(write("\n\n", "rows.txt"), want="text")


def test_bad_parquet(write):
    pytest.importorskip("pyarrow")
    assert "not a readable Parquet file" in refusal(write(b"PAR1 but no more", "rows.parquet"), want="text")


class TestMissing:
    def test_file_suggests_the_nearest(self, write, tmp_path):
        write(lines(PAIR), "pairs.jsonl")
        message = refusal(str(tmp_path / "pair.jsonl"), want="text")
        assert f"did you mean {tmp_path / 'pairs.jsonl'}?" in message

    def test_folder(self, tmp_path):
        assert f"no folder {tmp_path / 'nowhere'}" in refusal(str(tmp_path / "nowhere" / "x.jsonl"), want="text")

    def test_nothing_near(self, tmp_path):
        assert "check the path (now in " in refusal(str(tmp_path / "x.jsonl"), want="text")

    def test_empty_folder(self, tmp_path):
        assert "it has: nothing" in refusal(str(tmp_path), want="text")

    def test_folder_without_data(self, write, tmp_path):
        write("x", "model.bin")
        assert "it has: model.bin" in refusal(str(tmp_path), want="text")

    def test_unknown_suffix(self, write):
        assert '".xlsx" is not a data format' in refusal(write("x", "rows.xlsx"), want="text")

    def test_no_suffix(self, write):
        assert '"" is not a data format' in refusal(write("x", "rows"), want="text")


def test_all_bad_lines_are_named_at_once(write):
    rows = [lines(PAIR), '{"prompt": \n', lines({"prompt": "p"}), lines(PAIR)] + [lines({"prompt": ""})] * 20
    message = refusal(write("".join(rows)), want="conversation")
    assert ":2: broken JSON" in message
    assert "also unusable: lines 3, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 11 more, of 24 rows" in message


def test_bad_lines_of_several_files_carry_the_file(write, tmp_path):
    write(lines(PAIR, {"prompt": "p"}), "a.jsonl")
    write(lines({"prompt": "p"}), "b.jsonl")
    write(lines({"prompt": "p"}), "c.jsonl")
    message = refusal(str(tmp_path), want="conversation")
    assert "a.jsonl:2: " in message
    assert f"also unusable: {tmp_path / 'b.jsonl'}:1, {tmp_path / 'c.jsonl'}:1" in message


def test_first_line_broken_does_not_hide_the_format(write):
    message = refusal(write("{\n" + lines(PAIR, {"prompt": "p"})), want="conversation")
    assert ":1: broken JSON" in message
    assert "also unusable: line 3" in message


IDENTICAL = lines(RANKING, {**RANKING, "rejected": " a\n"}, RANKING, {**RANKING, "chosen": "b"})


def test_identical_pairs_are_refused(write):
    message = refusal(write(IDENTICAL), want="preference")
    assert "2 of 4 pairs have the same chosen and rejected: lines 2, 4\n" in message
    assert "identical_pairs: drop" in message


def test_identical_pairs_dropped_by_choice_are_listed(write):
    path = write("\n" + IDENTICAL)
    rows = RowStream(section(path, identical_pairs="drop", rows="1:"), "preference")
    assert [row.origin.line for row in rows] == [4]
    counts = json.loads(json.dumps(rows.account.counts((), rows.reader.blank)))
    reason = "chosen and rejected are the same"
    dropped = [{"at": f"{path}:{line}", "reason": reason} for line in (3, 5)]
    assert counts == {
        "read": 4, "used": 1, "dropped": dropped, "unselected": 1, "blank": 1, "notes": [], "note_counts": {},
        "unread": {}, "holders": 3,
    }  # fmt: skip


def test_nothing_but_identical_pairs(write):
    path = write(lines({**RANKING, "rejected": "a"}) * 3)
    assert "all 3 pairs" in refusal(path, want="preference", identical_pairs="drop")


def test_identical_sides_do_not_matter_elsewhere(write):
    assert len(load(write(IDENTICAL), want="conversation", use="chosen")) == 4
    assert len(load(write(IDENTICAL), want="prompt")) == 4


def test_fields_that_nothing_reads_are_listed(write):
    rows = RowStream(section(write(lines({**RANKING, "source": "x", "margn": 1}))), "preference")
    list(rows)
    assert rows.account.unread == {"source": 1, "margn": 1}
    assert rows.parser.format == "ranking"


def test_transcript_oddities_are_used_and_noted(write):
    path = write(lines(
        {"chosen": "\n\nHuman: p\n\nAssistant: ", "rejected": HH_B},
        {"chosen": "\n\nHuman: p\n\nAssistant: a\n\nAssistant: c", "rejected": HH_B},
    ))  # fmt: skip
    rows = RowStream(section(path), "preference")
    assert [row.chosen for row in rows] == [(said(""),), (said("a\n\nc"),)]
    assert [(origin.line, note) for origin, note in rows.account.notes] == [
        (1, "chosen: the response is empty"),
        (2, "chosen: two turns of one speaker in a row, joined"),
    ]


# Slices and columns.


@pytest.mark.parametrize(
    ("span", "expected"),
    [("0:2", "01"), ("2:", "234"), (":2", "01"), (":", "01234"), ("3:99", "34")],
)
def test_rows_slice(write, span, expected):
    rows = RowStream(section(write(lines(*({"text": str(i)} for i in range(5)))), rows=span), "text")
    assert "".join(row.text for row in rows) == expected
    assert rows.account.read == rows.account.used + rows.account.unselected == 5


def test_rows_slice_that_selects_nothing(write):
    assert "5: selects nothing of 2 rows" in refusal(write(lines({"text": "a"}) * 2), want="text", rows="5:")


def test_columns_rename(write):
    path = write(lines({"ask": "p", "good": "a", "bad": "b", "prompt": "another"}))
    rows = load(path, want="preference", columns={"prompt": "ask", "chosen": "good", "rejected": "bad"})
    assert rows[0] == Preference(P, A, B, None, Origin(path, 1))


def test_columns_can_swap(write):
    rows = load(write(lines(RANKING)), want="preference", columns={"chosen": "rejected", "rejected": "chosen"})
    assert (rows[0].chosen, rows[0].rejected) == (B, A)


def test_columns_with_a_column_that_is_not_there(write):
    path = write(lines({"ask": "p", "reply": "c"}, {"ask": "p"}))
    message = refusal(path, want="conversation", columns={"prompt": "asks", "completion": "reply"})
    assert ':1: columns reads prompt from "asks", the row has: ask, reply' in message
    assert 'did you mean "ask"?' in message
    message = refusal(path, want="conversation", columns={"prompt": "ask", "completion": "reply"})
    assert ':2: columns reads completion from "reply"' in message


def test_columns_with_an_unknown_field(write):
    path = write(lines({"ask": "p"}))
    assert "did you mean prompt?" in refusal(path, ConfigError, want="prompt", columns={"promt": "ask"})
    assert "write it as {prompt: ask}" in refusal(path, ConfigError, want="prompt", columns={"ask": "prompt"})


@pytest.mark.parametrize(
    ("want", "use"),
    [("preference", "chosen"), ("preference", "text"), ("prompt", "chosen"), ("conversation", "prompt")],
)
def test_use_that_cannot_be_meant(write, want, use):
    assert f'use: "{use}" cannot give {want} rows' in refusal(write(lines(RANKING)), ConfigError, want=want, use=use)


# Properties.

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(str.strip)
turn = words.filter(lambda text: text and not re.search(r"(^|\n\n)(Human|Assistant):", text))


@trials(150)
@given(st.lists(st.tuples(turn, turn), min_size=1, max_size=4))
def test_transcripts_are_read_as_they_were_written(pairs):
    text = "".join(f"\n\nHuman: {question}\n\nAssistant: {answer}" for question, answer in pairs)
    expected = [message for question, answer in pairs for message in (user(question), said(answer))]
    assert is_transcript(text)
    assert parse_transcript(text) == expected


def loads_or_refuses(path: str, **arguments) -> bool:
    """Return True if every row is counted, or the file is refused in the form of all refusals."""
    try:
        want = arguments.pop("want")
        rows = RowStream(section(path, **arguments), want)
        used = len(list(rows))
    except DataError as error:
        return path in str(error) and "\n  fix: " in str(error) and len(str(error).splitlines()) <= 6
    return rows.account.read == rows.account.used == used > 0


@trials(150)
@given(raw=st.binary(max_size=60), name=st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.txt", "x.parquet"]))
def test_any_bytes_load_or_are_refused(tmp_path_factory, raw, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(raw)
    assert loads_or_refuses(str(path), want="text")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=6,
)
keys = st.sampled_from(
    ["prompt", "completion", "chosen", "rejected", "messages", "text", "label", "margin", "input", "system"]
)


@trials(200)
@given(
    rows=st.lists(st.dictionaries(keys, json_values, max_size=5), max_size=3),
    want=st.sampled_from(["conversation", "preference", "labelled", "prompt", "text"]),
)
def test_any_json_loads_or_is_refused(tmp_path_factory, rows, want):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert loads_or_refuses(str(path), want=want)


class TestSampler:
    def test_every_row_once_an_epoch(self):
        sampler = Sampler(10, 4, seed=0)
        for _ in range(3):
            epoch = [sampler.next() for _ in range(3)]
            assert [len(batch) for batch in epoch] == [4, 4, 2]
            assert sorted(i for batch in epoch for i in batch) == list(range(10))

    def test_epochs_and_seeds_differ(self):
        first = Sampler(50, 50, seed=0)
        orders = [first.next(), first.next(), Sampler(50, 50, seed=1).next()]
        assert len({tuple(order) for order in orders}) == 3
        assert Sampler(50, 50, seed=0).next() == orders[0]

    def test_order_is_the_same_on_every_machine(self):
        assert Sampler(8, 8, seed=0).next() == [3, 0, 7, 2, 1, 4, 6, 5]

    def test_without_shuffle(self):
        sampler = Sampler(3, 2, seed=0, shuffle=False)
        assert [sampler.next() for _ in range(4)] == [[0, 1], [2], [0, 1], [2]]

    @trials(100)
    @given(n=st.integers(1, 20), size=st.integers(1, 25), steps=st.integers(0, 30), seed=st.integers())
    def test_resumed_goes_on_as_if_never_stopped(self, n, size, steps, seed):
        whole, part = Sampler(n, size, seed), Sampler(n, size, seed)
        for _ in range(steps):
            assert whole.next() == part.next()
        state = json.loads(json.dumps(part.state_dict()))
        again = Sampler(n, size, seed)
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert [again.next() for _ in range(5)] == [whole.next() for _ in range(5)]

    def test_end_of_an_epoch_is_the_start_of_the_next(self):
        sampler = Sampler(4, 2, seed=0)
        sampler.next()
        assert sampler.state_dict() == {"epoch": 0, "index": 2}
        sampler.next()
        assert sampler.state_dict() == {"epoch": 1, "index": 0}

    @pytest.mark.parametrize(
        "state", [{}, {"epoch": 0, "index": 4}, {"epoch": -1, "index": 0}, {"epoch": 0, "index": -1}]
    )
    def test_position_of_other_data(self, state):
        with pytest.raises(CheckpointError, match="does not fit 4 rows"):
            Sampler(4, 2, seed=0).load_state_dict(state)

    @pytest.mark.parametrize(("n", "size"), [(0, 1), (1, 0), (-1, 1)])
    def test_nothing_to_sample(self, n, size):
        with pytest.raises(DataError, match="at least 1"):
            Sampler(n, size, seed=0)


def test_does_not_import_datasets_for_files(write):
    forbidden = ("datasets", "pyarrow", "torch", "numpy")
    section = f"DataConfig(path={write(lines(PAIR))!r})"
    run = f"from trueup.data.sources.stream import *; list(RowStream({section}, 'conversation'))"
    code = f"import sys; {run}; sys.exit(any(m in sys.modules for m in {forbidden}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
