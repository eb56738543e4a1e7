"""Attention over a packed row equals attention over each sequence alone, forwards and backwards."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from trueup.models.attention import PackedSequences, pack_sequences, packed_attention

LAYER = torch.nn.Module()


def spans(lengths: list[tuple[int, list[int]]]) -> tuple[list[tuple[range, range]], int]:
    """Trunks and their branches, laid out one after the other: the sequences, and how many tokens the row has."""
    found: list[tuple[range, range]] = []
    at = 0
    for trunk, branches in lengths:
        shared = range(at, at + trunk)
        at += trunk
        for size in branches:
            found.append((shared, range(at, at + size)))
            at += size
    return found, at


def plain(query: Tensor, key: Tensor, value: Tensor, parts: list[tuple[range, range]]) -> Tensor:
    """Softmax by hand, a sequence at a time; a trunk's outputs are those of its first sequence."""
    groups = query.shape[1] // key.shape[1]
    out: list[Tensor | None] = [None] * query.shape[2]
    for trunk, branch in parts:
        own = [*trunk, *branch]
        q, k, v = (
            query[0][:, own],
            key[0].repeat_interleave(groups, 0)[:, own],
            value[0].repeat_interleave(groups, 0)[:, own],
        )
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        hidden = torch.ones(len(own), len(own), dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        for token, state in zip(own, (weights @ v).transpose(0, 1), strict=True):
            out[token] = state if out[token] is None else out[token]
    return torch.stack(out)[None]


SHAPES = {
    "one sequence": [(3, [4])],
    "a pair": [(5, [3, 2])],
    "three branches": [(2, [1, 3, 2]), (1, [1])],
    "no trunk": [(0, [4]), (3, [2, 2])],
    "an empty branch": [(3, [0]), (2, [2, 0])],
    "lengths far apart": [(400, [300, 5]), (2, [3]), (1, [1, 1]), (30, [600]), (3, [9] * 3)],
}


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("name", SHAPES)
def test_a_packed_row_equals_its_sequences_alone(name: str, heads: tuple[int, int]) -> None:
    parts, tokens = spans(SHAPES[name])
    torch.manual_seed(1)
    states = [
        torch.randn(1, count, tokens, 8, dtype=torch.float64, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]
    slope = torch.randn(1, tokens, heads[0], 8, dtype=torch.float64)
    ours, _ = packed_attention(LAYER, *states, None, sequences=pack_sequences(parts))
    theirs = plain(*states, parts)
    torch.testing.assert_close(ours, theirs)
    got = torch.autograd.grad((ours * slope).sum(), states)
    want = torch.autograd.grad((theirs * slope).sum(), states)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_rectangles_are_nearly_full() -> None:
    """Attention computes little padding, however different the lengths are."""
    rng = random.Random(0)
    parts, tokens = spans([(0, [int(rng.lognormvariate(4.6, 1)) + 1]) for _ in range(200)])
    plan = pack_sequences(parts)
    assert plan.first.shape == (tokens,)
    assert len(plan.tokens) < 1.25 * tokens
    assert len(plan.shapes) < 20


def test_what_does_not_belong_is_refused() -> None:
    parts, tokens = spans([(1, [2])])
    state = torch.zeros(1, 2, tokens, 4)
    plan: PackedSequences = pack_sequences(parts)
    with pytest.raises(ValueError, match="its sequences"):
        packed_attention(LAYER, state, state, state, None)
    with pytest.raises(ValueError, match="softcap"):
        packed_attention(LAYER, state, state, state, None, sequences=plan, softcap=30.0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", SHAPES)
def test_a_packed_row_equals_flex_attention_with_its_mask(name: str) -> None:
    """Another kernel that can be told who sees whom. On a CPU torch has its forward pass alone."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    parts, tokens = spans(SHAPES[name])
    torch.manual_seed(2)
    query, key, value = (torch.randn(1, heads, tokens, 16) for heads in (4, 2, 2))
    plan = pack_sequences(parts)
    visible = plan.visible(0, tokens)
    mask = create_block_mask(lambda b, h, q, k: visible[q, k], None, None, tokens, tokens, device="cpu")
    want = flex_attention(query, key, value, block_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(packed_attention(LAYER, query, key, value, None, sequences=plan)[0], want)
