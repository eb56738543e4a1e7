"""Settings of a model that make no sense, known from its config.json and generation_config.json before weights load."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch

from trueup.errors import ModelError
from trueup.models.blank import endless_frequencies, frequencies_message, leaves, library_reason, skeleton
from trueup.models.positions import POSITION_KEYS
from trueup.models.weights import check_end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DECODERS = "use a decoder-only language model, such as Qwen, Llama, Gemma or SmolLM"
"""The advice for a model of another kind."""
_OWN = "correct it, or take the file that belongs to these weights"
_PROBED_PARAMETERS = 2**28  # a model of one layer up to this size is run with random numbers (one GB)


def setting_problems(folder: Path, model: str) -> Iterator[tuple[str, str]]:
    """Yield (text, fix) for each setting without sense in a folder with the JSON files of `model`.

    Such are an end token beyond the vocabulary, rotary frequencies of NaN, negative sizes, and settings of generation
    that transformers refuses to sample with. There are none for a class that is not transformers' own.
    """
    trunk = skeleton(str(folder))
    if trunk is None:
        return
    try:
        check_end_ids(trunk)
    except ModelError as error:
        text, _, fix = str(error).partition("\n  fix: ")
        yield f"{model}: {text}", fix
    if name := endless_frequencies(trunk):
        text, _, fix = frequencies_message(model, name).partition("\n  fix: ")
        yield text, fix
    for text in (*_wrong_numbers(trunk.config), *_wrong_generation(trunk, folder)):
        yield f"{model}: {text}", _OWN


def _wrong_numbers(config: Any) -> Iterator[str]:
    """Yield the text on each number of a configuration that its class cannot mean, by the class's own default.

    Such are a negative number where the default is none, infinity where the default is finite, positions below 1, and
    negative factors of rotary positions. Ids of tokens are left out: many released models have -1 for "none".
    """
    defaults: dict[str, Any] = {}
    with suppress(Exception):  # a class that has no default configuration
        defaults = dict(leaves(type(config)().to_dict()))
    for key, value in leaves(config.to_dict()):
        name, default = key.rpartition(".")[2], defaults.get(key)
        if not _is_number(value) or "token" in name:
            continue
        if name in POSITION_KEYS and value < 1:
            yield f"config.json: {key} is {value}, and a model has at least one position"
        elif key.startswith(("rope_", "text_config.rope_")) and value < 0:
            yield f"config.json: {key} is {value}, which is negative"
        elif _is_number(default) and math.isfinite(default) and _is_contrary(value, default):
            yield f"config.json: {key} is {value}, where {type(config).__name__} has {default} by default"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_contrary(value: float, default: float) -> bool:
    """Return True for a value that a setting with this default cannot have: of the other sign, or no finite number.

    A whole number whose default is 0 may count from the end.
    """
    return not math.isfinite(value) or (value < 0 and (default > 0 or (default == 0 and isinstance(default, float))))


def _wrong_generation(trunk: PreTrainedModel, folder: Path) -> Iterator[str]:
    """Yield the text on generation_config.json if transformers would leave it out, or refuse to sample with it."""
    from transformers import GenerationConfig
    from transformers.generation.logits_process import LogitsProcessorList

    if not (folder / "generation_config.json").is_file():
        return
    try:
        settings: Any = GenerationConfig.from_pretrained(folder)
        for name, value in settings.to_diff_dict().items():  # transformers leaves out a top_p of 3 in silence
            if name.endswith("_p") and _is_number(value) and not 0 <= value <= 1:
                yield f"generation_config.json: {name} is {value}, and a probability lies between 0 and 1"
        if settings.do_sample is not True and settings.temperature == 0:
            settings.temperature = None  # a usual way to write greedy decoding
        settings.do_sample = True
        cast("Any", trunk)._get_logits_processor(
            settings, input_ids_seq_length=1, logits_processor=LogitsProcessorList(), device="cpu"
        )
    except (ValueError, TypeError) as error:
        yield f"generation_config.json holds a value that transformers refuses: {library_reason(error, 300)}"
    except Exception:  # noqa: BLE001 -- settings that need more than a model without numbers
        return


def encoder_message(model: str, kind: str) -> str:
    """Return the message for a model that `sees_both_ways`; `kind` is its type, such as bert."""
    return (
        f"{model} is an encoder ({kind}), no causal language model: its tokens see those after them\n  fix: {DECODERS}"
    )


def sees_both_ways(trunk: PreTrainedModel) -> bool:
    """Return True for an encoder, such as BERT, loaded as a language model: its tokens see those after them.

    A module that calls itself causal settles it. Where none does, one layer of the model is tried with random numbers;
    where that cannot be done, the configuration's `is_decoder` decides. `trunk` is a model without numbers.
    """
    flags = {module.is_causal for module in trunk.modules() if isinstance(getattr(module, "is_causal", None), bool)}
    if True in flags:
        return False
    with suppress(Exception):  # a family's own code may raise anything
        if (tried := _tried(trunk)) is not None:
            return tried
    return flags == {False} and getattr(trunk.config.get_text_config(), "is_decoder", None) is False


def _tried(trunk: PreTrainedModel) -> bool | None:
    """Return True if the last token changes what one layer with random numbers computes before it.

    None if it is too large.
    """
    config = copy.deepcopy(trunk.config)
    text: Any = config.get_text_config()
    text.num_hidden_layers = 1
    for key in ("layer_types", "mlp_layer_types"):
        if getattr(text, key, None):
            setattr(text, key, getattr(text, key)[:1])
    kind: Any = type(trunk)
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in kind(copy.deepcopy(config)).parameters()) > _PROBED_PARAMETERS:
            return None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(config).float().eval()
        rows = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 11]])
        first, second = (model(input_ids=row[None], use_cache=False).logits[:, :-1] for row in rows)
    return not torch.allclose(first, second, rtol=0, atol=1e-4 * float(first.abs().max()))
