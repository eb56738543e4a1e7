"""Rows -> tokens and records, a chunk at a time: what each worker process does. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueup.config import DataConfig
from trueup.data.example import Branch, Example, single
from trueup.data.refusal import is_refusal
from trueup.data.rendering.messages import Conversation, Labelled, Message, Origin, Preference, Prompt, Row, Text
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.account import Account
from trueup.data.sources.parser import Parser
from trueup.data.sources.reading import Entry
from trueup.data.tokens.duplicates import content_hash, normalised, signatures
from trueup.data.tokens.record import RECORD, TRAINED, Flag, Records, language_of, script_of
from trueup.errors import DataError

_SIGNED = 65_536  # characters of a text that its signature is taken of: with books, memory would grow with their length
JUDGED_ALL, JUDGED_EVERY = 10_000, 64
"""Of the rows after the first 10,000 every 64th is judged for language and refusals: each takes 0.1 ms."""


@dataclass(slots=True)
class Packed:
    """A chunk of rows. Offsets (`at`, `text_at`) are from the chunk's own beginning, `file` is 0.

    Attributes:
        tokens: (N,) uint32, the top bit set where trained.
        records: (n,) RECORD.
        signatures: (n, 32) uint32.
        texts: the rows' messages as JSON, one after another.
        files: the name of each row's file.
        account: counts of all rows of the chunk.
    """

    tokens: NDArray[np.uint32]
    records: Records
    signatures: NDArray[np.uint32]
    texts: bytes
    files: list[str]
    account: Account


@dataclass(frozen=True, slots=True)
class Task:
    """What is done with each row.

    Attributes:
        parser: started, so that it knows the format.
        renderer: turns messages into tokens.
        section: which rows are selected, and what to do about identical pairs.
    """

    parser: Parser
    renderer: Renderer
    section: DataConfig


def pack(task: Task, first: int, entries: Sequence[Entry]) -> Packed:
    """Parse and render a chunk of entries, of which the first is row number `first` (from 0) of the source."""
    account = Account(task.section)
    made: list[_Made] = []
    for index, entry in enumerate(entries, first):
        row = account.parse(task.parser, index, entry)
        if row is None:
            continue
        try:
            made.append(_made(task.renderer, row, judged=index < JUDGED_ALL or index % JUDGED_EVERY == 0))
        except DataError as error:
            account.used -= 1
            account.refuse(entry[0], error)
    return _laid_out(account, made)


def example_of(renderer: Renderer, row: Row) -> Example:
    """A row as token ids; a prompt's only branch is empty: the answer is not there yet.

    Raises:
        DataError: it cannot be rendered; it names the row's place.
        ModelError: the template refuses the messages, or cannot be masked exactly.
    """
    if isinstance(row, Conversation):
        return single(renderer.conversation(row.messages, origin=row.origin))
    if isinstance(row, Text):
        return single(renderer.text(row.text))
    if isinstance(row, Prompt):
        return Example(renderer.prompt(row.messages, origin=row.origin), (Branch([], []),))
    sides = (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)
    trunk, answers = renderer.pair(row.prompt, sides, origin=row.origin)
    return Example(trunk, tuple(Branch(one.ids, one.mask) for one in answers))


def parts_of(row: Row) -> list[list[tuple[str, str]]]:
    """A row as it is kept: its prompt and what answers it, each as (role, content)."""
    if isinstance(row, Text):
        return [[("text", row.text)]]
    if isinstance(row, Conversation):
        return [_plain(row.prompt), _plain(row.messages[-1:])]
    if isinstance(row, Prompt):
        return [_plain(row.messages)]
    sides = (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)
    return [_plain(row.prompt), *map(_plain, sides)]


def compared(parts: Sequence[Sequence[Sequence[str]]], *, system: bool = False) -> str:
    """The text by which rows are compared: their contents, a ranking's two sides in sorted order.

    Without the system message, which many rows share: it would make near-duplicates of all of them.
    """
    texts = ["\n".join(content for role, content in part if system or role != "system") for part in parts]
    return "\n".join([*texts[:1], *sorted(texts[1:])])


def near_text(parts: Sequence[Sequence[Sequence[str]]]) -> str:
    """The normalised text by which near-duplicates are found: of long rows the beginning."""
    return normalised(compared(parts)[:_SIGNED])


def _plain(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@dataclass(slots=True)
class _Made:
    example: Example
    text: bytes
    near: str
    record: dict[str, int | float]
    origin: Origin


def _made(renderer: Renderer, row: Row, *, judged: bool) -> _Made:
    example, parts = example_of(renderer, row), parts_of(row)
    flags = _seen(renderer, row, example, parts)
    answers = ["\n".join(content for _, content in part) for part in parts[1:]]
    if len(answers) == 2 and answers[0] <= answers[1]:
        flags |= int(Flag.SORTED)
    record: dict[str, int | float] = {"scalar": _scalar(row), "content": content_hash(compared(parts, system=True))}
    if judged:
        said = answers or [compared(parts)]
        flags |= int(Flag.JUDGED | _refusals(answers))
        record |= {"script": script_of(said[0]), "language": language_of(said[0])}
    lengths = [len(branch.ids) for branch in example.branches]
    record |= {
        "trunk": len(example.trunk),
        "first": lengths[0] if lengths else 0,
        "second": lengths[1] if len(lengths) > 1 else -1,
        "trained": sum(branch.trained for branch in example.branches),
        "flags": flags,
    }
    origin = row.origin or Origin("", 0)
    return _Made(
        example,
        json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        near_text(parts),
        record,
        origin,
    )


def _seen(renderer: Renderer, row: Row, example: Example, parts: list[list[tuple[str, str]]]) -> int:
    """The row's flags, as a plain number: enums take a microsecond an operation."""
    messages = [Message(role, content) for part in parts for role, content in part]
    flags = 0 if isinstance(row, Prompt) else trained_flags(example, renderer.stop_ids)
    if isinstance(row, Conversation) and _rewritten(row, example):
        flags |= int(Flag.REWRITTEN)
    if renderer.control_texts(messages):
        flags |= int(Flag.SPECIAL)
    if renderer.applied_twice(messages):
        flags |= int(Flag.APPLIED)
    if renderer.doubled_bos((example.trunk + [one for branch in example.branches[:1] for one in branch.ids[:2]])[:2]):
        flags |= int(Flag.DOUBLED)
    replies = [part[-1][1] for part in parts[1:]]
    if isinstance(row, Conversation):  # its earlier answers are trained too
        replies = [message.content for message in row.messages if message.role == "assistant"]
    if not all(map(str.strip, replies)):
        flags |= int(Flag.EMPTY)
    return flags


def trained_flags(example: Example, stops: Collection[int]) -> int:
    """Whether the end token (one of `stops`) is trained, and whether there is a branch in which nothing is."""
    flags = 0
    if all(branch.mask and branch.mask[-1] and branch.ids[-1] in stops for branch in example.branches):
        flags |= int(Flag.ENDS)
    if not all(branch.trained for branch in example.branches):
        flags |= int(Flag.UNTRAINED)
    return flags


def _rewritten(row: Conversation, example: Example) -> bool:
    """Whether of several answers only the last is trained: then there is nothing untrained between trained tokens."""
    return sum(message.role == "assistant" for message in row.messages) > 1 and all(example.branches[0].mask)


def _refusals(answers: Sequence[str]) -> Flag:
    found = Flag(0)
    for answer, flag in zip(answers, (Flag.REFUSES, Flag.OTHER_REFUSES), strict=False):
        if is_refusal(answer):
            found |= flag
    return found


def _scalar(row: Row) -> float:
    if isinstance(row, Labelled):
        return float(row.desirable)
    return float("nan") if not isinstance(row, Preference) or row.margin is None else row.margin


def _laid_out(account: Account, made: list[_Made]) -> Packed:
    """Put the rows' tokens, texts and records one after another."""
    ids: list[int] = []
    mask: list[bool] = []
    texts = bytearray()
    for one in made:
        one.record |= {"at": len(ids), "line": one.origin.line, "text_at": len(texts), "text_size": len(one.text)}
        ids += one.example.trunk
        mask += [False] * len(one.example.trunk)
        for branch in one.example.branches:
            ids += branch.ids
            mask += branch.mask
        texts += one.text
    tokens = np.array(ids, dtype=np.uint32) | np.where(np.array(mask, dtype=bool), TRAINED, np.uint32(0))
    names = RECORD.names or ()
    records = np.array([tuple(one.record.get(name, 0) for name in names) for one in made], dtype=RECORD)
    near = signatures([one.near for one in made]) if made else np.zeros((0, 0), np.uint32)
    return Packed(tokens, records, near, bytes(texts), [one.origin.file for one in made], account)
