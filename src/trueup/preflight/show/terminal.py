"""The mask view on a terminal or in a file: 80 columns, and a gutter that says what is trained without a colour."""

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
    """How the view marks things, in characters that the output has."""

    trained: str = "▌"
    read: str = "·"
    newline: str = "⏎"
    tab: str = "⇥"
    space: str = "␣"
    arrow: str = "◀"


_PLAIN = _Signs(trained="T", read=".", newline=r"\n", tab=r"\t", space="_", arrow="<")


def print_view(view: View, console: Console | None = None, *, tokens: bool = False) -> None:
    """Print the view: what is wrong last, where it is seen, and above each row that has it.

    Args:
        view: from `view`.
        console: where to; by default stdout.
        tokens: a line for every token, with its position and id, instead of running text.
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
        self._say(labels.title(self._view), style="bold")
        self._say(labels.lead(self._view))
        self._say(self._legend(tokens), style="dim")
        for row in self._view.rows:
            self._out.print()
            self._say(labels.row_title(row), style="bold")
            for fault in row.wrong:
                self._say(f"[X] {fault}", style="bold red")
            for line in (labels.row_size(row, self._view), row.sees, *row.notes):
                self._say(line, indent=2)
            for segment in row.segments:
                self._segment(segment, tokens)
        self._totals()

    def _legend(self, tokens: bool) -> str:
        signs = self._signs
        trained = "the score that trains" if self._mark == "SCORE" else "trained"
        said = f"{signs.trained} {trained}   {signs.read} only read   [x] special   {signs.newline} new line"
        if self._mark == "END":
            said += f"   {signs.arrow}END trained end token"
        return f"{said}   (each line: position, id, token)" if tokens else said

    def _segment(self, segment: Segment, tokens: bool) -> None:
        heading = Text("  ").append(segment.name, style="bold").append(f"  {labels.segment_size(segment, self._view)}")
        self._lines(heading, "")
        for trained, run in segment.runs:
            gutter = f"{self._signs.trained if trained else self._signs.read} "
            for line in self._listed(run) if tokens else self._running(run).split("\n"):
                self._lines(line, gutter, style="green" if trained else "")

    def _totals(self) -> None:
        self._out.print()
        said = labels.sums(self._view)
        room = max(len(label) for label, _ in said) + 2
        for label, text in said:
            self._lines(Text(self._shown(text)), label.ljust(room), rest=" " * room)
        for fault in labels.wrong(self._view):
            self._say(f"[X] {fault}", style="bold red")

    # -- text ----------------------------------------------------------------------------------------------------

    def _running(self, run: Sequence[Token]) -> Text:
        """Tokens as running text. Broken after each new line that they hold."""
        text, plain = Text(), ""
        for token in run:
            if token.special:
                self._append(text, plain)
                plain = ""
                text.append(f"[{self._shown(token.text)}]", style="bold")
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
                text.append(self._shown(part))
            else:
                sign = {"newline": f"{signs.newline}\n", "tab": signs.tab, "space": signs.space * len(part)}[kind]
                text.append(sign, style="dim")

    def _listed(self, run: Sequence[Token]) -> Iterator[Text]:
        """A line for each token."""
        signs = self._signs
        for token in run:
            alone = clean(token.alone.replace("\n", signs.newline).replace("\t", signs.tab), one_line=True)
            shown = self._shown(_SPACES.sub(lambda match: signs.space * len(match[0]), alone))
            line = Text(f"{token.position:>6}{token.id:>8}  ", style="dim")
            line.append(f"[{shown}]" if token.special else shown, style="bold" if token.special else "not dim")
            if self._marked(token):
                line.append(f"{signs.arrow}{self._mark}", style="bold")
            yield line

    def _say(self, text: str, *, style: str = "", indent: int = 0) -> None:
        self._lines(Text(self._shown(text), style=style), " " * indent)

    def _lines(self, text: Text, first: str, *, rest: str | None = None, style: str = "") -> None:
        """Print text in as many lines as it needs, the first behind `first`, the others behind `rest` or the same."""
        gutter = first
        for line in text.divide(_cuts(text.plain, self._width - cell_len(first))):
            line.rstrip()
            self._out.print(Text(gutter, style=style).append_text(Text(style=style).append_text(line)), soft_wrap=True)
            gutter = first if rest is None else rest

    def _shown(self, text: str) -> str:
        """What the output's encoding lacks is written out, so that a line is as wide as was reckoned."""
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
    """Where to break text so that each line fits: behind a space where there is one, which may hang over."""
    cuts: list[int] = []
    start = space = used = 0
    for at, char in enumerate(text):
        size = cell_len(char)
        if char != " " and used + size > width and at > start:
            start = space if space > start else at
            cuts.append(start)
            used = cell_len(text[start:at])
        used += size
        if char == " ":
            space = at + 1
    return cuts
