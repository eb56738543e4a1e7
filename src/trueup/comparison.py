"""`trueup evaluate` and `trueup report`: measure any models side by side; make the report of any runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trueup import runtime
from trueup.config import GatesConfig
from trueup.console import Progress, quiet_libraries
from trueup.errors import ConfigError, DataError
from trueup.evaluation.plan import FOLDER, Plan
from trueup.evaluation.suite import measure
from trueup.loading import read_config
from trueup.report.build import Measured, build, compared, read_measured
from trueup.report.publish import publish
from trueup.report.schema import Report
from trueup.stage import command_line

if TYPE_CHECKING:
    from trueup.config import ComparisonConfig

DEFAULT_FOLDER = Path("runs/evaluation")


def evaluate(
    runs: Sequence[str], config: ComparisonConfig, *, output: Path | None = None, device: str = "auto",
    dtype: str = "auto", threads: int | None = None,
) -> Report:  # fmt: skip
    """Measure each model; the first is what the others are held against, a reward model among them is the proxy.

    Args:
        runs: run folders, model folders, hub ids or .gguf files.
        config: what to measure, and gates.
        output: where the report goes; None: runs/evaluation.
        device: as a stage's.
        dtype: as a stage's.
        threads: as a stage's.

    Raises:
        ConfigError: a model is given twice, or none of them writes.
    """
    models = named(runs)
    rewards = [name for name, model in models.items() if _is_reward(model)]
    writers = {name: model for name, model in models.items() if name not in rewards}
    if not writers:
        raise ConfigError("evaluate: every model given is a reward model; give at least one that writes")
    if config.against is not None and config.against not in writers:
        raise ConfigError(f"against: {config.against!r} is none of the models; they are {', '.join(writers)}")
    quiet_libraries()
    folder = output or DEFAULT_FOLDER
    plan = Plan(
        folder=folder, models=writers, against=config.against or next(iter(writers)), settings=config,
        reward=config.reward or (models[rewards[-1]] if rewards else None), gold=config.gold,
        title=" and ".join(writers), gates=config.gates, command=command_line(),
    )  # fmt: skip
    measure(plan, runtime.init(device, dtype, threads), Progress().note)
    return publish(folder)


def named(runs: Sequence[str]) -> dict[str, str]:
    """Name -> model: the folder's own name where that tells them apart, else the whole path.

    Raises:
        ConfigError: a model is given twice.
    """
    if len(set(runs)) < len(runs):
        raise ConfigError("evaluate: a model is given twice; give each once")
    names = [_name(one) for one in runs]
    unique = [run if not name or names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    return {name: _model(run) for name, run in zip(unique, runs, strict=True)}


def report(runs: Sequence[Path], output: Path | None = None) -> Report:
    """The report of one run folder, made anew; or of several side by side, written to `output`.

    Raises:
        DataError: nothing was evaluated in one of them, or they were not asked the same.
    """
    if len(runs) == 1:
        made = build(runs[0])
        return publish(runs[0] if output is None else _made(output), made)
    parts = {_short(run, runs): read_measured(run / FOLDER) for run in runs}
    together = _merged(parts)
    gates = together.plan["gates"]
    limits = None if gates is None else GatesConfig.model_validate({**gates, "model": None})
    made = compared(together, limits, title=" and ".join(parts), kind="comparison")
    made.command = command_line()
    return publish(_made(output or DEFAULT_FOLDER), made)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _merged(parts: dict[str, Measured]) -> Measured:
    """All models of all runs; held against the first run's model, on the items that they share.

    Verdicts of a judge are kept where a run's own are against that same model; the others are not there to be had.
    """
    (first, base), *others = parts.items()
    for name, part in others:
        _check_same(first, base, name, part)
    against = f"{first}/{base.plan['against']}"
    rows = {f"{run}/{name}": items for run, part in parts.items() for name, items in part.rows.items()}
    wins = {f"{first}/{name}": items for name, items in base.wins.items()}
    missing = {f"{run}: {what}": why for run, part in parts.items() for what, why in part.missing.items()}
    missing |= {
        f"win rate of {run}/{name}": f"its answers were judged against {run}/{part.plan['against']}"
        for run, part in others
        for name in part.wins
    }
    judges = {f"{first}/{name}": judge for name, judge in base.judges.items()}
    return replace(base, plan={**base.plan, "against": against}, rows=rows, wins=wins, judges=judges, missing=missing)


ASKED = (
    "data",
    "prompts",
    "samples",
    "max_new_tokens",
    "temperature",
    "capability",
    "grader",
    "forgetting",
    "innocent",
    "unsafe",
    "limit",
    "refusals",
)
"""Settings that decide what models were asked and how answers were judged."""


def _check_same(first: str, base: Measured, name: str, part: Measured) -> None:
    ours, theirs = base.plan["settings"], part.plan["settings"]
    differing = [key for key in ASKED if ours.get(key) != theirs.get(key)]
    differing += [key for key in ("reward", "gold") if base.plan.get(key) != part.plan.get(key)]
    if set(differing) - {"reward", "gold"}:
        raise DataError(
            f"{first} and {name} were not asked the same, so they cannot be compared: evaluate."
            f"{', evaluate.'.join(differing)} differ; evaluate both with the same settings: trueup evaluate MODEL MODEL"
        )
    if differing:  # each run's own reward: a score of one is not a score of the other
        _forget(part, differing)


def _forget(part: Measured, names: Sequence[str]) -> None:
    for items in part.rows.values():
        for item in items:
            for name in names:
                item.values.pop(name, None)
    for name in names:
        part.missing[f"{name} beside the first run's"] = "scored by another reward"


def _name(run: str) -> str:
    path = Path(run)
    return path.parent.name if path.name == "model" else path.name


def _short(run: Path, runs: Sequence[Path]) -> str:
    return run.name if [one.name for one in runs].count(run.name) == 1 else str(run)


def _model(run: str) -> str:
    return str(Path(run) / "model") if (Path(run) / "model" / "config.json").is_file() else run


def _is_reward(model: str) -> bool:
    if not Path(model).is_dir():
        return False
    return any("SequenceClassification" in one for one in read_config(Path(model)).get("architectures") or [])
