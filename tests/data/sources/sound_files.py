"""Files that look odd and have to be read, to the last row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from casekit import BOM, ESCAPED, GOOD, PAIR, A, Fine, U, parquet, rows, typed

from trueup.data.rendering.messages import Conversation, Labelled, Message, Preference, Text

# Sound files with an odd look.

C, Q = Message("assistant", "c"), Message("user", "p")
TALK = Conversation((Q, C))


def linked(path: Path) -> None:
    path.with_name("x").write_bytes(GOOD)
    path.symlink_to("x")


FINE = [
    Fine("a byte order mark", "rows.jsonl", BOM + GOOD * 2, [TALK] * 2),
    Fine("a byte order mark in .json", "rows.json", BOM + json.dumps([PAIR]).encode(), [TALK]),
    Fine("a byte order mark in .csv", "rows.csv", BOM + b"prompt,completion\np,c\n", [TALK], lines=[2]),
    Fine("a byte order mark in .txt", "rows.txt", BOM + b"t\n", [Text("t")], "text"),
    Fine("CRLF", "rows.jsonl", (GOOD * 2).replace(b"\n", b"\r\n"), [TALK] * 2),
    Fine("CRLF in .csv", "rows.csv", b'prompt,completion\r\np,c\r\n"p",c\r\n', [TALK] * 2, lines=[2, 3]),
    Fine("CRLF in .txt", "rows.txt", b"t\r\nt\r\n", [Text("t")] * 2, "text"),
    Fine("CRLF in .json", "rows.json", json.dumps([PAIR], indent=2).replace("\n", "\r\n").encode(), [TALK]),
    Fine("no last line break", "rows.jsonl", (GOOD * 2).strip(), [TALK] * 2),
    Fine("no last line break in .csv", "rows.csv", b"prompt,completion\np,c", [TALK], lines=[2]),
    Fine("blank lines", "rows.jsonl", b"\n\n" + GOOD + b" \r\n" + GOOD + b"\n", [TALK] * 2, lines=[3, 5]),
    Fine("blank lines in .csv", "rows.csv", b"\nprompt,completion\n\np,c\n\n", [TALK], lines=[4]),
    Fine("spaces around", "rows.jsonl", b"  " + GOOD.strip() + b"\t\n", [TALK]),
    Fine("JSON Lines in .json", "rows.json", GOOD * 3, [TALK] * 3),
    Fine("one object in .json", "rows.json", GOOD.strip(), [TALK]),
    Fine("spaces before a list", "rows.json", b" \n\n [" + GOOD + b"]\n ", [TALK]),
    Fine("an upper-case suffix", "ROWS.JSONL", GOOD, [TALK]),
    Fine("gzip without its suffix", "rows.jsonl", gzip.compress(GOOD * 2), [TALK] * 2),
    Fine("gzip's suffix without gzip", "rows.jsonl.gz", GOOD * 2, [TALK] * 2),
    Fine("gzip in members", "rows.jsonl.gz", gzip.compress(GOOD) + gzip.compress(GOOD), [TALK] * 2),
    Fine("gzip, padded with zeros", "rows.jsonl.gz", gzip.compress(GOOD) + bytes(64), [TALK]),
    Fine("a list in gzip", "rows.json.gz", gzip.compress(json.dumps([PAIR]).encode()), [TALK]),
    Fine("CSV in gzip", "rows.csv.gz", gzip.compress(b"prompt,completion\np,c\n"), [TALK], lines=[2]),
    Fine("a long line", "rows.jsonl", rows({**PAIR, "more": "x" * 3_000_000}, PAIR), [TALK] * 2),
    Fine("other letters", "数据.jsonl", rows({"text": "naïve 数据 😀"}), [Text("naïve 数据 😀")], "text"),
    Fine("escaped letters", "rows.jsonl", rb'{"text": "\ud83d\ude00\u00e9"}', [Text("😀é")], "text"),
    Fine("separators within", "rows.jsonl", rows({"text": "a\u2028b\x85c\x0cd"}), [Text("a\u2028b\x85c\x0cd")], "text"),
    Fine("HTML as text", "rows.txt", b"<html>\n<p>", [Text("<html>"), Text("<p>")], "text"),
    Fine("a quoted line break in .csv", "rows.csv", b'prompt,completion\n"p\n\nq",c\np,c\n',
         [Conversation((Message("user", "p\n\nq"), C)), TALK], lines=[2, 5]),
    Fine("quotes within a cell", "rows.csv", b'prompt,completion\np,5" wide\np,"a ""b"""\n',
         [Conversation((Q, Message("assistant", said))) for said in ('5" wide', 'a "b"')], lines=[2, 3]),
    Fine("a large cell", "rows.csv", b"prompt,completion,more\np,c," + b"x" * 1_000_000 + b"\n", [TALK], lines=[2]),
    Fine("numbers as text in .csv", "rows.csv", b"prompt,completion\n1,2\n",
         [Conversation((Message("user", "1"), Message("assistant", "2")))], lines=[2]),
    Fine("verdicts in .csv", "rows.csv", b"prompt,completion,label\np,c,TRUE\np,c,False\n",
         [Labelled((Q,), (C,), True), Labelled((Q,), (C,), False)], "labelled", lines=[2, 3]),
    Fine("margins in .csv", "rows.csv", b"prompt,chosen,rejected,margin\np,a,b, 1.5 \n",
         [Preference((Q,), (Message("assistant", "a"),), (Message("assistant", "b"),), 1.5)], "preference", lines=[2]),
    Fine("fields of no use", "rows.jsonl", rows({**PAIR, "id": 7, "tags": [None, {}], ESCAPED: float("nan")}), [TALK]),
    Fine("empty lists of tool calls", "rows.jsonl",
         rows({"messages": [U | {"tool_calls": None}, A | {"tool_calls": []}]}),
         [Conversation((Message("user", "u"), Message("assistant", "a")))]),
    Fine("keys in another order", "rows.jsonl", rows({"completion": "c", "prompt": "p"}, PAIR), [TALK] * 2),
    Fine("a large number of no use", "rows.jsonl", rows({**PAIR, "id": 10**4000}), [TALK]),
    Fine("a link", "rows.jsonl", linked, [TALK]),
    Fine("a name with escapes", "a\nb\x1b[31m.jsonl", GOOD, [TALK]),
    Fine("categories in .parquet", "rows.parquet", typed(lambda pa: pa.array(["c", "c"]).dictionary_encode()),
         [TALK, Conversation((Message("user", "q"), C))]),
    Fine("large strings in .parquet", "rows.parquet", typed(lambda pa: pa.array(["c", "c"], pa.large_string())),
         [TALK, Conversation((Message("user", "q"), C))]),
    Fine("messages in .parquet", "rows.parquet", parquet({"messages": [[U, A]]}),
         [Conversation((Message("user", "u"), Message("assistant", "a")))]),
    Fine("groups in .parquet", "rows.parquet", parquet({"text": [f"{i}" for i in range(1000)]}, row_group_size=300),
         [Text(f"{i}") for i in range(1000)], "text"),
]  # fmt: skip
