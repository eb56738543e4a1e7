"""Run many examples through a role without gradients: reference log-probabilities, old values, scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from trueup.algorithms.tensors import segment_sum
from trueup.errors import ModelError
from trueup.models.batching import Branch, Example, Per, collate, micro_batches

if TYPE_CHECKING:
    from trueup.models.network import Network
    from trueup.runtime import Runtime


@torch.no_grad()
def forward_all(
    network: Network, examples: Sequence[Example], role: str, want: Literal["logps", "values", "scores"],
    *, max_tokens: int, temperature: float = 1.0,
) -> Tensor:  # fmt: skip
    """Run examples through a role in micro-batches, without gradients. Of several ranks each computes its share.

    Returns:
        On the CPU and on every rank, in the examples' order: (N,) for "logps" and "values" (each example's tokens side
        by side), (S,) for "scores" (an example's branches side by side).
    """
    training = network.training
    network.eval()
    numbered = [replace(example, row=at) for at, example in enumerate(examples)]
    ends = list(accumulate(_width(example, want) for example in numbered))
    result = torch.zeros(ends[-1])
    layout, pad = network.layout, cast("int", network.tokenizer.pad_token_id)
    per: Per = "token" if want != "scores" else "branch"
    for group, counts in _turns(micro_batches(numbered, max_tokens, layout=layout), network.runtime):
        network.check_stop()
        batch = collate(group, per=per, pad_id=pad, layout=layout).to(network.runtime.device)
        output = network(batch, role, want, temperature=temperature)[0].float().cpu()
        if counts:
            sizes = [_width(one, want) for one in group]
            for one, size, piece in zip(group, sizes, output.split(sizes), strict=True):
                result[ends[one.row] - size : ends[one.row]] = piece
    network.train(training)
    return network.runtime.sum_tensor(result)  # each number is one rank's, and 0 elsewhere


def _width(example: Example, want: str) -> int:
    """How many numbers come out of an example."""
    return len(example.branches) if want == "scores" else sum(branch.trained for branch in example.branches)


def _turns(groups: list[list[Example]], runtime: Runtime) -> Iterator[tuple[list[Example], bool]]:
    """This rank's micro-batches, and whether each counts.

    The groups are those of one process, so that each number is what one process computes. Where weights are sharded all
    ranks run equally often: one that has none left runs the last group, the shortest, again, for the others' sake.
    """
    for start in range(0, len(groups), runtime.world):
        at = start + runtime.rank
        if at < len(groups):
            yield groups[at], True
        elif runtime.sharded:
            yield groups[-1], False


@torch.no_grad()
def check_lm_head(network: Network, role: str = "policy") -> None:
    """Compare the log-probabilities computed here with the model's own logits, on five tokens.

    Raises:
        ModelError: they differ: the model does more between its last hidden state and its logits than is known here.
    """
    tokens = torch.tensor([1, 2, 3, 4, 5], device=network.runtime.device)
    ours = forward_all(network, [Example([1], (Branch([2, 3, 4, 5], [True] * 4),))], role, "logps", max_tokens=64)
    training = network.training
    network.eval()
    trunk = network.trunk(role)

    def plain() -> Tensor:
        with network.autocast(trunk):
            return trunk(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()

    logits = network.run(role, plain)
    network.train(training)
    theirs = logits.log_softmax(-1).gather(-1, tokens[1:, None]).squeeze(-1).cpu()
    tolerance = 1e-3 if network.runtime.dtype == torch.float32 else 0.2
    worst = float((ours - theirs).abs().max())
    if not worst < tolerance:
        raise ModelError(
            f"{type(trunk).__name__}: its logits are not its last hidden states times its LM head (they differ by "
            f"{worst:.2g} nats), so trueup cannot train it"
        )


def branch_logps(network: Network, examples: Sequence[Example], role: str, *, max_tokens: int) -> Tensor:
    """(S,) summed log-probabilities of each branch's trained tokens under `role`, on the CPU."""
    logps = forward_all(network, examples, role, "logps", max_tokens=max_tokens)
    sizes = torch.tensor([branch.trained for one in examples for branch in one.branches])
    return segment_sum(logps, torch.repeat_interleave(torch.arange(len(sizes)), sizes), len(sizes))
