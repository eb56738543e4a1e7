"""A KV cache that rows leave and join while the others run on.

All rows share one time axis and end at its same column: row r, L tokens long, holds the last L columns, and what lies
before is masked. So a step writes one column of a buffer for all rows, a newcomer is copied in front of that column, a
row that leaves is overwritten by the last one, and columns that only it needed are no longer read.
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
"""Columns that a full buffer grows by: `DynamicLayer` copies the whole cache for each."""


class WindowLayer(DynamicLayer):
    """One layer's keys and values: `keys` and `values`, (R, heads, width, size), are windows of larger buffers."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []  # of keys and of values: (places, heads, columns, size)
        self._rows = self._start = self._end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make the buffers, without any place."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = [one.new_zeros(0, one.shape[1], 0, one.shape[3]) for one in (key_states, value_states)]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the rows' next columns. -> keys and values of the window."""
        new = key_states.shape[2]
        self._reserve(self._rows, self._end - self._start, new)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._rows, :, self._end : self._end + new] = states
        self._end += new
        return self._look()

    def join(self, keys: Tensor, values: Tensor, sources: Tensor) -> None:
        """Add rows: of each of `sources` the row of `keys` and `values`, (k, heads, width, size)."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        rows, width = len(sources), keys.shape[2]
        self._reserve(self._rows + rows, max(width, self._end - self._start), 0)
        begin = self._end - width
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            # What is masked is multiplied by 0, and must not be what memory happens to hold.
            buffer[: self._rows, :, begin : self._start] = 0
            places = buffer[self._rows : self._rows + rows]
            places[:, :, self._start : begin] = 0
            places[:, :, begin : self._end] = states.index_select(0, sources)
        self._start = min(self._start, begin)
        self._rows += rows
        self._look()

    def keep(self, order: Sequence[int], width: int) -> None:
        """Keep the rows of `order`, the first of which stand where they stood, and the last `width` columns."""
        for at, row in enumerate(order):
            if at != row:
                for buffer in self._buffers:
                    buffer[at, :, self._start : self._end] = buffer[row, :, self._start : self._end]
        self._rows, self._start = len(order), self._end - width
        self._look()

    def _look(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (one[: self._rows, :, self._start : self._end] for one in self._buffers)
        return self.keys, self.values

    def _reserve(self, rows: int, width: int, more: int) -> None:
        """Room for `rows` rows, for a window of `width` columns, and for `more` columns behind it."""
        places, columns = self._buffers[0].shape[0], self._buffers[0].shape[2]
        if rows <= places and width <= self._end and self._end + more <= columns:
            return
        if rows > places:
            places = max(rows, places + places // 4)
        elif rows * 2 <= places:
            places = rows
        old = slice(self._start, self._end)
        new = slice(width - (self._end - self._start), width)
        for at, buffer in enumerate(self._buffers):
            grown = buffer.new_empty(places, buffer.shape[1], width + max(more, _CHUNK), buffer.shape[3])
            grown[: self._rows, :, new] = buffer[: self._rows, :, old]
            self._buffers[at] = grown
        self._start, self._end = new.start, new.stop


class WindowCache(DynamicCache):
    """The cache of a model whose layers all have plain full attention."""

    joins = True

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.windows = [WindowLayer() for _ in range(layers)]
        self.layers = list(self.windows)

    def join(self, other: Cache, sources: Sequence[int]) -> None:
        """Add rows: those of `other`, padded on the left, that `sources` names, each as often as it names them."""
        for own, layer in zip(self.windows, cast("list[DynamicLayer]", other.layers), strict=True):
            keys, values = cast("Tensor", layer.keys), cast("Tensor", layer.values)
            own.join(keys, values, torch.tensor(sources, device=keys.device))

    def keep(self, order: Sequence[int], width: int) -> None:
        """Keep the rows of `order` and the last `width` columns."""
        for layer in self.windows:
            layer.keep(order, width)


class GrowingCache(DynamicCache):
    """The cache of any other model (sliding windows, recurrent states): rows leave it, but join only when it is new."""

    joins = False

    def join(self, other: Cache, sources: Sequence[int]) -> None:
        """Take over the rows of `other` that `sources` names."""
        self.layers = other.layers
        self.keep(sources)

    def keep(self, order: Sequence[int], _: int = 0) -> None:
        """Keep the rows of `order`, and every column."""
        keep_rows(self, order)


def keep_rows(cache: Cache, order: Sequence[int]) -> None:
    """Keep the rows of `order` of all that the cache's layers may hold."""
    cache.reorder_cache(cast("torch.LongTensor", torch.tensor(order)))


def new_cache(config: PreTrainedConfig) -> WindowCache | GrowingCache:
    """An empty cache for a model, of the kind that `transformers` takes its layers to need."""
    layers = DynamicCache(config=config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return WindowCache(len(layers)) if plain else GrowingCache(config=config)
