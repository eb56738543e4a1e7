"""Where the data is: a file, a folder, a saved data set or the hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from trueup.chat import excerpt
from trueup.errors import DataError, MissingExtraError
from trueup.sources.reading import SUFFIXES, Entry, kind_of, numbered, read_file

SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(slots=True)
class Table:
    """Rows of a source in order, the files read, and the number of blank lines passed over."""

    entries: list[Entry]
    files: tuple[str, ...]
    blank: int = 0


def read(spec: str, split: str) -> Table:
    """Read a file, a folder of files, a folder of `datasets.save_to_disk`, or a hub id `owner/name[:configuration]`.

    Raises:
        DataError: nothing is there, or a whole file cannot be read.
        MissingExtraError: the kind of source needs a package that is not installed.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
            return _read_saved(path, split)
        return _read_files(_files_of(path, split))
    if path.exists():
        return _read_files([path])
    if _looks_like_hub_id(spec):
        return _read_hub(spec, split)
    raise DataError(_missing(path))


def _looks_like_hub_id(spec: str) -> bool:
    """owner/name whose owner is no local folder and whose name is no data file's."""
    is_id = HUB_ID.fullmatch(spec) is not None and not spec.startswith(".")
    return is_id and kind_of(Path(spec)) not in SUFFIXES and not Path(spec).parent.exists()


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such file, and no folder {folder}\n  fix: check the path (now in {Path.cwd()})"
    near = difflib.get_close_matches(path.name, sorted(p.name for p in folder.iterdir()), n=1, cutoff=0.5)
    hint = f"did you mean {folder / near[0]}?" if near else f"check the path (now in {Path.cwd()})"
    return f"{path}: no such file\n  fix: {hint}"


def _files_of(folder: Path, split: str) -> list[Path]:
    """Data files directly in `folder`, sorted. Where names carry a split (test-0.jsonl), only those of `split`."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p) in SUFFIXES)
    if not files:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{folder}: the folder has no data file, it has: {held}\n  fix: put files of {' '.join(SUFFIXES)} in it"
        )
    named = {p: name for p in files for name in SPLITS if name in re.split(r"[-_.]", p.name.lower())}
    if not named:
        return files
    if split not in named.values():
        held = ", ".join(sorted(set(named.values())))
        raise DataError(f"{folder}: no file of split {excerpt(split)}\n  fix: set split to one of: {held}")
    others = [p.name for p in files if p not in named]
    if others:
        fix = "give the path of one file, or a folder of its own"
        raise DataError(f"{folder}: some files are named by split, but not: {', '.join(others[:5])}\n  fix: {fix}")
    return [p for p in files if named[p] == split]


def _read_files(paths: list[Path]) -> Table:
    table = Table([], tuple(map(str, paths)))
    for path in paths:
        entries, blank = read_file(path)
        table.entries.extend(entries)
        table.blank += blank
    return table


def _read_saved(path: Path, split: str) -> Table:
    datasets = _datasets(str(path))
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable saved data set: {excerpt(str(error))}\n  fix: save it again"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(
                f"{path}: no split {excerpt(split)}\n  fix: set split to one of: {', '.join(map(str, found))}"
            )
        found = found[split]
    return Table(list(numbered(str(path), found)), (str(path),))


def _read_hub(spec: str, split: str) -> Table:
    datasets = _datasets(spec)
    name, _, configuration = spec.partition(":")
    try:
        found = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, wrong split or configuration
        raise DataError(
            f"{spec}: no such file, and not loaded from the hub: {excerpt(str(error), 200)}\n"
            "  fix: check the path or the id owner/name[:configuration], the split, and the network"
        ) from error
    return Table(list(numbered(spec, found)), (spec,))


def _datasets(spec: str) -> ModuleType:
    try:
        import datasets  # here, because it takes seconds
    except ImportError as error:
        raise MissingExtraError(
            f"{spec}: hub and saved data sets need the datasets package\n  fix: pip install 'trueup[data]'"
        ) from error
    return datasets
