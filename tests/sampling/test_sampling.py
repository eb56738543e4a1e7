"""Sampling: greedy is `generate`'s, seeds decide the rest, rows end at their stop token without moving the others."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tiny import END_ID, EOS_ID, lora, shake, tiny_network
from trueup.errors import TrainingError
from trueup.export import merged_state
from trueup.models.network import Network
from trueup.sampling import Sample, pick, sample

PROMPTS = [[5, 6, 7], [20] * 11, [30, 31], [9], [40, 41, 42, 43, 44, 45]]


@pytest.fixture(autouse=True)
def one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def policy(path, **variant) -> Network:
    network = tiny_network(path, **variant)
    network.add_frozen("policy")
    return network


def generated(network: Network, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Return the greedy continuations of transformers' own `generate`, cut behind the first stop token."""
    pad, width = network.tokenizer.pad_token_id, max(map(len, prompts))
    rows = torch.tensor([[pad] * (width - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    stops = sorted(network.renderer.stop_ids)
    output = network.trunk("policy").generate(
        rows, attention_mask=mask, do_sample=False, max_new_tokens=new, eos_token_id=stops, pad_token_id=pad
    )
    found = []
    for ids in output[:, width:].tolist():
        stop = next((at + 1 for at, token in enumerate(ids) if token in stops), len(ids))
        found.append(ids[:stop])
    return found


def make_stop(network: Network, token: int, lift: float) -> None:
    """Make a token likelier, so that rows end at various places."""
    weight = network.trunks["base"].get_output_embeddings().weight
    with torch.no_grad():
        weight[token] *= lift


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"pad": "eos"},
        {"pad": "eos", "padding_side": "left", "eos": "<|endoftext|>"},
        {"padding_side": "left", "tied": False},
        {"attention": "eager"},
    ],
    ids=str,
)
def test_greedy_equals_generate(tmp_path, variant):
    network = policy(tmp_path, **variant)
    make_stop(network, END_ID, 4.0)
    prompts = PROMPTS + [[60 + at, 61 + 2 * at, 100 - at] for at in range(8)]
    want = generated(network, prompts, 24)
    got = sample(network, prompts, max_new_tokens=24, temperature=0)
    assert [one.ids for one in got] == want
    stops = network.renderer.stop_ids
    assert [one.finished for one in got] == [ids[-1] in stops for ids in want]
    ends = {len(ids) for ids in want}
    assert len(ends) > 2, "the rows should end at different places"
    assert any(not one.finished for one in got)
    # Neither the batch nor its padding moves a row.
    assert [sample(network, [one], max_new_tokens=24, temperature=0)[0] for one in prompts] == got
    assert sample(network, prompts, max_new_tokens=24, temperature=0, max_tokens=80) == got


def test_every_stop_token_ends_a_row(tmp_path):
    network = policy(tmp_path, eos="<|endoftext|>")
    assert network.renderer.stop_ids == {END_ID, EOS_ID}
    make_stop(network, END_ID, 3.0)
    make_stop(network, EOS_ID, 3.0)
    samples = sample(network, [[at, at + 1] for at in range(10, 90)], max_new_tokens=12, seed=1)
    assert {one.ids[-1] for one in samples if one.finished} == {END_ID, EOS_ID}
    for one in samples:
        inside = one.ids[:-1] if one.finished else one.ids
        assert not {END_ID, EOS_ID} & set(inside)
        assert one.finished or len(one.ids) == 12


@pytest.mark.parametrize("new", [0, 1, 5])
def test_cut_at_max_new_tokens(tiny_base, new):
    for one in sample(policy(tiny_base), PROMPTS, max_new_tokens=new, temperature=0):
        assert len(one.ids) <= new
        assert len(one.ids) == new or one.finished
    assert sample(policy(tiny_base), [], max_new_tokens=new) == []


def test_seeds(tiny_base):
    network = policy(tiny_base)

    def draw(seed: int) -> list[Sample]:
        torch.manual_seed(seed * 31 + 5)  # the global generator plays no part
        return sample(network, PROMPTS, max_new_tokens=10, seed=seed)

    before = torch.get_rng_state()
    sample(network, PROMPTS, max_new_tokens=3, seed=9)
    assert torch.equal(torch.get_rng_state(), before)
    first = draw(1)
    torch.manual_seed(99)
    assert sample(network, PROMPTS, max_new_tokens=10, seed=1) == first
    assert draw(2) != first
    copies = sample(network, [PROMPTS[0]] * 6, max_new_tokens=10, seed=1)
    assert len({tuple(one.ids) for one in copies}) > 1


# ------------------------------------------------------------------ from logits to a token


def drawn(logits: torch.Tensor, draws: list[float], temperature: float = 1.0) -> list[int]:
    return pick(logits, torch.tensor(draws, dtype=torch.float64), temperature)[0].tolist()


def plainly(logits: torch.Tensor, draws: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cumulate the whole vocabulary in float64; return the tokens, and the distance of each number to an edge."""
    cumulated = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    goal = draws[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, goal, right=True).squeeze(-1), (cumulated - goal).abs().amin(-1)


def test_a_token_is_the_first_whose_cumulated_probability_exceeds_the_number():
    """Probabilities 0.25, 0, 0.5, 0.25: the token of probability 0 is never drawn, not even at the sum before it."""
    logits = torch.tensor([0.25, 0.0, 0.5, 0.25]).log().expand(6, 4)
    assert drawn(logits, [0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53]) == [0, 0, 2, 2, 3, 3]
    assert drawn(torch.tensor([0.0, -torch.inf, 0.0]).expand(2, 3), [0.5, 0.0]) == [2, 0]
    # Temperature one half squares them: 1/6, 0, 4/6, 1/6.
    assert drawn(logits[:3], [0.166, 0.167, 0.834], 0.5) == [0, 2, 3]


@pytest.mark.parametrize("words", [3, 255, 256, 257, 1000, 49_152])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_drawing_by_blocks_is_drawing_from_the_whole_vocabulary(words, temperature):
    generator = torch.Generator().manual_seed(words)
    logits = 3 * torch.randn(200, words, generator=generator)
    draws = torch.rand(200, dtype=torch.float64, generator=generator)
    tokens, logps = pick(logits, draws, temperature)
    want, margin = plainly(logits, draws, temperature)
    clear = margin > 1e-6  # nearer to an edge than that, float32's rounding of a probability may decide
    assert clear.sum() > 150
    assert torch.equal(tokens[clear], want[clear])
    table = torch.log_softmax(logits.double() / temperature, -1)
    assert torch.allclose(logps, table.gather(-1, tokens[:, None]).squeeze(-1), atol=2e-6)


def test_tokens_of_probability_zero_are_never_drawn():
    """Few words of thousands have any; numbers next to 0 and to 1, and at the edges themselves, draw one of these."""
    logits = torch.full((6, 3000), -torch.inf)
    alive = torch.tensor([7, 300, 511, 512, 2047])
    logits[:, alive] = torch.tensor([0.125, 0.25, 0.125, 0.25, 0.25]).log()
    assert drawn(logits, [0.0, 0.125, 0.375, 0.5, 0.75, 1 - 2**-53]) == [7, 300, 511, 512, 2047, 2047]
    assert drawn(logits[:1], [1 - 2**-30]) == [2047]
    assert drawn(logits[:1], [1.0]) == [2047]  # what float32 rounds a number next to 1 to
    one = torch.full((3, 1000), -torch.inf)
    one[:, 999] = 0.0
    assert drawn(one, [0.0, 0.5, 1 - 2**-53]) == [999] * 3
    tiny = torch.full((2, 1024), -80.0)  # next to nothing, but not nothing
    tiny[:, 400] = 0.0
    assert drawn(tiny, [1e-12, 1 - 1e-12]) == [400] * 2


def test_draws_follow_the_probabilities():
    """100,000 evenly spaced numbers: each word's share of them is its probability, to one number at either edge."""
    logits = 2 * torch.randn(700, generator=torch.Generator().manual_seed(3))
    draws = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    tokens = torch.cat([pick(logits.expand(1000, 700), some, 1.0)[0] for some in draws.split(1000)])
    assert tokens.sort().values.equal(tokens)  # a larger number never draws an earlier word
    shares = torch.bincount(tokens, minlength=700) / 100_000
    assert torch.allclose(shares, torch.softmax(logits.double(), -1).float(), atol=1.1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_not_sampled_from(bad, temperature, tiny_base):
    network = policy(tiny_base)
    with torch.no_grad():
        network.trunks["base"].get_output_embeddings().weight[50] = bad
    with pytest.raises(TrainingError, match="logits are NaN or infinite"):
        sample(network, PROMPTS, max_new_tokens=4, temperature=temperature)


# ------------------------------------------------------------------ rows beside each other


def test_a_sample_does_not_depend_on_the_rows_beside_it(tiny_base):
    """Rows draw from numbers of their own: other batch sizes, and other processes' shares, change nothing."""
    network = policy(tiny_base)
    make_stop(network, END_ID, 3.0)  # rows end at various places
    whole = sample(network, PROMPTS, max_new_tokens=12, seed=7)
    assert len({len(one.ids) for one in whole}) > 1
    for max_tokens in (1, 24, 40):
        assert sample(network, PROMPTS, max_new_tokens=12, seed=7, max_tokens=max_tokens) == whole
    shares: list[list[tuple[int, list[int], bool]]] = []
    for rank in range(3):
        network.runtime = Gathering(network.runtime, rank, shares)
        with pytest.raises(KeyError) if rank < 2 else nullcontext():  # not all rows are there yet
            together = sample(network, PROMPTS, max_new_tokens=12, seed=7)
    assert together == whole


def test_a_seed_for_each_prompt_gives_what_it_gives_alone(tiny_base):
    network = policy(tiny_base)
    make_stop(network, END_ID, 3.0)
    seeds = [5, 2, 5, 900, 0]
    together = sample(network, PROMPTS, max_new_tokens=12, seed=seeds)
    assert together == [
        sample(network, [one], max_new_tokens=12, seed=seed)[0] for one, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together != sample(network, PROMPTS, max_new_tokens=12, seed=5)


class Gathering:
    """One of three processes whose `gather` gives what those before it, and itself, brought."""

    def __init__(self, runtime, rank: int, shares: list) -> None:
        self.device, self.dtype, self.sharded = runtime.device, runtime.dtype, False
        self._rank, self._shares = rank, shares

    def share(self, items):
        return list(items[self._rank :: 3])

    def gather(self, items):
        self._shares.append(items)
        return [one for share in self._shares for one in share]


def test_samples_follow_the_distribution(tiny_base):
    """First tokens of many samples against the model's own probabilities, at a temperature that matters."""
    network, draws, temperature = policy(tiny_base), 3000, 0.5
    samples = sample(network, [PROMPTS[0]] * draws, max_new_tokens=1, temperature=temperature, seed=4)
    counts = torch.bincount(torch.tensor([one.ids[0] for one in samples]), minlength=264) / draws
    with torch.no_grad():
        logits = network.trunk("policy")(torch.tensor([PROMPTS[0]])).logits[0, -1]
    probabilities = torch.softmax(logits / temperature, -1)
    error = (probabilities * (1 - probabilities) / draws).sqrt()
    assert ((counts - probabilities).abs() <= 5 * error + 1e-3).all()


def test_a_role_samples_with_its_own_adapter(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    network.add_reference()
    shake(network, scale=0.3)
    merged = policy(tiny_base)
    merged.trunks["base"].load_state_dict(merged_state(network, "policy"))
    got = sample(network, PROMPTS, max_new_tokens=12, temperature=0)
    assert got == sample(merged, PROMPTS, max_new_tokens=12, temperature=0)
    drawn = sample(network, PROMPTS, max_new_tokens=12, seed=3)
    assert drawn == sample(merged, PROMPTS, max_new_tokens=12, seed=3)
    base = sample(policy(tiny_base), PROMPTS, max_new_tokens=12, temperature=0)
    assert sample(network, PROMPTS, role="reference", max_new_tokens=12, temperature=0) == base
    assert base != got


def test_check_can_stop_it_and_the_mode_comes_back(tiny_base, monkeypatch):
    network, calls = policy(tiny_base), []
    network.train()

    def check() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(network, "check_stop", check)
    with pytest.raises(KeyboardInterrupt):
        sample(network, PROMPTS, max_new_tokens=50)
    assert len(calls) == 4
    assert network.training
    monkeypatch.undo()
    sample(network, PROMPTS, max_new_tokens=2)
    assert network.training


def test_dropout_is_off_while_sampling(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora(dropout=0.5))
    shake(network, scale=0.3)
    network.train()
    greedy = [sample(network, PROMPTS, max_new_tokens=8, temperature=0) for _ in range(2)]
    assert greedy[0] == greedy[1]
    assert any(isinstance(one, nn.Dropout) for one in network.modules())


def test_tokens_stream_as_they_come(tiny_base):
    seen: list[int] = []
    samples = sample(policy(tiny_base), PROMPTS[:1], max_new_tokens=9, seed=5, on_token=seen.append)
    assert seen == samples[0].ids
