"""Prompts for PPO and sampling, as messages and as token ids, read from disk when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from trueup.data.rendering.messages import Message, Origin
from trueup.data.tokens.select import Examples


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, both as messages (for the reward) and as token ids (for the policy to continue).

    `columns` has the other fields of its row that a reward takes, by name.
    """

    messages: tuple[Message, ...]
    ids: list[int]
    columns: Mapping[str, object] = field(default_factory=dict)


class Prompts(Sequence[PromptRow]):
    """A sequence of prompts that stay on disk until they are indexed; `columns` has fields of their rows by place."""

    def __init__(self, rows: Examples, columns: Mapping[str, Mapping[str, object]] | None = None) -> None:
        self._rows, self._columns = rows, columns or {}

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self._rows)

    def origin(self, index: int) -> Origin:
        """Return the file and line of the prompt at `index`."""
        return self._rows.origin(index)

    @overload
    def __getitem__(self, index: int) -> PromptRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptRow]: ...
    def __getitem__(self, index: int | slice) -> PromptRow | list[PromptRow]:
        """Return the prompt at an index, or the list of prompts for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        columns = self._columns.get(str(self._rows.origin(i)), {}) if self._columns else {}
        return PromptRow(self._rows.prompt(i), self._rows[i].trunk, columns)
