"""The architecture, pinned: who may import whom, and what may never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "trueup"

# Lowest first. A module imports only from rows above its own here, never from its own row: so nothing is sideways,
# and there is no cycle. A package counts as one module, but for those of its modules that are in the list themselves.
FLOORS: list[tuple[str, set[str]]] = [
    ("0 nothing of trueup", {"errors", "tensors", "console", "algorithms", "recipes"}),
    ("1 stopping", {"interrupt"}),
    ("1 statistics", {"evaluation.intervals"}),
    (
        "1 text and numbers",
        {"chat", "files", "evaluation.refusal", "algorithms.kl", "algorithms.advantages", "algorithms.sft"},
    ),
    ("1 rows as token ids", {"examples"}),
    ("1 many sequences in one row", {"attention"}),
    ("1 what people said, on disk", {"ranking.store"}),
    ("1 losses", {"algorithms.ppo", "algorithms.preference", "algorithms.reward"}),
    (
        "2 one thing each",
        {
            "runtime",
            "weights",
            "sources",
            "batching",
            "config",
            "rewards",
            "windtunnel",
            "loggers",
            "runfolder",
            "surroundings",
        },
    ),
    ("2 nested states on disk", {"state"}),
    ("2 rows before torch", {"preflight", "guess"}),
    ("2 rows as tokens, checked", {"dataset"}),
    ("3 models and what is saved of them", {"models", "checkpoint"}),
    ("3 what is done with a model", {"sampling", "forward", "loading"}),
    ("3 a model for other tools, proven", {"export"}),
    ("3 models as reference and reward", {"reference", "model_reward", "old_logps"}),
    ("4 what the loop is given", {"terms", "optimizer"}),
    ("4 one optimizer step", {"step"}),
    ("4 the loop", {"loop"}),
    ("4 what it trains on", {"objectives", "rollouts"}),
    ("4 measuring", {"evaluation"}),
    ("4 the check, with models", {"checking"}),
    ("4 a stage's frame, and rows as they train", {"stage", "show"}),
    ("4 labels without pairs", {"unpaired"}),
    ("4 run folders as a report", {"report"}),
    ("5 recipes", {"recipes.sft", "recipes.reward", "recipes.dpo", "recipes.ppo"}),
    ("5 recipes in a row, any models side by side", {"recipes.pipeline", "talk", "comparison", "showing"}),
    ("5 people rank what models say", {"ranking"}),
    ("5 the embedded example", {"quickstart", "experiments"}),
    ("6 the public face", {"trueup"}),
    ("6 what the commands do", {"jobs"}),
    ("6 a command of several", {"cli_rank"}),
    ("6 the command line", {"cli"}),
    ("6 python -m trueup", {"__main__"}),
]
RANK = {module: rank for rank, (_, modules) in enumerate(FLOORS) for module in modules}
SPLIT = {"algorithms", "recipes", "evaluation", "ranking"}


def unit(dotted: str) -> str:
    """`trueup.config.load.load_config` -> config, `trueup.algorithms.kl.k1` -> algorithms.kl, `trueup.x` -> trueup."""
    parts = dotted.split(".")[1:]
    names = [".".join(parts[:2]), parts[0]] if parts and parts[0] in SPLIT else parts[:1]
    return next((name for name in names if name in RANK or (name == parts[0] and exists(name))), "trueup")


def exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["trueup", *parts]).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_a_module_imports_only_from_lower_floors(path: Path) -> None:
    own = unit(module_of(path)) if path != ROOT / "__init__.py" else "trueup"
    assert own in RANK, f"{own} is on no floor: enter it in FLOORS"
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if not name.startswith("trueup"):
            continue
        other = unit(name)
        assert other in RANK, f"{other} is on no floor: enter it in FLOORS"
        allowed = other == own or RANK[other] < RANK[own]
        assert allowed, f"{own} ({FLOORS[RANK[own]][0]}) imports {other} ({FLOORS[RANK[other]][0]})"


def test_every_listed_module_exists() -> None:
    assert [name for name in RANK if name != "trueup" and not exists(name)] == []


def test_only_runtime_knows_of_processes() -> None:
    users = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        spelled = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        names = [*imported(tree), *spelled]
        if any(name.startswith("torch.distributed") for name in names):
            users.append(module_of(path))
    assert {user.rpartition(".")[0] for user in users} == {"trueup.runtime"}


LIGHT = [
    "trueup",
    "trueup.cli.main",
    "trueup.config",
    "trueup.data.sources",
    "trueup.data.rendering",
    "trueup.errors",
    "trueup.system.console",
]


def test_what_answers_before_training_never_loads_torch() -> None:
    heavy = ("torch", "transformers", "peft", "datasets", "pandas", "scipy")
    code = f"import sys, {', '.join(LIGHT)}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
