"""token_logps against the plain path (values, gradients, memory), and the masked statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trueup.algorithms import tensors
from trueup.algorithms.tensors import _matmul, masked_mean, segment_sum, token_logps, whiten

N, H, V = 11, 6, 29
HEADS: dict[str, dict[str, float]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": 0.0625},
    "everything": {"temperature": 1.3, "softcap": 2.0, "scale": 1.7},
}


def slow_token_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """All N * V logits at once, by torch's own operations and autograd."""
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logps = torch.log_softmax(logits / temperature, -1)
    return logps[torch.arange(len(targets)), targets], -(logps.exp() * logps).sum(-1)


def inputs(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return leaf(N, H), leaf(V, H), leaf(V), torch.randint(0, V, (N,), generator=generator)


def gradients(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a sum in which every element of every result has another weight."""
    total = sum((r * torch.linspace(-1, 2, r.numel(), dtype=r.dtype)).sum() for r in results)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, leaves)


class TestTokenLogpsValues:
    @pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 10, 11, 12, 1000, None])
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("with_bias", [False, True])
    def test_values_and_gradients_equal_the_plain_path(
        self, chunk_size: int | None, head: str, with_bias: bool
    ) -> None:
        hidden, weight, bias, targets = inputs()
        leaves = (hidden, weight, bias) if with_bias else (hidden, weight)
        used = bias if with_bias else None
        expected = slow_token_logps(hidden, weight, targets, used, **HEADS[head])
        logps, entropy = token_logps(
            hidden, weight, targets, bias=used, entropy=True, chunk_size=chunk_size, **HEADS[head]
        )
        assert entropy is not None
        torch.testing.assert_close((logps, entropy), expected)
        torch.testing.assert_close(gradients((logps, entropy), leaves), gradients(expected, leaves))

    def test_worked_by_hand(self) -> None:
        """Two words with logits ln 3 and 0: probabilities 3/4 and 1/4.

        log p = ln 0.75 = -0.287682, ln 0.25 = -1.386294; entropy = 0.75 * 0.287682 + 0.25 * 1.386294 = 0.562335.
        At temperature 1/2 the logits are 2 ln 3 and 0: probabilities 9/10 and 1/10, ln 0.9 = -0.105361.
        """
        hidden, weight = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [1.0]]).log()
        logps, entropy = token_logps(hidden, weight, torch.tensor([0, 1]), entropy=True)
        assert entropy is not None
        torch.testing.assert_close(logps, torch.tensor([-0.287682, -1.386294]))
        torch.testing.assert_close(entropy, torch.tensor([0.562335, 0.562335]))
        cold, _ = token_logps(hidden[:1], weight, torch.tensor([0]), temperature=0.5)
        torch.testing.assert_close(cold, torch.tensor([-0.105361]))

    def test_float32_equals_the_plain_path(self) -> None:
        hidden, weight, bias, targets = inputs(torch.float32)
        expected = slow_token_logps(hidden, weight, targets, bias, softcap=5.0)
        logps, entropy = token_logps(hidden, weight, targets, bias=bias, softcap=5.0, entropy=True, chunk_size=4)
        assert entropy is not None
        assert logps.dtype == entropy.dtype == torch.float32
        torch.testing.assert_close((logps, entropy), expected)
        leaves = (hidden, weight, bias)
        torch.testing.assert_close(gradients((logps, entropy), leaves), gradients(expected, leaves))

    def test_without_entropy_none_is_returned(self) -> None:
        hidden, weight, _, targets = inputs()
        assert token_logps(hidden, weight, targets)[1] is None

    def test_large_logits_stay_finite(self) -> None:
        """A logit of 1000 against 0: log p = 0 and -1000 exactly, entropy 0."""
        hidden, weight = torch.tensor([[1.0], [1.0]]).requires_grad_(), torch.tensor([[1000.0], [0.0]])
        logps, entropy = token_logps(hidden, weight, torch.tensor([0, 1]), entropy=True)
        assert entropy is not None
        assert logps.tolist() == [0.0, -1000.0]
        assert entropy.tolist() == [0.0, 0.0]
        assert all(bool(g.isfinite().all()) for g in gradients((logps, entropy), (hidden,)))

    def test_no_rows(self) -> None:
        hidden, weight, bias, _ = inputs()
        logps, _ = token_logps(hidden[:0], weight, torch.zeros(0, dtype=torch.long), bias=bias)
        assert logps.shape == (0,)
        logps.sum().backward()
        assert weight.grad is not None
        assert not weight.grad.any()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"targets": torch.zeros(3, dtype=torch.long)}, "targets"),
            ({"temperature": 0.0}, "temperature"),
            ({"chunk_size": 0}, "chunk_size"),
        ],
    )
    def test_refuses(self, change: dict[str, Any], message: str) -> None:
        hidden, weight, _, targets = inputs()
        with pytest.raises(ValueError, match=message):
            token_logps(**{"hidden": hidden, "weight": weight, "targets": targets, **change})


class TestTokenLogpsGradients:
    @pytest.mark.parametrize("head", HEADS)
    def test_gradcheck(self, head: str) -> None:
        """Against finite differences, independent of anybody's formula."""
        hidden, weight, bias, targets = inputs()

        def both(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            logps, entropy = token_logps(hidden, weight, targets, bias=bias, entropy=True, chunk_size=4, **HEADS[head])
            assert entropy is not None
            return logps, entropy

        assert torch.autograd.gradcheck(both, (hidden, weight, bias))

    def test_tied_embedding_gets_both_gradients(self) -> None:
        """One tensor as input embedding and as head, as in small Llamas."""
        _, weight, _, targets = inputs()
        tokens = torch.arange(N)
        slow, _ = slow_token_logps(torch.tanh(weight[tokens]), weight, targets)
        fast, _ = token_logps(torch.tanh(weight[tokens]), weight, targets, chunk_size=3)
        torch.testing.assert_close(gradients((fast,), (weight,)), gradients((slow,), (weight,)))

    @pytest.mark.parametrize("wanted", ["hidden", "weight", "bias"])
    def test_frozen_inputs_get_no_gradient(self, wanted: str) -> None:
        hidden, weight, bias, targets = inputs()
        tensors = {"hidden": hidden.detach(), "weight": weight.detach(), "bias": bias.detach()}
        tensors[wanted].requires_grad_()
        logps, _ = token_logps(targets=targets, **tensors)
        logps.sum().backward()
        for name, tensor in tensors.items():
            assert (tensor.grad is not None) == (name == wanted)

    @pytest.mark.parametrize("which", [0, 1])
    def test_only_one_of_the_results_is_used(self, which: int) -> None:
        hidden, weight, _, targets = inputs()
        fast = token_logps(hidden, weight, targets, entropy=True, chunk_size=3)[which]
        assert fast is not None
        slow = slow_token_logps(hidden, weight, targets)[which]
        leaves = (hidden, weight)
        torch.testing.assert_close(gradients((fast,), leaves), gradients((slow,), leaves))

    def test_no_grad_records_nothing(self) -> None:
        hidden, weight, _, targets = inputs()
        with torch.no_grad():
            logps, _ = token_logps(hidden, weight, targets)
        assert not logps.requires_grad


class TestTokenLogpsPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_weights_lose_nothing_in_the_logits(self, dtype: torch.dtype) -> None:
        """Halves are exact in float32, so the results must be those of the same numbers in float32."""
        hidden, weight, bias, targets = inputs(dtype)
        logps, entropy = token_logps(hidden, weight, targets, bias=bias, entropy=True, chunk_size=4)
        assert entropy is not None
        wide = [t.detach().float().requires_grad_() for t in (hidden, weight, bias)]
        expected = slow_token_logps(wide[0], wide[1], targets, wide[2])
        assert logps.dtype == torch.float32
        torch.testing.assert_close((logps, entropy), expected)
        for grad, reference in zip(
            gradients((logps, entropy), (hidden, weight, bias)), gradients(expected, wide), strict=True
        ):
            assert grad.dtype == dtype
            torch.testing.assert_close(grad, reference.to(dtype))

    def test_half_hidden_states_with_a_float32_head(self) -> None:
        hidden, weight, _, targets = inputs(torch.float32)
        half = hidden.detach().bfloat16().requires_grad_()
        logps, _ = token_logps(half, weight, targets)
        torch.testing.assert_close(logps, slow_token_logps(half.float(), weight, targets)[0])
        logps.sum().backward()
        assert half.grad is not None
        assert half.grad.dtype == torch.bfloat16

    def test_autocast_does_not_round_the_logits(self) -> None:
        hidden, weight, _, targets = inputs(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            logps, _ = token_logps(hidden, weight, targets)
        torch.testing.assert_close(logps, slow_token_logps(hidden, weight, targets)[0])


class Sizes(TorchDispatchMode):
    """Notes the number of elements of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else (result,)
        self.seen += [output.numel() for output in outputs if isinstance(output, Tensor)]
        return result


class TestTokenLogpsMemory:
    def test_no_tensor_is_larger_than_a_chunk(self) -> None:
        """Forward and backward, with entropy: 64 rows of 500 words in chunks of 8."""
        n, v, h, chunk = 64, 500, 4, 8
        hidden, weight = torch.randn(n, h, requires_grad=True), torch.randn(v, h, requires_grad=True)
        targets = torch.randint(0, v, (n,))
        with Sizes() as sizes:
            logps, entropy = token_logps(hidden, weight, targets, entropy=True, softcap=9.0, chunk_size=chunk)
            assert entropy is not None
            (logps + entropy).sum().backward()
        assert max(sizes.seen) == chunk * v
        assert chunk * v < n * v

    def test_nothing_with_a_vocabulary_is_saved_but_the_weight(self) -> None:
        saved: list[Tensor] = []
        hidden, weight, bias, targets = inputs()

        def note(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token_logps(hidden, weight, targets, bias=bias, entropy=True)
        assert sorted(t.numel() for t in saved) == sorted([N * H, V * H, V, N, N, N])

    def test_default_chunk_holds_a_bounded_number_of_logits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trueup.algorithms.tensors._CHUNK_ELEMENTS", 1000)
        hidden, weight, targets = torch.randn(64, 2), torch.randn(300, 2), torch.zeros(64, dtype=torch.long)
        with Sizes() as sizes:
            token_logps(hidden, weight, targets)
        assert max(sizes.seen) == 900
        monkeypatch.setattr("trueup.algorithms.tensors._CHUNK_ELEMENTS", 10)
        with Sizes() as sizes:
            token_logps(hidden, weight, targets)
        assert max(sizes.seen) == 600  # the weight's own transpose: a chunk is never less than a row


class TestTokenLogpsOnGpu:
    def test_torch_multiplies_gpu_halves_into_float32(self) -> None:
        """On a fake tensor, which checks types and shapes without a GPU."""
        with FakeTensorMode():
            a = torch.empty(8, 4, dtype=torch.bfloat16, device="cuda")
            assert _matmul(a, a.t()).dtype == torch.float32

    def test_the_path_of_halves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A GPU's path on the CPU, with its mixed product imitated: only the gradient of the logits is rounded."""
        plain = torch.mm

        def mixed(a: Tensor, b: Tensor, out_dtype: torch.dtype) -> Tensor:
            assert a.dtype == b.dtype == torch.bfloat16
            return plain(a.to(out_dtype), b.to(out_dtype))

        monkeypatch.setattr("trueup.algorithms.tensors._operand_dtype", lambda hidden, weight: torch.bfloat16)
        monkeypatch.setattr(torch, "mm", mixed)
        self.check_against_the_plain_path("cpu")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_bfloat16_on_a_gpu(self) -> None:
        self.check_against_the_plain_path("cuda")

    def check_against_the_plain_path(self, device: str) -> None:
        hidden, weight, bias, targets = inputs(torch.bfloat16)
        leaves = [t.detach().to(device).requires_grad_() for t in (hidden, weight, bias)]
        logps, entropy = token_logps(
            leaves[0], leaves[1], targets.to(device), bias=leaves[2], entropy=True, chunk_size=4
        )
        assert entropy is not None
        results = (logps.cpu(), entropy.cpu())
        wide = [t.detach().float().requires_grad_() for t in (hidden, weight, bias)]
        expected = slow_token_logps(wide[0], wide[1], targets, wide[2])
        torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-4)
        for fast, slow in zip(gradients(results, leaves), gradients(expected, wide), strict=True):
            torch.testing.assert_close(fast.cpu().float(), slow, rtol=0.03, atol=0.03)


class TestMaskedMean:
    def test_by_hand(self) -> None:
        """(1 + 4) / 2 = 2.5; what the mask hides may be anything, NaN included."""
        x = torch.tensor([1.0, float("nan"), 4.0, float("inf")], requires_grad=True)
        mean = masked_mean(x, torch.tensor([True, False, True, False]))
        assert mean.item() == 2.5
        (grad,) = torch.autograd.grad(mean, x)
        assert grad.tolist() == [0.5, 0.0, 0.5, 0.0]

    def test_of_nothing_is_nan(self) -> None:
        assert masked_mean(torch.ones(2), torch.zeros(2, dtype=torch.bool)).isnan()


class TestWhiten:
    def test_by_hand(self) -> None:
        """1, 2, 3: mean 2, unbiased variance (1 + 0 + 1) / 2 = 1, so -1, 0, 1; unshifted 1, 2, 3."""
        x = torch.tensor([1.0, 2.0, 3.0])
        torch.testing.assert_close(whiten(x), torch.tensor([-1.0, 0.0, 1.0]))
        torch.testing.assert_close(whiten(x, shift_mean=False), x)

    def test_padding_has_no_say(self) -> None:
        x, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, -7.0, 1e9]]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
        expected = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        torch.testing.assert_close(whiten(x, mask), expected)
        kept = whiten(x, mask, shift_mean=False)
        torch.testing.assert_close(kept, torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]))

    def test_mean_zero_and_variance_one(self) -> None:
        white = whiten(torch.randn(500, dtype=torch.float64) * 7 + 3)
        assert white.mean().item() == pytest.approx(0, abs=1e-9)
        assert white.var().item() == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0]])
    def test_without_spread_everything_is_zero(self, values: list[float]) -> None:
        assert not whiten(torch.tensor(values)).any()


class TestSegmentSum:
    def test_by_hand(self) -> None:
        """Branch 0: 1 + 2 = 3, branch 1: none = 0, branch 2: 4; the gradient of each element is its branch's."""
        x = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
        sums = segment_sum(x, torch.tensor([0, 0, 2]), 3)
        assert sums.tolist() == [3.0, 0.0, 4.0]
        (grad,) = torch.autograd.grad((sums * torch.tensor([1.0, 10.0, 100.0])).sum(), x)
        assert grad.tolist() == [1.0, 1.0, 100.0]


@pytest.mark.parametrize("bias", [False, True])
def test_kept_probabilities_change_no_gradient(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    """Few logits are kept as probabilities, many are computed again; a second backward pass finds none kept."""
    torch.manual_seed(4)
    hidden, weight = torch.randn(9, 6, dtype=torch.float64), torch.randn(13, 6, dtype=torch.float64)
    leaves = [hidden, weight, *([torch.randn(13, dtype=torch.float64)] if bias else [])]
    for one in leaves:
        one.requires_grad_()
    targets, slope = torch.randint(13, (9,)), torch.randn(9, dtype=torch.float64)

    def gradients(kept: int) -> list[torch.Tensor]:
        monkeypatch.setattr(tensors, "_KEPT_ELEMENTS", kept)
        given = leaves[2] if bias else None
        logps, _ = token_logps(hidden, weight, targets, bias=given, temperature=0.7, chunk_size=4)
        first = torch.autograd.grad((logps * slope).sum(), leaves, retain_graph=True)
        second = torch.autograd.grad((logps * slope).sum(), leaves)
        for one, other in zip(first, second, strict=True):
            torch.testing.assert_close(one, other)
        return list(first)

    for one, other in zip(gradients(9 * 13), gradients(9 * 13 - 1), strict=True):
        torch.testing.assert_close(one, other)
