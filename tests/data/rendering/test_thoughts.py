"""Thoughts before answers: one meaning in every spelling, as the family writes them, trained or not, and said."""

from __future__ import annotations

import pytest

from chat_templates import tokenizer_for
from trueup.data.rendering import probe
from trueup.data.rendering.messages import Message
from trueup.data.rendering.renderer import Renderer
from trueup.data.rendering.thoughts import form_of, split_inline
from trueup.errors import DataError, ModelError

ASKED = Message("user", "2?")
BESIDE = Message("assistant", "It is 2.", thinking="Two.")
INSIDE = Message("assistant", "<think>\nTwo.\n</think>\n\nIt is 2.")
UNOPENED = Message("assistant", "Two.\n</think>\n\nIt is 2.")
TURN = "<|im_start|>{{ m.role }}\n"
KNOWS = (  # Qwen3.5's way: the last answer has a thought in any case, earlier ones have none
    "{% for m in messages %}" + TURN + "{% if m.role == 'assistant' and loop.last %}"
    "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ opened }}{% endif %}"
)
OPENS = "{% set opened = '<think>\n' %}"
CLOSES = "{% set opened = '<think>\n\n</think>\n\n' %}"
PLAIN = (
    "{% for m in messages %}" + TURN + "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPS = (  # DeepSeek R1's way: no thought in an answer, and the prompt opens one
    "{% for m in messages %}" + TURN + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
EMPTIES = (  # Kimi K2's way: an empty thought in every answer
    "{% for m in messages %}" + TURN + "{% if m.role == 'assistant' %}<think></think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setattr(probe, "problem_of", lambda *_: "")


def renderer_of(template: str, **options: bool) -> Renderer:
    return Renderer(tokenizer_for(template), **options)


def trained(renderer: Renderer, *messages: Message) -> str:
    rendered = renderer.conversation(messages)
    return str(renderer.tokenizer.decode([i for i, on in zip(rendered.ids, rendered.mask, strict=True) if on]))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (KNOWS, "<think>\nTwo.\n</think>\n\nIt is 2.<|im_end|>"),
        (OPENS + KNOWS, "Two.\n</think>\n\nIt is 2.<|im_end|>"),
        (PLAIN, "<think>\nTwo.\n</think>\n\nIt is 2.<|im_end|>"),
        (DROPS, "Two.\n</think>\n\nIt is 2.<|im_end|>"),
        (EMPTIES, "<think>Two.</think>It is 2.<|im_end|>"),
    ],
)
def test_every_spelling_is_the_same(template, text):
    renderer = renderer_of(template)
    assert {trained(renderer, ASKED, answer) for answer in (BESIDE, INSIDE)} == {text}
    assert renderer.conversation((ASKED, BESIDE)).remarks == {"thought"}
    if template != PLAIN:
        assert trained(renderer, ASKED, UNOPENED) == text
    prompt = renderer.prompt((ASKED,))
    assert renderer.conversation((ASKED, BESIDE)).ids[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("template", "text", "remarks"),
    [
        (KNOWS, "<think>\n\n</think>\n\nIt is 2.<|im_end|>", {"empty-thought"}),
        (CLOSES + KNOWS, "It is 2.<|im_end|>", {"empty-thought"}),
        (PLAIN, "It is 2.<|im_end|>", set()),
        (DROPS, "\n</think>\n\nIt is 2.<|im_end|>", {"empty-thought"}),
        (EMPTIES, "<think></think>It is 2.<|im_end|>", {"empty-thought"}),
    ],
)
def test_an_answer_without_a_thought_is_the_family_s(template, text, remarks):
    renderer, answer = renderer_of(template), Message("assistant", "It is 2.")
    assert trained(renderer, ASKED, answer) == text
    assert renderer.conversation((ASKED, answer)).remarks == remarks


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (KNOWS, "<think>\nTwo.\n</think>\n\n<|im_end|>"),
        (OPENS + KNOWS, "Two.\n</think>\n\n<|im_end|>"),
        (PLAIN, "<think>\nTwo.\n</think>\n\n<|im_end|>"),
        (DROPS, "Two.\n</think>\n\n<|im_end|>"),
        (EMPTIES, "<think>Two.</think><|im_end|>"),
    ],
)
def test_a_thought_with_an_empty_answer_ends_with_the_end_token(template, text):
    """The tag that closes the thought is a token too, and was taken for the end."""
    renderer = renderer_of(template)
    for answer in (Message("assistant", "", thinking="Two."), Message("assistant", "<think>\nTwo.\n</think>\n\n")):
        assert trained(renderer, ASKED, answer) == text


@pytest.mark.parametrize("template", [KNOWS, OPENS + KNOWS, PLAIN, DROPS, EMPTIES])
def test_thoughts_are_not_trained_if_that_is_asked_for(template):
    renderer, both = renderer_of(template, train_thinking=False), renderer_of(template)
    for answer in (BESIDE, INSIDE, Message("assistant", "It is 2.")):
        assert trained(renderer, ASKED, answer) == "It is 2.<|im_end|>"
        assert renderer.conversation((ASKED, answer)).ids == both.conversation((ASKED, answer)).ids


def test_a_thought_of_an_earlier_answer_follows_the_template():
    talk = (ASKED, BESIDE, Message("user", "3?"), Message("assistant", "It is 3.", thinking="Three."))
    renderer = renderer_of(KNOWS)
    assert trained(renderer, *talk) == "It is 2.<|im_end|><think>\nThree.\n</think>\n\nIt is 3.<|im_end|>"
    assert renderer.conversation(talk).remarks == {"thought", "lost-thought"}
    assert renderer_of(PLAIN).conversation(talk).remarks == {"thought"}


def test_a_thought_behind_a_prompt_that_closes_one_is_said():
    renderer = renderer_of(CLOSES + KNOWS)
    assert renderer.conversation((ASKED, BESIDE)).remarks == {"thought", "unprompted"}


def test_a_thought_behind_a_prompt_that_only_closes_one_is_written_all_the_same():
    """DeepSeek V3.1's way, where it is told not to think: </think> alone."""
    template = PLAIN.replace("{{ m.content }}", "{{ '</think>' if m.role == 'assistant' }}{{ m.content }}")
    template = template.replace("m.content }}<", "m.content.split('</think>')[-1] }}<")
    template = template.replace(
        "assistant\n{% endif %}", "assistant\n{{ '<think>' if thinking else '</think>' }}{% endif %}"
    )
    renderer = renderer_of(template)
    assert trained(renderer, ASKED, Message("assistant", "It is 2.")) == "It is 2.<|im_end|>"
    assert (
        trained(renderer, ASKED, BESIDE) == trained(renderer, ASKED, INSIDE) == "<think>Two.</think>It is 2.<|im_end|>"
    )
    assert renderer.conversation((ASKED, BESIDE)).remarks == {"thought", "unprompted"}


def test_both_sides_of_a_pair_share_what_is_before_their_first_trained_token():
    for template in (KNOWS, OPENS + KNOWS, DROPS, EMPTIES):
        renderer, plain = renderer_of(template), Message("assistant", "No.")
        trunk, sides = renderer.pair((ASKED,), ((BESIDE,), (plain,)))
        wholes = [renderer.conversation((ASKED, side)) for side in (BESIDE, plain)]
        assert [trunk + side.ids for side in sides] == [whole.ids for whole in wholes]
        assert [[False] * len(trunk) + side.mask for side in sides] == [whole.mask for whole in wholes]


def test_a_template_that_leaves_out_thoughts_of_an_unknown_family_refuses_them():
    template = PLAIN.replace("m.content", "m.content.split('</think>')[-1]")
    with pytest.raises(DataError, match="leaves out the thought of an answer"):
        renderer_of(template).conversation((ASKED, BESIDE))


def test_a_template_that_leaves_out_the_question_is_refused_at_once():
    template = PLAIN.replace("{{ m.content }}", "{{ m.content if m.role != 'user' }}")
    with pytest.raises(ModelError, match="leaves out a user's message"):
        renderer_of(template)
    human = "{% for m in messages if m.role in ['human', 'assistant'] %}" + PLAIN.partition("%}")[2]
    with pytest.raises(ModelError, match=r'it knows the role "human", not "user"'):
        renderer_of(human)


def test_a_system_message_that_is_left_out_is_known():
    template = "{% for m in messages if m.role != 'system' %}" + PLAIN.partition("%}")[2]
    assert renderer_of(template).system == "dropped"
    assert renderer_of(PLAIN).system == "written"


def test_a_system_message_that_only_the_prompt_has_is_trained_behind():
    """Mistral 7B v0.3 writes it into the last message, if that is a question: not once it is answered."""
    template = (
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}"
        "[INST] {{ system + '\n' if loop.last and system else '' }}{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    renderer, system = renderer_of(template), Message("system", "Be brief.")
    prompt = renderer.prompt((system, ASKED))
    whole = renderer.conversation((system, ASKED, Message("assistant", "Two.")))
    assert "Be brief." in renderer.tokenizer.decode(prompt)
    assert whole.ids[: len(prompt)] == prompt
    assert trained(renderer, system, ASKED, Message("assistant", "Two.")) == " Two.</s>"


def test_what_the_template_marks_limits_what_is_trained():
    marked = PLAIN.replace(
        "{{ m.content }}<|im_end|>",
        "{% if m.role == 'assistant' %}{{ m.content }}{% generation %}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}",
    )
    assert trained(renderer_of(marked), ASKED, Message("assistant", "abcdef")) == "<|im_end|>"
    inner = marked.replace("{{ m.content }}{% gen", "{{ m.content[:3] }}{% gen", 1)
    inner = inner.replace("%}<|im_end|>{% endg", "%}{{ m.content[3:] }}<|im_end|>{% endg")
    assert trained(renderer_of(inner), ASKED, Message("assistant", "abcdef")) == "def<|im_end|>"


def test_split():
    assert split_inline("<think>a</think>b") == ("<think>", "a", "</think>", "b")
    assert split_inline("a</think>b") == ("", "a", "</think>", "b")
    assert split_inline("a <think>b</think>c") is None
    assert split_inline("a") is None


def test_forms_are_found_by_structure():
    opened, written = form_of("x<think>\n", ""), form_of("x", "", "y<think>\n\n</think>\n\n")
    assert opened == written == ("<think>\n", "\n</think>\n\n")
    assert form_of("x", "if '<|channel>' and '<channel|>'") == ("<|channel>thought\n", "\n<channel|>")
    assert form_of("x", "<think></think>") is None
