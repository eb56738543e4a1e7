"""Which rows run: prompts wait for places, samples of one prompt start from one prefill, rows leave as they end."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from trueup.errors import TrainingError
from trueup.sampling.draw import accumulation_dtype, pick, uniform_draws

if TYPE_CHECKING:
    from transformers import DynamicCache

    from trueup.models.network import Network
    from trueup.sampling.cache import GrowingCache, WindowCache

_REFILL = 8
"""Waiting prompts start when one place in so many is free: one by one, each would cost a forward pass of its own."""
_PADDING = 256
"""Columns of padding that a prefill may have, or an eighth of its positions: shorter prompts have one of their own."""


_PER_TRAINED_TOKEN = 4
"""Sampling keeps keys and values but no activations, so it runs more tokens at once than a training step."""


def sampled_at_once(max_tokens: int) -> int:
    """Return how many tokens sampling runs at once where `max_tokens` is the size of a training micro-batch."""
    return _PER_TRAINED_TOKEN * max_tokens


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled continuation.

    Attributes:
        ids: the sampled tokens; the last is the stop token if `finished`, else they were cut at `max_new_tokens`.
        finished: whether a stop token was sampled.
        logps: log-probability of each token in nats under the distribution it was drawn from, temperature included; of
            a greedy sample, under the distribution at temperature 1. Rounding differs with the rows beside it, so they
            play no part in comparing samples.
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
    """Continue each prompt until a stop token or `max_new_tokens`. Of several ranks each continues its share.

    Args:
        network: the model; put in evaluation mode here.
        prompts: token ids, none empty. Equal ones share a prefill.
        role: which role samples.
        max_new_tokens: at most this many tokens are sampled.
        temperature: logits are divided by it; 0 is greedy.
        seed: of this call; row `at` draws from a generator of its own, seeded by (seed, at). Or one for each prompt,
            which then draws the numbers that it would draw alone with that seed.
        max_tokens: rows x (longest prompt + new tokens) that run together at most.
        on_token: called with each token of a single prompt as it is sampled (streaming).

    Returns:
        One Sample a prompt, in the order of `prompts`, on every rank.

    Raises:
        TrainingError: the model's logits are not numbers.
    """
    training = network.training
    network.eval()
    # The longest first, so that rows of similar length run together, and equal prompts side by side.
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]), reverse=True)
    seeds = [(one, 0) for one in seed] if isinstance(seed, Sequence) else [(seed, at) for at in range(len(prompts))]
    mine = [_Row(at, prompts[at], seeds[at]) for at in network.runtime.share(order)]

    def continued() -> list[tuple[int, list[int], bool, list[float]]]:
        if max_new_tokens > 0:
            _Engine(network, role, mine, max_new_tokens, temperature, max_tokens, on_token).run()
        return [(row.number, row.ids, row.finished, row.logps) for row in mine]

    try:
        own = network.run_independently(role, continued)
    finally:
        network.train(training)
    found = {number: Sample(*made) for number, *made in network.runtime.gather(own)}
    return [found[at] for at in range(len(prompts))]


@dataclass(slots=True)
class _Row:
    """One sample in the making."""

    number: int  # of its prompt in the call
    prompt: list[int]
    seed: tuple[int, int]  # of its numbers: that of the call, and the row's in it
    draws: list[float] = field(default_factory=list[float])  # the numbers for its tokens, while it runs
    ids: list[int] = field(default_factory=list[int])
    logps: list[float] = field(default_factory=list[float])
    finished: bool = False

    @property
    def cached(self) -> int:
        """How many of its tokens the cache holds while it runs: all but the last, which is the next input."""
        return len(self.prompt) + len(self.ids) - 1


@dataclass(frozen=True, slots=True)
class _Prefill:
    """Prompts that have run through the model."""

    cache: DynamicCache  # one row a prompt, padded on the left
    width: int
    logits: Tensor  # (k, V), of each prompt's first new token

    def only(self, at: int) -> _Prefill:
        """The one prompt alone, and no memory of the others."""
        from trueup.sampling.cache import keep_rows

        keep_rows(self.cache, [at])
        return _Prefill(self.cache, self.width, self.logits[at : at + 1].clone())


class _Engine:
    """Rows that wait, rows that run, and the cache of those that run."""

    def __init__(
        self, network: Network, role: str, rows: Sequence[_Row], new_tokens: int, temperature: float,
        max_tokens: int, on_token: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self._network, self._temperature, self._on_token = network, temperature, on_token
        self._new_tokens, self._max_tokens = new_tokens, max_tokens
        self._trunk: Any = network.trunk(role)
        takes = inspect.signature(self._trunk.forward).parameters
        self._cache_name = "past_key_values" if "past_key_values" in takes else "cache_params"  # Mamba's
        self._autocast = network.autocast(self._trunk)
        self._device = network.runtime.device
        self._stops = network.renderer.stop_ids
        self._waiting = _by_prompt(rows)
        self._held: _Prefill | None = None  # of the first waiting prompt, where some of its rows run already
        self._live: list[_Row] = []  # in the order of the cache's rows
        self._width = 0  # columns of the cache that are read
        self._cache = self._new_cache()

    def run(self) -> None:
        """Continue every row to its end."""
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
        """How many waiting rows may start now: 0 while so few places are free that it does not pay."""
        if not self._waiting or (self._live and not self._cache.joins):
            return 0
        longest = max(len(row.prompt) for row in (self._live or self._waiting[0]))
        places = max(1, self._max_tokens // (longest + self._new_tokens))
        free = places - len(self._live)
        enough = min(max(1, places // _REFILL), sum(map(len, self._waiting)))
        return free if free >= enough else 0

    def _start(self, free: int) -> None:
        """Start up to `free` waiting rows: they sample their first token, and join the cache if they go on."""
        groups, rest = self._next_groups(free)
        prefill = self._held or self._prefill([group[0].prompt for group in groups])
        rows = [row for group in groups for row in group]
        for row in rows:
            row.draws = uniform_draws(*row.seed, self._new_tokens) if self._temperature else []
        sources = [at for at, group in enumerate(groups) for _ in group]
        going = self._choose(prefill.logits[torch.tensor(sources, device=self._device)], rows)
        if going:
            if not self._live:
                self._cache, self._width = self._new_cache(), 0
            self._cache.join(prefill.cache, [sources[at] for at in going])
            self._live += [rows[at] for at in going]
            self._width = max(self._width, prefill.width)
        self._held = None
        if rest:
            self._waiting.appendleft(rest)
            if self._cache.joins:
                self._held = prefill.only(len(groups) - 1)

    def _next_groups(self, free: int) -> tuple[list[list[_Row]], list[_Row]]:
        """Up to `free` waiting rows for one prefill, by prompt, and the rest of the last one's."""
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
        """Sample the next token of every running row, and let those go that it ends."""
        inputs = torch.tensor([[row.ids[-1], row.cached] for row in self._live]).to(self._device)
        lengths = [row.cached + 1 for row in self._live]
        self._width += 1
        logits = self._forward(inputs[:, :1], inputs[:, 1:], _mask(lengths, self._width), self._cache)
        going = self._choose(logits, self._live)
        if len(going) < len(self._live):
            self._leave(going)

    def _leave(self, going: list[int]) -> None:
        """Only the rows `going` are left."""
        order = compact_order(len(self._live), going)
        self._live = [self._live[at] for at in order]
        if not order:
            self._cache = self._new_cache()
            return
        if self._cache.joins:
            self._width = max(row.cached for row in self._live)
        self._cache.keep(order, self._width)

    # -- what they compute ---------------------------------------------------------------------------------------

    def _prefill(self, prompts: list[list[int]]) -> _Prefill:
        from transformers import DynamicCache

        width, cache = max(map(len, prompts)), DynamicCache(config=self._trunk.config)
        filler = cast("int", self._network.tokenizer.pad_token_id)
        ids = torch.tensor([[filler] * (width - len(one)) + one for one in prompts]).to(self._device)
        positions = torch.tensor([[0] * (width - len(one)) + [*range(len(one))] for one in prompts]).to(self._device)
        logits = self._forward(ids, positions, _mask([len(one) for one in prompts], width), cache)
        return _Prefill(cache, width, logits)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """(R, V) float32 logits of each row's next token."""
        if self._cache_name == "cache_params" and ids.shape[1] == 1:
            mask = None  # what is recurrent has passed its padding, and takes a mask of its input's width only
        with self._autocast:
            output = self._trunk(
                input_ids=ids, attention_mask=None if mask is None else mask.to(self._device), position_ids=positions,
                use_cache=True, logits_to_keep=1, **{self._cache_name: cache},
            )  # fmt: skip
        return output.logits[:, -1].float()

    def _choose(self, logits: Tensor, rows: Sequence[_Row]) -> list[int]:
        """Give each row its next token. -> which of them go on.

        Raises:
            TrainingError: logits are not numbers.
        """
        wide, draws = accumulation_dtype(self._device), None
        if self._temperature:
            draws = torch.tensor([row.draws[len(row.ids)] for row in rows], dtype=wide).to(self._device)
        chosen = torch.stack([one.to(wide) for one in pick(logits, draws, self._temperature)])
        tokens, logps = chosen.tolist()  # the one time a step that the device is waited for
        if not all(map(math.isfinite, logps)):
            raise TrainingError(
                "the model's logits are not numbers, so nothing can be sampled from it\n"
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
        return [at for at, row in enumerate(rows) if not row.finished and len(row.ids) < self._new_tokens]


def compact_order(count: int, going: Sequence[int]) -> list[int]:
    """Which of `count` rows stands in each place once only those `going` are left: the last take the places of others.

    As few rows move as can be: a row's cache is megabytes.
    """
    order = list(range(count))
    for at in sorted(set(order).difference(going), reverse=True):
        last = order.pop()
        if at < len(order):
            order[at] = last
    return order


def _by_prompt(rows: Sequence[_Row]) -> deque[list[_Row]]:
    """The rows with the same prompt together, in the order of the first of each."""
    groups: dict[tuple[int, ...], list[_Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.prompt), []).append(row)
    return deque(groups.values())


def _mask(lengths: Sequence[int], width: int) -> Tensor | None:
    """(R, width), 1 on the last `lengths` columns; None where that is everywhere.

    One mask for all layers in the form that every model takes: whatever attention it has makes its own of it.
    """
    if min(lengths) == width:
        return None
    return (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
