"""The architecture, pinned: which folder may import which, no circles, few floors, and what may never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "trueup"

# Lowest first. A folder imports only from folders in lower rows; everything may import `errors`.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("system", "stats"),
    ("config", "runtime", "pages", "algorithms"),
    ("data", "runs"),
    ("models",),
    ("sampling", "training", "export", "preflight"),
    ("evaluation", "chat"),
    ("report", "ranking"),
    ("recipes",),
    ("windtunnel",),
    ("experiments",),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MOST_NAMES, MOST_FLAT, MOST_FOLDER_FLOORS, MOST_FILE_FLOORS = 24, 3, 13, 24

Graph = Mapping[str, frozenset[str]]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module or name that a file imports, under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path: Path) -> str:
    return ".".join(("trueup", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


@cache
def sources() -> dict[str, ast.AST]:
    return {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@cache
def file_graph() -> Graph:
    """Module -> the modules of the package that it imports; a package stands for its `__init__`."""

    def defining(name: str) -> str | None:
        while name not in sources():
            name = name.rpartition(".")[0]
            if not name:
                return None
        return name

    found = {module: {defining(name) for name in imported(tree)} for module, tree in sources().items()}
    return {module: frozenset(filter(None, names - {module})) for module, names in found.items()}


@cache
def folder_graph() -> Graph:
    edges: dict[str, set[str]] = {folder_of(module): set() for module in sources()}
    for module, others in file_graph().items():
        edges[folder_of(module)] |= {folder_of(other) for other in others} - {folder_of(module)}
    return {folder: frozenset(others) for folder, others in edges.items()}


def floors(graph: Graph) -> dict[str, int]:
    """Name -> 0 where it imports nothing, else one above the highest that it imports.

    Raises:
        AssertionError: there is a circle; it is named.
    """
    height: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> int:
        assert name not in path, f"a circle of imports: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in height:
            height[name] = 1 + max((visit(other, (*path, name)) for other in graph[name]), default=-1)
        return height[name]

    for name in graph:
        visit(name, ())
    return height


@pytest.mark.parametrize("graph", [file_graph, folder_graph], ids=["files", "folders"])
def test_no_circle_and_few_floors(graph: object) -> None:
    height = floors(graph())  # type: ignore[operator]
    most = MOST_FILE_FLOORS if graph is file_graph else MOST_FOLDER_FLOORS
    assert 1 + max(height.values()) <= most


def test_few_levels() -> None:
    assert len(LEVELS) <= MOST_FOLDER_FLOORS


def test_a_circle_is_named() -> None:
    with pytest.raises(AssertionError, match="a -> b -> a"):
        floors({"a": frozenset("b"), "b": frozenset("a")})


def test_a_folder_imports_only_from_lower_ones() -> None:
    unknown = sorted(set(folder_graph()) - set(LEVEL))
    assert unknown == [], "enter these folders in LEVELS"
    upward = [
        f"{module} imports {other}"
        for module, others in file_graph().items()
        for other in others
        if folder_of(module) != folder_of(other) and LEVEL[folder_of(other)] >= LEVEL[folder_of(module)]
    ]
    assert upward == []


def test_every_listed_folder_is_there_and_the_top_is_short() -> None:
    there = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there == set(LEVEL)
    assert len(there) <= MOST_NAMES
    assert len([name for name in there if (ROOT / f"{name}.py").is_file()]) <= MOST_FLAT


def test_the_table_of_contributing_is_this_one() -> None:
    """Its rows are the levels, highest first, and name the same folders."""
    text = (ROOT.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2:4].strip().isdigit()]
    named = {int(row.split("|")[1]): set(row.split("|")[2].replace("`", "").replace(",", " ").split()) for row in rows}
    assert named == {level: set(names) for level, names in enumerate(LEVELS)}


def test_tests_mirror_the_package() -> None:
    """No file tests/test_x.py beside a folder tests/x/, and no tests/x/ of a folder that is not there."""
    tests = Path(__file__).parent
    folders = {path.name for path in tests.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert [name for name in folders if (tests / f"test_{name}.py").is_file()] == []
    across = {"distributed", "fuzz", "hostile", "reliability"}  # these look at many folders at once
    assert sorted(name for name in folders - across if not (ROOT / name).is_dir()) == []


def test_only_runtime_knows_of_processes() -> None:
    users = []
    for module, tree in sources().items():
        spelled = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        if any(name.startswith("torch.distributed") for name in (*imported(tree), *spelled)):
            users.append(module)
    assert {user.rpartition(".")[0] for user in users} == {"trueup.runtime"}


LIGHT = ("", ".cli.main", ".config", ".data.sources.stream", ".data.rendering.renderer", ".preflight.early", ".errors")


def test_what_answers_before_training_never_loads_torch() -> None:
    heavy = ("torch", "transformers", "peft", "datasets", "pandas", "scipy")
    names = ", ".join(f"trueup{name}" for name in LIGHT)
    code = f"import sys, {names}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
