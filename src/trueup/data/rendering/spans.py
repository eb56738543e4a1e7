"""Find the text that the assistant writes in a rendered conversation, whatever the template does around contents.

Each content (and thought) is put between two marks before the template renders the messages; the marks show where it
stands in the text. A turn begins where the generation prompt of the messages before it ends, and ends with the end
token behind its content. So turns are found in templates that leave out earlier thoughts, move the system message,
open a thought in the generation prompt, write channels, or end the last turn otherwise than the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

from trueup.data.rendering.encoding import MARK, Encoder
from trueup.data.rendering.frame import Frame, not_appending
from trueup.data.rendering.messages import TOOLS, Message, Origin, Remark, row_error
from trueup.data.rendering.thoughts import ThoughtForm, is_empty_thought, split_inline, without_opening
from trueup.errors import ModelError
from trueup.system.text import excerpt

Place = tuple[str, int]
"""("content" or "thought", index of the message)."""
_MARK = re.compile(rf"{MARK}([234])(\d+)([()])")
_KINDS = {"2": "content", "3": "thought", "4": "generated"}
GENERATED = (f"{MARK}40(", f"{MARK}40)")
"""The marks of a {% generation %} block."""


class Piece(NamedTuple):
    """A part of a rendered conversation that is encoded by itself.

    Attributes:
        text: the text to encode.
        trained: (end offset in `text`, True if trained) of its stretches; empty: nothing is trained.
        ends: ids of the end tokens behind the text.
        end_text: the text of `ends` where the template writes them.
        ends_trained: True if these are trained.
        turn: index of the assistant's message, -1 for text between turns.
    """

    text: str
    trained: tuple[tuple[int, bool], ...] = ()
    ends: tuple[int, ...] = ()
    end_text: str = ""
    ends_trained: bool = True
    turn: int = -1


@dataclass(slots=True)
class Laid:
    """A conversation as pieces in order, remarks on its rendering, and how much of the rendered text the pieces are."""

    pieces: list[Piece] = field(default_factory=list)
    remarks: set[Remark] = field(default_factory=set)
    done: int = 0


class MarkedText(NamedTuple):
    """A rendered text without its marks, and the (start, end) of all that was marked, in the order of the text."""

    text: str
    places: dict[Place, tuple[int, int]]
    repeated: frozenset[Place]
    generated: tuple[tuple[int, int], ...]

    def after(self, index: int) -> int:
        """Return the first position at or behind `index` where a marked text begins; the text's length if none does."""
        return min((start for start, _ in self.places.values() if start >= index), default=len(self.text))

    def of(self, index: int) -> list[tuple[int, int]]:
        """Return the (start, end) of the thought and the content of message `index`, as far as they are there."""
        return [self.places[kind, index] for kind in ("thought", "content") if (kind, index) in self.places]


def marked(messages: Sequence[Message], only: int | None = None) -> list[Message]:
    """Return the messages with marks around each content and thought; white space at their edges stays outside.

    `only` is the index of a message to mark alone.
    """
    result = []
    for index, message in enumerate(messages):
        if message.role == TOOLS or only not in (None, index):
            result.append(message)
            continue
        parts = split_inline(message.content) if message.role == "assistant" and not message.thinking else None
        if parts:
            content = f"{parts[0]}{_mark(parts[1], '3', index)}{parts[2]}{_mark(parts[3], '2', index)}"
        else:
            content = _mark(message.content, "2", index)
        thinking = _mark(message.thinking, "3", index)
        result.append(replace(message, content=content, thinking=thinking))
    return result


def _mark(text: str, kind: str, index: int) -> str:
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{MARK}{kind}{index}({core}{MARK}{kind}{index}){text[start + len(core) :]}"


def read_marks(text: str) -> MarkedText:
    """Return a rendered text without its marks, and their places."""
    places: dict[Place, tuple[int, int]] = {}
    repeated: set[Place] = set()
    generated: list[tuple[int, int]] = []
    opened: dict[Place, int] = {}
    pieces, length, last = list[str](), 0, 0
    for match in _MARK.finditer(text):
        pieces.append(text[last : match.start()])
        length += match.start() - last
        last = match.end()
        place = _KINDS[match[1]], int(match[2])
        if match[3] == "(":
            opened[place] = length
        elif (start := opened.pop(place, None)) is not None:
            if match[1] == "4":
                generated.append((start, length))
            else:
                repeated |= {place} & places.keys()
                places.setdefault(place, (start, length))
    pieces.append(text[last:])
    return MarkedText("".join(pieces), places, frozenset(repeated), tuple(generated))


def located(
    text: str, messages: Sequence[Message], known: dict[Place, tuple[int, int]]
) -> dict[Place, tuple[int, int]]:
    """Return the places of contents in a rendered text; those not `known` are found by their words, in order."""
    places = dict(known)
    at = 0
    for index, message in enumerate(messages):
        if message.role == TOOLS:
            continue
        for kind, words in (("thought", message.thinking.strip()), ("content", message.content.strip())):
            if (kind, index) in known:
                at = max(at, known[kind, index][1])
            elif words:
                later = [span[0] for place, span in known.items() if place[1] > index]
                found = text.find(words, at, min(later, default=len(text)))
                if found >= 0:
                    at = found + len(words)
                    places[kind, index] = (found, at)
    return places


class Template(Protocol):
    """The part of a chat template that a layout needs (`template.ChatTemplate` describes it)."""

    encoder: Encoder
    frame: Frame
    form: ThoughtForm | None
    answer_header: str
    call_end: int | None
    thinking_variables: list[str]

    def marked(self, messages: Sequence[Message], *, generate: bool) -> MarkedText:
        """Return the text of messages with the places of their contents."""
        ...

    def thought(self, message: Message) -> str:
        """Return the thought of an assistant's message; "" if it has none."""
        ...


class Layout:
    """Finds the assistant's turns in the texts of one template.

    Args:
        template: the chat template.
        train_thinking: False leaves thoughts, and all else before an answer's content, untrained.
    """

    def __init__(self, template: Template, *, train_thinking: bool) -> None:
        self._template, self._train_thinking = template, train_thinking

    def conversation(self, messages: Sequence[Message], origin: Origin | None) -> Laid:
        """Return an answered conversation as pieces.

        Raises:
            DataError: the template leaves out or changes an answer or a thought.
            ModelError: the template writes the prompt otherwise once it is answered, or leaves out a user's message.
        """
        whole = self._template.marked(messages, generate=False)
        laid = self._laid(messages, whole, origin, generate=False)
        before = self._template.marked(messages[:-1], generate=True)
        if any(place[0] == "content" for place in before.places.keys() - whole.places.keys()):
            self._prompt_first(laid, messages, before, origin)
        return laid

    def _prompt_first(self, laid: Laid, messages: Sequence[Message], before: MarkedText, origin: Origin | None) -> None:
        """Put the text of the prompt before the last turn, where the template leaves a message out once it is answered.

        Mistral 7B v0.3's does so with the system message, which it writes into a question that stands last.
        """
        prompt = self._laid(messages[:-1], before, origin, generate=True)
        end = max((end for _, end in before.places.values()), default=0)
        stop = end + len(without_opening(before.text[end:]))
        laid.pieces[:-1] = [*prompt.pieces, Piece(before.text[prompt.done : stop])]

    def prompt(self, messages: Sequence[Message], origin: Origin | None) -> Laid:
        """Return a prompt as pieces, the last of which are the header of the answer and the thought that it opens."""
        whole = self._template.marked(messages, generate=True)
        laid = self._laid(messages, whole, origin, generate=True)
        tail = whole.text[laid.done :]
        header = without_opening(tail)
        laid.pieces += [Piece(text) for text in (header, tail[len(header) :]) if text]
        return laid

    def _laid(
        self, messages: Sequence[Message], whole: MarkedText, origin: Origin | None, *, generate: bool
    ) -> Laid:  # fmt: skip
        changed = self._check_complete(messages, whole, origin)
        laid = Laid(remarks={"rewritten"} if changed else set())
        for index, message in enumerate(messages):
            if message.role != "assistant" or index in changed:
                continue
            last = index == len(messages) - 1
            before = self._template.marked(messages[:index], generate=True)
            turn = self._turn(messages, index, whole, before, laid.remarks, origin, last=last and not generate)
            if turn.boundary < laid.done:
                raise not_appending(before.text)
            self._check_calls(messages, index, whole, turn.piece, origin)
            piece = turn.piece if message.trained else turn.piece._replace(trained=(), ends_trained=False)
            laid.pieces += [Piece(whole.text[laid.done : turn.boundary]), piece]
            laid.done = turn.end
        return laid

    def _check_calls(
        self, messages: Sequence[Message], index: int, whole: MarkedText, piece: Piece, origin: Origin | None
    ) -> None:
        """Raise DataError if a turn does not hold each of its calls, or its content is behind their results."""
        calls, text = messages[index].calls, piece.text
        names = [call.name for call in calls]
        written = [(call.id and call.id in text) or text.count(call.name) >= names.count(call.name) for call in calls]
        if lost := [name for name, is_written in zip(names, written, strict=True) if not is_written]:
            problem = f"the chat template leaves out a tool call of {len(names)} in one message ({excerpt(lost[0])})"
            fix = "give one call a message, or another chat_template"
            raise row_error(origin, problem, fix, kind="tools")
        later = [span[0] for place, span in whole.places.items() if place[1] > index]
        if names and later and any(end > min(later) for _, end in whole.of(index)):
            problem = "the chat template writes the text of a message with tool calls behind the results of the tools"
            fix = "leave the text of such messages out (or give it as reasoning_content), or give another chat_template"
            raise row_error(origin, problem, fix, Encoder.plain(messages[index].content), kind="tools")

    def _check_complete(self, messages: Sequence[Message], whole: MarkedText, origin: Origin | None) -> set[int]:
        """Return the indices of the earlier answers that the template changes or leaves out.

        Raises:
            DataError: it does so with the last answer, or with the text beside a tool call.
            ModelError: it leaves out a user's message or a tool's result.
        """
        changed: set[int] = set()
        for index, message in enumerate(messages):
            content = message.content
            if message.role in (TOOLS, "system") or not content.strip():
                continue
            if message.role == "assistant" and (parts := split_inline(content)):
                content = parts[3]
                if not content.strip():
                    continue
            place = whole.places.get(("content", index))
            written = None if place is None else whole.text[place[0] : place[1]]
            if message.role == "assistant" and written != content.strip():
                if index == len(messages) - 1 or message.calls:
                    self._refuse_changed(messages, index, origin, written)
                changed.add(index)
            elif written is None:
                raise ModelError(
                    f"{origin or 'conversation'}: the chat template leaves out the content of message {index + 1} "
                    f"({message.role})\n  fix: give a chat_template that writes it, or take the message out"
                )
        return changed

    def _refuse_changed(
        self, messages: Sequence[Message], index: int, origin: Origin | None, written: str | None
    ) -> None:
        plain = Encoder.plain
        into = "nothing" if written is None else excerpt(plain(written))
        fix = "take what it cannot keep out of the response, or give the tokenizer a chat_template that keeps it"
        raise row_error(
            origin, f"the chat template changes a response into {into}", fix, plain(messages[index].content),
            kind="template",
        )  # fmt: skip

    def _turn(
        self, messages: Sequence[Message], index: int, whole: MarkedText, before: MarkedText, remarks: set[Remark],
        origin: Origin | None, *, last: bool,
    ) -> _Turn:  # fmt: skip
        """Return the piece of one assistant's message, and its place in the text of the whole conversation."""
        anchor, anchored = max(before.places.items(), key=lambda item: item[1][1], default=(None, (0, 0)))
        at = 0 if anchor is None else whole.places.get(anchor, (0, -1))[1]
        if at < 0:
            raise not_appending(before.text)
        if before.text[: anchored[1]] != whole.text[:at]:
            if last and before.places.keys() <= whole.places.keys():  # it is not for something that was left out
                raise not_appending(before.text)
            remarks.add("moved")
        tail = before.text[anchored[1] :]
        header = without_opening(tail)
        parts = whole.of(index)
        limit = parts[0][0] if parts else whole.after(at)
        glue = whole.text[at:limit]
        if not glue.startswith(header):
            if last or not self._template.answer_header:
                raise not_appending(before.text)
            opens, headed, _ = glue.partition(self._template.answer_header)
            whole_header = headed.strip() and opens + headed  # the template wrote more, or less, below the question
            header = whole_header or _cut_back(_shared(header, glue), self._template.encoder)
        boundary = at + len(header)
        thought, form = self._template.thought(messages[index]), self._template.form
        given = ("thought", index) in whole.places
        if last and form is not None and self._needs(form, thought and not given, glue, tail, header):
            return self._formed(form, thought, messages, whole, at, tail, header, index, remarks)
        supplied = len(tail) if glue.startswith(tail) else len(header)
        again = self._template.answer_header  # of a template that writes it here, but not behind the prompt
        if again and not header.endswith(again) and glue.startswith(again, len(header)):
            supplied, boundary = len(header) + len(again), boundary + len(again)
        if last and supplied != len(tail):
            remarks.add("unprompted")
        if thought and not given:
            if last:
                raise _thought_left_out(origin, thought, self._template.thinking_variables)
            remarks.add("lost-thought")
        answer = parts[-1][0] if parts and ("content", index) in whole.places else None
        stop = parts[-1][1] if parts else at + supplied
        body_end, end, ends = self._end(messages, index, whole, stop, last=last)
        empty = not given and is_empty_thought(whole.text[boundary : answer if answer is not None else body_end])
        if given:
            remarks.add("thought")
        elif empty and not thought:
            remarks.add("empty-thought")
        begin = at + supplied
        if not self._train_thinking and (given or empty):
            begin = max(begin, answer if answer is not None else body_end)
        return self._cut(whole, boundary, begin, body_end, end, ends, index)

    @staticmethod
    def _needs(form: ThoughtForm, left_out: object, glue: str, tail: str, header: str) -> bool:
        """Return True if the last turn has to be written in the family's form, because the template does not do it.

        It leaves out the thought, or the thought that its generation prompt opens is not in an answer without one.
        """
        if left_out:
            return True
        opened = tail != header and not glue.startswith(tail)
        return opened and not glue[len(header) :].lstrip().startswith(form.opens.strip())

    def _formed(
        self, form: ThoughtForm, thought: str, messages: Sequence[Message], whole: MarkedText, at: int, tail: str,
        header: str, index: int, remarks: set[Remark],
    ) -> _Turn:  # fmt: skip
        """Return the last turn with its thought as the family writes it, which its template does not render."""
        place = whole.places.get(("content", index))
        start = place[0] if place else at + len(header)
        body_end, end, ends = self._end(messages, index, whole, place[1] if place else start, last=True)
        if place is None:  # no content: all that the template wrote, such as an empty thought, stands for this one
            start = max(start, body_end - len(self._template.frame.after))
        opening = form.opens + thought + form.closes
        text = opening + whole.text[start:body_end]
        supplied = len(form.opens) if tail == header + form.opens else 0
        begin = supplied if self._train_thinking else len(opening)
        remarks.add("thought" if thought else "empty-thought")
        if tail not in (header, header + form.opens):
            remarks.add("unprompted")
        boundary = at + len(header)
        stretches = ((begin, False), (len(text), True)) if begin else ((len(text), True),)
        return _Turn(Piece(text, stretches, ends, whole.text[body_end:end], turn=index), boundary, end)

    def _cut(
        self, whole: MarkedText, boundary: int, begin: int, body_end: int, end: int, ends: tuple[int, ...], index: int
    ) -> _Turn:
        text = whole.text[boundary:body_end]
        stretches = [(begin - boundary, False), (len(text), True)] if begin > boundary else [(len(text), True)]
        ends_trained = True
        if whole.generated:
            stretches = _within(stretches, [(a - boundary, b - boundary) for a, b in whole.generated], len(text))
            ends_trained = any(a <= body_end < b for a, b in whole.generated) if end > body_end else True
        piece = Piece(text, tuple(stretches), ends, whole.text[body_end:end], ends_trained, index)
        return _Turn(piece, boundary, end)

    def _end(
        self, messages: Sequence[Message], index: int, whole: MarkedText, stop: int, *, last: bool
    ) -> tuple[int, int, tuple[int, ...]]:
        """Return where a turn's text ends, where its end tokens end, and their ids; its content ends at `stop`."""
        encoder, frame = self._template.encoder, self._template.frame
        tail = whole.text[stop : whole.after(stop)]
        if messages[index].calls:
            return self._end_of_calls(messages, index, stop, tail, last=last)
        space = len(tail) - len(tail.lstrip())
        empty = ("content", index) not in whole.places
        if empty:  # what the template wrote for it, such as the closing tag of its thought, stands before the end token
            first = [
                at for end_text in (*dict(frame.ends), frame.between) if end_text and (at := tail.find(end_text)) >= 0
            ]
            space = min(first, default=space)
        for end_text, ends in frame.ends:
            if tail.startswith(end_text, space):
                return stop + space, stop + space + len(end_text), ends
        follows = encoder.token_at(tail, space)
        closes = empty and whole.of(index) and not frame.ends  # a token behind a thought closes it, and ends nothing
        if follows is not None and follows[0] not in frame.headers and (frame.ends or not space) and not closes:
            return stop + space, stop + space + len(follows[1]), (follows[0],)
        if not frame.ends and frame.between and tail.startswith(frame.between, space):
            return stop + space, stop + space + len(frame.between), (frame.end_id,)
        if last:
            rest = tail[: len(tail) - len(frame.rest)] if tail.endswith(frame.rest) else tail.rstrip()
            return stop + len(rest), stop + len(rest), (frame.end_id,)
        return stop, stop, ()

    def _end_of_calls(
        self, messages: Sequence[Message], index: int, stop: int, tail: str, *, last: bool
    ) -> tuple[int, int, tuple[int, ...]]:
        """Return what `_end` returns for a message with calls, which stand in `tail`, the text after its content.

        They end where the text of the conversation up to this message ends.
        """
        encoder, frame = self._template.encoder, self._template.frame
        own = tail
        if not last:
            alone = self._template.marked(messages[: index + 1], generate=False).text
            lengths = range(min(len(tail), len(alone)), 0, -1)
            own = tail[: next((length for length in lengths if alone.endswith(tail[:length])), 0)] or _shared(
                alone[stop:], tail
            )
        for end_text, ends in frame.ends:
            if (at := own.rfind(end_text)) >= 0:
                return stop + at, stop + at + len(end_text), ends
        body = len(own.rstrip())
        if not frame.ends:  # what ends it is the beginning of what follows, e.g. GLM's <|observation|>
            follows = encoder.token_at(tail, body)
            if follows is not None:
                return stop + body, stop + body + len(follows[1]), (follows[0],)
            call_end = self._template.call_end if last else None
            return stop + body, stop + body, () if call_end is None else (call_end,)
        ending = encoder.last_token(own)
        if ending is None or ending[0] + len(ending[2]) != body:
            return stop + body, stop + body, (frame.end_id,) if last else ()
        at, token, _ = ending
        return stop + at, stop + body, (token,)


class _Turn(NamedTuple):
    piece: Piece
    boundary: int
    end: int


def _cut_back(text: str, encoder: Encoder) -> str:
    """Return a common beginning of two headers without the started token or word at its end."""
    at, _, token = encoder.last_token(text) or (0, 0, "")
    words = re.search(r"\s(?=\S*\Z)", text)
    return text[: max(at + len(token), words.end() if words else 0)]


def _shared(a: str, b: str) -> str:
    """Return the longest text with which both texts begin."""
    count = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:count]


def _within(
    stretches: Sequence[tuple[int, bool]], spans: Sequence[tuple[int, int]], length: int
) -> list[tuple[int, bool]]:
    """Return the stretches, of which only the parts inside `spans` stay trained."""
    result: list[tuple[int, bool]] = []
    inner = {min(max(edge, 0), length) for span in spans for edge in span}
    for start, end in pairwise(sorted({0, length, *(end for end, _ in stretches), *inner})):
        was = next(on for stop, on in stretches if start < stop)
        now = was and any(a <= start and end <= b for a, b in spans)
        if result and result[-1][1] == now:
            result[-1] = (end, now)
        else:
            result.append((end, now))
    return result


def _thought_left_out(origin: Origin | None, thought: str, variables: Sequence[str]) -> Exception:
    names = ", ".join(f"{name}: true" for name in variables)
    fix = f"let the template write it (template: {{{names}}}), " if names else ""
    return row_error(
        origin,
        "the chat template leaves out the thought of an answer",
        f"{fix}take it out of the row, or give another chat_template",
        Encoder.plain(thought),
    )
