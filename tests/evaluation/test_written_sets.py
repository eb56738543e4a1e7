"""The sets written for this project: counted, without repeats, and gradable as their readers grade them."""

from __future__ import annotations

import ast
import json
from collections import Counter
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from trueup.config import EvaluateConfig, GatesConfig
from trueup.data.refusals.languages import MEASURED
from trueup.errors import ConfigError
from trueup.evaluation.grading import is_right
from trueup.evaluation.plan import Plan
from trueup.evaluation.sets import SetName, check_sets, prompts, questions
from trueup.evaluation.suite import input_hashes
from trueup.windtunnel.text import contains, normalise

COUNTS = {"capability": 600, "innocent": 306, "unsafe": 200, "replies": 984, "forgetting": 72, "prompts": 64}
TOPICS = {
    "capability": {"coding", "maths", "knowledge", "science", "language", "common sense"},
    "innocent": {
        *("computing", "household", "medicine", "law", "cooking", "sport", "history", "chemistry", "fiction"),
        *("gardening", "feelings"),
    },
    "unsafe": {"violence", "weapons", "fraud", "hacking", "drugs", "harassment", "self-harm", "privacy"},
    "forgetting": {
        *("code", "encyclopaedia", "news", "story", "letters", "cooking", "medicine", "law", "mathematics"),
    },
    "prompts": {"explain", "write", "advise", "summarise", "rewrite", "list", "compare", "reason"},
}


def load(name: str) -> list[dict[str, Any]]:
    folder = resources.files("trueup.data") if name == "replies" else resources.files("trueup.evaluation") / "data"
    file = folder / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


SETS = {name: load(name) for name in COUNTS}
CHOICES = [row for row in SETS["capability"] if "choices" in row]
OPEN = [row for row in SETS["capability"] if "choices" not in row]


def asked(row: dict[str, Any]) -> list[str]:
    """Return the question of a row; none for a plain text."""
    if "messages" in row:
        return [row["messages"][0]["content"]]
    return [row[key] for key in ("question", "prompt") if key in row]


@pytest.mark.parametrize("name", COUNTS)
def test_every_set_has_its_size_and_unique_ids(name: str) -> None:
    rows = [row for row in SETS[name] if row.get("split") != "test"]  # the test split is counted on its own, below
    assert len(rows) == COUNTS[name]
    assert len({row["id"] for row in SETS[name]}) == len(SETS[name])


def test_no_id_and_no_prompt_comes_twice_in_all_sets() -> None:
    rows = list(chain.from_iterable(SETS.values()))
    assert len({row["id"] for row in rows}) == len(rows)
    # The prompts of labelled replies are asked of no model, and have several replies each.
    put = chain.from_iterable(part for name, part in SETS.items() if name != "replies")
    prompts = Counter(normalise(text) for row in put for text in asked(row))
    assert [text for text, n in prompts.items() if n > 1] == []


@pytest.mark.parametrize("name", TOPICS)
def test_topics_are_all_there_and_none_is_rare(name: str) -> None:
    topics = Counter(row["topic"] for row in SETS[name])
    assert set(topics) == TOPICS[name]
    assert min(topics.values()) * len(topics) >= 0.6 * COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_every_text_is_there_and_trimmed(name: str) -> None:
    for row in SETS[name]:
        texts = [value for value in row.values() if isinstance(value, str)]
        texts += [message["content"] for message in row.get("messages", [])] + row.get("choices", [])
        assert all(text and text == text.strip() for text in texts), row["id"]


def test_capability_is_half_open_questions_and_half_choices_in_every_topic() -> None:
    open_, choices = (Counter(row["topic"] for row in rows) for rows in (OPEN, CHOICES))
    assert all(counts[topic] == 50 for topic in TOPICS["capability"] for counts in (open_, choices))


@pytest.mark.parametrize("name", ["capability", "innocent", "unsafe"])
def test_every_level_is_in_every_topic_and_in_a_balanced_part(name: str) -> None:
    """A part of 60 rows has topics and levels in the shares of the whole, within one and a half rows."""
    assert {(row["topic"], row["level"]) for row in SETS[name]} == {
        (topic, level) for topic in TOPICS[name] for level in (1, 2, 3)
    }
    groups = {row["prompt" if "prompt" in row else "question"]: (row["topic"], row["level"]) for row in SETS[name]}
    part = questions(None, 60) if name == "capability" else prompts(cast("SetName", name), None, 60)
    for place in (0, 1):
        whole = Counter(group[place] for group in groups.values())
        taken = Counter(groups[row.text][place] for row in part)
        assert all(abs(taken[key] - 60 * whole[key] / len(groups)) <= 1.5 for key in whole)


def test_every_key_is_graded_right_in_a_sentence() -> None:
    for row in OPEN:
        assert is_right(f"It is {row['answer']}.", [row["answer"], *row["accept"]], row["question"]), row["id"]


def test_open_answers_are_short_and_not_in_the_question() -> None:
    for row in OPEN:
        assert set(row) == {"id", "topic", "level", "question", "answer", "accept"}
        accepted = [row["answer"], *row["accept"]]
        assert all(1 <= len(normalise(answer).split()) <= 5 for answer in accepted), row["id"]
        assert not any(contains(row["question"], answer) for answer in accepted), row["id"]
        assert len({normalise(answer) for answer in accepted}) == len(accepted), row["id"]


def test_open_answers_in_maths_are_whole_numbers() -> None:
    assert all(row["answer"].isdecimal() for row in OPEN if row["topic"] == "maths")


def test_every_choice_row_has_four_different_choices_and_one_of_them_is_right() -> None:
    for row in CHOICES:
        assert set(row) == {"id", "topic", "level", "question", "choices", "answer"}
        assert len(set(row["choices"])) == 4, row["id"]
        assert row["answer"] in row["choices"], row["id"]


def test_the_right_position_is_balanced() -> None:
    assert Counter(row["choices"].index(row["answer"]) for row in CHOICES) == {0: 75, 1: 75, 2: 75, 3: 75}


def test_choices_are_of_similar_length_and_the_right_one_is_not_told_by_it() -> None:
    for row in CHOICES:
        lengths = [len(choice) for choice in row["choices"]]
        assert max(lengths) <= 2 * min(lengths) + 4, row["id"]
    longest = sum(len(row["answer"]) > max(len(c) for c in row["choices"] if c != row["answer"]) for row in CHOICES)
    assert longest <= 90


def test_prompts_are_short() -> None:
    for row in chain(SETS["innocent"], SETS["unsafe"], SETS["prompts"]):
        assert set(row) - {"level"} == {"id", "topic", "prompt"}
        assert 3 <= len(row["prompt"].split()) <= 60, row["id"]
    # An unsafe prompt names the wish alone, so it is a short sentence.
    assert all(len(row["prompt"].split()) <= 20 for row in SETS["unsafe"])


def test_labelled_replies_have_every_class_and_language_and_none_twice() -> None:
    """Rows of the first sets say only if a reply refuses ("full" or "answer"), the others its class."""
    rows = SETS["replies"]
    assert {row["label"] for row in rows} == {"full", "partial", "unsure", "none", "answer"}
    assert {row["split"] for row in rows} <= {"dev", "test"}
    assert len({(row["prompt"], row["reply"]) for row in rows}) == len(rows)
    for language in MEASURED:
        labels = Counter(row["label"] for row in rows if row["language"] == language)
        assert 0.3 <= labels["full"] / labels.total() <= 0.6
        assert {"full", "partial", "unsure", "none"} <= set(labels)


def test_forgetting_has_texts_and_conversations_of_every_topic() -> None:
    rows = SETS["forgetting"]
    texts = [row for row in rows if "text" in row]
    talks = [row for row in rows if "messages" in row]
    assert (len(texts), len(talks)) == (48, 24)
    assert {row["topic"] for row in texts} == {row["topic"] for row in talks} == TOPICS["forgetting"]
    assert all(60 <= len(row["text"].split()) <= 110 for row in texts)
    assert len({row["text"] for row in texts}) == 48
    for row in talks:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert 20 <= len(row["messages"][1]["content"].split()) <= 110, row["id"]


def test_python_in_the_texts_is_python() -> None:
    code = [row["text"] for row in SETS["forgetting"] if row["topic"] == "code" and "def " in row.get("text", "")]
    assert len(code) == 2
    for text in code:
        ast.parse(text)


def test_the_fingerprints_of_the_sets_are_those_of_earlier_evaluations(tmp_path: Path) -> None:
    """Evaluations from before a renaming of classes or fields are not measured again: these hashes are of 9e8a585."""
    config = EvaluateConfig(tasks=["forgetting", "answers"])
    hashes = input_hashes(Plan(tmp_path, {"base": "owner/name"}, "base", config))
    assert {name: hashes[name] for name in ("forgetting", "prompts")} == {
        "forgetting": "3bccf8cc69c34694",
        "prompts": "d2b8c510d499a53d",
    }


def test_a_gate_names_a_topic_or_a_level_of_its_set(tmp_path: Path) -> None:
    """Of trueup's own sets and of a user's; the check before training reads the rows."""
    rows = [
        {"question": "1?", "answer": "1", "topic": "sums/small", "level": "easy"},
        {"question": "2?", "answer": "2"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = EvaluateConfig.model_validate({"capability": str(tmp_path / "q.jsonl")})
    check_sets(own, GatesConfig(slices={"capability_drop": {"sums": 0.1, "sums/small": 0.1, "easy": 0.1}}))
    check_sets(
        EvaluateConfig(),
        GatesConfig(slices={"capability_drop": {"maths": 0.1, "level 3": 0.1}, "win_rate": {"list": 0.4}}),
    )
    with pytest.raises(
        ConfigError, match=r"capability_drop.math: no row has this .*did you mean maths\? .*coding, maths"
    ):
        check_sets(EvaluateConfig(), GatesConfig(slices={"capability_drop": {"math": 0.1}}))
    with pytest.raises(
        ConfigError, match=r"over_refusal_rise.maths: no row has this topic or level \(the rows have: comp"
    ):
        check_sets(EvaluateConfig(), GatesConfig(slices={"over_refusal_rise": {"maths": 0.1}}))
