"""`trueup quickstart`: the whole pipeline in the wind tunnel, a small world whose truth is known.

It writes the world's files, runs the same pipeline that users run (`windtunnel/quickstart.yaml`, copied into the
folder), and then measures what only a world with known truth allows: gold reward beside proxy reward.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup import runtime, sources
from trueup.chat import Conversation
from trueup.config import PipelineConfig, load_config
from trueup.console import Progress, clean, quiet_libraries, table
from trueup.evaluation.compare import conversations, log_ratios
from trueup.evaluation.intervals import Estimate, mean, rate
from trueup.files import atomic_write_text
from trueup.loading import load_causal_lm, load_classifier, load_tokenizer
from trueup.model_reward import model_reward
from trueup.models import Network
from trueup.recipes import pipeline
from trueup.rollouts import PromptRow, answer_text
from trueup.sampling import Sample, sample
from trueup.windtunnel import Grader, World, build, is_refusal

if TYPE_CHECKING:
    from trueup.rewards import Reward
    from trueup.runtime import Runtime

QUESTIONS = 240
"""Held-out questions answered by each model (of all there are, evenly spread)."""
MAX_NEW_TOKENS = 40
POLICIES = ("base", "sft", "dpo", "ppo")
SHOWN = {
    "accuracy": "right",
    "over_refusal": "over-refuses",
    "gold": "gold",
    "proxy": "proxy",
    "kl": "KL, nats",
    "length": "tokens",
}


@dataclass(frozen=True, slots=True)
class Exam:
    """What every model is asked, and who judges the answers."""

    questions: list[Conversation]
    innocent: list[Conversation]
    grader: Grader
    proxy: Reward


def run(folder: Path, seed: int = 0, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Build the world, run the pipeline, measure and show the models. Returns what quickstart.json holds.

    Args:
        folder: where everything goes; what is finished there and unchanged is not done again.
        seed: of the world and of every stage.
        settings: `key=value` settings over the quickstart's pipeline.
    """
    started = time.perf_counter()
    quiet_libraries()
    progress = Progress()
    progress.note(f"building the world in {folder / 'world'}")
    world = build(folder / "world", seed=seed)
    config = configure(world, folder, [f"seed={seed}", *settings])
    pipeline.run_stages(config, progress)
    where = runtime.init(config.device, config.dtype, config.threads)
    result = measure(config, world, where, progress)
    result["seconds"] = round(time.perf_counter() - started, 1)
    atomic_write_text(folder / "quickstart.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    show(result, folder)
    return result


def configure(world: World, folder: Path, settings: Sequence[str]) -> PipelineConfig:
    """Copy the quickstart's pipeline into the folder and read it: what runs is what the user can edit."""
    template = resources.files("trueup.windtunnel").joinpath("quickstart.yaml").read_text(encoding="utf-8")
    # Inside double quotes JSON's escapes are YAML's too: any folder name will do.
    places = {"WORLD": world.folder, "FOLDER": folder}
    text = template
    for mark, place in places.items():
        text = text.replace(mark, json.dumps(str(place), ensure_ascii=False)[1:-1])
    path = folder / "pipeline.yaml"
    atomic_write_text(path, text)
    return load_config(PipelineConfig, path, list(settings))


def measure(config: PipelineConfig, world: World, where: Runtime, progress: Progress) -> dict[str, Any]:
    """One row a model, and the reward model's accuracy on held-out rankings."""
    model_of = {name: config.folder / name / "model" for name in config.stages}
    judge = _network(model_of["reward"], where, reward=True)
    exam = Exam(
        _spread(_talks(world.heldout), QUESTIONS),
        _talks(world.innocent),
        world.grader(),
        model_reward(judge, max_tokens=8192),
    )  # fmt: skip
    reference = _network(model_of["sft"], where)
    rows: dict[str, dict[str, Estimate]] = {}
    prompts = (
        exam.questions[:: max(1, len(exam.questions) // 4)][:4] + exam.innocent[:: max(1, len(exam.innocent) // 2)][:2]
    )
    answers: list[dict[str, Any]] = [{"prompt": one.prompt[-1].content, "answers": {}} for one in prompts]
    for name in POLICIES:
        progress.note(f"measuring {name}")
        network = _network(model_of[name], where)
        rows[name] = _row(network, reference, exam, against_itself=name == "sft")
        for shown, text in zip(answers, _greedy(network, prompts), strict=True):
            shown["answers"][name] = text
        del network
        gc.collect()
    summary = json.loads((config.folder / "reward" / "summary.json").read_text())
    last = summary["last"]
    return {
        "models": {name: {key: one.as_dict() for key, one in row.items()} for name, row in rows.items()},
        "reward_accuracy": rate(last["eval/accuracy"] * last["eval/n"], int(last["eval/n"])).as_dict(),
        "answers": answers,
    }


def _row(network: Network, reference: Network, exam: Exam, *, against_itself: bool) -> dict[str, Estimate]:
    """Greedy answers for what a user would see; for the KL, an expectation, samples at temperature 1."""
    prompts = [PromptRow(one.prompt, network.renderer.prompt(one.prompt)) for one in exam.questions]
    greedy = _sampled(network, prompts, temperature=0.0)
    talks = conversations(network, prompts, greedy)
    right = sum(exam.grader.grade(one.prompt[-1].content, one.response).right for one in talks)
    refused = sum(is_refusal(text) for text in _greedy(network, exam.innocent))
    row = {
        "accuracy": rate(right, len(talks)),
        "over_refusal": rate(refused, len(exam.innocent)),
        "gold": mean(exam.grader(talks).tolist()),
        "proxy": mean(exam.proxy(talks).tolist()),
        "length": mean([float(len(one.ids)) for one in greedy]),
    }
    if not against_itself:
        row["kl"] = mean(log_ratios(network, reference, prompts, _sampled(network, prompts, temperature=1.0), 8192))
    return row


def _greedy(network: Network, talks: list[Conversation]) -> list[str]:
    prompts = [PromptRow(one.prompt, network.renderer.prompt(one.prompt)) for one in talks]
    return [answer_text(network, one) for one in _sampled(network, prompts, temperature=0.0)]


def _sampled(network: Network, prompts: list[PromptRow], temperature: float) -> list[Sample]:
    return sample(network, [one.ids for one in prompts], max_new_tokens=MAX_NEW_TOKENS, temperature=temperature)


def _network(folder: Path, where: Runtime, *, reward: bool = False) -> Network:
    if reward:
        classifier = load_classifier(str(folder), where)
        network = Network(classifier, load_tokenizer(str(folder)), where)
        network.add_classifier("reward", classifier, trainable=False)
        return network
    network = Network(load_causal_lm(str(folder), where), load_tokenizer(str(folder)), where)
    network.add_frozen("policy")
    return network


def _talks(path: Path) -> list[Conversation]:
    return [row for row in sources.load(str(path), want="conversation") if isinstance(row, Conversation)]


def _spread(rows: list[Any], count: int) -> list[Any]:
    """`count` rows, evenly spread over all."""
    return [rows[at * len(rows) // count] for at in range(min(count, len(rows)))]


def show(result: dict[str, Any], folder: Path) -> None:
    """Print the table and the answers within 80 columns."""
    models: dict[str, dict[str, dict[str, float]]] = result["models"]
    body = [[name, *(_cell(row.get(key)) for key in SHOWN)] for name, row in models.items()]
    table("On held-out questions (the base only completes; KL from sft)", ["model", *SHOWN.values()], body)
    first = next(iter(models.values()))
    print(
        f"greedy answers to {first['accuracy']['n']} questions and {first['over_refusal']['n']} innocent requests;\n"
        "KL of samples at temperature 1, nats an answer; 95% intervals: quickstart.json"
    )
    reward = result["reward_accuracy"]
    print(
        f"the reward model is right on {reward['value']:.2f} [{reward['low']:.2f}, {reward['high']:.2f}] "
        f"of {reward['n']} held-out rankings"
    )
    for shown in result["answers"]:
        print(f"\n> {clean(shown['prompt'], one_line=True)}")
        for name, answer in shown["answers"].items():
            print(f"  {name:>5}: {clean(answer, one_line=True)}")
    print(f"\n{result['seconds']:.0f} s in all; everything is in {folder}. Next:")
    print(f"  trueup chat {folder / 'stages' / 'ppo'}")
    print(f"  trueup run {folder / 'pipeline.yaml'}        (change it first)")


def _cell(one: dict[str, float] | None) -> str:
    return "-" if one is None else f"{one['value']:.2f}"
