"""Messages, rows, and the one seam between messages and tokens.

Everything that becomes tokens passes through `Renderer`, for training as for sampling, so three things hold by
construction and are not left to a collator:

* A prompt's ids are a strict prefix of the ids of the conversation it belongs to. A prompt is tokenised alone, as it
  is at inference, and the response after it.
* Trained is what the model has to write at inference, from the generation header to the end token inclusive, and
  nothing else. The mask is made from positions, never by comparing ids, so a pad token equal to eos cannot hide it.
* A template for which this cannot be had is refused with a message, at start-up where possible.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from trueup.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
# END is <|im_end|>, or eos where the vocabulary has no such token: base models know how to end with it.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ 'END\n' }}{% else %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATE_FIX = "fix: give the tokenizer a chat_template that only appends, or delete it to get the ChatML default"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: `line` is 1-based (the row's number in parquet, JSON arrays and hub data sets)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A demonstration: messages that end with an assistant's."""

    messages: tuple[Message, ...]
    origin: Origin | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All before the last assistant message."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The last assistant message's content."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Preference:
    """A ranking: `chosen` and `rejected` are the messages after `prompt`, normally one assistant message each."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A verdict on one completion (KTO)."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages that end with a user's: something to answer."""

    messages: tuple[Message, ...]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A document, without roles."""

    text: str
    origin: Origin | None = None


Row = Conversation | Preference | Labelled | Prompt | Text


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids (T,), and for each whether it is trained (is a target)."""

    ids: list[int]
    mask: list[bool]

    def __add__(self, other: Rendered) -> Rendered:
        return Rendered(self.ids + other.ids, self.mask + other.mask)


def excerpt(value: object, limit: int = 60) -> str:
    """`value` for an error message: quoted if a string, shortened to `limit`, control characters escaped."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f'"{shown}"' if isinstance(value, str) else shown


def row_error(origin: Origin | None, problem: str, fix: str, value: object = None) -> DataError:
    """The DataError all bad rows get: place and problem, the value if given, the fix. Three lines at most."""
    shown = "" if value is None else f"\n  value: {excerpt(value)}"
    return DataError(f"{origin or 'conversation'}: {problem}{shown}\n  fix: {fix}")


def check(
    messages: Sequence[Message],
    *,
    origin: Origin | None = None,
    ends_with: Literal["assistant", "user"] = "assistant",
    empty_ok: bool = False,
) -> None:
    """Raise DataError unless `messages` are an optional system, then user and assistant in turns up to `ends_with`.

    `empty_ok` lets an assistant say nothing: a model does so when it samples the end token first, and people rank it.
    """
    expected = "user"
    for number, message in enumerate(messages, 1):
        name = f"message {number}"
        if message.role not in ROLES:
            problem = f"{name} has unknown role {excerpt(message.role)}"
            raise row_error(origin, problem, f"use one of: {', '.join(ROLES)}")
        if not message.content.strip() and not (empty_ok and message.role == "assistant"):
            raise row_error(origin, f"{name} ({message.role}) is empty", "write its content, or remove the row")
        if message.role == "system" and number == 1:
            continue
        if message.role != expected:
            fix = "an optional system message first, then user and assistant in turns"
            raise row_error(origin, f"{name} has role {message.role}, expected {expected}", fix, message.content)
        expected = "assistant" if expected == "user" else "user"
    if not messages:
        raise row_error(origin, "there are no messages", "give at least one user message")
    last = messages[-1]
    if last.role != ends_with:
        problem = f"the last message has role {last.role}, expected {ends_with}"
        raise row_error(origin, problem, f"end with a message of the {ends_with}", last.content)


def _not_appending(header: str) -> ModelError:
    return ModelError(
        "the chat template renders differently turn by turn: an answered prompt does not begin with the prompt,\n"
        f"  which ends {excerpt(header[-40:])}\n  {TEMPLATE_FIX}"
    )


class Renderer:
    """Messages to tokens and back, for one tokenizer.

    Attributes:
        end_id: the token that ends an assistant's turn, found by rendering a probe (<|im_end|>, <|eot_id|>, eos).
        stop_ids: where sampling stops: `end_id` and the tokenizer's eos.
        rewrites_history: the template renders an earlier turn otherwise than the last one (Qwen3 drops its thinking),
            so of a conversation only the last assistant turn can be trained as it was written.
        rewritten: how many prompts met so far had their history rewritten.

    Raises:
        ModelError: the tokenizer has no eos token, or its template cannot be masked exactly.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no eos token, so no response could end\n  fix: set its eos_token")
        self._eos_id = cast("int", tokenizer.eos_token_id)
        first = list(tokenizer("a")["input_ids"][:1])
        self._bos = first if first == [tokenizer.bos_token_id] else []
        self._added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
        # SentencePiece as Llama 2's puts a space before any text: "yes" alone is "▁yes", but after "\n" it is "yes".
        self._adds_space = self._ids("\na") != self._ids("\n") + self._ids("a")
        if tokenizer.chat_template is None:
            known = {"<|im_start|>", "<|im_end|>"} <= set(self._added.values())
            chatml = CHATML.replace("END", "<|im_end|>" if known else str(tokenizer.eos_token))
            tokenizer.chat_template = ("{{ bos_token }}" if self._bos else "") + chatml
        self._lead, self._space, self._end_text, self.end_id = self._probe()
        self.stop_ids: frozenset[int] = frozenset({self.end_id, self._eos_id})
        self.stop_texts = {str(tokenizer.eos_token), self._end_text} - {""}
        self.rewritten = 0
        self._memo: tuple[tuple[Message, ...], str, Rendered] | None = None
        self._prompt((Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
        self.rewrites_history, self.rewritten = self.rewritten > 0, 0

    def conversation(self, messages: Sequence[Message], *, origin: Origin | None = None) -> Rendered:
        """Whole conversation; mask True on what the assistant writes and its end tokens. Stops at the last end token.

        Raises:
            DataError: the roles are out of order, or a response holds the text of the end token; it names `origin`.
            ModelError: the template refuses the messages, or changes a response.
        """
        self._check(messages, origin)
        header, prompt = self._prompt(tuple(messages[:-1]))
        return prompt + self._response(header, messages)[1]

    def prompt(self, messages: Sequence[Message], *, origin: Origin | None = None) -> list[int]:
        """Ids that end with the generation header, ready to sample from. Raises as `conversation`."""
        self._check(messages, origin, ends_with="user")
        return list(self._prompt(tuple(messages))[1].ids)

    def continuation(
        self, prompt: Sequence[Message], completion: Sequence[Message], *, origin: Origin | None = None
    ) -> Rendered:
        """What follows `.prompt(prompt)`, masked alike: their ids together are the conversation's."""
        start = self.prompt(prompt, origin=origin)
        whole = self.conversation((*prompt, *completion), origin=origin)
        if whole.ids[: len(start)] != start:
            raise ModelError(
                f"{origin or 'conversation'}: the template rewrites the prompt once it is answered\n"
                "  fix: keep one assistant message per completion, or use a template that only appends"
            )
        return Rendered(whole.ids[len(start) :], whole.mask[len(start) :])

    def text(self, text: str) -> Rendered:
        """A document and eos, all trained; first, untrained, bos if the tokenizer puts one by itself."""
        ids = self._encode(text)
        return Rendered([*self._bos, *ids, self._eos_id], [False] * len(self._bos) + [True] * (len(ids) + 1))

    def answer(self, ids: Sequence[int]) -> str:
        """Sampled tokens as the text a reader gets: up to an end token, also one spelled out in ordinary tokens."""
        text = self.decode(ids)
        for stop in self.stop_texts:
            text = text.partition(stop)[0]
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens, nor the spaces that the template itself puts around a response."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text.removeprefix(self._space[0]).removesuffix(self._space[1])

    def _check(
        self, messages: Sequence[Message], origin: Origin | None, ends_with: Literal["assistant", "user"] = "assistant"
    ) -> None:
        check(messages, origin=origin, ends_with=ends_with, empty_ok=True)
        for said in (m.content for m in messages if m.role == "assistant"):
            for stop in self.stop_texts:
                if stop in said:
                    problem = f"a response holds the end token {excerpt(stop)}: sampling would stop there"
                    raise row_error(origin, problem, "take it out of the response", said)

    def _prompt(self, messages: tuple[Message, ...]) -> tuple[str, Rendered]:
        """Text and tokens of a prompt, its earlier assistant turns marked as trained."""
        if self._memo is None or self._memo[0] != messages:  # both sides of a pair share one prompt
            self._memo = (messages, *self._prompt_afresh(messages))
        return self._memo[1], self._memo[2]

    def _prompt_afresh(self, messages: tuple[Message, ...]) -> tuple[str, Rendered]:
        last = self._header(messages)
        done, rendered = "", Rendered([], [])
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            header = self._header(messages[:index])
            said, response = self._response(header, messages[: index + 1])
            if not header.startswith(done) or not last.startswith(header + said):
                self.rewritten += 1
                return last, self._context(last)
            rendered += self._context(header[len(done) :], after=done) + response
            done = header + said
        return last, rendered + self._context(last[len(done) :], after=done)

    def _context(self, text: str, *, after: str = "") -> Rendered:
        ids = self._encode(text, after=after)
        return Rendered(ids, [False] * len(ids))

    def _response(self, header: str, messages: Sequence[Message]) -> tuple[str, Rendered]:
        """Text and tokens from the generation header to the end token, of the last message."""
        full, content = self._render(messages, generate=False), messages[-1].content
        if not full.startswith(header):
            raise _not_appending(header)
        rest = full[len(header) :]
        at = rest.find(self._end_text) if self._end_text else -1
        said = rest[:at] if at >= 0 else rest.rstrip()
        if not "".join(said.split()).endswith("".join(content.split())):
            problem = f"the chat template changes a response: {excerpt(content)}\n  into {excerpt(said)}"
            raise ModelError(f"{problem}\n  {TEMPLATE_FIX}")
        ids = [*self._encode(said, after=header), self.end_id]
        return said + (self._end_text if at >= 0 else ""), Rendered(ids, [True] * len(ids))

    def _header(self, messages: Sequence[Message]) -> str:
        return self._render(messages, generate=True) + self._lead

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        from jinja2 import TemplateError  # as light as it is, only rendering needs it

        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))
        except TemplateError as error:
            roles = " ".join(m.role for m in messages)
            raise ModelError(
                f"the chat template refuses these messages ({roles}): {excerpt(str(error), 120)}\n"
                "  fix: if it knows no system role, move that text into the first user message"
            ) from error

    def _encode(self, text: str, *, after: str = "") -> list[int]:
        """Ids of one segment as they are behind `after`, though never merged with it."""
        if after and self._adds_space:
            last = next((token for token in self._added.values() if after.endswith(token)), after[-1])
            for anchor in (last, "x"):
                head, ids = self._ids(anchor), self._ids(anchor + text)
                if ids[: len(head)] == head:
                    return ids[len(head) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _probe(self) -> tuple[str, tuple[str, str], str, int]:
        """What the template writes around a response: its lead, the spaces, and its end token as text and as id."""
        asked, probe = (Message("user", "a"),), "PROBE"
        header = self._render(asked, generate=True)
        full = self._render((*asked, Message("assistant", probe)), generate=False)
        if not full.startswith(header) or probe not in full[len(header) :]:
            raise _not_appending(header)
        lead, _, tail = full[len(header) :].partition(probe)
        end_id = next((i for i in self._ids(tail) if self._added.get(i, "\0") in tail), self._eos_id)
        end_text = self._added[end_id] if self._added.get(end_id, "\0") in tail else ""
        between = tail.partition(end_text)[0] if end_text else tail.rstrip()
        if between.strip():
            raise ModelError(
                f"the chat template ends a response with {excerpt(between.strip())}, which is not one token\n"
                f"  fix: end it with {excerpt(str(self.tokenizer.eos_token))} in the chat_template"
            )
        # A template without a generation prompt leaves the role's marker to us. Thinking is the model's to write.
        ours = lead.strip() and "</think>" not in lead
        return lead if ours else "", ("" if lead.strip() else lead, between), end_text, end_id
