"""The page in a real browser: no error, no request, nothing clipped or too faint, at phone and desk width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import chromium
from ranking.results import test_page as samples
from report.test_browser import CLIPPED, CONTRAST, HIDDEN, SIZES
from trueup.ranking.results import page as page_of
from trueup.ranking.results import view

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = chromium.needed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    for name, results in (("full", samples.full()), ("hostile", samples.hostile()), ("empty", view([], []))):
        (made / f"{name}.html").write_text(page_of(results), encoding="utf-8")
    return made


@pytest.fixture
def visit(browser: Browser, folder: Path) -> Iterator[Any]:
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(name: str, width: int, scheme: str) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        opened = context.new_page()
        address = (folder / f"{name}.html").as_uri()
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        opened.on("request", lambda request: None if request.url == address else complaints.append(request.url))
        opened.goto(address)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


LETTERS = """() => Math.min(99, ...[...document.querySelectorAll('svg.strip text')].map(text =>
  parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width /
  text.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [400, pytest.param(800, marks=pytest.mark.slow), 1280])
@pytest.mark.parametrize("name", ["full", "hostile", "empty"])
def test_layout(visit, name: str, width: int, scheme: str) -> None:
    opened = visit(name, width, scheme)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.evaluate(CLIPPED) == []
    assert opened.evaluate(HIDDEN) == []
    assert all(size > 4 for size in opened.evaluate(SIZES))
    assert opened.evaluate(LETTERS) >= 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [pytest.param(400, marks=pytest.mark.slow), 1280])
def test_contrast_of_text(visit, width: int, scheme: str) -> None:
    assert visit("full", width, scheme).evaluate(CONTRAST) == []
    assert visit("empty", width, scheme).evaluate(CONTRAST) == []


def test_headings_go_down_one_level_at_a_time(visit) -> None:
    levels = visit("full", 1280, "light").evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
