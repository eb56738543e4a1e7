"""Make typed rows of records of the generic formats: conversation, pair, ranking, verdict, prompt, text.

A field that is missing, null, empty or of another type raises a DataError that names the line, the field and the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from trueup.data.rendering.messages import TOOLS, Conversation, Labelled, Message, Preference, Prompt, Row, Text, check
from trueup.data.sources.calls import THINKING, declared, declaring, thought_in
from trueup.data.sources.records import (
    COMPLETION,
    MATERIAL,
    PROMPT,
    RANKS,
    RATES,
    Record,
    is_nothing,
    is_transcript,
    may_be_number,
    says,
    twins,
    vocabulary,
    words_of,
)
from trueup.errors import DataError
from trueup.system.text import as_json, excerpt

Keys = Mapping[str, str | None]
SIDES = ("chosen", "rejected")


def _opening(record: Record, keys: Keys) -> tuple[Message, ...]:
    """Return the messages of the prompt: system message, history and prompt, with Alpaca's `input` below the prompt.

    Dolly's `context` is treated as `input` is.
    """
    key = cast("str", keys["prompt"])
    turns = record.turns(key, "user")
    if turns[-1] == Message("assistant", ""):  # a transcript's prompt may end "\n\nAssistant:"
        turns = turns[:-1]
    _check_other_prompts(record, key, keys.get("input"), turns)
    material = keys["input"]
    if material and not is_nothing(record.row.get(material)):
        text = record.text(material, empty_ok=True)
        if text.strip() and len(turns) != 1:
            problem = f"{excerpt(material)} beside a prompt of {len(turns)} messages"
            raise record.fail(problem, "write it into one of the messages", text)
        turns = (Message("user", f"{turns[0].content}\n\n{text}"),) if text.strip() else turns
    return _with_system(record, keys, _with_history(record, keys, turns))


def _check_other_prompts(record: Record, key: str, material: str | None, turns: Sequence[Message]) -> None:
    """Check that no other field of the row holds a prompt, or material of it, that says something else.

    Raises:
        DataError: two fields hold different prompts.
    """
    texts = {message.content.strip() for message in turns}
    for other in (*PROMPT, *MATERIAL):
        if other in (key, material) or not record.holds(other):
            continue
        value = record.row[other]
        if isinstance(value, str) and value.strip() in ("", *texts):
            record.read.add(other)
            continue
        fix = f"keep one of them, or set ignore: [{other}]"
        problem = f"{excerpt(key)} and {excerpt(other)} both hold a prompt"
        raise record.fail(problem, fix, value if isinstance(value, str) else as_json(value))


def _with_history(record: Record, keys: Keys, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the prompt behind the turns of Alpaca's `history`, a list of [question, answer]."""
    key = keys.get("history")
    if not key or is_nothing(record.row.get(key)):
        return turns
    value = record.value(key)
    before: list[Message] = []
    for index, pair in enumerate(cast("list[object]", value) if isinstance(value, list) else [None]):
        texts = list(pair.values()) if isinstance(pair, dict) else pair
        if not isinstance(texts, list) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            problem = f"{key}[{index}] is not a question with its answer"
            raise record.fail(problem, "write [[question, answer], …], the oldest first", as_json(value))
        before += [
            Message(role, record.encodable(key, text)) for role, text in zip(("user", "assistant"), texts, strict=True)
        ]
    if turns[0].role == "system" or len(turns) > 1:
        problem = f"{excerpt(key)} beside a prompt of {len(turns)} messages"
        raise record.fail(problem, "write all messages into the prompt", as_json(value))
    return (*before, *turns)


def _with_system(record: Record, keys: Keys, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages behind the declared tools and the system message that the row's fields hold."""
    key = keys["system"]
    system = "" if not key or is_nothing(record.row.get(key)) else record.text(key, empty_ok=True)
    if system.strip() and turns and turns[0].role == "system":
        if turns[0].content.strip() != system.strip():
            problem = f"{excerpt(key)} is another system message than that of the messages"
            raise record.fail(problem, f"keep one of them, or set ignore: [{key}]", system)
    elif system.strip():
        turns = (Message("system", system), *turns)
    fields = declaring(record.row)
    record.read.update(("tools", *fields))
    written = {tools for field in fields if (tools := declared(record.row[field], record.fail))}
    if len(written) > 1:
        raise record.fail(f"{' and '.join(fields)} declare different tools", "keep one of them", kind="tools")
    return (*written, *turns)


def _conversation(record: Record, keys: Keys) -> Row:
    key = cast("str", keys["messages"])
    turns = _with_system(record, keys, record.messages(key))
    _check_twins(record, key, turns)
    if turns and turns[-1].role in ("user", "tool"):
        check(turns, origin=record.origin, ends_with="user")
        return Prompt(turns, record.origin)
    check(turns, origin=record.origin, empty_ok=record.allow_empty)
    check_thoughts(record, turns, exact=True)
    _note_empty_response(record, key, turns)
    return Conversation(turns, record.origin)


def _check_twins(record: Record, key: str, turns: Sequence[Message]) -> None:
    """Check that fields beside the messages say nothing that is not in the messages.

    Many sets repeat the first question as `prompt` or `instruction`, and a pair's better answer as `messages`.

    Raises:
        DataError: such a field says something else.
    """
    contents = [message.content.strip() for message in turns]
    for other in dict.fromkeys((*PROMPT, *MATERIAL, "history", "chosen", "rejected")):
        if not record.holds(other):
            continue
        value = record.row[other]
        if other == "rejected" and "chosen" in record.read:
            record.read.add(other)
            continue
        if all(any(text.strip() in content for content in contents) for text in _texts_of(value)):
            record.read.add(other)
            continue
        fix = f"keep one of them, or set ignore: [{other}]"
        if other in ("chosen", "rejected"):
            fix = f"set use: chosen to train on the chosen side, or ignore: [{other}]"
        shown = value if isinstance(value, str) else as_json(value)
        raise record.fail(f"{excerpt(other)} beside {excerpt(key)} says what the messages do not", fix, shown)


def _texts_of(value: object) -> list[str]:
    """Return the texts in a value: itself, or those in a list of texts or messages."""
    if isinstance(value, dict):
        return _texts_of(
            next((value[key] for key in ("content", "value", "text") if key in value), list(value.values()))
        )
    if isinstance(value, list):
        return [text for item in value for text in _texts_of(item)]
    return [str(value)] if isinstance(value, str | int | float) else []


def _note_empty_response(record: Record, key: str, turns: Sequence[Message]) -> None:
    if not turns[-1].text.strip():
        record.note(f"{key}: the response is empty")


def _answer(record: Record, prompt: tuple[Message, ...], key: str, prompt_key: str | None) -> tuple[Message, ...]:
    """Return the messages of the answer at `key`; if they begin with a copy of the prompt, that is removed.

    `prompt_key` is the field of the prompt, if it has one. After a transcript an answer has no outer spaces.
    """
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
            kind="parted",
        )
    if prompt_key and isinstance(asked := record.row.get(prompt_key), str) and is_transcript(asked):
        turns = tuple(
            replace(message, content=message.content.strip()) for message in turns
        )  # " yes" after "Assistant:"
    check((*prompt, *turns), origin=record.origin, empty_ok=empty_ok or record.allow_empty)
    _note_empty_response(record, key, turns)
    if not any(message.trained for message in turns if message.role == "assistant"):
        raise untrained(record, key)
    return turns


def untrained(record: Record, key: str) -> DataError:
    """Return the error for an answer at `key` none of whose messages is to be trained."""
    fix = "remove the row, or the flag (weight, train) of its last message"
    return record.fail(f"no message of {excerpt(key)} is to be trained", fix, kind="untrained")


def _pair(record: Record, keys: Keys) -> Row:
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user")
    answer = _completion(record, keys, prompt)
    _check_sides(record, cast("str", keys["completion"]), (*prompt, *answer))
    return Conversation((*prompt, *answer), record.origin)


def _check_sides(record: Record, key: str, messages: Sequence[Message]) -> None:
    """Check that a row with an answer holds no ranking of other answers: the field may be a key to grade by.

    Raises:
        DataError: it has a chosen and a rejected answer, and the one at `key` is not the chosen one.
    """
    if key in record.named or not (record.holds("chosen") and record.holds("rejected")):
        return
    written = "\n".join(message.content for message in messages)
    if not all(text.strip() in written for text in _texts_of(record.row["chosen"])):
        problem = f"{excerpt(key)} and a ranking (chosen, rejected) both hold an answer"
        fix = f"set use: chosen to train on the chosen side, or ignore: [chosen, rejected] to train on {excerpt(key)}"
        raise record.fail(problem, fix, written)
    record.read.update(("chosen", "rejected"))


def _completion(record: Record, keys: Keys, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages of a pair's answer, with the thought that stands beside it.

    Raises:
        DataError: another field holds another answer, or a thought that is not known to belong to this one.
    """
    key = cast("str", keys["completion"])
    turns = _answer(record, prompt, key, keys["prompt"])
    written = "\n".join(message.text for message in turns)
    for other in COMPLETION:
        if other == key or key in record.named or not record.holds(other):
            continue
        texts = _texts_of(record.row[other])
        if not all(text.strip() in written for text in texts):
            fix = f"name the answer by columns: {{completion: {key}}}, or set ignore: [{other}]"
            problem = f"{excerpt(key)} and {excerpt(other)} both hold an answer"
            raise record.fail(problem, fix, "\n".join(texts))
        record.read.add(other)
    return _with_thought(record, turns)


def _with_thought(record: Record, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return an answer's messages, of which the last has the thought that a field beside the answer holds."""
    thoughts = {key: record.row[key] for key in THINKING if record.holds(key)}
    for key, value in thoughts.items():
        if isinstance(value, list) and len(value) == 1:  # one of several that might be given
            thoughts[key] = value[0]
    check_thoughts(record, turns)
    if not thoughts:
        return turns
    record.read.update(thoughts)
    thinking = thought_in("the answer", thoughts, turns[-1].content, record.fail)
    if turns[-1].thinking and thinking and turns[-1].thinking.strip() != thinking.strip():
        raise record.fail(f"the answer has two different thoughts ({', '.join(thoughts)})", "keep one of them")
    return (
        *turns[:-1],
        replace(turns[-1], thinking=record.encodable(next(iter(thoughts)), thinking or turns[-1].thinking)),
    )


def check_thoughts(record: Record, turns: Sequence[Message], *, exact: bool = False) -> None:
    """Check that no field beside the messages or the answer holds a thought that they do not have.

    Args:
        record: the row.
        turns: its messages.
        exact: also check the fields that hold the thought of a pair's answer, such as reasoning_content.

    Raises:
        DataError: such a field holds a text that is not among the messages.
    """
    written = "\n".join(message.text for message in turns)
    for key, value in record.row.items():
        words = set(words_of(key))
        if not (words & _THOUGHTS and words <= _THOUGHTS | _OF_THOUGHTS) or (key in THINKING and not exact):
            continue
        texts = [text.strip() for text in _texts_of(value) if isinstance(value, str | list) and text.strip()]
        if not texts or all(text in written for text in texts):
            continue
        fix = f"write it at reasoning_content of the answer's message, or set ignore: [{key}]"
        if not exact:
            fix = f"set columns: {{thinking: {key}}} to train it as the answer's thought, or ignore: [{key}]"
        problem = f"{excerpt(key)} holds a thought, which stands beside the answer and is not read"
        raise record.fail(problem, fix, texts[0])


_THOUGHTS = vocabulary("thought thoughts thinking reasoning rationale cot scratchpad")
_OF_THOUGHTS = vocabulary("chain of trace traces trajectory trajectories process content text steps answer response")


def _verdict(record: Record, keys: Keys) -> Row:
    label = cast("str", keys["label"])
    if keys.get("messages"):
        key = cast("str", keys["messages"])
        turns = _with_system(record, keys, record.messages(key))
        check(turns, origin=record.origin, empty_ok=record.allow_empty)
        _note_empty_response(record, key, turns)
        return Labelled(turns[:-1], turns[-1:], record.verdict(label), record.origin)
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user")
    return Labelled(prompt, _completion(record, keys, prompt), record.verdict(label), record.origin)


def _ranking(record: Record, keys: Keys) -> Row:
    prompt = _prompt_of_ranking(record, keys)
    check(prompt, origin=record.origin, ends_with="user", empty_ok=True)
    chosen, rejected = (_answer(record, prompt, key, keys["prompt"]) for key in _sides(keys))
    if keys["messages"] and keys["messages"] not in record.read and record.holds(keys["messages"]):
        _check_copy(record, keys["messages"], prompt, chosen)
    return Preference(prompt, chosen, rejected, _margin(record, keys), record.origin)


def _prompt_of_ranking(record: Record, keys: Keys) -> tuple[Message, ...]:
    """Return the prompt of a ranking: its field, its messages (ShareGPT), or what both answers begin with."""
    if keys["prompt"]:
        return _under_system(record, keys, _opening(record, keys))
    key = keys["messages"]
    if key and record.holds(key):
        turns = _with_system(record, keys, record.messages(key))
        if turns and turns[-1].role in ("user", "tool"):
            return turns
        record.read.discard(key)  # it repeats one of the sides: `_check_copy`
    return _shared(record, keys)


def _check_copy(record: Record, key: str, prompt: tuple[Message, ...], chosen: tuple[Message, ...]) -> None:
    """Check that the messages beside a ranking repeat its prompt, or its prompt and chosen answer (UltraFeedback).

    Raises:
        DataError: they say something else.
    """
    copies = [
        [message.content.strip() for message in messages if message.role not in ("system", TOOLS)]
        for messages in (record.messages(key), prompt, (*prompt, *chosen))
    ]
    asked = [message.content.strip() for message in record.messages(key)[:-1] if message.role not in ("system", TOOLS)]
    if copies[0] not in copies[1:] and asked != copies[1]:  # a third answer to the same prompt may stand there
        problem = f"{excerpt(key)} is neither the prompt nor the prompt with the chosen answer"
        raise record.fail(problem, f"correct it, or set ignore: [{key}]", as_json(record.row[key]))


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
    # Its notes are not kept: `_answer` reads both sides again and notes.
    silent = Record(record.row, record.origin, merge_turns=record.merge_turns)
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
        fix = 'add "prompt", or begin both sides with the same messages'
        raise record.fail(problem, fix, sides[1][0].content, kind="parted")
    return sides[0][:same]


def _margin(record: Record, keys: Keys) -> float | None:
    """Return how much better the chosen answer is: the row's margin, or the difference of its first scores.

    Raises:
        DataError: a margin is below 0, or the rejected answer has the better score or rank: the sides may be swapped.
    """
    if not record.scored:
        return None
    scores: list[tuple[float, float, str, str]] = []
    if "chosen" in words_of(cast("str", keys["chosen"])):
        pairs = dict.fromkeys(scores_of(record.row))
        if keys["score_chosen"] and keys["score_rejected"]:
            pairs = {(keys["score_chosen"], keys["score_rejected"]): None} | pairs
        scores = [(record.number(a), record.number(b), a, b) for a, b in pairs]
    ranks = twins({key: value for key, value in record.row.items() if may_be_number(value)}, *SIDES, RANKS)
    ranked = [(-record.number(a), -record.number(b), a, b) for a, b in ranks]
    ranked += _scores_of_messages(record, keys)
    for better, worse, first, second in (*scores, *ranked):
        if better < worse:
            problem = f"{excerpt(second)} is better than {excerpt(first)}: answers or numbers are swapped"
            fix = "correct the row"
            if first in record.row:
                fix += f", or set ignore: [{first}, {second}] if they rate something else"
            fix += f"; if all rows are so, set columns: {{chosen: {keys['rejected']}, rejected: {keys['chosen']}}}"
            values = {first: record.row.get(first, abs(better)), second: record.row.get(second, abs(worse))}
            raise record.fail(problem, fix, as_json(values), kind="reversed")
        if better == worse:
            record.note(f"{first} and {second} are equal, and chosen is taken as the better answer")
    if keys["margin"]:
        margin = record.number(keys["margin"])
        if margin < 0:
            problem = f"{excerpt(keys['margin'])} is below 0, as if the rejected answer were better"
            fix = f"swap the answers, or set ignore: [{keys['margin']}] if it is no margin"
            raise record.fail(problem, fix, as_json(record.row[keys["margin"]]), kind="reversed")
        return margin
    return scores[0][0] - scores[0][1] if scores and keys["score_chosen"] else None


def scores_of(row: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the pairs of keys that hold scores of the chosen and the rejected answer, the higher the better."""
    return twins({key: value for key, value in row.items() if may_be_number(value)}, *SIDES, RATES)


def _scores_of_messages(record: Record, keys: Keys) -> list[tuple[float, float, str, str]]:
    """Return the scores (a rank is below 0) that the last messages of both answers hold, with their names."""
    values = [record.row.get(key) for key in _sides(keys)]
    last = [value[-1] if isinstance(value, list) and value else value for value in values]
    if not all(isinstance(message, dict) for message in last):
        return []
    chosen, rejected = cast("list[dict[str, object]]", last)
    names = [name for name in chosen if name in rejected and says(name, RATES, RANKS)]
    names = [name for name in names if may_be_number(chosen[name]) and may_be_number(rejected[name])]
    signs = {name: 1 if set(words_of(name)) & RATES else -1 for name in names}
    first, second = (f"{key}[].{{}}" for key in _sides(keys))
    return [
        (
            signs[name] * float(str(chosen[name])),
            signs[name] * float(str(rejected[name])),
            first.format(name),
            second.format(name),
        )
        for name in names
    ]


def _prompt(record: Record, keys: Keys) -> Row:
    prompt = _opening(record, keys)
    check(prompt, origin=record.origin, ends_with="user", empty_ok=True)
    return Prompt(prompt, record.origin)


def _text(record: Record, keys: Keys) -> Row:
    return Text(record.text(cast("str", keys["text"])), record.origin)


PARSERS: dict[str, Callable[[Record, Keys], Row]] = {
    "conversation": _conversation,
    "pair": _pair,
    "ranking": _ranking,
    "verdict": _verdict,
    "prompt": _prompt,
    "text": _text,
}
"""Parsers of the generic formats, by name."""
