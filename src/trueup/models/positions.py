"""The longest row that a model has positions for, from its tables of positions or its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POSITION_KEYS = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx")
"""The names under which configurations give the number of positions."""
_OFFSET = 8  # rows that a table may have in addition: OPT's has two for padding


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """The number of positions that a model has, and if a longer row stops it (a table) or only leaves its training."""

    positions: int
    is_table: bool


def position_limit(model: PreTrainedModel) -> PositionLimit | None:
    """Return the limit of a model's positions; None if it has none, such as a recurrent model or one with ALiBi.

    Positions are a table if the model holds a matrix with that many rows besides its token embedding (GPT-2, OPT), or
    with shapes only (on the device "meta") cannot run a longer row. Rotary positions have no such end; theirs is the
    length of the training, times the factor of a scaling.
    """
    positions = _configured(model)
    if positions is None:
        return None
    if has_table(model, positions) or (model.device.type == "meta" and _stops_at(model, positions)):
        return PositionLimit(positions, is_table=True)
    rotary = getattr(model.config.get_text_config(), "rope_parameters", None)
    return PositionLimit(_scaled(positions, rotary), is_table=False) if rotary else None


def table_size(model: nn.Module) -> int | None:
    """Return the number of positions in the tables of a model; None if its positions are computed, or it has none."""
    positions = _configured(model)
    return positions if positions is not None and has_table(model, positions) else None


def _configured(model: nn.Module) -> int | None:
    """Return the number of positions in a model's configuration, under whatever name; None if it has none."""
    config: Any = cast("Any", model).config.get_text_config()
    values = (getattr(config, key, None) for key in POSITION_KEYS)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def has_table(model: nn.Module, positions: int) -> bool:
    """Return True if the model has a table of `positions` rows: another embedding than the tokens', or a buffer."""
    tokens = cast("PreTrainedModel", model).get_input_embeddings()
    for module in model.modules():
        is_other = isinstance(module, nn.Embedding) and module is not tokens
        if is_other and positions <= cast("nn.Embedding", module).num_embeddings <= positions + _OFFSET:
            return True
    # Rotary tables (GPT-J) begin with the positions, causal masks (GPT-Neo) end with them twice.
    shapes = [tuple(buffer.shape) for buffer in model.buffers() if buffer.ndim > 1]
    return any(shape[0] == positions or shape[-2:] == (positions, positions) for shape in shapes)


@torch.no_grad()
def _stops_at(model: PreTrainedModel, positions: int) -> bool:
    """Return True if a model without numbers runs a row of `positions` tokens, but not a row of one more."""

    def runs(length: int) -> bool:
        try:
            model.base_model(input_ids=torch.zeros(1, length, dtype=torch.long, device="meta"), use_cache=False)
        except Exception:  # noqa: BLE001 -- anything may be raised by shapes that do not fit, or by the lack of numbers
            return False
        return True

    return not runs(positions + 1) and runs(positions)


def _scaled(positions: int, rotary: dict[str, Any]) -> int:
    """Return the number of rotary positions with their scaling.

    `max_position_embeddings` is the number before it in some models' configurations, and after it in others.
    """
    kinds = [value for value in rotary.values() if isinstance(value, dict)] or [rotary]
    scaled = [
        int((kind.get("original_max_position_embeddings") or positions) * kind["factor"])
        for kind in kinds
        if kind.get("rope_type", "default") != "default" and isinstance(kind.get("factor"), int | float)
    ]
    return max([positions, *scaled])
