"""Set before anything imports torch or transformers: one thread a process, no network, no progress bars."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A shell's background job ignores Ctrl-C, and so would every program that a test starts and stops by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Checkpoints and votes are synced to the disk again and again; in memory, where there is room, that costs
# nothing. PYTEST_DEBUG_TEMPROOT=/tmp goes back to the real one.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 6 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Tokenized rows of tests go into a folder of their own, that of one process and those it starts.
os.environ["TRUEUP_CACHE"] = tempfile.mkdtemp(prefix="trueup-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
atexit.register(shutil.rmtree, os.environ["TRUEUP_CACHE"], ignore_errors=True)


LONG = (
    "windtunnel/test_quickstart.py",
    "ranking/page/test_browser.py",
    "ranking/page/test_states.py",
    "ranking/page/test_server.py",
    "export/test_proof.py",
    "distributed/test_equal.py",
    "recipes/test_pipeline.py",
    "hostile/test_secrets.py",
    "hostile/test_models.py",
    "recipes/test_held_out.py",
    "test_families.py",
    "recipes/test_rollouts.py",
    "training/test_loop.py",
    "export/test_writing.py",
    "reliability/test_determinism.py",
    "recipes/test_columns.py",
)
"""Files that take ten seconds or more. They are begun first, so that no process ends with one while the other waits."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first and mark properties; leave comparisons with TRL out, as skipped, where it is not installed.

    Processes take whole files in this order (`--dist loadfile --no-loadscope-reorder`).
    """
    ranks = {str(Path(__file__).parent / name): rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(str(item.path), len(LONG)))
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.properties)
    if importlib.util.find_spec("trl") is not None:
        return
    for item in items:
        if item.get_closest_marker("trl"):
            item.add_marker(pytest.mark.skip(reason="TRL is not installed"))


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of all later garbage collections, which took a third of a second each."""
    gc.collect()
    gc.freeze()


# Test modules share `tiny.py`; under --import-mode=importlib their folder is not on the path by itself.
sys.path.insert(0, str(Path(__file__).parent))

import chromium  # noqa: E402 -- from the path above


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the plain tiny model (see tiny.py). Shared by all tests: read it, never write into it."""
    from tiny import tiny_folder

    return tiny_folder(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium, one for all tests of a session: each opens a context of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium.PATH, args=chromium.ARGUMENTS)
        yield opened
        opened.close()
