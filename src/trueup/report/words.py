"""Numbers and judgements in words, the same on the page, in the terminal and in a model card."""

from __future__ import annotations

import math
from typing import Any

from trueup.report.schema import Difference, Measure, Number, Report
from trueup.system.text import clean

MINUS = "\u2212"
NOT_MEASURED = "NOT MEASURED"
SYMBOLS = {"SHIP": "check", "HOLD": "cross", "NOT SHOWN": "question", "NOT JUDGED": "dash"} | {
    "pass": "check",
    "fail": "cross",
    "not shown": "question",
    "not run": "dash",
}
"""Verdict or outcome -> the name of its icon."""


def cleaned(report: Report) -> Report:
    """The same report with every text, keys included, passed through `clean`: nothing can act, everything is seen."""
    return Report.model_validate(_clean(report.model_dump()))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def one_line(text: str, limit: int = 0) -> str:
    """Text without line breaks; with `limit`, at most so many characters, the last an ellipsis where it was cut."""
    flat = " ".join(text.split())
    return flat if not limit or len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def places(one: Number, most: int = 4) -> int:
    """Decimal places that give the interval two significant digits: more would be noise, fewer would hide it."""
    width = one.high - one.low
    if not math.isfinite(width) or width <= 0:
        return 2 if abs(one.value) < 100 else 0
    return max(0, min(most, 1 - math.floor(math.log10(width))))


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with so many decimals and a true minus sign; never a minus before zero."""
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def plain(value: float) -> str:
    """A number without an interval, in at most three significant digits where it has decimals."""
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS) if value else "0"


def interval(one: Number, decimals: int, *, sign: bool = False) -> str:
    """`[0.801, 0.876]`."""
    return f"[{fixed(one.low, decimals, sign=sign)}, {fixed(one.high, decimals, sign=sign)}]"


def estimate(one: Number, *, sign: bool = False, most: int = 4) -> str:
    """`0.842 [0.801, 0.876]`."""
    decimals = places(one, most)
    return f"{fixed(one.value, decimals, sign=sign)} {interval(one, decimals, sign=sign)}"


def judged(measure: Measure, difference: Difference) -> str:
    """The word: "better", "worse", "higher" or "lower" where a difference is shown, else "not shown"."""
    if not difference.shown:
        return "not shown"
    if measure.better == "neither":
        return "higher" if difference.value > 0 else "lower"
    return "better" if (difference.value > 0) == (measure.better == "higher") else "worse"


def p_value(p: float) -> str:
    """`p 0.03`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def aim(measure: Measure) -> str:
    """Which way a measure is better; nothing where neither is."""
    return {"higher": "higher is better", "lower": "lower is better", "neither": ""}[measure.better]


def memory(count: int) -> str:
    """Bytes in GB or MB, decimal."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
