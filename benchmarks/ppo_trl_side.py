"""The worker for PPO with TRL 1.9.2 (`trl.experimental.ppo`), the last version with PPO; it is first on its path.

Where the job names samples (the check), they are trueup's: its sampled tokens and their scores, so that both sides can
be compared from there on. A side that draws with other random numbers has other samples, and nothing to compare.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import probe
from benchmarks.job import Job, Told, asked, tell
from benchmarks.workloads import read


def models(job: Job) -> dict[str, Any]:
    """Return policy, value and reward model; the trainer creates the reference.

    With LoRA the value model has adapters too, those of the reward model; TRL by itself would train all its weights.
    """
    load = AutoModelForSequenceClassification.from_pretrained
    policy = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    run = Path(job.classifier)
    if job.lora is None:
        value, reward = (load(run, num_labels=1, dtype=torch.float32) for _ in range(2))
        return {"model": policy, "value_model": value, "reward_model": reward}
    from peft import LoraConfig, PeftModel

    value = load(job.model, num_labels=1, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(value, str(run / "adapter"), is_trainable=True)
    probe.same_adapters()  # after the value's, which come from a file: the policy's are the next ones made
    settings = LoraConfig(
        r=job.lora, lora_alpha=2 * job.lora, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    reward = load(run / "model", num_labels=1, dtype=torch.float32)
    unwrapped = adapted.base_model.model  # the classifier, its layers adapted
    return {"model": policy, "value_model": unwrapped, "reward_model": reward, "peft_config": settings}


def arguments(job: Job, output: str) -> Any:
    """Return TRL's configuration for the job; the defaults of clip, KL, GAE and value loss equal trueup's."""
    from trl.experimental.ppo import PPOConfig

    numbers = job.options["numbers"]
    episodes = numbers["episodes"]
    return PPOConfig(
        output_dir=output, per_device_train_batch_size=episodes, num_mini_batches=episodes // job.batch,
        gradient_accumulation_steps=1, total_episodes=episodes * numbers["rollouts"],
        num_ppo_epochs=numbers["epochs"], response_length=numbers["max_new_tokens"], temperature=1.0,
        local_rollout_forward_batch_size=episodes, learning_rate=job.lr, lr_scheduler_type="constant",
        num_sample_generations=0, bf16=False, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip


def given_samples(path: str, reward_model: Any, told: Told) -> None:
    """Make the trainer take samples and scores from a file, by their prompts. Logits are computed as usual."""
    from trl.experimental.ppo import ppo_trainer

    kept = {tuple(one["prompt"]): one for one in json.loads(Path(path).read_text(encoding="utf-8"))}
    original, current = ppo_trainer.get_reward, list[dict[str, Any]]()

    def generation(model: Any, queries: torch.Tensor, _: int, pad: int, __: Any) -> tuple[torch.Tensor, torch.Tensor]:
        current[:] = [kept[tuple(row[row != pad].tolist())] for row in queries]
        whole = torch.cat([queries, torch.tensor([one["answer"] for one in current])], 1)
        told.rows = sorted(probe.digest(row[row != pad].tolist(), []) for row in whole)
        with torch.no_grad():
            logits = ppo_trainer.forward(model, whole, pad).logits
        return whole, logits[:, queries.shape[1] - 1 : -1]

    def reward(model: Any, *rest: Any) -> Any:
        if model is not reward_model:
            return original(model, *rest)
        return None, torch.tensor([one["score"] for one in current]), None

    ppo_trainer.batch_generation, ppo_trainer.get_reward = generation, reward


def run(job: Job) -> Told:
    """Train, and write the measurements."""
    from trl.experimental.ppo import PPOTrainer

    told = Told(imported=probe.IMPORTED)
    seen = probe.Probe(told, job.captured, norms=True)
    tokenizer = AutoTokenizer.from_pretrained(job.model, padding_side="left")
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        for row in read(job.rows)
    ]
    parts = models(job)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=arguments(job, folder), processing_class=tokenizer, ref_model=None,
            train_dataset=Dataset.from_list([{"input_ids": one} for one in prompts]),
            eval_dataset=Dataset.from_list([{"input_ids": prompts[0]}]), **parts,
        )  # fmt: skip
        if "samples" in job.options:
            given_samples(job.options["samples"], trainer.reward_model, told)
        seen.see((name, one) for name, one in trainer.model.named_parameters() if one.requires_grad)
        backward = trainer.accelerator.backward

        def noted(loss: torch.Tensor, *rest: Any, **named: Any) -> None:
            told.losses.append(float(loss))
            backward(loss, *rest, **named)

        trainer.accelerator.backward = noted
        seen.begin()
        trainer.train()
    told.versions = probe.versions("torch", "transformers", "peft", "trl")
    return told


if __name__ == "__main__":
    job_, answer = asked()
    tell(run(job_), answer)
