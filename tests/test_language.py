"""Docstrings begin with an imperative or a noun phrase, and everything public has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "trueup"
RIDDLE = re.compile(r"(What|Whether|The same|How|Where|As)\b")

# "file.py:name" of a docstring that may begin with one of these words, and the reason; at most 30.
EXCEPTIONS: dict[str, str] = {}


def parts() -> list[str]:
    """Return the folders and files at the top of the package."""
    return sorted(path.name for path in SOURCE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py")))


def docstrings(part: str) -> Iterator[tuple[str, str | None, bool]]:
    """Yield "file.py:name", docstring and True if it is public, for a part's modules, classes and functions."""
    path = SOURCE / part
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        name = file.relative_to(SOURCE).as_posix()
        module = ast.parse(file.read_text(encoding="utf-8"))
        yield f"{name}:module", ast.get_docstring(module), file.stem != "__main__"
        yield from _inside(module, name, public=True)


def _inside(node: ast.AST, name: str, *, public: bool) -> Iterator[tuple[str, str | None, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_public = public and not child.name.startswith("_")
            yield f"{name}:{child.name}", ast.get_docstring(child), is_public and not _needs_none(child)
            yield from _inside(child, name, public=is_public and isinstance(child, ast.ClassDef))
        else:
            yield from _inside(child, name, public=public)


def _needs_none(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True for overloads, methods that torch calls, and members that a Protocol only declares."""
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    declares = isinstance(node.body[0], ast.Expr) and ast.unparse(node.body[0]) == "..."
    return "overload" in names or node.name in {"forward", "backward"} or declares


@pytest.mark.parametrize("part", parts())
def test_docstrings_say_what_a_thing_does_or_is(part: str) -> None:
    riddles = [name for name, text, _ in docstrings(part) if text and RIDDLE.match(text) and name not in EXCEPTIONS]
    assert not riddles, f"these begin with What, Whether, The same, How, Where or As: {riddles[:20]}"


@pytest.mark.parametrize("part", parts())
def test_what_is_public_has_a_docstring(part: str) -> None:
    missing = [name for name, text, public in docstrings(part) if public and not text]
    assert not missing, f"no docstring: {missing[:20]}"


def test_exceptions_are_few_and_real() -> None:
    assert len(EXCEPTIONS) <= 30
    assert set(EXCEPTIONS) <= {name for part in parts() for name, _, _ in docstrings(part)}
