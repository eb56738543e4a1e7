"""Pairs of answers: which models, in which order, from which random numbers; written together, or alone and watched.

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
    from trueup.ranking.writing.line import Desk
    from trueup.runtime import Runtime

SIDES: tuple[Side, Side] = ("first", "second")
_DRAWS = 4  # times that both answers are drawn before a prompt whose answers are the same is left out
_BEGIN = 2  # pairs of the first batch; each next one is of twice as many, so that the first rater has soon one to rank


@dataclass(frozen=True, slots=True)
class Draft:
    """A pair that is to be written.

    Attributes:
        prompt: of which.
        number: how many pairs it had before.
        models: which model writes the first and which the second answer.
        attempt: how often both were drawn before and came out the same.
    """

    prompt: StoredPrompt
    number: int
    models: tuple[int, int]
    attempt: int = 0

    def seeds(self, seed: int) -> tuple[int, int]:
        """Of the two answers; `seed` is the configuration's."""
        writers = self.models if self.models[0] != self.models[1] else (0, 1)
        first, second = (mixed_seed(seed, _content(self.prompt), self.number, self.attempt, one) for one in writers)
        return first, second


def drafted(prompt: StoredPrompt, number: int, models: int, seed: int, salt: str = "") -> Draft:
    """Which two of `models` models write pair `number` of a prompt, and which of them is the first.

    Of so many prompts in a row as there are pairings, each has another one, in an order drawn for those prompts; and so
    have the pairs of one prompt. Which is the first is drawn by the secret `salt` too: no rater can work it out.
    """
    if models == 1:
        return Draft(prompt, number, (0, 0))
    pairings = list(combinations(range(models), 2))
    block, place = divmod(prompt.id, len(pairings))
    random.Random(mixed_seed(seed, block)).shuffle(pairings)
    one, other = pairings[(place + number) % len(pairings)]
    swap = random.Random(f"{salt} {mixed_seed(seed, _content(prompt), number)}").random() < 0.5
    return Draft(prompt, number, (other, one) if swap else (one, other))


def _content(prompt: StoredPrompt) -> int:
    text = json.dumps([[one.role, one.content] for one in prompt.messages])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


class Pairing:
    """Fills a store with pairs.

    Args:
        store: it.
        speakers: the models.
        config: how many, and how they are sampled.
        desk: is told what is written, and says whether a rater waits.
    """

    def __init__(self, store: Store, speakers: Sequence[Speaker], config: RankConfig, desk: Desk) -> None:
        """Prepare."""
        self._store, self._speakers, self._config, self._desk = store, speakers, config, desk
        self._seed = config.seed or 0
        self._names = tuple(speaker.name for speaker in speakers)
        self._sampling = AnswerSampling(config.temperature, config.max_new_tokens)
        self._left_out: set[int] = set()
        self._together: set[int] = set()  # prompts of the batch that is being written
        self._size = min(_BEGIN, config.batch)
        self._full = False
        self._alone_from = 0.0  # when a batch may be held up next, on the monotonic clock
        self.resting: Literal["ahead", "done"] = "done"

    @classmethod
    def load(cls, store: Store, config: RankConfig, where: Runtime, desk: Desk) -> Pairing:
        """With the configuration's models, as `find_model` gives them. Raises ModelError."""
        return cls(store, [Speaker(folder, where) for folder in config.model], config, desk)

    def write(self) -> bool:
        """Write a batch of pairs, or a single one for a rater who waits. -> False where there is nothing to write."""
        if not self._speakers:
            return False
        if self._is_awaited() and self._alone():
            return True
        missing = self._missing()
        drafts = self._next(min(missing, self._size)) if missing else []
        self.resting = "done" if missing and not drafts else "ahead"
        if drafts:
            self._desk.state("writing")
            self._batch(drafts)
            self._size = min(2 * self._size, self._config.batch)
        return bool(drafts)

    # -- what is written next ------------------------------------------------------------------------------------

    def _missing(self) -> int:
        """How many pairs to write until they are far enough ahead. Once they are, only many are worth a beginning."""
        missing = self._config.ahead - self._store.fresh()
        worth = max(1, min(self._config.batch, self._config.ahead // 2)) if self._full else 1
        self._full = missing < worth
        return 0 if self._full else missing

    def _next(self, count: int) -> list[Draft]:
        """Up to `count` drafts: every prompt's first pair comes before any prompt's second one."""
        skipped = self._left_out | self._together
        for number in range(self._config.pairs_per_prompt):
            # Those with fewer pairs were all met in an earlier round, so these have exactly `number`.
            found = self._store.unpaired(number + 1, count + len(skipped))
            if prompts := [one for one in found if one.id not in skipped][:count]:
                salt = self._store.salt
                return [drafted(one, number, len(self._speakers), self._seed, salt) for one in prompts]
        return []

    def _is_awaited(self) -> bool:
        """Whether a rater waits for whom there is no pair."""
        if self._desk.asked:
            if not self._store.fresh():
                return True
            self._desk.heard()
        return False

    # -- many ----------------------------------------------------------------------------------------------------

    def _batch(self, drafts: list[Draft]) -> None:
        self._together = {one.prompt.id for one in drafts}
        self._alone_from = 0.0
        try:
            while drafts:
                asked = [(one, prompts) for one in drafts if (prompts := self._encoded(one))]
                texts = self._spoken(asked)
                settled = (self._settle(one, both) for (one, _), both in zip(asked, texts, strict=True))
                drafts = [again for again in settled if again]
        finally:
            self._together = set()

    def _spoken(self, asked: Sequence[tuple[Draft, list[list[int]]]]) -> list[list[ChatAnswer]]:
        """Both answers of each draft, whose prompt comes as both models read it; each model writes its own together."""
        both: list[dict[int, ChatAnswer]] = [{} for _ in asked]
        options: dict[str, Any] = {"max_tokens": self._config.max_tokens, "check": self._look}
        for model, speaker in enumerate(self._speakers):
            places = [(at, side) for at, (one, _) in enumerate(asked) for side in (0, 1) if one.models[side] == model]
            if places:
                prompts = [asked[at][1][side] for at, side in places]
                seeds = [asked[at][0].seeds(self._seed)[side] for at, side in places]
                made = speaker.answers(prompts, self._sampling, seeds=seeds, **options)
                for (at, side), answer in zip(places, made, strict=True):
                    both[at][side] = answer
        return [[one[0], one[1]] for one in both]

    def _look(self) -> None:
        """Between two tokens of a batch: hold it up for a rater who waits, for half of the time at most."""
        if self._desk.asked and time.monotonic() >= self._alone_from and self._is_awaited():
            began = time.monotonic()
            self._alone()
            now = time.monotonic()
            self._alone_from = now + (now - began)

    # -- one, watched --------------------------------------------------------------------------------------------

    def _alone(self) -> bool:
        """Write one pair, shown as it is written. -> whether a prompt was there for it."""
        self._desk.heard()
        draft = next(iter(self._next(1)), None)
        if draft is None:
            return False
        if (prompts := self._encoded(draft)) is None:
            return True
        self._desk.state("writing")
        self._together.add(draft.prompt.id)
        again: Draft | None = draft
        while again:
            self._desk.say(begin=asdict(draft.prompt))
            both = [self._shown(again, side, prompts[side]) for side in (0, 1)]
            again = self._settle(again, both)
        self._together.discard(draft.prompt.id)
        self._desk.say(end=draft.prompt.id not in self._left_out)
        return True

    def _shown(self, draft: Draft, side: int, prompt: list[int]) -> ChatAnswer:
        def show(piece: str) -> None:
            self._desk.say(side=SIDES[side], piece=piece)

        speaker, seed = self._speakers[draft.models[side]], draft.seeds(self._seed)[side]
        answer = speaker.answer(prompt, self._sampling, seed=seed, show=show)
        self._desk.say(side=SIDES[side], whole=clean(answer.text))
        return answer

    # -- what becomes of it --------------------------------------------------------------------------------------

    def _encoded(self, draft: Draft) -> list[list[int]] | None:
        """The prompt as both models read it; None where one cannot, and the prompt is left out."""
        encoded = []
        for model in draft.models:
            try:
                encoded.append(self._speakers[model].prompt(draft.prompt.messages))
            except ConfigError:
                return self._leave_out(draft, f"left out, too long for {self._names[model]}")
            except (ModelError, DataError):
                return self._leave_out(draft, f"left out, refused by the chat template of {self._names[model]}")
        return encoded

    def _settle(self, draft: Draft, both: Sequence[ChatAnswer]) -> Draft | None:
        """Put the pair into the store. -> the draft to try again where both answers are the same."""
        if both[0].text.strip() == both[1].text.strip():
            if draft.attempt + 1 < _DRAWS and self._config.temperature:
                return replace(draft, attempt=draft.attempt + 1)
            return self._leave_out(draft, "left out, as both answers were the same")
        prompt = NewPrompt(draft.prompt.messages, draft.prompt.tags, draft.prompt.origin)
        first, second = (self._answer(draft, side, both[side]) for side in (0, 1))
        if not self._store.add_pairs([NewPair(prompt, first, second)]).new:
            self._leave_out(draft, "left out, as the answers were those of an earlier pair")
        return None

    def _answer(self, draft: Draft, side: int, spoken: ChatAnswer) -> Answer:
        """An answer as the store keeps it. `Speaker.answer` gives the same one for this seed."""
        model = draft.models[side]
        drawn = {
            **self._origin[model],
            "seed": draft.seeds(self._seed)[side],
            "tokens": spoken.tokens,
            "ended": spoken.ended,
        }
        return Answer(spoken.text, self._names[model], drawn)

    @cached_property
    def _origin(self) -> list[dict[str, Any]]:
        """What all answers of a model have in common."""
        asked = {"temperature": self._config.temperature, "max_new_tokens": self._config.max_new_tokens}
        return [
            {
                **asked,
                "device": one.network.runtime.device.type,
                "dtype": str(one.network.runtime.dtype).removeprefix("torch."),
                "weights": one.network.base_fingerprint,
                "trueup": version("trueup"),
            }
            for one in self._speakers
        ]

    def _leave_out(self, draft: Draft, why: str) -> None:
        self._left_out.add(draft.prompt.id)
        self._desk.say(left_out=draft.prompt.id, what="prompt", why=why, origin=draft.prompt.origin)
