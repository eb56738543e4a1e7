"""Print the mask view (which tokens train) in 80 columns, with a gutter that marks trained tokens without colour."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from trueup.preflight.show import labels
from trueup.preflight.show.mask_view import Segment, Token, View
from trueup.system.console import make_console
from trueup.system.text import clean

_WIDTH = 80
_SPACES = re.compile(r"^ +| +$")


@dataclass(frozen=True, slots=True)
class _Signs:
    """Characters that mark trained tokens, spaces and line ends in the view; the output's encoding must have them."""

    trained: str = "▌"
    read: str = "·"
    newline: str = "⏎"
    tab: str = "⇥"
    space: str = "␣"
    arrow: str = "◀"


_PLAIN = _Signs(trained="T", read=".", newline=r"\n", tab=r"\t", space="_", arrow="<")


def print_view(view: View, console: Console | None = None, *, tokens: bool = False) -> None:
    """Print the mask view: each row's tokens, marked as trained or only read, and totals.

    Faults stand above each row that has them, and again at the end, where they are seen first.

    Args:
        view: from `view`.
        console: by default stdout.
        tokens: True prints a line for every token, with its position and id, instead of running text.
    """
    _MaskPrinter(view, console or make_console(stderr=False)).all(tokens)


class _MaskPrinter:
    def __init__(self, view: View, out: Console) -> None:
        self._view, self._out = view, out
        self._width = min(out.width, _WIDTH)
        self._encoding = out.encoding
        self._signs = _Signs() if self._has("▌·⏎⇥␣◀") else _PLAIN
        self._mark = "SCORE" if view.method == "reward" else "END"

    def all(self, tokens: bool) -> None:
        self._print(labels.title(self._view), style="bold")
        self._print(labels.lead(self._view))
        self._print(self._legend(tokens), style="dim")
        for row in self._view.rows:
            self._out.print()
            self._print(labels.row_title(row), style="bold")
            for fault in row.faults:
                self._print(f"[X] {fault}", style="bold red")
            for line in (labels.row_size(row, self._view), row.attention, *row.notes):
                self._print(line, indent=2)
            for segment in row.segments:
                self._segment(segment, tokens)
        self._totals()

    def _legend(self, tokens: bool) -> str:
        signs = self._signs
        trained = "the score that trains" if self._mark == "SCORE" else "trained"
        legend = f"{signs.trained} {trained}   {signs.read} only read   [x] special   {signs.newline} new line"
        if self._mark == "END":
            legend += f"   {signs.arrow}END trained end token"
        return f"{legend}   (each line: position, id, token)" if tokens else legend

    def _segment(self, segment: Segment, tokens: bool) -> None:
        heading = Text("  ").append(segment.name, style="bold").append(f"  {labels.segment_size(segment, self._view)}")
        self._lines(heading, "")
        for trained, run in segment.runs:
            gutter = f"{self._signs.trained if trained else self._signs.read} "
            for line in self._listed(run) if tokens else self._running(run).split("\n"):
                self._lines(line, gutter, style="green" if trained else "")

    def _totals(self) -> None:
        self._out.print()
        sums = labels.sums(self._view)
        room = max(len(label) for label, _ in sums) + 2
        for label, text in sums:
            self._lines(Text(self._printable(text)), label.ljust(room), rest=" " * room)
        for fault in labels.fault_lines(self._view):
            self._print(f"[X] {fault}", style="bold red")

    # -- text ----------------------------------------------------------------------------------------------------

    def _running(self, run: Sequence[Token]) -> Text:
        """Return tokens as running text, broken after each new line in them."""
        text, plain = Text(), ""
        for token in run:
            if token.special:
                self._append(text, plain)
                plain = ""
                text.append(f"[{self._printable(token.text)}]", style="bold")
            else:
                plain += token.text
            if self._marked(token):
                self._append(text, plain)
                plain = ""
                text.append(f"{self._signs.arrow}{self._mark}", style="bold")
        self._append(text, plain)
        if text.plain.endswith("\n"):
            text.right_crop(1)
        return text

    def _marked(self, token: Token) -> bool:
        return token.end or (token.trained and self._view.method == "reward")

    def _append(self, text: Text, plain: str) -> None:
        signs = self._signs
        for kind, part in labels.parts(plain):
            if kind == "text":
                text.append(self._printable(part))
            else:
                sign = {"newline": f"{signs.newline}\n", "tab": signs.tab, "space": signs.space * len(part)}[kind]
                text.append(sign, style="dim")

    def _listed(self, run: Sequence[Token]) -> Iterator[Text]:
        """Yield a line for each token: its position, its id and its text."""
        signs = self._signs
        for token in run:
            alone = clean(token.alone.replace("\n", signs.newline).replace("\t", signs.tab), one_line=True)
            text = self._printable(_SPACES.sub(lambda match: signs.space * len(match[0]), alone))
            line = Text(f"{token.position:>6}{token.id:>8}  ", style="dim")
            line.append(f"[{text}]" if token.special else text, style="bold" if token.special else "not dim")
            if self._marked(token):
                line.append(f"{signs.arrow}{self._mark}", style="bold")
            yield line

    def _print(self, text: str, *, style: str = "", indent: int = 0) -> None:
        self._lines(Text(self._printable(text), style=style), " " * indent)

    def _lines(self, text: Text, first: str, *, rest: str | None = None, style: str = "") -> None:
        """Print text, its first line after the gutter `first`, further lines after `rest` (or `first`)."""
        gutter = first
        for line in text.divide(_cuts(text.plain, self._width - cell_len(first))):
            line.rstrip()
            self._out.print(Text(gutter, style=style).append_text(Text(style=style).append_text(line)), soft_wrap=True)
            gutter = first if rest is None else rest

    def _printable(self, text: str) -> str:
        """Return the text with characters that the output's encoding lacks as escapes, so that widths are known."""
        if self._has(text):
            return text
        plain = text.replace("⟨", "<").replace("⟩", ">")  # around bytes that are no character
        return plain.encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _has(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True


def _cuts(text: str, width: int) -> list[int]:
    """Return the indices at which to break a text into lines of `width` cells: after a space, or in a long word."""
    cuts: list[int] = []
    start = space = used = 0
    for index, char in enumerate(text):
        size = cell_len(char)
        if char != " " and used + size > width and index > start:
            start = space if space > start else index
            cuts.append(start)
            used = cell_len(text[start:index])
        used += size
        if char == " ":
            space = index + 1
    return cuts
