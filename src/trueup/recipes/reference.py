"""Reference model's log-probabilities as a data column: computed once before training, cached, checked on load."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from trueup.data.example import Lazy
from trueup.errors import TrainingError
from trueup.models.batching import Example
from trueup.system.files import atomic_write_bytes

if TYPE_CHECKING:
    from trueup.models.network import Network
from trueup.models.forward import branch_logps

START_TOLERANCE = {True: 1e-4, False: 0.1}
"""Nats a token by which a policy may differ from itself in float32 (True) and in half precision (False), where the
master weights of full fine-tuning and frozen copies round differently."""
_COMPARED = 8
_AT_ONCE = 4096  # examples whose log-probabilities are held at once, token by token


def with_reference(network: Network, examples: Sequence[Example], cache: Path, *, max_tokens: int) -> Sequence[Example]:
    """Return the examples with the scalar "ref_logps" on every branch (answer).

    It is the summed log-probability of the branch's trained tokens under the reference model, in nats.

    Args:
        network: the model with the role "reference".
        examples: all with the same number of branches.
        cache: a .safetensors file, used if it was made from the same weights, token ids and masks, else written.
        max_tokens: micro-batch size.
    """
    sums = _cached(network, examples, cache, max_tokens).view(len(examples), -1)

    def scored(index: int) -> Example:
        example = examples[index]
        branches = (
            replace(branch, scalars={**branch.scalars, "ref_logps": logps})
            for branch, logps in zip(example.branches, sums[index].tolist(), strict=True)
        )
        return replace(example, branches=tuple(branches))

    return Lazy(len(examples), scored)


def _cached(network: Network, examples: Sequence[Example], cache: Path, max_tokens: int) -> Tensor:
    key = _fingerprint(network, examples)
    # Rank 0 reads for all: a rank that decides otherwise would leave the others waiting.
    cached = network.runtime.from_first(lambda: _read_cache(cache, key, examples))
    if cached is not None:
        return cached
    pieces = [
        branch_logps(network, examples[start : start + _AT_ONCE], "reference", max_tokens=max_tokens)
        for start in range(0, len(examples), _AT_ONCE)
    ]
    sums = torch.cat(pieces)
    # One file, renamed into place, so that values and fingerprint are always of the same run.
    content = save({"ref_logps": sums}, metadata={"fingerprint": key})
    network.runtime.from_first(lambda: atomic_write_bytes(cache, content))
    return sums


def _read_cache(cache: Path, key: str, examples: Sequence[Example]) -> Tensor | None:
    """Return the log-probabilities in a cache file, one for each branch of the examples, shape (branches,).

    Return None if the file is missing, damaged or made from other inputs (`key` is their fingerprint).
    """
    if cache.is_file() and _cache_key(cache) == key:
        with suppress(OSError, KeyError, SafetensorError):
            logps = load_file(cache)["ref_logps"]
            if logps.dtype == torch.float32 and logps.shape == (sum(len(example.branches) for example in examples),):
                return logps.clone()
    return None


def _cache_key(cache: Path) -> str | None:
    """Return the fingerprint of the inputs that a cache file was made from; None if it cannot be read."""
    try:
        with safe_open(cache, framework="pt") as opened:
            return (opened.metadata() or {}).get("fingerprint")
    except (OSError, SafetensorError):
        return None


def check_start(network: Network, examples: Sequence[Example], *, max_tokens: int) -> None:
    """Check on eight examples that policy and reference give the same log-probabilities before the first update.

    Raises:
        TrainingError: they differ, so the reference is wrong, which no log would show.
    """
    examples = list(examples[:_COMPARED])
    # In the mode of training: a model's own dropout would move the policy away from its reference there alone.
    training = not network.model_dropout
    ours = branch_logps(network, examples, "policy", max_tokens=max_tokens, training=training)
    theirs = torch.tensor([branch.scalars["ref_logps"] for example in examples for branch in example.branches])
    tokens = torch.tensor([float(branch.trained) for example in examples for branch in example.branches])
    apart = float(((ours - theirs).abs() / tokens).max())
    tolerance = START_TOLERANCE[network.runtime.dtype == torch.float32]
    if not apart < tolerance:
        raise TrainingError(
            f"before the first update the policy differs from its reference by {apart:.3g} nats a token "
            f"(allowed: {tolerance:g}): its reference is not the model that it starts from"
        )


def _fingerprint(network: Network, examples: Sequence[Example]) -> str:
    """Return a hash of the reference model's weights and dtype and of the examples' token ids and masks."""
    digest = hashlib.sha256(f"{network.reference_fingerprint} {network.runtime.dtype}".encode())
    for example in examples:
        digest.update(repr((example.trunk, [(branch.ids, branch.mask) for branch in example.branches])).encode())
    return digest.hexdigest()
