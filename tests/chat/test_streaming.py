"""A chat shows text while tokens come: in the end the cleaned answer, without taking a letter back."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorough import trials
from tiny import END_ID, PAD_ID, tiny_tokenizer
from trueup.chat import screen
from trueup.chat.streaming import AnswerStream, cut
from trueup.data.rendering.renderer import Renderer
from trueup.system.text import clean

RENDERER = Renderer(tiny_tokenizer())


def tokens(text: str) -> list[int]:
    return RENDERER.tokenizer(text, add_special_tokens=False)["input_ids"]


def played(ids: list[int], stops: list[str], decode=RENDERER.decode) -> tuple[list[str], str, list[int]]:
    """-> the pieces shown, the answer, the tokens that were taken."""
    pieces: list[str] = []
    stream = AnswerStream(decode, stops, pieces.append)
    for token in ids:
        if not stream.add(token):
            break
    return pieces, stream.end(), stream.ids


def cut_by_reading(text: str, stops: list[str]) -> str:
    """The text before the stop that a reader, letter by letter, meets first; of two that end there, the longer."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            return text[: end - max(map(len, met))]
    return text


# Few letters, so that stops are met; half characters (the bytes of "é" and "€"), spaces, an escape, specials.
PIECE = st.sampled_from(
    [*(tokens(one)[at] for one in ("é", "€") for at in range(len(tokens(one)))), *tokens("ab \n\x1b")]
)
IDS = st.lists(PIECE | st.sampled_from([END_ID, PAD_ID, 263]), max_size=24)
STOPS = st.lists(st.text("ab \né", min_size=1, max_size=4), max_size=3)


@trials(400)
@given(IDS, STOPS)
def test_the_shown_text_is_the_cleaned_answer(ids, stops):
    pieces, answer, taken = played(ids, stops)
    assert "".join(pieces) == clean(answer)
    assert answer == cut_by_reading(RENDERER.decode(taken), stops)
    assert not any(stop in answer for stop in stops)
    assert all(pieces)


@trials(200)
@given(st.text("ab \n", max_size=16), STOPS, st.data())
def test_tokens_do_not_decide_where_it_is_cut(text, stops, data):
    """Whole words as tokens give the answer that letters give."""
    borders = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    words = [text[a:b] for a, b in pairwise(borders)]
    _, by_word, _ = played(list(range(len(words))), stops, lambda ids: "".join(words[at] for at in ids))
    assert by_word == played(tokens(text), stops)[1] == cut_by_reading(text, stops)


def test_certain_text_is_shown_at_once():
    """ "c" cannot begin a stop, "\\nU" can: it comes only when "x" has shown that it does not."""
    pieces, answer, _ = played(tokens("abc\nUx"), ["\nUser:"])
    assert pieces == ["a", "b", "c", "\nUx"]
    assert answer == "abc\nUx"


def test_nothing_of_a_stop_is_ever_shown():
    pieces, answer, taken = played(tokens("yes\nUser: no"), ["\nUser:"])
    assert pieces == ["y", "e", "s"]
    assert answer == "yes"
    assert RENDERER.decode(taken) == "yes\nUser:", "it stops with the token that completes the stop text"


def test_half_characters_wait_and_stray_bytes_are_shown():
    first, second = tokens("é")
    assert played([first], [])[0] == ["\ufffd"]
    assert played([first, second, first, *tokens("a")], [])[0] == ["é", "\ufffda"]


def test_spaces_that_the_template_owns_wait():
    """Of a template that ends an answer with a blank line, one new line might be the model's; two are not."""
    pieces, answer, _ = played([1, 2, 3], [], lambda ids: "a\n\n"[: len(ids)].removesuffix("\n\n"))
    assert (pieces, answer) == (["a"], "a")
    pieces, answer, _ = played([1, 2], [], lambda ids: "a\n\n"[: len(ids)].removesuffix("\n\n"))
    assert (pieces, answer) == (["a", "\n"], "a\n")


def test_control_characters_are_written_out_in_what_is_shown_only():
    pieces, answer, _ = played(tokens("\x1b[2Jx"), [])
    assert "".join(pieces) == "\\x1b[2Jx"
    assert answer == "\x1b[2Jx"


def test_a_decoder_that_changes_its_mind_is_followed():
    """Byte-fallback decoders write a whole run of bytes as unknown once one of them is wrong."""
    texts = ["", "é", "é", "\ufffd\ufffd\ufffdb"]
    pieces, answer, _ = played([1, 2, 3], [], lambda ids: texts[len(ids)])
    assert "".join(pieces) == "é\n\ufffd\ufffd\ufffdb"
    assert answer == texts[-1]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("abcd", ["abcd", "c"], ("ab", True)),  # "c" is complete first
        ("abcd", ["bc", "abc"], ("", True)),  # they end together: the longer
        ("abab", ["b"], ("a", True)),
        ("abab", [], ("abab", False)),
        ("abab", ["x"], ("abab", False)),
    ],
)
def test_texts_are_cut_at_the_first_complete_stop_text(text, stops, expected):
    assert cut(text, stops) == expected


@pytest.mark.parametrize("cuts", [(), (3,), (9, 15), (20,), tuple(range(1, 27))])
def test_a_thought_is_dimmed_at_a_terminal_however_it_is_cut_into_pieces(cuts: tuple[int, ...]) -> None:
    text = "<think>\nhm\n</think>\n\nYes."
    ends = [0, *cuts, len(text)]
    printed = "".join(screen._dimmed(text[:end], start) for start, end in pairwise(ends))
    plain = printed.replace(screen._DIM, "").replace(screen._UNDIM, "")
    assert plain == text
    assert printed.rpartition(screen._UNDIM)[2].endswith("Yes.")
    dimmed = "".join(re.findall(r"\x1b\[2m(.*?)\x1b\[22m", printed, re.DOTALL))
    assert "hm" in dimmed
    assert "Yes" not in dimmed
    assert screen._dimmed("No thought.", 3) == "thought."
    assert [span.style for span in screen._with_thought(text).spans] == ["dim"]
