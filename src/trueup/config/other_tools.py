"""Names and values of settings in other tools (TRL, transformers, LLaMA-Factory, Axolotl, verl) with the keys here.

Tests check that every key in the tables exists in a stage, and that every field of TRL's configurations has a meaning
here. A name that means the same in all tools stands once; names that only their beginning matters of (`vllm_`,
`dataloader_`) are answered by it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
_HALF = _key("dtype", note="bfloat16, or auto; float16 does not train here")
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
_ADAPTER = Meaning(
    note="there is no such adapter here: lora has r, alpha, dropout and targets, and scales by alpha / r"
)
_RSLORA = _key("lora.alpha", note="adapters are scaled by alpha / r: set alpha to its alpha times the root of r")
_WHOLE_LAYERS = _key("lora.targets", note="adapters alone are trained with lora; leave lora out to train every weight")
_ADAM = Meaning(note="not a setting: the optimizer is AdamW with betas 0.9 and 0.999; optim.lr, optim.weight_decay")
_HELD_OUT = _key("data.holdout", "prompts.holdout", note="a share of the rows; or eval.data, a file")
_RANDOM = _key("seed", note="one seed for everything")
_NO_SERVER = Meaning(note="no such thing here: the policy itself samples, in batches on its device; there is no server")
_SAMPLED = _key("rollouts.temperature", note="answers are sampled from the whole distribution, which PPO needs")
_LOADER = Meaning(note="not needed: rows are read, encoded and stored once before training, and read from memory maps")
_PLACES = _key("strategy", note="processes are started by torchrun; ddp or fsdp is all there is to choose")
_COMPILE = Meaning(note="no such thing here: models run as transformers has them, without compilation or other kernels")
_OFFLOAD = _key("gradient_checkpointing", note="or lower max_tokens: both save memory; nothing is moved to the CPU")
_MOVING = _key("reference", note="it stays fixed: no such thing here as a reference that follows the policy")
_DISTILLED = Meaning(note="no such thing here as distillation: sample the teacher's answers into a file, and train sft")
_VARIANT = _key("rollouts.advantage", note="gae, rloo, grpo or file.py:function; this variant of the loss is not here")
_OTHER_LOSS = _key("loss.name", note="this part of the loss is not here; a loss of yours: loss.name=file.py:function")
_BY_STEP = Meaning(note="not needed: every step is logged, and samples of each measurement stand in the report")
_END = Meaning(note="not a setting: the tokenizer's own; an answer ends with the token that the chat template writes")
_EXPERTS = Meaning(note="not here: routers train by the loss alone, without a balancing term")
_DROPOUT = _key("model_dropout", note="off unless set to true")
_NOT_NEEDED = Meaning(note="not a setting here, and nothing else is needed for it: leave it out")
_ORDER = _key(
    "seed", note="rows are drawn in an order of the seed, each once in an epoch, and are not grouped by length"
)
_BEST = _key("save.keep_best", note="by the stage's own measure on held-out rows")
_CALLBACKS = Meaning(note="no such thing here: metrics.jsonl in the run folder can be followed, log adds trackers")
_TOKENIZER = _key("model", "base", note="the tokenizer is the one in the model's folder")
_NEW_TOKENS = Meaning(note="no such key: add them to the tokenizer and the model's embeddings before training")
_TRACKER = _key("log", note="tensorboard, wandb or trackio")
_SFT_TERM = _key("mix", note="SFT rows as a second term of the loss")

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
    "betas": _ADAM,
    "eps": _ADAM,
    "optimizer_name": _ADAM,
    "lr_scheduler_kwargs": _key("optim.schedule", note="cosine, linear or constant, without further settings"),
    "cosine_min_lr_ratio": _key("optim.schedule", note="cosine and linear fall to 0"),
    "embedding_lr": _key("optim.lr", note="one rate for all weights"),
    "loraplus_lr_ratio": _key("optim.lr", note="one rate for both matrices of an adapter"),
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
    "gradient_checkpointing_kwargs": _key("gradient_checkpointing", note="true or false, without further settings"),
    "activation_offloading": _OFFLOAD,
    "offload_optimizer": _OFFLOAD,
    "cpu_offload": _OFFLOAD,
    "auto_resume": _RESUME,
    "lr_warmup_steps": _key("optim.warmup", note="1 or more are steps"),
    "group_by_length": _ORDER,
    "length_column_name": _ORDER,
    "train_sampling_strategy": _ORDER,
    "shuffle": _ORDER,
    "shuffle_dataset": _ORDER,
    "disable_shuffling": _ORDER,
    "pad_to_sequence_len": _PACKING,
    "pad_to_multiple_of": _PACKING,
    "padding_value": _PACKING,
    "padding_side": _PACKING,
    "eval_packing": _PACKING,
    "neat_packing": _PACKING,
    "multipack": _PACKING,
    "neftune_noise_alpha": Meaning(note="no such thing here: no noise is added to embeddings"),
    "noisy_embedding_alpha": Meaning(note="no such thing here: no noise is added to embeddings"),
    "use_liger_kernel": _COMPILE,
    "liger_kernel_config": _COMPILE,
    "enable_liger_kernel": _COMPILE,
    "use_unsloth": _COMPILE,
    "use_cache": _NOT_NEEDED,
    "disable_dropout": _DROPOUT,
    "router_aux_loss_coef": _EXPERTS,
    "moe_aux_loss_coef": _EXPERTS,
    "full_determinism": _key("seed", note="runs are repeatable always: the same seed gives the same weights"),
    "max_prompt_len": _LENGTH,
    "max_prompt_tokens": _LENGTH,
    "max_target_length": _LENGTH,
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
    "no_cuda": _key("device", note="device: cpu"),
    "local_rank": _PLACES,
    "num_gpus": _PLACES,
    "n_gpus_per_node": _PLACES,
    "nnodes": _PLACES,
    "tensor_parallel_size": _PLACES,
    "parallelism_config": _PLACES,
    "accelerator_config": _PLACES,
    "average_tokens_across_devices": Meaning(
        note="not needed: losses are divided by the weight of the whole step, always"
    ),
    "model_revision": _key("model", "base", note="download that revision, and give its folder"),
    "model_init_kwargs": _key("model", "base", note="models load as their config says; dtype and device are keys"),
    "tokenizer_name": _TOKENIZER,
    "tokenizer_name_or_path": _TOKENIZER,
    "processing_class": _TOKENIZER,
    "tokenizer_config": _TOKENIZER,
    "special_tokens": _NEW_TOKENS,
    "new_special_tokens": _NEW_TOKENS,
    "resize_vocab": _NEW_TOKENS,
    "eos_token": _END,
    "pad_token": _END,
    "bos_token": _END,
    "chat_template_path": _key("chat_template"),
    "chat_template_kwargs": _key("template", note="variables for the chat template"),
    "enable_thinking": _key("template", note="template: {enable_thinking: false}, for templates that have it"),
    "default_system": Meaning(note="no such key: write a system message into the rows, or a template that has one"),
    "rope_scaling": Meaning(note="no such key: write it into the model's config.json"),
    "cast_lm_head_to_fp32": _HALF,
    "upcast_layernorm": _HALF,
    "amp": _HALF,
    "precision": _HALF,
    "mixed_precision": _HALF,
    "is_encoder_decoder": _key("model", "base", note="decoder-only models alone are trained"),
    "force_use_ref_model": _key("reference"),
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
    "lora_parameters": _key("lora.targets"),
    "lora_target_parameters": _key("lora.targets", note="of experts: all-linear reaches them where PEFT can"),
    "target_parameters": _key("lora.targets", note="of experts: all-linear reaches them where PEFT can"),
    "rank": _key("lora.r"),
    "use_rslora": _RSLORA,
    "use_dora": _ADAPTER,
    "use_qalora": _ADAPTER,
    "pissa_init": _ADAPTER,
    "init_lora_weights": _ADAPTER,
    "lora_bias": _ADAPTER,
    "lora_task_type": _NOT_NEEDED,
    "modules_to_save": _WHOLE_LAYERS,
    "lora_modules_to_save": _WHOLE_LAYERS,
    "layers_to_transform": _WHOLE_LAYERS,
    "additional_target": _WHOLE_LAYERS,
    "unfrozen_parameters": _WHOLE_LAYERS,
    "freeze_trainable_layers": _WHOLE_LAYERS,
    "lora_model_dir": _key("model", "base", note="an adapter's folder is a model: training goes on from it"),
    "adapter_name_or_path": _key("model", "base", note="an adapter's folder is a model: training goes on from it"),
    "ref_adapter_name": _key("reference"),
    "model_adapter_name": _LORA,
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
    "formatting_func": _key("data.columns", note="names of fields; other rows are written anew before training"),
    "dataset_kwargs": _key("data.columns", "prompts.columns"),
    "prompt_key": _key("prompts.columns", "data.columns", note="{prompt: YOUR_FIELD}"),
    "column_mapping": _key("data.columns", "prompts.columns", note="{prompt: YOUR_FIELD}"),
    "dataset_test_split": _key("eval.data"),
    "test_datasets": _key("eval.data"),
    "val_files": _key("eval.data"),
    "dataset_prepared_path": _LOADER,
    "dataset_num_proc": _LOADER,
    "preprocessing_num_workers": _LOADER,
    "overwrite_cache": _LOADER,
    "streaming": _LOADER,
    "data_dir": _DATA,
    "data_files": _DATA,
    "fraction": _key("data.weight", "prompts.weight"),
    "interleave_probs": _key("data.weight", "prompts.weight"),
    "mix_strategy": _key("data.weight", "prompts.weight"),
    "mask_history": _key("data", note='every answer of a row is trained; "train": false in a message leaves it out'),
    "roles_to_train": _MASK,
    "train_on_eos": _MASK,
    "train_on_last_turn": _key(
        "data", note='every answer of a row is trained; "train": false in a message leaves it out'
    ),
    "remove_unused_columns": Meaning(note="not needed: fields that nothing reads are counted by check"),
    "label_names": _NOT_NEEDED,
    "ignore_data_skip": _RESUME,
    "dataset_config": _key("data.path", "prompts.path", note="OWNER/NAME:CONFIG"),
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
    "report_to": _TRACKER,
    "wandb_project": _key("log", note="log: wandb; the project is WANDB_PROJECT in the environment"),
    "logging_steps": _EVERY_STEP,
    "logging_strategy": _EVERY_STEP,
    "logging_dir": _EVERY_STEP,
    "plot_loss": _EVERY_STEP,
    "log_freq": _EVERY_STEP,
    "disable_tqdm": _EVERY_STEP,
    "use_wandb": _key("log", note="log: wandb"),
    "use_tensorboard": _key("log", note="log: tensorboard"),
    "run_name": _key("output", "name", note="the folder's name is the run's"),
    "experiment_name": _key("output", "name", note="the folder's name is the run's"),
    "project": _key("log", note="WANDB_PROJECT or TRACKIO_PROJECT in the environment"),
    "project_name": _key("log", note="WANDB_PROJECT or TRACKIO_PROJECT in the environment"),
    "do_train": _METHOD,
    "do_eval": _HELD_OUT,
    "do_predict": Meaning(note="models are measured by trueup evaluate"),
    "val_before_train": _NOT_NEEDED,
    "evals_per_epoch": _key("eval.every", note="a number of steps"),
    "saves_per_epoch": _key("save.every", note="a number of steps"),
    "save_freq": _key("save.every"),
    "test_freq": _key("eval.every"),
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    "generate_during_eval": _key("watch.samples", note="dpo answers so many held-out prompts at each measurement"),
    "compute_metrics": Meaning(note="models are measured by trueup evaluate, with graders of yours: file.py:function"),
    "callbacks": _CALLBACKS,
    "debug": Meaning(note="the option --debug shows the traceback of an error"),
    "seed_everything": _RANDOM,
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
    "preference_loss": _key("loss.name"),
    "dpo_beta": _key("loss.beta"),
    "rl_beta": _key("loss.beta", "kl.coef"),
    "kto_beta": _key("loss.beta"),
    "orpo_alpha": _key("loss.beta"),
    "orpo_beta": _key("loss.beta"),
    "simpo_gamma": _key("loss.gamma"),
    "gamma_beta_ratio": _key("loss.gamma", note="gamma itself, not its ratio to beta"),
    "dpop_lambda": _key("loss.penalty"),
    "dpo_label_smoothing": _key("loss.label_smoothing"),
    "label_smoothing": _key("loss.label_smoothing"),
    "reference_free": _key("loss.name", note="simpo and orpo need no reference"),
    "loss_weights": _key("loss.name", note="one loss; SFT rows as a second term: mix"),
    "ld_alpha": _OTHER_LOSS,
    "f_divergence_type": _OTHER_LOSS,
    "f_alpha_divergence_coef": _OTHER_LOSS,
    "use_weighting": _OTHER_LOSS,
    "discopop_tau": _OTHER_LOSS,
    "alpha": _key("lora.alpha"),
    "cpo_alpha": _SFT_TERM,
    "rl_alpha": _SFT_TERM,
    "ptx_coef": _key("mix.weight"),
    "sync_ref_model": _MOVING,
    "precompute_ref_batch_size": Meaning(
        note="not needed: the reference's log-probabilities are computed once, always"
    ),
    "undesirable_weight": _key("loss.undesirable_weight"),
    "desirable_weight": _key("loss.desirable_weight"),
    "beta": _key("loss.beta", "kl.coef"),
    "pref_beta": _key("loss.beta"),
    "rpo_alpha": _SFT_TERM,
    "pref_ftx": _SFT_TERM,
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
    "rollout_n": _key("rollouts.per_prompt"),
    "rloo_k": _key("rollouts.per_prompt"),
    "group_size": _key("rollouts.per_prompt"),
    "num_generations_eval": _key("rollouts.per_prompt", note="measurements sample one answer to each held-out prompt"),
    "generation_batch_size": _key("rollouts.episodes", note="all processes' together"),
    "rollout_batch_size": _key("rollouts.episodes"),
    "ppo_buffer_size": _key("rollouts.episodes"),
    "steps_per_generation": _key("rollouts.episodes", note="divided by optim.batch_size: steps of each round"),
    "ppo_mini_batch_size": _key("optim.batch_size"),
    "num_mini_batches": _key("optim.batch_size"),
    "ppo_micro_batch_size_per_gpu": _STEP,
    "local_rollout_forward_batch_size": _STEP,
    "top_p": _SAMPLED,
    "top_k": _SAMPLED,
    "min_p": _SAMPLED,
    "repetition_penalty": _SAMPLED,
    "do_sample": _SAMPLED,
    "generation_kwargs": _key("rollouts", note="temperature and max_new_tokens are its keys"),
    "stop_token": _END,
    "stop_token_id": _END,
    "cache_implementation": _NOT_NEEDED,
    "missing_eos_penalty": _key("rollouts.missing_end_penalty"),
    "mask_truncated_completions": _key("rollouts.missing_end_penalty", note="answers that do not end are penalised"),
    "clip_ratio": _key("rollouts.clip"),
    "cliprange_high": _key("rollouts.clip", note="one range, 1 - clip to 1 + clip"),
    "epsilon_high": _key("rollouts.clip", note="one range, 1 - clip to 1 + clip"),
    "delta": _key("rollouts.dual_clip"),
    "value_loss_coef": _key("rollouts.value_coef"),
    "entropy_coeff": _key("rollouts.entropy_coef"),
    "entropy_coef": _key("rollouts.entropy_coef"),
    "use_adaptive_entropy": _key("rollouts.entropy_coef", note="it stays fixed"),
    "entropy_target": _key("rollouts.entropy_coef", note="it stays fixed"),
    "adv_estimator": _key("rollouts.advantage"),
    "advantage_estimator": _key("rollouts.advantage"),
    "use_kl_loss": _key("kl.apply", note="kl.apply: loss"),
    "use_kl_in_reward": _key("kl.apply", note="kl.apply: reward"),
    "kl_loss_coef": _key("kl.coef", note="with kl.apply: loss"),
    "kl_loss_type": _key("kl.estimator", note="k2 or k3, with kl.apply: loss"),
    "kl_penalty": _key("kl.estimator"),
    "kl_penalty_coef": _key("kl.coef"),
    "adap_kl_ctrl": _key("kl.target"),
    "use_bias_correction_kl": _key("kl.apply", note="loss, with k2: the KL's own gradient"),
    "reward_weights": _key("reward", note="a list is an ensemble; weights: one file.py:function that adds them up"),
    "multi_objective_aggregation": _key("reward", note="a list is an ensemble; or one file.py:function for all"),
    "reward_clip_range": _key("reward", note="clip it in a file.py:function of yours, or rollouts.normalize_reward"),
    "reward_adapters": _key("reward"),
    "value_model": _key("rollouts.value_coef", note="the value head stands on the policy's own layers"),
    "critic": _key("rollouts.value_coef", note="the value head stands on the policy's own layers"),
    "normalize_advantages": _key("rollouts.whiten"),
    "importance_sampling_level": _VARIANT,
    "top_entropy_quantile": _VARIANT,
    "off_policy_mask_threshold": _VARIANT,
    "max_tool_calling_iterations": Meaning(note="no such thing here: prompts may declare tools, but none is run"),
    "use_vllm": _NO_SERVER,
    "use_transformers_paged": _NO_SERVER,
    "use_transformers_continuous_batching": _NO_SERVER,
    "transformers_continuous_batching_config": _NO_SERVER,
    "ds3_gather_for_generation": _SHARDED,
    "num_completions_to_print": _BY_STEP,
    "num_sample_generations": _BY_STEP,
    "num_samples": _key("rollouts.per_prompt"),
    "scale_rewards": _key("rollouts.normalize_reward"),
    "whiten_rewards": _key("rollouts.whiten"),
}
"""Name in other tools -> its meaning here."""

OTHER_BEGINNINGS: dict[str, Meaning] = {
    "adam_": _ADAM,
    "rank_pattern": _ADAPTER,
    "alpha_pattern": _ADAPTER,
    "layers_pattern": _ADAPTER,
    "exclude_modules": _key("lora.targets", note="name those that get adapters"),
    "bias": _ADAPTER,
    "fan_in_fan_out": _NOT_NEEDED,
    "layer_replication": _ADAPTER,
    "megatron_": _PLACES,
    "runtime_config": _NOT_NEEDED,
    "ensure_weight_tying": _NOT_NEEDED,
    "trainable_token_indices": _WHOLE_LAYERS,
    "target_modules_": _ADAPTER,
    "loftq": _ADAPTER,
    "eva_": _ADAPTER,
    "corda_": _ADAPTER,
    "velora": _ADAPTER,
    "alora": _ADAPTER,
    "qalora": _ADAPTER,
    "monteclora": _ADAPTER,
    "arrow_": _ADAPTER,
    "kasa_": _ADAPTER,
    "use_bdlora": _ADAPTER,
    "relora": _ADAPTER,
    "badam": _ADAM,
    "freeze_": _WHOLE_LAYERS,
    "tokens": _NEW_TOKENS,
    "chat_template_": _key("chat_template"),
    "field_": _key("data.columns", "prompts.columns", note="{messages: YOUR_FIELD}"),
    "message_property_": _key("data.columns", "prompts.columns", note="roles and texts of messages are recognised"),
    "message_field_": _key("data.columns", "prompts.columns", note="roles and texts of messages are recognised"),
    "auto_resume_": _RESUME,
    "hf_use_auth_token": Meaning(note="not needed: the hub's own login is used"),
    "loss_watchdog_": _key("optim.bad_steps", note="steps with a loss that is not finite"),
    "plugins": _COMPILE,
    "model_type": _key("model", "base", note="the class is the one that the model's config names"),
    "tokenizer_": _TOKENIZER,
    "base_model_": _key("model", "base", note="the config is the one in the model's folder"),
    "is_llama_derived": _NOT_NEEDED,
    "shuffle_": _ORDER,
    "curriculum_": _ORDER,
    "kd_": _DISTILLED,
    "seq_kd": _DISTILLED,
    "lmbda": _DISTILLED,
    "use_uld": _DISTILLED,
    "use_teacher": _DISTILLED,
    "reward_model_": _key("reward"),
    "ppo_score_norm": _key("rollouts.normalize_reward"),
    "ppo_whiten_rewards": _key("rollouts.whiten"),
    "shift_attn": _ATTENTION,
    "mixture_of_depths": _NOT_NEEDED,
    "create_new_adapter": _LORA,
    "infer_backend": _NO_SERVER,
    "trainer_type": _METHOD,
    "type": _key("data.format", "prompts.format", note="unset, it is guessed from the first row"),
    "strict": _NOT_NEEDED,
    "bnb_": _QUANTIZED,
    "use_bnb_": _QUANTIZED,
    "load_in_": _QUANTIZED,
    "quantization": _QUANTIZED,
    "gptq": _QUANTIZED,
    "optim_": _ADAM,
    "lora_": _ADAPTER,
    "peft_": _LORA,
    "adapter_": _LORA,
    "dora": _ADAPTER,
    "galore": _ADAM,
    "use_galore": _ADAM,
    "use_apollo": _ADAM,
    "use_badam": _ADAM,
    "lr_": _key("optim.schedule", note="cosine, linear or constant; optim.lr and optim.warmup"),
    "warmup_": _key("optim.warmup"),
    "dataset_": _DATA,
    "eval_dataset_": _key("eval.data"),
    "dataloader_": _LOADER,
    "preprocessing_": _LOADER,
    "ddp_": _PLACES,
    "fsdp_": _SHARDED,
    "deepspeed_": _SHARDED,
    "zero_": _SHARDED,
    "torch_compile": _COMPILE,
    "torch_empty_cache": _NOT_NEEDED,
    "bf16_": _HALF,
    "fp16_": _HALF,
    "hub_": _HUB,
    "push_to_hub_": _HUB,
    "gradient_checkpointing_": _key("gradient_checkpointing", note="true or false, without further settings"),
    "activation_checkpointing_": _key("gradient_checkpointing", note="true or false, without further settings"),
    "eval_": _key(
        "eval.every", note="held-out rows are eval.data or holdout; max_tokens bounds what is computed at once"
    ),
    "evaluation_": _key("eval.every"),
    "save_": _key("save.every", note="and save.keep_last"),
    "checkpoint": _key("save.every", note="and save.keep_last"),
    "early_stopping_": _key("eval.patience"),
    "logging_": _EVERY_STEP,
    "log_": _EVERY_STEP,
    "report_": _key("log"),
    "wandb_": _key("log", note="log: wandb; its settings are WANDB_… in the environment"),
    "trackio_": _key("log", note="log: trackio; its settings are TRACKIO_… in the environment"),
    "mlflow": _TRACKER,
    "swanlab": _TRACKER,
    "comet": _TRACKER,
    "push_": _HUB,
    "include_": _NOT_NEEDED,
    "batch_eval_": _NOT_NEEDED,
    "prediction_": _NOT_NEEDED,
    "skip_memory_": _EVERY_STEP,
    "enable_jit_": Meaning(note="not needed: Ctrl-C and SIGTERM save the current step"),
    "restore_": _RESUME,
    "ignore_bias_": _PLACES,
    "packing_": _PACKING,
    "sample_packing_": _PACKING,
    "ref_model_": _MOVING,
    "entropy_coef_": _key("rollouts.entropy_coef", note="it stays fixed"),
    "sapo_": _VARIANT,
    "vespo_": _VARIANT,
    "vllm_": _NO_SERVER,
    "sglang": _NO_SERVER,
    "teacher_": _DISTILLED,
    "distillation_": _DISTILLED,
    "uld_": _DISTILLED,
    "flash_attn_": _ATTENTION,
    "xformers": _ATTENTION,
    "sdp_": _ATTENTION,
    "image_": Meaning(note="no such thing here: texts alone are trained on"),
    "video_": Meaning(note="no such thing here: texts alone are trained on"),
}
"""Beginning of names in other tools -> their meaning here, where a name itself is not in `OTHER_NAMES`."""

OTHER_VALUES: dict[str, Mapping[str, str]] = {
    "optim": {"": "the optimizer is AdamW, not to be chosen; its settings are keys of this section, such as optim.lr"},
    "template": {
        "": "it holds variables for the chat template: {enable_thinking: false}; the template itself is the model's, "
        "or chat_template=FILE or chatml"
    },
    "dtype": {
        "fp32": "did you mean float32?",
        "float": "did you mean float32?",
        "32": "did you mean float32?",
        "bf16": "did you mean bfloat16?",
        "fp16": "float16 trains only with loss scaling, which is not here; use bfloat16 or auto",
        "float16": "float16 trains only with loss scaling, which is not here; use bfloat16 or auto",
        "half": "float16 trains only with loss scaling, which is not here; use bfloat16 or auto",
        "16": "float16 trains only with loss scaling, which is not here; use bfloat16 or auto",
    },
    "optim.schedule": {
        "constant_with_warmup": "use constant: every schedule begins with optim.warmup",
        "cosine_with_restarts": "without restarts: cosine",
        "cosine_with_min_lr": "cosine falls to 0",
        "inverse_sqrt": "nearest is cosine",
        "polynomial": "of power 1: linear",
        "warmup_stable_decay": "constant after optim.warmup, or cosine",
        "reduce_lr_on_plateau": "constant, with eval.patience to stop",
    },
    "log": {
        "all": "name them: [tensorboard, wandb]",
        "none": "leave it out, or []: metrics.jsonl in the run folder is always written",
        "": "metrics.jsonl in the run folder is always written, and other trackers can read it",
    },
    "device": {"gpu": "write cuda"},
    "strategy": {"deepspeed": "did you mean fsdp?", "": "ddp, or fsdp where each process holds a part of every weight"},
    "lora": {"true": "lora: {} trains adapters with the defaults", "false": "leave it out: every weight is trained"},
    "eval": {"": "eval.every=STEPS is how often, eval.data=FILE on which rows"},
    "save": {"": "save.every=STEPS is how often"},
    "loss.name": {
        "grpo": "GRPO is trueup ppo with rollouts.advantage=grpo",
        "ppo": "PPO is trueup ppo",
        "nll": "that is trueup sft; SFT rows as a second term: mix",
        "sft": "that is trueup sft; SFT rows as a second term: mix",
    },
}
"""Key -> {value in other tools: what to write here}; "" stands for any other text."""


def meaning_of(name: str, section: str = "") -> Meaning | None:
    """Return the meaning of another tool's name for a setting, or None if it is not in the table.

    A name in a section is looked up with the section too: `rank` in `lora` as lora_rank.
    """
    bare = _bare(name)
    return (OTHER_NAMES.get(f"{section}_{bare}") if section else None) or OTHER_NAMES.get(bare)


def meaning_of_beginning(name: str) -> Meaning | None:
    """Return the meaning that a setting of another tool has by the beginning of its name, the longest that is known."""
    starts = [start for start in OTHER_BEGINNINGS if _bare(name).startswith(start)]
    return OTHER_BEGINNINGS[max(starts, key=len)] if starts else None


def _bare(name: str) -> str:
    return name.lower().replace("-", "_")


def meaning_of_value(key: str, value: object, *, near: bool = False) -> str | None:
    """Return what to write instead of another tool's value of a key (`optim=adamw_torch`), or None if it is none.

    With `near` there is a value of ours that it resembles, and only entries for the value itself count.
    """
    values = OTHER_VALUES.get(key)
    if values is None or not isinstance(value, (str, bool, int)):
        return None
    return values.get(str(value).lower()) or (values.get("") if isinstance(value, str) and not near else None)
