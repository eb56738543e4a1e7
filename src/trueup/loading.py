"""Read models and tokenizers from a hub id, a folder or a `.gguf` file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from trueup.chat import Renderer
from trueup.config.paths import adapter_base, classifier_problem, has_tokenizer, is_adapter
from trueup.errors import MissingExtraError, ModelError, TrueupError
from trueup.models import Network
from trueup.weights import input_embeddings, weights_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import StageConfig
    from trueup.runtime import Runtime


ROUNDING = "rounding.json"
"""In a model's folder: how much of its training half precision would leave. Written where that is too little."""


def load_network(config: StageConfig, runtime: Runtime, renderer: Renderer | None = None) -> Network:
    """The stage's model as a `Network` with no roles yet, on its device; `renderer` if its tokenizer is there already.

    Raises:
        ModelError: the folder, file or tokenizer cannot be used.
    """
    _check_rounding(config, runtime)
    trunk = load_causal_lm(
        config.model, runtime, trust_remote_code=config.trust_remote_code, other_base="other-base" in config.allow
    )
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
    """Raise where half precision would round away what an earlier stage has learned (see `export.merging.kept`)."""
    path = Path(config.model) / ROUNDING
    if runtime.dtype == torch.float32 or "rounded-weights" in config.allow or not path.is_file():
        return
    share = _read_json(path).get("kept")
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
    model: str, runtime: Runtime, *, trust_remote_code: bool = False, other_base: bool = False
) -> PreTrainedModel:
    """A causal language model in the compute dtype, on the device.

    Of a PEFT adapter's folder: its base with the adapter merged in; `other_base` accepts one of other weights.

    Raises:
        ModelError: it cannot be loaded, or the adapter does not belong to its base.
    """
    from transformers import AutoModelForCausalLM

    if is_adapter(Path(model)):
        return _with_adapter(Path(model), runtime, trust_remote_code=trust_remote_code, other_base=other_base)
    trunk = _from_pretrained(AutoModelForCausalLM, model, dtype=runtime.dtype, trust_remote_code=trust_remote_code)
    if getattr(trunk.config, "quantization_config", None) is not None and str(model).endswith(".gguf"):
        # The weights were dequantized on loading; a config that still says "gguf" could not be saved or loaded again.
        del trunk.config.quantization_config
        cast("Any", trunk).hf_quantizer = None
    return _finite(trunk, model).to(runtime.home)


def _with_adapter(folder: Path, runtime: Runtime, *, trust_remote_code: bool, other_base: bool) -> PreTrainedModel:
    """The base that an adapter names, with the adapter merged into it."""
    from peft import PeftModel

    name = adapter_base(folder)
    base = load_causal_lm(name, runtime, trust_remote_code=trust_remote_code)
    origin = folder / "trueup.json"
    told = _read_json(origin).get("base_fingerprint") if origin.is_file() else None
    if _read_json(folder / "adapter_config.json").get("megatron_config"):
        raise ModelError(f"{folder}: an adapter for Megatron layers, which imports a module it names; use a plain LoRA")
    if told is not None and told != weights_fingerprint(base) and not other_base:
        raise ModelError(
            f"{folder}: this adapter was trained over other weights than those of {name}\n"
            "  fix: put the base back that it was trained over, or allow it: allow=[other-base]"
        )
    with _used_by_others(f"{folder}: this adapter does not fit {name}"):
        whole = PeftModel.from_pretrained(base, str(folder), is_trainable=False)
        merged = cast("Any", whole).merge_and_unload(safe_merge=False)
    return cast("PreTrainedModel", _finite(merged, str(folder)))


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token (its end token where it has none: masks never look at ids)."""
    from transformers import AutoTokenizer

    if is_adapter(Path(model)) and not has_tokenizer(Path(model)):
        model = adapter_base(Path(model))
    tokenizer = _from_pretrained(AutoTokenizer, model, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{model}: the tokenizer has neither a pad nor an end token; add an eos_token to it")
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ModelError(f"{model}: tokenizer_config.json's model_max_length is no number; mend it, or remove it")
    return tokenizer


def load_classifier(model: str, runtime: Runtime, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A reward model: a sequence classifier with one label.

    Raises:
        ModelError: it is not a classifier, or has more than one label.
    """
    from transformers import AutoModelForSequenceClassification

    if Path(model).is_dir() and (problem := classifier_problem(Path(model))):
        raise ModelError(f"reward: {problem}")
    classifier = _from_pretrained(
        AutoModelForSequenceClassification, model, dtype=runtime.dtype, trust_remote_code=trust_remote_code
    )
    return _finite(classifier, model).to(runtime.home)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        ModelError: it is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"{folder}: no config.json in it, so it is not a model folder")
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError: the file holds something else, or cannot be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON: {str(error)[:200]}") from None
    if not isinstance(told, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return told


@contextmanager
def _used_by_others(problem: str) -> Iterator[None]:
    """Let whatever transformers, peft, tokenizers or safetensors raise over a folder's files be a ModelError.

    A folder may come from anywhere, and each of these has errors of its own (tokenizers a bare `Exception`).
    """
    try:
        yield
    except (TrueupError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{problem}: {reason}") from error


def _from_pretrained(auto: Any, model: str, **options: Any) -> Any:
    path = Path(model)
    if path.suffix == ".gguf":
        options["gguf_file"], source = path.name, str(path.parent)
    else:
        source = model
    if path.is_dir() and auto.__name__ != "AutoTokenizer":
        options["use_safetensors"] = True  # never unpickle weights that came from outside
    what = "tokenizer" if auto.__name__ == "AutoTokenizer" else "model"
    try:
        with _used_by_others(f"model: cannot load the {what} of {model}"):
            return auto.from_pretrained(source, **options)
    except ImportError as error:
        if path.suffix == ".gguf":
            raise MissingExtraError("reading a .gguf file needs the extra gguf: pip install 'trueup[gguf]'") from error
        reason = " ".join(str(error).split())[:300]
        raise MissingExtraError(f"model: the {what} of {model} needs a package: {reason}") from error
