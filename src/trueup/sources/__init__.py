"""Data sources: a path or hub id to typed rows, with every row accounted for; and the sampler over them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, overload

from trueup.chat import Conversation, Labelled, Message, Origin, Preference, Prompt, Row, Text, excerpt, row_error
from trueup.errors import ConfigError, DataError
from trueup.sources.finding import Table, read
from trueup.sources.formats import Format, recognise
from trueup.sources.records import FIELDS, Record, renamed
from trueup.sources.rows import Counts, Drop, Rows
from trueup.sources.sampler import Sampler

__all__ = ["Counts", "Drop", "Rows", "Sampler", "Want", "forget", "load", "load_records", "load_section", "preload"]

T = TypeVar("T")
Want = Literal["conversation", "preference", "labelled", "prompt", "text"]
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


class DataSection(Protocol):
    """What a configuration says about data; the arguments of `load`."""

    @property
    def path(self) -> str: ...
    @property
    def use(self) -> str: ...
    @property
    def rows(self) -> str | None: ...
    @property
    def columns(self) -> dict[str, str] | None: ...
    @property
    def split(self) -> str: ...
    @property
    def identical_pairs(self) -> Literal["error", "drop"]: ...


NEEDED = {
    "conversation": "messages, or prompt and completion",
    "preference": "chosen and rejected (and prompt)",
    "labelled": "prompt, completion and label",
    "prompt": "prompt, or messages",
    "text": "text",
}


@overload
def load(
    spec: str,
    *,
    want: Literal["conversation"],
    use: str = ...,
    rows: str | None = ...,
    columns: Mapping[str, str] | None = ...,
    split: str = ...,
    identical: Literal["error", "drop"] = ...,
) -> Rows[Conversation | Text]: ...
@overload
def load(
    spec: str,
    *,
    want: Literal["preference"],
    use: str = ...,
    rows: str | None = ...,
    columns: Mapping[str, str] | None = ...,
    split: str = ...,
    identical: Literal["error", "drop"] = ...,
) -> Rows[Preference]: ...
@overload
def load(
    spec: str,
    *,
    want: Literal["labelled"],
    use: str = ...,
    rows: str | None = ...,
    columns: Mapping[str, str] | None = ...,
    split: str = ...,
    identical: Literal["error", "drop"] = ...,
) -> Rows[Labelled]: ...
@overload
def load(
    spec: str,
    *,
    want: Literal["prompt"],
    use: str = ...,
    rows: str | None = ...,
    columns: Mapping[str, str] | None = ...,
    split: str = ...,
    identical: Literal["error", "drop"] = ...,
) -> Rows[Prompt]: ...
@overload
def load(
    spec: str,
    *,
    want: Literal["text"],
    use: str = ...,
    rows: str | None = ...,
    columns: Mapping[str, str] | None = ...,
    split: str = ...,
    identical: Literal["error", "drop"] = ...,
) -> Rows[Text]: ...
def load(
    spec: str,
    *,
    want: Want,
    use: str = "auto",
    rows: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    identical: Literal["error", "drop"] = "error",
) -> Rows[Row]:
    """Read `spec` as rows of the kind `want`; the formats are listed in `trueup.sources.formats`.

    Args:
        spec: a file (.jsonl .json .csv .tsv .txt .parquet, or .gz of a text one), a folder of them (read in order of
            name), a folder of `datasets.save_to_disk`, or a hub id `owner/name[:configuration]`. Of a .txt file every
            line that is not blank is a row.
        want: the kind of row.
        use: "chosen" makes conversations of the chosen side of rankings, "text" reads plain text.
        rows: "start:stop" of the usable rows, 0-based and half-open; negative numbers count from the end.
        columns: {field: the file's name for it}.
        split: the split of a hub or saved data set, or of a folder whose files are named by split.
        identical: what to do about pairs whose chosen and rejected are the same.

    Raises:
        DataError: a row or file cannot be used; nothing is passed over in silence.
        ConfigError: an argument cannot be meant.
        MissingExtraError: the source needs a package that is not installed.
    """
    _check_arguments(want, use, rows, columns or {})
    table = read(spec, split)
    name, unused, made, notes = _parse_all(spec, table, want, use, columns or {})
    kept, dropped = _set_identical_apart(spec, made, drop=identical == "drop")
    chosen = _selected(spec, kept, rows)
    counts = Counts(
        read=len(table.entries),
        used=len(chosen),
        dropped=dropped,
        unselected=len(kept) - len(chosen),
        blank=table.blank,
        notes=tuple(notes),
        unused=unused,
    )
    return Rows(tuple(chosen), counts, name, table.files)


_ready: dict[str, Rows[Row]] = {}


def _key(data: DataSection, want: Want) -> str:
    stamps = [(str(path), path.stat().st_mtime_ns) for path in (Path(data.path).expanduser(),) if path.exists()]
    parts = (data.path, data.use, data.rows, data.columns, data.split, data.identical_pairs)
    return repr((want, parts, stamps))


def preload(data: DataSection, want: Want) -> None:
    """Read a section now and keep its rows for the first `load_section` that asks for the same, unchanged."""
    rows = load_section(data, want)
    _ready[_key(data, want)] = rows


def forget() -> None:
    """Let go of all preloaded rows."""
    _ready.clear()


def load_section(data: DataSection, want: Want) -> Rows[Any]:
    """`load` with the arguments of a configuration's data section; rows preloaded for it are handed over, once."""
    ready = _ready.pop(_key(data, want), None)
    if ready is not None:
        return ready
    return cast("Any", load)(
        data.path,
        want=want,
        use=data.use,
        rows=data.rows,
        columns=data.columns,
        split=data.split,
        identical=data.identical_pairs,
    )


def load_records(data: DataSection) -> list[Record]:
    """A section's rows as they stand in the file, for readers of other fields than the formats'; `use` plays no part.

    Raises:
        DataError: a file or a line of it cannot be read, or `rows` selects nothing.
    """
    table = read(data.path, data.split)
    if not table.entries:
        raise DataError(f"{data.path}: there are no rows in it\n  fix: check that the file was written to the end")
    made: list[Record] = []
    for origin, found in table.entries:
        if isinstance(found, DataError):
            raise found
        made.append(Record(renamed(found, data.columns or {}, origin), origin))
    return _selected(data.path, made, data.rows)


def _check_arguments(want: Want, use: str, rows: str | None, columns: Mapping[str, str]) -> None:
    uses = [u for w, u in FORMATS if w == want]
    if use not in uses:
        raise ConfigError(f"use: {excerpt(use)} cannot give {want} rows\n  fix: set use to one of: {', '.join(uses)}")
    if rows is not None and not re.fullmatch(r"(-?\d+)?:(-?\d+)?", rows):
        raise ConfigError(f"rows: {excerpt(rows)} is no slice\n  fix: write start:stop, as in 0:1000, 500: or :-100")
    for key, source in columns.items():
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            swapped = source in FIELDS and f"write it as {{{source}: {key}}}, field first"
            hint = swapped or (f"did you mean {near[0]}?" if near else f"use one of: {', '.join(FIELDS)}")
            raise ConfigError(f"columns: {excerpt(key)} is no field of trueup's\n  fix: {hint}")


def _parse_all(
    spec: str, table: Table, want: Want, use: str, columns: Mapping[str, str]
) -> tuple[str, tuple[str, ...], list[Row], list[tuple[Origin, str]]]:
    """-> format's name, unused fields, rows, notes. Raises the first problem, with the lines of the others."""
    if not table.entries:
        raise DataError(f"{spec}: there are no rows in it\n  fix: check that the file was written to the end")
    form: Format | None = None
    unused: tuple[str, ...] = ()
    made: list[Row] = []
    problems: list[tuple[Origin, DataError]] = []
    notes: list[tuple[Origin, str]] = []
    for origin, found in table.entries:
        try:
            if isinstance(found, DataError):
                raise found
            row = renamed(found, columns, origin)
            if form is None:
                form = _recognise_first(row, origin, want, use)
                unused = tuple(key for key in row if key not in form.used())
            record = Record(row, origin, notes)
            made.append(_converted(form.parse(record, form.keys), want))
        except DataError as error:
            problems.append((origin, error))
            if form is None and not isinstance(found, DataError):
                break  # the format is not known: no other row can be judged
    if problems:
        others = [origin for origin, _ in problems[1:]]
        more = f"\n  also unusable: {_lines(others)}, of {len(table.entries)} rows" if others else ""
        raise DataError(f"{problems[0][1]}{more}")
    return (form.name if form else "", unused, made, notes)


def _recognise_first(row: dict[str, object], origin: Origin, want: Want, use: str) -> Format:
    """The format of the first row, or a DataError that says what the rows seem to be and what to set."""
    form = recognise(row, FORMATS[want, use])
    if form is not None and want == "conversation" and form.name == "pair" and isinstance(row.get("label"), bool):
        raise row_error(
            origin,
            "the rows carry a true/false label: SFT would train on the bad completions too",
            "keep the good ones in a file of their own, or rename label if it is no verdict",
        )
    if form is not None:
        return form
    is_ranking, is_text = recognise(row, ("ranking",)) is not None, recognise(row, ("text",)) is not None
    need = NEEDED["text" if use == "text" else "preference" if use == "chosen" else want]
    if want == "conversation" and use == "auto" and is_ranking:
        problem, fix = "the rows are rankings (chosen, rejected)", "set use: chosen to train on the chosen side"
    elif want == "conversation" and use == "auto" and is_text:
        problem, fix = "the rows are plain text", "set use: text to train on all of it"
    else:
        near = [
            (k, n[0]) for k in row if k not in FIELDS and (n := difflib.get_close_matches(k, FIELDS, n=1, cutoff=0.75))
        ]
        renames = ", ".join(f"{n}: {k}" for k, n in near) or "field: its name in the file"
        problem = f"no {need} in the row, it has: {', '.join(row) or 'nothing'}"
        fix = f"name the fields so, or set columns: {{{renames}}}"
    raise row_error(origin, problem, fix)


def _converted(row: Row, want: Want) -> Row:
    """`row` as the kind wanted, where its format gave another."""
    if want == "prompt" and isinstance(row, Conversation):
        return Prompt(row.prompt, row.origin)
    if want == "prompt" and isinstance(row, Preference):
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


def _same(a: Sequence[Message], b: Sequence[Message]) -> bool:
    return [(m.role, m.content.strip()) for m in a] == [(m.role, m.content.strip()) for m in b]


def _set_identical_apart(spec: str, made: list[Row], *, drop: bool) -> tuple[list[Row], tuple[Drop, ...]]:
    same = [row for row in made if isinstance(row, Preference) and _same(row.chosen, row.rejected)]
    if not same:
        return made, ()
    origins = [row.origin for row in same if row.origin is not None]
    if not drop:
        raise DataError(
            f"{spec}: {len(same)} of {len(made)} pairs have the same chosen and rejected: {_lines(origins)}\n"
            "  fix: remove them, or set identical_pairs: drop"
        )
    gone = set(map(id, same))
    kept = [row for row in made if id(row) not in gone]
    if not kept:
        raise DataError(
            f"{spec}: all {len(made)} pairs have the same chosen and rejected\n  fix: check how it was made"
        )
    return kept, tuple(Drop(origin, "chosen and rejected are the same") for origin in origins)


def _lines(origins: Sequence[Origin], limit: int = 10) -> str:
    """Line numbers for a message, with the names of the files where there is more than one."""
    one_file = len({origin.file for origin in origins}) == 1
    shown = ", ".join(str(o.line) if one_file else str(o) for o in origins[:limit])
    more = f" and {len(origins) - limit} more" if len(origins) > limit else ""
    return f"{'line' if len(origins) == 1 else 'lines'} {shown}{more}" if one_file else f"{shown}{more}"


def _selected(spec: str, rows: list[T], span: str | None) -> list[T]:
    if span is None:
        return rows
    start, _, stop = span.partition(":")
    selected = rows[int(start) if start else None : int(stop) if stop else None]
    if not selected:
        raise DataError(
            f"{spec}: rows: {span} selects nothing of {len(rows)} usable rows\n  fix: stay within 0:{len(rows)}"
        )
    return selected
