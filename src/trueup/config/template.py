"""Describe every key of a configuration with its default and its help: as rows, and as a YAML file to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from trueup.config.explain import section_of
from trueup.config.schema import StageConfig
from trueup.config.sections import DataConfig, FunctionConfig, Section, ShortFunctionConfig, TrainDataConfig

_HELP_COLUMN = 34
_EXAMPLES = {
    "model": "HuggingFaceTB/SmolLM2-135M",
    "base": "HuggingFaceTB/SmolLM2-135M",
    "output": "runs/my-run",
    "name": "my-assistant",
    "data": "data.jsonl",
    "prompts": "prompts.jsonl",
    "reward": "runs/my-reward",
}
_STAGES = """
  sft:    {method: sft, data: instructions.jsonl}
  reward: {method: reward, from: sft, data: rankings.jsonl}
  dpo:    {method: dpo, from: sft, data: rankings.jsonl, loss: {name: sigmoid, beta: 0.1}}
  ppo:    {method: ppo, from: sft, reward: reward, prompts: prompts.jsonl}"""


class KeyHelp(NamedTuple):
    """A key of a configuration, with its default, its help text, and if it is required."""

    place: tuple[str, ...]
    """The path of keys, such as ("optim", "lr")."""
    value: str
    """The default as YAML; empty for a section; an example where the key is required."""
    help: str
    required: bool


def describe(cls: type[Section]) -> list[KeyHelp]:
    """Return the help of every key of `cls`: required keys first, each section before the keys in it."""
    return sorted(_rows(cls, ()), key=lambda row: not row.required)


def template(cls: type[Section]) -> str:
    """Return a YAML configuration to fill in.

    Required keys have an example; every other key is commented out at its default, with its help.
    """
    lines = [
        f"# {cls.__doc__}",
        "# A line behind a # is optional and shows the default: remove the # to change it.",
        "",
    ]
    for row in describe(cls):
        indent = "  " * (len(row.place) - 1)
        setting = f"{indent}{row.place[-1]}:{' ' * bool(row.value)}{row.value}"
        if row.place == ("stages",):
            lines += [f"stages:  # {row.help}{_STAGES}"]
        else:
            text = setting if row.required else f"# {setting}"
            lines.append(f"{text:<{_HELP_COLUMN}}  # {row.help}")
    return "\n".join(lines) + "\n"


def _rows(cls: type[Section], around: tuple[str, ...]) -> Iterator[KeyHelp]:
    for name, field in cls.model_fields.items():
        place, text = (*around, name), " ".join((field.description or "").split())
        section = section_of(field)
        if section is not None and issubclass(section, FunctionConfig):
            if field.default is None:
                yield KeyHelp(place, "null", text, required=False)
            yield from _function_rows(section, place, "or" if field.default is None else text)
        elif section is not None and issubclass(section, DataConfig):
            required = field.is_required() and not around
            yield KeyHelp(place, _EXAMPLES[name] if field.is_required() else "null", text, required)
            if required:
                yield from _data_rows(name)
        elif section is not None and issubclass(section, Section):
            yield KeyHelp(place, "", text, required=False)
            yield from _with_own_lr(cls, _rows(section, place))
        elif field.is_required():
            yield KeyHelp(place, _EXAMPLES.get(name, ""), text, required=not around)
        else:
            yield KeyHelp(place, _flow(field.get_default(call_default_factory=True)), text, required=False)


def _with_own_lr(cls: type[Section], rows: Iterator[KeyHelp]) -> Iterator[KeyHelp]:
    """Replace the default of `optim.lr` by the default learning rates of the stage `cls`, full and with LoRA."""
    for row in rows:
        if issubclass(cls, StageConfig) and row.place == ("optim", "lr"):
            text = f"{row.help} Unset: {cls.lr:g}, or {cls.lora_lr:g} with lora."
            yield row._replace(value=_flow(cls.lr), help=text)
        else:
            yield row


def _data_rows(name: str) -> Iterator[KeyHelp]:
    """Yield the help of every key in the long form of a data setting (`data: {path: …, rows: …}`)."""
    yield KeyHelp((name,), "", "the long form; a list of such sections is a mixture:", required=False)
    for row in _rows(TrainDataConfig, (name,)):
        yield row._replace(value=_EXAMPLES[name]) if row.place[-1] == "path" else row


def _function_rows(section: type[FunctionConfig], place: tuple[str, ...], text: str) -> Iterator[KeyHelp]:
    """Yield one line of help for each function that a key accepts, such as `{name: simpo, beta: 2.0, gamma: 0.5}`."""
    for name, parameters in section.table.ours().items():
        # gae's parameters are keys of `rollouts` itself.
        alone = issubclass(section, ShortFunctionConfig) and (not parameters or name == "gae")
        yield KeyHelp(place, _flow(name if alone else {"name": name, **parameters}), text, required=False)
        text = "or"


def _flow(value: object) -> str:
    """Return a default value as YAML on one line, for the template."""
    plain = str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n...\n").strip()
