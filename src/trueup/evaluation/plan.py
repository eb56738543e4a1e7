"""The plan of an evaluation: which models, on which sets of rows, by which judges.

The plan that was carried out is written to plan.json, from which the report reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trueup.config.untrusted import NO_TRUST, Trust
from trueup.data.sources.account import Drop
from trueup.evaluation import sets
from trueup.evaluation.items import read_header
from trueup.evaluation.published.table import PUBLISHED, Row, read_set, unscored
from trueup.system.files import atomic_write_text
from trueup.system.text import terminal_safe_json

if TYPE_CHECKING:
    from trueup.config import EvaluateConfig, GatesConfig
    from trueup.config.evaluation import PublishedSet
    from trueup.data.rendering.messages import Preference

FOLDER = "evaluation"
REWARD_FILE = "reward-model.jsonl"
JUDGE_FILE = "judge.jsonl"
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The plan of an evaluation: the models to measure, and how.

    Attributes:
        folder: the folder in which `evaluation/` is written: a pipeline's run folder, or any other.
        models: name in the report -> folder, hub id, .gguf file or endpoint (http://host/v1#name) of the model, in the
            order of the report.
        against: the name of the reference model, with which the others are compared (KL, win rate, differences).
        settings: the `evaluate` section of the configuration.
        reward: the proxy reward: a run folder, a classifier or file.py:function; None where there is none.
        gold: an independent reward, in the same forms as `reward`.
        seed: the seed of sampled answers.
        trust: the user's permissions for the models.
        title: the report's title.
        stages: names of the pipeline stages whose run folders lie in `folder`.
        gates: the limits that decide the report's verdict (ship or not).
        candidates: the names of the models that might be shipped.
        command: the command line that repeats the evaluation.
        store: a folder in which results are kept by all that they depend on, for other evaluations; None: none.
        trained: "<set> as held-out rows" -> which of its rows were trained on.
    """

    folder: Path
    models: dict[str, str]
    against: str
    settings: EvaluateConfig
    reward: str | None = None
    gold: str | None = None
    seed: int = 0
    trust: Trust = NO_TRUST
    title: str = ""
    stages: tuple[str, ...] = ()
    gates: GatesConfig | None = None
    candidates: tuple[str, ...] = ()
    command: str | None = None
    store: Path | None = None
    trained: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """The folder of the items files (one JSONL file of results per model) and of plan.json."""
        return self.folder / FOLDER

    def file(self, model: str) -> Path:
        """Return the path of the items file that holds a model's results."""
        return self.place / f"{_file_name(model)}.jsonl"

    def wins_file(self, model: str) -> Path:
        """Return the path of the JSONL file of verdicts that compare a model's answers with the reference model's."""
        return self.place / f"{_file_name(model)}.wins.jsonl"

    def wanted(self, task: str) -> bool:
        """Return True if a task such as "capability" is to be measured: evaluate.tasks names it, or is unset."""
        return self.settings.tasks is None or task in self.settings.tasks

    @cached_property
    def sets(self) -> Sets:
        """The rows to measure on (questions, prompts, passages, rankings), read from their files at the first use."""
        return self._read[0]

    @property
    def left_out(self) -> dict[str, str]:
        """Rows that the sets' own keys leave out: "3 rows of evaluate.prompts" -> the reasons with their numbers."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Sets, dict[str, str]]:
        return _read_sets(self)


@dataclass(slots=True)
class Sets:
    """The rows that every model is measured on, one list per set; empty where no wanted task needs the set."""

    capability: list[sets.Asked] = field(default_factory=list)
    forgetting: list[sets.Passage] = field(default_factory=list)
    innocent: list[sets.Asked] = field(default_factory=list)
    unsafe: list[sets.Asked] = field(default_factory=list)
    prompts: list[sets.Asked] = field(default_factory=list)
    rankings: Sequence[Preference] = ()
    published: dict[PublishedSet, list[Row]] = field(default_factory=dict)


def _read_sets(plan: Plan) -> tuple[Sets, dict[str, str]]:
    config, limit = plan.settings, plan.settings.limit
    answered = plan.wanted("answers") or plan.wanted("win-rate")
    checked = config.endpoint is not None and plan.wanted("win-rate") and config.judging.rankings > 0
    ranked = config.data is not None and (plan.wanted("preferences") or plan.wanted("reward-model") or checked)
    dropped: dict[str, list[Drop]] = {
        key: [] for key in ("capability", "forgetting", "innocent", "unsafe", "prompts", "data")
    }

    def asked(name: sets.SetName, task: str) -> list[sets.Asked]:
        return sets.prompts(name, getattr(config, name), limit, dropped=dropped[name]) if plan.wanted(task) else []

    capability = (
        sets.questions(config.capability, limit, dropped=dropped["capability"]) if plan.wanted("capability") else []
    )
    forgetting = (
        sets.passages(config.forgetting, limit, dropped=dropped["forgetting"]) if plan.wanted("forgetting") else []
    )
    innocent, unsafe = asked("innocent", "over-refusal"), asked("unsafe", "unsafe-compliance")
    samples = None if config.max_length else config.samples
    prompts = sets.prompts("prompts", config.prompts, samples, dropped=dropped["prompts"]) if answered else []
    rankings = sets.rankings(config.data, dropped=dropped["data"]) if ranked and config.data is not None else ()
    published: dict[PublishedSet, list[Row]] = {
        name: read_set(name, section)
        for name, section in config.sets.items()
        if name not in unscored(config, plan.reward)
    }
    left_out = {f"{len(drops)} rows of evaluate.{key}": _reasons(drops) for key, drops in dropped.items() if drops}
    return Sets(capability, forgetting, innocent, unsafe, prompts, rankings, published), left_out


def _reasons(drops: Sequence[Drop]) -> str:
    """Return why rows were left out, the commonest reason first, each with its number and first places."""
    reasons = Counter(drop.reason for drop in drops)
    places = {drop.reason: drop.origin for drop in reversed(drops)}
    listed = [f"{count} {reason} (first {places[reason]})" for reason, count in reasons.most_common(3)]
    return "left out: " + "; ".join([*listed, *(["…"] if len(reasons) > 3 else [])])


def counts(chosen: Sets) -> str:
    """Return the number of rows of each set as text for a message, such as "120 questions, 40 passages"."""
    parts = {
        "questions": chosen.capability,
        "passages": chosen.forgetting,
        "innocent": chosen.innocent,
        "unsafe": chosen.unsafe,
        "prompts": chosen.prompts,
        "rankings": chosen.rankings,
        **chosen.published,
    }
    return ", ".join(f"{len(rows)} {name}" for name, rows in parts.items() if rows) or "nothing"


def unmeasurable(plan: Plan) -> dict[str, str]:
    """Return name -> reason for the measurements that the plan cannot make ("win-rate" -> "there is no judge")."""
    missing: dict[str, str] = {}
    unwanted = "not among evaluate.tasks"
    names = ("capability", "forgetting", "over-refusal", "unsafe-compliance", "answers", "win-rate")
    missing |= {name: unwanted for name in (*names, "preferences", "reward-model") if not plan.wanted(name)}
    if plan.settings.data is None:
        why = "no held-out rankings; set evaluate.data"
        missing |= {name: why for name in ("preferences", "reward-model") if name not in missing}
    if plan.reward is None:
        missing["reward"] = "no reward model among the stages; set evaluate.reward"
        missing.setdefault("reward-model", missing["reward"])
    elif ".py:" in plan.reward:
        missing.setdefault("reward-model", "the reward is a function, not a model")
    if plan.gold is None:
        missing["gold reward"] = "there is no independent reward; set evaluate.gold"
    if plan.settings.endpoint is None and plan.reward is None and plan.gold is None:
        missing.setdefault("win-rate", "there is no judge; set evaluate.judge, evaluate.gold or evaluate.reward")
    return missing | unscored(plan.settings, plan.reward)


def measures_reward(plan: Plan, missing: Mapping[str, str]) -> bool:
    """Return True if a reward model is measured: on held-out rankings, or on a published set of answers to score."""
    rankings = "reward-model" not in missing and bool(plan.sets.rankings)
    return rankings or any(PUBLISHED[name].how == "ranked" for name in plan.sets.published)


def write_plan(
    plan: Plan, missing: dict[str, str], wins: Collection[str], hashes: dict[str, str], *, judged: bool = False
) -> None:
    """Write plan.json, the list of all files that belong to the evaluation. The report reads only files named in it.

    It is written last, so a stopped evaluation has no plan.json.

    Args:
        plan: the plan that was carried out.
        missing: name of a measurement that was not made -> reason.
        wins: names of the models that have a file of verdicts.
        hashes: name of a set -> hash of its rows, and "reference" -> hash of the reference model.
        judged: True if an endpoint also judged held-out rankings (judge.jsonl).
    """
    models = {name: {"source": source, "file": plan.file(name).name, "wins": name in wins}
              for name, source in plan.models.items()}  # fmt: skip
    reward_file = REWARD_FILE if measures_reward(plan, missing) else None
    judge_file = JUDGE_FILE if judged else None
    content = {
        "against": plan.against,
        "models": models,
        "candidates": list(plan.candidates),
        "reward": plan.reward,
        "gold": plan.gold,
        "reward_file": reward_file,
        "judge_file": judge_file,
        "asked": hashes,
        "settings": plan.settings.model_dump(mode="json", exclude={"gates"}),
        "title": plan.title or plan.folder.name,
        "stages": list(plan.stages),
        "gates": None if plan.gates is None else plan.gates.model_dump(mode="json", exclude_none=True),
        "command": plan.command,
        "not_measured": missing,
        "seconds": round(sum(_seconds(path) for path in _files(plan, wins, reward_file, judge_file)), 2),
    }
    atomic_write_text(
        plan.place / PLAN_FILE, terminal_safe_json(json.dumps(content, indent=2, ensure_ascii=False)) + "\n"
    )


def _files(plan: Plan, wins: Collection[str], *more: str | None) -> list[Path]:
    files = [plan.file(name) for name in plan.models] + [plan.wins_file(name) for name in wins]
    return files + [plan.place / name for name in more if name is not None]


def _seconds(path: Path) -> float:
    return read_header(path).get("seconds", 0.0)


def _file_name(model: str) -> str:
    """Return a file name for a model's name: unsafe characters become dashes, and a hash then keeps it unique."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:100]
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return plain if plain == model else f"{plain}-{digest}"
