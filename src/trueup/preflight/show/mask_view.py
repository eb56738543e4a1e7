"""What the mask view holds: rows of tokens as a micro-batch lays them out, and totals over all rows."""

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
"""Fault -> what is wrong, for any method but the reward's `SCORE_FAULT`."""
SCORE_FAULT = "the score is not read at an end token"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a row.

    Attributes:
        id: its number in the vocabulary.
        text: what it adds to the text. A character of several tokens stands at the first, the others add nothing.
        alone: the token by itself; bytes that are no character are written as ⟨e2⟩.
        position: its position id.
        segment: prompt, chosen, rejected, answer or document.
        trained: it is a target of the loss; for a reward model, its score is read here.
        special: an added token, such as <|im_end|>, that ordinary text does not become.
        end: a trained token that ends an answer.
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
    """Neighbouring tokens of one name. `restarts`: its positions go on from the prompt, not from the token before."""

    name: str
    tokens: tuple[Token, ...]
    restarts: bool = False

    @property
    def trained(self) -> int:
        """How many of its tokens are trained."""
        return sum(token.trained for token in self.tokens)

    @property
    def positions(self) -> tuple[int, int]:
        """The first and the last position."""
        return self.tokens[0].position, self.tokens[-1].position

    @property
    def runs(self) -> list[tuple[bool, tuple[Token, ...]]]:
        """(trained, tokens) of each stretch of alike tokens."""
        return runs(self.tokens)


def runs(tokens: tuple[Token, ...]) -> list[tuple[bool, tuple[Token, ...]]]:
    """(trained, tokens) of each stretch of tokens that are all trained, or all not."""
    return [(trained, tuple(some)) for trained, some in groupby(tokens, key=lambda token: token.trained)]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row of a micro-batch.

    Attributes:
        number: 1-based number of the row of data; both rows of a pair that shares no prompt have the same.
        side: which answer it holds where a pair takes two rows, else empty.
        origin: where the row of data came from (`file.jsonl:12`), or empty.
        tokens: without padding.
        width: tokens of the row, padding included.
        sees: in words, what may attend to what.
        notes: what else is to be known of it.
        wrong: what is wrong with it, in words.
    """

    number: int
    side: str
    origin: str
    tokens: tuple[Token, ...]
    width: int
    sees: str
    notes: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """How many of its tokens are trained."""
        return sum(token.trained for token in self.tokens)

    @property
    def segments(self) -> list[Segment]:
        """Its tokens by segment, in order."""
        parts = [tuple(some) for _, some in groupby(self.tokens, key=lambda token: token.segment)]
        restarts = [False, *(after[0].position <= before[-1].position for before, after in pairwise(parts))]
        return [Segment(part[0].segment, part, again) for part, again in zip(parts, restarts, strict=True)]


@dataclass(slots=True)
class DataTotals:
    """Over all rows of the data, not only those shown.

    Attributes:
        rows: rows of data.
        tokens: tokens that run through the model, padding not counted.
        trained: tokens that are targets; for a reward model, scores.
        ends: side -> (answers whose last token is an end token that is trained, answers).
        end_rows: rows in which that is so of every answer.
        answered: rows that have an answer, or are a document; a prompt that PPO will answer is not.
        longest: tokens of the longest sequence, which `max_length` limits.
        longest_at: number or origin of its row.
        sharing: rows whose prompt runs once for both answers.
        wrong: fault -> the rows that have it.
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
    wrong: dict[Fault, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """The first rows as they train, and totals. `shapes`: (rows, tokens) of each micro-batch shown."""

    method: Method
    rows: tuple[TokenRow, ...]
    shapes: tuple[tuple[int, int], ...]
    totals: DataTotals

    @property
    def padding(self) -> float:
        """Share of the micro-batches shown that is padding."""
        cells = sum(rows * width for rows, width in self.shapes)
        return 1 - sum(len(row.tokens) for row in self.rows) / cells if cells else 0.0
