"""Prompts for PPO and sampling, as messages and as token ids, read from disk when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from trueup.data.rendering.messages import Message
from trueup.data.tokens.select import Examples


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, both as messages (for the reward) and as token ids (for the policy to continue)."""

    messages: tuple[Message, ...]
    ids: list[int]


class Prompts(Sequence[PromptRow]):
    """A sequence of prompts that stay on disk until they are indexed."""

    def __init__(self, rows: Examples) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self._rows)

    def origin(self, index: int) -> object:
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
        return PromptRow(self._rows.prompt(i), self._rows[i].trunk)
