"""Convert messages to tokens and loss masks, and tokens back to text.

All tokens for training and sampling come from `Renderer`, which guarantees:

* A prompt's ids are a strict prefix of the ids of the conversation it belongs to. A prompt is tokenised alone, as it
  is at inference, and the response after it.
* The trained tokens are those that the model has to write at inference, from the generation header (exclusive) to the
  end token (inclusive), and no others. The mask is made from positions, never by comparing ids, so a pad token equal to
  eos cannot hide it.
* Only the template writes control tokens. The text of one in a message's content becomes ordinary tokens.
* A template that makes this impossible is refused with a message, at start-up where possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from trueup.data.rendering.messages import Message, Origin, Rendered, check, row_error
from trueup.data.rendering.template import TEMPLATE_FIX, ChatTemplate
from trueup.errors import DataError, ModelError
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Renderer:
    """Converter between messages and tokens, for one tokenizer. Can be pickled.

    Attributes:
        end_id: id of the token that ends an assistant's turn, found by rendering a probe (<|im_end|>, <|eot_id|>, eos).
        stop_ids: ids at which sampling stops: `end_id` and the tokenizer's eos.
        stop_texts: the texts of these tokens.
        rewrites_history: True if the template renders an earlier turn otherwise than the last one (Qwen3 drops its
            thinking), so of a conversation only the last assistant turn can be trained as it was written.
        rewritten: number of prompts met so far whose earlier turns were rewritten.
        writes_end: True if the template writes the end token after an answer; else eos is put there.
        missing_template: True if the tokenizer had no chat template and was given ChatML.
        template_marks: the texts that the template writes before and after a user's and an assistant's content, if they
            have four characters or more: "<|im_start|>user", "<|im_end|>", "[/INST]".

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
        self._template = ChatTemplate(tokenizer, self._bos)
        self._encoder, self._frame = self._template.encoder, self._template.frame
        self.missing_template, self.template_marks = self._template.missing, self._template.marks
        self.end_id, self.writes_end = self._frame.end_id, bool(self._frame.end_text)
        self.stop_ids: frozenset[int] = frozenset({self.end_id, self._eos_id})
        self.stop_texts = {str(tokenizer.eos_token), self._frame.end_text} - {""}
        self.rewritten = 0
        self._memo: tuple[tuple[Message, ...], str, Rendered] | None = None
        self.rewrites_history = self._rewrites()

    def conversation(self, messages: Sequence[Message], *, origin: Origin | None = None) -> Rendered:
        """Return a conversation's ids and mask (True on assistant contents and end tokens), up to the last end token.

        Raises:
            DataError: the roles are out of order, a response holds the text of the end token, or the template changes a
                response; the message names `origin`.
            ModelError: the template refuses the messages, or writes the prompt otherwise once it is answered.
        """
        self._check(messages, origin)
        marked = self._marked(messages)
        header, prompt = self._prompt(marked[:-1], origin)
        return prompt + self._response(header, marked, origin)[1]

    def prompt(self, messages: Sequence[Message], *, origin: Origin | None = None) -> list[int]:
        """Return a prompt's ids with the generation header (e.g. "<|im_start|>assistant") at the end, to sample from.

        Raises:
            DataError, ModelError: for the reasons for which `conversation` raises them.
        """
        self._check(messages, origin, ends_with="user")
        return list(self._prompt(self._marked(messages), origin)[1].ids)

    def continuation(
        self, prompt: Sequence[Message], completion: Sequence[Message], *, origin: Origin | None = None
    ) -> Rendered:
        """Return the ids and mask of a completion that follows its prompt.

        The ids of `prompt(prompt)` and these ids together are those of the whole conversation.
        """
        return self.pair(prompt, (completion,), origin)[1][0]

    def pair(
        self, prompt: Sequence[Message], completions: Sequence[Sequence[Message]], origin: Origin | None = None
    ) -> tuple[list[int], list[Rendered]]:
        """Return the ids of a prompt, and the ids and mask of each completion of it; the prompt is rendered once."""
        self._check(prompt, origin, ends_with="user")
        for completion in completions:
            self._check((*prompt, *completion), origin)
        asked = self._marked(prompt)
        header, start = self._prompt(asked, origin)
        branches = [self._branch(asked, header, start, self._marked(completion), origin) for completion in completions]
        return list(start.ids), branches

    def text(self, text: str) -> Rendered:
        """Return a plain text's ids and mask: the text and eos, all trained.

        If the tokenizer adds a bos token, it comes first and is not trained.
        """
        ids = self._encoder.encode(self._encoder.mark(text))
        return Rendered([*self._bos, *ids, self._eos_id], [False] * len(self._bos) + [True] * (len(ids) + 1))

    def answer(self, ids: Sequence[int]) -> str:
        """Return the text of sampled token ids up to the first end token.

        The end token's text ends the answer even if it was sampled in ordinary tokens.
        """
        text = self.decode(ids)
        for stop in self.stop_texts:
            text = text.partition(stop)[0]
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids without special tokens.

        Spaces that the template itself puts around a response are removed too.
        """
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text.removeprefix(self._frame.before).removesuffix(self._frame.after)

    def control_texts(self, messages: Sequence[Message]) -> list[str]:
        """Return the texts of control tokens (e.g. "<|im_end|>") that occur in the messages' contents, each once.

        There are usually none. When the messages are rendered, such texts become ordinary tokens.
        """
        held = [text for m in messages for text in self._encoder.held(m.content, assistant=m.role == "assistant")]
        return list(dict.fromkeys(held))

    def applied_twice(self, messages: Sequence[Message]) -> str | None:
        """Return a role header of this template (e.g. "<|im_start|>user") that occurs in a content; usually None.

        If there is one, a template was applied to the data before.
        """
        return next((mark for m in messages for mark in self._template.role_marks if mark in m.content), None)

    def doubled_bos(self, ids: Sequence[int]) -> bool:
        """Return True if `ids` begin with two bos tokens."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and list(ids[:2]) == [bos, bos]

    # -- a conversation, whose messages are marked from here on ----------------------------------------------------

    def _check(
        self, messages: Sequence[Message], origin: Origin | None, ends_with: Literal["assistant", "user"] = "assistant"
    ) -> None:
        check(messages, origin=origin, ends_with=ends_with, empty_ok=True)
        for message in messages:
            if message.role != "assistant":
                continue
            for stop in self.stop_texts:
                if stop in message.content:
                    problem = f"a response holds the end token {excerpt(stop)}: sampling would stop there"
                    fix = "take it out of the response"
                    raise row_error(origin, problem, fix, message.content, kind="end-token")

    def _marked(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        marked = []
        for message in messages:
            content = self._encoder.mark(message.content, assistant=message.role == "assistant")
            marked.append(message if content is message.content else replace(message, content=content))
        return tuple(marked)

    def _prompt(self, messages: tuple[Message, ...], origin: Origin | None = None) -> tuple[str, Rendered]:
        """Return the text and the tokens of a prompt; its earlier assistant turns are marked as trained."""
        if self._memo is None or self._memo[0] != messages:  # several answers to one prompt share it
            self._memo = (messages, *self._prompt_afresh(messages, origin))
        return self._memo[1], self._memo[2]

    def _prompt_afresh(self, messages: tuple[Message, ...], origin: Origin | None) -> tuple[str, Rendered]:
        last = self._template.header(messages)
        done, rendered, eos = "", Rendered([], []), str(self.tokenizer.eos_token)
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            header = self._template.header(messages[:index])
            said, response = self._response(header, messages[: index + 1], origin)
            if not header.startswith(done) or not last.startswith(header + said):
                self.rewritten += 1
                return last, self._context(last)
            rendered += self._context(header[len(done) :], after=done) + response
            done = header + said
            if not self._frame.end_text and last.startswith(eos, len(done)):  # written between turns, not at the end
                done += eos
        return last, rendered + self._context(last[len(done) :], after=done)

    def _branch(
        self, prompt: tuple[Message, ...], header: str, start: Rendered, completion: tuple[Message, ...],
        origin: Origin | None,
    ) -> Rendered:  # fmt: skip
        whole = (*prompt, *completion)
        if len(completion) == 1:
            return self._response(header, whole, origin)[1]
        header, before = self._prompt(whole[:-1], origin)
        if before.ids[: len(start.ids)] != start.ids:
            raise ModelError(
                f"{origin or 'conversation'}: the template rewrites the prompt once it is answered\n"
                "  fix: keep one assistant message per completion, or use a template that only appends"
            )
        both = before + self._response(header, whole, origin)[1]
        return Rendered(both.ids[len(start.ids) :], both.mask[len(start.ids) :])

    def _context(self, text: str, *, after: str = "") -> Rendered:
        ids = self._encoder.encode(text, after=after)
        return Rendered(ids, [False] * len(ids))

    def _response(self, header: str, messages: tuple[Message, ...], origin: Origin | None) -> tuple[str, Rendered]:
        """Return the text and the tokens of the last message: all that the model writes, up to the end token."""
        content = messages[-1].content
        said, end = self._frame.split(self._template.answered(messages, header))
        if not _keeps(said, content):
            into, plain = excerpt(self._encoder.plain(said)), self._encoder.plain(content)
            fix = "take what it cannot keep out of the response, or give the tokenizer a chat_template that keeps it"
            raise row_error(origin, f"the chat template changes a response into {into}", fix, plain, kind="template")
        ids = [*self._encoder.encode(said, after=header), self.end_id]
        return said + end, Rendered(ids, [messages[-1].trained] * len(ids))

    def _rewrites(self) -> bool:
        talk = (Message("user", "a"), Message("assistant", "By the Way:\n\n  yes, no."), Message("user", "c"))
        try:
            self._prompt(talk)
        except DataError as error:
            problem = str(error).splitlines()[0].removeprefix("conversation: ")
            raise ModelError(f"{problem}\n  {TEMPLATE_FIX}") from error
        found, self.rewritten = self.rewritten > 0, 0
        return found


def _keeps(said: str, content: str) -> bool:
    """Return True if the rendered response `said` is `content`, apart from space around it and around its thinking."""
    if said.rstrip().endswith(content.strip()):
        return True
    return "</think>" in content and "".join(said.split()).endswith("".join(content.split()))
