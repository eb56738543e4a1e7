"""The page and the terminal: nothing that people wrote can act, and nothing unmeasured has a number."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ranking.results.votes import pair, store, vote
from trueup.data.votes.vote_types import StoreSettings
from trueup.pages.html import policy
from trueup.pages.numbers import percent, percent_interval
from trueup.ranking.results import page, terminal, view
from trueup.ranking.results.phrases import share, votes_needed
from trueup.ranking.results.results_schema import More, ResultsNumber

HOSTILE = "<script>alert(1)</script>"
NAMES = (HOSTILE, '"><img src=x onerror=alert(1)>', "\u202eevil\x1b[31m", "{{7*7}}\n\n</style>", "a" * 300)


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))


def full():
    pairs, votes = store(
        {"runs/demo/sft": 0, "runs/demo/dpo": 0.6, "runs/demo/ppo": 1.2},
        prompts=150, k=2, raters=4, tags=("code", "maths"), reasons=("clear", "correct"), uncertain=0.3,
    )  # fmt: skip
    return view(pairs, votes, settings=StoreSettings(raters_per_pair=2))


def hostile():
    """Names of models, tags, reasons and raters that try everything."""
    pairs, votes = store(
        {NAMES[0]: 0, NAMES[1]: 0.3, NAMES[2]: 1}, prompts=60, k=2, raters=3, tags=NAMES, reasons=NAMES
    )
    votes = [replace(one, rater=replace(one.rater, name=NAMES[one.rater.id])) for one in votes]
    return view(pairs, votes)


@pytest.mark.parametrize("made", [full, hostile, lambda: view([], [])])
def test_the_page_is_self_contained_and_cannot_act(made) -> None:
    text = page(made())
    tags = Tags(text).seen
    assert not {"script", "img", "iframe", "link", "form", "object", "base"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        assert re.match(r"#|$", attributes.get("href") or "")
        assert not {"src", "srcset", "action"} & attributes.keys()
    policies = [one["content"] for tag, one in tags if tag == "meta" and one.get("http-equiv")]
    assert policies == [policy()]
    assert "default-src 'none'" in policies[0]
    assert "script-src" not in policies[0]
    assert "url(" not in text
    assert "@import" not in text


def test_text_from_people_is_shown_escaped() -> None:
    text = page(hostile())
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{7*7}}" in text
    assert "</style>" not in text.split("</style>", 1)[1]
    assert "\u202e" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("made", [full, hostile, lambda: view([], [])])
def test_the_terminal_fits_80_columns_and_cannot_act(made) -> None:
    text = terminal(made())
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)


def test_page_and_terminal_say_the_same_numbers() -> None:
    made = full()
    text, said = page(made), " ".join(terminal(made).split())
    for one in made.samples[0].pairings:
        assert isinstance(one.rate, ResultsNumber)
        assert percent(one.rate.value) in text
        assert percent_interval(one.rate) in text
        assert f"{share(one.rate)} n {one.rate.n}" in said
    assert f"alpha, nominal: {made.agreement.nominal.value:.2f}".replace("-", "-") in said
    for gap in made.not_measured:
        assert gap.why in text
        assert gap.why in said


def test_an_empty_store_shows_no_number_and_says_not_measured() -> None:
    made = view([], [])
    body = page(made).split("<main>")[1].split('id="how"')[0]
    assert "%" not in re.sub(r"<[^>]*>", "", body)
    assert body.lower().count("not measured") > 5
    assert "NOT MEASURED" in terminal(made)
    assert "%" not in terminal(made)


def test_the_undefeated_are_shown_with_an_open_end() -> None:
    made = view([pair(at) for at in range(1, 9)], [vote(at, at, "first") for at in range(1, 9)])
    text = page(made)
    assert "…]" in text
    assert 'class="arrow"' in text
    assert "…]" in terminal(made)


def test_more_votes_in_words() -> None:
    assert votes_needed(More(state="too close", limit=10_000)) == "too close to call: more than 10,000 more votes"
    assert votes_needed(More(state="more", votes=1, limit=10_000)).startswith("about 1 more vote for")
    assert votes_needed(More(state="decided", prompts=4, limit=10_000)) == "none, if this is the only look"
    assert votes_needed(More(state="decided", prompts=0, limit=10_000)) == "none: it is decided"


def test_many_models_stay_one_page() -> None:
    made = view(*store({f"m{at}": at / 9 for at in range(20)}, prompts=2000, tags=tuple("abcdefgh")))
    text = page(made)
    assert len(text) < 3_000_000
    assert "186 more pairings" in text
    assert len(terminal(made).splitlines()) < 400
