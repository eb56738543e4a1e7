"""Rows that models are measured on, the files of those that come with trueup, and balanced parts of a set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TypeVar

from trueup.data.rendering.messages import Message, Origin
from trueup.data.sources.records import Record

T = TypeVar("T")


# The repr of Passage and of Asked is part of an evaluation's fingerprint (suite.input_hashes): with other names of
# classes or fields, finished evaluations would be measured again.
@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """A question or prompt, and its expected answers.

    Attributes:
        id: unique within the set.
        prompt: the conversation; its last message is the user's.
        topic: the row's topic, if it has one.
        answers: accepted answers, the first for display; empty where none is expected.
        choices: the options of a multiple-choice question: the model writes nothing, its likeliest option is its
            answer.
        level: the row's difficulty, if it has one.
        origin: the row's file and line.
        fields: all fields of the row, of which a reward may take some.
    """

    id: str
    prompt: tuple[Message, ...]
    topic: str | None = None
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    level: str | None = None
    origin: Origin | None = field(default=None, repr=False, compare=False)
    fields: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """Return the row as text for the fingerprint: rows without a level give that of earlier versions."""
        named = {name: getattr(self, name) for name, shown in self.__dataclass_fields__.items() if shown.repr}
        shown = {name: value for name, value in named.items() if name != "level" or value is not None}
        return f"Asked({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def text(self) -> str:
        """The text of the prompt's last message."""
        return self.prompt[-1].content


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, or a conversation, whose likelihood under each model measures forgetting."""

    id: str
    topic: str | None
    text: str | None = None
    messages: tuple[Message, ...] = ()
    origin: Origin | None = field(default=None, repr=False, compare=False)


def written_records(name: str) -> list[Record]:
    """Return the rows of the evaluation set `name` that comes with trueup."""
    place = resources.files("trueup.evaluation") / "data" / f"{name}.jsonl"
    lines = place.read_text(encoding="utf-8").splitlines()
    return [Record(json.loads(line), Origin(f"{name}.jsonl", number)) for number, line in enumerate(lines, 1)]


def balanced(rows: Sequence[T], limit: int | None, groups_of: Callable[[T], tuple[str | None, str | None]]) -> list[T]:
    """Return at most `limit` rows in which topics and levels have the shares that they have among all rows.

    The part depends on the rows alone, and a smaller one lies within a larger one. Rows without topic and level are
    taken at equal distances (`evenly_spread`).

    Args:
        rows: all rows, whose order the part keeps.
        limit: the largest number of rows; None for all.
        groups_of: a row -> its topic and its level.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    groups = [groups_of(row) for row in rows]
    if set(groups) == {(None, None)}:
        return evenly_spread(rows, limit)
    return [rows[index] for index in sorted(balanced_order(groups, [repr(row) for row in rows], limit))]


def balanced_order(
    groups: Sequence[tuple[str | None, str | None]], names: Sequence[str], count: int | None = None
) -> list[int]:
    """Return indices in an order whose every beginning is balanced over topics, levels and pairs of these.

    The next row is always of the pair that lags furthest behind its shares: of its topic, of its level and its own.
    Within a pair the order is that of a hash of the names.

    Args:
        groups: the topic and the level of each row.
        names: a text for each row, such as its repr.
        count: the length of the beginning that is wanted; None for all.
    """
    by_hash = sorted(
        range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).hexdigest(), reverse=True
    )
    waiting: dict[tuple[str | None, str | None], list[int]] = {pair: [] for pair in groups}
    for index in by_hash:
        waiting[groups[index]].append(index)
    parts = [{("topic", pair[0]), ("level", pair[1]), ("pair", pair)} for pair in waiting]
    total = Counter(part for pair in groups for part in (("topic", pair[0]), ("level", pair[1]), ("pair", pair)))
    taken, order = Counter[object](), list[int]()
    while len(order) < (len(groups) if count is None else count):
        step = (len(order) + 1) / len(groups)
        lags = [
            sum(total[part] * step - taken[part] for part in own) if waiting[pair] else -float("inf")
            for pair, own in zip(waiting, parts, strict=True)
        ]
        place = lags.index(max(lags))
        order.append(list(waiting.values())[place].pop())
        taken.update(parts[place])
    return order


def evenly_spread(rows: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` rows at equal distances over the whole list; all where `limit` is None."""
    count = len(rows) if limit is None else min(limit, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]
