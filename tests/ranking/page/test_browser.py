"""The page in a real browser, as a person uses it: by keyboard alone, through refreshes, undos and a killed server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import chromium
from ranking.page import axe
from ranking.page.browsing import SOON, Visit
from ranking.page.serving import Served, Visitor, alias, pair, store_of
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, NewPrompt

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = chromium.needed


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a tab; at the end nothing may have been logged, and nothing asked of anywhere else."""
    visits: list[Visit] = []

    def begin(server: Served, name: str = "Ada", **settings: Any) -> Visit:
        visits.append(Visit(browser, server.address, name, **settings))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()
        assert one.complaints == []
        assert {url for url in one.requests if not url.startswith(f"{one.address}/")} == set()


def ballots(path: Path) -> list[tuple[str, str]]:
    """(pair's alias on the page, choice as A or B) of every vote that stands, in order."""
    with Store.open(path) as store:
        votes = store.votes()
        aliases = [alias(store, vote) for vote in votes]
    right = {vote.id: "second" if vote.left == "first" else "first" for vote in votes}
    letters = [{vote.left: "a", right[vote.id]: "b"}.get(vote.ballot.choice, vote.ballot.choice) for vote in votes]
    return list(zip(aliases, letters, strict=True))


def test_a_whole_session(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    """Twenty pairs by keyboard, with undo, refresh, and kill -9 in the middle: every vote is there once."""
    path = store_of(tmp_path / "votes.db", 20)
    server = start(path)
    ada = visit(server)
    page, given = ada.page, []
    keys = {"1": "a", "2": "b", "3": "tie", "4": "both_bad", "s": "skip"}

    def rank(count: int) -> None:
        for number in range(count):
            key = "1212312412"[number % 10]
            given.append((ada.shown, keys[key]))
            ada.press(key)

    rank(6)
    assert ada.said == "Saved: A is better. Next pair."
    assert page.locator("#far").inner_text().startswith("6 voted")

    before = ada.shown
    page.reload()
    page.wait_for_selector("main[data-state=pair]")
    assert ada.shown == before, "a refresh shows the same pair"

    undone = given.pop()
    assert ada.press("u") == undone[0]
    assert ada.said.startswith("Undone")
    given.append((ada.shown, "skip"))
    assert ada.press("s") == before
    rank(5)

    # The server dies, with a vote on its way.
    server.kill()
    last = ada.shown
    page.wait_for_timeout(SOON)
    page.keyboard.press("2")
    page.wait_for_selector("#said.wait")
    assert ada.said == "Not saved yet: the server does not answer. Trying again."
    page.keyboard.press("1")  # nothing: the first vote is on its way
    page.wait_for_timeout(700)
    assert ada.shown == last
    assert "Saved" not in ada.said
    ada.complaints.clear()  # the browser's own words about a server that is gone
    assert ballots(path) == given

    start(path, port=server.port)
    page.wait_for_selector(f'main:not([data-pair="{last}"])')
    assert ada.said == "Saved: B is better. Next pair."
    ada.complaints.clear()
    given.append((last, "b"))
    rank(20 - len(given))

    page.wait_for_selector("main[data-state=done]")
    assert page.locator("h1").inner_text() == "All done. Thank you."
    assert "You voted on 19 pairs and skipped 1." in page.locator("#end").inner_text()
    assert ballots(path) == given
    assert len({pair for pair, _ in given}) == 20


@pytest.mark.slow
def test_a_vote_on_its_way_outlives_a_refresh(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """Its answer was lost, the page was closed and opened again in the tab: it is one vote."""
    path = store_of(tmp_path / "votes.db", 3)
    server = start(path)
    ada = visit(server)
    page, first = ada.page, ada.shown
    lost = []

    def lose(route: Any) -> None:
        lost.append(route.fetch().status)  # the server has it
        route.abort()

    page.route("**/api/vote", lose, times=1)
    page.route("**/api/vote", lambda route: route.abort(), times=1)
    page.wait_for_timeout(SOON)
    page.keyboard.press("1")
    page.wait_for_selector("#said.wait")
    page.reload()
    page.wait_for_selector(f'main[data-state=pair]:not([data-pair="{first}"])')
    assert lost == [200]
    assert ada.said == "Saved: A is better. Next pair."
    assert ballots(path) == [(first, "a")]
    ada.complaints.clear()


@pytest.mark.slow
def test_what_was_said_besides_goes_with_the_vote_and_comes_back(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """Strength, reasons, note and a better answer, by keyboard; through a refresh, and back by undo."""
    path = store_of(tmp_path / "votes.db", 2)
    ada = visit(start(path))
    page, first = ada.page, ada.shown
    keyboard = page.keyboard
    keyboard.press("q")
    keyboard.press("e")
    keyboard.press("r")
    keyboard.press("Space")
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Space")
    keyboard.press("n")
    keyboard.type("1234 suq? in a note")
    keyboard.press("Escape")
    keyboard.press("i")
    page.get_by_role("button", name="Start from B").focus()
    keyboard.press("Enter")
    keyboard.press("Control+End")
    keyboard.type(", mended")
    page.reload()
    page.wait_for_selector("main[data-state=pair]")
    assert ada.shown == first
    edit = page.locator("#edit").input_value()
    assert edit.endswith(", mended")
    page.locator("h1").focus()
    ada.press("2")
    assert ada.said == "Saved: B is much better. Next pair."
    assert page.locator("#note").input_value() == ""
    assert page.locator("#reasons input:checked, [aria-pressed=true], .chosen, .sending").count() == 0, (
        "nothing is pre-checked"
    )
    with Store.open(path) as store:
        (vote,) = store.votes()
    ballot = vote.ballot
    assert (ballot.choice, ballot.strength) == ("first" if vote.left == "second" else "second", 3)
    assert ballot.reasons == ("correct", "clear")
    assert ballot.note == "1234 suq? in a note"
    assert (ballot.edit, ballot.edit_of) == (edit, ballot.choice)
    assert ballot.seconds is not None
    assert 0 < ballot.seconds < 60
    assert ada.press("u") == first
    assert page.locator("[data-choice=b].chosen").count() == 1
    assert page.locator("#answer-b .mine").inner_text() == "your choice before"
    assert page.locator("[data-strength='3']").get_attribute("aria-pressed") == "true"
    assert page.locator("#reasons input:checked").count() == 2
    assert page.locator("#note").input_value() == ballot.note
    assert page.locator("#edit").input_value() == edit


def test_keys_that_do_nothing(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    """In fields, with Ctrl or Alt, held down, in the help, and when they are turned off."""
    path = store_of(tmp_path / "votes.db", 9)
    ada = visit(start(path))
    page, first = ada.page, ada.shown
    page.wait_for_timeout(SOON)
    for keys in ("Control+1", "Alt+2", "Meta+3"):
        page.keyboard.press(keys)
    page.keyboard.press("?")
    assert page.locator("#help").evaluate("dialog => dialog.open")
    assert page.evaluate("document.activeElement.id") == "close"
    page.keyboard.press("1")
    page.get_by_role("button", name="Turn the single keys off").click()
    page.keyboard.press("Escape")
    for key in "1234su":
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert ada.shown == first
    page.get_by_role("button", name="Help").click()
    page.get_by_role("button", name="Turn the single keys on").click()
    page.keyboard.press("Escape")
    page.wait_for_timeout(SOON)
    page.keyboard.down("1")  # held: the browser repeats it
    page.keyboard.down("1")
    page.keyboard.down("1")
    page.wait_for_selector(f'main:not([data-pair="{first}"])')
    page.wait_for_timeout(400)
    page.keyboard.up("1")
    assert len(ballots(path)) == 1


def test_buttons_vote_too_and_the_focus_goes_to_the_heading(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    path = store_of(tmp_path / "votes.db", 5)
    ada = visit(start(path))
    page, first = ada.page, ada.shown
    page.wait_for_timeout(SOON)
    page.get_by_role("button", name="clearly").click()
    page.get_by_role("button", name="A is better").click()
    page.wait_for_selector(f'main:not([data-pair="{first}"])')
    assert page.evaluate("document.activeElement.id") == "title"
    assert page.locator("[role=status]#said").inner_text() == "Saved: A is clearly better. Next pair."
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector(f'main[data-pair="{first}"]')
    assert ballots(path) == []


@pytest.mark.slow
def test_two_tabs_of_one_rater(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    """The second vote on a pair is refused, in words, and what was typed for it is not carried to the next."""
    path = store_of(tmp_path / "votes.db", 4)
    server = start(path)
    ada = visit(server)
    other = ada.context.new_page()
    other.goto(server.address)
    other.wait_for_selector("main[data-state=pair]")
    first = ada.shown
    assert other.get_attribute("#main", "data-pair") == str(first)
    ada.press("1")
    other.wait_for_timeout(SOON)
    other.keyboard.press("2")
    other.wait_for_selector(f'main:not([data-pair="{first}"])')
    assert (
        other.locator("#said").inner_text().startswith("Not saved: the vote")
        or "has voted on it" in other.locator("#said").inner_text()
    )
    assert ballots(path) == [(first, "a")]
    ada.complaints.clear()


@pytest.mark.slow
def test_a_late_undo_takes_nothing_else_back(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """Another window has voted since: it says so, and the next press takes that vote back, which is seen by then."""
    path = store_of(tmp_path / "votes.db", 4)
    server = start(path)
    ada = visit(server)
    ada.press("1")
    other = ada.context.new_page()
    other.goto(server.address)
    other.wait_for_selector("main[data-state=pair]")
    ada.press("2")
    other.keyboard.press("u")
    other.wait_for_selector("#said.wait")
    said = "Not taken back: you have voted since, in another window: press undo again"
    assert other.locator("#said").inner_text() == said
    assert len(ballots(path)) == 2
    other.keyboard.press("u")
    other.wait_for_selector("#said:has-text('Undone')")
    assert len(ballots(path)) == 1
    ada.complaints.clear()  # the browser's own word on a 409


@pytest.mark.slow
def test_two_people_at_once(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    path = store_of(tmp_path / "votes.db", 12)
    server = start(path)
    ada, bob = visit(server, "Ada"), visit(server, "Bob")
    seen = []
    for _ in range(6):
        for one in (ada, bob):
            seen.append(one.shown)
            assert ada.shown != bob.shown
            one.press("1")
    assert len(set(seen)) == 12


@pytest.mark.slow
def test_the_end_says_when_there_is_more(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    path = store_of(tmp_path / "votes.db", 1)
    ada = visit(start(path))
    ada.press("3")
    ada.page.wait_for_selector("main[data-state=done]")
    ada.page.get_by_role("link", name="What the votes say so far").click()
    assert "1 vote" in ada.page.locator("h1").inner_text()
    ada.page.go_back()
    ada.page.wait_for_selector("main[data-state=done]")
    with Store.open(path) as store:
        store.add_pairs([pair(77)])
    ada.page.get_by_role("button", name="There are more pairs: go on").click(timeout=15_000)
    ada.page.wait_for_selector("main[data-state=pair]")
    assert "Question 77?" in ada.page.locator("#prompt").inner_text()


@pytest.mark.slow
def test_a_link_from_elsewhere_signs_in_and_leaves_the_address_bar(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit], browser: Browser
) -> None:
    """The link is on another site's page, where a strict cookie would be lost on a redirect."""
    path = store_of(tmp_path / "votes.db", 1)
    with Store.open(path) as store:
        token = store.invite("Bob")
    server = start(path, token_needed=True, owner="Ada")
    tab = visit(server, "")
    assert "you need a link of your own" in tab.page.locator("main").inner_text()
    elsewhere = "http://elsewhere.example/"
    link = f"<a href='{server.address}/join?token={token}'>rank</a>"
    tab.page.route(elsewhere, lambda route: route.fulfill(body=link, content_type="text/html"))
    tab.page.goto(elsewhere)
    tab.page.get_by_text("rank").click()
    tab.page.wait_for_selector("main[data-state=pair]")
    assert tab.page.url == f"{server.address}/"
    assert tab.page.locator("#leave").inner_text().startswith("Bob")
    tab.requests.remove(elsewhere)


@pytest.mark.slow
def test_a_link_of_another_asks_before_it_signs_in(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit], browser: Browser
) -> None:
    """From another site's page too, where the browser sends no strict cookie; axe finds nothing in the question."""
    path = store_of(tmp_path / "votes.db", 2)
    with Store.open(path) as store:
        links = {name: store.invite(name) for name in ("ana", "mal")}
    server = start(path, token_needed=True)
    tab = visit(server, "")
    page, elsewhere = tab.page, "http://elsewhere.example/"
    page.goto(f"{server.address}/join?token={links['ana']}")
    page.wait_for_selector("main[data-state=pair]")
    link = f"<a href='{server.address}/join?token={links['mal']}'>rank</a>"
    page.route(elsewhere, lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto(elsewhere)
    page.get_by_text("rank").click()
    page.wait_for_selector("#join")
    assert "Go on as mal?" in page.locator("h1").inner_text()
    assert axe.violations(page) == []
    page.get_by_text("Back to the ranking").click()
    page.wait_for_selector("main[data-state=pair]")
    assert page.locator("#leave").inner_text().startswith("ana")
    page.goto(f"{server.address}/join?token={links['mal']}")
    assert page.locator("h1").inner_text() == "You are ana here. Go on as mal?"
    page.get_by_role("button", name="Go on as mal").click()
    page.wait_for_selector("main[data-state=pair]")
    assert page.locator("#leave").inner_text().startswith("mal")
    tab.requests.remove(elsewhere)


HOSTILE = [
    "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>",
    "[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>)",
    "![p](https://evil.example/p.png) ![d](data:image/svg+xml;base64,PHN2Zz4=)",
    '<svg onload=alert(1)><style>*{display:none!important}</style></main></body><iframe src="https://evil.example">',
    "over\u202eridden\u2066 and never closed\u202b",
    "zero\u200bwidth\u200d and \ufeff and \U000e0041 tags",
    "x" * 60_000,
    "n" * 1_000_000,
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319" * 2000,
    "> " * 5000 + "deep",
    "[" * 15_000,
    "|a" * 60 + "|\n" + "|-" * 60 + "|\n" + ("|" + "very_long_cell_without_a_break" * 3) * 60,
    "```python\n" + "very_long_line = " * 300 + "\n```",
    "<link rel=prefetch href=https://evil.example/> <base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "{{7*7}} {% raw %} ${1} `<b>` \x1b[2J \x00",
    "# " + "heading " * 3000,
    "   \n  ",
]


@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.slow)])
def test_hostile_answers_are_harmless(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit], width: int
) -> None:
    """No dialog, no request, no complaint of the policy, and the page keeps its layout, plain and as Markdown.

    Each text is an answer once, and once in a prompt: two of them on a page.
    """
    couples = [(HOSTILE[index], HOSTILE[index - 1]) for index in range(0, len(HOSTILE), 2)]
    prompts = [
        NewPrompt((Message("system", other), Message("user", f"{number} {text}")))
        for number, (text, other) in enumerate(couples)
    ]
    pairs = [
        pair(0, prompt=prompts[number], first=Answer(text), second=Answer(couples[number - 1][1]))
        for number, (text, _) in enumerate(couples)
    ]
    path = store_of(tmp_path / "votes.db", pairs)
    ada = visit(start(path), width=width)
    page = ada.page
    for _ in pairs:
        for key in "pp":
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
                ada.shown
            )
            bar = page.locator("#vote").bounding_box()
            assert bar is not None
            assert bar["y"] + bar["height"] <= 861
            assert (
                page.locator("#answers img, #answers script, #answers style, #answers iframe, #answers svg").count()
                == 0
            )
            assert page.evaluate("document.title") == "Rank answers"
            page.keyboard.press(key)
        ada.press("3") if page.get_attribute("#main", "data-state") == "pair" else None
    assert page.get_attribute("#main", "data-state") == "done"
    assert len(ballots(path)) == len(pairs)


def test_direction_controls_of_an_answer_stay_inside_it(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """The words after an answer are where they would be without it."""
    evil = "a\u202eb\u2067c\u202breversed"
    path = store_of(tmp_path / "votes.db", [pair(1, first=Answer(evil), second=Answer("plain"))])
    ada = visit(start(path))
    text = ada.page.locator("#answers").inner_text()
    assert "RLO" in text
    assert not set(text) & set("\u202e\u2067\u202b")
    assert ada.page.evaluate("getComputedStyle(document.querySelector('#vote')).direction") == "ltr"


@pytest.mark.slow
def test_many_turns_are_readable(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    """Who said what; a long earlier turn is folded, and opens."""
    turns = (
        Message("system", "Be brief."),
        Message("user", "Hello " * 300),
        Message("assistant", "Hi."),
        Message("user", "And now?"),
    )
    ada = visit(start(store_of(tmp_path / "votes.db", [pair(1, prompt=NewPrompt(turns))])))
    prompt = ada.page.locator("#turns")
    assert [role.inner_text() for role in prompt.locator(".role, summary b").all()] == [
        "System",
        "User",
        "Assistant",
        "User",
    ]
    folded = prompt.locator("details")
    assert folded.count() == 1
    assert folded.locator(".body").is_hidden()
    folded.locator("summary").click()
    assert folded.locator(".body").is_visible()


def test_an_injected_script_does_not_run(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """Should HTML of an answer get through all the same, the policy stops it."""
    ada = visit(start(store_of(tmp_path / "votes.db", 1)))
    evil = "<img src=x onerror='document.title=1'><p style='color:red'>"
    ada.page.evaluate("evil => { document.querySelector('#answers').innerHTML = evil }", evil)
    ada.page.wait_for_timeout(200)
    assert ada.page.title() == "Rank answers"
    assert any("Content Security Policy" in one for one in ada.complaints)
    ada.complaints.clear()


def test_without_javascript(tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]) -> None:
    tab = visit(start(store_of(tmp_path / "votes.db", 1)), "", java_script_enabled=False)
    assert tab.page.locator("noscript .problem").is_visible()


def test_the_server_over_http_agrees_with_the_page(
    tmp_path: Path, start: Callable[..., Served], visit: Callable[..., Visit]
) -> None:
    """What a script votes under a name is undone by the page under the same name."""
    path = store_of(tmp_path / "votes.db", 3)
    server = start(path)
    script = Visitor(server.port).join("Ada")
    first = script.state()["pair"]
    script.vote(first, "b")
    ada = visit(server, "Ada")
    assert ada.press("u") == first["id"]
    assert ballots(path) == []
