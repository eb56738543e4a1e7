"""Run many examples through a role without gradients: reference log-probabilities, old values, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from trueup.batching import Example, Per, collate, micro_batches

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
