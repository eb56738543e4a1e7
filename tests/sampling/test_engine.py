"""The engine under sampling: work counted; cache, rows and kinds of model against the library's and plain ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from sampling.test_sampling import PROMPTS, generated, make_stop, policy
from tiny import END_ID, tiny_network, tiny_tokenizer
from trueup.models.network import Network
from trueup.runtime import init
from trueup.sampling import Sample, sample
from trueup.sampling.cache import GrowingCache, WindowCache, new_cache
from trueup.sampling.draw import uniform_draws
from trueup.sampling.engine import compact_order


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@dataclass
class Work:
    """Shapes of the inputs of every forward pass since `counted`, prefills apart."""

    prefills: list[tuple[int, int]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def forwards(self) -> int:
        return len(self.prefills) + len(self.steps)


def counted(network: Network) -> Work:
    work = Work()

    def note(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        rows, width = inputs["input_ids"].shape
        if inputs["past_key_values"].get_seq_length() == 0:
            work.prefills.append((rows, width))
        else:
            work.steps.append(rows)

    network.sampled_roles.add("policy")  # as after the check of the first sample, whose forward passes do not count
    network.trunk("policy").register_forward_pre_hook(note, with_kwargs=True)
    return work


def mixed(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 1 to `longest` tokens."""
    rng = random.Random(seed)
    return [[rng.randrange(4, 260) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def ending(path: Any, **variant: Any) -> Network:
    """A policy whose answers end at various places."""
    network = policy(path, **variant)
    make_stop(network, END_ID, 3.0)
    return network


def alone(network: Network, prompts: list[list[int]], new: int, temperature: float, seed: int) -> list[Sample]:
    """Every prompt by itself: without a cache, a row, a padding token or a place that it could mix up with another's.

    A token is the first whose cumulated probability exceeds the row's number, from the whole sequence's logits.
    """
    model, found = network.trunk("policy").eval(), []
    for row, prompt in enumerate(prompts):
        ids: list[int] = []
        logps: list[float] = []
        for number in uniform_draws(seed, row, new):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1].double()
            table = torch.log_softmax(logits / (temperature or 1.0), -1)
            sums = table.exp().cumsum(-1)
            ids.append(int((sums <= number * sums[-1]).sum()) if temperature else int(table.argmax()))
            logps.append(float(table[ids[-1]]))
            if ids[-1] in network.renderer.stop_ids:
                break
        found.append(Sample(ids, ids[-1] in network.renderer.stop_ids, logps))
    return found


# ------------------------------------------------------------------ the same as each row alone


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("variant", [{}, {"attention": "eager", "pad": "eos"}], ids=str)
def test_a_batch_that_is_refilled_gives_what_each_prompt_gives_alone(tmp_path, variant, temperature):
    """Tokens and log-probabilities: of stop tokens, cut samples, first tokens, under the temperature drawn at."""
    network, prompts = ending(tmp_path, **variant), [*mixed(20, 24), [9]]
    want = alone(network, prompts, 16, temperature, seed=4)
    assert len({len(one.ids) for one in want}) > 3
    assert {one.finished for one in want} == {True, False}
    for budget in (16_384, 160, 1):  # all at once, four or more places, one place
        got = sample(network, prompts, max_new_tokens=16, temperature=temperature, seed=4, max_tokens=budget)
        assert got == want
        for one, other in zip(got, want, strict=True):
            assert one.logps == pytest.approx(other.logps, abs=1e-5)


def test_half_precision_gives_numbers_of_its_own(tmp_path):
    """bfloat16: the log-probabilities are float32's of the logits that were drawn from, near those of a plain run."""
    network, prompts = ending(tmp_path, dtype="bfloat16"), mixed(6, 12)
    for one, prompt in zip(sample(network, prompts, max_new_tokens=8, seed=2), prompts, strict=True):
        with torch.no_grad():
            logits = network.trunk("policy")(torch.tensor([prompt + one.ids]), use_cache=False).logits[0].float()
        table = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        plain = table.gather(-1, torch.tensor(one.ids)[:, None]).squeeze(-1)
        assert torch.tensor(one.logps) == pytest.approx(plain, abs=0.3)
        assert max(one.logps) < 0


# ------------------------------------------------------------------ the work


def test_places_are_refilled(tmp_path):
    """The work, counted: a batch of eight places runs about as often as its rows' tokens need, not until the slowest of
    every batch of eight has ended; and no row runs on after its end."""
    network, new = ending(tmp_path), 24
    prompts = [one[:3] for one in mixed(64, 40) if len(one) > 2]
    budget = 8 * (3 + new)
    padded_steps = sum(
        max(len(one.ids) for one in sample(network, prompts[at : at + 8], max_new_tokens=new, seed=at))
        for at in range(0, len(prompts), 8)
    )
    work = counted(network)
    samples = sample(network, prompts, max_new_tokens=new, seed=1, max_tokens=budget)
    tokens = sum(len(one.ids) for one in samples)
    assert sum(work.steps) == tokens - len(prompts)  # the first token of each comes from its prefill
    assert max(work.steps) == 8
    assert len(work.steps) < tokens / 8 + new
    assert len(work.steps) < 0.8 * padded_steps
    assert sum(rows for rows, _ in work.prefills) == len(prompts)


def test_waiting_prompts_start_some_at_a_time(tmp_path):
    """Of 64 places eight have to be free first: prefills are fewer than prompts."""
    network = ending(tmp_path)
    work = counted(network)
    sample(network, [[at, at + 1] for at in range(4, 204)], max_new_tokens=16, seed=1, max_tokens=64 * 18)
    assert work.prefills[0] == (64, 2)
    assert all(rows >= 8 for rows, _ in work.prefills[:-1])
    assert len(work.prefills) < 20


@pytest.mark.parametrize("places", [3, 8, 64])
def test_samples_of_one_prompt_share_its_prefill(tmp_path, places):
    """Five samples of each of four prompts: four rows of prefill, however many run at once. Tokens as without."""
    network = ending(tmp_path)
    prompts = [one for one in mixed(4, 9, seed=3) for _ in range(5)]
    want = alone(network, prompts, 12, 1.0, seed=6)
    work = counted(network)
    got = sample(network, prompts, max_new_tokens=12, seed=6, max_tokens=places * (max(map(len, prompts)) + 12))
    assert got == want
    assert len({tuple(one.ids) for one in got[:5]}) > 1
    assert sum(rows for rows, _ in work.prefills) == 4


def test_prefills_hardly_pad(tmp_path):
    """Short prompts are not run at the length of the longest."""
    network = policy(tmp_path, max_position_embeddings=2048)
    prompts = [[5 + at % 9] * length for at, length in enumerate((900, 880, 400, 390, 60, 50, 40, 30))]
    work = counted(network)
    sample(network, prompts, max_new_tokens=2, temperature=0)
    positions = sum(rows * width for rows, width in work.prefills)
    assert positions < 1.15 * sum(map(len, prompts))


def test_rows_that_end_at_once_never_step(tmp_path):
    network = policy(tmp_path)
    make_stop(network, END_ID, 200.0)
    work = counted(network)
    samples = sample(network, mixed(12, 5), max_new_tokens=9, seed=1, max_tokens=60)
    stopped = [one for one in samples if one.ids == [END_ID]]
    assert len(stopped) > 3
    assert sum(work.steps) == sum(len(one.ids) - 1 for one in samples)
    work.steps.clear()
    assert all(len(one.ids) == 1 for one in sample(network, mixed(12, 5), max_new_tokens=1, seed=1))
    assert work.steps == []


# ------------------------------------------------------------------ the cache


def test_the_cache_holds_what_the_librarys_would(tmp_path):
    """Rows that join, leave, move, grow past the buffer: each row's window is what `DynamicCache` has of it alone."""
    from transformers import DynamicCache

    rng = random.Random(5)
    config = tiny_network(tmp_path).trunks["base"].config
    cache, rows = new_cache(config), list[Any]()  # beside each row a DynamicCache of its own
    assert isinstance(cache, WindowCache)

    def columns(count: int, width: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.randn(count, 2, width, 8), torch.randn(count, 2, width, 8)) for _ in range(2)]

    def update(one: Any, states: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer, (keys, values) in enumerate(states):
            one.update(keys, values, layer)

    def newcomers() -> None:
        lengths = [rng.randint(1, 150) for _ in range(rng.randint(1, 4))]
        states, prefilled = columns(len(lengths), max(lengths)), DynamicCache(config=config)
        update(prefilled, states)
        sources = [at for at in range(len(lengths)) for _ in range(rng.randint(1, 2))]
        cache.join(prefilled, sources)
        for at in sources:
            rows.append(DynamicCache(config=config))
            cut = slice(max(lengths) - lengths[at], None)
            update(rows[-1], [(keys[at : at + 1, :, cut], values[at : at + 1, :, cut]) for keys, values in states])

    for turn in range(150):
        if not rows or turn % 11 == 0:
            newcomers()
        states = columns(len(rows), 1)
        update(cache, states)
        for at, own in enumerate(rows):
            update(own, [(keys[at : at + 1], values[at : at + 1]) for keys, values in states])
        if turn % 7 == 0:
            going = [at for at in range(len(rows)) if rng.random() < 0.7]
            order = compact_order(len(rows), going)
            assert sorted(order) == going
            assert all(row == at for at, row in enumerate(order) if at in going)
            rows[:] = [rows[at] for at in order]
            cache.keep(order, max((own.get_seq_length() for own in rows), default=0))
        for at, own in enumerate(rows):
            length = own.get_seq_length()
            for ours, theirs in zip(cache.layers, own.layers, strict=True):
                assert torch.equal(ours.keys[at : at + 1, :, -length:], theirs.keys)
                assert torch.equal(ours.values[at : at + 1, :, -length:], theirs.values)
        for layer in cache.layers:
            assert all(torch.isfinite(one).all() for one in (layer.keys, layer.values))
        assert cache.get_seq_length() >= max((own.get_seq_length() for own in rows), default=0)


MODELS: dict[str, tuple[str, str, dict[str, Any], type]] = {
    "grouped heads": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 8}, WindowCache),
    "learned positions": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4}, WindowCache),
    "alibi": ("BloomConfig", "BloomForCausalLM", {"n_layer": 2, "n_head": 4}, WindowCache),
    "sliding windows": ("MistralConfig", "MistralForCausalLM", {"sliding_window": 6}, GrowingCache),
    "convolutions": (
        "Lfm2Config", "Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
        GrowingCache,
    ),
    "recurrent alone": ("MambaConfig", "MambaForCausalLM", {"state_size": 8}, GrowingCache),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_of_every_kind_continue_as_generate_does(name):
    import transformers

    config, model, own, kind = MODELS[name]
    common = {
        "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": 0,
        "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": END_ID,
        "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    trunk = getattr(transformers, model)(getattr(transformers, config)(**common | own))
    assert isinstance(new_cache(trunk.config), kind)
    network = Network(trunk.eval(), tiny_tokenizer(), init("cpu", "float32"))
    network.add_frozen("policy")
    make_stop(network, END_ID, 3.0)
    prompts = [*mixed(9, 14, seed=2), *PROMPTS]
    want = generated(network, prompts, 16)
    for budget in (16_384, 100, 1):
        got = sample(network, prompts, max_new_tokens=16, temperature=0, max_tokens=budget)
        assert [one.ids for one in got] == want
    plain = alone(network, prompts, 16, 0.0, seed=0)
    for one, other in zip(got, plain, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-5)
