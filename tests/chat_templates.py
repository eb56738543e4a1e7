"""The chat templates of today's families, as TRL's wheel carries them, with tokenizers made for them.

python tests/chat_templates.py > docs/templates.md      # the table of what trueup does with each
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trueup.data.rendering.messages import TOOLS, Message, ToolCall
from trueup.data.rendering.renderer import Renderer
from trueup.errors import TrueupError

# Texts that are one token in the families' vocabularies, by their look.
CONTROL = re.compile(
    r"<\|[^\s|<>'\"]+\|?>|<[^\s|<>'\"/]+\|>|<\uff5c[^\s<>'\"]+?\uff5c>|</?think>|</?s>|\[/?[A-Za-z]{3,}\]|<(?:start|end)_of_\w+>"
    r"|<end_of_utterance>|<sop>|</?tool_\w+>"
)
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<\uff5cend▁of▁sentence\uff5c>", "<|END_OF_TURN_TOKEN|>",
    "<|return|>", "<|eot|>", "<end_of_utterance>", "</s>",
)  # fmt: skip
WORDS = "You are a helpful assistant. user system What is the capital of France? The capital is Paris.\n\n1 2 3 \n"
ASK, SAY, AGAIN, THEN = "What is one?", "It is one.", "And two?", "That is two."
COUNT, COUNTED = "I count: one.", "Then two comes."
ROWS: dict[str, tuple[Message, ...]] = {
    "single": (Message("user", ASK), Message("assistant", SAY)),
    "multi": (Message("user", ASK), Message("assistant", SAY), Message("user", AGAIN), Message("assistant", THEN)),
    "system": (Message("system", "Be brief."), Message("user", ASK), Message("assistant", SAY)),
    "system, multi": (
        Message("system", "Be brief."), Message("user", ASK), Message("assistant", SAY), Message("user", AGAIN),
        Message("assistant", THEN),
    ),
    "thought": (Message("user", ASK), Message("assistant", SAY, thinking=COUNT)),
    "thoughts, multi": (
        Message("user", ASK), Message("assistant", SAY, thinking=COUNT), Message("user", AGAIN),
        Message("assistant", THEN, thinking=COUNTED),
    ),
    "thought at last": (
        Message("user", ASK), Message("assistant", SAY), Message("user", AGAIN),
        Message("assistant", THEN, thinking=COUNTED),
    ),
}  # fmt: skip


LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at the sky.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "A town."}},
            "required": ["place"],
        },
    },
}
DECLARED = Message(TOOLS, json.dumps([LOOK]))
ROME, OSLO = ToolCall("look", '{"place": "Rome"}', "call00001"), ToolCall("look", '{"place": "Oslo"}', "call00002")
TOOL_ROWS: dict[str, tuple[Message, ...]] = {
    "call": (DECLARED, Message("user", "Rain in Rome?"), Message("assistant", "", calls=(ROME,))),
    "call and answer": (
        DECLARED, Message("user", "Rain in Rome?"), Message("assistant", "", calls=(ROME,)),
        Message("tool", "sunny 21", name="look", call_id="call00001"), Message("assistant", "No rain."),
    ),
    "text and call": (
        DECLARED, Message("system", "Be brief."), Message("user", "Rain in Rome?"),
        Message("assistant", "I look.", calls=(ROME,)),
        Message("tool", "sunny 21", name="look", call_id="call00001"), Message("assistant", "No rain."),
        Message("user", "Thanks."), Message("assistant", "Welcome."),
    ),
    "thought and call": (
        DECLARED, Message("user", "Rain in Rome?"), Message("assistant", "", thinking="I must look.", calls=(ROME,)),
        Message("tool", "sunny 21", name="look", call_id="call00001"),
        Message("assistant", "No rain.", thinking="It is sunny."),
    ),
    "parallel": (
        DECLARED, Message("user", "Rain?"), Message("assistant", "", calls=(ROME, OSLO)),
        Message("tool", "sunny 21", name="look", call_id="call00001"),
        Message("tool", "cloudy 9", name="look", call_id="call00002"), Message("assistant", "No rain."),
    ),
    "no call": (DECLARED, Message("user", ASK), Message("assistant", SAY)),
}  # fmt: skip


def template_folder() -> Path | None:
    """The folder of TRL's chat templates; None where TRL is not installed."""
    spec = importlib.util.find_spec("trl")
    return Path(spec.origin).parent / "chat_templates" if spec and spec.origin else None


def names() -> list[str]:
    folder = template_folder()
    return sorted(path.stem for path in folder.glob("*.jinja")) if folder else []


def template(name: str) -> str:
    folder = template_folder()
    assert folder is not None
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def _letters() -> str:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [WORDS] * 4, trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet)
    )
    return core.to_str()


def tokenizer_for(text: str) -> Any:
    """A byte-level tokenizer in which the control tokens of a chat template are one token each."""
    control = list(dict.fromkeys(CONTROL.findall(text)))
    eos = "<|endoftext|>" if "[gMASK]" in control else next((end for end in ENDS if end in control), "<|endoftext|>")
    core = Tokenizer.from_str(_letters())
    core.add_special_tokens(list(dict.fromkeys(["<pad>", "<bos>", eos, *control])))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<bos>", eos_token=eos, pad_token="<pad>")
    tokenizer.chat_template = text
    return tokenizer


def as_dicts(messages: Sequence[Message], *, parts: bool) -> list[dict[str, Any]]:
    """Messages as `apply_chat_template` takes them; `parts`: contents as lists, for the families with vision."""
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if parts:
            turn["content"] = [{"type": "text", "text": message.content}]
        if message.thinking:
            turn["reasoning_content"] = message.thinking
        turns.append(turn)
    return turns


def table() -> str:
    """The page docs/templates.md: what is trained under each template, found by rendering ROWS and TOOL_ROWS."""
    lines = [_PAGE]
    for name in names():
        if name.endswith("_training"):
            continue
        tokenizer = tokenizer_for(template(name))
        renderer = Renderer(tokenizer)
        cells = (name, _result(renderer), _thought(renderer), _tools(renderer), _answer(renderer))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_PAGE = """\
# Chat templates

What `trueup` trains under the chat templates of today's families, as TRL's wheel has them; its `_training` variants
behave alike. Generated by `python tests/chat_templates.py > docs/templates.md`; every line is held by
`tests/data/rendering/test_template_families.py`. Nothing depends on a template's name: turns are found by marks around
contents.

- **rows** that train: single (s), several turns (m), with a system message (+s, +m), with a thought (t), with thoughts
  in several turns (tm). Capitals: the tokens are those of `apply_chat_template`. Small letters: the family's own form
  is trained, because the template writes no thought although it knows thoughts, or its generation prompt opens one.
- **thought**: the template takes it *beside* the content (`reasoning_content`, `thinking`), *inside* it
  (`<think>…</think>`), or nowhere: then trueup writes the *form* of the family.
- **tools**: *calls* are rendered and trained; *one* call a message; or none.
- **trained**: the trained text of a plain answer "A", up to its end token.

| template | rows | thought | tools | trained |
|---|---|---|---|---|"""
_SHORT = {
    "single": "s", "multi": "m", "system": "+s", "system, multi": "+m", "thought": "t", "thoughts, multi": "tm",
}  # fmt: skip


def _result(renderer: Renderer) -> str:
    words = []
    for row, short in _SHORT.items():
        messages = ROWS[row]
        try:
            rendered = renderer.conversation(messages)
        except TrueupError:
            continue
        chat = renderer._template
        turns = [chat._turn(chat.styled(message)) for message in messages]
        ids = renderer.tokenizer.apply_chat_template(turns, return_dict=False)
        count = len(rendered.ids) - (not renderer.writes_end)
        words.append(short.upper() if rendered.ids[:count] == ids[:count] else short)
    return " ".join(words)


def _thought(renderer: Renderer) -> str:
    chat = renderer._template
    opens = chat.form.opens.strip().replace("|", "\\|") if chat.form else ""
    return chat._thoughts or (f"form `{opens}`" if opens else "none")


def _tools(renderer: Renderer) -> str:
    if not renderer._template.declares:
        return "none"
    trained = []
    for row in ("call", "parallel"):
        with suppress(TrueupError):
            trained.append(renderer.conversation(TOOL_ROWS[row]))
    return ("none", "one", "calls")[len(trained)]


def _answer(renderer: Renderer) -> str:
    rendered = renderer.conversation((Message("user", "Q"), Message("assistant", "A")))
    ids = [token for token, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    text = str(renderer.tokenizer.decode(ids)).replace("\n", "\\n").replace("|", "\\|")
    return f"`{text}`"


if __name__ == "__main__":
    print(table(), end="")
