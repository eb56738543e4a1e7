"""The page in a real browser, from disk: no error, no request, nothing clipped, at phone and desk width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import chromium
from report import sample_report as samples
from trueup.report.page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


pytestmark = chromium.needed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("a page with spaces")
    for name in ("full", "empty", "hostile"):
        (made / f"{name}.html").write_text(render(getattr(samples, name)()), encoding="utf-8")
    return made


@pytest.fixture
def visit(browser: Browser, folder: Path) -> Iterator[Any]:
    """Opens a page; at the end nothing may have been logged or asked of a network."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(name: str, width: int = 1280, *, folded: bool = False, anchor: str = "", **settings: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        address = (folder / f"{name}.html").as_uri()

        def asked(url: str) -> None:
            if url != address:
                complaints.append(url)

        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: asked(request.url.partition("#")[0]))
        page.goto(address + anchor)
        if not folded:
            page.evaluate("document.querySelectorAll('.fold').forEach(one => one.open = true)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


# Texts that leave their picture, with half a unit for rounding.
CLIPPED = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const outer = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < outer.left - .5 || box.right > outer.right + .5 ||
      box.top < outer.top - .5 || box.bottom > outer.bottom + .5);
  }).map(text => text.textContent);
})"""
# Two texts of one picture on top of each other.
OVERLAPPING = """() => [...document.querySelectorAll('svg.plot')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4).map(([other]) => `${one} / ${other}`));
})"""
# Elements whose own text is wider than their box while the box hides it.
HIDDEN = """() => [...document.querySelectorAll('main *, header *, footer *')].filter(one =>
  one.clientWidth > 1 && one.scrollWidth > one.clientWidth + 1 && !one.closest('svg') &&
  ['hidden', 'clip'].includes(getComputedStyle(one).overflowX)).map(one => one.className || one.tagName)"""
SIZES = """() => [...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility())
  .map(svg => svg.getBoundingClientRect()).map(box => Math.min(box.width, box.height))"""
LETTERS = """() => Math.min(...[...document.querySelectorAll('svg.plot text')].map(text =>
  parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width /
  text.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [400, pytest.param(800, marks=pytest.mark.slow), 1280])
@pytest.mark.parametrize("name", ["full", "empty", "hostile"])
def test_layout(visit, name: str, width: int, scheme: str) -> None:
    page = visit(name, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(OVERLAPPING) == []
    assert page.evaluate(HIDDEN) == []
    assert all(size > 4 for size in page.evaluate(SIZES))


@pytest.mark.parametrize("width", [400, 1280])
def test_letters_in_pictures_are_legible(visit, width: int) -> None:
    assert visit("full", width).evaluate(LETTERS) >= 11


CONTRAST = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = parts(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() && !one.closest('svg') &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), one.className || one.tagName];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_text(visit, scheme: str) -> None:
    assert visit("full", 1280, color_scheme=scheme).evaluate(CONTRAST) == []


def test_scripts_of_data_stay_text(visit) -> None:
    page = visit("hostile")
    assert page.locator("h1").inner_text() == samples.SCRIPT
    assert page.locator("script").count() == 1
    assert any(samples.SCRIPT in text for text in page.locator(".answer").all_inner_texts())
    assert page.locator("main").is_visible()
    assert page.evaluate("document.body.innerText.includes('{{7*7}}')")


def test_the_policy_stops_other_scripts(browser: Browser, folder: Path) -> None:
    """A script that got in all the same does not run."""
    spoiled = folder / "spoiled.html"
    text = (folder / "full.html").read_text(encoding="utf-8")
    spoiled.write_text(text.replace("<main>", "<main><script>document.title = 'ran'</script>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(spoiled.as_uri())
    assert page.title().startswith("HOLD")
    page.close()


def test_the_filter(visit) -> None:
    page = visit("full")
    shown = page.locator(".sample:visible")
    assert shown.count() == 6
    page.get_by_label("Search").fill("GARDEN")
    assert shown.count() == 1
    assert page.locator("#filter-count").inner_text() == "1 of 6 prompts"
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("document.querySelectorAll('.sample[hidden]').length === 0")
    page.get_by_label("Task").select_option("unsafe")
    assert shown.count() == 1
    page.get_by_label("Task").select_option("")
    page.get_by_label("changed only").check()
    assert shown.count() == 4


def test_the_filter_opens_what_was_folded(visit, folder: Path) -> None:
    report = samples.full()
    report.samples = [
        one.model_copy(update={"prompt": f"number {index}."}) for index, one in enumerate(samples.samples() * 3)
    ]
    (folder / "many.html").write_text(render(report), encoding="utf-8")
    page = visit("many")
    assert page.locator(".sample:visible").count() == 12
    page.get_by_label("Search").fill("number 1")
    assert page.locator(".sample:visible").count() == 9


def test_without_javascript(visit) -> None:
    page = visit("full", folded=True, java_script_enabled=False)
    assert page.locator(".sample:visible").count() == 0
    page.get_by_text("Samples", exact=True).last.click()
    assert page.locator(".sample").count() == 6
    assert page.locator(".sample").first.is_visible()
    assert not page.locator("#filter").is_visible()
    assert not page.get_by_role("button", name="Copy").first.is_visible()


def test_the_copy_button(visit) -> None:
    page = visit("full")
    button = page.locator("button[data-copies=command]")
    button.click()
    page.wait_for_function("document.querySelector('button[data-copies=command]').textContent !== 'Copy'")
    assert button.inner_text() in ("Copied", "Selected")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(visit) -> None:
    page = visit("full")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().width") > 20
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


HEIGHT = "document.documentElement.scrollHeight"


@pytest.mark.parametrize(("width", "most"), [(1280, 2500), (400, 4000)])
def test_the_closed_page_is_short_and_readable(visit, width: int, most: int) -> None:
    page = visit("full", width, folded=True)
    assert page.evaluate(HEIGHT) <= most
    assert page.locator(".hero").bounding_box()["y"] < 450  # the verdict without scrolling
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) == []
    assert page.locator(".sample:visible").count() == page.locator("figure:visible").count() == 0


@pytest.mark.parametrize("anchor", ["#models", "#not-measured", "#pictures", "#samples", "#run"])
def test_an_address_opens_its_fold(visit, anchor: str) -> None:
    page = visit("full", folded=True)
    inside = page.locator(f"{anchor} .scroll, {anchor} figure, {anchor} .sample, {anchor} .stage, {anchor} li").first
    assert not inside.is_visible()
    page.locator(f"nav a[href='{anchor}']").click()
    inside.wait_for(state="visible")
    assert (
        visit("full", folded=True, anchor=anchor).locator(f"{anchor} > *").last.is_visible()
    )  # in a link from outside


def test_print_shows_what_is_folded(visit) -> None:
    page = visit("full", 1000, folded=True)
    short = page.evaluate(HEIGHT)
    page.emulate_media(media="print")
    assert page.evaluate(HEIGHT) > 3 * short
    assert page.locator(".sample:visible").count() == 6
    assert page.locator("#models table").first.is_visible()


@pytest.mark.parametrize("width", [700, 1000])
def test_print(visit, width: int) -> None:
    page = visit("full", width, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#filter").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CLIPPED) == []
