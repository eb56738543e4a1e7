"""Write pairs of answers: choose models, order and seeds, then sample in batches, or alone while a rater watches.

An answer depends on the seed, the prompt's messages, how many pairs the prompt had, and which of the models writes it:
not on the rows of its batch, nor on whether somebody watched. (Up to the rounding of the logits, which differs with the
other rows: where the random number lies that close to the border between two tokens, the other one can come.)
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from trueup.chat.dialogue import ChatAnswer
from trueup.chat.speaker import AnswerSampling, Speaker
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, NewPair, NewPrompt, Side, StoredPrompt
from trueup.errors import ConfigError, DataError, ModelError
from trueup.runtime import mixed_seed
from trueup.system.text import clean

if TYPE_CHECKING:
    from trueup.config.ranking import RankConfig
    from trueup.ranking.writing.line import ServerLine
    from trueup.runtime import Runtime

SIDES: tuple[Side, Side] = ("first", "second")
_DRAWS = 4  # times that both answers are sampled before a prompt with equal answers is left out
_BEGIN = 2  # pairs in the first batch; each next one has twice as many: the first rater soon has a pair to rank


@dataclass(frozen=True, slots=True)
class Draft:
    """Plan of a pair that is yet to be written: the prompt, and the models that answer it.

    Attributes:
        prompt: the prompt to answer.
        number: how many pairs the prompt had before.
        models: index of the model that writes the first answer, and of the one that writes the second.
        attempt: how often both answers were sampled before and were the same.
    """

    prompt: StoredPrompt
    number: int
    models: tuple[int, int]
    attempt: int = 0

    def seeds(self, seed: int) -> tuple[int, int]:
        """Return the sampling seeds of the first and the second answer; `seed` is the configuration's."""
        writers = self.models if self.models[0] != self.models[1] else (0, 1)
        first, second = (
            mixed_seed(seed, _content(self.prompt), self.number, self.attempt, writer) for writer in writers
        )
        return first, second


def draft_pair(prompt: StoredPrompt, number: int, models: int, seed: int, salt: str = "") -> Draft:
    """Choose which two of `models` models write pair `number` of a prompt, and which of them is first.

    A pairing is two of the models. Prompts are taken in blocks of as many prompts as there are pairings. Within a block
    every prompt gets another pairing, in an order drawn for the block; so do the successive pairs of one prompt. Which
    model is first depends on the secret `salt` too, so no rater can work it out.
    """
    if models == 1:
        return Draft(prompt, number, (0, 0))
    pairings = list(combinations(range(models), 2))
    block, place = divmod(prompt.id, len(pairings))
    random.Random(mixed_seed(seed, block)).shuffle(pairings)
    left, right = pairings[(place + number) % len(pairings)]
    swap = random.Random(f"{salt} {mixed_seed(seed, _content(prompt), number)}").random() < 0.5
    return Draft(prompt, number, (right, left) if swap else (left, right))


def _content(prompt: StoredPrompt) -> int:
    text = json.dumps([[message.role, message.content] for message in prompt.messages])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


class Pairing:
    """Writer of pairs of answers into a store.

    Args:
        store: holds the prompts, and receives the pairs.
        speakers: the models.
        config: how many pairs to write, and how answers are sampled.
        server: receives progress, and signals that a rater waits.
    """

    def __init__(self, store: Store, speakers: Sequence[Speaker], config: RankConfig, server: ServerLine) -> None:
        """Keep store, models and configuration; nothing is written before `write`."""
        self._store, self._speakers, self._config, self._server = store, speakers, config, server
        self._seed = config.seed or 0
        self._names = tuple(speaker.name for speaker in speakers)
        self._sampling = AnswerSampling(config.temperature, config.max_new_tokens)
        self._left_out: set[int] = set()
        self._in_batch: set[int] = set()  # prompts of the batch that is being written
        self._batch_size = min(_BEGIN, config.batch)
        self._full = False
        self._next_interruption = 0.0  # when a batch may be interrupted next, on the monotonic clock
        self.idle_state: Literal["ahead", "done"] = "done"

    @classmethod
    def load(cls, store: Store, config: RankConfig, runtime: Runtime, server: ServerLine) -> Pairing:
        """Return a `Pairing` with the models of `config`, folders from `find_model`.

        Raises ModelError if one cannot be loaded.
        """
        return cls(store, [Speaker(folder, runtime) for folder in config.model], config, server)

    def write(self) -> bool:
        """Write a batch of pairs, or a single one for a rater who waits. Returns False if there is nothing to write."""
        if not self._speakers:
            return False
        if self._is_awaited() and self._write_watched():
            return True
        missing = self._missing()
        drafts = self._next_drafts(min(missing, self._batch_size)) if missing else []
        self.idle_state = "done" if missing and not drafts else "ahead"
        if drafts:
            self._server.send_state("writing")
            self._write_batch(drafts)
            self._batch_size = min(2 * self._batch_size, self._config.batch)
        return bool(drafts)

    # -- which pairs come next ----------------------------------------------------------------------------------------

    def _missing(self) -> int:
        """Return how many pairs to write now so that `config.ahead` pairs wait for raters.

        Once that many wait, it is 0 until about a batch of them has been used up.
        """
        missing = self._config.ahead - self._store.fresh()
        least = max(1, min(self._config.batch, self._config.ahead // 2)) if self._full else 1
        self._full = missing < least
        return 0 if self._full else missing

    def _next_drafts(self, count: int) -> list[Draft]:
        """Return plans for up to `count` pairs: every prompt's first pair comes before any prompt's second one."""
        skipped = self._left_out | self._in_batch
        for number in range(self._config.pairs_per_prompt):
            # Prompts with fewer pairs came in an earlier round, so these have exactly `number`.
            candidates = self._store.unpaired(number + 1, count + len(skipped))
            if prompts := [prompt for prompt in candidates if prompt.id not in skipped][:count]:
                salt = self._store.salt
                return [draft_pair(prompt, number, len(self._speakers), self._seed, salt) for prompt in prompts]
        return []

    def _is_awaited(self) -> bool:
        """Return True if a rater waits and the store has no pair that nobody has looked at yet."""
        if self._server.rater_waits:
            if not self._store.fresh():
                return True
            self._server.forget_rater()
        return False

    # -- a batch ------------------------------------------------------------------------------------------------------

    def _write_batch(self, drafts: list[Draft]) -> None:
        self._in_batch = {draft.prompt.id for draft in drafts}
        self._next_interruption = 0.0
        try:
            while drafts:
                encoded = [(draft, prompts) for draft in drafts if (prompts := self._encode(draft))]
                answers = self._sample(encoded)
                retries = (self._store_pair(draft, both) for (draft, _), both in zip(encoded, answers, strict=True))
                drafts = [draft for draft in retries if draft]
        finally:
            self._in_batch = set()

    def _sample(self, encoded: Sequence[tuple[Draft, list[list[int]]]]) -> list[list[ChatAnswer]]:
        """Return [first answer, second answer] for each planned pair.

        In `encoded` each plan comes with its prompt's token ids for the model of either answer.
        """
        answers: list[dict[int, ChatAnswer]] = [{} for _ in encoded]
        options: dict[str, Any] = {"max_tokens": self._config.max_tokens, "check": self._interrupt_for_rater}
        for model, speaker in enumerate(self._speakers):
            places = [
                (index, side)
                for index, (draft, _) in enumerate(encoded)
                for side in (0, 1)
                if draft.models[side] == model
            ]
            if places:
                prompts = [encoded[index][1][side] for index, side in places]
                seeds = [encoded[index][0].seeds(self._seed)[side] for index, side in places]
                sampled = speaker.answers(prompts, self._sampling, seeds=seeds, **options)
                for (index, side), answer in zip(places, sampled, strict=True):
                    answers[index][side] = answer
        return [[both[0], both[1]] for both in answers]

    def _interrupt_for_rater(self) -> None:
        """Interrupt a batch to write a pair for a rater who waits.

        Called between two tokens of the batch; such interruptions take half of the time at most.
        """
        if self._server.rater_waits and time.monotonic() >= self._next_interruption and self._is_awaited():
            began = time.monotonic()
            self._write_watched()
            now = time.monotonic()
            self._next_interruption = now + (now - began)

    # -- a single pair, watched ---------------------------------------------------------------------------------------

    def _write_watched(self) -> bool:
        """Write a single pair, whose answers a waiting rater sees grow.

        Returns False if there is no prompt that needs another pair.
        """
        self._server.forget_rater()
        draft = next(iter(self._next_drafts(1)), None)
        if draft is None:
            return False
        if (prompts := self._encode(draft)) is None:
            return True
        self._server.send_state("writing")
        self._in_batch.add(draft.prompt.id)
        attempt: Draft | None = draft
        while attempt:
            self._server.send(begin=asdict(draft.prompt))
            both = [self._stream_answer(attempt, side, prompts[side]) for side in (0, 1)]
            attempt = self._store_pair(attempt, both)
        self._in_batch.discard(draft.prompt.id)
        self._server.send(end=draft.prompt.id not in self._left_out)
        return True

    def _stream_answer(self, draft: Draft, side: int, prompt: list[int]) -> ChatAnswer:
        def show(piece: str) -> None:
            self._server.send(side=SIDES[side], piece=piece)

        speaker, seed = self._speakers[draft.models[side]], draft.seeds(self._seed)[side]
        answer = speaker.answer(prompt, self._sampling, seed=seed, show=show)
        self._server.send(side=SIDES[side], whole=clean(answer.text))
        return answer

    # -- into the store -----------------------------------------------------------------------------------------------

    def _encode(self, draft: Draft) -> list[list[int]] | None:
        """Return the prompt's token ids for the models of the first and the second answer.

        None if one of the models cannot read it, as when it is too long: the prompt is then left out.
        """
        encoded = []
        for model in draft.models:
            try:
                encoded.append(self._speakers[model].prompt(draft.prompt.messages))
            except ConfigError:
                return self._leave_out(draft, f"left out, too long for {self._names[model]}")
            except (ModelError, DataError):
                return self._leave_out(draft, f"left out, refused by the chat template of {self._names[model]}")
        return encoded

    def _store_pair(self, draft: Draft, both: Sequence[ChatAnswer]) -> Draft | None:
        """Put the two answers of a planned pair into the store.

        Returns the plan with which to sample again if both answers are the same, else None.
        """
        if both[0].text.strip() == both[1].text.strip():
            if draft.attempt + 1 < _DRAWS and self._config.temperature:
                return replace(draft, attempt=draft.attempt + 1)
            return self._leave_out(draft, "left out, as both answers were the same")
        prompt = NewPrompt(draft.prompt.messages, draft.prompt.tags, draft.prompt.origin)
        first, second = (self._answer(draft, side, both[side]) for side in (0, 1))
        if not self._store.add_pairs([NewPair(prompt, first, second)]).new:
            self._leave_out(draft, "left out, as the answers were those of an earlier pair")
        return None

    def _answer(self, draft: Draft, side: int, answer: ChatAnswer) -> Answer:
        """Return an answer as the store keeps it, with the settings and seed from which it can be sampled again."""
        model = draft.models[side]
        sampling = {
            **self._origin[model],
            "seed": draft.seeds(self._seed)[side],
            "tokens": answer.tokens,
            "ended": answer.ended,
        }
        return Answer(answer.text, self._names[model], sampling)

    @cached_property
    def _origin(self) -> list[dict[str, Any]]:
        """For each model the settings that all its answers share: sampling, device, dtype, weights, trueup version."""
        sampling = {"temperature": self._config.temperature, "max_new_tokens": self._config.max_new_tokens}
        return [
            {
                **sampling,
                "device": speaker.network.runtime.device.type,
                "dtype": str(speaker.network.runtime.dtype).removeprefix("torch."),
                "weights": speaker.network.base_fingerprint,
                "trueup": version("trueup"),
            }
            for speaker in self._speakers
        ]

    def _leave_out(self, draft: Draft, why: str) -> None:
        self._left_out.add(draft.prompt.id)
        self._server.send(left_out=draft.prompt.id, what="prompt", why=why, origin=draft.prompt.origin)
