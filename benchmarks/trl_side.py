"""The worker for TRL's trainers (SFT, reward, DPO) on a job, with default options and those the job names."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

from benchmarks import probe
from benchmarks.job import Job, Told, asked, tell
from benchmarks.workloads import read

NAMES = {"sft": "SFT", "reward": "Reward", "dpo": "DPO"}


def arguments(job: Job, output: str) -> Any:
    """Return TRL's configuration for the job: precision, steps, schedule and AdamW as trueup's, else defaults."""
    shared: dict[str, Any] = {
        "output_dir": output,
        "per_device_train_batch_size": job.batch,
        "max_steps": job.steps,
        "learning_rate": job.lr,
        "lr_scheduler_type": "constant",
        "max_length": job.longest,
        "bf16": False,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",  # the rows stand in the order in which trueup takes them
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    import trl

    return getattr(trl, f"{NAMES[job.method]}Config")(**shared | job.options)


def watched(job: Job, told: Told, seen: probe.Probe) -> type:
    """Return a trainer that records each step's loss and rows."""

    import trl

    class Watched(getattr(trl, f"{NAMES[job.method]}Trainer")):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> torch.Tensor:
            _note_rows(inputs, told)
            loss = super().training_step(model, inputs, *rest, **named)
            told.losses.append(float(loss))
            return loss

        def _precompute_ref_logps(self, *rest: Any, **named: Any) -> Any:
            began = time.perf_counter()
            made = super()._precompute_ref_logps(*rest, **named)
            told.once += time.perf_counter() - began
            return made

        def log(self, logs: dict[str, float], *rest: Any, **named: Any) -> None:
            if "grad_norm" in logs:
                told.norms.append(float(logs["grad_norm"]))
            super().log(logs, *rest, **named)

        def _get_num_items_in_batch(self, *rest: Any, **named: Any) -> Any:
            if not told.began:
                seen.begin()
            return super()._get_num_items_in_batch(*rest, **named)

    return Watched


def _note_rows(inputs: dict[str, Any], told: Told) -> None:
    """Record the sequences of a batch without padding."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if mask is None:  # padding-free: one long row, positions start again at each sequence
        told.tokens.append(ids.numel())
        return
    told.tokens.append(int(mask.sum()))
    if len(told.tokens) > 2:
        return
    trained = inputs["labels"] != -100 if "labels" in inputs else inputs.get("completion_mask")
    found = [
        probe.digest(row[kept].tolist(), [] if trained is None else [bool(one) for one in trained[at][kept]])
        for at, (row, kept) in enumerate(zip(ids, mask.bool(), strict=True))
    ]
    told.rows += sorted(found)


def run(job: Job) -> Told:
    """Train, and write the measurements."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    told = Told(imported=probe.IMPORTED)
    seen = probe.Probe(told, job.captured)
    extra: dict[str, Any] = {}
    if job.lora is not None:
        from peft import LoraConfig

        probe.same_adapters()
        kind = "SEQ_CLS" if job.method == "reward" else "CAUSAL_LM"
        extra["peft_config"] = LoraConfig(
            r=job.lora, lora_alpha=2 * job.lora, lora_dropout=0.0, target_modules="all-linear", task_type=kind
        )
    with tempfile.TemporaryDirectory() as folder:
        trainer = watched(job, told, seen)(
            model=job.classifier if job.method == "reward" else job.model,
            args=arguments(job, folder),
            train_dataset=Dataset.from_list(read(job.rows)),  # type: ignore[arg-type]
            processing_class=AutoTokenizer.from_pretrained(job.model),
            **extra,
        )
        seen.see((name, one) for name, one in trainer.model.named_parameters() if one.requires_grad)
        trainer.train()
    told.versions = probe.versions("torch", "transformers", "peft", "trl")
    return told


if __name__ == "__main__":
    job_, answer = asked()
    tell(run(job_), answer)
