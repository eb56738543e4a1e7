"""Labelled completions (desirable or not) for KTO, made from labelled rows or from preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trueup.data.example import Branch, Example, Lazy
from trueup.data.tokens.select import Examples
from trueup.errors import DataError


def unpaired_examples(rows: Examples) -> Sequence[Example]:
    """Return labelled completions as examples, whose branch has the scalar "desirable" (1 or 0).

    Of preference pairs, the chosen answers are desirable and the rejected ones not: all chosen, then all rejected.
    """
    n = len(rows)
    if not is_ranked(rows):
        return Lazy(n, lambda index: _labelled(rows[index], 0, rows.scalar(index)))
    return Lazy(2 * n, lambda index: _labelled(rows[index % n], index // n, float(index < n)))


def is_ranked(rows: Examples) -> bool:
    """Return True if the rows are preference pairs, False if they are labelled completions.

    Raises:
        DataError: the rows are a mixture of both.
    """
    kinds = {part.meta["want"] for part in rows.parts}
    if len(kinds) > 1:
        raise DataError("data: rankings and labelled completions in one mixture\n  fix: give data of one kind")
    return kinds == {"preference"}


def _labelled(example: Example, side: int, desirable: float) -> Example:
    branch = example.branches[side]
    return replace(example, branches=(replace(branch, scalars={**branch.scalars, "desirable": desirable}),))


def mismatched(examples: Sequence[Example], max_length: int) -> Sequence[Example]:
    """Return each prompt with the completion of the next row of *another* prompt (arXiv:2402.01306, section 4.1).

    KTO estimates the KL divergence between policy and reference model on these. Labelled rows of one prompt usually lie
    next to each other: the next row alone would be another answer to the same prompt, and its log-ratio no estimate of
    the KL. After the last row comes the first.

    The new sequence may be longer than `max_length`, so the completion is cut to the room that the prompt leaves.

    Raises:
        DataError: all rows have the same prompt.
    """
    partners = _next_of_another_prompt(examples)

    def shifted(index: int) -> Example:
        example, other = examples[index], examples[partners[index]]
        room, branch = max_length - len(example.trunk), other.branches[0]
        return Example(example.trunk, (Branch(branch.ids[:room], branch.mask[:room]),))

    return Lazy(len(examples), shifted)


def _next_of_another_prompt(examples: Sequence[Example]) -> list[int]:
    """Return for each row the index of the next row with another prompt; after the last row comes the first.

    Raises:
        DataError: all rows have the same prompt.
    """
    count = len(examples)
    prompts = [hash(tuple(example.trunk)) for example in examples]
    first_other = next((index for index in range(count) if prompts[index] != prompts[-1]), None)
    if first_other is None:
        raise DataError(
            f"data: all {count} completions answer the same prompt, and KTO's reference point is estimated on a prompt "
            "with another prompt's completion\n  fix: add rows of other prompts"
        )
    partners = [first_other] * count
    for index in range(count - 2, -1, -1):
        partners[index] = partners[index + 1] if prompts[index] == prompts[index + 1] else index + 1
    return partners
