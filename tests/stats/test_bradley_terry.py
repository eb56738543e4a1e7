"""The fit: against Agresti's baseball table and a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from trueup.stats.bradley_terry import fit

# Games of the American League's east in 1987, row over column (Agresti, Categorical Data Analysis, 2nd edition 2002,
# table 10.10): Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore.
BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=float,
)


def test_baseball() -> None:
    """Against Baltimore, as R's BradleyTerry2 prints them (Turner & Firth 2012, section 3)."""
    found = fit(BASEBALL[None], prior=0)[0]
    assert found - found[-1] == pytest.approx([1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0], abs=5e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)


def by_search(wins: np.ndarray, prior: float) -> np.ndarray:
    def cost(strengths: np.ndarray) -> float:
        apart = strengths[:, None] - strengths
        own = np.logaddexp(0, strengths) + np.logaddexp(0, -strengths)
        return float((wins * np.logaddexp(0, -apart)).sum() + prior / 2 * own.sum())

    found = optimize.minimize(cost, np.zeros(len(wins)), method="BFGS", options={"gtol": 1e-9, "maxiter": 10_000})
    return found.x


@pytest.mark.parametrize("seed", range(8))
def test_any_table_against_a_general_optimiser(seed: int) -> None:
    """Sparse tables too, with models that never lost, never won, or never met."""
    draw = np.random.default_rng(seed)
    many = int(draw.integers(2, 7))
    wins = draw.poisson(draw.choice([0.3, 3, 40]), (many, many)) / 2
    np.fill_diagonal(wins, 0)
    assert fit(wins[None])[0] == pytest.approx(by_search(wins, 1.0), abs=2e-4)


def test_separated_models_do_not_run_away() -> None:
    chain = np.zeros((1, 4, 4))
    chain[0, 0, 1], chain[0, 1, 2], chain[0, 2, 3] = 100, 100, 10_000
    found = fit(chain)[0]
    assert (np.diff(found) < 0).all()
    assert np.abs(found).max() < 15
    assert found == pytest.approx(by_search(chain[0], 1.0), abs=1e-2)


def test_many_fits_at_once_are_single_fits() -> None:
    draw = np.random.default_rng(3)
    tables = draw.poisson(2.0, (20, 5, 5)).astype(float)
    tables[:, range(5), range(5)] = 0
    assert fit(tables) == pytest.approx(np.stack([fit(one[None])[0] for one in tables]), abs=1e-7)
