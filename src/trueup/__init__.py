"""trueup: from a base language model and your data to an aligned model, with what it gained and what it cost.

    import trueup

    run = trueup.sft(trueup.SftConfig(model="HuggingFaceTB/SmolLM2-135M", data="rows.jsonl", output="runs/sft"))

Importing it is cheap: torch loads with the first run.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trueup.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    MissingExtraError,
    ModelError,
    TrainingError,
    TrueupError,
)

if TYPE_CHECKING:
    from trueup.config import (
        ComparisonConfig,
        DataConfig,
        DpoConfig,
        DpoWatchConfig,
        EvalConfig,
        EvaluateConfig,
        GatesConfig,
        KlConfig,
        LoraConfig,
        MixConfig,
        OptimConfig,
        PipelineConfig,
        PpoConfig,
        PreferenceLossConfig,
        RewardConfig,
        RewardLossConfig,
        RolloutConfig,
        SaveConfig,
        SftConfig,
        WatchConfig,
        load_config,
    )

__version__ = "0.1.0.dev0"

__all__ = [
    "CheckpointError",
    "ComparisonConfig",
    "ConfigError",
    "DataConfig",
    "DataError",
    "DpoConfig",
    "DpoWatchConfig",
    "EvalConfig",
    "EvaluateConfig",
    "GatesConfig",
    "Interrupted",
    "KlConfig",
    "LoraConfig",
    "MissingExtraError",
    "MixConfig",
    "ModelError",
    "OptimConfig",
    "PipelineConfig",
    "PpoConfig",
    "PreferenceLossConfig",
    "RewardConfig",
    "RewardLossConfig",
    "RolloutConfig",
    "SaveConfig",
    "SftConfig",
    "TrainingError",
    "TrueupError",
    "WatchConfig",
    "__version__",
    "dpo",
    "evaluate",
    "load_config",
    "ppo",
    "reward",
    "run",
    "sft",
]


def sft(config: SftConfig) -> Path:
    """Run supervised fine-tuning. Returns the run folder, which holds the model in `model/`."""
    return _train("sft", config)


def reward(config: RewardConfig) -> Path:
    """Train a reward model from rankings. Returns the run folder, which holds the model in `model/`."""
    return _train("reward", config)


def dpo(config: DpoConfig) -> Path:
    """Run direct preference optimisation on rankings. Returns the run folder, which holds the model in `model/`."""
    return _train("dpo", config)


def ppo(config: PpoConfig) -> Path:
    """Run reinforcement learning (PPO, RLOO, GRPO). Returns the run folder, which holds the model in `model/`."""
    return _train("ppo", config)


def run(config: PipelineConfig, *, force: Sequence[str] = (), dry_run: bool = False) -> Path:
    """Run a pipeline's stages in order, skipping those that are done. Returns the pipeline's run folder.

    Args:
        config: the pipeline.
        force: names of stages to run again even if they are done.
        dry_run: only print which stages would run.
    """
    from trueup.config import check_paths
    from trueup.evaluation.gate_power import pipeline_gates, require_passable
    from trueup.evaluation.sets import check_sets
    from trueup.preflight.early import read_pipeline

    check_paths(config)
    read_pipeline(config)
    check_sets(config.evaluate, config.gates)
    require_passable(pipeline_gates(config), config.allow)
    import_module("trueup.recipes.pipeline").run(config, force=list(force), dry_run=dry_run, source=None)
    return config.folder


def evaluate(
    runs: Sequence[str | Path], config: ComparisonConfig, *, output: Path | None = None, device: str = "auto"
) -> Path:
    """Measure models side by side and write a report; by default the others are compared with the first.

    Args:
        runs: run folders, model folders, hub ids or .gguf files.
        config: the tasks, the judges and the gates.
        output: the folder of the report; None: runs/evaluation.
        device: as in a stage's configuration.

    Returns:
        The folder of the report: `report.json` holds every number, `report.html` shows them.
    """
    from trueup.config import check_paths, find_model
    from trueup.config.paths import trust_in
    from trueup.evaluation.sets import check_sets

    check_paths(config)
    for run in runs:
        find_model(str(run), trust_in(config.allow))
    check_sets(config, config.gates)
    module = import_module("trueup.cli.compare")
    folder = output or module.DEFAULT_FOLDER
    module.evaluate([str(run) for run in runs], config, output=folder, device=device)
    return folder


def _train(method: str, config: SftConfig | RewardConfig | DpoConfig | PpoConfig) -> Path:
    """Check a stage's files and rows before torch takes its seconds to load, then train. Returns the run folder."""
    from trueup.config import check_paths
    from trueup.preflight.early import read_rows

    check_paths(config)
    read_rows(config)
    import_module(f"trueup.recipes.{method}").run(config)
    return config.output


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("trueup.config"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
