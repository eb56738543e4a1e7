"""The sandbox in which chat templates are rendered: that of transformers, with every growing operation limited.

Imports only jinja2 and the standard library, so that a child process can try an untrusted template cheaply.
Beyond jinja2's ImmutableSandboxedEnvironment, the code generated from a template counts (`limits.py`) loop iterations,
calls, filters, `+`, `*`, `**`, `%`, `~`, literals of containers, captured blocks and everything that is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from string import Formatter
from typing import Any

from jinja2 import Template, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from trueup.data.rendering.limits import (
    MEASURED,
    OverLimit,
    begin,
    charge,
    charge_digits,
    charge_printf,
    charge_value,
    step,
    weigh,
)

WRITTEN_LIMIT = 1_000_000
"""Characters that a template may write around contents, besides 1000 a message: tokens stay of the data's size."""
_MOST_BITS = 100_000  # of an integer
_MOST_DIGITS = 400  # that `round` is asked for: floats have 308
_MOST_INDENT = 64  # of tojson: spaces, or characters of a separator


GENERATION_MARKS = ("trueup_generation_begins", "trueup_generation_ends")
"""Variables that are written where a {% generation %} block begins and ends; undefined, they write nothing."""


def render(
    template: str,
    tokens: Mapping[str, str],
    turns: list[dict[str, Any]],
    generate: bool,
    tools: list[Any] | None = None,
) -> str:
    """Return the text of a conversation, rendered by a chat template.

    Args:
        template: the chat template.
        tokens: texts by name: the special tokens (bos_token, ...), and GENERATION_MARKS if these are to be written.
        turns: messages with role and content.
        generate: end with the header of the assistant's next message.
        tools: the declarations of the tools that the model may call.

    Raises:
        OverLimit: the rendering takes too much time, memory or output.
        TemplateError: the template refuses the messages, or is malformed.
    """
    characters = sum([_characters(turn) for turn in turns]) + (_characters(tools) if tools else 0)
    begin(characters, len(turns))
    compiled = _compiled(template)
    values = {"messages": turns, "tools": tools, "documents": None, "add_generation_prompt": generate, **tokens}
    left = most = WRITTEN_LIMIT + 2 * characters + 1000 * len(turns)
    pieces = []
    for piece in compiled.root_render_func(compiled.new_context(values)):
        left -= len(piece)
        if left < 0:
            raise OverLimit(f"more than {most:,} characters for one conversation")
        pieces.append(piece)
    return "".join(pieces)


def _characters(value: Any) -> int:
    """Return the number of characters in all texts of a message or a tool's declaration, keys included."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum([_characters(item) + 8 for item in value.values()])
    return sum(map(_characters, value)) if isinstance(value, list) else 8


def parse(template: str) -> nodes.Template:
    """Return a chat template as jinja2's syntax tree."""
    return _environment().parse(template)


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


class _Generator(CodeGenerator):
    """Generator of a template's Python code that adds calls which count loop iterations and the characters built."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop_bodies: list[Any] = []

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        self._loop_bodies.append(node.body)
        super().visit_For(node, frame)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        if any(nodes is body for body in self._loop_bodies):
            self.writeline("environment.step()")
        super().blockvisit(nodes, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._charged(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._charged(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._charged(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        volatile = frame.eval_ctx.volatile
        join = "markup_join" if frame.eval_ctx.autoescape else "str_join"
        self.write("(markup_join if context.eval_ctx.autoescape else str_join)" if volatile else join)
        self.write("(environment.charge_value((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write(")))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_pre(node, frame, finalize)
        self.write("environment.charge_value(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")
        super()._output_child_post(node, frame, finalize)

    def _charged(self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame) -> None:
        self.write("environment.charge_value(")
        visit(node, frame)
        self.write(")")


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, whose operators, calls and text formatting count the characters they build, up to a limit."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    step = staticmethod(step)
    charge_value = staticmethod(charge_value)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join the pieces of text of a macro or a captured block; their size counts towards the limit."""
        pieces = list(pieces)
        charge(sum(map(len, pieces)))
        return "".join(pieces)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        """Return `left operator right`, after the size of the result was counted towards the limit."""
        if operator == "+":
            if type(left) is type(right) is str:  # mostly
                charge(len(left) + len(right))
                return left + right
            if isinstance(left, MEASURED):
                charge(weigh(left) + weigh(right))
        elif operator == "*":
            _charge_product(left, right)
        elif operator == "%":
            if isinstance(left, str):
                charge_printf(left, right)
        elif isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        return self.binop_table[operator](left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja2
        """Call a function, method or macro for a template; the size of its result counts towards the limit.

        For methods of texts that can build much (e.g. `ljust`), the size is counted before the call.
        """
        step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            guard = _METHODS.get(__obj.__name__)
            if guard is not None:
                named = {name: value for name, value in kwargs.items() if name[0] != "_"}  # without jinja2's _loop_vars
                args = guard(owner, *args, **named) or args
        return charge_value(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return True if a template may read the attribute `attr` of `obj`.

        Beyond jinja2's rule, methods that make bytes are refused, because the size of bytes is not counted here.
        """
        if attr in ("encode", "to_bytes", "from_bytes"):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a sandboxed form of `str.format` or `format_map` that counts the size of its result beforehand.

        For any other value, None is returned.
        """
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            fields = [spec or "" for _, name, spec, _ in Formatter().parse(text) if name is not None]
            charge(len(text) + len(fields) * (weigh(args) + weigh(kwargs)))
            for spec in fields:
                if "{" in spec:
                    raise SecurityError("a format width that is computed")
                charge_digits(*"".join(char if char.isdigit() else " " for char in spec).split())
            return wrapped(*args, **kwargs)

        return bounded


def _check_bits(bits: int) -> None:
    if bits > _MOST_BITS:
        raise OverLimit(f"a number of more than {_MOST_BITS:,} bits")


def _charge_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
        return
    times, value = (left, right) if isinstance(left, int) else (right, left)
    if isinstance(times, int) and isinstance(value, MEASURED):
        charge(weigh(value) * max(times, 0))


# What the methods of a text and the filters charge before they run. Their parameters are those of what they guard.


def _width(value: Any, width: int = 80, *_: Any) -> None:
    charge(weigh(value) + abs(int(width)))


def _expandtabs(text: str, tabsize: int = 8) -> None:
    charge(len(text) + text.count("\t") * abs(tabsize))


def _replace(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    charge(weigh(text))
    text, old, new = str(text), str(old), str(new)
    charge(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _join_method(separator: str, items: Iterable[Any]) -> tuple[Any]:
    pieces = list(items)
    charge(weigh(pieces) + len(separator) * len(pieces))
    return (pieces,)


def _translate(text: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise SecurityError("translate without a dict")
    charge(len(text) * max((weigh(value) for value in table.values()), default=1))


_METHODS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
    "expandtabs": _expandtabs,
    "replace": _replace,
    "join": _join_method,
    "translate": _translate,
}


def _indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    charge(weigh(text))
    charge((str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else abs(width)))


def _wordwrap(text: Any, *args: Any, wrapstring: str | None = None, **_: Any) -> None:
    separator = args[2] if len(args) > 2 else wrapstring
    charge(100 * weigh(text) * (1 + len(separator or "\n")))


def _batch(_value: Any, count: int, fill_with: Any = None) -> None:
    charge(abs(int(count)) * weigh(fill_with))


def _round(_value: Any, precision: int = 0, *_: Any, **__: Any) -> None:
    if abs(precision) > _MOST_DIGITS:
        raise OverLimit(f"more than {_MOST_DIGITS} digits of a number")


def _times(factor: int) -> Callable[..., None]:
    def guard(value: Any, *_: Any, **__: Any) -> None:
        charge(factor * weigh(value))

    return guard


_FILTERS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("string", "upper", "lower", "trim", "title", "capitalize", "truncate", "safe"), _times(1)),
    **dict.fromkeys(("e", "escape", "forceescape", "urlencode", "xmlattr", "list", "wordcount"), _times(16)),
    **dict.fromkeys(("pprint", "urlize", "striptags"), _times(1000)),  # slow, or quadratic
    "center": _width,
    "replace": _replace,
    "indent": _indent,
    "wordwrap": _wordwrap,
    "format": lambda value, *args, **kwargs: charge_printf(str(charge_value(value)), kwargs or args),
    "batch": _batch,
    "slice": _batch,
    "round": _round,
}


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a template filter that counts as a step and whose needs and result count towards the character limit."""
    guard = _FILTERS.get(name)
    skipped = int(hasattr(function, "jinja_pass_arg"))  # the first argument is the context or environment

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        step()
        if guard is not None:
            guard(*args[skipped:], **kwargs)
        return charge_value(function(*args, **kwargs))

    return bounded


def _joined(join: Callable[..., str]) -> Callable[..., str]:
    @wraps(join)
    def bounded(context: Any, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
        if attribute is not None:
            value = map(make_attrgetter(context.environment, attribute), value)
        return join(context, *_join_method(str(d), value), d)

    return bounded


def _summed(environment: _Environment, total: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(total)
    def bounded(context: Any, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if attribute is not None:
            iterable = map(make_attrgetter(environment, attribute), iterable)
        for item in iterable:
            step()
            start = environment.call_binop(context, "+", start, item)
        return start

    return bounded


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return a value as JSON, as the filter `tojson` of transformers does, without escapes for HTML."""
    for text in (indent, *(separators or ())):
        if (len(text) if isinstance(text, str) else abs(text or 0)) > _MOST_INDENT:
            raise OverLimit(f"more than {_MOST_INDENT} characters between the parts of JSON")
    charge(8 * weigh(x))
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, check_circular=True
    )
    if indent is None:
        return encoder.encode(x)
    pieces = []
    for piece in encoder.iterencode(x):  # deep structures are indented by more at each level
        charge(len(piece))
        pieces.append(piece)
    return "".join(pieces)


def _lipsum(lipsum: Callable[..., str]) -> Callable[..., str]:
    def bounded(n: int = 5, html: bool = True, **words: int) -> str:
        charge(1000 * abs(n) * abs(words.get("max", 100)))
        return lipsum(n, html, **words)

    return bounded


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 - transformers' name
    charge(256 * len(format))
    return datetime.now().strftime(format)


class _Dict:
    """The function `dict` in templates; a template can reach no attributes of the class through it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """The object `namespace` in templates, which refuses attributes that begin with an underscore.

    Its text is always "<Namespace>", so that no contents are written with it.
    """

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=...) works
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the attribute {name!r}")


class _GenerationTag(Extension):
    """The tag {% generation %} ... {% endgeneration %}, by which templates mark the assistant's part.

    The text inside it is rendered, between the values of the variables GENERATION_MARKS, which are usually undefined.
    """

    tags = {"generation"}  # noqa: RUF012 - as jinja2's extensions declare it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the node of the tag and its body, which has its own scope as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in GENERATION_MARKS)
        return nodes.Scope([begins, *body, ends], lineno=line)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    filters = environment.filters
    filters |= {"join": _joined(filters["join"]), "sum": _summed(environment, filters["sum"]), "tojson": _tojson}
    environment.filters = {name: _bounded(name, function) for name, function in filters.items()}
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
        "lipsum": _lipsum(environment.globals["lipsum"]),
    }
    return environment
