"""Read a stage's rows before torch is imported: a broken line 37 is reported in a second, not after a model has loaded.

Of large data only the beginning is read here, for two seconds; the rest is read when it is turned into tokens, which is
still before the weights are loaded.
"""

from __future__ import annotations

from trueup.config import DataConfig, PipelineConfig, StageConfig
from trueup.data.row_kinds import section_kinds
from trueup.data.sources.parser import RowKind
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError

SECONDS = 2.0
"""The longest time for reading a section."""


def read_rows(config: StageConfig) -> None:
    """Read the beginning of every data section of the stage, to find rows that cannot be used.

    Raises:
        DataError: a file or a row cannot be used.
    """
    for _, section, kinds in section_kinds(config):
        _read_beginning(section, kinds, allow_empty="empty-response" in config.allow)


def _read_beginning(section: DataConfig, kinds: tuple[RowKind, ...], *, allow_empty: bool) -> None:
    first: DataError | None = None
    for kind in kinds:
        try:
            RowStream(section, kind, allow_empty=allow_empty).check_beginning(SECONDS)
        except DataError as error:
            first = first or error
        else:
            return
    assert first is not None
    raise first


def read_pipeline(config: PipelineConfig) -> None:
    """Read the beginning of the data sections of every stage of a pipeline, to find rows that cannot be used.

    Raises:
        DataError: a file or a row cannot be used.
    """
    seen: set[str] = set()
    for name in config.stages:
        stage = config.stage(name)[1]
        for _, section, kinds in section_kinds(stage):
            key = repr((section.model_dump(exclude={"weight", "limit", "holdout"}), kinds, stage.allow))
            if key not in seen:
                seen.add(key)
                _read_beginning(section, kinds, allow_empty="empty-response" in stage.allow)
