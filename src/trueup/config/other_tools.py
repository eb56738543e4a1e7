"""Names of settings in other tools (TRL, transformers, LLaMA-Factory, Axolotl, verl) with the keys here.

A test checks that every key in the table exists in a stage. A name that means the same in all tools stands once.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """The meaning of another tool's setting here: our keys, and a note on what differs or what to do instead."""

    keys: tuple[str, ...] = ()
    """Keys, as paths with dots; the first one that the configuration has is named."""
    note: str = ""
    """What to know about it; the whole answer where there is no such key."""


def _key(*keys: str, note: str = "") -> Meaning:
    return Meaning(keys, note)


_STEP = _key("max_tokens", note="optim.batch_size is the whole step; max_tokens bounds what is computed at once")
_DATA = _key("data", "prompts")
_LENGTH = _key("max_length", note="prompt and answer together")
_ANSWER = _key("rollouts.max_new_tokens")
_HALF = _key("dtype", note="bfloat16, or auto")
_QUANTIZED = _key("dtype", note="weights are not quantized for training; bfloat16 and lora lower the memory")
_HUB = Meaning(note="a run is not uploaded while it trains; afterwards: trueup export RUN --push-to-hub OWNER/NAME")
_RESUME = Meaning(note="not needed: the same command with the same output resumes from its newest checkpoint")
_ATTENTION = Meaning(note="not needed: the fastest attention that the model computes rightly is found by a test run")
_EVERY_STEP = Meaning(note="not needed: every step is logged to metrics.jsonl in the run folder; log adds trackers")
_METHOD = Meaning(note="the method is the command (trueup sft, reward, dpo, ppo), or method in a pipeline's stage")
_MASK = Meaning(note="not needed: answers and their end tokens are trained, prompts are not; trueup show prints them")
_PACKING = _key("max_tokens", note="rows are packed always, and see nothing of each other")
_SHARDED = _key("strategy", note="ddp or fsdp, started by torchrun")
_LORA = _key("lora", note="lora: {} trains adapters, leaving it out all weights")
_ADAM = Meaning(note="not a setting: the optimizer is AdamW with betas 0.9 and 0.999; optim.lr, optim.weight_decay")
_HELD_OUT = _key("data.holdout", "prompts.holdout", note="a share of the rows; or eval.data, a file")
_RANDOM = _key("seed", note="one seed for everything")

OTHER_NAMES: dict[str, Meaning] = {
    # length and steps
    "learning_rate": _key("optim.lr"),
    "num_train_epochs": _key("optim.epochs"),
    "num_epochs": _key("optim.epochs"),
    "max_steps": _key("optim.steps"),
    "num_steps": _key("optim.steps"),
    "total_episodes": _key("optim.steps"),
    "per_device_train_batch_size": _key("optim.batch_size", note="of the whole step, on all devices"),
    "train_batch_size": _key("optim.batch_size"),
    "gradient_accumulation_steps": _STEP,
    "micro_batch_size": _STEP,
    "per_device_eval_batch_size": _STEP,
    "auto_find_batch_size": _STEP,
    "max_seq_length": _LENGTH,
    "max_seq_len": _LENGTH,
    "sequence_len": _LENGTH,
    "cutoff_len": _LENGTH,
    "model_max_length": _LENGTH,
    "max_prompt_length": _LENGTH,
    "packing": _PACKING,
    "sample_packing": _PACKING,
    "padding_free": _PACKING,
    "truncation_mode": _key("over_length"),
    "truncation": _key("over_length"),
    # optimizer
    "optimizer": _ADAM,
    "adam_beta1": _ADAM,
    "adam_beta2": _ADAM,
    "adam_epsilon": _ADAM,
    "warmup_ratio": _key("optim.warmup", note="below 1 a fraction of all steps"),
    "warmup_steps": _key("optim.warmup", note="1 or more are steps"),
    "lr_scheduler_type": _key("optim.schedule"),
    "lr_scheduler": _key("optim.schedule"),
    "max_grad_norm": _key("optim.clip"),
    "grad_clip": _key("optim.clip"),
    "gradient_clipping": _key("optim.clip"),
    "activation_checkpointing": _key("gradient_checkpointing"),
    # model
    "model_name_or_path": _key("model", "base"),
    "base_model": _key("model", "base"),
    "model_name": _key("model", "base"),
    "bf16": _HALF,
    "fp16": _HALF,
    "tf32": _HALF,
    "torch_dtype": _HALF,
    "pure_bf16": _HALF,
    "load_in_4bit": _QUANTIZED,
    "load_in_8bit": _QUANTIZED,
    "quantization_bit": _QUANTIZED,
    "attn_implementation": _ATTENTION,
    "flash_attn": _ATTENTION,
    "flash_attention": _ATTENTION,
    "use_cpu": _key("device", note="device: cpu"),
    "fsdp": _SHARDED,
    "deepspeed": _SHARDED,
    "ref_model": _key("reference"),
    "reference_model": _key("reference"),
    "reward_model": _key("reward"),
    "reward_model_path": _key("reward"),
    "reward_funcs": _key("reward", note="file.py:function, or a list"),
    # adapters
    "use_peft": _LORA,
    "adapter": _LORA,
    "finetuning_type": _LORA,
    "peft_config": _LORA,
    "lora_r": _key("lora.r"),
    "lora_rank": _key("lora.r"),
    "lora_alpha": _key("lora.alpha"),
    "lora_dropout": _key("lora.dropout"),
    "lora_target": _key("lora.targets"),
    "lora_target_modules": _key("lora.targets"),
    "lora_target_linear": _key("lora.targets", note="all-linear is the default"),
    "target_modules": _key("lora.targets"),
    # data
    "dataset": _DATA,
    "datasets": _DATA,
    "dataset_name": _DATA,
    "dataset_path": _DATA,
    "train_file": _DATA,
    "train_files": _DATA,
    "train_dataset": _DATA,
    "data_path": _DATA,
    "max_samples": _key("data.limit", "prompts.limit"),
    "val_size": _HELD_OUT,
    "val_set_size": _HELD_OUT,
    "test_split_size": _HELD_OUT,
    "validation_split": _HELD_OUT,
    "eval_dataset": _key("eval.data"),
    "validation_file": _key("eval.data"),
    "dataset_train_split": _key("data.split", "prompts.split"),
    "dataset_text_field": _key("data.columns", note="{text: YOUR_FIELD}, with data.use: text"),
    "completion_only_loss": _MASK,
    "assistant_only_loss": _MASK,
    "train_on_inputs": _MASK,
    "train_on_prompt": _MASK,
    "data_seed": _RANDOM,
    "random_seed": _RANDOM,
    # output
    "output_dir": _key("output", "runs"),
    "out": _key("output", "runs"),
    "out_dir": _key("output", "runs"),
    "overwrite_output_dir": Meaning(note="a run is never overwritten: choose another output, or remove the folder"),
    "resume_from_checkpoint": _RESUME,
    "resume": _RESUME,
    "push_to_hub": _HUB,
    "hub_model_id": _HUB,
    "report_to": _key("log", note="tensorboard, wandb or trackio"),
    "wandb_project": _key("log", note="log: wandb; the project is WANDB_PROJECT in the environment"),
    "logging_steps": _EVERY_STEP,
    "logging_strategy": _EVERY_STEP,
    "logging_dir": _EVERY_STEP,
    "eval_steps": _key("eval.every"),
    "eval_strategy": _key("eval.every", note="a number of steps"),
    "evaluation_strategy": _key("eval.every", note="a number of steps"),
    "early_stopping_patience": _key("eval.patience"),
    "save_steps": _key("save.every"),
    "save_strategy": _key("save.every", note="a number of steps"),
    "save_total_limit": _key("save.keep_last"),
    "load_best_model_at_end": _key("eval.patience", note="with it, the weights of the best measurement are kept"),
    "save_only_model": _key("save.every", note="checkpoints hold all that resuming needs; model/ is the model alone"),
    # methods
    "stage": _METHOD,
    "rl": _METHOD,
    "rl_algorithm": _METHOD,
    "loss_type": _key("loss.name", "rollouts.advantage"),
    "pref_loss": _key("loss.name"),
    "beta": _key("loss.beta", "kl.coef"),
    "pref_beta": _key("loss.beta"),
    "rpo_alpha": _key("mix", note="SFT rows as a second term of the loss"),
    "pref_ftx": _key("mix", note="SFT rows as a second term of the loss"),
    "label_smoothing_factor": _key("loss.label_smoothing"),
    "kto_chosen_weight": _key("loss.desirable_weight"),
    "kto_rejected_weight": _key("loss.undesirable_weight"),
    "center_rewards_coefficient": _key("loss.center"),
    "precompute_ref_log_probs": Meaning(note="not needed: the reference's log-probabilities are computed once, always"),
    "kl_coef": _key("kl.coef"),
    "init_kl_coef": _key("kl.coef"),
    "kl_estimator": _key("kl.estimator"),
    "target_kl": _key("kl.target"),
    "ppo_target": _key("kl.target"),
    "num_ppo_epochs": _key("rollouts.epochs"),
    "ppo_epochs": _key("rollouts.epochs"),
    "num_iterations": _key("rollouts.epochs"),
    "cliprange": _key("rollouts.clip"),
    "epsilon": _key("rollouts.clip"),
    "cliprange_value": _key("rollouts.value_clip"),
    "vf_coef": _key("rollouts.value_coef"),
    "response_length": _ANSWER,
    "max_completion_length": _ANSWER,
    "max_new_tokens": _ANSWER,
    "num_generations": _key("rollouts.per_prompt"),
    "num_samples": _key("rollouts.per_prompt"),
    "scale_rewards": _key("rollouts.normalize_reward"),
    "whiten_rewards": _key("rollouts.whiten"),
}
"""Name in other tools -> its meaning here."""
