"""Load a configuration from a file and overrides, with every problem reported at once; write one as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trueup.config.evaluation import EvaluateConfig
from trueup.config.explain import explain
from trueup.config.paths import missing_paths, raise_missing
from trueup.config.pipeline import PipelineConfig
from trueup.config.problems import limited
from trueup.config.schema import StageConfig
from trueup.config.sections import Section
from trueup.config.yamlfile import Document, Value, apply_override, read_yaml, scalar
from trueup.errors import ConfigError
from trueup.system.text import clean

SectionT = TypeVar("SectionT", bound=Section)


def load_config(
    cls: type[SectionT],
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    options: Mapping[str, Value] | None = None,
    check_files: bool = False,
) -> SectionT:
    """Return a configuration of class `cls`, from a YAML file, then `overrides` (`key.sub=value`), then `options`.

    Of several values for a key the last one counts.

    Raises:
        ConfigError: values are wrong; one line per problem: `file.yaml:12: optim.lrr: unknown key; did you mean lr?`.
        DataError, ModelError: with `check_files`, a file or folder that the configuration names is missing or unusable.
    """
    document = read_yaml(path) if path else Document("settings")
    for override in overrides:
        apply_override(document, override)
    for key, value in (options or {}).items():
        document.data[key] = value
        document.mark((key,), f"--{key.replace('_', '-')}", len(document.order) + 1_000_000)
    lines = list(document.problems)
    config: SectionT | None = None
    try:
        config = cls.model_validate(document.data)
    except ValidationError as error:
        problems = sorted(explain(cls, error), key=lambda problem: document.position(problem[0]))
        lines += [document.line(problem) for problem in problems]
    if config is None or lines:
        raise ConfigError(limited(lines))
    if check_files and isinstance(config, (StageConfig, PipelineConfig, EvaluateConfig)):
        missing = missing_paths(config, near=path.parent if path else None)
        raise_missing(missing, document.line)
    return config


def to_yaml(config: Section) -> str:
    """Return the configuration as YAML that `load_config` reads back equal.

    Keys without effect given the others are left out, as `load_config` would refuse them.
    """
    text = yaml.dump(_dumped(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return clean(text)  # what a terminal obeys stands in double quotes, where these escapes are YAML's own


def _dumped(section: BaseModel) -> dict[str, Value]:
    """Return a section as plain data, without keys that have no effect, which `load_config` would refuse."""
    values: dict[str, Value] = section.model_dump(mode="json", by_alias=True)
    if not isinstance(values, dict):  # pyright: ignore[reportUnnecessaryIsInstance]  (a section whose short form is text)
        return values
    inert = section.inert() if isinstance(section, Section) else {}
    for name, field in type(section).model_fields.items():
        inner = getattr(section, name)
        key = field.alias or name
        if name in inert:
            values.pop(key, None)
        elif isinstance(inner, BaseModel) and key in values:
            values[key] = _dumped(inner)
    return values


class _Dumper(yaml.SafeDumper):
    """YAML writer that quotes text which a YAML 1.1 or a 1.2 reader would take for a number, boolean or null."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if not text.replace("\n", "").isprintable():  # other line ends fold, control characters are no YAML but escaped
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    plain = "\n" in text or text.strip() != text or any(mark in text for mark in ":#[]{},&*!|>'\"%@`")
    style = None if plain or isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
