"""A `~` in any path of any configuration is the home folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from trueup.config.sections import Section
from trueup.runs.folder import config_differences

NO_PATHS = {
    "against", "judge", "judge_model", "stages", "template", "columns", "ignore", "split", "rows", "targets", "name",
    "params", "harness_drop", "harness_gain", "set_worsening", "set_gain", "slices",
    "device", "rater", "host", "format", "allow", "tasks",
}  # fmt: skip
"""Keys of text that is no path; `name` of a function is expanded where its file is opened."""


def sections(cls: type[Section] = Section) -> Iterator[type[Section]]:
    for inner in cls.__subclasses__():
        if inner.__module__.startswith("trueup."):
            yield inner
            yield from sections(inner)


def parts(annotation: object) -> set[Any]:
    """All types and metadata in an annotation."""
    inner = get_args(annotation)
    return {annotation} if not inner else set[Any]().union(*map(parts, inner))


FIELDS = {
    (cls.__name__, name): field
    for cls in sections()
    for name, field in cls.model_fields.items()
    if {str, Path} & parts(field.annotation) and (cls.__name__, name) != ("GatesConfig", "model")  # a stage's name
}


def adapter(field: FieldInfo) -> TypeAdapter[Any]:
    marked: Any = Annotated
    annotation: Any = field.annotation
    return TypeAdapter(marked[(annotation, *field.metadata)] if field.metadata else annotation)


@pytest.mark.parametrize("place", [place for place in FIELDS if place[1] not in NO_PATHS], ids=".".join)
def test_a_path_may_begin_at_home(place: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = adapter(FIELDS[place]).validate_python("~/mine")
    assert [str(item) for item in (given if isinstance(given, list) else [given])] == [str(tmp_path / "mine")]


def test_the_loop_has_the_paths_that_a_stage_and_a_pipeline_name() -> None:
    places = {name for _, name in FIELDS if name not in NO_PATHS}
    assert places >= {"output", "runs", "data", "path", "prompts", "reward", "chat_template", "grader", "gold", "pairs"}
    assert places >= {"model", "base", "reference", "tools", "harness"}


def test_a_run_that_was_begun_with_the_sign_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        config_differences("model: ~/base\nreward: [~/a]\n", f"model: {tmp_path}/base\nreward: [{tmp_path}/a]\n") == []
    )
    assert config_differences("model: ~/base\n", f"model: {tmp_path}/other\n")
