"""Run examples through a role of the network without gradients: log-probabilities, values or scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from trueup.algorithms.kl import exact_kl
from trueup.algorithms.tensors import segment_sum
from trueup.errors import ModelError
from trueup.models.batching import Branch, Example, Per, collate, micro_batches
from trueup.models.network import Network, not_finite
from trueup.models.positions import table_size

if TYPE_CHECKING:
    from trueup.runtime import Runtime


@torch.no_grad()
def forward_all(
    network: Network, examples: Sequence[Example], role: str, want: Literal["logps", "values", "scores"],
    *, max_tokens: int, temperature: float = 1.0, training: bool = False,
) -> Tensor:  # fmt: skip
    """Return a role's log-probabilities, values or scores of examples, computed in micro-batches without gradients.

    Each rank computes a share of the micro-batches.

    Args:
        network: the model with the role.
        examples: prompts (trunks) with answers (branches).
        role: the role, such as "policy", "reference", "value" or "reward".
        want: "logps" of the trained tokens in nats, "values" of the states they are predicted from, or "scores" of
            branches.
        max_tokens: micro-batch size.
        temperature: divides the logits; for "logps".
        training: True computes in training mode, for checks; else dropout is off.

    Returns:
        On the CPU and on every rank, in the examples' order: (N,) for "logps" and "values" (each example's tokens side
        by side), (S,) for "scores" (an example's branches side by side).
    """
    previous = network.training
    network.train(training)
    numbered = [replace(example, row=index) for index, example in enumerate(examples)]
    ends = list(accumulate(_width(example, want) for example in numbered))
    result = torch.zeros(ends[-1])
    layout, pad = network.layout, cast("int", network.tokenizer.pad_token_id)
    per: Per = "token" if want != "scores" else "branch"
    for group, counts in _turns(micro_batches(numbered, max_tokens, layout=layout), network.runtime):
        network.check_stop()
        batch = collate(group, per=per, pad_id=pad, layout=layout).to(network.runtime.device)
        output = network(batch, role, want, temperature=temperature)[0].float().cpu()
        if counts:
            sizes = [_width(example, want) for example in group]
            for example, size, part in zip(group, sizes, output.split(sizes), strict=True):
                result[ends[example.row] - size : ends[example.row]] = part
    network.train(previous)
    return network.runtime.sum_tensor(result)  # each number is computed by one rank, and 0 on the others


@torch.no_grad()
def token_kls(
    network: Network, reference: Network, examples: Sequence[Example], *, max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Return the KL of each trained token's distribution from the reference's, and the token's own log-ratio.

    Both networks have the model as their role "policy". See `algorithms.kl.exact_kl`; each rank computes a share.

    Returns:
        (N,) and (N,), in nats, on the CPU and on every rank, in the examples' order.
    """
    layout = network.layout if network.layout == reference.layout else "plain"
    modes = network.training, reference.training
    network.eval()
    reference.eval()
    numbered = [replace(example, row=index) for index, example in enumerate(examples)]
    ends = list(accumulate(_width(example, "logps") for example in numbered))
    result = torch.zeros(2, ends[-1])
    pad, dtype = cast("int", network.tokenizer.pad_token_id), network.runtime.dtype
    for group, counts in _turns(micro_batches(numbered, max_tokens, layout=layout), network.runtime):
        batch = collate(group, per="token", pad_id=pad, layout=layout).to(network.runtime.device)
        ours, theirs = (part.states(batch, "policy")[batch.predict_at].to(dtype) for part in (network, reference))
        both = exact_kl(ours, network.lm_head("policy"), theirs, reference.lm_head("policy"), batch.targets)
        if counts:
            sizes = [_width(example, "logps") for example in group]
            for example, size, part in zip(group, sizes, torch.stack(both).cpu().split(sizes, dim=1), strict=True):
                result[:, ends[example.row] - size : ends[example.row]] = part
    network.train(modes[0])
    reference.train(modes[1])
    exact, sampled = network.runtime.sum_tensor(result)  # each number is computed by one rank, and 0 on the others
    return exact, sampled


def _width(example: Example, want: str) -> int:
    """Return how many numbers an example yields: one per branch for "scores", else one per trained token."""
    return len(example.branches) if want == "scores" else sum(branch.trained for branch in example.branches)


def _turns(groups: list[list[Example]], runtime: Runtime) -> Iterator[tuple[list[Example], bool]]:
    """Yield this rank's micro-batches, each with True, or with False if its output does not count.

    The groups are the same as in a run of one process, so each number is computed alike. Where weights are sharded, all
    ranks must run equally often: a rank with no group left runs the last group, the shortest, again.
    """
    for start in range(0, len(groups), runtime.world):
        index = start + runtime.rank
        if index < len(groups):
            yield groups[index], True
        elif runtime.sharded:
            yield groups[-1], False


@torch.no_grad()
def check_lm_head(network: Network, role: str = "policy") -> None:
    """Check that trueup's log-probabilities equal those from the model's own logits, on five tokens.

    Raises:
        ModelError: they differ: the model does more than its LM head between its last hidden state and its logits.
    """
    tokens = torch.tensor([1, 2, 3, 4, 5], device=network.runtime.device)
    name = type(network.trunk(role)).__name__
    try:
        ours = forward_all(network, [Example([1], (Branch([2, 3, 4, 5], [True] * 4),))], role, "logps", max_tokens=64)
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{name}: its LM head does not take its last hidden states ({error})") from error
    training = network.training
    network.eval()
    trunk = network.trunk(role)

    def own_logits() -> Tensor:
        with network.autocast(trunk):
            return trunk(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()

    logits = network.run(role, own_logits)
    network.train(training)
    theirs = logits.log_softmax(-1).gather(-1, tokens[1:, None]).squeeze(-1).cpu()
    tolerance = 1e-3 if network.runtime.dtype == torch.float32 else 0.2
    worst = float((ours - theirs).abs().max())
    if not bool(theirs.isfinite().all()):
        raise ModelError(not_finite(name))
    if not worst < tolerance:
        raise ModelError(
            f"{name}: its logits are not its last hidden states times its LM head (the difference is "
            f"up to {worst:.2g} nats), so trueup cannot train it"
        )


@torch.no_grad()
def check_causal(network: Network) -> None:
    """Check that tokens change nothing before them: encoders such as BERT, loaded as language models, see both ways.

    The made-up row is as long as the longest row, because some families (Doge) look ahead in long rows only.

    Raises:
        ModelError: they do, or the model computes NaN or infinity.
    """
    training = network.training
    limit = 1e-3 if network.runtime.dtype == torch.float32 else 5e-2
    network.eval()
    for role in network.trained_roles:
        length = min(max(network.longest, 8), table_size(network.trunk(role)) or 2**31)
        ids = torch.randint(1, network.vocabulary, (length,), generator=torch.Generator().manual_seed(0)).tolist()
        half = length // 2
        # Other tokens, and fewer: a family may look ahead at contents, or only at the length.
        others = ids[:half] + [token % (network.vocabulary - 1) + 1 for token in ids[half : -min(7, half - 1)]]
        name = type(network.trunk(role)).__name__
        batches = [
            collate([Example(row[:-1], (Branch(row[-1:], [True]),))], per="token", pad_id=0, layout="plain")
            for row in (ids, others)
        ]
        try:
            first, second = (network.states(batch.to(network.runtime.device), role)[:half] for batch in batches)
        except IndexError as error:
            raise ModelError(
                f"{name}: it cannot run the longest row, of {length} tokens ({error}): it has fewer positions\n"
                "  fix: lower max_length, with over_length=drop or cut"
            ) from error
        if not (bool(first.isfinite().all()) and bool(second.isfinite().all())):
            raise ModelError(not_finite(name))
        if not float((first - second).norm()) <= limit * float(first.norm()):
            raise ModelError(
                f"{name}: tokens change the probabilities of tokens before them, so this "
                "is no causal language model\n  fix: use a decoder-only model"
            )
    network.train(training)


@torch.no_grad()
def check_training_mode(network: Network) -> None:
    """Check that every role that trains computes the same in training as in evaluation, before the first step.

    Otherwise a policy would differ from its reference before any update, and a reward model from what is exported.

    Raises:
        ModelError: they differ: the model's own dropout or noise is on.
    """
    if network.model_dropout:
        return
    example = Example([1, 2, 3, 4], (Branch([5, 6, 7, 5] * 8, [True] * 32), Branch([4, 3, 2], [True] * 3)))
    batch = collate([example], per="token", pad_id=0, layout=network.layout).to(network.runtime.device)
    limit, previous = 1e-4 if network.runtime.dtype == torch.float32 else 1e-2, network.training
    for role in network.trained_roles:
        network.eval()
        expected = network.states(batch, role)
        network.train()
        difference = float((network.states(batch, role) - expected).norm())
        network.train(previous)
        if not difference <= limit * float(expected.norm()):
            recomputes = any(getattr(module, "gradient_checkpointing", False) for module in network.trunks.modules())
            raise ModelError(
                f"{type(network.trunk(role)).__name__}: in training it computes other numbers than in evaluation, "
                "because its own dropout or noise is on\n"
                f"  fix: set {'gradient_checkpointing=false, or ' if recomputes else ''}model_dropout=true to keep it"
            )


def branch_logps(
    network: Network, examples: Sequence[Example], role: str, *, max_tokens: int, training: bool = False
) -> Tensor:
    """Return (S,) the summed log-probability of each branch's trained tokens under `role`, in nats, on the CPU.

    A branch is one answer of an example; the sums are in the examples' order.
    """
    logps = forward_all(network, examples, role, "logps", max_tokens=max_tokens, training=training)
    sizes = torch.tensor([branch.trained for example in examples for branch in example.branches])
    return segment_sum(logps, torch.repeat_interleave(torch.arange(len(sizes)), sizes), len(sizes))
