"""Score the pairs in a store by a reward model's margin: its reward of the first answer minus that of the second.

Raters get pairs with a small margin first: where the reward model is unsure, a vote teaches it most.
"""

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
    from trueup.ranking.writing.line import ServerLine
    from trueup.runtime import Runtime

_CHUNK = 8  # pairs scored before other work has its turn: a rater may wait


class Scoring:
    """Scorer of the pairs in a store for which the reward model's margin is not known yet.

    Args:
        source: a reward run's folder, a classifier's folder or hub name.
        store: holds the pairs.
        runtime: device and compute dtype.
        server: receives the pairs that cannot be scored.
        max_tokens: tokens computed at once.

    Raises:
        ModelError: the model cannot be loaded, or is not a reward model.
    """

    def __init__(
        self, source: str, store: Store, runtime: Runtime, server: ServerLine, *, max_tokens: int = 16_384
    ) -> None:
        """Load the model and its tokenizer."""
        folder = find_model(source)
        classifier, tokenizer = load_classifier(folder, runtime), load_tokenizer(folder)
        self.name = spoken_name(folder)
        self._store, self._server = store, server
        self._context = getattr(classifier.config.get_text_config(), "max_position_embeddings", None)
        self._renderer = Renderer(tokenizer)
        self._reward = classifier_reward(classifier, tokenizer, runtime, max_tokens=max_tokens)
        self._left_out: set[int] = set()

    def score(self) -> int:
        """Score the next few pairs.

        Returns how many were looked at; 0 if every pair that can be scored has its margin.
        """
        unscored = self._store.unscored(self.name, _CHUNK + len(self._left_out))
        pairs = [pair for pair in unscored if pair.id not in self._left_out][:_CHUNK]
        if fitting := [pair for pair in pairs if self._fits(pair)]:
            answers = [_conversation(pair, text) for pair in fitting for text in (pair.first.text, pair.second.text)]
            scores = self._reward(answers).view(-1, 2)
            margins = (scores[:, 0] - scores[:, 1]).tolist()
            self._store.score(self.name, {pair.id: margin for pair, margin in zip(fitting, margins, strict=True)})
        return len(pairs)

    def _fits(self, pair: Pair) -> bool:
        """Return True if the reward model can read both answers; else report the pair as left out."""
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
        self._server.send(left_out=pair.id, what="pair", why=why, origin=pair.prompt.origin)
        return False


def _conversation(pair: Pair, text: str) -> Conversation:
    return Conversation((*pair.prompt.messages, Message("assistant", text)))
