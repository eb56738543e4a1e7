"""Messages to tokens: exact masks under real templates, tokenizers of three kinds, and clear refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from thorough import trials
from tiny import END_ID, EOS_ID, START_ID, tiny_tokenizer
from trueup.data.rendering.messages import Conversation, Message, Origin, Preference, check, row_error
from trueup.data.rendering.renderer import Renderer
from trueup.data.rendering.template import CHATML as FALLBACK
from trueup.errors import DataError, ModelError
from trueup.system.text import excerpt

CHATML = FALLBACK.replace("END", "<|im_end|>")
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + message['content'].strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}"
    "\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}"
    "\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}"
    "\n{% endif %}"
    "\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# Qwen3's: the last answer gets a thinking block, those before the last question lose theirs.
QWEN3 = """
{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') }}
                {{- '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}
        {%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

# name -> template, bos, eos, other special tokens, what ends an assistant's turn
TEMPLATES = {
    "chatml": (CHATML, "<|im_start|>", "<|im_end|>", [], "<|im_end|>"),
    "chatml, another eos": (CHATML, "<s>", "</s>", ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "smollm2": (SMOLLM2, "<|im_start|>", "<|im_end|>", [], "<|im_end|>"),
    "llama3": (LLAMA3, "<|begin_of_text|>", "<|end_of_text|>",
               ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "mistral": (MISTRAL, "<s>", "</s>", [], "</s>"),
    "llama2": (LLAMA2, "<s>", "</s>", [], "</s>"),
    "gemma": (GEMMA, "<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
    "zephyr": (ZEPHYR, "<s>", "</s>", [], "</s>"),
    "qwen3": (QWEN3, "<|endoftext|>", "<|im_end|>", ["<|im_start|>", "<think>", "</think>"], "<|im_end|>"),
}  # fmt: skip
WORDS = "You are a helpful assistant. user system What is the capital of France? The capital is Paris.\n\n1 2 3 \n"


def byte_bpe(special: list[str]) -> Tokenizer:
    """GPT-2's kind: bytes, with a few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


def sentencepiece(special: list[str]) -> Tokenizer:
    """Llama 2's kind: a space is put before the text, and "▁yes" is another token than "yes"."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    alphabet = [chr(i) for i in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", *special], show_progress=False,
                                  initial_alphabet=alphabet)  # fmt: skip
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


def legacy(special: list[str]) -> Tokenizer:
    """TinyLlama's kind: as `sentencepiece`, but a space is put after every special token too."""
    tokenizer = sentencepiece(special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    return tokenizer


@cache
def trained(kind: str, special: tuple[str, ...]) -> str:
    return {"bytes": byte_bpe, "sentencepiece": sentencepiece, "legacy": legacy}[kind](list(special)).to_str()


def make_tokenizer(name: str, kind: str = "bytes", pad: str = "<pad>") -> PreTrainedTokenizerBase:
    template, bos, eos, others, _ = TEMPLATES[name]
    special = tuple(dict.fromkeys([pad, bos, eos, *others]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained(kind, special)), bos_token=bos, eos_token=eos, pad_token=pad
    )
    tokenizer.chat_template = template
    return tokenizer


def talk(*contents: str, system: str = "") -> tuple[Message, ...]:
    roles = ("user", "assistant")
    turns = tuple(Message(roles[i % 2], content) for i, content in enumerate(contents))
    return (Message("system", system), *turns) if system else turns


def trained_text(renderer: Renderer, messages: tuple[Message, ...]) -> list[str]:
    """Text of each run of trained tokens, special tokens included, outer spaces off."""
    rendered = renderer.conversation(messages)
    runs: list[list[int]] = []
    for i, (token, on) in enumerate(zip(rendered.ids, rendered.mask, strict=True)):
        if on and (i == 0 or not rendered.mask[i - 1]):
            runs.append([])
        if on:
            runs[-1].append(token)
    return [renderer.tokenizer.decode(run).strip() for run in runs]


APPENDING = [name for name in TEMPLATES if name != "qwen3"]
TALK = talk("What is the capital of France?", "The capital is Paris.", "And 2 of 3?", "1, 2\n\n3")


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "legacy"])
@pytest.mark.parametrize("name", APPENDING)
class TestEveryTemplate:
    def test_trains_exactly_responses_and_their_end_tokens(self, name, kind):
        renderer, end = Renderer(make_tokenizer(name, kind)), TEMPLATES[name][4]
        runs = trained_text(renderer, TALK)
        assert [run.removesuffix(end).strip() for run in runs] == [TALK[1].content, TALK[3].content]
        assert all(run.endswith(end) for run in runs)
        assert renderer.tokenizer.convert_ids_to_tokens(renderer.end_id) == end
        assert renderer.stop_ids == {renderer.end_id, renderer.tokenizer.eos_token_id}

    def test_stops_at_the_last_end_token(self, name, kind):
        renderer = Renderer(make_tokenizer(name, kind))
        rendered = renderer.conversation(TALK)
        assert rendered.ids[-1] == renderer.end_id
        assert rendered.mask[-1]
        assert len(rendered.ids) == len(rendered.mask)

    def test_tokens_are_those_of_the_template_s_text(self, name, kind):
        tokenizer = make_tokenizer(name, kind)
        ids = Renderer(tokenizer).conversation(TALK).ids
        turns = [{"role": m.role, "content": m.content} for m in TALK]
        whole = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == tokenizer.convert_ids_to_tokens(whole[: len(ids)])

    def test_prompt_is_a_strict_prefix_and_continuation_the_rest(self, name, kind):
        renderer = Renderer(make_tokenizer(name, kind))
        for end in (1, 3):
            prompt, completion = TALK[:end], TALK[end : end + 1]
            start, whole = renderer.prompt(prompt), renderer.conversation((*prompt, *completion))
            rest = renderer.continuation(prompt, completion)
            assert start + rest.ids == whole.ids
            assert rest.mask == whole.mask[len(start) :]
            assert all(rest.mask)
            assert rest.ids

    def test_pad_equal_to_eos_changes_nothing(self, name, kind):
        plain = Renderer(make_tokenizer(name, kind))
        shared = make_tokenizer(name, kind)
        shared.pad_token = shared.eos_token
        assert shared.pad_token_id == shared.eos_token_id
        assert Renderer(shared).conversation(TALK) == plain.conversation(TALK)

    def test_completion_of_several_turns(self, name, kind):
        renderer = Renderer(make_tokenizer(name, kind))
        whole, start = renderer.conversation(TALK), renderer.prompt(TALK[:1])
        rest = renderer.continuation(TALK[:1], TALK[1:])
        assert start + rest.ids == whole.ids
        assert rest.mask == whole.mask[len(start) :]
        assert not all(rest.mask)

    def test_silence_is_the_end_token_alone(self, name, kind):
        renderer, end = Renderer(make_tokenizer(name, kind)), TEMPLATES[name][4]
        assert trained_text(renderer, talk("hi", "")) == [end]

    def test_exactly_one_bos(self, name, kind):
        tokenizer = make_tokenizer(name, kind)
        ids = Renderer(tokenizer).conversation(talk("hi", "yes")).ids
        if "bos_token" in TEMPLATES[name][0]:
            assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["chatml", "smollm2", "llama3", "zephyr"])
def test_system_message_is_context(name):
    renderer = Renderer(make_tokenizer(name))
    messages = talk("hi", "yes", system="You are a helpful assistant.")
    assert "You are a helpful assistant." in renderer.decode(renderer.prompt(messages[:-1]))
    assert [run.removesuffix(TEMPLATES[name][4]) for run in trained_text(renderer, messages)] == ["yes"]


def test_template_s_own_system_message_is_context():
    renderer = Renderer(make_tokenizer("smollm2"))
    assert "named SmolLM" in renderer.decode(renderer.prompt(talk("hi")))
    assert trained_text(renderer, talk("hi", "yes", "so", "no")) == ["yes<|im_end|>", "no<|im_end|>"]


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_refused_system_message_says_what_to_do(name):
    with pytest.raises(ModelError, match=r"refuses these messages \(system user\)(.|\n)*first user message"):
        Renderer(make_tokenizer(name)).prompt(talk("hi", system="Be brief."))
    with pytest.raises(ModelError, match=r"^rows.jsonl:7: the chat template refuses these messages"):
        Renderer(make_tokenizer(name)).pair(
            talk("hi", system="Be brief."), [talk("", "yes")[1:]], Origin("rows.jsonl", 7)
        )


class TestQwenWritesHistoryOtherwise:
    @pytest.fixture
    def renderer(self):
        return Renderer(make_tokenizer("qwen3"))

    def test_trains_each_answer_as_it_is_written(self, renderer):
        """Qwen3 gives the last answer an empty thought, and the earlier ones none."""
        runs = trained_text(renderer, TALK)
        assert runs == [f"{TALK[1].content}<|im_end|>", f"<think>\n\n</think>\n\n{TALK[3].content}<|im_end|>"]
        assert renderer.conversation(TALK).remarks == {"empty-thought"}

    def test_ids_are_the_template_s(self, renderer):
        turns = [{"role": m.role, "content": m.content} for m in TALK]
        whole = renderer.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        ids = renderer.conversation(TALK).ids
        assert whole[: len(ids)] == ids

    def test_prompt_is_still_a_strict_prefix(self, renderer):
        for end in (1, 3):
            start, whole = renderer.prompt(TALK[:end]), renderer.conversation(TALK[: end + 1])
            assert start == whole.ids[: len(start)]
            assert all(whole.mask[len(start) :])

    def test_a_thought_of_an_earlier_answer_that_the_template_leaves_out_is_said(self, renderer):
        thought = talk("2?", "<think>\nTwo.\n</think>\n\nIt is 2.", "3?", "<think>\nThree.\n</think>\n\nIt is 3.")
        assert trained_text(renderer, thought)[0] == "It is 2.<|im_end|>"
        assert renderer.conversation(thought).remarks == {"thought", "lost-thought"}

    def test_thinking_is_trained_where_it_is_written(self, renderer):
        (run,) = trained_text(renderer, talk("2?", "<think>\nTwo.\n</think>\n\nIt is 2."))
        assert run == "<think>\nTwo.\n</think>\n\nIt is 2.<|im_end|>"

    def test_several_turns_in_a_completion(self, renderer):
        start, rest = renderer.prompt(TALK[:1]), renderer.continuation(TALK[:1], TALK[1:])
        assert start + rest.ids == renderer.conversation(TALK).ids
        assert renderer.decode([t for t, on in zip(rest.ids, rest.mask, strict=True) if on]).endswith(TALK[3].content)


def with_template(template: str, name: str = "chatml, another eos") -> PreTrainedTokenizerBase:
    tokenizer = make_tokenizer(name)
    tokenizer.chat_template = template
    return tokenizer


class TestOddTemplates:
    def test_a_template_that_is_no_jinja_names_its_line(self):
        """No other messages would help, so it is not said that these are refused."""
        with pytest.raises(ModelError, match=r"is no valid Jinja, line 2: \"expected(.|\n)*another chat_template"):
            Renderer(with_template("{% for m in messages %}\n{% if m m %}{% endif %}{% endfor %}"))

    def test_no_end_token_in_template_means_eos(self):
        renderer = Renderer(with_template("{% for m in messages %}{{ m.role + ': ' + m.content + '\n\n' }}{% endfor %}"
                                          "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"))  # fmt: skip
        assert trained_text(renderer, talk("a b", "yes", "c", "no")) == ["yes", "no</s>"]  # none between turns
        assert renderer.end_id == renderer.tokenizer.eos_token_id
        start = renderer.prompt(talk("a b", "yes", "c"))
        assert renderer.conversation(talk("a b", "yes", "c", "no")).ids[: len(start)] == start

    def test_no_generation_prompt_in_template(self):
        turn = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        renderer = Renderer(with_template("{% for m in messages %}" + turn + "{% endfor %}"))
        assert trained_text(renderer, talk("hi", "yes")) == ["yes<|im_end|>"]
        assert renderer.tokenizer.decode(renderer.prompt(talk("hi"))).endswith("<|im_start|>assistant\n")

    @pytest.mark.parametrize("ending", ["<|im_start|>assistant\n", "<|im_start|>"])
    def test_the_header_of_a_next_answer_is_not_the_end_of_this_one(self, ending):
        turn = "{{ '<|im_start|>' + (m.role + '\n' if ending else '') + m.content + '<|im_end|>' }}"
        turn = turn.replace("ending", str(ending != "<|im_start|>").lower())
        renderer = Renderer(with_template("{% for m in messages %}" + turn + "{% endfor %}" + ending))
        assert trained_text(renderer, talk("hi", "yes", "so", "no")) == ["yes<|im_end|>", "no<|im_end|>"]
        assert str(renderer.tokenizer.decode([renderer.end_id])) == "<|im_end|>"
        assert renderer.template_marks

    def test_text_below_the_last_question_alone(self):
        below = "{{ ' /brief' if m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] else '' }}"
        turn = "{{ '<|im_start|>' + m.role + '\n' + m.content }}" + below + "{{ '<|im_end|>\n' }}"
        prompt = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        renderer = Renderer(with_template("{% for m in messages %}" + turn + "{% endfor %}" + prompt))
        asked = talk("one", "yes", "two", "no")
        assert trained_text(renderer, asked) == ["yes<|im_end|>", "no<|im_end|>"]
        assert str(renderer.tokenizer.decode(renderer.conversation(asked).ids)).count(" /brief") == 1

    def test_end_token_left_out_of_the_last_turn(self):
        template = (
            "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}"
            "{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ eos_token + '[assistant]' }}{% endif %}"
        )
        renderer = Renderer(with_template(template))
        assert trained_text(renderer, talk("hi", "yes"))[-1] == "yes</s>"
        whole = renderer.tokenizer.decode(renderer.conversation(talk("hi", "yes", "so", "no")).ids)
        assert whole == "[user]hi</s>[assistant]yes</s>[user]so</s>[assistant]no</s>"

    @pytest.mark.parametrize(
        ("template", "problem"),
        [
            (CHATML.replace("message['content']", "message['content'] | upper"), "changes a response"),
            (CHATML.replace("message['content']", "message['content'] | replace('y', 'Y')"), "changes a response"),
            (CHATML.replace("message['content']", "message['content'].split() | join(' ')"), "changes a response"),
            (CHATML.replace("message['content']", "'nothing'"), "leaves out a user's message"),
            (CHATML.replace("<|im_end|>\n", "\n### End\n"), 'ends a response with "### End", which is not one token'),
            ("{{ messages | length }}" + CHATML, "renders differently turn by turn"),
        ],
    )  # fmt: skip
    def test_refused(self, template, problem):
        with pytest.raises(ModelError, match=problem) as caught:
            Renderer(with_template(template)).conversation(talk("hi", "yes"))
        assert "fix:" in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 6

    def test_a_row_that_the_template_cannot_keep_is_named(self):
        """The template changes only this row's text, so the error names the row and not the template."""
        renderer = Renderer(
            with_template(CHATML.replace("message['content']", "message['content'] | replace('q', 'Q')"))
        )
        assert trained_text(renderer, talk("quick", "yes")) == ["yes<|im_end|>"]
        with pytest.raises(
            DataError, match=r'^rows.jsonl:7: the chat template changes a response into "Quick"'
        ) as caught:
            renderer.conversation(talk("hi", "quick"), origin=Origin("rows.jsonl", 7))
        assert '\n  value: "quick"\n  fix:' in str(caught.value)

    def test_no_eos_token(self):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_bpe(["<pad>"]), pad_token="<pad>")
        with pytest.raises(ModelError, match="no eos token"):
            Renderer(tokenizer)


class TestFallback:
    def base(self, *others: str, bos: bool = False) -> PreTrainedTokenizerBase:
        tokenizer = byte_bpe(["<s>", "</s>", *others])
        if bos:
            from tokenizers.processors import TemplateProcessing

            tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")

    def test_is_noticed(self):
        assert Renderer(self.base()).missing_template
        assert not Renderer(make_tokenizer("chatml")).missing_template

    def test_ends_with_im_end_where_it_is_one_token(self):
        tokenizer = self.base("<|im_start|>", "<|im_end|>")
        renderer = Renderer(tokenizer)
        assert trained_text(renderer, talk("hi", "yes")) == ["yes<|im_end|>"]
        assert renderer.stop_ids == {renderer.end_id, tokenizer.eos_token_id}

    def test_ends_with_eos_where_it_is_not(self):
        renderer = Renderer(self.base())
        assert trained_text(renderer, talk("hi", "yes", "so", "no")) == ["yes</s>", "no</s>"]
        assert renderer.tokenizer.decode(renderer.prompt(talk("hi"))).count("</s>") == 0

    def test_begins_with_bos_where_the_tokenizer_adds_one(self):
        renderer = Renderer(self.base(bos=True))
        assert renderer.conversation(talk("hi", "yes")).ids.count(0) == 1
        assert renderer.conversation(talk("hi", "yes")).ids[0] == 0

    def test_is_exported(self, tmp_path):
        tokenizer = self.base()
        ids = Renderer(tokenizer).conversation(TALK).ids
        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        assert again.chat_template == tokenizer.chat_template
        assert Renderer(again).conversation(TALK).ids == ids

    def test_text_gets_bos_untrained_and_eos_trained(self):
        rendered = Renderer(self.base(bos=True)).text("Paris.")
        assert (rendered.ids[0], rendered.mask[0]) == (0, False)
        assert rendered.ids[-1] == 1
        assert all(rendered.mask[1:])

    def test_text_gets_no_bos_where_the_tokenizer_adds_none(self):
        rendered = Renderer(self.base()).text("Paris.")
        assert 0 not in rendered.ids
        assert all(rendered.mask)


class TestControlTexts:
    """A control token spelled in a content is text: one token a byte in the tiny tokenizer, so ids are known."""

    def ids(self, text: str) -> list[int]:
        return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]

    def letters(self, text: str) -> list[int]:
        return [token for letter in text for token in self.ids(letter)]

    def test_of_a_user_a_system_and_an_earlier_answer(self):
        renderer = Renderer(tiny_tokenizer())
        messages = talk("a<|im_end|>b", "c<|im_start|>", "d", "e", system="<|pad|>")
        texts = ["system\n<|pad|>", "user\na<|im_end|>b", "assistant\nc<|im_start|>", "user\nd", "assistant\ne"]
        expected = [token for text in texts for token in (START_ID, *self.letters(text), END_ID, *self.ids("\n"))]
        rendered = renderer.conversation(messages)
        assert rendered.ids == expected[:-1]
        assert rendered.mask.count(True) == len("c<|im_start|>") + 1 + len("e") + 1
        assert renderer.prompt(messages[:-1]) == rendered.ids[: -len("e") - 1]
        assert "a<|im_end|>b" in renderer.decode(rendered.ids)
        assert renderer.control_texts(messages) == ["<|pad|>", "<|im_end|>", "<|im_start|>"]
        assert renderer.control_texts(talk("<im_end>", "b")) == []

    def test_of_a_document(self):
        rendered = Renderer(tiny_tokenizer(eos="<|endoftext|>")).text("a<|endoftext|><|endoftext|>b")
        assert rendered.ids == [*self.letters("a<|endoftext|><|endoftext|>b"), EOS_ID]

    @pytest.mark.parametrize(
        "content", ["\ufdd0", "\ufdd01<|im_end|>\ufdd00", "<|im_\ufdd01end|>", "<\ufdd01|im_end|>"]
    )
    def test_the_sign_that_marks_contents_is_text_too(self, content):
        renderer = Renderer(tiny_tokenizer())
        assert renderer.decode(renderer.prompt(talk(content))) == f"user\n{content}\nassistant\n"
        assert renderer.prompt(talk(content)).count(END_ID) == 1
        rest = renderer.continuation(talk("hi"), [Message("assistant", content.replace("<|im_end|>", "<|pad|>"))])
        assert renderer.decode(rest.ids) == content.replace("<|im_end|>", "<|pad|>")

    def test_that_overlap(self):
        tokenizer = byte_bpe(["<s>", "</s>", "[A]", "]]B", "[[A"])
        renderer = Renderer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"))
        ids = renderer.prompt(talk("[[A]]B"))
        assert not {tokenizer.token_to_id(token) for token in ("[A]", "]]B", "[[A")} & {*ids}
        assert "[[A]]B" in renderer.decode(ids)

    def test_added_tokens_that_are_no_markers_stay(self):
        """A word, white space and a single character that somebody added; and a special character."""
        tokenizer = make_tokenizer("chatml")
        tokenizer.add_tokens(["user", "\n\n\n", "§"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["¶"]})
        content = "a user\n\n\n§¶"
        ids = Renderer(tokenizer).prompt(talk(content))
        assert ids.count(tokenizer.convert_tokens_to_ids("user")) == 2
        assert {*tokenizer.convert_tokens_to_ids(["\n\n\n", "§", "¶"])} <= {*ids}
        assert Renderer(tokenizer).control_texts(talk(content)) == []

    def test_thinking_tags_are_an_answer_s_own(self):
        renderer = Renderer(make_tokenizer("qwen3"))
        think = renderer.tokenizer.convert_tokens_to_ids("<think>")
        answer = Message("assistant", "<think>\nTwo.\n</think>\n\nIt is 2.")
        assert renderer.continuation(talk("2?"), [answer]).ids.count(think) == 1
        assert renderer.prompt(talk("<think>2?</think>")).count(think) == 0
        assert renderer.control_texts([answer]) == []
        assert renderer.control_texts(talk("<think>2?</think>")) == ["<think>", "</think>"]

    def test_spelled_so_that_only_the_tokenizer_sees_it(self):
        """A tokenizer that matches tokens in lower case: the text is refused, not taken for the token."""
        tokenizer = byte_bpe(["<s>", "</s>"])
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.add_tokens([AddedToken("<|user|>", normalized=True)])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
        fast.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        renderer = Renderer(fast)
        user = tokenizer.token_to_id("<|user|>")
        assert renderer.prompt(talk("hi")).count(user) == 1
        assert renderer.prompt(talk("<|user|>")).count(user) == 1
        with pytest.raises(DataError, match=r'becomes a control token\n  value: ".*<\|USER\|>'):
            renderer.prompt(talk("<|USER|>"))


MARKS = {
    "chatml": ["<|im_start|>user", "<|im_start|>assistant", "<|im_end|>"],
    "smollm2": ["<|im_start|>user", "<|im_start|>assistant", "<|im_end|>"],
    "llama3": ["<|start_header_id|>user<|end_header_id|>", "<|start_header_id|>assistant<|end_header_id|>",
               "<|eot_id|>"],
    "mistral": ["[INST]", "[/INST]", "</s>"],
    "llama2": ["[INST]", "[/INST]", "</s>"],
    "gemma": ["<start_of_turn>user", "<start_of_turn>model", "<end_of_turn>"],
    "zephyr": ["<|user|>", "<|assistant|>", "</s>"],
    "qwen3": ["<|im_start|>user", "<|im_start|>assistant", "<|im_end|>"],
}  # fmt: skip


class TestTemplateAppliedTwice:
    @pytest.mark.parametrize("name", MARKS)
    def test_marks(self, name):
        assert list(Renderer(make_tokenizer(name)).template_marks) == MARKS[name]

    @pytest.mark.parametrize("name", MARKS)
    def test_found_in_data_that_were_rendered(self, name):
        tokenizer = make_tokenizer(name)
        renderer = Renderer(tokenizer)
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
        header = MARKS[name][0]
        assert renderer.applied_twice(talk(rendered, "yes")) == header
        assert renderer.applied_twice(talk("hi", f"yes\n{header}")) == header

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_not_found_in_prose_nor_for_a_bare_end_token(self, name):
        renderer = Renderer(make_tokenizer(name))
        end = TEMPLATES[name][4]
        prose = f"user: the assistant <b>said</b> [INSTEAD] {end} User: Assistant: model # user | {{user}}"
        assert renderer.applied_twice(talk(prose, "yes", system="You are a helpful assistant.")) is None

    def test_an_end_token_that_stands_for_a_header_is_not(self):
        template = "{% for m in messages %}{{ m.content }}{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
        renderer = Renderer(with_template(template))
        assert renderer.template_marks == ("</s>",)
        assert renderer.applied_twice(talk("hi</s>yes")) is None

    def test_words_are_no_marks_of_it(self):
        names = "{% set name = 'Human' if m.role == 'user' else 'Assistant' %}"
        template = "{% for m in messages %}" + names + "{{ name + ': ' + m.content + '\n\n' }}{% endfor %}"
        renderer = Renderer(with_template(template))
        assert renderer.template_marks == ("Human:", "Assistant:")
        assert renderer.applied_twice(talk("Human: hi", "Assistant: yes")) is None

    def test_headings_are(self):
        names = "{% set name = 'Instruction' if m.role == 'user' else 'Response' %}"
        template = "{% for m in messages %}" + names + "{{ '### ' + name + ':\n' + m.content + '\n\n' }}{% endfor %}"
        assert Renderer(with_template(template)).applied_twice(talk("### Instruction:\nhi")) == "### Instruction:"


def test_doubled_bos():
    renderer = Renderer(make_tokenizer("llama3"))
    bos = renderer.tokenizer.bos_token_id
    assert renderer.doubled_bos([bos, bos, 5])
    assert not renderer.doubled_bos(renderer.prompt(talk("hi")))
    assert not renderer.doubled_bos([bos])
    renderer.tokenizer.bos_token = None
    assert not renderer.doubled_bos([bos, bos])


class TestPair:
    """One prompt and its completions, rendered and encoded once each, as the single calls do it."""

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_is_the_prompt_and_its_continuations(self, name):
        pairing, single = Renderer(make_tokenizer(name)), Renderer(make_tokenizer(name))
        for prompt in (TALK[:1], TALK[:3], talk("<s> [INST] <|im_start|>")):
            sides = [talk("", "yes")[1:], talk("", "")[1:], talk("", "no", "why?", "so")[1:]]
            ids, branches = pairing.pair(prompt, sides)
            assert ids == single.prompt(prompt)
            whole = [single.conversation((*prompt, *side)) for side in sides]
            assert [ids + one.ids for one in branches] == [one.ids for one in whole]
            assert [one.mask for one in branches] == [one.mask[len(ids) :] for one in whole]

    def test_renders_and_encodes_three_times(self, monkeypatch):
        renderer, rendered, encoded = Renderer(make_tokenizer("chatml")), [], []
        apply, ids = renderer._template._apply, renderer._encoder.ids
        monkeypatch.setattr(renderer._template, "_apply", lambda *given: rendered.append(given) or apply(*given))
        monkeypatch.setattr(renderer._encoder, "ids", lambda text: encoded.append(text) or ids(text))
        renderer.pair(talk("hi"), (talk("", "yes")[1:], talk("", "no")[1:]))
        assert [len(turns) for turns, *_ in rendered] == [1, 2, 2]
        assert encoded == ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "yes", "no"]

    @pytest.mark.parametrize(
        ("prompt", "side", "problem"),
        [
            (talk("hi", "yes"), talk("", "no")[1:], "last message has role assistant, expected user"),
            (talk("hi"), (), "last message has role user, expected assistant"),
            (talk("hi"), talk("no"), "message 2 has role user, expected assistant"),
            (talk("hi"), talk("", "no</s>")[1:], "holds the end token"),
        ],
    )
    def test_refused_with_its_place(self, prompt, side, problem):
        renderer = Renderer(make_tokenizer("zephyr"))
        with pytest.raises(DataError, match=rf"rows.jsonl:7: .*{problem}"):
            renderer.pair(prompt, (talk("", "yes")[1:], side), Origin("rows.jsonl", 7))

    def test_a_template_that_rewrites_the_prompt_once_it_is_answered(self):
        renderer = Renderer(make_tokenizer("qwen3"))
        thought = talk("", "<think>\nOne.\n</think>\n\n1")[1:]
        ids, [one] = renderer.pair((*talk("hi"), *thought, *talk("2?")), [thought])
        assert ids + one.ids == renderer.conversation((*talk("hi"), *thought, *talk("2?"), *thought)).ids
        counting = "{{ messages | length // 3 }}" + CHATML  # 0 up to one answer, then another first character
        with pytest.raises(ModelError, match=r"rows.jsonl:7: the template rewrites the prompt"):
            Renderer(with_template(counting)).pair(talk("hi"), [talk("", "yes")[1:], TALK[1:]], Origin("rows.jsonl", 7))


class TestAsTheTokenizerDoesIt:
    """The short ways to the template and to the backend give what the tokenizer's own calls give."""

    TEXTS = ("", " ", "Paris is", "\n\n a<|im_end|>é 日本 🙂", "x" * 3000)

    @pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "legacy"])
    @pytest.mark.parametrize("left", ["nothing", "truncation", "padding", "split"])
    def test_ids(self, kind, left):
        tokenizer, other = make_tokenizer("chatml", kind), make_tokenizer("chatml", kind)
        renderer = Renderer(tokenizer)
        prompt = renderer.prompt(TALK[:1])
        for text in self.TEXTS:
            if left == "truncation":
                tokenizer("a", truncation=True, max_length=2)
                assert tokenizer.backend_tokenizer.truncation
            elif left == "padding":
                tokenizer(["a"], padding="max_length", max_length=9)
                assert tokenizer.backend_tokenizer.padding
            elif left == "split":
                tokenizer("a", split_special_tokens=True)
                assert tokenizer.backend_tokenizer.encode_special_tokens
            assert renderer._encoder.ids(text) == other(text, add_special_tokens=False)["input_ids"]
        assert renderer.prompt(TALK[:1]) == prompt

    def test_calls_a_tokenizer_that_has_a_way_of_its_own(self):
        class Odd(PreTrainedTokenizerFast):
            def __call__(self, text, **options):
                return super().__call__(text.replace("Paris", "Rome"), **options)

            def apply_chat_template(self, turns, **options):
                return super().apply_chat_template(turns, **options).replace("hi", "ho")

        tokenizer = Odd(tokenizer_object=make_tokenizer("chatml").backend_tokenizer, bos_token="<|im_start|>",
                        eos_token="<|im_end|>", pad_token="<pad>")  # fmt: skip
        tokenizer.chat_template = CHATML
        renderer = Renderer(tokenizer)
        assert "Rome, ho" in renderer.decode(renderer.prompt(talk("Paris, hi")))

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_rendering(self, name):
        tokenizer = make_tokenizer(name)
        template = Renderer(tokenizer)._template
        for messages in (TALK[:1], TALK[:2], TALK):
            turns = [{"role": m.role, "content": m.content} for m in messages]
            for generate in (False, True):
                wanted = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate)
                assert template._render(messages, generate=generate) == wanted

    @pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "legacy"])
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_pickled(self, name, kind):
        renderer = Renderer(make_tokenizer(name, kind))
        again = pickle.loads(pickle.dumps(renderer))
        for messages in (TALK, talk("<pad> <s> <|im_start|>", "<pad>", "\ufdd0", "yes")):
            assert again.conversation(messages) == renderer.conversation(messages)
            assert again.control_texts(messages) == renderer.control_texts(messages)
        assert again.stop_ids == renderer.stop_ids


def test_a_template_that_ends_a_question_otherwise_before_an_answer_is_refused():
    """Only turns that others follow end in <|im_end|>, so a prompt ends otherwise than it does once it is answered."""
    tokenizer = tiny_tokenizer(eos="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
        "{{ '' if loop.last else '<|im_end|>' }}{% endfor %}"
        "{{ '<|im_start|>assistant\\n' if add_generation_prompt else eos_token }}"
    )
    with pytest.raises(ModelError, match="an answered prompt does not begin with the prompt"):
        Renderer(tokenizer).conversation(talk("q", "one", "r", "two"))


def test_response_with_the_end_token_is_refused():
    renderer = Renderer(make_tokenizer("llama3"))
    for text in ("<|eot_id|>", "<|end_of_text|>"):
        with pytest.raises(DataError, match=r"rows.jsonl:7: a response holds the end token"):
            renderer.conversation(talk("hi", f"yes {text} no"), origin=Origin("rows.jsonl", 7))


def test_decode_drops_special_tokens():
    renderer = Renderer(make_tokenizer("llama3"))
    assert (
        renderer.decode(renderer.continuation(talk("hi"), (Message("assistant", "It's 1 , 2 ."),)).ids)
        == "It's 1 , 2 ."
    )


@pytest.mark.parametrize("name", APPENDING)
def test_decode_gives_the_response_back(name):
    renderer = Renderer(make_tokenizer(name))
    rest = renderer.continuation(talk("hi"), (Message("assistant", "1 , 2\n\n3"),))
    assert renderer.decode(rest.ids) == "1 , 2\n\n3"


def test_word_level_tokenizer():
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "user": 3, "Paris": 4, "where": 5}
    plain = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    rendered = Renderer(tokenizer).conversation(talk("where", "Paris"))
    assert [i for i, on in zip(rendered.ids, rendered.mask, strict=True) if on] == [4, 2]


def test_prompt_given_out_cannot_spoil_the_next():
    renderer = Renderer(make_tokenizer("chatml"))
    first = renderer.prompt(talk("hi"))
    first.append(0)
    assert renderer.prompt(talk("hi")) == first[:-1]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((), "no messages"),
        ((Message("assistant", "a"),), "message 1 has role assistant, expected user"),
        ((Message("user", "a"), Message("user", "b")), "message 2 has role user, expected assistant"),
        ((*talk("a", "b"), Message("assistant", "c")), "message 3 has role assistant, expected user"),
        ((Message("user", "a"), Message("system", "b")), "message 2 has role system, expected assistant"),
        ((Message("system", "a"), Message("system", "b")), "message 2 has role system, expected user"),
        ((Message("system", "a"),), "last message has role system"),
        ((Message("user", "a"), Message("critic", "b")), 'unknown role "critic"(.|\n)*system, user, assistant'),
        ((Message("user", "a"), Message("tool", "b")), "message 2 has role tool, expected assistant"),
        ((*talk("a", "b"), Message("tool", "c")), "message 3 has role tool, expected user"),
        (talk("a"), "last message has role user, expected assistant"),
        (talk("a", " \n"), r"message 2 \(assistant\) is empty"),
        (talk("", "b"), r"message 1 \(user\) is empty"),
    ],
)
def test_check(messages, problem):
    with pytest.raises(DataError, match=problem) as caught:
        check(messages, origin=Origin("rows.jsonl", 7))
    assert str(caught.value).startswith("rows.jsonl:7: ")
    assert "\n  fix: " in str(caught.value)


def test_check_lets_pass():
    check(talk("a", "b", "c", "d", system="s"))
    check(talk("a", ""), empty_ok=True)
    check(talk("a", "b", "c"), ends_with="user")


def test_excerpt_escapes_and_shortens():
    assert excerpt("a\x1b[31m\n\u202e\ud800é") == '"a\\x1b[31m\\n\\u202e\\ud800é"'
    assert len(excerpt("x" * 1000)) <= 62
    assert len(excerpt(list(range(10_000)))) < 62
    assert len(str(row_error(Origin("f", 1), "p", "f", "\n" * 500)).splitlines()) == 3


def test_row_properties():
    row = Conversation(TALK)
    assert row.prompt == TALK[:3]
    assert row.response == "1, 2\n\n3"
    assert hash(row) == hash(Conversation(TALK))
    assert Preference(TALK[:1], TALK[1:2], TALK[3:]).margin is None


def test_imports_neither_torch_nor_transformers():
    heavy = ("torch", "transformers")
    code = f"import sys, trueup.data.rendering, trueup.data.sources; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


said = st.text(st.characters(codec="utf-8", exclude_characters="<>[]|"), min_size=1, max_size=30).filter(str.strip)


@trials(60)
@given(contents=st.lists(said, min_size=2, max_size=6), name=st.sampled_from(sorted(TEMPLATES)))
def test_any_conversation_is_masked_exactly(contents, name):
    renderer = renderer_of(name)
    messages = talk(*contents[: len(contents) // 2 * 2])
    whole, start = renderer.conversation(messages), renderer.prompt(messages[:-1])
    rest = renderer.continuation(messages[:-1], messages[-1:])
    assert start + rest.ids == whole.ids
    assert rest.ids
    assert all(rest.mask)
    assert renderer.decode(rest.ids).rpartition("</think>")[2].strip() == messages[-1].content.strip()
    ends = [
        i for i, (token, on) in enumerate(zip(whole.ids, whole.mask, strict=True)) if on and token == renderer.end_id
    ]
    assert len(ends) == len(messages) // 2
    assert all(i + 1 == len(whole.ids) or not whole.mask[i + 1] for i in ends)


@cache
def renderer_of(name: str) -> Renderer:
    return Renderer(make_tokenizer(name))


@pytest.fixture(scope="module")
def smollm2():
    """Renderer of the real SmolLM2-135M-Instruct tokenizer, whose pad is its eos and whose bos is <|im_start|>."""
    path = Path(os.environ.get("TRUEUP_SMOLLM2", ""))
    if not path.name:
        pytest.skip("TRUEUP_SMOLLM2 is not set to SmolLM2-135M-Instruct's folder or .gguf file")
    if path.suffix == ".gguf":
        return Renderer(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
    return Renderer(AutoTokenizer.from_pretrained(path))


class TestSmolLM2:
    def test_mask(self, smollm2):
        tokenizer = smollm2.tokenizer
        assert tokenizer.pad_token_id == tokenizer.eos_token_id == smollm2.end_id
        assert trained_text(smollm2, TALK) == [f"{TALK[1].content}<|im_end|>", f"{TALK[3].content}<|im_end|>"]
        assert smollm2.conversation(TALK).ids[-1] == tokenizer.eos_token_id

    def test_ids_are_those_of_the_whole_text(self, smollm2):
        turns = [{"role": m.role, "content": m.content} for m in TALK]
        whole = smollm2.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        ids = smollm2.conversation(TALK).ids
        assert whole[: len(ids)] == ids

    def test_bos_is_not_put_before_text(self, smollm2):
        assert smollm2.text("hi").ids == [*smollm2.tokenizer("hi").input_ids, smollm2.tokenizer.eos_token_id]
