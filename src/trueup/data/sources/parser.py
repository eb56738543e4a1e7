"""Make typed rows of entries, and explain why an entry cannot give the kind of row that is wanted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from trueup.data.rendering.messages import Conversation, Message, Origin, Preference, Prompt, Row, row_error
from trueup.data.sources.formats import Format, recognise
from trueup.data.sources.records import FIELDS, Record, rename_fields
from trueup.errors import ConfigError, DataError
from trueup.system.text import excerpt, listed

RowKind = Literal["conversation", "preference", "labelled", "prompt", "text"]
# The formats each kind of row can be made from, best first, for `use` of each value.
FORMATS: dict[tuple[str, str], tuple[str, ...]] = {
    ("conversation", "auto"): ("conversation", "pair"),
    ("conversation", "chosen"): ("ranking",),
    ("conversation", "text"): ("text",),
    ("preference", "auto"): ("ranking",),
    ("labelled", "auto"): ("verdict",),
    ("prompt", "auto"): ("ranking", "conversation", "prompt"),
    ("prompt", "prompt"): ("ranking", "conversation", "prompt"),
    ("text", "auto"): ("text",),
    ("text", "text"): ("text",),
}
NEEDED = {
    "conversation": "messages, or prompt and completion",
    "preference": "chosen and rejected (and prompt)",
    "labelled": "prompt, completion and label",
    "prompt": "prompt, or messages",
    "text": "text",
}


@dataclass(slots=True)
class Parser:
    """Makes typed rows of entries. `start` decides the format from the first readable entry; then it can be pickled.

    Attributes:
        want: the kind of row to make, e.g. "preference".
        use: "chosen" makes conversations of the chosen side of rankings, "text" reads plain text, "auto" neither.
        columns: {trueup's field name: the name in the file}, for files with other names.
        allow_empty: accept empty answers, with a note. In transcripts of Human and Assistant they are always accepted.
        tools: declarations of tools for rows that have none.
        unused: the fields of the first row that are not read.

    Raises:
        ConfigError: `use` does not fit `want`, or `columns` has an unknown field.
    """

    want: RowKind
    use: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    allow_empty: bool = False
    tools: object = None
    unused: tuple[str, ...] = ()
    _form: Format | None = None

    def __post_init__(self) -> None:
        uses = [use for want, use in FORMATS if want == self.want]
        if self.use not in uses:
            problem = f"use: {excerpt(self.use)} cannot give {self.want} rows"
            raise ConfigError(f"{problem}\n  fix: set use to one of: {', '.join(uses)}")
        for key, source in self.columns.items():
            if key not in FIELDS:
                near = difflib.get_close_matches(key, FIELDS, n=1)
                swapped = source in FIELDS and f"write it as {{{source}: {key}}}, field first"
                hint = swapped or (f"did you mean {near[0]}?" if near else f"use one of: {', '.join(FIELDS)}")
                raise ConfigError(f"columns: {excerpt(key)} is no field of trueup's\n  fix: {hint}")

    @property
    def started(self) -> bool:
        """True once `start` has recognised the format."""
        return self._form is not None

    @property
    def format(self) -> str:
        """The name of the recognised format, e.g. "ranking"; "" before `start`."""
        return self._form.name if self._form else ""

    def start(self, origin: Origin, row: dict[str, object]) -> None:
        """Recognise the format from the fields of the first readable row.

        Raises:
            DataError: the row cannot give the kind of row `want`; the message names the kind that it seems to be.
        """
        row = rename_fields(row, self.columns, origin)
        self._form = _recognised(row, origin, self.want, self.use)
        used = self._form.used()
        self.unused = tuple(key for key in row if key not in used)

    def parse(self, origin: Origin, fields: dict[str, object] | DataError, notes: list[tuple[Origin, str]]) -> Row:
        """Return the typed row of one entry; oddities such as an empty response are appended to `notes`.

        Raises:
            DataError: the entry could not be read, or no row can be made of it.
        """
        if isinstance(fields, DataError):
            raise fields
        if self.tools is not None and not fields.get("tools"):
            fields = {**fields, "tools": self.tools}
        assert self._form is not None, "start() comes first"
        record = Record(rename_fields(fields, self.columns, origin), origin, notes, self.allow_empty)
        return _converted(self._form.parse(record, self._form.keys), self.want)


def _recognised(row: dict[str, object], origin: Origin, want: RowKind, use: str) -> Format:
    """Return the format of the first row.

    Raises:
        DataError: the row does not fit; the message says what the rows seem to be and which setting to change.
    """
    form = recognise(row, FORMATS[want, use])
    if form is not None and want == "conversation" and form.name == "pair" and isinstance(row.get("label"), bool):
        raise row_error(
            origin,
            "the rows carry a true/false label: SFT would train on the bad completions too",
            "keep the good ones in a file of their own, or rename label if it is no verdict",
        )
    if form is not None:
        return form
    if want == "conversation" and use == "auto" and recognise(row, ("ranking",)):
        problem, fix = "the rows are rankings (chosen, rejected)", "set use: chosen to train on the chosen side"
    elif want == "conversation" and use == "auto" and recognise(row, ("text",)):
        problem, fix = "the rows are plain text", "set use: text to train on all of it"
    else:
        need = NEEDED["text" if use == "text" else "preference" if use == "chosen" else want]
        problem, fix = f"no {need} in the row, it has: {listed(row)}", _fix_of_names(row)
    raise row_error(origin, problem, fix)


def _fix_of_names(row: Mapping[str, object]) -> str:
    """Return advice on how to rename the fields of a row in which no known field was found."""
    keys = list(row)
    if len(keys) == 1 and any(mark in keys[0] for mark in ";\t|,"):
        return "put commas between the cells (tabs in a .tsv file): as it is, the row has one cell"
    if "error" in keys:
        return "get the file again: this looks like a server's error message"
    short = [key for key in keys[:100] if len(key) <= 60]  # a longer key is not a name, and would fill the message
    renames = ", ".join(f"{field}: {_as_yaml(key)}" for key in short if (field := _similar_field(key, row[key])))
    return f"name the fields so, or set columns: {{{renames or 'field: its name in the file'}}}"


def _similar_field(key: str, value: object) -> str | None:
    """Return trueup's field name that an unknown key resembles; None if there is none."""
    if key in FIELDS:
        return None
    first = cast("list[object]", value)[0] if isinstance(value, list) and value else None
    if isinstance(first, dict) and {"role", "from"} & first.keys():
        return "messages"
    return next(iter(difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.75)), None)


def _as_yaml(key: str) -> str:
    """Return a key as it is written in YAML, with quotes if it needs them."""
    return key if re.fullmatch(r"[\w.-]+", key) else excerpt(key)


def _converted(row: Row, want: RowKind) -> Row:
    """Return the row as the kind `want`, e.g. the prompt of a conversation, or the chosen side of a preference."""
    if want == "prompt" and isinstance(row, Conversation | Preference):
        return Prompt(row.prompt, row.origin)
    if want == "conversation" and isinstance(row, Preference):
        return Conversation((*row.prompt, *row.chosen), row.origin)
    if want == "conversation" and isinstance(row, Prompt):
        raise row_error(
            row.origin,
            "the messages end with the user's: there is no response to train on",
            "end them with an assistant message, or remove the row",
            row.messages[-1].content,
        )
    return row


def same_answers(row: Row) -> bool:
    """Return True for a preference whose answers differ at most in outer spaces: nothing can be learned from it."""
    return isinstance(row, Preference) and _stripped(row.chosen) == _stripped(row.rejected)


def _stripped(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text.strip()) for message in messages]
