"""An opened data section: its entries one after another, as often as asked for, and how far the reading is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trueup.data.sources import finding
from trueup.data.sources.account import Drop
from trueup.data.sources.decoding import UNREADABLE, Break, Entry, Tally, cannot_read
from trueup.data.sources.rankings import last_event, looks_like_store, snapshot
from trueup.data.sources.reading import probe, read_file
from trueup.data.sources.tables import numbered
from trueup.data.votes.header import is_store
from trueup.errors import DataError
from trueup.system.files import split_event
from trueup.system.text import printable


class Reader:
    """What the entries of a source are. Nothing of them is kept: memory does not grow with their number.

    Attributes:
        spec: what was asked for.
        files: the files read, in order; of a saved data set or the hub, its name.
        version: a hash of the rows; "" where the files' contents are that.
        event: of a store, the number of the event at which it is read.
        left_out: what the source holds beside its rows, and why that makes none.
    """

    version: str = ""
    event: int | None = None
    left_out: tuple[Drop, ...] = ()

    def __init__(self, spec: str, files: tuple[str, ...], size: int) -> None:
        self.spec, self.files, self._size = spec, files, size
        self._tally = Tally()

    def entries(self) -> Iterator[Entry]:
        """(origin, row or what is wrong with it), lazily. Every call is a pass of its own, from the beginning.

        What ends a file early, such as a gzip that was cut, is that file's last entry.
        """
        self._tally = Tally()
        return self._pass(self._tally)

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        raise NotImplementedError

    @property
    def blank(self) -> int:
        """Blank lines passed over so far, in the latest pass."""
        return self._tally.blank

    @property
    def done(self) -> float:
        """Share of the source read so far in the latest pass, 0 to 1: of its bytes (of gzip the packed ones).

        0 throughout where the size is not known (the hub).
        """
        return min(self._tally.bytes / self._size, 1.0) if self._size else 0.0


class FileReader(Reader):
    """Files, in order."""

    def __init__(self, spec: str, paths: list[Path]) -> None:
        for path in paths:
            probe(path)
        super().__init__(spec, tuple(map(str, paths)), sum(path.stat().st_size for path in paths))
        self._paths = paths

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        for path in self._paths:
            yield from read_file(path, tally)


class DataSetReader(Reader):
    """A data set of the `datasets` package; `len` is its number of rows, 0 where that is not known."""

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
    """A store of rankings as it stood at one event: what is voted on later is not in it, in no pass."""

    def __init__(self, spec: str, path: Path, event: int | None) -> None:
        self._found = found = snapshot(spec, path, event)
        super().__init__(spec, (str(path),), found.rows)
        self.version, self.event, self.left_out = found.version, found.event, found.left_out

    def _pass(self, tally: Tally) -> Iterator[Entry]:
        for number, entry in enumerate(self._found.entries(), 1):
            tally.finished = number
            yield entry


def store_version(spec: str) -> str:
    """A hash of the rows of a store of rankings, as `Reader.version`; "" of any other source."""
    name, event = split_event(spec)
    path = Path(name).expanduser()
    return snapshot(spec, path, event).version if path.is_file() and looks_like_store(path) else ""


def store_events(specs: Iterable[str]) -> dict[str, str]:
    """Of each store of rankings among some sources, how to read it as it is now: votes.db -> votes.db@1200."""
    stores = {spec for spec in specs if Path(spec).expanduser().is_file() and is_store(Path(spec).expanduser())}
    return {spec: f"{spec}@{last_event(spec, Path(spec).expanduser())}" for spec in stores}


def open_reader(spec: str, split: str) -> Reader:
    """Open a file, a folder of files, a folder of `datasets.save_to_disk`, or a hub id `owner/name[:configuration]`.

    A store of rankings may be read as it stood at an event: votes.db@1200.

    Raises:
        DataError: nothing is there, or a file as a whole cannot be read.
        MissingExtraError: the kind of source needs a package that is not installed.
    """
    try:
        name, event = split_event(spec)
        path = Path(name).expanduser()
        if path.is_file() and looks_like_store(path):
            return StoreReader(spec, path, event)
        if event is not None and path.exists():
            raise DataError(f"{printable(spec)}: no store of rankings, so it has no events\n  fix: leave out @{event}")
        if path.is_dir():
            if finding.is_saved(path):
                saved = finding.open_saved(path, split)
                return DataSetReader(spec, str(path), saved, len(saved))
            return FileReader(spec, finding.files_of(path, split))
        if path.exists():
            return FileReader(spec, [path])
        if finding.looks_like_hub_id(spec):
            return DataSetReader(spec, spec, finding.open_hub(spec, split))
        raise finding.missing(path)
    except (*UNREADABLE, RuntimeError) as error:  # RuntimeError: the home of ~nobody
        fix = "check the path and its permissions"
        raise DataError(f"{printable(spec)}: cannot be read: {cannot_read(error)}\n  fix: {fix}") from error
