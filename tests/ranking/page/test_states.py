"""Answers that are being written while a rater watches, and every state of the page under axe-core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import chromium
from ranking.page import axe
from ranking.page.browsing import SOON, Visit
from ranking.page.serving import Served, pair, store_of
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, NewPair, NewPrompt, StoredPrompt
from trueup.ranking.page import Access, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = chromium.needed


@dataclass
class Writing:
    prompt: StoredPrompt
    first: str = ""
    second: str = ""
    done: bool = False


@dataclass
class Models:
    """Models that write what a test tells them."""

    now: Writing | None = None
    doing: str = "loading"
    problem: str = ""
    blind: bool = False
    asked: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None: ...

    def stop(self, timeout: float = 2.0) -> None:
        self.stopped.set()

    def ask(self) -> None:
        self.asked += 1

    def writing(self) -> Writing | None:
        return self.now

    def state(self) -> str:
        return self.doing


@dataclass
class Stand:
    """A server in a thread, with models that a test leads."""

    store: Store
    models: Models
    address: str


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    models, stop, ready = Models(), threading.Event(), threading.Event()
    found: list[Access] = []

    def told(access: Access) -> None:
        found.append(access)
        ready.set()

    with Store.open(store_of(tmp_path / "votes.db", 0)) as store:
        given = {"say": lambda _line: None, "ready": told, "stop": stop}
        thread = threading.Thread(target=serve, args=(store, models, Access()), kwargs=given)
        thread.start()
        assert ready.wait(10)
        yield Stand(store, models, found[0].address.rstrip("/"))
        stop.set()
        thread.join(10)
    assert models.stopped.is_set()


PROMPT = NewPrompt((Message("user", "Why is the sky blue?"),))
FIRST, SECOND = "Because of **Rayleigh** scattering.", "Because of the sea."


def test_answers_grow_and_then_can_be_voted_on(stand: Stand, browser: Browser) -> None:
    ada = Visit(browser, stand.address)
    page, models = ada.page, stand.models
    assert page.locator("h1").inner_text() == "The models are getting ready"
    assert models.asked > 0
    stand.store.add_prompts([PROMPT])
    (prompt,) = stand.store.prompts()
    models.doing = "writing"
    models.now = Writing(prompt, "Because", "The sea")
    page.wait_for_selector("main[data-state=writing]")
    assert page.locator("h1").inner_text() == "The answers are being written"
    assert page.locator("#turns").inner_text().endswith("Why is the sky blue?")
    assert page.locator("[data-choice=a]").is_disabled()
    page.keyboard.press("1")
    models.now = Writing(prompt, FIRST, SECOND)
    page.get_by_text("scattering").wait_for()
    rater = stand.store.rater("Ada")
    left = stand.store.left_of(prompt.id, rater)
    a, b = (FIRST, SECOND) if left == "first" else (SECOND, FIRST)
    assert page.locator("#answer-a .body").inner_text() == a, "while it is written: as it is, on its final side"
    stand.store.add_pairs([NewPair(PROMPT, Answer(FIRST), Answer(SECOND))])
    models.now = Writing(prompt, FIRST, SECOND, done=True)
    page.wait_for_selector("main[data-state=pair]")
    assert ada.said == "Both answers are there: your vote."
    assert page.locator("#answer-b .body").inner_text() == b.replace("**", "")
    assert page.locator("#answers strong").inner_text() == "Rayleigh"
    page.wait_for_timeout(SOON)
    models.now, models.doing = Writing(prompt, FIRST, SECOND, done=True), "ahead"
    page.keyboard.press("1")
    page.wait_for_selector("main[data-state=waiting]")
    assert [vote.ballot.choice for vote in stand.store.votes()] == [left]
    models.doing = "done"
    page.wait_for_selector("main[data-state=done]")
    assert ada.complaints == []
    ada.close()


def test_models_that_failed(stand: Stand, browser: Browser) -> None:
    stand.models.doing, stand.models.problem = "failed", "the model's folder has no <weights>"
    ada = Visit(browser, stand.address)
    assert ada.page.locator("h1").inner_text() == "No more answers for now"
    shown = ada.page.locator("#end").inner_text()
    assert "The reason is in the terminal" in shown
    assert "weights" not in shown
    ada.close()


# ---- axe-core

RICH = """# Title

Text with `code`, **bold** and [a link](https://a.example).

```python
def f(x):  # why
    return {'a': 1.5, 'b': None}  # long long long long long long long long long long long long long long long
```

| a | b |
|--|--:|
| 1 | 2 |

> said

1. one
2. two

![a cat](https://a.example/cat.png) zero\u200bwidth
"""
DIFF = """```diff
- old
+ new
@@ 1 @@
```

```json
{"a": [1, true]}
```

```html
<a href='x'>y</a> <!-- c -->
```
"""
TURNS = (
    Message("system", "Be brief."),
    Message("user", "Hello " * 200),
    Message("assistant", RICH),
    Message("user", RICH * 12),
)
SLOW = pytest.mark.slow
LOOKS = [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]


def looks(quick: tuple[int, str]) -> list[Any]:
    """All sizes and schemes; `make test` tries one of them."""
    return [look if look == quick else pytest.param(*look, marks=SLOW) for look in LOOKS]


@pytest.mark.parametrize(("width", "scheme"), looks((1280, "light")))
def test_axe_finds_nothing(
    tmp_path: Path, start: Callable[..., Served], browser: Browser, width: int, scheme: str
) -> None:
    """Join, the pairs, undone, help, edit, a server that is gone, the end."""
    pairs = [
        pair(1, prompt=NewPrompt(TURNS), first=Answer(RICH), second=Answer(DIFF)),
        pair(2, first=Answer("z" * 50_000)),
    ]
    path = store_of(tmp_path / "votes.db", pairs)
    server = start(path)
    tab = Visit(browser, server.address, "", width=width, color_scheme=scheme)
    page, found = tab.page, {}

    def check(state: str) -> None:
        if bad := axe.violations(page):
            found[state] = bad

    check("join")
    page.get_by_label("Your name").fill("Ada")
    page.keyboard.press("Enter")
    page.wait_for_selector("main[data-state=pair]")
    check("first pair")
    page.keyboard.press("w")
    page.keyboard.press("r")
    page.keyboard.press("Space")
    page.keyboard.press("i")
    check("edit")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    check("plain")
    page.keyboard.press("?")
    check("help")
    page.keyboard.press("Escape")
    tab.press("1")
    check("second pair")
    tab.press("u")
    check("undone")
    tab.press("2")
    server.kill()
    page.wait_for_timeout(SOON)
    page.keyboard.press("4")
    page.wait_for_selector("#said.wait")
    check("not saved")
    start(path, port=server.port)
    page.wait_for_selector("main[data-state=done]")
    check("end")
    tab.close()
    assert found == {}


@pytest.mark.parametrize(("width", "scheme"), looks((390, "dark")))
def test_axe_finds_nothing_while_answers_are_written(stand: Stand, browser: Browser, width: int, scheme: str) -> None:
    tab = Visit(browser, stand.address, width=width, color_scheme=scheme)
    found = {"waiting": axe.violations(tab.page)}
    stand.store.add_prompts([PROMPT])
    stand.models.now = Writing(stand.store.prompts()[0], FIRST, SECOND)
    tab.page.wait_for_selector("main[data-state=writing]")
    found["writing"] = axe.violations(tab.page)
    stand.models.doing, stand.models.problem = "failed", "the model is gone"
    tab.page.wait_for_selector("main[data-state=failed]")
    found["failed"] = axe.violations(tab.page)
    tab.close()
    assert found == {"waiting": [], "writing": [], "failed": []}


def test_axe_would_find_something(tmp_path: Path, start: Callable[..., Served], browser: Browser) -> None:
    tab = Visit(browser, start(store_of(tmp_path / "votes.db", 1)).address)
    tab.page.evaluate("document.querySelector('#far').style.color = '#ddd'")
    tab.page.evaluate("document.querySelector('#note').labels[0].remove()")
    found = " ".join(axe.violations(tab.page))
    assert "color-contrast" in found
    assert "label" in found
    tab.close()


SMALL = """() => [...document.querySelectorAll('button, input, a, summary')]
  .filter(one => one.checkVisibility() && !one.closest('.body'))
  .map(one => [(one.closest('label') ?? one).getBoundingClientRect(), one.id || one.textContent])
  .filter(([box]) => box.width > 1 && (box.width < 24 || box.height < 24))
  .map(([box, name]) => `${name} ${box.width}x${box.height}`)"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_targets_are_large_enough(tmp_path: Path, start: Callable[..., Served], browser: Browser, width: int) -> None:
    """24 pixels each way, WCAG 2.2's least; the vote's own are 38 and more."""
    tab = Visit(browser, start(store_of(tmp_path / "votes.db", 1)).address, width=width)
    tab.page.keyboard.press("i")
    assert tab.page.evaluate(SMALL) == []
    heights = [box["height"] for one in tab.page.locator("#vote button").all() if (box := one.bounding_box())]
    assert min(heights) >= 36
    tab.close()


@pytest.mark.slow
def test_forced_colours_and_less_motion(tmp_path: Path, start: Callable[..., Served], browser: Browser) -> None:
    """What is pressed is told apart where the page's colours do not count; nothing blinks for who wants no motion."""
    tab = Visit(
        browser, start(store_of(tmp_path / "votes.db", 1)).address, forced_colors="active", reduced_motion="reduce"
    )
    tab.page.keyboard.press("w")
    outlines = [
        one.evaluate("one => getComputedStyle(one).outlineStyle") for one in tab.page.locator("[data-strength]").all()
    ]
    assert outlines == ["none", "solid", "none"]
    tab.page.evaluate("document.querySelector('#answers').setAttribute('aria-busy', 'true')")
    body = "getComputedStyle(document.querySelector('.answer .body'), '::after').animationName"
    assert tab.page.evaluate(body) == "none"
    tab.close()


@pytest.mark.slow
def test_the_focus_is_never_under_the_bar(tmp_path: Path, start: Callable[..., Served], browser: Browser) -> None:
    """Tab through the whole page: each stop is seen, with an outline, and above the bar or in it (WCAG 2.4.11)."""
    long = "A paragraph with [a link](https://a.example).\n\n" * 30
    tab = Visit(browser, start(store_of(tmp_path / "votes.db", [pair(1, first=Answer(long))])).address)
    page: Page = tab.page
    stops = 0
    page.evaluate("document.querySelector('.skip').focus()")
    for _ in range(80):
        page.keyboard.press("Tab")
        hidden = page.evaluate("""() => { const one = document.activeElement;
          if (one === document.body) return 'end';
          const box = one.getBoundingClientRect(), bar = document.querySelector('#vote');
          if (getComputedStyle(one).outlineStyle !== 'solid') return `no outline: ${one.id}`;
          const seen = bar.contains(one) || box.top < bar.getBoundingClientRect().top - 10;
          return seen ? '' : `hidden: ${one.id} ${box.top}`; }""")
        if hidden == "end":
            break
        assert hidden == ""
        stops += 1
    assert stops > 45
    tab.close()
