"""Answers as HTML that can do nothing: no tag of theirs, no image, no script, no request; in bounded time.

What is long, or takes long, is shown as plain text instead: an answer is never left out, and never stalls the server.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from html import escape

import pygments
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import table as _table_rule
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from trueup.ranking.page.invisible import as_html, marked

MOST_MARKDOWN = 20_000
"""Characters of a text that is read as Markdown at most."""
MOST_SECONDS = 0.2
"""After so long, of this thread's own work, a text is shown plain; code is coloured in the first half of it only."""
MOST_LINK = 2_000
"""Characters of an address; what would be a link to a longer one is shown as it was written."""
FIRST, MOST_SHOWN = 20_000, 200_000
"""Characters of a plain text before its fold, and in the page at all."""
_MOST_CODE = 6_000  # characters of a code block that is coloured
_MOST_CELLS = 2_000  # of a table
_KEPT, _MOST_KEPT = 512, 100_000  # renderings that are kept, and characters of one
_GAP = re.compile(
    r"\s{100}"
)  # code with more white space than anybody writes: for C's lexer 6,000 spaces are 2 seconds

_LINK = re.compile(r"(https?://[^/\s]|mailto:[^\s]+@)", re.IGNORECASE)
# Languages worth colouring, a list that somebody timed: a lexer is many regular expressions, and some are slow.
_LANGUAGES = {
    "bash": "bash", "sh": "bash", "shell": "bash", "zsh": "bash", "c": "c", "cpp": "cpp", "c++": "cpp", "css": "css",
    "diff": "diff", "go": "go", "html": "html", "java": "java", "javascript": "javascript",
    "js": "javascript", "json": "json", "kotlin": "kotlin", "py": "python", "python": "python", "python3": "python",
    "rs": "rust", "rust": "rust", "sql": "sql", "toml": "toml", "ts": "typescript", "typescript": "typescript",
    "xml": "xml", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip


class _TooSlowError(Exception):
    """Rendering took more time than it may."""


class _TooMuchError(Exception):
    """A text became far more HTML than it is: an address that many links share is written for each."""


@dataclass(slots=True)
class _Budget:
    """What a rendering may still use.

    Attributes:
        until: time.thread_time() at which a rule stops.
        left: characters of HTML.
    """

    until: float
    left: int

    def check_time(self) -> None:
        if time.thread_time() > self.until:
            raise _TooSlowError

    def spend(self, html: str) -> str:
        self.left -= len(html)
        if self.left < 0:
            raise _TooMuchError
        return html


_budget: ContextVar[_Budget] = ContextVar("budget")
_kept: OrderedDict[str, str | None] = OrderedDict()
_keeping = threading.Lock()


def rendered(text: str) -> str | None:
    """A text's Markdown as HTML; None where it is too long, would take too long, or becomes too much."""
    if len(text) > MOST_MARKDOWN:
        return None
    with _keeping:
        if text in _kept:
            _kept.move_to_end(text)
            return _kept[text]
    try:
        html = _render(text)
    except _TooSlowError:  # perhaps by chance: not kept
        return None
    _keep(text, html)
    return html


def forget() -> None:
    """Render everything anew."""
    with _keeping:
        _kept.clear()


def _render(text: str) -> str | None:
    most = 20 * len(text) + 10_000
    _budget.set(_Budget(time.thread_time() + MOST_SECONDS, most))
    try:
        html = _parser().render(text)
    except (_TooMuchError, RecursionError):
        return None
    return marked(html) if len(html) <= most else None


def _keep(text: str, html: str | None) -> None:
    """Keep a rendering that is not large, and forget the one that was used longest ago."""
    if len(html or "") > _MOST_KEPT:
        return
    with _keeping:
        _kept[text] = html
        if len(_kept) > _KEPT:
            _kept.popitem(last=False)


def plain(text: str) -> str:
    """A text as it is, escaped, folded where it is long; beyond MOST_SHOWN characters it says how many are left."""
    first, rest, left = text[:FIRST], text[FIRST:MOST_SHOWN], len(text) - MOST_SHOWN
    html = f'<div class="said" dir="auto">{as_html(first)}</div>'
    if rest:
        html += (
            f'<details class="rest"><summary>{len(text) - len(first):,} more characters</summary>'
            f'<div class="said" dir="auto">{as_html(rest)}</div></details>'
        )
    if left > 0:
        html += f'<p class="fine">{left:,} characters after these are not shown here; the store has them all.</p>'
    return html


@cache
def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}, renderer_cls=_Renderer)
    made.enable(["table", "strikethrough"])
    made.block.ruler.at("table", _small_table, {"alt": ["paragraph", "reference"]})
    made.block.ruler.before("table", "time", _block_time, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    made.inline.ruler.before("text", "time", _inline_time)
    made.validateLink = lambda url: len(url) <= MOST_LINK and _LINK.match(url) is not None
    return made


def _inline_time(_state: StateInline, _silent: bool) -> bool:
    _budget.get().check_time()
    return False


def _block_time(_state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
    _budget.get().check_time()
    return False


def _small_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The table's rule, for tables that somebody could read: cells that are missing are made up, by the thousand."""
    if start + 2 > end or not _DELIMITERS.fullmatch(state.getLines(start + 1, start + 2, 0, False)):
        return False
    columns = state.getLines(start, start + 1, 0, False).count("|") + 1
    most = min(end, start + _MOST_CELLS // columns + 1)
    short = most == end or any(state.isEmpty(line) for line in range(start, most))
    return short and _table_rule(state, start, end, silent)


_DELIMITERS = re.compile(r"[\s|:>-]+")


class _Renderer(RendererHTML):
    """HTML in which no attribute but a link's address comes from the text."""

    def image(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """What is said of a picture and where it would be, in words: nothing is loaded."""
        token = tokens[idx]
        address = str(token.attrs.get("src", ""))
        shown = address if len(address) <= 120 else f"{address[:119]}…"
        return (
            f'<span class="image"><span>picture, not loaded:</span> {escape(_alt(token))} '
            f"<code>{escape(shown)}</code></span>"
        )

    def link_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A link that opens elsewhere and tells nobody where it was."""
        href = escape(str(tokens[idx].attrs.get("href", "")))
        return (
            _budget.get().spend(f'<a href="{href}" target="_blank" rel="noopener noreferrer nofollow">') if href else ""
        )

    def link_close(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """The end of a link, where one began: `[x]()` leads nowhere."""
        opened = next(tokens[at] for at in range(idx - 1, -1, -1) if tokens[at].type == "link_open")
        return "</a>" if opened.attrs.get("href") else ""

    def heading_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Below the page's own headings, whatever it was."""
        return f'<h3 class="{tokens[idx].tag}" dir="auto">'

    def heading_close(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """The end of a heading."""
        return "</h3>\n"

    def table_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A table in a box of its own, which scrolls where it is too wide."""
        return '<div class="wide" role="group" aria-label="Table"><table dir="auto">\n'

    def table_close(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """The end of a table."""
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A cell, aligned by class: the page allows no style in place."""
        return f"<{tokens[idx].tag}{_ALIGNED.get(str(tokens[idx].attrs.get('style')), '')}>"

    td_open = th_open

    def ordered_list_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A list that starts where the text says."""
        start = int(tokens[idx].attrs.get("start", 1))
        return f'<ol dir="auto" start="{start}">\n' if start != 1 else '<ol dir="auto">\n'

    def bullet_list_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A list whose marks stand on the side where its words begin."""
        return '<ul dir="auto">\n'

    def blockquote_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A quotation, likewise."""
        return '<blockquote dir="auto">\n'

    def fence(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """A code block, coloured where its language is known."""
        words = tokens[idx].info.split()
        return _code(tokens[idx].content, words[0].lower() if words else "")

    def code_block(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """An indented code block."""
        return _code(tokens[idx].content, "")


_ALIGNED = {f"text-align:{side}": f' class="{side}"' for side in ("left", "right", "center")}


def _alt(token: Token) -> str:
    return "".join(
        _alt(child) if child.type == "image" else child.content if child.type == "text" else ""
        for child in token.children or []
    )


def _code(code: str, language: str) -> str:
    known = _LANGUAGES.get(language)
    inner = _coloured(code, known) if known and len(code) <= _MOST_CODE and not _GAP.search(code) else ""
    label = f"Code, {known}" if known else "Code"
    return f'<pre dir="ltr" role="group" aria-label="{label}"><code>{inner or escape(code, quote=False)}</code></pre>\n'


def _coloured(code: str, language: str) -> str:
    """Code with Pygments' classes; nothing where that takes too long. The clock is looked at after each token."""
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    until, tokens = _budget.get().until - MOST_SECONDS / 2, []
    for kind, value in lexer.get_tokens(code):
        if time.thread_time() > until:
            return ""
        tokens.append((kind, value))
    return pygments.format(tokens, HtmlFormatter(nowrap=True))
