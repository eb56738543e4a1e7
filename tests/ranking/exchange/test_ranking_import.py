"""Rankings of other tools, as their files are, of our own exports and of other stores: all of a file or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_votes import checked_message, make_store, new_pair, undo, vote
from trueup.data.votes.importing import ImportedVote
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Ballot, Choice, Vote
from trueup.errors import DataError
from trueup.ranking.exchange import Imported, count_empty_messages, empty_message_note, export, import_file, read_pairs


def write(path: Path, *rows: Any) -> str:
    """JSON lines, or lines as they are given. -> the file's name."""
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


RANKING = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
ARENA = {
    "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
    "model_a": "chatglm-6b",
    "model_b": "koala-13b",
    "winner": "model_b",
    "judge": "arena_user_973",
    "conversation_a": [user("What is the difference?"), assistant("None.")],
    "conversation_b": [user("What is the difference?"), assistant("OpenCL is open.")],
    "turn": 1,
    "anony": True,
    "language": "English",
    "tstamp": 1682351591.1322,
}
MT_BENCH = {
    "question_id": 81,
    "model_a": "alpaca-13b",
    "model_b": "gpt-3.5-turbo",
    "winner": "model_a",
    "judge": "author_2",
    "conversation_a": [user("Compose a post."), assistant("Aloha."), user("Rewrite it."), assistant("A.")],
    "conversation_b": [user("Compose a post."), assistant("I went."), user("Rewrite it."), assistant("Again.")],
    "turn": 1,
}
OPEN_INSTRUCT = {
    "id": 1, "instance_index": 0, "instance_id": "user_oriented_task_165", "prompt": "Rewrite it.",
    "model_a": "tulu", "model_b": "chatgpt", "completion_a": "A text.", "completion_b": "B text.",
    "completion_a_is_acceptable": "yes", "completion_b_is_acceptable": "yes", "preference": "b-is-slightly-better",
    "instance_quality": "", "comment": "", "evaluator": "annotator 1", "timestamp": "2023-05-22 10:15:32",
}  # fmt: skip
LABEL_STUDIO = {
    "id": 7,
    "data": {"prompt": "Capital?", "answer1": "Paris.", "answer2": "Lyon."},
    "annotations": [
        {
            "id": 1, "completed_by": 3, "was_cancelled": False, "created_at": "2025-01-15T10:35:00Z",
            "result": [{"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise",
                        "value": {"selected": "left"}}],
        },
        {
            "id": 2, "completed_by": {"email": "ann@example.org"}, "was_cancelled": False,
            "result": [{"type": "pairwise", "value": {"selected": "answer2"}}],
        },
        {"id": 3, "completed_by": 4, "was_cancelled": True, "result": []},
    ],
}  # fmt: skip
ORDER = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}, {"value": "response-3", "rank": 2}]
FIELDS = {"prompt": "Which?", "response-1": "One.", "response-2": "Two.", "response-3": "Three."}
ARGILLA = {
    "id": "r1", "fields": FIELDS, "metadata": {}, "suggestions": {}, "vectors": {}, "_server_id": "x",
    "responses": {"preference": [{"value": ORDER, "user_id": "u-1"}], "why": [{"value": "clear", "user_id": "u-1"}]},
}  # fmt: skip
ARGILLA_FLAT = {
    "id": "r1", **FIELDS, "preference.responses": [ORDER], "preference.responses.users": ["u-1"],
    "preference.responses.status": ["submitted"],
}  # fmt: skip
KAGGLE = {
    "id": 30192, "model_a": "gpt-4", "model_b": "vicuna", "prompt": json.dumps(["Is it moral?"]),
    "response_a": json.dumps(["It is."]), "response_b": json.dumps(["It depends."]),
    "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0,
}  # fmt: skip
ALPACA = {
    "instruction": "Say hi.",
    "input": "",
    "output_1": "Hi.",
    "output_2": "No.",
    "preference": 2,
    "annotator": "x",
}


def imported(folder: Path, *rows: Any, name: str = "rows.jsonl", **more: Any) -> Imported:
    """Import rows into folder/votes.db; what is said of them adds up."""
    done = import_file(folder / "votes.db", write(folder / name, *rows), **more)
    assert done.rows == done.judged + sum(map(len, done.left_out.values()))
    assert done.votes == done.new + done.known + done.replaced
    return done


def told(folder: Path) -> list[tuple[str, Any, str, str, str, str, int | None, str]]:
    """Of each vote: who, the prompt, the better answer's text and model (or the choice), A's text, when."""
    with Store.open(folder / "votes.db") as store:
        pairs = {pair.id: pair for pair in store.pairs()}
        return [_told(vote, pairs[vote.ballot.pair]) for vote in store.votes()]


def _told(vote: Vote, pair: Any) -> Any:
    choice: Choice = vote.ballot.choice
    best = pair.answer(choice) if choice in ("first", "second") else None
    text, model = (best.text, best.model) if best else (choice, "")
    asked = [message.content for message in pair.prompt.messages]
    return vote.rater.name, asked, text, model, pair.answer(vote.left).text, vote.at, vote.ballot.strength


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ARENA, [("arena_user_973", ["What is the difference?"], "OpenCL is open.", "koala-13b", "None.",
                  "2023-04-24T15:53:11.132+00:00", None)]),
        (MT_BENCH, [("author_2", ["Compose a post."], "Aloha.", "alpaca-13b", "Aloha.", "", None)]),
        (OPEN_INSTRUCT, [("annotator 1", ["Rewrite it."], "B text.", "chatgpt", "A text.",
                          "2023-05-22T10:15:32.000+00:00", 1)]),
        (OPEN_INSTRUCT | {"preference": "a-is-better", "model_a": "tulu"},
         [("annotator 1", ["Rewrite it."], "A text.", "tulu", "A text.", "2023-05-22T10:15:32.000+00:00", 2)]),
        (LABEL_STUDIO, [("3", ["Capital?"], "Paris.", "", "Paris.", "2025-01-15T10:35:00.000+00:00", None),
                        ("ann@example.org", ["Capital?"], "Lyon.", "", "Paris.", "", None)]),
        (KAGGLE, [("imported from rows.jsonl", ["Is it moral?"], "It is.", "gpt-4", "It is.", "", None)]),
        (ALPACA, [("x", ["Say hi."], "No.", "", "Hi.", "", None)]),
        ({"prompt": "p", "a": "x", "b": "y", "winner": "TIE"},
         [("imported from rows.jsonl", ["p"], "tie", "", "x", "", None)]),
        ({"prompt": "p", "response_a": "x", "response_b": "y", "winner": "tie (bothbad)"},
         [("imported from rows.jsonl", ["p"], "both_bad", "", "x", "", None)]),
        ({"prompt": "p", "response_a": "x", "response_b": "y", "model_a": "one", "model_b": "two", "winner": "two"},
         [("imported from rows.jsonl", ["p"], "y", "two", "x", "", None)]),
    ],
)  # fmt: skip
def test_the_formats_of_other_tools(tmp_path: Path, row: Any, said: list[Any]) -> None:
    imported(tmp_path, row)
    found = [
        one if when else (*one[:5], "", one[6]) for one, when in zip(told(tmp_path), [s[5] for s in said], strict=True)
    ]
    assert found == said


@pytest.mark.parametrize("row", [ARGILLA, ARGILLA_FLAT])
def test_a_ranking_of_three_is_three_pairs(tmp_path: Path, row: Any) -> None:
    """response-2 before both others, and these are equal."""
    assert imported(tmp_path, row).pairs == 3
    assert {one[2] for one in told(tmp_path)} == {"Two.", "tie"}
    assert sorted(one[2] for one in told(tmp_path)) == ["Two.", "Two.", "tie"]
    assert {one[0] for one in told(tmp_path)} == {"u-1"}


def test_messages_of_parts_of_text(tmp_path: Path) -> None:
    """Arena's data since 2024; a picture cannot be ranked here."""

    def parts(text: str) -> dict[str, Any]:
        kinds = {"image": None, "mimeType": None}
        return {"role": "user" if text == "Q" else "assistant", "content": [{"type": "text", "text": text, **kinds}]}

    row = {"model_a": "x", "model_b": "y", "winner": "both_bad"}
    talk = {"conversation_a": [parts("Q"), parts("A")], "conversation_b": [parts("Q"), parts("B")]}
    picture = {"role": "user", "content": [{"type": "image", "text": None, "image": "u"}]}
    shown = {"conversation_a": [picture, parts("A")], "conversation_b": [picture, parts("B")]}
    done = imported(tmp_path, row | talk, row | shown)
    assert [one[1:3] for one in told(tmp_path)] == [(["Q"], "both_bad")]
    assert {why: [origin.line for origin in places] for why, places in done.left_out.items()} == {
        "a message holds more than text": [2]
    }


def test_conversations_that_part_early_are_counted(tmp_path: Path) -> None:
    done = imported(tmp_path, MT_BENCH, MT_BENCH | {"turn": 2}, MT_BENCH | {"turn": 2, "judge": "b"})
    assert (done.rows, done.judged, done.new) == (3, 1, 1)
    ((why, places),) = done.left_out.items()
    assert "differ before their last answers" in why
    assert [origin.line for origin in places] == [2, 3]
    assert "2 rows left out" in str(done)
    assert "lines 2, 3" in str(done)


def test_a_file_of_nothing_but_what_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        imported(tmp_path, MT_BENCH | {"turn": 2}, {**RANKING, "rejected": "Because. "})
    assert "none of 2 rows ranks a pair" in checked_message(caught.value)
    assert not (tmp_path / "votes.db").exists()


# Who said it, and twice.


def test_a_pair_is_one_pair_whichever_answer_comes_first(tmp_path: Path) -> None:
    done = imported(tmp_path, ARENA, ARENA | {
        "judge": "other", "model_a": "koala-13b", "model_b": "chatglm-6b", "winner": "model_b",
        "conversation_a": ARENA["conversation_b"], "conversation_b": ARENA["conversation_a"],
    })  # fmt: skip
    assert (done.new, done.pairs, done.raters) == (2, 1, 2)
    assert [(one[0], one[2], one[4]) for one in told(tmp_path)] == [
        ("arena_user_973", "OpenCL is open.", "None."),
        ("other", "None.", "OpenCL is open."),
    ]


def test_which_answer_is_first_says_nothing(tmp_path: Path) -> None:
    """Were chosen always first, whoever looks at the page's source would know; of 40, 20 are expected."""
    imported(tmp_path, *[RANKING | {"prompt": f"Why {at}?", "chosen": f"So {at}."} for at in range(40)])
    with Store.open(tmp_path / "votes.db") as store:
        first = sum(vote.ballot.choice == "first" for vote in store.votes())
        left = sum(vote.left == vote.ballot.choice for vote in store.votes())
    assert 8 <= first <= 32
    assert 8 <= left <= 32


def test_rows_without_a_rater_are_of_several_people_where_they_speak_of_one_pair(tmp_path: Path) -> None:
    turned = {"prompt": "Why?", "chosen": "No.", "rejected": "Because."}
    done = imported(tmp_path, RANKING, turned, RANKING)
    assert (done.new, done.pairs, done.raters) == (3, 1, 3)
    assert [one[0] for one in told(tmp_path)] == [f"imported from rows.jsonl{end}" for end in ("", " (2)", " (3)")]
    again = imported(tmp_path, RANKING, turned, RANKING)
    assert (again.new, again.known) == (0, 3)
    assert imported(tmp_path, RANKING, rater="Ann").new == 1
    assert told(tmp_path)[-1][0] == "Ann"


def test_a_long_name_of_a_file(tmp_path: Path) -> None:
    assert imported(tmp_path, RANKING, RANKING, name="x" * 100 + ".jsonl").raters == 2


def test_the_last_word_of_a_named_rater_counts(tmp_path: Path) -> None:
    """open-instruct's page adds a row where somebody changes an answer."""
    rows = [OPEN_INSTRUCT, OPEN_INSTRUCT, OPEN_INSTRUCT | {"preference": "tie"}, OPEN_INSTRUCT | {"evaluator": "2"}]
    done = imported(tmp_path, *rows, OPEN_INSTRUCT | {"preference": "", "instance_quality": "bad"})
    assert (done.rows, done.votes, done.new, done.known, done.replaced) == (5, 4, 2, 0, 2)
    assert [(one[0], one[2]) for one in told(tmp_path)] == [("annotator 1", "tie"), ("2", "B text.")]
    assert list(done.left_out) == ["feedback on a prompt, no ranking"]


def test_what_contradicts_a_vote_that_stands_enters_nothing(tmp_path: Path) -> None:
    imported(tmp_path, ARENA)
    with pytest.raises(DataError) as caught:
        imported(tmp_path, RANKING | {"rater": "Ann"}, ARENA | {"winner": "tie"}, name="more.jsonl")
    message = checked_message(caught.value)
    assert "more.jsonl:2: arena_user_973 voted" in message
    assert len(told(tmp_path)) == 1
    with Store.open(tmp_path / "votes.db") as store:
        assert len(store.pairs()) == 1


def test_a_store_takes_all_or_nothing_of_what_it_is_given(tmp_path: Path) -> None:
    """Also where the vote that it does not take comes after hundreds, and in another transaction's place."""
    given: list[ImportedVote] = [(new_pair(at), "a", Ballot("", 0, "first"), "", "first") for at in range(600)]
    with Store.open(tmp_path / "votes.db", create=True) as store:
        with pytest.raises(DataError, match="before"):
            store.import_votes([*given, (new_pair(0), "a", Ballot("", 0, "tie"), "", "first")])
        counts = store.counts()
    assert (counts.pairs, counts.votes, counts.raters, counts.events) == (0, 0, 0, 0)


# A bad line.


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (ARENA | {"winner": "model_c"}, '"winner" is "model_c", which names no answer'),
        (ARENA | {"winner": None}, '"winner" is null'),
        (ARENA | {"tstamp": "yesterday"}, "the time cannot be read"),
        (ARENA | {"conversation_b": [user("Another?"), assistant("x")]}, "do not begin with the same user message"),
        ({"prompt": "p", "answer_a": "x", "answer_b": "y", "winner": 0}, "names no answer"),
        ({"prompt": "p", "answer_a": "x", "answer_b": 7, "winner": "a"}, '"answer_b" is a number'),
        ({"prompt": "p", "answer_a": "x", "winner": "a"}, "the row holds no ranking"),
        (ARGILLA | {"fields": {"prompt": "Which?", "response-1": "One."}}, '"response-2", not one of the fields'),
        (LABEL_STUDIO | {"data": {"prompt": "p", "left": "x", "right": "y"}}, "data holds no pair of answers"),
        (KAGGLE | {"winner_tie": 1}, "not a single 1 and two 0"),
        (KAGGLE | {"response_a": "not JSON"}, "expected a JSON list of texts"),
        (OPEN_INSTRUCT | {"comment": "x" * 3000}, "the note has 3,000 characters"),
        ("{oops\n", "broken JSON"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_entered(tmp_path: Path, bad: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        imported(tmp_path, RANKING, bad, RANKING, bad)
    message = checked_message(caught.value)
    assert "rows.jsonl:2: " in message
    assert says in message
    assert "also unusable: line 4, of 4 rows read" in message
    assert not (tmp_path / "votes.db").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        {"choice": "first"}, {"choice": ["chosen"]}, {"choice": "tie", "strength": 2}, {"strength": 4},
        {"strength": 0.5}, {"rater": None}, {"rater": "x" * 99}, {"left": "first"}, {"seconds": "3"}, {"seconds": -1},
        {"at": "now"}, {"reasons": "clear"}, {"note": "x" * 3000},
    ],
)  # fmt: skip
def test_a_bad_vote_in_a_row_of_ours(tmp_path: Path, spoil: Any) -> None:
    export(make_store(tmp_path / "from.db", "1"), tmp_path / "from.jsonl")
    row = json.loads((tmp_path / "from.jsonl").read_text())
    with pytest.raises(DataError) as caught:
        imported(tmp_path, row | {"votes": [row["votes"][0] | spoil]})
    checked_message(caught.value)
    assert "rows.jsonl:1" in str(caught.value)


# There and back.

PASSING = ("event", "policy", "score")


def exported(path: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    """Rows without what is a store's own: numbers of pairs and events, and how a pair was chosen there."""
    export(path, out, **more)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    for row in found:
        del row["pair"]
        for one in row["votes"]:
            event, _, _ = (one.pop(key) for key in PASSING)
            assert event > 0
    return found


@pytest.mark.parametrize("votes", ["majority", "every"])
def test_an_export_imported_and_exported_is_the_same(tmp_path: Path, votes: str) -> None:
    path = make_store(tmp_path / "from.db", "1", "2", "221", "t", "11s", "b")
    vote(path, 1, " 12", strength=2, reasons=("clear", "my own"), note="Ü\u2028", seconds=1.5)
    before = exported(path, tmp_path / "one.jsonl", votes=votes)
    import_file(tmp_path / "to.db", str(tmp_path / "one.jsonl"))
    assert exported(tmp_path / "to.db", tmp_path / "two.jsonl", votes=votes) == before


@pytest.mark.parametrize("said", ["1", "2"])
def test_an_exported_gold_pair_is_one_again(tmp_path: Path, said: str) -> None:
    """With the answer known to be better, whatever its raters said."""
    path = make_store(tmp_path / "from.db", "1", gold=said)
    plain, gold = before = exported(path, tmp_path / "one.jsonl", gold=True)
    assert ("gold" in plain, gold["gold"]) == (False, {"1": "chosen", "2": "rejected"}[said])
    import_file(tmp_path / "to.db", str(tmp_path / "one.jsonl"))
    assert exported(tmp_path / "to.db", tmp_path / "two.jsonl", gold=True) == before
    with Store.open(tmp_path / "to.db") as store:
        known = [pair.answer(pair.gold).text for pair in store.pairs() if pair.gold]
    assert known == [new_pair(1).first.text]
    with pytest.raises(DataError) as caught:
        import_file(tmp_path / "to.db", write(tmp_path / "x.jsonl", gold | {"gold": True}))
    assert "x.jsonl:1: gold names no answer" in checked_message(caught.value)


def test_a_store_imported_is_all_of_its_votes(tmp_path: Path) -> None:
    path = make_store(tmp_path / "from.db", "1", "t", "b", "s", "12", gold="2")
    vote(path, 1, " 2", edit="Better.", edit_of="first")
    undo(path, "a")  # the vote on the gold pair
    vote(path, 6, "1")
    done = import_file(tmp_path / "votes.db", str(path))
    assert (done.new, done.pairs, done.raters) == (8, 6, 2)
    one, two = (
        exported(store, tmp_path / f"{name}.jsonl", gold=True, edits=tmp_path / f"{name}-edits.jsonl")
        for name, store in (("one", path), ("two", tmp_path / "votes.db"))
    )
    assert one == two
    with Store.open(tmp_path / "votes.db") as store:
        assert sum(pair.gold is not None for pair in store.pairs()) == 1
        assert [vote.ballot.edit for vote in store.votes() if vote.ballot.edit] == ["Better."]
    with pytest.raises(DataError, match="into itself"):
        import_file(path, str(path))


def test_any_form_of_file(tmp_path: Path) -> None:
    rows = [RANKING, RANKING | {"prompt": "And?"}]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected\nWhy?,Because.,No.\nAnd?,Because.,No.\n")
    for name in ("x.json", "x.csv"):
        assert import_file(tmp_path / f"{name}.db", str(tmp_path / name)).new == 2


def test_one_is_no_plural_and_empty_messages_are_said(tmp_path: Path) -> None:
    done = str(imported(tmp_path, RANKING, RANKING | {"rejected": "Because."}))
    assert "rows.jsonl: 2 rows, 1 new vote on 1 pair by 1 rater\n  1 row left out: " in done
    assert "empty" not in done
    more = [RANKING | {"rejected": "", "annotator": name} for name in "ab"]  # two votes on one pair
    done = str(imported(tmp_path, *more, RANKING | {"prompt": "And?", "rejected": " \n"}))
    assert "2 messages are empty: training on such pairs needs allow=[empty-response]" in done.splitlines()[-1]


def test_empty_messages_of_pairs(tmp_path: Path) -> None:
    silent = {"prompt": [user("a"), assistant(""), user("b")], "response_a": "", "response_b": "No."}
    pairs = read_pairs(write(tmp_path / "pairs.jsonl", RANKING, silent))
    assert count_empty_messages(pairs) == 2
    assert empty_message_note(count_empty_messages(pairs[:1])) == ""
    assert empty_message_note(1).startswith("1 message is empty")


def test_an_import_that_fails_leaves_no_store(tmp_path: Path) -> None:
    """A prompt with tools is refused when the store is open already; one that existed stays as it was."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    good = write(tmp_path / "good.jsonl", RANKING)
    bad = write(tmp_path / "bad.jsonl", RANKING, {**RANKING, "prompt": "And?", "tools": [tool]})
    with pytest.raises(DataError, match="a prompt holds tools or tool calls"):
        import_file(tmp_path / "new.db", bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]
    import_file(tmp_path / "old.db", good)
    with pytest.raises(DataError, match="a prompt holds tools or tool calls"):
        import_file(tmp_path / "old.db", bad)
    with Store.open(tmp_path / "old.db") as store:
        assert len(store.votes()) == 1
