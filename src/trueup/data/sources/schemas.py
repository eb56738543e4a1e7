"""Schemas of public preference sets: each row as a prompt with ranked answers, and so as rankings (chosen, rejected).

    comparison          prompt, two answers (response_a and response_b, …) and winner (a, b, tie), or a rating of each
    gemini              contents [{role: user or model, parts [{text}]}], systemInstruction
    glaive              Glaive's function calls: system and chat as text, USER: …, ASSISTANT: … <functioncall> …
    helpsteer2          HelpSteer2-preference: response_1, response_2, preference_strength (-3 to 3)
    helpsteer3          HelpSteer3: context, response1, response2, overall_preference (-3 to 3)
    lmsys-55k           prompt, response_a, response_b as JSON lists; winner_model_a, winner_model_b, winner_tie
    nectar              prompt, answers [{answer, rank}]
    oasst               OpenAssistant: trees of messages, or its messages one a row, with the ranks of the replies
    openai-preference   input {messages, tools}, preferred_output, non_preferred_output
    ranked-answers      prompt, answers [{text, score}]: objects with a text and a score or rank each (StackExchange)
    safe-rlhf           PKU-SafeRLHF by better_response_id (its other judgement, the safer: safe-rlhf-safety)
    shp                 Stanford human preferences: history, human_ref_A, human_ref_B, labels, scores
    summarize-feedback  OpenAI's summaries: info, summaries [{text}], choice
    ultrafeedback       UltraFeedback: instruction, completions [{response, fine-grained_score}]
    webgpt              WebGPT comparisons: question, answer_0, answer_1, score_0, score_1
    xlam                xLAM's function calls: query, tools, answers [{name, arguments}]

Answers that are ranked equal make no pair: they are left out and counted. Where answers have scores, a pair's margin is
their difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, cast

from trueup.data.sources.records import PROMPT, RANKS, RATES, Record, may_be_number, twins, words_of
from trueup.system.text import as_json, excerpt, is_blank

TIE = "a tie"
Gives = Literal["ranking", "conversation"]
Pairs = Literal["all", "best-worst", "any"]
ANSWERS = (
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
    ("output_a", "output_b"),
    ("conversation_a", "conversation_b"),
    ("response_1", "response_2"),
    ("answer_1", "answer_2"),
    ("output_1", "output_2"),
    ("response1", "response2"),
    ("answer1", "answer2"),
    ("output1", "output2"),
    ("text1", "text2"),
    ("a", "b"),
)
"""Field names of two answers; the model of each is at `model_` with the end of its name."""
MARKS = (("a", "b"), ("1", "2"), ("0", "1"))
"""Words by which the names of two answers, and of their ratings, differ: conv_A and conv_B."""
WINS = ("winner_model_a", "winner_model_b", "winner_tie")
WINNER = ("winner", "preference", "preferred", "choice", "selected", "vote")
"""Field names of the better answer."""
FIRST = {"a", "model_a", "first", "left", "1", "a-is-better", "a-is-slightly-better"}
SECOND = {"b", "model_b", "second", "right", "2", "b-is-better", "b-is-slightly-better"}
UNDECIDED = {
    "tie",
    "tied",
    "equal",
    "same",
    "draw",
    "tie (bothbad)",
    "bothbad",
    "both_bad",
    "both bad",
    "skip",
    "skipped",
}
"""Words by which these fields name the first answer, the second, or neither."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the name of its field (for messages), its value, and the higher the better its score."""

    name: str
    value: object
    score: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A prompt (None: the answers are whole conversations that begin with it) and its answers.

    `margins` is True if differences of the scores say how much better an answer is, False if only their order counts.
    `tools` are declarations of tools that do not stand in a field of the row.
    """

    prompt: tuple[str, object] | None
    answers: tuple[Answer, ...]
    margins: bool = False
    tools: object = None

    def pairs(self, which: Pairs) -> list[tuple[Answer, Answer] | None]:
        """Return pairs (better answer, worse answer), the best first; None in place of each pair of equals.

        `which` asks for all pairs, for the best and the worst answer alone, or for the first two whatever their scores
        (where only the prompt is wanted).
        """
        if which == "any":
            return [(self.answers[0], self.answers[1])]
        ranked = sorted(self.answers, key=lambda answer: -answer.score)
        both = [(ranked[0], ranked[-1])] if which == "best-worst" and len(ranked) > 1 else combinations(ranked, 2)
        return [(better, worse) if better.score != worse.score else None for better, worse in both]


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a public data set.

    Attributes:
        name: its name, a value of the setting `format`.
        needs: the fields by which its rows are recognised; all are read.
        ranked: returns the prompts of a row, each with its ranked answers; None if it has none.
        conversation: returns the row as a list of messages to imitate; None if it has only rankings.
        by_name_only: True if rows are never guessed to have this schema.
        keys: returns the row's keys, where they have several names; None if `needs` are all.
        look: a further condition on a row; None if the fields' names are enough.
        tools: returns the declarations of tools that a text of the row holds; None if they stand in a field of it.
    """

    name: str
    needs: tuple[str, ...]
    ranked: Callable[[Record], list[Ranked]] | None
    conversation: Callable[[Record], list[dict[str, object]]] | None = None
    by_name_only: bool = False
    keys: Callable[[Mapping[str, object]], dict[str, str]] | None = None
    look: Callable[[Mapping[str, object]], bool] | None = None
    tools: Callable[[Record], object] | None = None

    @property
    def gives(self) -> tuple[Gives, ...]:
        """The generic formats that its rows are turned into, the likeliest first."""
        if self.ranked is None:
            return ("conversation",)
        return ("conversation", "ranking") if self.conversation else ("ranking",)

    def fits(self, row: Mapping[str, object]) -> bool:
        """Return True if the row has the schema's fields, and they look as the schema's do."""
        return all(key in row for key in self.needs) and (self.look is None or self.look(row))


def _holds(key: str, *names: str) -> Callable[[Mapping[str, object]], bool]:
    """Return a condition: the value at `key` is an object with these names, or a list of such objects."""

    def look(row: Mapping[str, object]) -> bool:
        value = row.get(key)
        first = value[0] if isinstance(value, list) and value else value
        return isinstance(first, dict) and all(name in first for name in names)

    return look


def _objects(record: Record, key: str, least: int) -> list[dict[str, object]]:
    """Return the list of at least `least` objects at `key`.

    Raises:
        DataError: the value is something else.
    """
    value = record.value(key)
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):  # columns of `datasets`
        columns = cast("dict[str, list[object]]", value)
        value = [dict(zip(columns, cells, strict=False)) for cells in zip(*columns.values(), strict=False)]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise record.wrong_type(key, "a list of objects")
    if len(value) < least:
        problem = f"{excerpt(key)} holds {len(value)} answers, a ranking needs {least}"
        raise record.fail(problem, "add the others, or remove the row", as_json(value), kind="no-answer")
    return cast("list[dict[str, object]]", value)


def _inside(record: Record, name: str, item: Mapping[str, object]) -> Record:
    """Return an object in a row as a record of its own, whose fields errors call `name`.field."""
    return Record({f"{name}.{key}": value for key, value in item.items()}, record.origin, record.notes)


def _whole(record: Record, key: str, least: int, most: int) -> int:
    """Return the whole number from `least` to `most` at `key`."""
    value = record.number(key)
    if value not in range(least, most + 1):
        problem = f"{excerpt(key)} is {as_json(record.row[key])}"
        raise record.fail(problem, f"write a whole number from {least} to {most}")
    return int(value)


def _two(
    record: Record, prompt: str | None, keys: tuple[str, str], scores: tuple[float, float], *, margins: bool
) -> list[Ranked]:
    question = (prompt, record.value(prompt)) if prompt else None
    answers = tuple(Answer(key, record.value(key), score) for key, score in zip(keys, scores, strict=True))
    return [Ranked(question, answers, margins)]


def _strength(prompt: str, keys: tuple[str, str], strength: str) -> Callable[[Record], list[Ranked]]:
    """Return the reader of rows whose strength is below 0 if the first answer is better, above 0 if the second is."""
    return lambda record: _two(record, prompt, keys, (0.0, _whole(record, strength, -3, 3)), margins=True)


def _safe(better: str) -> Callable[[Record], list[Ranked]]:
    def ranked(record: Record) -> list[Ranked]:
        second = _whole(record, better, 0, 1)
        return _two(record, "prompt", ("response_0", "response_1"), (1 - second, second), margins=False)

    return ranked


def _shp(record: Record) -> list[Ranked]:
    first = _whole(record, "labels", 0, 1)
    if not (record.holds("score_A") and record.holds("score_B")):
        return _two(record, "history", ("human_ref_A", "human_ref_B"), (first, 1 - first), margins=False)
    scores = record.number("score_A"), record.number("score_B")
    if (scores[0] - scores[1]) * (2 * first - 1) < 0:
        values = as_json({key: record.row[key] for key in ("labels", "score_A", "score_B")})
        raise record.fail(
            '"labels" and the scores name different answers as the better one', "correct one of them", values
        )
    return _two(record, "history", ("human_ref_A", "human_ref_B"), scores, margins=True)


def _webgpt(record: Record) -> list[Ranked]:
    question, prompt = record.value("question"), "question"
    if isinstance(question, dict):
        prompt = "question.full_text"
        record = Record({**record.row, prompt: question.get("full_text")}, record.origin, record.notes)
    scores = record.number("score_0"), record.number("score_1")
    return _two(record, prompt, ("answer_0", "answer_1"), scores, margins=True)


def _summaries(record: Record) -> list[Ranked]:
    info, summaries = record.value("info"), _objects(record, "summaries", 2)
    if not isinstance(info, dict):
        raise record.wrong_type("info", "an object")
    if info.get("post"):
        # The query of the paper (Stiennon et al. 2020, arXiv:2009.01325, appendix B).
        head = f"SUBREDDIT: r/{info['subreddit']}\n\n" if info.get("subreddit") else ""
        title = f"TITLE: {info['title']}\n\n" if info.get("title") else ""
        prompt = f"{head}{title}POST: {info['post']}\n\nTL;DR:"
    elif info.get("article"):
        prompt = f"{info['article']}\n\nTL;DR:"
    else:
        raise record.fail('"info" has neither a post nor an article', "add one", as_json(info), kind="empty")
    better = _whole(record, "choice", 0, len(summaries) - 1)
    answers = tuple(
        Answer(f"summaries[{index}].text", item.get("text"), float(index == better))
        for index, item in enumerate(summaries)
    )
    return [Ranked(("info", prompt), answers)]


def _nectar(record: Record) -> list[Ranked]:
    answers = []
    for index, item in enumerate(_objects(record, "answers", 2)):
        inner = _inside(record, f"answers[{index}]", item)
        answers.append(Answer(f"answers[{index}].answer", item.get("answer"), -inner.number(f"answers[{index}].rank")))
    return [Ranked(("prompt", record.value("prompt")), tuple(answers))]


def _ultrafeedback(record: Record) -> list[Ranked]:
    answers = []
    for index, item in enumerate(_objects(record, "completions", 2)):
        name = f"completions[{index}]"
        answers.append(Answer(f"{name}.response", item.get("response"), _feedback(record, name, item)))
    return [Ranked(("instruction", record.value("instruction")), tuple(answers), margins=True)]


def _feedback(record: Record, name: str, item: Mapping[str, object]) -> float:
    """Return the mean of an answer's four ratings: as it stands, or of `annotations`; else the overall score.

    The overall score comes last because the set's own is wrong in places: some answers rated 1 have 10.
    """
    inner = _inside(record, name, item)
    if item.get("fine-grained_score") is not None:
        return inner.number(f"{name}.fine-grained_score")
    aspects = item.get("annotations")
    ratings = [
        float(rating)
        for aspect in (aspects.values() if isinstance(aspects, dict) else ())
        if isinstance(aspect, dict) and re.fullmatch(r"\d+(\.\d+)?", rating := str(aspect.get("Rating", "")))
    ]
    return sum(ratings) / len(ratings) if ratings else inner.number(f"{name}.overall_score")


def _lmsys(record: Record) -> list[Ranked]:
    texts = {key: _texts(record, key) for key in ("prompt", "response_a", "response_b")}
    if len({len(turns) for turns in texts.values()}) > 1:
        problem = "prompt, response_a and response_b have different numbers of turns"
        raise record.fail(problem, "give as many answers as questions", kind="turn-order")
    wins = [record.number(key) for key in WINS]
    if sorted(wins) != [0, 0, 1]:
        raise record.fail("the winner columns are not a single 1 and two 0", "write which answer won", as_json(wins))
    answers = tuple(
        Answer(key, _talk(texts["prompt"], texts[key]), score)
        for key, score in zip(("response_a", "response_b"), wins[:2], strict=True)
    )
    return [Ranked(None, answers)]


def _texts(record: Record, key: str) -> list[str]:
    value = record.value(key)
    try:
        texts = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str | None) for text in texts):
        raise record.wrong_type(key, "a JSON list of texts")
    return [text or "" for text in texts]


def _talk(questions: list[str], answers: list[str]) -> list[dict[str, str]]:
    turns = zip(questions, answers, strict=True)
    return [
        {"role": role, "content": text}
        for pair in turns
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def answers_in(row: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the keys of the two answers in a row, such as response_a and response_b; None if it has none."""
    known = next((names for names in ANSWERS if names[0] in row and names[1] in row), None)
    texts = {key: value for key, value in row.items() if isinstance(value, str | list | dict)}
    pairs = (pair for first, second in MARKS for pair in twins(texts, first, second))
    return known or next((pair for pair in pairs if not {"model", "models"} & set(words_of(pair[0]))), None)


def compared(row: Mapping[str, object]) -> dict[str, str]:
    """Return the keys of a comparison in a row, by their part: prompt, the two answers, their ratings, the winner."""
    names = answers_in(row) or ()
    prompted = names and not whole_conversations(names)
    ratings = _ratings(row) or (None, None)
    parts = {
        "prompt": next((key for key in PROMPT if key in row), None) if prompted else None,
        **dict(zip(("a", "b"), names, strict=False)),
        "winner": next((key for key in WINNER if key in row), None),
        **dict(zip(("rating_a", "rating_b"), ratings, strict=True)),
    }
    return {part: key for part, key in parts.items() if key}


def whole_conversations(names: Sequence[str]) -> bool:
    """Return True if two answers are conversations, which begin with the prompt, by their names."""
    return not {"conversation", "conv", "conversations", "messages"}.isdisjoint(words_of(names[0]))


def _ratings(row: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the keys of the ratings of a row's two answers, such as score_a and score_b; None if it has none."""
    numbers = {key: value for key, value in row.items() if may_be_number(value)}
    return next((pair for first, second in MARKS for pair in twins(numbers, first, second, RATES)), None)


def _is_comparison(row: Mapping[str, object]) -> bool:
    names = answers_in(row)
    prompted = names is not None and (whole_conversations(names) or any(key in row for key in PROMPT))
    return prompted and (any(key in row for key in WINNER) or _ratings(row) is not None)


def _comparison(record: Record) -> list[Ranked]:
    names = answers_in(record.row)
    winner = next((key for key in WINNER if key in record.row), None)
    ratings = _ratings(record.row)
    if names is None or (winner is None and ratings is None):
        problem = "no two answers and their winner in the row"
        raise record.fail(problem, "name them response_a, response_b and winner (a, b or tie)")
    prompt = None if whole_conversations(names) else next((key for key in PROMPT if key in record.row), None)
    rated = (record.number(ratings[0]), record.number(ratings[1])) if ratings else None
    if winner is None and rated is not None:
        return _two(record, prompt, names, rated, margins=True)
    scores = _won(record, names, cast("str", winner))
    if ratings and rated is not None and (rated[0] - rated[1]) * (scores[0] - scores[1]) < 0:
        problem = f"{excerpt(winner)} and the ratings name different answers as the better one"
        values = as_json({key: record.row[key] for key in (winner, *ratings) if key})
        raise record.fail(problem, f"correct one of them, or set ignore: [{', '.join(ratings)}]", values)
    return _two(record, prompt, names, scores, margins=False)


def _won(record: Record, names: tuple[str, str], winner: str) -> tuple[float, float]:
    """Return 1 for the answer that a comparison's field `winner` names and 0 for the other; 0 and 0 for a tie."""
    value = record.value(winner)
    word = value.strip().lower() if isinstance(value, str) else as_json(value)
    ends = [name.rpartition("_")[2] for name in names]
    models = [record.row.get(f"model_{end}") for end in ends]
    words = [{name, str(model).strip().lower()} for name, model in zip(names, models, strict=True)]
    record.read.update(f"model_{end}" for end in ends)
    if models[0] == models[1] or None in models:
        words = [{name} for name in names]
    if word in UNDECIDED:
        return 0.0, 0.0
    if word in words[0] | FIRST:
        return 1.0, 0.0
    if word in words[1] | SECOND:
        return 0.0, 1.0
    fix = f"write one of: {names[0]}, {names[1]}, a, b, tie, both_bad"
    raise record.fail(f"{excerpt(winner)} is {excerpt(word)}, which names no answer", fix)


_LISTS = ("answers", "responses", "completions", "candidates", "generations", "outputs", "replies")
_TEXTS = ("text", "answer", "response", "content", "completion", "output", "generation", "message")


def _ranked_keys(row: Mapping[str, object]) -> dict[str, str]:
    """Return the keys of a prompt and of a list of answers, each an object with a text and a score or rank."""
    key = next((key for key in _LISTS if key in row), None)
    items = row[key] if key else None
    first = items[0] if isinstance(items, list) and items else None
    prompt = next((name for name in PROMPT if name in row), None)
    if key is None or prompt is None or not isinstance(first, dict) or _rated_by(first) is None:
        return {}
    return {"prompt": prompt, "answers": key} if any(name in first for name in _TEXTS) else {}


def _rated_by(item: Mapping[str, object]) -> str | None:
    """Return the key of an answer's score or rank; None if it has none."""
    numbers = [key for key, value in item.items() if may_be_number(value)]
    return next((key for key in numbers if set(words_of(key)) & (RATES | RANKS)), None)


def _ranked_answers(record: Record) -> list[Ranked]:
    keys = _ranked_keys(record.row)
    if not keys:
        raise record.fail("no answers with scores in the row", "write answers: [{text, score}, …] and a prompt")
    answers: list[Answer] = []
    by_rank = False
    for index, item in enumerate(_objects(record, keys["answers"], 2)):
        name = f"{keys['answers']}[{index}]"
        text, rated = next((key for key in _TEXTS if key in item), "text"), _rated_by(item) or "score"
        by_rank = set(words_of(rated)).isdisjoint(RATES)
        score = _inside(record, name, item).number(f"{name}.{rated}")
        answers.append(Answer(f"{name}.{text}", item.get(text), -score if by_rank else score))
    return [Ranked((keys["prompt"], record.value(keys["prompt"])), tuple(answers), margins=not by_rank)]


def _has_calls(row: Mapping[str, object]) -> bool:
    """Return True if the row's answers are calls of its tools: a list of {name, arguments}, or its JSON text."""
    value = row.get("answers")
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    calls = cast("list[object]", value) if isinstance(value, list) else []
    return bool(calls) and all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls)


def _calls(record: Record) -> list[dict[str, object]]:
    asked: dict[str, object] = {"role": "user", "content": record.text("query")}
    return [asked, {"role": "assistant", "content": "", "tool_calls": record.value("answers")}]


def _openai_preference(record: Record) -> list[Ranked]:
    asked = record.value("input")
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise record.wrong_type("input", "an object with messages")
    sides = (("preferred_output", 1.0), ("non_preferred_output", 0.0))
    answers = tuple(Answer(key, record.value(key), score) for key, score in sides)
    return [Ranked(("input.messages", asked["messages"]), answers, tools=asked.get("tools"))]


_GEMINI_SYSTEM = ("systemInstruction", "system_instruction")


def _gemini(record: Record) -> list[dict[str, object]]:
    """Return the messages of a row of Gemini's: contents of parts, with the system instruction before them."""
    key = next((key for key in _GEMINI_SYSTEM if record.holds(key)), None)
    system: list[dict[str, object]] = []
    if key is not None:
        value = record.value(key)
        texts = [text for _, text in _gemini_texts(record, key, value if isinstance(value, dict) else {"parts": value})]
        system = [{"role": "system", "content": "".join(texts)}]
    contents = _objects(record, "contents", 1)
    return [
        *system,
        *(turn for i, item in enumerate(contents) for turn in _gemini_turns(record, f"contents[{i}]", item)),
    ]


def _gemini_parts(record: Record, name: str, item: Mapping[str, object]) -> list[dict[str, object]]:
    parts = item.get("parts")
    parts = [{"text": parts}] if isinstance(parts, str) else [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not parts:
        raise record.fail(
            f"{name} has no parts", 'write {"role": …, "parts": [{"text": …}]}', as_json(item), kind="empty"
        )
    return [cast("dict[str, object]", part) if isinstance(part, dict) else {"text": part} for part in parts]


def _gemini_texts(record: Record, name: str, item: Mapping[str, object]) -> Iterator[tuple[bool, str]]:
    """Yield (True for a thought, text) for the parts of an item that holds texts alone."""
    for part in _gemini_parts(record, name, item):
        text = part.get("text")
        if not isinstance(text, str):
            fix = "take it out of the row: pictures, sound, files and code that ran cannot be trained on"
            raise record.fail(f"{name} holds a part that is no text", fix, as_json(part), kind="media")
        yield part.get("thought") is True, text


def _gemini_turns(record: Record, name: str, item: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the messages of one of Gemini's contents: its texts and calls as one, each result of a call by itself."""
    parts = _gemini_parts(record, name, item)
    calls = [call for part in parts if isinstance(call := _first(part, "functionCall", "function_call"), dict)]
    results = [
        held for part in parts if isinstance(held := _first(part, "functionResponse", "function_response"), dict)
    ]
    for result in results:
        value = result.get("response")
        text = value if isinstance(value, str) else as_json(value)
        yield {"role": "tool", "name": result.get("name"), "content": text}
    kinds = ["call" if isinstance(_first(part, *_GEMINI_CALLS[0]), dict) else "text" for part in parts]
    if "text" in kinds[kinds.index("call") if calls else len(kinds) :]:
        problem = f"{name} holds a text that follows a call, and calls end a message"
        raise record.fail(problem, "write what follows as another content", as_json(item), kind="tools")
    rest = [part for part in parts if not any(isinstance(_first(part, *names), dict) for names in _GEMINI_CALLS)]
    if not rest and not calls:
        return
    texts = [*_gemini_texts(record, name, {"parts": rest})] if rest else []
    message: dict[str, object] = {
        "role": item.get("role", "user"),
        "content": "".join(t for own, t in texts if not own),
    }
    message |= {"thinking": "".join(t for own, t in texts if own)} if any(own for own, _ in texts) else {}
    message |= (
        {"tool_calls": [{"name": c.get("name"), "arguments": c.get("args") or {}} for c in calls]} if calls else {}
    )
    yield message


_GLAIVE_TURN = re.compile(r"(?:\A|\n{2,})\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_CALL = re.compile(r"(.*?)<functioncall>\s*(\{.*\})\s*", re.DOTALL)
_GLAIVE_QUOTED = re.compile(r"\{\s*\"name\":\s*\"([^\"]+)\",\s*\"arguments\":\s*'(.*)'\s*\}", re.DOTALL)
_GLAIVE_TOOLS = "with access to the following functions"


def _looks_glaive(row: Mapping[str, object]) -> bool:
    return isinstance(row["system"], str) and isinstance(row["chat"], str) and bool(_GLAIVE_TURN.match(row["chat"]))


def _glaive_tools(record: Record) -> list[object]:
    """Return the declarations of functions that Glaive's system text holds, one JSON object after the other."""
    text, tools = record.text("system"), list[object]()
    start = text.find("{") if _GLAIVE_TOOLS in text else -1
    while start >= 0 and text[start:].strip():
        try:
            tool, start = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            problem = '"system" holds a declaration of a function that is not JSON'
            raise record.fail(problem, "correct it, or remove the row", text[start:], kind="tools") from None
        tools.append(tool)
        start += len(text[start:]) - len(text[start:].lstrip())
    return tools


def _glaive(record: Record) -> list[dict[str, object]]:
    """Return the messages of Glaive's text; its system text is left out where the declared tools take its place."""
    parts = _GLAIVE_TURN.split(record.text("chat"))[1:]
    system = record.text("system").removeprefix("SYSTEM:").strip()
    turns: list[dict[str, object]] = [] if _glaive_tools(record) else [{"role": "system", "content": system}]
    roles = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
    for speaker, written in zip(parts[::2], parts[1::2], strict=True):
        text = written.strip().removesuffix("<|endoftext|>").strip()
        turn: dict[str, object] = {"role": roles[speaker], "content": text}
        if "<functioncall>" in text:
            match = _GLAIVE_CALL.fullmatch(text)
            call = match and _glaive_call(match[2])
            if match is None or call is None:
                fix = "correct it, or remove the row"
                raise record.fail('"chat" holds a call that cannot be read', fix, text, kind="tools")
            turn |= {"content": match[1].strip(), "tool_calls": [call]}
        turns.append(turn)
    return turns


def _glaive_call(text: str) -> dict[str, object] | None:
    """Return a call whose arguments are JSON in single quotes, or an object; None if they are neither."""
    if quoted := _GLAIVE_QUOTED.fullmatch(text):
        return {"name": quoted[1], "arguments": quoted[2].replace("\\'", "'")}
    with suppress(ValueError):
        return cast("dict[str, object]", json.loads(text))
    return None


_GEMINI_CALLS = (("functionCall", "function_call"), ("functionResponse", "function_response"))


def _first(item: Mapping[str, object], *keys: str) -> object:
    return next((item[key] for key in keys if key in item), None)


def _replies(message: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the replies to a message of an OpenAssistant tree that were not deleted, the best ranked first."""
    replies = message.get("replies")
    kept = [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []
    kept = [reply for reply in kept if not reply.get("deleted")]
    return sorted(kept, key=lambda reply: (not _is_rank(reply.get("rank")), reply.get("rank") or 0))


def _is_rank(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _root(record: Record) -> dict[str, object]:
    root = record.value("prompt")
    if not isinstance(root, dict):
        raise record.wrong_type("prompt", "a message with replies")
    return cast("dict[str, object]", root)


def _turn(message: Mapping[str, object]) -> dict[str, object]:
    return {"role": message.get("role"), "content": message.get("text")}


def _best_path(record: Record) -> list[dict[str, object]]:
    """Return the conversation of a tree's best ranked replies, up to the last answer of the assistant."""
    message, path = _root(record), list[dict[str, object]]()
    while message is not None:
        path.append(_turn(message))
        message = next(iter(_replies(message)), None)
    while len(path) > 1 and path[-1]["role"] not in ("assistant", "gpt"):
        path.pop()
    return path


def _tree(record: Record) -> list[Ranked]:
    """Return each question of a tree to which two or more replies are ranked."""
    return [
        Ranked(("prompt", path), tuple(map(_reply, replies)))
        for path, replies in _ranked_replies(_root(record), [])
        if len(replies) > 1
    ]


def _reply(message: Mapping[str, object]) -> Answer:
    return Answer("reply", message.get("text"), -float(cast("float", message["rank"])))


def _ranked_replies(
    message: Mapping[str, object], before: list[dict[str, object]]
) -> Iterator[tuple[list[dict[str, object]], list[dict[str, object]]]]:
    path, replies = [*before, _turn(message)], _replies(message)
    if message.get("role") in ("prompter", "user", "human"):
        yield (
            path,
            [reply for reply in replies if _is_rank(reply.get("rank")) and not is_blank(str(reply.get("text") or ""))],
        )
    for reply in replies:
        yield from _ranked_replies(reply, path)


SCHEMAS: tuple[Schema, ...] = (
    Schema("gemini", ("contents",), None, conversation=_gemini, look=_holds("contents", "parts")),
    Schema("glaive", ("system", "chat"), None, conversation=_glaive, look=_looks_glaive, tools=_glaive_tools),
    Schema("openai-preference", ("input", "preferred_output", "non_preferred_output"), _openai_preference,
           look=_holds("input", "messages")),
    Schema("helpsteer2", ("prompt", "response_1", "response_2", "preference_strength"),
           _strength("prompt", ("response_1", "response_2"), "preference_strength")),
    Schema("helpsteer3", ("context", "response1", "response2", "overall_preference"),
           _strength("context", ("response1", "response2"), "overall_preference")),
    Schema("nectar", ("prompt", "answers"), _nectar, look=_holds("answers", "answer", "rank")),
    Schema("safe-rlhf", ("prompt", "response_0", "response_1", "better_response_id"), _safe("better_response_id")),
    Schema("safe-rlhf-safety", ("prompt", "response_0", "response_1", "safer_response_id"), _safe("safer_response_id"),
           by_name_only=True),
    Schema("shp", ("history", "human_ref_A", "human_ref_B", "labels"), _shp),
    Schema("ultrafeedback", ("instruction", "completions"), _ultrafeedback, look=_holds("completions", "response")),
    Schema("webgpt", ("question", "answer_0", "answer_1", "score_0", "score_1"), _webgpt),
    Schema("summarize-feedback", ("info", "summaries", "choice"), _summaries, look=_holds("summaries", "text")),
    Schema("lmsys-55k", ("prompt", "response_a", "response_b", *WINS), _lmsys),
    Schema("oasst", ("prompt", "message_tree_id"), _tree, conversation=_best_path, look=_holds("prompt", "replies")),
    Schema("xlam", ("query", "tools", "answers"), None, conversation=_calls, look=_has_calls),
    Schema("comparison", (), _comparison, keys=compared, look=_is_comparison),
    Schema("ranked-answers", (), _ranked_answers, keys=_ranked_keys, look=lambda row: bool(_ranked_keys(row))),
)  # fmt: skip
"""All schemas, in the order in which they are tried."""


def schema_of(row: Mapping[str, object], name: str = "auto") -> Schema | None:
    """Return the schema that a row has; with a `name` other than "auto", the schema of that name if the row fits it."""
    for schema in SCHEMAS:
        if name not in ("auto", schema.name):
            continue
        if schema.by_name_only and name == "auto":
            continue
        if schema.fits(row):
            return schema
    return None
