"""Write trained roles as standard folders that other tools open without trueup.

`model/` is a plain Hugging Face folder with LoRA merged in; `adapter/` is the PEFT adapter. A reward model is an
`AutoModelForSequenceClassification` with a single label. Each folder is written under a hidden name and renamed into
place; before that, `trueup export` proves that its folder computes the same as the trained network (`proof.py`).
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trueup.config.transformers4 import write_for_transformers_4
from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.export.copying import allowed_roots, check_link, copy_model
from trueup.export.hub import check_name, push
from trueup.export.merging import MAX_MERGE_LOSS, merge_kept_share, merged_state
from trueup.export.proof import OUTPUTS_FILE, PROOF_FILE, Proof, prove, record_folder
from trueup.export.proof_files import INDEX_FILE
from trueup.export.proof_fresh import CHANGE_CHECK
from trueup.models.loading import ROUNDING_FILE, load_tokenizer
from trueup.models.network import SCORE_HEAD_KEY
from trueup.models.weights import score_head
from trueup.system.files import explain_disk_errors, fsync_path
from trueup.system.text import clean

if TYPE_CHECKING:
    from trueup.config import LoraConfig
    from trueup.models.network import Network


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_policy(network: Network, folder: Path) -> None:
    """Write the policy as a causal language model with tokenizer, chat template and stop tokens.

    LoRA is merged in. Every rank has to call; the first writes.
    """
    state, share = merged_state(network, "policy"), merge_kept_share(network, "policy")
    network.runtime.from_first(lambda: _write_policy(network, folder, state, share))


def _write_policy(network: Network, folder: Path, state: dict[str, Tensor], share: float) -> None:
    trunk = cast("Any", network.trunk("policy"))  # transformers' annotations of its mixins mislead type checkers
    temporary = _new_temporary(folder)
    generation = copy.deepcopy(trunk.generation_config)
    stops = [network.renderer.end_id, *sorted(network.stop_ids - {network.renderer.end_id})]
    if generation is not None:
        # Other tools stop only at the tokens in this file.
        generation.eos_token_id = stops if len(stops) > 1 else stops[0]
        generation.pad_token_id = network.tokenizer.pad_token_id
    config = trunk.config
    previous, trunk.generation_config = trunk.generation_config, generation
    try:
        trunk.config = copy.deepcopy(config)
        if _untied_by_training(trunk, state):
            trunk.config.tie_word_embeddings = False
        if loses_padding(trunk):
            trunk.config.get_text_config().pad_token_id = None
        trunk.save_pretrained(temporary, state_dict=state)
    finally:
        trunk.generation_config, trunk.config = previous, config
    _write_dtype(temporary, next(weight.dtype for weight in state.values() if weight.is_floating_point()))
    network.tokenizer.save_pretrained(temporary)
    write_for_transformers_4(temporary)
    if abs(share - 1) > MAX_MERGE_LOSS:  # stages that load it in half precision check this
        (temporary / ROUNDING_FILE).write_text(json.dumps({"kept": round(share, 4)}) + "\n", encoding="utf-8")
    _publish(temporary, folder)


def _write_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Write the dtype into a model folder's config.json; other tools load the weights in it."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _untied_by_training(trunk: Any, state: dict[str, Tensor]) -> bool:
    """Return True if embedding and LM head shared a weight until an adapter changed one of the two."""
    if not getattr(trunk.config, "tie_word_embeddings", False):
        return False
    ends: tuple[nn.Module, nn.Module] = (trunk.get_input_embeddings(), trunk.get_output_embeddings())
    names = {id(module): name for name, module in trunk.named_modules()}
    embedding, head = (state[f"{names[id(end)]}.weight"] for end in ends)
    return embedding.data_ptr() != head.data_ptr()


@torch.no_grad()
def loses_padding(trunk: nn.Module) -> bool:
    """Return True if transformers sets the padding token's embedding to 0 whenever it loads this family (Youtu).

    Its class initialises the row although the file holds it; training moves it where the LM head shares it. Without
    `pad_token_id` in config.json the row is loaded as it is; the tokenizer and generation_config.json have the id.
    """
    if not type(trunk).__module__.startswith("transformers."):
        return False  # of a model's own code nothing is initialised that the files hold
    probe = nn.Embedding.from_pretrained(torch.ones(2, 1), padding_idx=0)
    cast("Any", probe.weight)._is_hf_initialized = True  # as the loader marks a weight that the files hold
    with torch.random.fork_rng(devices=[]):
        cast("Any", trunk)._init_weights(probe)
    return not bool((probe.weight == 1).all())


def export_reward(network: Network, folder: Path) -> None:
    """Write the reward model as a sequence classifier with a single label. Every rank has to call; the first writes.

    transformers reads the score at the last token that is not the pad token. If pad and end token are the same id,
    another special token becomes the pad token, because the end token would be skipped.
    """
    state = merged_state(network, "reward")
    network.runtime.from_first(lambda: _write_reward(network, folder, state))


def _write_reward(network: Network, folder: Path, merged: dict[str, Tensor]) -> None:
    from transformers import AutoModelForSequenceClassification

    trunk, parts = cast("Any", network.trunk("reward")), network.roles["reward"]
    config = copy.deepcopy(trunk.config)
    config.num_labels = 1
    config.pad_token_id, pad_token = _separate_pad_token(network)
    with torch.device("meta"):
        classifier = cast("nn.Module", AutoModelForSequenceClassification.from_config(config))
    state = {name: weight for name, weight in merged.items() if name in classifier.state_dict()}
    head = score_head(classifier)
    head_name = next(name for name, module in classifier.named_modules() if module is head)
    dtype = next(iter(state.values())).dtype
    score = cast("nn.Linear", network.heads[cast("str", parts.head)])
    state[f"{head_name}.weight"] = score.weight.detach().to(dtype)
    if missing := set(classifier.state_dict()) - set(state):
        raise ModelError(f"cannot export the reward model: no weights for {sorted(missing)[:3]}")
    classifier.load_state_dict(state, assign=True)
    temporary = _new_temporary(folder)
    cast("Any", classifier).save_pretrained(temporary, state_dict=state)
    tokenizer = copy.deepcopy(network.tokenizer)
    tokenizer.pad_token = pad_token
    tokenizer.save_pretrained(temporary)
    write_for_transformers_4(temporary)
    _publish(temporary, folder)


def _separate_pad_token(network: Network) -> tuple[int | None, str | None]:
    """Return the id and text of a pad token other than the end token: the tokenizer's, else another special token.

    Both are None if there is none.
    """
    tokenizer, end = network.tokenizer, network.renderer.end_id
    if tokenizer.pad_token_id != end:
        return cast("int", tokenizer.pad_token_id), cast("str", tokenizer.pad_token)
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for index, token in (special | added).items():
        if index not in (end, tokenizer.bos_token_id):
            return index, token
    return None, None


def export_adapter(network: Network, folder: Path, lora: LoraConfig, *, role: str, base: str) -> None:
    """Write the role's LoRA adapter as a PEFT folder; a reward adapter includes its score head.

    `base` is the folder or hub id of its base model. Every rank has to call; the first writes.
    """
    network.runtime.from_first(lambda: _write_adapter(network, folder, lora, role, base))


def _write_adapter(network: Network, folder: Path, lora: LoraConfig, role: str, base: str) -> None:
    temporary = _new_temporary(folder)
    network.save_adapter(role, temporary)
    weights_path, settings_path = temporary / "adapter_model.safetensors", temporary / "adapter_config.json"
    settings = json.loads(settings_path.read_text())
    settings |= {"base_model_name_or_path": base, "task_type": "CAUSAL_LM"}
    head = network.roles[role].head
    if head is not None:
        weights = load_file(weights_path)
        weights[SCORE_HEAD_KEY] = cast("nn.Linear", network.heads[head]).weight.detach().cpu().contiguous()
        save_file(weights, weights_path, metadata={"format": "pt"})
        settings |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    settings_path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    origin = {"base_fingerprint": network.base_fingerprint, "r": lora.r, "role": role}
    (temporary / "trueup.json").write_text(json.dumps(origin, indent=2) + "\n")
    _publish(temporary, folder)


def run(
    run_folder: Path, output: Path | None = None, *, merge: bool = True, dtype: str = "auto",
    push_to_hub: str | None = None, private: bool = False, trust_remote_code: bool = False,
) -> Path:  # fmt: skip
    """Run `trueup export`: write a run's model or adapter as a new folder, proven to compute what was trained.

    The model may be cast to another dtype. If a fresh process computes anything else from the folder than the trained
    network did, it is not published.

    Args:
        run_folder: a run's folder, or a model's folder.
        output: a new folder; by default `export` in the run folder, or `export-adapter`, `export-DTYPE`.
        merge: export the whole model; else only its LoRA adapter.
        dtype: "auto" (as trained), "float32", "bfloat16" or "float16".
        push_to_hub: owner/name of a hub repository for the upload, after the proof.
        private: create that repository as private.
        trust_remote_code: run code that comes with the model. The run's own setting is ignored: it may have come with
            the model.

    Returns:
        The written folder.

    Raises:
        ModelError: there is no model or adapter to export, `output` exists, the dtype is unknown, the export differs
            from the trained network, or the upload failed.
    """
    source = _source_folder(run_folder, merge=merge, dtype=dtype)
    output = _default_output(run_folder, source, dtype) if output is None else output
    if output.exists():
        raise ModelError(f"{output} exists already; name another folder, or remove it")
    if output.resolve().is_relative_to(source.resolve()):
        raise ModelError(f"{output} is inside {source}, which is copied; name a folder elsewhere")
    if push_to_hub is not None:
        check_name(push_to_hub)
    temporary = _new_temporary(output)
    try:
        with explain_disk_errors(f"cannot write {output}", output.parent):
            copy_model(source, temporary)
            if not merge:
                _add_tokenizer(source.with_name("model"), temporary, trust_remote_code)
            write_for_transformers_4(temporary)
            if dtype != "auto":
                _cast(temporary, dtype)
        proof = _proof(source, temporary, cast=dtype != "auto", trust=trust_remote_code)
        proof.write(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    proof.show()
    if proof.failures:
        raise ModelError(_set_aside(temporary, output, proof))
    _publish(temporary, output)
    print(f"written to {clean(str(output), one_line=True)}")
    if push_to_hub is not None:
        print(f"uploaded to {push(output, push_to_hub, private=private)}")
    return output


def _source_folder(run_folder: Path, *, merge: bool, dtype: str) -> Path:
    source = run_folder / ("model" if merge else "adapter")
    if not merge:
        if not source.is_dir():
            raise ModelError(f"{run_folder} has no adapter: it was not trained with lora; leave out --no-merge")
        if not (run_folder / "model").is_dir():
            raise ModelError(
                f"{run_folder}: has no model/, from which an adapter's folder gets tokenizer and chat template\n"
                "  fix: run the stage's command again, which writes model/ from the last checkpoint without training"
            )
        if dtype != "auto":
            raise ModelError("dtype: an adapter is exported as it was trained; leave out dtype, or --no-merge")
        return source
    source = source if source.is_dir() else run_folder
    if not (source / "config.json").is_file():
        if (run_folder / "config.yaml").is_file() and (run_folder / "adapter").is_dir():
            raise ModelError(
                f"{run_folder}: a run with adapter/ and without model/, in which that is merged into its base\n"
                "  fix: run the stage's command again, which writes model/ from the last checkpoint without training"
            )
        raise ModelError(f"{run_folder} has no model: give the folder of a finished run or of a model")
    if dtype not in ("auto", *_DTYPES):
        raise ModelError(f"dtype: {dtype!r} is unknown; use auto, {', '.join(_DTYPES)}")
    return source


def _default_output(run_folder: Path, source: Path, dtype: str) -> Path:
    name = "export-adapter" if source.name == "adapter" else "export" if dtype == "auto" else f"export-{dtype}"
    return run_folder / name if source != run_folder else run_folder.with_name(f"{run_folder.name}-{name}")


def _add_tokenizer(model: Path, folder: Path, trust: bool = False) -> None:
    """Add the model's tokenizer, with the chat template used in training, and stop tokens to an adapter's folder."""
    for path in model.glob("*.json*"):  # no file from elsewhere is read or copied
        check_link(path, allowed_roots(model))
    load_tokenizer(str(model), trust_remote_code=trust).save_pretrained(folder)
    if (model / "generation_config.json").is_file():
        shutil.copy(model / "generation_config.json", folder)


def _cast(folder: Path, dtype: str) -> None:
    """Cast every floating-point weight in a folder, file by file, and update config.json and the weights' index."""
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path}: not a readable safetensors file: {error}") from None
        target = _DTYPES[dtype]
        tensors = {name: value.to(target) if value.is_floating_point() else value for name, value in weights.items()}
        size += sum(value.nbytes for value in tensors.values())
        save_file(tensors, path, metadata={"format": "pt"})
    _write_dtype(folder, _DTYPES[dtype])
    if (folder / INDEX_FILE).is_file():
        index = read_json(folder / INDEX_FILE)
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": size}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _proof(source: Path, folder: Path, *, cast: bool, trust: bool) -> Proof:
    """Prove the folder against the run's recorded outputs or, if there are none, against `source` loaded by trueup."""
    in_run = source.name in ("model", "adapter")
    record = source.parent / OUTPUTS_FILE
    with tempfile.TemporaryDirectory() as temporary:
        if not (in_run and record.is_file()):
            record = Path(temporary) / OUTPUTS_FILE
            record_folder(source, record, trust_remote_code=trust)
        return prove(folder, record, source=source if cast else None, trust_remote_code=trust)


def _set_aside(temporary: Path, output: Path, proof: Proof) -> str:
    """Keep a folder that failed the proof, renamed to `OUTPUT.failed`, for inspection; return the error message."""
    failed = output.with_name(f"{output.name}.failed")
    if (failed / PROOF_FILE).is_file():  # written by an earlier export, so it may be replaced
        shutil.rmtree(failed)
    if failed.exists():
        failed = temporary
    else:
        temporary.rename(failed)
    lines = [f"  {check.name}: {check.found} (limit: {check.limit})" for check in proof.failures[:3]]
    more = len(proof.failures) - len(lines)
    lines += [f"  and {more} more"] if more > 0 else []
    if [check.name for check in proof.failures] == [CHANGE_CHECK]:
        lines.append("  fix: the cast rounds such a small change away; export as float32, or the adapter (--no-merge)")
    return "\n".join([f"{output} was not written: the export is not the model that was trained", *lines,
                      f"  it is kept, with {PROOF_FILE}, as {failed}"])  # fmt: skip


def _new_temporary(folder: Path) -> Path:
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def _publish(temporary: Path, folder: Path) -> None:
    # safetensors makes files that only their owner may read; give them the mode of the folder's JSON files.
    mode = next(path for path in temporary.glob("*.json")).stat().st_mode & 0o777
    for path in temporary.glob("*.safetensors"):
        path.chmod(mode)
    for path in (*temporary.rglob("*"), temporary):  # a power cut must not leave files without their content
        fsync_path(path)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    fsync_path(folder.parent)
