"""Sample a policy's answers to prompts and measure them: reward, KL from the reference, length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from trueup.batching import Branch, Example
from trueup.chat import Conversation, Message
from trueup.reference import branch_logps
from trueup.rollouts import PromptRow, answer_text
from trueup.sampling import sample

if TYPE_CHECKING:
    from trueup.models import Network
    from trueup.rewards import Reward


@dataclass(frozen=True, slots=True)
class Measured:
    """One value for each prompt, in their order.

    Attributes:
        answers: the sampled texts.
        lengths: tokens of each answer, end token included.
        finished: whether each ended by itself.
        rewards: (N,) or None when no reward was given.
        kl: (N,) log(policy / reference) of each answer in nats; None without a reference. Of greedy samples it is the
            log-ratio at the policy's own mode; only samples at temperature 1 estimate the KL divergence.
    """

    answers: list[str]
    lengths: list[int]
    finished: list[bool]
    rewards: Tensor | None
    kl: Tensor | None

    def means(self) -> dict[str, float]:
        """Means over the prompts, and their number."""
        n = max(1, len(self.answers))
        numbers = {
            "length": sum(self.lengths) / n,
            "missing_end": 1 - sum(self.finished) / n,
            "n": float(len(self.answers)),
        }
        if self.rewards is not None:
            numbers["reward"] = float(self.rewards.mean())
        if self.kl is not None:
            numbers["kl"] = float(self.kl.mean())
        return numbers


def measure_policy(
    network: Network, prompts: Sequence[PromptRow], reward: Reward | None, *,
    max_new_tokens: int, max_tokens: int, temperature: float = 0.0, seed: int = 0,
) -> Measured:  # fmt: skip
    """Answer each prompt once with the role "policy" and measure the answers."""
    samples = sample(
        network, [one.ids for one in prompts], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )
    answers = [answer_text(network, one) for one in samples]
    conversations = [
        Conversation((*one.messages, Message("assistant", text))) for one, text in zip(prompts, answers, strict=True)
    ]
    kl = None
    if "reference" in network.roles:
        examples = [
            Example(one.ids, (Branch(got.ids, [True] * len(got.ids)),))
            for one, got in zip(prompts, samples, strict=True)
        ]
        policy = branch_logps(network, examples, "policy", max_tokens=max_tokens)
        kl = policy - branch_logps(network, examples, "reference", max_tokens=max_tokens)
    return Measured(
        answers,
        [len(one.ids) for one in samples],
        [one.finished for one in samples],
        None if reward is None else reward(conversations).float().cpu(),
        kl,
    )
