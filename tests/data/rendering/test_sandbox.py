"""What chat templates of real models use renders in the sandbox exactly as transformers renders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from trueup.data.rendering import sandbox

TALK = [
    {"role": "system", "content": "Be <brief>"},
    {"role": "user", "content": 'Hi é <b> & "q"\n\n two  words'},
    {"role": "assistant", "content": "Yo"},
]
TOKENS: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = Path(__file__).with_name("template_features.txt").read_text(encoding="utf-8").splitlines()
"""A template a line."""


def both(template: str, turns: list[dict[str, str]], generate: bool) -> tuple[str, str]:
    """What transformers and what the sandbox make of it: the text, or that the template refuses."""

    def ours() -> str:
        return sandbox.render(template, TOKENS, turns, generate)

    def theirs() -> str:
        made = render_jinja_template([turns], chat_template=template, add_generation_prompt=generate, **TOKENS)
        return made[0][0]

    results = []
    for render in (theirs, ours):
        try:
            results.append(render())
        except Exception as error:  # noqa: BLE001 -- the same error on both sides
            results.append(f"refused: {type(error).__name__}: {error}")
    return results[0], results[1]


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_templates_use_renders_as_in_transformers(template: str) -> None:
    expected, rendered = both(template.replace("\\n", "\n"), TALK[1:], True)
    assert rendered == expected
    assert not rendered.startswith("refused")


@pytest.mark.slow
@pytest.mark.trl
def test_every_template_that_trl_carries_renders_as_in_transformers() -> None:
    trl = pytest.importorskip("trl")
    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    assert len(files) > 50
    for file in files:
        for turns in (TALK, TALK[1:], TALK[1:2], [*TALK, *TALK[1:]]):
            for generate in (False, True):
                expected, rendered = both(file.read_text(encoding="utf-8"), turns, generate)
                same = rendered == expected or (rendered.startswith("refused") and expected.startswith("refused"))
                assert same, (file.name, expected, rendered)
