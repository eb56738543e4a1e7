"""Read models and tokenizers from a hub id, a folder or a `.gguf` file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from trueup.config.paths import adapter_base, classifier_problem, has_tokenizer, is_adapter, trust_of
from trueup.config.untrusted import Trust, pickle_message, read_json, refusal
from trueup.data.rendering.renderer import Renderer
from trueup.errors import MissingExtraError, ModelError
from trueup.models.network import Network
from trueup.models.weights import input_embeddings, weights_fingerprint
from trueup.system.text import excerpt, masked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import StageConfig
    from trueup.runtime import Runtime


ROUNDING_FILE = "rounding.json"
"""In a model's folder: how much of its training half precision would leave. Written where that is too little."""
_LOOKED_AT = ("config.json", "adapter_config.json", "tokenizer_config.json", "*.index.json")


def load_network(config: StageConfig, runtime: Runtime, renderer: Renderer | None = None) -> Network:
    """The stage's model as a `Network` with no roles yet, on its device; `renderer` if its tokenizer is there already.

    Raises:
        ModelError: the folder, file or tokenizer cannot be used.
    """
    _check_rounding(config, runtime)
    trust = trust_of(config)
    trunk = load_causal_lm(
        config.model, runtime, trust_remote_code=trust.code, pickles=trust.pickles,
        other_base="other-base" in config.allow,
    )  # fmt: skip
    renderer = renderer or Renderer(load_tokenizer(config.model, trust_remote_code=config.trust_remote_code))
    tokenizer = renderer.tokenizer
    vocabulary = input_embeddings(trunk).shape[0]
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{config.model}: the tokenizer has {len(tokenizer)} tokens, the embedding only {vocabulary}: "
            "they are not of one model; take both from the same folder"
        )
    network = Network(trunk, tokenizer, runtime, renderer)
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def _check_rounding(config: StageConfig, runtime: Runtime) -> None:
    """Raise where half precision would round away what an earlier stage has learned (see `merge_kept_share`)."""
    path = Path(config.model) / ROUNDING_FILE
    if runtime.dtype == torch.float32 or "rounded-weights" in config.allow or not path.is_file():
        return
    share = read_json(path).get("kept")
    much = f"only {share:.0%}" if isinstance(share, float) else "too little"
    raise ModelError(
        f"{config.model}: in half precision {much} of what was trained into these weights would be left\n"
        "  fix: set dtype=float32, or train the stage before with a higher optim.lr; or allow=[rounded-weights]"
    )


def _finite(module: Any, model: str) -> Any:
    """The module, if all of its weights are numbers.

    Raises:
        ModelError: one holds NaN or infinity.
    """
    for name, weight in module.state_dict().items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise ModelError(f"{model}: the weights {name} hold NaN or infinity\n  fix: take an earlier checkpoint")
    return module


def load_causal_lm(
    model: str, runtime: Runtime, *, trust_remote_code: bool = False, pickles: bool = False, other_base: bool = False
) -> PreTrainedModel:
    """A causal language model in the compute dtype, on the device.

    Of a PEFT adapter's folder: its base with the adapter merged in; `other_base` accepts one of other weights.

    Args:
        model: a hub id, a folder or a `.gguf` file.
        runtime: device and compute dtype.
        trust_remote_code: code that comes with it (with an adapter: with its base) may run.
        pickles: its weights may be pickled. Tensors alone are read of them, by torch's `weights_only`.
        other_base: an adapter may lie over other weights than it was trained over.

    Raises:
        ModelError: it cannot be loaded, is not trusted so far, or the adapter does not belong to its base.
    """
    from transformers import AutoModelForCausalLM

    trust = Trust(trust_remote_code, pickles)
    if is_adapter(Path(model)):
        return _with_adapter(Path(model), runtime, trust, other_base=other_base)
    trunk = _from_pretrained(AutoModelForCausalLM, model, trust, dtype=runtime.dtype)
    if getattr(trunk.config, "quantization_config", None) is not None and str(model).endswith(".gguf"):
        # The weights were dequantized on loading; a config that still says "gguf" could not be saved or loaded again.
        del trunk.config.quantization_config
        cast("Any", trunk).hf_quantizer = None
    return _finite(trunk, model).to(runtime.load_device)


def _with_adapter(folder: Path, runtime: Runtime, trust: Trust, *, other_base: bool) -> PreTrainedModel:
    """The base that an adapter names, with the adapter merged into it."""
    from peft import PeftModel

    name = adapter_base(folder)
    if problem := refusal(folder, trust):
        raise ModelError(problem)
    base = load_causal_lm(name, runtime, trust_remote_code=trust.code, pickles=trust.pickles)
    origin = folder / "trueup.json"
    told = read_json(origin).get("base_fingerprint") if origin.is_file() else None
    if told is not None and told != weights_fingerprint(base) and not other_base:
        raise ModelError(
            f"{folder}: this adapter was trained over other weights than those of {name}\n"
            "  fix: put the base back that it was trained over, or allow it: allow=[other-base]"
        )
    try:
        whole = PeftModel.from_pretrained(base, str(folder), is_trainable=False)
        merged = cast("Any", whole).merge_and_unload(safe_merge=False)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the shapes are another model's, or its settings are no adapter's
        raise ModelError(f"{folder}: this adapter does not fit {name}: {_reason(error, 200)}") from error
    return cast("PreTrainedModel", _finite(merged, str(folder)))


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token (its end token where it has none: masks never look at ids)."""
    from transformers import AutoTokenizer

    if is_adapter(Path(model)) and not has_tokenizer(Path(model)):
        model = adapter_base(Path(model))
    tokenizer = _from_pretrained(AutoTokenizer, model, Trust(trust_remote_code, pickles=True))  # it has none
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{model}: the tokenizer has neither a pad nor an end token; add an eos_token to it")
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ModelError(f"{model}: tokenizer_config.json's model_max_length is no number; mend it, or remove it")
    return tokenizer


def load_classifier(
    model: str, runtime: Runtime, *, trust_remote_code: bool = False, pickles: bool = False
) -> PreTrainedModel:
    """A reward model: a sequence classifier with one label; the arguments are those of `load_causal_lm`.

    Raises:
        ModelError: it is not a classifier, has more than one label, or is not trusted so far.
    """
    from transformers import AutoModelForSequenceClassification

    if Path(model).is_dir() and (problem := classifier_problem(Path(model))):
        raise ModelError(f"reward: {problem}")
    trust = Trust(trust_remote_code, pickles)
    classifier = _from_pretrained(AutoModelForSequenceClassification, model, trust, dtype=runtime.dtype)
    return _finite(classifier, model).to(runtime.load_device)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        ModelError: it is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: no config.json in it, so it is not a model folder")
    return read_json(path)


def _from_pretrained(auto: Any, model: str, trust: Trust, **options: Any) -> Any:
    """What `auto` makes of a model whose files were looked at before; nothing that it does is left to its defaults."""
    path, is_tokenizer = Path(model), auto.__name__ == "AutoTokenizer"
    options["trust_remote_code"] = trust.code
    source = model
    if path.suffix == ".gguf":
        options["gguf_file"], source = path.name, str(path.parent)
        if (path.parent / "adapter_config.json").exists():  # transformers would put the adapter over it
            raise ModelError(f"{path}: an adapter (adapter_config.json) lies beside it; give each a folder of its own")
    else:
        folder = path if path.is_dir() else _looked_at(model)
        if problem := refusal(folder, trust, weights=path.is_dir() and not is_tokenizer):
            raise ModelError(problem)
        if not path.is_dir():
            options["revision"] = folder.name  # what was looked at, and not what is there by now
            _refuse_hub_adapter(model, folder, is_tokenizer=is_tokenizer)
        if not (is_tokenizer or trust.pickles):
            options["use_safetensors"] = True
    try:
        return auto.from_pretrained(source, **options)
    except torch.OutOfMemoryError:
        raise
    except ImportError as error:
        if path.suffix == ".gguf":
            raise MissingExtraError("reading a .gguf file needs the extra gguf: pip install 'trueup[gguf]'") from error
        raise
    except Exception as error:  # whatever a library makes of files that are no model's
        raise ModelError(_unloadable(model, error, "tokenizer" if is_tokenizer else "model")) from error


@cache
def _looked_at(model: str) -> Path:
    """The small files of a model on the hub, in the folder of the revision that is the present one."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_LOOKED_AT)))
    except Exception as error:
        raise ModelError(_unloadable(model, error, "model")) from error


def _refuse_hub_adapter(model: str, folder: Path, *, is_tokenizer: bool) -> None:
    if not is_tokenizer and is_adapter(folder):
        raise ModelError(
            f"{model}: an adapter, which is read from a folder\n"
            f"  fix: `hf download {model} --local-dir FOLDER`, and give the folder"
        )


def code_problem(folder: Path) -> str | None:
    """Why the model in `folder` needs `trust_remote_code`: its architecture is code that transformers has not."""
    from transformers import CONFIG_MAPPING

    settings = read_config(folder)
    return (
        _own_code(str(folder), "model") if settings.get("auto_map") and not _known(settings, CONFIG_MAPPING) else None
    )


def _known(settings: dict[str, Any], mapping: Any) -> bool:
    kind = settings.get("model_type")
    return isinstance(kind, str) and kind in mapping


def _own_code(model: str, what: str) -> str:
    return (
        f"{model}: its {what} is code of its own (auto_map), and none of that runs unasked\n"
        "  fix: read the code; if you trust who wrote it, set trust_remote_code=true"
    )


def _unloadable(model: str, error: Exception, what: str) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return _own_code(model, what)
    if "use_safetensors" in text or "no file named model.safetensors" in text:
        return pickle_message(f"{model}: has no .safetensors")
    return f"model: cannot load the {what} of {model}: {_reason(error, 300)}"


def _reason(error: Exception, limit: int) -> str:
    known = isinstance(error, OSError | ValueError | RuntimeError)
    said = masked(f"{'' if known else type(error).__name__ + ': '}{error}")
    return excerpt(" ".join(said.split()), limit)[1:-1]


def matching_reward_adapter(folder: Path, network: Network) -> Path | None:
    """The reward adapter in a run folder, if it was trained over exactly this network's base; else None."""
    origin = folder / "adapter" / "trueup.json"
    if not origin.is_file():
        return None
    settings = json.loads(origin.read_text())
    same = settings.get("base_fingerprint") == network.base_fingerprint
    return origin.parent if same and settings.get("role") == "reward" else None
