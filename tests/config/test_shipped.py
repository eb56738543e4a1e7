"""Every configuration that is shipped can be loaded: examples, and what `trueup config METHOD` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from trueup.config import STAGES, PipelineConfig, StageConfig, describe, load_config, template
from trueup.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
KINDS = {"pipeline": PipelineConfig, **STAGES}


def kind_of(path: Path) -> str:
    """`examples/dpo.yaml`, `examples/dpo-medicine.yaml` -> dpo; a file that begins with no method is a pipeline."""
    word = path.stem.partition("-")[0]
    return word if word in STAGES else "pipeline"


def test_there_are_examples() -> None:
    assert FILES, f"{EXAMPLES} holds no .yaml file"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_example_loads(path: Path) -> None:
    config = load_config(KINDS[kind_of(path)], path)
    if isinstance(config, PipelineConfig):
        for name in config.stages:
            assert config.stage(name)[1].output == config.folder / name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_example_says_how_to_run_it(path: Path) -> None:
    command = "run" if kind_of(path) == "pipeline" else kind_of(path)
    assert f"trueup {command} examples/{path.relative_to(EXAMPLES)}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_template_loads_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(template(KINDS[kind]), encoding="utf-8")
    load_config(KINDS[kind], path)


@pytest.mark.parametrize("kind", STAGES)
def test_the_template_shows_the_defaults(kind: str) -> None:
    """Setting any key to the value that its line shows changes nothing, or is refused as having no effect."""
    cls = STAGES[kind]
    rows = describe(cls)
    required = [f"{row.place[0]}={row.value}" for row in rows if row.required]
    plain = load_config(cls, None, required).model_dump()
    for row in rows:
        switches_on = row.place[0] in ("lora", "mix") or row.help == "or"
        if row.required or not row.value or switches_on or row.place[0] in cls.data_fields:
            continue
        assert outcome(cls, [*required, f"{'.'.join(row.place)}={row.value}"]) in (plain, "no effect"), row


def outcome(cls: type[StageConfig], settings: list[str]) -> dict[str, object] | str:
    """The configuration's values, or that a setting has no effect."""
    try:
        return load_config(cls, None, settings).model_dump()
    except ConfigError as error:
        return "no effect" if "has no effect" in str(error) else str(error)


def test_a_recipe_has_at_most_68_keys() -> None:
    for cls in STAGES.values():
        own = {row.place for row in describe(cls) if row.value and row.place[0] not in cls.data_fields}
        assert len(own) <= 68, cls
