"""Kappa and alpha: the papers' own examples and arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trueup.stats.agreement import alpha, coincidences, kappa

# Cohen 1960, "A coefficient of agreement for nominal scales", table 1: 200 patients, three diagnoses.
COHEN = np.array([[88, 10, 2], [14, 40, 6], [18, 10, 12]], dtype=float)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units, 0 is missing.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def test_cohens_own_example() -> None:
    """Observed .70, by chance .5 * .6 + .3 * .3 + .2 * .1 = .41: (.70 - .41) / .59 = .492."""
    assert kappa(COHEN) == pytest.approx(0.29 / 0.59)


def test_weighted_kappa_by_hand() -> None:
    """Linear weights. Observed: (10 + 14 + 6 + 10) / 200 + 2 (2 + 18) / 200 = .40.

    By chance: 1 * (.5 .3 + .3 .6 + .3 .1 + .2 .3) + 2 * (.5 .1 + .2 .6) = .42 + .34 = .76; 1 - .40 / .76.
    """
    assert kappa(COHEN, weighted=True) == pytest.approx(1 - 0.40 / 0.76)


def test_krippendorffs_own_example() -> None:
    units = np.array([[column.count(value) for value in range(1, 6)] for column in zip(*OBSERVERS, strict=True)], float)
    matrix = coincidences(units[units.sum(1) >= 2]).sum(0)
    assert matrix.sum(1) == pytest.approx([9, 13, 10, 5, 3])  # his marginal sums; 40 pairable values
    assert float(alpha(matrix)) == pytest.approx(0.743, abs=5e-4)
    assert float(alpha(matrix, "ordinal")) == pytest.approx(0.815, abs=5e-4)
    assert float(alpha(matrix, "interval")) == pytest.approx(0.849, abs=5e-4)
