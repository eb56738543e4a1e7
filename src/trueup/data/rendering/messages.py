"""Messages, the typed rows made of them, and the rules for a well-formed conversation. No tokens are handled here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trueup.errors import DataError
from trueup.system.text import excerpt, is_blank

ROLES = ("system", "user", "assistant")
_ALLOW = ", or allow it: allow=[empty-response]"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; `role` is system, user or assistant.

    `trained` is False for an assistant's message that is only context: none of its tokens are trained.
    """

    role: str
    content: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """The file and line that a row was read from.

    `line` counts from 1; in parquet files, JSON lists and hub data sets it is the row's number.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row to imitate (SFT): messages that end with an assistant's."""

    messages: tuple[Message, ...]
    origin: Origin | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages before the last, which is the assistant's response."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The content of the last message, the assistant's response."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Preference:
    """A row with a prompt and two answers, of which `chosen` was preferred to `rejected`.

    Each answer is the messages after the prompt, normally one assistant message. `margin` tells how much better the
    chosen one is, if known.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row with a prompt and one completion, labelled as desirable or not (for KTO)."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row without an answer: messages that end with a user's, for a model to answer."""

    messages: tuple[Message, ...]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A row of plain text without roles, e.g. a document."""

    text: str
    origin: Origin | None = None


Row = Conversation | Preference | Labelled | Prompt | Text


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation or text: T token ids, and a mask of T booleans, True for tokens that are trained."""

    ids: list[int]
    mask: list[bool]

    def __add__(self, other: Rendered) -> Rendered:
        return Rendered(self.ids + other.ids, self.mask + other.mask)


def row_error(origin: Origin | None, problem: str, fix: str, value: object = None, *, kind: str = "") -> DataError:
    """Return the DataError for a bad row: its place and the problem, the value if given, and the fix.

    The message has at most three lines. `kind` is the kind of row by which the setting `skip` can leave it out; the fix
    then says so.
    """
    shown = "" if value is None else f"\n  value: {excerpt(value)}"
    leave_out = f"; or leave such rows out: skip: [{kind}]" if kind else ""
    error = DataError(f"{origin or 'conversation'}: {problem}{shown}\n  fix: {fix}{leave_out}")
    error.kind = kind
    return error


def check(
    messages: Sequence[Message],
    *,
    origin: Origin | None = None,
    ends_with: Literal["assistant", "user"] = "assistant",
    empty_ok: bool = False,
) -> None:
    """Raise DataError unless the messages form a well-formed conversation.

    An optional system message comes first, then user and assistant in turns; the last has the role `ends_with`.
    Contents must not be empty, except with `empty_ok` an assistant's: a model may sample the end token first, and
    people rank that.
    """
    expected = "user"
    for number, message in enumerate(messages, 1):
        role, content = message.role, message.content
        if role not in ROLES:
            problem = f"message {number} has unknown role {excerpt(role)}"
            raise row_error(origin, problem, f"use one of: {', '.join(ROLES)}", kind="unknown-role")
        empty = is_blank(content) and not empty_ok if role == "assistant" else not content or content.isspace()
        if empty:
            fix = "write its content, or remove the row" + (_ALLOW if role == "assistant" else "")
            raise row_error(origin, f"message {number} ({role}) is empty", fix, kind="empty")
        if role == "system" and number == 1:
            continue
        if role != expected:
            fix = "an optional system message first, then user and assistant in turns"
            if number > 1 and messages[number - 2].role == role:
                fix = f"join messages of one role: merge_turns: true; a row has {fix}"
            problem = f"message {number} has role {role}, expected {expected}"
            raise row_error(origin, problem, fix, content, kind="turn-order")
        expected = "assistant" if role == "user" else "user"
    if not messages:
        raise row_error(origin, "there are no messages", "give at least one user message", kind="empty")
    last = messages[-1]
    if last.role != ends_with:
        problem = f"the last message has role {last.role}, expected {ends_with}"
        kind = "no-answer" if ends_with == "assistant" else "turn-order"
        raise row_error(origin, problem, f"end with a message of the {ends_with}", last.content, kind=kind)
