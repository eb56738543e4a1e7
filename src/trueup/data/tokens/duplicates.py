"""MinHash signatures and buckets on disk, which find equal and nearly equal rows among millions.

A text's shingles are the 8-byte windows of its normalised form (letters and digits of any script, signs next to a
digit, lower case, single spaces). Two texts are near-duplicates when the Jaccard similarity of their shingles is at
least `NEAR`. The signature holds the minimum of 32 hash functions over the shingles; two signatures agree in each place
with the probability of that similarity (Broder 1997). Only texts that agree in one of 8 bands of 4 places are compared:
at a similarity of 0.8 a pair is overlooked with probability (1 - 0.8^4)^8 = 0.015, at 0.9 with 2e-4.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""The Jaccard similarity from which two rows are near-duplicates."""
PLACES, BANDS = 32, 8
SHINGLE = 8  # bytes
_BUCKETS = 64
# A sign next to a digit is part of arithmetic: without it 3+4 and 3*4 would be the same text.
_PIECE = re.compile(r"(?:[^\w+*/<>=^%-]|_|(?<!\d)(?<!\d\s)[-+*/<>=^%](?!\s?\d))+")
_NUMBER = re.compile(r"\d+")


Words = NDArray[np.uint64]


def _constants() -> tuple[Words, Words, Words]:
    """Return the constants of the hash functions: multipliers (32,), summands (32,) and polynomial factors (8,).

    They are equal on every machine. The factors turn a window of 8 bytes (a shingle) into one number.
    """
    drawn = [int.from_bytes(hashlib.sha256(f"trueup {index}".encode()).digest()[:8], "big") for index in range(72)]
    numbers = np.array(drawn, dtype=np.uint64)
    return numbers[:PLACES] | np.uint64(1), numbers[PLACES : 2 * PLACES], numbers[64:72] | np.uint64(1)


_MULTIPLY, _ADD, _POLYNOMIAL = _constants()


def normalised(text: str) -> str:
    """Return the text in lower case, reduced to letters and digits, for comparison with other texts.

    Other signs become one space, except arithmetic next to a digit: 3+4 and 3*4 stay different.
    """
    return _PIECE.sub(" ", text.lower()).strip()


def shingles(text: str) -> set[bytes]:
    """Return the set of 8-byte windows of a normalised text; a text shorter than 8 bytes is its own only window."""
    raw = text.encode("utf-8", "surrogatepass")
    return {raw[start : start + SHINGLE] for start in range(max(1, len(raw) - SHINGLE + 1))}


def similarity(a: str, b: str) -> float:
    """Return the Jaccard similarity of the shingles (8-byte windows) of two normalised texts, 0 to 1."""
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second)


def alike(a: str, b: str) -> bool:
    """Return True if two normalised texts are near-duplicates: a Jaccard similarity of NEAR or more, and equal numbers.

    "13 plus 14" and "13 plus 15" are different questions, however similar.
    """
    return numbers_of(a) == numbers_of(b) and similarity(a, b) >= NEAR


def numbers_of(text: str) -> list[str]:
    """Return the numbers in a text, in their order."""
    return _NUMBER.findall(text)


def content_hash(text: str) -> int:
    """Return a 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def rolling_hashes(raw: NDArray[np.uint8]) -> Words:
    """Return a 64-bit hash of each window of 8 bytes, (len(raw) - 7,); of fewer bytes none."""
    data = raw.astype(np.uint64)
    windows = np.zeros(max(0, len(data) - SHINGLE + 1), dtype=np.uint64)
    for offset, factor in enumerate(_POLYNOMIAL):
        windows += data[offset : offset + len(windows)] * factor
    return windows ^ (windows >> np.uint64(29))


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the MinHash signatures of n normalised texts, (n, 32); similar texts agree in many of the 32 places."""
    raw = [text.encode("utf-8", "surrogatepass").ljust(SHINGLE, b"\0") for text in texts]
    lengths = np.array([len(text) for text in raw])
    windows = rolling_hashes(np.frombuffer(b"".join(raw), dtype=np.uint8))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # A window that reaches into the next text is no shingle: it gets the value of the first window of its text.
    text_of = np.repeat(np.arange(len(raw)), lengths)[: len(windows)]
    outside = np.arange(len(windows)) > ends[text_of] - SHINGLE
    windows[outside] = windows[starts[text_of[outside]]]
    result = np.empty((len(raw), PLACES), dtype=np.uint32)
    for place in range(PLACES):
        mixed = (windows * _MULTIPLY[place] + _ADD[place]) >> np.uint64(32)
        result[:, place] = np.minimum.reduceat(mixed, starts)
    return result


def band_keys(signature: NDArray[np.uint32]) -> Words:
    """Return the band keys (n, 8) of signatures (n, 32).

    Two rows have an equal key for a band where their signatures agree in all 4 places of that band.
    """
    parts = signature.reshape(len(signature), BANDS, PLACES // BANDS).astype(np.uint64)
    keys = np.zeros(parts.shape[:2], dtype=np.uint64)
    for place in range(parts.shape[2]):
        keys = (keys ^ parts[:, :, place]) * _POLYNOMIAL[place]
        keys ^= keys >> np.uint64(31)
    return keys ^ np.arange(BANDS, dtype=np.uint64) * _MULTIPLY[0]


class Buckets:
    """Groups of row numbers with equal 64-bit keys, in bounded memory: keys are split over files, each sorted alone.

    with Buckets() as buckets:
        buckets.add(keys, numbers)     # any number of times
        for group in buckets.groups(): ...   # numbers with the same key, ascending, at least two
    """

    def __init__(self) -> None:
        """Open the 64 unnamed temporary files that hold the parts."""
        self._parts: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(_BUCKETS)]  # noqa: SIM115 (see close)

    def add(self, keys: Words, numbers: NDArray[np.int64]) -> None:
        """Add row numbers (n,) with their keys (n,)."""
        part = (keys >> np.uint64(58)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        pairs = np.stack([keys[order], numbers[order].astype(np.uint64)], axis=1)
        edges = np.searchsorted(part[order], np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            if edges[bucket] < edges[bucket + 1]:
                self._parts[bucket].write(pairs[edges[bucket] : edges[bucket + 1]].tobytes())

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each key that more than one row has, ascending."""
        for part in self._parts:
            part.seek(0)
            pairs = np.frombuffer(part.read(), dtype=np.uint64).reshape(-1, 2)
            pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
            edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=np.uint64(0)) != 0) if len(pairs) else np.array([], int)
            edges = np.concatenate([[0], edges[edges > 0], [len(pairs)]])
            for start in np.flatnonzero(np.diff(edges) > 1):
                yield pairs[edges[start] : edges[start + 1], 1].astype(np.int64)

    def __enter__(self) -> Buckets:
        """Return the buckets themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the temporary files, which removes them."""
        for part in self._parts:
            part.close()


class Groups:
    """Disjoint groups of the rows 0 to n - 1 (union-find); the smallest row represents its group. 4 bytes a row."""

    def __init__(self, n: int) -> None:
        """Start with n groups of one row each."""
        self.parent = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)

    def first(self, row: int) -> int:
        """Return the smallest row of the group that `row` is in."""
        while self.parent[row] != row:
            self.parent[row] = self.parent[self.parent[row]]
            row = int(self.parent[row])
        return row

    def firsts(self) -> NDArray[np.integer]:
        """Return for each row the smallest row of its group, (n,)."""
        firsts = self.parent.copy()
        while not np.array_equal(firsts, firsts[firsts]):
            firsts = firsts[firsts]
        return firsts

    def join(self, a: int, b: int) -> None:
        """Merge the groups of the rows `a` and `b`."""
        a, b = self.first(a), self.first(b)
        self.parent[max(a, b)] = min(a, b)
