"""Continuous batching: waiting prompts start as slots become free, samples of a prompt share its prefill."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.errors import ModelError, TrainingError
from trueup.models.batching import Branch, Example
from trueup.models.forward import forward_all
from trueup.models.positions import table_size
from trueup.sampling.draw import accumulation_dtype, pick, uniform_draws

if TYPE_CHECKING:
    from transformers import DynamicCache

    from trueup.models.network import Network
    from trueup.sampling.cache import GrowingCache, WindowCache

_REFILL = 8
"""Waiting prompts start when at least 1/8 of the slots are free: each start costs an extra forward pass."""
_PADDING = 256
"""Padding columns that a prefill may have, or an eighth of its positions; shorter prompts get a separate prefill."""


_PER_TRAINED_TOKEN = 4
"""Sampling keeps keys and values but no activations, so it runs more tokens at once than a training step."""


def sampled_at_once(max_tokens: int) -> int:
    """Return how many tokens sampling runs at once: 4 times `max_tokens`, the size of a training micro-batch."""
    return _PER_TRAINED_TOKEN * max_tokens


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled continuation of a prompt.

    Attributes:
        ids: sampled tokens; the last is the stop token if `finished`, else they were cut at `max_new_tokens`.
        finished: True if a stop token was sampled.
        logps: log-probability of each token in nats under the distribution it was drawn from, temperature included; for
            a greedy sample, under the distribution at temperature 1. They are not compared by `==`, because their
            rounding depends on the other rows of the batch.
    """

    ids: list[int]
    finished: bool
    logps: list[float] = field(default_factory=list[float], compare=False)


@torch.no_grad()
def sample(
    network: Network,
    prompts: Sequence[list[int]],
    *,
    role: str = "policy",
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int | Sequence[int] = 0,
    max_tokens: int = 16_384,
    on_token: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Sample a continuation of each prompt, up to a stop token or `max_new_tokens`.

    Each rank takes a share of the prompts.

    Args:
        network: the model, in evaluation mode while it samples.
        prompts: token ids, none empty. Equal prompts run through the model once (shared prefill).
        role: the network's role to sample from.
        max_new_tokens: largest number of tokens to sample.
        temperature: logits are divided by it; 0 is greedy.
        seed: a seed for the call; row `i` then draws from a generator seeded by (seed, i). Or a seed for each prompt,
            which then draws the numbers that it would draw alone with that seed.
        max_tokens: most tokens that run together, as rows x (longest prompt + new tokens).
        on_token: called with each token of a single prompt as it is sampled (streaming).

    Returns:
        A Sample for each prompt, in the order of `prompts`, on every rank.

    Raises:
        TrainingError: a logit is NaN or infinite.
    """
    training = network.training
    network.eval()
    # Longest first, so that rows of similar length run together, and equal prompts follow each other.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    if isinstance(seed, Sequence):
        seeds = [(prompt_seed, 0) for prompt_seed in seed]
    else:
        seeds = [(seed, index) for index in range(len(prompts))]
    rows = [_Row(index, prompts[index], seeds[index]) for index in network.runtime.share(order)]

    def run_engine() -> list[tuple[int, list[int], bool, list[float]]]:
        if max_new_tokens > 0:
            _Engine(network, role, rows, max_new_tokens, temperature, max_tokens, on_token).run()
        return [(row.index, row.ids, row.finished, row.logps) for row in rows]

    try:
        if max_new_tokens > 0:
            _check_family(network, role)
        results = network.run_independently(role, run_engine)
    finally:
        network.train(training)
    samples = {index: Sample(*result) for index, *result in network.runtime.gather(results)}
    return [samples[index] for index in range(len(prompts))]


_UNSAMPLED = "  fix: train it with sft, reward or dpo without samples (watch.samples=0), and sample with another tool"


def _check_family(network: Network, role: str) -> None:
    """Check once for a role that a batch of prompts is sampled with the probabilities of whole rows.

    Two made-up prompts of different lengths are continued greedily, token by token over a cache. A family that ignores
    positions or masks, or keeps a state that padding changes, would sample from another model than it trains.

    Raises:
        ModelError: the probabilities differ.
    """
    if role in network.sampled_roles or network.runtime.world > 1:
        return
    longest = min(70, (table_size(network.trunk(role)) or 73) - 3)
    ids = [1 + 7 * index % min(network.vocabulary - 1, 100) for index in range(longest)]
    rows = [_Row(0, ids, (0, 0)), _Row(1, ids[: longest // 2 + 1][::-1], (0, 1))]
    training = network.training
    network.eval()
    name = type(network.trunk(role)).__name__
    try:
        _Engine(network, role, rows, 3, 0.0, 1024, None).run()
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:  # in the family's own code
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"{name}: this family keeps no cache that trueup can sample over ({reason})\n{_UNSAMPLED}"
        ) from error
    finally:
        network.train(training)
    examples = [Example(row.prompt, (Branch(row.ids, [True] * len(row.ids)),)) for row in rows]
    expected = forward_all(network, examples, role, "logps", max_tokens=1024)
    sampled = torch.tensor([logp for row in rows for logp in row.logps])
    apart = float((sampled - expected).abs().max())
    if not apart < (1e-2 if network.runtime.dtype == torch.float32 else 0.5):
        raise ModelError(
            f"{name}: token by token in a batch this family computes other probabilities than over whole rows (they "
            f"differ by {apart:.2g} nats), so trueup cannot sample from it\n{_UNSAMPLED}"
        )
    network.sampled_roles.add(role)


@dataclass(slots=True)
class _Row:
    """State of one sample while it is being drawn: prompt, tokens so far and their log-probabilities."""

    index: int  # of its prompt in the call
    prompt: list[int]
    seed: tuple[int, int]  # the call's seed and the row's index
    draws: list[float] = field(default_factory=list[float])  # random numbers for its tokens, while it runs
    ids: list[int] = field(default_factory=list[int])
    logps: list[float] = field(default_factory=list[float])
    finished: bool = False

    @property
    def cached(self) -> int:
        """Number of the row's tokens in the cache while it runs: all but the last, which is the next input."""
        return len(self.prompt) + len(self.ids) - 1


@dataclass(frozen=True, slots=True)
class _Prefill:
    """Result of running k prompts through the model: KV cache, its width in columns, and logits of the next tokens."""

    cache: DynamicCache  # a row per prompt, padded on the left
    width: int
    logits: Tensor  # (k, V) logits of each prompt's first new token

    def only(self, index: int) -> _Prefill:
        """Return the prefill of the prompt numbered `index` alone, and free the memory of the others."""
        from trueup.sampling.cache import keep_rows

        keep_rows(self.cache, [index])
        return _Prefill(self.cache, self.width, self.logits[index : index + 1].clone())


class _Engine:
    """Sampler of one call: the rows that wait, the rows that run, and the KV cache of the running rows."""

    def __init__(
        self, network: Network, role: str, rows: Sequence[_Row], new_tokens: int, temperature: float,
        max_tokens: int, on_token: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        network.check_positions(role, max((len(row.prompt) for row in rows), default=0) + new_tokens)
        self._network, self._temperature, self._on_token = network, temperature, on_token
        self._new_tokens, self._max_tokens = new_tokens, max_tokens
        self._trunk: Any = network.trunk(role)
        parameters = inspect.signature(self._trunk.forward).parameters
        self._cache_name = "past_key_values" if "past_key_values" in parameters else "cache_params"  # Mamba's
        self._autocast = network.autocast(self._trunk)
        self._device = network.runtime.device
        self._stops = network.stop_ids
        self._waiting = _by_prompt(rows)
        self._held: _Prefill | None = None  # of the first waiting prompt, if some of its rows run already
        self._live: list[_Row] = []  # in the order of the cache's rows
        self._width = 0  # columns of the cache that are in use
        self._cache = self._new_cache()

    def run(self) -> None:
        """Sample until every row has ended."""
        while self._waiting or self._live:
            self._network.check_stop()
            if free := self._free():
                self._start(free)
            else:
                self._step()

    def _new_cache(self) -> WindowCache | GrowingCache:
        from trueup.sampling.cache import new_cache

        return new_cache(self._trunk.config)

    # -- which rows run ------------------------------------------------------------------------------------------

    def _free(self) -> int:
        """Return how many waiting rows may start now: 0 while too few slots are free to be worth a prefill."""
        if not self._waiting or (self._live and not self._cache.joins):
            return 0
        longest = max(len(row.prompt) for row in (self._live or self._waiting[0]))
        slots = max(1, self._max_tokens // (longest + self._new_tokens))
        free = slots - len(self._live)
        enough = min(max(1, slots // _REFILL), sum(map(len, self._waiting)))
        return free if free >= enough else 0

    def _start(self, free: int) -> None:
        """Start up to `free` waiting rows: they sample their first token, and join the cache unless they end there."""
        groups, rest = self._next_groups(free)
        prefill = self._held or self._prefill([group[0].prompt for group in groups])
        rows = [row for group in groups for row in group]
        for row in rows:
            row.draws = uniform_draws(*row.seed, self._new_tokens) if self._temperature else []
        sources = [prompt for prompt, group in enumerate(groups) for _ in group]
        going = self._choose(prefill.logits[torch.tensor(sources, device=self._device)], rows)
        if going:
            if not self._live:
                self._cache, self._width = self._new_cache(), 0
            self._cache.join(prefill.cache, [sources[row] for row in going])
            self._live += [rows[row] for row in going]
            self._width = max(self._width, prefill.width)
        self._held = None
        if rest:
            self._waiting.appendleft(rest)
            if self._cache.joins:
                self._held = prefill.only(len(groups) - 1)

    def _next_groups(self, free: int) -> tuple[list[list[_Row]], list[_Row]]:
        """Take up to `free` waiting rows for the next prefill.

        Returns:
            The rows taken, grouped by prompt; and the rows of the last prompt for which no slot was left.
        """
        groups: list[list[_Row]] = []
        rest: list[_Row] = []
        padding = 0
        while self._waiting and free > 0 and not (groups and self._held):
            group = self._waiting[0]
            longest = len((groups or [group])[0][0].prompt)
            padding += longest - len(group[0].prompt)
            if self._cache.joins and padding > max(_PADDING, longest * len(groups) // 8):
                break
            self._waiting.popleft()
            groups.append(group[:free])
            rest = group[free:]
            free -= len(groups[-1])
        return groups, rest

    def _step(self) -> None:
        """Sample the next token of every running row, and remove the rows that end."""
        inputs = torch.tensor([[row.ids[-1], row.cached] for row in self._live]).to(self._device)
        lengths = [row.cached + 1 for row in self._live]
        self._width += 1
        logits = self._forward(inputs[:, :1], inputs[:, 1:], _mask(lengths, self._width), self._cache)
        going = self._choose(logits, self._live)
        if len(going) < len(self._live):
            self._keep(going)

    def _keep(self, going: list[int]) -> None:
        """Remove all running rows from the batch and the cache but those numbered `going`."""
        order = compact_order(len(self._live), going)
        self._live = [self._live[row] for row in order]
        if not order:
            self._cache = self._new_cache()
            return
        if self._cache.joins:
            self._width = max(row.cached for row in self._live)
        self._cache.keep(order, self._width)

    # -- forward passes ------------------------------------------------------------------------------------------

    def _prefill(self, prompts: list[list[int]]) -> _Prefill:
        from transformers import DynamicCache

        width, cache = max(map(len, prompts)), DynamicCache(config=self._trunk.config)
        pad = cast("int", self._network.tokenizer.pad_token_id)
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts]).to(self._device)
        positions = torch.tensor([[0] * (width - length) + [*range(length)] for length in lengths]).to(self._device)
        logits = self._forward(ids, positions, _mask(lengths, width), cache)
        return _Prefill(cache, width, logits)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Run one forward pass that fills the cache; return the (R, V) float32 logits of each row's next token."""
        if self._cache_name == "cache_params" and ids.shape[1] == 1:
            mask = None  # a recurrent state is past its padding, and takes a mask of its input's width only
        with self._autocast:
            output = self._trunk(
                input_ids=ids, attention_mask=None if mask is None else mask.to(self._device), position_ids=positions,
                use_cache=True, logits_to_keep=1, **{self._cache_name: cache},
            )  # fmt: skip
        return output.logits[:, -1].float()

    def _choose(self, logits: Tensor, rows: Sequence[_Row]) -> list[int]:
        """Draw each row's next token and append it to the row; return the indices of the rows that have not ended.

        Raises:
            TrainingError: a logit is NaN or infinite.
        """
        wide, draws = accumulation_dtype(self._device), None
        if self._temperature:
            draws = torch.tensor([row.draws[len(row.ids)] for row in rows], dtype=wide).to(self._device)
        chosen = torch.stack([result.to(wide) for result in pick(logits, draws, self._temperature)])
        tokens, logps = chosen.tolist()  # the only wait for the device in a step
        if not all(map(math.isfinite, logps)):
            raise TrainingError(
                "the model's logits are NaN or infinite, so nothing can be sampled from it\n"
                "  fix: lower optim.lr, set dtype=float32, or go on from an earlier checkpoint"
            )
        for row, token, logp in zip(rows, map(int, tokens), logps, strict=True):
            row.ids.append(token)
            row.logps.append(logp)
            row.finished = token in self._stops
            if self._on_token is not None:
                self._on_token(token)
            if row.finished or len(row.ids) == self._new_tokens:
                row.draws = []
        return [index for index, row in enumerate(rows) if not row.finished and len(row.ids) < self._new_tokens]


def compact_order(count: int, going: Sequence[int]) -> list[int]:
    """Return the row that moves into each cache slot when, of `count` rows, only the rows `going` stay.

    The last rows fill the free slots, so that as few rows as possible move: a row's cache is megabytes.
    """
    order = list(range(count))
    for slot in sorted(set(order).difference(going), reverse=True):
        last = order.pop()
        if slot < len(order):
            order[slot] = last
    return order


def _by_prompt(rows: Sequence[_Row]) -> deque[list[_Row]]:
    """Return the rows grouped by prompt, in the order in which prompts first appear."""
    groups: dict[tuple[int, ...], list[_Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.prompt), []).append(row)
    return deque(groups.values())


def _mask(lengths: Sequence[int], width: int) -> Tensor | None:
    """Return the (R, width) attention mask, 1 on each row's last `lengths` columns; None if it is 1 everywhere.

    Every model takes a mask in this form and turns it into the one that its attention needs.
    """
    if min(lengths) == width:
        return None
    return (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
