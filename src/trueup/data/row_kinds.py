"""The kinds of row that each data section of a stage may hold."""

from __future__ import annotations

from trueup.config import DataConfig, DpoConfig, PpoConfig, SftConfig, StageConfig
from trueup.data.sources.parser import RowKind


def section_kinds(config: StageConfig) -> list[tuple[tuple[str | int, ...], DataConfig, tuple[RowKind, ...]]]:
    """Return (place, section, the kinds of row it may hold, the likeliest first) for each data section of a stage."""
    return [(place, section, _kinds(config, place, section)) for place, section in config.data_sections]


def _kinds(config: StageConfig, place: tuple[str | int, ...], section: DataConfig) -> tuple[RowKind, ...]:
    if place[0] == "mix" or isinstance(config, SftConfig):
        return ("text",) if section.use == "text" else ("conversation",)
    if isinstance(config, PpoConfig):
        return ("prompt",)
    if isinstance(config, DpoConfig) and config.loss.unpaired and place[0] != "eval":
        return ("labelled", "preference")
    return ("preference",)
