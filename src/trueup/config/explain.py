"""Turn pydantic's errors into problems a person can act on: what is wrong, what is allowed, which key was meant."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from trueup.config.functions import LOSSES
from trueup.config.other_tools import OTHER_NAMES, meaning_of, meaning_of_beginning, meaning_of_value
from trueup.config.problems import Place, Problem, as_written, dotted, nearest, suggestion, unpack
from trueup.config.sections import MANY, ONE, FunctionConfig, PreferenceLossConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

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
    inside = next((str(part) for part in reversed(around) if not isinstance(part, int)), "")
    if f"{inside}_{key}" in OTHER_NAMES and (meaning := other_tools_key(cls, key, inside)):
        return f"unknown key; {meaning}"
    elsewhere = [other for other in places_of(cls) if other[-1] == key and other[:-1] != around]
    if elsewhere:
        homes = " or ".join(dotted(other) for other in _shallowest(elsewhere))
        if not around:
            return f"unknown key; {key} belongs under {_shallowest(elsewhere)[0][0]}: {homes}"
        return f"unknown key here; did you mean {homes}? (keys here: {', '.join(keys)})"
    if meaning := other_tools_key(cls, key, inside):
        return f"unknown key; {meaning}"
    same = [
        other for stage in _stages(cls) for other in _keys_in(stage) if other.rpartition(".")[2] == key and "." in other
    ]
    if not around and (other := _in_another_stage(cls, sorted(set(same), key=lambda other: (other.count("."), other)))):
        return f"unknown key; {other}"
    joined = {place.replace(".", "_"): place for place in _keys_in(cls) if "." in place}
    slip = nearest(key, joined, cutoff=0.85) if not around else None  # loss_bta: loss.beta
    close = joined[slip] if slip else nearest(key, keys)
    if close is None and not around:
        by_name = {str(other[-1]): dotted(other) for other in reversed(list(places_of(cls)))}
        inner = nearest(key, by_name, cutoff=0.75)
        close = by_name[inner] if inner else None
    hint = f"; did you mean {close}?" if close else ";"
    return f"unknown key{hint} (keys here: {', '.join(keys)})".replace("; (", " (")


def other_tools_key(cls: type[BaseModel], name: str, section: str = "") -> str | None:
    """Return what another tool's name for a setting means in `cls` ("here it is optim.lr"), or None if it is none.

    `section` is the name of the section in which it stands, if any.
    """
    places = _keys_in(cls)
    meaning = meaning_of(name, section)
    if meaning is None:
        joined = {place.replace(".", "_"): place for place in places if "." in place}
        if name.lower() in joined:
            return f"here it is {joined[name.lower()]}"
        meaning = None if nearest(name, [*joined, *keys_of(cls)], cutoff=0.85) else meaning_of_beginning(name)
    if meaning is None:
        return None
    key = next((key for key in meaning.keys if key in places), None)
    if key is not None:
        return f"here it is {key}" + (f" ({meaning.note})" if meaning.note else "")
    if nearest(name, keys_of(cls), cutoff=0.85):  # `stage` in a pipeline is `stages`
        return None
    return _in_another_stage(cls, meaning.keys, meaning.note) if meaning.keys else meaning.note


def _keys_in(cls: type[BaseModel]) -> set[str]:
    """Return all keys of a configuration, as paths with dots, with the parameters of all losses of ours."""
    places = {dotted(place) for place in places_of(cls)}
    if "loss.name" in places:
        places |= {f"loss.{key}" for parameters in LOSSES.ours().values() for key in parameters}
    return places


def _in_another_stage(cls: type[BaseModel], keys: Sequence[str], note: str = "") -> str | None:
    """Return where another stage has a setting that this one has not, as "in trueup ppo it is …"; None if none has."""
    for stage in _stages(cls):
        places = _keys_in(stage)
        if key := next((key for key in keys if key in places), None):
            more = f" ({note})" if note else ""
            return f"{_method(cls)} has nothing of the kind; in trueup {_method(stage)} it is {key}{more}"
    return None


def _stages(cls: type[BaseModel]) -> list[type[BaseModel]]:
    """Return all stages' classes if `cls` is one of them: those that derive from the same class; else []."""
    return [stage for stage in cls.__mro__[1].__subclasses__() if _method(stage)] if _method(cls) else []


def _method(cls: type[BaseModel]) -> str:
    return getattr(cls, "method", "")


def section_at(cls: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """Return the class of the section at a path of keys: `("optim",)` -> OptimConfig; None if there is none."""
    section: type[BaseModel] | None = cls
    named: type[BaseModel] | None = None
    for part in place:
        if isinstance(part, int):
            continue
        if named is not None:  # the name of an entry, as of a set in `sets`
            section, named = named, None
            continue
        field = section.model_fields.get(str(part)) if section else None
        section = section_of(field) if field else None
        named = _entries_of(field) if field and section is None else None
    return section


def _entries_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section class of a mapping's entries: `dict[str, SetConfig]` -> SetConfig; None if it is no such."""
    kinds = [get_args(kind)[1] for kind in _members(field.annotation) if get_origin(kind) is dict]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _message(cls: type[BaseModel], place: Place, field: FieldInfo | None, details: ErrorDetails) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(cls, place)
    if kind == "missing":
        return f"missing. {field.description if field else ''}".rstrip()
    got = f"; got {as_written(value)}"
    kinds = list(_members(field.annotation)) if field else []
    choices = _choices(kinds)
    near = suggestion(str(value), choices)
    if instead := _instead(place, value, near=bool(near)):
        got, near = f"{got}; {instead}", ""
    if choices and not isinstance(value, (dict, list)):
        list_too = any(get_origin(kind) is list for kind in kinds) and not isinstance(place[-1], int)
        others = " or a list" if list_too else ""
        return f"must be one of {', '.join(choices)}{others}{got}{near}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {_number(context[key])}{got}{_range(field)}"
    if kind in ("model_type", "model_attributes_type", "dict_type") and field and (section := section_of(field)):
        keys = [key for key in keys_of(section) if key != "params"]
        return f"must be a mapping with keys {', '.join(keys)}{got}"
    if kind == "string_pattern_mismatch" and field:
        return f"not understood{got}. {field.description}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    wanted = _KINDS.get(kind)
    optional = " or null" if type(None) in kinds and not any(get_origin(kind) is dict for kind in kinds) else ""
    return f"must be {wanted}{optional}{got}" if wanted else f"{details['msg']}{got}"


def _instead(place: Place, value: object, *, near: bool) -> str | None:
    """Return what to write instead of another tool's value of the key at a place, or None if it is none.

    The sections around a key in a pipeline (stages, sft) are not part of its name. `near` is True if the value
    resembles one of ours.
    """
    names = [str(part) for part in place if not isinstance(part, int)]
    keys = [".".join(names[start:]) for start in range(len(names))]
    if isinstance(value, str) and keys and keys[-1] == "loss":
        return f"write loss.name={value}" if value.lower() in (*LOSSES.ours(), "dpo") else None
    return next((text for key in keys if (text := meaning_of_value(key, value, near=near))), None)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _range(field: FieldInfo | None) -> str:
    """Return a field's range as a part of a message, such as " (allowed: 1 to 1024)"; "" if a side is open."""
    bounds = {key: value for key, value in _limits(field) if value is not None} if field else {}
    low, high = (next((key for key in keys if key in bounds), None) for keys in (("ge", "gt"), ("le", "lt")))
    if low is None or high is None:
        return ""
    first = f"{'above ' if low == 'gt' else ''}{_number(bounds[low])}"
    return f" (allowed: {first} to {'below ' if high == 'lt' else ''}{_number(bounds[high])})"


def _limits(field: FieldInfo) -> Iterator[tuple[str, Any]]:
    """Yield (name, bound) for each bound in a field's annotation, also in a member of a union."""
    members = get_args(field.annotation) if get_origin(field.annotation) in (Union, types.UnionType) else ()
    inner = [part for kind in members if get_origin(kind) is Annotated for part in get_args(kind)[1:]]
    inner += [part for item in inner for part in getattr(item, "metadata", ())]
    for item in (*field.metadata, *inner):
        yield from ((key, getattr(item, key)) for key in ("ge", "gt", "le", "lt") if hasattr(item, key))


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
