"""`trueup evaluate` and `trueup report`: measure any models side by side; write the report of any runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trueup import runtime
from trueup.config import GatesConfig, gate_problems
from trueup.config.paths import is_adapter, is_address, split_address, trust_in
from trueup.config.sections import model_of_run
from trueup.config.untrusted import Trust
from trueup.errors import ConfigError, DataError
from trueup.evaluation.gate_power import announce, plan_gates, require_passable
from trueup.evaluation.items import Item
from trueup.evaluation.plan import FOLDER, Plan
from trueup.evaluation.remote import NO_LOGPS, named
from trueup.evaluation.suite import measure
from trueup.models.loading import compare_headers, read_config
from trueup.models.reward_model import classifier_source
from trueup.recipes.held_out import check_models_rows
from trueup.report.build import Measured, build, compared, read_measured
from trueup.report.publish import publish
from trueup.report.report_schema import Report
from trueup.system.commandline import command_line
from trueup.system.console import Progress, quiet_libraries
from trueup.system.text import expanded, home_path

if TYPE_CHECKING:
    from trueup.config import ComparisonConfig

DEFAULT_FOLDER = Path("runs/evaluation")


def evaluate(
    runs: Sequence[str], config: ComparisonConfig, *, output: Path | None = None, device: str = "auto",
    dtype: str = "auto", threads: int | None = None, strategy: str = "auto", store: Path | None = None,
) -> Report | None:  # fmt: skip
    """Measure models and write a report that compares them with one of them: `config.against`, or else the first.

    A reward model among `runs` is not compared: it is the proxy reward that scores the answers of the others, unless
    `config.reward` names one.

    Args:
        runs: run folders, model folders, hub ids, .gguf files or addresses of endpoints (http://host/v1#name).
        config: the tasks and gates.
        output: the folder of the report; None: runs/evaluation.
        device: "auto", "cpu", "cuda" or the like, as in a stage's configuration.
        dtype: the type computed in, as in a stage's configuration.
        threads: number of CPU threads; None: torch decides.
        strategy: the sharing of work among processes, as in a stage's configuration.
        store: a folder in which results are kept by content, for other evaluations; None: none.

    Returns:
        The report; None on all processes but the first.

    Raises:
        ConfigError: a model is given twice, all are reward models, `against` is none of them, a gate cannot be decided,
            or could not pass with so few items and `allow` lacks underpowered-gate, or a setting has no effect on an
            endpoint.
        DataError: rows to measure on were trained on, as the run folders say, and `allow` lacks eval-overlap.
    """
    models = models_by_name(_named([expanded(run) for run in runs]))
    rewards = [name for name, model in models.items() if _is_reward(model)]
    writers = {name: model for name, model in models.items() if name not in rewards}
    if not writers:
        raise ConfigError("evaluate: every model given is a reward model; give at least one language model")
    if config.against is not None and config.against not in writers:
        raise ConfigError(f"against: {config.against!r} is none of the language models given: {', '.join(writers)}")
    against = config.against or next(iter(writers))
    proxy = config.reward or (models[rewards[-1]] if rewards else None)
    candidates = tuple(name for name in writers if name != against)
    _check_gates(config, candidates, proxy)
    _check_remote(config, writers, against)
    gates = plan_gates(config, config.gates, len(candidates))
    require_passable(gates, config.allow)
    quiet_libraries()
    folder = home_path(output) if output else DEFAULT_FOLDER
    trust = trust_in(config.allow)
    where = runtime.init(device, dtype, threads, strategy)
    progress = Progress(quiet=not where.is_main)
    sources = [*models.values(), *(source for source in (proxy, config.gold) if source is not None)]
    trained = where.from_first(lambda: check_models_rows(sources, config, progress))
    plan = Plan(
        folder=folder, models=writers, against=against, settings=config, reward=proxy, gold=config.gold,
        trust=trust, title=" and ".join(writers), gates=config.gates, candidates=candidates, command=command_line(),
        trained=trained, store=store,
    )  # fmt: skip
    announce(gates, progress.note, progress.warn)
    _compare_headers(plan, trust, progress)
    measure(plan, where, progress.note)
    return publish(folder) if where.is_main else None


def _named(runs: Sequence[str]) -> list[str]:
    """Return the models, with the name of the model in each address; each endpoint is asked for a first token."""
    writers = [run for run in runs if is_address(run) or not _is_reward(_model(run))]
    return [named(run, writers.index(run)) if is_address(run) else run for run in runs]


def _check_remote(config: ComparisonConfig, models: Mapping[str, str], against: str) -> None:
    """Raise ConfigError if a setting has no effect on an endpoint among the models."""
    remote = [name for name, source in models.items() if is_address(source)]
    for key in ("chat_template", "template") if remote else ():
        if getattr(config, key):
            raise ConfigError(
                f"{key}: {remote[0]} is an endpoint, which uses its own chat template\n  fix: leave it out"
            )
    if remote and config.gates is not None and config.gates.forgetting_rise is not None:
        raise ConfigError(
            f"gates.forgetting_rise: cannot run: {remote[0]}: {NO_LOGPS}\n  fix: leave it out; "
            "where it comes from `gates: default`, name the other limits instead"
        )
    if config.max_length and against in remote:
        raise ConfigError(
            f"max_length: tokens are counted by {against}, which is an endpoint\n  fix: leave it out, or name a model "
            "that is loaded here as `against`"
        )


def _compare_headers(plan: Plan, trust: Trust, progress: Progress) -> None:
    """Compare the headers of all models' files with their classes, so that none is measured in vain.

    Raises:
        ModelError: the weights of one are not those of its class.
    """
    rewards = [classifier_source(reward) for reward in (plan.reward, plan.gold) if reward and ".py:" not in reward]
    kinds = [
        *((model, False) for model in plan.models.values() if not is_address(model)),
        *((reward, True) for reward in dict.fromkeys(rewards)),
    ]
    for model, is_reward in kinds:
        if ignored := compare_headers(model, trust, is_reward=is_reward):
            progress.warn(f"allowed: {ignored}")


def _check_gates(config: ComparisonConfig, candidates: Sequence[str], proxy: str | None) -> None:
    """Raise ConfigError if a gate (a limit on a measure) needs what is not measured here, or no candidate is named.

    `proxy` is the reward model that the candidates were trained against, or None.
    """
    if config.gates is None:
        return
    problems = [f"{'.'.join(map(str, place))}: {text}" for place, text in gate_problems(config, config.gates, proxy)]
    if not candidates:
        problems.append("gates: there is no second model to judge; name one")
    elif config.gates.model is not None and config.gates.model not in candidates:
        problems.append(f"gates.model: {config.gates.model!r} is not judged; name one of: {', '.join(candidates)}")
    if problems:
        raise ConfigError("\n".join(problems))


def models_by_name(runs: Sequence[str]) -> dict[str, str]:
    """Return name in the report -> path or hub id of the model.

    The name is that of the model's or run's folder, or the whole path where two folders have one name.

    Raises:
        ConfigError: a model is given twice.
    """
    places = [run if is_address(run) else os.path.normpath(run) for run in runs]  # folder/ is folder
    if twice := next((place for at, place in enumerate(places) if place in places[:at]), None):
        raise ConfigError(f"{twice}: the model is given twice; give each once")
    names = [_name(run) for run in runs]
    unique = [run if not name or names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    return {name: _model(run) for name, run in zip(unique, runs, strict=True)}


def report(runs: Sequence[Path], output: Path | None = None) -> Report:
    """Write the report of one run folder's evaluation again, or compare several runs in one report, without measuring.

    Args:
        runs: run folders that hold an evaluation.
        output: the folder for the report. None: the run folder itself; for several runs, runs/evaluation.

    Raises:
        DataError: a run holds no evaluation, or the runs were measured on different questions.
    """
    if len(runs) == 1:
        result = build(runs[0])
        return publish(runs[0] if output is None else _created(output), result)
    parts = {_short(run, runs): read_measured(run / FOLDER) for run in runs}
    together = _merged(parts)
    gates = together.plan["gates"]
    limits = None if gates is None else GatesConfig.model_validate(gates)
    result = compared(together, limits, title=" and ".join(parts), kind="comparison")
    result.command = command_line()
    return publish(_created(output or DEFAULT_FOLDER), result)


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _merged(parts: dict[str, Measured]) -> Measured:
    """Join the measurements of several runs into one, in which all models are compared with the first run's reference.

    Args:
        parts: run -> its measurements.

    Values that were measured against another reference model, or scored by another reward, are left out and listed as
    not measured, with the reason.
    """
    (first, base), *others = parts.items()
    rows = {f"{first}/{name}": items for name, items in base.rows.items()}
    origins = {f"{run}/{name}": origin for run, part in parts.items() for name, origin in part.origins.items()}
    missing = {f"{first}: {measurement}": why for measurement, why in base.missing.items()}
    for name, part in others:
        lost = _incomparable(first, base, name, part)
        rows |= {f"{name}/{model}": _without(items, lost) for model, items in part.rows.items()}
        missing |= {f"{name}: {measurement}": why for measurement, why in part.missing.items()} | {
            f"{name}: {measurement}": why for measurement, (_, why) in lost.items()
        }
    gates = base.plan["gates"]
    if gates is not None and gates.get("model") is not None:
        gates = {**gates, "model": f"{first}/{gates['model']}"}
    plan = {
        **base.plan,
        "against": f"{first}/{base.plan['against']}",
        "candidates": [f"{name}/{model}" for name, part in parts.items() for model in part.plan["candidates"]],
        "gates": gates,
    }
    wins = {f"{first}/{name}": items for name, items in base.wins.items()}
    judges = {f"{first}/{name}": judge for name, judge in base.judges.items()}
    for name, part in others:
        if part.plan["asked"]["reference"] == base.plan["asked"]["reference"]:
            wins |= {f"{name}/{model}": items for model, items in part.wins.items()}
            judges |= {f"{name}/{model}": judge for model, judge in part.judges.items()}
    return replace(base, plan=plan, rows=rows, wins=wins, judges=judges, missing=missing, origins=origins)


Incomparable = dict[str, tuple[tuple[str, str], str]]
"""Name of a measurement that cannot be compared -> ((task, value), why)."""


def _incomparable(first: str, base: Measured, name: str, part: Measured) -> Incomparable:
    """Return the measurements of run `name`, such as "KL", that cannot be compared with the first run's, and why.

    Raises:
        DataError: the runs were measured on different questions.
    """
    ours, theirs = base.plan["asked"], part.plan["asked"]
    judges = {"reward", "gold", "reference"}
    differing = sorted(key for key in ours if key not in judges and ours[key] != theirs.get(key))
    if differing:
        raise DataError(
            f"{first} and {name} were measured on different questions or settings: {', '.join(differing)} differ; "
            "evaluate both models together: trueup evaluate MODEL MODEL key=value"
        )
    lost: Incomparable = {}
    for key in ("reward", "gold"):
        if ours[key] != theirs[key]:
            lost[f"{key} compared with the first run's"] = (("answers", key), "scored by another reward")
    if ours["reference"] != theirs["reference"]:
        why = f"measured against {part.plan['against']} of {name}, which is another model"
        lost |= {
            "KL": (("answers", "kl"), why),
            "KL of the sampled tokens": (("answers", "kl_sampled"), why),
            "preferences": (("preferences", "won"), why),
            "win-rate": (("", ""), why),
        }
    return lost


def _without(items: Sequence[Item], lost: Incomparable) -> list[Item]:
    dropped = {place for place, _ in lost.values()}
    return [
        replace(item, values={key: value for key, value in item.values.items() if (item.task, key) not in dropped})
        for item in items
    ]


def _name(run: str) -> str:
    if is_address(run):
        return split_address(run)[1]
    path = Path(run)
    return path.parent.name if path.name == "model" else path.name


def _short(run: Path, runs: Sequence[Path]) -> str:
    return run.name if [other.name for other in runs].count(run.name) == 1 else str(run)


def _model(run: str) -> str:
    return model_of_run(run)


def _is_reward(model: str) -> bool:
    if not Path(model).is_dir() or is_adapter(Path(model)):
        return False
    return any("SequenceClassification" in name for name in read_config(Path(model)).get("architectures") or [])
