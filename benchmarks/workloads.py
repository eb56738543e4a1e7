"""The models and rows of the comparisons, the same on every run and every machine."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 49_152
PROMPT_MEDIAN, RESPONSE_MEDIAN, SPREAD, LONGEST = 100, 67, 0.6, 400
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
ROLES = ["system", "user", "assistant"]
# `<|im_start|> user … <|im_end|> <|im_start|> assistant` stand around a prompt, `<|im_end|>` behind an answer.
AROUND_PROMPT, BEHIND_ANSWER = 5, 1
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
# SmolLM2's own less its system prompt and the newline behind the last turn, which TRL would train and trueup not.
TURNS = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)
LAST_WRITTEN = "tokenizer.json"  # of a model's folder: there where nothing interrupted the writing
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama; `words` is its vocabulary size, `deviation` the standard deviation of its initial weights."""

    words: int = VOCABULARY
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    intermediate: int = 704
    longest: int = 512
    deviation: float = 0.02


LARGE_VOCABULARY = Shape()
WANDERING = Shape(deviation=0.1)  # its greedy answers vary; with small weights one word repeats
TINY = Shape(words=512, hidden=64, layers=2, heads=4, intermediate=172)


def tokenizer(words: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word, words separated by spaces: ids and text determine each other."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*SPECIAL, *ROLES]
    known += [f"w{at}" for at in range(words - len(known))]
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(known)}, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(SPECIAL)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>",
        unk_token="<|unk|>", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = TEMPLATE
    return made


def llama(folder: Path, shape: Shape = LARGE_VOCABULARY, seed: int = 0) -> Path:
    """Write a random Llama with tied embeddings, and its tokenizer, unless they exist. Return the folder."""
    if not (folder / LAST_WRITTEN).is_file():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        words = tokenizer(shape.words)
        config = LlamaConfig(
            vocab_size=shape.words, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
            max_position_embeddings=shape.longest, tie_word_embeddings=True,
            initializer_range=shape.deviation, bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        words.save_pretrained(folder)
    return folder


def smollm2(gguf: Path, folder: Path) -> Path:
    """Return SmolLM2-135M-Instruct as a Hugging Face folder in float32, written on first use."""
    if not (folder / LAST_WRITTEN).is_file():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # It was dequantized on loading: a configuration that still says "gguf" could not be loaded again.
        del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(folder)
        words: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        words.chat_template = TURNS
        words.save_pretrained(folder)
    return folder


def classifier(causal: Path, folder: Path, seed: int | None = None) -> Path:
    """Write the same weights with a score head, unless they exist. Return the folder.

    The head is zero, as trueup's starts; with a `seed` it is random, as that of a reward model that scores is not zero.
    """
    if not (folder / LAST_WRITTEN).is_file():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model: Any = AutoModelForSequenceClassification.from_pretrained(causal, num_labels=1, dtype=torch.float32)
        torch.nn.init.zeros_(model.score.weight)
        if seed is not None:
            torch.manual_seed(seed)
            torch.nn.init.normal_(model.score.weight, std=0.1)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(causal).save_pretrained(folder)
    return folder


def _length(draw: random.Random, median: int) -> int:
    """Return a log-normal number of tokens, at least 4."""
    return max(4, round(median * math.exp(SPREAD * draw.gauss(0, 1))))


def rankings(count: int, words: int = VOCABULARY, seed: int = 0, longest: int = LONGEST) -> list[Row]:
    """Return rankings of random words; prompt and answer have log-normal lengths and fit `longest` tokens together."""
    draw = random.Random(f"rankings-{seed}")
    first = len(SPECIAL) + len(ROLES)

    def text(tokens: int) -> str:
        return " ".join(f"w{draw.randrange(words - first)}" for _ in range(tokens))

    rows: list[Row] = []
    while len(rows) < count:
        prompt = _length(draw, PROMPT_MEDIAN) + AROUND_PROMPT
        answers = [_length(draw, RESPONSE_MEDIAN) + BEHIND_ANSWER for _ in range(2)]
        if prompt + max(answers) > longest:
            continue
        chosen, rejected = (text(one - BEHIND_ANSWER) for one in answers)
        rows.append(_row([("user", text(prompt - AROUND_PROMPT))], chosen, rejected))
    return rows


def _row(prompt: Iterable[tuple[str, str]], chosen: str, rejected: str) -> Row:
    """Return a ranking in the format that trueup and TRL both read."""
    return {
        "prompt": [{"role": role, "content": content} for role, content in prompt],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def human_rankings(path: Path, count: int, longest: int, folder: Path, *, one_turn: bool) -> list[Row]:
    """Return hh-rlhf's first `count` rankings whose answers are not empty and fit `longest` tokens of the model's.

    Args:
        path: a .jsonl of `chosen` and `rejected`, each one string of "Human:" and "Assistant:" turns.
        count: how many.
        longest: the longest side in tokens, prompt and answer together.
        folder: the model whose tokenizer and template count.
        one_turn: only those that ask once: in SFT the two train different tokens of longer ones.
    """
    from transformers import AutoTokenizer

    counter: Any = AutoTokenizer.from_pretrained(folder)
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            one = json.loads(line)
            sides = {side: turns(one[side]) for side in ("chosen", "rejected")}
            prompt, answers = sides["chosen"][:-1], {side: found[-1][1] for side, found in sides.items()}
            if one_turn and len(prompt) > 1:
                continue
            if sides["rejected"][:-1] != prompt or not all(answers.values()) or len(set(answers.values())) < 2:
                continue
            row = _row(prompt, answers["chosen"], answers["rejected"])
            whole = [counter.apply_chat_template(row["prompt"] + row[side], tokenize=True, return_dict=True)
                     for side in ("chosen", "rejected")]  # fmt: skip
            if max(len(one["input_ids"]) for one in whole) <= longest:
                rows.append(row)
            if len(rows) == count:
                return rows
    raise ValueError(f"only {len(rows)} of {count} rows fit {longest} tokens: give a longer file")


def turns(text: str) -> list[tuple[str, str]]:
    """hh-rlhf's "Human: … Assistant: …" as (role, content), the last one the answer."""
    found: list[tuple[str, str]] = []
    for piece in text.split("\n\nHuman:")[1:]:
        human, *answers = piece.split("\n\nAssistant:")
        found.append(("user", human.strip()))
        found += [("assistant", answer.strip()) for answer in answers]
    if len(found) < 2:
        raise ValueError('no "Human:" and "Assistant:" turns')
    return found


def conversations(rows: list[Row]) -> list[Row]:
    """Return the prompt and the chosen answer of rankings."""
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]


def prompts(rows: list[Row]) -> list[Row]:
    """Return the prompts of rankings."""
    return [{"prompt": row["prompt"]} for row in rows]


def write(path: Path, rows: list[Row]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path | str) -> list[Row]:
    """Read rows from JSON lines."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
