"""The kinds of row (e.g. conversation, preference) that each data section of a training stage may hold."""

from __future__ import annotations

from trueup.config import DataConfig, DpoConfig, PpoConfig, SftConfig, StageConfig
from trueup.data.sources.parser import RowKind


def section_kinds(config: StageConfig) -> list[tuple[tuple[str | int, ...], DataConfig, tuple[RowKind, ...]]]:
    """Return (place, section, kinds) for each data section of a training stage.

    `place` is the section's path in the configuration, e.g. ("eval", "data"); `kinds` are the kinds of row that it may
    hold, the likeliest first.
    """
    return [(place, section, _kinds(config, place, section)) for place, section in config.data_sections]


def _kinds(config: StageConfig, place: tuple[str | int, ...], section: DataConfig) -> tuple[RowKind, ...]:
    if place[0] == "mix" or isinstance(config, SftConfig):
        return ("text",) if section.use == "text" else ("conversation",)
    if isinstance(config, PpoConfig):
        return ("prompt",)
    if isinstance(config, DpoConfig) and config.loss.unpaired and place[0] != "eval":
        return ("labelled", "preference")
    return ("preference",)
