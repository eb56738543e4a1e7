r"""Recognise the format of records: a generic one by its keys, or the schema of a public set.

The first record decides the format, and every other record must have it.

    conversation   messages | conversations [{role, content} or {from, value}]
    pair           prompt + completion, question + answer, instruction (+ input, context, history) + output: strings or
                   message lists; or messages that end with the user's + completion
    ranking        chosen + rejected, with prompt, messages, or a beginning they share; transcripts "\n\nHuman: …" too
    verdict        prompt + completion + label (true or false), or messages + label
    prompt         prompt, or messages that end with the user's
    text           text

The schemas of public preference sets are in `schemas`; their rows are turned into rankings or conversations. The
parsers of the generic formats are in `generic`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trueup.data.rendering.messages import Row
from trueup.data.sources.calls import declaring
from trueup.data.sources.generic import PARSERS, SIDES, scores_of
from trueup.data.sources.records import (
    COMPLETION,
    LABEL,
    MATERIAL,
    MESSAGES,
    PROMPT,
    SYSTEM,
    Record,
    is_nothing,
    may_be_verdict,
    twins,
    vocabulary,
    words_of,
)
from trueup.data.sources.schemas import TIE, Pairs, Ranked, Schema, schema_of


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row, or a pair of answers of a row, that is left out, with the reason in words, e.g. "a tie"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Format:
    """A recognised format of records.

    Attributes:
        name: e.g. "conversation", "ranking" or "nectar"; a value of the setting `format`.
        keys: the file's key for each part of the format (None: the file has none).
        gives: the generic format that it amounts to: of "nectar" it is "ranking".
        schema: the schema of a public set, whose rows may give several typed rows each.
    """

    name: str
    keys: Mapping[str, str | None]
    gives: str
    schema: Schema | None = None

    def rows(self, record: Record, pairs: Pairs) -> list[Row | LeftOut]:
        """Return the typed rows of a record, with what is left out of it; `pairs` chooses among n ranked answers."""
        if self.schema is None:
            return [self.parse(record)]
        record.read.update(self.schema.needs)
        if self.gives == "conversation" and self.schema.conversation is not None:
            fields: dict[str, object] = {"messages": self.schema.conversation(record)}
            fields |= {} if self.schema.tools is None else {"tools": self.schema.tools(record)}
            return [PARSERS["conversation"](_inner(record, fields), {"messages": "messages", "system": None})]
        ranked_of = self.schema.ranked or (lambda _: [])
        return [row for ranked in ranked_of(record) for row in _rankings(record, ranked, pairs)]

    def parse(self, record: Record) -> Row:
        """Return the typed row of a record whose fields are those of the generic format."""
        return PARSERS[self.gives](record, self.keys)

    def because(self) -> str:
        """Return the fields by which the format was recognised, as text for a message."""
        keys = [key for key in self.keys.values() if key] or (self.schema.needs if self.schema else ())
        return ", ".join(dict.fromkeys(keys))


def _inner(record: Record, fields: Mapping[str, object]) -> Record:
    """Return fields that were made of a record as a record of the same place, which notes in the same lists."""
    keys = declaring(record.row)
    fields = {"tools": None, **{key: record.row[key] for key in keys}, **fields}
    record.read.update(("tools", *keys))
    return Record(
        fields, record.origin, record.notes, record.allow_empty, record.merge_turns, record.scored, unread=record.unread
    )


def _rankings(record: Record, ranked: Ranked, pairs: Pairs) -> list[Row | LeftOut]:
    rows: list[Row | LeftOut] = []
    for pair in ranked.pairs(pairs):
        if pair is None:
            rows.append(LeftOut(TIE))
            continue
        better, worse = pair
        names = {"chosen": better.name, "rejected": f"{worse.name} " if worse.name == better.name else worse.name}
        fields: dict[str, object] = {names["chosen"]: better.value, names["rejected"]: worse.value}
        keys: dict[str, str | None] = dict.fromkeys((*_RANKING, *names), None) | names
        if ranked.prompt is not None:
            keys["prompt"], fields[ranked.prompt[0]] = ranked.prompt
        if ranked.margins:
            keys["margin"], fields["margin"] = "margin", better.score - worse.score
        fields |= {} if ranked.tools is None else {"tools": ranked.tools}
        rows.append(PARSERS["ranking"](_inner(record, fields), keys))
    return rows


def recognise(row: Mapping[str, object], wanted: Sequence[str], name: str = "auto") -> Format | None:
    """Return the first format of `wanted` whose keys the row has; None if the row fits none of them.

    `wanted` has names of generic formats, such as "ranking"; a schema fits if it gives one of them. A `name` other than
    "auto" asks for the format or schema of that name.
    """
    schema = schema_of(row, name)
    if schema is not None and (gives := next((gives for gives in schema.gives if gives in wanted), None)):
        return Format(schema.name, schema.keys(row) if schema.keys else {}, gives, schema)
    possible = {name: keys for name, keys in _keys_of_formats(row).items() if keys}
    kind = next((kind for kind in wanted if kind in possible and name in ("auto", kind)), None)
    return Format(kind, possible[kind], kind) if kind else None


def pair_format(row: Mapping[str, object], first: str, second: str) -> Format:
    """Return the format of rankings with the chosen answer at the key `first` and the rejected one at `second`."""
    keys = _keys_of_formats({**row, "chosen": None, "rejected": None})["ranking"] or {}
    scores = {"margin": None, "score_chosen": None, "score_rejected": None}
    return Format("ranking", {**keys, **scores, "chosen": first, "rejected": second}, "ranking")


_RANKING = ("prompt", "messages", "system", "input", "history", "margin", "score_chosen", "score_rejected")


def _keys_of_formats(row: Mapping[str, object]) -> dict[str, dict[str, str | None] | None]:
    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in row), None)

    messages, prompt, completion = first(MESSAGES), first(PROMPT), first(COMPLETION)
    if completion == "solution" and answers_beside(row, {completion}):  # of a task, which somebody else has answered
        completion = None
    # "instruction" comes before "input" in PROMPT; "input" is the instruction's material only if there is one.
    materials = [
        key for key in MATERIAL if key in row and key != prompt and (key != "input" or prompt == "instruction")
    ]
    material = next((key for key in materials if not is_nothing(row[key])), materials[0] if materials else None)
    system = first(SYSTEM)
    common = {"system": system, "input": material, "history": first(("history",))}
    pair = {"prompt": prompt, "completion": completion, **common}
    if not prompt and messages and _ends_with_question(row[messages]):
        pair["prompt"] = messages
    sides = sides_of(row) or (None, None)
    scores = next(iter(scores_of(row)), (None, None))
    ranking = {
        "chosen": sides[0],
        "rejected": sides[1],
        "prompt": prompt,
        "messages": messages,
        **common,
        "margin": first(("margin",)),
        "score_chosen": scores[0],
        "score_rejected": scores[1],
    }
    label = next((name for name in LABEL if name in row and may_be_verdict(row[name])), None)
    verdict: dict[str, str | None] | None = None
    if label and pair["prompt"] and completion:
        verdict = {**pair, "label": label}
    elif label and messages:
        verdict = {"messages": messages, "system": system, "label": label}
    asked = bool(pair["prompt"]) and pair["prompt"] == messages  # the messages are the prompt of a completion
    return {
        "conversation": {"messages": messages, "system": system} if messages and not (asked and completion) else None,
        "pair": pair if pair["prompt"] and completion else None,
        "ranking": ranking if sides[0] else None,
        "verdict": verdict,
        "prompt": {**common, "prompt": pair["prompt"]} if pair["prompt"] else None,
        "text": {"text": "text"} if "text" in row else None,
    }


def answers_beside(row: Mapping[str, object], read: Collection[str | None]) -> list[str]:
    """Return the keys of texts that may be answers by their names, such as model_answer, but are none of `read`.

    In rows that hold them a question is not meant to stand alone.
    """
    texts = (key for key, value in row.items() if isinstance(value, str | list | dict) and not is_nothing(value))
    names = {key: words_of(key) for key in texts if key not in read}
    return [key for key, words in names.items() if set(words) & _ANSWERS and words[-1] not in _NOT]


_ANSWERS = vocabulary(
    "answer answers response responses output outputs completion completions target targets solution solutions reply "
    "replies chosen rejected accepted preferred attempt attempts generation generations summary summaries label labels "
    "good bad positive negative better worse"
)
_NOT = vocabulary("type kind id ids source lang language model models format valid category config template date")


def sides_of(row: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the keys of the chosen and the rejected answer: so called, or chosen_response and rejected_response."""
    if "chosen" in row and "rejected" in row:
        return "chosen", "rejected"
    pairs = twins({key: value for key, value in row.items() if isinstance(value, str | list | dict)}, *SIDES)
    return next((pair for pair in pairs if not {"model", "text"} & {*words_of(pair[0])}), None)


def _ends_with_question(value: object) -> bool:
    """Return True if a list of messages ends with the user's."""
    last = value[-1] if isinstance(value, list) and value else None
    return isinstance(last, dict) and last.get("role", last.get("from")) in ("user", "human")
