"""The matrix: every family of transformers x method x (full, LoRA) is right, or refused before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest

import families

FOUR = {"seed_oss": "dropout of its own", "mixtral": "fused experts", "gpt_neo": "a window", "granite": "no classifier"}


@pytest.mark.parametrize("method", families.METHODS)
def test_four_families_of_a_kind_each(tmp_path: Path, method: str) -> None:
    for index, model_type in enumerate(FOUR):
        outcome = families.try_cell(model_type, method, lora=index % 2 == 1, folder=tmp_path)
        expected = "refused" if (model_type, method) == ("granite", "reward") else "right"
        assert outcome.kind == expected, f"{model_type}: {outcome.text}"


@pytest.mark.slow
def test_the_whole_matrix_is_right_or_refused_as_the_docs_say(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    cells = families.run_matrix(tmp_path / "runs")
    wrong = [
        f"{key}: {outcome.text}"
        for key, outcome in cells.items()
        if outcome.kind in ("wrong", "crash") and key[0] not in families.KNOWN_FAULTS
    ]
    assert not wrong, "\n".join(wrong)
    text = families.DOCS.read_text(encoding="utf-8").partition(families.BEGIN)[2]
    documented = text.partition("Right in all ten cells** (")[2].partition(": ")[2].partition(".\n")[0].split(", ")
    assert len(documented) > 40
    changed = [key for key, outcome in cells.items() if key[0] in documented and outcome.kind != "right"]
    assert not changed, "make families writes the table"
