"""Run many examples through a role without gradients: reference log-probabilities, old values, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from trueup.batching import Branch, Example, Per, collate, micro_batches
from trueup.errors import ModelError

if TYPE_CHECKING:
    from trueup.models import Network


@torch.no_grad()
def forward_all(
    network: Network, examples: Sequence[Example], role: str, want: Literal["logps", "values", "scores"],
    *, max_tokens: int, temperature: float = 1.0,
) -> Tensor:  # fmt: skip
    """Run examples through a role in micro-batches, without gradients.

    Returns:
        On the CPU, in the examples' order: (N,) for "logps" and "values" (each example's tokens side by side), (S,)
        for "scores" (an example's branches side by side).
    """
    training = network.training
    network.eval()
    numbered = [replace(example, row=at) for at, example in enumerate(examples)]
    pieces: dict[int, Tensor] = {}
    share, pad = network.share_prefix, cast("int", network.tokenizer.pad_token_id)
    for group in micro_batches(numbered, max_tokens, share_prefix=share):
        network.check()
        per: Per = "token" if want != "scores" else "branch"
        batch = collate(group, per=per, pad_id=pad, share_prefix=share).to(network.runtime.device)
        output = network(batch, role, want, temperature=temperature)[0].float().cpu()
        sizes = [
            sum(branch.trained for branch in one.branches) if want != "scores" else len(one.branches) for one in group
        ]
        pieces |= dict(zip((one.row for one in group), output.split(sizes), strict=True))
    network.train(training)
    return torch.cat([pieces[at] for at in range(len(numbered))])


@torch.no_grad()
def check_head(network: Network, role: str = "policy") -> None:
    """Compare the log-probabilities computed here with the model's own logits, on five tokens.

    Raises:
        ModelError: they differ: the model does more between its last hidden state and its logits than is known here.
    """
    tokens = torch.tensor([1, 2, 3, 4, 5], device=network.runtime.device)
    ours = forward_all(network, [Example([1], (Branch([2, 3, 4, 5], [True] * 4),))], role, "logps", max_tokens=64)
    training = network.training
    network.eval()
    trunk = network.trunk(role)
    with network.autocast(trunk):
        logits = trunk(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
    network.train(training)
    theirs = logits.log_softmax(-1).gather(-1, tokens[1:, None]).squeeze(-1).cpu()
    tolerance = 1e-3 if network.runtime.dtype == torch.float32 else 0.2
    worst = float((ours - theirs).abs().max())
    if not worst < tolerance:
        raise ModelError(
            f"{type(trunk).__name__}: its logits are not its last hidden states times its LM head (they differ by "
            f"{worst:.2g} nats), so trueup cannot train it"
        )
