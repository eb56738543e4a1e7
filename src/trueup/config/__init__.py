"""Configuration: load YAML files and `key.sub=value` overrides into checked, frozen models.

    schema.py      the keys of each stage: one pydantic model per stage
    sections.py    the sections that these models share
    evaluation.py  the `evaluate` and `gates` sections
    pipeline.py    a file of stages, each resolved into its stage's model
    ranking.py     the keys of `trueup rank`
    functions.py  losses, advantages, KL estimators, a user's file.py:function: parameters read from signatures
    yamlfile.py    YAML with line numbers, overrides
    problems.py    several problems in one error, each with its place
    other_tools.py names of settings in other tools, with the keys here
    explain.py     pydantic's errors as messages: the line, the nearest key, the fix
    load.py        load_config, to_yaml
    paths.py       checks that the files and folders in a configuration exist
    untrusted.py   refuses model files that could run code
    template.py    a commented YAML of every key

Nothing here imports torch, so that a wrong key is reported at once.
"""

from __future__ import annotations

from trueup.config.evaluation import (
    DEFAULT_LIMITS,
    ComparisonConfig,
    EvaluateConfig,
    GatesConfig,
    TaskName,
    gate_problems,
)
from trueup.config.load import load_config, to_yaml
from trueup.config.paths import check_paths, find_model, find_policy
from trueup.config.pipeline import PipelineConfig, judged_models
from trueup.config.ranking import RankConfig
from trueup.config.schema import STAGES, TEMPLATE_NAMES, DpoConfig, PpoConfig, RewardConfig, SftConfig, StageConfig
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
    "DEFAULT_LIMITS",
    "STAGES",
    "TEMPLATE_NAMES",
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
    "find_policy",
    "gate_problems",
    "judged_models",
    "load_config",
    "template",
    "to_yaml",
]
