"""The chat template of a tokenizer: its own, a file's, or one of ours, with the variables that are given for it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.config import TEMPLATE_NAMES
from trueup.config.untrusted import read_json
from trueup.data.rendering.template import PLAIN_CHATML, variables_of
from trueup.errors import ConfigError, ModelError
from trueup.system.text import excerpt, home_path, printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHATML_TOOLS = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif -%}
{%- if tools %}
{{- '<|im_start|>system\\n' + (system + '\\n\\n' if system else '') }}
{{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": ' }}
{{- '<args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif system %}{{ '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}{% endif -%}
{%- for message in turns %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' else '' }}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if message.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {"chatml": PLAIN_CHATML, "chatml-tools": _CHATML_TOOLS}
"""Templates by the names of the key `chat_template`: ChatML, and ChatML with thoughts and Hermes' tool calls."""

_GIVEN = {"messages", "tools", "documents", "add_generation_prompt"}
"""Variables of a template that each conversation sets."""


def choose_template(
    tokenizer: PreTrainedTokenizerBase, chat_template: str | None, variables: Mapping[str, Any] | None
) -> None:
    """Give a tokenizer the chat template and the template variables that a configuration sets.

    The variables become defaults at the beginning of the template, so that the exported tokenizer renders as this run
    does, in every tool.

    Args:
        tokenizer: the tokenizer, which is changed.
        chat_template: a file, or a name in TEMPLATES; None keeps the tokenizer's own.
        variables: {variable: value} for the template.

    Raises:
        ConfigError: there is no such file, or the template reads no such variable.
    """
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    if not variables:
        return
    if tokenizer.chat_template is None:
        raise ConfigError("template: the tokenizer has no chat template\n  fix: give one: chat_template=FILE")
    try:
        text = tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError(f"the chat template cannot be chosen: {excerpt(str(error), 120)}") from error
    known = variables_of(text) - _GIVEN - set(tokenizer.special_tokens_map)
    for name in variables:
        if name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1)
        readable = f"it reads {', '.join(sorted(known))}" if known else "it reads none"
        hint = f"did you mean {near[0]}?" if near else "leave it out, or name one that it reads"
        raise ConfigError(f"template: the chat template reads no variable {excerpt(name)}; {readable}\n  fix: {hint}")
    tokenizer.chat_template = with_defaults(text, variables)


def read_template(chat_template: str) -> str:
    """Return the text of the template that the key `chat_template` names: a file, or a name in TEMPLATES.

    Raises:
        ConfigError: the file cannot be read.
    """
    if chat_template in TEMPLATES:
        return TEMPLATES[chat_template]
    path = home_path(chat_template)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(
            f"chat_template: {printable(str(path))}: {reason}\n"
            f"  fix: give a template's file, or one of: {', '.join(TEMPLATE_NAMES)}"
        ) from error


def with_defaults(template: str, variables: Mapping[str, Any]) -> str:
    """Return a chat template that begins by setting variables which the caller does not set.

    A template that begins so already is returned as it is.
    """
    lines = [
        f"{{% set {name} = {name} if {name} is defined else {_literal(value)} %}}\n"
        for name, value in sorted(variables.items())
    ]
    head = "".join(lines)  # the newline behind a block is not written: templates are rendered with trim_blocks
    return template if template.startswith(head) else head + template


def _literal(value: object) -> str:
    """Return a value as jinja writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    return repr(value)


def two_templates(folder: Path) -> bool:
    """Return True if a model's folder has different chat templates in tokenizer_config.json and chat_template.jinja."""
    written, file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    if not (written.is_file() and file.is_file()):
        return False
    try:
        inside = read_json(written).get("chat_template")
        text = file.read_text(encoding="utf-8")
    except (ModelError, OSError, ValueError):  # loading reports it
        return False
    if isinstance(inside, list):
        named = {item.get("name"): item.get("template") for item in inside if isinstance(item, dict)}
        inside = named.get("default")
    return isinstance(inside, str) and inside.strip() != text.strip()
