"""Rows that occur twice, exactly or nearly, among millions of them: MinHash signatures and buckets on disk.

A text's shingles are the 8-byte windows of its normalised form (letters and digits of any script, signs beside a digit,
lower case, single spaces). Two texts are near-duplicates when the Jaccard similarity of their shingles is at least
`NEAR`. The signature holds the minimum of 32 hash functions over the shingles; two signatures agree in one place with
the probability of that similarity (Broder 1997), so texts that agree in one of 8 bands of 4 places are compared, the
others are not: at a similarity of 0.8 a pair is overlooked with probability (1 - 0.8^4)^8 = 0.015, at 0.9 with 2e-4.
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
# A sign beside a digit says what is reckoned: without it 3+4 and 3*4 would be one text.
_PIECE = re.compile(r"(?:[^\w+*/<>=^%-]|_|(?<!\d)(?<!\d\s)[-+*/<>=^%](?!\s?\d))+")
_NUMBER = re.compile(r"\d+")


Words = NDArray[np.uint64]


def _constants() -> tuple[Words, Words, Words]:
    """Multipliers and summands of the hash functions, and of the shingles' polynomial; the same on every machine."""
    drawn = [int.from_bytes(hashlib.sha256(f"trueup {at}".encode()).digest()[:8], "big") for at in range(72)]
    numbers = np.array(drawn, dtype=np.uint64)
    return numbers[:PLACES] | np.uint64(1), numbers[PLACES : 2 * PLACES], numbers[64:72] | np.uint64(1)


_MULTIPLY, _ADD, _POLYNOMIAL = _constants()


def normalised(text: str) -> str:
    """Lower case, and every run of what is neither letter nor digit (nor +, -, < … beside a digit) as one space."""
    return _PIECE.sub(" ", text.lower()).strip()


def shingles(text: str) -> set[bytes]:
    """The windows of a normalised text; of a text shorter than one, the text itself."""
    raw = text.encode("utf-8", "surrogatepass")
    return {raw[at : at + SHINGLE] for at in range(max(1, len(raw) - SHINGLE + 1))}


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of two normalised texts' shingles, 0 to 1."""
    one, other = shingles(a), shingles(b)
    return len(one & other) / len(one | other)


def alike(a: str, b: str) -> bool:
    """Whether two normalised texts are near-duplicates: as similar as that, and with the same numbers.

    "13 plus 14" and "13 plus 15" are two questions, however alike they are.
    """
    return _NUMBER.findall(a) == _NUMBER.findall(b) and similarity(a, b) >= NEAR


def content_hash(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """(n, 32) MinHash signatures of normalised texts."""
    raw = [text.encode("utf-8", "surrogatepass").ljust(SHINGLE, b"\0") for text in texts]
    lengths = np.array([len(one) for one in raw])
    data = np.frombuffer(b"".join(raw), dtype=np.uint8).astype(np.uint64)
    windows = np.zeros(len(data) - SHINGLE + 1, dtype=np.uint64)
    for at, factor in enumerate(_POLYNOMIAL):
        windows += data[at : at + len(windows)] * factor
    windows ^= windows >> np.uint64(29)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # A window that reaches into the next text belongs to none: it takes the value of its text's first window.
    own = np.repeat(np.arange(len(raw)), lengths)[: len(windows)]
    outside = np.arange(len(windows)) > ends[own] - SHINGLE
    windows[outside] = windows[starts[own[outside]]]
    result = np.empty((len(raw), PLACES), dtype=np.uint32)
    for place in range(PLACES):
        mixed = (windows * _MULTIPLY[place] + _ADD[place]) >> np.uint64(32)
        result[:, place] = np.minimum.reduceat(mixed, starts)
    return result


def band_keys(signature: NDArray[np.uint32]) -> Words:
    """(n, 32) signatures -> (n, 8) keys: two rows share a band's key when they agree in all its places."""
    parts = signature.reshape(len(signature), BANDS, PLACES // BANDS).astype(np.uint64)
    keys = np.zeros(parts.shape[:2], dtype=np.uint64)
    for place in range(parts.shape[2]):
        keys = (keys ^ parts[:, :, place]) * _POLYNOMIAL[place]
        keys ^= keys >> np.uint64(31)
    return keys ^ np.arange(BANDS, dtype=np.uint64) * _MULTIPLY[0]


class Buckets:
    """Numbers grouped by equal 64-bit keys, with little memory: they are parted on disk, and sorted part by part.

    with Buckets() as found:
        found.add(keys, numbers)     # any number of times
        for group in found.groups(): ...   # numbers of one key, in rising order, at least two of them
    """

    def __init__(self) -> None:
        """Open the parts, temporary files without a name."""
        self._parts: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(_BUCKETS)]  # noqa: SIM115 (see close)

    def add(self, keys: Words, numbers: NDArray[np.int64]) -> None:
        """(n,) keys and what stands under them."""
        part = (keys >> np.uint64(58)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        pairs = np.stack([keys[order], numbers[order].astype(np.uint64)], axis=1)
        edges = np.searchsorted(part[order], np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            if edges[bucket] < edges[bucket + 1]:
                self._parts[bucket].write(pairs[edges[bucket] : edges[bucket + 1]].tobytes())

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """The numbers under each key that more than one stands under."""
        for part in self._parts:
            part.seek(0)
            pairs = np.frombuffer(part.read(), dtype=np.uint64).reshape(-1, 2)
            pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
            edges = np.flatnonzero(np.diff(pairs[:, 0], prepend=np.uint64(0)) != 0) if len(pairs) else np.array([], int)
            edges = np.concatenate([[0], edges[edges > 0], [len(pairs)]])
            for start in np.flatnonzero(np.diff(edges) > 1):
                yield pairs[edges[start] : edges[start + 1], 1].astype(np.int64)

    def __enter__(self) -> Buckets:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the temporary files."""
        for part in self._parts:
            part.close()


class Groups:
    """Which of n rows belong together: union-find with the smallest row as each group's first. 4 bytes a row."""

    def __init__(self, n: int) -> None:
        """Every row by itself."""
        self.parent = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)

    def first(self, row: int) -> int:
        """The smallest row of a row's group."""
        while self.parent[row] != row:
            self.parent[row] = self.parent[self.parent[row]]
            row = int(self.parent[row])
        return row

    def firsts(self) -> NDArray[np.integer]:
        """(n,) the smallest row of each row's group."""
        found = self.parent.copy()
        while not np.array_equal(found, found[found]):
            found = found[found]
        return found

    def join(self, a: int, b: int) -> None:
        """Put two rows' groups together."""
        a, b = self.first(a), self.first(b)
        self.parent[max(a, b)] = min(a, b)
