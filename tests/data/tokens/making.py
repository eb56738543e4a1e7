"""Small data sections as tokens, for the tests of trueup.data.tokens.

rows = making.tokens(tmp_path / "rows.jsonl", [{"prompt": "q", "completion": "a"}])     # a Tokenized
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
from trueup.config import DataConfig, TrainDataConfig
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens.build import tokenize
from trueup.data.tokens.store import Tokenized

WORDS = [
    "river",
    "stone",
    "market",
    "window",
    "garden",
    "letter",
    "winter",
    "copper",
    "bridge",
    "candle",
    "harbour",
    "meadow",
    "pocket",
    "engine",
    "violin",
    "ladder",
    "orchard",
    "blanket",
    "thunder",
    "compass",
    "lantern",
    "marble",
    "saddle",
    "tunnel",
    "whistle",
    "basket",
    "feather",
    "mirror",
    "anchor",
    "carpet",
]

# Drops what an earlier answer thought: only the last answer is rendered as it was written.
REWRITING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'] | lower }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def renderer(template: str | None = None, **tokenizer: Any) -> Renderer:
    """Of the tiny byte tokenizer, with another chat template if one is given."""
    made = tiny.tiny_tokenizer(**tokenizer)
    if template is not None:
        made.chat_template = template
    return Renderer(made)


def word_tokenizer(texts: Sequence[str], *, unknown: str | None = "<unk>", lower: bool = False) -> Any:
    """A tokenizer of whole words: those of `texts` in ChatML; it turns others into `unknown`, or drops them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"user", "assistant", "system"} | {word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)}
    names = [*tiny.SPECIAL, *([unknown] if unknown else []), *sorted(words)]
    vocabulary = {name: index for index, name in enumerate(names)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown or "none such"))
    core.normalizer = normalizers.Lowercase() if lower else None
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(tiny.SPECIAL)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", unk_token=unknown,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = tiny.TEMPLATE
    return made


def write(path: Path, rows: Sequence[Any]) -> Path:
    """JSON lines; a string stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def section(path: Path | str, **more: Any) -> TrainDataConfig:
    """A section that is trained on."""
    return TrainDataConfig.model_validate({"path": str(path), **more})


def tokens(
    path: Path, rows: Sequence[Any], want: Any = "conversation", *, workers: int = 1, allow_empty: bool = False,
    by: Renderer | None = None, **more: Any,
) -> Tokenized:  # fmt: skip
    """The rows, written to `path` and tokenized."""
    where = DataConfig.model_validate({"path": str(write(path, rows)), **more})
    return tokenize(where, [want], by or renderer(), allow_empty=allow_empty, workers=workers)


def sentence(number: int, words: int = 12) -> str:
    """A sentence that no other number has."""
    drawn = random.Random(number)
    return f"{' '.join(drawn.choice(WORDS) for _ in range(words))} {number}."


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    """Conversations, all different."""
    return [{"prompt": f"Q: {sentence(at)}", "completion": sentence(-at - 1)} for at in range(start, start + count)]


def rankings(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rankings, all different; neither side is longer on the whole."""
    return [
        {"prompt": f"Q: {sentence(at)}", "chosen": sentence(10_000 + at), "rejected": sentence(20_000 + at)}
        for at in range(start, start + count)
    ]


def die(_first: int, _chunk: object) -> None:
    """End as a worker process does that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def files(rows: Tokenized) -> dict[str, bytes]:
    """All that is stored."""
    return {path.name: path.read_bytes() for path in rows.folder.iterdir()}
