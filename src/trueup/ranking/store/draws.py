"""Chance that is the same each time: numbers drawn by a key of the store and what they are for.

The key holds a secret of the store beside its seed: raters could work out sides and gold pairs from the seed alone.
"""

from __future__ import annotations

import hashlib

from trueup.ranking.store.schema import Side


def drawn(key: str, *what: str | int) -> int:
    """A number of 63 bits, evenly spread over everything that can be asked."""
    text = "\0".join(map(str, (key, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def position(key: str, kind: str, number: int) -> int:
    """The place of a prompt or pair in the store's random order."""
    return drawn(key, kind, number)


def left_side(key: str, prompt: int, rater: int) -> Side:
    """Which answer to a prompt is a rater's A: half the raters see the other."""
    return "first" if drawn(key, "left", prompt, rater) % 2 else "second"
