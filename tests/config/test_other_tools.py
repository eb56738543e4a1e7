"""Names and values of settings in other tools: each is answered with the key here, or with the reason for none."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from trueup.cli.main import main
from trueup.config import STAGES, load_config
from trueup.config.explain import _keys_in, other_tools_key, places_of, unknown_key
from trueup.config.other_tools import OTHER_BEGINNINGS, OTHER_NAMES, OTHER_VALUES
from trueup.errors import ConfigError

DATA = ["model=m", "output=o", "data=d.jsonl"]
REQUIRED = {
    "sft": DATA,
    "reward": DATA,
    "dpo": DATA,
    "ppo": ["model=m", "output=o", "prompts=p.jsonl", "reward=r"],
}
CONFIGURATIONS = {
    "trl": ["trainer/*_config.py", "experimental/orpo/*_config.py", "experimental/cpo/*_config.py"],
    "transformers": ["training_args.py"],
    "peft": ["tuners/lora/config.py"],
}
CLASSES = (
    "_BaseConfig", "SFTConfig", "RewardConfig", "DPOConfig", "KTOConfig", "GRPOConfig", "RLOOConfig", "ModelConfig",
    "ORPOConfig", "CPOConfig", "TrainingArguments", "LoraConfig",
)  # fmt: skip
LLAMA_FACTORY = """
    stage do_train finetuning_type lora_target lora_rank lora_alpha lora_dropout cutoff_len max_samples overwrite_cache
    preprocessing_num_workers dataloader_num_workers dataset dataset_dir output_dir plot_loss overwrite_output_dir
    save_only_model report_to per_device_train_batch_size gradient_accumulation_steps num_train_epochs lr_scheduler_type
    warmup_ratio pure_bf16 ddp_timeout val_size eval_strategy eval_steps pref_beta pref_loss pref_ftx kto_chosen_weight
    kto_rejected_weight reward_model reward_model_type ppo_score_norm freeze_vision_tower quantization_bit
    quantization_method rope_scaling shift_attn use_unsloth neat_packing train_on_prompt mask_history badam_layer
    use_badam galore_rank use_galore additional_target loraplus_lr_ratio infer_backend enable_thinking flash_attn
"""
AXOLOTL = """
    base_model model_type tokenizer_type load_in_8bit load_in_4bit datasets dataset_prepared_path val_set_size
    output_dir adapter lora_model_dir sequence_len sample_packing eval_sample_packing pad_to_sequence_len lora_r
    lora_alpha lora_dropout lora_target_modules lora_target_linear lora_modules_to_save lora_fan_in_fan_out
    wandb_project wandb_entity wandb_watch wandb_name wandb_log_model micro_batch_size num_epochs optimizer
    lr_scheduler learning_rate train_on_inputs group_by_length bf16 fp16 tf32 early_stopping_patience
    resume_from_checkpoint local_rank logging_steps xformers_attention flash_attention warmup_steps evals_per_epoch
    saves_per_epoch debug deepspeed fsdp fsdp_config special_tokens tokens rl rl_beta chat_template_jinja plugins
    noisy_embedding_alpha auto_resume_from_checkpoints loss_watchdog_threshold unfrozen_parameters relora_steps strict
"""


def refusal(method: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(STAGES[method], None, [*REQUIRED[method], *settings])
    return str(caught.value)


def fields_of(package: str) -> set[str]:
    """The fields of the installed package's configuration classes, read from its source."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    folder = Path(spec.origin).parent
    trees = [ast.parse(file.read_text("utf-8")) for pattern in CONFIGURATIONS[package] for file in folder.glob(pattern)]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and node.name in CLASSES]
    lines = [line for node in classes for line in node.body if isinstance(line, ast.AnnAssign)]
    names = {line.target.id for line in lines if isinstance(line.target, ast.Name)}
    assert len(names) > 15, names
    return {name for name in names if not name.startswith("_")}


def unanswered(names: set[str]) -> list[str]:
    """The names that some stage neither has nor answers by more than the list of its keys."""
    missing: list[str] = []
    for method, cls in STAGES.items():
        keys = {str(key) for place in places_of(cls) for key in place[-1:]}
        missing += [
            f"{method}: {name}"
            for name in sorted(names - keys)
            if other_tools_key(cls, name) is None and "has nothing of the kind" not in unknown_key(cls, (name,))
        ]
    return missing


@pytest.mark.parametrize("package", CONFIGURATIONS)
def test_every_field_of_a_librarys_configuration_is_answered(package: str) -> None:
    assert unanswered(fields_of(package)) == []


@pytest.mark.parametrize("names", [LLAMA_FACTORY, AXOLOTL], ids=["llama-factory", "axolotl"])
def test_common_keys_of_other_tools_are_answered(names: str) -> None:
    assert unanswered(set(names.split())) == []


def test_every_meaning_names_keys_that_exist() -> None:
    keys = {key for cls in STAGES.values() for key in _keys_in(cls)} | {"base", "runs", "name"}
    for name, meaning in (OTHER_NAMES | OTHER_BEGINNINGS).items():
        assert meaning.keys or meaning.note, name
        assert set(meaning.keys) <= keys, name
    assert {key for key in OTHER_VALUES if key not in keys} == set()


def test_a_beginning_does_not_claim_a_key_of_ours_or_a_slip_in_it() -> None:
    for cls in STAGES.values():
        for place in places_of(cls):
            assert not any(str(place[0]).startswith(start) for start in OTHER_BEGINNINGS), place
    assert "here it is optim.lr" in refusal("sft", "optim_lr=1")
    assert "did you mean loss.beta?" in refusal("dpo", "loss_bta=1")
    assert "did you mean save.every?" in refusal("sft", "save_evry=1")


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("sft", "lora.use_dora=true", "there is no such adapter here: lora has r, alpha, dropout and targets"),
        ("sft", "lora.rank=8", "unknown key; here it is lora.r"),
        ("sft", "lora.use_rslora=true", "here it is lora.alpha (adapters are scaled by alpha / r"),
        ("sft", "lora.modules_to_save=[lm_head]", "here it is lora.targets (adapters alone are trained"),
        ("sft", "lora.lora_alpha=8", "here it is lora.alpha"),
        ("sft", "lora.target_modules=[q]", "here it is lora.targets"),
        ("sft", "optim.learning_rate=1", "here it is optim.lr"),
        ("sft", "eval.strategy=steps", "here it is eval.every"),
        ("sft", "save.steps=5", "here it is save.every"),
        ("sft", "torch_compile=true", "no such thing here: models run as transformers has them"),
        ("sft", "neftune_noise_alpha=5", "no noise is added to embeddings"),
        ("sft", "num_generations=4", "sft has nothing of the kind; in trueup ppo it is rollouts.per_prompt"),
        ("sft", "temperature=1", "sft has nothing of the kind; in trueup ppo it is rollouts.temperature"),
        ("dpo", "sync_ref_model=true", "here it is reference (it stays fixed"),
        ("dpo", "loss.loss_type=hinge", "unknown key; here it is loss.name"),
        ("ppo", "vllm_some_new_setting=1", "there is no server"),
        ("sft", "optim=adamw_torch", "the optimizer is AdamW, not to be chosen; its settings are keys of this section"),
        ("sft", "template=qwen", "it holds variables for the chat template"),
        ("sft", "dtype=fp16", "must be one of auto, float32, bfloat16; got 'fp16'; float16 trains only with loss"),
        ("sft", "dtype=float16", "float16 trains only with loss scaling, which is not here; use bfloat16 or auto"),
        ("sft", "dtype=fp32", "did you mean float32?"),
        ("sft", "optim.schedule=constant_with_warmup", "use constant: every schedule begins with optim.warmup"),
        ("sft", "log=[mlflow]", "metrics.jsonl in the run folder is always written"),
        ("sft", "lora=true", "lora: {} trains adapters with the defaults"),
        ("sft", "eval=steps", "eval.every=STEPS is how often"),
        ("dpo", "loss=IPO", "write loss.name=IPO"),
        ("dpo", "loss.name=grpo", "GRPO is trueup ppo"),
    ],
)  # fmt: skip
def test_a_name_or_value_of_another_tool(method: str, setting: str, said: str) -> None:
    assert said in refusal(method, setting)


@pytest.mark.parametrize(("written", "name"), [("DPO", "sigmoid"), ("IPO", "ipo"), ("SimPO", "simpo"), ("Kto", "kto")])
def test_a_losss_name_in_capitals(written: str, name: str) -> None:
    config = load_config(STAGES["dpo"], None, [*REQUIRED["dpo"], f"loss.name={written}"])
    assert config.model_dump()["loss"]["name"] == name


def test_an_advantages_name_in_capitals() -> None:
    settings = ["rollouts.advantage=GRPO", "rollouts.per_prompt=4"]
    config = load_config(STAGES["ppo"], None, [*REQUIRED["ppo"], *settings])
    assert config.model_dump()["rollouts"]["advantage"] == "grpo"


@pytest.mark.parametrize(("words", "said"), [
    (["SFT"], "give CONFIG.yaml or settings"),
    (["config", "DPO"], ""),
    (["CHECK", "none.jsonl", "--model", "m", "--method", "SFT"], "no such model folder"),
])  # fmt: skip
def test_a_command_or_method_in_capitals_is_the_command(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (main(words) == 0) == (said == "")
    assert said in capsys.readouterr().err
