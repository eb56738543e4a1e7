"""Messages that are context only, errors with a kind, and texts in which nothing is visible."""

from __future__ import annotations

import pickle

import pytest

from tiny import END_ID, tiny_tokenizer
from trueup.cli.failures import error_message
from trueup.config import DataConfig
from trueup.data.example import single
from trueup.data.rendering.messages import Message, Origin, check, row_error
from trueup.data.rendering.renderer import Renderer
from trueup.data.sources.parser import Parser
from trueup.data.tokens.pack import Task, pack
from trueup.errors import DataError
from trueup.system.text import is_blank

Q, AGAIN = Message("user", "q"), Message("user", "again")


def talk(first: bool, last: bool) -> tuple[Message, ...]:
    return Q, Message("assistant", "BAD", trained=first), AGAIN, Message("assistant", "GOOD", trained=last)


@pytest.mark.parametrize(("first", "last"), [(True, True), (False, True), (True, False), (False, False)])
def test_only_trained_messages_are_in_the_mask(first: bool, last: bool) -> None:
    renderer = Renderer(tiny_tokenizer())
    plain, rendered = renderer.conversation(talk(True, True)), renderer.conversation(talk(first, last))
    assert rendered.ids == plain.ids
    texts = [str(renderer.tokenizer.decode([i])) for i, kept in zip(rendered.ids, rendered.mask, strict=True) if kept]
    expected = ("BAD<|im_end|>" if first else "") + ("GOOD<|im_end|>" if last else "")
    assert "".join(texts) == expected


def test_what_follows_the_last_trained_token_is_left_out() -> None:
    renderer = Renderer(tiny_tokenizer())
    example = single(renderer.conversation(talk(True, False)))
    assert all(example.branches[0].mask)
    assert example.branches[0].ids[-1] == END_ID
    whole = single(renderer.conversation(talk(True, True)))
    assert [*example.trunk, *example.branches[0].ids] == [*whole.trunk, *whole.branches[0].ids][: example.longest]
    assert single(renderer.conversation(talk(False, False))).branches[0].trained == 0


def test_a_pair_s_earlier_answers_may_be_context() -> None:
    renderer = Renderer(tiny_tokenizer())
    _, (chosen,) = renderer.pair((Q,), (talk(False, True)[1:],))
    assert "".join(
        str(renderer.tokenizer.decode([i])) for i, kept in zip(chosen.ids, chosen.mask, strict=True) if kept
    ) == "GOOD<|im_end|>"  # fmt: skip


BLANK = [
    "", " \n\t", "\u200b", "\u200b \ufeff", "\u2060\u200d", "\x00\x07", "\u3164", "\u2800", "\u202e", "\ufe0f",
    "\u00ad", " " * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", BLANK)
def test_nothing_is_visible(text: str) -> None:
    assert is_blank(text)
    with pytest.raises(DataError, match=r"message 2 .assistant. is empty"):
        check([Q, Message("assistant", text)])
    check([Q, Message("assistant", text)], empty_ok=True)


@pytest.mark.parametrize("text", ["a", ".", "\u200bb", "👩\u200d🚀", "\u0301", "ー", " " * 5000 + "x", "\U0001faea"])
def test_something_is_visible(text: str) -> None:
    assert not is_blank(text)


KINDS = [
    ("turn-order", [Message("assistant", "a"), Q, Message("assistant", "b")]),
    ("turn-order", [Q, Q, Message("assistant", "b")]),
    ("unknown-role", [Q, Message("narrator", "b")]),
    ("empty", [Q, Message("assistant", "")]),
    ("no-answer", [Q]),
]


@pytest.mark.parametrize(("kind", "messages"), KINDS)
def test_an_error_names_the_kind_by_which_its_row_is_left_out(kind: str, messages: list[Message]) -> None:
    with pytest.raises(DataError, match=rf"skip: \[{kind}\]") as caught:
        check(messages)
    assert pickle.loads(pickle.dumps(caught.value)).kind == kind
    assert row_error(None, "p", "f").kind == ""
    assert "skip" not in str(row_error(None, "p", "f"))


class PanicException(BaseException):
    """A panic of a library written in Rust."""


def test_a_panic_of_the_tokenizer_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    renderer = Renderer(tiny_tokenizer())
    monkeypatch.setattr(renderer, "conversation", panic)
    parser, origin = Parser("conversation"), Origin("x.jsonl", 3)
    row: dict[str, object] = {"prompt": "p", "completion": "c"}
    parser.start(origin, row)
    account = pack(Task(parser, renderer, DataConfig(path="x.jsonl")), 0, [(origin, row)]).account
    assert "x.jsonl:3: the tokenizer's library fails on this row" in str(account.first)
    assert error_message(PanicException("index out of bounds"))[0].startswith("error: PanicException: index out")
