"""Read the records (rows) of a file, and the pair of answers in each, whose field names differ from tool to tool."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from trueup.config import DataConfig
from trueup.data.rendering.messages import Preference
from trueup.data.sources.account import Account
from trueup.data.sources.formats import pair_format
from trueup.data.sources.parser import same_answers
from trueup.data.sources.reader import open_reader
from trueup.data.sources.records import Record
from trueup.data.votes.vote_types import Answer, NewPair, NewPrompt
from trueup.errors import DataError

_MILLISECONDS = 1e11  # as seconds, the year 5138; as milliseconds, 1973


def iso_time(record: Record, value: object) -> str:
    """Return a time in a record as ISO 8601 in UTC; "" if there is none.

    It may be in Unix seconds or milliseconds, or written (in UTC if it names no zone).

    Raises:
        DataError: the value is not a time.
    """
    if value in (None, ""):
        return ""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            time = datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        else:
            time = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        fix = "write it like 2026-01-31T12:00:00Z, or in seconds since 1970"
        raise record.fail("the time cannot be read", fix, str(value)) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


T = TypeVar("T")
SAME = "the two answers are the same"
CALLS = "an answer calls a tool, and people rank texts"
LONGER = "the two conversations differ before their last answers; an answer must be a single message"
_TAGS = ("tags", "topic", "category")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def count_empty_messages(pairs: Iterable[NewPair]) -> int:
    """Count empty messages in prompts and answers: a model may write one, but training refuses it unless allowed."""
    return sum(
        not text.strip()
        for pair in pairs
        for text in (*(message.content for message in pair.prompt.messages), pair.first.text, pair.second.text)
    )


def empty_message_note(count: int) -> str:
    """Return a warning of `count` empty messages, which training refuses unless allowed; "" if there are none."""
    empty = f"{counted(count, 'message')} {'is' if count == 1 else 'are'} empty"
    return f"{empty}: training on such pairs needs allow=[empty-response]" if count else ""


class SkipRecordError(Exception):
    """Raised for a valid record that holds no usable pair; its text is the reason, under which records are counted."""


def read_records(path: str, make: Callable[[Record], T]) -> Iterator[T]:
    """Yield `make(record)` for each row of the file at `path`, in order.

    Raises:
        DataError: after the last record, if some could not be used: the first problem, and the origins of others.
    """
    account = Account(DataConfig.model_construct(path=path))
    for origin, fields in open_reader(path, "train").entries():
        account.read += 1
        try:
            if isinstance(fields, DataError):
                raise fields
            result = make(Record(fields, origin, allow_empty=True))  # models give empty answers, and people rank them
        except DataError as error:
            account.refuse(origin, error)
        else:
            account.used += 1
            yield result
    account.check()


def pair_of(record: Record, first: str, second: str, models: tuple[str, str] | None = None) -> NewPair:
    """Return the pair in a record: its prompt, and the answers at the keys `first` and `second`, in this order.

    `models` are the names of the models that wrote them, by default read from the record.

    Raises:
        DataError: a field is missing or invalid.
        SkipRecordError: an answer is more than one message, or calls a tool, or both are the same.
    """
    form = pair_format(record.row, first, second)
    row = form.parse(record)
    assert isinstance(row, Preference)
    return new_pair(record, row, models or (model_of(record.row, first), model_of(record.row, second)))


def new_pair(record: Record, row: Preference, models: tuple[str, str], sampling: tuple[Any, Any] = ({}, {})) -> NewPair:
    """Return a parsed preference row as a pair for the store, with the chosen answer first.

    `models` and `sampling` hold the model's name and the sampling settings of the chosen and of the rejected answer.

    Raises:
        SkipRecordError: an answer is more than one message, or calls a tool, or both are the same.
    """
    if len(row.chosen) != 1 or len(row.rejected) != 1:
        raise SkipRecordError(LONGER)
    if same_answers(row):
        raise SkipRecordError(SAME)
    if any(answer[0].calls for answer in (row.chosen, row.rejected)):
        raise SkipRecordError(CALLS)
    prompt = NewPrompt(row.prompt, tags_of(record.row), str(record.origin))
    first, second = (
        Answer(messages[0].text, model, settings)
        for messages, model, settings in zip((row.chosen, row.rejected), models, sampling, strict=True)
    )
    return NewPair(prompt, first, second)


def model_of(row: Mapping[str, object], key: str) -> str:
    """Return the model that wrote the answer at `key`: for response_a the value of model_a; "" if not given."""
    end = key.rpartition("_")[2] if "_" in key else key[-1]
    model = row.get(f"model_{end}", row.get(f"{key}_model", row.get(f"model_{key}")))
    return model if isinstance(model, str) else ""


def tags_of(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return a record's topics, from `tags` (a text or a list), `topic` or `category`."""
    tags = next((row[key] for key in _TAGS if row.get(key)), ())
    return tuple(map(str, tags)) if isinstance(tags, list | tuple) else (str(tags),)


def in_neutral_order(pair: NewPair) -> NewPair:
    """Return the pair with its answers ordered by a hash of text and model, which hides the better one."""

    def digest(answer: Answer) -> bytes:
        return hashlib.sha256(f"{answer.text}\n{answer.model}".encode("utf-8", "surrogatepass")).digest()

    return pair if digest(pair.first) <= digest(pair.second) else swapped(pair)


def swapped(pair: NewPair) -> NewPair:
    """Return the pair with first and second answer exchanged, and with them which one is known to be better."""
    gold = {None: None, "first": "second", "second": "first"}[pair.gold]
    return replace(pair, first=pair.second, second=pair.first, gold=gold)  # pyright: ignore[reportArgumentType]
