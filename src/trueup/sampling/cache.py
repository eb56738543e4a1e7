"""KV cache in which rows (sequences being sampled) leave and join while the other rows run on.

All rows share a time axis and end at its last column: a row of L tokens fills the last L columns, and the columns
before them are masked. So a step writes a single column of a buffer for all rows, a new row is copied in front of that
column, a row that leaves is overwritten by the last row, and columns that no other row needs are no longer read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CHUNK = 128
"""Columns by which a full buffer grows; `DynamicLayer` would copy the whole cache for every column."""


class WindowLayer(DynamicLayer):
    """KV cache of one layer in which rows leave and join: `keys` and `values`, (R, heads, width, size).

    Both are windows (views) of larger buffers, so that a step copies no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []  # of keys and of values: (row slots, heads, columns, size)
        self._rows = self._start = self._end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make empty buffers with the shapes, dtype and device of the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = [
            states.new_zeros(0, states.shape[1], 0, states.shape[3]) for states in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new columns (tokens) of all rows; return keys and values of the window, old and new columns."""
        new = key_states.shape[2]
        self._reserve(self._rows, self._end - self._start, new)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._rows, :, self._end : self._end + new] = states
        self._end += new
        return self._window()

    def join(self, keys: Tensor, values: Tensor, sources: Tensor) -> None:
        """Append as new rows the rows numbered `sources` of `keys` and `values`, each (k, heads, width, size)."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        rows, width = len(sources), keys.shape[2]
        self._reserve(self._rows + rows, max(width, self._end - self._start), 0)
        begin = self._end - width
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            # Masked columns are multiplied by 0, so they must not hold whatever was in memory (NaN).
            buffer[: self._rows, :, begin : self._start] = 0
            new_rows = buffer[self._rows : self._rows + rows]
            new_rows[:, :, self._start : begin] = 0
            new_rows[:, :, begin : self._end] = states.index_select(0, sources)
        self._start = min(self._start, begin)
        self._rows += rows
        self._window()

    def keep(self, order: Sequence[int], width: int) -> None:
        """Keep the rows numbered `order`, in this order, and the last `width` columns.

        Rows may only move to lower slots.
        """
        for slot, row in enumerate(order):
            if slot != row:
                for buffer in self._buffers:
                    buffer[slot, :, self._start : self._end] = buffer[row, :, self._start : self._end]
        self._rows, self._start = len(order), self._end - width
        self._window()

    def _window(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[: self._rows, :, self._start : self._end] for buffer in self._buffers)
        return self.keys, self.values

    def _reserve(self, rows: int, width: int, more: int) -> None:
        """Resize the buffers to hold `rows` rows, a window of `width` columns, and `more` columns behind the window."""
        slots, columns = self._buffers[0].shape[0], self._buffers[0].shape[2]
        if rows <= slots and width <= self._end and self._end + more <= columns:
            return
        if rows > slots:
            slots = max(rows, slots + slots // 4)
        elif rows * 2 <= slots:
            slots = rows
        old = slice(self._start, self._end)
        new = slice(width - (self._end - self._start), width)
        for index, buffer in enumerate(self._buffers):
            grown = buffer.new_empty(slots, buffer.shape[1], width + max(more, _CHUNK), buffer.shape[3])
            grown[: self._rows, :, new] = buffer[: self._rows, :, old]
            self._buffers[index] = grown
        self._start, self._end = new.start, new.stop


class WindowCache(DynamicCache):
    """KV cache of a model with plain full attention in every layer: rows join and leave at any time."""

    joins = True

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.windows = [WindowLayer() for _ in range(layers)]
        self.layers = list(self.windows)

    def join(self, other: Cache, sources: Sequence[int]) -> None:
        """Append the rows numbered `sources` of the cache `other`, which is padded on the left; a number may repeat."""
        for window, layer in zip(self.windows, cast("list[DynamicLayer]", other.layers), strict=True):
            keys, values = cast("Tensor", layer.keys), cast("Tensor", layer.values)
            window.join(keys, values, torch.tensor(sources, device=keys.device))

    def keep(self, order: Sequence[int], width: int) -> None:
        """Keep only the rows numbered `order`, in this order, and the last `width` columns."""
        for layer in self.windows:
            layer.keep(order, width)


class GrowingCache(DynamicCache):
    """KV cache of any other model (sliding windows, recurrent states): rows leave, but join only while it is empty."""

    joins = False

    def join(self, other: Cache, sources: Sequence[int]) -> None:
        """Take over the layers of the cache `other`, reduced to the rows numbered `sources`."""
        self.layers = other.layers
        self.keep(sources)

    def keep(self, order: Sequence[int], _: int = 0) -> None:
        """Keep only the rows numbered `order`, in this order, and every column."""
        keep_rows(self, order)


def keep_rows(cache: Cache, order: Sequence[int]) -> None:
    """Keep only the rows numbered `order`, in this order, in every layer of the cache."""
    cache.reorder_cache(cast("torch.LongTensor", torch.tensor(order)))


def new_cache(config: PreTrainedConfig) -> WindowCache | GrowingCache:
    """Return an empty cache: a `WindowCache` if every layer has plain full attention, else a `GrowingCache`."""
    layers = DynamicCache(config=config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return WindowCache(len(layers)) if plain else GrowingCache(config=config)
