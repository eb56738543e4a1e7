"""A data section as tokens: taken from the cache where the same rows were tokenized before, else made by all cores."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from trueup.config import DataConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.account import Account, no_rows
from trueup.data.sources.parser import Parser, Want
from trueup.data.sources.reader import Reader, open_reader
from trueup.data.sources.reading import Entry
from trueup.data.tokens.pack import Packed, Task, pack
from trueup.data.tokens.spread import Chunk, by_processes
from trueup.data.tokens.store import Tokenized, Writer
from trueup.errors import DataError
from trueup.system.files import file_sha256, fingerprint, free_space_text, is_disk_full
from trueup.system.text import printable

CHUNK, _CHUNK_SIZE = 512, 1 << 20  # rows, and characters, of a chunk
_ALONE = 16_384  # rows that are made in this process before others are started for the rest
_KEPT_SECONDS = 30 * 86400
_OURS = re.compile(r"[0-9a-f]{32}|once-\d+-\d+|\.([0-9a-f]{32}|once-\d+-\d+)-[0-9a-f]{8}")


class Ticker(Protocol):
    """Told how far the reading is."""

    def __call__(self, rows: int, share: float, /) -> None:
        """Rows done, and the share of the source's bytes read (0 where that is not known)."""
        ...


def cache_folder() -> Path:
    """Where tokenized data is kept: $TRUEUP_CACHE, else ~/.cache/trueup. Anything in it may be removed at any time."""
    named = os.environ.get("TRUEUP_CACHE")
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "trueup") / "tokens"


def tokenize(
    section: DataConfig, wants: Sequence[Want], renderer: Renderer, *, allow_empty: bool = False, workers: int = 1,
    tick: Ticker = lambda _rows, _share: None,
) -> Tokenized:  # fmt: skip
    """The section's rows as tokens.

    Args:
        section: where they are.
        wants: the kinds of row they may be, the likeliest first.
        renderer: turns messages into tokens.
        allow_empty: accept empty answers (they are flagged).
        workers: processes to use when there are many rows; the result is the same.
        tick: told how far it is.

    Raises:
        DataError: a row cannot be used; it names the first place, and the others' lines.
        ModelError: the chat template cannot be used for these rows.
    """
    reader = open_reader(section.path, section.split)
    stamps = _stamps(reader)
    parser = _started(reader, section, wants, allow_empty=allow_empty)
    key = _key(reader, section, parser, renderer)
    if key is not None and (found := opened(key)) is not None:
        found.event = reader.event
        return found
    task = Task(parser, renderer, section)
    key = key or f"once-{os.getpid()}-{time.time_ns()}"
    return _build(reader, task, key, workers, tick, stamps)


def opened(key: str) -> Tokenized | None:
    """What the cache holds under a key; None where it holds nothing whole."""
    folder = cache_folder() / key
    try:
        found = Tokenized(folder)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # a cache of somebody else's can be read all the same
        os.utime(folder / "meta.json")  # used today: not to be removed yet
    return found


def _started(reader: Reader, section: DataConfig, wants: Sequence[Want], *, allow_empty: bool) -> Parser:
    """A parser that knows the format, by the first row that can be read.

    Raises:
        DataError: there is no row, or its format gives none of the kinds wanted.
    """
    first = next(((origin, row) for origin, row in reader.entries() if not isinstance(row, DataError)), None)
    if first is None:
        broken = next((row for _, row in reader.entries() if isinstance(row, DataError)), None)
        raise broken or no_rows(printable(section.path))
    problem: DataError | None = None
    for want in wants:
        parser = Parser(want, section.use, section.columns or {}, allow_empty=allow_empty)
        try:
            parser.start(*first)
        except DataError as error:
            problem = problem or error
        else:
            return parser
    assert problem is not None
    raise problem


def _key(reader: Reader, section: DataConfig, parser: Parser, renderer: Renderer) -> str | None:
    """Of all that the tokens depend on; None where the source's contents cannot be told beforehand."""
    contents = [reader.version] if reader.version else [_content(name) for name in reader.files]
    if None in contents:
        return None
    keys = ("use", "rows", "columns", "split", "identical_pairs")
    told = [list(reader.files), contents, {key: getattr(section, key) for key in keys}]
    told += [parser.want, parser.allow_empty, tokenizer_version(renderer), code_version()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _content(name: str) -> str | None:
    path = Path(name)
    if path.is_dir():
        return fingerprint([path])
    if path.is_file():
        return file_sha256(path)
    return _hub_revision(name)


def _hub_revision(name: str) -> str | None:
    """The commit a hub data set stands at; None where the hub cannot be asked."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(name.partition(":")[0], timeout=10).sha
    except Exception:  # noqa: BLE001 (whatever its network stack raises: then the rows are read anew)
        return None


def tokenizer_version(renderer: Renderer) -> str:
    """A hash of the tokenizer, its template, and the versions of the packages that apply them."""
    tokenizer = renderer.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = [type(tokenizer).__name__, tokenizer.chat_template, sorted(map(str, tokenizer.special_tokens_map.items()))]
    told.append(backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()))
    told += [[package, version(package)] for package in ("transformers", "tokenizers", "jinja2")]
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()


CODE = (
    "config/sections.py", "data/rendering", "data/sources", "data/tokens", "data/example.py", "data/refusal.py",
    "data/votes/rows.py",
)  # fmt: skip
"""What makes tokens of rows: files and folders of the package."""


@cache
def code_version() -> str:
    """A hash of the code that makes tokens of rows: another version may make other ones."""
    root = Path(str(resources.files("trueup")))
    return fingerprint([root / part for part in CODE], ignore=["__pycache__"])


def _stamps(reader: Reader) -> list[tuple[int, int]]:
    """Size and time of each file that is read: another one afterwards was changed meanwhile. Stores may be."""
    if reader.version:
        return []
    stats = [path.stat() for path in map(Path, reader.files) if path.is_file()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _build(
    reader: Reader, task: Task, key: str, workers: int, tick: Ticker, stamps: list[tuple[int, int]]
) -> Tokenized:
    folder = cache_folder()
    temporary = folder / f".{key}-{token_hex(4)}"
    with _kept_in(folder):
        _tidy(folder)
        writer = Writer(temporary)
    try:
        account = Account(task.section)
        for chunk in _packed(task, reader.entries(), workers):
            account.add(chunk.account)
            if not account.first:  # after the first fault nothing will be kept
                with _kept_in(folder):
                    writer.add(chunk)
            tick(account.read, reader.done)
        if _stamps(reader) != stamps:
            raise DataError(f"{task.section.path}: it was changed while it was read\n  fix: run again when it is whole")
        account.check()
        meta = account.counts(reader.left_out, reader.blank)
        told = {"format": task.parser.format, "want": task.parser.want, "unused": task.parser.unused}
        with _kept_in(folder):
            writer.close(meta | told)
            _publish(temporary, folder / key)
            made = Tokenized(folder / key)
        made.event = reader.event
        return made
    finally:
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Turn the disk's refusals into a DataError that says how to keep the rows elsewhere."""
    try:
        yield
    except OSError as error:
        advice = f" ({free_space_text(folder)})" if is_disk_full(error) else ""
        fix = "free some space, or " if is_disk_full(error) else ""
        raise DataError(
            f"{folder}: tokenized data cannot be kept there: {error.strerror or error}{advice}\n"
            f"  fix: {fix}set TRUEUP_CACHE to a folder that can be written"
        ) from error


def _publish(temporary: Path, folder: Path) -> None:
    """Rename into place; another process may have been first with the same."""
    if folder.exists() and opened(folder.name) is None:
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if opened(folder.name) is None:
            raise


def _tidy(folder: Path) -> None:
    """Remove what was not used for a month, and after a day what was made for once or left unfinished.

    Only what has the names of this module's own: the folder may have been somebody's before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if _OURS.fullmatch(entry.name):
            with suppress(OSError):  # another process may remove or rename it at this moment
                age = time.time() - max(path.stat().st_mtime for path in (entry, *entry.iterdir()))
                if age > (_KEPT_SECONDS if entry.name.isalnum() else _KEPT_SECONDS / 30):
                    shutil.rmtree(entry, ignore_errors=True)


def _packed(task: Task, entries: Iterator[Entry], workers: int) -> Iterator[Packed]:
    """The chunks in order; the first thousands made here, the rest, if there are more, by `workers` processes."""
    chunks = _chunks(entries)
    for first, chunk in islice(chunks, _ALONE // CHUNK):
        yield pack(task, first, chunk)
    following = next(chunks, None)
    if following is None:
        return
    rest = chain([following], chunks)
    if workers < 2:
        yield from (pack(task, first, chunk) for first, chunk in rest)
    else:
        yield from by_processes(task, rest, workers)


def _chunks(entries: Iterator[Entry]) -> Iterator[Chunk]:
    """Some hundreds of rows at a time, fewer where they are long: what a chunk needs of memory is bounded."""
    first, chunk, size = 0, list[Entry](), 0
    for entry in entries:
        chunk.append(entry)
        size += _size(entry[1])
        if len(chunk) == CHUNK or size >= _CHUNK_SIZE:
            yield first, chunk
            first, chunk, size = first + len(chunk), [], 0
    if chunk:
        yield first, chunk


def _size(value: object) -> int:
    """Characters in the texts of a row."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
