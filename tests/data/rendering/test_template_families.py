"""Every chat template in TRL's wheel trains: the template's own tokens, and exactly the assistant's turns trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from chat_templates import LOOK, ROWS, TOOL_ROWS, as_dicts, names, table, template, tokenizer_for
from trueup.data.rendering import probe
from trueup.data.rendering.messages import TOOLS
from trueup.data.rendering.renderer import Renderer
from trueup.errors import DataError, ModelError

# These templates write no thought, and their generation prompt opens one: the last answer is written behind it.
FORMED = {"deepseek_r1_distill", "deepseek_r1_distill_training", "deepseekv3", "deepseekv3_training"}
# These write the thought of the last answer nowhere: it is written as the family's later templates do.
UNWRITTEN = {"gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4"}
NO_SYSTEM = {"gemma", "gemma_training"}
ONE_CALL = {"llama3_1", "llama3_2", "gptoss", "gptoss_training"}
GEMMA = {"diffusion_gemma", "diffusion_gemma_training", "gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5"}
MUSE = {"muse_glimmer", "muse_glimmer_training"}
REFUSED = {"parallel": ONE_CALL, "text and call": ONE_CALL | GEMMA | MUSE}
"""Rows that these templates cannot write: more calls than one, or a text beside a call."""

UNWRITABLE = "leaves out a tool call|single tool-calls|behind the results|changes a response into nothing"

pytestmark = pytest.mark.trl
AT_ONCE = {
    "cohere2", "deepseek_r1_distill", "deepseekv3_training", "gemma4", "glm4moe", "gptoss_training", "llava_next",
    "muse_glimmer_training", "nemotron_3_nano", "phi3_training", "qwen3", "qwen3_5_think_training", "diffusion_gemma",
}  # fmt: skip
"""One of each kind; the others are tried under `make test-slow`."""
families = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.slow) for name in names()]
)


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    """Templates of a library that is installed are not tried in a child process, which takes a tenth of a second."""
    monkeypatch.setattr(probe, "problem_of", lambda *_: "")


def trained(renderer: Renderer, ids: Sequence[int], mask: Sequence[int]) -> list[str]:
    """The text of each run of trained tokens."""
    runs = groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1]))
    return [str(renderer.tokenizer.decode([token for token, _ in run])) for on, run in runs if on]


def test_there_are_templates():
    assert len(names()) > 70
    assert set(names()) >= AT_ONCE


@pytest.mark.slow
def test_the_page_of_templates_is_what_is_trained():
    page = Path(__file__).parents[3] / "docs" / "templates.md"
    assert page.read_text(encoding="utf-8") == table()


@families
def test_trains_as_the_template_writes(name):
    tokenizer = tokenizer_for(template(name))
    renderer = Renderer(tokenizer)
    parts, tagged = renderer._template._parts, renderer._template.tagged
    for row, messages in ROWS.items():
        if "system" in row and name in NO_SYSTEM:
            with pytest.raises(ModelError, match="refuses these messages"):
                renderer.conversation(messages)
            continue
        rendered, prompt = renderer.conversation(messages), renderer.prompt(messages[:-1])
        turns = as_dicts(list(map(renderer._template.styled, messages)), parts=parts)
        whole = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=tagged)
        ids, count = whole["input_ids"], len(rendered.ids)
        runs = trained(renderer, rendered.ids, rendered.mask)
        answers = [message.content for message in messages if message.role == "assistant"]
        assert len(runs) == len(answers)
        for answer, run in zip(answers, runs, strict=True):
            assert answer in run
            assert run.endswith(tuple(ends(renderer)))
        assert not any(message.content in run for message in messages if message.role != "assistant" for run in runs)
        if messages[-1].thinking:
            assert messages[-1].thinking in runs[-1]
        if name in FORMED or (name in UNWRITTEN and messages[-1].thinking):
            assert rendered.ids[: len(prompt)] == prompt
            before = tokenizer.decode(ids)
            assert tokenizer.decode(rendered.ids).startswith(before[: before.rindex(answers[-1])])
            continue
        appended = [] if renderer.writes_end else rendered.ids[-1:]
        assert rendered.ids == ids[: count - len(appended)] + appended
        assert not tokenizer.decode(ids[count:]).replace("<|endoftext|>", "").strip()  # Phi-3's last eos
        if tagged:
            header = tokenizer.decode(prompt)
            for run, text in zip(runs, trained(renderer, ids, whole["assistant_masks"]), strict=True):
                generated = text.removesuffix("<|endoftext|>")  # Phi-3's, behind its end token
                assert generated.rstrip().endswith(run.strip())
                given = generated.rstrip().removesuffix(run).strip()
                assert given == "" or header.rstrip().endswith(given)


@families
def test_tool_calls_are_trained_and_results_are_not(name):
    tokenizer = tokenizer_for(template(name))
    renderer = Renderer(tokenizer)
    writes = renderer._template
    for row, messages in TOOL_ROWS.items():
        known = writes.declares and (writes.writes_calls or row == "no call")
        if not known or name in REFUSED.get(row, ()):
            with pytest.raises((DataError, ModelError), match=UNWRITABLE if known else "writes no"):
                renderer.conversation(messages)
            continue
        rendered, prompt = renderer.conversation(messages), renderer.prompt(messages[:-1])
        styled = list(map(writes.styled, messages))
        turns = [writes._turn(message) for message in styled if message.role != TOOLS]
        whole = tokenizer.apply_chat_template(
            turns, tools=[LOOK], return_dict=True, return_assistant_tokens_mask=writes.tagged
        )
        runs = trained(renderer, rendered.ids, rendered.mask)
        text = "".join(runs)
        assert len(runs) == sum(message.role == "assistant" for message in messages)
        assert not any(message.content in text for message in messages if message.role in ("tool", "user"))
        for message in messages:
            assert all(call.name in text and json.loads(call.arguments)["place"] in text for call in message.calls)
            assert message.role != "assistant" or message.content in text
        if name in FORMED or (name in UNWRITTEN and messages[-1].thinking):
            continue
        count = len(rendered.ids) - (not renderer.writes_end)
        assert rendered.ids[:count] == whole["input_ids"][:count]
        if writes.tagged:
            header = tokenizer.decode(prompt)
            generated = trained(renderer, whole["input_ids"], whole["assistant_masks"])
            assert "".join(generated).replace(" ", "").count("Rome") == text.count("Rome")
            for run in runs:
                assert any(part.rstrip().endswith(run.strip()) for part in generated)
            given = generated[-1].rstrip().removesuffix(runs[-1]).strip()
            assert given == "" or header.rstrip().endswith(given)


def ends(renderer: Renderer) -> set[str]:
    return {*renderer.stop_texts, "<|end|>"}  # gpt-oss ends only the last answer with <|return|>


@pytest.mark.parametrize(
    "name",
    ["gptoss", "gemma4_v5", "muse_glimmer", "qwen3", "deepseek_r1_distill", "glm4moe", "nemotron_3_nano", "llama3_1"],
)
def test_an_answer_that_grows_only_adds_and_ends_as_it_is_read(name):
    """Token by token, as `trueup chat` shows it: no header of a channel, no control token, the thought in <think>."""
    renderer = Renderer(tokenizer_for(template(name)))
    for row in ("thought", "single"):
        messages = ROWS[row]
        prompt = renderer.prompt(messages[:-1])
        ids = renderer.conversation(messages).ids[len(prompt) : -1]
        opened = renderer.opens_thought(prompt)
        grown = [renderer.growing(ids[:size], opened=opened) for size in range(len(ids) + 1)]
        for before, after in pairwise(grown):
            assert after.startswith(before.rstrip())
        thought, said = messages[-1].thinking, messages[-1].content
        assert grown[-1].endswith(said)
        if thought:
            assert grown[-1] == f"<think>\n{thought}\n</think>\n\n{said}"
        assert not any("analysis" in text or "to=" in text or "channel" in text for text in grown)


@pytest.mark.parametrize("name", ["gptoss", "gemma4_v5", "gemma4_v2", "muse_glimmer"])
def test_a_sampled_answer_is_read_as_data_are(name):
    """Where special tokens part thought and answer, they would be lost with the special tokens."""
    renderer = Renderer(tokenizer_for(template(name)))
    for row in ("thought", "single"):
        messages = ROWS[row]
        start = len(renderer.prompt(messages[:-1]))
        sampled = renderer.answer(renderer.conversation(messages).ids[start:-1])
        thought = messages[-1].thinking
        assert sampled == (f"<think>\n{thought}\n</think>\n\n" if thought else "") + messages[-1].content
