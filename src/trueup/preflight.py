"""Read a stage's rows before torch is imported: a broken line 37 is said in a second, not after a model has loaded.

The rows are kept for the stage that asks for them next (`sources.load_section` hands them over once).
"""

from __future__ import annotations

from trueup import sources
from trueup.config import DataConfig, DpoConfig, PipelineConfig, PpoConfig, SftConfig, StageConfig
from trueup.errors import DataError


def wants(config: StageConfig) -> list[tuple[DataConfig, tuple[sources.Want, ...]]]:
    """Every data section of the stage with the kinds of row it may hold, the likeliest first."""
    found: list[tuple[DataConfig, tuple[sources.Want, ...]]] = []
    for section in (*(getattr(config, key) for key in config.data_fields), config.eval.data):
        if section is None:
            continue
        if isinstance(config, SftConfig):
            found.append((section, _sft_kind(section)))
        elif isinstance(config, PpoConfig):
            found.append((section, ("prompt",)))
        elif isinstance(config, DpoConfig) and config.loss.name == "kto" and section is not config.eval.data:
            found.append((section, ("labelled", "preference")))
        else:
            found.append((section, ("preference",)))
    if config.mix is not None:
        found.append((config.mix.data, _sft_kind(config.mix.data)))
    return found


def _sft_kind(section: DataConfig) -> tuple[sources.Want, ...]:
    return ("text",) if section.use == "text" else ("conversation",)


def read_rows(config: StageConfig) -> None:
    """Read every data section of the stage.

    Raises:
        DataError: a file or a row cannot be used.
    """
    for section, kinds in wants(config):
        first: DataError | None = None
        for kind in kinds:
            try:
                sources.preload(section, kind)
                break
            except DataError as error:
                first = first or error
        else:
            assert first is not None
            raise first


def read_pipeline(config: PipelineConfig) -> None:
    """Read the rows of every stage of a pipeline; they are not kept, as stages that are finished will not ask for them.

    Raises:
        DataError: a file or a row cannot be used.
    """
    seen: set[str] = set()
    for name in config.stages:
        stage = config.stage(name)[1]
        key = repr(wants(stage))
        if key not in seen:
            seen.add(key)
            read_rows(stage)
    sources.forget()
