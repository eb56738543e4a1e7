"""Run tasks of EleutherAI's lm-evaluation-harness, given by name or .yaml file; needs the optional extra `harness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trueup.errors import ConfigError, MissingExtraError
from trueup.evaluation.items import Item
from trueup.system.commandline import install_command

if TYPE_CHECKING:
    from trueup.runtime import Runtime

PREFERRED = ("acc_norm", "acc", "exact_match", "f1", "pass@1", "bleu")
"""Metrics in order of preference: an item's score is the first of these that its task reports."""


def run_harness(model: str, names: Sequence[str], limit: int | None, runtime: Runtime) -> list[Item]:
    """Evaluate a model (folder or hub name) on lm-evaluation-harness tasks.

    Returns:
        Items, one per document, with task "harness" and values {"score": the first of PREFERRED that the harness task
        reports, such as accuracy}; `topic` is the harness task's name, "group/task" for the tasks of a named group.

    Raises:
        MissingExtraError: the harness is not installed.
        ConfigError: it has no such task, or a task gives no score per item.
    """
    try:
        evaluator: Any = import_module("lm_eval")
    except ImportError as error:
        raise MissingExtraError(f"evaluate.harness needs the extra harness: {install_command('harness')}") from error
    arguments = {"pretrained": model, "dtype": str(runtime.dtype).removeprefix("torch.")}
    try:
        result = evaluator.simple_evaluate(
            model="hf", model_args=arguments, tasks=list(names), limit=limit,
            device=str(runtime.device),
            log_samples=True, bootstrap_iters=0, batch_size=8,
        )  # fmt: skip
    except (KeyError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"evaluate.harness: {', '.join(names)}: the harness refuses: {reason}") from error
    groups: Mapping[str, Sequence[str]] = result.get("group_subtasks", {})
    group_of = {task: group for group in names for task in _tasks_in(group, groups)}
    return [item for name, rows in result["samples"].items() for item in _items(name, rows, group_of.get(name))]


def _tasks_in(group: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of all tasks and groups in a group, at any depth; none for a task."""
    members = groups.get(group, ())
    return [*members, *(task for member in members for task in _tasks_in(member, groups))]


def _items(name: str, rows: Sequence[Mapping[str, Any]], group: str | None) -> list[Item]:
    """Return one harness task's logged samples as items, one per document.

    The harness may log a document several times, once per answer filter; the first of them is used.
    """
    by_document: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        by_document.setdefault(row["doc_id"], row)
    return [
        Item("harness", f"{name}-{document}", {"score": _score(name, row)}, topic=f"{group}/{name}" if group else name)
        for document, row in by_document.items()
    ]


def _score(name: str, row: Mapping[str, Any]) -> float:
    score = next((row[key] for key in PREFERRED if isinstance(row.get(key), int | float)), None)
    if score is None:
        raise ConfigError(
            f"evaluate.harness: {name} gives no {', '.join(PREFERRED[:4])} for an item; choose a task that does"
        )
    return float(score)
