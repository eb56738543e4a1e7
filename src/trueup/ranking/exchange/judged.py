"""One record of a file as what somebody said of a pair: our own rows, and the formats of other tools.

ours           chosen, rejected and votes: what `export` wrote
ranking        chosen and rejected, as trueup.data.sources reads them
battle         two answers or conversations and a winner: Chatbot Arena, MT-Bench (lmsys/mt_bench_human_judgments),
               open-instruct's human_eval (completion_a, completion_b, preference), AlpacaEval (output_1, output_2)
kaggle         prompt, response_a, response_b as JSON lists, winner_model_a | winner_model_b | winner_tie (LMSYS 55k)
label studio   data and annotations of a <Pairwise> tag
argilla        fields and responses of a ranking question, nested (to_json) or flat (to_datasets)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

from trueup.data.rendering.messages import Origin
from trueup.data.sources.formats import pair_format
from trueup.data.sources.records import PROMPT, Record
from trueup.data.votes.ballots import check_ballot
from trueup.data.votes.raters import normalize_name
from trueup.data.votes.vote_types import Ballot, Choice, NewPair, Side
from trueup.errors import DataError
from trueup.ranking.exchange.reading import LeftOut, answers_in, iso, new_pair, pair_of
from trueup.system.text import as_json, excerpt, listed

WINNER = ("winner", "preference", "preferred", "choice", "selected", "vote")
RATER = ("judge", "rater", "evaluator", "annotator", "annotator_id", "user")
WHEN = ("at", "tstamp", "timestamp", "created_at", "updated_at")
NOTE = ("note", "comment")
_LEFT = {"a", "model_a", "first", "left", "1", "a-is-better", "a-is-slightly-better"}
_RIGHT = {"b", "model_b", "second", "right", "2", "b-is-better", "b-is-slightly-better"}
_UNDECIDED: list[tuple[Choice, set[str]]] = [
    ("tie", {"tie", "tied", "equal", "same", "draw"}),
    ("both_bad", {"tie (bothbad)", "bothbad", "both_bad", "both bad"}),
    ("skip", {"skip", "skipped"}),
]
_SLIGHTLY, _CLEARLY = 1, 2


@dataclass(frozen=True, slots=True)
class Judged:
    """What somebody said of a pair, in the pair's own sides.

    Attributes:
        pair: of what.
        rater: who; "": the file does not say.
        ballot: what; its `pair` and `request` say nothing.
        at: when, ISO 8601; "": the file does not say.
        left: what was shown as A; None: the file does not say.
        place: of the record.
    """

    pair: NewPair
    rater: str
    ballot: Ballot
    at: str
    left: Side | None
    place: Origin


def judged(record: Record) -> list[Judged]:
    """All that a record says.

    Raises:
        DataError: a field is missing or cannot be meant, or the format is not known.
        LeftOut: nothing that can be kept.
    """
    row = record.row
    for is_so, read in _FORMATS:
        if is_so(row):
            return [_proper(record, one) for one in read(record)]
    fix = "name them chosen and rejected; or response_a, response_b and winner (a, b, tie)"
    raise record.fail(f"no ranking in the row, it has: {listed(row)}", fix)


def _proper(record: Record, one: Judged) -> Judged:
    """The vote as a store takes it; raises DataError, with the record's place, where it would not."""
    try:
        return replace(one, ballot=check_ballot(one.ballot), rater=normalize_name(one.rater) if one.rater else "")
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from error


def said(record: Record, key: str, names: tuple[str, str]) -> tuple[Choice, int | None]:
    """What a field says of two answers, and how much better the one is where that is said.

    Raises:
        DataError: it cannot be meant.
    """
    value = record.value(key)
    word = as_json(value).lower() if not isinstance(value, str) else value.strip().lower()
    strength = _SLIGHTLY if "slightly" in word else _CLEARLY if word.endswith("-is-better") else None
    models = (record.row.get(f"model_{name.rpartition('_')[2]}") for name in names)
    left, right = (_one(*both) for both in zip(names, models, strict=True))
    if word in _LEFT | left:
        return "first", strength
    if word in _RIGHT | right:
        return "second", strength
    outcome: Choice | None = next((choice for choice, words in _UNDECIDED if word in words), None)
    if outcome is None:
        fix = f"write one of: {names[0]}, {names[1]}, a, b, tie, both_bad, skip"
        raise record.fail(f"{excerpt(key)} is {excerpt(word)}, which names no answer", fix)
    return outcome, None


def _one(name: str, model: object) -> set[str]:
    """The words that mean an answer: its key, and its model where that is told."""
    return {name.lower(), *([model.strip().lower()] if isinstance(model, str) and model.strip() else [])}


def first_of(row: Mapping[str, object], keys: Iterable[str]) -> Any:
    """What is at the first of the keys that holds something; "" where none does."""
    return next((row[key] for key in keys if row.get(key) not in (None, "")), "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _ranking(record: Record) -> list[Judged]:
    pair = pair_of(record, "chosen", "rejected")
    return [_judged(record, pair, "first", None, None)]


def _judged(record: Record, pair: NewPair, choice: Choice, strength: int | None, left: Side | None) -> Judged:
    row = record.row
    return Judged(
        pair,
        _text(first_of(row, RATER)),
        Ballot("", 0, choice, strength, note=_text(first_of(row, NOTE))),
        iso(record, first_of(row, WHEN)),
        left,
        record.origin,
    )


def _battle(record: Record) -> list[Judged]:
    names = answers_in(record.row)
    assert names is not None
    if record.row.get("instance_quality"):
        raise LeftOut("feedback on a prompt, no ranking")
    if names[0].startswith("conversation"):
        record = replace(record, row={**record.row, **{name: _turns(record, name) for name in names}})
    pair = pair_of(record, *names)
    choice, strength = said(record, next(key for key in WINNER if key in record.row), names)
    return [_judged(record, pair, choice, strength, "first")]


def _turns(record: Record, key: str) -> object:
    """A conversation up to the turn that was judged (MT-Bench keeps what followed), parts joined to texts."""
    value, turn = record.value(key), record.row.get("turn")
    if not isinstance(value, list):
        raise record.wrong_type(key, "a list of messages")
    turns = [_joined(message) for message in cast("list[object]", value)]
    system = isinstance(turns[0], dict) and turns[0].get("role") == "system" if turns else False
    return turns[: 2 * turn + system] if isinstance(turn, int) and turn > 0 else turns


def _joined(message: object) -> object:
    """A message whose content is a list of parts of text (Arena since 2024) with one text; others as they are."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = message["content"]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise LeftOut("a message holds more than text")
    return {**message, "content": "".join(part["text"] for part in parts)}


def _kaggle(record: Record) -> list[Judged]:
    row = dict(record.row)
    for key in ("prompt", "response_a", "response_b"):
        try:
            told = json.loads(record.text(key))
        except ValueError:
            raise record.wrong_type(key, "a JSON list of texts") from None
        if not isinstance(told, list) or not all(isinstance(one, str | None) for one in told) or not told:
            raise record.wrong_type(key, "a JSON list of texts")
        if len(told) > 1:
            raise LeftOut("more than one turn, whose earlier answers differ")
        row[key] = told[0] or ""
    wins = {key: record.number(key) for key in ("winner_model_a", "winner_model_b", "winner_tie")}
    if sorted(wins.values()) != [0, 0, 1]:
        raise record.fail("the winner columns are not one 1 and two 0", "write which one won", as_json(wins))
    record = replace(record, row={**row, "winner": max(wins, key=lambda key: wins[key]).removeprefix("winner_")})
    return _battle(record)


def _label_studio(record: Record) -> list[Judged]:
    data = record.row["data"]
    if not isinstance(data, dict):
        raise record.wrong_type("data", "an object")
    inner = replace(record, row=data)
    names = answers_in(data)
    if names is None:
        fix = "name the two texts text1 and text2 (answer1, response_a, ...) in data, and the prompt prompt"
        raise record.fail(f"no pair of answers in data, it has: {listed(data)}", fix)
    made: list[Judged] = []
    annotations = record.row["annotations"]
    for annotation in annotations if isinstance(annotations, list) else []:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by")
        name = _text(first_of(who, ("email", "username", "id")) if isinstance(who, dict) else who)
        for value in _selected(annotation):
            choice, _ = said(replace(record, row={**data, "selected": value}), "selected", names)
            at = iso(record, first_of(annotation, WHEN))
            made.append(Judged(pair_of(inner, *names), name, Ballot("", 0, choice), at, "first", record.origin))
    if not made:
        raise LeftOut("no annotation of a pair")
    return made


def _selected(annotation: Mapping[str, Any]) -> list[object]:
    """What an annotation's <Pairwise> tags say: left or right."""
    results = annotation.get("result")
    found = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    values = [one.get("value") for one in found if one.get("type") == "pairwise"]
    return [value.get("selected") for value in values if isinstance(value, dict)]


def _argilla(record: Record) -> list[Judged]:
    fields, responses = _argilla_parts(record)
    made = [one for value, user in responses for one in _ranked(record, fields, value, user)]
    if not made:
        raise LeftOut("no response that ranks answers")
    return made


def _argilla_parts(record: Record) -> tuple[Mapping[str, object], list[tuple[Sequence[Any], str]]]:
    """An Argilla record's fields, and (ranking, user) of each response to a ranking question."""
    row = record.row
    fields, nested = row.get("fields"), row.get("responses")
    if isinstance(fields, dict) and isinstance(nested, dict):
        told = [one for of_question in nested.values() for one in of_question or () if isinstance(one, dict)]
        found = [(one.get("value"), _text(one.get("user_id"))) for one in told]
    else:
        fields, found = row, []
        for key in [key for key in row if key.endswith(".responses")]:
            values, users = row[key] or [], row.get(f"{key}.users") or []
            if isinstance(values, list) and isinstance(users, list):
                found += [(value, _text(user)) for value, user in zip(values, users, strict=False)]
    return fields, [(value, user) for value, user in found if isinstance(value, list) and value and _is_rank(value[0])]


def _is_rank(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and "rank" in value


def _ranked(record: Record, fields: Mapping[str, object], value: Sequence[Any], user: str) -> list[Judged]:
    """The pairs of a ranking of two or more answers; equal ranks are ties."""
    inner = replace(record, row=fields)
    missing = [one["value"] for one in value if one["value"] not in fields]
    if missing:
        fix = "give the question's values the names of the fields that hold the answers"
        raise record.fail(f"the ranking names {excerpt(str(missing[0]))}, which is no field: {listed(fields)}", fix)
    if not any(key in fields for key in PROMPT):
        raise record.fail(f"no prompt in the fields: {listed(fields)}", "name its field prompt")
    made: list[Judged] = []
    for one, other in combinations(value, 2):
        ranks = one.get("rank"), other.get("rank")
        if not all(isinstance(rank, int) for rank in ranks):
            continue
        choice: Choice = "tie" if ranks[0] == ranks[1] else "first" if ranks[0] < ranks[1] else "second"
        pair = pair_of(inner, one["value"], other["value"])
        made.append(Judged(pair, user, Ballot("", 0, choice), "", None, record.origin))
    return made


def _ours(record: Record) -> list[Judged]:
    """A row that `export` wrote, with all its votes."""
    form = pair_format(record.row, "chosen", "rejected")
    models, sampling = (record.row.get(key) for key in ("models", "sampling"))
    by_model, by_draw = (told if isinstance(told, dict) else {} for told in (models, sampling))
    pair = new_pair(
        record,
        cast("Any", form.parse(record, form.keys)),
        (_text(by_model.get("chosen")), _text(by_model.get("rejected"))),
        (by_draw.get("chosen") or {}, by_draw.get("rejected") or {}),
    )
    origin = record.row.get("origin")
    if isinstance(origin, str) and origin:
        pair = replace(pair, prompt=replace(pair.prompt, origin=origin))
    if (gold := record.row.get("gold")) is not None:
        if gold not in list(_SIDES):
            raise record.fail("gold names no answer", "write chosen or rejected, the better one", as_json(gold))
        pair = replace(pair, gold=_SIDES[str(gold)])
    votes = cast("list[object]", record.row["votes"])
    if not votes:
        raise LeftOut("a row without votes")
    return [_our_vote(record, pair, vote) for vote in votes]


_SIDES: dict[str, Side] = {"chosen": "first", "rejected": "second"}
_SAID: dict[str, Choice] = {**_SIDES, "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
_TYPES: dict[str, tuple[type, ...]] = {
    "rater": (str,),
    "choice": (str,),
    "left": (str, type(None)),
    "strength": (int, type(None)),
    "seconds": (int, float, type(None)),
    "reasons": (list, type(None)),
    "note": (str, type(None)),
}


def _our_vote(record: Record, pair: NewPair, vote: object) -> Judged:
    told: dict[str, Any] = cast("dict[str, Any]", vote) if isinstance(vote, dict) else {}
    wrong = [key for key, types in _TYPES.items() if type(told.get(key)) not in types]
    wrong += [] if wrong or told["choice"] in _SAID else ["choice"]
    wrong += [] if wrong or told.get("left") in (None, *_SIDES) else ["left"]
    if wrong:
        raise record.fail(f"a vote's {wrong[0]} cannot be meant", "export the votes again", as_json(vote))
    reasons = tuple(map(str, told.get("reasons") or ()))
    note, seconds = told.get("note") or "", told.get("seconds")
    ballot = Ballot("", 0, _SAID[told["choice"]], told.get("strength"), reasons, note, seconds=seconds)
    left = _SIDES[told["left"]] if told.get("left") else None
    return Judged(pair, told["rater"], ballot, iso(record, told.get("at") or ""), left, record.origin)


Row = Mapping[str, object]


def _has_votes(row: Row) -> bool:
    return isinstance(row.get("votes"), list) and "chosen" in row and "rejected" in row


def _is_battle(row: Row) -> bool:
    return answers_in(row) is not None and any(key in row for key in WINNER)


def _is_argilla(row: Row) -> bool:
    return (isinstance(row.get("fields"), dict) and "responses" in row) or any(
        key.endswith(".responses") for key in row
    )


_FORMATS: list[tuple[Callable[[Row], bool], Callable[[Record], list[Judged]]]] = [
    (_has_votes, _ours),
    (lambda row: "winner_model_a" in row and "response_a" in row, _kaggle),
    (lambda row: "annotations" in row and "data" in row, _label_studio),
    (_is_argilla, _argilla),
    (_is_battle, _battle),
    (lambda row: "chosen" in row and "rejected" in row, _ranking),
]
