"""The fields of one row of a file, with checked types, as messages, numbers and transcripts of Human and Assistant."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import cast

from trueup.data.rendering.messages import ROLES, Message, Origin, row_error
from trueup.data.sources.calls import (
    CALL_MARK,
    CALL_ROLES,
    CALLS,
    NAMES,
    RESULT_ROLES,
    THINKING,
    calls_in,
    calls_of,
    declared,
    declaring,
    from_hermes,
    from_parts,
    paired,
    thought_in,
    without_nulls,
)
from trueup.errors import DataError
from trueup.system.text import as_json, excerpt, is_blank, listed, type_name

MESSAGES = ("messages", "conversations", "conversation")
MATERIAL = ("input", "context")
LABEL = (
    "label", "kto_tag", "kto_label", "desirable", "is_desirable", "accepted", "is_accepted", "approved", "is_good",
    "thumbs_up", "upvoted",
)  # fmt: skip
"""Names of verdicts on an answer that may be good or bad: with one of them that is true or false, a file is for KTO."""
PROMPT = ("prompt", "question", "instruction", "query", "problem", "inputs", "input")
COMPLETION = ("completion", "response", "answer", "output", "solution", "target", "targets")
SYSTEM = ("system", "system_prompt")
SCORES = ("score_chosen", "score_rejected")
FIELDS = (
    *MESSAGES, *PROMPT, *COMPLETION, *SYSTEM, "context", "history", "chosen", "rejected", "margin", *LABEL, "text",
    "tools", "thinking", *SCORES,
)  # fmt: skip
SPEAKERS = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "developer": "system", **CALL_ROLES, **RESULT_ROLES,
}  # fmt: skip


def vocabulary(words: str) -> frozenset[str]:
    """Return the set of the words in a text."""
    return frozenset(words.split())


# The words of which the names of fields consist that say something about a row or its answers. A name counts only if
# all its words are known: "is_safe" and "response_is_safe" do, "in_gsm8k_train" and "prompt_harm_label" do not.
ABOUT = vocabulary(
    "is was has be been are the this row example sample item record pair conversation dialogue dialog turn message "
    "messages to do for should will marked as by final overall avg mean"
)
ANSWER = vocabulary(
    "answer answers response responses output outputs completion completions reply replies solution generation "
    "generations assistant model conv conversation text summary candidate option"
)
RATES = vocabulary("score scores rating reward quality grade stars votes upvotes likes points")
"""Words of numbers that are higher for a better answer."""
RANKS = frozenset({"rank", "ranking", "place"})
"""Words of numbers that are lower for a better answer."""
ROLE_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value", "text")
TURN = re.compile(r"\n\n(Human|Assistant):")


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a field's name in small letters: of isSafe, is_safe and Is-Safe they are "is" and "safe"."""
    return tuple(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


@lru_cache(maxsize=16384)
def says(name: str, *vocabularies: frozenset[str]) -> bool:
    """Return True if a name consists of words about rows and answers, and of at least one word of `vocabularies`."""
    words, known = set(words_of(name)), {word for vocabulary in vocabularies for word in vocabulary}
    return bool(words & known) and words <= known | ABOUT | ANSWER


def may_be_number(value: object) -> bool:
    """Return True for a number, also one written as text, as in CSV files; not for true and false."""
    if isinstance(value, str):
        return re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def may_be_verdict(value: object) -> bool:
    """Return True for true, false and null, also written as text or as 1 and 0."""
    return value is None or isinstance(value, bool) or str(value).strip().lower() in ("true", "false", "0", "1", "")


def twins(row: Mapping[str, object], first: str, second: str, *vocabularies: frozenset[str]) -> list[tuple[str, str]]:
    """Return pairs of keys whose names differ in one word, `first` in one and `second` in the other.

    E.g. (score_chosen, score_rejected) for chosen and rejected. Their other words are about answers, or in
    `vocabularies`, of which one must be in them if any are given.
    """
    by_words = {words_of(key): key for key in row}
    pairs: list[tuple[str, str]] = []
    for words, key in by_words.items():
        if first not in words:
            continue
        other = tuple(second if word == first else word for word in words)
        rest = "_".join(word for word in words if word != first)
        if words.count(first) == 1 and other in by_words and (says(rest, *vocabularies) if vocabularies else not (
            set(words_of(rest)) - ANSWER - ABOUT)):  # fmt: skip
            pairs.append((key, by_words[other]))
    return pairs


@dataclass(slots=True)
class Record:
    """The fields of one row of a file, and its place. Every method checks the type of the value that it returns.

    Attributes:
        row: the fields by name.
        origin: the row's file and line.
        notes: (place, oddity) of rows that are used all the same, e.g. joined turns; `note` appends to it.
        allow_empty: accept empty messages of the assistant.
        merge_turns: join consecutive messages of one role.
        scored: read scores and margins; False where only the prompt is wanted.
        named: the names of fields that the user gave, in `columns`.
        read: the names of the fields whose value was asked for.
        unread: the names of fields of messages that nothing reads, such as "messages[].name".
    """

    row: Mapping[str, object]
    origin: Origin
    notes: list[tuple[Origin, str]] = field(default_factory=list)
    allow_empty: bool = False
    merge_turns: bool = False
    scored: bool = True
    named: frozenset[str] = frozenset()
    read: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)

    def fail(self, problem: str, fix: str, value: object = None, *, kind: str = "") -> DataError:
        """Return a DataError for this row, which names its file and line, the problem, the value and the fix.

        `kind` is the kind of row by which `skip` can leave it out.
        """
        return row_error(self.origin, problem, fix, value, kind=kind)

    def holds(self, key: str | None) -> bool:
        """Return True if the row has a value at `key` that is not null, and no empty text, list or object."""
        return key is not None and not is_nothing(self.row.get(key))

    def value(self, key: str) -> object:
        """Return the value at `key`.

        Raises:
            DataError: the key is missing, or its value is null.
        """
        if key not in self.row:
            near = difflib.get_close_matches(key, [k for k in self.row if k not in FIELDS], n=1)
            hint = (
                f"rename {excerpt(near[0])} to {excerpt(key)}"
                if near
                else "add it; every row needs the first row's fields"
            )
            raise self.fail(f"no {excerpt(key)}, the row has: {listed(self.row)}", hint)
        self.read.add(key)
        if self.row[key] is None:
            raise self.fail(f"{excerpt(key)} is null", "write its value, or remove the row", kind="empty")
        return self.row[key]

    def wrong_type(self, key: str, expected: str) -> DataError:
        """Return the error for a value at `key` that is not of the type `expected` (in words, e.g. "a string")."""
        value = self.row[key]
        text = value if isinstance(value, str) else as_json(value)
        return self.fail(f"{excerpt(key)} is {type_name(value)}, expected {expected}", f"write {expected}", text)

    def text(self, key: str, *, empty_ok: bool = False) -> str:
        """Return the string at `key`, which must be more than spaces, unless `empty_ok`.

        Raises:
            DataError: the value is missing, not a string, empty, or not valid Unicode (half a surrogate pair).
        """
        value = self.value(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string")
        if is_blank(value) and not empty_ok:
            answer = key in (*COMPLETION, "chosen", "rejected")
            more = ", or allow it: allow=[empty-response]" if answer else ""
            raise self.fail(f"{excerpt(key)} is empty", f"write its text, or remove the row{more}", kind="empty")
        return self.encodable(key, value)

    def encodable(self, key: str, text: str) -> str:
        """Return `text`, the value at `key`, if UTF-8 can encode it.

        Raises:
            DataError: it holds half a surrogate pair, which JSON can express but no tokenizer can read.
        """
        bad = re.search("[\ud800-\udfff]", text)
        if bad:
            raise self.fail(
                f"{excerpt(key)} holds half a surrogate pair",
                "write the whole character",
                text[max(0, bad.start() - 20) : bad.end() + 20],
            )
        return text

    def number(self, key: str) -> float:
        """Return the finite number at `key`; text such as "0.5" (from CSV) is converted.

        Raises:
            DataError: the value is not a finite number.
        """
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.wrong_type(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.fail(
                f"{excerpt(key)} is over a float's range", "write a number below 1e308", as_json(value)
            ) from None
        except ValueError:
            raise self.wrong_type(key, "a number") from None
        if not math.isfinite(number):
            raise self.fail(f"{excerpt(key)} is {number}", "write a finite number, or remove the row")
        return number

    def verdict(self, key: str) -> bool:
        """Return the boolean at `key`; the texts "true" and "false" (from CSV) are converted.

        Raises:
            DataError: the value is not true or false.
        """
        value = self.value(key)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self.wrong_type(key, "true or false")
        return value

    def turns(self, key: str, role: str) -> tuple[Message, ...]:
        """Return the messages at `key`: a list of messages, one message, a transcript, or a string of `role`."""
        value = self.value(key)
        if (
            isinstance(value, list)
            or _is_json_list(value)
            or (isinstance(value, dict) and _from_object(value) is not value)
        ):
            return self.messages(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string or a list of messages")
        if re.match(r"\s*\[?\s*\{\s*'(role|from|content|value)'\s*:", value):
            problem = f"{excerpt(key)} is the text of messages as Python prints them"
            raise self.fail(problem, "write them as JSON: json.dumps does, str and CSV files of pandas do not", value)
        if is_transcript(value):
            return self.transcript(key)
        return (Message(role, self.text(key, empty_ok=self.allow_empty and role == "assistant")),)

    def messages(self, key: str) -> tuple[Message, ...]:
        """Return the messages at `key`, a list of {role, content} or {from, value} (ShareGPT).

        The list may also be written as JSON text, as one message, as an object of lists (the columns that `datasets`
        makes of a list of objects), or as turns {input, output}. A system message without text is left out.

        Raises:
            DataError: the value is not such a list, is empty, or a message is not plain text.
        """
        value = self.value(key)
        if _is_json_list(value):
            value = self._from_json(key, str(value))
        if isinstance(value, dict):
            value = _from_object(cast("dict[str, object]", value))
        if not isinstance(value, list):
            raise self.wrong_type(key, "a list of messages")
        if key in MESSAGES and value and all(isinstance(item, str) for item in value):  # LIMA: in turns
            roles = itertools.cycle(("user", "assistant"))
            value = [{"role": role, "content": text} for role, text in zip(roles, value, strict=False)]
        if not value:
            raise self.fail(f"{excerpt(key)} is an empty list", "write its messages, or remove the row", kind="empty")
        turns: list[Message] = []
        named = _items(key, cast("list[object]", value))
        items = ((name, part) for name, item in named for part in self._parts(name, item))
        read = ((name, from_hermes(self._message(key, name, item), self.fail)) for name, item in items)
        for name, message in ((name, message) for name, messages in read for message in messages):
            if message.role == "system" and not turns and is_blank(message.content):
                self.note(f"{key}: a system message without text, left out")
            elif self.merge_turns and turns and turns[-1].role == message.role and message.role != "tool":
                turns[-1] = self._joined(turns[-1], message, name)
            else:
                turns.append(message)
        if declaring(self.row):
            self._check_call_marks(key, turns)
        return paired(turns, self.fail)

    def _parts(self, name: str, item: object) -> Iterator[object]:
        yield from from_parts(name, item, self.fail) if isinstance(item, dict) else (item,)

    def _check_call_marks(self, key: str, turns: Sequence[Message]) -> None:
        """Raise DataError if a text holds the mark of a call that was not read, in a row that declares tools."""
        for message in turns:
            mark = CALL_MARK.search(message.content) if message.role == "assistant" else None
            if mark is not None:
                problem = f"{key}: an answer holds a call, at {mark[0]}, in a form that is not read"
                raise self.fail(problem, "write it at tool_calls of its message", message.content, kind="tools")

    def _from_json(self, key: str, text: str) -> object:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.wrong_type(key, "a list of messages") from None

    def _joined(self, first: Message, second: Message, name: str) -> Message:
        """Return two consecutive messages of one role as one, joined by a blank line, with a note."""
        if first.trained != second.trained:
            problem = f"{name} is to be joined with the message before it, of which one is trained and one is not"
            raise self.fail(problem, "give both the same flag", kind="turn-order")
        if first.calls or second.thinking:
            problem = (
                f"{name} is to be joined with the message before it, but calls end a message, and thoughts begin one"
            )
            raise self.fail(problem, "give them as one message", kind="turn-order")
        self.note("consecutive messages of one role, joined")
        return replace(first, content=f"{first.content}\n\n{second.content}".strip(), calls=second.calls)

    def _message(self, key: str, name: str, item: object) -> Message:
        if not isinstance(item, dict):
            raise self.fail(
                f"{name} is {type_name(item)}, expected a message", 'write {"role": …, "content": …}', as_json(item)
            )
        item = cast("dict[str, object]", item)
        item, emptied = without_nulls(name, item, self._schemas, self.fail)
        if emptied:
            self.note("null arguments of calls that their tools do not take, left out")
        calls = calls_in(name, item, self.fail)
        role_key = "from" if "from" in item and "role" not in item else "role"
        text_key = next((key for key in TEXT_KEYS if key in item), "value" if role_key == "from" else "content")
        if calls and item.get(text_key) is None:
            item = {**item, text_key: ""}
        written = item.get(role_key)
        form = f'{{"{role_key}": "{written if isinstance(written, str) else "user"}", "{text_key}": "…"}}'
        if not isinstance(written, str):
            raise self._not_string(name, item, role_key, form)
        content = self._joined_parts(name, item.get(text_key))
        if not isinstance(content, str):
            raise self._not_string(name, item, text_key, form)
        content = self.encodable(f"{name}.{text_key}", content)
        if written.strip().lower() in CALL_ROLES:
            calls, content = calls_of(f"{name}.{text_key}", content, self.fail), ""
        lower = written.strip().lower()
        role = SPEAKERS.get(lower, lower if lower in ROLES else written)
        thinking = thought_in(name, item, content, self.fail) if role == "assistant" else ""
        names = {key: str(item[key]) for key in NAMES if role == "tool" and item.get(key)}
        if keys := declaring(item):
            fix = "write them beside the messages, in the row's field tools"
            raise self.fail(f"{name} declares tools, at {excerpt(keys[0])}", fix, as_json(item[keys[0]]), kind="tools")
        known = {role_key, text_key, *TURN_FLAGS, *CALLS, *names, *(THINKING if role == "assistant" else ())}
        self.unread.update(
            f"{key}[].{more}" for more, held in item.items() if more not in known and not is_nothing(held)
        )
        return Message(
            role, content, trained=is_trained(self, name, role, item),
            thinking=self.encodable(f"{name} (thought)", thinking), calls=calls,
            name=names.get("name", ""), call_id=names.get("tool_call_id", ""),
        )  # fmt: skip

    def _schemas(self) -> dict[str, object]:
        """Return the schemas of the arguments of the tools that the row declares, by the tool's name."""
        messages = (declared(self.row[key], self.fail) for key in declaring(self.row))
        tools = [tool for message in messages if message for tool in json.loads(message.content)]
        return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}

    def _joined_parts(self, name: str, content: object) -> object:
        """Return the text of a content that is a list of text parts; any other content as it is.

        Raises:
            DataError: a part is a picture, a sound or the like.
        """
        if not isinstance(content, list) or not content:
            return content
        texts: list[str] = []
        for part in cast("list[object]", content):
            text = part.get("text") if isinstance(part, dict) else part
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
                problem = f"{name} holds a part that is no text (a list of parts may hold texts only)"
                fix = "take it out of the message: pictures and sound cannot be trained on"
                if re.match("think|reason|tool|function", str(kind)):
                    fix = "write thoughts at reasoning_content, calls at tool_calls, results as turns of the role tool"
                raise self.fail(problem, fix, as_json(part), kind="media")
            texts.append(text)
        return "".join(texts)

    def _not_string(self, name: str, item: Mapping[str, object], key: str, form: str) -> DataError:
        """Return the error for a message (`name`, e.g. "messages[0]") whose value at `key` is not a string."""
        state = type_name(item[key]) if key in item else "missing"
        kind = "empty" if item.get(key) is None else ""
        return self.fail(
            f"{name}: {excerpt(key)} is {state}, expected a string", f"write {form}", as_json(item), kind=kind
        )

    def transcript(self, key: str) -> tuple[Message, ...]:
        r"""Return the messages of the transcript at `key`, with turns "\n\nHuman:" and "\n\nAssistant:" (Anthropic hh).

        Outer spaces of a turn are removed. Consecutive turns of one speaker are joined, with a note; an Assistant's
        turn may be empty, because people ranked such answers.
        """
        turns: list[Message] = []
        for message in parse_transcript(self.text(key)):
            if turns and turns[-1].role == message.role:
                self.note(f"{key}: two turns of one speaker in a row, joined")
                turns[-1] = Message(message.role, f"{turns[-1].content}\n\n{message.content}".strip())
            else:
                turns.append(message)
        return tuple(turns)

    def note(self, oddity: str) -> None:
        """Add to `notes` that this row is unusual, in the words `oddity`, with its file and line; it is used anyway."""
        self.notes.append((self.origin, oddity))


def is_nothing(value: object) -> bool:
    """Return True for a value that says nothing: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _is_json_list(value: object) -> bool:
    """Return True for a text that may be a list of messages, or one message, written as JSON."""
    if not isinstance(value, str):
        return False
    return re.match(r'\s*(\[\s*\{\s*"|\{\s*"(role|from|content|value)"\s*:)', value) is not None and _is_json(value)


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        return isinstance(value, list) or (isinstance(value, dict) and _from_object(value) is not value)
    return text.lstrip().startswith("[")  # a list of objects that is broken is told so


def _from_object(value: dict[str, object]) -> object:
    """Return the list of messages that an object stands for: one message, or columns such as {role: […], content: […]}.

    Any other object is returned as it is.
    """
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns):
        lists = cast("list[list[object]]", columns)
        if len({len(column) for column in lists}) == 1:
            return [dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)]
    is_message = any(isinstance(value.get(key), str) for key in ROLE_KEYS) and any(key in value for key in TEXT_KEYS)
    return [value] if is_message else value


def _items(key: str, values: list[object]) -> Iterator[tuple[str, object]]:
    """Yield (name, message) for the items of a list, where an item {input, output} is two messages (Capybara)."""
    for index, item in enumerate(values):
        name = f"{key}[{index}]"
        sides = _turn_sides(item)
        if isinstance(item, dict) and sides is not None:
            extra = {k: v for k, v in item.items() if k not in sides}
            yield name, {"role": "user", "content": item[sides[0]]}
            if item[sides[1]] is not None:
                yield name, {**extra, "role": "assistant", "content": item[sides[1]]}
        else:
            yield name, item


def _turn_sides(item: object) -> tuple[str, str] | None:
    """Return the keys of question and answer of a turn such as {input, output} or {human, assistant}; else None."""
    if not isinstance(item, dict) or item.keys() & {*ROLE_KEYS}:
        return None
    asks = [key for key in item if key in (*PROMPT, "user", "human", "q")]
    answers = [key for key in item if key in (*COMPLETION, "assistant", "gpt", "bot", "a")]
    return (asks[0], answers[0]) if len(asks) == len(answers) == 1 else None


TURN_FLAGS = (
    "weight", "train", "training", "trainable", "trained", "loss", "loss_mask", "mask", "masked", "train_detail",
    "training_detail",
)  # fmt: skip
"""Fields of a message that say if it is trained."""
_TRAINED_IF_TRUE = TURN_FLAGS[:7]


_FLAG_WORDS = re.compile(r"train|loss|mask|learn|weight|supervis")


def _is_flag(key: str, value: object, role: str) -> bool:
    """Return True for a field of a message that says if it is trained: a known one or, by its name, another."""
    if key in TURN_FLAGS:
        return True
    by_name = key in ("ignore", "label", "labels") or _FLAG_WORDS.search(key.lower()) is not None
    return by_name and role == "assistant" and isinstance(value, bool | int | float | list)


def is_trained(record: Record, name: str, role: str, item: Mapping[str, object]) -> bool:
    """Return False for a message whose flags (weight 0, train false) say that it is not to be trained.

    Raises:
        DataError: a flag is neither 0 nor 1, true nor false; is ambiguous (`mask`); or asks to train on a message that
            is not the assistant's, or two flags contradict each other.
    """
    flags = {key: item[key] for key in item if item[key] is not None and _is_flag(key, item[key], role)}
    if not flags:
        return True
    for key, value in flags.items():
        if key not in _TRAINED_IF_TRUE:
            fix = 'say it with "train": true or false for the whole message'
            problem = f"{name} holds {excerpt(key)}, which says which tokens to train"
            if key not in TURN_FLAGS:
                problem = f"{name} holds {excerpt(key)}, which may say if the message is trained"
                fix += ", or take the field out of the messages"
            raise record.fail(problem, fix, as_json(value))
        if value not in (0, 1) or isinstance(value, str):
            fix = "write 1 to train on the message, or 0 for context only; rows are weighted by data.weight"
            raise record.fail(f"{name}: {excerpt(key)} is neither 0 nor 1", fix, as_json(value))
    if len({bool(value) for value in flags.values()}) > 1:
        raise record.fail(f"{name}: its flags contradict each other", "keep one of them", as_json(flags))
    trained = bool(next(iter(flags.values())))
    if trained and role != "assistant":
        fix = "remove the flag: only the assistant's messages are trained"
        raise record.fail(f"{name} asks to train on a message of the {role}", fix, as_json(flags))
    return trained


def rename_fields(row: dict[str, object], columns: Mapping[str, str], origin: Origin) -> dict[str, object]:
    """Return the row with trueup's field names; `columns` is {trueup's field name: the name in the file}.

    Raises:
        DataError: the row lacks a name that `columns` gives.
    """
    if not columns:
        return row
    for key, source in columns.items():
        if source not in row:
            near = difflib.get_close_matches(source, list(row), n=1)
            raise row_error(
                origin,
                f"columns reads {key} from {excerpt(source)}, the row has: {listed(row)}",
                f"did you mean {excerpt(near[0])}?" if near else "name one of these",
            )
    taken = set(columns.values()) | set(columns)
    return {**{k: v for k, v in row.items() if k not in taken}, **{k: row[source] for k, source in columns.items()}}


def without_ignored(row: dict[str, object], ignored: Sequence[str]) -> dict[str, object]:
    """Return the fields of a row without those that the key `ignore` names."""
    return {key: value for key, value in row.items() if key not in ignored} if ignored else row


def is_transcript(text: str) -> bool:
    """Return True if `text` is written as turns of Human and Assistant (Anthropic hh)."""
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def parse_transcript(text: str) -> list[Message]:
    """Return the turns of an Anthropic hh transcript as messages, without outer spaces; empty turns are kept."""
    parts = TURN.split("\n\n" + text.lstrip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[speaker], turn.strip()) for speaker, turn in zip(parts[::2], parts[1::2], strict=True)]
