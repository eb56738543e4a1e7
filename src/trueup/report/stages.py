"""What a stage left in its run folder: curves, measurements, warnings, counts, times."""

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
"""Numbers of metrics.jsonl that are drawn, and what they are called."""


def curves(stage: str, folder: Path) -> list[Curve]:
    """The numbers of metrics.jsonl that are worth a picture."""
    rows = reading.rows(folder / "metrics.jsonl")
    made: list[Curve] = []
    with usable(folder / "metrics.jsonl"):
        for key, title in TITLES.items():
            found = [(int(row["step"]), row[key]) for row in rows if key in row]
            if len(found) > 1:
                steps, values = zip(*found, strict=True)
                made.append(Curve(stage=stage, key=key, title=title, steps=list(steps), values=list(values)))
    return made


def points(stage: str, folder: Path, plan: dict[str, Any]) -> list[FrontierPoint]:
    """Each measurement on held-out prompts while training, as a point of reward against KL.

    Only where it can stand beside the finished models: the stage starts from the model that these are held against, and
    a reward is the one that scores them too.
    """
    _, config = reading.settings(folder / "config.yaml")
    if config.get("model") != plan["models"][plan["against"]]["source"]:
        return []
    watch = config["watch"] if isinstance(config.get("watch"), dict) else {}
    proxy = config["reward"] if "reward" in config else watch.get("reward")
    same = {"reward": proxy == plan["reward"], "gold": watch.get("gold") == plan["gold"]}
    made: list[FrontierPoint] = []
    with usable(folder / "watch.jsonl"):
        for row in reading.rows(folder / "watch.jsonl"):
            means = {name: sum(values) / len(values) for name, values in row["items"].items() if values}
            kept = {name: means[name] for name in same if same[name] and name in means}
            if "kl" in means and kept:
                point = {"proxy": kept.get("reward"), "gold": kept.get("gold")}
                made.append(FrontierPoint(model=stage, step=row["step"], kl=means["kl"], **point))
    return made


def alarms(stage: str, folder: Path) -> list[ReportAlarm]:
    """The warnings raised while training."""
    with usable(folder / "alarms.jsonl"):
        return [ReportAlarm(stage=stage, **row) for row in reading.rows(folder / "alarms.jsonl")]


def stage_run(name: str, folder: Path) -> StageRun:
    """What was run: counts, time, configuration. Of an unfinished stage what there is of it."""
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
    """The counts of data.json, each with the file that its section names."""
    named: dict[str, dict[str, object]] = {}
    for section, counts in data.items():
        place: Any = config
        for key in _SECTIONS.get(section, (section,)):
            place = place.get(key) if isinstance(place, dict) else None
        named[section] = ({"path": str(place["path"])} if isinstance(place, dict) and "path" in place else {}) | counts
    return named
