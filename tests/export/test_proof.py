"""A fresh process proves an export: what is as it was passes, with small differences; every planted fault fails."""

from __future__ import annotations

import ast
import json
import shutil
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import END_ID, EOS_ID, PAD_ID, TEMPLATE, lora, shake, tiny_folder, tiny_network
from trueup.data.rendering.messages import Message
from trueup.errors import ModelError
from trueup.export import proof, proof_fresh
from trueup.export import writing as export
from trueup.export.proof import OUTPUTS_FILE, Proof, prove, record_outputs
from trueup.export.proof_files import check_files, check_rounding, check_weights
from trueup.export.proof_fresh import Check, RecordedOutputs
from trueup.models.batching import Branch, Example, single
from trueup.models.network import Network

TALKS = [
    (Message("user", "What is the capital of France?"), Message("assistant", "Paris.")),
    (Message("user", "Add 2 and 3."), Message("assistant", "5")),
    (Message("user", "Name a colour."), Message("assistant", "Green, as grass is.")),
    (Message("system", "Be kind."), Message("user", "Hello"), Message("assistant", "Hello! How are you?")),
]
TIED = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")


@pytest.fixture(autouse=True)
def one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@dataclass
class Run:
    """A finished run: its folder, and the network that was trained, still in memory."""

    path: Path
    network: Network
    role: str

    @property
    def model(self) -> Path:
        return self.path / "model"

    def prove(self, folder: str = "model", **how: Any) -> Proof:
        return prove(self.path / folder, self.path / OUTPUTS_FILE, **how)


def trained_run(path: Path, *, full=False, head=False, scale=0.2, targets="all-linear", dtype="float32", **base) -> Run:
    """Files of a finished stage: recorded outputs, exported model and adapter. The base is in the same folder."""
    network = tiny_network(path / "base", dtype=dtype, **base)
    role = "reward" if head else "policy"
    network.add_trainable(role, None if full else lora(targets=targets), head=head)
    shake(network, scale=scale / 4 if full else scale)
    run = Run(path / "run", network, role)
    run.path.mkdir()
    examples = [single(network.renderer.conversation(talk)) for talk in TALKS]
    record_outputs(network, role, examples, run.path / OUTPUTS_FILE, prompt=lambda at: TALKS[at][:-1])
    (export.export_reward if head else export.export_policy)(network, run.model)
    if not full:
        folder = run.path / "adapter"
        export.export_adapter(network, folder, lora(), role=role, base=str(path / "base"))
        export._add_tokenizer(run.model, folder, False)
    return run


def change_weight(folder: Path, change, file: str = "model.safetensors", suffix: str = "down_proj.weight") -> str:
    """Apply `change` to the last weight whose name ends with `suffix`. -> its name"""
    weights = load_file(folder / file)
    name = [one for one in weights if one.endswith(suffix)][-1]
    weights[name] = change(weights[name])
    save_file(weights, folder / file, metadata={"format": "pt"})
    return name


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def at_one_place(amount: float):
    def change(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight[3, 1] += amount
        return weight

    return change


def by_name(made: Proof) -> dict[str, Check]:
    return {check.name: check for check in made.checks}


def failed(made: Proof) -> set[str]:
    return {check.name for check in made.failures}


# -- what is recorded ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_record_is_what_the_network_in_memory_computes(tmp_path):
    run = trained_run(tmp_path)
    record, trunk = RecordedOutputs(str(run.path / OUTPUTS_FILE)), run.network.trunk("policy")
    rows = [run.network.renderer.conversation(talk).ids for talk in TALKS]
    assert sorted(record.rows) == sorted(rows)
    assert len({len(row) for row in record.rows}) == 4
    start = 0
    for at, row in enumerate(record.rows):
        logits = trunk(input_ids=torch.tensor([row])).logits[0]
        torch.testing.assert_close(record.tensors["logits"][at], logits[-1])
        wanted = torch.stack([logits[i].log_softmax(-1)[token] for i, token in enumerate(row[1:])])
        torch.testing.assert_close(record.tensors["logps"][start : start + len(row) - 1], wanted)
        assert record.tensors["top"].split(record.about["lengths"])[at].tolist() == logits.argmax(-1).tolist()
        start += len(row) - 1
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(
        record.tensors["base_logits"][0], base(input_ids=torch.tensor([record.rows[0]])).logits[0, -1]
    )
    assert (record.tensors["base_logits"] - record.tensors["logits"]).abs().max() > 0.1
    assert (record.about["end_id"], record.about["stop_ids"]) == (END_ID, [END_ID])


@torch.no_grad()
def test_a_bfloat16_run_is_recorded_in_float32_and_left_as_it_was(tmp_path):
    network = tiny_network(tmp_path / "base", dtype="bfloat16")
    network.add_trainable("policy", lora())
    shake(network, scale=0.2)
    network.train()
    before = {name: (value.dtype, value.data_ptr(), value.clone()) for name, value in network.named_parameters()}
    runtime, roles = network.runtime, dict(network.roles)
    example = single(network.renderer.conversation(TALKS[0]))
    record_outputs(network, "policy", [example], tmp_path / OUTPUTS_FILE)
    assert (network.runtime, network.roles, network.training) == (runtime, roles, True)
    for name, value in network.named_parameters():
        dtype, address, data = before[name]
        assert (value.dtype, value.data_ptr()) == (dtype, address)
        assert torch.equal(value, data)
    record = RecordedOutputs(str(tmp_path / OUTPUTS_FILE))
    assert (record.about["dtype"], record.about["loaded"]) == ("float32", "bfloat16")
    wide = deepcopy(network.trunk("policy")).float().eval()
    logits = wide(input_ids=torch.tensor(record.rows)).logits[0, -1]
    torch.testing.assert_close(record.tensors["logits"][0], logits)
    network.eval()
    assert (network.trunk("policy")(input_ids=torch.tensor(record.rows)).logits[0, -1].float() - logits).norm() > 0.01


def test_rows_are_few_short_and_of_different_lengths(tmp_path):
    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", lora())
    lengths = [9, 3, 3, 700, 3, 5, 400, 4, 300, 6, 7, 8]
    examples = [Example([5], (Branch([6] * (length - 2) + [END_ID], [True] * (length - 1)),)) for length in lengths]
    record_outputs(network, "policy", examples, tmp_path / OUTPUTS_FILE)
    assert RecordedOutputs(str(tmp_path / OUTPUTS_FILE)).about["lengths"] == [3, 4, 5, 6, 7, 8, 9, 256]
    record_outputs(network, "policy", examples[3:4], tmp_path / OUTPUTS_FILE)
    [row] = RecordedOutputs(str(tmp_path / OUTPUTS_FILE)).rows
    assert (len(row), row[-1]) == (256, END_ID)  # cut, and the end token is still where a score would be read
    record_outputs(network, "policy", examples[1:3], tmp_path / OUTPUTS_FILE)
    assert RecordedOutputs(str(tmp_path / OUTPUTS_FILE)).about["lengths"] == [3, 3]
    record_outputs(
        network, "policy", [Example([5, 6, 7], ())], tmp_path / OUTPUTS_FILE
    )  # a prompt without an answer (PPO)
    assert RecordedOutputs(str(tmp_path / OUTPUTS_FILE)).rows == [[5, 6, 7]]


# -- what is as it was -----------------------------------------------------------------------------------------------


def test_an_adapter_merged_and_alone_is_proven(tmp_path):
    run = trained_run(tmp_path)
    for folder in ("model", "adapter"):
        made = run.prove(folder)
        checks = by_name(made)
        assert failed(made) == set()
        assert checks["logits"].numbers["max_abs"] < 1e-4
        assert checks["logits"].numbers["tolerance"] == pytest.approx(1e-4 * checks["logits"].numbers["scale"])
        assert checks["change by training"].numbers["share"] == pytest.approx(1.0, abs=1e-3)
        same = checks["likeliest token"].numbers
        assert same["same"] == same["of"] == sum(made.record.about["lengths"])
        assert checks["chat template"].numbers == {"texts": 6, "prompts": 5, "same_ids": 5}
    made.write(run.model)
    written = (run.model / "proof.json").read_text()
    assert json.loads(written)["passed"] is True
    assert json.loads(written)["versions"]["torch"] == torch.__version__
    assert "Paris" not in written  # what is published with a model holds nothing of its data


VARIANTS: list[dict[str, Any]] = [
    {"tied": False},
    {"pad": "eos"},
    {"eos": "<|endoftext|>", "pad": "eos", "padding_side": "left"},
    {"full": True},
    {"full": True, "dtype": "bfloat16"},
    {"targets": ["lm_head", "q_proj"]},
    {"targets": ["embed_tokens", "q_proj"], "tied": False},
    {"dtype": "bfloat16", "scale": 0.2},
    {"dtype": "bfloat16", "scale": 0.01},
    {"head": True},
    {"head": True, "full": True, "pad": "eos"},
    {"head": True, "pad": "eos", "tied": False},
    {"head": True, "eos": "<|endoftext|>", "pad": "eos", "padding_side": "left"},
    {"head": True, "dtype": "bfloat16"},
]


@TIED
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_kind_of_export_is_proven(tmp_path, variant):
    run = trained_run(tmp_path, **variant)
    for folder in ("model", "adapter"):
        if (run.path / folder).exists():
            made = run.prove(folder)
            assert made.failures == []
            key = "scores, batch" if variant.get("head") else "logits"
            check = by_name(made)[key]
            narrow = json.loads((run.model / "config.json").read_text())["dtype"] != "float32"
            assert check.numbers["max_abs"] <= (0.05 if narrow and folder == "model" else 2e-5) * check.numbers["scale"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("head", [False, True])
def test_a_cast_is_proven_to_the_bit(tmp_path, dtype, head):
    run = trained_run(tmp_path, head=head)
    output = export.run(run.path, dtype=dtype)
    assert output == run.path / f"export-{dtype}"
    checks = {check["name"]: check for check in json.loads((output / "proof.json").read_text())["checks"]}
    assert checks["rounding"]["limit"] == "bit for bit"
    key = "scores, alone" if head else "logits"
    exact, cast, native = (checks[name]["numbers"]["max_abs"] for name in (f"{key}, uncast", key, f"{key}, in {dtype}"))
    assert exact < 1e-4 < cast
    assert exact < native
    change_weight(output, at_one_place(0.01))
    made = run.prove(f"export-{dtype}", source=run.model)
    assert {"rounding"} <= failed(made)


@pytest.mark.slow
def test_a_cast_that_rounds_the_training_away_is_refused(tmp_path):
    """Weights that bfloat16 holds exactly, as most released ones are, and a change below half of its last bit."""
    folder = Path(tiny_folder(tmp_path / "base"))
    weights = {name: one.bfloat16().float() for name, one in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    run = trained_run(tmp_path, scale=3e-5)
    with pytest.raises(ModelError, match=r"change by training: \d\.\d% of it is there") as caught:
        export.run(run.path, dtype="bfloat16")
    assert "export as float32" in str(caught.value)
    assert failed(run.prove()) == set()


# -- planted faults --------------------------------------------------------------------------------------------------


def base_weights(run: Run) -> None:
    shutil.copy(run.path.parent / "base" / "model.safetensors", run.model)


@pytest.mark.slow
def test_a_merge_that_changed_nothing_is_caught(tmp_path):
    """The base itself in the place of the merged model: what LLaMA-Factory #9051 wrote."""
    run = trained_run(tmp_path)
    base_weights(run)
    made = run.prove()
    assert failed(made) == {"logits", "log-probabilities", "change by training", *failed(made) & {"likeliest token"}}
    assert by_name(made)["change by training"].found == "0.0% of it is there: this is the base, unchanged"


@pytest.mark.slow
def test_it_is_caught_where_the_training_was_smaller_than_the_tolerance(tmp_path):
    run = trained_run(tmp_path, scale=3e-6)
    assert failed(run.prove()) == set()
    base_weights(run)
    made = run.prove()
    checks = by_name(made)
    assert checks["change by training"].numbers["max_change"] < checks["logits"].numbers["tolerance"]
    assert failed(made) == {"change by training"}


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 2.0, -1.0])
def test_a_merge_of_another_scale_is_caught(tmp_path, factor):
    run = trained_run(tmp_path, scale=0.003)
    base, merged = (load_file(folder / "model.safetensors") for folder in (tmp_path / "base", run.model))
    wrong = {name: base[name] + factor * (merged[name] - base[name]) for name in merged}
    save_file(wrong, run.model / "model.safetensors", metadata={"format": "pt"})
    check = by_name(run.prove())["change by training"]
    assert not check.passed
    assert check.numbers["share"] == pytest.approx(factor, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["model", "adapter"])
def test_one_changed_weight_is_caught(tmp_path, folder):
    run = trained_run(tmp_path, targets=["down_proj"])
    if folder == "model":
        change_weight(run.model, at_one_place(0.1))
    else:
        change_weight(run.path / folder, at_one_place(0.5), "adapter_model.safetensors", "lora_B.weight")
    assert "logits" in failed(run.prove(folder))


@pytest.mark.slow
def test_another_template_and_another_tokenizer_are_caught(tmp_path):
    run = trained_run(tmp_path)
    path = run.model / "chat_template.jinja"
    path.write_text(TEMPLATE.replace("\n' if", " ' if").replace("assistant\n", "assistant: "))
    [check] = run.prove().failures
    assert check.name == "chat template"
    assert "': ' instead of '\\n'" in check.found
    path.write_text(TEMPLATE)
    vocabulary = json.loads((run.model / "tokenizer.json").read_text())
    ids = vocabulary["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (run.model / "tokenizer.json").write_text(json.dumps(vocabulary))
    [check] = run.prove().failures
    assert (check.name, "other token ids" in check.found) == ("chat template", True)


@pytest.mark.slow
def test_a_generation_that_does_not_end_is_caught(tmp_path):
    run = trained_run(tmp_path)
    path = run.model / "generation_config.json"
    change_json(path, eos_token_id=EOS_ID)
    [check] = run.prove().failures
    assert (check.name, check.limit) == ("generation", str([END_ID]))
    assert check.found == f"eos_token_id is {EOS_ID}, without [{END_ID}]"
    change_json(path, eos_token_id=[EOS_ID, END_ID], pad_token_id=None)
    [check] = run.prove().failures
    assert check.found == "pad_token_id is missing"
    path.unlink()
    [check] = run.prove().failures
    assert "no generation_config.json" in check.found


@pytest.mark.slow
def test_a_reward_model_that_pads_with_its_end_token_is_caught(tmp_path):
    """transformers reads the score at the last token that is not the pad token: the end token would be passed over."""
    run = trained_run(tmp_path, head=True)
    change_json(run.model / "config.json", pad_token_id=END_ID)
    assert {"scores, alone", "scores, batch"} <= failed(run.prove())


@pytest.mark.slow
def test_a_reward_tokenizer_that_pads_with_another_token_than_the_model_is_caught(tmp_path):
    run = trained_run(tmp_path, head=True)
    change_json(run.model / "tokenizer_config.json", pad_token="<|endoftext|>")
    assert failed(run.prove()) == {"scores, batch"}


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_caught(tmp_path, value):
    run = trained_run(tmp_path)
    name = change_weight(run.model, at_one_place(value))
    made = run.prove()
    assert {"weights", "logits", "log-probabilities"} <= failed(made)
    assert name in by_name(made)["weights"].found


@pytest.mark.slow
def test_another_adapter_and_another_base_are_told_apart(tmp_path):
    run = trained_run(tmp_path)
    other = trained_run(tmp_path / "other", scale=0.3)
    shutil.copy(other.path / "adapter" / "adapter_model.safetensors", run.path / "adapter")
    made = run.prove("adapter")
    assert {"logits", "base"} <= failed(made)
    assert by_name(made)["base"].found == "the base is unchanged: the adapter differs"
    export.export_adapter(run.network, run.path / "adapter", lora(), role="policy", base=str(tmp_path / "base"))
    export._add_tokenizer(run.model, run.path / "adapter", False)
    assert failed(run.prove("adapter")) == set()
    shutil.copy(tiny_folder(tmp_path / "third", seed=9) + "/model.safetensors", tmp_path / "base")
    assert by_name(run.prove("adapter"))["base"].found == "the base is not the one trained over"
    shutil.rmtree(tmp_path / "base")
    assert failed(run.prove("adapter")) == {"loading"}


@pytest.mark.slow
def test_a_reward_adapter_with_another_head_is_caught(tmp_path):
    run = trained_run(tmp_path, head=True)
    change_weight(run.path / "adapter", lambda weight: weight * 1.1, "adapter_model.safetensors", "score.weight")
    assert {"scores, alone", "scores, batch"} <= failed(run.prove("adapter"))


def test_what_the_files_show_needs_no_process(tmp_path):
    run = trained_run(tmp_path)
    assert check_files(run.model).passed
    assert check_weights(run.model).found == "20 tensors, all finite, float32"
    change_json(run.model / "config.json", dtype="bfloat16")
    assert check_weights(run.model).found == "config.json says bfloat16, the files hold float32"
    (run.model / "training_args.bin").write_bytes(b"\x80\x04.")
    assert check_files(run.model).found == "pickled files: training_args.bin"
    (run.model / "training_args.bin").unlink()
    weights = load_file(run.model / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys([*weights, "lost"], "model.safetensors")}
    (run.model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "disagree on ['lost']" in check_files(run.model).found
    other = tmp_path / "other"
    other.mkdir()
    some = {name: weight.half() for name, weight in weights.items()}
    save_file(some, other / "model.safetensors")
    assert check_rounding(other, run.model).passed
    gone = some.popitem()[0]
    save_file(some, other / "model.safetensors")
    assert gone in check_rounding(other, run.model).found


# -- the process -----------------------------------------------------------------------------------------------------


def test_the_fresh_process_has_nothing_of_trueup():
    tree = ast.parse(Path(proof_fresh.__file__).read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    ours = {"torch", "safetensors", "transformers", "peft"}
    standard = {"__future__", "json", "sys", "collections", "dataclasses", "datetime", "functools", "pathlib", "typing"}
    assert names == ours | standard | {"unittest"}


def test_a_process_that_dies_is_an_error(tmp_path):
    run = trained_run(tmp_path)
    (run.path / OUTPUTS_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="ended with code 1"):
        run.prove()


def test_a_template_that_writes_the_date_is_rendered_as_of_then(tmp_path):
    run = trained_run(tmp_path, full=True)
    dated = "{{ strftime_now('%d %b %Y') }} " + TEMPLATE
    record, tokenizer = RecordedOutputs(str(run.path / OUTPUTS_FILE)), AutoTokenizer.from_pretrained(run.model)
    record.about["time"] = datetime(2001, 2, 3, 4, 5).isoformat()
    for text in record.about["texts"]:
        text["text"] = f"03 Feb 2001 {text['text']}"
        text["ids"] = tokenizer(text["text"], add_special_tokens=False)["input_ids"]
    (run.model / "chat_template.jinja").write_text(dated)
    assert proof_fresh.check_template(run.model, record, False).passed
    record.about["time"] = datetime(2001, 2, 4).isoformat()
    assert not proof_fresh.check_template(run.model, record, False).passed


def test_a_failed_export_leaves_nothing_that_looks_good(tmp_path, monkeypatch, capsys):
    """The proof here is one that fails: what becomes of the folder, and what is said, is the same for every fault."""
    run = trained_run(tmp_path)
    wrong = Check("logits", False, "1056 values, differ by at most 0.5", "0.0012", {"max_abs": 0.5})
    record = RecordedOutputs(str(run.path / OUTPUTS_FILE))
    versions = dict.fromkeys(("torch", "transformers", "peft"), "1")
    monkeypatch.setattr(export, "prove", lambda *_, **__: Proof((wrong,), versions, record, 1.0))
    for _ in range(2):  # the second one replaces the first
        with pytest.raises(ModelError) as caught:
            export.run(run.path)
        lines = str(caught.value).splitlines()
        assert lines[1] == "  logits: 1056 values, differ by at most 0.5 (limit: 0.0012)"
        assert len(lines) <= 6
        assert f"{run.path / 'export.failed'}" in lines[-1]
    left = sorted(path.name for path in run.path.iterdir())
    assert left == ["adapter", "export.failed", "model", OUTPUTS_FILE]
    assert json.loads((run.path / "export.failed" / "proof.json").read_text())["passed"] is False
    assert "FAILED" in capsys.readouterr().out


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    run = trained_run(tmp_path)

    def stop(*_: Any, **__: Any) -> Proof:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "prove", stop)
    with pytest.raises(KeyboardInterrupt):
        export.run(run.path)
    assert sorted(path.name for path in run.path.iterdir()) == ["adapter", "model", OUTPUTS_FILE]


@pytest.mark.slow
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("merge", [True, False])
def test_a_run_without_a_record_is_compared_with_what_trueup_loads(tmp_path, capsys, head, merge):
    run = trained_run(tmp_path, head=head)
    (run.path / OUTPUTS_FILE).unlink()
    output = export.run(run.path, merge=merge)
    said = " ".join(capsys.readouterr().out.split())
    assert f"the run left no {OUTPUTS_FILE}" in said
    assert "as trueup loads it" in json.loads((output / "proof.json").read_text())["compared_with"]
    folder = output.rename(tmp_path / "moved")
    proof.record_folder(run.path / ("model" if merge else "adapter"), tmp_path / OUTPUTS_FILE)
    if merge:
        change_weight(folder, at_one_place(0.1))
    else:
        change_weight(folder, lambda weight: 2 * weight, "adapter_model.safetensors", "lora_B.weight")
    assert prove(folder, tmp_path / OUTPUTS_FILE).failures


def test_padding_is_there_to_be_wrong_about(tmp_path):
    """Rows of one length would prove nothing about a padded batch."""
    run = trained_run(tmp_path, head=True)
    assert len(set(RecordedOutputs(str(run.path / OUTPUTS_FILE)).about["lengths"])) > 1
    assert AutoTokenizer.from_pretrained(run.model).pad_token_id == PAD_ID
