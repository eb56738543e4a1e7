"""Reward models as reward functions: conversations in the model's chat template are scored at their end token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trueup.config.paths import trust_of
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ModelError
from trueup.models.batching import Branch, Example
from trueup.models.forward import forward_all
from trueup.models.loading import load_classifier, load_tokenizer, matching_reward_adapter
from trueup.models.network import Network
from trueup.models.rewards import reward_from_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import DpoConfig, PpoConfig
    from trueup.models.rewards import Reward
    from trueup.runtime import Runtime


def model_reward(network: Network, *, role: str = "reward", max_tokens: int) -> Reward:
    """Return a reward function that scores conversations with a role of the network that has a scalar head.

    Each answer is scored at its end token, as if it had ended there.
    """

    def reward(conversations: Sequence[Conversation], /) -> Tensor:
        examples = [_example(network, conversation) for conversation in conversations]
        return forward_all(network, examples, role, "scores", max_tokens=max_tokens)

    return reward


def require_varied(reward: Reward, name: str) -> Reward:
    """Return a reward model's function after checking that it gives different answers different scores.

    Raises:
        ModelError: all of a few made-up answers have the same score, such as that of a score head of zeros.
    """
    asked = Message("user", "What is the capital of France?")
    texts = ("Paris.", "I do not know.", "It is Rome, the largest town of Italy, and nothing else.", "7 * 6 = 42")
    scores = reward([Conversation((asked, Message("assistant", text))) for text in texts])
    if bool((scores == scores[0]).all()):
        raise ModelError(
            f"{name}: it gives every answer the same score ({float(scores[0]):.4g}), which teaches nothing\n"
            "  fix: train the reward model, or copy it whole again"
        )
    return reward


def open_reward(source: str, network: Network, config: PpoConfig | DpoConfig, *, role: str) -> tuple[Reward, bool]:
    """Open the reward that a configuration names: a model or a Python function.

    Args:
        source: a reward run's folder, a classifier's folder or hub name, or file.py:function.
        network: takes the reward as another adapter if that was trained over exactly this network's base (LoRA).
        config: the stage's configuration (LoRA, trust and `max_tokens` settings).
        role: name of the role under which such an adapter is added to `network`.

    Returns:
        The reward function, and True if it is an adapter of `network`.

    Raises:
        ModelError: the model cannot be loaded, or gives every answer the same score.
    """
    if ".py:" in source:
        return score_on_main(reward_from_file(source), network.runtime), False
    adapter = matching_reward_adapter(Path(source), network) if config.lora is not None else None
    if adapter is not None:
        network.add_scorer(role, adapter, trainable=False)
        return require_varied(model_reward(network, role=role, max_tokens=config.max_tokens), f"reward: {source}"), True
    folder = classifier_source(source)
    trust = trust_of(config)
    classifier = load_classifier(folder, network.runtime, trust=trust)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust.code)
    reward = classifier_reward(classifier, tokenizer, network.runtime, max_tokens=config.max_tokens)
    return require_varied(reward, f"reward: {source}"), False


def score_on_main(reward: Reward, runtime: Runtime) -> Reward:
    """Return a reward function that computes `reward` on the first process and gives its scores to all.

    A user's function may differ between processes.
    """

    def scores(conversations: Sequence[Conversation], /) -> Tensor:
        return torch.tensor(runtime.from_first(lambda: reward(conversations).tolist()), dtype=torch.float32)

    return scores


def classifier_reward(
    classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, runtime: Runtime, *, max_tokens: int
) -> Reward:
    """Return a reward function that scores with a separate frozen classifier and its own tokenizer."""
    network = Network(classifier, tokenizer, runtime)
    network.add_classifier("reward", classifier, trainable=False)
    return model_reward(network, max_tokens=max_tokens)


def classifier_source(source: str) -> str:
    """Return the folder or hub id of a reward's classifier: a run folder's `model` folder, else `source` itself."""
    model_folder = Path(source) / "model"
    return str(model_folder) if model_folder.is_dir() else source


def _example(network: Network, conversation: Conversation) -> Example:
    """Return a conversation as an example: the prompt as trunk, the answer and its end token as branch.

    An empty answer is scored too, because sampling can end at once.
    """
    renderer = network.renderer
    trunk, text = renderer.prompt(conversation.prompt), conversation.response
    for stop in renderer.stop_texts:  # text of another model may contain this model's end token
        text = text.partition(stop)[0]
    if text.strip():
        rendered = renderer.continuation(conversation.prompt, [Message("assistant", text)])
        return Example(trunk, (Branch(rendered.ids, rendered.mask),))
    return Example(trunk, (Branch([renderer.end_id], [True]),))
