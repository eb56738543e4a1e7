"""Rates by an instrument that errs: by hand, and how often the intervals cover in simulations with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trueup.stats.detected import DIFFERENCE, SHARE, corrected_difference, prediction_powered
from trueup.stats.intervals import rate
from trueup.stats.paired import difference
from trueup.stats.pivots import critical

FOUND, FLAGGED = [0.9, 0.8], [0.0, 0.1]


def test_a_corrected_difference_by_hand() -> None:
    """Four items, all replies differ; mean t 0.85 and f 0.05, so the slope is 0.8.

    p = 3/4 and 1/4: s = (0.75 - 0.05) / 0.8 = 0.875 and (0.25 - 0.05) / 0.8 = 0.25; the difference is 0.625. The
    variances of t and f are (0.05² + 0.05²) / 1 = 0.005 each. Of the means: 0.625² · 0.01 / 0.64 / 2 = 0.0030518. Of
    the models: (0.875² + 0.125²) · 0.005 / 0.64 + (0.25² + 0.75²) · 0.005 / 0.64 = 0.0061035 + 0.0048828. The items'
    differences (1, 1, 0, 0) / 0.8 have the variance 0.5208333 (over n - 1), of the mean 0.1302083.
    """
    result = corrected_difference([1, 1, 1, 0], [0, 0, 1, 0], [False] * 4, FOUND, FLAGGED)
    drawn, sampled = 0.0030518 + 0.0061035 + 0.0048828, 0.1302083
    freedom = math.floor((drawn + sampled) ** 2 / (sampled**2 / 3 + drawn**2 / 1))
    assert result.value == pytest.approx(0.625)
    assert freedom == 3
    assert result.high == 1.0
    assert result.low == pytest.approx(0.625 - critical(3) * math.sqrt(drawn + sampled), abs=1e-5)


def test_the_same_replies_are_no_difference() -> None:
    result = corrected_difference([1, 0, 1], [1, 0, 1], [True] * 3, FOUND, FLAGGED)
    assert (result.value, result.low, result.high, result.n) == (0, 0, 0, 3)
    ours, theirs = [1, 0, 1, 0] * 25, [1, 0, 0, 1] * 25
    half = corrected_difference(ours, theirs, [True, True, False, False] * 25, [0.9, 0.8, 0.85], [0.1, 0.0, 0.05])
    whole = corrected_difference(ours, theirs, [False] * 100, [0.9, 0.8, 0.85], [0.1, 0.0, 0.05])
    assert half.high - half.low < whole.high - whole.low


@pytest.mark.parametrize(("found", "flagged"), [([0.9], [0.1]), ([0.1, 0.2], [0.3, 0.3]), ([0.9, 0.9], [0.1])])
def test_a_detector_without_known_error_is_refused(found: list[float], flagged: list[float]) -> None:
    with pytest.raises(ValueError, match=r"labelled models|measures nothing"):
        corrected_difference([1, 0], [0, 0], [False, False], found, flagged)


def coverage_of_differences(models: int, ours: float, theirs: float, n: int, draws: int) -> tuple[float, float]:
    """The shares of draws in which the corrected and the plain interval hold the true difference."""
    generator, corrected, plain = np.random.default_rng(models), 0, 0
    for _ in range(draws):
        t, f = (
            np.clip(generator.normal(0.92, 0.04, models + 2), 0, 1),
            np.clip(generator.normal(0.04, 0.02, models + 2), 0, 1),
        )
        flags = []
        for index, share in enumerate((ours, theirs)):
            true = generator.random(n) < share
            flags.append((generator.random(n) < np.where(true, t[index], f[index])).astype(float))
        ours_flags, theirs_flags = flags[0].tolist(), flags[1].tolist()
        estimate = corrected_difference(ours_flags, theirs_flags, [False] * n, t[2:].tolist(), f[2:].tolist())
        simple = difference(ours_flags, theirs_flags)
        corrected += estimate.low <= ours - theirs <= estimate.high
        plain += simple.low <= ours - theirs <= simple.high
    return corrected / draws, plain / draws


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), [(0.05, 0.05), (0.1, 0.25), (0.6, 0.5)])
@pytest.mark.parametrize("models", [2, 3, 5])
def test_a_corrected_difference_covers(models: int, ours: float, theirs: float) -> None:
    """2,000 draws, n = 200: 0.92 to 0.98 with the detector's error of each model; without it 0.74 to 0.90."""
    corrected, plain = coverage_of_differences(models, ours, theirs, 200, 2000)
    assert 0.915 <= corrected <= 0.985
    assert plain < corrected


def test_a_prediction_powered_mean_by_hand() -> None:
    """Labels 3, 5, 4, 8 with predictions 2, 4, 4, 6, and 3, 5, 4, 4 predicted elsewhere.

    Means 5, 4 and 4; the predictions' variance over all eight is 10/7: about their mean 4 the squares are 4, 0, 0, 4
    and 1, 1, 0, 0. The covariance is ((-2)(-2) + 0 + 0 + 3 · 2) / 3 = 10/3, so w = (10/3) / (2 · 10/7) = 1.1667, kept
    at 1. theta = 5 + (4 - 4) = 5; the residuals 1, 1, 0, 2 have the variance 2/3, the others' predictions 2/3: 1/6 +
    1/6.
    """
    result = prediction_powered([3, 5, 4, 8], [2, 4, 4, 6], [3, 5, 4, 4])
    assert result.value == 5
    assert result.n == 8
    assert result.high - 5 == pytest.approx(critical(3) * math.sqrt(2 / 3 / 4 + 2 / 3 / 4))


def test_a_biased_predictor_is_corrected_and_a_useless_one_ignored() -> None:
    """Predictions that are all 1 say nothing: the weight is 0 and the value the labels' own mean."""
    labels = [1.0, 0.0] * 10
    assert prediction_powered(labels, [1.0] * 20, [1.0] * 80, SHARE).value == 0.5
    flagged = prediction_powered(labels, [1.0, 0.0] * 10, [1.0] * 40 + [0.0] * 40, SHARE)
    assert flagged.value == pytest.approx(0.5)
    assert flagged.high - flagged.low < prediction_powered(labels, [1.0] * 20, [1.0] * 80, SHARE).high - 0.5 + 0.5


def test_few_labels_of_a_kind_have_wilsons_interval() -> None:
    labels = [1.0] * 4 + [0.0] * 46
    assert prediction_powered(labels, labels, [0.0] * 100, SHARE) == rate(4, 50)


def test_no_observed_difference_is_no_proof_of_none() -> None:
    """20 labels and predictions without a difference: half an item at -1 and 1 each, so the variance is 1 / 22."""
    result = prediction_powered([0.0] * 20, [0.0] * 20, [0.0] * 100, DIFFERENCE)
    assert result.value == 0
    assert result.high == -result.low == pytest.approx(critical(19) * math.sqrt(1 / 22 / 20))


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="1 labels"):
        prediction_powered([1.0], [1.0], [0.0])


def coverage_of_rates(
    n: int, others: int, share: float, found: float, flagged: float, draws: int
) -> tuple[float, float]:
    """The share of draws in which the interval holds the truth, and its mean width over that of the labels alone."""
    generator, covered, width, alone = np.random.default_rng(n), 0, 0.0, 0.0
    for _ in range(draws):
        true = generator.random(n + others) < share
        flags = (generator.random(n + others) < np.where(true, found, flagged)).astype(float)
        result = prediction_powered(true[:n].astype(float).tolist(), flags[:n].tolist(), flags[n:].tolist(), SHARE)
        labels = rate(float(true[:n].sum()), n)
        covered += result.low <= share <= result.high
        width, alone = width + result.high - result.low, alone + labels.high - labels.low
    return covered / draws, width / alone


def test_prediction_powered_rates_are_unbiased() -> None:
    """Mean of 300 draws with a detector that finds 0.6 and flags 0.3: within 3 standard errors of the truth, 0.4."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(300):
        true = generator.random(240) < 0.4
        flags = (generator.random(240) < np.where(true, 0.6, 0.3)).astype(float)
        values.append(
            prediction_powered(true[:60].astype(float).tolist(), flags[:60].tolist(), flags[60:].tolist(), SHARE).value
        )
    assert float(np.mean(values)) == pytest.approx(0.4, abs=3 * float(np.std(values)) / math.sqrt(300))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "others", "share", "found", "flagged"),
    [(50, 150, 0.2, 0.9, 0.03), (100, 400, 0.1, 0.9, 0.03), (100, 400, 0.5, 0.6, 0.3), (100, 300, 0.1, 0.97, 0.01)],
)
def test_prediction_powered_rates_cover(n: int, others: int, share: float, found: float, flagged: float) -> None:
    """2,000 draws: 0.93 to 0.985, and never wider than the labels alone by more than 2%."""
    covered, width = coverage_of_rates(n, others, share, found, flagged, 2000)
    assert 0.93 <= covered <= 0.985
    assert width <= 1.02
