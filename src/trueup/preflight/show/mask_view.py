"""Data of the mask view, which shows which tokens train: rows of tokens as a micro-batch lays them out, and totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Literal

Method = Literal["sft", "reward", "dpo", "ppo"]
Fault = Literal["nothing trained", "end not trained", "bos twice"]

FAULTS: dict[Fault, str] = {
    "nothing trained": "nothing is trained, so the row teaches nothing",
    "end not trained": "an end token is not trained, so the model would not learn to stop",
    "bos twice": "the bos token stands twice at the start",
}
"""The words for each fault; reward models use `SCORE_FAULT` instead."""
SCORE_FAULT = "the score is not read at an end token"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a row, with its use in training.

    Attributes:
        id: its number in the vocabulary.
        text: its part of the text. A character of several tokens belongs to the first of them; the others are empty.
        alone: the token by itself; bytes that are no character are written as ⟨e2⟩.
        position: its position id.
        segment: prompt, chosen, rejected, answer or document.
        trained: True if it is a target of the loss; for a reward model, if the score is read here.
        special: True for an added token such as <|im_end|>, which ordinary text never becomes.
        end: True for a trained token that ends an answer.
    """

    id: int
    text: str
    alone: str
    position: int
    segment: str
    trained: bool
    special: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of a row that belong to the same part, such as the prompt or the chosen answer.

    `restarts` is True if positions continue from the prompt, not from the token before.
    """

    name: str
    tokens: tuple[Token, ...]
    restarts: bool = False

    @property
    def trained(self) -> int:
        """The number of trained tokens."""
        return sum(token.trained for token in self.tokens)

    @property
    def positions(self) -> tuple[int, int]:
        """The position ids of the first and the last token."""
        return self.tokens[0].position, self.tokens[-1].position

    @property
    def runs(self) -> list[tuple[bool, tuple[Token, ...]]]:
        """The segment's tokens in stretches that are all trained or all not trained, see the function `runs`."""
        return runs(self.tokens)


def runs(tokens: tuple[Token, ...]) -> list[tuple[bool, tuple[Token, ...]]]:
    """Return the tokens in stretches that are all trained or all not trained, each as (trained, tokens)."""
    return [(trained, tuple(run)) for trained, run in groupby(tokens, key=lambda token: token.trained)]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row of a micro-batch, with its tokens as the model gets them.

    Attributes:
        number: 1-based number of the row of data; a pair whose answers share no prompt has two rows with one number.
        side: the name of its answer if a pair takes two rows, else empty.
        origin: file and line of the row of data (`file.jsonl:12`), or empty.
        tokens: without padding.
        width: tokens of the row, padding included.
        attention: which tokens may attend to which, in words.
        notes: remarks about the row, such as its label.
        faults: its faults, in words.
    """

    number: int
    side: str
    origin: str
    tokens: tuple[Token, ...]
    width: int
    attention: str
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """The number of trained tokens."""
        return sum(token.trained for token in self.tokens)

    @property
    def segments(self) -> list[Segment]:
        """The row's tokens by segment (prompt, answers), in order."""
        parts = [tuple(run) for _, run in groupby(self.tokens, key=lambda token: token.segment)]
        restarts = [False, *(after[0].position <= before[-1].position for before, after in pairwise(parts))]
        return [Segment(part[0].segment, part, again) for part, again in zip(parts, restarts, strict=True)]


@dataclass(slots=True)
class DataTotals:
    """Totals over all rows of the data, not only those shown.

    Attributes:
        rows: rows of data.
        tokens: tokens that run through the model, padding not counted.
        trained: tokens that are targets; for a reward model, scores.
        ends: (answers whose last token is a trained end token, answers) by branch name.
        end_rows: rows whose answers all end with a trained end token.
        answered: rows that hold an answer or a document, so not the prompts of PPO.
        longest: tokens of the longest sequence, which `max_length` limits.
        longest_at: number or origin of its row.
        sharing: rows whose prompt runs once for both answers.
        faults: the places of the rows that have a fault, by fault.
    """

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)
    end_rows: int = 0
    answered: int = 0
    longest: int = 0
    longest_at: str = ""
    sharing: int = 0
    faults: dict[Fault, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """The mask view: the first rows of the data as they will train, and totals over all rows.

    `shapes` holds (rows, tokens) of each micro-batch shown.
    """

    method: Method
    rows: tuple[TokenRow, ...]
    shapes: tuple[tuple[int, int], ...]
    totals: DataTotals

    @property
    def padding(self) -> float:
        """The share of padding in the micro-batches shown."""
        cells = sum(rows * width for rows, width in self.shapes)
        return 1 - sum(len(row.tokens) for row in self.rows) / cells if cells else 0.0
