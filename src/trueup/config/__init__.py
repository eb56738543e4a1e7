"""Configuration: YAML files and `key.sub=value` overrides -> checked, frozen models.

    schema.py    what each stage can be told: a pydantic model a stage
    sections.py  the sections these are made of
    evaluation.py  what is measured at the end, and the gates
    pipeline.py  a file of stages, each resolved into its stage's model
    ranking.py   what `trueup rank` can be told
    losses.py    the preference losses' parameters, read from their signatures
    yamlfile.py  YAML with line numbers, overrides
    problems.py  every problem at once, each with its line, the nearest key and the fix
    load.py      the three together: load_config, to_yaml
    paths.py     do the files and folders that a configuration names exist?
    template.py  a commented YAML of every key

Nothing here imports torch, so that a wrong key is reported at once.
"""

from __future__ import annotations

from trueup.config.evaluation import ComparisonConfig, EvaluateConfig, GatesConfig, TaskName, gate_problems
from trueup.config.load import load_config, to_yaml
from trueup.config.paths import check_paths, find_model
from trueup.config.pipeline import PipelineConfig, judged_models
from trueup.config.ranking import RankConfig
from trueup.config.schema import STAGES, DpoConfig, PpoConfig, RewardConfig, SftConfig, StageConfig
from trueup.config.sections import (
    DataConfig,
    DpoWatchConfig,
    EvalConfig,
    KlConfig,
    LoraConfig,
    MixConfig,
    OptimConfig,
    PreferenceLossConfig,
    RewardLossConfig,
    RolloutConfig,
    SaveConfig,
    TrainDataConfig,
    WatchConfig,
)
from trueup.config.template import describe, template

__all__ = [
    "STAGES",
    "ComparisonConfig",
    "DataConfig",
    "DpoConfig",
    "DpoWatchConfig",
    "EvalConfig",
    "EvaluateConfig",
    "GatesConfig",
    "KlConfig",
    "LoraConfig",
    "MixConfig",
    "OptimConfig",
    "PipelineConfig",
    "PpoConfig",
    "PreferenceLossConfig",
    "RankConfig",
    "RewardConfig",
    "RewardLossConfig",
    "RolloutConfig",
    "SaveConfig",
    "SftConfig",
    "StageConfig",
    "TaskName",
    "TrainDataConfig",
    "WatchConfig",
    "check_paths",
    "describe",
    "find_model",
    "gate_problems",
    "judged_models",
    "load_config",
    "template",
    "to_yaml",
]
