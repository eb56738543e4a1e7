"""Every fault of rows and tokenizers that `allow` can name: planted, it stops a training; allowed, it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

import tiny
import tiny_data
from data.tokens import making
from trueup.config.sections import Allowed
from trueup.data.rendering.messages import Rendered
from trueup.data.rendering.renderer import Renderer
from trueup.errors import DataError

OF_THE_WEIGHTS = {"other-base", "rounded-weights", "pickled-weights", "ignored-weights", "constant-weights"}
"""For faults of the weights, see models/test_loading.py, models/test_matching.py, hostile/test_models.py."""
Patch = pytest.MonkeyPatch


def model(folder: Path, template: str | None) -> str:
    """A tiny model whose tokenizer has another chat template, or none."""
    path = tiny.tiny_folder(folder / "templated")
    (Path(path) / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return path


def conversations(folder: Path, *contents: str) -> str:
    talk = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 9, contents, strict=False)]
    return str(making.write(folder / "planted.jsonl", [*making.pairs(0), {"messages": talk}]))


def missing_template(folder: Path, _: Patch) -> dict[str, Any]:
    return {"model": model(folder, None)}


def rewritten_history(folder: Path, _: Patch) -> dict[str, Any]:
    return {"model": model(folder, making.REWRITING), "data": conversations(folder, "a?", "One.", "b?", "Two.")}


def wrong_calls(folder: Path, _: Patch) -> dict[str, Any]:
    call = {"name": "look", "arguments": {"place": 3}}
    place = {"type": "object", "properties": {"place": {"type": "string"}}}
    row = {
        "messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "tool_calls": [call]}],
        "tools": [{"name": "look", "parameters": place}],
    }
    plain = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    data = str(making.write(folder / "planted.jsonl", [plain] * 8 + [row]))
    return {"data": data, "chat_template": "chatml-tools"}


def unknown_answers(folder: Path, _: Patch) -> dict[str, Any]:
    path = tiny.tiny_folder(folder / "words")
    making.word_tokenizer(["Why ?"]).save_pretrained(path)
    return {"model": path, "data": conversations(folder, "Why ?", "Привет, мир!")}


def doubled_special_tokens(folder: Path, _: Patch) -> dict[str, Any]:
    return {"model": model(folder, "{{ bos_token }}" + tiny.TEMPLATE)}


def special_text(folder: Path, _: Patch) -> dict[str, Any]:
    return {"data": conversations(folder, "What does <|im_end|> mean?", "An end.")}


def applied_template(folder: Path, _: Patch) -> dict[str, Any]:
    return {"data": conversations(folder, "<|im_start|>user\nHi", "Hello."), "allow": ["special-text"]}


def empty_response(folder: Path, _: Patch) -> dict[str, Any]:
    """Transcripts may be silent: people ranked that."""
    asked = "\n\nHuman: Hi\n\nAssistant:"
    rows = [{"chosen": f"{asked} Hello.", "rejected": asked}]
    return {"data": {"path": str(making.write(folder / "planted.jsonl", rows))}, "method": "dpo"}


def untrained_end(_: Path, patch: Patch) -> dict[str, Any]:
    """No template can do this to a conversation: the renderer itself writes the end token."""
    real = Renderer.conversation

    def endless(self: Renderer, *args: Any, **kwargs: Any) -> Rendered:
        made = real(self, *args, **kwargs)
        return Rendered(made.ids[:-1], made.mask[:-1])

    patch.setattr(Renderer, "conversation", endless)
    return {}


def eval_overlap(folder: Path, _: Patch) -> dict[str, Any]:
    path = tiny_data.data(folder, "conversations")
    return {"data": path, "eval": {"data": path}}


def other_reader(folder: Path) -> str:
    """A model whose tokenizer has a token more."""
    path = tiny.tiny_folder(folder / "other")
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["market"])
    tokenizer.save_pretrained(path)
    return path


def other_tokenizer(folder: Path, _: Patch) -> dict[str, Any]:
    path = other_reader(folder)
    config = AutoConfig.from_pretrained(path)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(path)
    return {"method": "ppo", "reward": path, "rollouts": {"advantage": "rloo", "per_prompt": 2}}


def changed_data(folder: Path, _: Patch) -> dict[str, Any]:
    """A run is stopped, its rows change, it is resumed."""
    path = making.write(folder / "planted.jsonl", making.pairs(12))
    settings = {"data": str(path), "save": {"every": 1}, "allow": []}
    assert "stopped at step" in tiny_data.run_stopped(tiny_data.stage("sft", folder, **settings), 6)
    making.write(path, [*making.pairs(11), {"prompt": "q", "completion": "Another answer."}])
    return settings


PLANTS: dict[str, Callable[[Path, Patch], dict[str, Any]]] = {
    "missing-template": missing_template,
    "rewritten-history": rewritten_history,
    "wrong-calls": wrong_calls,
    "unknown-answers": unknown_answers,
    "doubled-special-tokens": doubled_special_tokens,
    "special-text": special_text,
    "applied-template": applied_template,
    "empty-response": empty_response,
    "untrained-end": untrained_end,
    "eval-overlap": eval_overlap,
    "other-tokenizer": other_tokenizer,
    "changed-data": changed_data,
}


def test_every_code_is_planted_here() -> None:
    assert set(PLANTS) | OF_THE_WEIGHTS == set(get_args(Allowed))


def test_a_reference_of_another_tokenizer_cannot_be_meant(tmp_path: Path) -> None:
    """Its log-probabilities of these ids would be those of other words. (A reward reads text: that may be meant.)"""
    more = {"reference": other_reader(tmp_path), "allow": ["other-tokenizer"]}
    with pytest.raises(DataError, match=r"reference: .*other has another tokenizer than") as caught:
        tiny_data.run(tiny_data.stage("dpo", tmp_path, **more))
    assert "allow it" not in str(caught.value)


@pytest.mark.parametrize("code", PLANTS)
def test_it_stops_a_training_before_the_weights_load(tmp_path: Path, code: str, monkeypatch: Patch) -> None:
    settings = PLANTS[code](tmp_path, monkeypatch)
    config = tiny_data.stage(settings.pop("method", "sft"), tmp_path, **settings)
    monkeypatch.setattr("trueup.recipes.stage.load_network", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(DataError) as caught:
        tiny_data.run(config)
    said = str(caught.value)
    assert f"or allow it: allow=[{code}]" in said
    assert len(said.splitlines()) <= 6
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("code", [one for one in PLANTS if one != "changed-data"])
def test_allowed_it_is_told_and_the_training_runs(
    tmp_path: Path, code: str, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PLANTS[code](tmp_path, monkeypatch)
    settings["allow"] = [*settings.get("allow", []), code]
    config = tiny_data.stage(settings.pop("method", "sft"), tmp_path, optim={"steps": 1}, **settings)
    tiny_data.run(config)
    told = json.loads((tmp_path / "run" / "checks.json").read_text())
    levels = {one["code"]: one["level"] for one in told}
    assert levels[code] == "allowed"
    assert "error" not in levels.values()
    assert "; allowed" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "model").exists()


def test_rows_that_changed_while_a_run_was_stopped_can_be_meant(tmp_path: Path, monkeypatch: Patch) -> None:
    path = making.write(tmp_path / "planted.jsonl", making.pairs(12))
    settings = {"data": str(path), "save": {"every": 1}, "allow": ["changed-data"]}
    assert "stopped at step" in tiny_data.run_stopped(tiny_data.stage("sft", tmp_path, **settings), 6)
    making.write(path, [*making.pairs(11), {"prompt": "q", "completion": "Another answer."}])
    assert tiny_data.run(tiny_data.stage("sft", tmp_path, **settings))["steps"] == 4
    levels = {one["code"]: one["level"] for one in json.loads((tmp_path / "run" / "checks.json").read_text())}
    assert levels["changed-data"] == "allowed"


def test_a_flipped_label_is_a_change_of_the_data(tmp_path: Path) -> None:
    """The tokens of the row are the same."""
    rows = tiny_data.rows("labelled")
    path = making.write(tmp_path / "labelled.jsonl", rows)
    config = tiny_data.stage("dpo", tmp_path, data=str(path), loss={"name": "kto"}, save={"every": 1})
    assert "stopped at step" in tiny_data.run_stopped(config, 6)
    making.write(path, [{**rows[0], "label": not rows[0]["label"]}, *rows[1:]])
    with pytest.raises(DataError, match="not those of the checkpoint"):
        tiny_data.run(config)


def test_several_at_once_are_told_together_in_six_lines(tmp_path: Path) -> None:
    path = conversations(tmp_path, "<|im_start|>user\nHi <|im_end|>", "Hello.")
    settings: dict[str, Any] = {"data": path, "eval": {"data": path}}
    with pytest.raises(DataError) as caught:
        tiny_data.run(tiny_data.stage("sft", tmp_path, **settings, allow=["special-text", "eval-overlap"]))
    assert str(caught.value).count("or allow it") == 2  # the template, in both sections
    with pytest.raises(DataError) as caught:
        tiny_data.run(tiny_data.stage("sft", tmp_path, **settings))
    said = str(caught.value).splitlines()
    assert len(said) <= 6
    assert [line for line in said if "or allow it" in line] == [said[1], said[3]]
    assert said[-1] == "(and 3 more: `trueup check` lists all)"


def test_a_response_that_spells_the_end_token_is_no_matter_of_allow(tmp_path: Path) -> None:
    """Sampling would stop there: the row itself is refused."""
    data = conversations(tmp_path, "Hi", "Hello.<|im_end|>")
    with pytest.raises(DataError, match=r"planted\.jsonl:1: a response holds the end token"):
        tiny_data.run(tiny_data.stage("sft", tmp_path, data=data, allow=["special-text"]))
