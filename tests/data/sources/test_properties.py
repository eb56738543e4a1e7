"""Properties of the parsers: what is written is read back, in every format; what is not readable is always refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from casekit import load, refused, section
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thorough import trials
from trueup.data.rendering.messages import Conversation, Labelled, Message, Origin, Preference, Prompt, Text
from trueup.data.sources.decoding import Break
from trueup.data.sources.jsonfile import DECODER, RepeatedKeyError, list_values
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError, TrueupError
from trueup.system.text import is_blank

WANTS = ("conversation", "preference", "labelled", "prompt", "text")
# Anything that a file can hold and a row may: no NUL (a damaged file), no half surrogate pair, no transcript.
said = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1, max_size=12).filter(
    lambda text: not is_blank(text)
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parsers")


def user(content: str) -> Message:
    return Message("user", content)


def answer(content: str) -> Message:
    return Message("assistant", content)


def talk(turns: list[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]


def messages(turns: list[str]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in talk(turns))


# The kind that is wanted, the row as it is written, and what is read of it, each made from the same texts.
Example = tuple[dict[str, Any], Any]
ROWS: dict[str, tuple[str, st.SearchStrategy[Example]]] = {
    "pair": ("conversation", st.tuples(said, said).map(
        lambda t: ({"prompt": t[0], "completion": t[1]}, Conversation((user(t[0]), answer(t[1])))))),
    "alpaca": ("conversation", st.tuples(said, said, said).map(
        lambda t: ({"instruction": t[0], "input": t[1], "output": t[2]},
                   Conversation((user(f"{t[0]}\n\n{t[1]}"), answer(t[2])))))),
    "ranking": ("preference", st.tuples(said, said, st.floats(0, 1e9)).map(
        lambda t: ({"prompt": t[0], "chosen": t[1], "rejected": t[1] + "!", "margin": t[2]},
                   Preference((user(t[0]),), (answer(t[1]),), (answer(t[1] + "!"),), t[2])))),
    "verdict": ("labelled", st.tuples(said, said, st.booleans()).map(
        lambda t: ({"prompt": t[0], "completion": t[1], "label": t[2]},
                   Labelled((user(t[0]),), (answer(t[1]),), t[2])))),
    "prompt": ("prompt", said.map(lambda t: ({"prompt": t}, Prompt((user(t),))))),
    "text": ("text", said.map(lambda t: ({"text": t}, Text(t)))),
    "messages": ("conversation", st.lists(said, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0).map(
        lambda turns: ({"messages": talk(turns)}, Conversation(messages(turns))))),
}  # fmt: skip
Written = tuple[bytes, list[int]]


def json_lines(rows: list[dict[str, Any]], draw: Callable[[int], int]) -> Written:
    """Rows as lines of JSON, blank lines among them. -> the file and each row's line."""
    made, lines = "", []
    for row in rows:
        made += ("\n", " \r\n", "")[draw(3)]
        lines.append(made.count("\n") + 1)
        made += json.dumps(row, ensure_ascii=bool(draw(2))) + ("\n", "\r\n")[draw(2)]
    return made.encode(), lines


def json_list(rows: list[dict[str, Any]], draw: Callable[[int], int]) -> Written:
    text = json.dumps(rows, ensure_ascii=bool(draw(2)), indent=(None, 0, 3)[draw(3)])
    return (("", "\ufeff")[draw(2)] + text).encode(), list(range(1, len(rows) + 1))


def comma_separated(rows: list[dict[str, Any]], draw: Callable[[int], int]) -> Written:
    """With every cell quoted, or only those that have to be; -> each row's first line, counted in what was written."""
    whole = io.StringIO()
    writer = csv.writer(whole, quoting=(csv.QUOTE_ALL, csv.QUOTE_MINIMAL)[draw(2)])
    writer.writerow(rows[0])
    lines = []
    for row in rows:
        lines.append(whole.getvalue().count("\n") + 1)
        writer.writerow(repr(cell) if isinstance(cell, float) else cell for cell in row.values())
    return whole.getvalue().encode(), lines


def zipped(rows: list[dict[str, Any]], draw: Callable[[int], int]) -> Written:
    raw, lines = json_lines(rows, draw)
    return gzip.compress(raw, 1), lines


def parquet(rows: list[dict[str, Any]], draw: Callable[[int], int]) -> Written:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    whole = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), whole, row_group_size=(1, 2, 100)[draw(3)])
    return whole.getvalue(), list(range(1, len(rows) + 1))


WRITERS: dict[str, Callable[[list[dict[str, Any]], Callable[[int], int]], Written]] = {
    "x.jsonl": json_lines,
    "x.json": json_list,
    "x.csv": comma_separated,
    "x.jsonl.gz": zipped,
    "x.parquet": parquet,
}
PLACES = [(kind, name) for kind in ROWS for name in WRITERS if (kind, name) != ("messages", "x.csv")]


@pytest.mark.parametrize(("kind", "name"), PLACES)
@trials(15)
@given(data=st.data())
def test_what_is_written_is_read_back(folder: Path, kind: str, name: str, data: st.DataObject) -> None:
    want, strategy = ROWS[kind]
    rows = data.draw(st.lists(strategy, min_size=1, max_size=6))
    raw, lines = WRITERS[name]([row for row, _ in rows], lambda n: data.draw(st.integers(0, n - 1)))
    path = folder / name
    path.write_bytes(raw)
    found = RowStream(section(str(path)), want)  # type: ignore[arg-type]
    made = list(found)
    assert made == [
        type(row)(**{key: getattr(row, key) for key in row.__dataclass_fields__} | {"origin": Origin(str(path), line)})
        for (_, row), line in zip(rows, lines, strict=True)
    ]
    assert found.account.read == found.account.used == len(rows)
    assert found.account.unread == {}


line_of_text = said.filter(lambda text: not {"\r", "\n"} & set(text))


@trials(40)
@given(texts=st.lists(line_of_text, min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_lines_of_text_are_read_back(folder: Path, texts: list[str], end: str) -> None:
    path = folder / "x.txt"
    path.write_bytes("".join(text + end for text in texts).encode())
    assert list(load(str(path), want="text")) == [Text(t, Origin(str(path), n)) for n, t in enumerate(texts, 1)]


# Whatever stands in a file: it is read to the last row, or refused in the form that all refusals have.


def accounted_for(path: Path, want: Any) -> None:
    problem: TrueupError | None = None
    counts, made = None, []
    try:
        found = RowStream(section(str(path)), want)
        made = list(found)
        counts = found.account
    except TrueupError as error:
        problem = error
    if problem is not None:
        assert type(problem) is DataError
        assert refused(problem).startswith(str(path))
    else:
        assert counts is not None
        assert counts.read == counts.used == len(made) > 0


NAMES = ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.txt", "x.parquet", "x.jsonl.gz", "x.json.gz", "x.csv.gz"]


@pytest.mark.parametrize("name", NAMES)
@trials(40)
@given(raw=st.binary(max_size=80), packed=st.booleans(), want=st.sampled_from(WANTS))
def test_any_bytes(folder: Path, name: str, raw: bytes, packed: bool, want: str) -> None:
    path = folder / name
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    accounted_for(path, want)


@pytest.mark.parametrize("name", [*WRITERS, "x.txt"])
@trials(60)
@given(data=st.data())
def test_sound_files_with_a_few_bytes_wrong(folder: Path, name: str, data: st.DataObject) -> None:
    """A file that is sound up to one broken place, which random bytes never give."""
    rows = [{"prompt": f"p{n}", "completion": "é\n" * n, "text": '"'} for n in range(1, 5)]
    raw = WRITERS[name](rows, lambda n: 0)[0] if name in WRITERS else "één\n\ntwee\n".encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at, end = sorted(data.draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
        end = min(end, at + data.draw(st.sampled_from([0, 1, 3, 1000])))
        raw = raw[:at] + data.draw(st.binary(max_size=3)) + raw[end:]
    path = folder / name
    path.write_bytes(raw)
    accounted_for(path, data.draw(st.sampled_from(("conversation", "text"))))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "tool_calls"]) | st.text(), inner)
    ),
    max_leaves=6,
)
KEYS = ["prompt", "completion", "chosen", "rejected", "messages", "text", "label", "margin", "input", "system"]
some_row = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), values, max_size=5)


@trials(150)
@given(rows=st.lists(some_row | values, max_size=3), want=st.sampled_from(WANTS), lines=st.booleans())
def test_any_json(folder: Path, rows: list[Any], want: str, lines: bool) -> None:
    path = folder / ("any.jsonl" if lines else "any.json")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))
    accounted_for(path, want)


@trials(100)
@given(good=st.sampled_from([{"prompt": "p", "completion": "c"}, {"messages": talk(["p", "c"])}]), odd=some_row)
def test_any_json_after_a_good_row(folder: Path, good: dict[str, Any], odd: dict[str, Any]) -> None:
    """The first row decides the format; whatever comes behind it is read as that, or refused."""
    path = folder / "behind.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **odd}) + "\n")
    accounted_for(path, "conversation")


# The incremental reader of JSON lists is json.loads, for every size of its chunks.


def elements(raw: bytes, size: int) -> list[Any]:
    found = list(list_values("x.json", io.BytesIO(raw), size))
    assert [origin.line for origin, _ in found] == list(range(1, len(found) + 1))
    return [value for _, value in found]


spaces = st.text(" \t\r\n", max_size=4)


@trials(150)
@given(data=st.data(), made=st.lists(values, max_size=5), size=st.integers(1, 40))
def test_a_list_in_chunks_is_the_list(data: st.DataObject, made: list[Any], size: int) -> None:
    indent, ascii_only = data.draw(st.sampled_from([None, 0, 2])), data.draw(st.booleans())
    parts = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in made]
    parts = [data.draw(spaces) + part + data.draw(spaces) for part in parts]
    text = data.draw(spaces) + "[" + (",".join(parts) or data.draw(spaces)) + "]" + data.draw(spaces)
    raw = text.encode("utf-8", "backslashreplace" if ascii_only else "ignore")
    expected = json.loads(raw)
    assert repr(elements(raw, size)) == repr(expected)  # by repr, as nan is not nan
    assert repr(elements(b"\xef\xbb\xbf" + raw, size)) == repr(expected)


WRONG = st.sampled_from([b",", b"]", b"[", b'"', b"\\", b"\n", b"{", b"}", b"1", b"-", b"e", b"tru", b"\\u12", b" "])


@trials(300)
@given(data=st.data(), made=st.lists(values, min_size=1, max_size=4), size=st.integers(1, 30))
def test_a_broken_list_breaks_where_json_says(data: st.DataObject, made: list[Any], size: int) -> None:
    """Chunks of any size give the same line and column, and the same rows if nothing is broken."""
    raw = json.dumps(made, indent=data.draw(st.sampled_from([None, 1]))).encode()
    at = data.draw(st.integers(1, len(raw)))
    end = min(len(raw), at + data.draw(st.integers(0, 2)))
    agrees(raw[:at] + data.draw(WRONG | st.just(b"")) + raw[end:], size)


@example(b"[1,]", 1)
@example(b"[1", 1)
@example(b"[1e", 3)
@example(b'["\\u12', 1)
@example(b'[{"a": 1e+', 2)
@example(b"[12 34]", 2)
@example(b"[tru, 1]", 3)
@example(b"[1]\n\n2", 1)
@example(b"[-Infinit]", 4)
@settings(max_examples=1, deadline=None)
@given(st.just(b"[]"), st.just(1))
def test_a_list_that_is_cut_in_a_hard_place(raw: bytes, size: int) -> None:
    agrees(raw, size)


def agrees(raw: bytes, size: int) -> None:
    """The incremental reader and json.loads must give the same values, or break at the same line and column."""
    expected, broken = None, None
    try:
        expected = DECODER.decode(raw.decode())
    except (RepeatedKeyError, json.JSONDecodeError) as error:
        broken = error
    if broken is None:
        assert repr(elements(raw, size)) == repr(expected)
        return
    with pytest.raises(Break) as caught:
        elements(raw, size)
    message = str(caught.value.error)
    if isinstance(broken, RepeatedKeyError):
        assert "occurs twice" in message
    elif "trailing comma" in broken.msg:  # from 3.13 on json.loads points at the comma
        assert message.startswith("x.json:")
    else:
        assert message.startswith(f"x.json:{broken.lineno}: broken JSON at column {broken.colno}: ")
