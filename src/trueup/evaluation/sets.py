"""Evaluation sets: the questions, prompts and passages written for this project, or a user's own rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeVar

from trueup.data.rendering.messages import Message, Origin, check
from trueup.data.sources.records import MESSAGES, PROMPT, Record
from trueup.data.sources.stream import RowStream, load_records

if TYPE_CHECKING:
    from trueup.config import DataConfig, EvaluateConfig

T = TypeVar("T")
SetName = Literal["capability", "forgetting", "innocent", "unsafe", "prompts"]


# The repr of these two classes is part of an evaluation's fingerprint (suite.input_hashes): with other names of classes
# or fields, finished evaluations would be measured again.
@dataclass(frozen=True, slots=True)
class Asked:
    """A question or prompt, and its expected answers.

    Attributes:
        id: unique within the set.
        prompt: messages that end with the user's.
        topic: if the row has one.
        answers: accepted answers, the first for display; empty where none is expected.
        choices: where given, the model writes nothing: the likeliest choice is its answer.
    """

    id: str
    prompt: tuple[Message, ...]
    topic: str | None = None
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The last message, as readable text."""
        return self.prompt[-1].content


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, or a conversation, for measuring its likelihood."""

    id: str
    topic: str | None
    text: str | None = None
    messages: tuple[Message, ...] = ()


def questions(data: DataConfig | None, limit: int | None = None) -> list[Asked]:
    """Return capability questions: {question, answer, accept} or {question, choices, answer}.

    The question is under any name that a prompt has (question, prompt, instruction, …) or in `messages`, whose last
    assistant message is then the expected answer. Of a worked answer in GSM8K's style, what follows `####` is expected.

    Raises:
        DataError: a row lacks its answer, or its answer is not one of its choices.
    """
    return evenly_spread(_read("capability", data, _question), limit)


def prompts(name: SetName, data: DataConfig | None, limit: int | None = None) -> list[Asked]:
    """Return prompts to answer, of one of the sets; of a user's rankings or conversations, their prompts."""
    if data is None:
        return evenly_spread(_read(name, data, _prompt), limit)
    records = {str(record.origin): record for record in load_records(data)}
    rows = RowStream(data, "prompt")
    return evenly_spread([_from_user(name, row.messages, records[str(row.origin)]) for row in rows], limit)


def _from_user(name: str, messages: tuple[Message, ...], record: Record) -> Asked:
    return Asked(_id(record, f"{name}-{record.origin.line}"), messages, _topic(record))


def passages(data: DataConfig | None, limit: int | None = None) -> list[Passage]:
    """Return texts and conversations outside of the fine-tuning domain: {text} or {messages}."""
    return evenly_spread(_read("forgetting", data, _passage), limit)


def check_sets(config: EvaluateConfig) -> None:
    """Read all rows that an `evaluate` section names, so that a broken row is reported before any model loads.

    Raises:
        DataError: a file or a row cannot be used.
    """
    if config.capability:
        questions(config.capability)
    if config.forgetting:
        passages(config.forgetting)
    named: dict[SetName, DataConfig | None] = {
        "innocent": config.innocent, "unsafe": config.unsafe, "prompts": config.prompts
    }  # fmt: skip
    for name, data in named.items():
        if data is not None:
            prompts(name, data)
    if config.data is not None:
        list(RowStream(config.data, "preference"))


def _read(name: SetName, data: DataConfig | None, make: Callable[[Record, str], T]) -> list[T]:
    records = _written(name) if data is None else load_records(data)
    return [make(record, f"{name}-{record.origin.line}") for record in records]


def _written(name: SetName) -> list[Record]:
    """Return the records of a set that comes with trueup."""
    place = resources.files("trueup.evaluation") / "data" / f"{name}.jsonl"
    lines = place.read_text(encoding="utf-8").splitlines()
    return [Record(json.loads(line), Origin(f"{name}.jsonl", number)) for number, line in enumerate(lines, 1)]


def evenly_spread(rows: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` rows, evenly spread over all."""
    count = len(rows) if limit is None else min(limit, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def _question(record: Record, name: str) -> Asked:
    prompt, answer = _messages(record)
    if "answer" in record.row:
        answer = record.text("answer")
    elif answer is None:
        raise record.fail("the question has no answer", 'add "answer", or end messages with the assistant\'s')
    choices = _texts(record, "choices")
    if choices and answer not in choices:
        raise record.fail("the answer is not one of the choices", "write the right choice's text as answer", answer)
    expected = answer if choices else _final(answer)
    return Asked(_id(record, name), prompt, _topic(record), (expected, *_texts(record, "accept")), choices)


def _final(answer: str) -> str:
    """Return what follows `####` in a worked answer, else the answer."""
    return answer.rpartition("####")[2].strip()


def _prompt(record: Record, name: str) -> Asked:
    return Asked(_id(record, name), _messages(record)[0], _topic(record))


def _passage(record: Record, name: str) -> Passage:
    if "text" in record.row:
        return Passage(_id(record, name), _topic(record), text=record.text("text"))
    prompt, answer = _messages(record)
    if answer is None:
        raise record.fail("neither a text nor an answered conversation", "add text, or messages that end answered")
    return Passage(_id(record, name), _topic(record), messages=(*prompt, Message("assistant", answer)))


def _messages(record: Record) -> tuple[tuple[Message, ...], str | None]:
    """Return the prompt's messages, and the assistant's answer if the row has messages that end with it."""
    key = next((name for name in (*MESSAGES, *PROMPT) if name in record.row), None)
    if key is None:
        raise record.fail("no question in the row", f"give it as one of: {', '.join((*PROMPT, *MESSAGES))}")
    turns, answer = record.turns(key, "user"), None
    if turns[-1].role == "assistant":
        turns, answer = turns[:-1], turns[-1].content
    check(turns, origin=record.origin, ends_with="user")
    return turns, answer


def _id(record: Record, name: str) -> str:
    """Return the row's own id with its line, as ids need not be unique in a user's file; else the line alone."""
    row_id = record.row.get("id")
    return name if row_id is None else f"{row_id}#{record.origin.line}"


def _topic(record: Record) -> str | None:
    return None if record.row.get("topic") is None else str(record.row["topic"])


def _texts(record: Record, key: str) -> tuple[str, ...]:
    """Return the list of texts at `key`, empty where the row has none."""
    value = record.row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise record.wrong_type(key, "a list of strings")
    return tuple(value)
