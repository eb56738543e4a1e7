"""Write a run folder's report (JSON, HTML, Markdown, a badge, the models' cards) and show it in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from trueup.config.transformers4 import least_version
from trueup.report import terminal
from trueup.report.badge import badge
from trueup.report.build import build
from trueup.report.card import model_card
from trueup.report.comment import comment
from trueup.report.page import render
from trueup.report.report_schema import Report
from trueup.system.files import atomic_write_text
from trueup.system.text import clean

EXIT = {"SHIP": 0, "NOT JUDGED": 0, "HOLD": 8, "NOT SHOWN": 9}
"""Exit code of a command that ends with a verdict, by the verdict."""


def publish(folder: Path, report: Report | None = None) -> Report:
    """Make the report of a run folder, write it there, show it and say where it is. Returns the report.

    Args:
        folder: a pipeline's run folder, or any in which models were evaluated.
        report: a report that is made already; None makes it from the folder's files.

    Raises:
        DataError: nothing was evaluated there.
    """
    report = build(folder) if report is None else report
    atomic_write_text(folder / "report.json", json.dumps(report.model_dump(mode="json"), indent=1) + "\n")
    atomic_write_text(folder / "report.html", render(report))
    atomic_write_text(folder / "report.md", comment(report))
    atomic_write_text(folder / "badge.svg", badge(report))
    write_cards(folder, report)
    terminal.show(report)
    print(f"\nthe report: {clean(str(folder / 'report.html'), one_line=True)}")
    return report


def write_cards(folder: Path, report: Report) -> None:
    """Write a model card, README.md, into the model folder of each stage whose numbers are in the report."""
    for stage in report.stages:
        model = folder / stage.name / "model"
        if model.is_dir() and stage.name in report.models:
            version = least_version(model)
            card = model_card(report, stage.name, base=stage.base, method=stage.method, transformers=version)
            atomic_write_text(model / "README.md", card)
