"""Made-up stores: pairs and votes of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trueup.data.rendering.messages import Message
from trueup.data.votes.vote_types import Answer, Ballot, Choice, Pair, Rater, StoredPrompt, Vote

WORDS = ["rivers", "of", "cold", "water", "and", "a", "warm", "stone", "under", "the", "old", "bridge"]


def pair(number: int, first: str = "sft", second: str = "dpo", *, prompt: int | None = None, tags=(), gold=None,
         texts: tuple[str, str] = ("short", "a longer answer")) -> Pair:  # fmt: skip
    asked = StoredPrompt(number if prompt is None else prompt, (Message("user", f"question {number}"),), tags)
    return Pair(number, asked, Answer(texts[0], first), Answer(texts[1], second), gold)


def vote(number: int, on: int, choice: Choice, *, rater: int = 1, left="first", policy="random", reasons=(),
         seconds: float | None = 8.0, name: str | None = None, edit: str = "") -> Vote:  # fmt: skip
    ballot = Ballot(f"r{number}", on, choice, None, tuple(reasons), "", edit, None, seconds)
    at = f"2026-10-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return Vote(number, at, Rater(rater, name or f"rater {rater}"), left, policy, None, ballot)


def store(
    strengths: dict[str, float],
    *,
    prompts: int = 100,
    k: int = 1,
    raters: int = 1,
    ties: float = 0.15,
    both_bad: float = 0.05,
    skips: float = 0.03,
    longer: float = 0.0,
    within: float = 0.0,
    tags: Sequence[str] = (),
    reasons: Sequence[str] = (),
    uncertain: float = 0.0,
    seed: int = 0,
) -> tuple[list[Pair], list[Vote]]:
    """A Bradley-Terry world. `longer` is what an answer gains by 100 characters, `within` the spread of prompts, both
    in log odds; a prompt has one pair with `k` votes."""
    draw = np.random.default_rng(seed)
    names = list(strengths)
    pairs, votes = [], []
    for at in range(prompts):
        one, other = draw.choice(len(names), 2, replace=False)
        sizes = draw.integers(5, 120, 2)
        texts = tuple(" ".join(draw.choice(WORDS, size)) for size in sizes)
        topic = (str(draw.choice(list(tags))),) if len(tags) and draw.random() < 0.9 else ()
        pairs.append(pair(at + 1, names[one], names[other], tags=topic, texts=texts))
        odds = strengths[names[one]] - strengths[names[other]] + draw.normal(0, within)
        odds += longer * (len(texts[0]) - len(texts[1])) / 100
        policy = "uncertain" if draw.random() < uncertain else "random"
        for rater in draw.choice(max(raters, k), k, replace=False):
            kind = draw.choice(4, p=[skips, both_bad, ties, 1 - skips - both_bad - ties])
            choice = ("skip", "both_bad", "tie", "first" if draw.random() < 1 / (1 + np.exp(-odds)) else "second")[kind]
            said = (
                tuple(draw.choice(list(reasons), draw.integers(0, min(3, len(reasons) + 1)), replace=False))
                if len(reasons)
                else ()
            )
            votes.append(
                vote(
                    len(votes) + 1,
                    at + 1,
                    choice,
                    rater=int(rater) + 1,
                    left="first" if draw.random() < 0.5 else "second",
                    policy=policy,
                    reasons=said if choice in ("first", "second") else (),
                    seconds=float(draw.gamma(4, 3)),
                )
            )
    return pairs, votes
