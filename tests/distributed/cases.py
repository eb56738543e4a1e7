"""The stages that are run by one process and by several: between them everything that could depend on their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import tiny_data
from tiny import END_ID, PAD_ID, START_ID, VOCABULARY, tiny_folder, tiny_tokenizer
from tiny_data import LORA, data, merged, stage

STEPS = 20
KL = {"target": 1.0, "horizon": 20}
# Batches of 5 divide by neither 2 nor 3, 12 rows leave a short last one, and 7 rows are an odd number to measure on.
COMMON: dict[str, Any] = {"optim": {"steps": STEPS, "batch_size": 5, "lr": 1e-3}, "max_tokens": 100}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-lora": ("sft", {"lora": LORA, "gradient_checkpointing": True}),
    "sft-full": ("sft", {"eval": {"patience": 19}}),
    "sft-untied": ("sft", {"base": "untied", "optim": {"weight_decay": 0.1}, "gradient_checkpointing": True}),
    "sft-one-row": ("sft", {"optim": {"batch_size": 1}, "mix": {"batch_size": 1}}),
    "sft-lora-one-row": ("sft", {"optim": {"batch_size": 1}, "lora": LORA}),
    "sft-epochs": ("sft", {"optim": {"steps": None, "epochs": 7}}),
    "sft-qwen2": ("sft", {"base": "qwen2"}),
    "sft-gpt2-lora": ("sft", {"base": "gpt2", "lora": LORA}),
    "reward-lora": ("reward", {"lora": LORA, "mix": None}),
    "reward-full": ("reward", {"loss": {"center": 0.1}, "mix": None}),
    "dpo-lora": ("dpo", {"lora": LORA}),
    "dpo-full": ("dpo", {"watch": {"samples": 3, "max_new_tokens": 5}, "gradient_checkpointing": True}),
    "kto-lora": ("dpo", {"lora": LORA, "loss": {"name": "kto"}}),
    "kto-full": ("dpo", {"loss": {"name": "kto"}, "mix": None}),
    "ppo-lora": ("ppo", {"lora": LORA, "kl": KL, "rollouts": {"normalize_reward": True}}),
    "ppo-full": ("ppo", {"kl": KL, "rollouts": {"normalize_reward": True}, "gradient_checkpointing": True}),
    "ppo-lora-model": ("ppo", {"lora": LORA, "reward": "reward-lora"}),
    "ppo-full-model": ("ppo", {"reward": "reward-full", "watch": {"gold": "reward-lora"}}),
    "grpo-lora": ("ppo", {"lora": LORA, "rollouts": {"advantage": "grpo", "per_prompt": 2}}),
    "grpo-full": ("ppo", {"rollouts": {"advantage": "grpo", "per_prompt": 2}}),
}
# The names among them that stand for the run of another case, by one process.
_RUNS = ("reward-lora", "reward-full")


def config(name: str, folder: Path, how: str, **settings: Any) -> Any:
    """The stage's configuration; its run folder is `NAME-HOW`, what it starts from lies beside, the same for all."""
    method, own = CASES[name]
    beside = {
        "eval": {"data": data(folder, tiny_data.KIND[method], 7), "every": 5},
        "mix": {"data": data(folder, "conversations", 8), "weight": 0.5, "batch_size": 3},
        "allow": ["eval-overlap"],
        "model": base(folder, own.get("base", "tied")),
    }
    if method == "ppo":  # log-ratios and normalised advantages make more of rounding than a likelihood does
        beside["optim"] = {"lr": 3e-4}
    made = merged(merged(merged(COMMON, beside), {key: value for key, value in own.items() if key != "base"}), settings)
    if made["mix"] is None:
        del made["mix"]
    if made.get("reward") in _RUNS:
        made["reward"] = str(folder / f"{made['reward']}-one")
    if "gold" in made.get("watch", {}):
        made["watch"] = {"gold": str(folder / f"{made['watch']['gold']}-one")}
    return stage(method, folder, f"{name}-{how}", **made)


def base(folder: Path, kind: str) -> str:
    """The folder of a tiny model: llama with tied or untied embeddings, qwen2, or gpt2."""
    path = folder / f"base-{kind}"
    if kind in ("tied", "untied"):
        return tiny_folder(path, tied=kind == "tied")
    if not path.exists():
        tokenizer = tiny_tokenizer()
        _other(kind).save_pretrained(path)
        tokenizer.save_pretrained(path)
    return str(path)


def _other(kind: str) -> Any:
    """A model that is built otherwise: biases, or learned positions and Conv1D."""
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

    tokens: dict[str, Any] = {
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "vocab_size": VOCABULARY,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **tokens))
        return Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2, **tokens,
            )
        )  # fmt: skip
