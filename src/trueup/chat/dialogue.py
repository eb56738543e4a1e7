"""A conversation with one model, or with two at once: messages, answers and preferences.

The conversation can be saved as a row of data for SFT, and the preferences as rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError

SIDES = ("A", "B")
ChatRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A model's answer in a chat.

    Attributes:
        text: the answer.
        tokens: its length.
        seconds: time spent sampling it.
        ended: the reason why it ended: "end" (end token), "stop" (a stop text), "cut" (at the limit of tokens), or
            "interrupted" (Ctrl-C).
    """

    text: str
    tokens: int = 0
    seconds: float = 0.0
    ended: Literal["end", "stop", "cut", "interrupted"] = "end"

    @property
    def whole(self) -> bool:
        """True if the answer is complete: ended by the end token or by a stop text."""
        return self.ended in ("end", "stop")


@dataclass(slots=True)
class Exchange:
    """A message and its answers, one per model.

    `attempt` counts how often the message was answered before (by /again), `chosen` is the number of the preferred
    model, and `ranking` is the row of data that the choice gives.
    """

    message: str
    answers: tuple[ChatAnswer, ...]
    attempt: int = 0
    chosen: int | None = None
    ranking: ChatRow | None = None


@dataclass(slots=True)
class Dialogue:
    """A conversation: exchanges of messages and answers under one system prompt.

    Each of two models continues from its own answers, until one answer is chosen; then both continue from the whole
    conversation of the chosen model.
    """

    names: Sequence[str]
    system: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    def history(self, side: int = 0) -> list[Message]:
        """Return the conversation so far as model number `side` gets it: with its own answers, or the chosen ones."""
        turns: list[Message] = []
        for exchange in reversed(self.exchanges):
            side = side if exchange.chosen is None else exchange.chosen
            turns += [Message("assistant", exchange.answers[side].text), Message("user", exchange.message)]
        return [*self.opening(), *reversed(turns)]

    def opening(self) -> list[Message]:
        """Return a list with the system prompt as a message; empty if there is none."""
        return [Message("system", self.system)] if self.system else []

    def last(self) -> Exchange:
        """Return the last message with its answers.

        Raises:
            ConfigError: the conversation is empty.
        """
        if not self.exchanges:
            raise ConfigError("this conversation is empty; write a message first")
        return self.exchanges[-1]

    def choose(self, side: int) -> str:
        """Prefer the last answer of model number `side`. Returns a message for the user about the consequence."""
        last = self.last()
        last.chosen, last.ranking = side, None
        choice = f"{SIDES[side]} preferred; both go on with its conversation"
        if problem := self._unranked(last):
            return f"{choice}. No ranking: {problem}"
        last.ranking = self._ranking(side)
        answer = last.answers[side]
        return choice if answer.whole else f"{choice}. Its answer was {_ending(answer)}: /again asks for others"

    def _unranked(self, last: Exchange) -> str:
        """Return the reason why the last answers make no ranking (e.g. they are the same); "" where they do."""
        texts = [answer.text.strip() for answer in last.answers]
        if texts[0] == texts[1]:
            return "the answers are the same"
        if not all(texts):
            return f"{SIDES[texts.index('')]}'s answer is empty"
        before = Dialogue(self.names, self.system, self.exchanges[:-1])
        if before.history(0) != before.history(1):
            return "the two conversations differ in earlier answers; choose after every answer"
        return ""

    def _ranking(self, side: int) -> ChatRow:
        *prompt, chosen = self.history(side)
        rejected = Message("assistant", self.exchanges[-1].answers[1 - side].text)
        return {
            "prompt": _plain(prompt),
            "chosen": _plain([chosen]),
            "rejected": _plain([rejected]),
            "model_chosen": self.names[side],
            "model_rejected": self.names[1 - side],
        }

    def rankings(self) -> list[ChatRow]:
        """Return the rankings made in this conversation: a row with prompt, chosen and rejected for each choice."""
        return [exchange.ranking for exchange in self.exchanges if exchange.ranking is not None]

    def row(self) -> ChatRow:
        """Return the whole conversation (of the first model) as a row of SFT data: {"messages": […]}.

        Raises:
            ConfigError: the conversation or an answer is empty.
        """
        self.last()
        for number, exchange in enumerate(self.exchanges, 1):
            if not exchange.answers[0].text.strip():
                raise ConfigError(
                    f"answer {number} is empty, so no model can learn from it\n"
                    "  fix: /undo takes the last exchange back, /again asks for another answer"
                )
        return {"messages": _plain(self.history())}

    def unfinished(self) -> int:
        """Return the number of answers in `row` that were cut at the limit of tokens or interrupted."""
        return sum(not exchange.answers[0].whole for exchange in self.exchanges)

    def lines(self, speakers: Sequence[str]) -> list[tuple[str, str]]:
        """Return (speaker, text) for all messages and answers in order, for display."""
        lines = [("system", self.system)] if self.system else []
        for exchange in self.exchanges:
            lines.append(("you", exchange.message))
            for side, answer in enumerate(exchange.answers):
                marks = ["preferred"] * (exchange.chosen == side) + [_ending(answer)] * (not answer.whole)
                mark = f" ({', '.join(marks)})" if marks else ""
                lines.append((f"{speakers[side]}{mark}", answer.text))
        return lines


def _ending(answer: ChatAnswer) -> str:
    return f"cut at {answer.tokens} tokens" if answer.ended == "cut" else "interrupted"


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
