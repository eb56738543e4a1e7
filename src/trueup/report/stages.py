"""Read what a training stage left in its run folder: curves, measurements while training, alarms, counts and times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.report import reading
from trueup.report.reading import usable
from trueup.report.report_schema import Curve, FrontierPoint, ReportAlarm, StageRun

TITLES = {
    "sft/loss": "training loss, nats a token",
    "reward/loss": "training loss, nats a pair",
    "reward/accuracy": "right on training rankings",
    "dpo/loss": "training loss",
    "dpo/rewards/accuracy": "right on training rankings",
    "dpo/rewards/chosen": "implicit reward, chosen",
    "dpo/rewards/rejected": "implicit reward, rejected",
    "ppo/reward": "proxy reward of rollouts",
    "ppo/kl": "KL of rollouts, nats an answer",
    "ppo/length": "tokens an answer in rollouts",
    "mix/loss": "mixed-in data, nats a token",
    "eval/loss": "held-out loss",
    "eval/accuracy": "right on held-out rankings",
    "eval/reward": "proxy reward, held-out prompts",
    "eval/gold": "gold reward, held-out prompts",
    "eval/kl": "KL, held-out prompts, nats an answer",
    "eval/length": "tokens an answer, held-out prompts",
    "eval/repetition": "repeated trigrams, held-out prompts",
}
"""Key in metrics.jsonl -> title of its curve."""


def curves(stage: str, folder: Path) -> list[Curve]:
    """Return the curves in a stage's metrics.jsonl that the report draws: those of the keys in TITLES, over steps."""
    rows = reading.rows(folder / "metrics.jsonl")
    result: list[Curve] = []
    with usable(folder / "metrics.jsonl"):
        for key, title in TITLES.items():
            points = [(int(row["step"]), row[key]) for row in rows if key in row]
            if len(points) > 1:
                steps, values = zip(*points, strict=True)
                result.append(Curve(stage=stage, key=key, title=title, steps=list(steps), values=list(values)))
    return result


def points(stage: str, folder: Path, plan: dict[str, Any]) -> list[FrontierPoint]:
    """Return the measurements on held-out prompts while a stage trained, as points of reward against KL.

    Only points that compare with the finished models are kept: the stage starts from the model that all are compared
    with, and the reward is the one that scores the finished models too.

    Args:
        stage: the stage's name.
        folder: its run folder, with config.yaml and watch.jsonl, the measurements.
        plan: the contents of the evaluation's plan.json, which names the models and rewards.
    """
    _, config = reading.settings(folder / "config.yaml")
    if config.get("model") != plan["models"][plan["against"]]["source"]:
        return []
    watch = config["watch"] if isinstance(config.get("watch"), dict) else {}
    proxy = config["reward"] if "reward" in config else watch.get("reward")
    same = {"reward": proxy == plan["reward"], "gold": watch.get("gold") == plan["gold"]}
    result: list[FrontierPoint] = []
    with usable(folder / "watch.jsonl"):
        for row in reading.rows(folder / "watch.jsonl"):
            means = {name: sum(values) / len(values) for name, values in row["items"].items() if values}
            kept = {name: means[name] for name in same if same[name] and name in means}
            if "kl" in means and kept:
                point = {"proxy": kept.get("reward"), "gold": kept.get("gold")}
                result.append(FrontierPoint(model=stage, step=row["step"], kl=means["kl"], **point))
    return result


def alarms(stage: str, folder: Path) -> list[ReportAlarm]:
    """Return the alarms (warnings such as "gold-falls") that were raised while a stage trained."""
    with usable(folder / "alarms.jsonl"):
        return [ReportAlarm(stage=stage, **row) for row in reading.rows(folder / "alarms.jsonl")]


def stage_run(name: str, folder: Path) -> StageRun:
    """Return what is reported of one stage: counts of its data, time and configuration.

    Of an unfinished stage only the files that exist are used.
    """
    text, config = reading.settings(folder / "config.yaml")
    summary = reading.mapping(folder / "summary.json")
    kept = {key: summary[key] for key in _FROM_SUMMARY if key in summary}
    with usable(folder):
        return StageRun(
            name=name, method=summary.get("method", "?"), finished=bool(summary), base=str(config.get("model", "?")),
            data=_counts(config, reading.mapping(folder / "data.json")), seed=config.get("seed"), config=text, **kept,
        )  # fmt: skip


_FROM_SUMMARY = ("steps", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes", "stopped_early")
_SECTIONS = {"eval": ("eval", "data"), "mix": ("mix", "data")}


def _counts(config: dict[str, Any], data: dict[str, Any]) -> dict[str, dict[str, object]]:
    """Return data section -> its counts of rows from data.json, with the path of its file from the configuration."""
    result: dict[str, dict[str, object]] = {}
    for section, counts in data.items():
        value: Any = config
        for key in _SECTIONS.get(section, (section,)):
            value = value.get(key) if isinstance(value, dict) else None
        result[section] = ({"path": str(value["path"])} if isinstance(value, dict) and "path" in value else {}) | counts
    return result
