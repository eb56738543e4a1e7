"""A model that answers: a conversation in, an answer out, shown as it is sampled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trueup.chat import Message, excerpt
from trueup.errors import ConfigError, ModelError
from trueup.loading import load_causal_lm, load_tokenizer, read_config
from trueup.models import Network
from trueup.sampling import sample
from trueup.talk.dialogue import Answer
from trueup.talk.streaming import Stream

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
        renderer = self.network.renderer
        stream = Stream(renderer.decode, {*renderer.stop_texts, *sampling.stops}, show)

        def on_token(token: int) -> None:
            if token not in renderer.stop_ids and not stream.add(token):
                raise Stopped

        self.network.check = check
        started = time.perf_counter()
        options: dict[str, Any] = {"temperature": sampling.temperature, "seed": seed, "on_token": on_token}
        try:
            [got] = sample(self.network, [prompt], max_new_tokens=self.room(prompt, sampling), **options)
            ended = "end" if got.finished else "cut"
        except Stopped:
            ended = "stop"
        except KeyboardInterrupt:
            ended = "interrupted"
        return Answer(stream.end(), len(stream.ids), time.perf_counter() - started, ended)


def spoken_name(model: str) -> str:
    """What a model is called: its path, or its run's folder."""
    path = Path(model)
    return str(path.parent) if path.name == "model" and (path / "config.json").is_file() else model
