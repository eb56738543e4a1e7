"""A whole source at once: typed rows, or records as they stand in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, overload

from trueup.data.rendering.messages import Conversation, Labelled, Preference, Prompt, Row, Text
from trueup.data.sources.parser import Parser, Want
from trueup.data.sources.reader import Reader, open_reader
from trueup.data.sources.records import Record, renamed
from trueup.data.sources.rows import Rows, shown
from trueup.data.sources.stream import DataSection, Stream, selects_nothing, span_of
from trueup.errors import DataError


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
    """Read `spec` as rows of the kind `want`; the formats are listed in `trueup.data.sources.formats`.

    Args:
        spec: a file (.jsonl .json .csv .tsv .txt .parquet, or .gz of a text one), a folder of them (read in order of
            name), a folder of `datasets.save_to_disk`, or a hub id `owner/name[:configuration]`. Of a .txt file every
            line that is not blank is a row.
        want: the kind of row.
        use: "chosen" makes conversations of the chosen side of rankings, "text" reads plain text.
        rows: "start:stop" of the source's rows, 0-based and half-open; negative numbers count from the end. The rows
            outside are judged too.
        columns: {field: the file's name for it}.
        split: the split of a hub or saved data set, or of a folder whose files are named by split.
        identical: what to do about pairs whose chosen and rejected are the same.

    Raises:
        DataError: a row or file cannot be used; nothing is passed over in silence.
        ConfigError: an argument cannot be meant.
        MissingExtraError: the source needs a package that is not installed.
    """
    parser, span = Parser(want, use, columns or {}), span_of(rows)
    reader = open_reader(spec, split)
    opened: Stream[Row] = Stream(reader, parser, _from_the_start(span, reader), drop=identical == "drop")
    items = tuple(opened)
    return Rows(items, opened.counts, opened.format, opened.files)


def _from_the_start(span: slice, reader: Reader) -> slice:
    """`span` without negative numbers; where it has some, the rows are counted first."""
    if all(end is None or end >= 0 for end in (span.start, span.stop)):
        return span
    total = sum(1 for _ in reader.entries())
    return slice(*span.indices(total)[:2])


def load_section(data: DataSection, want: Want) -> Rows[Any]:
    """`load` with the arguments of a configuration's data section."""
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
    reader = open_reader(data.path, data.split)
    span = _from_the_start(span_of(data.rows), reader)
    start, stop = span.start or 0, span.stop
    made: list[Record] = []
    read = 0
    for origin, found in reader.entries():
        if isinstance(found, DataError):
            raise found
        row = renamed(found, data.columns or {}, origin)
        if start <= read and (stop is None or read < stop):
            made.append(Record(row, origin))
        read += 1
    if not read:
        name = shown(data.path)
        raise DataError(f"{name}: there are no rows in it\n  fix: check that the file was written to the end")
    if not made:
        raise selects_nothing(shown(data.path), span, read)
    return made
