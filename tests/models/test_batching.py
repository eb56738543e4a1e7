"""Micro-batches: layouts worked by hand, and grouping that drops nothing, fits the budget, and is always the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thorough import trials
from trueup.data.rendering.messages import Rendered
from trueup.models.batching import Branch, Example, collate, micro_batches, single

PAIR = Example(
    [10, 11],
    (Branch([20, 21, 22], [True, False, True]), Branch([30, 31], [True, True])),
)


def attends(mask: torch.Tensor, row: int) -> list[str]:
    """One string a query: x where it may attend."""
    return ["".join("x" if one else "." for one in query) for query in mask[row, 0].tolist()]


def test_a_pair_shares_its_trunk_in_one_row():
    batch = collate([PAIR], per="example", pad_id=0, layout="shared")
    #                 trunk   branch 0    branch 1
    assert batch.input_ids.tolist() == [[10, 11, 20, 21, 22, 30, 31]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert attends(batch.attention_mask, 0) == [
        "x......",
        "xx.....",
        "xxx....",
        "xxxx...",
        "xxxxx..",
        "xx...x.",  # the second branch sees the trunk and itself, never its sibling
        "xx...xx",
    ]
    # Token 20 is predicted from the trunk's last (1), 22 from 21 (3), 30 from the trunk again, 31 from 30 (5).
    assert batch.predict_at.tolist() == [1, 3, 1, 5]
    assert batch.targets.tolist() == [20, 22, 30, 31]
    assert batch.branch_of.tolist() == [0, 0, 1, 1]
    assert batch.last_at.tolist() == [4, 6]
    assert batch.lengths.tolist() == [2.0, 2.0]
    assert batch.weights.tolist() == [1.0]
    assert batch.tokens == 7
    assert batch.branches == 2


def test_without_sharing_each_branch_has_its_own_row():
    batch = collate([PAIR], per="branch", pad_id=9, layout="plain")
    assert batch.input_ids.tolist() == [[10, 11, 20, 21, 22], [10, 11, 30, 31, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert batch.attention_mask is None
    assert batch.predict_at.tolist() == [1, 3, 6, 7]
    assert batch.targets.tolist() == [20, 22, 30, 31]
    assert batch.branch_of.tolist() == [0, 0, 1, 1]
    assert batch.last_at.tolist() == [4, 8]
    assert batch.tokens == 9
    assert batch.weights.tolist() == [1.0, 1.0]


def test_rows_of_several_kinds_in_one_batch():
    alone = Example([7], (Branch([8, 9], [True, True]),), row=41)
    batch = collate([alone, PAIR], per="token", pad_id=0, layout="shared")
    assert batch.input_ids.tolist() == [[7, 8, 9, 0, 0, 0, 0], [10, 11, 20, 21, 22, 30, 31]]
    # Padding goes on counting, but never beyond a position that a real token has.
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 4, 4], [0, 1, 2, 3, 4, 2, 3]]
    assert attends(batch.attention_mask, 0)[:3] == ["x......", "xx.....", "xxx...."]
    assert batch.predict_at.tolist() == [0, 1, 8, 10, 8, 12]
    assert batch.targets.tolist() == [8, 9, 20, 22, 30, 31]
    assert batch.branch_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.last_at.tolist() == [2, 11, 13]
    assert batch.lengths.tolist() == [2.0, 2.0, 2.0]
    assert batch.weights.shape == (6,)
    assert batch.rows == [41, -1]
    assert batch.tokens == 10


def test_single_branch_rows_need_no_mask_and_their_positions_always_rise():
    rows = [Example([1], (Branch([2], [True]),)), Example([1, 2, 3], (Branch([4, 5], [True, True]),))]
    batch = collate(rows, per="branch", pad_id=0, layout="shared")
    assert batch.attention_mask is None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4]] * 2  # one that fell back would look like a packed row
    assert batch.last_at.tolist() == [1, 9]


def test_no_position_beyond_the_longest_sequence():
    """A shared row is wider than its sequences: padding must not count on past what the model has positions for."""
    long = Example([1] * 10, (Branch([2] * 2, [True] * 2),))
    pair = Example([1] * 4, (Branch([2] * 8, [True] * 8), Branch([3] * 8, [True] * 8)))
    batch = collate([long, pair], per="example", pad_id=0, layout="shared")
    assert batch.input_ids.shape == (2, 20)
    assert batch.position_ids.max() == 11


def test_an_empty_trunk():
    """Plain text can start with its branch; its first token then has nothing to be predicted from."""
    batch = collate([Example([], (Branch([5, 6], [False, True]),))], per="token", pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6]]
    assert (batch.predict_at.tolist(), batch.targets.tolist(), batch.last_at.tolist()) == ([0], [6], [1])
    with pytest.raises(ValueError, match="cannot train its first token"):
        collate([Example([], (Branch([5, 6], [True, True]),))], per="token", pad_id=0)


def test_an_empty_branch_ends_at_its_trunk():
    nothing = Branch([], [])
    batch = collate([Example([1, 2], (Branch([3], [True]), nothing))], per="branch", pad_id=0)
    assert batch.last_at.tolist() == [2, 1]
    assert batch.lengths.tolist() == [1.0, 0.0]


def test_a_branch_of_one_token():
    batch = collate([Example([4], (Branch([5], [True]), Branch([6], [True])))], per="branch", pad_id=0, layout="shared")
    assert batch.position_ids.tolist() == [[0, 1, 1]]
    assert attends(batch.attention_mask, 0) == ["x..", "xx.", "x.x"]
    assert (batch.predict_at.tolist(), batch.last_at.tolist()) == ([0, 0], [1, 2])


def test_columns_per_token_branch_and_example():
    def branch(ids: list[int], old: list[float], ref: float) -> Branch:
        return Branch(ids, [True] * len(ids), {"old": old}, {"ref": ref})

    examples = [
        Example([1], (branch([2, 3], [0.1, 0.2], 1.0), branch([4], [0.3], 2.0)), {"margin": 1}),
        Example([1], (branch([5], [0.4], 3.0), branch([6], [0.5], 4.0)), {"margin": 2}),
    ]
    columns = collate(examples, per="example", pad_id=0).columns
    assert {name: column.dtype for name, column in columns.items()} == dict.fromkeys(
        ("old", "ref", "margin"), torch.float32
    )
    torch.testing.assert_close(columns["old"], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert columns["ref"].tolist() == [1, 2, 3, 4]
    assert columns["margin"].tolist() == [1, 2]


def test_to_moves_every_tensor():
    batch = collate([PAIR], per="token", pad_id=0).to(torch.device("meta"))
    tensors = [getattr(batch, name) for name in batch.__dataclass_fields__]
    assert {one.device.type for one in tensors if isinstance(one, torch.Tensor)} == {"meta"}
    assert batch.tokens == 7


@pytest.mark.parametrize(
    ("ids", "mask", "trunk", "branch"),
    [
        ([1, 2, 3, 4], [False, False, True, True], [1, 2], ([3, 4], [True, True])),
        ([1, 2, 3, 4], [False, True, False, True], [1], ([2, 3, 4], [True, False, True])),
        ([1, 2], [True, True], [1], ([2], [True])),  # the very first token is never a target
        ([1], [True], [1], ([], [])),
        ([1, 2], [False, False], [1, 2], ([], [])),
    ],
)
def test_single(ids, mask, trunk, branch):
    example = single(Rendered(ids, mask), row=3)
    assert example.trunk == trunk
    assert (example.branches[0].ids, example.branches[0].mask) == branch
    assert example.row == 3
    assert example.longest == example.total == len(ids)


def test_lengths_of_an_example():
    assert (PAIR.longest, PAIR.total, PAIR.branches[0].trained) == (5, 7, 2)


branches = st.integers(1, 12).map(lambda n: Branch(list(range(n)), [True] * n))
examples = st.lists(
    st.builds(
        lambda trunk, tails: Example([1] * trunk, tuple(tails)),
        st.integers(1, 12),
        st.lists(branches, min_size=1, max_size=3),
    ),
    max_size=20,
)


@trials(60)
@given(rows=examples, max_tokens=st.integers(1, 120), layout=st.sampled_from(["packed", "shared", "plain"]))
def test_micro_batches_drop_nothing_and_fit(rows, max_tokens, layout):
    rows = [Example(one.trunk, one.branches, row=at) for at, one in enumerate(rows)]
    groups = micro_batches(rows, max_tokens, layout=layout)
    assert sorted(one.row for group in groups for one in group) == list(range(len(rows)))
    for group in groups:
        batch = collate(group, per="token", pad_id=0, layout=layout)
        assert batch.input_ids.numel() <= max_tokens or len(group) == 1
        assert batch.lengths.sum() == sum(branch.trained for one in group for branch in one.branches)
    assert groups == micro_batches(iter(rows), max_tokens, layout=layout)


@trials(60)
@given(rows=examples.filter(bool), layout=st.sampled_from(["packed", "shared", "plain"]))
def test_every_target_is_predicted_from_the_token_before_it_in_its_own_sequence(rows, layout):
    batch = collate(rows, per="token", pad_id=0, layout=layout)
    sequences = [(one.trunk, branch.ids) for one in rows for branch in one.branches]
    position = batch.position_ids.flatten()
    flat, at = batch.input_ids.flatten(), 0
    for number, (trunk, ids) in enumerate(sequences):
        whole = trunk + ids
        for offset in range(len(trunk), len(whole)):
            where = batch.predict_at[at]
            assert batch.targets[at] == whole[offset]
            assert flat[where] == whole[offset - 1]
            assert position[where] == offset - 1
            assert batch.branch_of[at] == number
            at += 1
        assert flat[batch.last_at[number]] == whole[-1]
        assert position[batch.last_at[number]] == len(whole) - 1
    assert at == len(batch.targets)


def test_micro_batches_pack_the_longest_first():
    sizes = [3, 9, 5, 9, 2]
    rows = [Example([1], (Branch([2] * (size - 1), [True] * (size - 1)),), row=size) for size in sizes]
    groups = micro_batches(rows, 18, layout="shared")
    assert [[one.row for one in group] for group in groups] == [[9, 9], [5, 3, 2]]
    assert micro_batches([], 18) == []
    assert [len(group) for group in micro_batches(rows, 1)] == [1] * 5


def test_packed_rows_have_no_padding_and_know_their_sequences():
    alone = Example([7], (Branch([8, 9], [True, True]),), row=41)
    batch = collate([alone, PAIR], per="token", pad_id=0, layout="packed")
    #                                   alone  | trunk | branch 0  | branch 1
    assert batch.input_ids.tolist() == [[7, 8, 9, 10, 11, 20, 21, 22, 30, 31]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 2, 3]]
    assert batch.attention_mask is None
    assert batch.predict_at.tolist() == [0, 1, 4, 6, 4, 8]
    assert batch.targets.tolist() == [8, 9, 20, 22, 30, 31]
    assert batch.last_at.tolist() == [2, 7, 9]
    assert batch.tokens == batch.input_ids.numel() == 10
    seen = ["".join("x" if one else "." for one in query) for query in batch.sequences.visible(0, 10).tolist()]
    assert seen == [
        "x.........",
        "xx........",
        "xxx.......",
        "...x......",
        "...xx.....",
        "...xxx....",
        "...xxxx...",
        "...xxxxx..",
        "...xx...x.",
        "...xx...xx",
    ]


def test_packed_micro_batches_are_few_and_alike():
    """28 tokens in all, 18 at most: two groups, and not 18 and 10."""
    sizes = [3, 9, 5, 9, 2]
    rows = [Example([1], (Branch([2] * (size - 1), [True] * (size - 1)),), row=size) for size in sizes]
    groups = micro_batches(rows, 18)
    assert [[one.row for one in group] for group in groups] == [[9, 5], [9, 3, 2]]
