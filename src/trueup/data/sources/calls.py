"""Thoughts, tool calls and declared tools in rows, in the spellings of OpenAI, ShareGPT, Hermes, Anthropic and Gemini.

    OpenAI     tool_calls [{id, type, function {name, arguments}}], {role: tool, tool_call_id, content}; function_call
    ShareGPT   {from: function_call, value: JSON}, {from: observation, value}
    Hermes     <tool_call>JSON</tool_call> in an assistant's text (or <TOOLCALL>[…]</TOOLCALL>, <function_calls>…),
               <tool_response>…</tool_response> in a tool's
    Anthropic  parts of a content: {type: tool_use, id, name, input}, {type: tool_result, tool_use_id, content},
               {type: thinking, thinking}; tools {name, input_schema}
    Gemini     parts {functionCall {name, args}}, {functionResponse {name, response}}; tools {functionDeclarations}

Arguments may be an object or its JSON text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from trueup.data.rendering.messages import TOOLS, Message, Origin, ToolCall, row_error
from trueup.data.rendering.thoughts import split_inline
from trueup.errors import DataError
from trueup.system.text import as_json, excerpt, home_path, printable, type_name

THINKING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message that hold an assistant's thought."""
CALLS = ("tool_calls", "function_call")
"""Keys of a message that hold tool calls."""
ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Keys of a call that hold its arguments."""
NAMES = ("tool_call_id", "name")
"""Keys of a tool's result that name the call, and the tool."""
CALL_ROLES = {"function_call": "assistant", "tool_call": "assistant"}
"""ShareGPT's roles of messages whose text is a call."""
RESULT_ROLES = {"observation": "tool", "tool_response": "tool", "function": "tool", "ipython": "tool"}
"""Other names of the role tool."""
_CALL = re.compile(
    r"<(?P<tag>(?:tool|function)_?calls?)>\s*(?P<call>[{[].*?[}\]])\s*</(?P=tag)>", re.DOTALL | re.IGNORECASE
)
CALL_MARK = re.compile(r"<[|]?/?(?:tool|function)[_ ]?calls?[|]?>|\[TOOL_CALLS\]|<[|]python_tag[|]>", re.IGNORECASE)
"""Marks of calls in the texts of several families."""
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)

Fail = Callable[..., DataError]
"""The method `Record.fail`, which makes the error of a row."""


def thought_in(name: str, item: Mapping[str, object], content: str, fail: Fail) -> str:
    """Return the thought that a message gives beside its content; "" if it gives none, or the same in the content.

    `name` is the message's name in errors, e.g. "messages[1]".

    Raises:
        DataError: it is no text, or there are two different ones.
    """
    given = [(key, item[key]) for key in THINKING if item.get(key)]
    for key, value in given:
        if not isinstance(value, str):
            raise fail(f"{name}.{key} is {type_name(value)}, expected a string", "write the thought as text")
    thoughts = {str(value).strip() for _, value in given if str(value).strip()}
    parts = split_inline(content)
    inside = parts[1].strip() if parts else ""
    if len(thoughts | ({inside} if inside else set())) > 1:
        keys = ", ".join([*(key for key, _ in given), *(["<think> in the content"] if inside else [])])
        raise fail(f"{name} has two different thoughts ({keys})", "keep one of them")
    return next((str(value) for _, value in given if str(value).strip()), "") if not inside else ""


def calls_in(name: str, item: Mapping[str, object], fail: Fail) -> tuple[ToolCall, ...]:
    """Return the tool calls that a message gives at `tool_calls` or `function_call`.

    Raises:
        DataError: one is no call, its arguments are no JSON object, or both keys hold calls, and not the same ones.
    """
    given = {key: calls_of(f"{name}.{key}", item[key], fail) for key in CALLS if item.get(key)}
    if len({tuple((call.name, call.arguments) for call in calls) for calls in given.values()}) > 1:
        raise fail(f"{name} holds different calls at {' and '.join(given)}", "keep one of them", kind="tools")
    return next(iter(given.values()), ())


def calls_of(name: str, value: object, fail: Fail) -> tuple[ToolCall, ...]:
    """Return the tool calls of a value: a list of calls, one call, or its JSON text."""
    value = _from_json(name, value, fail) if isinstance(value, str) else value
    items = value if isinstance(value, list) else [value]
    return tuple(_call(name if len(items) == 1 else f"{name}[{i}]", item, fail) for i, item in enumerate(items))


PART_KINDS = ("tool_use", "tool_result", "thinking")
"""Types of the parts of a content that are no texts, in Anthropic's messages."""


def from_parts(name: str, item: Mapping[str, object], fail: Fail) -> Iterator[Mapping[str, object]]:
    """Yield the messages that a message with Anthropic's parts stands for, as OpenAI writes them.

    Texts and thoughts of one message stay together with the calls that follow them; each result of a tool is a message
    of its own. A message without such parts is yielded as it is.

    Raises:
        DataError: a text or thought follows a call, which ends a message.
    """
    content = item.get("content")
    parts = cast("list[object]", content) if isinstance(content, list) else []
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if not set(kinds) & {*PART_KINDS}:
        yield item
        return
    texts: list[object] = []
    thoughts: list[str] = []
    calls: list[dict[str, object]] = []
    for index, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        held = cast("dict[str, object]", part) if isinstance(part, dict) else {}
        if calls and kind != "tool_use":
            problem = f"{name}.content[{index}] follows a call, and calls end a message"
            raise fail(problem, "write what follows as another message", as_json(part), kind="tools")
        if kind == "tool_result":
            if texts:
                yield {**item, "content": texts}
                texts = []
            yield {"role": "tool", "tool_call_id": held.get("tool_use_id"), "content": held.get("content") or ""}
        elif kind == "tool_use":
            calls.append({"id": held.get("id"), "name": held.get("name"), "arguments": held.get("input") or {}})
        elif kind == "thinking":
            thoughts.append(str(held.get("thinking") or ""))
        else:
            texts.append(part)
    if texts or thoughts or calls:
        more: dict[str, object] = {"tool_calls": calls} if calls else {}
        more |= {"thinking": "\n\n".join(thoughts)} if thoughts else {}
        yield {**item, "content": texts or "", **more}


def _call(name: str, item: object, fail: Fail) -> ToolCall:
    form = 'write {"name": "…", "arguments": {…}}'
    if not isinstance(item, dict):
        raise fail(f"{name} is {type_name(item)}, expected a call", form, as_json(item), kind="tools")
    item = cast("dict[str, Any]", item)
    inner = item["function"] if isinstance(item.get("function"), dict) else item
    called = inner.get("name")
    if not isinstance(called, str) or not called:
        raise fail(f"{name} names no tool", form, as_json(item), kind="tools")
    arguments = _arguments(name, inner, fail)
    text = arguments if isinstance(arguments, str) and arguments.strip() else as_arguments(arguments or {})
    value = _from_json(f"{name}.arguments", text, fail)
    if not isinstance(value, dict):
        problem = f"{name}.arguments is {type_name(value)}, expected an object"
        raise fail(problem, form, as_json(arguments), kind="tools")
    identity = item.get("id")
    return ToolCall(called, text, identity if isinstance(identity, str) else "")


def _arguments(name: str, call: Mapping[str, object], fail: Fail) -> object:
    """Return the arguments of a call, under any of their names; None if it has none.

    Raises:
        DataError: two names hold different arguments, or they may stand at a name that is not read.
    """
    given = {key: call[key] for key in ARGUMENTS if call.get(key) not in (None, "", {})}
    if len({as_json(value) for value in given.values()}) > 1:
        raise fail(f"{name} holds arguments at {' and '.join(given)}", "keep one of them", as_json(call), kind="tools")
    other = next((key for key, value in call.items() if key not in ARGUMENTS and isinstance(value, dict)), None)
    if not given and other is not None:
        problem = f"{name} has no arguments, but {excerpt(other)}"
        raise fail(problem, "write them at arguments", as_json(call), kind="tools")
    return next(iter(given.values()), None)


def as_arguments(value: object) -> str:
    """Return the arguments of a call as JSON text."""
    return json.dumps(value, ensure_ascii=False)


def _from_json(name: str, text: str, fail: Fail, form: str = 'write {"name": "…", "arguments": {…}}') -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise fail(f"{name} is not JSON", form, text, kind="tools") from None


def from_hermes(message: Message, fail: Fail) -> Iterator[Message]:
    """Yield a message with the calls in its text as calls, or the results in a tool's text as messages of their own.

    A text in <tool_call> that is no object with a name stays text. Objects may be written as Python writes them, as in
    Hermes' own data set: {'name': …}.
    """
    if message.role == "assistant" and not message.calls and CALL_MARK.search(message.content):
        found = list(_CALL.finditer(message.content))
        end = message.content.rstrip()
        values = [_call_value(match["call"]) for match in found]
        if found and found[-1].end() == len(end) and all(values):
            calls = tuple(call for value in values for call in calls_of("<tool_call>", value, fail))
            between = [end[a.end() : b.start()] for a, b in pairwise(found)]
            if not any(text.strip() for text in between):
                yield replace(message, content=message.content[: found[0].start()].rstrip(), calls=calls)
                return
    if message.role == "tool" and "<tool_response>" in message.content:
        results = _RESULT.findall(message.content)
        if results and not _RESULT.sub("", message.content).strip():
            yield from (replace(message, content=result) for result in results)
            return
    yield message


def _call_value(text: str) -> object:
    """Return the call, or list of calls, that a text writes in JSON or as a Python literal; None if it writes none."""
    value: object = None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = json.loads(json.dumps(ast.literal_eval(text)))  # None for bytes, sets and other things without JSON
    calls = value if isinstance(value, list) else [value]
    named = all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls)
    return value if calls and named else None


def paired(messages: Sequence[Message], fail: Fail) -> tuple[Message, ...]:
    """Return a conversation whose tool results name their tool: that of the call with their id or name, else in order.

    Raises:
        DataError: a result's id is that of no call before it, or another result has answered the call.
    """
    result: list[Message] = []
    waiting: list[ToolCall] = []
    ids: set[str] = set()
    for number, message in enumerate(messages, 1):
        if message.calls:
            waiting = list(message.calls)
            ids = {call.id for call in waiting if call.id}
        if message.role == "tool" and (waiting or (message.call_id and ids)):
            call = _answered(message, waiting)
            if message.call_id and ids and (call is None or call.id != message.call_id):
                state = "is answered already" if message.call_id in ids else "is none of the calls before it"
                problem = f"message {number}: the result's tool_call_id {excerpt(message.call_id)} {state}"
                raise fail(problem, f"name one of: {', '.join(sorted(ids))}", message.content, kind="tools")
            assert call is not None
            waiting.remove(call)
            result.append(replace(message, name=message.name or call.name, call_id=message.call_id or call.id))
        else:
            result.append(message)
    return tuple(result)


def _answered(message: Message, waiting: Sequence[ToolCall]) -> ToolCall | None:
    """Return the call that a tool's result answers: that of its id, else of its name, else the first that waits."""
    by_id = (call for call in waiting if message.call_id and call.id == message.call_id)
    by_name = (call for call in waiting if message.name and call.name == message.name)
    return next(by_id, None) or next(by_name, None) or next(iter(waiting), None)


def without_nulls(
    name: str, item: Mapping[str, object], schemas: Callable[[], Mapping[str, Any]], fail: Fail
) -> tuple[Mapping[str, object], bool]:
    """Return a message whose calls give no null that their tools do not take, and True if one was left out.

    A table (Parquet) has one type for all rows, so that every call gets the arguments of all others, as null. Arguments
    that are JSON text are exact and stay.

    Args:
        name: the message's name in errors, e.g. "messages[1]".
        item: the message.
        schemas: returns the schemas of the arguments of the declared tools, by the tool's name.
        fail: makes the error of the row.

    Raises:
        DataError: an argument is null, and no declaration says if the tool takes that.
    """
    changed: dict[str, object] = {}
    for key in CALLS:
        value = item.get(key)
        calls = [
            _filled(f"{name}.{key}", call, schemas, fail) for call in (value if isinstance(value, list) else [value])
        ]
        if any(call is not None for call in calls):
            whole = value if isinstance(value, list) else [value]
            merged = [call if call is not None else old for call, old in zip(calls, whole, strict=True)]
            changed[key] = merged if isinstance(value, list) else merged[0]
    return {**item, **changed}, bool(changed)


def _filled(name: str, call: object, schemas: Callable[[], Mapping[str, Any]], fail: Fail) -> dict[str, object] | None:
    """Return a call without the nulls that its tool does not take; None if it has none."""
    if not isinstance(call, dict):
        return None
    call = cast("dict[str, Any]", call)
    function = call.get("function")
    inner: dict[str, Any] = function if isinstance(function, dict) else call
    key = next((key for key in ARGUMENTS if isinstance(inner.get(key), dict)), None)
    if key is None or not _holds_null(inner[key]):
        return None
    schema = schemas().get(str(inner.get("name")))
    if schema is None:
        problem = f"{name}: an argument of {excerpt(str(inner.get('name')))} is null, and its tool is not declared"
        fix = "declare it in tools, so that it is known if null is meant; or write the arguments as JSON text"
        raise fail(problem, fix, as_json(inner[key]), kind="tools")
    arguments = _taken(inner[key], schema)
    if arguments == inner[key]:
        return None
    whole = {**inner, key: arguments}
    return whole if inner is call else {**call, "function": whole}


def _holds_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(_holds_null(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is None


def _taken(value: Any, schema: Any) -> Any:
    """Return arguments without the nulls that their schema does not require or allow."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        return [_taken(item, schema.get("items")) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema["properties"] if isinstance(schema.get("properties"), dict) else {}
    required = schema["required"] if isinstance(schema.get("required"), list) else []
    kept = {
        key: item
        for key, item in value.items()
        if item is not None or key in required or _may_be_null(properties.get(key))
    }
    return {key: _taken(item, properties.get(key)) for key, item in kept.items()}


def _may_be_null(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    choices = [part for key in ("anyOf", "oneOf") for part in (schema.get(key) or []) if isinstance(part, dict)]
    kinds = schema.get("type")
    named = kinds == "null" or (isinstance(kinds, list) and "null" in kinds)
    return named or schema.get("nullable") is True or any(map(_may_be_null, choices))


def declaring(row: Mapping[str, object]) -> list[str]:
    """Return the keys of a row that declare tools: `tools`, and `functions` (OpenAI's older name) if it holds some."""
    functions = row.get("functions")
    older = isinstance(functions, list) and any(isinstance(item, dict) and "name" in item for item in functions)
    return [*(["tools"] if row.get("tools") else []), *(["functions"] if older else [])]


def declared(value: object, fail: Fail) -> Message | None:
    """Return the tools that a row declares as a message of the role "tools"; None if it declares none.

    `value` is a list of declarations, {type: function, function: {name, …}} or {name, …}, or its JSON text.

    Raises:
        DataError: it is no such list.
    """
    if value is None or value in ("", [], {}):
        return None
    form = 'write [{"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}]'
    value = _from_json("tools", value, fail, form) if isinstance(value, str) else value
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise fail(f"tools is {type_name(value)}, expected a list", form, as_json(value), kind="tools")
    nested = ("functionDeclarations", "function_declarations")  # Gemini's
    value = [
        inner
        for item in cast("list[object]", value)
        for inner in next((item[key] for key in nested if isinstance(item, dict) and key in item), [item])
    ]
    tools: list[dict[str, Any]] = []
    for index, written in enumerate(cast("list[object]", value)):
        item = _from_json(f"tools[{index}]", written, fail, form) if isinstance(written, str) else written
        tool = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        if "input_schema" in tool:  # Anthropic's
            tool = {("parameters" if key == "input_schema" else key): held for key, held in tool.items()}
        inner = tool.get("function", tool)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise fail(f"tools[{index}] names no tool", form, as_json(item), kind="tools")
        whole = tool if "function" in tool else {"function": tool}
        tools.append(_without_nothing({"type": "function", **whole}))
    return Message(TOOLS, json.dumps(tools, ensure_ascii=False)) if tools else None


def read_tools(file: str) -> object:
    """Return the declarations of tools in a JSON file.

    Raises:
        DataError: the file cannot be read, or holds no list of tools.
    """
    path = home_path(file)

    def fail(problem: str, fix: str, value: object = None, **_: object) -> DataError:
        return row_error(Origin(printable(str(path)), 1), problem, fix, value)

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise fail(f"is no JSON file that can be read: {error}", "write a list of tools as JSON") from error
    if declared(value, fail) is None:
        raise fail("declares no tool", "write a list of tools, or leave `tools` out of the section")
    return value


def _without_nothing(value: Any) -> Any:
    """Return a declaration without null values: tables (parquet) give every object the fields of all others."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value


def call_problems(messages: Sequence[Message]) -> Iterator[str]:
    """Yield a problem for each call that does not fit the declared tools.

    Checked are the tool's name and, of the JSON schema of its parameters, `type`, `required`, `properties`, `enum`,
    `items` and `additionalProperties`: what tools declare. For all of JSON schema a library would be needed, for the
    sake of keywords (`$ref`, `oneOf`, formats) that declarations of tools hardly use; these are left unchecked.
    """
    tools = {
        tool["function"]["name"]: tool["function"].get("parameters") or {}
        for message in messages
        if message.role == TOOLS
        for tool in json.loads(message.content)
    }
    for message in messages:
        for call in message.calls:
            if not tools:
                continue
            if call.name not in tools:
                yield f"a call of {excerpt(call.name)}, which is not among the declared tools ({', '.join(tools)})"
            else:
                yield from _schema_problems(json.loads(call.arguments), tools[call.name], call.name)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _schema_problems(value: Any, schema: Any, place: str) -> Iterator[str]:
    """Yield the problems of a value under a schema; `place` is its place in words, e.g. "look.city"."""
    if not isinstance(schema, dict):
        return
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    known = [kind.lower() for kind in kinds if isinstance(kind, str) and kind.lower() in _TYPES]
    if known and not any(_is_type(value, kind) for kind in known):
        yield f"{place} is {type_name(value)}, declared as {' or '.join(known)}"
        return
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        yield f"{place} is {excerpt(value)}, not one of {', '.join(map(excerpt, choices))}"
    if isinstance(value, dict):
        properties = schema.get("properties") if isinstance(schema.get("properties"), dict) else None
        required = schema.get("required") if isinstance(schema.get("required"), list) else []
        for name in required or []:
            if name not in value:
                yield f"{place} lacks {excerpt(name)}, which is required"
        for name, item in value.items():
            if properties is not None and name in properties:
                yield from _schema_problems(item, properties[name], f"{place}.{name}")
            elif properties and schema.get("additionalProperties") in (None, False):
                yield f"{place} has {excerpt(name)}, which is not declared"
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            yield from _schema_problems(item, schema["items"], f"{place}[]")


def _is_type(value: Any, kind: str) -> bool:
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])
