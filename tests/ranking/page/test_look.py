"""What holds the page's files together: the report's look, what is packaged, what is missing without the extra."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files

import pytest

from trueup.ranking.page.app import FILES
from trueup.system.commandline import install_command

VARIABLE = re.compile(r"(--[\w-]+):\s*([^;]+);")


def variables(package: str, name: str) -> list[dict[str, str]]:
    """The variables of the first two blocks of a style sheet: light and dark."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return [dict(VARIABLE.findall(block)) for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]]


def test_the_look_is_the_reports() -> None:
    own, report = variables("trueup.ranking.page", "rank.css"), variables("trueup.pages", "base.css")
    for mine, theirs in zip(own, report, strict=True):
        shared = mine.keys() & theirs.keys()
        assert len(shared) > 12
        assert {name: mine[name] for name in shared} == {name: theirs[name] for name in shared}


def test_every_file_that_the_page_asks_for_is_served() -> None:
    names = {one.name for one in files("trueup.ranking.page").iterdir()}
    asked = set()
    for name in names:
        if name.endswith((".j2", ".js")):
            text = files("trueup.ranking.page").joinpath(name).read_text(encoding="utf-8")
            asked |= set(re.findall(r'"/([\w-]+\.(?:js|css))"', text))
    assert asked == set(FILES)
    assert asked <= names


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "markdown_it", "pygments", "sqlalchemy"])
def test_without_the_extra_it_is_said(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from trueup.errors import MissingExtraError
try:
    from trueup.ranking.page import serve
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(f"needs the extra rank: {install_command('rank')}"), done.stderr
