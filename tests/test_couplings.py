"""What no import shows: names of modules and files of the package that stand in the code as text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trueup
from trueup.data.tokens import build
from trueup.runs.environment import code_version
from trueup.system.files import fingerprint
from trueup.system.interrupt import _FRAGILE

ROOT = Path(trueup.__file__).parent
MODULE = re.compile(r"trueup(\.[A-Za-z_]\w*)+")
RESOURCE = re.compile(r"[\w-]+\.(css|js|j2|html\.j2|yaml|jsonl)")
NO_MODULES = {"trueup.json"}  # a file that is written beside an adapter


def literals() -> Iterator[tuple[str, str]]:
    """Every string of the package's code, with its place."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def package_calls() -> Iterator[tuple[str, str, str]]:
    """Every call that is given a package's name and, behind it, a file's: its place, the package, the file."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                names = [one for one in texts if isinstance(one, str)]
                for package in (one for one in names if MODULE.fullmatch(one)):
                    for name in (one for one in names if RESOURCE.fullmatch(one)):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", package, name


def exists(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return (path / "__init__.py").is_file() or path.with_suffix(".py").is_file()


def test_every_module_named_in_a_string_is_there() -> None:
    named = [(place, text) for place, text in literals() if MODULE.fullmatch(text) and text not in NO_MODULES]
    assert len(named) > 20
    assert [one for one in named if not exists(one[1])] == []


def test_every_file_of_the_package_named_beside_its_package_is_there() -> None:
    lost = [one for one in package_calls() if not ROOT.parent.joinpath(*one[1].split("."), one[2]).is_file()]
    assert lost == []


def test_the_key_of_cached_tokens_covers_all_code_that_makes_them() -> None:
    """Each path is there, and together they hold every module that `build` brings in below the models."""
    paths = [ROOT / part for part in build.CODE]
    assert [path for path in paths if not path.exists()] == []
    covered = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    for needed in ("rendering/renderer.py", "sources/parser.py", "tokens/pack.py", "example.py", "refusal.py"):
        assert ROOT / "data" / needed in covered, needed


def test_the_version_of_the_code_is_that_of_the_whole_package() -> None:
    assert code_version() == fingerprint(sorted(ROOT.rglob("*.py")))[:16]


@pytest.mark.parametrize("name", _FRAGILE)
def test_every_module_during_whose_import_a_stop_ends_at_once_is_there(name: str) -> None:
    assert exists(name) or not name.startswith("trueup")
