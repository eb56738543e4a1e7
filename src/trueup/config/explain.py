"""Turn pydantic's errors into problems a person can act on: what is wrong, what is allowed, which key was meant."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from trueup.config.problems import Place, Problem, as_written, dotted, nearest, suggestion, unpack
from trueup.config.sections import MANY, ONE, FunctionConfig, PreferenceLossConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

OTHER_NAMES = {
    "learning_rate": "optim.lr",
    "num_train_epochs": "optim.epochs",
    "num_epochs": "optim.epochs",
    "max_steps": "optim.steps",
    "per_device_train_batch_size": "optim.batch_size",
    "train_batch_size": "optim.batch_size",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "lr_scheduler_type": "optim.schedule",
    "max_grad_norm": "optim.clip",
    "grad_clip": "optim.clip",
    "model_name_or_path": "model",
    "base_model": "model",
    "output_dir": "output",
    "out": "output",
    "dataset": "data",
    "dataset_name": "data",
    "train_file": "data",
    "max_seq_length": "max_length",
    "max_prompt_length": "max_length",
    "cutoff_len": "max_length",
    "gradient_accumulation_steps": "max_tokens",
    "micro_batch_size": "max_tokens",
    "ref_model": "reference",
    "reference_model": "reference",
    "reward_model": "reward",
    "reward_model_path": "reward",
    "loss_type": "loss.name",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target": "lora.targets",
    "target_modules": "lora.targets",
    "kl_coef": "kl.coef",
    "init_kl_coef": "kl.coef",
    "num_ppo_epochs": "rollouts.epochs",
    "cliprange": "rollouts.clip",
    "response_length": "rollouts.max_new_tokens",
    "num_generations": "rollouts.per_prompt",
    "eval_steps": "eval.every",
    "save_steps": "save.every",
    "save_total_limit": "save.keep_last",
    "report_to": "log",
    "bf16": "dtype",
    "fp16": "dtype",
    "torch_dtype": "dtype",
    "packing": "max_tokens",
}
"""Names in other toolkits -> the key here. A hint is given only where the stage has such a key."""

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "path_type": "a path",
}


def explain(cls: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return every problem in a pydantic `error` that was raised while validating a configuration as `cls`.

    There is one problem per place, and places are paths of keys as written in the configuration file.
    """
    problems: dict[Place, str] = {}
    for details in error.errors(include_url=False):
        several = unpack(details)
        if several is None:
            place, field = locate(cls, details["loc"])
            several = [(place, _message(cls, place, field, details))]
        for place, message in several:
            problems.setdefault(tuple(part for part in place if part not in (ONE, MANY)), message)
    return list(problems.items())


def locate(cls: type[BaseModel], loc: Place) -> tuple[Place, FieldInfo | None]:
    """Return the path of keys in the file for pydantic's error location, and the field that it ends at.

    Pydantic's location contains tags for the members of unions, which no file holds; they are left out.
    """
    place: list[str | int] = []
    model: type[BaseModel] | None = cls
    field: FieldInfo | None = None
    for part in loc:
        if part in (ONE, MANY):
            continue
        if model is not None and not isinstance(part, int):  # a number is a place in a list of sections
            field = model.model_fields.get(str(part)) or _by_alias(model, str(part))
            model = section_of(field) if field else None
        elif not isinstance(part, int) and not (field and _holds_dict(field.annotation)):
            break
        place.append(part)
    return tuple(place), field


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section class among a field's types: `LoraConfig | None` -> LoraConfig; None if it has none."""
    kinds = (kind for kind in _members(field.annotation) if isinstance(kind, type))
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def keys_of(cls: type[BaseModel]) -> list[str]:
    """Return the keys of a section as they are written in a file: the names of its fields, or their aliases."""
    return [field.alias or name for name, field in cls.model_fields.items()]


def places_of(cls: type[BaseModel], before: Place = ()) -> Iterator[Place]:
    """Yield the path of every key in a stage's configuration, sections included: ("optim",), ("optim", "lr"), …."""
    for name, field in cls.model_fields.items():
        place = (*before, field.alias or name)
        yield place
        section = section_of(field)
        if section is not None and issubclass(section, FunctionConfig):
            if section is PreferenceLossConfig:
                yield from ((*place, key) for key in ("name", *section.table.ours()[section.default]))
        elif section is not None and len(before) < 2:  # deep enough for mix.data.path
            yield from places_of(section, place)


def unknown_key(cls: type[BaseModel], place: Place, extra: tuple[str, ...] = ()) -> str:
    """Return the error message for a key that `cls` does not have, with the key that was probably meant.

    Args:
        cls: the configuration class.
        place: the path of the unknown key.
        extra: further keys that are allowed at the top of the section, such as a pipeline stage's `from`.
    """
    key, around = str(place[-1]), place[:-1]
    section = section_at(cls, around)
    keys = [*(extra if not around else ()), *(keys_of(section) if section else ())]
    elsewhere = [other for other in places_of(cls) if other[-1] == key and other[:-1] != around]
    if elsewhere:
        homes = " or ".join(dotted(other) for other in _shallowest(elsewhere))
        if not around:
            return f"unknown key; {key} belongs under {_shallowest(elsewhere)[0][0]}: {homes}"
        return f"unknown key here; did you mean {homes}? (keys here: {', '.join(keys)})"
    renamed = OTHER_NAMES.get(key)
    if renamed and any(dotted(other) == renamed for other in places_of(cls)):
        return f"unknown key; here it is {renamed}"
    close = nearest(key, keys)
    if close is None and not around:
        by_name = {str(other[-1]): dotted(other) for other in reversed(list(places_of(cls)))}
        inner = nearest(key, by_name, cutoff=0.75)
        close = by_name[inner] if inner else None
    hint = f"; did you mean {close}?" if close else ";"
    return f"unknown key{hint} (keys here: {', '.join(keys)})".replace("; (", " (")


def section_at(cls: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """Return the class of the section at a path of keys: `("optim",)` -> OptimConfig; None if there is none."""
    section: type[BaseModel] | None = cls
    for part in place:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(str(part)) if section else None
        section = section_of(field) if field else None
    return section


def _message(cls: type[BaseModel], place: Place, field: FieldInfo | None, details: ErrorDetails) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(cls, place)
    if kind == "missing":
        return f"missing. {field.description if field else ''}".rstrip()
    got = f"; got {as_written(value)}"
    kinds = list(_members(field.annotation)) if field else []
    choices = _choices(kinds)
    if choices and not isinstance(value, (dict, list)):
        list_too = any(get_origin(kind) is list for kind in kinds) and not isinstance(place[-1], int)
        others = " or a list" if list_too else ""
        return f"must be one of {', '.join(choices)}{others}{got}{suggestion(str(value), choices)}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]:g}{got}"
    if kind in ("model_type", "model_attributes_type", "dict_type") and field and (section := section_of(field)):
        return f"must be a mapping with keys {', '.join(keys_of(section))}{got}"
    if kind == "string_pattern_mismatch" and field:
        return f"not understood{got}. {field.description}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    wanted = _KINDS.get(kind)
    optional = " or null" if type(None) in kinds and not any(get_origin(kind) is dict for kind in kinds) else ""
    return f"must be {wanted}{optional}{got}" if wanted else f"{details['msg']}{got}"


def _choices(kinds: list[Any]) -> list[str]:
    """Return the words that an annotation's `Literal` types allow, including those that are a list's item type."""
    inner = [item for kind in kinds if get_origin(kind) is list for item in get_args(kind)]
    return [str(choice) for kind in (*kinds, *inner) if get_origin(kind) is Literal for choice in get_args(kind)]


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the member types of a union annotation, without `Annotated`; a type that is no union is yielded alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _holds_dict(annotation: Any) -> bool:
    return any(get_origin(kind) is dict for kind in _members(annotation))


def _by_alias(model: type[BaseModel], alias: str) -> FieldInfo | None:
    return next((field for field in model.model_fields.values() if field.alias == alias), None)


def _shallowest(places: list[Place]) -> list[Place]:
    depth = min(len(place) for place in places)
    return [place for place in places if len(place) == depth][:3]
