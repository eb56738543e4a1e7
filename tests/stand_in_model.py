"""A stand-in server: an OpenAI-compatible endpoint over a model folder and trueup's own sampler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stand_in_judges import Answer, Server, serving
from trueup import runtime
from trueup.data.prompts import PromptRow
from trueup.data.rendering.messages import Message
from trueup.evaluation.policy import Sampling, answers_to
from trueup.models.loading import load_causal_lm, load_tokenizer
from trueup.models.network import Network
from trueup.sampling.text import answer_text


@contextmanager
def serving_model(folder: Path, name: str = "tiny") -> Iterator[Server]:
    """The model of a folder at `server.url`; each request is answered alone, with its own seed."""
    device = runtime.init("cpu", threads=1)
    network = Network(load_causal_lm(str(folder), device), load_tokenizer(str(folder)), device)
    network.add_frozen("policy")

    def answer(body: dict[str, Any]) -> Answer:
        if body["model"] != name:
            return 404, {"error": {"message": f"no model {body['model']}"}}, {}
        prompt = tuple(Message(turn["role"], turn["content"]) for turn in body["messages"])
        row = PromptRow(prompt, network.renderer.prompt(prompt))
        settings = Sampling(body["max_tokens"], 4096, float(body["temperature"]), body.get("seed", 0))
        (sample,) = answers_to(network, [row], settings)
        message = {"role": "assistant", "content": answer_text(network, sample)}
        finish = "stop" if sample.finished else "length"
        return 200, {"choices": [{"message": message, "finish_reason": finish}]}, {}

    with serving(answer) as server:
        server.models = [name]
        yield server
