"""The configuration of `trueup rank`: what is ranked, by whom, how answers are sampled, where the page is served."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from trueup.config.problems import Problem
from trueup.config.schema import Device, Dtype
from trueup.config.sections import (
    Count,
    FilePath,
    GreedyTemperature,
    NonEmptyStr,
    PathText,
    Section,
    Seed,
    Threads,
    Whole,
    listed,
)

Texts = Annotated[list[NonEmptyStr], BeforeValidator(listed)]
"""A list of texts; a single text is a list of one."""


class RankConfig(Section):
    """The page on which people rank A against B. What is null stays as the store has it."""

    prompts: FilePath | None = None
    """Prompts to be answered by `model`, in any format of data."""
    model: Annotated[list[PathText], BeforeValidator(listed)] = Field(default_factory=list)
    """The models that answer: of one model two samples are compared, of several one answer each, blind."""
    pairs: FilePath | None = None
    """Pairs of answers that exist already: chosen/rejected, or a/b."""
    gold: FilePath | None = None
    """Pairs with a known better answer (chosen), to check raters by."""
    gold_every: Whole | None = None
    """About one pair in so many is a gold one; 10 in a new store."""
    next: Literal["random", "uncertain"] | None = None
    """Which pair comes next; uncertain: by the scores of `reward`, closest first. random in a new store."""
    reward: PathText | None = None
    """The reward model that scores pairs for `next: uncertain`."""
    pairs_per_prompt: Count = 1
    """Pairs to write for each prompt."""
    rater: Texts = Field(default_factory=list)
    """Names of raters; for each a personal link is printed."""
    raters_per_pair: Count | None = None
    """Votes that a pair needs, each by another rater; 1 in a new store."""
    lease: Annotated[float, Strict(), Field(ge=10, le=1e6, allow_inf_nan=False)] | None = None
    """Seconds for which a pair is reserved for the rater who sees it; 600 in a new store."""
    temperature: GreedyTemperature = 1.0
    """The sampling temperature; 0 takes the likeliest token."""
    max_new_tokens: Count = 256
    """The longest answer in tokens."""
    ahead: Count = 64
    """Pairs to write before raters ask for them."""
    batch: Count = 16
    """Pairs written at once: sixteen are about six times as fast as one by one, more are not faster."""
    max_tokens: Count = 16_384
    """Tokens computed at once: lower it when memory runs out."""
    seed: Seed | None = None
    """The seed of answers, orders and sides; 0 in a new store."""
    host: NonEmptyStr = "127.0.0.1"
    """The address to serve at. Beyond 127.0.0.1 every visitor needs a personal link."""
    port: Annotated[int, Strict(), Field(ge=0, le=65535)] = 8100
    """The port; 0 takes any free one."""
    name: Texts = Field(default_factory=list)
    """Host names of the page behind a proxy or tunnel; https://HOST for TLS."""
    device: Device = "auto"
    """auto (the GPU when there is one), cpu, mps, cuda or cuda:1."""
    dtype: Dtype = "auto"
    """The type computed in; auto: bfloat16 on a GPU that has it, else float32."""
    threads: Threads | None = None
    """CPU threads. Unset: torch decides."""

    def contradictions(self) -> list[Problem]:
        """Return problems of values that do not go together.

        These are a model named twice, pairs whose two answers could not differ, and an order that needs a reward model.
        """
        problems: list[Problem] = []
        paths = [Path(name).resolve() for name in self.model]
        if twice := next((name for name, path in zip(self.model, paths, strict=True) if paths.count(path) > 1), None):
            text = f"{twice} is named twice; name it once: of one model two samples are compared"
            problems.append((("model",), text))
        possible = math.comb(len(self.model), 2)
        if self.model and not self.temperature and self.pairs_per_prompt > possible:
            text = (
                f"at 0 a model has one answer to a prompt, so {len(self.model)} model(s) give {possible} pairs of it, "
                f"not {self.pairs_per_prompt}; set a temperature above 0, such as 1"
            )
            problems.append((("temperature",), text))
        if self.next == "uncertain" and self.reward is None:
            problems.append((("next",), "uncertain needs a reward model; set reward (--reward RUN), or next: random"))
        return problems
