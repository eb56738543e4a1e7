"""Thoughts and tool calls in rows: the spellings that are read, as one kind of message, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trueup.data.rendering.messages import TOOLS, Conversation, Message, Origin, Preference, Prompt, Row, ToolCall
from trueup.data.sources.calls import call_problems, read_tools
from trueup.data.sources.parser import Parser
from trueup.errors import DataError

LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
DECLARED = {"type": "function", "function": LOOK}
CALL = {"name": "look", "arguments": {"place": "Rome"}}
QUESTION, ANSWER = {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "No."}


def parsed(row: dict[str, Any], want: Any = "conversation") -> Row:
    parser, origin = Parser(want), Origin("rows.jsonl", 1)
    parser.start(origin, row)
    return parser.parse(origin, row, []).rows[0]


def messages(*turns: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    row = parsed({"messages": list(turns), **fields})
    assert isinstance(row, Conversation)
    return row.messages


EXPECTED = (
    Message("user", "Rain?"),
    Message("assistant", "", calls=(ToolCall("look", '{"place": "Rome"}'),)),
    Message("tool", "dry", name="look"),
    Message("assistant", "No."),
)


@pytest.mark.parametrize(
    "turns",
    [
        [QUESTION, {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]}],
        [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
        [QUESTION, {"role": "assistant", "tool_calls": json.dumps([CALL])}],
        [QUESTION, {"role": "assistant", "content": None, "function_call": {**CALL, "arguments": '{"place": "Rome"}'}}],
        [{"from": "human", "value": "Rain?"}, {"from": "function_call", "value": json.dumps(CALL)}],
        [{"from": "human", "value": "Rain?"}, {"from": "gpt", "value": f"<tool_call>{json.dumps(CALL)}</tool_call>"}],
        [{"from": "human", "value": "Rain?"}, {"from": "gpt", "value": f"<tool_call>\n{CALL!r}\n</tool_call>"}],
    ],
)  # fmt: skip
@pytest.mark.parametrize("result", ["tool", "observation", "<tool_response>"])
def test_spellings(turns, result):
    sharegpt = "from" in turns[0]
    role, text = ("from", "value") if sharegpt else ("role", "content")
    content = "<tool_response>\ndry\n</tool_response>" if result == "<tool_response>" else "dry"
    rest = [
        {role: "observation" if result == "observation" else "tool", text: content},
        {role: "gpt" if sharegpt else "assistant", text: "No."},
    ]
    assert messages(*turns, *rest) == EXPECTED


def test_parallel_calls_and_their_results_by_id_and_in_order():
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    second, first = ({"role": "tool", "tool_call_id": name, "content": name} for name in ("b", "a"))
    found = messages(QUESTION, called, second, first, ANSWER)
    assert [(m.name, m.call_id) for m in found if m.role == "tool"] == [("b", "b"), ("a", "a")]
    plain = messages(QUESTION, called, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, ANSWER)
    assert [(m.name, m.call_id) for m in plain if m.role == "tool"] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize("tools", [[DECLARED], [LOOK], json.dumps([DECLARED]), [json.dumps(LOOK)]])
def test_declared_tools_come_first(tools):
    found = messages(QUESTION, ANSWER, tools=tools, system="Be brief.")
    assert [message.role for message in found] == [TOOLS, "system", "user", "assistant"]
    assert json.loads(found[0].content) == [DECLARED]
    assert messages(QUESTION, ANSWER, tools=[]) == (Message("user", "Rain?"), Message("assistant", "No."))


def test_rankings_and_prompts_may_have_tools():
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    row = {"prompt": [QUESTION], "chosen": [called], "rejected": [ANSWER], "tools": [DECLARED]}
    ranking = parsed(row, "preference")
    assert isinstance(ranking, Preference)
    assert [message.role for message in ranking.prompt] == [TOOLS, "user"]
    assert ranking.chosen[0].calls == (ToolCall("look", '{"place": "Rome"}'),)
    other = {**called, "tool_calls": [{**CALL, "arguments": {"place": "Oslo"}}]}
    assert isinstance(parsed({**row, "rejected": [other]}, "preference"), Preference)
    prompt = parsed({"messages": [QUESTION, called, {"role": "tool", "content": "dry"}], "tools": [DECLARED]}, "prompt")
    assert isinstance(prompt, Prompt)
    assert [message.role for message in prompt.messages] == [TOOLS, "user", "assistant", "tool"]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts(key):
    found = messages(QUESTION, {**ANSWER, key: "It is dry."})
    assert found[1] == Message("assistant", "No.", thinking="It is dry.")
    same = messages(QUESTION, {"role": "assistant", "content": "<think>It is dry.</think>No.", key: "It is dry."})
    assert same[1] == Message("assistant", "<think>It is dry.</think>No.")


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({**ANSWER, "thinking": "a", "reasoning_content": "b"}, "two different thoughts"),
        ({"role": "assistant", "content": "<think>a</think>b", "thinking": "c"}, "two different thoughts"),
        ({**ANSWER, "thinking": ["a"]}, "expected a string"),
        ({"role": "assistant", "tool_calls": [{"arguments": {}}]}, "names no tool"),
        ({"role": "assistant", "tool_calls": [{"name": "look", "arguments": "{"}]}, "is not JSON"),
        ({"role": "assistant", "tool_calls": [{"name": "look", "arguments": "[1]"}]}, "expected an object"),
        ({"role": "assistant", "tool_calls": ["look"]}, "expected a call"),
    ],
)
def test_refused(turn, problem):
    with pytest.raises(DataError, match=rf"^rows.jsonl:1: (.|\n)*{problem}"):
        messages(QUESTION, turn)


@pytest.mark.parametrize("tools", [{"a": 1}, "{", 3, [3], [{"function": 3}]])
def test_refused_declarations(tools):
    with pytest.raises(DataError, match=r"^rows.jsonl:1: tools"):
        messages(QUESTION, ANSWER, tools=tools)


def test_a_text_that_is_no_call_stays_text():
    for text in (
        "<tool_call>look</tool_call>",
        "Write <tool_call>{}</tool_call>.",
        '<tool_call>{"name": "a"}</tool_call>!',
    ):
        assert messages(QUESTION, {"role": "assistant", "content": text})[1] == Message("assistant", text)


def test_a_message_is_stored_and_restored():
    for message in (
        *EXPECTED,
        Message("assistant", "No.", thinking="dry"),
        Message("tool", "a", name="b", call_id="c"),
    ):
        assert Message.restored(json.loads(json.dumps(message.stored()))) == message


SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "enum": ["Rome", "Oslo"]},
        "days": {"type": "integer"},
        "parts": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["place"],
}


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("look", {"place": "Rome", "days": 2, "parts": [1, 2.5]}, None),
        ("look", {"place": "Rome", "days": 2.0}, None),
        ("see", {}, "not among the declared tools (look)"),
        ("look", {}, 'lacks "place", which is required'),
        ("look", {"place": "Bonn"}, 'look.place is "Bonn", not one of "Rome", "Oslo"'),
        ("look", {"place": "Rome", "days": "two"}, "look.days is a string, declared as integer"),
        ("look", {"place": "Rome", "days": True}, "declared as integer"),
        ("look", {"place": "Rome", "parts": [1, "a"]}, "look.parts[] is a string, declared as number"),
        ("look", {"place": "Rome", "hour": 1}, 'has "hour", which is not declared'),
    ],
)
def test_calls_are_compared_with_their_declaration(name, arguments, problem):
    tools = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    talk = (
        Message(TOOLS, json.dumps(tools)),
        Message("assistant", "", calls=(ToolCall(name, json.dumps(arguments)),)),
    )
    found = list(call_problems(talk))
    assert found == [] if problem is None else problem in found[0]
    assert list(call_problems(talk[1:])) == []


def test_a_file_of_tools_is_for_rows_without(tmp_path):
    (tmp_path / "tools.json").write_text(json.dumps([LOOK]))
    row: dict[str, Any] = {"messages": [QUESTION, ANSWER]}
    parser = Parser("conversation", tools=read_tools(str(tmp_path / "tools.json")))
    parser.start(Origin("rows.jsonl", 1), row)
    own = {**row, "tools": [{"name": "own"}]}
    found = [parser.parse(Origin("rows.jsonl", 1), fields, []).rows[0] for fields in (row, own)]
    tools = [json.loads(one.messages[0].content) for one in found if isinstance(one, Conversation)]
    assert [tool["function"]["name"] for (tool,) in tools] == ["look", "own"]


@pytest.mark.parametrize("text", ["{", "[]", "[3]", "3"])
def test_a_file_of_no_tools_is_refused(tmp_path, text):
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(DataError, match=r"tools.json:1: (.|\n)*fix:"):
        read_tools(str(tmp_path / "tools.json"))


@pytest.mark.parametrize("text", ["{'name': 'look', 'arguments': {b'x'}}", "{'name': open('x')}", "{" * 500 + "}"])
def test_what_is_no_call_stays_text(text):
    content = f"<tool_call>{text}</tool_call>"
    assert messages(QUESTION, {"role": "assistant", "content": content})[1] == Message("assistant", content)


def test_two_different_calls_in_one_message_are_refused():
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL], "function_call": CALL}
    assert len(messages(QUESTION, turn)[1].calls) == 1
    with pytest.raises(DataError, match="different calls at tool_calls and function_call"):
        messages(QUESTION, {**turn, "function_call": {**CALL, "name": "see"}})


def test_tools_may_be_declared_as_functions():
    """As in OpenAI's older files; a field `functions` that declares nothing is left unread."""
    assert messages(QUESTION, ANSWER, functions=[LOOK]) == messages(QUESTION, ANSWER, tools=[DECLARED])
    assert messages(QUESTION, ANSWER, functions=[LOOK], tools=[DECLARED])[0].role == TOOLS
    assert messages(QUESTION, ANSWER, functions=["def f(): ..."])[0].role == "user"
    with pytest.raises(DataError, match="tools and functions declare different tools"):
        messages(QUESTION, ANSWER, functions=[LOOK], tools=[{"name": "see"}])


@pytest.mark.parametrize(
    ("part", "fix"),
    [
        ({"type": "tool_call", "name": "look", "input": {}}, "calls at tool_calls"),
        ({"type": "reasoning", "thinking": "dry"}, "thoughts at reasoning_content"),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, "pictures and sound cannot be trained on"),
    ],
)
def test_a_part_that_is_no_text_says_where_it_belongs(part, fix):
    with pytest.raises(DataError, match=fix):
        messages(QUESTION, {"role": "assistant", "content": [part, {"type": "text", "text": "No."}]})


@pytest.mark.parametrize("key", ["arguments", "parameters", "args", "input"])
def test_names_of_arguments(key):
    call = {"name": "look", key: {"place": "Rome"}}
    assert messages(QUESTION, {"role": "assistant", "tool_calls": [call]})[1].calls == EXPECTED[1].calls


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ({"name": "look", "values": {"place": "Rome"}}, 'has no arguments, but "values"'),
        ({**CALL, "parameters": {"place": "Oslo"}}, "holds arguments at arguments and parameters"),
    ],
)
def test_arguments_are_never_lost(call, problem):
    with pytest.raises(DataError, match=problem):
        messages(QUESTION, {"role": "assistant", "tool_calls": [call]})


NULLABLE = {
    "name": "look",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "day": {"type": "string"}, "hour": {"type": ["integer", "null"]},
                       "at": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}}},
        "required": ["place"],
    },
}  # fmt: skip


def test_nulls_of_a_table_are_left_out_of_a_call_unless_the_tool_takes_them() -> None:
    """Parquet gives every call the arguments of all others, as null; these were trained."""
    arguments = {"place": "Rome", "day": None, "hour": None, "at": {"lat": 1.5, "lon": None}, "other": None}
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "look", "arguments": arguments}}],
    }
    (_, _, call) = messages(QUESTION, turn, tools=[{"type": "function", "function": NULLABLE}])
    assert json.loads(call.calls[0].arguments) == {"place": "Rome", "hour": None, "at": {"lat": 1.5}}
    text = {**turn, "tool_calls": [{"function": {"name": "look", "arguments": json.dumps(arguments)}}]}
    (_, _, exact) = messages(QUESTION, text, tools=[{"type": "function", "function": NULLABLE}])
    assert json.loads(exact.calls[0].arguments) == arguments
    with pytest.raises(DataError, match="is null, and its tool is not declared"):
        messages(QUESTION, turn)
    assert messages(QUESTION, text)[-1].calls == exact.calls


def results(*ids: str) -> list[dict[str, Any]]:
    calls = [
        {"id": name, "type": "function", "function": {**CALL, "arguments": {"place": name}}} for name in ("x", "y")
    ]
    answers = [{"role": "tool", "tool_call_id": name, "content": f"of {name}"} for name in ids]
    return [QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}, *answers, ANSWER]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [(("x", "z"), '"z" is none of the calls before it'), (("x", "x"), '"x" is answered already'),
     (("y", "x", "y"), '"y" is answered already')],
)  # fmt: skip
def test_a_result_of_no_call_is_refused(ids: tuple[str, ...], problem: str) -> None:
    """Such a result was taken for that of the first call that waits."""
    with pytest.raises(DataError, match=problem):
        messages(*results(*ids))


def test_results_in_another_order_name_their_calls() -> None:
    turns = messages(*results("y", "x"))
    assert [(turn.call_id, turn.content) for turn in turns if turn.role == "tool"] == [("y", "of y"), ("x", "of x")]
    calls = [{"name": "look", "arguments": {}}, {"name": "sum", "arguments": {}}]
    named = [{"role": "tool", "name": "sum", "content": "3"}, {"role": "tool", "content": "dry"}]
    turns = messages(QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}, *named, ANSWER)
    assert [turn.name for turn in turns if turn.role == "tool"] == ["sum", "look"]


@pytest.mark.parametrize("tag", ["TOOLCALL", "tool_calls", "function_call"])
def test_a_list_of_calls_in_the_tags_of_other_families(tag: str) -> None:
    text = f"Let me look.<{tag}>{json.dumps([CALL, CALL])}</{tag}>"
    message = messages(QUESTION, {"role": "assistant", "content": text}, tools=[DECLARED])[-1]
    assert (message.content, [call.name for call in message.calls]) == ("Let me look.", ["look", "look"])


@pytest.mark.parametrize("text", ["<functioncall> {'name': 'look'}", '[TOOL_CALLS] [{"name": "look"}]', "<tool_call>x"])
def test_a_call_in_a_form_that_is_not_read_is_refused_where_tools_are_declared(text: str) -> None:
    turns = [QUESTION, {"role": "assistant", "content": text}]
    with pytest.raises(DataError, match="holds a call, at"):
        messages(*turns, tools=[DECLARED])
    assert messages(*turns)[-1].content == text


# -- other tools' rows -------------------------------------------------------------------------------------------------

SYSTEM = Message("system", "Be brief.")
TOOLED = Message(TOOLS, json.dumps([DECLARED]))
ASKED, CALLED, RESULT, SAID = EXPECTED


def conversation(row: dict[str, Any]) -> tuple[Message, ...]:
    made = parsed(row)
    assert isinstance(made, Conversation)
    return made.messages


def test_anthropics_parts_are_calls_and_results() -> None:
    """One message of the user may hold several results, and a text behind them."""
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"place": "Rome"}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I must look.", "signature": "x"}, {"type": "text", "text": "One moment."},
            use, {**use, "id": "t2", "input": {"place": "Bonn"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "wet"}]},
            {"type": "tool_result", "tool_use_id": "t1", "content": "dry"},
        ]},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
    ]  # fmt: skip
    schema = {"name": "look", "description": "Looks.", "input_schema": LOOK["parameters"]}
    tools, system, asked, called, *results, said = conversation(
        {"messages": turns, "system": "Be brief.", "tools": [schema]}
    )
    assert json.loads(tools.content) == [
        {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": LOOK["parameters"]}}
    ]
    assert (system, asked, said) == (SYSTEM, ASKED, SAID)
    assert (called.content, called.thinking) == ("One moment.", "I must look.")
    assert called.calls == (ToolCall("look", '{"place": "Rome"}', "t1"), ToolCall("look", '{"place": "Bonn"}', "t2"))
    assert results == [
        Message("tool", "wet", name="look", call_id="t2"), Message("tool", "dry", name="look", call_id="t1")
    ]  # fmt: skip


def test_a_part_behind_anthropics_calls_is_refused() -> None:
    """It would be trained in front of the call."""
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    turns = [QUESTION, {"role": "assistant", "content": [use, {"type": "text", "text": "Wait."}]}]
    with pytest.raises(DataError, match=r"messages\[1\].content\[1\] follows a call, and calls end a message"):
        parsed({"messages": turns})
    turns[1]["content"] = [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Wait."}]
    with pytest.raises(DataError, match="holds a part that is no text"):
        parsed({"messages": turns})


def test_geminis_contents_are_messages_with_calls() -> None:
    row = {
        "contents": [
            {"role": "user", "parts": [{"text": "Rain?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"place": "Rome"}}}]},
            {"role": "function", "parts": [{"functionResponse": {"name": "look", "response": {"sky": "dry"}}}]},
            {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": "No."}]},
        ],
        "system_instruction": "Be brief.",
        "tools": [{"function_declarations": [LOOK]}],
    }
    answer = Message("assistant", "No.", thinking="Hm.")
    result = Message("tool", '{"sky": "dry"}', name="look")
    assert conversation(row) == (TOOLED, SYSTEM, ASKED, CALLED, result, answer)


@pytest.mark.parametrize(("parts", "said"), [
    ([{"inlineData": {"mimeType": "image/png", "data": "x"}}], "holds a part that is no text"),
    ([{"functionCall": {"name": "look", "args": {}}}, {"text": "Wait."}], "follows a call"),
    ([], "has no parts"),
])  # fmt: skip
def test_geminis_parts_that_cannot_be_read(parts: list[Any], said: str) -> None:
    asked = {"role": "user", "parts": [{"text": "Rain?"}]}
    with pytest.raises(DataError, match=rf"contents\[1\].* {said}"):
        parsed({"contents": [asked, {"role": "model", "parts": parts}]})


def test_openais_preferences_may_hold_tools_and_calls() -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": CALL}]}
    made = parsed(
        {
            "input": {"messages": [QUESTION], "tools": [DECLARED]},
            "preferred_output": [call],
            "non_preferred_output": [ANSWER],
        },
        "preference",
    )
    assert isinstance(made, Preference)
    assert made.prompt == (TOOLED, ASKED)
    assert made.chosen[0].calls[0].name == "look"
    assert made.rejected == (SAID,)


GLAIVE = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    + json.dumps(LOOK, indent=4) + "\n"
)  # fmt: skip


def glaive(call: str) -> dict[str, Any]:
    return {
        "system": GLAIVE,
        "chat": f"USER: Rain?\n\n\nASSISTANT: {call} <|endoftext|>\n\n\nFUNCTION RESPONSE: dry\n\n\n"
        "ASSISTANT: No. <|endoftext|>\n\n\n",
    }


@pytest.mark.parametrize("arguments", ['"arguments": \'{"place": "Rome"}\'', '"arguments": {"place": "Rome"}'])
def test_glaives_calls_and_functions_are_read(arguments: str) -> None:
    assert conversation(glaive(f'<functioncall> {{"name": "look", {arguments}}}')) == (TOOLED, *EXPECTED)


def test_a_call_of_glaives_that_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match='"chat" holds a call that cannot be read'):
        parsed(glaive("<functioncall> look(Rome)"))
