from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    """GSM8K's training file, 2,000 questions with worked answers: the one in TRUEUP_GSM8K, or beside a checkout."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
    path = Path(os.environ.get("TRUEUP_GSM8K", beside))
    if not path.is_file():
        pytest.skip("GSM8K (TRUEUP_GSM8K): 0 of 2,000 questions read, so this test of real answers is not run")
    return path
