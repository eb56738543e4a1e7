"""Messages, the typed rows made of them, and the rules for a well-formed conversation. No tokens are handled here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.errors import DataError
from trueup.system.text import excerpt, is_blank

ROLES = ("system", "user", "assistant", "tool")
TOOLS = "tools"
"""The role of a conversation's first message where tools are declared; its content is their JSON list."""
_ALLOW = ", or allow it: allow=[empty-response]"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: its name, its arguments as the JSON text of an object, and the call's id if it has one."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message of a conversation; `role` is system, user, assistant or tool, or "tools" for their declarations.

    Attributes:
        role: who wrote it.
        content: its text; for a tool, the result of a call.
        trained: False for an assistant's message that is only context: none of its tokens are trained.
        thinking: an assistant's thought before the content, if it is given beside it and not as <think>…</think> in it.
        calls: the tool calls that an assistant's message ends with.
        name: of a tool's result, the tool's name if known.
        call_id: of a tool's result, the id of the call that it answers if known.
    """

    role: str
    content: str
    trained: bool = True
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""

    def __repr__(self) -> str:
        """Return role, content and what else is set: part of the fingerprints of finished evaluations."""
        fields = {
            "role": self.role,
            "content": self.content,
            **({} if self.trained else {"trained": False}),
            **self.extra,
        }
        return f"Message({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    @property
    def text(self) -> str:
        """All that was written: the thought, the content and the calls."""
        calls = (f"{call.name} {call.arguments}" for call in self.calls)
        return "\n".join(part for part in (self.thinking, self.content, *calls) if part) if self.extra else self.content

    @property
    def extra(self) -> dict[str, Any]:
        """{name: value} of all that is set besides role, content and `trained`, as JSON can hold it; usually empty."""
        if not (self.thinking or self.calls or self.name or self.call_id):  # mostly
            return {}
        pairs: dict[str, Any] = {"thinking": self.thinking, "name": self.name, "call_id": self.call_id}
        pairs["calls"] = [[call.name, call.arguments, call.id] for call in self.calls]
        return {key: value for key, value in pairs.items() if value}

    def stored(self) -> tuple[Any, ...]:
        """Return the message as (role, content), or (role, content, extra), for JSON; `restored` reads it."""
        return (self.role, self.content, extra) if (extra := self.extra) else (self.role, self.content)

    @classmethod
    def restored(cls, values: Sequence[Any]) -> Message:
        """Return the message of which `stored` gave the values."""
        if len(values) == 2:
            return cls(values[0], values[1])
        extra = dict(values[2])
        calls = tuple(ToolCall(*call) for call in extra.pop("calls", ()))
        return cls(values[0], values[1], calls=calls, **extra)


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
    """Messages that end with an assistant's: a row to imitate (SFT), or an answer to score.

    `columns` has the other fields of the prompt's row that a reward takes, by name.
    """

    messages: tuple[Message, ...]
    origin: Origin | None = None
    columns: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

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


Remark = Literal["thought", "empty-thought", "lost-thought", "rewritten", "moved", "unprompted"]
"""Things about a rendering that are reported: an answer's thought was given, or is written empty; a thought of an
earlier answer was left out by the template; an earlier answer was changed by it, so that it is not trained, or stands
behind another text than that of its prompt; the last answer begins otherwise than the generation prompt ends."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation or text: T token ids, a mask of T booleans (True: trained), and remarks on it."""

    ids: list[int]
    mask: list[bool]
    remarks: frozenset[Remark] = frozenset()

    def __add__(self, other: Rendered) -> Rendered:
        return Rendered(self.ids + other.ids, self.mask + other.mask, self.remarks | other.remarks)


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

    Declared tools and an optional system message come first, then user and assistant in turns; after an assistant's
    tool calls come the tools' results, then the assistant again. The last message has the role `ends_with`; a prompt
    ("user") may also end with a tool's result. Contents must not be empty, except a tool's result, an assistant's with
    calls, and with `empty_ok` any assistant's: a model may sample the end token first, and people rank that.
    """
    expected: tuple[str, ...] = ("user",)
    head = 2 if messages and messages[0].role == TOOLS else 1
    for number, message in enumerate(messages, 1):
        role, content = message.role, message.content
        if role == TOOLS and number == 1:
            continue
        if role not in ROLES:
            problem = f"message {number} has unknown role {excerpt(role)}"
            raise row_error(origin, problem, f"use one of: {', '.join(ROLES)}", kind="unknown-role")
        empty = is_blank(content) and not empty_ok if role == "assistant" else not content or content.isspace()
        if empty and not (role == "tool" or message.calls):
            fix = "write its content, or remove the row" + (_ALLOW if role == "assistant" else "")
            raise row_error(origin, f"message {number} ({role}) is empty", fix, kind="empty")
        if role == "system" and number == head:
            continue
        if role not in expected:
            fix = "an optional system message first, then user and assistant in turns"
            if number > 1 and messages[number - 2].role == role:
                fix = f"join messages of one role: merge_turns: true; a row has {fix}"
            if "tool" in (role, *expected):
                fix += "; tool results follow an assistant's tool_calls, and then comes the assistant"
            problem = f"message {number} has role {role}, expected {' or '.join(expected)}"
            raise row_error(origin, problem, fix, content, kind="turn-order")
        expected = _AFTER[role if not message.calls else "call"]
    if not any(message.role != TOOLS for message in messages):
        raise row_error(origin, "there are no messages", "give at least one user message", kind="empty")
    last = messages[-1]
    if last.role != ends_with and not (ends_with == "user" and last.role == "tool"):
        problem = f"the last message has role {last.role}, expected {ends_with}"
        kind = "no-answer" if ends_with == "assistant" else "turn-order"
        raise row_error(origin, problem, f"end with a message of the {ends_with}", last.content, kind=kind)


_AFTER = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool",),
    "tool": ("tool", "assistant"),
}
