"""`trueup evaluate` and `trueup report`: measure any models side by side; make the report of any runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trueup import runtime
from trueup.config import GatesConfig, gate_problems
from trueup.errors import ConfigError, DataError
from trueup.evaluation.items import Item
from trueup.evaluation.plan import FOLDER, Plan
from trueup.evaluation.suite import measure
from trueup.models.loading import read_config
from trueup.report.build import Measured, build, compared, read_measured
from trueup.report.publish import publish
from trueup.report.schema import Report
from trueup.system.commandline import command_line
from trueup.system.console import Progress, quiet_libraries

if TYPE_CHECKING:
    from trueup.config import ComparisonConfig

DEFAULT_FOLDER = Path("runs/evaluation")


def evaluate(
    runs: Sequence[str], config: ComparisonConfig, *, output: Path | None = None, device: str = "auto",
    dtype: str = "auto", threads: int | None = None, strategy: str = "auto",
) -> Report | None:  # fmt: skip
    """Measure each model; the first is what the others are held against, a reward model among them is the proxy.

    Args:
        runs: run folders, model folders, hub ids or .gguf files.
        config: what to measure, and gates.
        output: where the report goes; None: runs/evaluation.
        device: as a stage's.
        dtype: as a stage's.
        threads: as a stage's.
        strategy: as a stage's.

    Returns:
        The report; None on all processes but the first.

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
    against = config.against or next(iter(writers))
    proxy = config.reward or (models[rewards[-1]] if rewards else None)
    candidates = tuple(name for name in writers if name != against)
    _check_gates(config, candidates, proxy)
    quiet_libraries()
    folder = output or DEFAULT_FOLDER
    plan = Plan(
        folder=folder, models=writers, against=against, settings=config, reward=proxy, gold=config.gold,
        title=" and ".join(writers), gates=config.gates, candidates=candidates, command=command_line(),
    )  # fmt: skip
    where = runtime.init(device, dtype, threads, strategy)
    measure(plan, where, Progress(quiet=not where.is_main).note)
    return publish(folder) if where.is_main else None


def _check_gates(config: ComparisonConfig, candidates: Sequence[str], proxy: str | None) -> None:
    """Raise ConfigError for a gate that could only end as "not run", and for a verdict on nobody."""
    if config.gates is None:
        return
    problems = [f"{'.'.join(map(str, place))}: {text}" for place, text in gate_problems(config, config.gates, proxy)]
    if not candidates:
        problems.append("gates: there is no second model to judge; name one")
    elif config.gates.model is not None and config.gates.model not in candidates:
        problems.append(f"gates.model: {config.gates.model!r} is not judged; {', '.join(candidates)}")
    if problems:
        raise ConfigError("\n".join(problems))


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
    limits = None if gates is None else GatesConfig.model_validate(gates)
    made = compared(together, limits, title=" and ".join(parts), kind="comparison")
    made.command = command_line()
    return publish(_made(output or DEFAULT_FOLDER), made)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _merged(parts: dict[str, Measured]) -> Measured:
    """All models of all runs; held against the first run's model, on the items that they share.

    What was measured against another model than that one, or scored by another reward, is left out and named.
    """
    (first, base), *others = parts.items()
    rows = {f"{first}/{name}": items for name, items in base.rows.items()}
    missing = {f"{first}: {what}": why for what, why in base.missing.items()}
    for name, part in others:
        lost = _incomparable(first, base, name, part)
        rows |= {f"{name}/{model}": _without(items, lost) for model, items in part.rows.items()}
        missing |= {f"{name}: {what}": why for what, why in part.missing.items()} | {
            f"{name}: {what}": why for what, (_, why) in lost.items()
        }
    gates = base.plan["gates"]
    if gates is not None and gates.get("model") is not None:
        gates = {**gates, "model": f"{first}/{gates['model']}"}
    plan = {
        **base.plan,
        "against": f"{first}/{base.plan['against']}",
        "candidates": [f"{name}/{one}" for name, part in parts.items() for one in part.plan["candidates"]],
        "gates": gates,
    }
    wins = {f"{first}/{name}": items for name, items in base.wins.items()}
    judges = {f"{first}/{name}": judge for name, judge in base.judges.items()}
    for name, part in others:
        if part.plan["asked"]["reference"] == base.plan["asked"]["reference"]:
            wins |= {f"{name}/{model}": items for model, items in part.wins.items()}
            judges |= {f"{name}/{model}": judge for model, judge in part.judges.items()}
    return replace(base, plan=plan, rows=rows, wins=wins, judges=judges, missing=missing)


Lost = dict[str, tuple[tuple[str, str], str]]
"""What cannot be compared -> ((task, value), why)."""


def _incomparable(first: str, base: Measured, name: str, part: Measured) -> Lost:
    """What another run's numbers cannot be held against.

    Raises:
        DataError: the runs were not asked the same questions.
    """
    ours, theirs = base.plan["asked"], part.plan["asked"]
    judges = {"reward", "gold", "reference"}
    differing = sorted(key for key in ours if key not in judges and ours[key] != theirs.get(key))
    if differing:
        raise DataError(
            f"{first} and {name} were not asked the same, so they cannot be compared: {', '.join(differing)} differ; "
            "evaluate both with the same settings and sets: trueup evaluate MODEL MODEL key=value"
        )
    lost: Lost = {}
    for key in ("reward", "gold"):
        if ours[key] != theirs[key]:
            lost[f"{key} beside the first run's"] = (("answers", key), "scored by another reward")
    if ours["reference"] != theirs["reference"]:
        why = f"measured against {part.plan['against']} of {name}, which is another model"
        lost |= {
            "KL": (("answers", "kl"), why),
            "preferences": (("preferences", "won"), why),
            "win-rate": (("", ""), why),
        }
    return lost


def _without(items: Sequence[Item], lost: Lost) -> list[Item]:
    gone = {place for place, _ in lost.values()}
    return [
        replace(item, values={key: one for key, one in item.values.items() if (item.task, key) not in gone})
        for item in items
    ]


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
