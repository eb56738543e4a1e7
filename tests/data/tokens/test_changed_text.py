"""Text that the tokenizer cannot write: found by decoding its tokens, counted, and shown with the first lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
import tiny_data
from data.tokens import making
from trueup.data.rendering.encoding import first_change
from trueup.data.rendering.messages import Message
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens import pack
from trueup.data.tokens.findings import Finding
from trueup.data.tokens.prepare import prepare

ENGLISH = [{"prompt": f"Why {word}?", "completion": f"The {word}."} for word in making.WORDS[:6]]
CYRILLIC = {"prompt": "Why?", "completion": "Привет, мир!"}


def findings(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], method: str = "sft") -> dict[str, Finding]:
    """The findings by code, of a stage whose tokenizer this is."""
    key = "prompts" if method == "ppo" else "data"
    config = tiny_data.stage(method, folder, **{key: str(making.write(folder / "x.jsonl", rows))})
    return {finding.code: finding for finding in prepare(config, Renderer(tokenizer), collect=True).findings}


def words(*more: str, **settings: Any) -> Any:
    return making.word_tokenizer([text for row in ENGLISH for text in row.values()] + list(more), **settings)


@pytest.mark.parametrize("unknown", ["<unk>", "[UNK]"])
def test_an_answer_of_unknown_tokens_alone_is_an_error(tmp_path: Path, unknown: str) -> None:
    found = findings(tmp_path, words(unknown=unknown), [*ENGLISH, CYRILLIC])
    assert found["unknown-answers"].level == "error"
    assert found["unknown-answers"].places == (f"{tmp_path / 'x.jsonl'}:7",)
    assert '"Привет, мир!"' in found["unknown-answers"].text
    changed = found["changed-text"]
    assert (changed.level, changed.places) == ("warning", (f"{tmp_path / 'x.jsonl'}:7",))
    assert changed.numbers == {"changed": 1, "compared": 7, "share": 1 / 7}


def test_an_answer_whose_letters_are_all_dropped_is_an_error(tmp_path: Path) -> None:
    letters = [letter for letter in sorted(pre_tokenizers.ByteLevel.alphabet()) if letter.isascii() or letter in "ĠĊ"]
    core = Tokenizer(models.BPE(vocab={name: at for at, name in enumerate([*tiny.SPECIAL, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(tiny.SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = tiny.TEMPLATE
    found = findings(tmp_path, tokenizer, [*ENGLISH, {"prompt": "Why?", "completion": "Café."}, CYRILLIC])
    assert found["changed-text"].numbers["changed"] == 2
    assert '"Café." becomes "Caf."' in found["changed-text"].text
    assert found["unknown-answers"].places == (f"{tmp_path / 'x.jsonl'}:8",)  # its comma alone is written
    assert Renderer(tokenizer).unknown_answers([Message("assistant", "Привет")]) == ["Привет"]


@pytest.mark.parametrize(
    ("text", "unknown"), [("Привет, мир!", True), ("The мир!", False), ("!?", False), ("☺", True), ("☺ .", False)]
)
def test_punctuation_makes_no_answer_of_letters_known(text: str, unknown: bool) -> None:
    by = Renderer(words("! , ?! !? ."))
    assert by.unknown_answers([Message("assistant", text)]) == ([text] if unknown else [])


def test_unknown_words_among_others_are_a_warning_alone(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "completion": "The дом."}
    found = findings(tmp_path, words(), [*ENGLISH, row])
    assert "unknown-answers" not in found
    assert '"The дом." becomes "The <unk> ."' in found["changed-text"].text


def test_a_lower_casing_tokenizer_is_a_warning(tmp_path: Path) -> None:
    found = findings(tmp_path, words("the why", lower=True), ENGLISH)
    assert found["changed-text"].level == "warning"
    assert found["changed-text"].numbers == {"changed": 6, "compared": 6, "share": 1.0}
    assert 'becomes "why' in found["changed-text"].text
    assert found["changed-text"].places[0] == f"{tmp_path / 'x.jsonl'}:1"


def test_prompts_are_compared_too(tmp_path: Path) -> None:
    found = findings(tmp_path, words(), [{"prompt": "Почему?"}, {"prompt": "Why?"}], "ppo")
    assert found["changed-text"].places == (f"{tmp_path / 'x.jsonl'}:1",)
    assert "unknown-answers" not in found


def test_line_breaks_that_are_lost_are_text_that_is_lost(tmp_path: Path) -> None:
    found = findings(tmp_path, words(), [*ENGLISH, {"prompt": "Why?", "completion": "The\nWhy"}])
    assert r'"The\nWhy" becomes "The Why"' in found["changed-text"].text


def test_a_tokenizer_that_writes_everything_is_silent(tmp_path: Path) -> None:
    odd = ["Привет", "x²  y", "Cafe\u0301", "a\ufdd0b", "<|im_start|>", " \tindented\n\n  twice\n"]
    rows = [{"prompt": f"Q {text}", "completion": f"A {text}"} for text in odd]
    assert "changed-text" not in findings(tmp_path, tiny.tiny_tokenizer(), rows)


def test_composed_characters_are_the_same_text(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert "changed-text" not in findings(tmp_path, tokenizer, [{"prompt": "Why?", "completion": "Cafe\u0301"}])


def test_an_unknown_answer_is_found_behind_the_rows_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "COMPARED_ALL", 3)
    found = findings(tmp_path, words(), [*ENGLISH, CYRILLIC])
    assert "changed-text" not in found
    assert found["unknown-answers"].places == (f"{tmp_path / 'x.jsonl'}:7",)


@pytest.mark.parametrize(
    ("text", "decoded", "shown"),
    [
        ("Hello There", "hello there", ("Hello There", "hello there")),
        ("one two three Four", "one two three four", ("two three Four", "two three four")),
        ("a b", "a b c", ("a b", "a b c")),
        ("a\nb", "a b", ("a\nb", "a b")),
        ("Да", "", ("Да", "")),
    ],
)
def test_what_is_shown_begins_before_the_first_change(text: str, decoded: str, shown: tuple[str, str]) -> None:
    assert first_change(text, decoded) == shown
