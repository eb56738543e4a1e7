"""Numbers, intervals, shares and counts as the pages, the terminal and the model cards write them."""

from __future__ import annotations

import math
from typing import Protocol

MINUS = "\u2212"
NOT_MEASURED = "NOT MEASURED"


class WithInterval(Protocol):
    """Interface of a value with an interval; an end of None is open."""

    @property
    def value(self) -> float:
        """The estimate."""
        ...

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        ...

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        ...


def fixed(value: float, decimals: int = 2, *, sign: bool = False) -> str:
    """Return a number as text with `decimals` decimals and a true minus sign; zero has no sign."""
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def plain(value: float) -> str:
    """Return a number that has no interval as text: three significant digits, from 1,000 on a whole number."""
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS) if value else "0"


def places(number: WithInterval, most: int = 4) -> int:
    """Return how many decimals give the interval two significant digits: more are noise, fewer hide its width."""
    width = math.inf if number.low is None or number.high is None else number.high - number.low
    if not math.isfinite(width) or width <= 0:
        return 2 if abs(number.value) < 100 else 0
    return max(0, min(most, 1 - math.floor(math.log10(width))))


def interval(number: WithInterval, decimals: int, *, sign: bool = False) -> str:
    """Return the interval of a number as text, such as `[0.801, 0.876]`; an open end is an ellipsis."""
    ends = (
        "…" if end is None or not math.isfinite(end) else fixed(end, decimals, sign=sign)
        for end in (number.low, number.high)
    )
    return f"[{', '.join(ends)}]"


def estimate(number: WithInterval, *, decimals: int | None = None, sign: bool = False, most: int = 4) -> str:
    """Return a number with its interval as text, such as `0.842 [0.801, 0.876]`.

    Without `decimals` the width of the interval decides how many there are, up to `most`.
    """
    decimals = places(number, most) if decimals is None else decimals
    return f"{fixed(number.value, decimals, sign=sign)} {interval(number, decimals, sign=sign)}"


def percent(value: float) -> str:
    """Return a share as whole percent; only exactly 1 gives 100%, and only exactly 0 gives 0%."""
    rounded = round(100 * value)
    if rounded in (0, 100) and 0 < value < 1:
        return f"{'<1' if rounded == 0 else '>99'}%"
    return f"{rounded}%"


def percent_interval(number: WithInterval) -> str:
    """Return the interval of a share as text, such as `[52%, 70%]`.

    Near one half a decimal is kept, so that rounding moves no end across it.
    """
    ends = (0.0 if number.low is None else number.low, 1.0 if number.high is None else number.high)
    texts = (f"{100 * end:.1f}%" if round(100 * end) == 50 and abs(end - 0.5) > 5e-4 else percent(end) for end in ends)
    return f"[{', '.join(texts)}]"


def part_of(part: int, whole: int) -> str:
    """Return a part of a whole as percent, such as `48.1%`; 0% if the whole is 0."""
    return f"{part / whole:.1%}" if whole else "0%"


def p_value(p: float | None) -> str:
    """Return a p-value as text, such as `p 0.03` or `p < 0.001`; an empty text for None."""
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def count(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 row` or `2,048 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def memory(size: int) -> str:
    """Return a number of bytes as text in GB or MB, decimal."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
