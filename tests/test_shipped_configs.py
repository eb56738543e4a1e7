"""Every configuration that is shipped can be loaded: examples, and what `trueup config METHOD` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from trueup.config import STAGES, PipelineConfig, load_config, template

EXAMPLES = Path(__file__).parent.parent / "examples"
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
def test_every_line_of_the_template_is_a_key_at_its_default(kind: str, tmp_path: Path) -> None:
    """Taking the # off one line, with the section it stands in, changes nothing or is refused as inert."""
    lines = template(STAGES[kind]).splitlines()
    path = tmp_path / "template.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    plain = load_config(STAGES[kind], path)
    section: list[str] = []
    for number, line in enumerate(lines[3:], start=3):
        if not line.startswith("# "):
            continue
        section = [line] if not line.startswith("#   ") else section[:1]
        bare = line.partition("  # ")[0]
        if bare.endswith(":") or line.startswith(("# data:", "# prompts:")) or section[0].startswith("# mix:"):
            continue  # a section alone; data's long form stands beside its short one; mix and data go together
        if section[0].startswith(("# data:", "# prompts:")) or bare.endswith(": null") or "# or" in line:
            continue
        opened = [text[2:] for text in dict.fromkeys([*section, line])]
        kept = [text for text in lines[:number] if not text.startswith("#")]
        path.write_text("\n".join([*kept, *opened]), encoding="utf-8")
        try:
            config = load_config(STAGES[kind], path)
        except ValueError as error:
            assert "has no effect" in str(error), line
            continue
        expected = plain.model_dump() | ({"lora": config.model_dump()["lora"]} if section[0].startswith("# lora") else {})
        assert config.model_dump() == expected, line
