"""Attention over a packed row: many sequences side by side without padding, each seeing only its own tokens.

Everything in a decoder but attention works token by token, so it runs on the packed row as it is. Only attention
takes the row apart: its sequences are copied into rectangles (sequences of similar length, padded), and each rectangle
runs plain causal attention, the fastest kernel on every device. A prompt shared by several answers is in the row once
and in each answer's sequence once, so every answer sees the prompt and none sees another answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
"""Name of `packed_attention` in transformers' table of attention functions."""
_MIN_FILL = 0.8
"""Smallest share of a rectangle that real tokens fill; below it, the shorter sequences get another rectangle."""
_MIN_RECTANGLE = 512
"""Tokens below which a rectangle is not split: another kernel call would cost more than the padding."""


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Index plan of a packed row of N tokens: the sequences in it, and the rectangles in which attention sees them.

    A rectangle is R sequences of similar length padded to T columns. A slot is an index into all rectangles flattened
    one after the other: P slots in all.

    Attributes:
        shapes: (R, T) of each rectangle: R sequences of at most T tokens.
        tokens: (P,) index in the row of the token in each slot. A short sequence is padded with copies of its last
            token, behind it, where causal attention hides them.
        first: (N,) first slot of each token; the token's attention output is read there.
        repeats: for tokens in several sequences (a shared prompt) pairs (tokens, slots): the first pair lists the
            tokens that are in a second sequence and their slots there, the next those in a third, and so on.
    """

    shapes: tuple[tuple[int, int], ...]
    tokens: Tensor
    first: Tensor
    repeats: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device) -> PackedSequences:
        """Return a copy with all tensors on `device`."""
        move = partial(Tensor.to, device=device, non_blocking=True)
        repeats = tuple((move(tokens), move(slots)) for tokens, slots in self.repeats)
        return PackedSequences(self.shapes, move(self.tokens), move(self.first), repeats)

    def visible(self, start: int, stop: int) -> Tensor:
        """Return the (n, n) bool mask over the row's tokens [start, stop): True where a query (row) sees a key."""
        sequence_starts = torch.tensor(list(_sequence_starts(self.shapes)))
        mask = torch.zeros(stop - start, stop - start, dtype=torch.bool)
        for token in range(start, stop):
            slot = int(self.first[token])
            sequence_start = int(sequence_starts[sequence_starts <= slot].max())
            keys = self.tokens[sequence_start : slot + 1]
            mask[token - start, keys[(keys >= start) & (keys < stop)] - start] = True
        return mask


def _sequence_starts(shapes: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yield the first slot of each sequence, given the (R, T) shapes of the rectangles."""
    slot = 0
    for rows, width in shapes:
        for _ in range(rows):
            yield slot
            slot += width


def pack_sequences(spans: Sequence[Sequence[range]]) -> PackedSequences:
    """Return the index plan that lays the sequences of a packed row out as rectangles of similar lengths.

    Args:
        spans: for each sequence, the ranges of the row that make it up, in order; none empty. Together they cover every
            token of the row.
    """
    sequences = [np.concatenate([np.arange(span.start, span.stop) for span in parts]) for parts in spans]
    tokens, slots, shapes = list[IndexArray](), list[IndexArray](), list[tuple[int, int]]()
    for group in _similar_lengths(sorted(sequences, key=len, reverse=True)):
        sizes, width = np.array([len(sequence) for sequence in group]), len(group[0])
        first_slot = sum(rows * columns for rows, columns in shapes)
        is_real = np.arange(width) < sizes[:, None]
        rectangle = np.repeat(np.array([sequence[-1] for sequence in group])[:, None], width, axis=1)
        rectangle[is_real] = np.concatenate(group)
        tokens.append(rectangle.ravel())
        slots.append(first_slot + np.flatnonzero(is_real))
        shapes.append(is_real.shape)
    flat, real = np.concatenate(tokens), np.concatenate(slots)
    return PackedSequences(tuple(shapes), torch.from_numpy(flat), *_token_slots(flat[real], real))


def _similar_lengths(longest_first: list[IndexArray]) -> Iterator[list[IndexArray]]:
    """Yield the sequences in groups of similar length, each of which becomes a rectangle."""
    group, token_count = list[IndexArray](), 0
    for sequence in longest_first:
        width = len(group[0]) if group else len(sequence)
        sparse = token_count + len(sequence) < _MIN_FILL * width * (len(group) + 1)
        if group and sparse and width * len(group) >= _MIN_RECTANGLE:
            yield group
            group, token_count = [], 0
        group.append(sequence)
        token_count += len(sequence)
    yield group


def _token_slots(tokens: IndexArray, slots: IndexArray) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
    """Return `first` and `repeats` of `PackedSequences`: the places of every token of a packed row in its rectangles.

    A slot is a place in the rectangles, flattened; a token of a shared prompt has a slot in each sequence.

    Args:
        tokens: the index in the row of each token, once for every slot that it is in.
        slots: the slot of each entry of `tokens`.
    """
    order = np.argsort(tokens, kind="stable")
    tokens, slots = tokens[order], slots[order]
    starts = np.searchsorted(tokens, np.arange(tokens[-1] + 1))
    occurrence = np.arange(len(tokens)) - starts[tokens]  # 0: the token's first slot, 1: its second
    repeats = tuple(
        (torch.from_numpy(tokens[occurrence == count]), torch.from_numpy(slots[occurrence == count]))
        for count in range(1, occurrence.max() + 1)
    )
    return torch.from_numpy(slots[starts]), repeats


class _LayOut(torch.autograd.Function):
    """Autograd function that copies (N, …) tokens of the row into (P, …) slots. Padding slots get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: PackedSequences) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.plan = plan
        return x.index_select(0, plan.tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        plan: PackedSequences = ctx.plan
        total = grad.index_select(0, plan.first)
        for tokens, slots in plan.repeats:  # no token twice in one, so each sum has one order, on every device
            more = total.index_select(0, tokens).add_(grad.index_select(0, slots))
            total.index_copy_(0, tokens, more)  # many times faster than index_add_ on a CPU
        return total, None


class _ReadFirst(torch.autograd.Function):
    """Autograd function that picks one value for each of N tokens from P slots, P >= N: (P, …) to (N, …).

    A token shared by several packed sequences has a slot in each; its value is read from the first one, and the
    gradient flows to that one alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: PackedSequences) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.plan, ctx.slots = plan, x.shape[0]
        return x.index_select(0, plan.first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad.new_zeros(ctx.slots, *grad.shape[1:]).index_copy_(0, ctx.plan.first, grad), None


def packed_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, sequences: PackedSequences | None = None, **extra: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute causal attention within each sequence of a packed row, as an attention function of transformers.

    Args:
        module: the model's attention layer.
        query: (1, heads, N, D) queries of the row's N tokens.
        key: (1, key heads, N, D) keys.
        value: (1, key heads, N, D) values.
        attention_mask: must be None; `sequences` takes its place.
        scaling: factor of the attention scores; by default 1 / sqrt(D).
        dropout: dropout rate of the attention weights.
        sequences: the sequences of the row.
        extra: anything else the model passes; an option that would change the scores is refused.

    Returns:
        (1, N, heads, D) attention outputs, and None in place of the attention weights.

    Raises:
        ValueError: the model needs more than causal attention, or does not pass the sequences on.
    """
    if sequences is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention needs a single row and its sequences")
    changes = [name for name in ("softcap", "s_aux", "position_bias", "sliding_window") if extra.get(name) is not None]
    if changes or not getattr(module, "is_causal", True):
        raise ValueError(f"packed attention is plain causal attention, but this layer needs {changes}")
    lay_out = cast("Callable[[Tensor, PackedSequences], Tensor]", _LayOut.apply)
    read_first = cast("Callable[[Tensor, PackedSequences], Tensor]", _ReadFirst.apply)
    laid_out = [lay_out(states[0].transpose(0, 1), sequences) for states in (query, key, value)]
    outputs: list[Tensor] = []
    sizes = [rows * width for rows, width in sequences.shapes]
    rectangles = zip(sequences.shapes, *(states.split(sizes) for states in laid_out), strict=True)
    for (rows, width), *qkv in rectangles:
        q, k, v = (states.view(rows, width, *states.shape[1:]).transpose(1, 2) for states in qkv)
        out = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return read_first(torch.cat(outputs), sequences)[None], None


@contextmanager
def use_attention(trunk: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Make `trunk` use the attention function registered as `name` inside the context; None changes nothing."""
    from transformers import AttentionInterface

    if name is None:
        yield
        return
    AttentionInterface.register(PACKED, packed_attention)
    config = trunk.config
    previous = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = previous
