"""Messages, rows made of them, and what makes a conversation well-formed. No tokens: those are the renderer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trueup.errors import DataError
from trueup.system.text import excerpt

ROLES = ("system", "user", "assistant")
_ALLOW = ", or allow it: allow=[empty-response]"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The file and line of a row: `line` is 1-based (the row's number in parquet, JSON arrays and hub data sets)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A demonstration: messages that end with an assistant's."""

    messages: tuple[Message, ...]
    origin: Origin | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All before the last assistant message."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The last assistant message's content."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Preference:
    """A ranking: `chosen` and `rejected` are the messages after `prompt`, normally one assistant message each."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A verdict on one completion (KTO)."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages that end with a user's: something to answer."""

    messages: tuple[Message, ...]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A document, without roles."""

    text: str
    origin: Origin | None = None


Row = Conversation | Preference | Labelled | Prompt | Text


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids (T,), and for each whether it is trained (is a target)."""

    ids: list[int]
    mask: list[bool]

    def __add__(self, other: Rendered) -> Rendered:
        return Rendered(self.ids + other.ids, self.mask + other.mask)


def row_error(origin: Origin | None, problem: str, fix: str, value: object = None) -> DataError:
    """The DataError all bad rows get: place and problem, the value if given, the fix. Three lines at most."""
    shown = "" if value is None else f"\n  value: {excerpt(value)}"
    return DataError(f"{origin or 'conversation'}: {problem}{shown}\n  fix: {fix}")


def check(
    messages: Sequence[Message],
    *,
    origin: Origin | None = None,
    ends_with: Literal["assistant", "user"] = "assistant",
    empty_ok: bool = False,
) -> None:
    """Raise DataError unless `messages` are an optional system, then user and assistant in turns up to `ends_with`.

    `empty_ok` lets an assistant say nothing: a model does so when it samples the end token first, and people rank it.
    """
    expected = "user"
    for number, message in enumerate(messages, 1):
        role, content = message.role, message.content
        if role not in ROLES:
            problem = f"message {number} has unknown role {excerpt(role)}"
            raise row_error(origin, problem, f"use one of: {', '.join(ROLES)}")
        if (not content or content.isspace()) and not (empty_ok and role == "assistant"):
            fix = "write its content, or remove the row" + (_ALLOW if role == "assistant" else "")
            raise row_error(origin, f"message {number} ({role}) is empty", fix)
        if role == "system" and number == 1:
            continue
        if role != expected:
            fix = "an optional system message first, then user and assistant in turns"
            raise row_error(origin, f"message {number} has role {role}, expected {expected}", fix, content)
        expected = "assistant" if role == "user" else "user"
    if not messages:
        raise row_error(origin, "there are no messages", "give at least one user message")
    last = messages[-1]
    if last.role != ends_with:
        problem = f"the last message has role {last.role}, expected {ends_with}"
        raise row_error(origin, problem, f"end with a message of the {ends_with}", last.content)
