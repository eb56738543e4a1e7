"""Rows of values with intervals: the tax topic by topic (a forest plot), and refusals model by model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trueup.pages.numbers import estimate
from trueup.pages.text import one_line
from trueup.report.drawing import (
    CHAR,
    INK,
    LINE,
    MUTED,
    PAPER,
    WIDTH,
    Look,
    Panel,
    Picture,
    axes,
    canvas,
    finite,
    note,
    panel,
    span,
)
from trueup.report.report_schema import Difference, Measure, Report, ReportMissing, ReportNumber, Topic

LABEL = 20
"""Characters of a topic or model beside a picture; the words under the picture have the whole name."""
_TOPICS = 30

TopicRow = tuple[Topic, dict[str, Difference]]


# -- rows with intervals ---------------------------------------------------------------------------------------------


def room_for(labels: Iterable[str]) -> float:
    """The margin that the longest label needs."""
    return 14 + CHAR * max((len(label) for label in labels), default=0)


def name_rows(area: Axes, at: Sequence[float], labels: Sequence[str]) -> None:
    """Write a label beside each row."""
    area.set_yticks(list(at), list(labels))
    for text in area.get_yticklabels():
        text.set_color(INK)


def whisker(
    area: Axes, one: ReportNumber, y: float, look: Look, *, hollow: bool = False, upright: float | None = None
) -> None:
    """A value with its interval, lying at height `y`, or standing at `upright`."""
    ends, value = ([one.low, one.high], one.value)
    if upright is None:
        area.plot(ends, [y, y], color=look.colour, linewidth=2, solid_capstyle="butt")
        at = ([value], [y])
    else:
        area.plot([upright, upright], ends, color=look.colour, linewidth=2, solid_capstyle="butt")
        at = ([upright], [value])
    area.plot(
        *at,
        marker=look.marker,
        markersize=8,
        markerfacecolor=PAPER if hollow else look.colour,
        markeredgecolor=look.colour,
        markeredgewidth=1.8,
        linestyle="none",
        clip_on=False,
    )


def tax(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """For every measure with topics, a panel with the paired differences of each topic."""
    order = [name for name in looks if name != report.against]
    drawn: list[tuple[Measure, list[TopicRow]]] = []
    for measure in report.measures:
        rows = _rows(measure, order) if measure.topics else []
        if rows:
            drawn.append((measure, rows))
    if not drawn:
        return ReportMissing(what="tax by topic", why="no paired difference was measured topic by topic")
    against = one_line(report.against or "the baseline")
    panels = [_forest(f"tax{at}", one, rows[: _TOPICS + 1], looks, against) for at, (one, rows) in enumerate(drawn)]
    caption = f"Paired differences from {against}, item by item, with 95% intervals; what "
    caption += f"{one_line(order[-1])} lost most comes first. "
    caption += "Filled: the interval leaves out zero. Hollow: not shown either way."
    if any(len(rows) > _TOPICS + 1 for _, rows in drawn):
        caption += f" The first {_TOPICS} topics; the tables have all."
    names = [name for name in order if any(name in found for _, rows in drawn for _, found in rows)]
    return Picture("tax", "The tax by topic", caption, panels, names)


def _rows(measure: Measure, order: Sequence[str]) -> list[TopicRow]:
    """All topics together, then each, the one where the last model lost most first."""
    every = Topic(topic="all topics", values=measure.values, differences=measure.differences)
    sense = -1 if measure.better == "lower" else 1

    def lost(row: TopicRow) -> float:
        found = next((row[1][name].value for name in reversed(order) if name in row[1]), 0.0)
        return sense * found

    rows = [(one, _drawable(one)) for one in [every, *measure.topics]]
    rows = [(one, found) for one, found in rows if found]
    return [*(row for row in rows if row[0] is every), *sorted((row for row in rows if row[0] is not every), key=lost)]


def _drawable(topic: Topic) -> dict[str, Difference]:
    return {name: one for name, one in topic.differences.items() if finite(one.value, one.low, one.high)}


def _forest(key: str, measure: Measure, rows: list[TopicRow], looks: dict[str, Look], against: str) -> Panel:
    names = [name for name in looks if any(name in found for _, found in rows)]
    step = len(names) * 14 + 12
    labels = [one_line(one.topic, LABEL) for one, _ in rows]
    bounds = [bound for _, found in rows for one in found.values() for bound in (one.low, one.high)]
    with canvas(WIDTH, 30 + 44 + step * len(rows)) as figure:
        area = axes(figure, room_for(labels), 30, 14, 44, grid="x")
        area.set_xlim(*span([0.0, *bounds]))
        area.set_ylim(step * len(rows), 0)
        area.axvline(0, color=LINE, linewidth=1.4)
        if rows[0][0].topic == "all topics" and len(rows) > 1:
            area.axhline(step, color=LINE, linewidth=0.8)
        words: list[str] = []
        for index, (topic, found) in enumerate(rows):
            for place, name in enumerate(names):
                if name in found:
                    y = step * index + 13 + 14 * place
                    whisker(area, found[name], y, looks[name], hollow=not found[name].shown)
            words.append(_topic_words(measure, topic, found))
        name_rows(area, [step * (index + 0.5) for index in range(len(rows))], labels)
        _directions(figure, area, measure)
        area.set_xlabel(f"difference from {one_line(against, 16)}", color=MUTED, loc="right", labelpad=4)
        return panel(figure, key, f"{one_line(measure.title)}, {one_line(measure.unit)}", " ".join(words))


def _directions(figure: Figure, area: Axes, measure: Measure) -> None:
    """Which side of zero is the good one, above the plot, in words and arrows."""
    words = {"higher": ("worse", "better"), "lower": ("better", "worse"), "neither": ("less", "more")}
    left, right = words[measure.better]
    low, high = area.get_xlim()
    zero, box = -low / (high - low), area.get_position()
    top = 1 + 9 / (box.height * figure.get_figheight() * 72)
    width = box.width * WIDTH
    # The word of a side that is too narrow for it would leave the picture.
    if zero * width > 58:
        note(area, zero - 6 / width, top, f"← {left}", align="right")
    if (1 - zero) * width > 58:
        note(area, zero + 6 / width, top, f"{right} →")


def _topic_words(measure: Measure, topic: Topic, found: dict[str, Difference]) -> str:
    parts = [
        f"{one_line(name)} {estimate(difference, sign=True)}, n {difference.n}, {measure.judgement(difference)}"
        for name, difference in found.items()
    ]
    return f"{one_line(topic.topic)}: {'; '.join(parts)}."


# -- refusals --------------------------------------------------------------------------------------------------------


def refusals(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """Over-refusal and compliance with unsafe requests, each model with its interval."""
    found = [
        one for one in report.measures if is_refusal(one) and any(drawable(value) for value in one.values.values())
    ]
    if not found:
        return ReportMissing(what="over-refusal and unsafe compliance", why="no refusal was measured")
    panels = [_dots(f"refusal{index}", one, looks) for index, one in enumerate(found)]
    caption = (
        "Shares with 95% intervals, each model on the same requests. Refusing what is harmless and answering what "
    )
    caption += "is harmful are two errors; one is easily bought with the other."
    return Picture("refusals", "Refusals", caption, panels, layout="stacked")


def is_refusal(measure: Measure) -> bool:
    """Whether a measure is about over-refusal or unsafe compliance, by its key."""
    key = measure.key.lower().replace("_", "-")
    return "refusal" in key or "unsafe" in key


def drawable(one: ReportNumber) -> bool:
    """Whether a number is finite with its interval."""
    return finite(one.value, one.low, one.high)


def _dots(key: str, measure: Measure, looks: dict[str, Look]) -> Panel:
    values = {name: measure.values[name] for name in looks if name in measure.values and drawable(measure.values[name])}
    labels = [one_line(name, LABEL) for name in values]
    step = 30
    with canvas(WIDTH, 12 + 44 + step * len(values)) as figure:
        area = axes(figure, room_for(labels), 12, 16, 44, grid="x")
        area.set_xlim(-0.02 if all(one.low >= 0 for one in values.values()) else None, None)
        area.set_ylim(step * len(values), 0)
        for index, (name, one) in enumerate(values.items()):
            whisker(area, one, step * (index + 0.5), looks[name])
        name_rows(area, [step * (index + 0.5) for index in range(len(values))], labels)
        area.set_xlabel(one_line(measure.unit, 36), color=MUTED, loc="right", labelpad=4)
        words = "; ".join(f"{one_line(name)} {estimate(one)}, n {one.n}" for name, one in values.items())
        return panel(figure, key, one_line(measure.title), f"{words}.")
