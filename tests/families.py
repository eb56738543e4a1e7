"""Tiny random models of every family of causal language models in transformers, and what training does with them.

A family's configuration is its class's default with every size that the class has made small (`SIZES`), so that a
family that nobody listed is tried as well. The few that need values of their own are in `PECULIAR`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tiny import tiny_tokenizer

_NAMES: dict[int, str] = {
    264: "vocab_size vocab_size_per_layer_input unpadded_vocab_size",
    512: "max_position_embeddings n_positions n_ctx max_seq_len context_length",
    48: "intermediate_size n_inner ffn_dim ffn_hidden_size moe_intermediate_size dim_ff dff d_inner "
    "shared_expert_intermediate_size shared_intermediate_size shared_experts_intermediate_size expert_ffn_hidden_size "
    "intermediate_size_mlp dense_intermediate_size moe_shared_expert_intermediate_size decoder_ffn_dim encoder_ffn_dim",
    64: "mamba_d_ssm index_topk",
    32: "hidden_size n_embd d_model dim_model embedding_size word_embed_proj_dim embedding_dim emb_dim lru_width "
    "attention_hidden_size image_size",
    16: "qk_head_dim sliding_window attention_chunk_size window_size attention_window_size sliding_window_size "
    "local_attention keep_window_size floor_scale block_multiple_of",
    8: "head_dim swa_head_dim v_head_dim qk_rope_head_dim qk_nope_head_dim index_head_dim linear_key_head_dim "
    "linear_value_head_dim linear_head_dim rotary_dim kv_channels dim_head mamba_head_dim attention_head_dim d_head "
    "global_head_dim kv_lora_rank q_lora_rank o_lora_rank laurel_rank gated_norm_rank adapter_rank "
    "hidden_size_per_layer_input router_hidden_size time_step_rank mamba_dt_rank hc_lowrank mamba_d_state state_size "
    "ssm_state_size mamba_d_head chunk_size mamba_chunk_size mamba_n_heads mamba_num_heads query_pre_attn_scalar",
    4: "num_attention_heads n_head n_heads num_heads swa_num_attention_heads decoder_attention_heads "
    "encoder_attention_heads attention_heads num_encoder_attention_heads num_decoder_attention_heads "
    "num_experts n_routed_experts num_local_experts moe_num_experts",
    2: "num_hidden_layers n_layer n_layers num_layers num_layers_per_stack decoder_layers encoder_layers num_blocks "
    "num_encoder_layers num_decoder_layers num_key_value_heads swa_num_key_value_heads num_kv_heads eos_token_id "
    "linear_num_key_heads linear_num_value_heads linear_num_heads index_n_heads n_mamba_heads num_experts_per_tok "
    "moe_k moe_topk",
    1: "n_group topk_group n_shared_experts num_shared_experts moe_num_shared_experts zero_expert_num n_groups "
    "mamba_n_groups mamba_ngroups o_groups max_window_layers moe_layer_end_index bos_token_id",
    0: "first_k_dense_replace num_dense_layers num_mtp_layers num_nextn_predict_layers num_kv_shared_layers "
    "rescale_every moe_layer_start_index pad_token_id",
}
SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}
"""The size of each field that a configuration class has, if it has it."""
PECULIAR: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "diffllama": {"attention_dropout": 0.0},  # it takes no other
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hrm_text": {"L_bp_cycles": [1, 1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "opt": {"word_embed_proj_dim": 24, "do_layer_norm_before": False},  # the form of OPT-350m
    "qwen2": {"use_sliding_window": True},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlstm": {"qk_dim_factor": 1.0},
    "zaya": {"num_experts_per_tok": 1},
}
KNOWN_FAULTS: dict[str, str] = {}
"""Families whose export cannot be read back as it was written, with the library's fault."""
_NEVER_NONE = ("head_dim", "num_key_value_heads", "bos_token_id", "eos_token_id", "pad_token_id")
_DROPS = ("drop", "jitter")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def all_model_types() -> list[str]:
    """Return the model types that transformers' table of causal language models lists."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, **settings: Any) -> Any:
    """Return the small configuration of a family, with dropout of .1 wherever its class has a field for it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _small(CONFIG_MAPPING[model_type], PECULIAR.get(model_type, {}) | settings)


def _small(kind: Any, peculiar: dict[str, Any]) -> Any:
    from transformers import PreTrainedConfig

    names = [field.name for field in dataclasses.fields(kind)]
    default = kind()
    values: dict[str, Any] = {}
    present = {name: _get(default, name) for name in names}
    layers = next(
        (
            present[name]
            for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
            if isinstance(present.get(name), int)
        ),
        0,
    )
    per_layer = {
        name: value for name, value in present.items() if isinstance(value, list) and layers and len(value) == layers
    }
    kept = _kinds(per_layer, layers)
    for name, value in present.items():
        if isinstance(value, PreTrainedConfig):
            values[name] = _small(type(value), {})
        elif name in SIZES and (value is not None or name in _NEVER_NONE):
            values[name] = SIZES[name]
            if name in _LAYERS and per_layer:
                values[name] = len(kept)
        elif name in per_layer:
            values[name] = [per_layer[name][index] for index in kept]
        elif isinstance(value, float) and any(part in name for part in _DROPS):
            values[name] = 0.1
    if "kv_lora_rank" in values:  # latent attention has no groups of heads
        values["num_key_value_heads"] = values["num_attention_heads"]
    for name, value in values.items():  # per-layer lists of sizes, such as numbers of heads
        if name in per_layer and name not in SIZES and all(isinstance(item, int) and item > 8 for item in value):
            values[name] = [4] * len(value)
    return kind(**(values | peculiar))


def _get(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # noqa: BLE001 - a value that differs from layer to layer
        return config.__dict__.get(name)


def _kinds(per_layer: dict[str, list[Any]], layers: int) -> list[int]:
    """Return the layers to keep: the first of each kind, at least two."""
    seen: dict[str, int] = {}
    for index in range(layers):
        seen.setdefault(repr([value[index] for value in per_layer.values()]), index)
    kept = sorted(seen.values())[:4]
    return kept if len(kept) > 1 else [*kept, *kept] if layers else []


def tiny_family(model_type: str, folder: Path, **settings: Any) -> str:
    """Write a tiny random model of a family and the byte tokenizer into `folder`; return its name."""
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(tiny_config(model_type, **settings))
            for weight in model.parameters():
                if weight.ndim > 1 and weight.is_floating_point():  # wide enough that attention and positions matter
                    with torch.no_grad():
                        weight.normal_(0, 0.15)
            with torch.no_grad():
                model.eval()(input_ids=torch.arange(4, 44)[None])  # transformers itself may fail at such sizes
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return str(folder)


# -- one training of a family ----------------------------------------------------------------------------------------

METHODS = ("sft", "reward", "dpo", "kto", "ppo")
_RANKINGS = [
    {"prompt": "What is two and two?", "chosen": "It is four, of course.", "rejected": "Five, I think."},
    {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "A bowl of hot soup with bread."},
    {"prompt": "Who wrote this?", "chosen": "Nobody knows.", "rejected": "Me."},
    {"prompt": "Hi?", "chosen": "Hello and good day to you.", "rejected": "..."},
]
_REWARD = "def score(conversations):\n    return [len(one.response) / 10 for one in conversations]\n"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a cell of the matrix: "right", "refused", "wrong" or "crash", and the refusal or the fault."""

    kind: str
    text: str = ""


def try_cell(model_type: str, method: str, *, lora: bool, folder: Path) -> Outcome:
    """Train a tiny model of the family for two steps, and compare it with plain transformers before and after.

    Before: the first loss, and the log-probabilities of the data. After: the outputs of the exported folders in plain
    transformers, against those of the trained network.
    """
    from trueup.errors import TrueupError

    try:
        base = tiny_family(model_type, folder / "models" / model_type)
    except Exception as error:  # noqa: BLE001 - of transformers, on a configuration of ours
        return Outcome("untried", _line(error))
    output = folder / f"{model_type}-{method}-{'lora' if lora else 'full'}"
    before = torch.get_rng_state()
    try:
        _train(base, method, lora, output)
        faults = [*_start_faults(base, method, output), *_export_faults(output, lora)]
        if method == "ppo":
            faults += _sampling_faults(base)
    except TrueupError as error:
        log = output / "metrics.jsonl"
        begun = log.is_file() and '"step": 1' in log.read_text()
        return Outcome("crash" if begun else "refused", _line(error))
    except Exception as error:  # noqa: BLE001 - the outcome to find
        if os.environ.get("FAMILIES_TRACEBACK"):
            traceback.print_exc()
        return Outcome("crash", f"{type(error).__name__}: {_line(error)}")
    finally:
        torch.set_rng_state(before)
    return Outcome("wrong", "; ".join(faults)) if faults else Outcome("right")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _train(base: str, method: str, lora: bool, output: Path) -> None:
    from trueup.config import STAGES

    stage = "dpo" if method == "kto" else method
    data, reward = output.parent / "rankings.jsonl", output.parent / "score.py"
    if not data.is_file():
        data.write_text("".join(json.dumps(row) + "\n" for row in _RANKINGS))
        reward.write_text(_REWARD)
    source = {"path": str(data)} | ({"use": "chosen"} if method == "sft" else {})
    settings: dict[str, Any] = {
        "model": base,
        "output": str(output),
        "optim": {"lr": 3e-3, "batch_size": 8 if method == "kto" else 4, "steps": 2},
        "device": "cpu",
        "threads": 1,
        "lora": {"r": 8} if lora else None,
        "prompts" if method == "ppo" else "data": source,
    }
    if method == "kto":
        settings["loss"] = {"name": "kto"}
    if method == "ppo":
        settings |= {
            "reward": f"{reward}:score",
            "rollouts": {"episodes": 4, "epochs": 2, "max_new_tokens": 12},
            "max_length": 128,
        }
    importlib.import_module(f"trueup.recipes.{stage}").run(STAGES[stage].model_validate(settings))


def _examples(base: str) -> list[tuple[list[int], list[tuple[list[int], list[bool]]]]]:
    from trueup.data.rendering.messages import Message
    from trueup.data.rendering.renderer import Renderer
    from trueup.models.loading import load_tokenizer

    renderer = Renderer(load_tokenizer(base))
    rows = []
    for row in _RANKINGS:
        prompt = (Message("user", row["prompt"]),)
        answers = [renderer.continuation(prompt, [Message("assistant", row[key])]) for key in ("chosen", "rejected")]
        rows.append((renderer.prompt(prompt), [(list(answer.ids), list(answer.mask)) for answer in answers]))
    return rows


@torch.no_grad()
def _plain_logps(base: str) -> Any:
    """Return (4, 2) sums of log-probabilities of chosen and rejected answers, each row alone, and (4, 2) lengths."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    sums, counts = torch.zeros(4, 2), torch.zeros(4, 2)
    for index, (trunk, answers) in enumerate(_examples(base)):
        for side, (ids, mask) in enumerate(answers):
            row = torch.tensor([trunk + ids])
            logps = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            trained = torch.tensor([False] * (len(trunk) - 1) + mask)
            sums[index, side] = logps.gather(-1, row[0, 1:, None])[:, 0][trained].sum()
            counts[index, side] = trained.sum()
    return sums, counts


def _start_faults(base: str, method: str, output: Path) -> list[str]:
    """Return the differences of the first step from plain transformers."""
    from safetensors.torch import load_file

    first = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    faults: list[str] = []
    sums, counts = _plain_logps(base)
    expected = {
        "sft": -float(sums[:, 0].sum() / counts[:, 0].sum()),
        "reward": 0.693147,
        "dpo": 0.693147,
        "kto": 0.5,
    }.get(method)
    if expected is not None and abs(first["loss"] - expected) > 2e-4:
        faults.append(f"first loss {first['loss']:.5f}, not {expected:.5f}")
    if method == "ppo" and abs(first["ppo/kl"]) > 1e-3:
        faults.append(f"first KL {first['ppo/kl']:.5f}, not 0")
    if method in ("dpo", "kto"):
        reference = load_file(output / "reference-data.safetensors")["ref_logps"]
        plain = sums.flatten() if method == "dpo" else sums.T.flatten()
        if (worst := float((reference - plain).abs().max())) > 2e-3:
            faults.append(f"log-probabilities differ by {worst:.2g} nats")
    return faults


def _export_faults(output: Path, lora: bool) -> list[str]:
    """Return the failed checks of the exported folders, loaded by plain transformers and PEFT."""
    from trueup.export.proof_fresh import RecordedOutputs, check_outputs

    faults: list[str] = []
    for name in ("model", "adapter") if lora else ("model",):
        record = RecordedOutputs(str(output / "outputs.safetensors"))
        if name == "adapter":
            tiny_tokenizer().save_pretrained(output / name)
        checks = check_outputs(output / name, record, False, final=name == "model")
        faults += [f"{name}: {check.name}: {check.found}" for check in checks if not check.passed]
        share = [check.numbers.get("share") for check in checks if check.name == "change by training"]
        if share == [None]:
            faults.append(f"{name}: nothing learned")
    return faults


@torch.no_grad()
def _sampling_faults(base: str) -> list[str]:
    """Return a fault if greedy sampling in a batch differs from `generate` on a prompt alone."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    from trueup.config import SftConfig
    from trueup.models.loading import load_network
    from trueup.runtime import init
    from trueup.sampling import sample

    network = load_network(
        SftConfig.model_validate({"model": base, "output": "unused", "data": "unused"}), init("cpu", "float32")
    )
    network.add_frozen("policy")
    prompts = [trunk for trunk, _ in _examples(base)]
    ours = [sampled.ids for sampled in sample(network, prompts, max_new_tokens=16, temperature=0.0)]
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    settings = GenerationConfig(max_new_tokens=16, do_sample=False, eos_token_id=2, pad_token_id=0)
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)[
            0, len(prompt) :
        ].tolist()
        if theirs != answer:
            return [f"greedy {answer[:6]} is not {theirs[:6]}"]
    return []


# -- the table of docs/models.md -------------------------------------------------------------------------------------

DOCS = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- written by `make families` -->\n", "<!-- end -->\n"
Cells = dict[tuple[str, str, bool], Outcome]
"""Outcomes by model type, method, and True for LoRA."""


def run_matrix(folder: Path, model_types: Iterable[str] | None = None) -> Cells:
    """Return the outcome of every cell: families x methods x (full, LoRA)."""
    cells: Cells = {}
    for model_type in all_model_types() if model_types is None else model_types:
        for method in METHODS:
            for lora in (False, True):
                cells[model_type, method, lora] = try_cell(model_type, method, lora=lora, folder=folder)
        shutil.rmtree(folder)
        folder.mkdir()
    return cells


def table(cells: Cells) -> str:
    """Return the outcomes as Markdown: the families that are right in all cells, and a table of the others."""
    families = list(dict.fromkeys(model_type for model_type, _, _ in cells))
    kinds = {family: {outcome.kind for key, outcome in cells.items() if key[0] == family} for family in families}
    right = [family for family in families if kinds[family] == {"right"}]
    refused = [family for family in families if kinds[family] == {"refused"}]
    untried = [family for family in families if kinds[family] == {"untried"}]
    mixed = [family for family in families if family not in {*right, *refused, *untried}]
    lines = [f"**Right in all ten cells** ({len(right)}): {', '.join(right)}.", ""]
    lines += [f"| family | {' | '.join(METHODS)} | why |", f"|---|{'---|' * len(METHODS)}---|"]
    for family in mixed:
        reasons: dict[str, None] = {}
        row = [_cell(cells, family, method, reasons) for method in METHODS]
        lines.append(f"| {family} | {' | '.join(row)} | {'; '.join(reasons)} |")
    lines += ["", f"**Refused before the first step, whatever the method** ({len(refused)}): {', '.join(refused)}.", ""]
    lines.append(f"**Not tried** (transformers cannot make them this small): {', '.join(untried)}.")
    return "\n".join(lines) + "\n"


def _cell(cells: Cells, family: str, method: str, reasons: dict[str, None]) -> str:
    kinds = []
    for lora in (False, True):
        outcome = cells[family, method, lora]
        kinds.append(outcome.kind)
        if outcome.kind == "refused":
            reasons[_short(outcome.text)] = None
        elif outcome.kind in ("wrong", "crash"):
            reasons[KNOWN_FAULTS.get(family, outcome.text[:100])] = None
    full, lora = kinds
    return full if full == lora else f"full {full}, LoRA {lora}"


def _short(reason: str) -> str:
    """Return the reason of a refusal in some words, without the family's name and the fix."""
    known = {
        "no sequence classifier": "no sequence classifier",
        "incompatible with Mamba": "PEFT adapts no Mamba block",
        "token by token": "its sampling differs from its rows",
        "no cache that": "no cache to sample over",
    }
    return next((words for part, words in known.items() if part in reason), reason.partition(" fix: ")[0][:100])


def write_docs(cells: Cells) -> None:
    """Write the table into docs/models.md."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{table(cells)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault("TRUEUP_CACHE", f"{temporary}/cache")
        (Path(temporary) / "runs").mkdir()
        write_docs(run_matrix(Path(temporary) / "runs"))
