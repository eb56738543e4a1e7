"""Files and folders that a configuration names are looked for before anything heavy loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from trueup.config import DpoConfig, EvaluateConfig, PipelineConfig, PpoConfig, SftConfig, find_model, load_config
from trueup.config.paths import is_hub_name
from trueup.errors import ConfigError, DataError, ModelError, TrueupError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a data file and a model that is whole as far as names go."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    make_model(Path("base"))
    return tmp_path


def make_model(path: Path) -> None:
    path.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text("{}", encoding="utf-8")


def missing(*settings: str, cls: type[SftConfig | DpoConfig | PpoConfig] = SftConfig) -> tuple[type[TrueupError], str]:
    given = ["model=base", "output=run", *(["prompts=rows.jsonl"] if cls is PpoConfig else ["data=rows.jsonl"])]
    with pytest.raises(TrueupError) as caught:
        load_config(cls, None, [*given, *settings], check_files=True)
    return type(caught.value), str(caught.value)


def test_existing_files_pass() -> None:
    settings = ["model=base", "output=runs/a/b", "data=rows.jsonl"]
    assert load_config(SftConfig, None, settings, check_files=True).model == "base"
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["owner/name", "HuggingFaceTB/SmolLM2-135M", "owner/name.with-dots_1.5"])
def test_hub_names(name: str) -> None:
    assert is_hub_name(name)
    load_config(SftConfig, None, [f"model={name}", "output=run", f"data={name}"], check_files=True)


@pytest.mark.parametrize(
    "name", ["gpt2", "runs/foo", "runs/foo/model", "./a/b", "/a/b", "base/x", "a/b.jsonl", "a/b.gguf"]
)
def test_names_that_are_no_hub_names(name: str) -> None:
    assert not is_hub_name(name)


def test_missing_data_names_the_nearest_file() -> None:
    assert missing("data=row.jsonl") == (
        DataError,
        "override data=row.jsonl: row.jsonl: no such file; did you mean rows.jsonl?",
    )
    assert missing("data=no/row.jsonl")[1].endswith("no/row.jsonl: no such file; there is no folder no either")
    assert missing("data={path: row.jsonl, rows: 0:5}")[0] is DataError


def test_eval_and_mix_data_are_looked_for_too() -> None:
    assert "override eval.data=e.jsonl: e.jsonl: no such file" in missing("eval.data=e.jsonl")[1]
    assert "override mix={data: m.jsonl}: mix.data: m.jsonl: no such file" in missing("mix={data: m.jsonl}")[1]


def test_data_beside_the_configuration_instead_of_here() -> None:
    Path("sub").mkdir()
    Path("sub/other.jsonl").write_text("{}", encoding="utf-8")
    Path("sub/c.yaml").write_text("model: base\noutput: run\ndata: other.jsonl\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"sub/c.yaml:3: data: other.jsonl: no such file here; sub/other.jsonl exists"):
        load_config(SftConfig, Path("sub/c.yaml"), check_files=True)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("runs/foo/model", "runs/foo/model: no such model folder; there is no folder runs/foo either"),
        ("bas", "bas: no such model folder; did you mean base?"),
        ("gpt2", "gpt2: no such model folder; a name on the hub has the form owner/name"),
        ("m.gguf", "m.gguf: no such file"),
        ("rows.jsonl", "rows.jsonl: a model is a folder, a .gguf file or a hub name"),
        (
            ".",
            ".: not a model folder: it has no config.json\n  fix: name a folder in it, such as base: base",
        ),
    ],
)
def test_a_model_that_is_none(model: str, said: str) -> None:
    assert missing(f"model={model}") == (ModelError, f"override model={model}: {said}")


def test_a_model_folder_that_is_not_whole() -> None:
    Path("base/tokenizer.json").unlink()
    assert "base: has no tokenizer" in missing()[1]
    Path("base/tokenizer.model").touch()
    Path("base/model.safetensors").unlink()
    assert "base: has no weights" in missing()[1]


def test_a_run_folder_or_an_adapter_as_model() -> None:
    make_model(Path("runs/sft/model"))
    assert "no such file" in missing("model=runs/sft", "data=none.jsonl")[1]  # the model is there
    config = load_config(DpoConfig, None, ["model=runs/sft", "reference=./runs/sft", "output=o", "data=d.jsonl"])
    assert (config.model, config.reference) == ("runs/sft/model", "runs/sft/model")
    assert "runs: a pipeline's folder; name one of its stages: runs/sft" in missing("model=runs")[1]
    Path("begun").mkdir(exist_ok=True)
    Path("begun/config.yaml").touch()
    assert "begun: a run folder without a model yet; finish that run first" in missing("model=begun")[1]
    Path("lora/adapter").mkdir(parents=True)
    Path("lora/adapter/adapter_config.json").write_text('{"base_model_name_or_path": "base", "peft_type": "LORA"}')
    Path("lora/adapter/adapter_model.safetensors").touch()
    Path("lora/config.yaml").touch()
    assert find_model("lora") == "lora/adapter"
    Path("adapter").mkdir()
    settings = Path("adapter/adapter_config.json")
    settings.touch()
    assert "adapter_config.json: not readable as JSON" in missing("model=adapter")[1]
    settings.write_text("{}")
    assert "base_model_name_or_path is missing" in missing("model=adapter")[1]
    settings.write_text('{"base_model_name_or_path": "./gone"}')
    assert missing("model=adapter")[1].endswith("the adapter's base model cannot be used: gone: no such model folder")
    settings.write_text('{"base_model_name_or_path": "./gone", "task_type": "SEQ_CLS"}')
    assert "the adapter of a reward model, which cannot generate text" in missing("model=adapter")[1]


def test_a_reference_that_is_missing() -> None:
    kind, text = missing("reference=ref", cls=DpoConfig)
    assert (kind, "ref: no such model folder" in text) == (ModelError, True)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("runs/reward", "runs/reward: no such reward model folder; there is no folder runs either (or give a function"),
        ("score.py:length", "score.py: has no function length; it has score"),
        ("score.py", "score.py: name the function too: score.py:my_reward"),
        ("scores.py:score", "scores.py: no such file; did you mean score.py?"),
        ("broken.py:score", "broken.py:2: not Python: "),
        ("begun", "begun: a run folder without a model yet; finish that run first"),
    ],
)
def test_a_reward_that_is_none(reward: str, said: str) -> None:
    Path("score.py").write_text("def score(conversations): ...\n", encoding="utf-8")
    Path("broken.py").write_text("x = 1\ndef score(:\n", encoding="utf-8")
    Path("begun").mkdir()
    Path("begun/config.yaml").touch()
    kind, text = missing(f"reward={reward}", cls=PpoConfig)
    assert kind is ModelError
    assert said in text


def test_rewards_that_are_there() -> None:
    Path("score.py").write_text("def score(conversations): ...\nother = score\n", encoding="utf-8")
    make_model(Path("runs/reward/model"))
    for reward in ("score.py:score", "score.py:other", "runs/reward", "runs/reward/model", "owner/name"):
        settings = ["model=base", "output=run", "prompts=rows.jsonl", f"reward={reward}"]
        assert load_config(PpoConfig, None, settings, check_files=True).reward == reward


def test_an_output_that_cannot_be_made() -> None:
    assert missing("output=rows.jsonl") == (
        ConfigError,
        "override output=rows.jsonl: rows.jsonl: is a file; give a folder for the run",
    )
    assert "rows.jsonl/a: cannot be made: " in missing("output=rows.jsonl/a")[1]


def test_everything_missing_comes_at_once() -> None:
    text = missing("data=x.jsonl", "model=y", "output=rows.jsonl")[1]
    assert len(text.splitlines()) == 3


PIPELINE = """\
name: p
base: base
data: rows.jsonl
stages:
  sft: {method: sft}
  reward: {method: reward, from: sft}
  ppo: {method: ppo, from: sft, reward: reward, prompts: rows.jsonl}
"""


def test_a_pipelines_own_outputs_need_not_exist_yet() -> None:
    Path("p.yaml").write_text(PIPELINE, encoding="utf-8")
    assert load_config(PipelineConfig, Path("p.yaml"), check_files=True).name == "p"


def test_a_pipelines_missing_files_are_named_once_where_they_stand() -> None:
    text = (
        PIPELINE.replace("rows.jsonl", "no.jsonl").replace("base: base", "base: nobase") + "evaluate: {data: e.jsonl}\n"
    )
    Path("p.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_config(PipelineConfig, Path("p.yaml"), check_files=True)
    assert str(caught.value).splitlines() == [
        "p.yaml:3: data: no.jsonl: no such file",
        "p.yaml:2: base: nobase: no such model folder; did you mean base?",
        "p.yaml:8: evaluate.data: e.jsonl: no such file",
    ]


def test_find_model_looks_into_a_run_folder() -> None:
    make_model(Path("runs/sft/model"))
    assert find_model("runs/sft") == "runs/sft/model"
    assert find_model("base") == "base"
    assert find_model("owner/name") == "owner/name"
    with pytest.raises(ModelError, match="no such model folder"):
        find_model("runs/dpo")


def test_evaluates_data_is_looked_for() -> None:
    with pytest.raises(DataError, match=r"x\.jsonl: no such file"):
        load_config(EvaluateConfig, None, ["prompts=x.jsonl"], check_files=True)
