"""Attention over a packed row: the tokens of many sequences side by side, no padding, each seeing its own alone.

Everything in a decoder but attention works token by token, so it runs on the packed row as it is. Attention alone takes
the row apart: its sequences are laid out as rectangles of similar lengths, each of which is plain causal attention, the
fastest kernel on every device. A prompt that several answers share stands once in the row and once in each answer's
sequence, so that each answer sees it and none sees another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IndexArray = NDArray[np.int64]

PACKED = "trueup_packed"
"""The name of `packed_attention` in transformers' table of attention functions."""
_FILLED = 0.8
"""How much of a rectangle its sequences fill at least: below it, the shorter ones get a rectangle of their own."""
_SMALL = 512
"""Tokens of a rectangle that is not worth another call."""


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """The sequences of a packed row of N tokens, and the rectangles in which attention sees them.

    A token's place is an index into all rectangles laid flat, one after the other: P places in all.

    Attributes:
        shapes: (R, T) of each rectangle: R sequences of at most T tokens.
        tokens: (P,) which token of the row stands at each place. A short sequence is filled up with its last token,
            behind it, where none of its own tokens looks.
        first: (N,) the place where each token stands first, which is where its output is read.
        again: (tokens, places) of the tokens that stand in a second sequence, in a third, …: in each no token twice.
    """

    shapes: tuple[tuple[int, int], ...]
    tokens: Tensor
    first: Tensor
    again: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device) -> PackedSequences:
        """The same on `device`."""
        again = tuple((one.to(device, non_blocking=True), at.to(device, non_blocking=True)) for one, at in self.again)
        tokens, first = (one.to(device, non_blocking=True) for one in (self.tokens, self.first))
        return PackedSequences(self.shapes, tokens, first, again)

    def visible(self, start: int, stop: int) -> Tensor:
        """(n, n) bool over the tokens [start, stop) of the row: whether the first attends to the second."""
        begins = torch.tensor(list(_row_starts(self.shapes)))
        seen = torch.zeros(stop - start, stop - start, dtype=torch.bool)
        for token in range(start, stop):
            place = int(self.first[token])
            begin = int(begins[begins <= place].max())
            keys = self.tokens[begin : place + 1]
            seen[token - start, keys[(keys >= start) & (keys < stop)] - start] = True
        return seen


def _row_starts(shapes: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The place where each sequence begins."""
    at = 0
    for rows, width in shapes:
        for _ in range(rows):
            yield at
            at += width


def pack_sequences(spans: Sequence[Sequence[range]]) -> PackedSequences:
    """Lay the sequences of a packed row out as rectangles of similar lengths.

    Args:
        spans: of each sequence the ranges of the row that make it up, in order; none empty. Together they name every
            token of the row.
    """
    own = [np.concatenate([np.arange(one.start, one.stop) for one in parts]) for parts in spans]
    tokens, places, shapes = list[IndexArray](), list[IndexArray](), list[tuple[int, int]]()
    for group in _groups(sorted(own, key=len, reverse=True)):
        sizes, width = np.array([len(one) for one in group]), len(group[0])
        begin = sum(rows * wide for rows, wide in shapes)
        filled = np.arange(width) < sizes[:, None]
        rectangle = np.repeat(np.array([one[-1] for one in group])[:, None], width, axis=1)
        rectangle[filled] = np.concatenate(group)
        tokens.append(rectangle.ravel())
        places.append(begin + np.flatnonzero(filled))
        shapes.append(filled.shape)
    flat, real = np.concatenate(tokens), np.concatenate(places)
    return PackedSequences(tuple(shapes), torch.from_numpy(flat), *_places(flat[real], real))


def _groups(longest_first: list[IndexArray]) -> Iterator[list[IndexArray]]:
    """Sequences in groups of similar length."""
    group, real = list[IndexArray](), 0
    for one in longest_first:
        width = len(group[0]) if group else len(one)
        sparse = real + len(one) < _FILLED * width * (len(group) + 1)
        if group and sparse and width * len(group) >= _SMALL:
            yield group
            group, real = [], 0
        group.append(one)
        real += len(one)
    yield group


def _places(tokens: IndexArray, places: IndexArray) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
    """Where each token stands first, and where again: `tokens[i]` stands at `places[i]`."""
    order = np.argsort(tokens, kind="stable")
    tokens, places = tokens[order], places[order]
    starts = np.searchsorted(tokens, np.arange(tokens[-1] + 1))
    time = np.arange(len(tokens)) - starts[tokens]  # 0: stands here first, 1: for the second time
    again = tuple(
        (torch.from_numpy(tokens[time == n]), torch.from_numpy(places[time == n])) for n in range(1, time.max() + 1)
    )
    return torch.from_numpy(places[starts]), again


class _LayOut(torch.autograd.Function):
    """(N, …) -> (P, …): the rows of the row's tokens at their places. What stands as filling has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: PackedSequences) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.plan = plan
        return x.index_select(0, plan.tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        plan: PackedSequences = ctx.plan
        total = grad.index_select(0, plan.first)
        for tokens, places in plan.again:  # no token twice in one, so each sum has one order, on every device
            more = total.index_select(0, tokens).add_(grad.index_select(0, places))
            total.index_copy_(0, tokens, more)  # many times faster than index_add_ on a CPU
        return total, None


class _ReadFirst(torch.autograd.Function):
    """(P, …) -> (N, …): each token's where it stands first. What is read nowhere has gradient 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: PackedSequences) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.plan, ctx.places = plan, x.shape[0]
        return x.index_select(0, plan.first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad.new_zeros(ctx.places, *grad.shape[1:]).index_copy_(0, ctx.plan.first, grad), None


def packed_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sequences: PackedSequences | None = None, **extra: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention within each sequence of a packed row, as an attention function of transformers.

    Args:
        module: the model's attention layer.
        query: (1, heads, N, D).
        key: (1, key heads, N, D).
        value: as `key`.
        attention_mask: None.
        scaling: of the scores; by default 1 / sqrt(D).
        dropout: of the weights.
        sequences: what the row holds.
        extra: whatever else a model passes; what would change the scores is refused.

    Returns:
        (1, N, heads, D), and None.

    Raises:
        ValueError: the model needs more than causal attention, or does not hand the sequences on.
    """
    if sequences is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention needs one row and its sequences")
    changes = [name for name in ("softcap", "s_aux", "position_bias", "sliding_window") if extra.get(name) is not None]
    if changes or not getattr(module, "is_causal", True):
        raise ValueError(f"packed attention is causal attention and nothing else, this layer asks for {changes}")
    lay = cast("Callable[[Tensor, PackedSequences], Tensor]", _LayOut.apply)
    read = cast("Callable[[Tensor, PackedSequences], Tensor]", _ReadFirst.apply)
    laid = [lay(one[0].transpose(0, 1), sequences) for one in (query, key, value)]
    outputs: list[Tensor] = []
    sizes = [rows * width for rows, width in sequences.shapes]
    parts = zip(sequences.shapes, *(one.split(sizes) for one in laid), strict=True)
    for (rows, width), *states in parts:
        q, k, v = (one.view(rows, width, *one.shape[1:]).transpose(1, 2) for one in states)
        out = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return read(torch.cat(outputs), sequences)[None], None


@contextmanager
def use_attention(trunk: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Inside, `trunk` uses the attention function `name`; None: its own."""
    from transformers import AttentionInterface

    if name is None:
        yield
        return
    AttentionInterface.register(PACKED, packed_attention)
    config = trunk.config
    own = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = own
