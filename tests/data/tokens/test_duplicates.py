"""Signatures against the similarity they estimate, buckets and groups against brute force."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tokens import making
from thorough import trials
from trueup.data.tokens.duplicates import (
    BANDS,
    PLACES,
    SHINGLE,
    Buckets,
    Groups,
    band_keys,
    content_hash,
    normalised,
    shingles,
    signatures,
    similarity,
)

ODD = [
    "",
    "a",
    "abc",
    "abcdefg",
    "abcdefgh",
    "abcdefghi",
    "ä",
    "日本語",
    "日本語のテキスト",
    "🎉" * 3,
    "\ud800",
    "x\udfffy" * 9,
]


def windows(text: str) -> set[bytes]:
    """The shingles once more, from the definition: 8 bytes long, or a shorter text itself."""
    raw = text.encode("utf-8", "surrogatepass")
    return {raw} if len(raw) < 8 else {raw[at:at + 8] for at in range(len(raw) - 7)}  # fmt: skip


def changed(text: str, share: float, draw: random.Random) -> str:
    """The text with about that share of its words replaced."""
    return " ".join(draw.choice(making.WORDS) if draw.random() < share else word for word in text.split())


class TestNormalised:
    @pytest.mark.parametrize(
        ("text", "bare"),
        [
            ("Hello,   World!\n\n", "hello world"),
            ("snake_case - and **bold**", "snake case and bold"),
            ("ÀÉ Straße ÖL", "àé straße öl"),
            ("Привет, МИР", "привет мир"),
            ("\uff1f\uff01\u2026", ""),  # full-width marks
            ("", ""),
        ],
    )
    def test_only_letters_and_digits_in_lower_case_count(self, text: str, bare: str) -> None:
        assert normalised(text) == bare

    def test_what_is_reckoned_counts(self) -> None:
        """3+4 and 3*4 are two questions, and so are x-1 and x+1."""
        assert len({normalised(f"What is 3{sign}4?") for sign in "+-*/<>=^%"}) == 9
        assert len({normalised(f"3 {sign} 4") for sign in "+-*/<>=^%"}) == 9
        assert normalised("x-1") != normalised("x+1")
        assert normalised("well-known a - b") == "well known a b"

    @trials()
    @given(st.text())
    def test_it_is_idempotent(self, text: str) -> None:
        once = normalised(text)
        assert normalised(once) == once


class TestSimilarity:
    def test_by_hand(self) -> None:
        """abcdefghi has the windows abcdefgh, bcdefghi; abcdefghj has abcdefgh, bcdefghj: 1 of 3 is shared."""
        assert similarity("abcdefghi", "abcdefghj") == pytest.approx(1 / 3)
        assert similarity("abc", "abc") == 1
        assert similarity("abc", "abd") == 0
        assert similarity("", "") == 1
        assert similarity("", "a") == 0

    @trials()
    @given(st.text(alphabet="ab", max_size=14), st.text(alphabet="ab", max_size=14))
    def test_it_is_jaccard_of_the_windows(self, a: str, b: str) -> None:
        assert shingles(a) == windows(a)
        assert similarity(a, b) == len(windows(a) & windows(b)) / len(windows(a) | windows(b))


class TestSignatures:
    def test_they_estimate_the_similarity(self) -> None:
        """Of 600 pairs the share of equal places has the mean J and the deviation sqrt(J (1 - J) / 32).

        Each z has mean 0 and deviation 1 if the 32 functions are independent: over 600 pairs the mean of z lies within
        4 / sqrt(600) = 0.16, and the mean of z² within 1 ± 0.3.
        """
        draw = random.Random(7)
        z: list[float] = []
        while len(z) < 600:
            one = normalised(making.sentence(draw.randrange(10**9), 40))
            other = normalised(changed(one, draw.random() * 0.5, draw))
            exact = similarity(one, other)
            if 0.05 < exact < 0.95:
                a, b = signatures([one, other])
                z.append(((a == b).mean() - exact) / math.sqrt(exact * (1 - exact) / PLACES))
        assert abs(np.mean(z)) < 0.16
        assert 0.7 < np.mean(np.square(z)) < 1.3

    def test_equal_texts_have_equal_ones_and_strangers_hardly_a_place_in_common(self) -> None:
        texts = [normalised(making.sentence(at)) for at in range(300)]
        found = signatures(texts)
        assert (signatures(texts) == found).all()
        agree = [(found[at] == found[at + 1]).mean() for at in range(299)]
        apart = [similarity(texts[at], texts[at + 1]) for at in range(299)]
        assert np.mean(agree) == pytest.approx(np.mean(apart), abs=0.01)

    @pytest.mark.parametrize("text", ODD)
    def test_a_window_never_reaches_into_the_next_text(self, text: str) -> None:
        alone = signatures([text])[0]
        for neighbours in (ODD, ODD[::-1], [text] * 3, ["", text], [text, ""], ["q" * 40, text, "r" * 40]):
            together = signatures(neighbours)
            for at, neighbour in enumerate(neighbours):
                if neighbour == text:
                    assert (together[at] == alone).all(), (text, neighbours)

    @trials(60)
    @given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.randoms(use_true_random=False))
    def test_neither_order_nor_company_matters(self, texts: list[str], draw: random.Random) -> None:
        order = list(range(len(texts)))
        draw.shuffle(order)
        together, shuffled = signatures(texts), signatures([texts[at] for at in order])
        assert (shuffled == together[order]).all()
        assert all((signatures([text])[0] == row).all() for text, row in zip(texts, together, strict=True))

    def test_the_shape(self) -> None:
        assert signatures(ODD).shape == (len(ODD), PLACES)
        assert signatures(ODD).dtype == np.uint32
        assert SHINGLE == 8

    def test_texts_that_differ_only_beyond_eight_bytes_differ(self) -> None:
        one, other = signatures(["abcdefgh", "abcdefghi"])
        assert not (one == other).all()


def test_a_content_hash_tells_texts_apart() -> None:
    texts = [*ODD, *map(making.sentence, range(2000))]
    assert len({content_hash(text) for text in texts}) == len(texts)
    assert all(0 <= content_hash(text) < 2**64 for text in texts)
    assert content_hash("trueup") == content_hash("trueup")


@trials()
@given(st.lists(st.lists(st.integers(0, 3), min_size=PLACES, max_size=PLACES), min_size=2, max_size=12))
def test_band_keys_are_equal_where_all_places_of_a_band_are(rows: list[list[int]]) -> None:
    signature = np.array(rows, dtype=np.uint32)
    keys = band_keys(signature)
    bands = signature.reshape(len(rows), BANDS, PLACES // BANDS)
    assert keys.shape == (len(rows), BANDS)
    for a in range(len(rows)):
        for b in range(a):
            assert ((keys[a] == keys[b]) == (bands[a] == bands[b]).all(axis=1)).all()


def test_bands_have_keys_of_their_own() -> None:
    """Or a row whose first band looks like another's second would be taken for near."""
    keys = band_keys(np.ones((1, PLACES), dtype=np.uint32))
    assert len(set(keys[0].tolist())) == BANDS


EXTREME = st.one_of(
    st.integers(0, 3), st.integers(2**64 - 3, 2**64 - 1), st.sampled_from([at << 58 for at in range(64)])
)


class TestBuckets:
    @trials()
    @given(st.lists(st.lists(st.tuples(EXTREME, st.integers(0, 2**40)), max_size=12), max_size=4))
    def test_against_a_dictionary(self, batches: list[list[tuple[int, int]]]) -> None:
        expected: dict[int, list[int]] = defaultdict(list)
        with Buckets() as buckets:
            for batch in batches:
                keys = np.array([key for key, _ in batch], dtype=np.uint64)
                buckets.add(keys, np.array([number for _, number in batch], dtype=np.int64))
                for key, number in batch:
                    expected[key].append(number)
            found = [group.tolist() for group in buckets.groups()]
        assert sorted(found) == sorted(sorted(group) for group in expected.values() if len(group) > 1)

    def test_nothing_in_it(self) -> None:
        with Buckets() as buckets:
            assert list(buckets.groups()) == []

    def test_its_files_are_gone_afterwards(self) -> None:
        with Buckets() as buckets:
            buckets.add(np.array([1, 1], dtype=np.uint64), np.array([1, 2]))
        with pytest.raises(ValueError, match="closed"):
            next(buckets.groups())


@trials()
@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_connected_components(made: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = made
    groups = Groups(n)
    component = list(range(n))
    for a, b in edges:
        groups.join(a, b)
        old, new = component[a], component[b]
        component = [new if one == old else one for one in component]
    smallest = [min(at for at in range(n) if component[at] == one) for one in component]
    assert groups.firsts().tolist() == smallest
    assert [groups.first(at) for at in range(n)] == smallest
