"""Compare win rates at equal length with the published length-controlled ones of AlpacaEval 2: a table and a figure.

    python scripts/length_control.py VERDICTS.jsonl --figure docs/length-control.svg

The file has one row for each model, all against one baseline: `model`, `preference` (share won by prompt, null where
there is no verdict), `model_length`, `baseline_length`, and the published rate `length_controlled_winrate` in percent.
It can also be named by TRUEUP_ALPACAEVAL.

Printed are the raw rate, the joint fit, the lone pair and the published rate of each model; how far the estimates are
from the published rates; and, over random halves of the models, the error of the joint fit on a half, and that of the
lone pair with the share of length fitted on one half and tried on the other, beside the share of 0.5 that is used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from trueup.evaluation.winrate import (
    LengthControlled,
    fit,
    jointly_length_controlled,
    length_controlled,
    rate_given_share,
)

SHARES = np.linspace(0, 1, 21)


@dataclass(frozen=True, slots=True)
class Model:
    """One model's rates: estimated jointly, as a lone pair, and published."""

    name: str
    joint: LengthControlled
    lone: LengthControlled
    published: float


def main() -> None:
    """Print the table, the errors and the halves, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verdicts", nargs="?", type=Path, default=os.environ.get("TRUEUP_ALPACAEVAL"))
    parser.add_argument("--halves", type=int, default=50, help="random halves of the models")
    parser.add_argument("--figure", type=Path, help="the SVG to draw")
    given = parser.parse_args()
    if given.verdicts is None:
        parser.error("no verdicts: name the file, or set TRUEUP_ALPACAEVAL")
    rows = read(given.verdicts)
    models = estimate(rows)
    print_table(models)
    print_errors(models)
    print_halves(rows, given.halves)
    if given.figure is not None:
        draw(models, given.figure)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of verdicts."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def joint(rows: list[dict[str, Any]]) -> list[LengthControlled]:
    """Return the joint fit of these models."""
    columns = ([row[key] for row in rows] for key in ("preference", "model_length", "baseline_length"))
    return jointly_length_controlled(*columns)


def estimate(rows: list[dict[str, Any]]) -> list[Model]:
    """Return the estimates of all models, and print the time that they took."""
    start = perf_counter()
    together = joint(rows)
    middle = perf_counter()
    alone = [length_controlled(row["preference"], row["model_length"], row["baseline_length"]) for row in rows]
    print(
        f"joint fit of {len(rows)} models: {middle - start:.2f} s; lone pairs, 2,000 resamples each: "
        f"{(perf_counter() - middle) / len(rows):.2f} s a model\n"
    )
    columns = zip(rows, together, alone, strict=True)
    return [Model(row["model"], one, other, row["length_controlled_winrate"]) for row, one, other in columns]


def print_table(models: list[Model]) -> None:
    """Print each model's rates, in percent."""
    print(f"{'model':32} {'raw':>5} {'published':>9}  {'joint':22} {'lone pair':22} unjudged")
    for model in models:
        lone, together = (
            f"withheld, n {result.raw.n}"
            if result.rate is None
            else f"{100 * result.rate.value:5.1f} [{100 * result.rate.low:.1f}, {100 * result.rate.high:.1f}]"
            for result in (model.lone, model.joint)
        )
        raw = 100 * model.lone.raw.value
        print(f"{model.name:32} {raw:5.1f} {model.published:9.1f}  {together:22} {lone:22} {model.lone.unjudged:8}")


def print_errors(models: list[Model]) -> None:
    """Print the distance of each estimate from the published rates, and how often its interval holds them."""
    raw = [100 * model.lone.raw.value - model.published for model in models]
    print(f"\nraw: rms {rms(raw):.2f} points off the published rate, at most {max(map(abs, raw)):.1f}")
    for name in ("joint", "lone"):
        rates = [(getattr(model, name).rate, model.published) for model in models]
        shown = [(rate, published) for rate, published in rates if rate is not None]
        errors = [100 * rate.value - published for rate, published in shown]
        held = sum(100 * rate.low <= published <= 100 * rate.high for rate, published in shown)
        print(
            f"{name}: rms {rms(errors):.2f}, at most {max(map(abs, errors)):.1f}; the interval holds it for {held} of "
            f"{len(shown)} models, median width {median(rate.high - rate.low for rate, _ in shown):.2f}; "
            f"{len(models) - len(shown)} withheld"
        )


def print_halves(rows: list[dict[str, Any]], halves: int) -> None:
    """Print the errors over random halves of the models."""
    generator, published = np.random.default_rng(0), np.array([row["length_controlled_winrate"] for row in rows])
    errors = np.stack([by_share(row) for row in rows]) - published[:, None]
    half = int(np.argmin(np.abs(SHARES - 0.5)))
    together: list[float] = []
    fitted: list[float] = []
    fixed: list[float] = []
    chosen: list[float] = []
    for _ in range(halves):
        order = generator.permutation(len(rows))
        one, other = order[: len(rows) // 2], order[len(rows) // 2 :]
        results = joint([rows[index] for index in one])
        together += [
            100 * result.rate.value - float(published[index])
            for index, result in zip(one, results, strict=True)
            if result.rate is not None
        ]
        best = int(np.argmin((errors[one] ** 2).mean(0)))
        chosen.append(float(SHARES[best]))
        fitted += errors[other, best].tolist()
        fixed += errors[other, half].tolist()
    print(
        f"\n{halves} random halves of the models: joint fit of one half rms {rms(together):.2f}; lone pair, share of "
        f"length fitted on one half ({min(chosen):.2f} to {max(chosen):.2f}) and tried on the other rms "
        f"{rms(fitted):.2f}, share 0.5 rms {rms(fixed):.2f}"
    )


def by_share(row: dict[str, Any]) -> np.ndarray:
    """Return the lone pair's rate in percent at each share of `SHARES`."""
    columns = (row["preference"], row["model_length"], row["baseline_length"])
    won, ours, theirs = (np.array(column, dtype=np.float64) for column in columns)
    judged = ~np.isnan(won)
    longer = (ours - theirs)[judged]
    term = np.tanh(longer / (longer.std() or 1.0))
    effect = float(fit(won[judged], term, np.ones((1, int(judged.sum()))))[0, 1])
    return np.array([100 * rate_given_share(won[judged], term, effect, float(share)) for share in SHARES])


def rms(errors: list[float]) -> float:
    """Return the root of the mean square."""
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


def draw(models: list[Model], path: Path) -> None:
    """Draw each model's estimates and intervals over the published rate."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    order = sorted(models, key=lambda model: model.published)
    with mpl.rc_context({"svg.hashsalt": "trueup", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(9, 0.5 + 0.3 * len(order)), layout="constrained")
        axes = figure.subplots()
        for shift, name, colour, label in (
            (0.16, "joint", "#1f5fa8", "joint fit of all models"),
            (-0.16, "lone", "#b0501c", "lone pair"),
        ):
            shown = [
                (y, result.rate) for y, result in enumerate(getattr(model, name) for model in order) if result.rate
            ]
            places = [y + shift for y, _ in shown]
            axes.hlines(places, [100 * r.low for _, r in shown], [100 * r.high for _, r in shown], color=colour, lw=2)
            axes.plot([100 * r.value for _, r in shown], places, "o", color=colour, ms=4, label=label)
        heights = range(len(order))
        axes.plot([100 * model.lone.raw.value for model in order], heights, "x", color="#777777", ms=5, label="raw")
        published = [model.published for model in order]
        axes.plot(published, heights, "|", color="black", ms=13, mew=2, label="published, length-controlled")
        axes.set(yticks=list(heights), yticklabels=[model.name for model in order], xlim=(0, 80))
        axes.set_xlabel("win rate against gpt4_1106_preview, %, with 95% intervals")
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
