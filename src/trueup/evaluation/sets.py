"""Evaluation sets: the rows that models are measured on, read from trueup's own files or from a user's.

There are questions with right answers, prompts to answer freely or to refuse, and passages (texts whose likelihood is
measured).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from trueup.config.evaluation import TASK_OF
from trueup.config.functions import UserFunction
from trueup.config.problems import suggestion
from trueup.data.rendering.messages import Message, Preference, Prompt, check
from trueup.data.sources.account import Drop
from trueup.data.sources.records import MESSAGES, PROMPT, Record
from trueup.data.sources.stream import RowStream, read_records
from trueup.errors import ConfigError, DataError
from trueup.evaluation.published.table import check_published
from trueup.evaluation.rows import Asked, Passage, balanced, written_records

if TYPE_CHECKING:
    from trueup.config import DataConfig, EvaluateConfig, GatesConfig

T = TypeVar("T")
Row = TypeVar("Row", Asked, Passage)
SetName = Literal["capability", "forgetting", "innocent", "unsafe", "prompts"]


def questions(data: DataConfig | None, limit: int | None = None, *, dropped: list[Drop] | None = None) -> list[Asked]:
    """Return capability questions, from rows {question, answer, accept} or {question, choices, answer}.

    The question is under any name that a prompt has (question, prompt, instruction, …) or in `messages`, whose last
    assistant message is then the expected answer. Of a worked answer in GSM8K's style, the part after `####` is
    expected.

    Args:
        data: the user's rows; None for the set that comes with trueup.
        limit: at most this many rows, balanced over topics and levels.
        dropped: a list to which the rows that the section leaves out are appended.

    Raises:
        DataError: a row lacks its answer, or its answer is not one of its choices.
    """
    return _balanced(_read("capability", data, _question, dropped), limit)


def prompts(
    name: SetName, data: DataConfig | None, limit: int | None = None, *, dropped: list[Drop] | None = None
) -> list[Asked]:
    """Return the prompts of the set `name`, to be answered by each model.

    They come from `data`, a user's rows (of rankings and conversations only the prompts are used), or if it is None
    from the set that comes with trueup. At most `limit` are returned, balanced over topics and levels; rows that the
    section leaves out are appended to `dropped`.
    """
    if data is None:
        return _balanced(_read(name, data, _prompt), limit)
    stream = RowStream(data, "prompt")
    rows = list(stream)
    if dropped is not None:
        dropped += [*stream.reader.left_out, *stream.account.dropped]
    entries = stream.reader.entries()
    fields = {str(origin): row for origin, row in entries if not isinstance(row, DataError)}
    return _balanced([_from_user(name, row, fields[str(row.origin)]) for row in rows], limit)


def _from_user(name: str, row: Prompt, fields: Mapping[str, object]) -> Asked:
    assert row.origin is not None
    record = Record(fields, row.origin)
    return Asked(
        _id(record, f"{name}-{row.origin.line}"), row.messages, _topic(record), level=_topic(record, "level"),
        origin=row.origin, fields=fields,
    )  # fmt: skip


def passages(data: DataConfig | None, limit: int | None = None, *, dropped: list[Drop] | None = None) -> list[Passage]:
    """Return texts and conversations outside of the fine-tuning domain, from rows {text} or {messages}.

    They come from `data`, or if it is None from the set that comes with trueup. At most `limit` are returned, balanced
    over topics; rows that the section leaves out are appended to `dropped`.
    """
    as_text = data is not None and data.use == "text"
    return _balanced(_read("forgetting", data, partial(_passage, as_text=as_text), dropped), limit)


def rankings(data: DataConfig, *, dropped: list[Drop] | None = None) -> list[Preference]:
    """Return the held-out rankings of a section; rows that it leaves out are appended to `dropped`."""
    stream = RowStream(data, "preference")
    rows = list(stream)
    if dropped is not None:
        dropped += [*stream.reader.left_out, *stream.account.dropped]
    return rows


def check_sets(config: EvaluateConfig, gates: GatesConfig | None = None) -> None:
    """Read all the user's rows that an `evaluate` section names, to report a broken row before any model loads.

    Raises:
        DataError: a file or a row cannot be used.
        ConfigError: `gates.slices` names a topic or level that no row of the set has.
    """
    if config.capability:
        questions(config.capability)
    if config.forgetting:
        passages(config.forgetting)
    named: dict[SetName, DataConfig | None] = {
        "innocent": config.innocent, "unsafe": config.unsafe, "prompts": config.prompts
    }  # fmt: skip
    for name, data in named.items():
        if data is not None:
            prompts(name, data)
    if config.tasks is None or {"answers", "win-rate"} & {*config.tasks}:
        asked = prompts("prompts", config.prompts) if config.reward or config.gold else []
        for key, reward in (("reward", config.reward), ("gold", config.gold)):
            if reward is not None and (problem := lacking_column(reward, asked)):
                fix = "give prompts with this column in evaluate.prompts, or another reward"
                raise DataError(f"evaluate.{key}: {problem}\n  fix: {fix}")
    if config.data is not None:
        rankings(config.data)
    for gate, parts in ({} if gates is None else gates.slices).items():
        _check_slices(config, gate, parts)
    named_sets = [*(gates.set_worsening or ()), *(gates.set_gain or ())] if gates else []
    limited = [part.partition("/") for part in named_sets]
    check_published(
        config, {name: [part for set_name, _, part in limited if set_name == name and part] for name in config.sets}
    )


def _check_slices(config: EvaluateConfig, gate: str, parts: Collection[str]) -> None:
    """Raise ConfigError if no row of the set that `gate` is measured on has a topic or a level of that name."""
    rows = measured_rows(config, TASK_OF[gate])
    topics = dict.fromkeys(row.topic for row in rows if row.topic)
    levels = dict.fromkeys(row.level for row in rows if isinstance(row, Asked) and row.level)
    names = [*topics, *(f"level {level}" if level.isdecimal() else level for level in levels)]
    for part in parts:
        if part not in levels and not any(f"{name}/".startswith(f"{part}/") for name in names):
            have = f"have: {', '.join(names)}" if names else "have neither"
            near = suggestion(part, names)
            raise ConfigError(f"gates.slices.{gate}.{part}: no row has this topic or level{near} (the rows {have})")


def measured_rows(config: EvaluateConfig, task: str) -> Sequence[Asked | Passage]:
    """Return the rows that a task with a gate is measured on, except tasks of the lm-evaluation-harness."""
    if task == "capability":
        return questions(config.capability, config.limit)
    if task == "forgetting":
        return passages(config.forgetting, config.limit)
    sources: dict[str, tuple[SetName, DataConfig | None, int | None]] = {
        "over-refusal": ("innocent", config.innocent, config.limit),
        "unsafe-compliance": ("unsafe", config.unsafe, config.limit),
    }
    return prompts(*sources.get(task, ("prompts", config.prompts, config.samples)))


def lacking_column(reward: str, asked: Sequence[Asked]) -> str | None:
    """Return what is wrong where a user's reward takes a column that prompts lack, as a message; None if nothing is."""
    function = UserFunction.parse(reward)
    for name, needed in function.columns().items() if function else ():
        places = [row.origin or row.id for row in asked if needed and name not in row.fields]
        if places:
            number = f"{len(places)} of {len(asked)} prompts"
            return f"{reward} takes the column {name}, which {number} lack (first {places[0]})"
    return None


def _read(
    name: SetName, data: DataConfig | None, make: Callable[[Record, str], T], dropped: list[Drop] | None = None
) -> list[T]:
    def made(record: Record) -> T:
        return make(record, f"{name}-{record.origin.line}")

    if data is None:
        return [made(record) for record in written_records(name)]
    rows, account = read_records(data, made)
    if dropped is not None:
        dropped += account.dropped
    return rows


def _balanced(rows: Sequence[Row], limit: int | None) -> list[Row]:
    return balanced(rows, limit, lambda row: (row.topic, getattr(row, "level", None)))


def _question(record: Record, name: str) -> Asked:
    prompt, answer = _messages(record)
    if "answer" in record.row:
        answer = record.text("answer")
    elif answer is None:
        fix = 'add "answer", or end messages with the assistant\'s'
        raise record.fail("the question has no answer", fix, kind="no-answer")
    choices = _texts(record, "choices")
    if choices and answer not in choices:
        raise record.fail("the answer is not one of the choices", "write the right choice's text as answer", answer)
    expected = answer if choices else _final(answer)
    answers = (expected, *_texts(record, "accept"))
    return Asked(
        _id(record, name), prompt, _topic(record), answers, choices, _topic(record, "level"), record.origin, record.row
    )


def _final(answer: str) -> str:
    """Return the part after `####` of a worked answer in GSM8K's style; the whole answer where it has no `####`."""
    return answer.rpartition("####")[2].strip()


def _prompt(record: Record, name: str) -> Asked:
    return Asked(
        _id(record, name), _messages(record)[0], _topic(record), level=_topic(record, "level"), origin=record.origin,
        fields=record.row,
    )  # fmt: skip


def _passage(record: Record, name: str, *, as_text: bool = False) -> Passage:
    if as_text or "text" in record.row:
        return Passage(_id(record, name), _topic(record), text=record.text("text"), origin=record.origin)
    prompt, answer = _messages(record)
    if answer is None:
        fix = "add text, or messages that end answered"
        raise record.fail("neither a text nor an answered conversation", fix, kind="no-answer")
    messages = (*prompt, Message("assistant", answer))
    return Passage(_id(record, name), _topic(record), messages=messages, origin=record.origin)


def _messages(record: Record) -> tuple[tuple[Message, ...], str | None]:
    """Return the row's prompt messages, and the assistant's answer if the row's `messages` end with one (else None)."""
    key = next((name for name in (*MESSAGES, *PROMPT) if name in record.row), None)
    if key is None:
        raise record.fail("no question in the row", f"give it as one of: {', '.join((*PROMPT, *MESSAGES))}")
    turns, answer = record.turns(key, "user"), None
    if turns[-1].role == "assistant":
        turns, answer = turns[:-1], turns[-1].content
    check(turns, origin=record.origin, ends_with="user")
    return turns, answer


def _id(record: Record, name: str) -> str:
    """Return a unique id for a row of a test set: `ID#LINE` from its column `id` and its line number.

    The line number is there because a user's ids may repeat. A row without that column gets `name`.
    """
    row_id = record.row.get("id")
    return name if row_id is None else f"{row_id}#{record.origin.line}"


def _topic(record: Record, key: str = "topic") -> str | None:
    """Return the row's topic (or its level, at another key) as text, None where it has none."""
    return None if record.row.get(key) is None else str(record.row[key])


def _texts(record: Record, key: str) -> tuple[str, ...]:
    """Return the list of strings that a row holds at `key`, as a tuple; empty where the row has no such key."""
    value = record.row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise record.wrong_type(key, "a list of strings")
    return tuple(value)
