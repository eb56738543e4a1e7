"""A tokenizer's chat template, which turns messages into text; test renderings show what it writes around contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from trueup.data.rendering import probe
from trueup.data.rendering.encoding import Encoder, added_texts
from trueup.data.rendering.limits import OverLimit
from trueup.data.rendering.messages import Message
from trueup.errors import ModelError
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# END is <|im_end|>, or eos where the vocabulary has no such token: base models know how to end with it.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ 'END\n' }}{% else %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The wind tunnel's models have this template."""
TEMPLATE_FIX = "fix: give the tokenizer a chat_template that only appends, or delete it to get the ChatML default"
_ASKED, _ANSWERED = Message("user", "PROBE"), Message("assistant", "PROBE")
_PROBE = _ANSWERED.content


class Frame(NamedTuple):
    """The text that a template writes around an assistant's response, e.g. the end token."""

    lead: str  # between generation prompt and response, if the model does not write it
    before: str  # white space that the model writes
    after: str
    rest: str  # all that follows a response
    end_text: str  # the end token; empty where the template writes none
    end_id: int

    def split(self, rest: str) -> tuple[str, str]:
        """Return the response and the end token in `rest`, the text after a generation header.

        The end token is "" if the template writes none.
        """
        if self.end_text and (index := rest.find(self.end_text)) >= 0:
            return rest[:index], self.end_text
        if not self.end_text and rest.endswith(self.rest):
            return rest[: len(rest) - len(self.rest)], ""
        return rest.rstrip(), ""


class ChatTemplate:
    """Renders messages to text with a tokenizer's chat template. A tokenizer without a template is given ChatML.

    Attributes:
        missing: True if the tokenizer had no template.
        encoder: the tokenizer's encoder, which knows the control tokens of this template.
        frame: the text around a response.
        marks: the texts before and after a user's and an assistant's content that have four characters or more.
        role_marks: those of them that announce a role, e.g. "<|im_start|>user": a content that holds one has been
            rendered before.

    Raises:
        ModelError: a response cannot be separated from the text around it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, bos: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.missing = tokenizer.chat_template is None
        default = ("{{ bos_token }}" if bos else "") + chatml(tokenizer)
        if self.missing:
            tokenizer.chat_template = default
        self._apply = _applier(tokenizer, trusted=(default, PLAIN_CHATML))
        self.encoder = Encoder(tokenizer, self._written())
        self.frame = self._framed()
        self.marks, self.role_marks = self._marked()

    def header(self, messages: Sequence[Message]) -> str:
        """Return the text of a prompt up to the model's response, e.g. ending with "<|im_start|>assistant"."""
        return self._render(messages, generate=True) + self.frame.lead

    def answered(self, messages: Sequence[Message], header: str) -> str:
        """Return the text of a conversation after `header`, the text of its prompt.

        Raises:
            ModelError: the text does not begin with the header, or the template refuses the messages.
        """
        full = self._render(messages, generate=False)
        if not full.startswith(header):
            raise _not_appending(header)
        return full[len(header) :]

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        from jinja2 import TemplateError  # as light as it is, only rendering needs it

        try:
            return self._apply([{"role": m.role, "content": m.content} for m in messages], generate)
        except TemplateError as error:
            roles = " ".join(m.role for m in messages)
            raise ModelError(
                f"the chat template refuses these messages ({roles}): {excerpt(str(error), 120)}\n"
                "  fix: if it knows no system role, move that text into the first user message"
            ) from error
        except Exception as error:
            raise _failed(self._tokenizer, error) from error

    def _written(self) -> str:
        """Return all text that the template writes around messages' contents, found by rendering test messages."""
        talk = (_ASKED, _ANSWERED, _ASKED)
        texts = [self._render(talk[:2], generate=False), self._render(talk, generate=True)]
        with suppress(ModelError):  # it may know no system role
            texts.append(self._render((Message("system", _PROBE), *talk), generate=True))
        return "".join(texts)

    def _framed(self) -> Frame:
        header = self._render((_ASKED,), generate=True)
        rest = self.answered((_ASKED, _ANSWERED), header)
        if _PROBE not in rest:
            raise _not_appending(header)
        lead, _, tail = rest.partition(_PROBE)
        added, eos_id = self.encoder.added, cast("int", self._tokenizer.eos_token_id)
        end_id = next((i for i in self.encoder.ids(tail) if added.get(i, "\0") in tail), eos_id)
        end_text = added[end_id] if added.get(end_id, "\0") in tail else ""
        between = tail.partition(end_text)[0] if end_text else tail.rstrip()
        if between.strip():
            raise ModelError(
                f"the chat template ends a response with {excerpt(between.strip())}, which is not one token\n"
                f"  fix: end it with {excerpt(str(self._tokenizer.eos_token))} in the chat_template"
            )
        # A template without a generation prompt leaves the role's marker to us. Thinking is the model's to write.
        ours = lead.strip() and "</think>" not in lead
        return Frame(lead if ours else "", "" if lead.strip() else lead, between, tail, end_text, end_id)

    def _marked(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        one, two = self._render((_ASKED,), generate=False), self._render((_ASKED, _ANSWERED), generate=False)
        asked, answered = one.rpartition(_PROBE)[2], two.rpartition(_PROBE)[2]
        to_answer = self.header((_ASKED,)).removeprefix(one).strip()
        between = self._render((_ASKED, _ANSWERED, _ASKED), generate=False).rsplit(_PROBE, 2)[1:-1]
        to_ask = between[0].removeprefix(answered).strip() if between else ""
        bos = str(self._tokenizer.bos_token or "")
        if bos and not to_answer.startswith(bos):  # it begins a document, or each question (Llama 2), but no role
            to_ask = to_ask.removeprefix(bos).strip()
        headers = {to_ask, to_answer} - {str(self._tokenizer.eos_token), self.frame.end_text}
        ordered = dict.fromkeys((to_ask, to_answer, asked.strip(), answered.strip()))
        marks = tuple(mark for mark in ordered if len(mark) >= 4)
        return marks, tuple(mark for mark in marks if mark in headers and re.search(r"[<>\[\]{}|#]", mark))


def _not_appending(header: str) -> ModelError:
    return ModelError(
        "the chat template renders differently turn by turn: an answered prompt does not begin with the prompt,\n"
        f"  which ends {excerpt(header[-40:])}\n  {TEMPLATE_FIX}"
    )


def _failed(tokenizer: PreTrainedTokenizerBase, error: Exception) -> ModelError:
    """Return the ModelError for a chat template that breaks a limit or raises `error`."""
    name = excerpt(str(tokenizer.name_or_path), 200)
    if isinstance(error, OverLimit):
        problem = f"the chat template of {name} runs away: it takes {error}"
    else:
        problem = f"the chat template of {name} breaks: {type(error).__name__}: {excerpt(str(error), 120)}"
    return ModelError(
        f"{problem}\n  fix: give the tokenizer another chat_template, or delete it to get the ChatML default"
    )


def chatml(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the ChatML template that a tokenizer without a template is given.

    If its vocabulary lacks ChatML's tokens, the template ends an answer with eos.
    """
    has_tokens = {"<|im_start|>", "<|im_end|>"} <= set(added_texts(tokenizer).values())
    return CHATML.replace("END", "<|im_end|>" if has_tokens else str(tokenizer.eos_token))


def _applier(tokenizer: PreTrainedTokenizerBase, trusted: Sequence[str]) -> Callable[[list[dict[str, str]], bool], str]:
    """Return a function (turns, generate) -> text that renders messages by the tokenizer's chat template.

    A template that is not in `trusted` is first tried in a child process.

    Raises:
        ModelError: the template is missing, or breaks a limit.
    """
    from transformers import PreTrainedTokenizerBase

    from trueup.data.rendering.sandbox import render

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return partial(_apply_own, tokenizer)
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several templates, and none of them the default
        raise _failed(tokenizer, error) from error
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if name in template}
    if template not in trusted:
        problem = probe.problem_of(template, tuple(tokens.items()))
        if problem:
            raise _failed(tokenizer, OverLimit(problem))
    return partial(render, template, tokens)


def _apply_own(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], generate: bool) -> str:
    """Render messages by a tokenizer class that overrides `apply_chat_template`, outside the sandbox."""
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))
