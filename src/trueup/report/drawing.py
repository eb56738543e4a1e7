"""Tools with which every picture is drawn: a small canvas, a palette that the page resolves, and clean inline SVG.

Matplotlib draws with stand-in colours; afterwards each becomes a CSS variable, so one drawing serves light, dark and
print. Text stays text, in the page's font. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trueup.pages.numbers import MINUS
from trueup.system.text import short_count

WIDTH = 400.0
"""Units a panel is wide: drawn at that size its text is 13 px, and on a phone still 11 or more."""
FONT = 13.0
CHAR = 7.4
"""A generous width of one character of `FONT`: the page's font is not known here."""
LARGEST = 1e100
"""The largest value that is drawn: the margins and grid lines around much larger ones are infinite."""

INK, MUTED, RULE, PAPER, LINE = "#fe0001", "#fe0002", "#fe0003", "#fe0004", "#fe0005"
MODELS = [f"#fe01{index:02x}" for index in range(8)]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "p"]
DASHES: list[tuple[float, tuple[float, ...]]] = [
    (0, ()),
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (3, 1.5)),
    (0, (9, 2)),
    (0, (4, 1.5, 1.5, 1.5, 1.5, 1.5)),
]
_VARIABLES = {INK: "--ink", MUTED: "--ink-2", RULE: "--rule", PAPER: "--card", LINE: "--line"} | {
    colour: f"--m{index}" for index, colour in enumerate(MODELS)
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trueup",
    "text.parse_math": False,  # a model may be called $x^2$
    "font.size": FONT,
    "axes.unicode_minus": True,
    "path.simplify": True,
}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Panel:
    """One drawing (SVG) of a picture, with its heading and its content in words."""

    heading: str
    svg: str
    words: str
    """The content in words, which is also the description inside the SVG."""
    group: str = ""
    """Panels of one group stand in one row, under its name."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page: one or more panels, a legend and a caption."""

    key: str
    title: str
    caption: str
    panels: list[Panel]
    legend: list[str] = field(default_factory=list)
    """Models shown, in order."""
    layout: Literal["beside", "stacked", "rows"] = "beside"
    """The layout of its panels; "rows" are small multiples, a row for each group."""

    @property
    def groups(self) -> list[tuple[str, list[Panel]]]:
        """The panels by the name of their group, in order."""
        names = dict.fromkeys(item.group for item in self.panels)
        return [(name, [item for item in self.panels if item.group == name]) for name in names]


@dataclass(frozen=True)
class Look:
    """The colour, marker and line style of a model, the same everywhere on the page; `index` is the model's number."""

    index: int

    @property
    def colour(self) -> str:
        """The stand-in colour, which becomes a CSS variable in the finished SVG."""
        return MODELS[self.index % len(MODELS)]

    @property
    def marker(self) -> str:
        """The marker's shape, as matplotlib names it."""
        return MARKERS[self.index % len(MARKERS)]

    @property
    def dashes(self) -> tuple[float, tuple[float, ...]]:
        """The line style as matplotlib's (offset, dashes).

        Its cycle is shorter than the markers', so that no two of 56 models are drawn alike.
        """
        return DASHES[self.index % len(DASHES)]


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` units under settings that make drawing and saving deterministic."""
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # Only the layout asks matplotlib's own font; the page's font draws the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def axes(figure: Figure, left: float, top: float, right: float, bottom: float, *, grid: str = "both") -> Axes:
    """Return new axes on a figure: no frame, faint grid lines, muted numbers.

    The margins `left`, `top`, `right` and `bottom` are in units from the figure's edges; `grid` is "x", "y", "both" or
    "none".
    """
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    area = figure.add_axes(box)
    area.patch.set_visible(False)
    for side in area.spines.values():
        side.set_visible(False)
    area.tick_params(length=0, pad=5, labelcolor=MUTED, labelsize=FONT)
    room = (("x", area.xaxis, box[2] * width / 50), ("y", area.yaxis, box[3] * height / 28))
    for name, axis, most in room:
        axis.set_major_locator(MaxNLocator(nbins=max(2, min(5, int(most))), steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        if grid in (name, "both"):
            axis.grid(visible=True, color=RULE, linewidth=1)
    area.set_axisbelow(True)
    return area


def tick(value: float) -> str:
    """Return the text of the number at a grid line of the axes."""
    if abs(value) >= 1e4:
        text = short_count(value)
    elif 0 < abs(value) < 1e-3:
        text = f"{value:.2g}".replace("e-0", "e-")
    else:
        text = f"{value:.4g}"
    return text.replace("-", MINUS)


def fit_numbers(figure: Figure, *areas: Axes) -> None:
    """Move the axes' left edge so that the longest number at the y axis has room; call it once limits are set."""
    need = 12 + CHAR * max(len(tick(value)) for area in areas for value in area.get_yticks())
    left = need / (figure.get_figwidth() * 72)
    for area in areas:
        box = area.get_position()
        area.set_position((left, box.y0, box.x1 - left, box.height))


def note(where: Axes, x: float, y: float, text: str, *, align: str = "left", colour: str = MUTED) -> None:
    """Write a text at the place (x, y), given in fractions of the axes and possibly outside them."""
    where.text(x, y, text, transform=where.transAxes, ha=align, va="baseline", color=colour, fontsize=FONT)  # pyright: ignore[reportArgumentType]


def span(values: Sequence[float], pad: float = 0.08) -> tuple[float, float]:
    """Return axis limits around the values, with a margin of `pad` times their range on either side."""
    low, high = min(values), max(values)
    room = (high - low) * pad or max(abs(high) * pad, 0.05)
    return low - room, high + room


def finite(*values: float | None) -> bool:
    """Return True if no value is None, NaN, infinite or beyond `LARGEST`."""
    return all(value is not None and abs(value) <= LARGEST for value in values)


def panel(figure: Figure, key: str, heading: str, words: str, *, group: str = "") -> Panel:
    """Return a finished figure as a panel: inline SVG with a text alternative.

    Args:
        figure: from `canvas`, still within its `with`.
        key: unique on the page; the ids inside the SVG start with it.
        heading: what the picture shows.
        words: what the picture says, with numbers.
        group: name of the row of panels in which it stands, see `Panel`.
    """
    figure.patch.set_visible(False)
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314 - matplotlib's own output, text escaped by it
    _strip(root)
    _rename(root, key)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    root.attrib |= {"width": f"{width:g}", "height": f"{height:g}", "role": "img", "class": "plot"}
    root.attrib["aria-labelledby"] = f"{key}-title {key}-desc"
    for name, text in (("desc", words), ("title", heading)):
        element = ElementTree.Element(f"{_SVG}{name}", {"id": f"{key}-{name}"})
        element.text, element.tail = text, "\n"
        root.insert(0, element)
    return Panel(heading, _written(root), words, group)


def _written(root: ElementTree.Element) -> str:
    """Return an SVG element as text for inline HTML, with plain tag names without name spaces."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _strip(root: ElementTree.Element) -> None:
    """Remove what an inline SVG does not need, above all its style sheet, which would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    root.attrib.pop("version", None)


def _rename(root: ElementTree.Element, key: str) -> None:
    """Make a figure's SVG fit into the page: ids unique, colours as CSS variables, the page's font, numbers shortened.

    Ids that are used get `key` in front; the others are removed.
    """
    used = {element.attrib[_LINK][1:] for element in root.iter() if _LINK in element.attrib}
    clips = (re.search(r"#(\w+)", element.get("clip-path", "")) for element in root.iter())
    used |= {found[1] for found in clips if found}
    for element in root.iter():
        identity = element.attrib.pop("id", "")
        if identity in used:
            element.set("id", f"{key}-{identity}")
        if _LINK in element.attrib:
            element.set("href", f"#{key}-{element.attrib.pop(_LINK)[1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{key}-"))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if "style" in element.attrib:
            element.set("style", _style(element.attrib["style"]))
        for name in ("d", "x", "y"):
            if name in element.attrib:
                short = re.sub(
                    r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), element.attrib[name]
                )
                element.set(name, " ".join(short.split()))


def _style(style: str) -> str:
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return style
