"""A reward model's margins of the pairs in a store: of which it is unsure, so that a vote on them teaches most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueup.chat.speaker import spoken_name
from trueup.config.paths import find_model
from trueup.data.rendering.messages import Conversation, Message
from trueup.data.rendering.renderer import Renderer
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Pair
from trueup.errors import DataError, ModelError
from trueup.models.loading import load_classifier, load_tokenizer
from trueup.models.reward_model import classifier_reward

if TYPE_CHECKING:
    from trueup.ranking.writing.line import Desk
    from trueup.runtime import Runtime

_CHUNK = 8  # pairs scored before anything else has its turn: a rater may wait


class Scoring:
    """Scores what is not scored yet.

    Args:
        source: a reward run's folder, a classifier's folder or hub name.
        store: whose pairs.
        where: device and compute dtype.
        desk: is told of pairs that cannot be scored.
        max_tokens: of the conversations that run together at most.

    Raises:
        ModelError: it cannot be loaded, or is no reward model.
    """

    def __init__(self, source: str, store: Store, where: Runtime, desk: Desk, *, max_tokens: int = 16_384) -> None:
        """Load it."""
        folder = find_model(source)
        classifier, tokenizer = load_classifier(folder, where), load_tokenizer(folder)
        self.name = spoken_name(folder)
        self._store, self._desk = store, desk
        self._context = getattr(classifier.config.get_text_config(), "max_position_embeddings", None)
        self._renderer = Renderer(tokenizer)
        self._reward = classifier_reward(classifier, tokenizer, where, max_tokens=max_tokens)
        self._left_out: set[int] = set()

    def score(self) -> int:
        """Score some pairs. -> how many were looked at; 0: all that can be are scored."""
        found = self._store.unscored(self.name, _CHUNK + len(self._left_out))
        pairs = [one for one in found if one.id not in self._left_out][:_CHUNK]
        if fitting := [one for one in pairs if self._fits(one)]:
            said = [_conversation(one, text) for one in fitting for text in (one.first.text, one.second.text)]
            scores = self._reward(said).view(-1, 2)
            margins = (scores[:, 0] - scores[:, 1]).tolist()
            self._store.score(self.name, {one.id: margin for one, margin in zip(fitting, margins, strict=True)})
        return len(pairs)

    def _fits(self, pair: Pair) -> bool:
        """Whether the model can read both answers; else the pair is left out."""
        try:
            for text in (pair.first.text, pair.second.text):
                length = len(self._renderer.prompt(pair.prompt.messages)) + len(self._renderer.text(text).ids)
                if self._context is not None and length > self._context:
                    return self._leave_out(pair, f"not scored, too long for {self.name}")
        except (DataError, ModelError):
            return self._leave_out(pair, f"not scored, refused by the chat template of {self.name}")
        return True

    def _leave_out(self, pair: Pair, why: str) -> bool:
        self._left_out.add(pair.id)
        self._desk.say(left_out=pair.id, what="pair", why=why, origin=pair.prompt.origin)
        return False


def _conversation(pair: Pair, text: str) -> Conversation:
    return Conversation((*pair.prompt.messages, Message("assistant", text)))
