"""Aliases under which a rater's browser gets the numbers of pairs and votes.

The store numbers pairs and events in the order of insertion. Such a number would tell which pairs are gold (those of
`--gold` are often stored before or after all others), and how many votes other raters give. An alias is the number,
encrypted with the store's secret and the rater: it has no order, and another rater gets another one for the same pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

NumberKind = Literal["pair", "vote"]

_ROUNDS = range(4)
_HALF = 32  # bits


class Aliases:
    """Two-way mapping between the store's numbers (0 to 2**64 - 1) and their aliases, 16 hexadecimal digits each.

    A Feistel network of four rounds with keyed BLAKE2b, a pseudorandom permutation (Luby & Rackoff 1988): nothing has
    to be stored, and an alias is the same after a restart.
    """

    def __init__(self, secret: str) -> None:
        """Keep the store's secret, without which no alias can be read or predicted."""
        self._secret = secret

    def alias(self, kind: NumberKind, rater: int, number: int) -> str:
        """Return the alias of a pair's or vote's number for the rater with the id `rater`."""
        return f"{self._permuted(kind, rater, number, _ROUNDS):016x}"

    def number(self, kind: NumberKind, rater: int, alias: str) -> int:
        """Return the number that has this alias; that of another rater, or a made-up one, gives a random number."""
        return self._permuted(kind, rater, int(alias, 16), reversed(_ROUNDS))

    def _permuted(self, kind: NumberKind, rater: int, number: int, rounds: Iterable[int]) -> int:
        key = hashlib.blake2b(f"{self._secret} {kind} {rater}".encode()).digest()
        left, right = number >> _HALF, number & (1 << _HALF) - 1
        for turn in rounds:
            mixed = hashlib.blake2b(bytes([turn]) + right.to_bytes(4), key=key, digest_size=_HALF // 8).digest()
            left, right = right, left ^ int.from_bytes(mixed)
        return right << _HALF | left
