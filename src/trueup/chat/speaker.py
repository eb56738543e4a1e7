"""A model that answers: a conversation in, an answer out, shown as it is sampled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trueup.chat.dialogue import Answer
from trueup.chat.streaming import Stream, cut
from trueup.data.rendering.messages import Message
from trueup.errors import ConfigError, ModelError
from trueup.models.loading import load_causal_lm, load_tokenizer, read_config
from trueup.models.network import Network
from trueup.sampling import Sample, sample
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from trueup.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn: `temperature` 0 is greedy, `stops` are texts that end it."""

    temperature: float = 0.7
    max_new_tokens: int = 256
    stops: tuple[str, ...] = ()


def a_temperature(value: str | float) -> float:
    """`value` as a temperature. Raises ConfigError."""
    with suppress(ValueError):
        if math.isfinite(number := float(value)) and number >= 0:
            return number
    raise ConfigError(
        f"temperature: {excerpt(value)} is no number from 0 up\n  fix: 0.7, or 0 for the likeliest answer"
    )


def a_whole_number(name: str, value: str | int, least: int) -> int:
    """`value` as a whole number of at least `least`. Raises ConfigError, which names `name`."""
    with suppress(ValueError):
        if (number := int(value)) >= least:
            return number
    raise ConfigError(f"{name}: {excerpt(value)} is no whole number from {least} up\n  fix: such as {least + 255}")


def a_stop_text(text: str) -> str:
    r"""`text` with `\n` and `\t` written out as the characters they mean. Raises ConfigError when it is empty."""
    if not text:
        raise ConfigError("stop: the text is empty\n  fix: leave it out, or name the text that ends an answer")
    return text.replace(r"\n", "\n").replace(r"\t", "\t")


class Stopped(Exception):  # noqa: N818 -- raised to leave the sampling, not an error
    """A stop text is complete."""


class Speaker:
    """A loaded model under a name.

    Args:
        model: a hub id, a folder or a .gguf file.
        runtime: device and compute dtype.

    Raises:
        ModelError: it cannot be loaded, or is a reward model.
    """

    def __init__(self, model: str, runtime: Runtime) -> None:
        """Load it."""
        self.name = spoken_name(model)
        if Path(model).is_dir():
            self._refuse_reward(read_config(Path(model)).get("architectures"))  # before the weights are read
        trunk = load_causal_lm(model, runtime)
        self._refuse_reward(trunk.config.architectures)  # of the hub nothing was known before
        self.network = Network(trunk, load_tokenizer(model), runtime)
        self.network.add_frozen("policy")
        self._context = cast("int | None", getattr(trunk.config.get_text_config(), "max_position_embeddings", None))

    def _refuse_reward(self, architectures: Sequence[str] | None) -> None:
        if any("SequenceClassification" in one for one in architectures or ()):
            raise ModelError(
                f"{self.name}: is a reward model; it scores answers and writes none\n"
                "  fix: name the run of its SFT, DPO or PPO stage, or the base model"
            )

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as tokens, ready to be answered.

        Raises:
            ConfigError: it fills the model's context.
            ModelError: the model's template refuses it.
        """
        ids = self.network.renderer.prompt(messages)
        if self._context is not None and len(ids) >= self._context:
            raise ConfigError(
                f"the conversation has {len(ids)} tokens with this message, and {self.name} reads "
                f"{self._context} at most, its answer included; the message was not sent\n"
                "  fix: say it shorter; /undo takes the last exchange back, /new begins another conversation"
            )
        return ids

    def room(self, prompt: Sequence[int], sampling: Sampling) -> int:
        """How many tokens an answer may have: as asked, or as the context still allows."""
        left = sampling.max_new_tokens if self._context is None else self._context - len(prompt)
        return min(sampling.max_new_tokens, left)

    def answer(
        self,
        prompt: list[int],
        sampling: Sampling,
        *,
        seed: int,
        show: Callable[[str], object] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Sample an answer.

        Args:
            prompt: from `prompt`.
            sampling: how.
            seed: of this answer.
            show: gets the pieces of the text as it grows, cleaned.
            check: called before every token; a KeyboardInterrupt from it, or from anywhere, ends the answer.
        """
        stops, stream = self.network.renderer.stop_ids, self._stream(sampling, show)

        def on_token(token: int) -> None:
            if token not in stops and not stream.add(token):
                raise Stopped

        started = time.perf_counter()
        options: dict[str, Any] = {"temperature": sampling.temperature, "seed": seed, "on_token": on_token}
        with self._checked(check):
            try:
                [got] = sample(self.network, [prompt], max_new_tokens=self.room(prompt, sampling), **options)
                ended = "end" if got.finished else "cut"
            except Stopped:
                ended = "stop"
            except KeyboardInterrupt:
                ended = "interrupted"
        return Answer(stream.end(), len(stream.ids), time.perf_counter() - started, ended)

    def answers(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        max_tokens: int = 16_384,
        check: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """Sample answers together: each is what `answer` gives for its prompt and seed, up to the rounding of logits.

        Args:
            prompts: from `prompt`; copies of one share its prefill.
            sampling: how.
            seeds: one for each prompt.
            max_tokens: rows x (longest prompt + answer) that run together at most.
            check: called before every token; it may use this speaker itself.

        Returns:
            In the order of `prompts`; `seconds` are those of all that ran together.
        """
        rooms: dict[int, list[int]] = {}
        for at, prompt in enumerate(prompts):
            rooms.setdefault(self.room(prompt, sampling), []).append(at)
        made: dict[int, Answer] = {}
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": max_tokens}
        with self._checked(check):
            for room, places in rooms.items():
                started, asked, own = time.perf_counter(), [prompts[at] for at in places], [seeds[at] for at in places]
                got = sample(self.network, asked, max_new_tokens=room, seed=own, **options)
                seconds = time.perf_counter() - started
                made |= {at: self._read(one, sampling, seconds) for at, one in zip(places, got, strict=True)}
        return [made[at] for at in range(len(prompts))]

    def _read(self, got: Sample, sampling: Sampling, seconds: float) -> Answer:
        """The answer that sampled tokens are; those behind a stop text count as never sampled."""
        ids = got.ids[:-1] if got.finished else got.ids
        stream = self._stream(sampling)
        text, stopped = cut(self.network.renderer.decode(ids), stream.stops)
        if not stopped:
            return Answer(text, len(ids), seconds, "end" if got.finished else "cut")
        any(not stream.add(token) for token in ids)  # up to the one that completes it
        return Answer(stream.end(), len(stream.ids), seconds, "stop")

    def _stream(self, sampling: Sampling, show: Callable[[str], object] = lambda _: None) -> Stream:
        renderer = self.network.renderer
        return Stream(renderer.decode, {*renderer.stop_texts, *sampling.stops}, show)

    @contextmanager
    def _checked(self, check: Callable[[], None]) -> Iterator[None]:
        """Inside, `check` is called before every token; afterwards what was called before."""
        before, self.network.check_stop = self.network.check_stop, check
        try:
            yield
        finally:
            self.network.check_stop = before


def spoken_name(model: str) -> str:
    """What a model is called: its path, or its run's folder."""
    path = Path(model)
    return str(path.parent) if path.name == "model" and (path / "config.json").is_file() else model
