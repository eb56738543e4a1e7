"""A tokenizer's chat template, which turns messages into text; test renderings show what it writes around contents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from trueup.data.rendering import probe
from trueup.data.rendering.encoding import Encoder, added_texts
from trueup.data.rendering.frame import TEMPLATE_FIX, Frame
from trueup.data.rendering.limits import OverLimit
from trueup.data.rendering.messages import TOOLS, Message, ToolCall
from trueup.data.rendering.spans import GENERATED, Layout, MarkedText, Place, located, marked, read_marks
from trueup.data.rendering.thoughts import (
    FORMS,
    ThoughtForm,
    apart,
    form_of,
    inline,
    is_empty_thought,
    thought_of,
    without_opening,
)
from trueup.errors import DataError, ModelError
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
_ASKED, _ANSWERED = Message("user", "PROBE"), Message("assistant", "PROBE")
_PROBE = _ANSWERED.content
_TOOLS = Message(
    TOOLS,
    json.dumps(
        [
            {
                "type": "function",
                "function": {
                    "name": f"{_PROBE}1",
                    "description": "Look.",
                    "parameters": {
                        "type": "object",
                        "properties": {"place": {"type": "string", "description": "A place."}},
                        "required": ["place"],
                    },
                },
            }
        ]
    ),
)
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class RefusedMessagesError(ModelError):
    """The chat template raises an error for some messages; whoever knows their row adds its place."""


NO_ID = "000000000"


class CallStyle(NamedTuple):
    """The form in which a template takes a tool call.

    Attributes:
        null_content: a message without text has the content None, not "".
        as_text: the arguments are JSON text, not an object.
        ids: a call without an id is given one, of nine characters as Mistral's templates ask.
    """

    null_content: bool = False
    as_text: bool = False
    ids: bool = False

    def call(self, call: ToolCall) -> dict[str, Any]:
        """Return a tool call as the template gets it."""
        arguments = call.arguments if self.as_text else json.loads(call.arguments)
        identity = {"id": call.id or NO_ID} if call.id or self.ids else {}
        return {**identity, "type": "function", "function": {"name": call.name, "arguments": arguments}}


CALL_STYLES = [
    CallStyle(null, text, ids) for ids in (False, True) for null in (False, True) for text in (False, True)
]  # fmt: skip
"""The forms in which calls are tried, the usual one first."""


class ChatTemplate:
    """Renders messages to text with a tokenizer's chat template. A tokenizer without a template is given ChatML.

    Attributes:
        missing: True if the tokenizer had no template.
        encoder: the tokenizer's encoder, which knows the control tokens of this template.
        frame: the text around a response.
        form: how a thought is written where the template does not do it; None if it does, or if that is not known.
        tagged: True if the template marks the assistant's text by {% generation %}.
        system: "written", "refused" (the template raises an error) or "dropped", for system messages.
        thinking_variables: variables of the template whose names say that they switch thoughts on.
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
        self.source, self._apply = _applier(tokenizer, trusted=(default, PLAIN_CHATML))
        self.tagged = _GENERATION.search(self.source) is not None
        self.thinking_variables = thinking_variables(self.source)
        self._memo: dict[tuple[bool, tuple[Message, ...]], MarkedText] = {}
        self._call_style: CallStyle | None = None
        self._parts = self._wants_parts()
        self._check_questions()
        self.encoder = Encoder(tokenizer, self._written())
        self._lead = ""
        self._lead = self._missing_header()
        self._thoughts, self.form = self._thought_style()
        self.answer_header = self._answer_header()
        self.frame = self._framed()
        self.system = self._system_style()
        self._call_style = self._find_call_style()
        self.declares, self.answers_tools = self._declares_tools(), self._shows_results()
        self.call_end: int | None = None
        self.call_end = self._find_call_end()
        self.marks, self.role_marks = self._marked()

    def header(self, messages: Sequence[Message]) -> str:
        """Return the text of a prompt up to the model's response, e.g. ending with "<|im_start|>assistant"."""
        return self._render(messages, generate=True) + self._lead

    def answered(self, messages: Sequence[Message], header: str) -> str | None:
        """Return the text of a conversation after `header`, the text of its prompt; None if it does not begin with it.

        Raises:
            ModelError: the template refuses the messages.
        """
        full = self._render(messages, generate=False)
        return full[len(header) :] if full.startswith(header) else None

    def marked(self, messages: Sequence[Message], *, generate: bool) -> MarkedText:
        """Return the text of messages with the places of their contents, rendered as `header` and `answered` do it.

        Raises:
            ModelError: the template refuses the messages, or looks into contents so that their places cannot be found.
        """
        key = (generate, tuple(messages))
        if key not in self._memo:
            if len(self._memo) > 64:
                self._memo.clear()
            self._memo[key] = self._marked_afresh(key[1], generate=generate)
        return self._memo[key]

    def _marked_afresh(self, messages: Sequence[Message], *, generate: bool) -> MarkedText:
        styled = [self.styled(message) for message in messages]
        found = read_marks(self._render(marked(styled), generate=generate, tagged=self.tagged))
        plain = self._render(styled, generate=generate)
        if found.text != plain:
            found = self._marked_one_by_one(styled, plain, generate=generate)
        if generate and self._lead:
            found = found._replace(text=found.text + self._lead)
        return found

    def _marked_one_by_one(self, messages: Sequence[Message], plain: str, *, generate: bool) -> MarkedText:
        """Return the places of contents in `plain`, their rendering, where marks in all of them would change it.

        Some templates decide by the first or last letters of a content. Each is marked alone; one that marks change is
        found by its words, between the others.
        """
        places: dict[Place, tuple[int, int]] = {}
        for index in range(len(messages)):
            alone = read_marks(self._render(marked(messages, only=index), generate=generate))
            if alone.text == plain:
                places |= alone.places
        generated = read_marks(self._render(messages, generate=generate, tagged=True)).generated
        return MarkedText(plain, located(plain, messages, places), frozenset(), generated)

    def thought(self, message: Message) -> str:
        """Return the thought of an assistant's message, without white space around it; "" if it has none."""
        return thought_of(message).strip()

    def styled(self, message: Message) -> Message:
        """Return an assistant's message with its thought where the template reads it: beside the content, or in it.

        Where the template writes no thought, it is left out: `form` says how the last one is written.
        """
        if message.role != "assistant":
            return message
        if self._thoughts == "beside":
            return apart(message)
        if self._thoughts == "inside":
            return inline(message)
        return replace(apart(message), thinking="")

    def _render(self, messages: Sequence[Message], *, generate: bool, tagged: bool = False) -> str:
        from jinja2 import TemplateError, TemplateSyntaxError  # as light as it is, only rendering needs it

        try:
            turns, tools = self._dicts(messages)
            return self._apply(turns, generate, tagged, tools)
        except TemplateSyntaxError as error:  # no messages could change that
            raise _failed(self._tokenizer, error) from error
        except TemplateError as error:
            roles = " ".join(m.role for m in messages)
            fix = "if it knows no system role, move that text into the first user message"
            if not any(m.role == "system" for m in messages):
                fix = "write the messages as it expects them, or give another chat_template"
            raise RefusedMessagesError(
                f"the chat template refuses these messages ({roles}): {excerpt(str(error), 120)}\n  fix: {fix}"
            ) from error
        except Exception as error:
            raise _failed(self._tokenizer, error) from error

    def turns(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """Return the messages and the declared tools (None: none) as the template gets them."""
        return self._dicts([self.styled(message) for message in messages])

    def _dicts(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Any] | None]:
        tools = json.loads(messages[0].content) if messages and messages[0].role == TOOLS else None
        return [self._turn(message) for message in messages if message.role != TOOLS], tools

    def _turn(self, message: Message) -> dict[str, Any]:
        """Return a message as the template gets it."""
        content = message.content
        turn: dict[str, Any] = {"role": message.role, "content": content}
        if self._parts:
            turn["content"] = [{"type": "text", "text": content}]
        if message.thinking:  # the names that transformers' apply_chat_template fills
            turn |= {"thinking": message.thinking, "reasoning_content": message.thinking}
        if message.calls:
            style = self._call_style or CallStyle()
            turn["tool_calls"] = [style.call(call) for call in message.calls]
            if style.null_content and not content:
                turn["content"] = None
        if message.role == "tool":
            identity = message.call_id or (NO_ID if self._call_style and self._call_style.ids else "")
            names = {"name": message.name, "tool_call_id": identity}
            turn |= {key: value for key, value in names.items() if value}
        return turn

    def _wants_parts(self) -> bool:
        """Return True if the template reads a content as a list of parts, and not as a text."""
        self._parts = False
        if self._shows(_ASKED, _ANSWERED):
            return False
        self._parts = True
        return self._shows(_ASKED, _ANSWERED)

    def _check_questions(self) -> None:
        """Raise ModelError if the template leaves out a user's message: the model would answer what it does not see."""
        talk = [Message("user", f"{_PROBE}0"), _ANSWERED, Message("user", f"{_PROBE}2")]
        text = self._render(talk, generate=True)
        if all(message.content in text for message in talk):
            return
        named = [Message("human", m.content) if m.role == "user" else m for m in talk]
        try:
            knows_human = all(message.content in self._render(named, generate=True) for message in talk)
        except ModelError:
            knows_human = False
        hint = ' (it knows the role "human", not "user")' if knows_human else ""
        raise ModelError(
            f"the chat template leaves out a user's message{hint}\n"
            "  fix: give a chat_template that writes the roles system, user and assistant"
        )

    def _shows(self, *messages: Message) -> bool:
        """Return True if the template writes the content of each message once or more."""
        numbered = [Message(m.role, f"{_PROBE}{index}") for index, m in enumerate(messages)]
        try:
            text = self._render(numbered, generate=False)
        except ModelError:
            return False
        return all(message.content in text for message in numbered)

    def _written(self) -> str:
        """Return all text that the template writes around messages' contents, found by rendering test messages."""
        talk = (_ASKED, _ANSWERED, _ASKED)
        texts = [self._render(talk[:2], generate=False), self._render(talk, generate=True)]
        with suppress(ModelError):  # it may know no system role
            texts.append(self._render((Message("system", _PROBE), *talk), generate=True))
        return "".join(texts)

    def _missing_header(self) -> str:
        """Return the header of a response where the template ignores `add_generation_prompt`, else ""."""
        alone = self._render((_ASKED,), generate=False)
        if self._render((_ASKED,), generate=True) != alone:
            return ""
        rest = self.answered((_ASKED, _ANSWERED), alone)
        lead = rest.partition(_PROBE)[0] if rest is not None and _PROBE in rest else ""
        return lead if lead.strip() else ""

    def _thought_style(self) -> tuple[str, ThoughtForm | None]:
        """Return where the template reads the thought of the last answer: "beside", "inside" or "" (nowhere).

        And the form in which it is written where the template does not write it, if that is known.
        """
        thinking = Message("assistant", f"{_PROBE}2", thinking=f"{_PROBE}1")
        prompt, plain = self.header((_ASKED,)), self._probed(_ASKED, _ANSWERED)
        asked, answered = plain.places.get(("content", 0), (0, 0)), plain.places.get(("content", 1), (0, 0))
        form = form_of(prompt, self.source, plain.text[asked[1] : answered[0]])
        for style, message in (("beside", thinking), ("inside", inline(thinking))):
            with suppress(ModelError):
                text = self._render((_ASKED, message), generate=False)
                first, second = text.count(f"{_PROBE}1"), text.count(f"{_PROBE}2")
                if first == second == 1 and text.index(f"{_PROBE}1") < text.index(f"{_PROBE}2"):
                    if style == "inside" and is_empty_thought(text.partition(f"{_PROBE}1")[0]):
                        continue  # <think> would be text behind the empty thought that it writes
                    if style == "inside" and form is not None and form not in FORMS[:2]:
                        return "", form  # its own tags are known, and <think> would be text to it
                    return style, form if form is not None and prompt.endswith(form.opens) else None
        return "", form

    def _framed(self) -> Frame:
        header = self.header((_ASKED,))
        whole, asked = self._probed(_ASKED, _ANSWERED), self._probed(_ASKED, _ANSWERED, _ASKED)
        place = whole.places.get(("content", 1))
        if place is None:
            raise ModelError(f"the chat template leaves out the content of an answer\n  {TEMPLATE_FIX}")
        lead, tail = whole.text[: place[0]], whole.text[place[1] :]
        ends = self._end_tokens(tail, lead)
        end_text = ends[0][0] if ends else ""
        space = tail.partition(end_text)[0] if end_text else tail.rstrip()
        if space.strip():
            raise ModelError(
                f"the chat template ends a response with {excerpt(space.strip())}, which is not one token\n"
                f"  fix: end it with {excerpt(str(self._tokenizer.eos_token))} in the chat_template"
            )
        eos_id = cast("int", self._tokenizer.eos_token_id)
        between, end_id = self._between(asked) if not ends else ("", ends[0][1][-1])
        follows = lead[len(header) :] if lead.startswith(header) else None
        plain = follows is not None and not follows.strip() and not self.tagged
        opens_thought = without_opening(header) != header
        return Frame(
            self._lead, follows or "" if plain else "", space, tail, ends, between,
            end_id if end_id >= 0 else eos_id, self._headers(), plain and not opens_thought,
        )  # fmt: skip

    def _probed(self, *messages: Message) -> MarkedText:
        return read_marks(self._render(marked(messages), generate=False))

    def _end_tokens(self, tail: str, lead: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return (text, ids) of the end tokens in the text after the last response: the whole run, then its first.

        `lead` is the text before that response. Some templates write the header of a next answer behind each
        conversation: a token that a response follows directly is no end, nor is one that text follows.
        """
        added = self.encoder.added
        first = next((i for i in self.encoder.ids(tail) if added.get(i, "\0") in tail), None)
        opening = self.encoder.last_token(lead)
        opens = opening[1] if opening and opening[0] + len(opening[2]) == len(lead.rstrip()) else None
        if first is None or first == opens:
            return ()
        text, ids = added[first], [first]
        rest = tail.partition(text)[2]
        while (following := self.encoder.token_at(rest, 0)) is not None and following[0] not in (*ids, opens):
            ids.append(following[0])
            text, rest = text + following[1], rest[len(following[1]) :]
        alone = (added[first], (first,))
        if len(ids) == 1 or (rest.strip() and self.encoder.token_at(rest, 0) is None):
            return (alone,)
        return (text, tuple(ids)), alone

    def _between(self, asked: MarkedText) -> tuple[str, int]:
        """Return (text, id) of the end token that stands only between turns, e.g. GLM's <|user|>; ("", -1) if none."""
        start, stop = asked.places["content", 1][1], asked.places["content", 2][0]
        follows = self.encoder.token_at(asked.text[start:stop], 0)
        if follows is None or follows[1] == str(self._tokenizer.bos_token or ""):
            return "", -1
        return follows[1], follows[0]

    def _headers(self) -> frozenset[int]:
        """Return the ids of the added tokens that begin a user's or a system's header."""
        asked = self._probed(_ASKED)
        start = asked.places["content", 0][0] if asked.places else 0
        begun = self.encoder.last_token(asked.text[:start])
        ids = {begun[1]} if begun else set()
        first = self.encoder.token_at(without_opening(self.header((_ASKED,)))[len(asked.text) :].lstrip(), 0)
        return frozenset(ids | ({first[0]} if first else set()))

    def _find_call_style(self) -> CallStyle | None:
        """Return the form in which the template takes tool calls; None if it writes none."""
        call = ToolCall(f"{_PROBE}1", json.dumps({"place": f"{_PROBE}2"}))
        for style in CALL_STYLES:
            self._call_style = style
            with suppress(ModelError):
                text = self._render((_TOOLS, _ASKED, Message("assistant", "", calls=(call,))), generate=False)
                alone = self._render((_TOOLS, _ASKED), generate=False)
                written = text[len(alone) :] if text.startswith(alone) else text
                if f"{_PROBE}1" in written and written.count(f"{_PROBE}2") == 1 and "None" not in written:
                    return style
        return None

    def _find_call_end(self) -> int | None:
        """Return the id of the token that ends a message with tool calls; None if it has none."""
        if self._call_style is None or not self.answers_tools:
            return None
        call = ToolCall(f"{_PROBE}1", "{}", "123456789")
        result = Message("tool", f"{_PROBE}3", name=f"{_PROBE}1", call_id="123456789")
        talk = (_TOOLS, _ASKED, Message("assistant", "", calls=(call,)), result, _ANSWERED)
        with suppress(ModelError, DataError):
            laid = Layout(self, train_thinking=True).conversation(talk, None)
            ends = next((piece.ends for piece in laid.pieces if piece.turn == 2), ())
            return ends[-1] if ends else None
        return None

    def answer_opening(self) -> str:
        """Return what the template writes between the generation prompt and a plain answer, e.g. gpt-oss's channel."""
        header, text = self.header((_ASKED,)), self._probed(_ASKED, _ANSWERED)
        place = text.places.get(("content", 1))
        before = text.text[: place[0]] if place else ""
        return before[len(header) :].strip() if before.startswith(header) and not is_empty_thought(before) else ""

    def written_form(self) -> ThoughtForm | None:
        """Return the text before and after the thought of an answer that the template or its family writes, if any."""
        if self._thoughts != "beside":
            return self.form
        text = self._probed(_ASKED, replace(_ANSWERED, thinking=_PROBE))
        places = [text.places.get(("content", 0)), text.places.get(("thought", 1)), text.places.get(("content", 1))]
        if None in places:
            return None
        (_, asked), (start, end), (answer, _) = cast("list[tuple[int, int]]", places)
        header = without_opening(self.header((_ASKED,)))
        if not text.text.startswith(header):
            return ThoughtForm(text.text[asked:start], text.text[end:answer])
        return ThoughtForm(text.text[len(header) : start], text.text[end:answer])

    def _answer_header(self) -> str:
        """Return the header of an answer to a first question, e.g. "<|im_start|>assistant" and a new line."""
        alone, asked = self._render((_ASKED,), generate=False), self.header((_ASKED,))
        return without_opening(asked[len(alone) :]) if asked.startswith(alone) else ""

    def _declares_tools(self) -> bool:
        """Return True if the template writes the tools that a conversation declares."""
        with suppress(ModelError):
            return f"{_PROBE}1" in self._render((_TOOLS, _ASKED), generate=True)
        return False

    def _shows_results(self) -> bool:
        """Return True if the template writes a tool's result."""
        call = ToolCall(f"{_PROBE}1", "{}", "123456789")
        result = Message("tool", f"{_PROBE}3", name=f"{_PROBE}1", call_id="123456789")
        with suppress(ModelError):
            return f"{_PROBE}3" in self._render(
                (_TOOLS, _ASKED, Message("assistant", "", calls=(call,)), result), generate=True
            )
        return False

    @property
    def writes_calls(self) -> bool:
        """True if the template writes tool calls."""
        return self._call_style is not None

    def _system_style(self) -> Literal["written", "refused", "dropped"]:
        system = Message("system", f"{_PROBE}0")
        for talk in ((_ASKED,), (_ASKED, _ANSWERED, _ASKED)):
            try:
                text = self._render((system, *talk), generate=True)
            except ModelError:
                return "refused"
            if system.content not in text:
                return "dropped"
        return "written"

    def _marked(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        question, exchange = (self._render(turns, generate=False) for turns in ((_ASKED,), (_ASKED, _ANSWERED)))
        asked, answered = question.rpartition(_PROBE)[2], exchange.rpartition(_PROBE)[2]
        to_answer = self.header((_ASKED,)).removeprefix(question).strip()
        between = self._render((_ASKED, _ANSWERED, _ASKED), generate=False).rsplit(_PROBE, 2)[1:-1]
        to_ask = between[0].removeprefix(answered).strip() if between else ""
        bos = str(self._tokenizer.bos_token or "")
        if bos and not to_answer.startswith(bos):  # it begins a document, or each question (Llama 2), but no role
            to_ask = to_ask.removeprefix(bos).strip()
        headers = {to_ask, to_answer} - {str(self._tokenizer.eos_token), *(text for text, _ in self.frame.ends)}
        ordered = dict.fromkeys((to_ask, to_answer, asked.strip(), answered.strip()))
        marks = tuple(mark for mark in ordered if len(mark) >= 4)
        return marks, tuple(mark for mark in marks if mark in headers and re.search(r"[<>\[\]{}|#]", mark))


def _failed(tokenizer: PreTrainedTokenizerBase, error: Exception) -> ModelError:
    """Return the ModelError for a chat template that breaks a limit or raises `error`."""
    from jinja2 import TemplateSyntaxError

    name = excerpt(str(tokenizer.name_or_path), 200)
    if isinstance(error, TemplateSyntaxError):
        problem = (
            f"the chat template of {name} is no valid Jinja, line {error.lineno}: {excerpt(str(error.message), 120)}"
        )
    elif isinstance(error, OverLimit):
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


Apply = Callable[[list[dict[str, Any]], bool, bool, "list[Any] | None"], str]
"""A function (turns, generate, tagged, tools) -> text; `tagged` puts marks around {% generation %} blocks."""


def _applier(tokenizer: PreTrainedTokenizerBase, trusted: Sequence[str]) -> tuple[str, Apply]:
    """Return the tokenizer's chat template, and a function that renders messages by it.

    A template that is not in `trusted` is first tried in a child process.

    Raises:
        ModelError: the template is missing, or breaks a limit.
    """
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return "", partial(_apply_own, tokenizer)
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several templates, and none of them the default
        raise _failed(tokenizer, error) from error
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if name in template}
    if template not in trusted:
        problem = probe.problem_of(template, tuple(tokens.items()))
        if problem:
            raise _failed(tokenizer, OverLimit(problem))
    return template, partial(_apply_in_sandbox, template, tokens)


def _apply_in_sandbox(
    template: str, tokens: dict[str, str], turns: list[dict[str, Any]], generate: bool, tagged: bool,
    tools: list[Any] | None,
) -> str:  # fmt: skip
    from trueup.data.rendering.sandbox import GENERATION_MARKS, render

    values = {**tokens, **dict(zip(GENERATION_MARKS, GENERATED, strict=True))} if tagged else tokens
    return render(template, values, turns, generate, tools)


def _apply_own(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], generate: bool, tagged: bool,  # noqa: ARG001
    tools: list[Any] | None,
) -> str:  # fmt: skip
    """Render messages by a tokenizer class that overrides `apply_chat_template`, outside the sandbox."""
    more: dict[str, Any] = {"tools": tools} if tools else {}
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate, **more))


def variables_of(template: str) -> set[str]:
    """Return the names of the variables that a chat template reads from outside; empty if it cannot be parsed."""
    from jinja2 import TemplateError, meta

    from trueup.data.rendering.sandbox import parse

    try:
        return set(meta.find_undeclared_variables(parse(template)))
    except (TemplateError, RecursionError):  # rendering reports it
        return set()


def thinking_variables(template: str) -> list[str]:
    """Return the variables of a chat template whose names say that they switch thoughts on, e.g. enable_thinking."""
    return sorted(name for name in variables_of(template) if re.search(r"think|reasoning$", name))
