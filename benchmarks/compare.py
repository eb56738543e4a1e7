"""Compare the libraries' losses, gradients and rows, and compute speed and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.job import Told

LOSS, NORM, GRADIENT, LATER = 1e-4, 1e-3, 1e-3, 1e-2
"""Largest relative differences allowed: each step's loss (one below SMALL_LOSS, as PPO's first, where advantages of
mean 0 cancel out, relative to that); its gradient's norm before clipping; each tensor's gradient in the first step, and
in later ones, where AdamW has made whole steps of gradients that were mere rounding. Of a tensor the norm of the
difference of the compared values, over that of the values, or over a thousandth of the largest tensor's where its own
gradient is nearly nothing."""
SMALL_LOSS = 1e-3


class DifferentWorkError(RuntimeError):
    """The two sides do not compute the same: nothing is timed."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest relative differences found over the first `steps` steps, and how much was compared."""

    steps: int
    sequences: int
    tensors: int
    loss: float
    norm: float
    gradient: float


def relative(ours: float, theirs: float, least: float = 1e-12) -> float:
    """Return |a - b| over the larger of the two, or over `least`; infinite where either is not a number."""
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return math.inf
    return abs(ours - theirs) / max(abs(ours), abs(theirs), least)


def agreement(ours: Told, theirs: Told, work: str) -> Agreement:
    """Compare the two libraries' records of the same first steps.

    Raises:
        DifferentWorkError: sequences, losses or gradients differ by more than is allowed.
    """
    if ours.rows != theirs.rows:
        odd = len(set(ours.rows) ^ set(theirs.rows))
        raise DifferentWorkError(f"{work}: {odd} sequences reached the model of one side only (token ids or loss mask)")
    steps = min(len(ours.losses), len(theirs.losses))
    if not steps or not theirs.gradients:
        raise DifferentWorkError(f"{work}: a side told no loss or no gradient, so nothing can be compared")
    loss = max(relative(*pair, SMALL_LOSS) for pair in zip(ours.losses, theirs.losses, strict=False))
    norm = max(map(relative, ours.norms, theirs.norms))
    first, worst = _gradients(ours, theirs, work, first=True)
    later, worst_later = _gradients(ours, theirs, work, first=False)
    checks = (
        ("loss", loss, LOSS),
        ("gradient norm", norm, NORM),
        (worst, first, GRADIENT),
        (worst_later, later, LATER),
    )
    for what, found, allowed in checks:
        if not found <= allowed:
            raise DifferentWorkError(f"{work}: {what} differs by {found:.2g} between the sides (allowed: {allowed:g})")
    return Agreement(steps, len(ours.rows), len(theirs.gradients), loss, norm, max(first, later))


def _gradients(ours: Told, theirs: Told, work: str, *, first: bool) -> tuple[float, str]:
    """Return the largest relative difference of a tensor's gradient, in the first step or in later ones."""
    names = {side: {name for name, values in told.gradients.items() if any(values)} for side, told in
             (("trueup", ours), ("TRL", theirs))}  # fmt: skip
    if odd := sorted(names["trueup"] ^ names["TRL"]):
        side = "trueup" if odd[0] in names["trueup"] else "TRL"
        raise DifferentWorkError(f"{work}: {len(odd)} tensors have a gradient on one side only, {odd[0]} on {side}'s")
    floor = 1e-3 * max(values[0] for values in theirs.gradients.values())
    found = (0.0, "")
    for name in (one for one in names["TRL"] if one.startswith("0/") is first):
        pair = (ours.gradients[name], theirs.gradients[name])
        size = max(_size(pair[1][1:]), floor if _size(pair[1][1:]) < floor else 0.0, 1e-12)
        apart = max(_size([a - b for a, b in zip(*(one[1:] for one in pair), strict=True)]) / size,
                    abs(pair[0][0] - pair[1][0]) / max(pair[1][0], floor))  # fmt: skip
        found = max(found, (apart if math.isfinite(apart) else math.inf, f"gradient of {name}"))
    return found


def _size(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one side.

    Attributes:
        rate: units (tokens, pairs, episodes) a second, from the end of the warm-up to the end of the last step; what is
            done once before training counts with the timed rows' share of it.
        step: seconds of the median step.
        first: seconds from the start of the process to the end of the first step.
        peak: bytes.
    """

    rate: float
    step: float
    first: float
    peak: int


def measured(told: Told, units: Sequence[float], warmup: int, shares: float) -> Measured:
    """Return rate, step time, start and memory of one run.

    Args:
        told: of the run.
        units: how many units each step has.
        warmup: steps left out.
        shares: the timed rows as a fraction of those the once-only work was for.
    """
    seconds = told.ends[-1] - told.ends[warmup - 1] + told.once * shares
    each = [after - before for before, after in zip(told.ends[warmup - 1 :], told.ends[warmup:], strict=False)]
    return Measured(sum(units[warmup : len(told.ends)]) / seconds, median(each), told.ends[0], told.peak)


def summary(runs: list[Measured]) -> dict[str, Any]:
    """Summarize the rounds of one library: median and extremes of the rate, the largest peak, the median start."""
    rates = [one.rate for one in runs]
    return {
        "rate": median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "rounds": len(runs),
        "step_seconds": median(one.step for one in runs),
        "first_step_seconds": median(one.first for one in runs),
        "peak_bytes": max(one.peak for one in runs),
    }


def ratios(sides: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return trueup's speed and memory as multiples of each other library's."""
    ours = sides["trueup"]
    return {
        name: {"speed": ours["rate"] / side["rate"], "memory": ours["peak_bytes"] / side["peak_bytes"]}
        for name, side in sides.items()
        if name != "trueup" and "rate" in side
    }


def met(ratio: dict[str, float], aim: dict[str, float]) -> dict[str, bool]:
    """Return for each target whether it is met: speed at least, memory at most."""
    found: dict[str, bool] = {}
    if "speed" in aim:
        found["speed"] = ratio["speed"] >= aim["speed"]
    if "memory" in aim:
        found["memory"] = ratio["memory"] <= aim["memory"]
    return found
