"""Chance that is the same each time: numbers drawn by the store's seed and what they are for."""

from __future__ import annotations

import hashlib

from trueup.ranking.store.schema import Side


def drawn(seed: int, *what: str | int) -> int:
    """A number of 63 bits, evenly spread over everything that can be asked."""
    text = "\0".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def position(seed: int, kind: str, number: int) -> int:
    """The place of a prompt or pair in the store's random order."""
    return drawn(seed, kind, number)


def left_side(seed: int, prompt: int, rater: int) -> Side:
    """Which answer to a prompt is a rater's A: half the raters see the other."""
    return "first" if drawn(seed, "left", prompt, rater) % 2 else "second"
