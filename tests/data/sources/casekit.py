"""Cases of the corpus of data files, and contents that many of them share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trueup.config import DataConfig
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError, TrueupError

BOM = b"\xef\xbb\xbf"
PAIR = {"prompt": "p", "completion": "c"}
RANKING = {"prompt": "p", "chosen": "a", "rejected": "b"}
VERDICT = {**PAIR, "label": True}
U, A, S = ({"role": role, "content": role[0]} for role in ("user", "assistant", "system"))
CHAT = {"messages": [U, A]}
GOOD = json.dumps(PAIR).encode() + b"\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>\n'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ESCAPED = "\x1b[31mred\x1b[0m"
Maker = Callable[[Path], "str | None"]


def section(path: str, **keys: Any) -> DataConfig:
    """A data section as it is after a configuration was checked."""
    return DataConfig.model_construct(path=path, **keys)


def load(path: str, want: Any, **keys: Any) -> list[Any]:
    """The rows of a file."""
    return list(RowStream(section(path, **keys), want))


def refusal(found: Any) -> str:
    """The message of the error in which the rows must end: short, printable, with a fix."""
    with pytest.raises(DataError) as caught:
        list(found)
    assert type(caught.value) is DataError
    return refused(caught.value)


def refused(error: TrueupError) -> str:
    """An error's message, once it has the form that all of them have."""
    message = str(error)
    assert "\n  fix: " in message
    assert len(message.splitlines()) <= 6
    assert len(message) < 2000
    assert all(c.isprintable() or c == "\n" for c in message)
    return message


def numbers(found: Any) -> list[int]:
    return [row.origin.line for row in found]


def write(path: Path, *made: Any) -> str:
    """JSON lines, or lines as they are given. -> the file's name."""
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def rows(*made: object) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in made)


def at(line: int, bad: object, good: bytes = GOOD, total: int = 60) -> bytes:
    """`total` lines, of which one is bad."""
    raw = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    return good * (line - 1) + raw + b"\n" + good * (total - line)


@dataclass
class Case:
    """`content`: the bytes, or a function that makes whatever is at the path and may give another path to read."""

    title: str
    name: str
    content: bytes | Maker
    says: tuple[str, ...]
    line: int | None = None
    want: str = "conversation"
    kind: type[TrueupError] = DataError
    limit: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fine:
    """A file that has to be read: `expected` is what the rows hold."""

    title: str
    name: str
    content: bytes | Maker
    expected: list[object]
    want: str = "conversation"
    lines: list[int] | None = None
    more: dict[str, Any] = field(default_factory=dict)


def bad(
    says: str | tuple[str, ...], line: int | None, content: bytes | Maker, name: str, title: str, **more: Any
) -> Case:
    known = {key: more.pop(key) for key in ("want", "kind", "limit") if key in more}
    return Case(title, name, content, (says,) if isinstance(says, str) else says, line, more=more, **known)


def parquet(columns: dict[str, Any], cut: float = 1.0, **options: Any) -> Maker:
    def make(path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        names, arrays = list(columns), [c if isinstance(c, pa.Array) else pa.array(c) for c in columns.values()]
        pq.write_table(pa.table(arrays, names=[name.strip() for name in names]), path, **options)
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * cut)])

    return make


def typed(column: Callable[[Any], Any]) -> Maker:
    """Prompts, and completions as pyarrow arrays that are made when the test runs."""

    def make(path: Path) -> None:
        parquet({"prompt": ["p", "q"], "completion": column(pytest.importorskip("pyarrow"))})(path)

    return make
