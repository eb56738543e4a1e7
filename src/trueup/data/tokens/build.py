"""Tokenize a data section, or read its tokens from the cache on disk if the same rows were tokenized before."""

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
from trueup.data.sources.parser import Parser, RowKind
from trueup.data.sources.reader import Reader, open_reader
from trueup.data.sources.reading import Entry
from trueup.data.tokens.pack import Packed, Task, pack
from trueup.data.tokens.spread import Chunk, pack_in_processes
from trueup.data.tokens.store import Tokenized, Writer
from trueup.errors import DataError
from trueup.system.files import file_sha256, fingerprint, free_space_text, is_disk_full
from trueup.system.text import home_path, printable

CHUNK, _CHUNK_SIZE = 512, 1 << 20  # rows, and characters, of a chunk
_ALONE = 16_384  # rows that this process tokenizes before it starts others for the rest
_KEPT_SECONDS = 30 * 86400
_OURS = re.compile(r"[0-9a-f]{32}|once-\d+-\d+|\.([0-9a-f]{32}|once-\d+-\d+)-[0-9a-f]{8}")


class Ticker(Protocol):
    """Interface of a function that is called with the progress of reading a source."""

    def __call__(self, rows: int, share: float, /) -> None:
        """Show the number of rows done, and the share of the source's bytes read (0 to 1; 0 if it is not known)."""
        ...


def cache_folder() -> Path:
    """Return the folder in which tokenized data are cached, in $TRUEUP_CACHE or ~/.cache/trueup.

    It may be removed at any time; the data are then tokenized again.
    """
    return cache_root() / "tokens"


def cache_root() -> Path:
    """Return the folder of all that may be computed again: $TRUEUP_CACHE or ~/.cache/trueup."""
    root = os.environ.get("TRUEUP_CACHE")
    return home_path(root) if root else Path.home() / ".cache" / "trueup"


def tokenize(
    section: DataConfig, kinds: Sequence[RowKind], renderer: Renderer, *, allow_empty: bool = False, workers: int = 1,
    tick: Ticker = lambda _rows, _share: None,
) -> Tokenized:  # fmt: skip
    """Return the rows of a data section as tokens, from the cache if it has them.

    Args:
        section: the data section of the configuration: the source, and which of its rows are selected.
        kinds: the kinds of row it may hold (e.g. "preference"), the likeliest first.
        renderer: turns messages into tokens.
        allow_empty: accept empty answers (their rows are flagged).
        workers: processes to use when there are many rows; the result does not depend on it.
        tick: called with the progress.

    Raises:
        DataError: a row cannot be used; the message names the first one and the lines of the others.
        ModelError: the chat template cannot be used for these rows.
    """
    reader = open_reader(section.path, section.split)
    stamps = _stamps(reader)
    parser = _start_parser(reader, section, kinds, allow_empty=allow_empty)
    key = _key(reader, section, parser, renderer)
    if key is not None and (cached := open_cached(key)) is not None:
        cached.event = reader.event
        return cached
    task = Task(parser, renderer, section)
    key = key or f"once-{os.getpid()}-{time.time_ns()}"
    return _build(reader, task, key, workers, tick, stamps)


def open_cached(key: str) -> Tokenized | None:
    """Return the tokenized rows that the cache holds under the hash `key`; None if it has none or they are damaged."""
    folder = cache_folder() / key
    try:
        rows = Tokenized(folder)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # another user's cache may be read-only
        os.utime(folder / "meta.json")  # entries that are used are not removed
    return rows


def _start_parser(reader: Reader, section: DataConfig, kinds: Sequence[RowKind], *, allow_empty: bool) -> Parser:
    """Return a parser of rows that has recognised the format from the first readable row.

    Raises:
        DataError: the source has no row, or none of the kinds of row can be made of its format.
    """
    first = next(((origin, row) for origin, row in reader.entries() if not isinstance(row, DataError)), None)
    if first is None:
        broken = next((row for _, row in reader.entries() if isinstance(row, DataError)), None)
        raise broken or no_rows(printable(section.path))
    problem: DataError | None = None
    for kind in kinds:
        parser = Parser.of(section, kind, allow_empty=allow_empty)
        try:
            parser.start(*first)
        except DataError as error:
            problem = problem or error
        else:
            return parser
    assert problem is not None
    raise problem


def _key(reader: Reader, section: DataConfig, parser: Parser, renderer: Renderer) -> str | None:
    """Return the cache key: a hash of everything that the tokens depend on, e.g. files, settings, tokenizer and code.

    None if the content of the source is not known before it is read.
    """
    contents = [reader.version] if reader.version else [_content(name) for name in reader.files]
    if None in contents:
        return None
    keys = (
        "use", "rows", "columns", "split", "identical_pairs", "format", "pairs", "skip", "merge_turns", "ignore"
    )  # fmt: skip
    parts = [list(reader.files), contents, {key: getattr(section, key) for key in keys}]
    parts += [parser.tools] if parser.tools is not None else []
    parts += [parser.want, parser.allow_empty, tokenizer_version(renderer), renderer.train_thinking, code_version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _content(name: str) -> str | None:
    """Return a hash of a file or folder, or the commit of a hub data set; None if the hub cannot be reached."""
    path = Path(name)
    if path.is_dir():
        return fingerprint([path])
    if path.is_file():
        return file_sha256(path)
    return _hub_revision(name)


def _hub_revision(name: str) -> str | None:
    """Return the current commit of a hub data set; None if the hub cannot be reached."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(name.partition(":")[0], timeout=10).sha
    except Exception:  # noqa: BLE001 (any error of its network stack: the rows are then tokenized again)
        return None


def tokenizer_version(renderer: Renderer) -> str:
    """Return a hash of the tokenizer, its chat template, and the versions of the packages that apply them."""
    tokenizer = renderer.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [type(tokenizer).__name__, tokenizer.chat_template, sorted(map(str, tokenizer.special_tokens_map.items()))]
    parts.append(backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()))
    parts += [[package, version(package)] for package in ("transformers", "tokenizers", "jinja2")]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


CODE = (
    "config/sections.py", "data/rendering", "data/sources", "data/tokens", "data/example.py", "data/refusal.py",
    "data/refusals", "data/votes/rows.py",
)  # fmt: skip
"""Files and folders of the package whose code makes tokens of rows."""


@cache
def code_version() -> str:
    """Return a hash of trueup's code that makes tokens of rows, because another version may make other tokens."""
    root = Path(str(resources.files("trueup")))
    return fingerprint([root / part for part in CODE], ignore=["__pycache__"])


def _stamps(reader: Reader) -> list[tuple[int, int]]:
    """Return (size, modification time) of each file of a source, by which changes during reading are noticed.

    The list is empty for a vote store, which may change while it is read.
    """
    if reader.version:
        return []
    stats = [path.stat() for path in map(Path, reader.files) if path.is_file()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _build(
    reader: Reader, task: Task, key: str, workers: int, tick: Ticker, stamps: list[tuple[int, int]]
) -> Tokenized:
    """Tokenize all rows of a source into a new folder of the cache, named `key`, and return them."""
    folder = cache_folder()
    temporary = folder / f".{key}-{token_hex(4)}"
    with _storage_errors(folder):
        _remove_old(folder)
        writer = Writer(temporary)
    try:
        account = Account(task.section)
        for chunk in _packed(task, reader.entries(), workers):
            account.add(chunk.account)
            if not account.first:  # after the first unusable row nothing will be kept
                with _storage_errors(folder):
                    writer.add(chunk)
            tick(account.read, reader.done)
        if _stamps(reader) != stamps:
            raise DataError(f"{task.section.path}: it was changed while it was read\n  fix: run again when it is whole")
        account.check()
        meta = account.counts(reader.left_out, reader.blank)
        meta |= {"format": task.parser.format, "want": task.parser.want, "reason": task.parser.reason}
        meta |= {"hidden": reader.hidden, "keys": reader.keys}
        with _storage_errors(folder):
            writer.close(meta)
            _publish(temporary, folder / key)
            rows = Tokenized(folder / key)
        rows.event = reader.event
        return rows
    finally:
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError in the `with` block into a DataError that says how to store tokenized data elsewhere."""
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
    """Rename a finished folder to its final name; if another process was faster with the same rows, keep that one."""
    if folder.exists() and open_cached(folder.name) is None:
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if open_cached(folder.name) is None:
            raise


def _remove_old(folder: Path) -> None:
    """Remove cached data not used for 30 days, and unfinished or uncacheable ones after a day.

    Only names that this module gives are removed: the folder may hold other files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if _OURS.fullmatch(entry.name):
            with suppress(OSError):  # another process may remove or rename it at this moment
                age = time.time() - max(path.stat().st_mtime for path in (entry, *entry.iterdir()))
                if age > (_KEPT_SECONDS if entry.name.isalnum() else _KEPT_SECONDS / 30):
                    shutil.rmtree(entry, ignore_errors=True)


def _packed(task: Task, entries: Iterator[Entry], workers: int) -> Iterator[Packed]:
    """Yield the tokenized chunks in order; the first 16,384 rows are made here, further ones by `workers` processes."""
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
        yield from pack_in_processes(task, rest, workers)


def _chunks(entries: Iterator[Entry]) -> Iterator[Chunk]:
    """Yield chunks as (number of the first row, rows): 512 rows, or fewer where they are long, to bound the memory."""
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
    """Return the number of characters in all texts of a row, including those in lists and dicts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
