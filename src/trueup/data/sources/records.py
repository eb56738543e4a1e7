"""The fields of one row of a file, with checked types, as messages, numbers and transcripts of Human and Assistant."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from trueup.data.rendering.messages import Message, Origin, row_error
from trueup.data.sources.calls import (
    CALL_ROLES,
    NAMES,
    RESULT_ROLES,
    calls_in,
    calls_of,
    from_hermes,
    paired,
    thought_in,
)
from trueup.errors import DataError
from trueup.system.text import as_json, excerpt, listed, type_name

MESSAGES = ("messages", "conversations", "conversation")
PROMPT = ("prompt", "question", "instruction", "query", "input")
COMPLETION = ("completion", "response", "answer", "output")
SYSTEM = ("system", "system_prompt")
SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
FIELDS = (
    *MESSAGES,
    *PROMPT,
    *COMPLETION,
    *SYSTEM,
    "chosen",
    "rejected",
    "margin",
    "label",
    "text",
    "tools",
    *SCORES[0],
)
SPEAKERS = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "developer": "system", **CALL_ROLES, **RESULT_ROLES,
}  # fmt: skip
TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(slots=True)
class Record:
    """The fields of one row of a file, and its place. Every method checks the type of the value that it returns.

    Attributes:
        row: the fields by name.
        origin: the row's file and line.
        notes: (place, oddity) of rows that are used all the same, e.g. joined turns; `note` appends to it.
        allow_empty: accept empty messages of the assistant.
    """

    row: Mapping[str, object]
    origin: Origin
    notes: list[tuple[Origin, str]] = field(default_factory=list)
    allow_empty: bool = False

    def fail(self, problem: str, fix: str, value: object = None, *, kind: str = "") -> DataError:
        """Return a DataError for this row, which names its file and line, the problem, the value and the fix.

        `kind` is the kind of row by which `skip` can leave it out.
        """
        return row_error(self.origin, problem, fix, value, kind=kind)

    def value(self, key: str) -> object:
        """Return the value at `key`.

        Raises:
            DataError: the key is missing, or its value is null.
        """
        if key not in self.row:
            near = difflib.get_close_matches(key, [k for k in self.row if k not in FIELDS], n=1)
            hint = (
                f"rename {excerpt(near[0])} to {excerpt(key)}"
                if near
                else "add it; every row needs the first row's fields"
            )
            raise self.fail(f"no {excerpt(key)}, the row has: {listed(self.row)}", hint)
        if self.row[key] is None:
            raise self.fail(f"{excerpt(key)} is null", "write its value, or remove the row")
        return self.row[key]

    def wrong_type(self, key: str, expected: str) -> DataError:
        """Return the error for a value at `key` that is not of the type `expected` (in words, e.g. "a string")."""
        value = self.row[key]
        text = value if isinstance(value, str) else as_json(value)
        return self.fail(f"{excerpt(key)} is {type_name(value)}, expected {expected}", f"write {expected}", text)

    def text(self, key: str, *, empty_ok: bool = False) -> str:
        """Return the string at `key`, which must be more than spaces, unless `empty_ok`.

        Raises:
            DataError: the value is missing, not a string, empty, or not valid Unicode (half a surrogate pair).
        """
        value = self.value(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string")
        if not value.strip() and not empty_ok:
            answer = key in (*COMPLETION, "chosen", "rejected")
            more = ", or allow it: allow=[empty-response]" if answer else ""
            raise self.fail(f"{excerpt(key)} is empty", f"write its text, or remove the row{more}")
        return self.encodable(key, value)

    def encodable(self, key: str, text: str) -> str:
        """Return `text`, the value at `key`, if UTF-8 can encode it.

        Raises:
            DataError: it holds half a surrogate pair, which JSON can express but no tokenizer can read.
        """
        bad = re.search("[\ud800-\udfff]", text)
        if bad:
            raise self.fail(
                f"{excerpt(key)} holds half a surrogate pair",
                "write the whole character",
                text[max(0, bad.start() - 20) : bad.end() + 20],
            )
        return text

    def number(self, key: str) -> float:
        """Return the finite number at `key`; text such as "0.5" (from CSV) is converted.

        Raises:
            DataError: the value is not a finite number.
        """
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.wrong_type(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.fail(
                f"{excerpt(key)} is over a float's range", "write a number below 1e308", as_json(value)
            ) from None
        except ValueError:
            raise self.wrong_type(key, "a number") from None
        if not math.isfinite(number):
            raise self.fail(f"{excerpt(key)} is {number}", "write a finite number, or remove the row")
        return number

    def verdict(self, key: str) -> bool:
        """Return the boolean at `key`; the texts "true" and "false" (from CSV) are converted.

        Raises:
            DataError: the value is not true or false.
        """
        value = self.value(key)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self.wrong_type(key, "true or false")
        return value

    def turns(self, key: str, role: str) -> tuple[Message, ...]:
        """Return the messages at `key`: a list of messages, a transcript, or a string as one message of `role`."""
        value = self.value(key)
        if isinstance(value, list):
            return self.messages(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string or a list of messages")
        if is_transcript(value):
            return self.transcript(key)
        return (Message(role, self.text(key, empty_ok=self.allow_empty and role == "assistant")),)

    def messages(self, key: str) -> tuple[Message, ...]:
        """Return the messages at `key`, a list of {role, content} or {from, value} (ShareGPT).

        Raises:
            DataError: the value is not such a list, is empty, or a message is not plain text.
        """
        value = self.value(key)
        if not isinstance(value, list):
            raise self.wrong_type(key, "a list of messages")
        if not value:
            raise self.fail(f"{excerpt(key)} is an empty list", "write its messages, or remove the row")
        read = (self._message(f"{key}[{i}]", item) for i, item in enumerate(cast("list[object]", value)))
        return paired([message for item in read for message in from_hermes(item, self.fail)])

    def _message(self, name: str, item: object) -> Message:
        if not isinstance(item, dict):
            raise self.fail(
                f"{name} is {type_name(item)}, expected a message", 'write {"role": …, "content": …}', as_json(item)
            )
        calls = calls_in(name, item, self.fail)
        is_sharegpt = "from" in item and "role" not in item
        role_key, text_key = ("from", "value") if is_sharegpt else ("role", "content")
        if calls and item.get(text_key) is None:
            item = {**item, text_key: ""}
        for key in (role_key, text_key):
            if not isinstance(item.get(key), str):
                form = f'{{"{role_key}": "user", "{text_key}": "…"}}'
                raise self._not_string(name, cast("dict[str, object]", item), key, form)
        role, content = str(item[role_key]), self.encodable(f"{name}.{text_key}", str(item[text_key]))
        if role in CALL_ROLES:
            calls, content = calls_of(f"{name}.{text_key}", content, self.fail), ""
        role = SPEAKERS.get(role, role)
        thinking = thought_in(name, item, content, self.fail) if role == "assistant" else ""
        names = {key: str(item[key]) for key in NAMES if role == "tool" and item.get(key)}
        return Message(
            role, content, thinking=self.encodable(f"{name} (thought)", thinking), calls=calls,
            name=names.get("name", ""), call_id=names.get("tool_call_id", ""),
        )  # fmt: skip

    def _not_string(self, name: str, item: Mapping[str, object], key: str, form: str) -> DataError:
        """Return the error for a message (`name`, e.g. "messages[0]") whose value at `key` is not a string."""
        if isinstance(item.get(key), list):
            fix = "join the texts of its parts into one string; images and sound cannot be trained on"
            return self.fail(f"{name}: {excerpt(key)} is a list of parts, expected a string", fix, as_json(item[key]))
        state = type_name(item[key]) if key in item else "missing"
        return self.fail(f"{name}: {excerpt(key)} is {state}, expected a string", f"write {form}", as_json(item))

    def transcript(self, key: str) -> tuple[Message, ...]:
        r"""Return the messages of the transcript at `key`, with turns "\n\nHuman:" and "\n\nAssistant:" (Anthropic hh).

        Outer spaces of a turn are removed. Consecutive turns of one speaker are joined, with a note; an Assistant's
        turn may be empty, because people ranked such answers.
        """
        turns: list[Message] = []
        for message in parse_transcript(self.text(key)):
            if turns and turns[-1].role == message.role:
                self.note(f"{key}: two turns of one speaker in a row, joined")
                turns[-1] = Message(message.role, f"{turns[-1].content}\n\n{message.content}".strip())
            else:
                turns.append(message)
        return tuple(turns)

    def note(self, oddity: str) -> None:
        """Add to `notes` that this row is unusual, in the words `oddity`, with its file and line; it is used anyway."""
        self.notes.append((self.origin, oddity))


def rename_fields(row: dict[str, object], columns: Mapping[str, str], origin: Origin) -> dict[str, object]:
    """Return the row with trueup's field names; `columns` is {trueup's field name: the name in the file}.

    Raises:
        DataError: the row lacks a name that `columns` gives.
    """
    if not columns:
        return row
    for key, source in columns.items():
        if source not in row:
            near = difflib.get_close_matches(source, list(row), n=1)
            raise row_error(
                origin,
                f"columns reads {key} from {excerpt(source)}, the row has: {listed(row)}",
                f"did you mean {excerpt(near[0])}?" if near else "name one of these",
            )
    taken = set(columns.values()) | set(columns)
    return {**{k: v for k, v in row.items() if k not in taken}, **{k: row[source] for k, source in columns.items()}}


def is_transcript(text: str) -> bool:
    """Return True if `text` is written as turns of Human and Assistant (Anthropic hh)."""
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def parse_transcript(text: str) -> list[Message]:
    """Return the turns of an Anthropic hh transcript as messages, without outer spaces; empty turns are kept."""
    parts = TURN.split("\n\n" + text.lstrip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[speaker], turn.strip()) for speaker, turn in zip(parts[::2], parts[1::2], strict=True)]
