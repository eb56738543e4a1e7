"""A tiny Llama and a byte-level tokenizer with ChatML, the same on every run, for tests of everything above the losses.

    folder = tiny_folder(tmp_path / "base")                         # a Hugging Face folder; cached by its path
    network = tiny_network(folder)                                  # the Network that `load_network` makes of it
    network = tiny_network(tmp_path / "base", pad="eos", tied=False, attention="eager", dtype="float32")

One token a byte (ids 4 to 259), so texts cannot fail to encode and token counts are known by heart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from trueup.data.rendering.template import PLAIN_CHATML

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from trueup.models.network import Network

SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]  # ids 0 to 3
PAD_ID, START_ID, END_ID, EOS_ID = range(4)
VOCABULARY = 264  # four rows more than the tokenizer has tokens, as in most released models
HIDDEN = 32
TEMPLATE = PLAIN_CHATML  # known to the renderer, so that no child process has to try it


def tiny_tokenizer(
    *,
    pad: Literal["separate", "eos"] = "separate",
    eos: str = "<|im_end|>",
    padding_side: Literal["right", "left"] = "right",
) -> PreTrainedTokenizerFast:
    """Byte-level, no merges. `pad="eos"`: the end token pads too. `eos="<|endoftext|>"`: a turn ends otherwise."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token=eos,
        pad_token="<|pad|>" if pad == "separate" else eos,
        unk_token="<|endoftext|>",
        padding_side=padding_side,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(
    *, seed: int = 0, tied: bool = True, hidden: int = HIDDEN, vocabulary: int = VOCABULARY, **config: Any
) -> LlamaForCausalLM:
    """A LlamaForCausalLM of two layers, its random weights wide enough that attention and positions matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "initializer_range": 0.2,
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(settings | config)))
        pad = model.model.embed_tokens.padding_idx
        if pad is not None:  # transformers starts this row at zero: as the end token's, too, it would never be sampled
            with torch.no_grad():
                model.model.embed_tokens.weight[pad].normal_(0, 0.2)
    return model.eval()


def tiny_folder(
    path: str | Path,
    *,
    pad: Literal["separate", "eos"] = "separate",
    eos: str = "<|im_end|>",
    padding_side: Literal["right", "left"] = "right",
    **model: Any,
) -> str:
    """Write the tiny model and tokenizer into `path` (unless a model is there already). -> the folder's name.

    Args:
        path: the folder.
        pad: as in `tiny_tokenizer`, with `eos` and `padding_side`.
        eos: see there.
        padding_side: see there.
        model: `seed`, `tied`, `hidden`, `vocabulary`, or any field of LlamaConfig.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        tokenizer = tiny_tokenizer(pad=pad, eos=eos, padding_side=padding_side)
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        tiny_model(**(ids | model)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_network(
    path: str | Path,
    *,
    attention: Literal["sdpa", "eager"] = "sdpa",
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    **variant: Any,
) -> Network:
    """The network, without roles, of the folder at `path`, which `tiny_folder(path, **variant)` writes if need be."""
    from trueup.config import SftConfig
    from trueup.models.loading import load_network
    from trueup.runtime import init

    folder = tiny_folder(path, **variant)
    config = SftConfig.model_validate(
        {
            "model": folder,
            "output": str(Path(folder) / "unused"),
            "data": "unused.jsonl",
            "gradient_checkpointing": gradient_checkpointing,
        }
    )
    network = load_network(config, init("cpu", dtype))
    network.trunks["base"].set_attn_implementation(attention)
    return network


def lora(**settings: Any) -> Any:
    """A LoRA section of rank 4 on all linear layers, unless told otherwise."""
    from trueup.config import LoraConfig

    return LoraConfig(**({"r": 4, "alpha": 8} | settings))


def shake(network: Network, *, scale: float = 0.05, seed: int = 1) -> None:
    """Move all trainable weights a little, as training would: a fresh adapter or head is exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in network.trainable():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
