"""Sample from a role of a network: the engine behind rollouts, evaluation and chat.

A batch is padded on the left, keeps a KV cache, and drops each row as soon as it has sampled a stop token, so short
answers do not wait for long ones. Greedy output equals `transformers`' own `generate` (tested).

Each row draws from random numbers of its own, which follow from the seed and the row's number alone: its sample depends
neither on the rows beside it, nor on the batch size, nor on how many processes share the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.errors import TrainingError
from trueup.runtime import mixed_seed

if TYPE_CHECKING:
    from trueup.models import Network


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled continuation. `ids` ends with the stop token if `finished`, else it was cut at `max_new_tokens`."""

    ids: list[int]
    finished: bool


@torch.no_grad()
def sample(
    network: Network,
    prompts: Sequence[list[int]],
    *,
    role: str = "policy",
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    max_tokens: int = 16_384,
    on_token: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Continue each prompt until a stop token or `max_new_tokens`. Of several ranks each continues its share.

    Args:
        network: the model; put in evaluation mode here.
        prompts: token ids, none empty.
        role: which role samples.
        max_new_tokens: at most this many tokens are sampled.
        temperature: logits are divided by it; 0 is greedy.
        seed: of this call; row `at` draws from a generator of its own, seeded by (seed, at).
        max_tokens: rows x (prompt + new tokens) of one batch at most, prompts sorted by length.
        on_token: called with each token of a single prompt as it is sampled (streaming).

    Returns:
        One Sample a prompt, in the order of `prompts`, on every rank.

    Raises:
        TrainingError: the model's logits are not numbers.
    """
    training = network.training
    network.eval()
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    mine = network.runtime.share(order)

    def continued() -> list[tuple[int, list[int], bool]]:
        made: list[tuple[int, list[int], bool]] = []
        for rows in _batches(mine, prompts, max_new_tokens, max_tokens):
            draws = torch.stack([_draws(seed, row, max_new_tokens) for row in rows]) if temperature else None
            batch = _Batch(network, [prompts[row] for row in rows], role, draws)
            for _ in range(max_new_tokens):
                network.check()
                tokens = batch.choose(temperature)
                if on_token is not None:
                    on_token(int(tokens[0]))
                if not batch.append(tokens):
                    break
            made += [(row, one.ids, one.finished) for row, one in zip(rows, batch.results(), strict=True)]
        return made

    try:
        own = network.run_freely(role, continued)
    finally:
        network.train(training)
    found = {row: Sample(ids, finished) for row, ids, finished in network.runtime.gather(own)}
    return [found[row] for row in range(len(prompts))]


def _batches(rows: list[int], prompts: Sequence[list[int]], new_tokens: int, max_tokens: int) -> Iterator[list[int]]:
    """The rows, longest first, in batches of at most `max_tokens` tokens."""
    while rows:
        size = max(1, max_tokens // (len(prompts[rows[0]]) + new_tokens))
        yield rows[:size]
        rows = rows[size:]


def _draws(seed: int, row: int, count: int) -> Tensor:
    """(count,) uniform numbers in [0, 1), float64, for a row's tokens: the same on every device."""
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(mixed_seed(seed, row)))


def _widest(device: torch.device) -> torch.dtype:
    """What probabilities are cumulated in: float64, which MPS does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def pick(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """(R,) token ids from (R, V) float32 logits and (R,) uniform numbers, by inverse transform sampling.

    Of each row the first token whose cumulated probability exceeds the row's number.

    Raises:
        TrainingError: logits are NaN or infinite.
    """
    cumulated = torch.softmax(logits / temperature, dim=-1).cumsum(-1, dtype=_widest(logits.device))
    total = cumulated[:, -1:]
    if not bool(total.isfinite().all()):
        raise TrainingError(
            "the model's logits are not numbers, so nothing can be sampled from it\n"
            "  fix: lower optim.lr, set dtype=float32, or go on from an earlier checkpoint"
        )
    # `right`: a token of probability 0 adds nothing, and is passed over even where the number equals its sum.
    chosen = torch.searchsorted(cumulated, draws[:, None] * total, right=True)
    return chosen.clamp_(max=logits.shape[-1] - 1).squeeze(-1)


class _Batch:
    """Prompts of similar length being continued together."""

    def __init__(self, network: Network, prompts: Sequence[list[int]], role: str, draws: Tensor | None) -> None:
        from transformers import DynamicCache

        self._trunk: Any = network.trunk(role)
        self._stop = torch.tensor(sorted(network.renderer.stop_ids), device=network.runtime.device)
        self._cache = DynamicCache(config=self._trunk.config)
        width = max(map(len, prompts))
        pad = cast("int", network.tokenizer.pad_token_id)
        device = network.runtime.device
        self._input = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=device)
        self._mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._autocast = network.autocast(self._trunk)
        # (R, tokens) of the live rows
        self._draws = None if draws is None else draws.to(_widest(device)).to(device)
        self._rows = list(range(len(prompts)))  # which prompt each live row continues
        self._ids: list[list[int]] = [[] for _ in prompts]
        self._finished = [False] * len(prompts)

    def next_logits(self) -> Tensor:
        """(R, V) float32 logits of the next token of each live row."""
        with self._autocast:
            output = self._trunk(
                input_ids=self._input, attention_mask=self._mask, position_ids=self._positions,
                past_key_values=self._cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
        return output.logits[:, -1].float()

    def choose(self, temperature: float) -> Tensor:
        """(R,) the next token of each live row: drawn, or at temperature 0 the likeliest."""
        logits = self.next_logits()
        if self._draws is None:
            return logits.argmax(-1)
        return pick(logits, self._draws[:, len(self._ids[self._rows[0]])], temperature)

    def append(self, tokens: Tensor) -> bool:
        """Add one token to each live row and drop the rows it ends. Returns whether any row is left."""
        stopped = torch.isin(tokens, self._stop)
        for row, token, stop in zip(self._rows, tokens.tolist(), stopped.tolist(), strict=True):
            self._ids[row].append(token)
            self._finished[row] = stop
        live = (~stopped).nonzero().squeeze(-1)
        if live.numel() < len(self._rows):
            if live.numel() == 0:
                return False
            self._cache.batch_select_indices(live)
            tokens, self._mask, self._positions = tokens[live], self._mask[live], self._positions[live]
            self._draws = None if self._draws is None else self._draws[live]
            self._rows = [self._rows[index] for index in live.tolist()]
        self._input = tokens[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._rows), 1)], dim=-1)
        self._positions = self._positions[:, -1:] + 1
        return True

    def results(self) -> list[Sample]:
        return [Sample(ids, finished) for ids, finished in zip(self._ids, self._finished, strict=True)]
