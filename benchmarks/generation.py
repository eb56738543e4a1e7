"""Sampling: trueup's engine against `transformers`' generate on mixed-length work, greedy, each in its own process.

    python -m benchmarks.generation trueup|transformers JOB ANSWER        (a worker; `python -m benchmarks` starts it)

Prompts have log-normal lengths. How long an answer is, the model decides: some words are stop tokens, a share of the
vocabulary that ends answers after about 40 tokens on average, and lets some run to the limit.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import probe, workloads

PROMPTS, NEW_TOKENS, BATCH, STOP_SHARE = 64, 96, 16, 0.025


def stops(words: int) -> list[int]:
    """Return the stop tokens: a fixed share of the vocabulary, the same on every run."""
    every = round(1 / STOP_SHARE)
    return [2, *range(every - 1, words, every)]


def prompt_ids(model: Path) -> list[list[int]]:
    """Return the prompts as token ids."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    rows = workloads.prompts(workloads.rankings(PROMPTS, seed=2))
    return [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        for row in rows
    ]


def by_trueup(model: Path, prompts: list[list[int]]) -> tuple[list[list[int]], float]:
    """Return answers sampled by `sampling.sample`, and the seconds it took."""
    from trueup import runtime
    from trueup.config import SftConfig
    from trueup.models.loading import load_network
    from trueup.sampling import sample

    config = SftConfig.model_validate({"model": str(model), "output": "unused", "data": "unused"})
    network = load_network(config, runtime.init("cpu", "float32"))
    network.add_frozen("policy")
    network.renderer.stop_ids = frozenset(stops(network.vocabulary))
    sample(network, prompts[:2], max_new_tokens=4, temperature=0)
    widest = max(map(len, prompts)) + NEW_TOKENS
    began = time.perf_counter()
    made = sample(network, prompts, max_new_tokens=NEW_TOKENS, temperature=0, max_tokens=BATCH * widest)
    return [one.ids for one in made], time.perf_counter() - began


@torch.no_grad()
def by_transformers(model: Path, prompts: list[list[int]], room: int) -> tuple[list[list[int]], float]:
    """Return answers sampled by `generate`, in batches of prompts of similar length, and the seconds it took.

    A batch has as many rows as trueup's engine may run of that length: `room` tokens, new ones included.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
    stop = stops(loaded.config.vocab_size)

    def generate(some: list[list[int]], new: int) -> list[list[int]]:
        inputs = tokenizer.pad({"input_ids": some}, return_tensors="pt")
        made = loaded.generate(**inputs, max_new_tokens=new, do_sample=False, eos_token_id=stop)
        ends = set(stop)
        answers = made[:, inputs["input_ids"].shape[1] :].tolist()
        return [one[: next((at + 1 for at, token in enumerate(one) if token in ends), len(one))] for one in answers]

    generate(prompts[:2], 4)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]), reverse=True)
    found: dict[int, list[int]] = {}
    began = time.perf_counter()
    while order:
        size = max(1, room // (len(prompts[order[0]]) + NEW_TOKENS))
        rows, order = order[:size], order[size:]
        found |= dict(zip(rows, generate([prompts[row] for row in rows], NEW_TOKENS), strict=True))
    return [found[row] for row in range(len(prompts))], time.perf_counter() - began


def main() -> None:
    """Answer a job: {"model": folder} -> {"ids", "seconds", "peak"}."""
    side, asked, answer = sys.argv[1:]
    model = Path(json.loads(Path(asked).read_text(encoding="utf-8"))["model"])
    prompts = prompt_ids(model)
    if side == "trueup":
        ids, seconds = by_trueup(model, prompts)
    else:
        ids, seconds = by_transformers(model, prompts, BATCH * (max(map(len, prompts)) + NEW_TOKENS))
    told = {"ids": ids, "seconds": seconds, "peak": probe.peak_memory()}
    Path(answer).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
