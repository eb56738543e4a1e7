"""Warnings at the end of a training: by hand, for each method, and what is no reason to warn."""

from __future__ import annotations

import pytest

from trueup.evaluation.outcome import outcome
from trueup.evaluation.watch import Measurement


def names(method: str, rows: list[dict[str, float]], *history: dict[str, list[float]], **options: float) -> list[str]:
    measured = [Measurement(step, items) for step, items in enumerate(history)]
    return [text.name for text in outcome(method, rows, measured, **options)]


MOVED, STILL = [1.0, 2.0, 3.0], [0.1, -0.1, 0.05]
"""Means 2 and 0.017 with standard errors 0.577 and 0.060: the first is above 1.96 errors, the second is not."""


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0.008, ["nothing-moved"]), (0.05, []), (-0.3, ["nothing-moved"]), (0.0, ["nothing-moved"])],
)
def test_dpos_margin_in_the_log(margin: float, expected: list[str]) -> None:
    """At beta 0.1 a margin of 0.008 is 0.08 nats a pair, under 0.1: the odds moved by 8 percent."""
    rows = [{"step": step, "dpo/rewards/margin": margin} for step in range(1, 9)]
    assert names("dpo", rows, beta=0.1) == expected


def test_a_margin_within_its_error_is_not_above_zero() -> None:
    """The last quarter of eight steps: 0.9 and -0.1 are 4 ± 9.8 nats at beta 0.1."""
    rows = [{"step": step, "dpo/rewards/margin": 0.9 if step % 2 else -0.1} for step in range(1, 9)]
    assert names("dpo", rows, beta=0.1) == ["nothing-moved"]


def test_ktos_margin_is_desirable_less_undesirable() -> None:
    rows = [{"step": 1.0, "dpo/rewards/desirable": 0.2, "dpo/rewards/undesirable": 0.1}]
    assert names("dpo", rows, beta=0.1) == []
    assert names("dpo", [{**rows[0], "dpo/rewards/undesirable": 0.2}], beta=0.1) == ["nothing-moved"]


def test_a_kl_that_moved_without_a_margin_is_nothing_learned() -> None:
    still = {"chosen": [1.0, 1.0, 1.0], "rejected": [1.0, 1.1, 0.9]}
    assert names("dpo", [], {"kl": STILL, **still}) == ["nothing-moved"]
    assert names("dpo", [], {"kl": MOVED, **still}) == ["nothing-learned"]
    assert names("dpo", [], {"kl": STILL, "chosen": MOVED, "rejected": STILL}) == []


@pytest.mark.parametrize(
    ("reward", "kl", "expected"),
    [(MOVED, MOVED, []), (STILL, MOVED, ["nothing-learned"]), (STILL, STILL, ["nothing-moved"]), (MOVED, STILL, [])],
)
def test_ppos_reward(reward: list[float], kl: list[float], expected: list[str]) -> None:
    start = {"reward": [0.0, 0.0, 0.0], "kl": [0.0, 0.0, 0.0]}
    assert names("ppo", [], start, {"reward": reward, "kl": kl}) == expected


def test_a_reward_that_rose_in_between_was_learned() -> None:
    steps = [{"reward": values, "kl": MOVED} for values in ([0.0, 0.0, 0.0], MOVED, [0.0, 0.0, 0.0])]
    assert names("ppo", [], *steps) == []


@pytest.mark.parametrize(("margin", "expected"), [(0.002, ["nothing-moved"]), (0.3, [])])
def test_a_reward_models_margin(margin: float, expected: list[str]) -> None:
    assert names("reward", [{"step": step, "reward/margin": margin} for step in range(1, 5)]) == expected


@pytest.mark.parametrize(("end", "expected"), [(1.9999, ["nothing-moved"]), (1.9, []), (2.3, ["nothing-moved"])])
def test_sfts_held_out_loss(end: float, expected: list[str]) -> None:
    assert names("sft", [{"step": 0, "eval/loss": 2.0}, {"step": 3, "eval/loss": end}]) == expected


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "ppo"])
def test_what_was_not_measured_is_not_judged(method: str) -> None:
    assert names(method, [{"step": 1, "loss": 1.0}]) == []
    assert names(method, []) == []


def test_a_model_that_fell_apart() -> None:
    """It repeats itself (0 to 0.5 for every prompt), or its KL is beyond 20 nats, or three times its target."""
    fine, loops = {"repetition": [0.0] * 5, "reward": STILL}, {"repetition": [0.5] * 5, "reward": MOVED}
    start, learned = {**fine, "kl": [0.0] * 3}, {"reward": MOVED}
    assert names("ppo", [], start, {**loops, "kl": MOVED}) == ["fell-apart"]
    assert names("ppo", [], start, {**fine, **learned, "kl": [30.0, 31.0, 29.0]}) == ["fell-apart"]
    assert names("ppo", [], start, {**fine, **learned, "kl": [9.0, 9.1, 9.2]}) == []
    assert names("ppo", [], start, {**fine, **learned, "kl": [9.0, 9.1, 9.2]}, kl_target=2.0) == ["fell-apart"]
