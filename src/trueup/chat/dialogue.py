"""A conversation with one model, or with two at once: what was said, what was preferred, and both as rows of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError

SIDES = ("A", "B")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. `ended`: by its end token or a stop text, cut at the limit of tokens, or by Ctrl-C."""

    text: str
    tokens: int = 0
    seconds: float = 0.0
    ended: Literal["end", "stop", "cut", "interrupted"] = "end"

    @property
    def whole(self) -> bool:
        """Whether the model ended it itself, or a stop text did."""
        return self.ended in ("end", "stop")


@dataclass(slots=True)
class Exchange:
    """A message and its answers, one a model. `attempt` counts how often it was answered before."""

    asked: str
    answers: tuple[Answer, ...]
    attempt: int = 0
    chosen: int | None = None
    ranking: Row | None = None


@dataclass(slots=True)
class Dialogue:
    """Exchanges under one system prompt. With two models each goes on with its own answers, until one is chosen.

    From a choice on both go on with the chosen model's conversation, all of it.
    """

    names: Sequence[str]
    system: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    def history(self, side: int = 0) -> list[Message]:
        """The conversation as model `side` goes on with it."""
        turns: list[Message] = []
        for one in reversed(self.exchanges):
            side = side if one.chosen is None else one.chosen
            turns += [Message("assistant", one.answers[side].text), Message("user", one.asked)]
        return [*self.opening(), *reversed(turns)]

    def opening(self) -> list[Message]:
        """The system prompt, if there is one."""
        return [Message("system", self.system)] if self.system else []

    def last(self) -> Exchange:
        """The last exchange.

        Raises:
            ConfigError: nothing was said yet.
        """
        if not self.exchanges:
            raise ConfigError("nothing was said yet in this conversation")
        return self.exchanges[-1]

    def choose(self, side: int) -> str:
        """Prefer one model's last answer. -> what that means, in words."""
        last = self.last()
        last.chosen, last.ranking = side, None
        on = f"{SIDES[side]} preferred; both go on with its conversation"
        if problem := self._unranked(last):
            return f"{on}. No ranking: {problem}"
        last.ranking = self._ranking(side)
        note = (
            "" if last.answers[side].whole else f". Its answer was {_how(last.answers[side])}: /again asks for others"
        )
        return f"{on}{note}"

    def _unranked(self, last: Exchange) -> str:
        """Why the last exchange makes no ranking; "" where it does."""
        texts = [one.text.strip() for one in last.answers]
        if texts[0] == texts[1]:
            return "the answers are the same"
        if not all(texts):
            return f"{SIDES[texts.index('')]} said nothing"
        before = Dialogue(self.names, self.system, self.exchanges[:-1])
        if before.history(0) != before.history(1):
            return "the two conversations had parted before; choose after every answer"
        return ""

    def _ranking(self, side: int) -> Row:
        *prompt, chosen = self.history(side)
        rejected = Message("assistant", self.exchanges[-1].answers[1 - side].text)
        return {
            "prompt": _plain(prompt),
            "chosen": _plain([chosen]),
            "rejected": _plain([rejected]),
            "model_chosen": self.names[side],
            "model_rejected": self.names[1 - side],
        }

    def rankings(self) -> list[Row]:
        """A row for each choice."""
        return [one.ranking for one in self.exchanges if one.ranking is not None]

    def row(self) -> Row:
        """The whole conversation as one row for SFT.

        Raises:
            ConfigError: nothing was said yet, or an answer is empty.
        """
        self.last()
        for number, one in enumerate(self.exchanges, 1):
            if not one.answers[0].text.strip():
                raise ConfigError(
                    f"answer {number} is empty, and nothing can be learnt from it\n"
                    "  fix: /undo takes the last exchange back, /again asks for another answer"
                )
        return {"messages": _plain(self.history())}

    def unfinished(self) -> int:
        """How many of the answers in `row` were cut or interrupted."""
        return sum(not one.answers[0].whole for one in self.exchanges)

    def lines(self, speakers: Sequence[str]) -> list[tuple[str, str]]:
        """(who, what) of all that was said, in order."""
        said = [("system", self.system)] if self.system else []
        for one in self.exchanges:
            said.append(("you", one.asked))
            for side, answer in enumerate(one.answers):
                marks = ["preferred"] * (one.chosen == side) + [_how(answer)] * (not answer.whole)
                mark = f" ({', '.join(marks)})" if marks else ""
                said.append((f"{speakers[side]}{mark}", answer.text))
        return said


def _how(answer: Answer) -> str:
    return f"cut at {answer.tokens} tokens" if answer.ended == "cut" else "interrupted"


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": one.role, "content": one.content} for one in messages]
