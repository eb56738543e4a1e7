"""Labelled completions for KTO, made from labelled rows or from rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trueup.data.example import Branch, Example, Lazy
from trueup.data.tokens.select import Examples
from trueup.errors import DataError


def unpaired_examples(rows: Examples) -> Sequence[Example]:
    """Labelled completions as examples with the scalar "desirable" (1 or 0).

    Of rankings, the chosen answers as desirable and the rejected ones as not: all chosen, then all rejected, because
    side by side `mismatched` would give a prompt its own other answer.
    """
    n = len(rows)
    if not ranked(rows):
        return Lazy(n, lambda at: _labelled(rows[at], 0, rows.scalar(at)))
    return Lazy(2 * n, lambda at: _labelled(rows[at % n], at // n, float(at < n)))


def ranked(rows: Examples) -> bool:
    """Whether these are rankings, and not labelled completions."""
    kinds = {part.meta["want"] for part in rows.parts}
    if len(kinds) > 1:
        raise DataError("data: rankings and labelled completions in one mixture\n  fix: give data of one kind")
    return kinds == {"preference"}


def _labelled(example: Example, side: int, desirable: float) -> Example:
    branch = example.branches[side]
    return replace(example, branches=(replace(branch, scalars={**branch.scalars, "desirable": desirable}),))


def mismatched(examples: Sequence[Example], max_length: int) -> Sequence[Example]:
    """Each prompt with the next example's completion: what KTO estimates the KL on (arXiv:2402.01306, section 4.1).

    The pair was never held to `max_length`, so the completion is cut to what the prompt leaves of it.
    """
    n = len(examples)

    def shifted(at: int) -> Example:
        one, other = examples[at], examples[(at + 1) % n]
        room, branch = max_length - len(one.trunk), other.branches[0]
        return Example(one.trunk, (Branch(branch.ids[:room], branch.mask[:room]),))

    return Lazy(n, shifted)
