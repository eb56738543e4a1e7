"""The wind tunnel's pipelines: templates in which WORLD, FOLDER and GOLD stand for this machine's places."""

from __future__ import annotations

import json
from pathlib import Path

from trueup.windtunnel import grader


def pipeline_text(template: str, world: Path, folder: Path) -> str:
    """The template with the places filled in.

    Args:
        template: YAML in which the marks stand inside double quotes.
        world: the built world's folder, for WORLD.
        folder: where runs go, for FOLDER. GOLD becomes the gold grader as file.py:function.
    """
    places = {"WORLD": world, "FOLDER": folder, "GOLD": f"{grader.__file__}:gold"}
    for mark, place in places.items():
        # Inside double quotes JSON's escapes are YAML's too: any folder name will do.
        template = template.replace(mark, json.dumps(str(place), ensure_ascii=False)[1:-1])
    return template
