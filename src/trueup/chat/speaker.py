"""A loaded model that answers in a chat: it takes a conversation and returns an answer, shown as it is sampled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trueup.chat.dialogue import ChatAnswer
from trueup.chat.streaming import AnswerStream, cut
from trueup.config.untrusted import NO_TRUST, Trust
from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError
from trueup.models.loading import check_vocabulary, load_causal_lm, load_tokenizer
from trueup.models.network import Network
from trueup.sampling import Sample, sample
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from trueup.runtime import Runtime


@dataclass(frozen=True, slots=True)
class AnswerSampling:
    """Settings for sampling an answer: temperature (0 is greedy), largest length in tokens, texts that end it."""

    temperature: float = 0.7
    max_new_tokens: int = 256
    stops: tuple[str, ...] = ()


def parse_temperature(value: str | float) -> float:
    """Return `value` as a temperature. Raises ConfigError if it is no number or out of range."""
    with suppress(ValueError):
        if math.isfinite(number := float(value)) and number >= 0:
            return number
    raise ConfigError(
        f"temperature: {excerpt(value)} is not a number of 0 or more\n  fix: 0.7, or 0 for the likeliest answer"
    )


def parse_whole_number(name: str, value: str | int, least: int) -> int:
    """Return `value` as a whole number of at least `least`. Raises ConfigError, which names the setting `name`."""
    with suppress(ValueError):
        if (number := int(value)) >= least:
            return number
    raise ConfigError(
        f"{name}: {excerpt(value)} is not a whole number of {least} or more\n  fix: such as {least + 255}"
    )


def parse_stop_text(text: str) -> str:
    r"""Return `text` with `\n` and `\t` turned into the characters they mean. Raises ConfigError when it is empty."""
    if not text:
        raise ConfigError("stop: the text is empty\n  fix: leave it out, or name the text that ends an answer")
    return text.replace(r"\n", "\n").replace(r"\t", "\t")


class Stopped(Exception):  # noqa: N818 -- raised to leave the sampling, not an error
    """Raised inside sampling to end it when a stop text is complete; it never leaves this module."""


class Speaker:
    """A loaded model that answers conversations, with a name to show.

    Args:
        model: a hub id, a folder or a .gguf file.
        runtime: device and compute dtype.
        chat_template: another chat template than the model's: a file, or a name of trueup's.
        template: variables for the chat template.
        trust: the permissions for pickled and ignored weights.

    Raises:
        ConfigError: the chat template cannot be read, or reads no such variable.
        ModelError: the model cannot be loaded, or is a reward model.
    """

    def __init__(
        self, model: str, runtime: Runtime, *, chat_template: str | None = None,
        template: Mapping[str, Any] | None = None, trust: Trust = NO_TRUST,
    ) -> None:  # fmt: skip
        """Load the model and its tokenizer."""
        self.name = spoken_name(model)
        trunk = load_causal_lm(model, runtime, trust=trust)
        tokenizer = load_tokenizer(model, chat_template=chat_template, template=template)
        check_vocabulary(trunk, tokenizer, model)
        self.network = Network(trunk, tokenizer, runtime)
        self.network.add_frozen("policy")
        self._context = cast("int | None", getattr(trunk.config.get_text_config(), "max_position_embeddings", None))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the conversation as token ids that end where the model's answer begins.

        Raises:
            ConfigError: the conversation fills the model's context.
            ModelError: the model's template refuses the conversation.
        """
        ids = self.network.renderer.prompt(messages)
        if self._context is not None and len(ids) >= self._context:
            raise ConfigError(
                f"the conversation has {len(ids)} tokens with this message, and {self.name} reads "
                f"{self._context} at most, its answer included; the message was not sent\n"
                "  fix: shorten it; /undo takes the last exchange back, /new begins another conversation"
            )
        return ids

    def room(self, prompt: Sequence[int], sampling: AnswerSampling) -> int:
        """Return the largest length of an answer in tokens: the setting, or what is left of the model's context."""
        left = sampling.max_new_tokens if self._context is None else self._context - len(prompt)
        return min(sampling.max_new_tokens, left)

    def answer(
        self,
        prompt: list[int],
        sampling: AnswerSampling,
        *,
        seed: int,
        show: Callable[[str], object] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> ChatAnswer:
        """Sample an answer to a conversation and show it while it grows.

        Args:
            prompt: token ids from the method `prompt`.
            sampling: the settings.
            seed: the seed of this answer.
            show: called with each new piece of the text, cleaned of control characters.
            check: called before every token; a KeyboardInterrupt from it, or from anywhere, ends the answer.
        """
        stops, stream = self.network.stop_ids, self._stream(prompt, sampling, show)

        def on_token(token: int) -> None:
            if token not in stops and not stream.add(token):
                raise Stopped

        started = time.perf_counter()
        options: dict[str, Any] = {"temperature": sampling.temperature, "seed": seed, "on_token": on_token}
        with self._checked(check):
            try:
                [sampled] = sample(self.network, [prompt], max_new_tokens=self.room(prompt, sampling), **options)
                ended = "end" if sampled.finished else "cut"
            except Stopped:
                ended = "stop"
            except KeyboardInterrupt:
                ended = "interrupted"
        return ChatAnswer(stream.end(), len(stream.ids), time.perf_counter() - started, ended)

    def answers(
        self,
        prompts: Sequence[list[int]],
        sampling: AnswerSampling,
        *,
        seeds: Sequence[int],
        max_tokens: int = 16_384,
        check: Callable[[], None] = lambda: None,
    ) -> list[ChatAnswer]:
        """Sample one answer to each of several prompts, in batches.

        Each is the answer that `answer` gives for its prompt and seed, up to the rounding of logits.

        Args:
            prompts: token ids from the method `prompt`; equal prompts are read by the model once.
            sampling: the settings.
            seeds: one for each prompt.
            max_tokens: limit of a batch: number of rows x (longest prompt + answer), in tokens.
            check: called before every token; it may use this speaker itself.

        Returns:
            Answers in the order of `prompts`; `seconds` is the time of the whole batch.
        """
        rooms: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            rooms.setdefault(self.room(prompt, sampling), []).append(index)
        done: dict[int, ChatAnswer] = {}
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": max_tokens}
        with self._checked(check):
            for room, indices in rooms.items():
                started, batch_prompts, batch_seeds = (
                    time.perf_counter(),
                    [prompts[index] for index in indices],
                    [seeds[index] for index in indices],
                )
                batch = sample(self.network, batch_prompts, max_new_tokens=room, seed=batch_seeds, **options)
                seconds = time.perf_counter() - started
                done |= {
                    index: self._read(prompts[index], sampled, sampling, seconds)
                    for index, sampled in zip(indices, batch, strict=True)
                }
        return [done[index] for index in range(len(prompts))]

    def _read(self, prompt: Sequence[int], sampled: Sample, sampling: AnswerSampling, seconds: float) -> ChatAnswer:
        """Turn sampled token ids into an answer, cut before the first stop text; later tokens are not counted."""
        ids = sampled.ids[:-1] if sampled.finished else sampled.ids
        stream = self._stream(prompt, sampling)
        text, stopped = cut(stream.decode(ids), stream.stops)
        if not stopped:
            return ChatAnswer(text, len(ids), seconds, "end" if sampled.finished else "cut")
        any(not stream.add(token) for token in ids)  # up to the token that completes the stop text
        return ChatAnswer(stream.end(), len(stream.ids), seconds, "stop")

    def _stream(
        self, prompt: Sequence[int], sampling: AnswerSampling, show: Callable[[str], object] = lambda _: None
    ) -> AnswerStream:
        renderer = self.network.renderer
        decode = partial(renderer.growing, opened=renderer.opens_thought(prompt))
        return AnswerStream(decode, {*renderer.stop_texts, *sampling.stops}, show)

    @contextmanager
    def _checked(self, check: Callable[[], None]) -> Iterator[None]:
        """Return a context in which `check` is called before every sampled token; after it, the former function is."""
        before, self.network.check_stop = self.network.check_stop, check
        try:
            yield
        finally:
            self.network.check_stop = before


def spoken_name(model: str) -> str:
    """Return a model's name for display: its path or hub id, or for the `model` folder of a run the run's folder."""
    path = Path(model)
    return str(path.parent) if path.name == "model" and (path / "config.json").is_file() else model
