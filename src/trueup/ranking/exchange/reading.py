"""A file's records, their tags, and the two answers that a record holds under one of many names."""

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


def iso(record: Record, value: object) -> str:
    """ISO 8601 in UTC of Unix seconds or milliseconds, or of a written time (without a zone: UTC); "" of nothing.

    Raises:
        DataError: it is no time.
    """
    if value in (None, ""):
        return ""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            told = datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        else:
            told = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        fix = "write it like 2026-01-31T12:00:00Z, or in seconds since 1970"
        raise record.fail("the time cannot be read", fix, str(value)) from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


T = TypeVar("T")
SAME = "the two answers are the same"
LONGER = "the two conversations part before their last answers, and an answer here is one message"
ANSWERS = (
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
    ("output_a", "output_b"),
    ("conversation_a", "conversation_b"),
    ("response_1", "response_2"),
    ("answer_1", "answer_2"),
    ("output_1", "output_2"),
    ("response1", "response2"),
    ("answer1", "answer2"),
    ("output1", "output2"),
    ("text1", "text2"),
    ("a", "b"),
)
"""Names of two answers; the model of one is at `model_` and the end of its name."""
_TAGS = ("tags", "topic", "category")


def counted(n: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def count_empty_messages(pairs: Iterable[NewPair]) -> int:
    """How many messages of pairs, their prompts' among them, say nothing: a model may, but training asks about it."""
    texts = ([*(turn.content for turn in one.prompt.messages), one.first.text, one.second.text] for one in pairs)
    return sum(not text.strip() for pair in texts for text in pair)


def empty_message_note(count: int) -> str:
    """What a person should know of empty messages; "" where there are none."""
    said = f"{counted(count, 'message')} {'is' if count == 1 else 'are'} empty"
    return f"{said}: training on such pairs needs allow=[empty-response]" if count else ""


class LeftOut(Exception):  # noqa: N818 - it is no error: it carries why a record is no pair to where that is counted
    """A record that is sound, and that nothing can be made of."""


def records(path: str, make: Callable[[Record], T]) -> Iterator[T]:
    """What `make` makes of each record, in order.

    Raises:
        DataError: after the last one, where some could not be used: the first, and the places of others.
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


def answers_in(row: Mapping[str, object]) -> tuple[str, str] | None:
    """The keys of a record's two answers; None where it has none of the names."""
    return next((names for names in ANSWERS if names[0] in row and names[1] in row), None)


def pair_of(record: Record, first: str, second: str, models: tuple[str, str] | None = None) -> NewPair:
    """The pair of a record whose answers are at two keys, the first of them first.

    Raises:
        DataError: a field is missing or cannot be meant.
        LeftOut: an answer is more than one message, or both say the same.
    """
    form = pair_format(record.row, first, second)
    row = form.parse(record, form.keys)
    assert isinstance(row, Preference)
    return new_pair(record, row, models or (model_of(record.row, first), model_of(record.row, second)))


def new_pair(record: Record, row: Preference, models: tuple[str, str], sampling: tuple[Any, Any] = ({}, {})) -> NewPair:
    """A typed row as a pair with chosen first.

    Raises:
        LeftOut: an answer is more than one message, or both say the same.
    """
    if len(row.chosen) != 1 or len(row.rejected) != 1:
        raise LeftOut(LONGER)
    if same_answers(row):
        raise LeftOut(SAME)
    prompt = NewPrompt(row.prompt, tags_of(record.row), str(record.origin))
    first, second = (
        Answer(side[0].content, model, how)
        for side, model, how in zip((row.chosen, row.rejected), models, sampling, strict=True)
    )
    return NewPair(prompt, first, second)


def model_of(row: Mapping[str, object], key: str) -> str:
    """The model of the answer at a key: of response_a at model_a; "" where nobody says."""
    end = key.rpartition("_")[2] if "_" in key else key[-1]
    told = row.get(f"model_{end}", row.get(f"{key}_model", row.get(f"model_{key}")))
    return told if isinstance(told, str) else ""


def tags_of(row: Mapping[str, object]) -> tuple[str, ...]:
    """A record's topics, at `tags` (a text or a list), `topic` or `category`."""
    told = next((row[key] for key in _TAGS if row.get(key)), ())
    return tuple(map(str, told)) if isinstance(told, list | tuple) else (str(told),)


def mixed(pair: NewPair) -> NewPair:
    """The pair with its answers in an order that says nothing of which is better: that of a hash of their texts."""

    def drawn(answer: Answer) -> bytes:
        return hashlib.sha256(f"{answer.text}\n{answer.model}".encode("utf-8", "surrogatepass")).digest()

    return pair if drawn(pair.first) <= drawn(pair.second) else turned(pair)


def turned(pair: NewPair) -> NewPair:
    """The pair with its answers the other way round."""
    gold = {None: None, "first": "second", "second": "first"}[pair.gold]
    return replace(pair, first=pair.second, second=pair.first, gold=gold)  # pyright: ignore[reportArgumentType]
