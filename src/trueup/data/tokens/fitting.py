"""The length rule: rows over `max_length` stop the training, are left out, or have their answers cut, as is asked."""

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
class _Long:
    """Rows over the limit."""

    rows: list[int] = field(default_factory=list)  # of the whole view
    lengths: list[int] = field(default_factory=list)  # of the first few
    sides: list[int] = field(default_factory=lambda: [0, 0])
    prompts: int = 0
    by_length: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    pairs: bool = False


def fitted(
    name: str, examples: Examples, limit: int, rule: Literal["error", "drop", "cut"]
) -> tuple[Examples, dict[str, Any]]:
    """The rows that are used, and what is to be said of the long ones in the account of the data.

    Raises:
        DataError: rows are too long and `rule` is "error", none would be left, a prompt leaves no room to cut to, or
            the two answers of a pair are the same once they are cut.
    """
    found = _long_rows(examples, limit)
    if not found.rows:
        return examples, {}
    if rule == "error" or (rule == "drop" and len(found.rows) == len(examples)):
        raise DataError(_too_long(name, examples, found, limit))
    told = _account(limit, examples, found)
    if rule == "drop":
        return without(examples, found.rows), {"over_length": told}
    cut = Examples(examples.parts, examples.rows, cut=limit)
    for at in found.rows:
        problem = None
        if (trunk := len(examples[at].trunk)) > limit - 2:
            problem = f"the prompt alone has {trunk} tokens, max_length is {limit}"
        elif len(sides := cut[at].branches) == 2 and sides[0].ids == sides[1].ids:
            problem = f"cut to max_length={limit} tokens, chosen and rejected are the same"
        if problem is not None:
            raise DataError(f"{examples.origin(at)}: {problem}; raise max_length, or set over_length=drop")
    return cut, {"cut": told}


def fitted_prompts(examples: Examples, limit: int, new_tokens: int, rule: str) -> tuple[Examples, dict[str, Any]]:
    """As `fitted`, of prompts that must leave room for an answer: none is ever cut.

    Raises:
        DataError: one does not, unless `rule` is "drop" and others do.
    """
    room = limit - new_tokens
    found = _long_rows(examples, room)
    if found.rows and (rule != "drop" or len(found.rows) == len(examples)):
        worst = len(found.by_length) - 1
        raise DataError(
            f"{examples.origin(found.rows[0])}: {len(found.rows)} of {len(examples)} prompts leave no room for "
            f"{new_tokens} new tokens within max_length={limit}\n"
            f"  set max_length={worst + new_tokens}, or leave them out with over_length=drop"
        )
    told = _account(room, examples, found)
    return without(examples, found.rows), {"over_length": told} if found.rows else {}


def _account(limit: int, examples: Examples, found: _Long) -> dict[str, Any]:
    """How many rows are longer than `limit`, and the places of the first thousand."""
    rows = [str(examples.origin(at)) for at in found.rows[:_LISTED]]
    return {"max_length": limit, "count": len(found.rows), "rows": rows}


def without(examples: Examples, left_out: Sequence[int]) -> Examples:
    """The same but for some examples."""
    if not left_out:
        return examples
    kept: list[Selected] = []
    gone = np.array(left_out)
    for rows, start in zip(examples.rows, examples.starts[:-1], strict=True):
        inside = gone[(gone >= start) & (gone < start + len(rows))] - start
        kept.append(np.delete(rows, inside))
    return Examples(examples.parts, kept, examples.cut)


def _long_rows(examples: Examples, limit: int) -> _Long:
    found, seen = _Long(), 0

    def see(records: NDArray[np.void]) -> None:
        nonlocal seen
        longest = lengths(records)
        counts = np.bincount(longest, minlength=len(found.by_length))
        counts[: len(found.by_length)] += found.by_length
        found.by_length = counts
        over = np.flatnonzero(longest > limit)
        found.rows += (over + seen).tolist()
        found.lengths += longest[over[: _SHOWN - len(found.lengths)]].tolist()
        some = records[over]
        found.prompts += int((some["trunk"] >= limit).sum())
        for side, key in enumerate(("first", "second")):
            found.sides[side] += int((some["trunk"].astype(np.int64) + some[key] > limit).sum())
        found.pairs |= bool((records["second"] >= 0).any())
        seen += len(records)

    examples.map_records(see)
    return found


def _too_long(name: str, examples: Examples, found: _Long, limit: int) -> str:
    """What is too long, by how much, and which limit would do."""
    shown = zip(found.rows, found.lengths, strict=False)
    first = ", ".join(f"{_place(examples.origin(at))} ({length} tokens)" for at, length in shown)
    more = f" and {len(found.rows) - _SHOWN} more" if len(found.rows) > _SHOWN else ""
    per_side = f"chosen {found.sides[0]}, rejected {found.sides[1]}, " if found.pairs else ""
    most = int(np.searchsorted(np.cumsum(found.by_length), 0.95 * len(examples) - 1e-9))
    return (
        f"{name}: {len(found.rows)} of {len(examples)} rows are longer than max_length={limit} tokens: {first}{more}\n"
        f"  over the limit: {per_side}prompt alone {found.prompts}\n"
        f"  max_length={len(found.by_length) - 1} keeps every row, max_length={most} keeps 95% of them;\n"
        f"  over_length=drop leaves the long rows out, over_length=cut cuts their answers (both are counted)"
    )


def _place(origin: Origin) -> str:
    return f"{Path(origin.file).name}:{origin.line}"
