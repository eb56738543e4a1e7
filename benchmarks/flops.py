"""Useful arithmetic: the floating-point operations that a step cannot do without. The formula is in docs/speed.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a Llama's matrices.

    Attributes:
        layers: L.
        hidden: H, also the width of all attention heads together.
        keys: width of all key heads together, or of all value heads.
        intermediate: of the feed-forward part.
        words: V.
        rank: of LoRA adapters on all linear layers of the blocks; None: every weight trains.
    """

    layers: int
    hidden: int
    keys: int
    intermediate: int
    words: int
    rank: int | None = None

    @classmethod
    def of(cls, config: dict[str, Any], rank: int | None) -> Sizes:
        """Return the sizes in a model's config.json."""
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"], config["hidden_size"], width * config["num_key_value_heads"],
            config["intermediate_size"], config["vocab_size"], rank,
        )  # fmt: skip

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one block: q, k, v, o, gate, up, down."""
        h, k, i = self.hidden, self.keys, self.intermediate
        return [(h, h), (h, k), (h, k), (h, h), (h, i), (h, i), (i, h)]

    @property
    def matrices(self) -> int:
        """Parameters of the blocks' linear layers."""
        return self.layers * sum(a * b for a, b in self.linear)

    @property
    def adapters(self) -> int:
        """Parameters of the adapters; 0 without."""
        return 0 if self.rank is None else self.layers * self.rank * sum(a + b for a, b in self.linear)


@dataclass(frozen=True, slots=True)
class Sequences:
    """One example: lengths of a prompt and its continuations, with the number of positions that the loss reads."""

    prompt: int
    branches: tuple[int, ...]
    predicted: int

    @property
    def tokens(self) -> int:
        """Real tokens, the shared prompt once."""
        return self.prompt + sum(self.branches)

    @property
    def seen(self) -> float:
        """Pairs (token, token it sees): half of n * n in the prompt; a branch sees the prompt, and half of its own."""
        own = sum(one * one / 2 + one * self.prompt for one in self.branches)
        return self.prompt**2 / 2 + own


def forward(sizes: Sizes, example: Sequences, *, head: bool = True) -> float:
    """Return the operations of one forward pass: 2 per parameter and token; attention; the LM head."""
    blocks = 2 * (sizes.matrices + sizes.adapters) * example.tokens
    attention = 2 * 2 * sizes.hidden * sizes.layers * example.seen
    return blocks + attention + (2 * sizes.hidden * sizes.words * example.predicted if head else 0)


def backward(sizes: Sizes, example: Sequences, *, head: bool = True) -> float:
    """Return the operations of one backward pass: as much again for the activations; for weights only those that train.

    Attention has no weights, but both of its operands are activations: twice the forward's.
    """
    attention = 2 * 2 * sizes.hidden * sizes.layers * example.seen
    activations = forward(sizes, example, head=head) + attention
    weights = 2 * (sizes.matrices if sizes.rank is None else sizes.adapters) * example.tokens
    weights += 2 * sizes.hidden * sizes.words * example.predicted if head and sizes.rank is None else 0
    return activations + weights


def useful(sizes: Sizes, examples: Sequence[Sequences], *, reference: bool, head: bool = True) -> float:
    """Return the operations of one epoch: forward, backward, and optionally a forward pass of the reference."""
    total = 0.0
    for one in examples:
        total += forward(sizes, one, head=head) + backward(sizes, one, head=head)
        if reference:
            bare = Sizes(sizes.layers, sizes.hidden, sizes.keys, sizes.intermediate, sizes.words)
            total += forward(bare, one, head=head)
    return total
