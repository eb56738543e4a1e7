"""Read a record (one row of a file) as votes on pairs, in our own export format or in that of another tool.

our own        chosen, rejected and votes, as `export` writes them
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
from trueup.data.sources.schemas import FIRST, SECOND, WINNER, answers_in, whole_conversations
from trueup.data.votes.ballots import check_ballot
from trueup.data.votes.raters import normalize_name
from trueup.data.votes.vote_types import Ballot, Choice, NewPair, Side
from trueup.errors import DataError
from trueup.ranking.exchange.reading import SkipRecordError, iso_time, new_pair, pair_of
from trueup.system.text import as_json, excerpt, listed

RATER = ("judge", "rater", "evaluator", "annotator", "annotator_id", "user")
WHEN = ("at", "tstamp", "timestamp", "created_at", "updated_at")
NOTE = ("note", "comment")
_UNDECIDED: list[tuple[Choice, set[str]]] = [
    ("tie", {"tie", "tied", "equal", "same", "draw"}),
    ("both_bad", {"tie (bothbad)", "bothbad", "both_bad", "both bad"}),
    ("skip", {"skip", "skipped"}),
]
_SLIGHTLY, _CLEARLY = 1, 2


@dataclass(frozen=True, slots=True)
class PairVote:
    """A vote read from a file, with its pair; it names the first or second answer, not a side of the screen.

    Attributes:
        pair: the pair.
        rater: the rater's name; "" if the file names none.
        ballot: the vote; its `pair` and `request` are empty.
        at: the time, ISO 8601; "" if the file has none.
        left: the answer that was shown as A; None if unknown.
        origin: where the record stands.
    """

    pair: NewPair
    rater: str
    ballot: Ballot
    at: str
    left: Side | None
    origin: Origin


def votes_in(record: Record) -> list[PairVote]:
    """Return all votes in a record (one row of a file) of any known format.

    Raises:
        DataError: a field is missing or invalid, or the format is not known.
        SkipRecordError: the record holds no usable vote.
    """
    row = record.row
    for matches, read in _FORMATS:
        if matches(row):
            return [_checked(record, vote) for vote in read(record)]
    fix = "name them chosen and rejected; or response_a, response_b and winner (a, b, tie)"
    raise record.fail(f"the row holds no ranking; its fields: {listed(row)}", fix)


def _checked(record: Record, vote: PairVote) -> PairVote:
    """Return the vote with its rater's name and its ballot checked and normalized as the store requires.

    Raises:
        DataError: name or ballot is invalid, such as a name that is too long; the message names file and line.
    """
    try:
        rater = normalize_name(vote.rater) if vote.rater else ""
        return replace(vote, ballot=check_ballot(vote.ballot), rater=rater)
    except DataError as error:
        raise DataError(f"{record.origin}: {error}") from error


def read_choice(record: Record, key: str, names: tuple[str, str]) -> tuple[Choice, int | None]:
    """Return the choice at `key` ("first", "second", "tie", "both_bad" or "skip") and its strength.

    The strength is 1 for slightly better, 2 for clearly better, and None if not given.

    Args:
        record: the row of the file.
        key: the field that says which answer won.
        names: keys of the first and the second answer, which the field may name; it may also name their models.

    Raises:
        DataError: the field names no answer.
    """
    value = record.value(key)
    word = as_json(value).lower() if not isinstance(value, str) else value.strip().lower()
    strength = _SLIGHTLY if "slightly" in word else _CLEARLY if word.endswith("-is-better") else None
    models = (record.row.get(f"model_{name.rpartition('_')[2]}") for name in names)
    left, right = (_names_of(*pair) for pair in zip(names, models, strict=True))
    if word in FIRST | left:
        return "first", strength
    if word in SECOND | right:
        return "second", strength
    outcome: Choice | None = next((choice for choice, words in _UNDECIDED if word in words), None)
    if outcome is None:
        fix = f"write one of: {names[0]}, {names[1]}, a, b, tie, both_bad, skip"
        raise record.fail(f"{excerpt(key)} is {excerpt(word)}, which names no answer", fix)
    return outcome, None


def _names_of(name: str, model: object) -> set[str]:
    """Return the lower-case words by which a field may name this answer: its key, and its model if known."""
    return {name.lower(), *([model.strip().lower()] if isinstance(model, str) and model.strip() else [])}


def first_of(row: Mapping[str, object], keys: Iterable[str]) -> Any:
    """Return the value of the first of `keys` whose field exists and is not empty; "" if there is none."""
    return next((row[key] for key in keys if row.get(key) not in (None, "")), "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _ranking(record: Record) -> list[PairVote]:
    pair = pair_of(record, "chosen", "rejected")
    return [_vote(record, pair, "first", None, None)]


def _vote(record: Record, pair: NewPair, choice: Choice, strength: int | None, left: Side | None) -> PairVote:
    row = record.row
    return PairVote(
        pair,
        _text(first_of(row, RATER)),
        Ballot("", 0, choice, strength, note=_text(first_of(row, NOTE))),
        iso_time(record, first_of(row, WHEN)),
        left,
        record.origin,
    )


def _battle(record: Record) -> list[PairVote]:
    names = answers_in(record.row)
    assert names is not None
    if record.row.get("instance_quality"):
        raise SkipRecordError("feedback on a prompt, no ranking")
    if whole_conversations(names):
        record = replace(record, row={**record.row, **{name: _turns(record, name) for name in names}})
    pair = pair_of(record, *names)
    choice, strength = read_choice(record, next(key for key in WINNER if key in record.row), names)
    return [_vote(record, pair, choice, strength, "first")]


def _turns(record: Record, key: str) -> object:
    """Return a conversation cut after the judged turn, with the parts of each message joined to a text.

    MT-Bench also keeps the turns after the judged one.
    """
    value, turn = record.value(key), record.row.get("turn")
    if not isinstance(value, list):
        raise record.wrong_type(key, "a list of messages")
    turns = [_joined(message) for message in cast("list[object]", value)]
    system = isinstance(turns[0], dict) and turns[0].get("role") == "system" if turns else False
    return turns[: 2 * turn + system] if isinstance(turn, int) and turn > 0 else turns


def _joined(message: object) -> object:
    """Return a message whose content is a text: a list of text parts, in Chatbot Arena since 2024, is joined.

    A part that is no text, such as a picture, raises SkipRecordError.
    """
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = message["content"]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise SkipRecordError("a message holds more than text")
    return {**message, "content": "".join(part["text"] for part in parts)}


def _kaggle(record: Record) -> list[PairVote]:
    row = dict(record.row)
    for key in ("prompt", "response_a", "response_b"):
        try:
            texts = json.loads(record.text(key))
        except ValueError:
            raise record.wrong_type(key, "a JSON list of texts") from None
        if not isinstance(texts, list) or not all(isinstance(text, str | None) for text in texts) or not texts:
            raise record.wrong_type(key, "a JSON list of texts")
        if len(texts) > 1:
            raise SkipRecordError("more than one turn, whose earlier answers differ")
        row[key] = texts[0] or ""
    wins = {key: record.number(key) for key in ("winner_model_a", "winner_model_b", "winner_tie")}
    if sorted(wins.values()) != [0, 0, 1]:
        raise record.fail("the winner columns are not a single 1 and two 0", "write which answer won", as_json(wins))
    record = replace(record, row={**row, "winner": max(wins, key=lambda key: wins[key]).removeprefix("winner_")})
    return _battle(record)


def _label_studio(record: Record) -> list[PairVote]:
    data = record.row["data"]
    if not isinstance(data, dict):
        raise record.wrong_type("data", "an object")
    inner = replace(record, row=data)
    names = answers_in(data)
    if names is None:
        fix = "name the two texts text1 and text2 (answer1, response_a, ...) in data, and the prompt prompt"
        raise record.fail(f"data holds no pair of answers; its fields: {listed(data)}", fix)
    votes: list[PairVote] = []
    annotations = record.row["annotations"]
    for annotation in annotations if isinstance(annotations, list) else []:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        user = annotation.get("completed_by")
        name = _text(first_of(user, ("email", "username", "id")) if isinstance(user, dict) else user)
        for value in _selected(annotation):
            choice, _ = read_choice(replace(record, row={**data, "selected": value}), "selected", names)
            at = iso_time(record, first_of(annotation, WHEN))
            votes.append(PairVote(pair_of(inner, *names), name, Ballot("", 0, choice), at, "first", record.origin))
    if not votes:
        raise SkipRecordError("no annotation of a pair")
    return votes


def _selected(annotation: Mapping[str, Any]) -> list[object]:
    """Return the choices ("left" or "right") in the <Pairwise> tags of a Label Studio annotation."""
    results = annotation.get("result")
    tags = [tag for tag in results if isinstance(tag, dict)] if isinstance(results, list) else []
    values = [tag.get("value") for tag in tags if tag.get("type") == "pairwise"]
    return [value.get("selected") for value in values if isinstance(value, dict)]


def _argilla(record: Record) -> list[PairVote]:
    fields, responses = _argilla_parts(record)
    votes = [vote for ranking, user in responses for vote in _ranked(record, fields, ranking, user)]
    if not votes:
        raise SkipRecordError("no response that ranks answers")
    return votes


def _argilla_parts(record: Record) -> tuple[Mapping[str, object], list[tuple[Sequence[Any], str]]]:
    """Return an Argilla record's fields, and (ranking, user id) for each response to a ranking question.

    A ranking is a list of {"value": name of the field that holds an answer, "rank": its rank}.
    """
    row = record.row
    fields, nested = row.get("fields"), row.get("responses")
    if isinstance(fields, dict) and isinstance(nested, dict):
        given = [response for of_question in nested.values() for response in of_question or ()]
        responses = [(item.get("value"), _text(item.get("user_id"))) for item in given if isinstance(item, dict)]
    else:
        fields, responses = row, []
        for key in [key for key in row if key.endswith(".responses")]:
            values, users = row[key] or [], row.get(f"{key}.users") or []
            if isinstance(values, list) and isinstance(users, list):
                responses += [(value, _text(user)) for value, user in zip(values, users, strict=False)]
    return fields, [
        (value, user) for value, user in responses if isinstance(value, list) and value and _is_rank(value[0])
    ]


def _is_rank(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and "rank" in value


def _ranked(record: Record, fields: Mapping[str, object], ranking: Sequence[Any], user: str) -> list[PairVote]:
    """Return one vote for every two answers of an Argilla ranking: the better rank wins, and equal ranks are a tie."""
    inner = replace(record, row=fields)
    missing = [item["value"] for item in ranking if item["value"] not in fields]
    if missing:
        fix = "give the question's values the names of the fields that hold the answers"
        raise record.fail(f"the ranking names {excerpt(str(missing[0]))}, not one of the fields: {listed(fields)}", fix)
    if not any(key in fields for key in PROMPT):
        raise record.fail(f"the fields hold no prompt: {listed(fields)}", "name its field prompt")
    votes: list[PairVote] = []
    for left, right in combinations(ranking, 2):
        ranks = left.get("rank"), right.get("rank")
        if not all(isinstance(rank, int) for rank in ranks):
            continue
        choice: Choice = "tie" if ranks[0] == ranks[1] else "first" if ranks[0] < ranks[1] else "second"
        pair = pair_of(inner, left["value"], right["value"])
        votes.append(PairVote(pair, user, Ballot("", 0, choice), "", None, record.origin))
    return votes


def _ours(record: Record) -> list[PairVote]:
    """Return the votes in a row that trueup exported: a pair, with all its votes in the field `votes`."""
    form = pair_format(record.row, "chosen", "rejected")
    models, sampling = (record.row.get(key) for key in ("models", "sampling"))
    by_model, by_sampling = (field if isinstance(field, dict) else {} for field in (models, sampling))
    pair = new_pair(
        record,
        cast("Any", form.parse(record)),
        (_text(by_model.get("chosen")), _text(by_model.get("rejected"))),
        (by_sampling.get("chosen") or {}, by_sampling.get("rejected") or {}),
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
        raise SkipRecordError("a row without votes")
    return [_our_vote(record, pair, vote) for vote in votes]


_SIDES: dict[str, Side] = {"chosen": "first", "rejected": "second"}
_CHOICES: dict[str, Choice] = {**_SIDES, "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
_TYPES: dict[str, tuple[type, ...]] = {
    "rater": (str,),
    "choice": (str,),
    "left": (str, type(None)),
    "strength": (int, type(None)),
    "seconds": (int, float, type(None)),
    "reasons": (list, type(None)),
    "note": (str, type(None)),
}


def _our_vote(record: Record, pair: NewPair, vote: object) -> PairVote:
    fields: dict[str, Any] = cast("dict[str, Any]", vote) if isinstance(vote, dict) else {}
    wrong = [key for key, types in _TYPES.items() if type(fields.get(key)) not in types]
    wrong += [] if wrong or fields["choice"] in _CHOICES else ["choice"]
    wrong += [] if wrong or fields.get("left") in (None, *_SIDES) else ["left"]
    if wrong:
        raise record.fail(f"a vote's {wrong[0]} is missing or invalid", "export the votes again", as_json(vote))
    reasons = tuple(map(str, fields.get("reasons") or ()))
    note, seconds = fields.get("note") or "", fields.get("seconds")
    ballot = Ballot("", 0, _CHOICES[fields["choice"]], fields.get("strength"), reasons, note, seconds=seconds)
    left = _SIDES[fields["left"]] if fields.get("left") else None
    return PairVote(pair, fields["rater"], ballot, iso_time(record, fields.get("at") or ""), left, record.origin)


def _has_votes(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("votes"), list) and "chosen" in row and "rejected" in row


def _is_battle(row: Mapping[str, object]) -> bool:
    return answers_in(row) is not None and any(key in row for key in WINNER)


def _is_argilla(row: Mapping[str, object]) -> bool:
    return (isinstance(row.get("fields"), dict) and "responses" in row) or any(
        key.endswith(".responses") for key in row
    )


_FORMATS: list[tuple[Callable[[Mapping[str, object]], bool], Callable[[Record], list[PairVote]]]] = [
    (_has_votes, _ours),
    (lambda row: "winner_model_a" in row and "response_a" in row, _kaggle),
    (lambda row: "annotations" in row and "data" in row, _label_studio),
    (_is_argilla, _argilla),
    (_is_battle, _battle),
    (lambda row: "chosen" in row and "rejected" in row, _ranking),
]
