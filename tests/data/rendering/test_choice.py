"""The chat template and its variables that a configuration sets: used, refused, exported."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from tiny import tiny_tokenizer
from trueup.config import TEMPLATE_NAMES
from trueup.data.rendering import probe
from trueup.data.rendering.choice import TEMPLATES, choose_template, two_templates, with_defaults
from trueup.data.rendering.messages import TOOLS, Message, ToolCall
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.build import tokenizer_version
from trueup.errors import ConfigError, ModelError
from trueup.models.loading import load_tokenizer

SWITCHED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setattr(probe, "problem_of", lambda *_: "")


def prompt_of(tokenizer, **variables):
    turns = [{"role": "user", "content": "hi"}]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **variables)


def test_a_file_replaces_the_template(tmp_path):
    (tmp_path / "my.jinja").write_text(SWITCHED)
    tokenizer = tiny_tokenizer()
    choose_template(tokenizer, str(tmp_path / "my.jinja"), None)
    assert tokenizer.chat_template == SWITCHED


def test_variables_become_the_defaults_of_the_exported_template(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = SWITCHED
    choose_template(tokenizer, None, {"enable_thinking": False})
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert prompt_of(again).endswith("assistant\n<think>\n\n</think>\n\n")
    assert prompt_of(again, enable_thinking=True).endswith("assistant\n")
    assert again.decode(Renderer(again).prompt((Message("user", "hi"),))) == prompt_of(again)


@pytest.mark.parametrize("value", [True, None, 3, 0.5, 'a "b" \\ \n é 🙂', [1, "x", None], {"a": [True]}])
def test_values_of_every_kind(value):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = with_defaults("{{ shown | tojson }}", {"shown": value})
    assert json.loads(str(prompt_of(tokenizer))) == value


def test_the_same_variables_are_written_once():
    once = with_defaults(SWITCHED, {"enable_thinking": False})
    assert with_defaults(once, {"enable_thinking": False}) == once
    assert prompt_of_text(once) == prompt_of_text(SWITCHED, enable_thinking=False)


def prompt_of_text(template, **variables):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return prompt_of(tokenizer, **variables)


def test_an_unknown_variable_is_refused_with_a_suggestion():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = SWITCHED
    with pytest.raises(ConfigError, match=r"reads no variable \"enable_thinkin\"(.|\n)*did you mean enable_thinking"):
        choose_template(tokenizer, None, {"enable_thinkin": False})
    with pytest.raises(ConfigError, match="reads none"):
        choose_template(tiny_tokenizer(), None, {"enable_thinking": False})
    with pytest.raises(ConfigError, match="reads no variable"):
        choose_template(tokenizer, None, {"messages": []})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no-such.jinja: No such file(.|\n)*chatml"):
        choose_template(tiny_tokenizer(), str(tmp_path / "no-such.jinja"), None)


def test_the_cache_key_depends_on_template_and_variables():
    versions = set()
    for variables in (None, {"enable_thinking": False}, {"enable_thinking": True}):
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = SWITCHED
        choose_template(tokenizer, None, variables)
        versions.add(tokenizer_version(Renderer(tokenizer)))
    assert len(versions) == 3


def test_two_different_templates_in_one_folder_are_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    (tmp_path / "chat_template.jinja").write_text(SWITCHED)
    values = json.loads(config.read_text()) | {"chat_template": SWITCHED}
    config.write_text(json.dumps(values))
    assert not two_templates(tmp_path)
    config.write_text(json.dumps(values | {"chat_template": "{{ messages }}"}))
    with pytest.raises(ModelError, match=r"one chat template and chat_template.jinja another(.|\n)*fix: remove one"):
        load_tokenizer(str(tmp_path))
    assert load_tokenizer(str(tmp_path), chat_template="chatml").chat_template == TEMPLATES["chatml"]


def test_ours_have_the_names_of_the_key():
    assert tuple(TEMPLATES) == TEMPLATE_NAMES


def test_chatml_tools_writes_thoughts_calls_and_results():
    tokenizer = tiny_tokenizer()
    choose_template(tokenizer, "chatml-tools", None)
    renderer = Renderer(tokenizer)
    call = ToolCall("look", '{"place": "Rome"}')
    talk = (
        Message(TOOLS, json.dumps([{"type": "function", "function": {"name": "look"}}])),
        Message("system", "Be brief."),
        Message("user", "Rain?"),
        Message("assistant", "", thinking="Look.", calls=(call, call)),
        Message("tool", "dry"),
        Message("tool", "wet"),
        Message("assistant", "Both."),
    )
    rendered = renderer.conversation(talk)
    assert tokenizer.decode([i for i, on in zip(rendered.ids, rendered.mask, strict=True) if on]) == (
        "<think>\nLook.\n</think>\n\n"
        '<tool_call>\n{"name": "look", "arguments": {"place": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "look", "arguments": {"place": "Rome"}}\n</tool_call><|im_end|>Both.<|im_end|>'
    )
    assert "<tool_response>\ndry\n</tool_response>\n<tool_response>\nwet" in tokenizer.decode(rendered.ids)
