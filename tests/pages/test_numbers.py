"""Numbers in words: rounding hides nothing and claims nothing."""

from __future__ import annotations

import math

import pytest

from trueup.pages.numbers import (
    count,
    estimate,
    fixed,
    interval,
    memory,
    p_value,
    part_of,
    percent,
    percent_interval,
    plain,
)
from trueup.stats.intervals import Estimate


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "text"),
    [(-0.123, 2, False, "\u22120.12"), (0.5, 1, True, "+0.5"), (-0.001, 2, True, "0.00"), (math.nan, 2, False, "nan"),
     (1234.5, 1, False, "1,234.5")],
)  # fmt: skip
def test_fixed(value: float, decimals: int, sign: bool, text: str) -> None:
    assert fixed(value, decimals, sign=sign) == text


def test_decimals_follow_the_width_of_the_interval() -> None:
    assert estimate(Estimate(0.84212, 0.80123, 0.87599, 50)) == "0.842 [0.801, 0.876]"
    assert estimate(Estimate(12.3, 5.1, 19.4, 50)) == "12 [5, 19]"
    assert estimate(Estimate(12.34, -math.inf, math.inf, 1)) == "12.34 […, …]"
    assert estimate(Estimate(12.3, 5.1, 19.4, 50), decimals=1, sign=True) == "+12.3 [+5.1, +19.4]"


def test_an_open_end_is_an_ellipsis() -> None:
    class Open:
        value, low, high = 1.0, None, 2.0

    assert interval(Open(), 1) == "[…, 2.0]"


def test_rounding_never_says_all_nothing_or_one_half_where_it_is_not() -> None:
    assert [percent(value) for value in (0, 0.001, 0.994, 0.997, 1)] == ["0%", "<1%", "99%", ">99%", "100%"]
    assert percent_interval(Estimate(0.6, 0.5042, 0.69, 9)) == "[50.4%, 69%]"
    assert percent_interval(Estimate(0.6, 0.4958, 0.69, 9)) == "[49.6%, 69%]"


def test_small_words() -> None:
    assert [p_value(None), p_value(0.0004), p_value(0.0312)] == ["", "p < 0.001", "p 0.031"]
    assert [count(1, "row"), count(2048, "row"), count(2, "loss", "losses")] == ["1 row", "2,048 rows", "2 losses"]
    assert [part_of(13, 27), part_of(0, 0)] == ["48.1%", "0%"]
    assert [memory(2_500_000_000), memory(3_000_000)] == ["2.50 GB", "3 MB"]
    assert [plain(0), plain(-0.01234), plain(12345)] == ["0", "\u22120.0123", "12,345"]
