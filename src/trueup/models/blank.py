"""Models made from their config.json alone, with shapes and no numbers, and the messages where that is not possible."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from trueup.config.paths import adapter_base, is_adapter
from trueup.config.untrusted import read_json
from trueup.errors import ModelError
from trueup.models.stored import StoredWeight, named
from trueup.system.text import excerpt, masked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def read_model_config(folder: Path, *, code: bool = False) -> Any | None:
    """Return the configuration of a model's folder; None if it has none, or needs code of its own that may not run.

    Raises:
        ModelError: transformers cannot read its config.json.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=code)
    except Exception as error:  # its fields may raise anything: KeyError of a rope type, ZeroDivisionError of no heads
        if not code and read_json(folder / "config.json").get("auto_map"):
            return None
        raise ModelError(config_message(str(folder), error, read_json(folder / "config.json"))) from error


def class_of(auto: Any, config: Any) -> Any | None:
    """Return transformers' own class that `auto` loads for a configuration; None if it has none."""
    mapping = auto._model_mapping
    if type(config) in mapping:
        return mapping[type(config)]
    return None


def has_class(auto: Any, config: Any, code: bool) -> bool:
    """Return True if there is a class that `auto` may load: transformers' own, or with `code` the model's."""
    classes = getattr(config, "auto_map", None)
    own = classes.get(auto.__name__) if isinstance(classes, dict) else None
    return own is not None if code and own is not None else class_of(auto, config) is not None


def require_buildable(auto: Any, config: Any, place: str, *, code: bool = False) -> PreTrainedModel:
    """Return the model that `auto` makes of a configuration, with shapes and no numbers.

    Raises:
        ModelError: its class refuses the configuration. `place` is the model's folder or name, for the message.
    """
    try:
        return blank_model(auto, config, code=code)
    except Exception as error:  # layers raise what they like: KeyError of an activation, AssertionError of a pad token
        # The loader makes the model in a context of its own, in which more of them can be made without numbers.
        kind = class_of(auto, config)
        pair = None if kind is None else if_possible(lambda: meta_model(kind, config, {}))
        if pair is None:
            raise ModelError(config_message(place, error, config.to_dict())) from error
        return pair[0]


def blank_model(auto: Any, config: Any, *, code: bool = False) -> Any:
    """Return the model that `auto` makes of a configuration, with shapes and no numbers; `code` runs its own code."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return auto.from_config(copy.deepcopy(config), trust_remote_code=code)


def meta_base(base: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same class and configuration with shapes and no numbers."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return type(base)(copy.deepcopy(base.config))


def meta_model(kind: Any, config: Any, stored: Mapping[str, StoredWeight]) -> tuple[Any, dict[str, Any]]:
    """Return a model with shapes and no numbers, and transformers' report of loading weights of such shapes into it.

    `kind` is the model's class.
    """
    weights = {name: torch.empty(weight.shape, device="meta") for name, weight in stored.items()}
    with torch.random.fork_rng(devices=[]):  # the numbers that training draws do not depend on a check
        return kind.from_pretrained(
            None, config=config, state_dict=weights, device_map="meta", dtype=torch.float32,
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip


def skeleton(model: str) -> PreTrainedModel | None:
    """Return the causal language model of a folder, or of an adapter's base, with its settings and without numbers.

    Return None for a name on the hub, a `.gguf` file, or a class that is not transformers' own.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = Path(adapter_base(Path(model)) if is_adapter(Path(model)) else model)
    if not (folder / "config.json").is_file():
        return None
    trunk = if_possible(
        lambda: blank_model(AutoModelForCausalLM, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    )
    if trunk is not None and (folder / "generation_config.json").is_file():
        with suppress(Exception):  # as in loading: a file that is no such configuration is left out
            trunk.generation_config = GenerationConfig.from_pretrained(folder)
    return trunk


def endless_frequencies(blank: nn.Module) -> str | None:
    """Return the name of the first rotary frequencies that are NaN or infinity; `blank` is a model without numbers.

    Their modules are made again, with numbers. One that is not made of the configuration alone is left out.
    """
    config = cast("Any", blank).config.get_text_config()

    def remade(module: nn.Module) -> nn.Module | None:
        return if_possible(lambda: cast("Any", type(module))(config=config))

    for name, module in blank.named_modules():
        if not any("inv_freq" in buffer for buffer, _ in module.named_buffers(recurse=False)):
            continue
        with_numbers = remade(module)
        for buffer, value in with_numbers.named_buffers() if with_numbers is not None else ():
            if "inv_freq" in buffer and not value.is_meta and not bool(value.isfinite().all()):
                return f"{name}.{buffer}"
    return None


def frequencies_message(place: str, name: str) -> str:
    """Return the message for rotary frequencies of NaN or infinity, in the buffer `name`."""
    return (
        f"{place}: the rotary frequencies {name}, which follow from its config.json, hold NaN or infinity\n"
        "  fix: correct rope_parameters (rope_theta, factor) there, or take the model's own config.json"
    )


def config_message(place: str, error: Exception, settings: Mapping[str, Any]) -> str:
    """Return the message for a config.json of which transformers can make no model; `settings` are what it holds.

    It names the keys whose values the error quotes.
    """
    if isinstance(error, ImportError):
        return f"{place}: {library_reason(error, 300)}\n  fix: install that package into trueup's environment"
    quoted = [
        f"{key}: {value!r}"
        for key, value in leaves(settings)
        if isinstance(value, str) and len(value) > 1 and any(f"{mark}{value}{mark}" in str(error) for mark in "'\"`")
    ]
    keys = f" ({named(quoted)})" if quoted else ""
    return (
        f"{place}: transformers can make no model of its config.json{keys}: {library_reason(error, 300)}\n"
        "  fix: correct that value, or take the config.json that belongs to these weights; or another version of "
        "transformers, if the model is newer than this one"
    )


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in nested settings that is no mapping itself."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def library_reason(error: Exception, limit: int) -> str:
    """Return a library's error as one line of at most `limit` characters, with its class unless that says nothing."""
    is_plain = isinstance(error, OSError | ValueError | RuntimeError)
    message = masked(f"{'' if is_plain else type(error).__name__ + ': '}{error}")
    return excerpt(" ".join(message.split()), limit)[1:-1]


def if_possible(work: Callable[[], T]) -> T | None:
    """Return `work()`, or None if a library refuses a model's files: the loader, which meets the same, reports it."""
    try:
        return work()
    except Exception:  # noqa: BLE001 -- the code of a few hundred families, each of which raises something else
        return None
