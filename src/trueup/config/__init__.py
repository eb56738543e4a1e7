"""Configuration: YAML files and `key.sub=value` overrides -> checked, frozen models.

    schema.py    what each stage can be told: a pydantic model a stage
    sections.py  the sections these are made of
    pipeline.py  a file of stages, each resolved into its stage's model
    losses.py    the preference losses' parameters, read from their signatures
    yamlfile.py  YAML with line numbers, overrides
    problems.py  every problem at once, each with its line, the nearest key and the fix
    load.py      the three together: load_config, to_yaml
    paths.py     do the files and folders that a configuration names exist?
    template.py  a commented YAML of every key

Nothing here imports torch, so that a wrong key is reported at once.
"""

from __future__ import annotations

from trueup.config.load import load_config, to_yaml
from trueup.config.paths import check_paths, find_model
from trueup.config.pipeline import EvaluateConfig, PipelineConfig
from trueup.config.schema import STAGES, DpoConfig, PpoConfig, RewardConfig, SftConfig, StageConfig
from trueup.config.sections import (
    DataConfig,
    EvalConfig,
    KlConfig,
    LoraConfig,
    MixConfig,
    OptimConfig,
    PreferenceLossConfig,
    RewardLossConfig,
    RolloutConfig,
    SaveConfig,
)
from trueup.config.template import describe, template

__all__ = [
    "STAGES",
    "DataConfig",
    "DpoConfig",
    "EvalConfig",
    "EvaluateConfig",
    "KlConfig",
    "LoraConfig",
    "MixConfig",
    "OptimConfig",
    "PipelineConfig",
    "PpoConfig",
    "PreferenceLossConfig",
    "RewardConfig",
    "RewardLossConfig",
    "RolloutConfig",
    "SaveConfig",
    "SftConfig",
    "StageConfig",
    "check_paths",
    "describe",
    "find_model",
    "load_config",
    "template",
    "to_yaml",
]
