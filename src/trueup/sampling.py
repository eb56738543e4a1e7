"""Sample from a role of a network: the engine behind rollouts, evaluation and chat.

A batch is padded on the left, keeps a KV cache, and drops each row as soon as it has sampled a stop token, so short
answers do not wait for long ones. Greedy output equals `transformers`' own `generate` (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

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
    """Continue each prompt until a stop token or `max_new_tokens`.

    Args:
        network: the model; put in evaluation mode here.
        prompts: token ids, none empty.
        role: which role samples.
        max_new_tokens: at most this many tokens are sampled.
        temperature: logits are divided by it; 0 is greedy.
        seed: of this call; the same prompts, seed and `max_tokens` give the same samples.
        max_tokens: rows x (prompt + new tokens) of one batch at most, prompts sorted by length.
        on_token: called with each token of a single prompt as it is sampled (streaming).

    Returns:
        One Sample a prompt, in the order of `prompts`.
    """
    training = network.training
    network.eval()
    generator = torch.Generator(network.runtime.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    samples: list[Sample] = [Sample([], False)] * len(prompts)
    try:
        while order:
            width = len(prompts[order[0]]) + max_new_tokens
            rows, order = order[: max(1, max_tokens // width)], order[max(1, max_tokens // width) :]
            batch = _Batch(network, [prompts[row] for row in rows], role)
            for _ in range(max_new_tokens):
                network.check()
                tokens = _choose(batch.next_logits(), temperature, generator)
                if on_token is not None:
                    on_token(int(tokens[0]))
                if not batch.append(tokens):
                    break
            for row, result in zip(rows, batch.results(), strict=True):
                samples[row] = result
    finally:
        network.train(training)
    return samples


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(R,) token ids from (R, V) float32 logits."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


class _Batch:
    """Prompts of similar length being continued together."""

    def __init__(self, network: Network, prompts: Sequence[list[int]], role: str) -> None:
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
            self._rows = [self._rows[index] for index in live.tolist()]
        self._input = tokens[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._rows), 1)], dim=-1)
        self._positions = self._positions[:, -1:] + 1
        return True

    def results(self) -> list[Sample]:
        return [Sample(ids, finished) for ids, finished in zip(self._ids, self._finished, strict=True)]
