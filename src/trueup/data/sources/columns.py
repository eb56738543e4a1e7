"""Columns of rows besides their messages, such as a known answer, which a user's reward takes by name."""

from __future__ import annotations

from collections.abc import Mapping

from trueup.config import StageConfig
from trueup.config.functions import UserFunction
from trueup.config.paths import rewards_of
from trueup.config.problems import dotted
from trueup.data.sources.reader import open_reader
from trueup.data.sources.records import rename_fields
from trueup.errors import DataError

Columns = Mapping[str, Mapping[str, object]]
"""The place of a row, "prompts.jsonl:3", -> its fields by name."""


def taken(config: StageConfig) -> list[tuple[str, str, dict[str, bool]]]:
    """Return (key, reward, columns) of each reward of a stage that takes columns: {name: the rows must have it}."""
    functions = ((dotted(place), spec, UserFunction.parse(spec)) for place, spec in rewards_of(config))
    named = ((key, spec, function.columns()) for key, spec, function in functions if function is not None)
    return [(key, spec, columns) for key, spec, columns in named if columns]


def read_columns(config: StageConfig) -> dict[str, dict[str, object]]:
    """Return the columns that the rewards of a stage take, of all rows of its data, by the rows' places.

    They are not among the stored tokens, because a reward may ask for any; of each row only these are kept in memory.
    """
    names = {name for _, _, columns in taken(config) for name in columns}
    result: dict[str, dict[str, object]] = {}
    if not names:
        return result
    for place, section in config.data_sections:
        if place[0] == "mix":
            continue
        for origin, row in open_reader(section.path, section.split).entries():
            if not isinstance(row, DataError):
                fields = {**row, **rename_fields(row, section.columns or {}, origin)}
                result[str(origin)] = {name: fields[name] for name in names & fields.keys()}
    return result
