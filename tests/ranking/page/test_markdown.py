"""Answers as HTML: nothing in it acts, everything in it is seen, and none takes long."""

from __future__ import annotations

import re
import time
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorough import trials
from trueup.ranking.page import markdown
from trueup.ranking.page.invisible import as_html
from trueup.ranking.page.markdown import MOST_MARKDOWN, MOST_SHOWN, plain, rendered

TAGS = {
    "a",
    "blockquote",
    "br",
    "code",
    "details",
    "div",
    "em",
    "h3",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "summary",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
}
ATTRIBUTES = {"class", "href", "target", "rel", "dir", "role", "aria-label", "start", "title"}
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Seen(HTMLParser):
    """The tags and attributes of some HTML, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def html(text: str) -> str:
    made = rendered(text)
    assert made is not None
    return made


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "</div></section><style>*{display:none}</style>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](&#106;avascript:alert(1))",
    "<javascript:alert(1)>",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x) [y](file:///etc/passwd) [z](/api/undo) [w](//evil.example/)",
    "![x](https://evil.example/a.png) ![y](data:image/svg+xml;base64,PHN2Zz4=)",
    '![" onload="alert(1)](https://evil.example/" onerror="alert(1))',
    '[x](https://a.example/"onclick="alert(1) "title\\" onmouseover=\\"alert(1)")',
    '[a]: https://a.example/"x" "t"\n\n[a]',
    '```py" onclick="alert(1)\ncode\n```',
    "```python\n</code></pre><script>alert(1)</script>\n```",
    "~~~html\n<script>alert('x')</script>\n~~~",
    "<!-- x --> <?php ?> <![CDATA[x]]> <!DOCTYPE html>",
    "# <b onclick=alert(1)>x</b>",
    "| <i> | [x](javascript:1) |\n|:-:|--|\n| ![q](x) | `<b>` |",
    "&lt;script&gt; &#60;script&#62; &NewLine;",
    "https://bare.example/",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_an_answer_acts(text: str) -> None:
    for made in (html(text), plain(text)):
        seen = Seen(made)
        assert seen.tags <= TAGS
        assert {name for name, _ in seen.attributes} <= ATTRIBUTES
        for name, value in seen.attributes:
            assert name != "href" or re.match(r"(https?://|mailto:)", value or "")


markup = st.text(st.sampled_from("<>[]()!*_`~#-+|:\\/\"'= \n\tajsx1.&;\u202e\u200b\u0645é{}$@"), max_size=300)
words = st.sampled_from(
    ["javascript:", "https://a.b/", "mailto:a@b", "```python\n", "![", "](", "<img src=x onerror=y>", "|-|", "&#8238;"]
)


@trials()
@given(st.lists(st.one_of(markup, words)).map("".join))
def test_nothing_in_any_text_acts(text: str) -> None:
    """Also by chance: every tag is one of ours, every attribute too, and no invisible character is left."""
    made = rendered(text)
    for one in (plain(text), *([] if made is None else [made])):
        seen = Seen(one)
        assert seen.tags <= TAGS
        assert {name for name, _ in seen.attributes} <= ATTRIBUTES
        assert not INVISIBLE.search(one)


@trials()
@given(st.text(max_size=200))
def test_plain_text_is_all_there(text: str) -> None:
    visible = re.sub(r'<span class="mark".*?</span>', "", plain(text))
    kept = Counter(char for char in text if char not in "\r\n" and as_html(char) in (char, "&lt;", "&gt;", "&amp;"))
    assert kept <= Counter(Seen(visible).text)


def test_what_markdown_looks_like() -> None:
    made = html(
        "# Title\n\n2. two\n\n> said\n\n**b** *i* ~~s~~ `c`\n\n[l](https://a.example/?q=1&r=2) <https://b.example>\n\n"
        "| a | b |\n|:--|--:|\n| 1 | 2 |\n\n```python\nx = 'y'\n```\n\n    plain code\n\n![a *cat*](https://c.example/cat.png)"
    )
    assert '<h3 class="h1" dir="auto">Title</h3>' in made
    assert '<ol dir="auto" start="2">' in made
    assert '<blockquote dir="auto">' in made
    assert "<strong>b</strong> <em>i</em> <s>s</s> <code>c</code>" in made
    link = 'target="_blank" rel="noopener noreferrer nofollow"'
    assert f'<a href="https://a.example/?q=1&amp;r=2" {link}>l</a>' in made
    assert f'<a href="https://b.example" {link}>https://b.example</a>' in made
    assert '<th class="left">a</th>\n<th class="right">b</th>' in made
    assert "<span class=\"s1\">'y'</span>" in made
    assert "<code>plain code\n</code>" in made
    assert "a cat <code>https://c.example/cat.png</code></span>" in made
    assert "<img" not in made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "RLO"),
        ("a\u200b\u200b\u200bb", "ZWSP\u00d73"),
        ("a\u2066b\u2069", "LRI"),
        ("a\xadb", "SHY"),
        ("\ufeffa", "BOM"),
        ("a\x1b[2J", "ESC"),
        ("a\x00b", "NUL"),
        ("a\u3164b", "U+3164"),
        ("a\U000e0041b", "U+E0041"),
        ("a\u200db", "ZWJ"),
        ("x\ufe0fy", "U+FE0F"),
        ("a\u200cb", "ZWNJ"),
        ("1\u2028 2", "LS"),
        ("a\u061cb", "ALM"),
    ],
)
def test_invisible_characters_are_seen(text: str, shown: str) -> None:
    made = as_html(text)
    assert f">{shown}</span>" in made
    assert Seen(made).text.replace(shown, "").isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "❤\ufe0f\u200d🔥",
        "👍🏽",
        "1\ufe0f\u20e3",
        "\u0645\u06cc\u200c\u062e",
        "क्\u200dष",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\u06dd\u0661",
        "日本語\ta",
    ],
)
def test_what_belongs_to_a_script_stays(text: str) -> None:
    assert as_html(text) == text


def test_a_run_of_many_kinds_is_one_mark() -> None:
    """So that a megabyte of them is no page of marks."""
    made = as_html("a" + "\u200b\u200e\u200f" * 10_000)
    assert len(made) < 200
    assert "30,000 invisible" in made


def test_a_direction_control_written_as_an_entity_is_seen() -> None:
    assert ">RLO</span>" in html("a &#8238; b &#x202e;")


def test_addresses_hold_no_invisible_characters() -> None:
    made = html("[x](https://a.example/\u202e\u200b) <https://b.example/\u2066>")
    assert not INVISIBLE.search(made)
    assert 'href="https://a.example/%E2%80%AE%E2%80%8B"' in made


def test_long_texts_are_plain_and_folded() -> None:
    assert rendered("a" * (MOST_MARKDOWN + 1)) is None
    made = plain("a" * 50_000)
    assert "<summary>30,000 more characters</summary>" in made
    assert Seen(made).text.count("a") >= 50_000
    huge = plain("a" * 1_000_000)
    assert f"{1_000_000 - MOST_SHOWN:,} characters after these" in huge
    assert len(huge) < MOST_SHOWN + 1_000


N = MOST_MARKDOWN
BOMBS = {
    "brackets": "[" * N,
    "images": "![" * (N // 2),
    "pairs": "[" * (N // 2) + "]" * (N // 2),
    "links": "[a](" * (N // 4),
    "emphasis": "*a_ " * (N // 4),
    "strong": "**_" * (N // 3),
    "stars": "a*" * (N // 2),
    "quotes": ">" * N,
    "lists": "- " * (N // 2),
    "mixed": "* - + > 1. " * (N // 11),
    "lazy": ">" * 100 + "a\n" + "a\n" * (N // 2 - 60),
    "nested": "\n".join(" " * i + "- a" for i in range(195)),
    "backticks": " ".join("`" * i for i in range(195)),
    "wide table": "|".join("a" * 3000) + "\n" + "|".join("-" * 3000) + "\n" + "a\n" * 3000,
    "long table": "|".join("a" * 40) + "\n" + "|".join("-" * 40) + "\n" + "a\n" * 9000,
    "rules": "---\n" * (N // 4),
    "headings": "a\n=\n" * (N // 4),
    "tags": "<a " * (N // 3),
    "cdata": "<![CDATA[" * (N // 9),
    "references": "".join(f"[a{i}]: b\n" for i in range(N // 12)),
    "entities": "&" * N,
    "line": "x" * 1_000_000,
    "spaces in code": "```c\n" + " " * 6000 + "\n```",
    "many codes": "```java\n" + "a a " * 1400 + "\n```\n",
    "tildes": "~~a " * (N // 4),
    "long reference": "[a]: https://x/" + "é" * 6000 + "\n\n" + "[a]" * 4600,
    "reference": "[a]: https://x/" + "b" * 1900 + "\n\n" + "[a]" * 6000,
    "picture": "[a]: https://x/" + "é" * 6000 + "\n\n" + "![a]" * 3400,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_time(name: str) -> None:
    """0.3 s of this thread at most; where it is shown plain instead, that is quick too."""
    text, shown, took = BOMBS[name][: None if name == "line" else N], "", []
    for _ in range(3):  # what the thread is charged with is not always its own: a collection, a core that is shared
        markdown.forget()
        began = time.thread_time()
        made = rendered(text)
        shown = made if made is not None else plain(text)
        took.append(time.thread_time() - began)
        if took[-1] < 0.3:
            break
    assert min(took) < 0.3, took
    assert len(shown) < 20 * len(text) + 20_000


def test_a_long_address_is_no_link_and_nothing_is_lost() -> None:
    """Of a link and of a picture; the shorter one is still one."""
    short, long = "https://x.example/" + "s" * 1900, "https://x.example/" + "l" * 2000
    made = html(f"[one]({short}) [two]({long}) ![three]({long})")
    assert made.count("<a ") == made.count("</a>") == 1
    assert f'href="{short}"' in made
    assert f"[two]({long}) ![three]({long})" in made


def test_an_empty_address_is_no_link() -> None:
    made = html("[x]() and [*y*](https://a.example/) and [z]( )")
    assert made.count("<a ") == made.count("</a>") == 1
    assert made.startswith("<p>x and <a ")


def test_what_took_long_by_chance_is_rendered_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    markdown.forget()
    with monkeypatch.context() as hurry:
        hurry.setattr(markdown, "MOST_SECONDS", 0.0)
        assert rendered("*a* that waits") is None
    assert rendered("*a* that waits") == "<p><em>a</em> that waits</p>\n"


def test_the_clock_is_the_threads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with much else to do takes nobody's Markdown away."""
    markdown.forget()
    moments = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    assert rendered("*a* on a busy machine") is not None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MOST_SECONDS", 60.0)
    markdown.forget()
    for number in range(600):
        html(f"text {number}")
    large = "# a\n\n" * 2_500
    assert len(html(large)) > 80_000
    huge = "# a\n\n" * 3_300
    assert len(html(huge)) > 100_000
    assert len(markdown._kept) == 512
    assert large in markdown._kept
    assert huge not in markdown._kept
