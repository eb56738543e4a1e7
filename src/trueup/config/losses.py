"""The preference losses and their parameters, read from the source of `algorithms/preference.py`.

A loss's keyword-only parameters are its configuration. They are read from the syntax tree, not by import, because
that module needs torch, and a wrong key must be reported before torch takes its seconds to load.
"""

from __future__ import annotations

import ast
import math
import sys
from functools import cache
from pathlib import Path

from trueup.config.problems import as_written, suggestion

ParameterValue = float | int | bool

SOURCE = Path(__file__).parent.parent / "algorithms" / "preference.py"

_RANGES = {"beta": (0, False, math.inf), "label_smoothing": (0, True, 0.5)}
_ANY_PARAMETER = (0, True, math.inf)
"""Lowest value, whether it is allowed itself, and what the value must stay below. Any other parameter: 0 or more."""


@cache
def preference_losses() -> dict[str, dict[str, ParameterValue]]:
    """Return each loss's name and its parameters with their defaults, in the order of the `LOSSES` table."""
    functions = {node.name: node for node in _tree().body if isinstance(node, ast.FunctionDef)}
    return {name: _parameters(functions[function]) for name, function in _table().items()}


def needs_reference(name: str) -> bool:
    """Return True if the loss compares with a reference model: `NEEDS_REFERENCE` names it."""
    return name in _names("NEEDS_REFERENCE")


def is_unpaired(name: str) -> bool:
    """Return True if the loss takes single completions instead of pairs: `UNPAIRED` names it."""
    return name in _names("UNPAIRED")


@cache
def _names(variable: str) -> frozenset[str]:
    """Return the names in a set of names that the module assigns to `variable`."""
    literals = ast.walk(_assigned(_tree(), variable))
    return frozenset(str(node.value) for node in literals if isinstance(node, ast.Constant))


def parameter_problem(name: str, key: str, value: object) -> str | None:
    """Return why `key: value` cannot be a parameter of the loss `name`; None when it can."""
    parameters = preference_losses()[name]
    if key not in parameters:
        return _not_a_parameter(name, key)
    if isinstance(parameters[key], bool):
        return None if isinstance(value, bool) else f"must be true or false; got {as_written(value)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        return f"must be a number; got {as_written(value)}"
    if isinstance(parameters[key], int) and not isinstance(value, int):
        return f"must be a whole number; got {as_written(value)}"
    low, inclusive, high = _RANGES.get(key, _ANY_PARAMETER)
    if value < low or value >= high or (value == low and not inclusive):
        bounds = f"{'at least' if inclusive else 'above'} {low:g}" + (f" and below {high:g}" if high < math.inf else "")
        return f"must be {bounds}; got {as_written(value)}"
    return None


def _not_a_parameter(name: str, key: str) -> str:
    losses = preference_losses()
    takes = f"{name} takes {', '.join(losses[name]) or 'no parameter'}"
    others = [other for other, parameters in losses.items() if key in parameters]
    if others:
        return f"{key} belongs to {', '.join(others)}; {takes}"
    return f"unknown key{suggestion(key, losses[name]) or ';'} {takes}"


@cache
def _tree() -> ast.Module:
    return ast.parse(SOURCE.read_text(encoding="utf-8"))


def _table() -> dict[str, str]:
    """Return the names in `LOSSES = {"sigmoid": sigmoid, ...}` and the functions they stand for."""
    table = _assigned(_tree(), "LOSSES")
    if not isinstance(table, ast.Dict):
        msg = f"LOSSES in {SOURCE} must be a plain dict, or its parameters cannot be read without torch"
        raise LookupError(msg)
    return {
        key.value: function.id
        for key, function in zip(table.keys, table.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(function, ast.Name)
    }


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    """Return the expression that a module assigns to `name`."""
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == name:
            return node.value
    msg = f"{SOURCE} assigns no {name}"
    raise LookupError(msg)


def _parameters(function: ast.FunctionDef) -> dict[str, ParameterValue]:
    """Return the keyword-only parameters and their literal defaults."""
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}
