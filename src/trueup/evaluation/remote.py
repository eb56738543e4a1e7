"""Measure a model behind an OpenAI-compatible endpoint, `http://host/v1#name`: the tasks that need only its texts.

What needs log-probabilities of given texts (multiple choice, forgetting, KL, preferences) is not measured, with the
reason: chat completions give none. Replies are kept in a file as they arrive, so that a stopped evaluation asks only
for the rest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.config.paths import split_address
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ConfigError, DataError, TrueupError
from trueup.evaluation.endpoint import Chat, Endpoint, Reply
from trueup.evaluation.grading import repetition
from trueup.evaluation.items import Item
from trueup.evaluation.policy import require_finite
from trueup.evaluation.rows import Asked
from trueup.evaluation.tasks import asked_item
from trueup.models.rewards import Reward
from trueup.runtime import Runtime
from trueup.system.files import atomic_write_text
from trueup.system.text import terminal_safe_json

NO_LOGPS = "an endpoint gives no log-probabilities of given texts"


def key_variable(place: int) -> str:
    """Return the environment variable that holds a model's API key: TRUEUP_KEY_A of the first on the command line.

    Each model has its own, because a key for one host must not go to another.
    """
    return f"TRUEUP_KEY_{chr(ord('A') + place)}"


def opened(source: str, place: int) -> Endpoint:
    """Return the endpoint of `http://host/v1#name`.

    Args:
        source: the address, with the model's name at the endpoint.
        place: the model's place on the command line, from 0, which says where its API key is read.
    """
    url, name = split_address(source)
    return Endpoint(url, name, key_variable(place), role="model")


def named(source: str, place: int) -> str:
    """Return the address with the model's name, after asking the endpoint for a first token.

    Where the address has no name, it is that of the only model that the endpoint lists.

    Raises:
        ConfigError: it lists none, or several.
        TrueupError: the endpoint cannot be reached, refuses the key, or has no such model.
    """
    endpoint = opened(source, place)
    endpoint.retries = 1
    if not endpoint.model:
        names = endpoint.models()
        if len(names) != 1:
            listed = f"serves {', '.join(names[:8])}" if names else "lists no models"
            raise ConfigError(f"{source}: {listed}\n  fix: write the model's name behind #, such as {source}#NAME")
        endpoint.model, source = names[0], f"{source.rstrip('#')}#{names[0]}"
    replies = endpoint.write_all(
        [[{"role": "user", "content": "Hello"}]], {"max_tokens": 1}, lambda _index, _reply: None
    )
    if replies[0] is None:
        fix = "is it an OpenAI-compatible address that ends with its version, as in http://HOST/v1#NAME?"
        raise TrueupError(f"{source}: the reply to /chat/completions holds no message\n  fix: {fix}")
    return source


@dataclass(slots=True)
class RemoteSubject:
    """A model behind an endpoint, and the settings for measuring it.

    Attributes:
        endpoint: the address and the model's name.
        max_new_tokens: the longest answer in tokens.
        temperature: the sampling temperature of free answers.
        seed: the seed of free answers; servers need not honour it.
        kept: the file in which replies are kept, by what was asked.
        count: returns the length of an answer.
        runtime: of several processes the first asks.
    """

    endpoint: Endpoint
    max_new_tokens: int
    temperature: float
    seed: int
    kept: Path
    count: Callable[[str], float]
    runtime: Runtime
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def greedy(self, questions: Sequence[Asked]) -> list[Conversation]:
        """Answer each prompt greedily; return each prompt and its answer as a Conversation."""
        replies = self.runtime.from_first(lambda: self._written(questions, {"temperature": 0}))
        return [_talk(row, reply) for row, reply in zip(questions, replies, strict=True)]

    def answers(self, questions: Sequence[Asked], rewards: Mapping[str, Reward | None]) -> list[Item]:
        """Sample one free answer to each prompt and measure it, as `tasks.answers` does, without entropy and KL."""
        options = {"temperature": self.temperature, "seed": self.seed}
        replies = self.runtime.from_first(lambda: self._written(questions, options))
        talks = [_talk(row, reply) for row, reply in zip(questions, replies, strict=True)]
        columns = {
            "length": [self.count(reply.text) for reply in replies],
            "repetition": [repetition(reply.text) for reply in replies],
        }
        if all(reply.finish is not None for reply in replies):
            columns["ended"] = [float(reply.finish == "stop") for reply in replies]
        for name, reward in rewards.items():
            if reward is not None:
                columns[name] = require_finite(reward(talks).tolist(), name)
        return [
            asked_item("answers", row, {name: column[index] for name, column in columns.items()}, talk.response)
            for index, (row, talk) in enumerate(zip(questions, talks, strict=True))
        ]

    def _written(self, questions: Sequence[Asked], options: Mapping[str, Any]) -> list[Reply]:
        """Return the reply to each prompt, from the file of kept replies or from the endpoint.

        Raises:
            TrueupError: a prompt found no reply; those that did are kept.
        """
        options = {**options, "max_tokens": self.max_new_tokens}
        chats = [_chat(row) for row in questions]
        keys = [_key(self.endpoint, chat, options) for chat in chats]
        known = self._read()
        waiting = [index for index, key in enumerate(keys) if key not in known]

        def keep(index: int, reply: Reply) -> None:
            row = {"key": keys[waiting[index]], "text": reply.text, "finish": reply.finish}
            with self._lock, self.kept.open("a", encoding="utf-8") as file:
                file.write(terminal_safe_json(json.dumps(row, ensure_ascii=False)) + "\n")

        if waiting:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            replies = self.endpoint.write_all([chats[index] for index in waiting], options, keep)
            if silent := sum(reply is None for reply in replies):
                why = self.endpoint.usage.failure_example or "the replies held no message"
                raise TrueupError(
                    f"{self.endpoint.model}: {silent} of {len(questions)} prompts found no reply ({why})\n"
                    "  fix: run the same command again, which asks only for these; or leave such prompts out"
                )
            known = self._read()
        return [known[key] for key in keys]

    def _read(self) -> dict[str, Reply]:
        """Return the kept replies, by key. A last line that a crash cut short is removed from the file."""
        if not self.kept.is_file():
            return {}
        whole, _, rest = self.kept.read_text(encoding="utf-8").rpartition("\n")
        if rest:
            atomic_write_text(self.kept, f"{whole}\n" if whole else "")
        kept: dict[str, Reply] = {}
        for line in whole.split("\n"):
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                kept[row["key"]] = Reply(row["text"], row["finish"])
        return kept


def _talk(question: Asked, reply: Reply) -> Conversation:
    return Conversation((*question.prompt, Message("assistant", reply.text)), columns=question.fields)


def _chat(question: Asked) -> Chat:
    """Return a prompt as an endpoint takes it.

    Raises:
        DataError: it has tools, which chat completions take in another form.
    """
    for message in question.prompt:
        if message.role not in {"system", "user", "assistant"} or message.calls:
            raise DataError(f"{question.origin or question.id}: prompts with tools cannot be sent to an endpoint")
    return [{"role": message.role, "content": message.content} for message in question.prompt]


def _key(endpoint: Endpoint, chat: Chat, options: Mapping[str, Any]) -> str:
    parts = [endpoint.url, endpoint.model, chat, dict(sorted(options.items()))]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:32]
