"""`trueup evaluate`: compare any models or run folders, the first being what the others are held against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trueup import runtime
from trueup.console import Progress, quiet_libraries
from trueup.errors import ConfigError
from trueup.evaluation.compare import Comparison, compare, load_task
from trueup.files import atomic_write_text
from trueup.loading import read_config

if TYPE_CHECKING:
    from trueup.config import DataConfig


def run(
    runs: Sequence[str], *, data: DataConfig | None, prompts: DataConfig | None, samples: int, output: Path | None,
    max_new_tokens: int = 64, show: int = 3,
) -> Comparison:  # fmt: skip
    """Measure each model; a reward model among them becomes the judge of the others.

    Args:
        runs: run folders, model folders, hub ids or .gguf files.
        data: held-out rankings.
        prompts: held-out prompts.
        samples: prompts answered.
        output: where evaluation.json goes; None: into the last run's folder, if it is one.
        max_new_tokens: longest answer.
        show: answers shown side by side.

    Raises:
        ConfigError: there is nothing to measure on, or no model that writes.
    """
    if data is None and prompts is None:
        raise ConfigError("evaluate: nothing to measure on; give --prompts, --data (held-out rankings), or both")
    names = [_name(one) for one in runs]
    names = [run if not name or names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    models = {name: _model(one) for name, one in zip(names, runs, strict=True)}
    if len(models) < len(runs):
        raise ConfigError("evaluate: a model is given twice; give each once")
    rewards = [name for name, model in models.items() if _is_reward(model)]
    policies = {name: model for name, model in models.items() if name not in rewards}
    if not policies:
        raise ConfigError("evaluate: every model given is a reward model; give at least one that writes")
    quiet_libraries()
    task = load_task(
        prompts, data, samples=samples, show=show, seed=0, max_new_tokens=max_new_tokens,
        reward=models[rewards[-1]] if rewards else None,
    )  # fmt: skip
    result = compare(policies, task, runtime.init(), against=next(iter(policies)), note=Progress().note)
    result.show()
    folder = output or (Path(runs[-1]) if Path(runs[-1]).is_dir() else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / "evaluation.json", json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n")
        print(f"\nwritten to {folder / 'evaluation.json'}")
    return result


def _name(run: str) -> str:
    path = Path(run)
    return path.parent.name if path.name == "model" else path.name


def _model(run: str) -> str:
    return str(Path(run) / "model") if (Path(run) / "model" / "config.json").is_file() else run


def _is_reward(model: str) -> bool:
    if not Path(model).is_dir():
        return False
    return any("SequenceClassification" in one for one in read_config(Path(model)).get("architectures") or [])
