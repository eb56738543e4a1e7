"""The report as a pull request's comment, as a badge, and by its published schema."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import get_args

import pytest

from report import sample_report as samples
from trueup.report import badge as badges
from trueup.report.badge import badge
from trueup.report.comment import LONGEST, MARKER, comment, escaped
from trueup.report.report_schema import ModelOrigin, Report, ReportMissing, Verdict, VerdictWord

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_the_comment_begins_with_the_verdict() -> None:
    report = samples.full()
    report.verdict.notes = ["Identical weights: a and b are the same, tensor for tensor."]
    report.origins = {"ppo": ModelOrigin(source="runs/ppo", weights="ab" * 32)}
    lines = comment(report).splitlines()
    assert lines[0] == MARKER
    assert lines[2].startswith(f"## ❌ HOLD {report.verdict.model}, compared with ")
    assert lines[4] == report.verdict.sentence
    assert lines[6] == "> Identical weights: a and b are the same, tensor for tensor."
    text = "\n".join(lines)
    assert "| ❌ fail | Capability drop |" in text
    assert text.count("<details>") == text.count("</details>") == 3
    assert "runs/ppo, weights abababababababab" in text


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_nothing_in_a_comment_acts(hostile: str) -> None:
    report = samples.full()
    report.verdict = Verdict(verdict="HOLD", sentence=hostile, model=hostile)
    report.not_measured = [ReportMissing(what=hostile, why=hostile)]
    text = comment(report)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "<img" not in text
    assert len(text) < 65_536
    assert {*re.findall(r"</?[a-z]+", text)} <= {"<details", "<summary", "</summary", "</details", "<br"}


def test_nobody_is_mentioned() -> None:
    assert escaped("@owner fixed #12; a@b, # and @") == "@\u200bowner fixed \\#\u200b12; a@\u200bb, # and @".replace(
        "\\#", "#"
    )


def test_a_comment_is_never_too_long() -> None:
    report = samples.full()
    report.not_measured = [ReportMissing(what=f"w{index}", why="y" * 200) for index in range(400)]
    text = comment(report)
    assert len(text) <= LONGEST
    assert "The numbers are in report.html" in text


@pytest.mark.parametrize("word", get_args(VerdictWord))
def test_the_badge_is_readable(word: VerdictWord) -> None:
    report = samples.full()
    report.verdict = Verdict(verdict=word, sentence="", model='<script>"&')
    drawn = badge(report)
    root = ET.fromstring(drawn)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["trueup", word]
    assert root.attrib["aria-label"] == f'trueup: {word} <script>"&'
    assert "<script" not in drawn
    for colour in (badges.COLOURS[word], badges.LABEL_COLOUR):
        assert contrast(badges.TEXT_COLOUR, colour) >= 4.5


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_published_schema_is_that_of_the_report() -> None:
    """After a change: python scripts/report_schema.py --write."""
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert published.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert published == Report.model_json_schema(mode="serialization")
    assert published["additionalProperties"] is False
    assert set(published["properties"]) == set(samples.full().model_dump(mode="json"))
