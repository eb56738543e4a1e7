"""From logits to tokens: inverse transform sampling over a large vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from trueup.runtime import mixed_seed

_BLOCK = 256
"""Words whose probabilities are added up before any are cumulated: of 49,152 words 192 sums and one block."""


def uniform_draws(seed: int, row: int, count: int) -> list[float]:
    """`count` numbers in [0, 1) for a row's tokens, which follow from seed and row: the same on every device."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, row))
    return torch.rand(count, dtype=torch.float64, generator=generator).tolist()


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """What probabilities are cumulated in: float64, which MPS does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def pick(logits: Tensor, draws: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token of each row, by inverse transform sampling or greedily.

    Drawn is the first token whose cumulated probability exceeds the row's number. Cumulated are the sums of blocks of
    words first, then the words of the one block that the number falls into, in float64: ten times as fast as cumulating
    the whole vocabulary, and the same token but where the rounding of a sum decides.

    Args:
        logits: (R, V) float32.
        draws: (R,) uniform numbers in [0, 1), or None: the likeliest token.
        temperature: divides the logits; with `draws` only, and above 0 there.

    Returns:
        (R,) token ids, and (R,) their log-probabilities in nats under the distribution drawn from (greedily: under the
        one of temperature 1), float64; NaN in rows whose logits are not numbers.
    """
    scaled = logits if draws is None or temperature == 1 else logits / temperature
    chances = torch.softmax(scaled, dim=-1)
    if missing := -chances.shape[-1] % _BLOCK:
        chances = pad(chances, (0, missing))
    blocks = chances.unflatten(-1, (-1, _BLOCK))
    cumulated = blocks.sum(-1).cumsum(-1, dtype=accumulation_dtype(logits.device))
    tokens = logits.argmax(-1) if draws is None else _invert(blocks, cumulated, draws.to(cumulated.dtype))
    found = chances.gather(-1, tokens[:, None]).to(cumulated.dtype)
    return tokens, (found / cumulated[:, -1:]).log_().squeeze(-1)


def _invert(blocks: Tensor, cumulated: Tensor, draws: Tensor) -> Tensor:
    """(R,) the token at which each row's cumulated probability passes its number.

    Args:
        blocks: (R, K, 256) probabilities.
        cumulated: (R, K) sums of the blocks up to each.
        draws: (R,).
    """
    edges = torch.cat([torch.zeros_like(cumulated[:, :1]), cumulated], dim=-1)
    goal = draws[:, None] * cumulated[:, -1:]
    at = _first_above(cumulated, goal)
    words = blocks.gather(1, at[..., None].expand(-1, -1, _BLOCK)).squeeze(1).cumsum(-1, dtype=cumulated.dtype)
    inside = _first_above(words, goal - edges.gather(-1, at))
    return (at * _BLOCK + inside).squeeze(-1)


def _first_above(sums: Tensor, goal: Tensor) -> Tensor:
    """(R, 1) the first place whose sum exceeds the goal.

    Where rounding has brought the goal to the total (a block's sum in float32 is not quite that of its words), it is
    the last place that adds anything: what has probability 0 is never drawn.
    """
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True)
    return torch.searchsorted(sums, goal, right=True).minimum(last)
