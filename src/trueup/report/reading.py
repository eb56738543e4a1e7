"""The files that a report is made of, read by one who did not write them: what cannot be used is named, with its line.

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
        raise ValueError("must be the name of a file or folder beside it, not a path")
    return name


Beside = Annotated[str, AfterValidator(_plain_name)]


class _Model(BaseModel):
    source: str
    file: Beside
    wins: bool


class _Plan(BaseModel):
    """What plan.json must hold; see `evaluation.plan.write_plan`."""

    against: str
    models: dict[str, _Model]
    candidates: list[str]
    reward: str | None
    gold: str | None
    reward_file: Beside | None
    asked: dict[str, str]
    settings: dict[str, Any]
    title: str
    stages: list[Beside]
    gates: dict[str, Any] | None
    command: str | None
    not_measured: dict[str, str]
    seconds: float


_ITEM = TypeAdapter(Item)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Let what goes wrong with the content of a file, or of a folder's files, be a DataError that names it."""
    try:
        yield
    except TrueupError:
        raise
    except (*_ODD, FileNotFoundError, IsADirectoryError) as error:  # named by another file, and not there
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path}: not as trueup writes it: {reason}\n  fix: put it back, or make it again") from error


def plan(place: Path) -> dict[str, Any]:
    """What plan.json in the folder `place` holds; empty where there is none.

    Raises:
        DataError: it is damaged, or names files of other folders.
    """
    found = mapping(place / PLAN_FILE)
    if found:
        with usable(place / PLAN_FILE):
            _Plan.model_validate(found, strict=True)
    return found


def items(path: Path) -> list[Item]:
    """The items of a file that `write_items` wrote. Raises DataError: a line is none."""
    made: list[Item] = []
    for number, row in _objects(path):
        if number > 1:  # the first is the header
            with usable(Path(f"{path}:{number}")):
                made.append(_ITEM.validate_python(row))
    return made


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a .jsonl file, none where there is no file. Raises DataError: a line is no JSON object."""
    return [row for _, row in _objects(path)] if path.is_file() else []


def mapping(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file. Raises DataError: it is none."""
    if not path.is_file():
        return {}
    with usable(path):
        return _object(json.loads(path.read_text(encoding="utf-8")))


def settings(path: Path) -> tuple[str, dict[str, Any]]:
    """A YAML file as text and as a mapping, both empty where there is no file. Raises DataError: it is none."""
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


def _object(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError("it must be a mapping")
    return found
