r"""Recognise the format of records, and make typed rows of them.

The first record decides the format, and every other record must have it; a field that is missing, null, empty or of
another type raises a DataError that names the line, the field and the fix.

    conversation   messages | conversations [{role, content} or {from, value}]
    pair           prompt + completion, question + answer, instruction (+ input) + output: strings or message lists
    ranking        chosen + rejected, with prompt or with a beginning they share; transcripts "\n\nHuman: …" too
    verdict        prompt + completion + label (true or false)
    prompt         prompt, or messages that end with the user's
    text           text
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from trueup.data.rendering.messages import TOOLS, Conversation, Labelled, Message, Preference, Prompt, Row, Text, check
from trueup.data.sources.calls import declared
from trueup.data.sources.records import COMPLETION, MESSAGES, PROMPT, SCORES, SYSTEM, Record, is_transcript
from trueup.system.text import excerpt


@dataclass(frozen=True, slots=True)
class Format:
    """A recognised format of records.

    `name` is e.g. "conversation" or "ranking"; `keys` gives the file's key for each part of the format (None: the file
    has none); `parse` makes a typed row of a record and these keys.
    """

    name: str
    keys: Mapping[str, str | None]
    parse: Callable[[Record, Mapping[str, str | None]], Row]

    def used(self) -> set[str]:
        """Return the keys of the file that this format reads."""
        return {key for key in self.keys.values() if key}


def recognise(row: Mapping[str, object], wanted: Sequence[str]) -> Format | None:
    """Return the first format of `wanted` whose keys the row has; None if the row fits none of them.

    `wanted` has names of formats, such as "ranking".
    """
    possible = {name: keys for name, keys in _keys_of_formats(row).items() if keys}
    parsers = {
        "conversation": _conversation,
        "pair": _pair,
        "ranking": _ranking,
        "verdict": _verdict,
        "prompt": _prompt,
        "text": _text,
    }
    return next((Format(name, possible[name], parsers[name]) for name in wanted if name in possible), None)


def pair_format(row: Mapping[str, object], first: str, second: str) -> Format:
    """Return the format of rankings with the chosen answer at the key `first` and the rejected one at `second`."""
    keys = _keys_of_formats({**row, "chosen": None, "rejected": None})["ranking"] or {}
    scores = {"margin": None, "score_chosen": None, "score_rejected": None}
    return Format("ranking", {**keys, **scores, "chosen": first, "rejected": second}, _ranking)


def _keys_of_formats(row: Mapping[str, object]) -> dict[str, dict[str, str | None] | None]:
    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in row), None)

    messages, prompt, completion = first(MESSAGES), first(PROMPT), first(COMPLETION)
    # "instruction" comes before "input" in PROMPT; "input" is the instruction's material only if there is one.
    common = {
        "system": first(SYSTEM),
        "tools": "tools",  # not every row needs to declare tools
        "input": "input" if prompt == "instruction" and "input" in row else None,
    }
    pair = {"prompt": prompt, "completion": completion, **common}
    scores = next((pair for pair in SCORES if pair[0] in row and pair[1] in row), (None, None))
    ranking = {
        "chosen": "chosen",
        "rejected": "rejected",
        "prompt": prompt,
        **common,
        "margin": first(("margin",)),
        "score_chosen": scores[0],
        "score_rejected": scores[1],
    }
    return {
        "conversation": {"messages": messages, "system": common["system"], "tools": common["tools"]}
        if messages
        else None,
        "pair": pair if prompt and completion else None,
        "ranking": ranking if "chosen" in row and "rejected" in row else None,
        "verdict": {**pair, "label": "label"} if prompt and completion and "label" in row else None,
        "prompt": {"prompt": prompt, **common} if prompt else None,
        "text": {"text": "text"} if "text" in row else None,
    }


Keys = Mapping[str, str | None]


def _opening(record: Record, keys: Keys) -> tuple[Message, ...]:
    """Return the messages of the prompt: an optional system message and the prompt, with Alpaca's `input` below it."""
    turns = record.turns(cast("str", keys["prompt"]), "user")
    if turns[-1] == Message("assistant", ""):  # a transcript's prompt may end "\n\nAssistant:"
        turns = turns[:-1]
    key = keys["input"]
    if key and record.row.get(key) is not None and len(turns) == 1:
        material = record.text(key, empty_ok=True)
        turns = (Message("user", f"{turns[0].content}\n\n{material}"),) if material.strip() else turns
    return _with_system(record, keys, turns)


def _with_system(record: Record, keys: Keys, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    key = keys["system"]
    if key and record.row.get(key) is not None and not (turns and turns[0].role == "system"):
        system = record.text(key, empty_ok=True)
        turns = (Message("system", system), *turns) if system.strip() else turns
    tools = declared(record.row.get("tools"), record.fail)
    return (tools, *turns) if tools else turns


def _conversation(record: Record, keys: Keys) -> Row:
    turns = _with_system(record, keys, record.messages(cast("str", keys["messages"])))
    if turns[-1].role in ("user", "tool"):
        check(turns, origin=record.origin, ends_with="user")
        return Prompt(turns, record.origin)
    check(turns, origin=record.origin, empty_ok=record.allow_empty)
    _note_empty_response(record, cast("str", keys["messages"]), turns)
    return Conversation(turns, record.origin)


def _note_empty_response(record: Record, key: str, turns: Sequence[Message]) -> None:
    if not turns[-1].text.strip():
        record.note(f"{key}: the response is empty")


def _answer(record: Record, prompt: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """Return the messages of the answer at `key`; if they begin with a copy of the prompt, that is removed."""
    empty_ok = isinstance(record.row.get(key), str) and is_transcript(str(record.row[key]))
    turns = record.turns(key, "assistant")
    system = next((message for message in prompt if message.role == "system"), None)
    if turns[0].role == "system" and turns[0] != system:
        raise record.fail(
            f"{excerpt(key)} has another system message than the prompt", "give one system message", turns[0].content
        )
    without_system = [message for message in prompt if message.role not in ("system", TOOLS)]
    body = turns[1:] if turns[0].role == "system" else turns
    if list(body[: len(without_system)]) == without_system and len(body) > len(without_system):
        turns = body[len(without_system) :]
    elif turns[0].role != "assistant":
        raise record.fail(
            f"{excerpt(key)} does not begin with the prompt",
            "give only the answer, or the same prompt in it",
            turns[0].content,
        )
    check((*prompt, *turns), origin=record.origin, empty_ok=empty_ok or record.allow_empty)
    _note_empty_response(record, key, turns)
    return turns


def _pair(record: Record, keys: Keys) -> Row:
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user")
    return Conversation((*prompt, *_answer(record, prompt, cast("str", keys["completion"]))), record.origin)


def _verdict(record: Record, keys: Keys) -> Row:
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user")
    completion = _answer(record, prompt, cast("str", keys["completion"]))
    return Labelled(prompt, completion, record.verdict("label"), record.origin)


def _ranking(record: Record, keys: Keys) -> Row:
    prompt = _under_system(record, keys, _opening(record, keys)) if keys["prompt"] else _shared(record, keys)
    check(prompt, origin=record.origin, ends_with="user", empty_ok=True)
    chosen, rejected = (_answer(record, prompt, key) for key in _sides(keys))
    return Preference(prompt, chosen, rejected, _margin(record, keys), record.origin)


def _sides(keys: Keys) -> tuple[str, str]:
    return cast("str", keys["chosen"]), cast("str", keys["rejected"])


def _under_system(record: Record, keys: Keys, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the prompt, preceded by the system message that both answers begin with if the prompt itself has none."""
    lists = [record.turns(key, "assistant") for key in _sides(keys) if isinstance(record.row.get(key), list)]
    heads = {turns[0] for turns in lists if turns[0].role == "system"}
    if len(heads) != 1 or any(message.role == "system" for message in prompt):
        return prompt
    tools = [message for message in prompt if message.role == TOOLS]
    return (*tools, *heads, *prompt[len(tools) :])


def _shared(record: Record, keys: Keys) -> tuple[Message, ...]:
    """Return the prompt of a ranking that has no field for it.

    It consists of the messages that both answers begin with, up to the last user message.
    """
    silent = Record(record.row, record.origin)  # its notes are not kept: `_answer` reads both sides again and notes
    sides = [_with_system(silent, keys, silent.turns(key, "assistant")) for key in _sides(keys)]
    same = 0
    for a, b in zip(*sides, strict=False):
        if a != b:
            break
        same += 1
    while same and sides[0][same - 1].role != "user":
        same -= 1
    if not same:
        alone = all(len(side) == 1 for side in sides)
        both = " and ".join(_sides(keys))
        problem = "there is no prompt" if alone else f"{both} do not begin with the same user message"
        raise record.fail(problem, 'add "prompt", or begin both sides with the same messages', sides[1][0].content)
    return sides[0][:same]


def _margin(record: Record, keys: Keys) -> float | None:
    if keys["margin"]:
        return record.number(keys["margin"])
    if keys["score_chosen"] and keys["score_rejected"]:
        return record.number(keys["score_chosen"]) - record.number(keys["score_rejected"])
    return None


def _prompt(record: Record, keys: Keys) -> Row:
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user", empty_ok=True)
    return Prompt(prompt, record.origin)


def _text(record: Record, keys: Keys) -> Row:
    return Text(record.text(cast("str", keys["text"])), record.origin)
