"""Exported folders open without trueup and compute the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

from tiny import END_ID, EOS_ID, lora, shake, tiny_network
from trueup.data.rendering.messages import Conversation, Message
from trueup.data.rendering.renderer import Renderer
from trueup.errors import ModelError
from trueup.export import writing as export
from trueup.export.merging import merge_kept_share
from trueup.export.proof import OUTPUTS_FILE, Proof, record_outputs
from trueup.export.proof_files import check_files, check_weights
from trueup.export.proof_fresh import Check, RecordedOutputs
from trueup.models.batching import Branch, Example, single
from trueup.models.forward import forward_all
from trueup.models.loading import load_classifier, load_network, load_tokenizer, matching_reward_adapter
from trueup.models.network import Network
from trueup.models.reward_model import classifier_reward, model_reward
from trueup.runtime import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
IDS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46], [1, 90, 80, 70, 60, 50, 40, 30]])
TALK = (Message("user", "What is the capital of France?"), Message("assistant", "Paris."))
ANSWERS = ["Paris.", "", "I do not know, but it may well be Paris.", "No"]
OTHER_EOS = {"eos": "<|endoftext|>", "pad": "eos", "padding_side": "left"}  # pads with another token than a turn's end
TIED = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")


@pytest.fixture(autouse=True)
def one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def trained(path: str | Path, *, full: bool = False, head: bool = False, targets="all-linear", **variant) -> Network:
    """A network whose policy (or reward) has moved away from its base."""
    network = tiny_network(path, **variant)
    role = "reward" if head else "policy"
    network.add_trainable(role, None if full else lora(targets=targets), head=head)
    shake(network, scale=0.05 if full else 0.2)
    return network


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> Tensor:
    return model.eval()(input_ids=IDS).logits.float()


@TIED
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", ["full", "all-linear", ["lm_head", "q_proj"], ["embed_tokens", "q_proj"]], ids=str)
def test_a_policy_loads_in_transformers(tmp_path, tied, targets):
    full = targets == "full"
    network = trained(tmp_path / "base", full=full, targets=targets, tied=tied)
    base = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    want = logits_of(network.trunk("policy"))
    config = network.trunk("policy").config.to_dict()
    export.export_policy(network, tmp_path / "model")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(logits_of(model), want, **CLOSE)
    assert (want - base).abs().max() > 0.1
    assert network.trunk("policy").config.to_dict() == config  # exporting leaves the network as it was
    torch.testing.assert_close(logits_of(network.trunk("policy")), want)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "model"]


@TIED
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_tied_head_comes_apart_where_only_one_side_was_adapted(tmp_path, target):
    """A configuration that still said "tied" would lose one of the two matrices in tools that believe it."""
    network = trained(tmp_path / "base", targets=[target])
    export.export_policy(network, tmp_path / "model")
    assert not json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"]
    assert network.trunk("policy").config.tie_word_embeddings


def test_a_tied_head_stays_tied(tmp_path):
    network = trained(tmp_path / "base")
    export.export_policy(network, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    "variant", [{}, {"pad": "eos"}, {"eos": "<|endoftext|>", "pad": "eos", "padding_side": "left"}]
)
def test_tokenizer_template_and_stops_go_along(tmp_path, variant):
    network = trained(tmp_path / "base", **variant)
    export.export_policy(network, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    turns = [{"role": one.role, "content": one.content} for one in TALK]
    rendered = network.renderer.conversation(TALK)
    assert tokenizer.apply_chat_template(turns, return_dict=False)[: len(rendered.ids)] == rendered.ids
    assert Renderer(tokenizer).conversation(TALK) == rendered
    assert tokenizer.padding_side == network.tokenizer.padding_side
    assert tokenizer.pad_token_id == network.tokenizer.pad_token_id

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    stops = model.generation_config.eos_token_id
    assert set(stops if isinstance(stops, list) else [stops]) == network.renderer.stop_ids
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))

    def always_end(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:] = -1e9
        scores[:, END_ID] = 0
        return scores

    output = model.generate(torch.tensor([[5, 6]]), max_new_tokens=9, do_sample=False, logits_processor=[always_end])
    assert output.tolist() == [[5, 6, END_ID]]
    assert len(calls) == 1


def reward_examples(network: Network) -> list[Example]:
    renderer, prompt = network.renderer, TALK[:1]
    examples = []
    for answer in ANSWERS:
        tail = renderer.continuation(prompt, [Message("assistant", answer)]) if answer else None
        ids = tail.ids if tail else [renderer.end_id]
        examples.append(Example(renderer.prompt(prompt), (Branch(ids, [True] * len(ids)),)))
    return examples


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    "variant",
    [{}, {"pad": "eos", "tied": False}, {"eos": "<|endoftext|>", "pad": "eos", "padding_side": "left"}],
    ids=str,
)
def test_a_reward_model_loads_in_transformers(tmp_path, full, variant):
    network = trained(tmp_path / "base", full=full, head=True, **variant)
    examples = reward_examples(network)
    want = forward_all(network, examples, "reward", "scores", max_tokens=200)
    assert want.std() > 0.05
    export.export_reward(network, tmp_path / "model")
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values())
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = [one.trunk + one.branches[0].ids for one in examples]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits[:, 0] for row in rows])
        torch.testing.assert_close(alone, want, **CLOSE)
        for side in ("right", "left"):
            tokenizer.padding_side = side
            padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            torch.testing.assert_close(model(**padded).logits[:, 0], want, **CLOSE)
    # The tokenizer written beside it renders what the reward model was trained on.
    assert tokenizer.pad_token_id != network.renderer.end_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert Renderer(tokenizer).conversation(TALK) == network.renderer.conversation(TALK)
    assert network.tokenizer.pad_token_id == load_tokenizer(str(tmp_path / "base")).pad_token_id

    config = config_for(tmp_path / "base")
    conversations = [Conversation((*TALK[:1], Message("assistant", answer))) for answer in ANSWERS]
    place = str(tmp_path / "model")
    alone = classifier_reward(load_classifier(place, CPU), load_tokenizer(place), CPU, max_tokens=config.max_tokens)
    torch.testing.assert_close(alone(conversations), want, **CLOSE)
    torch.testing.assert_close(model_reward(network, max_tokens=90)(conversations), want, **CLOSE)


def config_for(folder: Path):
    from trueup.config import SftConfig

    return SftConfig.model_validate({"model": str(folder), "output": "unused", "data": "unused.jsonl"})


def test_a_reward_model_trained_on_from_a_classifier_loads_again(tmp_path):
    first = trained(tmp_path / "base", full=True, head=True)
    export.export_reward(first, tmp_path / "first")
    classifier = load_classifier(str(tmp_path / "first"), CPU)
    network = tiny_network(tmp_path / "base")
    network.add_classifier("reward", classifier, trainable=True)
    shake(network, scale=0.05, seed=8)
    want = forward_all(network, reward_examples(network), "reward", "scores", max_tokens=200)
    export.export_reward(network, tmp_path / "second")
    again = load_classifier(str(tmp_path / "second"), CPU)
    row = reward_examples(network)[0]
    with torch.no_grad():
        logits = again(input_ids=torch.tensor([row.trunk + row.branches[0].ids])).logits
    torch.testing.assert_close(logits[0, 0], want[0], **CLOSE)


@TIED
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["lm_head", "q_proj"]], ids=str)
def test_a_policy_adapter_loads_in_peft(tmp_path, targets):
    network = trained(tmp_path / "base", targets=targets, tied=False)
    want = logits_of(network.trunk("policy"))
    export.export_adapter(network, tmp_path / "adapter", lora(), role="policy", base=str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(logits_of(PeftModel.from_pretrained(base, tmp_path / "adapter")), want, **CLOSE)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tmp_path / "base")
    assert (settings["r"], settings["lora_alpha"], settings["task_type"]) == (4, 8, "CAUSAL_LM")


def test_a_reward_adapter_loads_in_peft(tmp_path):
    network = trained(tmp_path / "base", head=True)
    examples = reward_examples(network)
    want = forward_all(network, examples, "reward", "scores", max_tokens=200)
    export.export_adapter(network, tmp_path / "adapter", lora(), role="reward", base=str(tmp_path / "base"))
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        rows = [torch.tensor([one.trunk + one.branches[0].ids]) for one in examples]
        scores = torch.cat([model(input_ids=row).logits[:, 0] for row in rows])
    torch.testing.assert_close(scores, want, **CLOSE)


def test_an_adapter_of_one_role_holds_nothing_of_the_others(tmp_path):
    from safetensors.torch import load_file

    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", lora())
    network.add_trainable("value", lora(), head=True)
    export.export_adapter(network, tmp_path / "adapter", lora(), role="policy", base="base")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2
    assert not any("value" in name or "policy" in name or "score" in name for name in weights)


def test_a_reward_adapter_fits_only_its_own_base(tmp_path):
    network = trained(tmp_path / "base", head=True)
    run = tmp_path / "run"
    export.export_adapter(network, run / "adapter", lora(), role="reward", base="base")
    assert matching_reward_adapter(run, tiny_network(tmp_path / "base")) == run / "adapter"
    assert matching_reward_adapter(run, tiny_network(tmp_path / "other", seed=5)) is None
    assert matching_reward_adapter(tmp_path / "nothing", network) is None
    policy = trained(tmp_path / "base")
    export.export_adapter(policy, tmp_path / "sft" / "adapter", lora(), role="policy", base="base")
    assert matching_reward_adapter(tmp_path / "sft", policy) is None


def half_kept(network: Network, *deltas: float) -> None:
    """Every weight of the adapted layers 1; every row of a layer's delta one of `deltas`, in turn."""
    with torch.no_grad():
        for module in network.modules():
            if "policy" in getattr(module, "lora_A", {}):
                module.get_base_layer().weight.fill_(1.0)
                down, up = module.lora_A["policy"].weight, module.lora_B["policy"].weight
                down.zero_()[0] = 1.0
                rows = torch.tensor(deltas).repeat(up.shape[0] // len(deltas))
                up.zero_()[:, 0] = rows / module.scaling["policy"]


@pytest.mark.parametrize(
    ("deltas", "share"),
    [((0.003, 0.003), 0.0), ((0.003, 0.006), 0.006 * 0.0078125 / (0.003**2 + 0.006**2)), ((0.0078125, 0.015625), 1.0)],
)
def test_a_merge_that_bfloat16_would_undo_is_written_in_float32(tmp_path, deltas, share):
    """After 1, bfloat16 goes on with 1 + 2^-7 = 1.0078: 1.003 rounds back to 1, 1.006 up to 1.0078."""
    network = tiny_network(tmp_path / "base", dtype="bfloat16")
    network.add_trainable("policy", lora(targets=["down_proj"]))
    half_kept(network, *deltas)
    assert merge_kept_share(network, "policy") == pytest.approx(share, abs=1e-6)
    export.export_policy(network, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == (torch.bfloat16 if share == 1 else torch.float32)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["tie_word_embeddings"]
    weight = model.model.layers[1].mlp.down_proj.weight.float()
    assert weight[:2, 0].tolist() == pytest.approx([1 + delta for delta in deltas], abs=1e-7)
    assert network.trunk("policy").dtype == torch.bfloat16


def test_without_adapter_nothing_is_lost(tmp_path):
    assert merge_kept_share(trained(tmp_path / "base", full=True), "policy") == 1.0


@pytest.fixture
def finished_run(tmp_path):
    network = trained(tmp_path / "base")
    run = tmp_path / "run"
    run.mkdir()
    record_outputs(network, "policy", [single(network.renderer.conversation(TALK))], run / OUTPUTS_FILE)
    export.export_policy(network, run / "model")
    export.export_adapter(network, run / "adapter", lora(), role="policy", base=str(tmp_path / "base"))
    return run


@pytest.fixture
def believed(monkeypatch):
    """The proofs pass unseen: test_proof.py looks at them, and they take seconds."""

    def prove(folder: Path, record: Path, **_: object) -> Proof:
        versions = dict.fromkeys(("torch", "transformers", "peft"), "1")
        return Proof((Check("files", True, "believed"),), versions, RecordedOutputs(str(record)), 0.0)

    monkeypatch.setattr(export, "prove", prove)


def test_run_copies_converts_and_takes_adapters(finished_run, tmp_path, capsys, believed):
    want = logits_of(AutoModelForCausalLM.from_pretrained(finished_run / "model"))
    assert export.run(finished_run, tmp_path / "plain") == tmp_path / "plain"
    assert f"written to {tmp_path / 'plain'}" in " ".join(capsys.readouterr().out.split())
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "plain")), want)
    export.run(finished_run, tmp_path / "half", dtype="bfloat16")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert half.dtype == torch.bfloat16
    assert (logits_of(half) - want).norm() < 0.05 * want.norm()
    assert AutoTokenizer.from_pretrained(tmp_path / "half").chat_template
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("plain", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    export.run(finished_run, tmp_path / "adapter", merge=False)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(logits_of(PeftModel.from_pretrained(base, tmp_path / "adapter")), want, **CLOSE)
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter").chat_template
    assert GenerationConfig.from_pretrained(tmp_path / "adapter").eos_token_id == END_ID
    export.run(finished_run / "model", tmp_path / "from-model", dtype="float16")  # a model folder is as good as its run
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "from-model").dtype == torch.float16
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_where_it_is_written_by_default(finished_run, believed):
    found = [export.run(finished_run), export.run(finished_run, merge=False), export.run(finished_run, dtype="float16")]
    assert [path.relative_to(finished_run).name for path in found] == ["export", "export-adapter", "export-float16"]
    assert export.run(finished_run / "model") == finished_run / "model-export"
    with pytest.raises(ModelError, match="exists already"):
        export.run(finished_run)
    with pytest.raises(ModelError, match="is inside"):
        export.run(finished_run, finished_run / "model" / "inside")


def test_a_model_in_shards_is_cast_with_its_index(finished_run, tmp_path, believed):
    model = AutoModelForCausalLM.from_pretrained(finished_run / "model")
    want = logits_of(model)
    (finished_run / "model" / "model.safetensors").unlink()
    model.save_pretrained(finished_run / "model", max_shard_size="30KB")
    assert len(list((finished_run / "model").glob("*.safetensors"))) > 2
    export.run(finished_run, tmp_path / "half", dtype="float16")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert (half.dtype, (logits_of(half) - want).norm() < 0.01 * want.norm()) == (torch.float16, True)
    assert check_files(tmp_path / "half").passed
    assert check_weights(tmp_path / "half").passed
    index = json.loads((tmp_path / "half" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(2 * one.numel() for one in half.parameters())


def test_weights_are_as_readable_as_what_lies_beside_them(finished_run, tmp_path, believed):
    export.run(finished_run, tmp_path / "half", dtype="float16")
    for folder in (finished_run / "model", finished_run / "adapter", tmp_path / "half"):
        assert len({path.stat().st_mode & 0o777 for path in folder.iterdir()}) == 1


def test_a_reward_model_scores_in_a_pipeline(tmp_path):
    """The text up to and with the end token is what was trained on; a template's own new line behind it is not."""
    network = trained(tmp_path / "base", head=True)
    talks = [(TALK[0], Message("assistant", answer)) for answer in ANSWERS if answer]
    examples = [single(network.renderer.conversation(talk)) for talk in talks]
    want = forward_all(network, examples, "reward", "scores", max_tokens=200)
    export.export_reward(network, tmp_path / "model")
    score = pipeline("text-classification", model=str(tmp_path / "model"), function_to_apply="none", batch_size=3)
    turns = [[{"role": one.role, "content": one.content} for one in talk] for talk in talks]
    texts = [score.tokenizer.apply_chat_template(one, tokenize=False).removesuffix("\n") for one in turns]
    scores = torch.tensor([one["score"] for one in score(texts)])
    torch.testing.assert_close(scores, want, **CLOSE)


class Hub:
    """Stands for huggingface_hub.HfApi."""

    def __init__(self, *, files=(), private=False, error: Exception | None = None) -> None:
        self.files, self.private, self.error, self.calls = list(files), private, error, []

    def __call__(self) -> Hub:
        return self

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> str:
        self.calls.append(("create", name, private))
        if self.error:
            raise self.error
        return f"https://hub/{name}"

    def repo_info(self, name: str):
        return SimpleNamespace(private=self.private)

    def list_repo_files(self, name: str) -> list[str]:
        return self.files

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.calls.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_what_is_proven_is_uploaded(finished_run, monkeypatch, believed, capsys):
    hub = Hub(files=["README.md", "model.safetensors"])
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    output = export.run(finished_run, push_to_hub="me/mine")
    assert hub.calls[0] == ("create", "me/mine", None)  # the owner's default
    assert hub.calls[1] == ("upload", "me/mine", sorted(path.name for path in output.iterdir()))
    assert OUTPUTS_FILE not in hub.calls[1][2]
    assert "uploaded to https://hub/me/mine" in capsys.readouterr().out
    hub = Hub(private=True)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    export.run(finished_run, dtype="float16", push_to_hub="me/mine", private=True)
    assert hub.calls[0] == ("create", "me/mine", True)


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        (Hub(error=huggingface_hub.errors.LocalTokenNotFoundError("Token is required")), "hf auth login"),
        (Hub(error=ConnectionError("no route")), "ConnectionError: no route"),
        (Hub(files=["model-00001-of-00002.safetensors"]), "holds weights that are not in this export"),
        (Hub(private=False), "--private: me/mine exists and is public"),
    ],
)
def test_what_cannot_be_uploaded_stays(finished_run, monkeypatch, believed, hub, says):
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    with pytest.raises(ModelError, match=re.escape(says)) as caught:
        export.run(finished_run, push_to_hub="me/mine", private="public" in says)
    assert f"hf upload me/mine {finished_run / 'export'}" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6
    assert not [call for call in hub.calls if call[0] == "upload"]
    assert (finished_run / "export" / "model.safetensors").is_file()


def test_what_is_not_proven_is_not_uploaded(finished_run, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    shutil.copy(finished_run.parent / "base" / "model.safetensors", finished_run / "model")
    with pytest.raises(ModelError, match="this is the base, unchanged"):
        export.run(finished_run, push_to_hub="me/mine")
    assert hub.calls == []
    with pytest.raises(ModelError, match="owner/name"):
        export.run(finished_run, push_to_hub="mine")


def test_run_refuses(finished_run, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        export.run(finished_run, tmp_path / "taken")
    with pytest.raises(ModelError, match="'float8' is unknown"):
        export.run(finished_run, tmp_path / "out", dtype="float8")
    with pytest.raises(ModelError, match="has no adapter"):
        export.run(finished_run / "model", tmp_path / "out", merge=False)
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(ModelError, match="no model"):
        export.run(tmp_path / "unfinished", tmp_path / "out")
    with pytest.raises(ModelError, match="nowhere"):
        export.run(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ModelError, match="dtype"):
        export.run(finished_run, tmp_path / "out", merge=False, dtype="bfloat16")
    assert not (tmp_path / "out").exists()


def test_an_exported_model_trains_on(tmp_path):
    network = trained(tmp_path / "base")
    export.export_policy(network, tmp_path / "model")
    again = load_network(config_for(tmp_path / "model"), CPU)
    again.add_trainable("policy", lora())
    torch.testing.assert_close(logits_of(again.trunk("policy")), logits_of(network.trunk("policy")), **CLOSE)
    assert again.renderer.stop_ids == network.renderer.stop_ids
    assert EOS_ID not in again.renderer.stop_ids
