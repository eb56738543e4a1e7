"""Functions that a configuration names: one of trueup's own, or a user's as `file.py:function`.

A function's keyword-only parameters are its settings in the configuration: `loss: {name: simpo, gamma: 0.5}`. They are
read from the source's syntax tree, not by importing it, because the modules need torch, and a wrong key must be
reported before torch takes its seconds to load. `load_function` imports a user's function.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any, cast

from trueup.config.other_tools import meaning_of, meaning_of_value
from trueup.config.problems import Place, Problem, as_written, collected, nearest, suggestion
from trueup.errors import ConfigError, TrainingError, TrueupError
from trueup.system.text import excerpt, home_path

ParameterValue = float | int | bool
Parameters = dict[str, ParameterValue | None]
"""A function's keyword-only parameters with their defaults; None for one that must be given."""

ALGORITHMS = Path(__file__).parent.parent / "algorithms"

_SPEC = re.compile(r"^(?P<file>.+?\.py):(?P<name>[^:/\\()]+)(?P<settings>\(.*\))?$", re.DOTALL)
_RANGES = {"beta": (0, False, math.inf), "label_smoothing": (0, True, 0.5)}
_ANY_PARAMETER = (0, True, math.inf)
"""Lowest value, whether it is allowed itself, and what the value must stay below. Any other parameter: 0 or more."""


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function of the user, as a configuration names it: `file.py:function` or `file.py:function(scale=2.0)`."""

    file: Path
    name: str
    settings: dict[str, ParameterValue]

    @property
    def spec(self) -> str:
        """The function as text, such as `file.py:function(scale=2.0)`, which `parse` reads back."""
        settings = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"{self.file}:{self.name}" + (f"({settings})" if settings else "")

    @staticmethod
    def parse(text: str) -> UserFunction | None:
        """Parse text such as `file.py:function(scale=2)`; return None for text of another form, e.g. a model's name."""
        match = _SPEC.match(text)
        settings = _settings(match["settings"]) if match else None
        return None if match is None or settings is None else UserFunction(Path(match["file"]), match["name"], settings)

    def columns(self) -> dict[str, bool]:
        """Return the columns of its row that a reward takes: {name: the row must have it}; {} where none can be read.

        They are its parameters behind the first, and those by keyword, that have no default and no setting; one with
        the default None takes a column that rows may lack. A function written for TRL (completions, …) takes none.
        """
        try:
            tree = ast.parse(home_path(self.file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            return {}
        function = _functions(tree).get(self.name)
        if function is None:
            return {}
        positional = function.args.args[max(0, 1 - len(function.args.posonlyargs)) :]
        defaults = [None] * len(positional) + list(function.args.defaults)
        pairs = [*zip(positional, defaults[len(defaults) - len(positional) :], strict=True)]
        pairs += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        if any(argument.arg in ("completions", "completion_ids") for argument, _ in pairs):
            return {}
        free = [(argument.arg, default) for argument, default in pairs if argument.arg not in self.settings]
        return {name: default is None for name, default in free if default is None or _is_none(default)}

    def parameters(
        self, takes: tuple[int, ...] = (1,), place: Place = (), *, columns: bool = False
    ) -> Parameters | None:
        """Return the function's keyword-only parameters with a number or boolean as default, or without a default.

        They are read from the file's source. The result is None where the file is missing or does not define the
        function by `def` (e.g. imports it); `load_function` checks it then.

        Args:
            takes: the numbers of positional arguments with which the function may be called.
            place: the path of configuration keys at which an error is reported.
            columns: parameters behind the first may be columns (`columns`), and so may those without a default.

        Raises:
            PydanticCustomError: the function cannot be called with any number of arguments in `takes`.
        """
        try:
            tree = ast.parse(home_path(self.file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            return None
        function = _functions(tree).get(self.name)
        if function is None:
            return None
        positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        required = len(positional) - len(function.args.defaults)
        most = math.inf if function.args.vararg else len(positional)
        if columns and positional:
            required = min(required, 1)
        if not any(required <= count <= most for count in takes):
            text = f"{self.file}: {self.name}({', '.join(positional)}) must take {_arguments(takes)} by position"
            raise collected([(place, f"{text}; put its parameters after a *: def {self.name}(…, *, scale=1.0)")])
        return _parameters(function)


class FunctionTable:
    """The functions that a configuration key accepts: those in a dict of `algorithms`, and any `file.py:function`.

    Args:
        module: the file in `algorithms` that holds the dict.
        name: the variable that holds it, a plain dict from names to functions.
        takes: how many positional arguments a function is called with.
    """

    def __init__(self, module: str, name: str, *, takes: int = 1) -> None:
        self.source, self.name, self.takes = ALGORITHMS / module, name, takes

    def ours(self) -> dict[str, dict[str, ParameterValue]]:
        """Return name -> parameters with their defaults, for each of trueup's own functions in the dict."""
        return _table(self.source, self.name)

    def parameters(self, name: str) -> Parameters | None:
        """Return a function's parameters with their defaults; None where they cannot be read from a user's file."""
        ours = self.ours()
        if name in ours:
            return {**ours[name]}
        function = UserFunction.parse(name)
        return None if function is None else function.parameters((self.takes,))

    def marked(self, mark: str, name: str) -> bool:
        """Return True if a function has a property: its name is in a set such as `UNPAIRED` in its module.

        Args:
            mark: the name of the set's variable, in trueup's module or in the user's file.
            name: the function's name, or `file.py:function`.
        """
        function = None if name in self.ours() else UserFunction.parse(name)
        if function is None:
            return name in _names(self.source, mark)
        try:
            tree = ast.parse(home_path(function.file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            return False
        return function.name in _literals(_assigned(tree, mark))

    def bind(self, value: Mapping[str, object], default: str) -> dict[str, object]:
        """Check a configuration section that names a function; return {"name": …, "params": all its parameters}.

        Parameters that the section does not give get the function's defaults; a section without a name means `default`.

        Raises:
            PydanticCustomError: there is no such function, or it has no such parameter.
        """
        name = value.get("name", default)
        params = value.get("params", {})
        given = {key: item for key, item in value.items() if key not in ("name", "params")}
        given |= params if isinstance(params, dict) else {}
        ours = self.ours()
        if not isinstance(name, str) or (name not in ours and UserFunction.parse(name) is None):
            instead = meaning_of_value("loss.name", name) if self.name == "LOSSES" else None
            hint = f"; {instead}" if instead else suggestion(str(name), ours)
            text = f"must be one of {', '.join(ours)}; got {as_written(name)}{hint}"
            raise collected([(("name",), f"{text} (or a function of yours: file.py:function)")])
        parameters = self.parameters(name)
        if parameters is None:
            problems = [((key,), text) for key, item in given.items() if (text := _value_problem(None, item))]
        else:
            problems = [((key,), text) for key, item in given.items() if (text := self.problem(name, key, item))]
            problems += _not_given(parameters, given)
        if problems:
            raise collected(problems)
        checked = cast("dict[str, ParameterValue]", given)
        kinds = {key: type(default) for key, default in (parameters or {}).items() if default is not None}
        typed = {key: kinds[key](item) if key in kinds else item for key, item in checked.items()}
        return {"name": name, "params": (parameters or {}) | typed}

    def problem(self, name: str, key: str, value: object) -> str | None:
        """Return the reason why parameter `key` of function `name` cannot be `value` (e.g. not a number), or None."""
        parameters = self.parameters(name) or {}
        if key not in parameters:
            return self._not_a_parameter(name, key, parameters)
        if text := _value_problem(parameters[key], value):
            return text
        if isinstance(value, bool) or not isinstance(value, (int, float)) or name not in self.ours():
            return None
        low, inclusive, high = _RANGES.get(key, _ANY_PARAMETER)
        if 0 < value < 1e-12 or 1e9 < value < high:
            return f"must be from 1e-12 to 1e+09{', or 0' if inclusive else ''}; got {as_written(value)}"
        if value < low or value >= high or (value == low and not inclusive):
            bounds = f"{'at least' if inclusive else 'above'} {low:g}"
            return f"must be {bounds}{f' and below {high:g}' if high < math.inf else ''}; got {as_written(value)}"
        return None

    def _not_a_parameter(self, name: str, key: str, parameters: Parameters) -> str:
        takes = f"{name} takes {', '.join(parameters) or 'no parameter'}"
        others = [other for other, theirs in self.ours().items() if key in theirs]
        if others:
            return f"{key} belongs to {', '.join(others)}; {takes}"
        meaning = meaning_of(key)
        if meaning is not None and nearest(key, parameters, cutoff=0.85) is None:
            note = f" ({meaning.note})" if meaning.keys and meaning.note else ""
            return f"unknown key; {f'here it is {meaning.keys[0]}{note}' if meaning.keys else meaning.note}; {takes}"
        return f"unknown key{suggestion(key, parameters) or ';'} {takes}"


LOSSES = FunctionTable("preference.py", "LOSSES")
ADVANTAGES = FunctionTable("advantages.py", "ADVANTAGES")
ESTIMATORS = FunctionTable("kl.py", "ESTIMATORS", takes=2)


def functions_as_text(
    value: object, keys: tuple[str, ...], takes: tuple[int, ...] = (1,), *, columns: bool = False
) -> object:
    """Return a section in which the mappings such as `{name: file.py:function, scale: 2}` at `keys` became text.

    The text is `file.py:function(scale=2)`: a reward is named by a text everywhere, whether it is a folder, a model or
    a function. With `columns` its parameters may be columns of the rows.

    Raises:
        PydanticCustomError: a mapping names no function, or the function has no such parameter.
    """
    if not isinstance(value, dict):
        return value
    changed: dict[str, object] = {}
    for key in keys:
        item = value.get(key)
        if isinstance(item, list):
            changed[key] = [
                function_text(part, (key, index), takes, columns=columns) for index, part in enumerate(item)
            ]
        elif item is not None:
            changed[key] = function_text(item, (key,), takes, columns=columns)
    return {**value, **changed}


def function_text(value: object, place: Place = (), takes: tuple[int, ...] = (1,), *, columns: bool = False) -> object:
    """Return `file.py:function(scale=2)` for the mapping `{name: file.py:function, scale: 2}`; other values unchanged.

    Raises:
        PydanticCustomError: the mapping names no function, or the function has no such parameter.
    """
    if isinstance(value, dict) and "name" in value:
        function = UserFunction.parse(str(value["name"]))
        settings = {str(key): item for key, item in value.items() if key != "name"}
    else:
        function = UserFunction.parse(value) if isinstance(value, str) else None
        settings = {}
        if function is None or not function.settings:
            return value
    if function is None:
        text = "must be a function of yours, file.py:function; only a function has settings"
        raise collected([((*place, "name"), text)])
    settings |= function.settings
    _check_settings(function, settings, place, takes, columns=columns)
    return UserFunction(function.file, function.name, settings).spec


def _check_settings(
    function: UserFunction, settings: dict[str, Any], place: Place, takes: tuple[int, ...], *, columns: bool
) -> None:
    parameters = function.parameters(takes, place, columns=columns)
    problems: list[Problem] = []
    for key, item in settings.items():
        if parameters is not None and key not in parameters:
            known = f"{function.name} takes {', '.join(parameters) or 'no parameter'}"
            problems.append(((*place, key), f"unknown key{suggestion(key, parameters) or ';'} {known}"))
        elif text := _value_problem((parameters or {}).get(key), item):
            problems.append(((*place, key), text))
    if not columns:
        problems += [((*place, *missing), text) for missing, text in _not_given(parameters or {}, settings)]
    if problems:
        raise collected(problems)


def load_function(
    spec: str, key: str, *, takes: tuple[int, ...] = (1,), arguments: str = "…", columns: Collection[str] = ()
) -> Callable[..., Any]:
    """Import a user's file (which runs its code) and return the named function, with its settings bound.

    If the returned function raises an error or calls `sys.exit`, it raises TrainingError with the file and line.

    Args:
        spec: `file.py:function`, or `file.py:function(scale=2.0)`.
        key: the configuration key that names the function, for messages.
        takes: the numbers of positional arguments with which it may be called.
        arguments: those arguments by name, for messages: "reply, accepted, question".
        columns: names of further arguments, which it gets by keyword.

    Raises:
        ConfigError: the file or the function is missing, importing the file fails, the function is asynchronous or a
            class, or it does not take these arguments.
    """
    parsed = UserFunction.parse(spec)
    file, _, name = (f"{parsed.file}:{parsed.name}" if parsed else spec).rpartition(":")
    path = home_path(file)
    if not path.is_file():
        raise ConfigError(f"{key}: no file {file or name!r}; give {key}=FILE.py:FUNCTION")
    module_spec = importlib.util.spec_from_file_location(f"trueup_{key.rpartition('.')[2]}_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{key}: {file!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look their module up there
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_spec.name, None)
        raise ConfigError(
            f"{key}: {_failure(error, path, 'importing the file')}\n  fix: make `python {file}` run without an error"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        named = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(
            f"{key}: {file} has no function {name!r}; it has {', '.join(named) or 'none'}\n"
            f"  fix: {key}={file}:FUNCTION with a function of the file"
        )
    settings = parsed.settings if parsed else {}
    example = f"def {name}({arguments}, *, scale=1.0)"
    if inspect.isclass(function):
        raise ConfigError(
            f"{key}: {file}: {name} is a class\n  fix: name a function ({example}), or an instance: mine = {name}()"
        )
    if any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None)))):  # noqa: B004 -- its kind
        raise ConfigError(f"{key}: {file}: {name} is an `async def`, which nobody awaits\n  fix: {example}")
    if arguments_taken(function, takes, settings | dict.fromkeys(columns)) is None:
        raise ConfigError(
            f"{key}: {file}: {name} cannot be called with {_arguments(takes)} by position and the settings it is given "
            f"({', '.join(settings) or 'none'})\n  fix: {example}: first what trueup passes, then settings after a *"
        )
    return _guarded(partial(function, **settings) if settings else function, f"{key}: {file}:{name}", path)


def _guarded(function: Callable[..., Any], name: str, file: Path) -> Callable[..., Any]:
    """Return the user's function so that it raises TrainingError, with file and line, whatever it raises or exits with.

    Errors of trueup's own, Ctrl-C, and errors that mean that the memory is full, are passed on.
    """

    @wraps(function)
    def guarded(*arguments: Any, **settings: Any) -> Any:
        try:
            return function(*arguments, **settings)
        except (Exception, SystemExit) as error:
            if isinstance(error, (TrueupError, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
                raise
            raise TrainingError(f"{name}: {_failure(error, file, 'calling it')}") from error

    return guarded


def _failure(error: BaseException, file: Path, action: str) -> str:
    """Return `mine.py:7: calling it raised KeyError: 'x'`, with the last line of the user's file that was running."""
    path = str(file.absolute())  # as the import system names it
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    where = f"{file}:{lines[-1]}" if lines else f"{file}"
    if isinstance(error, SystemExit):
        return f"{where}: {action} ended with sys.exit({'' if error.code is None else repr(error.code)})"
    text = error.args[0] if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {action} raised {type(error).__name__}: {excerpt(str(text), 300)[1:-1]}"


def arguments_taken(
    function: Callable[..., Any], counts: tuple[int, ...], settings: Mapping[str, object]
) -> int | None:
    """Return the first of `counts` that is a number of positional arguments the function accepts; None if none is.

    The keyword arguments `settings` are passed too.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin does not tell
        return counts[0]
    for count in counts:
        try:
            signature.bind(*[None] * count, **settings)
        except TypeError:
            continue
        return count
    return None


def _arguments(takes: tuple[int, ...]) -> str:
    return f"{' or '.join(map(str, takes))} argument{'' if takes == (1,) else 's'}"


def _value_problem(default: ParameterValue | None, value: object) -> str | None:
    """Return the reason why a parameter cannot have this value (e.g. text where the default is a number), or None."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false; got {as_written(value)}"
    if default is None and isinstance(value, bool):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        return f"must be a number; got {as_written(value)}"
    if isinstance(default, int) and not isinstance(value, int):
        return f"must be a whole number; got {as_written(value)}"
    return None


def _not_given(parameters: Parameters, given: Mapping[str, object]) -> list[Problem]:
    return [((key,), "missing") for key, default in parameters.items() if default is None and key not in given]


def _settings(text: str | None) -> dict[str, ParameterValue] | None:
    """Parse the settings of a function spec: `(scale=2.0, strict=True)` -> {"scale": 2.0, "strict": True}.

    Returns {} for None, and None for text of another form.
    """
    if text is None:
        return {}
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        values = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    sound = all(key and isinstance(value, (bool, int, float)) for key, value in values.items())
    return values if sound else None


# -- reading a module's source -----------------------------------------------------------------------------------------


@cache
def _tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


@cache
def _table(source: Path, variable: str) -> dict[str, dict[str, ParameterValue]]:
    """Return name -> parameters with defaults, for the functions in a module's dict `variable`, in the dict's order."""
    table = _assigned(_tree(source), variable)
    if not isinstance(table, ast.Dict):
        msg = f"{variable} in {source} must be a plain dict, or its parameters cannot be read without torch"
        raise LookupError(msg)
    functions = _functions(_tree(source))
    return {
        key.value: {name: value for name, value in _parameters(functions[function.id]).items() if value is not None}
        for key, function in zip(table.keys, table.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(function, ast.Name)
    }


@cache
def _names(source: Path, variable: str) -> frozenset[str]:
    """Return the strings in the set that a module's source assigns to `variable`; empty if it assigns none."""
    return _literals(_assigned(_tree(source), variable))


def _literals(node: ast.expr | None) -> frozenset[str]:
    parts = ast.walk(node) if node else ()
    return frozenset(str(part.value) for part in parts if isinstance(part, ast.Constant))


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """Return the expression that a module's top level assigns to `name`; None if it assigns nothing to it."""
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == name:
            return node.value
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _parameters(function: ast.FunctionDef) -> Parameters:
    """Return a function's keyword-only parameters with their defaults, None for those that must be given.

    Parameters whose default is neither a number nor a boolean are left out.
    """
    parameters: Parameters = {}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        try:
            value = None if default is None else ast.literal_eval(default)
        except (ValueError, TypeError):
            continue  # an expression: the function's own business
        if default is None or isinstance(value, (bool, int, float)):
            parameters[argument.arg] = value
    return parameters
