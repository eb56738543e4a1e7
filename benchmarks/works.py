"""The comparisons: name, jobs for both libraries, and targets of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.flops import Sequences, Sizes
from benchmarks.job import Job, Method

SPEED, MEMORY = "speed", "memory"
UNITS = {"sft": "tokens", "reward": "pairs", "dpo": "pairs", "ppo": "episodes"}


@dataclass(frozen=True, slots=True)
class Side:
    """One column of a comparison: a worker, and its options in addition to the job.

    Attributes:
        name: of the column.
        module: of the worker.
        options: beside its defaults.
        note: what the options are, in words.
    """

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    note: str = "default options"


TRUEUP = Side("trueup", "trueup_side")
LEAN = Side(
    "trueup", "trueup_side", {"gradient_checkpointing": True, "max_tokens": 1024},
    "gradient_checkpointing, as TRL has it by default; max_tokens=1024",
)  # fmt: skip
TRL = Side("TRL", "trl_side")
PPO_TRL = Side("TRL 1.9.2", "ppo_trl_side")
BEST = {
    "sft": Side("TRL, best", "trl_side", {"gradient_checkpointing": False}, "gradient_checkpointing off"),
    "reward": Side("TRL, best", "trl_side", {"gradient_checkpointing": False}, "gradient_checkpointing off"),
    "dpo": Side(
        "TRL, best", "trl_side", {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
        "gradient_checkpointing off, precompute_ref_log_probs",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """One comparison.

    Attributes:
        name: as `--only` takes it.
        title: as the table shows it.
        job: what both sides do.
        sides: trueup first; the second one is who the aims are against.
        aims: "speed" at least so many times TRL's, "memory" at most such a share of it.
        rows: how many rows an epoch has.
        warmup: optimizer steps left out of each timing.
        useful: whether the share of the matmul rate is told.
    """

    name: str
    title: str
    job: Job
    sides: tuple[Side, ...]
    aims: dict[str, float]
    rows: int
    warmup: int
    useful: bool = False

    @property
    def unit(self) -> str:
        """The unit of the rate, per second."""
        return UNITS[self.job.method]


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of work to run.

    Attributes:
        cache: folder of the models and rows.
        warmup: optimizer steps left out of each timing.
        steps: optimizer steps timed.
        rounds: runs of each side.
        threads: of each side.
        data: hh-rlhf's pairs.jsonl; None: not given.
        gguf: SmolLM2's file.
        trl_ppo: folder that TRL 1.9.2 was installed into.
    """

    cache: Path
    warmup: int
    steps: int
    rounds: int
    threads: int
    data: Path | None
    gguf: Path
    trl_ppo: Path


class NotRunError(Exception):
    """A comparison cannot be run here; the message says why."""


AIMS: dict[str, dict[str, float]] = {
    "dpo": {SPEED: 8, MEMORY: 0.3},
    "sft": {SPEED: 4, MEMORY: 0.4},
    "reward": {SPEED: 1.8, MEMORY: 0.6},
    "reward-lean": {SPEED: 1.8, MEMORY: 0.6},
    "ppo-full": {SPEED: 4, MEMORY: 0.5},
    "ppo-lora": {SPEED: 4, MEMORY: 0.3},
    "smollm2-dpo": {SPEED: 3, MEMORY: 0.4},
    "smollm2-sft": {SPEED: 2, MEMORY: 0.4},
}


def large_vocabulary(method: Method, plan: Plan) -> Work:
    """Full fine-tuning of the 19M model with 49,152 words."""
    model = workloads.llama(plan.cache / "large-vocabulary")
    rows = workloads.rankings(max(128, 8 * (plan.warmup + plan.steps)))
    job = Job(method, str(model), "", plan.warmup + plan.steps)
    if method == "reward":
        job = replace(job, classifier=str(workloads.classifier(model, plan.cache / "large-vocabulary-zero-head")))
    return Work(
        method, f"{NAMES[method]}, 19M, 49,152 words, full", with_rows(job, rows, plan, method),
        (TRUEUP, TRL, BEST[method]), AIMS[method], len(rows), plan.warmup,
    )  # fmt: skip


def smollm2(method: Method, plan: Plan) -> Work:
    """LoRA on SmolLM2-135M and real rankings.

    Raises:
        NotRunError: the model or the data is not there.
    """
    if not plan.gguf.is_file():
        raise NotRunError("the model is not there: `make smollm2` gets it")
    if plan.data is None:
        raise NotRunError("no data given: --data PATH or TRUEUP_BENCH_DATA names hh-rlhf's rankings, a .jsonl")
    if not plan.data.is_file():
        raise NotRunError("the data named by --data or TRUEUP_BENCH_DATA is not there")
    model = workloads.smollm2(plan.gguf, plan.cache / "smollm2")
    steps = plan.warmup + max(2, plan.steps // 2)  # a model seven times as large
    try:
        rows = workloads.human_rankings(plan.data, 8 * steps, 400, model, one_turn=method == "sft")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise NotRunError(f"the data are not hh-rlhf's rankings, unpacked: {error}") from error
    name = f"smollm2-{method}"
    job = Job(method, str(model), "", steps, lora=16, lr=1e-4)
    return Work(
        name, f"{NAMES[method]}, SmolLM2-135M, LoRA, real rows", with_rows(job, rows, plan, name),
        (TRUEUP, TRL, BEST[method]), AIMS[name], len(rows), plan.warmup, useful=True,
    )  # fmt: skip


def ppo(plan: Plan, *, lora: bool) -> Work:
    """PPO on the 19M model: 48 new tokens, 4 epochs, a reward model of the same size.

    Raises:
        NotRunError: TRL 1.9.2 is not there.
    """
    if not (plan.trl_ppo / "trl").is_dir():
        raise NotRunError("TRL 1.9.2 is not in benchmarks/.env/trl-1.9.2: `make bench` puts it there")
    name = "ppo-lora" if lora else "ppo-full"
    model = workloads.llama(plan.cache / "large-vocabulary")
    job = Job("ppo", str(model), "", PPO["rollouts"] * PPO["epochs"] * PPO["episodes"] // 8, lora=16 if lora else None)
    rows = workloads.prompts(workloads.rankings(64))
    reward = (
        _reward_run(plan, model) if lora else workloads.classifier(model, plan.cache / "large-vocabulary-reward", 1)
    )
    job = replace(
        job, classifier=str(reward), lr=1e-4 if lora else 1e-5, options={"numbers": dict(PPO)},
        rows=str(workloads.write(plan.cache / "ppo.jsonl", rows)),
    )  # fmt: skip
    workloads.write(plan.cache / "ppo.check.jsonl", rows[: job.batch])
    title = f"PPO, 19M, 49,152 words, {'LoRA' if lora else 'full'}"
    return Work(name, title, job, (TRUEUP, PPO_TRL), AIMS[name], len(rows), job.steps // 2)  # the first rollout


def _reward_run(plan: Plan, model: Path) -> Path:
    """Return a reward model trained by trueup with LoRA, once: `adapter/`, and `model/` (merged) for TRL."""
    import trueup

    run = plan.cache / "large-vocabulary-reward-lora"
    if not (run / "summary.json").is_file():
        shutil.rmtree(run, ignore_errors=True)  # of a run that was interrupted
        config = {
            "model": str(model), "output": str(run), "lora": {"r": 16}, "device": "cpu",
            "data": str(workloads.write(plan.cache / "reward-lora.jsonl", workloads.rankings(16, seed=1))),
            "optim": {"lr": 1e-3, "steps": 4, "batch_size": 4},
        }  # fmt: skip
        trueup.reward(trueup.RewardConfig.model_validate(config))
    return run


def with_rows(job: Job, rows: list[workloads.Row], plan: Plan, name: str) -> Job:
    """Return the job with a file of the rows; `<name>.ordered.jsonl` has them in the order of trueup's sampler."""
    from trueup.data.tokens.sampler import Sampler

    if job.method == "sft":
        rows = workloads.conversations(rows)
    sampler = Sampler(len(rows), job.batch, 0)
    order = [at for _ in range(job.steps) for at in sampler.next()]
    whole = [*order, *(at for at in range(len(rows)) if at not in set(order))]
    workloads.write(plan.cache / f"{name}.ordered.jsonl", [rows[at] for at in whole])
    return replace(job, rows=str(workloads.write(plan.cache / f"{name}.jsonl", rows)))


def for_side(job: Job, side: Side) -> Job:
    """Return the job for one library: TRL takes the rows in the order of their file."""
    if job.method == "ppo":  # sampled rows have no order to keep
        return job
    rows = job.rows if side.module == "trueup_side" else job.rows.replace(".jsonl", ".ordered.jsonl")
    return replace(job, rows=rows, options=job.options | side.options)


NAMES = {"sft": "SFT", "reward": "Reward model", "dpo": "DPO", "ppo": "PPO"}


def lean_reward(plan: Plan) -> Work:
    """Return the reward comparison with activations recomputed in the backward pass by both libraries."""
    work = large_vocabulary("reward", plan)
    title = f"{work.title}, activations computed again on both sides"
    return replace(work, name="reward-lean", title=title, sides=(LEAN, TRL))


PPO = {"episodes": 32, "epochs": 4, "max_new_tokens": 48, "rollouts": 2}
WORKS: dict[str, Callable[[Plan], Work]] = {
    "sft": lambda plan: large_vocabulary("sft", plan),
    "reward": lambda plan: large_vocabulary("reward", plan),
    "reward-lean": lean_reward,
    "dpo": lambda plan: large_vocabulary("dpo", plan),
    "ppo-full": lambda plan: ppo(plan, lora=False),
    "ppo-lora": lambda plan: ppo(plan, lora=True),
    "smollm2-sft": lambda plan: smollm2("sft", plan),
    "smollm2-dpo": lambda plan: smollm2("dpo", plan),
}


def sizes(work: Work) -> Sizes:
    """Return the sizes of the comparison's model."""
    config = json.loads((Path(work.job.model) / "config.json").read_text(encoding="utf-8"))
    return Sizes.of(config, work.job.lora)


def sequences(work: Work) -> list[Sequences]:
    """Return the lengths of the comparison's rows in tokens, in the order of `<name>.ordered.jsonl`."""
    from transformers import AutoTokenizer

    counter: Any = AutoTokenizer.from_pretrained(work.job.model)

    def count(messages: list[dict[str, str]], *, ask: bool = False) -> int:
        return len(counter.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)["input_ids"])

    found: list[Sequences] = []
    for row in workloads.read(for_side(work.job, TRL).rows):
        prompt = count(row["prompt"], ask=True)
        branches = tuple(
            count(row["prompt"] + row[side]) - prompt for side in ("completion", "chosen", "rejected") if side in row
        )
        found.append(Sequences(prompt, branches, sum(branches)))
    return found
