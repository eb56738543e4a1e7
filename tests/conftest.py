"""Set before anything imports torch or transformers: one thread a process, no network, no progress bars."""

from __future__ import annotations

import importlib.util
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Comparisons with TRL are left out, and counted as skipped, where TRL is not installed."""
    if importlib.util.find_spec("trl") is not None:
        return
    for item in items:
        if item.get_closest_marker("trl"):
            item.add_marker(pytest.mark.skip(reason="TRL is not installed"))
