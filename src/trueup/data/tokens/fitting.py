"""The rule for rows longer than `max_length` tokens: they stop the training, are dropped, or have their answers cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trueup.data.rendering.messages import Origin
from trueup.data.tokens.select import Examples, Selected, lengths
from trueup.errors import DataError

_SHOWN, _LISTED = 5, 1_000


@dataclass(slots=True)
class _LongRows:
    """The rows with more tokens than the limit: their indices, lengths, and counts by answer and prompt."""

    rows: list[int] = field(default_factory=list)  # indices in the examples
    lengths: list[int] = field(default_factory=list)  # of the first few rows
    sides: list[int] = field(default_factory=lambda: [0, 0])
    prompts: int = 0
    by_length: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    pairs: bool = False


def fit_examples(
    name: str, examples: Examples, limit: int, rule: Literal["error", "drop", "cut"]
) -> tuple[Examples, dict[str, Any]]:
    """Return the rows to use, and the counts of those longer than `limit` tokens, for the report on the data.

    `name` is the section's name for messages; `rule` is the setting `over_length`. The counts are {"over_length" or
    "cut": {max_length, count, rows}}, or empty.

    Raises:
        DataError: rows are too long and `rule` is "error", none would be left, a prompt leaves no room for an answer,
            or the two answers of a pair are the same once they are cut.
    """
    long_rows = _long_rows(examples, limit)
    if not long_rows.rows:
        return examples, {}
    if rule == "error" or (rule == "drop" and len(long_rows.rows) == len(examples)):
        raise DataError(_too_long(name, examples, long_rows, limit))
    counts = _counts(limit, examples, long_rows)
    if rule == "drop":
        return without(examples, long_rows.rows), {"over_length": counts}
    cut = Examples(examples.parts, examples.rows, cut=limit)
    for index in long_rows.rows:
        problem = None
        if (trunk := len(examples[index].trunk)) > limit - 2:
            problem = f"the prompt alone has {trunk} tokens, max_length is {limit}"
        elif len(sides := cut[index].branches) == 2 and sides[0].ids == sides[1].ids:
            problem = f"cut to max_length={limit} tokens, chosen and rejected are the same"
        if problem is not None:
            raise DataError(f"{examples.origin(index)}: {problem}; raise max_length, or set over_length=drop")
    return cut, {"cut": counts}


def fit_prompts(examples: Examples, limit: int, new_tokens: int, rule: str) -> tuple[Examples, dict[str, Any]]:
    """Return the prompts that leave room for `new_tokens` within `limit` tokens, and the counts of the others.

    Prompts are never cut.

    Raises:
        DataError: a prompt leaves no room and `rule` is not "drop", or no prompt leaves room.
    """
    room = limit - new_tokens
    long_rows = _long_rows(examples, room)
    if long_rows.rows and (rule != "drop" or len(long_rows.rows) == len(examples)):
        worst = len(long_rows.by_length) - 1
        raise DataError(
            f"{examples.origin(long_rows.rows[0])}: {len(long_rows.rows)} of {len(examples)} prompts leave no room for "
            f"{new_tokens} new tokens within max_length={limit}\n"
            f"  set max_length={worst + new_tokens}, or leave them out with over_length=drop"
        )
    counts = _counts(room, examples, long_rows)
    return without(examples, long_rows.rows), {"over_length": counts} if long_rows.rows else {}


def _counts(limit: int, examples: Examples, long_rows: _LongRows) -> dict[str, Any]:
    """Return {max_length, count, rows} of the rows longer than `limit`; rows has the places of the first thousand."""
    rows = [str(examples.origin(index)) for index in long_rows.rows[:_LISTED]]
    return {"max_length": limit, "count": len(long_rows.rows), "rows": rows}


def without(examples: Examples, left_out: Sequence[int]) -> Examples:
    """Return the examples except those at the indices `left_out`."""
    if not left_out:
        return examples
    kept: list[Selected] = []
    removed = np.array(left_out)
    for rows, start in zip(examples.rows, examples.starts[:-1], strict=True):
        inside = removed[(removed >= start) & (removed < start + len(rows))] - start
        kept.append(np.delete(rows, inside))
    return Examples(examples.parts, kept, examples.cut)


def _long_rows(examples: Examples, limit: int) -> _LongRows:
    """Return the rows longer than `limit` tokens, found in one pass over the records."""
    long_rows, seen = _LongRows(), 0

    def add(records: NDArray[np.void]) -> None:
        nonlocal seen
        longest = lengths(records)
        counts = np.bincount(longest, minlength=len(long_rows.by_length))
        counts[: len(long_rows.by_length)] += long_rows.by_length
        long_rows.by_length = counts
        over = np.flatnonzero(longest > limit)
        long_rows.rows += (over + seen).tolist()
        long_rows.lengths += longest[over[: _SHOWN - len(long_rows.lengths)]].tolist()
        too_long = records[over]
        long_rows.prompts += int((too_long["trunk"] >= limit).sum())
        for side, key in enumerate(("first", "second")):
            long_rows.sides[side] += int((too_long["trunk"].astype(np.int64) + too_long[key] > limit).sum())
        long_rows.pairs |= bool((records["second"] >= 0).any())
        seen += len(records)

    examples.map_records(add)
    return long_rows


def _too_long(name: str, examples: Examples, long_rows: _LongRows, limit: int) -> str:
    """Return the message on rows that are too long: which rows, their lengths, and the limit that would keep them."""
    shown = zip(long_rows.rows, long_rows.lengths, strict=False)
    first = ", ".join(f"{_place(examples.origin(index))} ({length} tokens)" for index, length in shown)
    more = f" and {len(long_rows.rows) - _SHOWN} more" if len(long_rows.rows) > _SHOWN else ""
    per_side = f"chosen {long_rows.sides[0]}, rejected {long_rows.sides[1]}, " if long_rows.pairs else ""
    most = int(np.searchsorted(np.cumsum(long_rows.by_length), 0.95 * len(examples) - 1e-9))
    return (
        f"{name}: {len(long_rows.rows)} of {len(examples)} rows are longer than max_length={limit} tokens: "
        f"{first}{more}\n"
        f"  over the limit: {per_side}prompt alone {long_rows.prompts}\n"
        f"  max_length={len(long_rows.by_length) - 1} keeps every row, max_length={most} keeps 95% of them;\n"
        f"  over_length=drop leaves the long rows out, over_length=cut cuts their answers (both are counted)"
    )


def _place(origin: Origin) -> str:
    return f"{Path(origin.file).name}:{origin.line}"
