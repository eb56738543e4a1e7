"""Open a data source and give its entries one after another, any number of times.

An entry is the place of a row (file and line), with the row's fields or the error of reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trueup.data.sources import finding
from trueup.data.sources.account import Drop
from trueup.data.sources.decoding import UNREADABLE, Break, Entry, Tally, cannot_read
from trueup.data.sources.rankings import last_event, looks_like_store, snapshot
from trueup.data.sources.reading import key_of_list, probe, read_file
from trueup.data.sources.tables import numbered
from trueup.data.sources.trees import joined
from trueup.data.votes.header import is_store
from trueup.errors import DataError
from trueup.system.files import split_event
from trueup.system.text import home_path, printable


class Reader:
    """An opened data source. None of its entries is kept, so memory does not grow with their number.

    Attributes:
        spec: the source as the configuration names it.
        files: the files read, in order; for a data set of the `datasets` package, its folder or hub id.
        version: a hash of the rows (vote stores); "" if the contents of the files identify the rows.
        event: the number of the last event that counts in a vote store; None for other sources.
        left_out: what the source holds besides its rows, with reasons, e.g. undecided pairs of a vote store.
        hidden: names of hidden data files in the source's folder, which are not read.
        keys: the keys under which .json files hold the lists of their rows, e.g. "data"; lists at the top have none.
    """

    version: str = ""
    event: int | None = None
    left_out: tuple[Drop, ...] = ()
    hidden: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __init__(self, spec: str, files: tuple[str, ...], size: int) -> None:
        self.spec, self.files, self._size = spec, files, size
        self._tally = Tally()

    def entries(self) -> Iterator[Entry]:
        """Return an iterator over the entries: a row's place, with its fields or the error of reading it.

        Every call starts again from the beginning. The messages of a tree are one entry. If a file
        cannot be read to its end, such as a gzip that was cut, the error is the last entry of that file.
        """
        self._tally = Tally()
        return joined(self._pass(self._tally))

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        raise NotImplementedError

    @property
    def blank(self) -> int:
        """The number of blank lines skipped so far in the latest pass over the source."""
        return self._tally.blank

    @property
    def done(self) -> float:
        """The share of the source read so far in the latest pass, 0 to 1: by bytes of files (compressed), else by rows.

        Always 0 where the size is not known (data sets of the hub).
        """
        return min(self._tally.bytes / self._size, 1.0) if self._size else 0.0


class FileReader(Reader):
    """Reader of one or more files (JSON Lines, JSON, CSV, text or Parquet), in the given order."""

    def __init__(self, spec: str, paths: list[Path]) -> None:
        for path in paths:
            probe(path)
        super().__init__(spec, tuple(map(str, paths)), sum(path.stat().st_size for path in paths))
        self._paths = paths
        self.keys = tuple(dict.fromkeys(key for path in paths if (key := key_of_list(path)) is not None))

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        for path in self._paths:
            yield from read_file(path, tally)


class DataSetReader(Reader):
    """Reader of a data set of the `datasets` package, which was saved to disk or lies on the hub.

    `length` is its number of rows (0: not known).
    """

    def __init__(self, spec: str, name: str, rows: Iterable[Mapping[str, Any]], length: int = 0) -> None:
        super().__init__(spec, (name,), length)
        self._rows = rows

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        try:
            for entry in numbered(printable(self.files[0]), self._rows):
                tally.finished = entry[0].line
                yield entry
        except Break as end:
            yield end.origin, end.error


class StoreReader(Reader):
    """Reader of a vote store as of one event, so that votes cast later appear in no pass over it."""

    def __init__(self, spec: str, path: Path, event: int | None) -> None:
        self._snapshot = snapshot(spec, path, event)
        super().__init__(spec, (str(path),), self._snapshot.rows)
        self.version, self.event = self._snapshot.version, self._snapshot.event
        self.left_out = self._snapshot.left_out

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        for number, entry in enumerate(self._snapshot.entries(), 1):
            tally.finished = number
            yield entry


def store_version(spec: str) -> str:
    """Return a hash of the rows of the vote store that `spec` names; "" if it names another kind of source."""
    name, event = split_event(spec)
    path = home_path(name)
    return snapshot(spec, path, event).version if path.is_file() and looks_like_store(path) else ""


def store_events(specs: Iterable[str]) -> dict[str, str]:
    """Return {spec: spec with the last event's number} for the vote stores in `specs`, e.g. {votes.db: votes.db@1200}.

    All processes that read these specs get the same rows, even if somebody votes meanwhile.
    """
    stores = {spec for spec in specs if home_path(spec).is_file() and is_store(home_path(spec))}
    return {spec: f"{spec}@{last_event(spec, home_path(spec))}" for spec in stores}


def _check_split(reader: FileReader, split: str, *, named: bool) -> FileReader:
    """Return the reader, unless a split other than "train" is asked of files that have none.

    A split is in the names of the files (`named`) or in a field `split` of the rows.

    Raises:
        DataError: the setting would have no effect.
    """
    if split == "train" or named:
        return reader
    first = next((row for _, row in reader.entries() if not isinstance(row, DataError)), None)
    if first is not None and "split" not in first:
        fix = f"remove split, or name the file of this split (…-{split}.jsonl)"
        raise DataError(
            f"{printable(reader.spec)}: split: {printable(split)}, but the rows have no splits\n  fix: {fix}"
        )
    return reader


def open_reader(spec: str, split: str) -> Reader:
    """Open a file, a folder of files, a folder of `datasets.save_to_disk`, or a hub id `owner/name[:configuration]`.

    A vote store can be read as of an event: votes.db@1200. `split` selects the files or the part of a data set.

    Raises:
        DataError: the source does not exist, or a file as a whole cannot be read.
        MissingExtraError: the kind of source needs a package that is not installed.
    """
    try:
        name, event = split_event(spec)
        path = home_path(name)
        if path.is_file() and looks_like_store(path):
            return StoreReader(spec, path, event)
        if event is not None and path.exists():
            raise DataError(
                f"{printable(spec)}: not a store of rankings, so it has no events\n  fix: leave out @{event}"
            )
        if path.is_dir():
            if finding.is_saved(path):
                saved = finding.open_saved(path, split)
                return DataSetReader(spec, str(path), saved, len(saved))
            files = finding.files_of(path, split)
            reader = FileReader(spec, files)
            reader.hidden = tuple(hidden.name for hidden in finding.hidden_files(path))
            return _check_split(reader, split, named=bool(finding.splits_of(files)))
        if path.exists():
            return _check_split(FileReader(spec, [path]), split, named=False)
        if finding.looks_like_hub_id(spec):
            return DataSetReader(spec, spec, finding.open_hub(spec, split))
        raise finding.missing(path)
    except (*UNREADABLE, RuntimeError) as error:  # RuntimeError: the home of ~nobody
        fix = "check the path and its permissions"
        raise DataError(f"{printable(spec)}: cannot be read: {cannot_read(error)}\n  fix: {fix}") from error
