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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, cast

from trueup.data.rendering.encoding import first_change
from trueup.data.rendering.frame import TEMPLATE_FIX
from trueup.data.rendering.messages import TOOLS, Message, Origin, Rendered, check, row_error
from trueup.data.rendering.spans import Laid, Layout, Piece
from trueup.data.rendering.template import ChatTemplate, RefusedMessagesError
from trueup.data.rendering.thoughts import inline
from trueup.errors import DataError, ModelError
from trueup.system.text import excerpt, is_blank

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Renderer:
    """Converter between messages and tokens, for one tokenizer. Can be pickled.

    Args:
        tokenizer: the tokenizer, with its chat template.
        train_thinking: False leaves the thoughts before answers untrained.

    Attributes:
        end_id: id of the token that ends an assistant's turn, found by rendering a probe (<|im_end|>, <|eot_id|>, eos).
        stop_ids: ids at which sampling stops: `end_id` and the tokenizer's eos.
        stop_texts: the texts of these tokens.
        system: "written", "refused" or "dropped": what the template does with a system message.
        thinking_variables: the template's variables whose names say that they switch thoughts on.
        writes_end: True if the template writes the end token after the last answer; else it is put there.
        missing_template: True if the tokenizer had no chat template and was given ChatML.
        template_marks: the texts that the template writes before and after a user's and an assistant's content, if they
            have four characters or more: "<|im_start|>user", "<|im_end|>", "[/INST]".

    Raises:
        ModelError: the tokenizer has no eos token, or its template cannot be masked exactly.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, train_thinking: bool = True) -> None:
        self.tokenizer, self.train_thinking = tokenizer, train_thinking
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no eos token, so no response could end\n  fix: set its eos_token")
        self._eos_id = cast("int", tokenizer.eos_token_id)
        first = list(tokenizer("a")["input_ids"][:1])
        self._bos = first if first == [tokenizer.bos_token_id] else []
        self._template = ChatTemplate(tokenizer, self._bos)
        self._layout = Layout(self._template, train_thinking=train_thinking)
        self._encoder, self._frame = self._template.encoder, self._template.frame
        self.missing_template, self.template_marks = self._template.missing, self._template.marks
        self.system, self.thinking_variables = self._template.system, self._template.thinking_variables
        self.end_id, self.writes_end = self._frame.end_id, bool(self._frame.ends)
        ends = {self.end_id, self._eos_id, self._template.call_end}
        self.stop_ids: frozenset[int] = frozenset(end for end in ends if end is not None)
        self._controls = frozenset(tokenizer.added_tokens_decoder)
        self.stop_texts = {str(tokenizer.eos_token), *self._frame.end_texts(self._encoder.added)}
        self._form = self._template.written_form()
        self._answer_opening = self._template.answer_opening()
        self._memo: tuple[tuple[Message, ...], str, Rendered] | None = None
        self._try()

    def conversation(self, messages: Sequence[Message], *, origin: Origin | None = None) -> Rendered:
        """Return a conversation's ids and mask (True on assistant contents and end tokens), up to the last end token.

        Raises:
            DataError: the roles are out of order, a response holds the text of the end token, or the template changes a
                response; the message names `origin`.
            ModelError: the template refuses the messages, or writes the prompt otherwise once it is answered.
        """
        self._check(messages, origin)
        marked = self._marked(messages)
        with _row(origin):
            return self._appended(marked) or self._joined(self._layout.conversation(marked, origin))

    def prompt(self, messages: Sequence[Message], *, origin: Origin | None = None) -> list[int]:
        """Return a prompt's ids with the generation header (e.g. "<|im_start|>assistant") at the end, to sample from.

        Raises:
            DataError, ModelError: for the reasons for which `conversation` raises them.
        """
        self._check(messages, origin, ends_with="user")
        marked = self._marked(messages)
        with _row(origin):
            return self._prompt_ids(marked, origin)

    def _prompt_ids(self, marked: tuple[Message, ...], origin: Origin | None) -> list[int]:
        appended = self._prompt(marked) if self._is_plain(marked) else None
        return list(appended[1].ids) if appended else self._joined(self._layout.prompt(marked, origin)).ids

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
        with _row(origin):
            return self._pair(prompt, completions, origin)

    def _pair(
        self, prompt: Sequence[Message], completions: Sequence[Sequence[Message]], origin: Origin | None
    ) -> tuple[list[int], list[Rendered]]:
        asked = self._marked(prompt)
        answers = [self._marked(completion) for completion in completions]
        if self._is_plain(asked) and all(map(self._is_plain, answers)) and (appended := self._prompt(asked)):
            header, start = appended
            branches = [self._branch(asked, header, start, answer) for answer in answers]
            if all(branches):
                return list(start.ids), [branch for branch in branches if branch]
        return self._forked(asked, answers, origin)

    def _forked(
        self, asked: tuple[Message, ...], answers: Sequence[tuple[Message, ...]], origin: Origin | None
    ) -> tuple[list[int], list[Rendered]]:
        """Return what `pair` returns: the tokens that all whole conversations share, and what follows in each."""
        wholes: list[Rendered] = []
        shared: list[int] | None = None
        for answer in answers:
            laid = self._layout.conversation((*asked, *answer), origin)
            first = next(index for index, piece in enumerate(laid.pieces) if piece.turn >= len(asked))
            before = self._joined(Laid(laid.pieces[:first]))
            whole = self._joined(laid)
            until = next((i for i in range(len(before.ids), len(whole.ids)) if whole.mask[i]), len(whole.ids))
            if shared is not None and before.ids != shared[: len(before.ids)]:
                raise ModelError(
                    f"{origin or 'conversation'}: the template rewrites the prompt once it is answered\n"
                    "  fix: keep one assistant message per completion, or use a template that only appends"
                )
            ids = whole.ids[:until]
            shared = ids if shared is None else [a for a, b in takewhile(_equal, zip(shared, ids, strict=False))]
            wholes.append(whole)
        at = len(shared or ())
        return list(shared or ()), [Rendered(w.ids[at:], w.mask[at:], w.remarks) for w in wholes]

    def for_template(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """Return the messages and the declared tools (None: none) as `apply_chat_template` takes them."""
        return self._template.turns(messages)

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
        text = self._spelled(ids) or self.decode(ids)
        for stop in self.stop_texts:
            text = text.partition(stop)[0]
        return text

    def _spelled(self, ids: Sequence[int]) -> str:
        """Return sampled ids as <think>…</think> and the answer, where special tokens are what parts the two.

        "" where they are not: gpt-oss's channels and Gemma's are special tokens, Qwen's <think> is not.
        """
        special = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        form = self._form
        if form is None or not any(token in form.opens + form.closes for token in special):
            return ""
        raw = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        thought, closed, answer = raw.partition(form.closes.strip())
        if not closed:
            answer = raw.rpartition(self._answer_opening)[2] if self._answer_opening else raw
        answer = self._without_special(answer)
        if not closed:
            return answer
        thinking = thought.rpartition(form.opens.strip())[2].strip()
        return inline(Message("assistant", answer.lstrip("\n"), thinking=thinking)).content

    def growing(self, ids: Sequence[int], *, opened: bool = False) -> str:
        """Return the text of an answer that is being sampled: its thought as <think>…</think>, then what it says.

        Each further token only adds to the text. What may become a tag or the header of a channel is held back.

        Args:
            ids: the tokens so far, without an end token.
            opened: the prompt has opened the thought (`opens_thought`).
        """
        form = self._form
        if form is None:
            return self.decode(ids)
        raw = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        opens, closes = form.opens.strip(), form.closes.strip()
        begun, header = raw.lstrip(), self._answer_opening
        if not opened and not begun.startswith(opens):
            if begun and (opens.startswith(begun) or header.startswith(begun)):
                return ""
            return self._without_special(begun.partition(header)[2]) if header and header in begun else self.decode(ids)
        thought, closed, answer = (raw if opened else begun.removeprefix(opens)).partition(closes)
        text = f"<think>\n{self._without_special(thought if closed else _settled(thought, closes)).lstrip()}"
        return (
            f"{text.rstrip()}\n</think>\n\n{self._without_special(answer).lstrip()}".removesuffix(self._frame.after)
            if closed
            else text
        )

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        """Return True if a generation prompt ends with the opening of a thought."""
        if self._form is None:
            return False
        raw = str(self.tokenizer.decode(list(prompt[-16:]), skip_special_tokens=False)).rstrip()
        return raw.endswith(self._form.opens.strip())

    def _without_special(self, text: str) -> str:
        """Return a decoded text without the special tokens that are no end token."""
        for token in self.tokenizer.added_tokens_decoder.values():
            if token.special and str(token) not in self.stop_texts:
                text = text.replace(str(token), "")
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

    def leaves_open(self, ids: Sequence[int], mask: Sequence[bool]) -> bool:
        """Return True if trained tokens that others follow end with no end token, nor with another control token.

        Then the template writes none behind an earlier answer, and what is learned there is to go on.
        """
        pairs = zip(ids, mask, mask[1:], strict=False)
        ends = {token for token, trained, next_trained in pairs if trained and not next_trained}
        return not ends <= self.stop_ids | self._controls

    def may_be_unknown(self, ids: Sequence[int]) -> bool:
        """Return True if `ids` have a token that stands for characters which the vocabulary lacks."""
        return not self._encoder.unknown.isdisjoint(ids)

    def unknown_answers(self, messages: Sequence[Message]) -> list[str]:
        """Return the answers (and plain texts) of which the tokens hold no letter: all are unknown, or dropped."""
        texts = [m.content for m in messages if m.role in ("assistant", "text") and not is_blank(m.content)]
        return [text for text in texts if self._encoder.is_unknown(text)]

    def changed_texts(self, messages: Sequence[Message]) -> list[tuple[str, str]]:
        """Return each text of the messages that its tokens do not keep, with the text that they are decoded to.

        Only the beginning of what differs, spaces apart. There is usually none.
        """
        texts = [
            (text, message.role == "assistant")
            for message in messages
            for text in (
                message.thinking,
                message.content,
                *(part for c in message.calls for part in (c.name, c.arguments)),
            )
        ]
        return [
            first_change(text, self._encoder.read_back(text, assistant=by_assistant))
            for text, by_assistant in texts
            if text and not self._encoder.keeps(text, assistant=by_assistant)
        ]

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
        self._check_tools(messages, origin)
        for message in messages:
            if message.role != "assistant":
                continue
            for stop in self.stop_texts:
                if stop in message.text:
                    problem = f"a response holds the end token {excerpt(stop)}: sampling would stop there"
                    fix = "take it out of the response"
                    raise row_error(origin, problem, fix, message.content, kind="end-token")

    def _check_tools(self, messages: Sequence[Message], origin: Origin | None) -> None:
        """Raise DataError if the messages hold tools, calls or results that the template does not write."""
        template = self._template
        uses = (
            ("declared tools", template.declares, any(m.role == TOOLS for m in messages)),
            ("tool calls", template.writes_calls, any(m.calls for m in messages)),
            ("tool results", template.answers_tools, any(m.role == "tool" for m in messages)),
        )
        for name, written, used in uses:
            if used and not written:
                fix = "give a chat_template that writes them, such as chat_template=chatml-tools"
                raise row_error(origin, f"the chat template writes no {name}", fix, kind="tools")

    def _marked(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        marked = []
        for message in messages:
            by_assistant = message.role == "assistant"
            content = self._encoder.mark(message.content, assistant=by_assistant)
            if message.extra:
                thinking = self._encoder.mark(message.thinking, assistant=True)
                calls = tuple(
                    replace(call, name=self._encoder.mark(call.name), arguments=self._encoder.mark(call.arguments))
                    for call in message.calls
                )
                marked.append(replace(message, content=content, thinking=thinking, calls=calls))
            else:
                marked.append(message if content is message.content else replace(message, content=content))
        return tuple(marked)

    def _joined(self, laid: Laid) -> Rendered:
        """Return pieces as tokens. Each is encoded behind the text before it, but not merged with its tokens."""
        ids: list[int] = []
        mask: list[bool] = []
        done = ""
        for piece in laid.pieces:
            part = self._encoder.encode(piece.text, after=done) if piece.text else []
            ids += part
            mask += self._trained(piece, part, done)
            ids += piece.ends
            mask += [piece.ends_trained] * len(piece.ends)
            done += piece.text + piece.end_text
        return Rendered(ids, mask, frozenset(laid.remarks))

    def _trained(self, piece: Piece, ids: list[int], before: str) -> list[bool]:
        """Return the mask of a piece's ids. A token that reaches over the end of a stretch belongs to the next one."""
        if len(piece.trained) < 2:
            return [any(on for _, on in piece.trained)] * len(ids)
        mask: list[bool] = []
        for end, on in piece.trained:
            if end == len(piece.text):
                count = len(ids)
            else:
                start = self._encoder.encode(piece.text[:end], after=before)
                count = sum(1 for _ in takewhile(_equal, zip(start, ids, strict=False)))
            mask += [on] * (count - len(mask))
        return mask

    # -- templates that only append: each turn follows the text of its prompt, and is rendered and encoded once ------

    def _is_plain(self, messages: Sequence[Message]) -> bool:
        """Return True if these messages may be rendered the short way: no thought, no tool, a template that appends."""
        return self._frame.plain and not any(
            m.extra or m.role == TOOLS or (m.role == "assistant" and "</think>" in m.content) for m in messages
        )

    def _appended(self, messages: tuple[Message, ...]) -> Rendered | None:
        if not self._is_plain(messages) or (prompt := self._prompt(messages[:-1])) is None:
            return None
        response = self._response(prompt[0], messages)
        return prompt[1] + response[1] if response else None

    def _prompt(self, messages: tuple[Message, ...]) -> tuple[str, Rendered] | None:
        """Return the text and the tokens of a prompt; its earlier assistant turns are marked as trained.

        None if its earlier turns are not written as they were when they were the last.
        """
        if self._memo is None or self._memo[0] != messages:  # several answers to one prompt share it
            prompt = self._prompt_afresh(messages)
            if prompt is None:
                return None
            self._memo = (messages, *prompt)
        return self._memo[1], self._memo[2]

    def _prompt_afresh(self, messages: tuple[Message, ...]) -> tuple[str, Rendered] | None:
        last = self._template.header(messages)
        done, rendered = "", Rendered([], [])
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            header = self._template.header(messages[:index])
            response = self._response(header, messages[: index + 1])
            if response is None:
                return None
            answer, part = response
            if not header.startswith(done) or not last.startswith(header + answer):
                return None
            rendered += self._context(header[len(done) :], after=done)
            done = header + answer
            if not self._frame.ends:  # the end token, if there is one, is written between turns, not at the end
                if self._frame.between and last.startswith(self._frame.between, len(done)):
                    done += self._frame.between
                else:
                    part = Rendered(part.ids[:-1], part.mask[:-1])
            rendered += part
        return last, rendered + self._context(last[len(done) :], after=done)

    def _branch(
        self, prompt: tuple[Message, ...], header: str, start: Rendered, completion: tuple[Message, ...]
    ) -> Rendered | None:
        whole = (*prompt, *completion)
        if len(completion) == 1:
            response = self._response(header, whole)
            return response[1] if response else None
        longer = self._prompt(whole[:-1])
        if longer is None or longer[1].ids[: len(start.ids)] != start.ids:
            return None
        response = self._response(longer[0], whole)
        if response is None:
            return None
        both = longer[1] + response[1]
        return Rendered(both.ids[len(start.ids) :], both.mask[len(start.ids) :])

    def _context(self, text: str, *, after: str = "") -> Rendered:
        ids = self._encoder.encode(text, after=after)
        return Rendered(ids, [False] * len(ids))

    def _response(self, header: str, messages: tuple[Message, ...]) -> tuple[str, Rendered] | None:
        """Return the text and the tokens of the last message: all that the model writes, up to the end token.

        None if it does not follow the header, or is not written as it is.
        """
        answered = self._template.answered(messages, header)
        if answered is None:
            return None
        answer, end, end_ids = self._frame.split(answered)
        if answer.strip() != messages[-1].content.strip():
            return None
        ids = [*self._encoder.encode(answer, after=header), *end_ids]
        return answer + end, Rendered(ids, [messages[-1].trained] * len(ids))

    def _try(self) -> None:
        """Raise ModelError if the template cannot render a conversation of two turns so that its answers are kept."""
        odd = Message("assistant", "By the Way:\n\n  yes, no.")
        try:
            self.conversation((Message("user", "a"), odd, Message("user", "c"), odd))
        except DataError as error:
            problem = str(error).splitlines()[0].removeprefix("conversation: ")
            raise ModelError(f"{problem}\n  {TEMPLATE_FIX}") from error


@contextmanager
def _row(origin: Origin | None) -> Iterator[None]:
    """Return a context in which a template that refuses messages names their row."""
    try:
        yield
    except RefusedMessagesError as error:
        if origin is None:
            raise
        raise ModelError(f"{origin}: {error}") from error


def _settled(text: str, closes: str) -> str:
    """Return the text without an end that may be the beginning of `closes`."""
    sizes = range(min(len(text), len(closes) - 1), 0, -1)
    return next((text[: len(text) - size] for size in sizes if closes.startswith(text[len(text) - size :])), text)


def _equal(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]
