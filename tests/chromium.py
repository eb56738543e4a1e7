"""The Chromium that the pages are tested in: its place and its options. `conftest.browser` starts one a session."""

from __future__ import annotations

import shutil

import pytest

PATH = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
needed = pytest.mark.skipif(PATH is None, reason="no Chromium on this machine: apt-get install chromium")
