"""Print the JSON schema of report.json; `--write` writes it to docs/report.schema.json (a test compares)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trueup.report.report_schema import Report

PATH = Path(__file__).parents[1] / "docs" / "report.schema.json"


def schema() -> str:
    """Return the JSON schema (draft 2020-12) of a report, as text."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PATH.write_text(schema(), encoding="utf-8")
    else:
        print(schema(), end="")
