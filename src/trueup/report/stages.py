"""Read what a training stage left in its run folder: curves, measurements while training, alarms, counts and times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.evaluation.outcome import SMALL_KL
from trueup.evaluation.watch import FAR, REPEATS
from trueup.report import reading
from trueup.report.reading import usable
from trueup.report.report_schema import Curve, FrontierPoint, Measure, ReportAlarm, StageRun

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


LOW_ENTROPY = 0.25
"""A model has fallen apart below this share of the entropy of the model that it is compared with."""


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
    """Return the alarms of a stage: those raised while it trained ("gold-falls"), and at its end ("nothing-moved")."""
    with usable(folder / "alarms.jsonl"):
        raised = [ReportAlarm(stage=stage, **row) for row in reading.rows(folder / "alarms.jsonl")]
    with usable(folder / "summary.json"):
        ended = reading.mapping(folder / "summary.json").get("outcome", [])
        return raised + [ReportAlarm(stage=stage, **row) for row in ended]


def outcomes(measures: Sequence[Measure], stages: Sequence[StageRun], against: str, base: str) -> list[ReportAlarm]:
    """Return alarms about finished models, from the measures of the report.

    A model has not moved if the interval of its KL from the model that it started from reaches down to next to 0. It
    fell apart if it repeats itself or is very far away, by the limits of the warnings during training, or if it has
    lost three quarters of its entropy.

    Args:
        measures: the report's measures.
        stages: the report's stages.
        against: the model that all are compared with.
        base: the folder or name of that model: only stages that start from it have their KL from their start measured.
    """
    by_key = {measure.key: measure for measure in measures}
    alarms: list[ReportAlarm] = []
    for stage in stages:
        values = {key: measure.values.get(stage.name) for key, measure in by_key.items()}
        first = {key: measure.values.get(against) for key, measure in by_key.items()}
        kl, step = values.get("kl"), int(stage.steps or 0)
        if kl is not None and stage.base == base and not kl.withheld and kl.low <= SMALL_KL:
            text = f"the KL from {against}, where it started, is {kl.value:.2g} [{kl.low:.2g}, {kl.high:.2g}] nats"
            fix = "raise optim.lr (trueup config METHOD prints the defaults) or train for more steps"
            alarms.append(ReportAlarm(stage=stage.name, step=step, name="nothing-moved", message=text, fix=fix))
        facts = [f"its KL is {kl.value:.0f} nats per answer"] if kl is not None and kl.low > FAR else []
        now, then = values.get("repetition"), first.get("repetition")
        if now is not None and then is not None and now.low > then.high and now.value - then.value >= REPEATS:
            facts.append(f"{now.value:.0%} of its trigrams are repeats, {then.value:.0%} of those of {against}")
        now, then = values.get("entropy"), first.get("entropy")
        if now is not None and then is not None and now.high < LOW_ENTROPY * then.low:
            facts.append(f"its entropy is {now.value:.2g} nats per token, that of {against} {then.value:.2g}")
        if facts:
            fix = "lower optim.lr, train for fewer steps, or raise the KL penalty (kl.coef; DPO: beta)"
            text = f"the trained model fell apart: {'; '.join(facts)}"
            alarms.append(ReportAlarm(stage=stage.name, step=step, name="fell-apart", message=text, fix=fix))
    return alarms


def stage_run(name: str, folder: Path) -> StageRun:
    """Return what is reported of one stage: counts of its data, time and configuration.

    Of an unfinished stage only the files that exist are used.
    """
    text, config = reading.settings(folder / "config.yaml")
    summary = reading.mapping(folder / "summary.json")
    kept = {key: summary[key] for key in _FROM_SUMMARY if key in summary}
    with usable(folder):
        kept["watched"] = _watched(reading.rows(folder / "watch.jsonl"))
        return StageRun(
            name=name, method=summary.get("method", "?"), finished=bool(summary), base=str(config.get("model", "?")),
            data=_counts(config, reading.mapping(folder / "data.json")), seed=config.get("seed"), config=text, **kept,
        )  # fmt: skip


def _watched(rows: Sequence[dict[str, Any]]) -> str:
    """Return in words on how many prompts and measurements the warnings of a stage rest; "" without any."""
    sizes = [len(values) for values in rows[0]["items"].values()] if rows else []
    return f"{max(sizes)} held-out prompts, {len(rows)} measurements" if sizes else ""


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
