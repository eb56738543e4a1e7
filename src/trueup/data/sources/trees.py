"""Trees of messages (OpenAssistant) of which the source has one message a row: the rows of a tree become one entry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import cast

from trueup.data.rendering.messages import row_error
from trueup.data.sources.decoding import Entry
from trueup.errors import DataError

FIELDS = ("message_id", "parent_id", "message_tree_id", "role", "text")


def joined(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield the entries; where they are messages of trees, one for each tree, nested as {prompt: {…, replies: […]}}.

    The first readable entry decides. The place of a tree is that of its first message. The messages of a tree must
    follow one another, each after the one that it replies to; one that does not gives an error in its place.
    """
    for entry in entries:
        if isinstance(entry[1], DataError):
            yield entry
            continue
        is_message = all(key in entry[1] for key in FIELDS) and "replies" not in entry[1]
        whole = chain((entry,), entries)
        yield from _trees(whole) if is_message else whole


def _trees(entries: Iterator[Entry]) -> Iterator[Entry]:
    root: Entry | None = None
    messages: dict[object, dict[str, object]] = {}
    for origin, fields in entries:
        if isinstance(fields, DataError):
            yield origin, fields
            continue
        message = {**fields, "replies": []}
        parent = fields.get("parent_id")
        if parent is None:
            if root is not None:
                yield root
            messages = {fields.get("message_id"): message}
            shared = ("message_tree_id", "tree_state", "split")
            root = origin, {"prompt": message, **{key: fields[key] for key in shared if key in fields}}
        elif parent in messages:
            cast("list[object]", messages[parent]["replies"]).append(message)
            messages[fields.get("message_id")] = message
        else:
            fix = "sort the rows by message_tree_id, each message after the one that it replies to"
            problem = "the message that this one replies to is not among the rows of its tree just before it"
            yield origin, row_error(origin, problem, fix, parent)
    if root is not None:
        yield root
