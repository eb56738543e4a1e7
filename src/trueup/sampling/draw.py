"""Choose tokens from logits: inverse transform sampling over a large vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from trueup.runtime import mixed_seed

_BLOCK = 256
"""Tokens per block: probabilities are summed by block before they are cumulated (49,152 tokens: 192 sums, 1 block)."""


def uniform_draws(seed: int, row: int, count: int) -> list[float]:
    """Return `count` random numbers in [0, 1), one for each token of a row, from seed and row number alone.

    They are equal on every device.
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed, row))
    return torch.rand(count, dtype=torch.float64, generator=generator).tolist()


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which probabilities are cumulated: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def pick(logits: Tensor, draws: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token for each row, by inverse transform sampling or greedily.

    The drawn token is the first whose cumulated probability exceeds the row's number. Sums of blocks of tokens are
    cumulated first, then the tokens of the block that the number falls into, in float64: ten times as fast as
    cumulating the whole vocabulary, and the same token except where the rounding of a sum decides.

    Args:
        logits: (R, V) float32.
        draws: (R,) uniform random numbers in [0, 1), or None to take the likeliest token (greedily).
        temperature: divides the logits; above 0, and used only with `draws`.

    Returns:
        (R,) token ids, and (R,) their log-probabilities in nats under the distribution drawn from (greedily: under the
        one of temperature 1), float64; NaN in rows whose logits are not numbers.
    """
    scaled = logits if draws is None or temperature == 1 else logits / temperature
    probabilities = torch.softmax(scaled, dim=-1)
    if missing := -probabilities.shape[-1] % _BLOCK:
        probabilities = pad(probabilities, (0, missing))
    blocks = probabilities.unflatten(-1, (-1, _BLOCK))
    cumulated = blocks.sum(-1).cumsum(-1, dtype=accumulation_dtype(logits.device))
    tokens = logits.argmax(-1) if draws is None else _invert(blocks, cumulated, draws.to(cumulated.dtype))
    chosen = probabilities.gather(-1, tokens[:, None]).to(cumulated.dtype)
    return tokens, (chosen / cumulated[:, -1:]).log_().squeeze(-1)


def _invert(blocks: Tensor, cumulated: Tensor, draws: Tensor) -> Tensor:
    """Return the (R,) first token of each row whose cumulated probability exceeds the row's random number.

    Args:
        blocks: (R, K, 256) probabilities of the vocabulary's tokens, in K blocks.
        cumulated: (R, K) cumulated sums of the blocks.
        draws: (R,) uniform random numbers in [0, 1).
    """
    edges = torch.cat([torch.zeros_like(cumulated[:, :1]), cumulated], dim=-1)
    goal = draws[:, None] * cumulated[:, -1:]
    block = _first_above(cumulated, goal)
    within = blocks.gather(1, block[..., None].expand(-1, -1, _BLOCK)).squeeze(1).cumsum(-1, dtype=cumulated.dtype)
    offset = _first_above(within, goal - edges.gather(-1, block))
    return (block * _BLOCK + offset).squeeze(-1)


def _first_above(sums: Tensor, goal: Tensor) -> Tensor:
    """Return for each row the index (R, 1) of the first cumulated sum that exceeds the row's `goal`.

    If rounding has raised the goal to the total (a block's float32 sum is not exactly that of its tokens), return the
    last index that adds anything: a token of probability 0 is never drawn.
    """
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True)
    return torch.searchsorted(sums, goal, right=True).minimum(last)
