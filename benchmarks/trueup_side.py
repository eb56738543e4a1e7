"""The worker for trueup, run as a user runs it (a configuration, then `trueup.sft` and so on)."""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import trueup
from benchmarks import probe
from benchmarks.job import Job, Told, asked, tell
from trueup.config import STAGES


def configuration(job: Job, output: Path) -> dict[str, Any]:
    """Return the job as a stage's configuration; all other keys have trueup's defaults."""
    made: dict[str, Any] = {
        "model": job.model,
        "output": str(output),
        "optim": {"lr": job.lr, "steps": job.steps, "batch_size": job.batch, "warmup": 0, "schedule": "constant"},
        "max_length": job.longest,
        "device": "cpu",
        "dtype": "float32",
        ("prompts" if job.method == "ppo" else "data"): job.rows,
    }
    if job.lora is not None:
        made["lora"] = {"r": job.lora, "alpha": 2 * job.lora}
    if job.method == "ppo":
        numbers = job.options["numbers"]
        made |= {
            "reward": job.classifier,
            "rollouts": {
                "episodes": numbers["episodes"], "epochs": numbers["epochs"],
                "max_new_tokens": numbers["max_new_tokens"], "missing_end_penalty": 0,
            },
        }  # fmt: skip
        made["optim"]["clip"] = 1e9  # TRL's PPO does not clip gradients
        return made
    return made | job.options


def run(job: Job) -> Told:
    """Train, and write the measurements."""
    told = Told(imported=probe.IMPORTED)
    seen = probe.Probe(told, job.captured)
    if job.lora is not None:
        probe.same_adapters()
    _watch_stage(seen, told, job)
    with tempfile.TemporaryDirectory() as folder:
        config = STAGES[job.method].model_validate(configuration(job, Path(folder) / "run"))
        getattr(trueup, job.method)(config)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [row for row in map(json.loads, lines) if "grad_norm" in row]
    told.losses = [row["loss"] for row in logged]
    told.norms = [row["grad_norm"] for row in logged]
    told.more["logged"] = logged[:2]
    told.versions = probe.versions("torch", "transformers", "peft") | {"trueup": trueup.__version__}
    return told


def _watch_stage(seen: probe.Probe, told: Told, job: Job) -> None:
    """Record the names and rows that reach `fit`, and the time of the reference pass, without changing the training."""
    from trueup.recipes.stage import Stage

    fit = Stage.fit

    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        seen.see(self.network.trainable())
        if job.method != "ppo":
            _note_rows(self.train, told, job)
        seen.begin()
        return fit(self, *arguments, **named)

    Stage.fit = noted  # type: ignore[method-assign]
    if "samples" in job.options:
        _keep_samples(Path(job.options["samples"]), told)
    if job.method == "dpo":
        recipe = importlib.import_module("trueup.recipes.dpo")
        reference = recipe.with_reference

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            made = reference(*arguments, **named)
            told.once += time.perf_counter() - began
            return made

        recipe.with_reference = timed


def _keep_samples(path: Path, told: Told) -> None:
    """Write the first rollout's prompts, sampled tokens and scores, for the comparison with TRL."""
    from trueup.models.rewards import Ensemble
    from trueup.recipes.rollouts import Rollouts

    scores, following = Ensemble.scores, Rollouts.next
    given: list[list[float]] = []

    def scored(self: Any, conversations: Any, /) -> torch.Tensor:
        found = scores(self, conversations)
        given.append(found[0].tolist())
        return found

    def kept(self: Any, *arguments: Any, **named: Any) -> Any:
        batches = following(self, *arguments, **named)
        if not path.exists():
            episodes = [{"prompt": one.trunk, "answer": one.branches[0].ids} for one in self._episodes]
            made = [one | {"score": score} for one, score in zip(episodes, given[0], strict=True)]
            path.write_text(json.dumps(made), encoding="utf-8")
            told.rows = sorted(probe.digest(one["prompt"] + one["answer"], []) for one in made)
        return batches

    Ensemble.scores, Rollouts.next = scored, kept  # type: ignore[method-assign]


def _note_rows(train: Any, told: Told, job: Job) -> None:
    """Return the sequences of each step, in the sampler's order, and their digests in the first two."""
    from trueup.data.tokens.sampler import Sampler

    sampler = Sampler(len(train), job.batch, 0)
    for step in range(job.steps):
        chosen = [train[at] for at in sampler.next()]
        told.tokens.append(sum(len(one.trunk) + len(branch.ids) for one in chosen for branch in one.branches))
        if step < 2:
            told.rows += sorted(
                probe.digest(one.trunk + branch.ids, _trained(one.trunk, branch, job))
                for one in chosen for branch in one.branches
            )  # fmt: skip


def _trained(trunk: list[int], branch: Any, job: Job) -> list[bool]:
    """Return the loss mask; empty for a reward model, whose loss has no mask."""
    return [] if job.method == "reward" else [False] * len(trunk) + list(branch.mask)


if __name__ == "__main__":
    job_, answer = asked()
    tell(run(job_), answer)
