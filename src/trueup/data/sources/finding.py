"""Find the files of a data source: a file, a folder, a saved data set, or a data set of the Hugging Face hub."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from trueup.data.sources.decoding import cannot_read
from trueup.data.sources.reading import SUFFIXES, kind_of
from trueup.errors import DataError, MissingExtraError
from trueup.system.commandline import install_command
from trueup.system.text import excerpt, listed, masked, printable

SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def looks_like_hub_id(spec: str) -> bool:
    """Return True for owner/name, if `owner` is no local folder and `name` does not end as a data file does."""
    is_id = HUB_ID.fullmatch(spec) is not None and not spec.startswith(".")
    return is_id and kind_of(Path(spec)) not in (*SUFFIXES, ".db") and not Path(spec).parent.exists()


def is_saved(path: Path) -> bool:
    """Return True if the folder was written by `save_to_disk` of the `datasets` package."""
    return (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()


def missing(path: Path) -> DataError:
    """Return the error for a path that does not exist; it suggests the existing name that is most similar."""
    name, folder = printable(path), path.parent
    check_path = f"check the path (now in {printable(Path.cwd())})"
    if path.is_symlink():
        target = printable(path.readlink())
        return DataError(f"{name}: a link to {target}, which leads nowhere\n  fix: link it to the data")
    if not folder.is_dir():
        return DataError(f"{name}: no such file, and no folder {printable(folder)}\n  fix: {check_path}")
    near = difflib.get_close_matches(path.name, sorted(p.name for p in folder.iterdir()), n=1, cutoff=0.5)
    fix = f"did you mean {printable(folder / near[0])}?" if near else check_path
    return DataError(f"{name}: no such file\n  fix: {fix}")


def files_of(folder: Path, split: str) -> list[Path]:
    """Return the data files directly in `folder`, sorted by name.

    If their names hold a split (test-0.jsonl), only the files of `split` are returned.

    Raises:
        DataError: the folder has no data file, none of that split, or only some of the names hold a split.
    """
    files = sorted(p for p in folder.iterdir() if not p.is_dir() and kind_of(p) in SUFFIXES and not is_hidden(p))
    broken = next((p for p in files if not p.exists()), None)
    if broken is not None:
        raise missing(broken)
    if not files:
        held = listed(sorted(p.name for p in folder.iterdir()), 5)
        fix = f"put files of {' '.join(SUFFIXES)} in it"
        raise DataError(f"{printable(folder)}: the folder has no data file, it has: {held}\n  fix: {fix}")
    named = splits_of(files)
    if not named:
        return files
    if split not in named.values():
        fix = f"set split to one of: {', '.join(sorted(set(named.values())))}"
        raise DataError(f"{printable(folder)}: no file of split {excerpt(split)}\n  fix: {fix}")
    others = [p.name for p in files if p not in named]
    if others:
        problem = f"some files are named by split, but not: {listed(others, 5)}"
        fix = "give the path of one file, or a folder of its own"
        raise DataError(f"{printable(folder)}: {problem}\n  fix: {fix}")
    return [p for p in files if named[p] == split]


def is_hidden(path: Path) -> bool:
    """Return True for the file names of copies and caches that programs leave behind: .old.jsonl, ~rows.csv."""
    return path.name.startswith((".", "~"))


def hidden_files(folder: Path) -> list[Path]:
    """Return the hidden data files of a folder, which are not read."""
    return sorted(p for p in folder.iterdir() if not p.is_dir() and kind_of(p) in SUFFIXES and is_hidden(p))


def splits_of(files: Sequence[Path]) -> dict[Path, str]:
    """Return {file: split} for the files whose names hold a split, e.g. test-0.jsonl."""
    return {p: name for p in files for name in SPLITS if name in re.split(r"[-_.]", p.name.lower())}


def open_saved(path: Path, split: str) -> Any:
    """Open one split of a data set that `save_to_disk` of the `datasets` package wrote; rows stay on disk until read.

    Raises:
        DataError: the data set cannot be read, names files outside its folder, or has no such split.
        MissingExtraError: the `datasets` package is not installed.
    """
    datasets = _datasets(str(path))
    _refuse_elsewhere(path)
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:
        reason = excerpt(f"{type(error).__name__}: {cannot_read(error)}", 200)
        raise DataError(f"{printable(path)}: not a readable saved data set: {reason}\n  fix: save it again") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            fix = f"set split to one of: {listed(map(str, saved))}"
            raise DataError(f"{printable(path)}: no split {excerpt(split)}\n  fix: {fix}")
        saved = saved[split]
    return saved.with_format(None)  # it may have been saved to give tensors


def _refuse_elsewhere(path: Path) -> None:
    """Raise DataError if the JSON files of a saved data set name splits or files outside its folder."""
    for json_path in sorted(path.rglob("*.json")):
        info: object = None
        with suppress(OSError, ValueError, RecursionError):  # `datasets` has a better message for a broken file
            info = json.loads(json_path.read_bytes())
        if not isinstance(info, dict):
            continue
        files, splits = info.get("_data_files"), info.get("splits")
        named = [file.get("filename") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
        named += splits if isinstance(splits, list) else []
        for name in named:
            if Path(str(name)).name != str(name) or name == "..":
                problem = f"names {excerpt(name)}, which does not lie in the folder"
                raise DataError(f"{printable(json_path)}: {problem}\n  fix: save it again")


def open_hub(spec: str, split: str) -> Any:
    """Open one split of a data set of the hub, owner/name[:configuration]; its rows are downloaded as they are read.

    Raises:
        DataError: the data set cannot be loaded.
        MissingExtraError: the `datasets` package is not installed.
    """
    datasets = _datasets(spec)
    name, _, configuration = spec.partition(":")
    try:
        return datasets.load_dataset(name, configuration or None, split=split, streaming=True)
    except Exception as error:
        problem = f"no such file, and not loaded from the hub: {excerpt(masked(str(error)), 200)}"
        fix = "check the path or the id owner/name[:configuration], the split, and the network"
        raise DataError(f"{spec}: {problem}\n  fix: {fix}") from error


def _datasets(spec: str) -> ModuleType:
    try:
        import datasets  # here, because it takes seconds
    except ImportError as error:
        fix = install_command("data")
        raise MissingExtraError(
            f"{printable(spec)}: hub and saved data sets need the datasets package\n  fix: {fix}"
        ) from error
    return datasets
