"""A reward model as a `Reward`: conversations are rendered in its own template and scored at their end token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trueup.batching import Branch, Example
from trueup.chat import Conversation, Message
from trueup.forward import forward_all
from trueup.loading import load_classifier, load_tokenizer
from trueup.models import Network

if TYPE_CHECKING:
    from trueup.config import StageConfig
    from trueup.rewards import Reward
    from trueup.runtime import Runtime


def model_reward(network: Network, *, role: str = "reward", max_tokens: int) -> Reward:
    """Score conversations with a scalar role of the network. The answer is scored as if it had ended."""

    def reward(conversations: Sequence[Conversation], /) -> Tensor:
        return forward_all(
            network, [_example(network, one) for one in conversations], role, "scores", max_tokens=max_tokens
        )

    return reward


def separate_reward(source: str, config: StageConfig, runtime: Runtime) -> Reward:
    """A reward model of its own, with its own tokenizer, frozen."""
    classifier = load_classifier(source, runtime, trust_remote_code=config.trust_remote_code)
    network = Network(classifier, load_tokenizer(source, trust_remote_code=config.trust_remote_code), runtime)
    network.add_classifier("reward", classifier, trainable=False)
    return model_reward(network, max_tokens=config.max_tokens)


def _example(network: Network, conversation: Conversation) -> Example:
    """Prompt as trunk, answer as branch. An empty answer is scored too: sampling can end at once."""
    renderer = network.renderer
    trunk, text = renderer.prompt(conversation.prompt), conversation.response
    for stop in renderer.stop_texts:  # another model's text may spell out this one's end token
        text = text.partition(stop)[0]
    if text.strip():
        rendered = renderer.continuation(conversation.prompt, [Message("assistant", text)])
        return Example(trunk, (Branch(rendered.ids, rendered.mask),))
    return Example(trunk, (Branch([renderer.end_id], [True]),))
