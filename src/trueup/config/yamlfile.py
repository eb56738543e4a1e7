"""Read YAML and `key.sub=value` overrides into plain data, and record the origin of every value.

The YAML is version 1.2's core schema, not PyYAML's 1.1: `1e-4` is a number (1.1 reads text), `no` and `on` are text
(1.1 reads false and true), `1:30` is text (1.1 reads 90). Duplicate keys are refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trueup.config.problems import Place, Problem, as_written, dotted, nearest_path, printable
from trueup.errors import ConfigError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Scalar = None | bool | int | float | str

SHORT_FOR = {
    **dict.fromkeys(("data", "prompts"), "path"),
    **dict.fromkeys(("advantage", "estimator", "reward", "gold", "grader"), "name"),
}
"""Keys whose value may be a bare path or name, and the key that it stands for: after an override such as
`data.rows=0:100` the value is `{path: ..., rows: ...}`."""

SIZE_LIMIT = 2**20
"""The largest size of a configuration file in bytes."""
VALUES_LIMIT = 20_000
"""The largest number of values in a file; an alias counts each time: nine lines of aliases can mean 10^9 values."""
_DIGITS = 4300  # of a whole number: Python reads no more

_PREFIX = "tag:yaml.org,2002:"
_RESOLVERS = (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", list("-+.")),
)


_KINDS = ("str", *dict.fromkeys(kind for kind, _, _ in _RESOLVERS))


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers, booleans and nulls of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own protocol)


for _tag, _pattern, _first in _RESOLVERS:
    Loader.add_implicit_resolver(_PREFIX + _tag, re.compile(_pattern), _first)


@dataclass
class Document:
    """A configuration as plain data, with the origin of every value: the file's line, or the override that set it.

    Attributes:
        name: the file's name, for messages.
        data: the values.
        labels: path of keys -> origin, such as `sft.yaml:12` or `override lr=3`.
        order: path of keys -> position in the file, to sort problems by.
        values: number of values read.
        problems: error messages found while reading.
    """

    name: str
    data: dict[str, Value] = field(default_factory=dict)
    labels: dict[Place, str] = field(default_factory=dict)
    order: dict[Place, int] = field(default_factory=dict)
    values: int = 0
    problems: list[str] = field(default_factory=list)

    def label(self, place: Place) -> str:
        """Return the origin (`sft.yaml:12`) of the value at a path of keys, or of the nearest section around it."""
        return self.labels.get(self._known(place), self.name)

    def position(self, place: Place) -> int:
        """Return a number to sort problems by: the place's position in the file; overrides come last."""
        return self.order.get(self._known(place), 0)

    def line(self, problem: Problem) -> str:
        """Return a problem as one line for the user: `sft.yaml:12: optim.lr: message`."""
        place, message = problem
        label, key = self.label(place), dotted(place)
        names_key = label.startswith((f"override {key}=", f"override {key} ")) or label == f"--{key.replace('_', '-')}"
        return ": ".join(part for part in (label, "" if names_key else key, message) if part)

    def mark(self, place: Place, label: str, order: int) -> None:
        """Record the origin of the value at the path of keys `place`: its label, and its position for sorting."""
        self.labels[place] = label
        self.order[place] = order

    def _known(self, place: Place) -> Place:
        return next((place[:n] for n in range(len(place), -1, -1) if place[:n] in self.labels), ())


def read_yaml(path: Path) -> Document:
    """Read a YAML configuration file.

    Raises:
        ConfigError: the file is missing, too large, not UTF-8 text, not YAML, empty, or no mapping.
    """
    document = Document(str(path))
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader)
    except RecursionError:
        raise ConfigError(f"{path}: brackets or lists nested too deep") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_message(path, error)) from None
    except yaml.YAMLError as error:
        msg = f"{path}: not YAML text: {printable(' '.join(str(error).split()), 200)}"
        raise ConfigError(msg) from None
    if node is None:
        msg = f"{path}: the file is empty; `trueup config METHOD` prints a template to start from"
        raise ConfigError(msg)
    if not isinstance(node, MappingNode):
        msg = f"{path}:{node.start_mark.line + 1}: must hold `key: value` lines, got {as_written(_plain(node))}"
        raise ConfigError(msg)
    value = _build(node, (), document, ())
    document.data = value if isinstance(value, dict) else {}
    return document


def apply_override(document: Document, override: str) -> None:
    """Set one `key.sub=value` in the document, over an earlier value. An error is added to `document.problems`."""
    label = f"override {printable(override, 100)}"
    if half_characters(override):
        document.problems.append(f"{label}: not UTF-8 text")
        return
    key, equals, text = override.partition("=")
    place = tuple(key.strip().split("."))
    if not equals or not all(place):
        document.problems.append(f"{as_written(override, 100)}: not a setting; write key=value, such as optim.lr=1e-5")
        return
    try:
        node = yaml.compose(text, Loader)
    except RecursionError:
        document.problems.append(f"{label}: brackets nested too deep")
        return
    except yaml.YAMLError:
        document.problems.append(f"{label}: the value is not YAML; put it in quotes, or brackets in pairs")
        return
    scratch = Document(label)
    value = None if node is None else _build(node, place, scratch, ())
    document.problems += [f"{label}: {problem.partition(': ')[2]}" for problem in scratch.problems]
    inner: dict[str, Value] = document.data
    for depth, part in enumerate(place[:-1], start=1):
        step: Value = inner.get(part)
        if step is None:
            step = {}
        elif isinstance(step, str) and part in SHORT_FOR:
            step = {SHORT_FOR[part]: step}
        if not isinstance(step, dict):
            document.problems.append(f"{label}: {dotted(place[:depth])} is {as_written(step)}, which has no keys")
            return
        inner[part] = step
        inner = step
    inner[place[-1]] = value
    for old in [known for known in document.labels if known[: len(place)] == place]:
        del document.labels[old]
    document.mark(place, label, len(document.order) + 1_000_000)


def scalar(text: str) -> Scalar:
    """Parse a YAML scalar: "1e-4" -> 0.0001, "true" -> True, "no" -> "no"."""
    node = yaml.compose(text, Loader)
    return _scalar(node) if isinstance(node, ScalarNode) else None if node is None else text


def _read_text(path: Path) -> str:
    if path.is_dir():
        msg = f"{path}: is a folder; give the .yaml file in it"
        raise ConfigError(msg)
    if not path.exists():
        msg = f"{path}: no such file{nearest_path(path)}"
        raise ConfigError(msg)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    if len(raw) > SIZE_LIMIT:
        raise ConfigError(f"{path}: over {SIZE_LIMIT:,} bytes, too large for a configuration; is it a file of data?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        msg = f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        raise ConfigError(msg) from None


def _syntax_message(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    problem = printable(error.problem or "not YAML", 200)
    if "'\\t'" in problem:
        return f"{where}: a tab; indent with spaces"
    if "single document" in (error.context or ""):
        return f"{where}: a second document begins here (---); a configuration is one"
    context = f" {printable(error.context)}" if error.context else ""
    return f"{where}: not YAML: {problem}{context} (a missing colon, quote or bracket, here or on the line above?)"


def _build(node: Node, place: Place, document: Document, around: tuple[Node, ...]) -> Value:
    """Return the plain value of a YAML node, and record in the document the line of every value in it.

    Problems such as duplicate keys are recorded too.
    """
    label, order = f"{document.name}:{node.start_mark.line + 1}", node.start_mark.index + 1
    document.labels.setdefault(place, label if place else document.name)
    document.order.setdefault(place, order)
    document.values += 1
    if document.values > VALUES_LIMIT:
        raise ConfigError(f"{label}: over {VALUES_LIMIT:,} values; write out what its aliases (*name) stand for")
    if any(node is outer for outer in around):
        document.problems.append(
            f"{label}: {dotted(place)}: an alias of the value that contains it; write the value out"
        )
        return None
    if isinstance(node, MappingNode):
        return _build_mapping(node, place, document, (*around, node))
    if isinstance(node, SequenceNode):
        parts = enumerate(node.value)
        return [_build(item, (*place, index), document, (*around, node)) for index, item in parts]
    if not isinstance(node, ScalarNode) or node.tag.removeprefix(_PREFIX) not in _KINDS:
        tag = printable(str(node.tag))
        document.problems.append(f"{label}: {dotted(place)}: the tag {tag} is not allowed; write the plain value")
        return None
    return _checked_scalar(node, label, place, document)


def _checked_scalar(node: ScalarNode, label: str, place: Place, document: Document) -> Scalar:
    """Return the value of a YAML scalar; None, and a recorded problem, if it cannot be used (`!!int` before text)."""
    if half_characters(str(node.value)):
        document.problems.append(f"{label}: {dotted(place)}: holds half a surrogate pair; write the whole character")
        return None
    try:
        return _scalar(node)
    except (ValueError, IndexError):  # a tag such as !!int before a text, or a number without end
        kind = node.tag.removeprefix(_PREFIX)
        wrong = f"more than {_DIGITS:,} digits" if len(node.value) > _DIGITS else f"not of the kind {kind}"
        document.problems.append(f"{label}: {dotted(place)}: {as_written(node.value)} is {wrong}")
        return None


def _build_mapping(node: MappingNode, place: Place, document: Document, around: tuple[Node, ...]) -> Value:
    result: dict[str, Value] = {}
    for key_node, value_node in node.value:
        label = f"{document.name}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, ScalarNode) or half_characters(str(key_node.value)):
            document.problems.append(f"{label}: a key must be a word, not a list, mapping or half a character")
            continue
        key, inner = key_node.value, (*place, key_node.value)
        if key in result:
            document.problems.append(f"{label}: {dotted(inner)}: the key is given twice; remove one")
            continue
        if not value_node.value and key_node.style is None and ":" in key:  # {name:x} is a key without a value
            first, _, rest = (printable(part) for part in key.partition(":"))
            document.problems.append(f"{label}: {dotted(inner)}: no space after the colon; write {first}: {rest}")
            continue
        document.mark(inner, label, key_node.start_mark.index + 1)
        result[key] = _build(value_node, inner, document, around)
    return result


def _scalar(node: ScalarNode) -> Scalar:
    text, kind = str(node.value), node.tag.removeprefix(_PREFIX)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        sign = -1.0 if text.startswith("-") else 1.0
        special = {".inf": sign * math.inf, ".nan": math.nan}
        return special.get(text.lower().lstrip("+-"), 0.0) if text[-1].lower() in "fn" else float(text)
    return text


def half_characters(text: str) -> bool:
    """Return True if a text holds half a surrogate pair, which can be neither written as UTF-8 nor compared."""
    return re.search("[\ud800-\udfff]", text) is not None


def _plain(node: Node) -> Scalar:
    return node.value if isinstance(node, ScalarNode) else "a list"
