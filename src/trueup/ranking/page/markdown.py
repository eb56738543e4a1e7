"""Render answers from Markdown to harmless HTML, in bounded time: nothing in an answer can run or load anything.

A text that is long or takes long is shown plain instead: no answer is left out, and none stalls the server.
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
"""Longest text in characters that is read as Markdown."""
MOST_SECONDS = 0.2
"""CPU seconds after which a text is shown plain; code is coloured only in the first half of them."""
MOST_LINK = 2_000
"""Longest address of a link in characters; a longer one is shown as written."""
FIRST, MOST_SHOWN = 20_000, 200_000
"""Characters of a plain text that are shown unfolded, and that are sent at all."""
_MOST_CODE = 6_000  # characters of a code block that is coloured
_MOST_CELLS = 2_000  # of a table
_KEPT, _MOST_KEPT = 512, 100_000  # renderings that are kept, and characters of one
_GAP = re.compile(
    r"\s{100}"
)  # code with more white space than anybody writes: for C's lexer 6,000 spaces are 2 seconds

_LINK = re.compile(r"(https?://[^/\s]|mailto:[^\s]+@)", re.IGNORECASE)
# Languages to colour, each timed: a lexer is many regular expressions, and some are slow.
_LANGUAGES = {
    "bash": "bash", "sh": "bash", "shell": "bash", "zsh": "bash", "c": "c", "cpp": "cpp", "c++": "cpp", "css": "css",
    "diff": "diff", "go": "go", "html": "html", "java": "java", "javascript": "javascript",
    "js": "javascript", "json": "json", "kotlin": "kotlin", "py": "python", "python": "python", "python3": "python",
    "rs": "rust", "rust": "rust", "sql": "sql", "toml": "toml", "ts": "typescript", "typescript": "typescript",
    "xml": "xml", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip


class _TooSlowError(Exception):
    """Raised when rendering a text takes more CPU time than it may."""


class _TooMuchError(Exception):
    """Raised when the HTML gets far longer than the text, as when one long address is used by many reference links."""


@dataclass(slots=True)
class _Budget:
    """CPU time and size that the rendering of a text may still use.

    Attributes:
        until: CPU time of the thread (time.thread_time()) at which rendering stops.
        left: characters of HTML that may still be written.
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
    """Return a text's Markdown as HTML; None if text or HTML is too long, or rendering takes too long."""
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
    """Clear the cache of renderings."""
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
    """Cache a rendering unless it is large, and drop the least recently used one."""
    if len(html or "") > _MOST_KEPT:
        return
    with _keeping:
        _kept[text] = html
        if len(_kept) > _KEPT:
            _kept.popitem(last=False)


def plain(text: str) -> str:
    """Return a text as escaped HTML without Markdown: folded if long, and only counted beyond MOST_SHOWN."""
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
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.block.ruler.at("table", _small_table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before("table", "time", _block_time, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("text", "time", _inline_time)
    parser.validateLink = lambda url: len(url) <= MOST_LINK and _LINK.match(url) is not None
    return parser


def _inline_time(_state: StateInline, _silent: bool) -> bool:
    _budget.get().check_time()
    return False


def _block_time(_state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
    _budget.get().check_time()
    return False


def _small_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse a table by markdown-it's rule if it is of readable size; else it stays text.

    The rule fills in missing cells, of which a short text can ask for thousands.
    """
    if start + 2 > end or not _DELIMITERS.fullmatch(state.getLines(start + 1, start + 2, 0, False)):
        return False
    columns = state.getLines(start, start + 1, 0, False).count("|") + 1
    most = min(end, start + _MOST_CELLS // columns + 1)
    short = most == end or any(state.isEmpty(line) for line in range(start, most))
    return short and _table_rule(state, start, end, silent)


_DELIMITERS = re.compile(r"[\s|:>-]+")


class _Renderer(RendererHTML):
    """Renderer of Markdown to HTML; of an answer's free text only link addresses get into an attribute."""

    def image(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return an image as text, its description and its address: the picture is never loaded."""
        token = tokens[idx]
        address = str(token.attrs.get("src", ""))
        shown = address if len(address) <= 120 else f"{address[:119]}…"
        return (
            f'<span class="image"><span>picture, not loaded:</span> {escape(_alt(token))} '
            f"<code>{escape(shown)}</code></span>"
        )

    def link_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a link, which opens a new tab and sends no referrer."""
        href = escape(str(tokens[idx].attrs.get("href", "")))
        return (
            _budget.get().spend(f'<a href="{href}" target="_blank" rel="noopener noreferrer nofollow">') if href else ""
        )

    def link_close(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the closing tag of a link, or "" if none was opened: `[x]()` has no address."""
        opened = next(token for token in reversed(tokens[:idx]) if token.type == "link_open")
        return "</a>" if opened.attrs.get("href") else ""

    def heading_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a heading: <h3> whatever its level, as the page itself uses the levels above."""
        return f'<h3 class="{tokens[idx].tag}" dir="auto">'

    def heading_close(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the closing tag of a heading."""
        return "</h3>\n"

    def table_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tags of a table, in a box that scrolls if the table is too wide."""
        return '<div class="wide" role="group" aria-label="Table"><table dir="auto">\n'

    def table_close(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the closing tags of a table and its box."""
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a table cell, aligned by a class, as the page's policy forbids inline styles."""
        return f"<{tokens[idx].tag}{_ALIGNED.get(str(tokens[idx].attrs.get('style')), '')}>"

    td_open = th_open

    def ordered_list_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a numbered list, which starts at the number given in the text."""
        start = int(tokens[idx].attrs.get("start", 1))
        return f'<ol dir="auto" start="{start}">\n' if start != 1 else '<ol dir="auto">\n'

    def bullet_list_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a bullet list; its direction is its text's, so Arabic has bullets on the right."""
        return '<ul dir="auto">\n'

    def blockquote_open(self, _tokens: Sequence[Token], _idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return the opening tag of a quotation; its direction is its text's, so Arabic has the bar on the right."""
        return '<blockquote dir="auto">\n'

    def fence(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return a fenced code block as HTML, coloured if its language is known."""
        words = tokens[idx].info.split()
        return _code(tokens[idx].content, words[0].lower() if words else "")

    def code_block(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        """Return an indented code block as HTML, without colours."""
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
    """Return code as HTML with Pygments' classes for its colours; "" if that takes too long.

    The CPU time is checked after each token of the code.
    """
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    until, tokens = _budget.get().until - MOST_SECONDS / 2, []
    for kind, value in lexer.get_tokens(code):
        if time.thread_time() > until:
            return ""
        tokens.append((kind, value))
    return pygments.format(tokens, HtmlFormatter(nowrap=True))
