"""The wind tunnel's untrained model: a small Llama and a byte-level BPE tokenizer, written as a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trueup.data.rendering.template import PLAIN_CHATML
from trueup.windtunnel import grader


def pipeline_text(template: str, world: Path, folder: Path) -> str:
    """Return a pipeline's YAML with the marks WORLD, FOLDER and GOLD in it replaced by paths.

    Args:
        template: YAML in which the marks stand inside double quotes.
        world: the built world's folder, for WORLD.
        folder: the folder for runs, for FOLDER. GOLD becomes the gold grader as file.py:function.
    """
    places = {"WORLD": world, "FOLDER": folder, "GOLD": f"{grader.__file__}:gold"}
    for mark, place in places.items():
        # Inside double quotes JSON's escapes are YAML's too: any folder name will do.
        template = template.replace(mark, json.dumps(str(place), ensure_ascii=False)[1:-1])
    return template


PAD, END_OF_TEXT, TURN, END_OF_TURN = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# The trainer numbers them in this order, from 0.
_SPECIAL = [PAD, END_OF_TEXT, TURN, END_OF_TURN]
VOCABULARY = 2560
# Role names, repeated until the tokenizer gives each a token of its own: they stand in every chat row.
_ROLES = ["system", "user", "assistant"] * 100
LONGEST = 256


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of VOCABULARY tokens on `texts`; it can encode every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([*texts, *_ROLES], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END_OF_TEXT,
        extra_special_tokens=[TURN, END_OF_TURN],
        chat_template=PLAIN_CHATML,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def llama(tokens: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return an untrained float32 Llama for the tokenizer `tokens`.

    The weights are drawn from `seed`; the caller's random state is left as it was.
    """
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=32,
        # Larger than the usual 0.02: after 400 steps of 16 documents their loss is 0.43 instead of 0.58 nats a token.
        initializer_range=0.05,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        pad_token_id=_SPECIAL.index(PAD),
        bos_token_id=None,
        eos_token_id=_SPECIAL.index(END_OF_TEXT),
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def write(folder: Path, texts: Iterable[str], seed: int) -> None:
    """Write the untrained model, and a tokenizer trained on `texts`, to `folder` in the Hugging Face format."""
    tokens = tokenizer(texts)
    llama(tokens, seed).save_pretrained(folder)
    tokens.save_pretrained(folder)
