"""What fuzzing found in the folders that a run leaves: damaged files are refused, hostile ones not followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import retold
from safetensors import safe_open
from safetensors.torch import save_file

from data.tokens import making
from tiny import lora, tiny_folder, tiny_network
from trueup import runtime
from trueup.config.paths import classifier_problem
from trueup.data.example import Branch, Example
from trueup.data.tokens.build import open_cached
from trueup.data.tokens.store import FILES, Tokenized, write_sealed
from trueup.errors import CheckpointError, DataError, ModelError, TrueupError
from trueup.evaluation.items import Item, write_items
from trueup.models.loading import load_causal_lm, load_classifier, load_tokenizer, read_config
from trueup.recipes.reference import with_reference
from trueup.report.build import build, read_measured
from trueup.report.reading import items
from trueup.report.stages import alarms, curves, points, stage_run
from trueup.runs.checkpoint import latest_checkpoint, save_checkpoint
from trueup.runs.folder import RunFolder
from trueup.runs.state import read_state

DEEP = b"[" * 100_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def short(error: TrueupError) -> str:
    text = str(error)
    assert text.count("\n") < 6
    assert len(text) < 2000
    return text


def run_folder(path: Path) -> RunFolder:
    with RunFolder.create(path, "model: m\n") as run:
        run.append_metrics({"step": 1, "loss": 1.0})
        save_checkpoint(run, 1, {"model": {"a": torch.zeros(2)}})
    return RunFolder(path)


# -- run folders and checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [b"\xff", BOMB.encode(), b"[" * 3000, b"when: 2024-13-45", b"x: " + b"y" * 9000, b"a: [\n"]
)
def test_an_earlier_runs_damaged_configuration(tmp_path: Path, damage: bytes) -> None:
    run_folder(tmp_path)
    (tmp_path / "config.yaml").write_bytes(damage)
    with pytest.raises(CheckpointError, match="another configuration") as caught:
        RunFolder.create(tmp_path, "model: m\n")
    short(caught.value)


def test_nested_brackets_in_logs_and_summary(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    run.metrics_path.write_bytes(run.metrics_path.read_bytes() + DEEP + b"\n")
    run.truncate_metrics(1)
    assert run.metrics_path.read_bytes() == b'{"step": 1, "loss": 1.0}\n'
    run.summary_path.write_bytes(DEEP)
    with pytest.raises(CheckpointError, match="not JSON"):
        run.read_summary()


@pytest.mark.parametrize("damage", [DEEP, b'{"a": {"__tensor__": "' + b"x" * 9000 + b'"}}'])
def test_a_damaged_part(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.json").write_bytes(damage)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_state(tmp_path, "model")
    short(caught.value)


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "sub/file", ".."])
def test_a_manifest_cannot_name_files_of_others(tmp_path: Path, name: str) -> None:
    run = run_folder(tmp_path / "run")
    (tmp_path / "secret").write_bytes(b"")
    manifest = run.checkpoints / "step-000001" / "manifest.json"
    told = json.loads(manifest.read_text())
    told["files"][name] = {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    manifest.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="not one of its files"):
        latest_checkpoint(run)


@pytest.mark.parametrize("damage", [DEEP, b'{"format": "' + b"x\\n" * 3000 + b'"}', b"\xff"])
def test_a_damaged_manifest(tmp_path: Path, damage: bytes) -> None:
    run = run_folder(tmp_path)
    (run.checkpoints / "step-000001" / "manifest.json").write_bytes(damage)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        latest_checkpoint(run)
    short(caught.value)


# -- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_folder(tmp_path_factory.mktemp("base") / "base"))


def changed(**values: Any) -> Callable[[bytes], bytes]:
    return lambda before: json.dumps(json.loads(before) | values).encode()


@pytest.mark.parametrize("damage", [b"\xff", DEEP, b"[]", b"3", b"{"])
def test_a_models_damaged_settings(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "config.json").write_bytes(damage)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(tmp_path)
    assert "config.json" in str(classifier_problem(tmp_path))


@pytest.mark.parametrize("settings", [{"architectures": 1.5}, {"architectures": {"": 0}}, {"architectures": [3]},
                                      {"architectures": ["XForSequenceClassification"], "id2label": 1}])  # fmt: skip
def test_odd_architectures_are_no_classifier(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Said by the look at config.json, or else by the loading."""
    (tmp_path / "config.json").write_text(json.dumps(settings))
    classifier_problem(tmp_path)
    with pytest.raises(ModelError):
        load_classifier(str(tmp_path), runtime.init("cpu", "float32"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda _: b""),
        ("model.safetensors", lambda before: before[:200]),
        ("config.json", changed(num_key_value_heads=False)),
        ("config.json", changed(hidden_size=2**60)),
        ("config.json", changed(model_type="nothing")),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_library_raises_over_a_model_is_in_the_family(
    base: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ModelError, match=r"cannot load|can make no model|not a readable safetensors file") as caught:
        load_causal_lm(str(folder), runtime.init("cpu", "float32"))
    short(caught.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tokenizer.json", lambda _: b'{"version": "1.0", "added_tokens": "x"}'),
        ("tokenizer.json", lambda before: before.replace(b'"id":0', b'"id":"x"').replace(b'"id": 0', b'"id": "x"')),
        ("tokenizer_config.json", changed(unk_token=8)),
        ("tokenizer_config.json", changed(model_max_length="long")),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_and_over_a_tokenizer(base: Path, tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ModelError) as caught:
        load_tokenizer(str(folder))
    short(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("trueup.json", b"\xff", "trueup.json"),
        ("trueup.json", b"3", "must hold an object"),
        ("trueup.json", DEEP, "nested too deep"),
        ("adapter_model.safetensors", b"", "not a readable safetensors file"),
        ("adapter_config.json", {"peft_type": None}, "peft_type"),
        ("adapter_config.json", {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron"),
        ("adapter_config.json", {"r": 0}, "does not fit"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_and_over_an_adapter(
    base: Path, tmp_path: Path, name: str, content: bytes | dict[str, Any], words: str
) -> None:
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    told = content if isinstance(content, bytes) else json.dumps(settings | content).encode()
    save_file({}, tmp_path / "adapter_model.safetensors")
    (tmp_path / name).write_bytes(told)
    with pytest.raises(ModelError, match=words) as caught:
        load_causal_lm(str(tmp_path), runtime.init("cpu", "float32"))
    short(caught.value)


# -- caches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenized:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    return making.tokens(tmp_path / "rows.jsonl", making.pairs(3))


@pytest.mark.parametrize(
    "told",
    [{"stored": 3}, {"stored": {}}, {"names": 3}, {"names": [3]}, {"stored": dict.fromkeys(FILES, 3)},
     {"stored": {"../../rows.jsonl": {"size": 1, "sha256": ""}}}],
)  # fmt: skip
def test_a_cache_sealed_by_somebody_else_is_made_again(kept: Tokenized, told: dict[str, Any]) -> None:
    write_sealed(kept.folder / "meta.json", kept.meta | told)
    with pytest.raises(ValueError, match="not of this version"):
        Tokenized(kept.folder)
    assert open_cached(kept.folder.name) is None


def test_so_is_one_of_endless_brackets(kept: Tokenized) -> None:
    (kept.folder / "meta.json").write_bytes(DEEP)
    assert open_cached(kept.folder.name) is None


@pytest.mark.parametrize(("name", "damage"), [("records.bin", b"\xff"), ("records.bin", b"\x7f"), ("texts.json", b"[")])
def test_records_that_point_elsewhere_are_refused(kept: Tokenized, name: str, damage: bytes) -> None:
    (kept.folder / name).write_bytes(damage * (kept.folder / name).stat().st_size)
    retold(kept.folder, name)
    found = Tokenized(kept.folder)
    with pytest.raises(DataError, match="it was changed while it is in use"):
        [(found.example(row), found.parts(row), found.origin(row)) for row in range(len(found))]


@pytest.mark.parametrize("values", [{}, {"ref_logps": torch.zeros(3)}, {"ref_logps": torch.zeros(2, dtype=torch.int8)}])
def test_a_reference_cache_of_other_shape_is_made_again(tmp_path: Path, values: dict[str, torch.Tensor]) -> None:
    network = tiny_network(tmp_path / "base")
    network.add_trainable("policy", lora())
    network.add_reference()
    rows, cache = [Example([5], (Branch([6, 7], [True, True]), Branch([8], [True])))], tmp_path / "c.safetensors"
    sums = [one.scalars["ref_logps"] for one in with_reference(network, rows, cache, max_tokens=64)[0].branches]
    with safe_open(cache, framework="pt") as file:
        told = file.metadata()
    save_file(values, cache, metadata=told)
    again = with_reference(network, rows, cache, max_tokens=64)[0].branches
    assert [one.scalars["ref_logps"] for one in again] == sums


# -- what a report reads ---------------------------------------------------------------------------------------------

PLAN = {
    "against": "sft", "models": {"sft": {"source": "s", "file": "sft.jsonl", "wins": False}}, "candidates": [],
    "reward": None, "gold": None, "reward_file": None, "settings": {}, "title": "t", "stages": [], "gates": None,
    "command": None, "not_measured": {}, "asked": {}, "seconds": 1.0,
}  # fmt: skip


def evaluation(folder: Path, **plan: Any) -> Path:
    place = folder / "evaluation"
    write_items(place / "sft.jsonl", [Item("capability", "a", {"right": 1.0})], {"key": "k"})
    (place / "plan.json").write_text(json.dumps(PLAN | plan))
    return place


@pytest.mark.parametrize(
    "plan",
    [
        {"models": {"sft": {"source": "s", "file": "../../secret.jsonl", "wins": False}}},
        {"models": {"sft": {"source": "s", "file": "/etc/hostname", "wins": False}}},
        {"stages": ["../.."]}, {"stages": [".."]}, {"stages": [""]}, {"reward_file": "../x"}, {"models": 3},
        {"stages": 3},
        {"gates": {"no_such": 1}}, {"against": "nobody", "stages": ["x"]},
    ],
)  # fmt: skip
def test_a_plan_names_what_lies_beside_it_and_nothing_else(tmp_path: Path, plan: dict[str, Any]) -> None:
    build_folder = tmp_path / "run"
    evaluation(build_folder, **plan)
    (build_folder / "x").mkdir()
    (build_folder / "x" / "config.yaml").write_text("model: s\n")
    (tmp_path / "secret.jsonl").write_text('{"header": {}}\n')
    with pytest.raises(DataError, match="not as trueup writes it") as caught:
        build(build_folder)
    short(caught.value)


def test_a_plan_is_whole(tmp_path: Path) -> None:
    place = evaluation(tmp_path)
    for key in PLAN:
        (place / "plan.json").write_text(json.dumps({name: value for name, value in PLAN.items() if name != key}))
        with pytest.raises(DataError, match=key):
            read_measured(place)


@pytest.mark.parametrize("line", [b"\xff", b"{", b"3", DEEP, b'{"task": "a"}',
                                  b'{"task": "a", "id": "b", "values": {"x": "y"}}',
                                  b'{"task": {}, "id": "b"}'])  # fmt: skip
def test_a_damaged_item_is_named(tmp_path: Path, line: bytes) -> None:
    place = evaluation(tmp_path)
    (place / "sft.jsonl").write_bytes((place / "sft.jsonl").read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"sft\.jsonl") as caught:
        read_measured(place)
    short(caught.value)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "watch.jsonl", "alarms.jsonl", "config.yaml", "summary.json", "data.json"]
)
@pytest.mark.parametrize("damage", [b"\xff\n", b"{\n", b"3\n", DEEP + b"\n", b'{"step": "x", "loss": 1, "data": 2}\n'])
def test_a_stages_damaged_file_is_named(tmp_path: Path, name: str, damage: bytes) -> None:
    (tmp_path / "config.yaml").write_text("model: s\n")
    (tmp_path / name).write_bytes(damage)

    def read() -> None:
        for one in (curves, alarms, stage_run):
            one("a", tmp_path)
        points("a", tmp_path, PLAN)

    unread = damage.startswith(b'{"step"') and name in ("metrics.jsonl", "summary.json", "config.yaml")
    if unread:  # keys that nobody reads do no harm
        read()
        return
    with pytest.raises(DataError) as caught:
        read()
    assert str(tmp_path) in short(caught.value)


def test_the_last_line_of_a_killed_run_is_no_fault(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": step, "sft/loss": 1.0}) + "\n" for step in (1, 2))
    (tmp_path / "metrics.jsonl").write_text(rows + '{"step": 3, "sft/lo')
    [curve] = curves("sft", tmp_path)
    assert curve.steps == [1, 2]


def test_verdicts_that_a_plan_names_and_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wins\.jsonl: not as trueup writes it"):
        items(tmp_path / "gone.wins.jsonl")
