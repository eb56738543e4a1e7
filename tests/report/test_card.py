"""The model card: front matter that the hub reads, numbers with intervals, and data that cannot act."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from report import sample_report as samples
from trueup.report.card import escaped, fenced, is_hub_id, model_card


def front(card: str) -> dict:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


def test_front_matter() -> None:
    facts = front(model_card(samples.full(), "ppo", base="HuggingFaceTB/SmolLM2-135M", method="ppo"))
    assert facts == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["trueup", "alignment", "ppo"],
        "base_model": "HuggingFaceTB/SmolLM2-135M",
    }  # fmt: skip


def test_a_path_is_no_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sft").mkdir(parents=True)
    for base in ("runs/sft", "/data/model", "./model", "../model", "~/model", "model.gguf", "a/b/c", "x: y", ""):
        assert not is_hub_id(base)
        assert "base_model" not in front(model_card(samples.full(), "ppo", base=base, method="ppo"))
    assert is_hub_id("gpt2")
    assert is_hub_id("owner/name-1.5_b")


def test_what_it_says() -> None:
    card = model_card(samples.full(), "ppo", base="sft", method="ppo")
    for words in (
        "# ppo\n", "proximal policy optimisation", "**HOLD**: capability fell by more than 0.03",
        "| Capability drop | **fail** |", "| Unsafe compliance rise | **not run** |",
        "| Capability, share right | 0.714 [0.669, 0.759] | 384 | 0.781 [0.740, 0.822] | \u22120.067 [",
        "## Not measured", "KL of base: its tokenizer has no chat template",
        "512 rows read = 512 used + 0 left out + 0 not selected", "**gold-falls**", "Fix: raise kl.coef",
        "```yaml\nname: ppo", "trueup ppo pipeline/ppo.yaml", "torch 2.8.0", "AutoModelForCausalLM",
    ):  # fmt: skip
        assert words in card


def test_dropped_rows_are_listed() -> None:
    card = model_card(samples.full(), "sft", base="x", method="sft")
    assert "2,592 rows read = 2,580 used + 12 left out + 0 not selected" in card
    assert "- 3 left out: world/instructions.jsonl:17: empty answer" in card
    assert "**NOT JUDGED**" in card


def test_a_reward_model() -> None:
    card = model_card(samples.full(), "reward", base="x", method="reward")
    assert front(card)["pipeline_tag"] == "text-classification"
    assert "AutoModelForSequenceClassification" in card
    assert "| accuracy, share of held-out rankings | 0.832" in card
    assert "| where chosen is shorter, share of held-out rankings | 0.67 [0.61, 0.74] | 202" in card


def test_a_model_of_which_nothing_is_known() -> None:
    card = model_card(samples.empty(), "m", base="b", method="dpo")
    assert "**NOT MEASURED**: no number was taken of this model." in card
    assert "**NOT JUDGED**" in card
    assert "pass" not in card


def test_examples_are_python() -> None:
    for method in ("ppo", "reward"):
        card = model_card(samples.empty(), "m", base="b", method=method)
        code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        compile(code[0], "card", "exec")


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_text_of_data_is_one_harmless_line(text: str) -> None:
    line = escaped(text)
    assert "\n" not in line
    assert not re.search(r"(?<!\\)[|`*_\[\]]", line.replace("\\\\", ""))
    assert not re.search(r"<|>|://", line)
    assert not re.match(r"[-+#=]\s|\d+[.)]\s|---|#", line)


@pytest.mark.parametrize("text", ["# heading", "- item", "+ item", "1. one", "2) two", "---", "===", "#"])
def test_a_line_does_not_begin_a_block(text: str) -> None:
    assert re.match(r"\d*\\", escaped(text))


def test_ordinary_text_is_left_as_it_is() -> None:
    for text in ("+0.067 is more", "0.1.0", "over-refusal (of 240)", "What? No!"):
        assert escaped(text) == text


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert fenced("a ``` b\n````") == "`````\na ``` b\n````\n`````"


def test_hostile_report() -> None:
    report = samples.hostile()
    card = model_card(report, report.models[1], base="<b>x</b>\n---\n", method="sft")
    assert front(card)["library_name"] == "transformers"
    assert "<" not in outside_code(card)
    report.stages[0].name = report.models[1]
    card = model_card(report, report.models[1], base="x", method="sft")
    assert samples.SCRIPT in card
    assert "<" not in outside_code(card)


def outside_code(card: str) -> str:
    return re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", card, flags=re.DOTALL | re.MULTILINE)
