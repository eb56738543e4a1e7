"""Build a `Report` from the files of a run folder: the items of its evaluation, and what each stage recorded."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trueup.config import GatesConfig
from trueup.config.paths import is_address
from trueup.errors import DataError
from trueup.evaluation.items import Item, of_task, read_header
from trueup.evaluation.plan import FOLDER
from trueup.report import reading
from trueup.report.judge_card import add_self_preference, judge_card, lines
from trueup.report.reading import usable
from trueup.report.report_schema import FrontierPoint, JudgeCard, ModelOrigin, Report, ReportMissing
from trueup.report.rewardmodel import reward_card, reward_sets
from trueup.report.samples import samples
from trueup.report.scorecard import at_equal_length, measures, prepared, withheld
from trueup.report.stages import alarms, curves, outcomes, points, stage_run
from trueup.report.verdict import judge
from trueup.system.text import masked

_LIBRARIES = ("trueup", "torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class Measured:
    """The contents of an evaluation folder.

    Attributes:
        plan: plan.json, which names the models, files and settings.
        rows: model -> its evaluated items.
        wins: model -> a judge's verdicts on its answers, as items.
        judges: model -> name of that judge.
        missing: what was not measured -> why.
        origins: model -> where it came from.
    """

    plan: dict[str, Any]
    rows: dict[str, list[Item]]
    wins: dict[str, list[Item]]
    judges: dict[str, str]
    missing: dict[str, str]
    origins: dict[str, ModelOrigin] = field(default_factory=dict)


def build(folder: Path) -> Report:
    """Return the report of a run folder, made from its files.

    Raises:
        DataError: nothing was evaluated there, or a file cannot be used.
    """
    measured = read_measured(folder / FOLDER)
    with usable(folder):
        return _built(folder, measured)


def _built(folder: Path, measured: Measured) -> Report:
    plan, stages = measured.plan, {name: folder / name for name in measured.plan["stages"]}
    gates = None if plan["gates"] is None else GatesConfig.model_validate(plan["gates"])
    reward_path = folder / FOLDER / plan["reward_file"] if plan["reward_file"] else None
    reward_name = Path(plan.get("reward") or "reward").name
    report = compared(measured, gates, title=plan["title"], kind="pipeline" if stages else "comparison")
    report.command = plan["command"]
    if reward_path is not None:
        items = reading.items(reward_path)
        rankings = [item for item in items if item.task == "reward-model"]
        report.reward_model = reward_card(reward_name, rankings) if rankings else None
        report.reward_sets = reward_sets(items)
    report.judge = _judge(folder / FOLDER, measured)
    report.frontier = [point for name, path in stages.items() for point in points(name, path, plan)] + report.frontier
    report.curves = [curve for name, path in stages.items() for curve in curves(name, path)]
    report.alarms = [alarm for name, path in stages.items() for alarm in alarms(name, path)]
    report.stages = [stage_run(name, path) for name, path in stages.items()]
    base = plan["models"][plan["against"]]["source"]
    known = {(alarm.stage, alarm.name) for alarm in report.alarms}
    ended = outcomes(report.measures, report.stages, plan["against"], base)
    report.alarms += [alarm for alarm in ended if (alarm.stage, alarm.name) not in known]
    report.seconds = _seconds(stages, measured)
    return report


def _judge(folder: Path, measured: Measured) -> JudgeCard | None:
    """Return the card of the endpoint that judged; None where none did."""
    plan, settings = measured.plan, measured.plan["settings"]
    name = settings.get("judge_model")
    if not name:
        return None
    wins = {model: items for model, items in measured.wins.items() if measured.judges[model] == name}
    paths = [folder / plan["models"][model]["file"] for model in plan["models"]]
    paths += [(folder / plan["models"][model]["file"]).with_suffix(".wins.jsonl") for model in wins]
    rankings: list[Item] = []
    if plan.get("judge_file"):
        paths.append(folder / plan["judge_file"])
        rankings = reading.items(paths[-1])
    card = judge_card(name, wins, rankings, [read_header(path) for path in paths], settings)
    sources = {model: entry["source"] for model, entry in plan["models"].items()}
    add_self_preference(card, sources, plan["against"], wins, measured.rows)
    card.lines = lines(card)
    return card


def compared(
    measured: Measured, gates: GatesConfig | None, *, title: str, kind: Literal["pipeline", "comparison"]
) -> Report:
    """Return the report on an evaluation alone, without the records of training stages.

    It has the verdict, measures, reward against KL of the finished models, answer lengths and samples.
    """
    against, rows = measured.plan["against"], measured.rows
    candidates, settings = measured.plan["candidates"], measured.plan["settings"]
    controlled = at_equal_length(measured.wins)
    missing = measured.missing | withheld(controlled)
    report = Report(
        title=title,
        kind=kind,
        made=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions(),
        verdict=judge(gates, rows, against, measured.wins, measured.missing, candidates),
        against=against,
        models=list(rows),
        measures=measures(rows, against, measured.wins, measured.judges, settings, controlled),
        frontier=_finished(measured),
        lengths={name: _lengths(items) for name, items in rows.items() if _lengths(items)},
        samples=samples(rows, against),
        not_measured=[ReportMissing(what=what, why=why) for what, why in missing.items()],
        origins=measured.origins,
    )
    report.verdict.notes = origin_notes(measured.origins)
    origin = measured.origins.get(against)
    return _in_characters(report) if origin is not None and is_address(origin.source) else report


def origin_notes(origins: Mapping[str, ModelOrigin]) -> list[str]:
    """Return sentences on models with the same weights, and on endpoints, whose weights cannot be seen."""
    notes: list[str] = []
    by_hash: dict[str, list[str]] = {}
    for name, origin in origins.items():
        if origin.weights is not None:
            by_hash.setdefault(origin.weights, []).append(name)
        if is_address(origin.source):
            notes.append(
                f"{name} is an endpoint: which weights answered is not known. These are its answers of {origin.date}."
            )
    same = [" and ".join(names) for names in by_hash.values() if len(names) > 1]
    return [f"Identical weights: {names} are the same, tensor for tensor." for names in same] + notes


def _in_characters(report: Report) -> Report:
    """Return a report whose reference is an endpoint: its lengths are numbers of characters."""
    for measure in report.measures:
        measure.unit = "characters per answer" if measure.key == "length" else measure.unit
    for answer in (answer for sample in report.samples for answer in sample.answers.values()):
        answer.tokens = None
    report.lengths = {}
    return report


def read_measured(folder: Path) -> Measured:
    """Return the contents of an evaluation folder.

    Raises:
        DataError: nothing was evaluated there, or one of its files is missing or cannot be used.
    """
    plan = reading.plan(folder)
    if not plan:
        raise DataError(f"{folder}: nothing was evaluated here; run `trueup run` or `trueup evaluate` first")
    rows: dict[str, list[Item]] = {}
    wins: dict[str, list[Item]] = {}
    judges: dict[str, str] = {}
    origins: dict[str, ModelOrigin] = {}
    for name, entry in plan["models"].items():
        path = folder / entry["file"]
        if not path.is_file():
            raise DataError(f"{path}: missing, though plan.json names it; evaluate again")
        with usable(path):
            rows[name] = prepared(reading.items(path))
            header = read_header(path)
            origins[name] = ModelOrigin(
                source=masked(entry["source"]), weights=header.get("weights"), date=header.get("date")
            )
        wins_path = path.with_suffix(".wins.jsonl")
        if entry["wins"]:
            with usable(wins_path):
                wins[name], judges[name] = reading.items(wins_path), str(read_header(wins_path)["judge"])
    return Measured(plan, rows, wins, judges, plan["not_measured"], origins)


def _lengths(items: Sequence[Item]) -> list[int]:
    return [int(length) for length in of_task(items, "answers", "length").values()]


def _finished(measured: Measured) -> list[FrontierPoint]:
    """Return the mean reward and KL of each finished model as a point; the model compared with is at KL 0."""
    points: list[FrontierPoint] = []
    for name, items in measured.rows.items():
        means = {key: _mean(of_task(items, "answers", key)) for key in ("kl", "reward", "gold")}
        kl = 0.0 if name == measured.plan["against"] else means["kl"]
        if kl is not None and (means["reward"] is not None or means["gold"] is not None):
            points.append(FrontierPoint(model=name, step=None, kl=kl, proxy=means["reward"], gold=means["gold"]))
    return points


def _mean(values: Mapping[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _seconds(stages: Mapping[str, Path], measured: Measured) -> dict[str, float]:
    spent: dict[str, float] = {}
    for name, folder in stages.items():
        if (folder / "summary.json").is_file():
            spent[name] = reading.mapping(folder / "summary.json").get("seconds", 0.0)
    return spent | {"evaluation": measured.plan.get("seconds", 0.0)}


def versions() -> dict[str, str]:
    """Return name -> version of this machine's software, on which the numbers depend; "machine" is its system."""
    result = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return result
