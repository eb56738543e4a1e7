"""Read models and tokenizers from a hub id, a folder or a `.gguf` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from trueup.config.paths import (
    adapter_base,
    classifier_problem,
    has_tokenizer,
    is_adapter,
    policy_problem,
    quantization_problem,
    trust_of,
)
from trueup.config.untrusted import NO_TRUST, Trust, pickle_message, read_json, refusal
from trueup.data.rendering.choice import choose_template, two_templates
from trueup.data.rendering.renderer import Renderer
from trueup.errors import MissingExtraError, ModelError
from trueup.models.adapter_matching import AdapterReport, adapter_report, require_adapter_match
from trueup.models.blank import frequencies_message, library_reason, meta_base, read_model_config, skeleton
from trueup.models.matching import folder_report, loaded_report, require_match, with_layers_beyond
from trueup.models.network import Network
from trueup.models.settings import encoder_message, sees_both_ways, setting_problems
from trueup.models.weights import check_end_ids, input_embeddings, weight_problem, weights_fingerprint
from trueup.system.commandline import install_command
from trueup.system.text import excerpt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trueup.config import StageConfig
    from trueup.runtime import Runtime


ROUNDING_FILE = "rounding.json"
"""File in a model's folder: the share of its training that half precision keeps, if that is too small."""
_INSPECTED = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json", "*.index.json")


def load_network(config: StageConfig, runtime: Runtime, renderer: Renderer | None = None) -> Network:
    """Load the stage's model as a `Network` without roles. Pass `renderer` if the tokenizer is loaded already.

    Raises:
        ModelError: the folder, file or tokenizer cannot be used, for example because tokenizer and embedding do not
            match.
    """
    _check_rounding(config, runtime)
    trust = trust_of(config)
    trunk = load_causal_lm(
        config.model, runtime, trust=trust, other_base="other-base" in config.allow, head=config.method != "reward"
    )
    renderer = renderer or load_renderer(config)
    tokenizer = renderer.tokenizer
    check_vocabulary(trunk, tokenizer, config.model)
    network = Network(trunk, tokenizer, runtime, renderer, model_dropout=bool(config.model_dropout))
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def check_vocabulary(trunk: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raise ModelError if the tokenizer of `model` has more tokens than the embedding has rows."""
    vocabulary = input_embeddings(trunk).shape[0]
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{model}: the tokenizer has {len(tokenizer)} tokens, the embedding only {vocabulary}: "
            "they belong to different models; take both from the same folder"
        )


def _check_rounding(config: StageConfig, runtime: Runtime) -> None:
    """Raise ModelError if half precision would round away what an earlier stage learned (see `merge_kept_share`)."""
    path = Path(config.model) / ROUNDING_FILE
    if runtime.dtype == torch.float32 or "rounded-weights" in config.allow or not path.is_file():
        return
    share = read_json(path).get("kept")
    amount = f"only {share:.0%}" if isinstance(share, float) else "too little"
    raise ModelError(
        f"{config.model}: half precision would keep {amount} of what was trained into these weights\n"
        "  fix: set dtype=float32, or train the stage before with a higher optim.lr; or allow=[rounded-weights]"
    )


def _require_sound(module: Any, model: str, trust: Trust) -> Any:
    """Return the module after checking the numbers in its weights, and the rotary frequencies of its config.json.

    Attention hides frequencies of NaN: SDPA returns numbers for them.

    Raises:
        ModelError: a weight or frequency is NaN or infinity, or a weight is absurdly large or a constant matrix.
    """
    for name, buffer in module.named_buffers():
        if "inv_freq" in name and not bool(buffer.isfinite().all()):
            raise ModelError(frequencies_message(model, name))
    weights = {weight.data_ptr(): (name, weight) for name, weight in reversed(module.state_dict().items())}
    problem = weight_problem(reversed(weights.values()), lambda: meta_base(module))
    if problem is not None and not (trust.constant_weights and problem.code == "constant-weights"):
        raise ModelError(f"{model}: {problem.text}\n  fix: {problem.fix}")
    return module


def load_causal_lm(
    model: str, runtime: Runtime, *, trust: Trust = NO_TRUST, other_base: bool = False, head: bool = True
) -> PreTrainedModel:
    """Load a causal language model in the compute dtype, on the device.

    For a PEFT adapter's folder this is its base with the adapter merged in.

    Args:
        model: a hub id, a folder or a `.gguf` file.
        runtime: device and compute dtype.
        trust: the user's permissions for the model, or for an adapter and its base.
        other_base: accept a base with other weights than the adapter was trained over.
        head: False accepts a model without its LM head, which a reward model does not need.

    Raises:
        ModelError: the model cannot be loaded or is not trusted, it is a reward model, a weight is missing, unknown, or
            of another shape or type than its class has, or the adapter does not belong to its base.
    """
    from transformers import AutoModelForCausalLM

    if is_adapter(Path(model)):
        return _with_adapter(Path(model), runtime, trust, other_base=other_base)
    trunk = _load_model(AutoModelForCausalLM, model, trust, runtime.dtype, head=head)
    if getattr(trunk.config, "quantization_config", None) is not None and str(model).endswith(".gguf"):
        # The weights were dequantized on loading; a config that still says "gguf" could not be saved or loaded again.
        del trunk.config.quantization_config
        cast("Any", trunk).hf_quantizer = None
    try:
        check_end_ids(trunk)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from None
    return _require_sound(trunk, model, trust).to(runtime.load_device)


def _with_adapter(folder: Path, runtime: Runtime, trust: Trust, *, other_base: bool) -> PreTrainedModel:
    """Load the base model that a PEFT adapter names, and return it with the adapter merged in.

    Raises:
        ModelError: the folder is not trusted, or the adapter does not fit the base or was trained over another one.
    """
    from peft import PeftModel

    name = adapter_base(folder)
    if problem := refusal(folder, trust):
        raise ModelError(problem)
    base = load_causal_lm(name, runtime, trust=trust)
    origin = folder / "trueup.json"
    trained_over = read_json(origin).get("base_fingerprint") if origin.is_file() else None
    if trained_over is not None and trained_over != weights_fingerprint(base) and not other_base:
        raise ModelError(
            f"{folder}: this adapter was trained over other weights than those of {name}\n"
            "  fix: restore the base that it was trained over, or allow another one: allow=[other-base]"
        )
    require_adapter_match(adapter_report(folder, meta_base(base)), folder, name)
    try:
        adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=False)
        # PEFT reports only to the caller of this method, which reads the same weights again.
        report = adapted.load_adapter(str(folder), "default", is_trainable=False)
        report = AdapterReport(tuple(report.missing_keys), tuple(report.unexpected_keys))
        require_adapter_match(report, folder, name)
        merged = cast("Any", adapted).merge_and_unload(safe_merge=False)
    except ModelError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # shapes of another model, or settings that peft rejects
        raise ModelError(f"{folder}: this adapter does not fit {name}: {library_reason(error, 200)}") from error
    return cast("PreTrainedModel", _require_sound(merged, str(folder), trust))


def load_renderer(config: StageConfig, model: str | None = None) -> Renderer:
    """Return the renderer of a stage: its model's tokenizer, with the chat template and variables of the configuration.

    `model` is another model to take the tokenizer of.

    Raises:
        ConfigError: the chat template's file cannot be read, or the template reads no such variable.
        ModelError: the tokenizer cannot be loaded, or its template cannot be used.
    """
    tokenizer = load_tokenizer(
        model or config.model, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template,
        template=config.template,
    )  # fmt: skip
    return Renderer(tokenizer, train_thinking=config.train_thinking is not False)


def load_tokenizer(
    model: str, *, trust_remote_code: bool = False, chat_template: str | None = None,
    template: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:  # fmt: skip
    """Load the model's tokenizer; without a pad token it pads with its end token, which attention masks hide anyway.

    Args:
        model: a hub id, a folder or a `.gguf` file.
        trust_remote_code: run code that comes with the tokenizer.
        chat_template: another chat template, as the key `chat_template` names it.
        template: variables for the chat template.

    Raises:
        ConfigError: the chat template cannot be read, or reads no such variable.
        ModelError: the tokenizer cannot be loaded, has two chat templates, or neither a pad nor an end token.
    """
    from transformers import AutoTokenizer

    if is_adapter(Path(model)) and not has_tokenizer(Path(model)):
        model = adapter_base(Path(model))
    if chat_template is None and two_templates(Path(model)):
        raise ModelError(
            f"{model}: tokenizer_config.json has one chat template and chat_template.jinja another\n"
            f"  fix: remove one, or name the one to use: chat_template={Path(model) / 'chat_template.jinja'}"
        )
    trust = Trust(trust_remote_code, pickles=True)  # tokenizers have no pickles
    tokenizer = _from_pretrained(AutoTokenizer, model, trust)[0]
    _require_known_tokens(tokenizer, model)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{model}: the tokenizer has neither a pad nor an end token; add an eos_token to it")
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ModelError(f"{model}: tokenizer_config.json's model_max_length is not a number; correct or remove it")
    choose_template(tokenizer, chat_template, template)
    return tokenizer


def _require_known_tokens(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Check that the tokens that begin and end texts are those of the tokenizer's file.

    transformers adds one that is not there as a new token, behind all others, whose embedding nothing has trained.

    Raises:
        ModelError: one of them is not there.
    """
    path = Path(model) / "tokenizer.json"
    if not path.is_file():
        return
    content = read_json(path)
    vocabulary = (content.get("model") or {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return
    known = vocabulary.keys() | {token.get("content") for token in content.get("added_tokens") or ()}
    settings = path.with_name("tokenizer_config.json")
    declared = read_json(settings).get("added_tokens_decoder") if settings.is_file() else None
    known |= {token.get("content") for token in (declared or {}).values() if isinstance(token, dict)}
    for key in ("bos_token", "eos_token"):
        token = getattr(tokenizer, key, None)
        if token is not None and str(token) not in known:
            raise ModelError(
                f"{settings}: {key} is {excerpt(str(token))}, which tokenizer.json does not hold; it would be a new "
                f"token, {tokenizer.convert_tokens_to_ids(str(token))}, whose embedding nothing has trained\n"
                "  fix: name a token of tokenizer.json, or copy the tokenizer again, whole"
            )


def load_classifier(model: str, runtime: Runtime, *, trust: Trust = NO_TRUST) -> PreTrainedModel:
    """Load a reward model: a sequence classifier with a single label. Arguments are those of `load_causal_lm`.

    Raises:
        ModelError: the model is not a classifier, has more than one label, or is not trusted, or a weight is missing
            (such as the score head), unknown, or of another shape or type.
    """
    from transformers import AutoModelForSequenceClassification

    if Path(model).is_dir() and (problem := classifier_problem(Path(model))):
        raise ModelError(f"reward: {problem}")
    classifier = _load_model(AutoModelForSequenceClassification, model, trust, runtime.dtype)
    return _require_sound(classifier, model, trust).to(runtime.load_device)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json.

    Raises:
        ModelError: the file is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: no config.json in it, so it is not a model folder")
    return read_json(path)


def _load_model(auto: Any, model: str, trust: Trust, dtype: torch.dtype, *, head: bool = True) -> Any:
    """Load a model with transformers' class `auto`, and check that each of its weights comes from its files.

    The headers of a folder's files are compared first, so that no weight is read in vain.

    Raises:
        ModelError: as for `_from_pretrained`; or the weights are not those of the model's class.
    """
    place = Path(model)
    compare_headers(model, trust, is_reward=auto.__name__ == "AutoModelForSequenceClassification", head=head)
    options = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}  # they are in the report
    (loaded, info), folder = _from_pretrained(auto, model, trust, **options)
    report = loaded_report(loaded, auto, info, folder, head=head)
    if place.suffix == ".gguf":
        report = with_layers_beyond(report, place)
    require_match(report, model, ignored_weights=trust.ignored_weights)
    return loaded


def compare_headers(model: str, trust: Trust, *, is_reward: bool = False, head: bool = True) -> str | None:
    """Compare the headers of a folder's weight files, or of its base's for an adapter, with the class that loads them.

    Args:
        model: a folder, a hub id or a `.gguf` file.
        trust: the user's permissions.
        is_reward: the model is a reward model.
        head: False accepts a model without its LM head.

    Returns:
        The weights that `trust` allows to leave out, in words; None if there are none, or for models that are compared
        when they have loaded (names on the hub, `.gguf` files).

    Raises:
        ModelError: the weights are not those of the model's class, a setting makes no sense, or it is an encoder.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    place, auto = Path(model), AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    if is_adapter(place):
        return compare_headers(adapter_base(place), trust, head=head)
    if not place.is_dir():
        if (folder := inspected_folder(model)) is not None and not refusal(folder, trust, weights=False):
            _check_settings(folder, model, is_reward=is_reward)
        return None
    if problem := refusal(place, trust) or kind_problem(place, model, auto):
        raise ModelError(problem)
    report = folder_report(place, auto, head=head, code=trust.code)
    _check_settings(place, model, is_reward=is_reward)
    if report is None:
        return None
    require_match(report, model, ignored_weights=trust.ignored_weights)
    ignored = report.unexpected
    return f"{model}: {report.model} has no use for {report.ignored(ignored)}" if ignored else None


def _check_settings(folder: Path, model: str, *, is_reward: bool) -> None:
    """Raise ModelError if a model's JSON files in `folder` hold a setting without sense, or it is an encoder."""
    if (problem := next(setting_problems(folder, model), None)) is not None:
        raise ModelError("{}\n  fix: {}".format(*problem))
    if not is_reward and (trunk := skeleton(str(folder))) is not None and sees_both_ways(trunk):
        raise ModelError(encoder_message(model, trunk.config.model_type))


def _from_pretrained(auto: Any, model: str, trust: Trust, **options: Any) -> tuple[Any, Path | None]:
    """Load a model or tokenizer with transformers' class `auto`, after checking that its files are trusted.

    Returns:
        What `auto.from_pretrained` returns, and the folder of its files (None for a `.gguf` file).

    Raises:
        ModelError: it needs custom code or pickles that `trust` does not allow, or cannot be loaded.
        MissingExtraError: a `.gguf` file needs a package that is not installed.
    """
    path, is_tokenizer = Path(model), auto.__name__ == "AutoTokenizer"
    options["trust_remote_code"] = trust.code
    source, folder = model, None
    if path.suffix == ".gguf":
        options["gguf_file"], source = path.name, str(path.parent)
        if (path.parent / "adapter_config.json").exists():  # transformers would apply the adapter to it
            raise ModelError(
                f"{path}: an adapter (adapter_config.json) is in the same folder; move one of the two to another folder"
            )
    else:
        folder = path if path.is_dir() else _inspected_snapshot(model)
        if problem := refusal(folder, trust, weights=path.is_dir() and not is_tokenizer):
            raise ModelError(problem)
        if not is_tokenizer and (problem := kind_problem(folder, model, auto)):
            raise ModelError(problem)
        if not path.is_dir():
            options["revision"] = folder.name  # load the revision that was inspected, not a newer one
            _refuse_hub_adapter(model, folder, is_tokenizer=is_tokenizer)
        if not (is_tokenizer or trust.pickles):
            options["use_safetensors"] = True
    try:
        return auto.from_pretrained(source, **options), folder
    except torch.OutOfMemoryError:
        raise
    except ImportError as error:
        if path.suffix == ".gguf":
            raise MissingExtraError(f"reading a .gguf file needs the extra gguf: {install_command('gguf')}") from error
        raise
    except Exception as error:  # a library may raise anything on files that are not a model
        if is_tokenizer and folder is not None and (folder / "config.json").is_file():
            read_model_config(folder, code=trust.code)  # transformers looks into it for the tokenizer's class
        raise ModelError(load_error_message(model, error, "tokenizer" if is_tokenizer else "model")) from error


def kind_problem(folder: Path, model: str, auto: Any) -> str | None:
    """Return the reason why a model cannot be loaded by `auto` for what it is, by its config.json; else None."""
    if not (folder / "config.json").is_file():
        return None
    generates = auto.__name__ == "AutoModelForCausalLM"
    problem = policy_problem(folder, model) if generates else classifier_problem(folder, model)
    return quantization_problem(folder, model) or problem


def inspected_folder(model: str) -> Path | None:
    """Return the folder with a model's configuration files: its own, or that of a hub model; None for a .gguf file.

    Raises:
        ModelError: the hub has no such model.
    """
    path = Path(model)
    if path.suffix == ".gguf":
        return None
    return path if path.is_dir() else _inspected_snapshot(model)


def revision(model: str) -> str:
    """Return the revision of a hub model that is loaded; "" for a folder or a file, whose contents can change."""
    folder = inspected_folder(model)
    return "" if folder is None or Path(model).exists() else folder.name


@cache
def _inspected_snapshot(model: str) -> Path:
    """Download the small configuration files of a hub model's current revision, for inspection; return their folder."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_INSPECTED)))
    except Exception as error:
        raise ModelError(load_error_message(model, error, "model")) from error


def _refuse_hub_adapter(model: str, folder: Path, *, is_tokenizer: bool) -> None:
    if not is_tokenizer and is_adapter(folder):
        raise ModelError(
            f"{model}: this is an adapter; adapters are read from folders only\n"
            f"  fix: `hf download {model} --local-dir FOLDER`, and name that folder"
        )


def code_problem(folder: Path) -> str | None:
    """Return an error message if the model in `folder` needs `trust_remote_code` for its architecture, else None."""
    from transformers import CONFIG_MAPPING

    settings = read_config(folder)
    needs_code = settings.get("auto_map") and not _is_known_architecture(settings, CONFIG_MAPPING)
    return _custom_code_message(str(folder), "model") if needs_code else None


def _is_known_architecture(settings: dict[str, Any], mapping: Any) -> bool:
    model_type = settings.get("model_type")
    return isinstance(model_type, str) and model_type in mapping


def _custom_code_message(model: str, part: str) -> str:
    return (
        f"{model}: its {part} is custom code (auto_map), which does not run without permission\n"
        "  fix: read the code; if you trust who wrote it, set trust_remote_code=true"
    )


def load_error_message(model: str, error: Exception, part: str) -> str:
    """Return the message that a library's error on loading a part of a model (model, tokenizer …) becomes."""
    text = str(error)
    if "trust_remote_code" in text:
        return _custom_code_message(model, part)
    if "outgoing traffic has been disabled" in text or type(error).__name__ == "OfflineModeIsEnabled":
        return (
            f"model: {model} is not in the cache of the hub, and HF_HUB_OFFLINE forbids to download it\n"
            f"  fix: unset HF_HUB_OFFLINE, or name a folder; with a network: hf download {model} --local-dir FOLDER"
        )
    if "use_safetensors" in text or "no file named model.safetensors" in text:
        return pickle_message(f"{model}: has no .safetensors")
    return f"model: cannot load the {part} of {model}: {library_reason(error, 300)}"


def matching_reward_adapter(folder: Path, network: Network) -> Path | None:
    """Return the folder of a run's reward adapter if it was trained over exactly this network's base, else None."""
    origin = folder / "adapter" / "trueup.json"
    if not origin.is_file():
        return None
    settings = json.loads(origin.read_text())
    same_base = settings.get("base_fingerprint") == network.base_fingerprint
    return origin.parent if same_base and settings.get("role") == "reward" else None
