"""Files that cannot be used as a whole, or are something else than their name says, and whatever is no file at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import socket
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from casekit import (
    BOM,
    CHAT,
    GOOD,
    HTML,
    LFS,
    PAIR,
    RANKING,
    VERDICT,
    XML,
    A,
    Case,
    Maker,
    U,
    bad,
    parquet,
    rows,
    typed,
)

# Whole files that are something else than their name says.


def zipped() -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("rows.jsonl", GOOD)
    return whole.getvalue()


def tarred() -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        info = tarfile.TarInfo("rows.jsonl")
        info.size = len(GOOD)
        archive.addfile(info, io.BytesIO(GOOD))
    return whole.getvalue()


FOREIGN: list[tuple[str, bytes, str]] = [
    ("UTF-16 LE with a mark", b"\xff\xfe" + (GOOD * 3).decode().encode("utf-16-le"), "encoded as UTF-16"),
    ("UTF-16 BE with a mark", b"\xfe\xff" + (GOOD * 3).decode().encode("utf-16-be"), "encoded as UTF-16"),
    ("UTF-32 with a mark", (GOOD * 3).decode().encode("utf-32"), "encoded as UTF-32"),
    ("UTF-16 LE", (GOOD * 3).decode().encode("utf-16-le"), "NUL bytes"),
    ("UTF-16 BE", (GOOD * 3).decode().encode("utf-16-be"), "NUL bytes"),
    ("UTF-32", (GOOD * 3).decode().encode("utf-32-le"), "NUL bytes"),
    ("zip", zipped(), "a zip file"),
    ("an empty zip", b"PK\x05\x06" + bytes(18), "a zip file"),
    ("xz", lzma.compress(GOOD), "an xz file"),
    ("bzip2", bz2.compress(GOOD), "a bzip2 file"),
    ("zstd", b"\x28\xb5\x2f\xfd\x04\x58" + GOOD, "a zstd file"),
    ("lz4", b"\x04\x22\x4d\x18\x64\x40\xa7" + GOOD, "an lz4 file"),
    ("7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + GOOD, "a 7z archive"),
    ("tar", tarred(), "a tar archive"),
    ("gzip within gzip", gzip.compress(gzip.compress(GOOD)), "packed by gzip once too often"),
    ("zip within gzip", gzip.compress(zipped()), "a zip file"),
    ("tar within gzip", gzip.compress(tarred()), "a tar archive"),
    ("Parquet", b"PAR1\x15\x04\x15", "a Parquet file"),
    ("Arrow", b"ARROW1\x00\x00", "an Arrow file"),
    ("SQLite", b"SQLite format 3\x00" + bytes(80), "an SQLite database"),
    ("PDF", b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    ("Git LFS", LFS, "a Git LFS pointer"),
]  # fmt: skip
MARKUP = [
    ("HTML", HTML, "an HTML or XML page"),
    ("HTML after blank lines", b"\n\n  " + HTML, "an HTML or XML page"),
    ("HTML in upper case", HTML.upper(), "an HTML or XML page"),
    ("XML", XML, "an HTML or XML page"),
    ("HTML with a mark", BOM + HTML, "an HTML or XML page"),
    ("HTML within gzip", gzip.compress(HTML), "an HTML or XML page"),
]
FILES: list[Case] = []
for suffix in (".jsonl", ".json", ".csv", ".txt"):
    want = "text" if suffix == ".txt" else "conversation"
    FILES += [
        bad((says, "fix: "), 1, raw, f"rows{suffix}", f"{title} as {suffix}", want=want)
        for title, raw, says in (FOREIGN if suffix == ".txt" else FOREIGN + MARKUP)
    ]
FILES += [
    bad((says, "fix: "), 1, raw, "rows.parquet", f"{title} as .parquet")
    for title, raw, says in FOREIGN + MARKUP
    if title not in ("Parquet", "UTF-16 LE", "UTF-16 BE", "UTF-32") and not title.endswith("within gzip")
]

# Files as a whole.

GZ = gzip.compress(rows(*({**PAIR, "n": random.Random(n).randbytes(20).hex()} for n in range(2000))))
HALF = GZ[: len(GZ) // 2]
LAST = zlib.decompressobj(31).decompress(HALF).count(b"\n") + 1  # the line within which the half ends
FILES += [
    bad("there are no rows in it", None, b"", "rows.jsonl", "an empty .jsonl"),
    bad("there are no rows in it", None, b"", "rows.json", "an empty .json"),
    bad("there are no rows in it", None, b"", "rows.csv", "an empty .csv"),
    bad("there are no rows in it", None, b"", "rows.txt", "an empty .txt", want="text"),
    bad("not a readable Parquet file", None, b"", "rows.parquet", "an empty .parquet"),
    bad("there are no rows in it", None, gzip.compress(b""), "rows.jsonl.gz", "an empty gzip"),
    bad("there are no rows in it", None, BOM, "rows.jsonl", "a byte order mark alone"),
    bad("there are no rows in it", None, b"\n \r\n\t\n", "rows.jsonl", "blank lines alone"),
    bad("there are no rows in it", None, b"[]", "rows.json", "an empty list in .json"),
    bad("there are no rows in it", None, b"prompt,completion\n", "rows.csv", "a header alone"),
    bad("there are no rows in it", None, b"\n\n\n", "rows.csv", "blank lines alone in .csv"),
    bad("no messages, or prompt and completion in the row, it has: error", 1, rows({"error": "rate limit"}),
        "rows.jsonl", "a server's error"),
    bad("fix: get the file again", 1, b'{"error": {"message": "rate limit"}}', "rows.json",
        "a server's error in .json"),
    bad("it has: message, documentation_url", 1, rows({"message": "Not Found", "documentation_url": "x"}),
        "rows.jsonl", "another server's error"),
    bad("another list follows the list of rows", 1, json.dumps({"rows": [PAIR], "more": [PAIR]}).encode(), "rows.json",
        "rows within an object"),
    bad(("broken JSON", "a list of rows goes in a .json file"), 1, json.dumps([PAIR], indent=1).encode(), "rows.jsonl",
        "a pretty list in .jsonl"),
    bad(("a row must be a JSON object, this is a list", ".json file"), 1, json.dumps([PAIR, PAIR]).encode(),
        "rows.jsonl", "a list in .jsonl"),
    bad(("broken JSON", "write one JSON object per line"), 1, json.dumps(PAIR, indent=1).encode(), "rows.jsonl",
        "a pretty object in .jsonl"),
    bad("broken JSON", 1, json.dumps(PAIR, indent=1).encode(), "rows.json", "a pretty object in .json"),
    bad(("Extra data", "CR alone"), 1, (GOOD * 3).replace(b"\n", b"\r"), "rows.jsonl", "CR alone in .jsonl"),
    bad("a CR within the line", 1, b"one\rtwo\rthree\r", "rows.txt", "CR alone in .txt", want="text"),
    bad(("broken CSV", "CR alone"), 1, b"prompt,completion\rp,c\rp,c\r", "rows.csv", "CR alone in .csv"),
    bad("a byte order mark inside", 3, b"one\ntwo\n" + BOM + b"three\n", "rows.txt", "a mark inside .txt", want="text"),
    bad("a byte order mark inside", 3, b"prompt,completion\np,c\n" + BOM + b"prompt,completion\n", "rows.csv",
        "a mark inside .csv"),
    bad("is not UTF-8", 2, b"one\ncaf\xe9\n", "rows.txt", "latin-1 in .txt", want="text"),
    bad("is not UTF-8", 60, GOOD * 59 + GOOD[:13] + b"\xe2\x82", "rows.jsonl", "cut within a character"),
    bad("the rows are rankings", 1, rows(RANKING), "rows.jsonl", "rankings for SFT"),
    bad("the rows are plain text", 1, rows({"text": "t"}), "rows.jsonl", "text for SFT"),
    bad('"label" says if the answer is good', 1, rows(VERDICT), "rows.jsonl", "verdicts for SFT"),
    bad("no chosen and rejected (and prompt) in the row", 1, rows(PAIR), "rows.jsonl", "pairs for DPO",
        want="preference"),
    bad("no prompt, completion and label (or messages", 1, rows(PAIR), "rows.jsonl", "pairs for KTO", want="labelled"),
    bad("no text in the row", 1, rows(PAIR), "rows.jsonl", "pairs for text", want="text"),
    bad("no prompt, or messages in the row", 1, rows({"text": "t"}), "rows.jsonl", "text for prompts", want="prompt"),
    bad("set columns: {prompt: promt, completion: competion}", 1, rows({"promt": "p", "competion": "c"}), "rows.jsonl",
        "both fields misspelt"),
    bad("set columns: {messages: dialog}", 1, rows({"dialog": [U, A]}), "rows.jsonl", "messages under another name"),
    bad(('no "prompt", the row has: messages', "also unusable: lines 3, 5, of 5 rows read"), 2,
        rows(PAIR, CHAT, RANKING, PAIR, {"text": "t"}), "rows.jsonl", "mixed formats"),
    bad(("is not a data format", ".jsonl"), None, GOOD, "rows.jsn", "an unknown suffix"),
    bad('".xlsx" is not a data format', None, zipped(), "rows.xlsx", "a spreadsheet"),
    bad('"" is not a data format', None, GOOD, "rows", "no suffix"),
    bad('".tar" is not a data format', None, gzip.compress(tarred()), "rows.tar.gz", "a tar.gz"),
    bad("is not a data format", None, GOOD, "rows.jsonl.bak", "a backup's suffix"),
    bad("columns reads prompt from", 1, rows({"ask": "p", "reply": "c"}), "rows.jsonl", "columns that are not there",
        columns={"prompt": "asks", "completion": "reply"}),
    bad(("2 of 3 pairs have the same chosen and rejected: lines 1, 3", "identical_pairs: drop"), None,
        rows({**RANKING, "chosen": "b"}, RANKING, {**RANKING, "rejected": " a "}), "rows.jsonl", "identical pairs",
        want="preference"),
    bad("all 2 pairs have the same chosen and rejected", None, rows({**RANKING, "chosen": "b"}) * 2, "rows.jsonl",
        "nothing but identical pairs", want="preference", identical_pairs="drop"),
    bad("rows: 9: selects nothing of 3 rows", None, GOOD * 3, "rows.jsonl", "rows behind the end", rows="9:"),
    # gzip
    bad("cannot be read", None, gzip.compress(GOOD)[:-9], "rows.jsonl.gz", "a small gzip cut"),
    bad(("cannot be read from here", "end-of-stream"), LAST, HALF, "rows.jsonl.gz", "a gzip cut in half"),
    bad("cannot be read from here: Not a gzipped file", 2001, GZ + b"garbage", "rows.jsonl.gz", "garbage behind gzip"),
    bad("cannot be read from here: CRC check failed", 2001, GZ[:-8] + b"\0\0\0\0" + GZ[-4:], "rows.jsonl.gz",
        "a gzip's wrong checksum"),
    bad("cannot be read from here: Error -3", 2001, GZ + GZ[:10] + b"\xff" * 50, "rows.jsonl.gz",
        "a gzip damaged inside"),
    bad("cannot be read", None, b"\x1f\x8b", "rows.jsonl.gz", "a gzip's first bytes"),
    bad("cannot be read", None, b"\x1f\x8b\x08\x00garbage garbage", "rows.jsonl.gz", "no gzip within"),
    bad("cannot be read from here", LAST, HALF, "rows.txt.gz", "a .txt.gz cut in half", want="text"),
    # lines without end
    bad("a line of more than 1,000 bytes", 3, GOOD * 2 + b'{"prompt": "' + b"p" * 2000, "rows.jsonl",
        "a line without end", limit=1000),
    bad("a line of more than 1,000 bytes", 2, b"one\n" + b"t" * 2000, "rows.txt", "a line without end in .txt",
        limit=1000, want="text"),
    bad("a line of more than 1,000 bytes", 2, b"prompt,completion\n" + b"t" * 2000, "rows.csv",
        "a line without end in .csv", limit=1000),
    bad(("field larger than field limit", "close every quote"), 2, b'prompt,completion\n"' + b"t\n" * 2000, "rows.csv",
        "a cell without end", limit=1000),
    bad("a row of more than 1,000 bytes", 2, b'[{"text": "a"}, {"text": "' + b"t" * 600_000, "rows.json",
        "an element without end", limit=1000, want="text"),
    bad("a line of more than 1,000,000 bytes", 1, gzip.compress(b"[" * 50_000_000, 1), "rows.jsonl.gz", "a gzip bomb",
        limit=1_000_000),
]  # fmt: skip


# Parquet


def damaged(path: Path) -> None:
    """Zeros over the data of the second of three row groups; the footer is sound."""
    parquet({"prompt": ["p"] * 300, "completion": [f"{i:09d}" for i in range(300)]}, row_group_size=100,
            use_dictionary=False, compression="none")(path)  # fmt: skip
    raw = bytearray(path.read_bytes())
    at = raw.index(b"000000100") - 40
    raw[at : at + 60] = b"\xff" * 60
    path.write_bytes(bytes(raw))


def not_utf8(pa: Any) -> Any:
    return pa.array([b"c", b"\xff\xfe"], pa.binary()).view(pa.string())


FILES += [
    bad(("it has: a, b", "fix: "), 1, parquet({"a": ["x"], "b": ["y"]}), "rows.parquet", "parquet: other columns"),
    bad("there are no rows in it", None, parquet({"prompt": [], "completion": []}), "rows.parquet", "parquet: no rows"),
    bad("there are no rows in it", None, parquet({}), "rows.parquet", "parquet: no columns"),
    bad('"completion" is null', 2, typed(lambda pa: ["c", None]), "rows.parquet", "parquet: null"),
    bad('"completion" is null', 1, typed(lambda pa: pa.nulls(2)), "rows.parquet", "parquet: a column of nulls"),
    bad("completion[0] is a string", 1, typed(lambda pa: [["c"], ["d"]]), "rows.parquet", "parquet: lists"),
    bad('"completion" is an object, expected a string', 1, typed(lambda pa: [{"text": "c"}] * 2), "rows.parquet",
        "parquet: structs"),
    bad('"completion" is binary, expected a string', 1, typed(lambda pa: [b"c", b"d"]), "rows.parquet",
        "parquet: binary"),
    bad('"completion" is a number, expected a string', 1, typed(lambda pa: [1, 2]), "rows.parquet", "parquet: numbers"),
    bad('"completion" is a date', 1, typed(lambda pa: pa.array([0, 1], pa.date32())), "rows.parquet", "parquet: dates"),
    bad("cannot be read from here: UnicodeDecodeError", 2, typed(not_utf8), "rows.parquet", "parquet: not UTF-8"),
    bad("not a readable Parquet file", None, parquet({"prompt": ["p"] * 99}, 0.9), "rows.parquet", "parquet: cut"),
    bad("not a readable Parquet file", None, b"PAR1" + bytes(50), "rows.parquet", "parquet: its first bytes"),
    bad("not a readable Parquet file", None, b"PAR1" + b"\xff" * 50 + b"PAR1", "rows.parquet", "parquet: no footer"),
    bad("packed by gzip once too often", 1, gzip.compress(b"PAR1"), "rows.parquet", "gzip as .parquet"),
    bad("packed by gzip once too often", 1, gzip.compress(b"PAR1"), "rows.parquet.gz", "a .parquet.gz"),
    bad("not a readable Parquet file", None, GOOD * 9, "rows.parquet", "JSON Lines in .parquet"),
    bad("not a readable Parquet file", None, b"prompt,completion\np,c\n", "rows.parquet", "CSV in .parquet"),
    bad("cannot be read from here", None, damaged, "rows.parquet", "parquet: damaged inside"),
    bad('column "prompt" occurs twice', None, parquet({"prompt": ["p"], "prompt ": ["q"]}), "rows.parquet",
        "parquet: a column twice"),
    bad("messages[0]: \"content\" is null", 1, parquet({"messages": [[{"role": "user", "content": None}]]}),
        "rows.parquet", "parquet: content null"),
]  # fmt: skip


# What is at the path.


def link(target: str) -> Maker:
    return lambda path: path.symlink_to(target)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def unreadable(path: Path) -> None:
    path.write_bytes(GOOD)
    path.chmod(0)


def nothing(path: Path) -> None:
    del path


def nearby(path: Path) -> None:
    path.with_name("rows.json").write_bytes(b"")


def in_a_file(path: Path) -> str:
    path.write_bytes(GOOD)
    return str(path / "rows.jsonl")


def folder(**files: bytes) -> Maker:
    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            (path / name.replace("__", ".")).write_bytes(content)

    return make


FILES += [
    bad("no such file", None, nothing, "rows.jsonl", "nothing"),
    bad(("no such file", "did you mean"), None, nearby, "rows.jsonl", "a name nearby"),
    bad("and no folder", None, nothing, "nowhere/rows.jsonl", "no folder"),
    bad("and no folder", None, in_a_file, "rows.jsonl", "a file as folder"),
    bad("leads nowhere", None, link("nowhere.jsonl"), "rows.jsonl", "a broken link"),
    bad("leads nowhere", None, link("rows.jsonl"), "rows.jsonl", "a link to itself"),
    bad("this is a pipe, not a file", None, os.mkfifo, "rows.jsonl", "a pipe"),
    bad("this is a socket, not a file", None, listening, "rows.jsonl", "a socket"),
    bad("this is a device, not a file", None, link("/dev/zero"), "rows.jsonl", "a device"),
    bad("this is a device, not a file", None, link("/dev/null"), "rows.csv", "the null device"),
    bad("cannot be read: File name too long", None, nothing, "x" * 300 + ".jsonl", "a name too long"),
    bad("no such file", None, nothing, "a\nb\x1b[31m.jsonl", "a name with escapes that is not there"),
    bad("broken JSON", 2, GOOD + b"x", "a\nb\x1b[31m\u202e.jsonl", "a name with escapes"),
    bad("broken JSON", 2, GOOD + b"x", "caf\udce9.jsonl", "a name that is not UTF-8"),
    bad("is not a data format", None, GOOD, "rows.js\x1b[31m", "a suffix with escapes"),
    bad("broken JSON", 2, GOOD + b"x", "weiß nicht 数据.jsonl", "a name in other letters"),
    bad("the folder has no data file, it has: nothing", None, folder(), "data", "an empty folder"),
    bad("the folder has no data file, it has: nothing", None, folder(), "rows.jsonl", "a folder named as a file"),
    bad("it has: model.bin, x.md", None, folder(model__bin=b"", x__md=b""), "data", "a folder without data"),
    bad("no file of split \"train\"", None, folder(test__jsonl=GOOD), "data", "another split"),
    bad("some files are named by split, but not: more.jsonl", None,
        folder(train__jsonl=GOOD, more__jsonl=GOOD), "data", "files without split"),
    bad("not a readable saved data set", None, folder(dataset_info__json=b"{}"), "data", "a saved data set's half"),
    bad("not a readable saved data set", None, folder(dataset_info__json=b"{oops", state__json=b"{}"), "data",
        "a saved data set, broken"),
    bad("not a readable saved data set", None, folder(dataset_dict__json=b"[]"), "data", "saved data sets of nothing"),
]  # fmt: skip
if os.geteuid():  # root reads everything
    FILES.append(bad("cannot be read: Permission denied", None, unreadable, "rows.jsonl", "no permission"))
