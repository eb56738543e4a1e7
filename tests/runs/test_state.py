"""States on disk: any nesting comes back exactly, and what cannot be saved is named."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from trueup.errors import CheckpointError
from trueup.runs.state import read_state, write_state


def same(left: object, right: object) -> bool:
    """Exact equality, types and key order included; nan equals nan."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        raw = [
            one.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)
            for one in (left, right)
        ]
        return torch.equal(*raw)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right) and str(left) == str(right)  # str: -0.0 is not 0.0


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of any supported dtype and of 0 to 3 dimensions, some empty, some transposed, some views."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    if tensor.dim() > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if tensor.dim() and tensor.shape[0] > 1 and draw(st.booleans()):
        tensor = tensor[1:]
    return tensor


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | tensors()
keys = st.text(max_size=3) | st.integers(-3, 300) | st.sampled_from(["__tensor__", "__metadata__", "__dict__", "a.b"])
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.dictionaries(keys, states, max_size=4))
def test_any_state_comes_back_exactly(tmp_path: Path, state: dict[str, Any]) -> None:
    write_state(tmp_path, "part", state)
    assert same(read_state(tmp_path, "part"), state)


def test_optimizer_and_rng_states_come_back_exactly(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "torch": torch.get_rng_state(), "python": random.getstate()}
    write_state(tmp_path, "part", state)
    again = read_state(tmp_path, "part")
    assert same(again, state)
    random.setstate(again["python"])
    torch.set_rng_state(again["torch"])
    other = torch.optim.AdamW(model.parameters())
    other.load_state_dict(again["optimizer"])
    assert list(again["optimizer"]["state"]) == [0, 1]
    assert other.param_groups[0]["betas"] == (0.9, 0.95)


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(50, 8))
    write_state(tmp_path, "model", {"embed": weight, "head": weight, "rows": weight[:2], "flipped": weight.T})
    again = read_state(tmp_path, "model")
    assert again["embed"] is again["head"]
    assert not again["embed"].requires_grad
    assert torch.equal(again["rows"], weight[:2])
    assert torch.equal(again["flipped"], weight.T)
    assert sorted(load_file(tmp_path / "model.safetensors")) == ["model.embed", "model.flipped", "model.rows"]


def test_a_state_read_back_does_not_hold_its_file(tmp_path: Path) -> None:
    write_state(tmp_path, "model", {"weight": torch.ones(1000)})
    weight = read_state(tmp_path, "model")["weight"]
    assert weight.data_ptr() % 16 == 0
    with (tmp_path / "model.safetensors").open("r+b") as handle:
        handle.seek(-4000, os.SEEK_END)
        handle.write(b"\0" * 4000)
    assert torch.equal(weight, torch.ones(1000))


def test_a_state_without_tensors_replaces_one_with_tensors(tmp_path: Path) -> None:
    write_state(tmp_path, "part", {"a": torch.ones(2)})
    write_state(tmp_path, "part", {"a": 1})
    assert read_state(tmp_path, "part") == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.json"]


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"a": {"b": object()}}, "part.a.b: object"),
        ({"a": [b"x"]}, "part.a.0: bytes"),
        ({"a": {1.5: 2}}, "key 1.5"),
        ({"a": {True: 2}}, "key True"),
        ({"a": torch.ones(2, device="meta")}, "part.a"),
        ({"a": torch.eye(2).to_sparse()}, "part.a"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "part.a"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, state: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        write_state(tmp_path, "part", state)


def test_a_broken_state_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    write_state(tmp_path, "part", {"a": torch.ones(2)})
    (tmp_path / "part.safetensors").write_bytes(b"\1\2\3")
    with pytest.raises(CheckpointError, match="`part` cannot be read"):
        read_state(tmp_path, "part")
    with pytest.raises(CheckpointError, match="`absent` cannot be read"):
        read_state(tmp_path, "absent")
