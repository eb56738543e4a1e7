"""Tensor operations under every algorithm: per-token log-probabilities without full logits, and masked statistics.

Only `token_logps` makes vocabulary-sized tensors, of one chunk of rows at a time; training may also keep up to 128 MB
of probabilities. With N = 4096 predicted tokens and V = 150,000 words the full logits would be 2.5 GB in float32, and
autograd would keep several such tensors; one chunk is 64 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

_KEPT_ELEMENTS = 2**25
"""The most probabilities kept for the backward pass: 128 MB in float32, a tenth of the memory of a usual step."""
_CHUNK_ELEMENTS = 2**24
"""The most logits of a chunk: 64 MB in float32, large enough for matrix products at full speed."""


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    entropy: bool = False,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities of `targets` under softmax(softcap(scale * (hidden @ weight.T + bias)) / temperature).

    Works through chunks of rows and keeps one number a row; the backward pass computes the logits of each chunk again
    (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language Models", arXiv:2411.09009). For few rows it
    keeps the probabilities instead, and for a frozen weight the (N, H) gradient. Both results are differentiable once
    in hidden, weight and bias; gradients that nothing needs (a frozen head under LoRA) are not computed. Sums are in
    float32, or in float64 for float64 inputs.

    Args:
        hidden: (N, H) final hidden states.
        weight: (V, H) output embedding; half precision is fine.
        targets: (N,) token ids in [0, V).
        bias: (V,) of the output layer.
        temperature: divides the logits, last. Must be above 0.
        softcap: logits become `softcap * tanh(logits / softcap)` (Gemma 2, arXiv:2408.00118, section 2).
        scale: multiplies the logits, first (Cohere's `logit_scale`; Granite's is `1 / logits_scaling`).
        entropy: also return the entropy of every row's distribution.
        chunk_size: rows of a chunk; by default as many as hold 2**24 logits.

    Returns:
        logps (N,) in nats, and the entropy (N,) in nats or None.

    Raises:
        ValueError: shapes do not fit, or temperature or chunk_size is not positive.
    """
    _check_shapes(hidden, weight, targets, bias)
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it divides the logits and must be above 0")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts rows and must be at least 1")
    rows = chunk_size or max(1, _CHUNK_ELEMENTS // weight.shape[0])
    head = _Head(scale, softcap, temperature)
    apply = cast("Callable[..., tuple[Tensor, Tensor | None]]", _TokenLogps.apply)  # pyright: ignore[reportUnknownMemberType]
    # Inside the function gradients are always off, so pass on whether there will be a backward pass.
    return apply(hidden, weight, bias, targets, head, entropy, rows, torch.is_grad_enabled())


def chunks_of_rows(rows: int, vocabulary: int) -> Iterator[slice]:
    """Yield slices of so many rows that a chunk of logits over the vocabulary is at most 64 MB in float32."""
    return _chunks(rows, max(1, _CHUNK_ELEMENTS // vocabulary))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `x` where `mask` is True, a scalar; NaN if it is True nowhere. Other elements are never read.

    Args:
        x: any shape.
        mask: bool, of the shape of x.
    """
    return torch.where(mask, x, 0).sum() / mask.sum()


def whiten(x: Tensor, mask: Tensor | None = None, shift_mean: bool = True) -> Tensor:
    """Return `x` rescaled to mean 0 and variance 1 (Schulman et al. 2015, arXiv:1506.02438, and every PPO code since).

    The variance is the unbiased one (n - 1). Only elements with a True mask count; the others become 0. A single
    element, or equal ones, whiten to 0.

    Args:
        x: any shape.
        mask: bool, of the shape of x; None: all elements count.
        shift_mean: False keeps the mean and rescales only the deviations from it, as is usual for rewards.
    """
    kept = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    mean = masked_mean(x, kept)
    centred = torch.where(kept, x - mean, 0)
    variance = centred.square().sum() / (kept.sum() - 1).clamp(min=1)
    whitened = centred * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else torch.where(kept, whitened + mean, 0)


def segment_sum(x: Tensor, branch_of: Tensor, n: int) -> Tensor:
    """Return the sum of each branch's elements: result[s] = sum of x[i] with branch_of[i] == s; 0 without elements.

    Args:
        x: (N,) values of the tokens of all branches (responses).
        branch_of: (N,) integer in [0, n), the branch of each token.
        n: the number of branches.

    Returns:
        (n,) of the dtype of x.
    """
    return x.new_zeros(n).index_add(0, branch_of, x)


def _check_shapes(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    fits = hidden.ndim == 2 and weight.ndim == 2 and hidden.shape[1] == weight.shape[1]
    fits = fits and targets.shape == hidden.shape[:1] and (bias is None or bias.shape == weight.shape[:1])
    if not fits:
        shapes = ", ".join(
            f"{name} {tuple(tensor.shape)}"
            for name, tensor in (("hidden", hidden), ("weight", weight), ("targets", targets), ("bias", bias))
            if tensor is not None
        )
        raise ValueError(f"token_logps needs hidden (N, H), weight (V, H), targets (N,), bias (V,); got {shapes}")


@dataclass(frozen=True, slots=True)
class _Head:
    """Map from hidden @ weight.T + bias to the softmax's logits (scale, softcap, temperature), and its derivative."""

    scale: float
    softcap: float | None
    temperature: float

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the (n, V) logits of (n, H) hidden states, in float32 (in float64 for float64 inputs)."""
        logits = _matmul(hidden, weight.t())
        if bias is not None:
            logits.add_(bias)
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.temperature != 1.0:
            logits.div_(self.temperature)
        return logits

    def chain(self, grad: Tensor, logits: Tensor) -> Tensor:
        """Turn the gradient by the logits, in place, into that by hidden @ weight.T + bias. Overwrites `logits`."""
        if self.softcap is not None:
            # d/dx cap * tanh(x / cap) = 1 - (capped / cap)^2, and capped = logits * temperature.
            slope = logits.mul_(self.temperature / self.softcap).square_().neg_().add_(1)
            grad.mul_(slope)
        return grad.mul_(self.scale / self.temperature)


@dataclass(frozen=True, slots=True)
class LMHead:
    """Map from hidden states to a language model's logits, softcap(scale * (hidden @ weight.T + bias)).

    Attributes:
        weight: (V, H) output embedding; half precision is fine.
        bias: (V,) of the output layer.
        scale: multiplies the logits, first.
        softcap: logits become `softcap * tanh(logits / softcap)`.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logps(self, hidden: Tensor) -> Tensor:
        """Return the (n, V) log-probabilities of (n, H) hidden states, in nats, in float32 or more."""
        dtype = _operand_dtype(hidden, self.weight)
        bias = None if self.bias is None else self.bias.to(_sum_dtype(dtype))
        head = _Head(self.scale, self.softcap, 1.0)
        return head.logits(hidden.to(dtype), self.weight.to(dtype), bias).log_softmax(-1)


class _Context(Protocol):
    """Interface of the part of autograd's context object that `_TokenLogps` uses."""

    head: _Head
    rows: int
    early: bool
    kept: list[Tensor] | None
    hidden_dtype: torch.dtype
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


class _TokenLogps(torch.autograd.Function):
    """`token_logps` as a single autograd function with its own backward pass.

    If only `hidden` needs a gradient (a frozen head under LoRA), the forward pass already computes the gradient of each
    row's log-probability, and the backward pass multiplies it by the incoming one. Otherwise the backward pass computes
    the logits again, unless they are few and their probabilities were kept.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: _Head,
        entropy: bool,
        rows: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        dtype = _operand_dtype(hidden, weight)
        left, right = hidden.to(dtype), weight.to(dtype)
        log_z = hidden.new_empty(hidden.shape[0], dtype=_sum_dtype(dtype))
        logps = torch.empty_like(log_z)
        entropies = torch.empty_like(log_z) if entropy else None
        ctx.early = ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3]) and not entropy
        slopes = torch.empty_like(hidden, dtype=log_z.dtype) if ctx.early else None
        few = keep and hidden.shape[0] * weight.shape[0] <= _KEPT_ELEMENTS and head.softcap is None and not entropy
        ctx.kept = [] if few and not ctx.early and any(ctx.needs_input_grad[:3]) else None
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in _chunks(hidden.shape[0], rows):
                logits, ids = head.logits(left[chunk], right, bias), targets[chunk, None]
                picked, peak = logits.gather(-1, ids), logits.amax(-1, keepdim=True)
                # In place unless the logits are needed once more: a second tensor of V columns costs as much as exp.
                spare = logits if entropies is not None or (ctx.early and head.softcap is not None) else None
                probs = (logits.sub_(peak) if spare is None else logits - peak).exp_()
                total = probs.sum(-1, keepdim=True)
                log_z[chunk] = (peak + total.log()).squeeze(-1)
                logps[chunk] = (picked - log_z[chunk, None]).squeeze(-1)
                if entropies is not None:
                    entropies[chunk] = log_z[chunk] - probs.div_(total).mul_(logits).sum(-1)
                if slopes is not None:
                    grad = probs.div_(total.neg_()).scatter_add_(1, ids, torch.ones_like(picked))
                    slopes[chunk] = _matmul(head.chain(grad, logits).to(dtype), right)
                if ctx.kept is not None:
                    ctx.kept.append(probs.div_(total))
        ctx.head, ctx.rows, ctx.hidden_dtype = head, rows, hidden.dtype
        if slopes is not None:
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, log_z, entropies)
        ctx.set_materialize_grads(False)
        return logps, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable  # slopes and probabilities are constants to autograd
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, grad_logps: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if not ctx.early:
            return (*_recomputed(ctx, grad_logps, grad_entropy), None, None, None, None, None)
        (slopes,) = ctx.saved_tensors
        by_hidden = None if grad_logps is None else (slopes * grad_logps[:, None]).to(ctx.hidden_dtype)
        return by_hidden, None, None, None, None, None, None, None


def _recomputed(ctx: _Context, grad_logps: Tensor | None, grad_entropy: Tensor | None) -> list[Tensor | None]:
    """Return the gradients by hidden, weight and bias, from recomputed logits or kept probabilities, chunk by chunk."""
    hidden, weight, bias, targets, log_z, entropies = ctx.saved_tensors
    dtype = _operand_dtype(hidden, weight)
    left, right = hidden.to(dtype), weight.to(dtype)
    by_logps = torch.zeros_like(log_z) if grad_logps is None else grad_logps
    sums = [
        torch.zeros_like(tensor, dtype=log_z.dtype) if need else None
        for tensor, need in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
    ]
    kept, ctx.kept = ctx.kept, None  # used up: a second backward pass through the same graph computes them again
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        for index, chunk in enumerate(_chunks(hidden.shape[0], ctx.rows)):
            if kept is not None:
                logits = probs = kept[index]
            else:
                logits = ctx.head.logits(left[chunk], right, bias)
                spare = grad_entropy is not None or ctx.head.softcap is not None
                probs = (logits - log_z[chunk, None] if spare else logits.sub_(log_z[chunk, None])).exp_()
            grad = _softmax_grad(probs, targets[chunk], by_logps[chunk])
            if grad_entropy is not None:
                grad.sub_(_entropy_grad(logits, log_z[chunk], entropies[chunk], grad_entropy[chunk]))
            grad = ctx.head.chain(grad, logits)
            _accumulate(sums, grad, left[chunk], right, chunk)
    return [
        None if total is None else total.to(tensor.dtype)
        for total, tensor in zip(sums, (hidden, weight, bias), strict=True)
    ]


def _softmax_grad(probs: Tensor, targets: Tensor, upstream: Tensor) -> Tensor:
    """Return (n, V) the gradient of sum(upstream * logps) by the logits: upstream * (onehot - p). Overwrites p."""
    grad = probs.mul_(-upstream[:, None])
    return grad.scatter_add_(1, targets[:, None], upstream[:, None])


def _entropy_grad(logits: Tensor, log_z: Tensor, entropy: Tensor, upstream: Tensor) -> Tensor:
    """Return (n, V) minus the gradient of sum(upstream * entropy) by the logits: upstream * p * (log p + entropy)."""
    logp = logits - log_z[:, None]
    probs = logp.exp()
    return logp.add_(entropy[:, None]).mul_(probs).mul_(upstream[:, None])


def _accumulate(sums: list[Tensor | None], grad: Tensor, hidden: Tensor, weight: Tensor, chunk: slice) -> None:
    """Add one chunk's (n, V) logit gradient to `sums`: gradients of hidden, weight and bias, None if not wanted."""
    by_hidden, by_weight, by_bias = sums
    operand = grad.to(weight.dtype)
    if by_hidden is not None:
        by_hidden[chunk] = _matmul(operand, weight)
    if by_weight is not None:
        if operand.dtype == by_weight.dtype:
            by_weight.addmm_(operand.t(), hidden)
        else:
            by_weight.add_(_matmul(operand.t(), hidden))
    if by_bias is not None:
        by_bias.add_(grad.sum(0))


def _operand_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Return the dtype for a matrix product's operands: on CUDA half precision stays, elsewhere it becomes float32."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    return dtype if hidden.is_cuda else _sum_dtype(dtype)


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, never rounded to half precision: a bfloat16 logit of 30 would be off by up to 0.06 nats."""
    if a.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b)


def _chunks(total: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, total)) for start in range(0, total, rows))
