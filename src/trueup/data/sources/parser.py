"""Make typed rows of entries, and explain why an entry cannot give the kind of row that is wanted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from trueup.config import DataConfig
from trueup.data.rendering.messages import Conversation, Message, Origin, Preference, Prompt, Row, row_error
from trueup.data.sources.calls import declaring, read_tools
from trueup.data.sources.formats import Format, LeftOut, answers_beside, recognise
from trueup.data.sources.generic import PARSERS, untrained
from trueup.data.sources.meaning import check_meaning, is_tie, other_split
from trueup.data.sources.records import (
    COMPLETION,
    FIELDS,
    LABEL,
    MESSAGES,
    PROMPT,
    SCORES,
    SYSTEM,
    Record,
    is_nothing,
    rename_fields,
    without_ignored,
)
from trueup.data.sources.schemas import SCHEMAS, TIE, Pairs
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
    "labelled": "prompt, completion and label (or messages and label)",
    "prompt": "prompt, or messages",
    "text": "text",
}
_SEVERAL = {"comparison": "prompt, two answers, winner", "ranked-answers": "prompt, answers [{text, score}]"}
NEEDS = {schema.name: _SEVERAL.get(schema.name) or ", ".join(schema.needs) for schema in SCHEMAS}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The typed rows of one entry.

    Attributes:
        rows: the rows; several where the entry ranks more than two answers.
        left_out: the reason for each row or pair of answers that makes no row, e.g. "a tie".
        unread: the names of fields that hold something and were not read, such as "source" or "messages[].name".
    """

    rows: list[Row]
    left_out: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()


@dataclass(slots=True)
class Parser:
    """Makes typed rows of entries. `start` decides the format from the first readable entry; then it can be pickled.

    Attributes:
        want: the kind of row to make, e.g. "preference".
        use: "chosen" makes conversations of the chosen side of rankings, "text" reads plain text, "auto" neither.
        columns: {trueup's field name: the name in the file}, for files with other names.
        allow_empty: accept empty answers, with a note. In transcripts of Human and Assistant they are always accepted.
        name: the name of the format ("nectar"); "auto" guesses it from the first row.
        skip: the kinds of row that are left out.
        merge_turns: join consecutive messages of one role.
        ignore: names of fields that are not read.
        pairs: of n ranked answers all pairs, or the best and the worst alone.
        split: the split to read, of rows that name their split in a field `split`; "": all.
        tools: declarations of tools for rows that have none.

    Raises:
        ConfigError: `use` or `name` does not fit `want`, or `columns` has an unknown field.
    """

    want: RowKind
    use: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    allow_empty: bool = False
    name: str = "auto"
    skip: tuple[str, ...] = ()
    merge_turns: bool = False
    ignore: tuple[str, ...] = ()
    pairs: Literal["all", "best-worst"] = "all"
    split: str = ""
    tools: object = None
    _form: Format | None = None

    @classmethod
    def of(cls, section: DataConfig, want: RowKind, *, allow_empty: bool = False) -> Parser:
        """Return the parser of a data section's rows, to make rows of the kind `want`.

        Raises:
            ConfigError: a key of the section is impossible for rows of the kind `want`.
        """
        return cls(
            want, section.use, section.columns or {}, allow_empty, section.format or "auto",
            tuple(section.skip or ()), bool(section.merge_turns), tuple(section.ignore or ()), section.pairs or "all",
            section.split, None if section.tools is None else read_tools(section.tools),
        )  # fmt: skip

    def __post_init__(self) -> None:
        uses = [use for want, use in FORMATS if want == self.want]
        if self.use not in uses:
            problem = f"use: {excerpt(self.use)} cannot give {self.want} rows"
            raise ConfigError(f"{problem}\n  fix: set use to one of: {', '.join(uses)}")
        if self.name in PARSERS and self.name not in FORMATS[self.want, self.use]:
            possible = ", ".join(FORMATS[self.want, self.use])
            raise ConfigError(
                f"format: {self.name} cannot give {self.want} rows\n  fix: set format to one of: {possible}"
            )
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

    @property
    def reason(self) -> str:
        """The fields by which the format was recognised, as text, e.g. "chosen, rejected, prompt"."""
        return self._form.because() if self._form else ""

    def start(self, origin: Origin, row: dict[str, object]) -> None:
        """Recognise the format from the fields of the first readable row.

        Raises:
            DataError: the row cannot give the kind of row `want`; the message names the kind that it seems to be.
        """
        self._form = _recognised(self._fields(row, origin), origin, self.want, self.use, self.name)

    def _fields(self, row: dict[str, object], origin: Origin) -> dict[str, object]:
        """Return the fields of an entry by trueup's names, without those to ignore."""
        return without_ignored(rename_fields(row, self.columns, origin), self.ignore)

    def parse(self, origin: Origin, fields: dict[str, object] | DataError, notes: list[tuple[Origin, str]]) -> Parsed:
        """Return the typed rows of one entry; oddities such as an empty response are appended to `notes`.

        Raises:
            DataError: the entry could not be read, or no row can be made of it.
        """
        if isinstance(fields, DataError):
            raise fields
        if self.tools is not None and not declaring(fields):
            fields = {**fields, "tools": self.tools}
        assert self._form is not None, "start() comes first"
        row = self._fields(fields, origin)
        named = frozenset(self.columns)
        scored = self.want != "prompt"
        record = Record(row, origin, notes, self.allow_empty, self.merge_turns, scored=scored, named=named)
        if (split := other_split(row, self.split)) is not None:
            return Parsed([], (f"of split {excerpt(split)}",))
        trains_all = self.want == "conversation" and self._form.gives in ("conversation", "pair")
        read = {*self._form.keys.values(), *(self._form.schema.needs if self._form.schema else ())} - {None}
        if self.want == "preference" and is_tie(row, cast("set[str]", read)):
            return Parsed([], (TIE,))
        judged = "undesirable" not in self.skip
        check_meaning(record, self.want, judged=judged, imitated=trains_all, read=cast("set[str]", read))
        pairs: Pairs = self.pairs if self.want in ("preference", "labelled") else "best-worst"
        typed = self._form.rows(record, "any" if self.want == "prompt" else pairs)
        rows = [_converted(row, self.want, record) for row in typed if not isinstance(row, LeftOut)]
        if self.want == "prompt":
            rows = list(dict.fromkeys(rows))
        left_out = tuple(item.reason for item in typed if isinstance(item, LeftOut))
        unread = {key for key, value in row.items() if key not in record.read and not is_nothing(value)}
        return Parsed(rows, left_out, frozenset(unread | record.unread))


def _recognised(row: dict[str, object], origin: Origin, want: RowKind, use: str, name: str) -> Format:
    """Return the format of the first row.

    Raises:
        DataError: the row does not fit; the message says what the rows seem to be and which setting to change.
    """
    form = recognise(row, FORMATS[want, use], name)
    if form is not None:
        return form
    if want == "conversation" and use == "auto" and recognise(row, ("ranking",), name):
        problem, fix = "the rows are rankings (chosen, rejected)", "set use: chosen to train on the chosen side"
    elif want == "conversation" and use == "auto" and recognise(row, ("text",), name):
        problem, fix = "the rows are plain text", "set use: text to train on all of it"
    elif name != "auto":
        problem = f"the row has not the fields of format {name}, it has: {listed(row)}"
        fix = f"format {name} needs: {NEEDS.get(name) or NEEDED[want]}; or leave out format to have it guessed"
    else:
        need = NEEDED["text" if use == "text" else "preference" if use == "chosen" else want]
        problem, fix = f"no {need} in the row, it has: {listed(row)}", fix_of_names(row, want)
    raise row_error(origin, problem, fix)


def fix_of_names(row: Mapping[str, object], want: RowKind | None = None) -> str:
    """Return advice on how to rename the fields of a row in which no known format was found, to get rows of `want`."""
    keys = list(row)
    if len(keys) == 1 and any(mark in keys[0] for mark in ";\t|,"):
        return "put commas between the cells (tabs in a .tsv file): as it is, the row has one cell"
    if "error" in keys:
        return "get the file again: this looks like a server's error message"
    renames = ", ".join(f"{field}: {as_yaml(key)}" for field, key in suggested(row, want).items())
    return f"name the fields so, or set columns: {{{renames or 'field: its name in the file'}}}"


SIDES = (
    ("good", "bad"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("preferred", "non_preferred"),
    ("accepted", "rejected"),
    ("winner", "loser"), ("win", "lose"), ("better", "worse"), ("best", "worst"), ("positive", "negative"),
    ("pos", "neg"), ("y_w", "y_l"), ("safe", "unsafe"), ("desirable", "undesirable"), ("selected", "unselected"),
    ("j", "k"),
)  # fmt: skip
"""Words by which the fields of the better and the worse answer are named in files."""


def suggested(row: Mapping[str, object], want: RowKind | None) -> dict[str, str]:
    """Return {trueup's field name: the similar name in the file} for a row; each name occurs once.

    Only values that the field can hold are suggested: a number is no prompt, a text no list of messages.
    """
    keys = [key for key in list(row)[:100] if len(key) <= 60]  # a longer key is not a name, and would fill the message
    pairs: dict[str, str] = {}
    if want == "preference" and not ("chosen" in row and "rejected" in row):
        pairs = _sides_of(row, keys)
    scored = sorted(
        (
            (_similarity(name, key, row[key]), name, key)
            for key in keys
            for name in FIELDS
            if name not in row and key not in FIELDS and _may_be(name, row[key])
        ),
        key=lambda match: -match[0],
    )
    for similarity, name, key in scored:
        if similarity >= 0.75 and key not in pairs.values():
            group = next((names for names in (MESSAGES, PROMPT, COMPLETION, SYSTEM, LABEL) if name in names), (name,))
            if not any(other in pairs or other in row for other in group):
                pairs[name] = key
    asked = any(name in row or name in pairs for name in PROMPT)
    answered = any(name in pairs or (name in row and name != "solution") for name in (*COMPLETION, *MESSAGES))
    if want in ("conversation", "labelled") and asked and not answered:
        answers = (key for key in answers_beside(row, pairs.values()) if key in keys and _may_be("response", row[key]))
        answer = next(answers, None)
        pairs |= {"response": answer} if answer else {}
    return {name: key for key in keys for name, given in pairs.items() if given == key}


def _similarity(name: str, key: str, value: object) -> float:
    """Return how much a file's key resembles trueup's name, 0 to 1; a list of messages resembles "messages"."""
    ratio = difflib.SequenceMatcher(a=name, b=key.strip().lower().replace(" ", "_")).ratio()
    return max(ratio, 0.75) if name == "messages" and value else ratio


def _sides_of(row: Mapping[str, object], keys: Sequence[str]) -> dict[str, str]:
    """Return {"chosen": …, "rejected": …} for a row that names its two answers by words such as good and bad."""
    for better, worse in SIDES:
        for first in keys:
            parts = re.split(r"[^a-z]+", first.lower())
            if better not in parts and first.lower() != better:
                continue
            second = next((key for key in keys if key.lower() == first.lower().replace(better, worse)), None)
            if second and first != second and all(_may_be("chosen", row[key]) for key in (first, second)):
                return {"chosen": first, "rejected": second}
    return {}


def _may_be(field: str, value: object) -> bool:
    """Return True if a value can stand in trueup's field: text or messages, a number, or true and false."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if field in ("margin", *SCORES):
        return is_number
    if field in LABEL:
        return isinstance(value, bool | str)
    if field in MESSAGES:
        items = cast("list[object]", value) if isinstance(value, list) else []
        return value == [] or (bool(items) and isinstance(items[0], dict) and bool({"role", "from"} & items[0].keys()))
    if isinstance(value, list):
        return field in (*PROMPT, *COMPLETION, "chosen", "rejected") and _may_be("messages", value)
    return isinstance(value, str) and not _is_number(value)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+([.,]\d+)?\s*", text) is not None


def as_yaml(key: str) -> str:
    """Return a key as it is written in YAML, with quotes if it needs them."""
    return key if re.fullmatch(r"[\w.-]+", key) else excerpt(key)


def _converted(row: Row, want: RowKind, record: Record) -> Row:
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
            kind="no-answer",
        )
    if isinstance(row, Conversation) and not any(turn.trained for turn in row.messages if turn.role == "assistant"):
        raise untrained(record, "messages")
    return row


def same_answers(row: Row) -> bool:
    """Return True for a preference whose answers differ at most in outer spaces: nothing can be learned from it."""
    return isinstance(row, Preference) and _stripped(row.chosen) == _stripped(row.rejected)


def _stripped(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text.strip()) for message in messages]
