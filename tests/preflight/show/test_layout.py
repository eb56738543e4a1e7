"""The mask view: read back from the batch that trains, and compared word for word with what it should say."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

import chromium
from tiny import END_ID, START_ID, tiny_tokenizer
from trueup.data.rendering.messages import Message, Origin
from trueup.data.rendering.renderer import Renderer
from trueup.models.batching import Branch, Example, Layout, collate, single
from trueup.preflight.show import View, print_view, view, write_html
from trueup.preflight.show.layout import target_places
from trueup.preflight.show.pieces import Decoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASK = (Message("user", "Hi?"),)
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(tiny_tokenizer())


def conversation(renderer: Renderer, *contents: str) -> Example:
    """User and assistant in turns."""
    roles = ("user", "assistant") * len(contents)
    return single(renderer.conversation([Message(role, said) for role, said in zip(roles, contents, strict=False)]))


def pair(renderer: Renderer, chosen: str, rejected: str, prompt: tuple[Message, ...] = ASK) -> Example:
    said = [renderer.continuation(prompt, (Message("assistant", one),)) for one in (chosen, rejected)]
    return Example(renderer.prompt(prompt), tuple(Branch(one.ids, one.mask) for one in said))


def seen(renderer: Renderer, examples: list[Example], method: Any = "sft", **settings: Any) -> View:
    """The view of examples as rows of rows.jsonl, one line each."""
    per = {"sft": "token", "ppo": "token", "reward": "example", "dpo": "example"}[method]
    numbered = [replace(one, row=at) for at, one in enumerate(examples)]
    origins = [Origin("data/rows.jsonl", at + 1) for at in range(len(examples))]
    how = {"per": per, "max_tokens": 4096, "layout": "shared", "shown": 3, "origins": origins} | settings
    return view(numbered, renderer, method=method, **how)


def printed(one: View, *, width: int = 80, encoding: str = "utf-8", terminal: bool = False, **how: Any) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    console = Console(file=stream, width=width, markup=False, emoji=False, highlight=False, force_terminal=terminal)
    print_view(one, console, **how)
    return raw.getvalue().decode(encoding)


def rows_of(text: str) -> str:
    """Return the printed text between the legend and the totals."""
    return text.partition("\n\n")[2].rpartition("\n\n")[0]


def words_of(row: Any, *, trained: bool) -> str:
    return "".join(token.text for token in row.tokens if token.trained == trained)


# -- SFT ---------------------------------------------------------------------------------------------------------------


def test_a_conversation(renderer: Renderer) -> None:
    """One token a byte. <|im_start|>user⏎Hi?<|im_end|>⏎<|im_start|>assistant⏎ is 1+5+3+1+1+1+10 = 22 tokens, the
    answer Yes. and its end 5; then ⏎<|im_start|>user⏎So?<|im_end|>⏎<|im_start|>assistant⏎ is 23, and No and its end 3.
    Trained are 5 + 3 of 53 (15.1%)."""
    text = printed(seen(renderer, [conversation(renderer, "Hi?", "Yes.", "So?", "No")]))
    assert text == (
        """\
sft: the one row as it trains
Trained is what the assistant writes, each token predicted from those before it;
the rest is only read.
▌ trained   · only read   [x] special   ⏎ new line   ◀END trained end token

row 1: rows.jsonl:1
  53 tokens; 8 trained (15.1%)
  each token sees all that is before it
  prompt  positions 0-21, 22 tokens, none trained
· [<|im_start|>]user⏎
· Hi?[<|im_end|>]⏎
· [<|im_start|>]assistant⏎
  answer  positions 22-26, 5 tokens, all trained
▌ Yes.[<|im_end|>]◀END
  prompt  positions 27-49, 23 tokens, none trained
· ⏎
· [<|im_start|>]user⏎
· So?[<|im_end|>]⏎
· [<|im_start|>]assistant⏎
  answer  positions 50-52, 3 tokens, all trained
▌ No[<|im_end|>]◀END

data       1 row, 53 tokens, 8 trained (15.1%)
end token  trained in 1 of 1 row
longest    53 tokens: rows.jsonl:1
padding    0.0% of the rows shown (one micro-batch: 1 x 53 tokens)
"""
    )


def test_a_document(renderer: Renderer) -> None:
    r"""Nothing stands before the first token. Tabs, spaces at a line's end and what has no width are seen."""
    text = rows_of(printed(seen(renderer, [single(renderer.text("A\tb \n\u200bné  "))])))
    assert text == (
        r"""row 1: rows.jsonl:1
  14 tokens; 13 trained (92.9%)
  each token sees all that is before it
  the first token is no target: there is nothing before it to predict it from
  document  positions 0-13, 14 tokens, 13 trained
· A
▌ ⇥b␣⏎
▌ \u200bné␣␣[<|im_end|>]◀END"""
    )


def test_every_token_apart(renderer: Renderer) -> None:
    """é is the bytes c3 a9, ids 4 + their rank among the byte symbols; here only its own ids are compared."""
    one = seen(renderer, [single(renderer.text("a é\n"))])
    ids = [token.id for token in one.rows[0].tokens]
    assert rows_of(printed(one, tokens=True)).splitlines()[5:] == [
        f"·      0{ids[0]:>8}  a",
        f"▌      1{ids[1]:>8}  ␣",
        f"▌      2{ids[2]:>8}  ⟨c3⟩",
        f"▌      3{ids[3]:>8}  ⟨a9⟩",
        f"▌      4{ids[4]:>8}  ⏎",
        "▌      5       2  [<|im_end|>]◀END",
    ]
    assert ids == [*renderer.tokenizer("a é\n")["input_ids"], END_ID]


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_a_pair_shares_its_prompt(renderer: Renderer) -> None:
    """Prompt 22 tokens; Yes and end 4, Never and end 6: 32 in the row; 10 of them trained (31.2%, as 31.25 rounds)."""
    text = printed(seen(renderer, [pair(renderer, "Yes", "Never"), pair(renderer, "A", "B")], "dpo", shown=1))
    assert text == (
        """\
dpo: the first 1 of 2 rows as they train
Trained are the answers, by the probability the model gives their tokens; the
prompt is only read.
▌ trained   · only read   [x] special   ⏎ new line   ◀END trained end token

row 1: rows.jsonl:1
  32 tokens; 10 trained (31.2%)
  chosen sees the prompt, not rejected; rejected sees the prompt, not chosen
  prompt  positions 0-21, 22 tokens, none trained
· [<|im_start|>]user⏎
· Hi?[<|im_end|>]⏎
· [<|im_start|>]assistant⏎
  chosen  positions 22-25, 4 tokens, all trained
▌ Yes[<|im_end|>]◀END
  rejected  positions 22-27 (restart), 6 tokens, all trained
▌ Never[<|im_end|>]◀END

data           2 rows, 58 tokens, 14 trained (24.1%)
end token      trained in 2 of 2 rows: chosen 2 of 2, rejected 2 of 2
longest        28 tokens: rows.jsonl:1
shared prompt  runs once for both answers in 2 of 2 rows
padding        0.0% of the rows shown (one micro-batch: 1 x 32 tokens)
"""
    )


def test_a_pair_in_two_rows(renderer: Renderer) -> None:
    """22 + 4 and 22 + 6 tokens; padded to 28: 2 of 56 (3.6%)."""
    one = seen(renderer, [pair(renderer, "Yes", "Never")], "dpo", layout="plain")
    text = printed(one)
    assert "row 1, the chosen answer: rows.jsonl:1\n  26 tokens, padded to 28; 4 trained (15.4%)\n" in text
    assert "row 1, the rejected answer: rows.jsonl:1\n  28 tokens; 6 trained (21.4%)\n" in text
    assert "  rejected  positions 22-27, 6 tokens, all trained\n" in text
    assert "data           1 row, 54 tokens, 10 trained (18.5%)\n" in text
    assert "shared prompt  no: each answer has a row with its own copy\n" in text
    assert "padding        3.6% of the rows shown (one micro-batch: 2 x 28 tokens)\n" in text
    assert [row.side for row in one.rows] == ["chosen", "rejected"]


def test_a_reward_model_trains_a_score_an_answer(renderer: Renderer) -> None:
    text = printed(seen(renderer, [replace(pair(renderer, "Yes", "Never"), scalars={"margin": 1.5})], "reward"))
    assert text == (
        """\
reward: the one row as it trains
A reward model gives each answer one score, read at its last token: that score
is what trains. No other token carries a loss.
▌ the score that trains   · only read   [x] special   ⏎ new line

row 1: rows.jsonl:1
  32 tokens; 2 scores
  chosen sees the prompt, not rejected; rejected sees the prompt, not chosen
  margin 1.5
  prompt  positions 0-21, 22 tokens, only read
· [<|im_start|>]user⏎
· Hi?[<|im_end|>]⏎
· [<|im_start|>]assistant⏎
  chosen  positions 22-25, 4 tokens, scored at its last token
· Yes
▌ [<|im_end|>]◀SCORE
  rejected  positions 22-27 (restart), 6 tokens, scored at its last token
· Never
▌ [<|im_end|>]◀SCORE

data           1 row, 32 tokens, 2 scores, one an answer
score          read at the end token in 1 of 1 row: chosen 1 of 1, rejected 1 of
               1
longest        28 tokens: rows.jsonl:1
shared prompt  runs once for both answers in 1 of 1 row
padding        0.0% of the rows shown (one micro-batch: 1 x 32 tokens)
"""
    )


def test_a_labelled_completion(renderer: Renderer) -> None:
    whole = pair(renderer, "Yes", "No")
    good, bad = (
        replace(whole, branches=(replace(branch, scalars={"desirable": label}),))
        for branch, label in zip(whole.branches, (1.0, 0.0), strict=True)
    )
    text = printed(seen(renderer, [good, bad], "dpo", per="branch"))
    first, second = text.split("row 2: ")
    assert "  labelled good\n  prompt" in first
    assert "  labelled bad\n  prompt" in second
    assert "  answer  positions 22-24, 3 tokens, all trained\n▌ No[<|im_end|>]◀END\n" in second
    assert "end token  trained in 2 of 2 rows\n" in text
    assert "shared prompt" not in text


# -- PPO ---------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_the_model_will_answer(renderer: Renderer) -> None:
    text = printed(seen(renderer, [Example(renderer.prompt(ASK), (Branch([], []),))], "ppo"))
    assert rows_of(text) == (
        """row 1: rows.jsonl:1
  22 tokens; 0 trained (0.0%)
  each token sees all that is before it
  nothing is trained yet: the model writes from here, and all that it writes is
  trained
  prompt  positions 0-21, 22 tokens, none trained
· [<|im_start|>]user⏎
· Hi?[<|im_end|>]⏎
· [<|im_start|>]assistant⏎"""
    )
    assert "no answer is there yet" in text
    assert "[X]" not in text


def test_sampled_answers_with_and_without_an_end(renderer: Renderer) -> None:
    ids = renderer.tokenizer("Yes")["input_ids"]
    made = [Example(renderer.prompt(ASK), (Branch(said, [True] * len(said)),)) for said in ([*ids, END_ID], ids)]
    text = printed(seen(renderer, made, "ppo"))
    assert "▌ Yes[<|im_end|>]◀END\n" in text
    assert "▌ Yes\n" in text
    assert text.count("the answer was cut off before an end token; it trains as far as it goes") == 1
    assert "end token  written and trained in 1 of 2 rows\n" in text
    assert "[X]" not in text


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_what_is_wrong_is_said_above_the_row_and_at_the_end(renderer: Renderer) -> None:
    fine = conversation(renderer, "Hi?", "Yes.")
    trunk, branch = fine.trunk, fine.branches[0]
    made = [
        Example(trunk, (replace(branch, mask=[False] * 5),)),  # nothing
        Example(trunk, (replace(branch, mask=[True] * 4 + [False]),)),  # the end token is there, but no target
        Example(trunk, (Branch(branch.ids[:4], [True] * 4),)),  # it was cut off
        Example([START_ID, *trunk], (branch,)),  # <|im_start|> is this tokenizer's bos as well
        fine,
    ]
    text = printed(seen(renderer, made, shown=5))
    said = dict(re.findall(r"row (\d): rows\.jsonl:\d\n(?:\[X\] (.*)\n)?", text))
    assert said == {
        "1": "answer: nothing is trained, so the row teaches nothing",
        "2": "answer: an end token is not trained, so the model would not learn to stop",
        "3": "answer: an end token is not trained, so the model would not learn to stop",
        "4": "the bos token stands twice at the start (<|im_start|>)",
        "5": "",
    }
    assert "end token  trained in 2 of 5 rows\n" in text
    assert "  answer  positions 22-26, 5 tokens, none trained\n· Yes.[<|im_end|>]\n" in text
    assert "  answer  positions 22-26, 5 tokens, 4 trained\n▌ Yes.\n· [<|im_end|>]\n" in text
    assert text.endswith(
        """\
[X] 1 of 5 rows: nothing is trained, so the row teaches nothing (rows.jsonl:1)
[X] 2 of 5 rows: an end token is not trained, so the model would not learn to
stop (rows.jsonl:2, rows.jsonl:3)
[X] 1 of 5 rows: the bos token stands twice at the start (rows.jsonl:4)
"""
    )


def test_rows_that_are_not_shown_count_as_well(renderer: Renderer) -> None:
    fine, cut = conversation(renderer, "Hi?", "Yes."), conversation(renderer, "Hi?", "No.")
    cut = replace(cut, branches=(Branch(cut.branches[0].ids[:-1], cut.branches[0].mask[:-1]),))
    text = printed(seen(renderer, [fine, cut, cut, cut, cut], shown=1))
    assert text.count("[X]") == 1
    assert text.endswith(
        """
[X] 4 of 5 rows: an end token is not trained, so the model would not learn to
stop (rows.jsonl:2, rows.jsonl:3, rows.jsonl:4 and 1 more)
"""
    )


def test_an_earlier_turn_without_a_trained_end(renderer: Renderer) -> None:
    """Its last token is right, and yet the model would not learn to stop after Yes."""
    whole = conversation(renderer, "Hi?", "Yes.", "So?", "No")
    mask = list(whole.branches[0].mask)
    mask[4] = False
    one = seen(renderer, [replace(whole, branches=(replace(whole.branches[0], mask=mask),))])
    assert one.rows[0].faults == ("answer: an end token is not trained, so the model would not learn to stop",)
    assert list(one.totals.faults) == ["end not trained"]
    assert one.totals.end_rows == 1


def test_a_pair_with_one_bad_side(renderer: Renderer) -> None:
    whole = pair(renderer, "Yes", "No")
    cut = Branch(whole.branches[1].ids[:-1], whole.branches[1].mask[:-1])
    spoiled = replace(whole, branches=(whole.branches[0], cut))
    for method, words in (
        ("dpo", "an end token is not trained, so the model would not learn to stop"),
        ("reward", "the score is not read at an end token"),
    ):
        one = seen(renderer, [whole, spoiled], method)
        assert one.rows[1].faults == (f"rejected: {words}",)
        assert one.totals.ends == {"chosen": (2, 2), "rejected": (1, 2)}
        assert one.totals.end_rows == 1
        assert f"[X] 1 of 2 rows: {words} (rows.jsonl:2)" in " ".join(printed(one).split())


def test_a_reward_read_at_a_prompt(renderer: Renderer) -> None:
    """An empty answer: the score would be the prompt's."""
    whole = pair(renderer, "Yes", "No")
    one = seen(renderer, [replace(whole, branches=(whole.branches[0], Branch([], [])))], "reward")
    assert [token.position for token in one.rows[0].tokens if token.trained] == [21, 24 + 1]
    assert one.rows[0].faults == ("rejected: the score is not read at an end token",)
    assert "· [<|im_start|>]assistant\n▌ ⏎\n▌ ◀SCORE\n" in printed(one)


# -- it is the batch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "shared", "plain"])
def test_it_shows_the_batch(renderer: Renderer, layout: Layout) -> None:
    """Ids, positions and what is trained, compared with a batch made here; rows come in the order of the data."""
    rows = [pair(renderer, "A", "Bb"), pair(renderer, "A longer answer.", "B"), pair(renderer, "Mm", "No")]
    one = seen(renderer, rows, "dpo", layout=layout)
    number = [row.number for row in one.rows]
    assert number == ([1, 2, 3] if layout != "plain" else [1, 1, 2, 2, 3, 3])
    order = sorted(range(3), key=lambda at: -rows[at].total)
    batch = collate([rows[at] for at in order], per="example", pad_id=0, layout=layout)
    assert one.shapes == (tuple(batch.input_ids.shape),)
    shown = [row for at in order for row in one.rows if row.number == at + 1]
    trained, start = [], 0
    for row in shown:
        here = slice(start, start + len(row.tokens))
        start += len(row.tokens) if layout == "packed" else batch.input_ids.shape[1]
        assert [token.id for token in row.tokens] == batch.input_ids.flatten()[here].tolist()
        assert [token.position for token in row.tokens] == batch.position_ids.flatten()[here].tolist()
        trained += [token.id for token in row.tokens if token.trained]
    assert trained == batch.targets.tolist()
    assert one.padding == pytest.approx(1 - batch.tokens / batch.input_ids.numel())


def test_micro_batches_are_those_of_training(renderer: Renderer) -> None:
    """31, 25 and 24 tokens; two rows of 31 do not fit into 60, two of 25 do: 1 of 50 is padding, of 81 cells in all."""
    rows = [conversation(renderer, "Hi?", said) for said in ("B.", "Longer..", "A")]
    one = seen(renderer, rows, max_tokens=60)
    assert [len(row.tokens) for row in one.rows] == [25, 31, 24]
    assert one.shapes == ((1, 31), (2, 25))
    assert "padding    1.2% of the rows shown (2 micro-batches: 1 x 31 tokens, 2 x 25" in printed(one)


def test_a_batch_that_would_train_another_token_is_refused(renderer: Renderer) -> None:
    batch = collate([pair(renderer, "Yes", "No")], per="example", pad_id=0)
    assert batch.input_ids.flatten()[target_places(batch)].tolist() == batch.targets.tolist()
    spoiled = replace(batch, predict_at=batch.predict_at + 1)  # a mask shifted by one
    with pytest.raises(ValueError, match="not the token that follows"):
        target_places(spoiled)


def test_what_sees_what_is_read_from_the_mask(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(*args: Any, **how: Any) -> Any:
        batch: Any = collate(*args, **how)
        return replace(batch, attention_mask=torch.ones(batch.attention_mask.shape, dtype=torch.bool).tril())

    monkeypatch.setattr("trueup.preflight.show.layout.collate", leaking)
    (row,) = seen(renderer, [pair(renderer, "Yes", "No")], "dpo").rows
    assert row.attention == "chosen sees the prompt, not rejected; rejected sees the prompt and chosen"


# -- text --------------------------------------------------------------------------------------------------------------


def sentencepiece() -> Any:
    """Like Llama 2's: ▁ for a space, and bytes for what the vocabulary lacks."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁yes", "y", "e", "s", "é"]
    merges = [("▁", "y"), ("▁y", "e"), ("▁ye", "s")]
    words[-6:-5] += ["▁y", "▁ye"]
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys(words))}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def alone(tokenizer: Any, ids: list[int]) -> list[str]:
    return [piece.alone for piece in Decoder(tokenizer).pieces(ids)]


def joined(tokenizer: Any, ids: list[int]) -> str:
    return "".join(piece.text for piece in Decoder(tokenizer).pieces(ids))


@pytest.mark.parametrize(("make", "space"), [(tiny_tokenizer, ""), (sentencepiece, " ")])
@pytest.mark.parametrize("text", ["yes é yes", "日本 👩‍👩‍👧 é", "\ufffd yes\n\n yes", "Ġ Ċ Ĥ¬ <0x41>"])
def test_joined_pieces_are_the_text(make: Any, space: str, text: str) -> None:
    """SentencePiece puts a space before any text, and behind a special token the model sees it."""
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = Decoder(tokenizer).pieces(ids, after=[tokenizer.bos_token_id])
    assert "".join(piece.text for piece in pieces) == space + text
    assert len(pieces) == len(ids)


def test_pieces_keep_the_space_that_decoding_alone_takes_away() -> None:
    tokenizer = sentencepiece()
    ids = [1, *tokenizer("yes yes", add_special_tokens=False)["input_ids"], 2]
    assert alone(tokenizer, ids) == ["<s>", " yes", " yes", "</s>"]


def test_bytes_that_are_no_character() -> None:
    """The euro sign is e2 82 ac; half of it, and then a letter."""
    for tokenizer in (tiny_tokenizer(), sentencepiece()):
        euro = tokenizer("€", add_special_tokens=False)["input_ids"][-3:]
        letter = tokenizer("y", add_special_tokens=False)["input_ids"][-1]
        assert alone(tokenizer, euro) == ["⟨e2⟩", "⟨82⟩", "⟨ac⟩"]
        assert joined(tokenizer, euro) == "€"
        assert joined(tokenizer, [*euro[:2], letter]).replace(" ", "") == "⟨e2⟩⟨82⟩y"


def test_an_id_that_the_tokenizer_does_not_have() -> None:
    tokenizer = tiny_tokenizer()
    assert joined(tokenizer, [*tokenizer("a")["input_ids"], 262]) == "a⟨id 262⟩"


def hostile(renderer: Renderer) -> View:
    answers = [f"{SCRIPT}&amp;\x1b[31m\u202e[bold]", "日本語のとても長い行。" * 20, "a" * 300, "   \t \n\n b  \r\n"]
    return seen(renderer, [pair(renderer, one, f"'\">{IMAGE}") for one in answers], "dpo", shown=4)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit(renderer: Renderer, width: int, tokens: bool, encoding: str) -> None:
    text = printed(hostile(renderer), width=width, tokens=tokens, encoding=encoding)
    assert max(cell_len(line) for line in text.splitlines()) <= min(width, 80)
    assert not set(text) & set("\x1b\u202e\r\tĠĊ▁")


def test_a_gutter_stands_before_every_line(renderer: Renderer) -> None:
    text = printed(seen(renderer, [conversation(renderer, "word " * 40, "answer " * 40)]))
    lines = [line for line in text.splitlines() if "word" in line or "answer answer" in line]
    assert len(lines) == 3 + 4
    assert {line[:7] for line in lines} == {"· word ", "▌ answe"}


def test_colour_adds_nothing(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    one = hostile(renderer)
    coloured = printed(one, terminal=True)
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(one)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(one, terminal=True)


def test_ascii(renderer: Renderer) -> None:
    text = printed(seen(renderer, [single(renderer.text("a\té \n"))]), encoding="ascii")
    assert r"T trained   . only read   [x] special   \n new line   <END trained end token" in text
    assert rows_of(text).splitlines()[-3:] == [". a", r"T \t\xe9_\n", "T [<|im_end|>]<END"]


# -- the page ----------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Tags, their attributes, and the text outside styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.styled = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.styled = tag == "style"

    def handle_endtag(self, tag):
        self.styled = False

    def handle_data(self, data):
        if not self.styled:
            self.words.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]


def page_of(one: View, tmp_path: Path) -> str:
    write_html(one, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_escapes_what_data_holds(renderer: Renderer, tmp_path: Path) -> None:
    page = page_of(hostile(renderer), tmp_path)
    read = Reader(page)
    assert SCRIPT in "".join(read.words)
    assert r"\x1b[31m\u202e[bold]" in "".join(read.words)
    assert not set(page) & set("\x1b\u202e\r")
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert_harmless(read)


def test_the_page_escapes_tokens_and_file_names(tmp_path: Path) -> None:
    """Each byte is a token of its own here, so only an added token and a file's name hold a whole tag."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([SCRIPT, IMAGE])
    renderer = Renderer(tokenizer)
    example = replace(single(renderer.text(f"a{SCRIPT}{IMAGE}")), row=0)
    origins = [Origin(f"data/{IMAGE}.jsonl", 1)]
    read = Reader(page_of(seen(renderer, [example], origins=origins), tmp_path))
    assert "".join(read.words).count(SCRIPT) == 2  # in the text, and in the list of tokens
    assert f"row 1: {IMAGE}.jsonl:1" in "".join(read.words)
    assert_harmless(read)


def assert_harmless(read: Reader) -> None:
    assert not {name for name, _ in read.tags} & {"script", "img", "link", "iframe", "object"}
    assert all(not key.startswith("on") for _, attributes in read.tags for key in attributes)


def test_the_page_says_what_the_terminal_says(renderer: Renderer, tmp_path: Path) -> None:
    """Tokens of the row: 22, 4 and 6, each once in the text and once in the list; 2 + 2 specials, trained 10."""
    one = seen(renderer, [pair(renderer, "Yes", "Never")], "dpo")
    read = Reader(page_of(one, tmp_path))
    said = " ".join("".join(read.words).split())
    for words in (
        "dpo: the one row as it trains",
        "trained in 1 of 1 row: chosen 1 of 1, rejected 1 of 1",
        "chosen sees the prompt, not rejected; rejected sees the prompt, not chosen",
        "rejected positions 22-27 (restart), 6 tokens, all trained",
        "trained: Never<|im_end|>◀\ufe0eEND",
    ):
        assert words in said
    titled = [attributes["title"] for _, attributes in read.tags if "title" in attributes]
    assert len(titled) == 32
    assert sum(str(title).endswith(", trained") for title in titled) == 10
    assert titled[-1] == "position 27, id 2, trained"
    listed = [attributes for name, attributes in read.tags if name == "li" and attributes.get("class") == "trained"]
    assert len(listed) == 10


def test_a_character_of_several_tokens_is_one_on_the_page(renderer: Renderer, tmp_path: Path) -> None:
    one = seen(renderer, [single(renderer.text("a€"))])
    ids = ", ".join(str(token.id) for token in one.rows[0].tokens[1:4])
    page = page_of(one, tmp_path)
    says = f"positions 1 to 3, ids {ids}, trained: 3 tokens that are one character"
    assert f'<span class="t" title="{says}">€</span>' in page
    assert all(f">⟨{byte}⟩</span>" in page for byte in ("e2", "82", "ac"))


def test_what_is_wrong_is_on_the_page(renderer: Renderer, tmp_path: Path) -> None:
    fine = conversation(renderer, "Hi?", "Yes.")
    spoiled = replace(fine, branches=(replace(fine.branches[0], mask=[False] * 5),))
    read = Reader(page_of(seen(renderer, [spoiled, fine]), tmp_path))
    assert len(read.of("wrong")) == 2
    said = " ".join("".join(read.words).split())
    assert "Wrong 1 of 2 rows: nothing is trained, so the row teaches nothing (rows.jsonl:1)" in said
    assert "row 1: rows.jsonl:1 Wrong answer: nothing is trained, so the row teaches nothing" in said


# -- the page in a browser ---------------------------------------------------------------------------------------------

# Elements whose text is wider or higher than their box while the box hides it, but for labels of the bar, which
# repeat the headings below it, and what is there for screen readers alone.
HIDDEN = """() => [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() &&
  !one.closest('.bar, .unseen') && (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1) &&
  ['hidden', 'clip', 'auto', 'scroll'].includes(getComputedStyle(one).overflowX))
  .map(one => one.className || one.tagName)"""
OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(one => one.checkVisibility() &&
  !one.closest('.bar, .unseen') && one.getClientRects().length &&
  one.getBoundingClientRect().right > innerWidth + 1).map(one => one.className || one.tagName)"""
LETTERS = """() => Math.min(...[...document.querySelectorAll('main *')].filter(one => one.checkVisibility() &&
  [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one =>
  parseFloat(getComputedStyle(one).fontSize)))"""
CONTRAST = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = parts(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), one.className || one.tagName];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Opens a view's page; at the end nothing may have been logged, or asked of a network."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(one: View, width: int, **settings: Any) -> Page:
        write_html(one, tmp_path / "page.html")
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        address = (tmp_path / "page.html").as_uri()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: None if request.url == address else complaints.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@chromium.needed
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_clipped(visit: Any, renderer: Renderer, width: int, scheme: str) -> None:
    page = visit(hostile(renderer), width, color_scheme=scheme)
    for _ in range(2):  # with the lists of tokens closed, and open
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(HIDDEN) == []
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(LETTERS) >= 12
        assert page.evaluate(CONTRAST) == []
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


@chromium.needed
def test_trained_text_is_underlined_and_read_out(visit: Any, renderer: Renderer) -> None:
    page = visit(seen(renderer, [conversation(renderer, "Hi?", "Yes.")]), 1280)
    style = "one => [getComputedStyle(one).textDecorationLine, getComputedStyle(one).fontWeight]"
    assert page.locator("article .run.trained .t").first.evaluate(style) == ["underline", "650"]
    assert page.locator("article .run:not(.trained) .t").first.evaluate(style) == ["none", "400"]
    assert page.locator("article .run.trained").evaluate("one => one.textContent").startswith("trained: Yes.")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator(".tokens").first.is_visible()
