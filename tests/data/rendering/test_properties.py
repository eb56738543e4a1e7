"""Any conversation, under the templates in use: what is trained, what is context, and whose the control tokens are.

Each template stands here twice: in jinja, as the tokenizer has it, and as a function that writes the same text in
pieces and says of each whether it is trained and who wrote it. The first test compares the two; the others compare the
tokens with the pieces. What a template does to a content (trimming, dropping thoughts) is in the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from thorough import trials
from trueup.data.rendering.messages import Message, Rendered
from trueup.data.rendering.renderer import Renderer
from trueup.errors import DataError


class Piece(NamedTuple):
    text: str
    trained: bool = False
    written: bool = False  # by the template


def frame(text: str, *, trained: bool = False) -> Piece:
    return Piece(text, trained, written=True)


Talk = Sequence[Message]
Pieces = Iterator[Piece]


def chatml_pieces(talk: Talk) -> Pieces:
    for role, content in pairs(talk):
        yield frame(f"<|im_start|>{role}\n")
        yield Piece(content, role == "assistant")
        yield frame("<|im_end|>", trained=role == "assistant")
        yield frame("\n")


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llama3_pieces(talk: Talk) -> Pieces:
    """Trims every content."""
    yield frame("<|begin_of_text|>")
    for role, content in pairs(talk):
        yield frame(f"<|start_header_id|>{role}<|end_header_id|>\n\n")
        yield Piece(content.strip(), role == "assistant")
        yield frame("<|eot_id|>", trained=role == "assistant")


LLAMA3 = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def mistral_pieces(talk: Talk) -> Pieces:
    """Puts the system's text into the first question."""
    yield frame("<s>")
    system = talk[0].content + "\n\n" if talk[0].role == "system" else ""
    for at, (role, content) in enumerate(pairs(m for m in talk if m.role != "system")):
        if role == "user":
            yield from (frame("[INST] "), Piece((system if at == 0 else "") + content), frame(" [/INST]"))
        else:
            yield from (frame(" ", trained=True), Piece(content, trained=True), frame("</s>", trained=True))


MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def llama2_pieces(talk: Talk) -> Pieces:
    """Trims every content, and writes a space before the end token too."""
    for role, content in pairs(talk):
        if role == "user":
            yield from (frame("<s>[INST] "), Piece(content.strip()), frame(" [/INST]"))
        else:
            yield from (frame(" ", trained=True), Piece(content.strip(), trained=True), frame(" </s>", trained=True))


LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' '  + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)


def gemma_pieces(talk: Talk) -> Pieces:
    """Trims every content; the assistant is called model."""
    yield frame("<bos>")
    for role, content in pairs(talk):
        yield frame(f"<start_of_turn>{'model' if role == 'assistant' else role}\n")
        yield Piece(content.strip(), role == "assistant")
        yield frame("<end_of_turn>", trained=role == "assistant")
        yield frame("\n")


GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)


def zephyr_pieces(talk: Talk) -> Pieces:
    for role, content in pairs(talk):
        yield frame(f"<|{role}|>\n")
        yield Piece(content, role == "assistant")
        yield frame("</s>", trained=role == "assistant")
        yield frame("\n")


ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}"
    "\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}"
    "\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}"
    "\n{% endif %}"
    "\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)


def plain_pieces(talk: Talk) -> Pieces:
    """Writes no end token: it is the renderer's, eos, behind the last answer."""
    for at, (role, content) in enumerate(pairs(talk)):
        yield frame(f"{role}: ")
        yield Piece(content, role == "assistant")
        if at == len(talk) - 1:
            yield frame("</s>", trained=True)
        yield frame("\n\n")


PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def qwen_pieces(talk: Talk) -> Pieces:
    """Drops the thoughts of earlier turns; the last answer gets a thinking block in any case."""
    for at, (role, content) in enumerate(pairs(talk)):
        yield frame(f"<|im_start|>{role}\n")
        last = at == len(talk) - 1
        thought, answer = thought_of(content) if role == "assistant" else ("", content)
        if last:
            yield frame("<think>\n", trained=True)
            yield Piece(thought.strip("\n"), trained=True)
            yield frame("\n</think>\n\n", trained=True)
        yield Piece(answer.lstrip("\n") if last else answer, trained=role == "assistant")
        yield frame("<|im_end|>", trained=role == "assistant")
        yield frame("\n")


def thought_of(content: str) -> tuple[str, str]:
    if "</think>" not in content:
        return "", content
    before, _, _ = content.partition("</think>")
    return before.rstrip("\n").split("<think>")[-1].lstrip("\n"), content.rpartition("</think>")[2].lstrip("\n")


QWEN = """
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.last %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}
            {{- content.lstrip('\n') }}
        {%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""


@dataclass(frozen=True)
class Case:
    """A template, and the tokens that go with it: special ones, and `added` ones that are not called special."""

    jinja: str
    pieces: Callable[[Talk], Pieces]
    bos: str
    eos: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    system: bool = True
    own_eos: bool = False  # the template does not write eos


IM = ("<|im_start|>", "<|im_end|>")
TURN = ("<start_of_turn>", "<end_of_turn>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CASES = {
    "chatml": Case(CHATML, chatml_pieces, "<|im_start|>", "<|im_end|>", ("<|endoftext|>",)),
    "llama3": Case(LLAMA3, llama3_pieces, "<|begin_of_text|>", "<|end_of_text|>", HEADERS),
    "mistral": Case(MISTRAL, mistral_pieces, "<s>", "</s>", ("[INST]", "[/INST]")),
    "mistral, roles spelled": Case(MISTRAL, mistral_pieces, "<s>", "</s>"),
    "llama2": Case(LLAMA2, llama2_pieces, "<s>", "</s>", system=False),
    "gemma": Case(GEMMA, gemma_pieces, "<bos>", "<eos>", TURN, ("\n\n", "▁▁"), system=False),
    "zephyr": Case(ZEPHYR, zephyr_pieces, "<s>", "</s>", (), ("<|user|>", "<|assistant|>", "<|system|>")),
    "plain": Case(PLAIN, plain_pieces, "<s>", "</s>", own_eos=True),
    "qwen": Case(QWEN, qwen_pieces, "<|endoftext|>", "<|im_end|>", IM[:1], ("<think>", "</think>", "<tool_call>")),
}  # fmt: skip
CORPUS = [
    "You are a helpful assistant. user: [INST] Paris is the capital, <b>1 + 2</b> = 3.\n\n\n Yes! It's so. \n"
] * 4
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(special: list[str]) -> Tokenizer:
    """GPT-2's kind, with a hundred merges."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    core.train_from_iterator(CORPUS, trainer)
    return core


def metaspace(special: list[str]) -> Tokenizer:
    """SentencePiece's kind: a space before the text, bytes for what is not in the vocabulary."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *BYTES, *special], show_progress=False,
                                  initial_alphabet=[*map(chr, range(33, 127)), "▁"])  # fmt: skip
    core.train_from_iterator(CORPUS, trainer)
    return Tokenizer.from_str(without_bytes(core.to_str()))


def without_bytes(core: str) -> str:
    """The bytes are ordinary tokens: the trainer alone takes them for special ones, to have them in the vocabulary."""
    import json

    state = json.loads(core)
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in BYTES]
    return json.dumps(state)


def prepending(special: list[str]) -> Tokenizer:
    """TinyLlama's kind: as `metaspace`, but a space is put behind every special token too."""
    core = metaspace(special)
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = None
    return core


KINDS = {"bytes": byte_level, "metaspace": metaspace, "prepending": prepending}


@cache
def tokenizer_of(name: str, kind: str) -> PreTrainedTokenizerBase:
    case = CASES[name]
    special = list(dict.fromkeys(["<pad>", case.bos, case.eos, *case.special]))
    core = KINDS[kind](special)
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in case.added])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=case.bos, eos_token=case.eos, pad_token="<pad>"
    )
    tokenizer.chat_template = case.jinja
    return tokenizer


@cache
def renderer_of(name: str, kind: str) -> Renderer:
    return Renderer(tokenizer_of(name, kind))


def controls_of(name: str) -> list[str]:
    case = CASES[name]
    return [
        token
        for token in ("<pad>", case.bos, case.eos, *case.special, *case.added)
        if token.isascii() and token.strip()
    ]


def pairs(talk: Iterable[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in talk]


def rendered_by_template(name: str, talk: Talk, *, generate: bool = False) -> str:
    turns = [{"role": m.role, "content": m.content} for m in talk]
    text = tokenizer_of(name, "bytes").apply_chat_template(turns, tokenize=False, add_generation_prompt=generate)
    assert isinstance(text, str)
    return text


def expected(name: str, talk: Talk, *, joined: bool = True) -> list[tuple[str, bool]]:
    """Text and trained, in runs, up to the last end token; not `joined`, an empty answer still separates two runs."""
    pieces = [piece for piece in CASES[name].pieces(talk) if piece.text or not joined]
    runs = [("".join(p.text for p in run), on) for on, run in groupby(pieces, lambda p: p.trained)]
    runs = [run for run in runs if run[0]]
    return runs[: max(at for at, (_, on) in enumerate(runs) if on) + 1]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def found(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[tuple[str, bool]]:
    """Return `expected` from tokens. A run's text is what it adds to all before it: so no space of its own is added."""
    runs, end = [], 0
    for on, run in groupby(rendered.mask):
        start, end = end, end + len(list(run))
        runs.append((decoded(tokenizer, rendered.ids[:end])[len(decoded(tokenizer, rendered.ids[:start])) :], on))
    return runs


# -- arbitrary conversations -------------------------------------------------------------------------------------------

# "▁" is what SentencePiece writes for a space, and cannot be told from one; \ufdd0 is the sign that marks contents.
LETTERS = st.characters(codec="utf-8", exclude_characters="▁")
ODD = ["\n", "\n\n", "  ", " \n", "\ufdd0", "\ufdd01", "\ufdd00", "é", "日本", "🙂", "<", "<|", "|>", "[", "[/", "</"]
THOUGHTS = ["<think>", "</think>", "<think>\nTwo.\n</think>\n\n", "<think>Two.</think>", "</think>\n"]


def contents(*fragments: str, empty: bool = False) -> st.SearchStrategy[str]:
    """Text of all kinds with the fragments in it, here and there and at its ends."""
    part = st.text(LETTERS, max_size=8) | st.sampled_from([*ODD, *CORPUS[0].split(" "), *fragments])
    whole = st.lists(part, max_size=6).map("".join)
    return whole if empty else whole.filter(str.strip)


@st.composite
def talks(draw: st.DrawFn, name: str, *, controls: bool = True, thoughts: bool = True) -> tuple[Message, ...]:
    """A conversation; with `controls`, control tokens are spelled in it. A response never holds what ends it."""
    case = CASES[name]
    spelled = controls_of(name) if controls else []
    asked = contents(*spelled, *(THOUGHTS if controls else []))
    thinks = THOUGHTS if thoughts and name == "qwen" else []
    stops = renderer_of(name, "bytes").stop_texts
    said = contents(*(text for text in spelled if text not in stops), *thinks, empty=True)
    said = said.filter(lambda text: not any(stop in text for stop in stops))
    if not controls:  # nor by chance
        own = controls_of(name)
        asked, said = (one.filter(lambda text: not any(token in text for token in own)) for one in (asked, said))
    turns = draw(st.lists(st.tuples(asked, said), min_size=1, max_size=3))
    talk = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    system = draw(st.none() | asked) if case.system else None
    return (Message("system", system), *talk) if system else tuple(talk)


def example(name: str, kind: str) -> bool:
    return kind == "bytes" or name in ("chatml", "mistral", "zephyr", "plain")


TABLE = [(name, kind) for name in CASES for kind in ("bytes", "metaspace") if example(name, kind)]
every = pytest.mark.parametrize(("name", "kind"), TABLE, ids=lambda one: one)
often = trials(40, derandomize=True)


def whole(renderer: Renderer, talk: Talk) -> Rendered | None:
    """The conversation; None where it is refused, which only a thinking template may do, for a text that it loses."""
    try:
        return renderer.conversation(talk)
    except DataError as error:
        problem = str(error)
    thinking = [m.content for m in talk if m.role == "assistant" and "</think>" in m.content]
    made = ["<think>" + "</think>".join(thought_of(content)) for content in thinking]
    kept = [squeezed(new).endswith(squeezed(old)) for new, old in zip(made, thinking, strict=True)]
    assert (renderer, all(kept)) == (renderer_of("qwen", "bytes"), False)
    assert "changes a response" in problem
    return None


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", CASES)
@often
@given(data=st.data())
def test_the_pieces_are_the_template_s(name, data):
    """The functions above, which all below relies on, write what the jinja templates write."""
    talk = data.draw(talks(name))
    pieces = [p for p in CASES[name].pieces(talk) if not (CASES[name].own_eos and p.text == "</s>" and p.written)]
    assert "".join(p.text for p in pieces) == rendered_by_template(name, talk)


@every
@often
@given(data=st.data())
def test_trained_are_the_responses_and_their_ends_and_nothing_else(name, kind, data):
    """Run by run: the trained text, and between it, untrained, all the rest of the template's rendering."""
    talk = data.draw(talks(name))
    renderer = renderer_of(name, kind)
    rendered = whole(renderer, talk)
    if rendered is None:
        return
    assert found(renderer.tokenizer, rendered) == expected(name, talk)
    assert (rendered.ids[-1], rendered.mask[-1]) == (renderer.end_id, True)
    if not CASES[name].own_eos:
        text, rest = decoded(renderer.tokenizer, rendered.ids), rendered_by_template(name, talk)
        assert rest.startswith(text)
        assert not rest[len(text) :].strip()


@every
@often
@given(data=st.data())
def test_control_tokens_are_those_that_the_template_writes(name, kind, data):
    """None comes from a content, whatever it spells; but thinking tags in an answer are the model's to write."""
    talk = data.draw(talks(name))
    renderer = renderer_of(name, kind)
    rendered = whole(renderer, talk)
    if rendered is None:
        return
    pieces = list(CASES[name].pieces(talk))
    for token in controls_of(name):
        if token == "<tool_call>":  # no special token, and not the template's: text to it as it is to us
            continue
        number = sum(p.text.count(token) for p in pieces if p.written)
        if "think" in token:
            number += sum(p.text.count(token) for p, role in roles(pieces) if role == "assistant" and not p.written)
        assert rendered.ids.count(renderer.tokenizer.convert_tokens_to_ids(token)) == number, token
    held = renderer.control_texts(talk)
    assert all(any(text in m.content for m in talk) for text in held)


def roles(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, str]]:
    """ChatML's pieces with the role whose turn they are in."""
    role = ""
    for piece in pieces:
        if piece.written and piece.text.startswith("<|im_start|>"):
            role = piece.text.removeprefix("<|im_start|>").strip()
        yield piece, role


@every
@often
@given(data=st.data())
def test_a_prompt_is_a_strict_prefix_and_shared_by_a_pair(name, kind, data):
    talk, other = data.draw(talks(name)), data.draw(talks(name))
    renderer = renderer_of(name, kind)
    chosen, rejected = whole(renderer, talk), whole(renderer, (*talk[:-1], other[-1]))
    if chosen is None or rejected is None:
        return
    prompt, sides = renderer.pair(talk[:-1], (talk[-1:], other[-1:]))
    assert prompt == renderer.prompt(talk[:-1])
    assert [prompt + side.ids for side in sides] == [chosen.ids, rejected.ids]
    assert all(side.ids and all(side.mask) for side in sides)
    assert [renderer.continuation(talk[:-1], one) for one in (talk[-1:], other[-1:])] == sides
    assert decoded(renderer.tokenizer, prompt) == "".join(text for text, _ in expected(name, talk)[:-1])


@pytest.mark.parametrize("name", CASES)
@often
@given(data=st.data())
def test_ids_are_the_tokenizer_s_own(name, data):
    """Without control tokens in the contents: the plain call of the tokenizer on each run of the template's text."""
    talk = data.draw(talks(name, controls=False, thoughts=False))
    renderer, tokenizer = renderer_of(name, "bytes"), tokenizer_of(name, "bytes")
    rendered = renderer.conversation(talk)
    runs = [tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in expected(name, talk, joined=False)]
    assert rendered.ids == [token for run in runs for token in run]
    assert renderer.control_texts(talk) == []


@pytest.mark.parametrize("name", [name for name in CASES if name != "qwen"])
@often
@given(data=st.data())
def test_a_response_comes_back(name, data):
    """Return the content as the template writes it, trimmed or not. For thinking templates, see the first tests."""
    talk = data.draw(talks(name))
    renderer, last = renderer_of(name, "bytes"), talk[-1].content
    answer = renderer.continuation(talk[:-1], talk[-1:])
    assert renderer.decode(answer.ids) == (last.strip() if name in ("llama3", "llama2", "gemma") else last)
    assert renderer.answer(answer.ids[:-1]) == renderer.decode(answer.ids)


@every
@often
@given(data=st.data())
def test_a_document_comes_back_without_control_tokens(name, kind, data):
    """SentencePiece puts a space before a text that has none, so there one before it is lost: " a" is "a" to it."""
    document = data.draw(contents(*controls_of(name)))
    renderer = renderer_of(name, kind)
    rendered = renderer.text(document)
    kept = document.removeprefix(" ") if kind == "metaspace" else document
    assert decoded(renderer.tokenizer, rendered.ids) == kept + CASES[name].eos
    special = {renderer.tokenizer.convert_tokens_to_ids(token) for token in (CASES[name].bos, *CASES[name].special)}
    assert not special & {*rendered.ids[:-1]}
    assert all(rendered.mask)


@pytest.mark.parametrize("name", ["llama2", "mistral, roles spelled", "plain"])
@often
@given(data=st.data())
def test_prepending_tokenizer(name, data):
    """Of a kind that puts a space behind each control token, so that only what is between them can be compared."""
    talk = data.draw(talks(name))
    renderer = renderer_of(name, "prepending")
    rendered = renderer.conversation(talk)
    runs = found(renderer.tokenizer, rendered)
    assert [(text.replace(" ", ""), on) for text, on in runs] == [
        (text.replace(" ", ""), on) for text, on in expected(name, talk)
    ]
    for (text, on), (wanted, _) in zip(runs, expected(name, talk), strict=True):
        assert not on or text == wanted
    prompt = renderer.prompt(talk[:-1])
    assert rendered.ids[: len(prompt)] == prompt
