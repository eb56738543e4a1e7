"""Take the pictures of a report that README shows: its top, and its charts. Needs Chromium and playwright.

    python scripts/report_pictures.py runs/quickstart/stages/report.html

Writes docs/report.png and docs/report-pictures.png. `make pictures` runs the quickstart first.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import FloatRect, sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 1280
HEIGHT = 1160
MARGIN = 24
"""Pixels above the heading of the charts, and below the last one shown."""


def main() -> None:
    """Open the report and take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.html")
    report = parser.parse_args().report
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not report.is_file():
        parser.error(f"{report} is not there; trueup quickstart makes one")
    if chromium is None:
        parser.error("there is no Chromium on this machine; install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=DOCS / "report.png")
        title, last = (page.locator(f"#{name}").bounding_box() for name in ("pictures-title", "figure-refusals"))
        assert title is not None
        assert last is not None
        top, bottom = title["y"] - MARGIN, last["y"] + last["height"] + MARGIN
        clip: FloatRect = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top}
        page.screenshot(path=DOCS / "report-pictures.png", clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
