"""Read models and tokenizers from a hub id, a folder or a `.gguf` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trueup.config.paths import classifier_problem
from trueup.errors import MissingExtraError, ModelError
from trueup.models import Network
from trueup.weights import input_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import StageConfig
    from trueup.runtime import Runtime


def load_network(config: StageConfig, runtime: Runtime) -> Network:
    """The stage's model as a `Network` with no roles yet, on its device.

    Raises:
        ModelError: the folder, file or tokenizer cannot be used.
    """
    trunk = load_causal_lm(config.model, runtime, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    vocabulary = input_embeddings(trunk).shape[0]
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{config.model}: the tokenizer has {len(tokenizer)} tokens, the embedding only {vocabulary}: "
            "they are not of one model; take both from the same folder"
        )
    network = Network(trunk, tokenizer, runtime)
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def load_causal_lm(model: str, runtime: Runtime, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A causal language model in the compute dtype, on the device."""
    from transformers import AutoModelForCausalLM

    trunk = _from_pretrained(AutoModelForCausalLM, model, dtype=runtime.dtype, trust_remote_code=trust_remote_code)
    if getattr(trunk.config, "quantization_config", None) is not None and str(model).endswith(".gguf"):
        # The weights were dequantized on loading; a config that still says "gguf" could not be saved or loaded again.
        del trunk.config.quantization_config
        cast("Any", trunk).hf_quantizer = None
    return trunk.to(runtime.device)


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token (its end token where it has none: masks never look at ids)."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, model, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{model}: the tokenizer has neither a pad nor an end token; add an eos_token to it")
        tokenizer.pad_token = tokenizer.eos_token
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
    return classifier.to(runtime.device)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        ModelError: it is missing or not JSON.
    """
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json in it, so it is not a model folder") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def _from_pretrained(auto: Any, model: str, **options: Any) -> Any:
    path = Path(model)
    if path.suffix == ".gguf":
        options["gguf_file"], source = path.name, str(path.parent)
    else:
        source = model
    if path.is_dir() and auto.__name__ != "AutoTokenizer":
        options["use_safetensors"] = True  # never unpickle weights that came from outside
    try:
        return auto.from_pretrained(source, **options)
    except ImportError as error:
        if path.suffix == ".gguf":
            raise MissingExtraError("reading a .gguf file needs the extra gguf: pip install 'trueup[gguf]'") from error
        raise
    except (OSError, ValueError, KeyError) as error:
        what = "tokenizer" if auto.__name__ == "AutoTokenizer" else "model"
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"model: cannot load the {what} of {model}: {reason}") from error
