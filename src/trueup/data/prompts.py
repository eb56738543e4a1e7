"""Prompts for PPO and sampling, as messages and as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from trueup.data.rendering.messages import Message
from trueup.data.tokens.select import Examples


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt as messages (for the reward) and as token ids (for the policy)."""

    messages: tuple[Message, ...]
    ids: list[int]


class Prompts(Sequence[PromptRow]):
    """Prompts that stay on disk until they are asked for."""

    def __init__(self, rows: Examples) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """How many there are."""
        return len(self._rows)

    def origin(self, at: int) -> object:
        """Where a prompt came from."""
        return self._rows.origin(at)

    @overload
    def __getitem__(self, index: int) -> PromptRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptRow]: ...
    def __getitem__(self, index: int | slice) -> PromptRow | list[PromptRow]:
        """One prompt, or a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        return PromptRow(self._rows.prompt(at), self._rows[at].trunk)
