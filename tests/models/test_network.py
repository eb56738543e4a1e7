"""One backbone, many roles: the layout changes nothing, adapters do not touch each other, references stay put."""

from __future__ import annotations

import ast
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import families
import trueup
from tiny import END_ID, HIDDEN, lora, shake, tiny_folder, tiny_model, tiny_network, tiny_tokenizer
from trueup.config import SftConfig
from trueup.errors import ModelError
from trueup.export import export_adapter
from trueup.models.batching import Batch, Branch, Example, Layout, collate
from trueup.models.forward import branch_logps, check_lm_head, check_training_mode, forward_all
from trueup.models.loading import load_classifier, load_network
from trueup.models.network import Network
from trueup.runtime import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)  # PEFT draws a fresh adapter from the global generator


def branch(ids: list[int], mask: list[bool] | None = None) -> Branch:
    return Branch(ids, mask or [True] * len(ids))


def pairs() -> list[Example]:
    return [
        Example([5, 6, 7, 8, 9], (branch([20, 21, 22, END_ID]), branch([30, END_ID]))),
        Example(
            [5, 6], (branch([40, 41, 42, 43, 44, END_ID], [True, True, False, True, True, True]), branch([END_ID]))
        ),
        Example([50] * 12, (branch([60, END_ID]), branch([60, 61, 62, END_ID]))),
    ]


def batched(examples: list[Example], layout: Layout = "packed") -> Batch:
    return collate(examples, per="token", pad_id=0, layout=layout)


def gradients(network: Network) -> dict[str, Tensor]:
    found = {name: value.grad.clone() for name, value in network.trainable() if value.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def everything(network: Network, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Log-probabilities, entropies, values and scores of a batch, and the gradients of one objective of each."""
    logps, entropy = network(batch, "policy", "logps", entropy=True, temperature=0.7)
    slope = torch.linspace(-1, 1, len(logps))
    (logps @ slope + (entropy @ slope.flip(0))).backward()
    values, _ = network(batch, "value", "values")
    (values @ slope).backward()
    scores, _ = network(batch, "value", "scores")
    scores.square().sum().backward()
    return [one.detach() for one in (logps, entropy, values, scores)], gradients(network)


def compare(network: Network, layout: Layout) -> None:
    """A layout against one row a branch, and each pair alone against all together."""
    examples = pairs()
    shared, shared_gradients = everything(network, batched(examples, layout))
    plain, plain_gradients = everything(network, batched(examples, "plain"))
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    assert shared_gradients.keys() == plain_gradients.keys()
    whole = torch.stack([gradient.norm() for gradient in plain_gradients.values()]).norm()
    for name, gradient in plain_gradients.items():
        assert (shared_gradients[name] - gradient).norm() < 1e-5 * (gradient.norm() + 0.1 * whole), name
    alone = [everything(network, batched([one], layout))[0] for one in examples]
    for at, together in enumerate(shared):
        torch.testing.assert_close(torch.cat([one[at] for one in alone]), together, **CLOSE)


ATTENTION: list[tuple[str, Layout]] = [("sdpa", "packed"), ("sdpa", "shared"), ("eager", "shared")]


@pytest.mark.parametrize(("attention", "layout"), ATTENTION)
@pytest.mark.parametrize("tied", [True, False])
def test_the_layout_changes_nothing_with_lora(tmp_path, attention, layout, tied):
    network = tiny_network(tmp_path, attention=attention, tied=tied)
    network.add_trainable("policy", lora())
    network.add_trainable("value", lora(), head=True)
    shake(network, scale=0.2)
    assert network.layout == ("packed" if attention == "sdpa" else "shared")
    compare(network, layout)


@pytest.mark.parametrize(("attention", "layout"), ATTENTION)
def test_the_layout_changes_nothing_with_all_weights(tmp_path, attention, layout):
    network = tiny_network(tmp_path, attention=attention)
    network.add_trainable("policy", None)
    network.add_trainable("value", None, head=True)
    shake(network, scale=0.02)
    compare(network, layout)


def own_logps(model: torch.nn.Module, trunk: list[int], ids: list[int], temperature: float = 1.0) -> Tensor:
    """Return transformers' own full logits of a plain sequence."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([trunk + ids])).logits[0].float() / temperature
    return torch.log_softmax(logits, -1)[len(trunk) - 1 : -1].gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logps_equal_those_of_transformers(tmp_path, tied, temperature):
    network = tiny_network(tmp_path, tied=tied)
    network.add_frozen("policy")
    model = tiny_model(tied=tied)
    examples = pairs()
    want = [
        own_logps(model, one.trunk, side.ids, temperature)[torch.tensor(side.mask)]
        for one in examples
        for side in one.branches
    ]
    got = network.logps(batched(examples), temperature=temperature)
    torch.testing.assert_close(got, torch.cat(want), **CLOSE)


def steps(network: Network, role: str, count: int = 3) -> None:
    """A few steps of plain gradient descent on a role's log-probabilities or values."""
    place = network.roles[role]
    optimizer = torch.optim.SGD([value for _, value in network.trainable()], lr=0.1)
    for _ in range(count):
        if place.head is None:
            loss = -network.logps(batched(pairs()), role).mean()
        else:
            loss = (network(batched(pairs()), role, "values")[0] - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_the_reference_is_the_base_with_its_adapters_off(tiny_base):
    base = tiny_network(tiny_base)
    base.add_frozen("policy")
    want = base.logps(batched(pairs()))
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    network.add_reference()
    assert len(network.trunks) == 1
    fresh = network.logps(batched(pairs())).detach()
    assert torch.equal(network.logps(batched(pairs()), "reference"), want)
    torch.testing.assert_close(fresh, want, rtol=0, atol=1e-6)  # a fresh adapter adds exactly nothing
    steps(network, "policy")
    assert torch.equal(network.logps(batched(pairs()), "reference"), want)
    assert (network.logps(batched(pairs())) - want).abs().max() > 1e-2


def test_the_reference_of_a_fully_trained_policy_is_a_copy(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", None)
    network.add_reference()
    want = network.logps(batched(pairs()), "reference")
    assert torch.equal(network.logps(batched(pairs())), want)
    steps(network, "policy")
    assert torch.equal(network.logps(batched(pairs()), "reference"), want)
    assert (network.logps(batched(pairs())) - want).abs().max() > 1e-2


def test_the_reference_of_a_fully_trained_policy_is_a_copy_beside_adapters_too(tiny_base):
    """Adapters of another role must not make the policy its own reference."""
    network = tiny_network(tiny_base)
    network.add_trainable("policy", None)
    network.add_trainable("value", lora(), head=True)
    with pytest.raises(ModelError, match="reference"):
        network.add_reference()


def test_a_reference_of_its_own(tiny_base, tmp_path):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    network.add_reference(tiny_model(seed=7))
    other = tiny_network(tmp_path / "other", seed=7)
    other.add_frozen("policy")
    want = other.logps(batched(pairs()))
    assert torch.equal(network.logps(batched(pairs()), "reference"), want)
    assert not any(name.startswith("trunks.reference") for name, _ in network.trainable())


def weights(network: Network, adapter: str) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters() if f".{adapter}." in name}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_two_adapters_do_not_touch_each_other(tiny_base):
    def network_with(*roles: str) -> Network:
        network = tiny_network(tiny_base)
        for role in roles:
            torch.manual_seed(3)  # the same initial adapter, whether or not another one is there
            network.add_trainable(role, lora(), head=role == "value")
        return network

    both = network_with("policy", "value")
    value_before = weights(both, "value")
    steps(both, "policy")
    assert same(value_before, weights(both, "value"))
    policy_after = weights(both, "policy")
    steps(both, "value")
    assert same(policy_after, weights(both, "policy"))
    assert not same(value_before, weights(both, "value"))

    alone = network_with("policy")
    steps(alone, "policy")
    assert same(policy_after, weights(alone, "policy"))
    alone = network_with("value")
    steps(alone, "value")
    assert same(weights(both, "value"), weights(alone, "value"))


def test_only_trainable_roles_require_gradients_after_every_switch(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    network.add_reference()
    network.add_trainable("value", lora(), head=True)
    want = {name for name, _ in network.trainable()}
    assert want == {
        name
        for name, _ in network.named_parameters()
        if ".lora_A.policy." in name or ".lora_B.policy." in name or ".value." in name
    }
    for role in ("value", "reference", "policy", "reference", "value", "policy"):
        network.trunk(role)
        assert {name for name, value in network.named_parameters() if value.requires_grad} == want
    assert not network.logps(batched(pairs()), "reference").requires_grad
    assert network.logps(batched(pairs()), "policy").requires_grad


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
def test_adapters_over_embeddings_train(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora(targets=["embed_tokens", "q_proj"]))
    names = [name for name, _ in network.trainable()]
    assert sum("lora_embedding_" in name for name in names) == 2
    network.logps(batched(pairs())).sum().backward()
    assert all(value.grad is not None for _, value in network.trainable())


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
def test_adapters_over_the_lm_head(tmp_path, tied):
    network = tiny_network(tmp_path, tied=tied)
    network.add_trainable("policy", lora(targets=["lm_head", "v_proj"]))
    network.add_reference()
    network.add_trainable("other", lora(targets=["v_proj"]))
    shake(network, scale=0.3)
    for role in ("policy", "reference", "other"):
        for one in pairs():
            for at, side in enumerate(one.branches):
                want = own_logps(network.trunk(role), one.trunk, side.ids)[torch.tensor(side.mask)]
                batch = batched([one])
                got = network.logps(batch, role)[batch.branch_of == at]
                torch.testing.assert_close(got, want, **CLOSE)
    network.logps(batched(pairs())).sum().backward()
    head = [value.grad for name, value in network.trainable() if "lm_head" in name]
    assert len(head) == 2
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in head)


def test_targets_that_fit_no_layer(tiny_base):
    with pytest.raises(ModelError, match=r"lora\.targets.*nowhere"):
        tiny_network(tiny_base).add_trainable("policy", lora(targets=["nowhere"]))


def test_a_scorer_from_its_adapter(tiny_base, tmp_path):
    trained = tiny_network(tiny_base)
    trained.add_trainable("reward", lora(), head=True)
    shake(trained, scale=0.2)
    want = forward_all(trained, pairs(), "reward", "scores", max_tokens=60)
    assert want.std() > 0.01
    export_adapter(trained, tmp_path / "adapter", lora(), role="reward", base=tiny_base)

    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    network.add_reference()
    network.add_scorer("reward", tmp_path / "adapter", trainable=False)
    network.add_scorer("value", tmp_path / "adapter", trainable=True)
    assert {name.split(".")[-2] for name, _ in network.trainable() if "lora_" in name} == {"policy", "value"}
    assert [name for name, _ in network.trainable() if name.startswith("heads")] == ["heads.value.weight"]
    for role in ("reward", "value"):
        torch.testing.assert_close(forward_all(network, pairs(), role, "scores", max_tokens=60), want)
    steps(network, "value")
    steps(network, "policy")
    assert torch.equal(
        forward_all(network, pairs(), "reward", "scores", max_tokens=60),
        forward_all(network, pairs(), "reward", "scores", max_tokens=60),
    )
    torch.testing.assert_close(forward_all(network, pairs(), "reward", "scores", max_tokens=60), want)


def test_a_fresh_head_scores_zero(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("reward", None, head=True)
    assert torch.equal(network(batched(pairs()), "reward", "scores")[0], torch.zeros(6))


def test_an_untied_lm_head_behind_a_score_head_does_not_train(tmp_path):
    network = tiny_network(tmp_path, tied=False)
    network.add_trainable("reward", None, head=True)
    names = {name for name, _ in network.trainable()}
    assert "heads.reward.weight" in names
    assert "trunks.base.model.embed_tokens.weight" in names
    assert "trunks.base.lm_head.weight" not in names


def test_every_row_of_a_forward_in_the_examples_order(tiny_base):
    network = tiny_network(tiny_base)
    network.add_trainable("value", lora(), head=True)
    network.add_frozen("policy")
    shake(network, scale=0.2)
    network.train()
    for want, role in (("logps", "policy"), ("values", "value"), ("scores", "value")):
        whole = torch.cat([forward_all(network, [one], role, want, max_tokens=1) for one in pairs()])
        for budget in (1, 25, 500):
            torch.testing.assert_close(forward_all(network, pairs(), role, want, max_tokens=budget), whole, **CLOSE)
    assert network.training
    sums = branch_logps(network, pairs(), "policy", max_tokens=30)
    logps = forward_all(network, pairs(), "policy", "logps", max_tokens=30)
    ends = [0, 4, 6, 11, 12, 14, 18]
    torch.testing.assert_close(sums, torch.stack([logps[a:b].sum() for a, b in pairwise(ends)]))


def test_a_model_that_refuses_block_masks_gets_plain_rows(tiny_base, monkeypatch):
    network = tiny_network(tiny_base)
    network.add_frozen("policy")
    want = forward_all(network, pairs(), "policy", "logps", max_tokens=100)
    stubborn = tiny_network(tiny_base)
    stubborn.add_frozen("policy")
    inner = stubborn.trunks["base"].model
    plain = type(inner).forward

    def forward(self, *args, attention_mask=None, **kwargs):
        if self is inner and attention_mask is not None and attention_mask.ndim == 4:
            raise ValueError("only 2-D attention masks")
        return plain(self, *args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(type(inner), "forward", forward)
    monkeypatch.setattr(stubborn.trunks["base"].config, "_attn_implementation_internal", "eager")
    assert stubborn.layout == "plain"
    assert network.layout == "packed"
    torch.testing.assert_close(forward_all(stubborn, pairs(), "policy", "logps", max_tokens=100), want, **CLOSE)


def test_a_model_that_ignores_block_masks_gets_plain_rows(tiny_base, monkeypatch):
    network = tiny_network(tiny_base, attention="eager")
    network.add_frozen("policy")
    inner = network.trunks["base"].model
    plain = type(inner).forward
    monkeypatch.setattr(type(inner), "forward", lambda self, attention_mask=None, **rest: plain(self, **rest))
    assert network.layout == "plain"


def test_a_model_that_keeps_the_sequences_to_itself_gets_padded_rows(tiny_base, monkeypatch):
    """Its layers never hear where a sequence ends, so packed rows would leak from one into the next."""
    network = tiny_network(tiny_base)
    network.add_frozen("policy")
    inner = network.trunks["base"].model
    plain = type(inner).forward
    monkeypatch.setattr(type(inner), "forward", lambda self, sequences=None, **rest: plain(self, **rest))
    assert network.layout == "shared"


def test_a_sliding_window_gets_plain_rows(tmp_path):
    """transformers takes a 4-D mask as it is, window or not: a long row would see past the window."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=264, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    network = Network(MistralForCausalLM(config), tiny_tokenizer(), CPU)
    network.add_frozen("policy")
    assert network.layout == "plain"


def test_a_window_that_no_key_names_gets_plain_rows():
    """Under a shared prompt the second answer lies behind the first: a window by place hides the prompt from it."""
    from transformers import GPTNeoForCausalLM

    torch.manual_seed(0)
    model = GPTNeoForCausalLM(families.tiny_config("gpt_neo"))  # a window of 16
    model.config.window_size = 0
    for longest, layout in ((14, "shared"), (60, "plain")):
        network = Network(model, tiny_tokenizer(), CPU, longest=longest)
        network.add_frozen("policy")
        assert network.layout == layout


def test_gradient_checkpointing_changes_no_gradient(tiny_base):
    def run(checkpointing: bool) -> dict[str, Tensor]:
        network = tiny_network(tiny_base, gradient_checkpointing=checkpointing)
        torch.manual_seed(3)
        network.add_trainable("policy", lora())
        network.add_trainable("value", lora(), head=True)
        shake(network, scale=0.2)
        network.train()
        # Both roles before one backward pass: what is computed again must run under the adapter it ran under first.
        logps = network.logps(batched(pairs()))
        values = network(batched(pairs()), "value", "values")[0]
        network.trunk("policy")
        (logps.sum() + values.square().sum()).backward()
        assert network._selected == "policy"
        return gradients(network)

    plain, checkpointed = run(False), run(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(checkpointed[name], gradient, **CLOSE)


def test_gradient_checkpointing_with_all_weights(tiny_base):
    def run(checkpointing: bool) -> dict[str, Tensor]:
        network = tiny_network(tiny_base, gradient_checkpointing=checkpointing)
        network.add_trainable("policy", None)
        network.add_trainable("value", None, head=True)  # a copy of the trunk, whose layers are computed again too
        network.add_reference()
        shake(network, scale=0.02)
        network.train()
        values = network(batched(pairs()), "value", "values")[0]
        (network.logps(batched(pairs())).sum() + values.square().sum()).backward()
        return gradients(network)

    plain, checkpointed = run(False), run(True)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-5)


def test_half_precision_weights_get_float32_masters(tiny_base):
    network = tiny_network(tiny_base, dtype="bfloat16")
    assert next(network.trunks["base"].parameters()).dtype == torch.bfloat16
    network.add_trainable("policy", None)
    network.add_reference()
    assert {value.dtype for _, value in network.trainable()} == {torch.float32}
    assert {value.dtype for value in network.trunks["reference"].parameters()} == {torch.bfloat16}
    assert network.layout == "packed"
    logps = network.logps(batched(pairs()))
    assert logps.dtype == torch.float32
    torch.testing.assert_close(
        logps, network.logps(batched(pairs()), "reference"), rtol=0.05, atol=0.3
    )  # bfloat16 has 8 bits
    with_adapter = tiny_network(tiny_base, dtype="bfloat16")
    with_adapter.add_trainable("policy", lora())
    assert {value.dtype for _, value in with_adapter.trainable()} == {torch.float32}
    assert with_adapter.logps(batched(pairs())).dtype == torch.float32


def config_for(folder: str) -> SftConfig:
    return SftConfig.model_validate({"model": folder, "output": "unused", "data": "unused.jsonl"})


def test_a_tokenizer_larger_than_the_embedding(tmp_path):
    folder = tiny_folder(tmp_path, vocabulary=200)
    with pytest.raises(ModelError, match=r"260 tokens, the embedding only 200"):
        load_network(config_for(folder), CPU)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="cannot load the model"):
        load_network(config_for(str(tmp_path)), CPU)


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(tmp_path):
    folder = tiny_folder(tmp_path)
    path = Path(folder) / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    assert load_network(config_for(folder), CPU).tokenizer.pad_token_id == END_ID


def classifier_folder(path: Path, labels: int) -> str:
    from transformers import LlamaForSequenceClassification

    folder = Path(tiny_folder(path / "base"))
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.num_labels = labels
    torch.manual_seed(5)
    LlamaForSequenceClassification(config).save_pretrained(path / "classifier")
    return str(path / "classifier")


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_of_several_labels_is_no_reward_model(tmp_path, labels, monkeypatch):
    import trueup.models.loading

    folder = classifier_folder(tmp_path, labels)
    monkeypatch.setattr(trueup.models.loading, "_from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ModelError, match=rf"{labels} labels; a reward model has one"):
        load_classifier(folder, CPU)


def test_a_causal_model_is_no_reward_model(tiny_base):
    with pytest.raises(ModelError, match="LlamaForCausalLM, not a reward model"):
        load_classifier(tiny_base, CPU)


def test_a_classifier_as_value_model(tmp_path, tiny_base):
    classifier = load_classifier(classifier_folder(tmp_path, 1), CPU)
    network = tiny_network(tiny_base)
    network.add_trainable("policy", None)
    network.add_classifier("value", classifier, trainable=True)
    one = pairs()[0]
    with torch.no_grad():
        logits = classifier(input_ids=torch.tensor([one.trunk + one.branches[0].ids])).logits
    scores = forward_all(network, [one], "value", "scores", max_tokens=50)
    torch.testing.assert_close(scores[0], logits[0, 0], **CLOSE)
    assert {name.split(".")[1] for name, _ in network.trainable()} == {"base", "value"}
    before = scores.clone()
    steps(network, "value")
    assert not torch.equal(forward_all(network, [one], "value", "scores", max_tokens=50), before)


def test_an_encoder_is_no_reward_model():
    """BERT's classifier reads a pooled first token: its head on a last token's state would give nonsense silently."""
    from transformers import BertConfig, BertForSequenceClassification

    from trueup.models.weights import score_head

    tiny = BertConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1)
    with pytest.raises(ModelError, match="no linear `score` head"):
        score_head(BertForSequenceClassification(tiny))


def test_fingerprints_tell_weights_apart(tiny_base):
    from trueup.models.weights import weights_fingerprint

    model = tiny_model()
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(tiny_model()) == tiny_network(tiny_base).base_fingerprint
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    assert weights_fingerprint(model) != before


def test_a_model_whose_logits_are_made_otherwise_is_refused(tiny_base):
    """Its configuration says that logits are doubled, which a Llama does not do."""
    network = tiny_network(tiny_base)
    network.add_frozen("policy")
    check_lm_head(network)
    network.trunk("policy").config.logit_scale = 2.0
    with pytest.raises(ModelError, match="LM head"):
        check_lm_head(network)


def test_a_models_own_dropout_is_off_and_loras_is_not(tiny_base):
    network = tiny_network(tiny_base)
    network.trunks["base"].extra = torch.nn.Dropout(0.3)
    network.add_trainable("policy", lora(dropout=0.2))
    network.train()
    on = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout) and module.training}
    assert on == {0.2}


def test_dropout_that_is_no_module_is_off_too(tmp_path):
    """OPT calls F.dropout with a number that its layers keep: in training it would differ from itself."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=264, hidden_size=HIDDEN, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, dropout=0.5,
        attention_dropout=0.5, word_embed_proj_dim=HIDDEN, max_position_embeddings=128,
    )  # fmt: skip
    network = Network(OPTForCausalLM(config), tiny_tokenizer(), CPU)
    network.add_trainable("policy", None)
    batch = batched(pairs(), network.layout)
    quiet = network.eval().logps(batch)
    torch.testing.assert_close(network.train().logps(batch), quiet)


@pytest.mark.parametrize("model_type", ["gpt_bigcode", "mixtral", "phimoe", "seed_oss", "starcoder2", "xlnet"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_family_trains_with_its_own_dropout(model_type: str, checkpointing: bool) -> None:
    """Dropout of .1 in every field of the configuration that names one, and experts drawn at random (Phi-MoE)."""
    from transformers import AutoModelForCausalLM

    def states(**more: Any) -> list[Tensor]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(families.tiny_config(model_type))
        network = Network(model, tiny_tokenizer(), CPU, **more)
        if checkpointing and model.supports_gradient_checkpointing:
            network.enable_gradient_checkpointing()
        network.add_trainable("policy", None)
        batch = batched(pairs(), "plain")
        return [network.train(mode).states(batch, "policy").detach() for mode in (True, True, False)]

    first, again, tested = states()
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(first, tested)
    first, again, _ = states(model_dropout=True)
    assert not torch.allclose(first, again)


def test_a_policy_that_is_itself_only_in_evaluation_is_refused(tiny_base, monkeypatch) -> None:
    """Noise that asks no module whether it trains: the check before the first step runs as training does."""
    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora(dropout=0.5))
    check_training_mode(network)
    inner = network.trunks["base"].model
    plain = type(inner).forward

    def noisy(self, *args, **rest):
        output = plain(self, *args, **rest)
        output.last_hidden_state += 0.01 * torch.randn(()) * network.training
        return output

    monkeypatch.setattr(type(inner), "forward", noisy)
    with pytest.raises(ModelError, match=r"(?s)own dropout or noise is on.*model_dropout=true"):
        check_training_mode(network)


def other_architecture(name: str) -> Any:
    """A tiny model whose attention is not Llama's."""
    import transformers

    sizes = {"vocab_size": 264, "hidden_size": HIDDEN, "pad_token_id": 0}
    torch.manual_seed(5)
    if name == "GPTNeo":  # keeps keywords to itself, and half its layers see a window
        more = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4}
        config: Any = transformers.GPTNeoConfig(**sizes, **more)
    elif name == "Bloom":  # positions are in its attention's bias
        config = transformers.BloomConfig(**sizes, n_layer=2, n_head=4)
    else:  # a convolution runs on from one packed row into the next
        more = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
        config = transformers.Lfm2Config(
            **sizes, **more, num_hidden_layers=2, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
        )
    return config


@pytest.mark.parametrize("name", ["GPTNeo", "Bloom"])
def test_one_trunk_that_cannot_be_packed_decides_for_all(tiny_base, name):
    """A value model of another architecture beside a Llama: its values must be those of its rows alone."""
    from transformers import AutoModelForSequenceClassification

    network = tiny_network(tiny_base)
    network.add_trainable("policy", lora())
    assert network.layout == "packed"
    config = other_architecture(name)
    config.num_labels = 1
    network.add_classifier("value", AutoModelForSequenceClassification.from_config(config), trainable=False)
    assert network.layout in ("shared", "plain")
    want = network(batched(pairs(), "plain"), "value", "values")[0]
    torch.testing.assert_close(network(batched(pairs(), network.layout), "value", "values")[0], want, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_whose_state_runs_on_gets_plain_rows(dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(other_architecture("Lfm2")).to(dtype)
    network = Network(model, tiny_tokenizer(), Runtime(torch.device("cpu"), dtype))
    network.add_frozen("policy")
    assert network.layout == "plain"


def test_a_small_leak_between_packed_rows_is_found(tiny_base, monkeypatch):
    """A thousandth of the row before: closer to the right states than their tolerance, and wrong all the same."""
    network = tiny_network(tiny_base)
    network.add_frozen("policy")
    inner = network.trunks["base"].model
    plain = type(inner).forward

    def leaking(self, sequences=None, **rest):
        extra = {} if sequences is None else {"sequences": sequences}
        output = plain(self, **rest, **extra)
        if sequences is not None:
            output.last_hidden_state += 3e-4 * output.last_hidden_state.cumsum(1)
        return output

    monkeypatch.setattr(type(inner), "forward", leaking)
    assert network.layout == "shared"


def test_peft_is_imported_inside_the_functions_that_use_lora_only():
    """At the top of a module it would cost full fine-tuning half a second."""
    package = Path(trueup.__file__).parent
    at_the_top = [
        path
        for path in package.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "peft" in ast.unparse(node)
    ]
    assert not at_the_top
