"""Tests of a change that is looked for again and again while a model trains: at most 5% false alarms over all looks.

A test at 3 standard errors against the best measurement so far finds a fall in one of four runs without any, after 25
looks, and in most after 100: each look is another chance, and the best of many noisy measurements is too good. Here
each look gets a share of the 5% (`level`), and each comparison within a look a share of that (Bonferroni).

A comparison takes the mean over the newest w looks and the mean over w earlier ones, prompt by prompt. In a run without
a trend the two can be exchanged, so each prompt's difference is as likely to be d as -d, whatever the distribution of
the values, and also where successive looks resemble each other. The chance of a sum S of n differences of random signs
is at most 3.178 times that of a normal variable of variance sum(d^2) (Bentkus & Dzindzalieta 2015, Bernoulli 21:1231),
and exactly 2^-k if all k differences that are not 0 have the same sign. Nothing is assumed to be normal or large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trueup.stats.arrays import Floats

ALPHA = 0.05
"""Chance of a false alarm over all looks of a run, at most."""
FIRST = 0.8
"""Share of ALPHA for the looks planned at first; each later, longer plan gets half of what is left."""
_BENTKUS = 3.178
_SAME = 1e-9
"""Differences below this part of the largest value are 0: 0.3 - 0.1 and 0.2 are the same."""


@dataclass(frozen=True, slots=True)
class Fall:
    """The clearest fall at the newest look.

    Attributes:
        p: p-value of "the values did not fall", corrected for all comparisons and looks: at most ALPHA is an alarm.
        before: first and last index of the earlier looks that are compared.
        now: first and last index of the newest looks.
        value: mean over the items of now - before.
    """

    p: float
    before: tuple[int, int]
    now: tuple[int, int]
    value: float


def below(differences: Floats) -> Floats:
    """Return for each row of (M, N) differences an upper bound of P(a sum as low as theirs), if all signs are random.

    It is the one-sided p-value of "the differences are symmetric about 0", exactly valid for any distribution.
    """
    sums, squares = differences.sum(-1), np.sqrt((differences**2).sum(-1))
    z = np.divide(-sums, squares, out=np.zeros_like(sums), where=squares > 0)
    tail = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in z])
    counts = (differences != 0).sum(-1)
    bound = np.where(z > 0, np.minimum(_BENTKUS * tail, 1.0), 1.0)
    return np.where((differences <= 0).all(-1) & (counts > 0), 0.5**counts, bound)


def level(planned: Sequence[int]) -> float:
    """Return the share of ALPHA for the newest look; over all looks of a run, made longer or not, they sum to ALPHA.

    Args:
        planned: for each look so far, the number of looks that the run was to have at that time. The look before
            training, with which the others are compared, is not one of them.
    """
    done, left, share = 0, ALPHA, FIRST * ALPHA
    for looks, group in groupby(planned):
        size = len(list(group))
        each = share / max(1, looks - done)
        done, left = done + size, left - share
        share = left / 2
    return each if done <= max(looks, 1) else 0.0


def fall(values: Floats, planned: Sequence[int]) -> Fall:
    """Return the clearest fall of the newest looks below earlier ones.

    Args:
        values: (T, N) the values of N items at T looks, two or more; the first is the one before training.
        planned: for each look after the first, the number of looks then planned (see `level`).
    """
    total = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    windows = _windows(len(values))
    widths = np.array([[width] for _, width in windows])
    starts = np.array([start for start, _ in windows])
    latest = total[-1] - total[len(values) - widths[:, 0]]
    differences = (latest - (total[starts + widths[:, 0]] - total[starts])) / widths
    differences[np.abs(differences) <= _SAME * (np.abs(values).max() or 1.0)] = 0.0
    p = below(differences)
    index = int(p.argmin())
    (start, width), corrected = windows[index], float(p[index]) * len(windows) * corrections(planned)
    return Fall(
        min(1.0, corrected), (start, start + width - 1), (len(values) - width, len(values) - 1),
        float(differences[index].mean()),
    )  # fmt: skip


def rise(now: Floats, then: Floats, planned: Sequence[int]) -> float:
    """Return the p-value of "the values (N,) did not rise" between two looks, corrected for the number of looks."""
    differences = then - now
    differences = np.where(np.abs(differences) <= _SAME * np.abs(np.stack([now, then])).max(), 0.0, differences)
    return min(1.0, float(below(differences[None])[0]) * corrections(planned))


def corrections(planned: Sequence[int]) -> float:
    """Return the factor that makes the p-value of the newest look one for all looks: ALPHA / `level`."""
    share = level(planned)
    return ALPHA / share if share else math.inf


def fewest_items(looks: int) -> int:
    """Return the least number of items with which `fall` can be clear at the last of `looks` looks: all have to fall.

    With fewer no fall whatever can be told from chance.
    """
    smallest = level([looks] * looks) / len(_windows(looks + 1))
    return math.ceil(-math.log2(smallest))


def _windows(looks: int) -> list[tuple[int, int]]:
    """Return (start, width) of the earlier windows compared with the newest one of the same width: 1, 2, 4 … looks."""
    windows, width = list[tuple[int, int]](), 1
    while 2 * width <= looks:
        windows += [(start, width) for start in range(0, looks - 2 * width + 1, max(1, width // 2))]
        width *= 2
    return windows
