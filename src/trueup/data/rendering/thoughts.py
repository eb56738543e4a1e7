"""Thoughts: how an answer's text holds one, and how families of models write them where their template does not.

A thought (chain of thought, reasoning) comes before an answer. Data give it beside the content (`reasoning_content`,
`thinking`) or in it, as <think>…</think>; both mean the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from trueup.data.rendering.messages import Message


class ThoughtForm(NamedTuple):
    """The text that a family writes before and after a thought."""

    opens: str
    closes: str


FORMS = (
    ThoughtForm("<think>\n", "\n</think>\n\n"),  # DeepSeek R1 and its distillations
    ThoughtForm("<think>", "</think>"),  # DeepSeek V3.1, GLM 4.5 and 5
    ThoughtForm("<|channel>thought\n", "\n<channel|>"),  # Gemma 4
    ThoughtForm("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThoughtForm("[THINK]", "[/THINK]"),  # Magistral
    ThoughtForm("◁think▷", "◁/think▷"),  # Kimi 1.5
)
"""How families write a thought. Used only where a template does not render the thought of the last answer itself: the
form is then the one that the template's generation prompt opens, else one whose tags the template's text holds."""

_TAG = re.compile(r"[<\[◁][^>\]▷]+[>\]▷]")
_INLINE = re.compile(r"(\s*<think>|(?!.*<think>.*</think>))(.*?)(</think>)(.*)", re.DOTALL)
_PAIRS = "|".join(rf"{re.escape(form.opens.strip())}\s*{re.escape(form.closes.strip())}" for form in FORMS)
_EMPTY = re.compile(_PAIRS)
_TAGS = "|".join(re.escape(tag.strip()) for form in FORMS for tag in form)
_OPENED = re.compile(rf"(?:{_PAIRS}|{_TAGS})\s*\Z")


def split_inline(content: str) -> tuple[str, str, str, str] | None:
    """Return a content as (opening tag, thought, closing tag, rest) if it begins with a thought, else None.

    Without an opening tag, all before the first </think> is a thought: prompts may end with the opening tag.
    """
    if "</think>" not in content:
        return None
    match = _INLINE.fullmatch(content)
    return (match[1], match[2], match[3], match[4]) if match else None


def thought_of(message: Message) -> str:
    """Return the thought of a message, given beside its content or in it; "" if it has none."""
    if message.thinking or message.role != "assistant":
        return message.thinking
    parts = split_inline(message.content)
    return parts[1].strip() if parts else ""


def apart(message: Message) -> Message:
    """Return the message with its thought beside the content, if the content begins with one."""
    parts = None if message.thinking else split_inline(message.content)
    if parts is None:
        return message
    return replace(message, content=parts[3].lstrip("\n"), thinking=parts[1].strip())


def inline(message: Message) -> Message:
    """Return the message with its thought in the content, as <think>…</think>, if it is given beside it."""
    if not message.thinking:
        return message
    form = FORMS[0]
    content = f"{form.opens}{message.thinking.strip()}{form.closes}{message.content}"
    return replace(message, content=content, thinking="")


def _written_empty(text: str) -> ThoughtForm | None:
    """Return the form of which `text`, up to its end, is the thought with nothing in it."""
    for form in FORMS:
        opens, closes = form.opens.strip(), form.closes.strip()
        inner = text.removeprefix(opens).partition(closes)[0]
        if text.startswith(opens) and not inner.strip():
            half = inner[: len(inner) // 2]
            return ThoughtForm(opens + half, inner[len(half) :] + closes + text.partition(closes)[2])
    return None


def is_empty_thought(text: str) -> bool:
    """Return True if the text holds an opened and closed thought with nothing in it."""
    return _EMPTY.search(text) is not None


def without_opening(text: str) -> str:
    """Return a generation prompt without a thought that it opens or closes (or both) at its end."""
    match = _OPENED.search(text)
    return text[: match.start()] if match else text


def form_of(prompt: str, template: str, before: str = "") -> ThoughtForm | None:
    """Return the form of thoughts of a family, by what its template writes; None if unknown.

    A generation prompt that opens a thought decides; else the empty thought in the text `before` a plain answer; else
    the template's text must hold both tags of a form other than <think>.
    """
    opened = next((form for form in FORMS if prompt.endswith(form.opens)), None)
    if opened is not None:
        return opened
    for form in FORMS[1:]:  # a prompt that says "no thought" by the closing tag alone (DeepSeek V3.1, GLM 5)
        if prompt.endswith(form.closes) and not _EMPTY.search(prompt) and form.opens in template:
            return form
    empty = _EMPTY.search(before)
    if empty is not None and (form := _written_empty(before[empty.start() :])) is not None:
        return form
    tags = ((form, _TAG.match(form.opens), form.closes.strip()) for form in FORMS[2:])
    return next((form for form, opens, closes in tags if opens and opens[0] in template and closes in template), None)
