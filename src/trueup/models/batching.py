"""Turn examples into token-budgeted micro-batches in which a shared prompt runs once.

An `Example` (data/example.py) is a trunk (the prompt) and the branches (answers) that continue it, laid out as
`[trunk | branch 0 | branch 1 …]`: each branch's positions go on from the trunk's and it never sees its siblings, so
that its log-probabilities are those of `[trunk | branch]` alone. Only trained tokens are listed in `predict_at` and
`targets`: no other token reaches the LM head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappush, heapreplace
from itertools import accumulate, compress
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueup.data.example import Branch, Example, single
from trueup.models.attention import PackedSequences, pack_sequences

__all__ = ["Batch", "Branch", "Example", "Layout", "Per", "collate", "micro_batches", "single"]

Per = Literal["token", "branch", "example"]
Layout = Literal["packed", "shared", "plain"]
"""Layout of examples in rows; all three give the same numbers.

- "packed": a single row without padding, all examples one after the other. Needs `packed_attention`.
- "shared": a row per example, padded to the longest. Needs attention that takes a block mask.
- "plain": a row per branch, each with its own copy of the trunk. Any causal model takes it.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch of R rows of T tokens, with S branches (answers) and N trained tokens.

    Attributes:
        input_ids: (R, T) token ids, padded on the right.
        position_ids: (R, T); a branch's positions go on from its trunk's (the prompt's).
        attention_mask: None where plain causal attention is correct, else (R, 1, T, T) bool, True = may attend.
        sequences: the sequences of a packed row; None in any other layout.
        predict_at: (N,) index into the flattened (R * T) hidden states from which target n is predicted.
        targets: (N,) token ids.
        branch_of: (N,) branch of each target, sorted; branches are in example order (pair p is 2p and 2p + 1).
        last_at: (S,) flat index of each branch's last token, where a scalar head reads its score.
        lengths: (S,) trained tokens of each branch, float.
        weights: (N,), (S,) or (P,) weights of an objective's values; ones unless a source sets them.
        columns: further inputs of an objective by name, such as "advantages": float32, per token (N,), branch (S,) or
            example (P,).
        tokens: number of real (not padding) tokens.
        rows: source row number of each example, for messages.
        idle: True for a batch that runs only because every rank must run equally often: it has no weight or metrics.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    sequences: PackedSequences | None
    predict_at: Tensor
    targets: Tensor
    branch_of: Tensor
    last_at: Tensor
    lengths: Tensor
    weights: Tensor
    columns: dict[str, Tensor]
    tokens: int
    rows: list[int]
    idle: bool = False

    @property
    def branches(self) -> int:
        """Number of branches (answers) in the batch, S."""
        return self.last_at.shape[0]

    def weightless(self) -> Batch:
        """Return a copy that trains nothing and counts in no metric, for a rank that must only keep step."""
        return replace(self, weights=torch.zeros_like(self.weights), tokens=0, rows=[], idle=True)

    def to(self, device: torch.device) -> Batch:
        """Return a copy with all tensors on `device`."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name in self.__dataclass_fields__
            if isinstance(value := getattr(self, name), Tensor)
        }
        columns = {name: column.to(device, non_blocking=True) for name, column in self.columns.items()}
        sequences = None if self.sequences is None else self.sequences.to(device)
        return replace(self, **moved, columns=columns, sequences=sequences)


def collate(examples: Sequence[Example], *, per: Per, pad_id: int, layout: Layout = "packed") -> Batch:
    """Lay examples out as one micro-batch (on the CPU).

    Args:
        examples: at least one; all with the same column and scalar names.
        per: unit that has a weight: trained token (N,), branch (S,) or example (P,).
        pad_id: fills rows on the right; never attended to by a real token and never a target.
        layout: arrangement of the examples in rows, see `Layout`.
    """
    rows = _Rows()
    for example in examples:
        if layout != "plain" or len(example.branches) == 1:
            rows.add(example.trunk, example.branches)
        else:
            for branch in example.branches:
                rows.add(example.trunk, (branch,))
    branches = [branch for example in examples for branch in example.branches]
    counts = {"token": len(rows.targets), "branch": len(branches), "example": len(examples)}
    starts = rows.starts(layout)
    predict_at = [positions + starts[row] for row, positions in rows.predict_at]
    return Batch(
        **(rows.packed() if layout == "packed" else rows.padded(pad_id)),
        predict_at=_tensor(predict_at),
        targets=torch.tensor(rows.targets, dtype=torch.long),
        branch_of=_tensor([np.repeat(np.arange(len(predict_at)), [len(positions) for positions in predict_at])]),
        last_at=torch.tensor([starts[row] + column for row, column in rows.last_at], dtype=torch.long),
        lengths=torch.tensor([branch.trained for branch in branches], dtype=torch.float32),
        weights=torch.ones(counts[per]),
        columns=_columns(examples, branches),
        tokens=sum(rows.sizes()),
        rows=[example.row for example in examples],
    )


class _Rows:
    """Builder of a batch's rows: their tokens, and the positions of each target and of each branch's last token.

    There is no Python loop over tokens: on a fast device that would take as long as the training.
    """

    def __init__(self) -> None:
        self.ids: list[list[int]] = []
        self.parts: list[list[int]] = []  # per row: lengths of its trunk and of its branches
        self.predict_at: list[tuple[int, NDArray[np.int64]]] = []  # per branch: its row, and columns in it
        self.targets: list[int] = []
        self.last_at: list[tuple[int, int]] = []

    def add(self, trunk: list[int], branches: Sequence[Branch]) -> None:
        """Append a row made of a trunk (prompt) and the branches (answers) that share it.

        Raises:
            ValueError: a branch's first token is to be trained, but no token comes before it.
        """
        row, ids, parts = len(self.ids), list(trunk), [len(trunk)]
        for branch in branches:
            if not trunk and branch.trained and branch.mask[0]:
                raise ValueError("a branch without a trunk cannot train its first token: no token comes before it")
            trained = np.flatnonzero(branch.mask)
            # A branch's first token is predicted from the trunk's last, wherever the branch lies in the row.
            self.predict_at.append((row, np.where(trained > 0, trained + len(ids), len(trunk)) - 1))
            self.targets += compress(branch.ids, branch.mask)
            ids += branch.ids
            parts.append(len(branch.ids))
            self.last_at.append((row, (len(ids) if branch.ids else len(trunk)) - 1))
        self.ids.append(ids)
        self.parts.append(parts)

    def sizes(self) -> list[int]:
        """Return the number of tokens of each row."""
        return [len(row) for row in self.ids]

    def starts(self, layout: Layout) -> list[int]:
        """Return the index of each row's first token in the flattened batch."""
        sizes = self.sizes()
        if layout == "packed":
            return [0, *accumulate(sizes)]
        return [row * max(sizes) for row in range(len(sizes))]

    def packed(self) -> dict[str, Any]:
        """Return the fields of a `Batch` with all tokens in one row (1, T).

        Each branch sees only its trunk and itself.
        """
        spans: list[tuple[range, range]] = []
        for start, (trunk, *branches) in zip(self.starts("packed"), self.parts, strict=False):
            branch_start = start + trunk
            for size in branches or [0]:
                spans.append((range(start, start + trunk), range(branch_start, branch_start + size)))
                branch_start += size
        return {
            "input_ids": _tensor([np.array(row, dtype=np.int64) for row in self.ids])[None],
            "position_ids": _tensor([_positions(*parts) for parts in self.parts])[None],
            "attention_mask": None,
            "sequences": pack_sequences(spans),
        }

    def padded(self, pad_id: int) -> dict[str, Any]:
        """Return the fields of a `Batch` with rows padded on the right, and a block mask if causal attention is wrong.

        Positions go on counting in the padding: if they fell back, transformers would take the row for a packed one.
        They stop at the largest position of a real token, so that they stay inside a model's learned positions; they
        can only get there in a batch with a shared row, where the block mask decides anyway.
        """
        shape = len(self.ids), max(self.sizes())
        ids, segments = np.full(shape, pad_id), np.zeros(shape, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        real = [_positions(*parts) for parts in self.parts]
        largest = max(int(positions_of_row.max(initial=0)) for positions_of_row in real)
        for row, (tokens, parts, row_positions) in enumerate(zip(self.ids, self.parts, real, strict=True)):
            size = len(tokens)
            ids[row, :size], positions[row, :size] = tokens, row_positions
            segments[row, :size] = np.repeat(np.arange(len(parts)), parts)
            padding = np.arange(1, shape[1] - size + 1)
            positions[row, size:] = np.minimum(row_positions[-1] + padding, largest)
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids": torch.from_numpy(positions),
            "attention_mask": _block_mask(torch.from_numpy(segments)),
            "sequences": None,
        }


def _positions(trunk: int, *branches: int) -> NDArray[np.int64]:
    """Return the (T,) positions of a row, given the lengths of its trunk and branches.

    Each branch goes on from the trunk.
    """
    return np.concatenate([np.arange(trunk), *(np.arange(trunk, trunk + size) for size in branches)])


def _tensor(parts: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return the concatenated arrays as an int64 tensor."""
    return torch.from_numpy(np.concatenate(parts).astype(np.int64, copy=False))


def _block_mask(segments: Tensor) -> Tensor | None:
    """Return the (R, 1, T, T) bool mask, True = may attend, of (R, T) segment numbers: 0 = trunk, k = k-th branch.

    None when no row has a second branch: then causal attention is correct without a mask.
    """
    if int(segments.max()) <= 1:
        return None
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    return (visible & causal)[:, None]


def _columns(examples: Sequence[Example], branches: Sequence[Branch]) -> dict[str, Tensor]:
    floats = partial(torch.tensor, dtype=torch.float32)
    columns: dict[str, Tensor] = {}
    for name in branches[0].columns:
        columns[name] = floats([value for branch in branches for value in branch.columns[name]])
    for name in branches[0].scalars:
        columns[name] = floats([branch.scalars[name] for branch in branches])
    for name in examples[0].scalars:
        columns[name] = floats([example.scalars[name] for example in examples])
    return columns


def micro_batches(examples: Iterable[Example], max_tokens: int, *, layout: Layout = "packed") -> list[list[Example]]:
    """Group the examples of one optimizer step into micro-batches of at most `max_tokens` tokens, padding included.

    An example longer than `max_tokens` gets a micro-batch to itself: nothing is dropped. The groups depend on nothing
    but the examples and `max_tokens`, so equal runs have equal groups.
    """
    if layout == "packed":
        return _balanced(examples, max_tokens)

    def cost(example: Example) -> tuple[int, int]:
        """Return the number of rows that the example takes and their width in tokens."""
        return (1, example.total) if layout == "shared" else (len(example.branches), example.longest)

    groups: list[list[Example]] = []
    rows = width = 0
    for example in sorted(examples, key=lambda example: cost(example)[1], reverse=True):
        more_rows, example_width = cost(example)
        if not groups or (rows + more_rows) * max(width, example_width) > max_tokens:
            groups.append([])
            rows, width = 0, example_width
        groups[-1].append(example)
        rows += more_rows
    return groups


def _balanced(examples: Iterable[Example], max_tokens: int) -> list[list[Example]]:
    """Return as few groups of at most `max_tokens` tokens as possible, of similar size.

    The examples go, longest first, each into the group with the fewest tokens. A small micro-batch takes a device as
    long as a larger one, and the largest group sets the memory.
    """
    ordered = sorted(examples, key=lambda example: example.total, reverse=True)
    count = -(-sum(example.total for example in ordered) // max_tokens)
    groups: list[list[Example]] = [[] for _ in range(max(1, count))]
    filled = [(0, index) for index in range(len(groups))]  # a heap: the emptiest group first
    for example in ordered:
        size, index = filled[0]
        if size and size + example.total > max_tokens:
            index = len(groups)
            groups.append([])
            heappush(filled, (example.total, index))
        else:
            heapreplace(filled, (size + example.total, index))
        groups[index].append(example)
    return [group for group in groups if group]
