"""The public names: what a user may import is promised here, and nothing is public by accident."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trueup

NAMES = [
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


def test_the_public_names_are_these() -> None:
    assert trueup.__all__ == NAMES
    assert set(NAMES) <= set(dir(trueup))


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(trueup, name) is not None


def test_another_name_is_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'trueup' has no attribute 'grpo'"):
        trueup.grpo  # noqa: B018 (the access is the test)


def test_submodules_do_not_take_the_functions_names() -> None:
    code = (
        "import trueup, trueup.models.rewards, trueup.recipes.reward, trueup.recipes.sft, trueup.recipes.dpo, "
        "trueup.recipes.ppo; print([callable(f) for f in (trueup.sft, trueup.reward, trueup.dpo, trueup.ppo)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True, True]"


def test_a_missing_file_is_reported_before_torch_loads(tmp_path: Path) -> None:
    code = f"""
import sys, trueup
try:
    trueup.sft(trueup.SftConfig(model="owner/name", data="{tmp_path}/rows.jsonl", output="{tmp_path}/run"))
except trueup.DataError as error:
    print(error, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"data: {tmp_path}/rows.jsonl: no such file False"


def test_every_error_is_also_a_stdlib_error() -> None:
    kinds = {
        trueup.ConfigError: ValueError,
        trueup.DataError: ValueError,
        trueup.ModelError: ValueError,
        trueup.CheckpointError: RuntimeError,
        trueup.TrainingError: RuntimeError,
        trueup.MissingExtraError: ImportError,
        trueup.Interrupted: KeyboardInterrupt,
    }
    assert all(issubclass(error, (trueup.TrueupError,)) and issubclass(error, base) for error, base in kinds.items())
    codes = [error.exit_code for error in kinds]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
