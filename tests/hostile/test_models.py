"""Models that would run code: pickles, code that comes with them, and the ways around a refusal of either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_data
from hostile import evil
from trueup import runtime
from trueup.config import PpoConfig, SftConfig, check_paths, find_model
from trueup.config.untrusted import Trust
from trueup.errors import ModelError
from trueup.models.loading import load_causal_lm, load_classifier, load_tokenizer

IDS = torch.tensor([[4, 9, 30, 77, 5]])
ASKED = "allow=[pickled-weights]"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the code ran"


def loaded(model: Path | str, **permissions: bool) -> Any:
    return load_causal_lm(str(model), runtime.init("cpu", "float32"), trust=Trust(**permissions))


def scorer(model: Path | str, **permissions: bool) -> Any:
    return load_classifier(str(model), runtime.init("cpu", "float32"), trust=Trust(**permissions))


def stage(tmp_path: Path, model: Path | str, **more: Any) -> SftConfig:
    made = tiny_data.stage("sft", tmp_path / "run", model=str(model), optim={"steps": 1}, **more)
    assert isinstance(made, SftConfig)
    return made


def test_the_pickle_is_one(tmp_path: Path, marker: Path) -> None:
    torch.load(evil.pickled(tmp_path / "pytorch_model.bin", marker), weights_only=False)
    assert marker.exists()


# -- pickled weights -----------------------------------------------------------------------------------------------


def only_bin(folder: Path, marker: Path) -> Path:
    path = evil.model(folder)
    (path / "model.safetensors").unlink()
    evil.pickled(path / "pytorch_model.bin", marker)
    return path


def index_of_pickles(folder: Path, marker: Path) -> Path:
    """A safetensors index whose shard is a pickle: transformers goes by the shard's name."""
    path = only_bin(folder, marker)
    (path / "pytorch_model.bin").rename(path / "shard.bin")
    names = {"model.embed_tokens.weight": "shard.bin"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def named_in_the_config(folder: Path, marker: Path) -> Path:
    path = evil.model(folder, transformers_weights="adapter_model.bin")
    evil.pickled(path / "adapter_model.bin", marker)
    return path


def adapter_inside(folder: Path, marker: Path) -> Path:
    """transformers puts an adapter that lies in a model's folder over the model."""
    path = evil.model(folder)
    evil.adapter(folder.with_name("made"), path)
    shutil.copy(folder.with_name("made") / "adapter_config.json", path)
    evil.pickled(path / "adapter_model.bin", marker)
    return path


def adapter_of_pickles(folder: Path, marker: Path) -> Path:
    path = evil.adapter(folder, evil.model(folder.with_name("base")))
    (path / "adapter_model.safetensors").unlink()
    evil.pickled(path / "adapter_model.bin", marker)
    return path


def adapter_beside_another(folder: Path, marker: Path) -> Path:
    """Some safetensors lie there, but not under the one name that is read."""
    path = adapter_of_pickles(folder, marker)
    save_file({"x": torch.zeros(1)}, path / "x.safetensors")
    return path


def adapter_over_pickles(folder: Path, marker: Path) -> Path:
    base = evil.model(folder.with_name("base"))
    path = evil.adapter(folder, base)
    shutil.rmtree(base)
    only_bin(base, marker)
    return path


PICKLES = [
    only_bin, index_of_pickles, named_in_the_config, adapter_inside, adapter_of_pickles, adapter_beside_another,
    adapter_over_pickles,
]  # fmt: skip
Maker = Callable[[Path, Path], Path]


@pytest.mark.parametrize("make", PICKLES)
def test_pickled_weights_are_refused(make: Maker, tmp_path: Path, marker: Path) -> None:
    model = make(tmp_path / "evil", marker)
    with pytest.raises(ModelError, match=r"(?s)fix:") as caught:
        loaded(model)
    assert "evil" in str(caught.value) or "base" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6
    with pytest.raises(ModelError):  # before torch is loaded
        check_paths(stage(tmp_path, model))
    assert not marker.exists()


@pytest.mark.parametrize("make", [only_bin, index_of_pickles, adapter_of_pickles])
def test_allowed_pickles_run_nothing_either(make: Maker, tmp_path: Path, marker: Path) -> None:
    model = make(tmp_path / "evil", marker)
    with pytest.raises(ModelError, match=r"allow=\[pickled-weights\]"):
        loaded(model)
    with pytest.raises(ModelError, match=r"cannot load the model|does not fit"):
        loaded(model, pickles=True)
    assert not marker.exists()


def test_honest_pickles_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    safe, model = evil.model(tmp_path / "safe"), evil.model(tmp_path / "pickled")
    trunk = loaded(safe)
    torch.save(trunk.state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: these weights are pickled"):
        tiny_data.run(stage(tmp_path, model))
    assert torch.equal(loaded(model, pickles=True)(IDS).logits, trunk(IDS).logits)
    allowed = stage(tmp_path, model, allow=["pickled-weights"])
    check_paths(allowed)
    tiny_data.run(allowed)


def test_a_pickled_reward_model_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = evil.classifier(tmp_path / "scores")
    (folder / "model.safetensors").unlink()
    evil.pickled(folder / "pytorch_model.bin", marker)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: these weights are pickled"):
        scorer(folder)
    config = tiny_data.stage("ppo", tmp_path / "run", reward=str(folder))
    assert isinstance(config, PpoConfig)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: these weights are pickled"):
        check_paths(config)
    with pytest.raises(ModelError, match="cannot load the model"):
        scorer(folder, pickles=True)
    assert not marker.exists()


def test_pickles_beside_safetensors_are_not_looked_at(tmp_path: Path, marker: Path) -> None:
    folder = evil.model(tmp_path / "both")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "vocab.pkl", "model.index"):
        evil.pickled(folder / name, marker)
    loaded(folder)
    load_tokenizer(str(folder))
    assert not marker.exists()


# -- code ----------------------------------------------------------------------------------------------------------


def test_the_code_would_run(tmp_path: Path, marker: Path) -> None:
    loaded(evil.with_code(tmp_path / "evil", marker), code=True)
    assert marker.exists()


def by_chat(model: Path, _: Path) -> None:
    from trueup.chat.speaker import Speaker

    Speaker(str(model), runtime.init("cpu", "float32"))


def by_evaluation(model: Path, folder: Path) -> None:
    from trueup.config import ComparisonConfig, load_config
    from trueup.evaluation.plan import Plan
    from trueup.evaluation.suite import measure

    settings = load_config(ComparisonConfig, None, ["tasks=[capability]", "limit=2"])
    plan = Plan(folder / "out", {"it": str(model)}, "it", settings)
    measure(plan, runtime.init("cpu", "float32"), lambda _: None)


def by_export(model: Path, folder: Path) -> None:
    from trueup import export

    export.run(model, folder / "exported")


def by_check(model: Path, folder: Path) -> None:
    from trueup.preflight.report import check_stage

    for finding in check_stage(stage(folder, model)).findings:
        if finding.level == "error":
            raise ModelError(finding.in_words())


def by_show(model: Path, folder: Path) -> None:
    from trueup.preflight.show import command as showing

    showing.run([stage(folder, model)], None, rows=1)


def by_training(model: Path, folder: Path) -> None:
    tiny_data.run(stage(folder, model))


def by_adapter(model: Path, folder: Path) -> None:
    adapter = evil.adapter(folder / "adapter", evil.model(folder / "base"))
    evil.change(adapter / "adapter_config.json", base_model_name_or_path=str(model))
    loaded(adapter)


def by_reference(model: Path, folder: Path) -> None:
    tiny_data.run(tiny_data.stage("dpo", folder / "run", reference=str(model), optim={"steps": 1}))


def by_reward(model: Path, _: Path) -> None:
    evil.change(model / "config.json", architectures=["EvilForSequenceClassification"], num_labels=1)
    scorer(model)


USES = [
    by_chat, by_evaluation, by_export, by_check, by_training, by_adapter, by_reference, by_reward,
]  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_code_that_comes_with_a_model_is_refused(
    use: Callable[[Path, Path], None], tmp_path: Path, marker: Path
) -> None:
    model = evil.with_code(tmp_path / "evil", marker)
    with pytest.raises(ModelError, match=r"custom code \(auto_map\)(?s:.*)trust_remote_code=true"):
        use(model, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("use", [by_chat, by_check, by_show, by_training])
def test_code_that_comes_with_a_tokenizer_does_not_run(
    use: Callable[[Path, Path], None], tmp_path: Path, marker: Path
) -> None:
    """transformers refuses it, or reads tokenizer.json by a class of its own, as it did before."""
    try:
        use(evil.with_tokenizer_code(tmp_path / "evil", marker), tmp_path)
    except ModelError as error:
        assert "trust_remote_code=true" in str(error)  # noqa: PT017 - either is right
    assert not marker.exists()


@pytest.mark.parametrize(
    "place", [{"attn_implementation": "owner/kernel"}, {"text_config": {"_attn_implementation": "a/b"}}]
)
def test_attention_from_the_hub_is_code_too(place: dict[str, Any], tmp_path: Path) -> None:
    model = evil.model(tmp_path / "evil", **place)
    with pytest.raises(ModelError, match=r"config\.json: its attention .* is code from the hub"):
        loaded(model)
    with pytest.raises(ModelError, match="is code from the hub"):
        check_paths(stage(tmp_path, model))


ADAPTERS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}}, "cannot be merged"),
    ({"peft_type": "XLORA", "adapters": {"0": "/elsewhere"}}, "cannot be merged"),
    ({"peft_type": ["LORA"]}, "cannot be merged"),
    ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "imports the module"),
    ({"r": "many"}, "does not fit"),
    ({"target_modules": ["no_such_layer"]}, "does not fit"),
]


@pytest.mark.parametrize(("settings", "said"), ADAPTERS)
def test_adapters_that_would_do_more_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    adapter = evil.adapter(tmp_path / "adapter", evil.model(tmp_path / "base"), **settings)
    with pytest.raises(ModelError, match=said):
        loaded(adapter)


def test_adapters_over_one_another_in_a_circle(tmp_path: Path) -> None:
    one = evil.adapter(tmp_path / "one", evil.model(tmp_path / "base"))
    two = shutil.copytree(one, tmp_path / "two")
    evil.change(one / "adapter_config.json", base_model_name_or_path=str(two))
    evil.change(two / "adapter_config.json", base_model_name_or_path=str(one))
    for use in (loaded, lambda model: find_model(str(model)), lambda model: load_tokenizer(str(model))):
        with pytest.raises(ModelError, match="in a circle"):
            use(one)


def test_a_gguf_gets_no_adapter_from_beside_it(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    evil.pickled(folder / "adapter_model.bin", marker)
    with pytest.raises(ModelError, match="in the same folder"):
        loaded(folder / "model.gguf")


# -- names of files elsewhere --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/passwd", "..", "a/b.safetensors", "a\\b.safetensors"]
)
def test_an_index_names_files_beside_it_only(name: str, tmp_path: Path) -> None:
    folder = evil.model(tmp_path / "evil")
    evil.model(tmp_path / "other")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(["model.embed_tokens.weight"], name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"weight_map names .* which is not a file in its folder"):
        loaded(folder)


def test_other_keys_name_files_beside_them_only(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="transformers_weights names"):
        loaded(evil.model(tmp_path / "weights", transformers_weights="../x.safetensors"))
    folder = evil.model(tmp_path / "tokenizer")
    evil.change(folder / "tokenizer_config.json", fast_tokenizer_files=["../other/tokenizer.4.0.json"])
    with pytest.raises(ModelError, match="fast_tokenizer_files names"):
        load_tokenizer(str(folder))


# -- broken settings -----------------------------------------------------------------------------------------------

BROKEN = {
    "nested": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "a huge number": '{"vocab_size": ' + "9" * 10_000 + "}",
    "a list": "[]",
    "a word": '"config"',
    "not UTF-8": "\udcff",
    "wrong types": '{"model_type": ["llama"], "architectures": "x", "id2label": 3, "auto_map": 5, "weight_map": 7}',
    "wrong numbers": '{"model_type": "llama", "hidden_size": -1, "num_attention_heads": 0, "vocab_size": 1e999}',
}
FILES = ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("text", BROKEN.values(), ids=list(BROKEN))
def test_broken_settings_are_an_error_of_the_model(file: str, text: str, tmp_path: Path) -> None:
    folder = evil.model(tmp_path / "evil")
    (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    for use in (loaded, lambda model: load_tokenizer(str(model)), lambda model: find_model(str(model))):
        with suppress(ModelError):  # some of it is read past; nothing else is raised
            use(folder)


# -- the hub -------------------------------------------------------------------------------------------------------


def cached(home: Path, folder: Path, name: str) -> None:
    """Put a folder into the hub's cache, as though it had been downloaded."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


HUB = """
import json, sys
from pathlib import Path
from trueup import runtime
from trueup.config.untrusted import Trust
from trueup.models.loading import load_causal_lm, load_tokenizer

told, where = {}, runtime.init("cpu", "float32")
for name, trust in json.loads(sys.argv[1]):
    try:
        load_tokenizer(name)
        load_causal_lm(name, where, **({"trust": Trust(code=True)} if trust else {}))
        told[name] = "LOADED"
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
    if not trust:
        assert not Path(sys.argv[2]).exists(), name
print(json.dumps(told))
"""


def from_hub(home: Path, marker: Path, names: list[tuple[str, bool]]) -> dict[str, str]:
    """Load models of the hub's cache, code trusted or not, in a process that reads it. Returns what came of each."""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB, json.dumps(names), str(marker)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_models_of_the_hub_are_looked_at_likewise(tmp_path: Path, marker: Path) -> None:
    cached(tmp_path, evil.model(tmp_path / "good"), "owner/good")
    cached(tmp_path, only_bin(tmp_path / "pickled", marker), "owner/pickled")
    cached(tmp_path, index_of_pickles(tmp_path / "index", marker), "owner/index")
    for name in ("code", "again"):  # the process remembers a model that it has read
        cached(tmp_path, evil.with_code(tmp_path / name, marker), f"owner/{name}")
    cached(tmp_path, evil.model(tmp_path / "kernel", attn_implementation="a/b"), "owner/kernel")
    cached(tmp_path, evil.adapter(tmp_path / "adapter", tmp_path / "good"), "owner/adapter")
    refused = {
        "pickled": ASKED, "index": ASKED, "code": "trust_remote_code=true", "kernel": "is code from the hub",
        "adapter": "tokenizer", "missing": "is not in the cache of the hub",
    }  # fmt: skip
    untrusted = ("good", *refused)
    told = from_hub(tmp_path, marker, [*((f"owner/{name}", False) for name in untrusted), ("owner/again", True)])
    assert told["owner/good"] == "LOADED"
    for name, said in refused.items():
        assert told[f"owner/{name}"].startswith("ModelError: ")
        assert said in told[f"owner/{name}"]
    assert told["owner/again"] == "LOADED" or marker.exists()
