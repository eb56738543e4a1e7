"""A chat as its user sees it: scripted input, what is shown and said, and the data that is kept."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

import warm
from tiny import END_ID, tiny_folder
from trueup.chat import screen as chat_screen
from trueup.chat import speaker
from trueup.chat.dialogue import ChatAnswer, Dialogue, Exchange
from trueup.chat.session import run
from trueup.config import DataConfig
from trueup.data.sources.stream import RowStream
from trueup.errors import ConfigError, DataError, ModelError
from trueup.sampling import Sample


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("other") / "b", seed=1)


class Typed(io.StringIO):
    """Lines as a person types them."""

    def isatty(self) -> bool:
        return True


class Script:
    """A sampler that says given texts, one a call, a byte a token; `calls` are the prompts and settings it got.

    "^C" in a text is Ctrl-C at that place; a text that ends with "…" does not end by itself.
    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = iter(texts)
        self.calls: list[dict] = []

    def __call__(self, network, prompts, *, max_new_tokens, temperature, seed, on_token):
        [prompt] = prompts
        self.calls.append({"prompt": network.tokenizer.decode(prompt), "temperature": temperature, "seed": seed})
        text = next(self.texts)
        ids: list[int] = []
        for index, part in enumerate(text.removesuffix("…").split("^C")):
            if index:
                signal.raise_signal(signal.SIGINT)
            for letter in part[: max_new_tokens - len(ids)]:
                network.check_stop()
                for token in network.tokenizer(letter, add_special_tokens=False)["input_ids"]:
                    ids.append(token)
                    on_token(token)
        network.check_stop()
        if text.endswith("…") or len(ids) == max_new_tokens:
            return [Sample(ids, finished=False)]
        on_token(END_ID)
        return [Sample([*ids, END_ID], finished=True)]


@pytest.fixture
def says(monkeypatch):
    """Replace the sampler: `script = says("Hello.", "Yes.")`."""

    def install(*texts: str) -> Script:
        script = Script(list(texts))
        monkeypatch.setattr(speaker, "sample", script)
        return script

    return install


@pytest.fixture
def talk(tiny_base, monkeypatch, capsys, tmp_path):
    """Run a chat over given lines in a folder of its own. -> (answers, what was said beside them)."""
    monkeypatch.chdir(tmp_path)

    def talk(*lines: str, typed: bool = False, model: str = tiny_base, **options) -> tuple[str, str]:
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", Typed(text) if typed else io.StringIO(text))
        run(model, device="cpu", **options)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return talk


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def transcript(script: Script, call: int = -1) -> str:
    """The prompt of a call, without the markers around it."""
    return script.calls[call]["prompt"].replace("<|im_start|>", "[").replace("<|im_end|>\n", "]")


# -- piped ---------------------------------------------------------------------------------------------------------


def test_a_script_gets_the_answers_and_nothing_else(talk, says):
    script = says("Hello.", "Four.")
    output, messages = talk("hi", "", "what is two and two", "/save x.jsonl")
    assert output == "Hello.\nFour.\n"
    assert messages == "x.jsonl: 1 conversation added; 1 row in it\n"
    assert transcript(script) == "[user\nhi][assistant\nHello.][user\nwhat is two and two][assistant\n"
    [row] = RowStream(DataConfig(path="x.jsonl"), "conversation")
    assert [one.content for one in row.messages] == ["hi", "Hello.", "what is two and two", "Four."]


def test_a_real_model_answers_the_same_to_the_same(talk):
    lines = ("hi", "why", "/new", "hi", "/again", "/undo", "hi")
    output, _ = talk(*lines, max_new_tokens=12, seed=3)
    assert output == talk(*lines, max_new_tokens=12, seed=3)[0]
    output = talk("hi", max_new_tokens=12, seed=3)[0]
    assert talk("hi", "/new", "hi", max_new_tokens=12, seed=3)[0] == output * 2
    assert talk("hi", "/undo", "hi", max_new_tokens=12, seed=3)[0] == output * 2
    assert talk("hi", "/again", max_new_tokens=12, seed=3)[0] != output * 2
    assert talk("hi", max_new_tokens=12, seed=4)[0] != output
    assert talk("/seed 4", "hi", "/seed 3", "/undo", "hi", max_new_tokens=12)[0].endswith(output)
    cold = talk("hi", "/again", max_new_tokens=12, temperature=0)
    assert cold[0][: len(cold[0]) // 2] * 2 == cold[0]


def test_every_turn_has_a_seed_of_its_own(talk, says):
    script = says("a", "b", "c", "d")
    talk("1", "2", "/new", "3", "4")
    first, second, *again = (one["seed"] for one in script.calls)
    assert first != second
    assert again == [first, second]


@pytest.mark.parametrize(
    ("lines", "kind", "messages"),
    [
        (["/temprature 1"], ConfigError, '"/temprature" is no command; did you mean /temperature? Nothing was sent'),
        (["/etc/passwd?"], ConfigError, "/help lists the commands"),
        (["/a"], ConfigError, "/a: there is only one model; start with --against MODEL for a second"),
        (["/temperature -1"], ConfigError, 'temperature: "-1" is not a number of 0 or more'),
        (["/temperature nan"], ConfigError, 'temperature: "nan"'),
        (["/max 0"], ConfigError, '/max: "0" is not a whole number of 1 or more'),
        (["/max 1.5"], ConfigError, '/max: "1.5"'),
        (["/seed x"], ConfigError, '/seed: "x" is not a whole number of 0 or more'),
        (["/undo"], ConfigError, "this conversation is empty"),
        (["/again"], ConfigError, "this conversation is empty"),
        (["/show"], ConfigError, "this conversation is empty"),
        (["/save x.jsonl"], ConfigError, "this conversation is empty"),
        (["hi", "/save"], ConfigError, "/save: to which file?"),
        (["hi", "/save x.json"], DataError, "x.json: rows are saved as JSON lines"),
        (["hi", "/new now"], ConfigError, '/new: takes no argument, but got "now"'),
    ],
)
def test_a_mistake_ends_a_script_and_sends_nothing(lines, kind, messages, talk, says):
    script = says("Hello.")
    with pytest.raises(kind) as caught:
        talk(*lines)
    assert messages in str(caught.value)
    assert len(script.calls) == (lines[0] == "hi")
    assert not list(Path().glob("x.*"))


def test_a_mistake_does_not_end_a_person_s_chat(talk, says):
    says("Hello.", "Yes.")
    output, messages = talk("hi", "/svae x.jsonl", "/save x.json", "sure?", "/quit", "never", typed=True)
    assert output == "Hello.\nYes.\n"
    assert 'error: "/svae" is no command; did you mean /save?' in messages
    assert "error: x.json: rows are saved as JSON lines\n  fix: end the name in .jsonl" in messages


def test_messages_of_many_lines(talk, says):
    script = says("1", "2", "3")
    talk("one \\", "two\\", "three", '"""', "/help is", "", '  a "command"', '"""', " /etc/hosts is what?")
    heard = [transcript(script, call).rpartition("[user\n")[2].partition("]")[0] for call in range(3)]
    assert heard == ["one \ntwo\nthree", '/help is\n\n  a "command"', "/etc/hosts is what?"]


def test_the_end_of_the_input_ends_a_message(talk, says):
    script = says("1")
    talk('"""', "all of", "this")
    assert "[user\nall of\nthis]" in transcript(script)


def test_input_that_is_not_utf8(tiny_base, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))
    with pytest.raises(DataError, match="the input is not UTF-8"):
        run(tiny_base, device="cpu")


# -- settings and history ----------------------------------------------------------------------------------------------


def test_settings_reach_the_sampler(talk, says):
    script = says("Hello.", "abcdef", "one\ntwo", "ab\x1bcd", "so")
    output, messages = talk(
        "hi", "/temperature 0.25", "/max 3", "again", "/max 50", r"/stop \n", "lines", "/stop", "raw",
        "/system Be brief.", "anew", temperature=1.5, stop=["l"], typed=True,
    )  # fmt: skip
    assert output == "He\nabc\none\nab\\x1bcd\nso\n"
    assert [one["temperature"] for one in script.calls] == [1.5, 0.25, 0.25, 0.25, 0.25]
    assert "(… cut at 3 tokens; /max raises it)" in messages
    assert 'an answer ends before "l" or "\\n"' in messages
    assert "the system prompt is set; a new conversation begins" in messages
    assert "[assistant\none][user\nraw]" in transcript(script, 3), "a stop text is no part of the history"
    assert transcript(script) == "[system\nBe brief.][user\nanew][assistant\n"


def test_the_model_s_text_is_kept_unchanged(talk, says):
    says("a\x1b[2Jb")
    output, _ = talk("hi", "/show", "/save x.jsonl", system="Be brief.")
    assert output == "a\\x1b[2Jb\nsystem: Be brief.\nyou: hi\nmodel: a\\x1b[2Jb\n"
    assert "\x1b" not in Path("x.jsonl").read_text()
    assert rows("x.jsonl")[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a\x1b[2Jb"},
    ]


def test_undo_and_again(talk, says):
    script = says("one", "two", "other two", "three")
    talk("1", "2", "/again", "/save x.jsonl", "/undo", "3", "/save")
    assert transcript(script, 2) == transcript(script, 1) == "[user\n1][assistant\none][user\n2][assistant\n"
    assert script.calls[2]["seed"] != script.calls[1]["seed"]
    assert transcript(script, 3) == "[user\n1][assistant\none][user\n3][assistant\n"
    messages = [[one["content"] for one in row["messages"]] for row in rows("x.jsonl")]
    assert messages == [["1", "one", "2", "other two"], ["1", "one", "3", "three"]]


def test_a_conversation_that_goes_on_stays_one_row(talk, says):
    says("one", "two", "three")
    _, messages = talk("1", "/save x.jsonl", "/save", "2", "/save", "/new", "3", "/save")
    assert messages.splitlines() == [
        "x.jsonl: 1 conversation added; 1 row in it",
        "x.jsonl: nothing new; 1 row in it",
        "x.jsonl: 1 conversation updated; 1 row in it",
        "x.jsonl: 1 conversation added; 2 rows in it",
    ]
    assert [len(row["messages"]) for row in rows("x.jsonl")] == [4, 2]


def test_an_answer_that_was_cut_is_kept_and_said(talk, says):
    says("for ever…", "")
    _, messages = talk("hi", "/save x.jsonl", "more", max_new_tokens=4)
    assert messages.splitlines() == [
        "(… cut at 4 tokens; /max raises it)",
        "x.jsonl: 1 conversation added; 1 row in it",
        "note: 1 answer cut or interrupted: a model trained on it learns to stop there",
        "(the answer is empty)",
    ]
    assert rows("x.jsonl")[0]["messages"][1]["content"] == "for "


def test_an_empty_answer_is_not_saved(talk, says):
    says("")
    with pytest.raises(ConfigError, match="answer 1 is empty"):
        talk("hi", "/save x.jsonl")
    assert not Path("x.jsonl").exists()


# -- the context -------------------------------------------------------------------------------------------------------


def test_a_full_context_is_said_before_anything_is_sampled(talk, says, tmp_path):
    """A token a byte: 119 are "<s>user\\n" + 100 + "<e>\\n" + "<s>assistant\\n"; 12 the answer, 9 "y", 11 a header."""
    small = tiny_folder(tmp_path / "small", max_position_embeddings=151)
    script = says("a" * 10, "Yes.")
    _, messages = talk("x" * 100, "y", "/undo", "ok?", model=small, typed=True, max_new_tokens=64)
    assert "the conversation has 151 tokens with this message" in messages
    assert f"and {small} reads 151 at most, its answer included; the message was not sent" in messages
    assert "/undo takes the last exchange back, /new begins another conversation" in messages
    assert len(script.calls) == 2
    assert transcript(script) == "[user\nok?][assistant\n"


def test_an_answer_that_fills_the_context_says_so(talk, says, tmp_path):
    small = tiny_folder(tmp_path / "small", max_position_embeddings=130)
    says("a" * 200)
    output, messages = talk("x" * 100, model=small, max_new_tokens=64)
    assert output == "a" * 11 + "\n"
    assert messages == "(… cut at 11 tokens: the model's context is full; /new begins again)\n"


# -- models that cannot be talked to -----------------------------------------------------------------------------------


def test_a_reward_model_is_refused(tmp_path, tiny_base):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "reward" / "model"
    AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"reward: is a reward model, which scores answers and cannot generate text\n  fix: "
    ):
        run(str(folder), device="cpu")
    with pytest.raises(ModelError, match="reward: is a reward model"):
        run(tiny_base, against=str(folder), device="cpu")


def test_a_template_without_a_system_role(talk, says, tmp_path):
    folder = tiny_folder(tmp_path / "base")
    template = Path(folder, "chat_template.jinja")
    template.write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + template.read_text()
    )
    with pytest.raises(ModelError, match="no system role"):
        talk("hi", model=folder, system="Be brief.")
    script = says("Hello.")
    output, messages = talk("/system Be brief.", "hi", model=folder, typed=True)
    assert "error: the chat template refuses these messages" in messages
    assert transcript(script) == "[user\nhi][assistant\n"
    assert output == "Hello.\n"


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"temperature": float("nan")}, "temperature: nan is not a number of 0 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0 is not a whole number of 1 or more"),
        ({"stop": [""]}, "stop: the text is empty"),
        ({"device": "abacus"}, "device: 'abacus'"),
    ],
)
def test_settings_that_cannot_be_meant(options, messages, tiny_base):
    with pytest.raises(ConfigError) as caught:
        run(tiny_base, **({"device": "cpu"} | options))
    assert messages in str(caught.value)


def test_a_model_against_itself(tiny_base):
    with pytest.raises(ConfigError, match="is the model itself"):
        run(tiny_base, against=f"{tiny_base}/../{Path(tiny_base).name}", device="cpu")


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_an_answer_and_keeps_it(talk, says):
    script = says("Once upon^C a time", "Sorry.")
    output, messages = talk("a story", "shorter", "/save x.jsonl", typed=True)
    assert output == "Once upon\nSorry.\n"
    assert "(interrupted; the part so far is kept: /again asks for another answer, /undo removes it)" in messages
    assert "note: 1 answer cut or interrupted" in messages
    assert "[assistant\nOnce upon][user\nshorter]" in transcript(script)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_a_word_keeps_nothing(talk, says):
    script = says("^Cx", "Hello.", "^Cx", "Bye.")
    _, messages = talk("first", "hi", "/again", "so", typed=True)
    assert "(interrupted before the answer began; the message is not kept)" in messages
    assert "(interrupted before the answer began; the earlier answer is kept)" in messages
    assert transcript(script) == "[user\nhi][assistant\nHello.][user\nso][assistant\n"


def test_ctrl_c_ends_a_script(talk, says):
    says("Once^C upon")
    with pytest.raises(KeyboardInterrupt):
        talk("a story")


def test_ctrl_c_ends_one_of_two_answers(talk, says, other):
    says("Once^C upon", "Whole.")
    output, messages = talk("a story", typed=True, against=other)
    assert "Once\nB  " in output
    assert output.endswith("Whole.\n")
    assert "(A: interrupted;" in messages
    assert "(B: interrupted" not in messages


def test_ctrl_c_at_the_prompt_quits_the_second_time(talk, says, monkeypatch):
    script = says("Hello.")
    typed = iter([KeyboardInterrupt, "hi", KeyboardInterrupt, KeyboardInterrupt])

    def line(_prompt):
        one = next(typed)
        if one is KeyboardInterrupt:
            raise KeyboardInterrupt
        return one

    monkeypatch.setattr("builtins.input", line)
    with pytest.raises(KeyboardInterrupt):
        talk(typed=True)
    assert len(script.calls) == 1
    assert next(typed, None) is None


# -- two models --------------------------------------------------------------------------------------------------------


def test_each_model_goes_on_with_its_own_answers_until_one_is_chosen(talk, says, other, tiny_base):
    script = says("A1", "B1", "A2", "B2", "A3", "B3")
    output, messages = talk("1", "2", "/b", "3", against=other)
    assert output == "".join(f"A  {tiny_base}\nA{index}\nB  {other}\nB{index}\n" for index in (1, 2, 3))
    assert messages.count("A 2 tokens, ") == messages.count("   B 2 tokens, ") == 3
    assert [transcript(script, index).count("A1") for index in (2, 3)] == [1, 0]
    both = "[user\n1][assistant\nB1][user\n2][assistant\nB2][user\n3][assistant\n"
    assert transcript(script, 4) == transcript(script, 5) == both
    assert script.calls[4]["seed"] == script.calls[5]["seed"]
    assert "No ranking: the two conversations differ in earlier answers; choose after every answer" in messages


def test_choices_are_saved_as_rankings(talk, says, other, tiny_base):
    says("A1", "B1", "A2", "B2", "A3", "B3", "A4", "B4")
    _, messages = talk(
        "1", "/b", "2", "/a", "/save r.jsonl", "/b", "/save", "/new", "3", "/a", "/again", "/a", "/save",
        system="Be brief.", against=other,
    )  # fmt: skip
    assert [line for line in messages.splitlines() if "r.jsonl" in line] == [
        "r.jsonl: 2 rankings added; 2 rows in it",
        "r.jsonl: 1 ranking updated; 2 rows in it",
        "r.jsonl: 2 rankings added; 4 rows in it",
    ]
    parsed = list(RowStream(DataConfig(path="r.jsonl"), "preference"))
    assert [(one.chosen[0].content, one.rejected[0].content) for one in parsed] == [
        ("B1", "A1"), ("B2", "A2"), ("A3", "B3"), ("A4", "B4"),
    ]  # fmt: skip
    assert [one.content for one in parsed[1].prompt] == ["Be brief.", "1", "B1", "2"]
    models = [(row["model_chosen"], row["model_rejected"]) for row in rows("r.jsonl")]
    assert models == [(other, tiny_base)] * 2 + [(tiny_base, other)] * 2


def test_choices_outlast_their_conversation(talk, says, other):
    says("A1", "B1", "A2", "B2")
    talk("1", "/a", "/new", "2", "/b", "/system Be brief.", "/save r.jsonl", against=other)
    assert [row["chosen"][0]["content"] for row in rows("r.jsonl")] == ["A1", "B2"]


def test_no_choice_is_lost_in_silence(talk, says, other):
    says("A1", "B1", "A2", "B2")
    _, messages = talk("1", "/a", "/quit", "2", "/undo", "/quit", typed=True, against=other)
    assert "1 choice not saved: /save FILE.jsonl keeps them, another /quit does not" in messages
    assert messages.endswith("1 choice not saved\n")
    says("A1", "B1")
    with pytest.raises(ConfigError, match="no answer was preferred yet"):
        talk("1", "/save r.jsonl", against=other)


@pytest.mark.parametrize(
    ("answers", "messages"),
    [
        (["Same.", " Same."], "A preferred; both go on with its conversation. No ranking: the answers are the same"),
        (["Yes.", ""], "No ranking: B's answer is empty"),
    ],
)
def test_answers_that_make_no_ranking(answers, messages, talk, says, other):
    says(*answers)
    assert messages in talk("1", "/a", against=other)[1]


def test_a_chosen_answer_that_was_cut_is_said(talk, says, other):
    says("long…", "short")
    _, messages = talk("1", "/a", "/b", typed=True, against=other, max_new_tokens=50)
    assert (
        "A preferred; both go on with its conversation. Its answer was cut at 4 tokens: /again asks for others"
        in messages
    )
    assert "B preferred; both go on with its conversation\n" in messages


def test_an_end_token_of_the_other_model_s_is_an_error_not_a_crash(talk, says, tmp_path):
    """For A <|endoftext|> in letters is text; in B's history, where it would end an answer, it cannot stand."""
    a, b = tiny_folder(tmp_path / "a"), tiny_folder(tmp_path / "b", eos="<|endoftext|>")
    script = says("A <|endoftext|> 1", "B <|endoftext|> 1", "A2", "B2")
    output, messages = talk("1", "/a", "2", "/undo", "3", typed=True, model=a, against=b)
    assert output == f"A  {a}\nA <|endoftext|> 1\nB  {b}\nB \nA  {a}\nA2\nB  {b}\nB2\n"
    assert 'error: conversation: a response holds the end token "<|endoftext|>"' in messages
    assert len(script.calls) == 4


def test_two_columns_where_there_is_room(talk, says, other, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    says("left " * 15 + "\x1b[1m", "right " * 15)
    output, _ = talk("1", against=other)
    last = output[output.rindex("\x1b[2K") :].splitlines()
    assert any("left left" in line and "right right" in line for line in last)
    answers = [line for line in last if "left" in line or "right" in line]
    assert "\x1b[1m" not in "".join(answers)  # the models' names above them are bold, whatever their length
    monkeypatch.setenv("COLUMNS", "99")
    says("left " * 15, "right " * 15)
    output, _ = talk("1", against=other)
    assert not any("left" in line and "right" in line for line in output.splitlines())


def test_columns_that_grow_beyond_the_screen_show_their_end():
    screen = Console(file=io.StringIO(), width=100, height=12)
    pair = chat_screen._Columns(["A", "B"])
    pair.texts = ["\n".join(map(str, range(40))), "short"]
    screen.print(chat_screen._Tail(pair))
    assert [line.split()[0] for line in screen.file.getvalue().splitlines()] == [str(index) for index in range(30, 40)]


def test_history_follows_the_choices():
    """A chose nothing at 1, B was chosen at 2 (with B's own answer to 1), at 3 they part again."""
    messages = [Exchange(str(index), (ChatAnswer(f"A{index}"), ChatAnswer(f"B{index}"))) for index in (1, 2, 3)]
    messages[1].chosen = 1
    dialogue = Dialogue(["a", "b"], None, messages)
    assert [m.content for m in dialogue.history(0)] == ["1", "B1", "2", "B2", "3", "A3"]
    assert [m.content for m in dialogue.history(1)] == ["1", "B1", "2", "B2", "3", "B3"]


def test_help_lists_what_there_is(talk, other):
    alone, _ = talk("/help")
    pair, _ = talk("/help", against=other)
    assert "/a  " not in alone
    assert "/a  " in pair
    assert "/temperature X" in alone
    assert max(map(len, pair.splitlines())) <= 80


# -- the real thing ----------------------------------------------------------------------------------------------------


CALL = "import sys; from trueup.chat.session import run; run(sys.argv[1], device='cpu', max_new_tokens=12)"


def test_as_a_program(tiny_base, tmp_path):
    done = warm.run(
        [sys.executable, "-c", CALL, tiny_base],
        check=False,
        input="hi\n/save x.jsonl\n/quit\nnever read\n",
        capture_output=True, text=True, cwd=tmp_path, timeout=120, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0
    assert "> " not in done.stdout
    assert "x.jsonl: 1 conversation added; 1 row in it" in done.stderr
    [row] = RowStream(DataConfig(path=str(tmp_path / "x.jsonl")), "conversation")
    assert row.messages[0].content == "hi"
    assert done.stdout.removesuffix("\n") == chat_screen.clean(row.response)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_at_a_terminal(tiny_base, tmp_path):
    import pty

    main, side = pty.openpty()
    program = warm.Popen(
        [sys.executable, "-c", CALL, tiny_base], stdin=side, stdout=side, stderr=side, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    os.close(side)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([main], [], [], 60)[0], f"{text!r} did not come: {seen!r}"
            seen += os.read(main, 4096)
        seen = seen.partition(text)[2]

    until(b"> ")
    time.sleep(1)  # the prompt stands there a moment before the reading of a line begins
    program.send_signal(signal.SIGINT)
    until(b"(Ctrl-C again or /quit ends)\r\n")
    until(b"> ")
    os.write(main, b"hi\n")
    until(b"cut at 12 tokens")
    until(b"> ")
    os.write(main, b"/quit\n")
    assert program.wait(60) == 0
    os.close(main)
