"""Read the files of a run folder for the report; a file that cannot be used is named in the error, with its line.

A run folder may come from another machine, another version, or a killed process.

A run folder may come from another machine, another version, or a killed process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, TypeAdapter

from trueup.errors import DataError, TrueupError
from trueup.evaluation.items import Item
from trueup.evaluation.plan import PLAN_FILE
from trueup.runs.folder import PlainLoader

_ODD = (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError, yaml.YAMLError)


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or name != Path(name).name or "\0" in name:
        raise ValueError("must be the name of a file or folder in the same folder, not a path")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]


class _Model(BaseModel):
    source: str
    file: FileName
    wins: bool


class _Plan(BaseModel):
    """The expected contents of plan.json: the models, files and settings of an evaluation.

    It is written by `evaluation.plan.write_plan`.
    """

    against: str
    models: dict[str, _Model]
    candidates: list[str]
    reward: str | None
    gold: str | None
    reward_file: FileName | None
    asked: dict[str, str]
    settings: dict[str, Any]
    title: str
    stages: list[FileName]
    gates: dict[str, Any] | None
    command: str | None
    not_measured: dict[str, str]
    seconds: float


_ITEM = TypeAdapter(Item)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn an error about the content of a file, or of a folder's files, into a DataError that names `path`.

    A context manager: it acts on errors raised within its `with`.
    """
    try:
        yield
    except TrueupError:
        raise
    except (*_ODD, FileNotFoundError, IsADirectoryError) as error:  # named by another file, and not there
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path}: not as trueup writes it: {reason}\n  fix: put it back, or make it again") from error


def plan(folder: Path) -> dict[str, Any]:
    """Return plan.json, which names the models, files and settings of an evaluation; {} if there is none.

    Raises:
        DataError: it is damaged, or names files of other folders.
    """
    plan_ = mapping(folder / PLAN_FILE)
    if plan_:
        with usable(folder / PLAN_FILE):
            _Plan.model_validate(plan_, strict=True)
    return plan_


def items(path: Path) -> list[Item]:
    """Return the evaluated items in a file that `write_items` wrote. Raises DataError if a line is not an item."""
    result: list[Item] = []
    for number, row in _objects(path):
        if number > 1:  # the first is the header
            with usable(Path(f"{path}:{number}")):
                result.append(_ITEM.validate_python(row))
    return result


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a .jsonl file, none if it does not exist. Raises DataError if a line is not a JSON object."""
    return [row for _, row in _objects(path)] if path.is_file() else []


def mapping(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty if the file does not exist.

    Raises DataError if it holds something else.
    """
    if not path.is_file():
        return {}
    with usable(path):
        return _object(json.loads(path.read_text(encoding="utf-8")))


def settings(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a YAML file as text and as a mapping, both empty if it is missing.

    Raises DataError if it holds no mapping.
    """
    if not path.is_file():
        return "", {}
    with usable(path):
        text = path.read_text(encoding="utf-8")
        return text, _object(yaml.load(text, PlainLoader) or {})


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with usable(path):
        lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line's end was torn off by a kill
        if line:
            with usable(Path(f"{path}:{number}")):
                yield number, _object(json.loads(line))


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("it must be a mapping")
    return value
