"""Turn a chunk of rows into tokens and records, in a worker process. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueup.config import DataConfig
from trueup.data.example import Branch, Example, single
from trueup.data.refusal import is_refusal
from trueup.data.rendering.messages import (
    TOOLS,
    Conversation,
    Labelled,
    Message,
    Origin,
    Preference,
    Prompt,
    Remark,
    Row,
    Text,
    row_error,
)
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.account import Account
from trueup.data.sources.calls import call_problems
from trueup.data.sources.parser import Parser
from trueup.data.sources.reading import Entry
from trueup.data.tokens.duplicates import content_hash, normalised, signatures
from trueup.data.tokens.record import RECORD, TRAINED, Flag, Records, language_of, script_of
from trueup.errors import DataError, is_panic
from trueup.system.text import excerpt, is_blank

_SIGNED = 65_536  # characters of a text that its signature covers: memory would grow with the length of a book
JUDGED_ALL, JUDGED_EVERY = 10_000, 64
"""After the first 10,000 rows only every 64th is judged for language and refusals: each takes 0.1 ms."""
COMPARED_ALL = 2_000
"""After the first 2,000 rows the tokens of only every 64th are decoded: that takes a quarter of the time of a row."""


@dataclass(slots=True)
class Packed:
    """A tokenized chunk of N tokens in n rows.

    The offsets `at` and `text_at` in the records count from the start of the chunk; `file` is 0 until the chunk is
    stored.

    Attributes:
        tokens: (N,) uint32, token ids with the top bit set where the token is trained.
        records: (n,) of the type `record.RECORD`, with lengths, flags and offsets of each row.
        signatures: (n, 32) uint32, MinHash signatures, by which near-duplicates are found.
        texts: the messages of each row as JSON, concatenated.
        files: the name of each row's file.
        account: counts of all rows of the chunk, unused ones included.
    """

    tokens: NDArray[np.uint32]
    records: Records
    signatures: NDArray[np.uint32]
    texts: bytes
    files: list[str]
    account: Account


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a worker process needs to tokenize chunks of one section.

    Attributes:
        parser: makes typed rows; its `start` was called, so that it knows the format.
        renderer: turns messages into tokens.
        section: the data section: which rows are selected, and the rule for identical pairs.
    """

    parser: Parser
    renderer: Renderer
    section: DataConfig


def pack(task: Task, first: int, entries: Sequence[Entry]) -> Packed:
    """Return a chunk of entries as tokens and records; `first` is the number of its first row in the source, from 0."""
    account = Account(task.section)
    rows: list[_PackedRow] = []
    for index, entry in enumerate(entries, first):
        for row in account.parse(task.parser, index, entry):
            try:
                judged = index < JUDGED_ALL or index % JUDGED_EVERY == 0
                decoded = index < COMPARED_ALL or index % JUDGED_EVERY == 0
                with _panics_named(entry[0]):
                    rows.append(_pack_row(task.renderer, row, judged=judged, decoded=decoded))
            except DataError as error:
                account.used -= 1
                if account.skips(error):
                    account.leave_out(entry[0], error)
                else:
                    account.refuse(entry[0], error)
    return _concatenate(account, rows)


@contextmanager
def _panics_named(origin: Origin) -> Iterator[None]:
    """Turn a panic of the tokenizer's library into a DataError that names the row."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        fix = "remove the row, or take what is unusual out of it"
        raise row_error(origin, f"the tokenizer's library fails on this row: {excerpt(str(error))}", fix) from error


def rendered_row(renderer: Renderer, row: Row) -> tuple[Example, frozenset[Remark]]:
    """Return a row as token ids, and the remarks on its rendering.

    The token ids are the prompt, and a branch for each answer (for a prompt, one empty branch).

    Raises:
        DataError: the row cannot be rendered; the message names its file and line.
        ModelError: the template refuses the messages, or its rendering cannot be masked exactly.
    """
    if isinstance(row, Conversation):
        rendered = renderer.conversation(row.messages, origin=row.origin)
        return single(rendered), rendered.remarks
    if isinstance(row, Text):
        return single(renderer.text(row.text)), frozenset()
    if isinstance(row, Prompt):
        return Example(renderer.prompt(row.messages, origin=row.origin), (Branch([], []),)), frozenset()
    sides = (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)
    trunk, answers = renderer.pair(row.prompt, sides, origin=row.origin)
    remarks = frozenset[Remark]().union(*(answer.remarks for answer in answers))
    return Example(trunk, tuple(Branch(answer.ids, answer.mask) for answer in answers)), remarks


def parts_of(row: Row) -> list[list[tuple[Any, ...]]]:
    """Return the messages of a row as they are stored (`Message.stored`): lists, first the prompt, then each answer.

    A text is one part with the role "text".
    """
    if isinstance(row, Text):
        return [[("text", row.text)]]
    if isinstance(row, Conversation):
        return [_plain(row.prompt), _plain(row.messages[-1:])]
    if isinstance(row, Prompt):
        return [_plain(row.messages)]
    sides = (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)
    return [_plain(row.prompt), *map(_plain, sides)]


def compared(parts: Sequence[Sequence[Sequence[Any]]], *, system: bool = False) -> str:
    """Return the text by which rows are compared for equality: all that is written, the two answers of a pair sorted.

    The system message and the tools are left out by default: many rows share them, and they would make them all
    near-duplicates.
    """
    left_out = () if system else ("system", TOOLS)
    texts = ["\n".join(_text(message) for message in part if message[0] not in left_out) for part in parts]
    return "\n".join([*texts[:1], *sorted(texts[1:])])


def _text(message: Sequence[Any]) -> str:
    return message[1] if len(message) == 2 else Message.restored(message).text


def near_text(parts: Sequence[Sequence[Sequence[Any]]]) -> str:
    """Return the normalised text by which near-duplicates are found; only its first 65,536 characters count."""
    return normalised(compared(parts)[:_SIGNED])


def _plain(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    return [message.stored() for message in messages]


@dataclass(slots=True)
class _PackedRow:
    example: Example
    text: bytes
    near: str
    record: dict[str, int | float]
    origin: Origin


def _pack_row(renderer: Renderer, row: Row, *, judged: bool, decoded: bool) -> _PackedRow:
    (example, remarks), parts = rendered_row(renderer, row), parts_of(row)
    flags = _flags_of(renderer, row, example, parts, decoded=decoded)
    for remark in remarks:
        flags |= _REMARKED[remark]
    if isinstance(row, Conversation) and sum(message.role == "assistant" for message in row.messages) > 1:
        leaves_open = any(renderer.leaves_open(branch.ids, branch.mask) for branch in example.branches)
        flags |= int(Flag.OPEN) if leaves_open else 0
    answers = ["\n".join(map(_text, part)) for part in parts[1:]]
    if len(answers) == 2 and answers[0] <= answers[1]:
        flags |= int(Flag.SORTED)
    record: dict[str, int | float] = {"scalar": _scalar(row), "content": content_hash(compared(parts, system=True))}
    if judged:
        text = answers[0] if answers else compared(parts)
        flags |= int(Flag.JUDGED | _refusals(parts[0][-1][1] if parts[0] else "", answers))
        record |= {"script": script_of(text), "language": language_of(text)}
    lengths = [len(branch.ids) for branch in example.branches]
    record |= {
        "trunk": len(example.trunk),
        "first": lengths[0] if lengths else 0,
        "second": lengths[1] if len(lengths) > 1 else -1,
        "trained": sum(branch.trained for branch in example.branches),
        "flags": flags,
    }
    origin = row.origin or Origin("", 0)
    return _PackedRow(
        example,
        json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        near_text(parts),
        record,
        origin,
    )


_REMARKED: dict[Remark, int] = {
    "thought": int(Flag.THOUGHT),
    "empty-thought": int(Flag.EMPTY_THOUGHT),
    "lost-thought": int(Flag.LOST_THOUGHT),
    "rewritten": int(Flag.REWRITTEN),
    "moved": int(Flag.MOVED),
    "unprompted": int(Flag.UNPROMPTED),
}


def _flags_of(
    renderer: Renderer, row: Row, example: Example, parts: list[list[tuple[Any, ...]]], *, decoded: bool
) -> int:
    """Return the flags (`record.Flag`) of a row, as a plain integer because enums take a microsecond an operation."""
    messages = [Message.restored(message) for part in parts for message in part]
    flags = 0 if isinstance(row, Prompt) else trained_flags(example, renderer.stop_ids)
    if renderer.system == "dropped" and any(message.role == "system" for message in messages):
        flags |= int(Flag.SYSTEM_DROPPED)
    if any(message.calls for message in messages):
        flags |= int(Flag.CALLS)
        if next(call_problems(messages), None) is not None:
            flags |= int(Flag.WRONG_CALL)
    if renderer.control_texts(messages):
        flags |= int(Flag.SPECIAL)
    if renderer.applied_twice(messages):
        flags |= int(Flag.APPLIED)
    first_branch = example.branches[0].ids if example.branches else []
    if renderer.doubled_bos((example.trunk + first_branch[:2])[:2]):
        flags |= int(Flag.DOUBLED)
    replies = [_text(part[-1]) for part in parts[1:]]
    if isinstance(row, Conversation):  # its earlier answers are trained too
        replies = [message.text for message in row.messages if message.role == "assistant"]
    if any(map(is_blank, replies)):
        flags |= int(Flag.EMPTY)
    return flags | _writing_flags(renderer, row, example, messages, decoded=decoded)


def _writing_flags(
    renderer: Renderer, row: Row, example: Example, messages: Sequence[Message], *, decoded: bool
) -> int:
    """Return the flags CHANGED and UNKNOWN of a row; its tokens are decoded if `decoded`, or if any is unknown."""
    unknown = any(renderer.may_be_unknown(branch.ids) for branch in example.branches)
    flags = int(Flag.COMPARED) if decoded else 0
    if decoded and renderer.changed_texts(messages):
        flags, unknown = flags | int(Flag.CHANGED), True
    if unknown and not isinstance(row, Prompt) and renderer.unknown_answers(messages):
        flags |= int(Flag.UNKNOWN)
    return flags


def trained_flags(example: Example, stops: Collection[int]) -> int:
    """Return the flags ENDS (each branch trains an end token of `stops`) and UNTRAINED (a branch trains nothing)."""
    flags = 0
    if all(branch.mask and branch.mask[-1] and branch.ids[-1] in stops for branch in example.branches):
        flags |= int(Flag.ENDS)
    if not all(branch.trained for branch in example.branches):
        flags |= int(Flag.UNTRAINED)
    return flags


def _refusals(prompt: str, answers: Sequence[str]) -> Flag:
    flags = Flag(0)
    for answer, flag in zip(answers, (Flag.REFUSES, Flag.OTHER_REFUSES), strict=False):
        if is_refusal(answer, prompt):
            flags |= flag
    return flags


def _scalar(row: Row) -> float:
    if isinstance(row, Labelled):
        return float(row.desirable)
    return float("nan") if not isinstance(row, Preference) or row.margin is None else row.margin


def _concatenate(account: Account, rows: list[_PackedRow]) -> Packed:
    """Return the tokens, texts and records of all rows of a chunk, joined to one array or string each."""
    ids: list[int] = []
    mask: list[bool] = []
    texts = bytearray()
    for row in rows:
        row.record |= {"at": len(ids), "line": row.origin.line, "text_at": len(texts), "text_size": len(row.text)}
        ids += row.example.trunk
        mask += [False] * len(row.example.trunk)
        for branch in row.example.branches:
            ids += branch.ids
            mask += branch.mask
        texts += row.text
    tokens = np.array(ids, dtype=np.uint32) | np.where(np.array(mask, dtype=bool), TRAINED, np.uint32(0))
    names = RECORD.names or ()
    records = np.array([tuple(row.record.get(name, 0) for name in names) for row in rows], dtype=RECORD)
    near = signatures([row.near for row in rows]) if rows else np.zeros((0, 0), np.uint32)
    return Packed(tokens, records, near, bytes(texts), [row.origin.file for row in rows], account)
