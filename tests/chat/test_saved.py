"""Rows of a chat in a file: readable by trueup.data.sources, of one kind, none twice, and nobody else's row touched."""

from __future__ import annotations

import json
import os

import pytest

from trueup.chat.saved import ChatFile, SaveCounts, as_line
from trueup.config import DataConfig
from trueup.data.rendering.messages import Conversation, Message, Preference
from trueup.data.sources.stream import RowStream
from trueup.errors import DataError


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def talk(*texts: str) -> dict:
    return {"messages": turns(*texts)}


def ranking(asked: str, chosen: str, rejected: str) -> dict:
    return {
        "prompt": turns(asked),
        "chosen": turns("", chosen)[1:],
        "rejected": turns("", rejected)[1:],
        "model_chosen": "runs/dpo",
        "model_rejected": "runs/sft",
    }


def read(path, want) -> list:
    return list(RowStream(DataConfig(path=str(path)), want))


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_conversations_are_made_and_added(tmp_path):
    path = tmp_path / "new folder" / "talks.jsonl"
    saved = ChatFile()
    assert saved.save(path, [talk("hi", "Hello.")], "conversation") == SaveCounts(1, 0, 1)
    assert saved.save(path, [talk("why", "So.")], "conversation") == SaveCounts(1, 0, 2)
    assert read(path, "conversation")[1] == Conversation(
        (Message("user", "why"), Message("assistant", "So.")), read(path, "conversation")[1].origin
    )


def test_rankings_load_with_their_models_beside_them(tmp_path):
    path = tmp_path / "r.jsonl"
    ChatFile().save(path, [ranking("hi", "Hello.", "No."), ranking("why", "So.", "Eh.")], "ranking")
    [first, second] = read(path, "preference")
    assert isinstance(first, Preference)
    assert (first.chosen[0].content, second.rejected[0].content) == ("Hello.", "Eh.")
    assert rows(path)[0]["model_chosen"] == "runs/dpo"


def test_nothing_is_saved_twice_not_even_by_another_session(tmp_path):
    path = tmp_path / "talks.jsonl"
    one = talk("hi", "Hello.")
    saved = ChatFile()
    saved.save(path, [one], "conversation")
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert saved.save(path, [one], "conversation") == SaveCounts(0, 0, 1)
    assert ChatFile().save(path, [one], "conversation") == SaveCounts(0, 0, 1)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_conversation_that_went_on_takes_its_row_s_place(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_bytes(as_line(talk("mine", "Yes.")) + b"\n")
    path.chmod(0o600)
    saved = ChatFile()
    saved.save(path, [talk("hi", "Hello.")], "conversation")
    with path.open("ab") as other:
        other.write(as_line(talk("theirs", "Too.")) + b"\n")
    assert saved.save(path, [talk("hi", "Hello.", "why", "So.")], "conversation") == SaveCounts(0, 1, 3)
    assert rows(path) == [talk("mine", "Yes."), talk("hi", "Hello.", "why", "So."), talk("theirs", "Too.")]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_conversation_that_went_otherwise_is_another_row(tmp_path):
    path = tmp_path / "talks.jsonl"
    saved = ChatFile()
    first, second = talk("hi", "Hello.", "why", "So."), talk("hi", "Hello.", "why", "No.")
    saved.save(path, [first], "conversation")
    assert saved.save(path, [second], "conversation") == SaveCounts(1, 0, 2)
    assert rows(path) == [first, second]


def test_another_session_s_row_is_not_replaced(tmp_path):
    path = tmp_path / "r.jsonl"
    ChatFile().save(path, [ranking("hi", "Hello.", "No.")], "ranking")
    assert ChatFile().save(path, [ranking("hi", "No.", "Hello.")], "ranking") == SaveCounts(1, 0, 2)


def test_a_choice_turned_round_takes_its_row_s_place(tmp_path):
    path = tmp_path / "r.jsonl"
    saved = ChatFile()
    other = ranking("why", "So.", "Eh.")
    saved.save(path, [ranking("hi", "Hello.", "No."), other], "ranking")
    assert saved.save(path, [ranking("hi", "No.", "Hello."), other], "ranking") == SaveCounts(0, 1, 2)
    assert rows(path) == [ranking("hi", "No.", "Hello."), other]


def test_a_last_line_without_its_end_gets_one(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_bytes(as_line(talk("hi", "Hello.")))
    ChatFile().save(path, [talk("why", "So.")], "conversation")
    assert rows(path) == [talk("hi", "Hello."), talk("why", "So.")]


def test_control_characters_are_escaped_and_letters_are_not(tmp_path):
    path = tmp_path / "talks.jsonl"
    nasty = "\x1b[2J\x00\x7f\x85\u2028\u202e\U000e0001 日本 é 👩\u200d🔬"
    ChatFile().save(path, [talk("hi", nasty)], "conversation")
    written = path.read_text(encoding="utf-8")
    assert not any(char in written for char in "\x1b\x00\x7f\x85\u2028\u202e\U000e0001")
    assert "日本 é 👩" in written
    assert read(path, "conversation")[0].response == nasty


TALK, RANKED = as_line(talk("hi", "Hello.")), as_line(ranking("hi", "Hello.", "No."))
MARGIN = json.dumps(ranking("hi", "Hello.", "No.") | {"margin": 1.0}).encode()


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (RANKED, "conversation", "f.jsonl:1: the file holds no conversations, and a file's rows are of one kind"),
        (TALK, "ranking", "f.jsonl:1: the file holds no rankings"),
        (b'{"prompt": "a", "completion": "b"}', "conversation", "f.jsonl:1: the file holds no conversations"),
        (as_line({"messages": turns("only asked")}), "conversation", "f.jsonl:1: the file holds no conversations"),
        (as_line({"conversations": turns("a", "b")}), "conversation", 'f.jsonl:2: no "conversations", the row has'),
        (MARGIN, "ranking", 'f.jsonl:2: no "margin", the row has'),
        (TALK + b"\n\n" + RANKED, "conversation", 'f.jsonl:3: no "messages"'),
        (TALK + b"\n" + TALK[:20], "conversation", "f.jsonl:2: not JSON: "),
        (b"[1]\n", "conversation", "f.jsonl:1: is no row of named fields"),
        (b"\xff\n", "conversation", "f.jsonl:1: not JSON: "),
    ],
)
def test_a_file_that_the_rows_do_not_fit_is_left_as_it_was(content, kind, said, tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    new = talk("why", "So.") if kind == "conversation" else ranking("why", "So.", "Eh.")
    with pytest.raises(DataError) as caught:
        ChatFile().save(path, [new], kind)
    assert said in str(caught.value)
    assert "fix: " in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6
    assert path.read_bytes() == content


def test_a_row_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"f.jsonl:1: message 2 \(assistant\) is empty"):
        ChatFile().save(tmp_path / "f.jsonl", [talk("hi", " ")], "conversation")
    assert not (tmp_path / "f.jsonl").exists()


def test_the_name_and_the_folder(tmp_path):
    with pytest.raises(DataError, match=r"f.json: rows are saved as JSON lines\n  fix: end the name in .jsonl"):
        ChatFile().save(tmp_path / "f.json", [talk("hi", "Hello.")], "conversation")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be saved to: (not a directory|file exists)"):
        ChatFile().save(tmp_path / "file" / "f.jsonl", [talk("hi", "Hello.")], "conversation")
    (tmp_path / "g.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be saved to: is a directory"):
        ChatFile().save(tmp_path / "g.jsonl", [talk("hi", "Hello.")], "conversation")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.jsonl").write_bytes(b"")
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "real.jsonl")
    saved = ChatFile()
    saved.save(link, [talk("hi", "Hello.")], "conversation")
    saved.save(link, [talk("hi", "Hello.", "why", "So.")], "conversation")
    assert link.is_symlink()
    assert rows(tmp_path / "real.jsonl") == [talk("hi", "Hello.", "why", "So.")]
